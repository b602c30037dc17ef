//! The fitted quality of every model on a request: what the `classifier` says, and what the bandit
//! begins from.
//!
//! Two learners that err differently are averaged, in the score's own units, because on recorded
//! outcomes of real models one or the other routes better and their mean is never far from the better one
//! (the comparison, with others that did not pay, is the daemon's bench `compare`):
//!
//! - a ridge regression over all hashed buckets, read as supervised directions of the projection;
//! - a forest of randomised trees over the dense inputs ([`crate::forest`]), which counts three times.
//!
//! The mean is then calibrated per model, σ(slope·logit(mean) + intercept) (Platt 1999). A model that
//! was not fitted has no quality here; whoever asks falls back on what it knows. Fitting is the
//! learner's; this module only reads.

use serde::{Deserialize, Serialize};

use crate::forest::Forest;
use crate::ids::ModelName;

/// σ(slope·logit + intercept).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Platt {
    /// The slope.
    pub slope: f32,
    /// The intercept.
    pub intercept: f32,
}

impl Platt {
    /// Leaves every probability as it is.
    pub const IDENTITY: Self = Self { slope: 1.0, intercept: 0.0 };

    /// The calibrated logit of a score.
    #[must_use]
    pub fn logit(&self, score: f32) -> f32 {
        self.slope * logit(score) + self.intercept
    }
}

/// Scores are held this far from 0 and 1.
const SCORE_MARGIN: f32 = 0.005;

/// ln(p/(1 − p)) of a score held within [0.005, 0.995].
#[must_use]
pub fn logit(score: f32) -> f32 {
    let held = if score.is_nan() { 0.5 } else { score.clamp(SCORE_MARGIN, 1.0 - SCORE_MARGIN) };
    libm::logf(held / (1.0 - held))
}

/// What was fitted about the models.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Quality {
    /// The models, in the order of all cells below and of the supervised directions.
    pub models: Vec<ModelName>,
    /// Their mean scores.
    pub means: Vec<f32>,
    /// The trees.
    pub forest: Forest,
    /// The calibration.
    pub platt: Vec<Platt>,
}

/// What the regression and the forest count.
const WEIGHTS: [f32; 2] = [0.25, 0.75];

impl Quality {
    /// Whether all lengths fit each other and inputs of this width, and every number is one.
    #[must_use]
    pub fn is_sound(&self, width: usize) -> bool {
        let models = self.models.len();
        self.means.len() == models
            && self.platt.len() == models
            && width.checked_sub(1).is_some_and(|inputs| self.forest.is_sound(inputs, models))
            && self.platt.iter().all(|p| p.slope.is_finite() && p.intercept.is_finite())
            && self.means.iter().all(|mean| mean.is_finite())
    }

    /// The mean of the learners for each model, uncalibrated, from what the projection made.
    #[must_use]
    pub fn scores(&self, projected: &[f32]) -> Vec<f32> {
        let (dense, directions) = projected.split_at(projected.len().saturating_sub(self.models.len()));
        let [regression, forest] = WEIGHTS;
        let mut scores = vec![0.0; self.models.len()];
        self.forest.add(dense.get(1..).unwrap_or_default(), &mut scores);
        for ((score, mean), direction) in scores.iter_mut().zip(&self.means).zip(directions) {
            *score = mean + regression * direction + forest * *score;
        }
        scores
    }

    /// The calibrated logit of each model being right.
    #[must_use]
    pub fn logits(&self, projected: &[f32]) -> Vec<f32> {
        self.scores(projected).into_iter().zip(&self.platt).map(|(score, platt)| platt.logit(score)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::{LEAF, Node};
    use crate::projection::PLAIN_DIMS;

    const WIDTH: usize = PLAIN_DIMS + 3;

    fn noise(i: usize) -> f32 {
        ((i * 7_919) % 1_000) as f32 / 1_000.0 - 0.4
    }

    fn quality() -> Quality {
        let fill = |n: usize, from: usize| (0..n).map(|i| noise(i + from)).collect::<Vec<_>>();
        Quality {
            models: vec!["a".into(), "b".into()],
            means: vec![0.4, 0.7],
            forest: Forest {
                roots: vec![0],
                nodes: vec![
                    Node { input: 9, other: 2, threshold: 0.1 },
                    Node { input: LEAF, other: 0, threshold: 0.0 },
                    Node { input: LEAF, other: 1, threshold: 0.0 },
                ],
                leaves: fill(4, 11),
            },
            platt: vec![Platt::IDENTITY, Platt { slope: 0.5, intercept: 0.1 }],
        }
    }

    /// The definition of the module's head, in f64.
    fn expected(q: &Quality, projected: &[f32], model: usize) -> f64 {
        let f = |x: f32| f64::from(x);
        let leaf = usize::from(projected[10] > 0.1);
        f(q.means[model]) + (f(projected[WIDTH + model]) + 3.0 * f(q.forest.leaves[2 * leaf + model])) / 4.0
    }

    #[test]
    fn scores_are_the_mean_of_both() {
        let q = quality();
        assert!(q.is_sound(WIDTH));
        let projected: Vec<f32> = (0..WIDTH + 2).map(|i| if i == 0 { 1.0 } else { noise(i * 31) }).collect();
        let (scores, logits) = (q.scores(&projected), q.logits(&projected));
        for model in 0..2 {
            let wanted = expected(&q, &projected, model);
            assert!((f64::from(scores[model]) - wanted).abs() < 1e-5, "{model}: {scores:?} {wanted}");
            let held = wanted.clamp(0.005, 0.995);
            let platt = q.platt[model];
            let logit = f64::from(platt.slope) * (held / (1.0 - held)).ln() + f64::from(platt.intercept);
            assert!((f64::from(logits[model]) - logit).abs() < 1e-4);
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_unsound() {
        let check = |spoil: fn(&mut Quality)| {
            let mut q = quality();
            spoil(&mut q);
            assert!(!q.is_sound(WIDTH));
        };
        check(|q| q.means.truncate(1));
        check(|q| q.platt.truncate(1));
        check(|q| q.means[0] = f32::NAN);
        check(|q| q.forest.leaves[1] = f32::NAN);
        check(|q| q.forest.nodes[0].input = 11);
        check(|q| q.platt[0].slope = f32::INFINITY);
        assert!(!quality().is_sound(9) && !quality().is_sound(0));
    }
}
