//! The per-model heads of the bandit: logistic regressions whose uncertainty is kept beside them.
//!
//! Model k has a Gaussian belief about its weights. Over the dense inputs z = [1, 8 surface
//! statistics] the covariance is full; over the sparse ones x (hashed text, tags, sketch) it is
//! diagonal, because a full one would not fit and a text touches 1,500 of them. A score is the mean
//! logit m·z + m'·x and its variance from the dense inputs alone: measured on recorded outcomes, the
//! diagonal's variance only adds noise to the choice.
//!
//! Everything lies input-major with the models as neighbouring lanes, so one pass over a request's
//! inputs scores all models. A lane, once given, stays; models are added without touching the bits
//! of the others, and a model that was removed simply is not asked about. This module stores and
//! reads; `learner::online` writes, through [`Heads::blocks_mut`].

#![expect(clippy::indexing_slicing, reason = "rows times stride, lengths fixed when a lane is added")]
#![expect(clippy::cast_possible_truncation, reason = "numbers of rows are far below 65,536")]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::features::{
    FIRST_CHAR_BUCKET, Features, SKETCH_DIMS, SURFACE_DIMS, SchemaHash, TAG_BUCKETS, TextCount,
};
use crate::ids::ModelName;

/// Rows that the text's buckets are folded to.
pub const TEXT_ROWS: usize = 1 << 12;
/// Sparse inputs: text, tags, sketch.
pub const SPARSE_ROWS: usize = TEXT_ROWS + TAG_BUCKETS + SKETCH_DIMS;
/// Dense inputs: one and the surface statistics.
pub const DENSE_ROWS: usize = 1 + SURFACE_DIMS;
/// Entries of the packed lower triangle of a dense covariance; entry (i, j), j ≤ i, is at
/// i(i + 1)/2 + j.
pub const TRIANGLE_ROWS: usize = DENSE_ROWS * (DENSE_ROWS + 1) / 2;
/// Lanes are added in groups of this size.
const LANES: usize = 8;

/// A model's belief before any feedback: mean zero and these variances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// Of the constant.
    pub bias: f32,
    /// Of each surface statistic.
    pub surface: f32,
    /// Of each sparse input.
    pub sparse: f32,
}

impl Default for Prior {
    /// The best of those tried on recorded outcomes of 32 models and on simulated topics.
    fn default() -> Self {
        Self { bias: 4.0, surface: 0.25, sparse: 2.0 }
    }
}

/// The inputs that the heads make of a request's features.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// One, then the surface statistics.
    pub dense: [f32; DENSE_ROWS],
    /// Row and value; a row may come more than once and then counts with the sum.
    pub sparse: Vec<(u16, f32)>,
}

impl Inputs {
    /// A count c becomes sign(c)·ln(1 + |c|); words and characters are scaled to half of length one
    /// each (in squares), so that a long text weighs as much as a short one. Tags have length one
    /// together, as has the sketch.
    #[must_use]
    pub fn of(features: &Features) -> Self {
        let mut dense = [1.0; DENSE_ROWS];
        dense[1..].copy_from_slice(&features.surface);
        let mut sparse = Vec::with_capacity(features.text.len() + features.tags.len() + features.sketch.len());
        let words = features.text.partition_point(|c| c.bucket < FIRST_CHAR_BUCKET);
        let (words, chars) = features.text.split_at(words);
        push_text(words, &mut sparse);
        push_text(chars, &mut sparse);
        let tag = 1.0 / (features.tags.len().max(1) as f32).sqrt();
        sparse.extend(features.tags.iter().map(|bucket| (TEXT_ROWS as u16 + bucket % TAG_BUCKETS as u16, tag)));
        let first = (TEXT_ROWS + TAG_BUCKETS) as u16;
        sparse.extend((first..SPARSE_ROWS as u16).zip(features.sketch.iter().copied()));
        Self { dense, sparse }
    }
}

