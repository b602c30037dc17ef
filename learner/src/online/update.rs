//! One step of the online Laplace logistic regression of one lane (Chapelle & Li 2011).
//!
//! With z the dense inputs, x the sparse ones, Σ the full covariance of the former and S the diagonal
//! one of the latter: μ = m·z + m'·x, v = zᵀΣz + Σ S x², p = σ(μ), w = max(p(1 − p), 1e-4), and
//!
//! - shift by e: m += Σz·e/(1 + wv), m' += S x·e/(1 + wv)
//! - narrow: Σ −= w(Σz)(Σz)ᵀ/(1 + wv), S ← S/(1 + overlap·w·x²·S)
//!
//! Numbers are stored as f32 and reckoned in f64; the exponential is libm's, so that every machine
//! gets the same bits.

#![expect(clippy::indexing_slicing, reason = "rows times stride of blocks whose lengths the heads fix")]
#![expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]

use pointsman_router::heads::{DENSE_ROWS, Heads, Inputs, SPARSE_ROWS, triangle};

/// Below this a label would tell nothing, and a surprise could never be unlearned.
const WEIGHT_MIN: f64 = 1e-4;

/// What a lane says of a request, with what an update needs.
pub(super) struct Reading {
    lane: usize,
    dense: [f64; DENSE_ROWS],
    /// Σz.
    gain: [f64; DENSE_ROWS],
    /// Row and value x, ascending, each row once.
    sparse: Vec<(usize, f64)>,
    probability: f64,
    weight: f64,
    /// 1 + wv.
    scale: f64,
}

/// Reads one lane.
pub(super) fn read(heads: &Heads, lane: usize, inputs: &Inputs) -> Reading {
    let stride = heads.stride();
    let [sparse_means, sparse_variances, dense_means, dense_covariances] = heads.blocks();
    let cell = |block: &[f32], row: usize| f64::from(block[row * stride + lane]);
    let dense = inputs.dense.map(f64::from);
    let sparse = merge(inputs);
    let gain: [f64; DENSE_ROWS] = std::array::from_fn(|i| {
        let entry = |j: usize| cell(dense_covariances, triangle(i.max(j), i.min(j)));
        dense.iter().enumerate().map(|(j, z)| entry(j) * z).sum()
    });
    let mut mean: f64 = dense.iter().enumerate().map(|(i, z)| cell(dense_means, i) * z).sum();
    let mut variance: f64 = gain.iter().zip(&dense).map(|(g, z)| g * z).sum::<f64>().max(0.0);
    for (row, x) in &sparse {
        mean += cell(sparse_means, *row) * x;
        variance += cell(sparse_variances, *row) * x * x;
    }
    let probability = 1.0 / (1.0 + libm::exp(-mean));
    let weight = (probability * (1.0 - probability)).max(WEIGHT_MIN);
    Reading { lane, dense, gain, sparse, probability, weight, scale: 1.0 + weight * variance }
}

/// Inputs that fell on one row are one input with their sum.
fn merge(inputs: &Inputs) -> Vec<(usize, f64)> {
    let mut rows = vec![0.0_f64; SPARSE_ROWS];
    for (row, value) in &inputs.sparse {
        rows[usize::from(*row)] += f64::from(*value);
    }
    rows.into_iter().enumerate().filter(|(_, x)| *x != 0.0).collect()
}

impl Reading {
    /// The probability of being right at the mean logit.
    pub(super) fn probability(&self) -> f64 {
        self.probability
    }

    /// Moves the means by an error e of the label; the variances must still be those that were read.
    pub(super) fn shift(&self, heads: &mut Heads, e: f64) {
        let stride = heads.stride();
        let blocks = heads.blocks_mut();
        let step = e / self.scale;
        for (i, gain) in self.gain.iter().enumerate() {
            add(&mut blocks.dense_means[i * stride + self.lane], gain * step);
        }
        for (row, x) in &self.sparse {
            let at = row * stride + self.lane;
            add(&mut blocks.sparse_means[at], f64::from(blocks.sparse_variances[at]) * x * step);
        }
    }

    /// Takes in the certainty that a label brings.
    pub(super) fn narrow(&self, heads: &mut Heads, overlap: f64) {
        let stride = heads.stride();
        let blocks = heads.blocks_mut();
        let shrink = self.weight / self.scale;
        for i in 0..self.dense.len() {
            for j in 0..=i {
                let cell = &mut blocks.dense_covariances[triangle(i, j) * stride + self.lane];
                add(cell, -shrink * self.gain[i] * self.gain[j]);
            }
        }
        for (row, x) in &self.sparse {
            let cell = &mut blocks.sparse_variances[row * stride + self.lane];
            let variance = f64::from(*cell);
            *cell = (variance / (1.0 + overlap * self.weight * x * x * variance)) as f32;
        }
    }
}

fn add(cell: &mut f32, change: f64) {
    *cell = (f64::from(*cell) + change) as f32;
}
