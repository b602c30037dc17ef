//! Fits the task types of `router::topic` by linfa's multinomial logistic regression, on the requests
//! whose callers named theirs.

use std::collections::BTreeMap;

use linfa::DatasetBase;
use linfa::traits::Fit as _;
use linfa_logistic::{MultiFittedLogisticRegression, MultiLogisticRegression};
use ndarray::{Array1, Array2, ArrayView2};
use pointsman_router::ids::TaskType;
use pointsman_router::topic::Topics;

/// A task type counts from so many requests on.
const ROWS_MIN: usize = 20;
/// Rows that are fitted on, at most.
const ROWS_MAX: usize = 8_000;
/// L2 penalty.
const ALPHA: f64 = 1.0;
const ITERATIONS_MAX: u64 = 60;

/// The task types of these requests; none where fewer than two are named often enough. `inputs` are the
/// dense inputs without the constant.
#[must_use]
pub fn topics(inputs: ArrayView2<'_, f32>, tasks: &[Option<TaskType>]) -> Topics {
    let Some((fitted, _)) = fit(inputs, tasks) else { return Topics::default() };
    let weights =
        fitted.params().columns().into_iter().zip(fitted.intercept()).flat_map(|(weights, intercept)| {
            std::iter::once(narrow(*intercept)).chain(weights.iter().map(|w| narrow(*w)).collect::<Vec<_>>())
        });
    let weights = weights.collect();
    Topics { tasks: fitted.classes().iter().map(|name| TaskType::new(name)).collect(), weights }
}

type Fitted = MultiFittedLogisticRegression<f64, String>;

fn fit(inputs: ArrayView2<'_, f32>, tasks: &[Option<TaskType>]) -> Option<(Fitted, Array2<f64>)> {
    let mut counts: BTreeMap<&TaskType, usize> = BTreeMap::new();
    tasks.iter().flatten().for_each(|task| *counts.entry(task).or_default() += 1);
    counts.retain(|_, count| *count >= ROWS_MIN);
    if counts.len() < 2 {
        return None;
    }
    let named = tasks.iter().enumerate().filter_map(|(at, task)| Some((at, task.as_ref()?)));
    let named: Vec<(usize, &TaskType)> =
        named.filter(|(_, task)| counts.contains_key(task)).take(ROWS_MAX).collect();
    let x = Array2::from_shape_fn((named.len(), inputs.ncols()), |(i, j)| {
        named.get(i).and_then(|(at, _)| inputs.get((*at, j))).map_or(0.0, |x| f64::from(*x))
    });
    let y: Array1<String> = named.iter().map(|(_, task)| task.as_str().to_owned()).collect();
    let settings = MultiLogisticRegression::default().alpha(ALPHA).max_iterations(ITERATIONS_MAX);
    Some((settings.fit(&DatasetBase::new(x.clone(), y)).ok()?, x))
}

#[expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use pointsman_router::clock::Draw;

    use super::*;

    fn world() -> (Array2<f32>, Vec<Option<TaskType>>) {
        let mut draw = Draw::from_seed(11);
        #[expect(clippy::cast_possible_truncation, reason = "a test")]
        let inputs = Array2::from_shape_fn((300, 4), |(i, j)| {
            (if i % 3 == j { 1.0 } else { 0.0 }) + 0.4 * (draw.uniform() as f32 - 0.5)
        });
        let name = |i: usize| ["law", "math", "code"].get(i % 3).map(|name| TaskType::new(name));
        (inputs, (0..300).map(|i| if i < 290 { name(i) } else { None }).collect())
    }

    #[test]
    fn what_the_router_reads_is_what_linfa_says() {
        let (inputs, tasks) = world();
        let (fitted, x) = fit(inputs.view(), &tasks).unwrap();
        let exported = topics(inputs.view(), &tasks);
        assert!(exported.is_sound(5));
        let wanted = fitted.predict_probabilities(&x);
        for (i, wanted) in wanted.rows().into_iter().enumerate() {
            let dense: Vec<f32> = std::iter::once(1.0).chain(inputs.row(i).iter().copied()).collect();
            for (found, wanted) in exported.probabilities(&dense).iter().zip(wanted) {
                assert!((found - wanted).abs() < 1e-5, "{i}: {found} {wanted}");
            }
            assert_eq!(exported.infer(&dense), tasks[i].as_ref(), "{i}");
        }
    }

    #[test]
    fn without_two_task_types_there_is_nothing_to_tell() {
        let (inputs, mut tasks) = world();
        tasks.iter_mut().flatten().for_each(|task| *task = "law".into());
        assert_eq!(topics(inputs.view(), &tasks), Topics::default());
        assert_eq!(topics(inputs.view(), &[]), Topics::default());
    }
}