/// Logarithms of the counts that nearly all buckets have.
static LOGS: LazyLock<[f32; 32]> = LazyLock::new(|| std::array::from_fn(|count| libm::logf(1.0 + count as f32)));

fn push_text(counts: &[TextCount], sparse: &mut Vec<(u16, f32)>) {
    let logs = &*LOGS;
    let log = |count: i16| {
        let size = count.unsigned_abs();
        logs.get(usize::from(size)).copied().unwrap_or_else(|| libm::logf(1.0 + f32::from(size)))
    };
    let squares: f32 = counts.iter().map(|c| log(c.count) * log(c.count)).sum();
    let scale = (0.5 / squares.max(f32::MIN_POSITIVE)).sqrt();
    sparse.extend(counts.iter().map(|c| {
        let (row, flip) = fold(c.bucket);
        let value = scale * log(c.count);
        (row, if (c.count < 0) == flip { value } else { -value })
    }));
}

/// The row of a text bucket, and whether its sign turns: the upper bits choose one of sixteen ways in
/// which the lower ones are laid over the rows.
fn fold(bucket: u16) -> (u16, bool) {
    let way = bucket >> 12;
    let row = (bucket ^ way.wrapping_mul(0x9e5)) & (TEXT_ROWS as u16 - 1);
    (row, (way.wrapping_mul(0x85eb) >> 7) & 1 == 1)
}

/// A belief about one logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// The mean logit.
    pub mean: f32,
    /// Its variance, from the dense inputs; never negative.
    pub variance: f32,
}

/// The stored numbers, each block input-major with [`Heads::stride`] lanes a row.
#[derive(Debug)]
pub struct BlocksMut<'a> {
    /// [`SPARSE_ROWS`] rows of means.
    pub sparse_means: &'a mut [f32],
    /// [`SPARSE_ROWS`] rows of variances.
    pub sparse_variances: &'a mut [f32],
    /// [`DENSE_ROWS`] rows of means.
    pub dense_means: &'a mut [f32],
    /// [`TRIANGLE_ROWS`] rows of covariances.
    pub dense_covariances: &'a mut [f32],
}

/// The heads of all models that ever had a lane.
#[derive(Debug, Clone, PartialEq)]
pub struct Heads {
    prior: Prior,
    schema: SchemaHash,
    models: Vec<ModelName>,
    lanes: BTreeMap<ModelName, usize>,
    stride: usize,
    blocks: [Vec<f32>; 4],
}

const ROWS: [usize; 4] = [SPARSE_ROWS, SPARSE_ROWS, DENSE_ROWS, TRIANGLE_ROWS];

impl Heads {
    /// Heads without lanes: every model has the prior.
    #[must_use]
    pub fn new(prior: Prior, schema: SchemaHash) -> Self {
        Self { prior, schema, models: Vec::new(), lanes: BTreeMap::new(), stride: 0, blocks: Default::default() }
    }

    /// What the features mean that these heads learn from.
    #[must_use]
    pub fn schema(&self) -> SchemaHash {
        self.schema
    }

    /// The models by lane.
    #[must_use]
    pub fn models(&self) -> &[ModelName] {
        &self.models
    }

    /// Lanes per row, a multiple of eight.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The lane of a model, where it has one.
    #[must_use]
    pub fn lane(&self, model: &str) -> Option<usize> {
        self.lanes.get(model).copied()
    }

    /// The lane of a model; a new one begins with the prior.
    pub fn add(&mut self, model: &ModelName) -> usize {
        if let Some(lane) = self.lane(model.as_str()) {
            return lane;
        }
        let lane = self.models.len();
        if lane == self.stride {
            self.widen();
        }
        self.models.push(model.clone());
        self.lanes.insert(model.clone(), lane);
        let (stride, prior) = (self.stride, self.prior);
        for cell in self.blocks[1][lane..].iter_mut().step_by(stride) {
            *cell = prior.sparse;
        }
        for i in 0..DENSE_ROWS {
            self.blocks[3][triangle(i, i) * stride + lane] = if i == 0 { prior.bias } else { prior.surface };
        }
        lane
    }

