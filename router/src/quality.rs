//! The fitted quality of every model on a request: what the `classifier` says, and what the bandit
//! begins from.
//!
//! Three learners that err differently are averaged, in the score's own units, because on recorded
//! outcomes of real models their mean routes better than any of them (the comparison is a bench):
//!
//! - a ridge regression over all hashed buckets, read as supervised directions of the projection;
//! - Gaussian kernels around landmarks (Nyström): Σ β_l exp(−‖a − c_l‖²/m), a = [s/√8, z];
//! - a forest of randomised trees over [s, z] ([`crate::forest`]).
//!
//! The mean is then calibrated per model, σ(slope·logit(mean) + intercept) (Platt 1999). A model that
//! was not fitted has no quality here; whoever asks falls back on what it knows. Fitting is the
//! learner's; this module only reads.

use serde::{Deserialize, Serialize};

use crate::features::SURFACE_DIMS;
use crate::forest::Forest;
use crate::ids::ModelName;

/// Weight of each standardised surface statistic among the inputs of the kernels.
pub const SURFACE_WEIGHT: f32 = 0.353_553_4;

/// Gaussian kernels around landmarks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Landmarks {
    /// The landmarks, one row each of as many inputs as there are.
    pub points: Vec<f32>,
    /// 1/m.
    pub inverse_width: f32,
    /// β: one row a landmark, one cell a model.
    pub weights: Vec<f32>,
}

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
    /// The kernels.
    pub landmarks: Landmarks,
    /// The trees.
    pub forest: Forest,
    /// The calibration.
    pub platt: Vec<Platt>,
}

/// How many learners there are; each tells what a model's mean score differs by.
const LEARNERS: f32 = 3.0;

impl Quality {
    /// Whether all lengths fit each other and inputs of this width, and every number is one.
    #[must_use]
    pub fn is_sound(&self, width: usize) -> bool {
        let models = self.models.len();
        let inputs = width.saturating_sub(1);
        let rows = |points: &[f32], cells: &[f32]| {
            inputs > 0
                && points.len().is_multiple_of(inputs)
                && (points.len() / inputs).checked_mul(models) == Some(cells.len())
        };
        let Landmarks { points, inverse_width, weights } = &self.landmarks;
        let mut numbers = [points, weights, &self.means].into_iter();
        self.means.len() == models
            && self.platt.len() == models
            && rows(points, weights)
            && self.forest.is_sound(inputs, models)
            && self.platt.iter().all(|p| p.slope.is_finite() && p.intercept.is_finite())
            && inverse_width.is_finite()
            && numbers.all(|part| part.iter().all(|x| x.is_finite()))
    }

    /// The mean of the learners for each model, uncalibrated, from what the projection made.
    #[must_use]
    pub fn scores(&self, projected: &[f32]) -> Vec<f32> {
        let models = self.models.len();
        let (dense, directions) = projected.split_at(projected.len().saturating_sub(models));
        let mut scores: Vec<f32> =
            self.means.iter().zip(directions).map(|(mean, f)| LEARNERS * mean + f).collect();
        self.landmarks.add(&kernel_inputs(dense), &mut scores);
        self.forest.add(dense.get(1..).unwrap_or_default(), &mut scores);
        scores.iter_mut().for_each(|score| *score /= LEARNERS);
        scores
    }

    /// The calibrated logit of each model being right.
    #[must_use]
    pub fn logits(&self, projected: &[f32]) -> Vec<f32> {
        self.scores(projected).into_iter().zip(&self.platt).map(|(score, platt)| platt.logit(score)).collect()
    }
}

/// [s/√8, z] of the dense inputs [1, s, z].
#[must_use]
pub fn kernel_inputs(dense: &[f32]) -> Vec<f32> {
    let mut inputs = dense.get(1..).unwrap_or_default().to_vec();
    inputs.iter_mut().take(SURFACE_DIMS).for_each(|s| *s *= SURFACE_WEIGHT);
    inputs
}

impl Landmarks {
    /// The kernel of each landmark at these inputs.
    #[must_use]
    pub fn kernels(&self, inputs: &[f32]) -> Vec<f32> {
        let points = self.points.chunks_exact(inputs.len().max(1));
        points.map(|point| libm::expf(-squared_distance(point, inputs) * self.inverse_width)).collect()
    }

    fn add(&self, inputs: &[f32], sums: &mut [f32]) {
        for (kernel, weights) in self.kernels(inputs).iter().zip(self.weights.chunks_exact(sums.len().max(1))) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += kernel * weight;
            }
        }
    }
}

/// Eight sums side by side, added up at the end; by places, see [`crate::projection`].
#[expect(clippy::indexing_slicing, reason = "eight lanes of arrays of eight")]
#[inline]
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let ((wide_a, rest_a), (wide_b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0_f32; LANES];
    for (a, b) in wide_a.iter().zip(wide_b) {
        for lane in 0..LANES {
            let apart = a[lane] - b[lane];
            sums[lane] += apart * apart;
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(x, y)| (x - y) * (x - y)).sum();
    sums.iter().sum::<f32>() + rest
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
            landmarks: Landmarks { points: fill(5 * 11, 0), inverse_width: 0.3, weights: fill(10, 7) },
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
        let a: Vec<f64> = projected[1..WIDTH]
            .iter()
            .enumerate()
            .map(|(i, x)| if i < 8 { f(*x) / 8_f64.sqrt() } else { f(*x) })
            .collect();
        let apart = |p: &[f32], x: &[f64]| p.iter().zip(x).map(|(p, x)| (f(*p) - x).powi(2)).sum::<f64>();
        let mean = f(q.means[model]);
        let kernels = q.landmarks.points.chunks(11).zip(q.landmarks.weights.chunks(2));
        let kernel: f64 =
            kernels.map(|(p, w)| (-apart(p, &a) * f(q.landmarks.inverse_width)).exp() * f(w[model])).sum();
        let leaf = usize::from(projected[10] > 0.1);
        mean + (f(projected[WIDTH + model]) + kernel + f(q.forest.leaves[2 * leaf + model])) / 3.0
    }

    #[test]
    fn scores_are_the_mean_of_the_three() {
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
        check(|q| q.landmarks.points.truncate(12));
        check(|q| q.landmarks.weights.truncate(8));
        check(|q| q.forest.leaves[1] = f32::NAN);
        check(|q| q.forest.nodes[0].input = 11);
        check(|q| q.platt[0].slope = f32::INFINITY);
        assert!(!quality().is_sound(WIDTH + 1) && !quality().is_sound(0));
    }
}
