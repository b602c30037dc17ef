//! One step of the online Laplace logistic regression of one lane (Chapelle & Li 2011), and of the
//! shared head beside it.
//!
//! With z the dense inputs, x the sparse ones, Σ the full covariance of the former and S the diagonal one
//! of the latter, the logit is the sum over the heads h that speak of it, the model's own and the shared
//! one: μ = Σ_h m_h·z + m'_h·x, v = Σ_h zᵀΣ_h z + S_h x², p = σ(μ), w = max(p(1 − p), 1e-4), and for each
//!
//! - shift by e: m += Σz·e/(1 + wv), m' += S x·e/(1 + wv)
//! - narrow: Σ −= w(Σz)(Σz)ᵀ/(1 + wv), S ← S/(1 + overlap·w·x²·S)
//!
//! which is the step of the joint belief as far as it is kept: not between two heads.
//!
//! Dense inputs are reckoned in f32, sparse ones and everything that is one number in f64; all are stored
//! as f32 (f32 chose as f64 did over 300,000 rounds). Sums have a fixed order and the exponential is libm's,
//! so that every machine gets the same bits.

#![expect(clippy::indexing_slicing, reason = "rows times stride of blocks whose lengths the heads fix")]
#![expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]

use pointsman_router::bandit::mean_quality;
use pointsman_router::heads::{Heads, Score, dot};
use pointsman_router::inputs::Inputs;

/// Below this a label would tell nothing, and a surprise could never be unlearned.
const WEIGHT_MIN: f64 = 1e-4;

/// What a model's heads say of a request, with what an update needs.
pub(super) struct Reading<'a> {
    /// The model's own head, and the shared one.
    parts: Vec<Part>,
    dense: &'a [f32],
    /// Row and value x, ascending, each row once.
    sparse: Vec<(usize, f64)>,
    /// With the variance of the model's own dense inputs, which is what a policy goes by.
    score: Score,
    probability: f64,
    weight: f64,
    variance: f64,
    /// 1 + wv.
    scale: f64,
    /// What of the label counts.
    counts: f64,
}

/// One head that speaks of the logit.
struct Part {
    lane: usize,
    /// Σz.
    gain: Vec<f32>,
    /// zᵀΣz.
    variance: f64,
}

/// Reads a model's lane, and the shared one beside it; the offset is added to their logit. The inputs must
/// have as many dense ones as the heads.
pub(super) fn read<'a>(heads: &Heads, lane: usize, (inputs, offset): (&'a Inputs, f32)) -> Reading<'a> {
    let (stride, dense) = (heads.stride(), inputs.dense.as_slice());
    let [sparse_means, sparse_variances, dense_means, ..] = heads.blocks();
    let sparse = merge(inputs, heads.shape().sparse);
    let parts: Vec<Part> = [Some(lane), heads.shared()]
        .into_iter()
        .flatten()
        .map(|lane| {
            let gain = times(triangle_of(heads, lane), dense);
            let variance = f64::from(dot(&gain, dense).max(0.0));
            Part { lane, gain, variance }
        })
        .collect();
    let (mut mean, mut variance) = (f64::from(offset), 0.0);
    for part in &parts {
        mean += f64::from(dot(&dense_means[part.lane * dense.len()..], dense));
        variance += part.variance;
        for (row, x) in &sparse {
            mean += f64::from(sparse_means[row * stride + part.lane]) * x;
            variance += f64::from(sparse_variances[row * stride + part.lane]) * x * x;
        }
    }
    let probability = 1.0 / (1.0 + libm::exp(-mean));
    let weight = (probability * (1.0 - probability)).max(WEIGHT_MIN);
    let own = parts.first().map_or(0.0, |part| part.variance);
    let score = Score { mean: mean as f32, variance: own as f32 };
    let scale = 1.0 + weight * variance;
    Reading { parts, dense, sparse, score, probability, weight, variance, scale, counts: 1.0 }
}