    /// The stored numbers: sparse means and variances, dense means and covariances.
    #[must_use]
    pub fn blocks(&self) -> [&[f32]; 4] {
        self.blocks.each_ref().map(Vec::as_slice)
    }

    /// The same, to be written by the learner.
    pub fn blocks_mut(&mut self) -> BlocksMut<'_> {
        let [sparse_means, sparse_variances, dense_means, dense_covariances] = &mut self.blocks;
        BlocksMut { sparse_means, sparse_variances, dense_means, dense_covariances }
    }

    /// The score of every lane, in their order.
    #[must_use]
    pub fn score(&self, inputs: &Inputs) -> Vec<Score> {
        let [sparse_means, _, dense_means, dense_covariances] = self.blocks();
        let mut scores = Vec::with_capacity(self.stride);
        for first in (0..self.stride).step_by(LANES) {
            let lanes = |block: &[f32], row: usize| -> [f32; LANES] {
                let at = row * self.stride + first;
                std::array::from_fn(|i| block[at..at + LANES][i])
            };
            let mut means = [0.0; LANES];
            for (row, value) in &inputs.sparse {
                add_scaled(&mut means, lanes(sparse_means, usize::from(*row)), *value);
            }
            let mut variances = [0.0; LANES];
            for (i, zi) in inputs.dense.iter().enumerate() {
                add_scaled(&mut means, lanes(dense_means, i), *zi);
                for (j, zj) in inputs.dense[..=i].iter().enumerate() {
                    // Below the diagonal an entry stands for two.
                    let twice = if i == j { 1.0 } else { 2.0 };
                    add_scaled(&mut variances, lanes(dense_covariances, triangle(i, j)), twice * zi * zj);
                }
            }
            scores.extend(means.into_iter().zip(variances).map(|(mean, v)| Score { mean, variance: v.max(0.0) }));
        }
        scores.truncate(self.models.len());
        scores
    }

    /// The score of a model without a lane.
    #[must_use]
    pub fn prior_score(&self, inputs: &Inputs) -> Score {
        let [_, surface @ ..] = &inputs.dense;
        let squares: f32 = surface.iter().map(|s| s * s).sum();
        Score { mean: 0.0, variance: self.prior.bias + self.prior.surface * squares }
    }

    /// Gives every row another group of lanes; the bits of those that are there stay.
    fn widen(&mut self) {
        let (old, new) = (self.stride, self.stride + LANES);
        for (block, rows) in self.blocks.iter_mut().zip(ROWS) {
            let mut wider = vec![0.0; rows * new];
            if old > 0 {
                for (to, from) in wider.chunks_exact_mut(new).zip(block.chunks_exact(old)) {
                    to[..old].copy_from_slice(from);
                }
            }
            *block = wider;
        }
        self.stride = new;
    }
}

/// Where entry (i, j), j ≤ i, of a packed lower triangle is.
#[must_use]
pub const fn triangle(i: usize, j: usize) -> usize {
    i * (i + 1) / 2 + j
}

