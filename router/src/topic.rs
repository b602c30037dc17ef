//! The fitted task type of a request whose caller named none: multinomial logistic regression on the
//! dense inputs.
//!
//! Learned from the requests whose callers did name it, so it speaks their names. Where it is less
//! sure than [`SURE`], or was not fitted, the table of [`crate::task`] serves. The regression is
//! linfa's; here its weights are read, and a test of the learner holds the two against each other.

use serde::{Deserialize, Serialize};

use crate::ids::TaskType;

/// Task types and their weights.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Topics {
    /// The task types, in the order of the rows.
    pub tasks: Vec<TaskType>,
    /// One row a task type, one cell a dense input, the first for the constant.
    pub weights: Vec<f32>,
}

/// Below this probability the fitted task type is not believed.
pub const SURE: f64 = 0.6;

impl Topics {
    /// Whether the weights are whole rows over inputs of this width, and numbers.
    #[must_use]
    pub fn is_sound(&self, width: usize) -> bool {
        self.tasks.len().checked_mul(width) == Some(self.weights.len())
            && self.weights.iter().all(|w| w.is_finite())
    }

    /// The probability of each task type.
    #[must_use]
    pub fn probabilities(&self, dense: &[f32]) -> Vec<f64> {
        let score = |row: &[f32]| row.iter().zip(dense).map(|(w, z)| f64::from(*w) * f64::from(*z)).sum::<f64>();
        let mut shares: Vec<f64> = self.weights.chunks_exact(dense.len().max(1)).map(score).collect();
        let largest = shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        shares.iter_mut().for_each(|s| *s = libm::exp(*s - largest));
        let total: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|s| *s /= total);
        shares
    }

    /// The task type, where it is sure of one.
    #[must_use]
    pub fn infer(&self, dense: &[f32]) -> Option<&TaskType> {
        let probabilities = self.probabilities(dense);
        let best = probabilities.iter().zip(&self.tasks).max_by(|a, b| a.0.total_cmp(b.0))?;
        (*best.0 >= SURE).then_some(best.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> Topics {
        Topics { tasks: vec!["law".into(), "math".into()], weights: vec![0.0, 2.0, 1.0, -2.0] }
    }

    #[test]
    fn probabilities_are_the_softmax() {
        let found = topics().probabilities(&[1.0, 0.5]);
        let wanted = 1.0_f64.exp() / (1.0_f64.exp() + 0.0_f64.exp());
        assert!((found[0] - wanted).abs() < 1e-12 && (found.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn only_what_is_sure_is_told() {
        let told = |x: f32| topics().infer(&[1.0, x]).map(TaskType::as_str).map(str::to_owned);
        assert_eq!(told(1.0).as_deref(), Some("law"));
        assert_eq!(told(-1.0).as_deref(), Some("math"));
        assert_eq!(told(0.25), None);
        assert_eq!(Topics::default().infer(&[1.0]), None);
        assert!(topics().is_sound(2) && !topics().is_sound(3) && Topics::default().is_sound(9));
    }
}
