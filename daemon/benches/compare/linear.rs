//! Logistic regression of every model by itself on the dense inputs, linfa's.

use linfa::DatasetBase;
use linfa::traits::Fit as _;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};
use pointsman_router::clock::Draw;

use crate::learners::Scorer;
use crate::split::Split;

/// L2 penalty.
const ALPHA: f64 = 1.0;
const ITERATIONS_MAX: u64 = 60;
/// linfa knows right and wrong only: where most scores lie between, each row is repeated so often, right as often as its
/// score says.
const REPEATED: usize = 10;

/// Fits them.
pub(crate) fn logistic(split: &Split) -> anyhow::Result<Scorer<'_>> {
    let labels = || split.train.rows.iter().flat_map(|row| &row.labels).map(|(_, label)| *label);
    let between = labels().filter(|label| *label > 0.0 && *label < 1.0).count();
    let times = if 2 * between > labels().count() { REPEATED } else { 1 };
    let (rows, inputs) = (split.train.rows.len(), &split.train.inputs);
    let x = Array2::from_shape_fn((rows * times, inputs.ncols()), |(i, j)| f64::from(inputs[[i / times, j]]));
    let mut draw = Draw::from_seed(split.seed);
    let mut weights = Vec::new();
    for (lane, mean) in split.means.iter().enumerate() {
        let right: Vec<usize> = split
            .train
            .rows
            .iter()
            .map(|row| (f64::from(row.labels[lane].1) * times as f64 + draw.uniform()).floor() as usize)
            .collect();
        let y: Array1<bool> = (0..rows * times).map(|i| i % times < right[i / times]).collect();
        let settings = LogisticRegression::default().alpha(ALPHA * times as f64).max_iterations(ITERATIONS_MAX);
        let Ok(fitted) = settings.fit(&DatasetBase::new(x.view(), y)) else {
            // Always right, or never.
            weights.push((f64::from(*mean).clamp(0.001, 0.999), None));
            continue;
        };
        // linfa calls positive what is more frequent.
        let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
        weights.push((sign * fitted.intercept(), Some(fitted.params() * sign)));
    }
    let of = move |at: usize| {
        let row = split.test.inputs.row(at);
        let score = |(intercept, weights): &(f64, Option<Array1<f64>>)| match weights {
            None => *intercept as f32,
            Some(weights) => {
                let logit: f64 = weights.iter().zip(row).map(|(w, x)| w * f64::from(*x)).sum();
                (1.0 / (1.0 + (-intercept - logit).exp())) as f32
            }
        };
        weights.iter().map(score).collect()
    };
    Ok(Box::new(of))
}