/// Makes every lane one label older.
pub(super) fn grow_older(heads: &mut Heads) {
    heads.blocks_mut().ages.iter_mut().for_each(|age| *age += 1.0);
}

fn triangle_of(heads: &Heads, lane: usize) -> &[f32] {
    let (entries, [_, _, _, covariances, _]) = (heads.shape().triangle(), heads.blocks());
    &covariances[lane * entries..(lane + 1) * entries]
}

/// Σz of a packed lower triangle: each row is a part of a sum once and adds to others once.
fn times(packed: &[f32], z: &[f32]) -> Vec<f32> {
    let mut product = vec![0.0; z.len()];
    let mut rest = packed;
    for (i, zi) in z.iter().enumerate() {
        let (row, below) = rest.split_at(i + 1);
        for (sum, cell) in product[..i].iter_mut().zip(row) {
            *sum += zi * cell;
        }
        product[i] = dot(row, &z[..=i]);
        rest = below;
    }
    product
}

/// Inputs that fell on one row are one input with their sum.
fn merge(inputs: &Inputs, rows: usize) -> Vec<(usize, f64)> {
    if inputs.sparse.is_empty() {
        return Vec::new();
    }
    let mut sums = vec![0.0_f64; rows];
    for (row, value) in &inputs.sparse {
        if let Some(sum) = sums.get_mut(usize::from(*row)) {
            *sum += f64::from(*value);
        }
    }
    sums.into_iter().enumerate().filter(|(_, x)| *x != 0.0).collect()
}

impl Reading<'_> {
    /// The same, where only a part of the label counts: it tells and moves as much as that part of one would.
    pub(super) fn weighed(self, counts: f64) -> Self {
        let weight = self.weight * counts;
        Self { weight, scale: 1.0 + weight * self.variance, counts, ..self }
    }

    /// The probability of being right at the mean logit.
    pub(super) fn probability(&self) -> f64 {
        self.probability
    }

    /// The probability of being right as a policy reckons it.
    pub(super) fn quality(&self) -> f64 {
        mean_quality(self.score)
    }

    /// Moves the means by an error e of the label; the variances must still be those that were read.
    pub(super) fn shift(&self, heads: &mut Heads, e: f64) {
        let stride = heads.stride();
        let blocks = heads.blocks_mut();
        let step = self.counts * e / self.scale;
        let dense_step = step as f32;
        for Part { lane, gain, .. } in &self.parts {
            let first = lane * self.dense.len();
            for (mean, gain) in blocks.dense_means[first..].iter_mut().zip(gain) {
                *mean += gain * dense_step;
            }
            for (row, x) in &self.sparse {
                let at = row * stride + lane;
                let change = f64::from(blocks.sparse_variances[at]) * x * step;
                let mean = &mut blocks.sparse_means[at];
                *mean = (f64::from(*mean) + change) as f32;
            }
        }
    }

    /// Takes in the certainty that a label brings.
    pub(super) fn narrow(&self, heads: &mut Heads, overlap: f64) {
        let (stride, entries) = (heads.stride(), heads.shape().triangle());
        let blocks = heads.blocks_mut();
        let shrink = (self.weight / self.scale) as f32;
        for Part { lane, gain, .. } in &self.parts {
            let mut rest = &mut blocks.dense_covariances[lane * entries..(lane + 1) * entries];
            for (i, of_row) in gain.iter().enumerate() {
                let (row, below) = rest.split_at_mut(i + 1);
                let factor = shrink * of_row;
                for (cell, other) in row.iter_mut().zip(gain) {
                    *cell -= factor * other;
                }
                rest = below;
            }
            for (row, x) in &self.sparse {
                let cell = &mut blocks.sparse_variances[row * stride + lane];
                let variance = f64::from(*cell);
                *cell = (variance / (1.0 + overlap * self.weight * x * x * variance)) as f32;
            }
        }
    }
}