#[inline]
fn add_scaled(sums: &mut [f32; LANES], row: [f32; LANES], value: f32) {
    for (sum, cell) in sums.iter_mut().zip(row) {
        *sum += value * cell;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features() -> Features {
        let count = |bucket, count| TextCount { bucket, count };
        Features {
            text: vec![count(3, 1), count(700, -2), count(40_000, 5), count(65_535, -90)],
            surface: [0.1, -0.2, 0.3, 0.0, 0.5, -0.6, 0.7, 1.0],
            tags: vec![5, 1_023],
            sketch: (0..SKETCH_DIMS).map(|i| if i == 9 { 1.0 } else { 0.0 }).collect(),
            prompt_bytes: 10,
            schema: SchemaHash(1),
        }
    }

    fn length(part: &[(u16, f32)]) -> f32 {
        part.iter().map(|(_, x)| x * x).sum()
    }

    #[test]
    fn every_part_has_its_weight() {
        let inputs = Inputs::of(&features());
        assert!((length(&inputs.sparse[..2]) - 0.5).abs() < 1e-6);
        assert!((length(&inputs.sparse[2..4]) - 0.5).abs() < 1e-6);
        assert!((length(&inputs.sparse[4..6]) - 1.0).abs() < 1e-6);
        assert!((length(&inputs.sparse[6..]) - 1.0).abs() < 1e-6);
        assert!(inputs.sparse.iter().all(|(row, _)| usize::from(*row) < SPARSE_ROWS));
        assert!((inputs.sparse[1].1 / inputs.sparse[0].1).abs() > 1.5);
    }

    #[test]
    fn folding_spreads_evenly() {
        let mut hits = vec![(0_u32, 0_i32); TEXT_ROWS];
        for bucket in 0..=u16::MAX {
            let (row, flip) = fold(bucket);
            hits[usize::from(row)].0 += 1;
            hits[usize::from(row)].1 += if flip { -1 } else { 1 };
        }
        assert!(hits.iter().all(|(n, _)| *n == 16));
        assert!(hits.iter().all(|(_, sign)| sign.abs() < 16), "both signs occur");
    }

    #[test]
    fn scores_agree_with_sums_over_one_lane() {
        let mut heads = Heads::new(Prior::default(), SchemaHash(1));
        for i in 0..11 {
            heads.add(&ModelName::from(format!("m{i}")));
        }
        let noise = |i: usize| ((i * 7_919) % 1_000) as f32 / 1_000.0 - 0.3;
        for block in &mut heads.blocks {
            block.iter_mut().enumerate().for_each(|(i, cell)| *cell = noise(i));
        }
        let inputs = Inputs::of(&features());
        let scores = heads.score(&inputs);
        assert_eq!(scores.len(), 11);
        for (lane, score) in scores.iter().enumerate() {
            let cell = |block: usize, row: usize| f64::from(heads.blocks[block][row * heads.stride + lane]);
            let mut mean = 0.0;
            let mut variance = 0.0;
            for (row, x) in &inputs.sparse {
                mean += cell(0, usize::from(*row)) * f64::from(*x);
            }
            for i in 0..DENSE_ROWS {
                mean += cell(2, i) * f64::from(inputs.dense[i]);
                for j in 0..DENSE_ROWS {
                    let at = triangle(i.max(j), i.min(j));
                    variance += cell(3, at) * f64::from(inputs.dense[i] * inputs.dense[j]);
                }
            }
            assert!((f64::from(score.mean) - mean).abs() < 1e-4);
            assert!((f64::from(score.variance) - variance.max(0.0)).abs() < 1e-4);
        }
    }

    #[test]
    fn a_new_lane_has_the_prior_and_leaves_the_others_alone() {
        let mut heads = Heads::new(Prior::default(), SchemaHash(1));
        let inputs = Inputs::of(&features());
        for i in 0..20 {
            let before: Vec<(u32, u32)> =
                heads.score(&inputs).iter().map(|s| (s.mean.to_bits(), s.variance.to_bits())).collect();
            let name = ModelName::from(format!("m{i}"));
            let lane = heads.add(&name);
            assert_eq!((lane, heads.add(&name), heads.lane(name.as_str())), (i, i, Some(i)));
            let after = heads.score(&inputs);
            let bits: Vec<(u32, u32)> = after.iter().map(|s| (s.mean.to_bits(), s.variance.to_bits())).collect();
            assert_eq!(bits[..i], before[..]);
            let prior = heads.prior_score(&inputs);
            assert!(after[i].mean.abs() < 1e-9 && (after[i].variance - prior.variance).abs() < 1e-5);
            // What a learner would have written.
            let stride = heads.stride();
            heads.blocks_mut().sparse_means[usize::from(inputs.sparse[0].0) * stride + lane] = i as f32;
        }
    }
}
