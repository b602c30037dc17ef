//! The per-model heads of the bandit: logistic regressions whose uncertainty is kept beside them.
//!
//! Model k has a Gaussian belief about its weights. Over the dense inputs z (one, the surface statistics,
//! projected dimensions where there are some) the covariance is full; over the sparse ones x (hashed text,
//! tags, sketch) it is diagonal, because a full one would not fit and a text touches 1,500 of them. A score
//! is the mean logit m·z + m'·x and its variance from the dense inputs alone: measured on recorded
//! outcomes, the diagonal's variance only adds noise to the choice.
//!
//! # What all models have in common
//!
//! What is hard for one model is mostly hard for the others too. So there may be a shared head, whose
//! belief is added to each model's own: every label teaches both, jointly, and a model's own weights have
//! only its difference left to learn. It counts for the mean alone: what all have in common tells none of
//! them apart, so its variance is no reason to explore. A model that is new begins with what is hard for all.
//!
//! # Layout
//!
//! Sparse rows lie input-major with the models as neighbouring lanes, so one pass over a text scores all
//! models, the shared head the first of them. Dense means and covariances lie model by model, the latter as packed lower triangles: measured
//! for 12 models and 73 inputs, a dot product of each triangle with the packed products zᵢzⱼ scores as
//! fast as models in lanes do, and an update, which touches one model, is several times faster.
//!
//! A lane, once given, stays; models are added without touching the bits of the others, and a model that
//! was removed simply is not asked about. A lane's age is the number of labels that all lanes together
//! have taken in since it was added, or since it was loosened. This module stores and reads;
//! `learner::online` writes, through [`Heads::blocks_mut`].

#![expect(clippy::indexing_slicing, reason = "rows times stride, lengths fixed when a lane is added")]

use std::collections::BTreeMap;

use crate::features::SchemaHash;
use crate::ids::ModelName;
use crate::inputs::{DENSE_ROWS, Inputs, Shape, triangle};

/// Lanes are added in groups of this size.
const LANES: usize = 8;

/// A model's belief before any feedback: mean zero and these variances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// Of the constant.
    pub bias: f32,
    /// Of each surface statistic.
    pub surface: f32,
    /// Of each projected dimension.
    pub projected: f32,
    /// Of each sparse input.
    pub sparse: f32,
}

impl Prior {
    /// Of a model's own difference from what is shared, at cold start. Narrower sparse inputs do better where
    /// one model dominates and overlook who is good at one topic alone: with .8 simulated topics close .40
    /// of the gap to a router that is told them, with 2 they close .58.
    pub const OWN: Self = Self { bias: 1.0, surface: 0.05, projected: 1.0, sparse: 2.0 };
    /// Of what all models have in common, at cold start.
    pub const SHARED: Self = Self { bias: 4.0, surface: 0.25, projected: 4.0, sparse: 1.0 };
    /// Of a head that stands on a fitted logit, before the rows of the fit: it mends, and does not know
    /// better.
    pub const FITTED: Self = Self { bias: 0.1, surface: 0.005, projected: 0.3, sparse: 0.0 };

    /// The variance of this dense input.
    #[must_use]
    pub fn dense(&self, row: usize) -> f32 {
        match row {
            0 => self.bias,
            1..DENSE_ROWS => self.surface,
            DENSE_ROWS.. => self.projected,
        }
    }
}

/// A belief about one logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// The mean logit.
    pub mean: f32,
    /// Its variance, from the dense inputs; never negative.
    pub variance: f32,
}

/// The stored numbers: sparse blocks input-major with [`Heads::stride`] lanes a row, the others lane by lane.
#[derive(Debug)]
pub struct BlocksMut<'a> {
    /// [`Shape::sparse`] rows of means.
    pub sparse_means: &'a mut [f32],
    /// [`Shape::sparse`] rows of variances.
    pub sparse_variances: &'a mut [f32],
    /// [`Shape::dense`] means per lane.
    pub dense_means: &'a mut [f32],
    /// [`Shape::triangle`] covariances per lane.
    pub dense_covariances: &'a mut [f32],
    /// One age per lane, in labels.
    pub ages: &'a mut [f32],
}

/// The heads of all models that ever had a lane.
#[derive(Debug, Clone, PartialEq)]
pub struct Heads {
    prior: Prior,
    shared: Option<Prior>,
    shape: Shape,
    schema: SchemaHash,
    models: Vec<ModelName>,
    lanes: BTreeMap<ModelName, usize>,
    stride: usize,
    blocks: [Vec<f32>; BLOCKS],
}

const BLOCKS: usize = 5;
/// The lane of the shared head, where there is one; no model has an empty name.
const SHARED_LANE: usize = 0;
const SHARED_NAME: &str = "";

impl Heads {
    /// Heads without models: every model has the prior, beside what is shared where there is a prior of that.
    #[must_use]
    pub fn new((prior, shared): (Prior, Option<Prior>), shape: Shape, schema: SchemaHash) -> Self {
        let (models, lanes, blocks) = (Vec::new(), BTreeMap::new(), Default::default());
        let mut heads = Self { prior, shared, shape, schema, models, lanes, stride: 0, blocks };
        if let Some(shared) = shared {
            heads.add_with(&ModelName::new(SHARED_NAME), shared);
        }
        heads
    }

    /// What the features mean that these heads learn from.
    #[must_use]
    pub fn schema(&self) -> SchemaHash {
        self.schema
    }

    /// How many inputs there are.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The belief of this lane before any feedback.
    #[must_use]
    pub fn prior(&self, lane: usize) -> &Prior {
        self.shared.as_ref().filter(|_| lane == SHARED_LANE).unwrap_or(&self.prior)
    }

    /// The models by lane; the shared head goes by an empty name.
    #[must_use]
    pub fn models(&self) -> &[ModelName] {
        &self.models
    }

    /// Lanes per sparse row, a multiple of eight.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The lane of a model, where it has one.
    #[must_use]
    pub fn lane(&self, model: &str) -> Option<usize> {
        self.lanes.get(model).copied()
    }

    /// The lane of the shared head, where there is one.
    #[must_use]
    pub fn shared(&self) -> Option<usize> {
        self.shared.map(|_| SHARED_LANE)
    }

    /// How many labels all lanes together have taken in since this one was added or loosened.
    #[must_use]
    pub fn age(&self, lane: usize) -> f32 {
        self.blocks[4].get(lane).copied().unwrap_or(0.0)
    }

    /// The lane of a model; a new one begins with the prior.
    pub fn add(&mut self, model: &ModelName) -> usize {
        self.add_with(model, self.prior)
    }

    fn add_with(&mut self, model: &ModelName, prior: Prior) -> usize {
        if let Some(lane) = self.lane(model.as_str()) {
            return lane;
        }
        let lane = self.models.len();
        if lane == self.stride {
            self.widen();
        }
        self.models.push(model.clone());
        self.lanes.insert(model.clone(), lane);
        let (shape, stride) = (self.shape, self.stride);
        let [_, sparse_variances, dense_means, dense_covariances, ages] = &mut self.blocks;
        for cell in sparse_variances.iter_mut().skip(lane).step_by(stride) {
            *cell = prior.sparse;
        }
        dense_means.resize((lane + 1) * shape.dense, 0.0);
        dense_covariances.resize((lane + 1) * shape.triangle(), 0.0);
        for i in 0..shape.dense {
            dense_covariances[lane * shape.triangle() + triangle(i, i)] = prior.dense(i);
        }
        ages.push(0.0);
        lane
    }

    /// The stored numbers: sparse means and variances, dense means and covariances, ages.
    #[must_use]
    pub fn blocks(&self) -> [&[f32]; BLOCKS] {
        self.blocks.each_ref().map(Vec::as_slice)
    }

    /// The same, to be written by the learner.
    pub fn blocks_mut(&mut self) -> BlocksMut<'_> {
        let [sparse_means, sparse_variances, dense_means, dense_covariances, ages] = &mut self.blocks;
        BlocksMut { sparse_means, sparse_variances, dense_means, dense_covariances, ages }
    }

    /// The score of every lane, in their order: of models with what is shared, of the shared head alone.
    /// Inputs beyond the shape are not looked at.
    #[must_use]
    pub fn score(&self, inputs: &Inputs) -> Vec<Score> {
        let [_, _, dense_means, dense_covariances, _] = self.blocks();
        let products = products(&inputs.dense);
        let mut scores = Vec::with_capacity(self.stride);
        for first in (0..self.stride).step_by(LANES) {
            scores.extend(self.sparse_means(inputs, first).map(|mean| Score { mean, variance: 0.0 }));
        }
        scores.truncate(self.models.len());
        let means = (dense_means, self.shape.dense);
        let covariances = (dense_covariances, self.shape.triangle());
        let (dense, products, to) = (inputs.dense.as_slice(), products.as_slice(), scores.as_mut_slice());
        pulp::Arch::new().dispatch(Dense { means, covariances, dense, products, to });
        if let Some((shared, own)) = scores.split_first_mut().filter(|_| self.shared.is_some()) {
            own.iter_mut().for_each(|score| score.mean += shared.mean);
        }
        scores
    }

    /// m'·x of a group of lanes.
    fn sparse_means(&self, inputs: &Inputs, first: usize) -> [f32; LANES] {
        let mut sums = [0.0; LANES];
        for (row, value) in inputs.sparse.iter().filter(|(row, _)| usize::from(*row) < self.shape.sparse) {
            let at = usize::from(*row) * self.stride + first;
            add_scaled(&mut sums, &self.blocks[0][at..at + LANES], *value);
        }
        sums
    }

    /// The score of a model without a lane, beside the scores of those that have one.
    #[must_use]
    pub fn prior_score(&self, inputs: &Inputs, scores: &[Score]) -> Score {
        let shared = self.shared().and_then(|lane| scores.get(lane)).map_or(0.0, |shared| shared.mean);
        let dense = inputs.dense.iter().take(self.shape.dense).enumerate();
        Score { mean: shared, variance: dense.map(|(i, z)| self.prior.dense(i) * z * z).sum() }
    }

    /// Gives every sparse row another group of lanes; the bits of those that are there stay.
    fn widen(&mut self) {
        let (old, new) = (self.stride, self.stride + LANES);
        for block in self.blocks.iter_mut().take(2) {
            let mut wider = vec![0.0; self.shape.sparse * new];
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

/// Adds to scores what the dense inputs make of every lane, with the widest vectors that a machine has.
struct Dense<'a> {
    /// Blocks, and how many cells of them a lane has.
    means: (&'a [f32], usize),
    covariances: (&'a [f32], usize),
    dense: &'a [f32],
    products: &'a [f32],
    to: &'a mut [Score],
}

impl pulp::NullaryFnOnce for Dense<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let ((means, dense), (covariances, triangle)) = (self.means, self.covariances);
        let lanes = means.chunks_exact(dense.max(1)).zip(covariances.chunks_exact(triangle.max(1)));
        for (score, (means, covariances)) in self.to.iter_mut().zip(lanes) {
            score.mean += dot(means, self.dense);
            score.variance = dot(covariances, self.products).max(0.0);
        }
    }
}

/// The products zᵢzⱼ in the order of a packed triangle, those below the diagonal doubled, as an entry
/// there stands for two: zᵀΣz is the dot product of the two triangles.
fn products(dense: &[f32]) -> Vec<f32> {
    let mut products = Vec::with_capacity(triangle(dense.len(), 0));
    for (i, z) in dense.iter().enumerate() {
        let twice = 2.0 * z;
        products.extend(dense[..i].iter().map(|other| twice * other));
        products.push(z * z);
    }
    products
}

/// Σ aᵢbᵢ as far as both reach, always added up in the same order: sixteen sums side by side, which a
/// compiler may keep in vector registers, then those pairwise, then the rest.
#[must_use]
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    const WIDTH: usize = 16;
    let length = a.len().min(b.len());
    let ((a_wide, a_rest), (b_wide, b_rest)) =
        (a[..length].as_chunks::<WIDTH>(), b[..length].as_chunks::<WIDTH>());
    let mut sums = [0.0_f32; WIDTH];
    for (a, b) in a_wide.iter().zip(b_wide) {
        for i in 0..WIDTH {
            sums[i] += a[i] * b[i];
        }
    }
    // Into arrays of their own: sums that are added up in place are kept in memory, which costs a sixth.
    let eight: [f32; 8] = std::array::from_fn(|i| sums[i] + sums[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    let sum = (four[0] + four[2]) + (four[1] + four[3]);
    a_rest.iter().zip(b_rest).fold(sum, |sum, (a, b)| sum + a * b)
}

#[inline]
fn add_scaled(sums: &mut [f32; LANES], row: &[f32], value: f32) {
    for (sum, cell) in sums.iter_mut().zip(row) {
        *sum += value * cell;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::tests::features;
    use crate::inputs::DENSE_MAX;

    fn noise(i: usize) -> f32 {
        ((i * 7_919) % 1_000) as f32 / 1_000.0 - 0.3
    }

    /// Scores of eleven lanes of noise against sums written out.
    fn check_scores(shape: Shape, inputs: &Inputs) {
        let mut heads = Heads::new((Prior::SHARED, None), shape, SchemaHash(1));
        for i in 0..11 {
            heads.add(&ModelName::from(format!("m{i}")));
        }
        for block in &mut heads.blocks {
            block.iter_mut().enumerate().for_each(|(i, cell)| *cell = noise(i));
        }
        let scores = heads.score(inputs);
        assert_eq!(scores.len(), 11);
        let [sparse_means, _, dense_means, dense_covariances, _] = heads.blocks();
        for (lane, score) in scores.iter().enumerate() {
            let mut mean = 0.0;
            let mut variance = 0.0;
            for (row, x) in &inputs.sparse {
                mean += f64::from(sparse_means[usize::from(*row) * heads.stride + lane]) * f64::from(*x);
            }
            for i in 0..shape.dense {
                mean += f64::from(dense_means[lane * shape.dense + i]) * f64::from(inputs.dense[i]);
                for j in 0..shape.dense {
                    let at = lane * shape.triangle() + triangle(i.max(j), i.min(j));
                    variance += f64::from(dense_covariances[at]) * f64::from(inputs.dense[i] * inputs.dense[j]);
                }
            }
            assert!((f64::from(score.mean) - mean).abs() < 1e-4);
            assert!((f64::from(score.variance) - variance.max(0.0)).abs() < 2e-4 * variance.abs().max(1.0));
        }
    }

    #[test]
    fn scores_agree_with_sums_over_one_lane() {
        check_scores(Shape::COLD, &Inputs::of(&features()));
        for dense in [1, 2, 15, 65, 73, DENSE_MAX] {
            let dense: Vec<f32> = (0..dense).map(|i| noise(i * 31 + 5)).collect();
            let shape = Shape { dense: dense.len(), sparse: 0 };
            check_scores(shape, &Inputs { dense: dense.clone(), sparse: Vec::new() });
            check_scores(
                Shape { sparse: 3, ..shape },
                &Inputs { dense, sparse: vec![(2, 0.5), (0, -1.0), (2, 0.25)] },
            );
        }
    }

    #[test]
    fn inputs_of_another_shape_are_no_fault() {
        let mut heads = Heads::new((Prior::SHARED, None), Shape { dense: 3, sparse: 2 }, SchemaHash(1));
        heads.add(&ModelName::from("m".to_owned()));
        for inputs in [Inputs::of(&features()), Inputs { dense: vec![1.0], sparse: vec![(9, 1.0)] }] {
            let score = heads.score(&inputs)[0];
            let prior = heads.prior_score(&inputs, &[]);
            assert!(score.mean.abs() < 1e-9 && (score.variance - prior.variance).abs() < 1e-5);
        }
    }

    #[test]
    fn a_new_lane_has_the_prior_and_leaves_the_others_alone() {
        for shape in [Shape::COLD, Shape { dense: 40, sparse: 0 }] {
            let mut heads = Heads::new((Prior::SHARED, None), shape, SchemaHash(1));
            let mut inputs = Inputs::of(&features());
            inputs.dense.resize(shape.dense, 0.5);
            for i in 0..20 {
                let bits = |scores: &[Score]| -> Vec<(u32, u32)> {
                    scores.iter().map(|s| (s.mean.to_bits(), s.variance.to_bits())).collect()
                };
                let before = bits(&heads.score(&inputs));
                let name = ModelName::from(format!("m{i}"));
                let lane = heads.add(&name);
                assert_eq!((lane, heads.add(&name), heads.lane(name.as_str())), (i, i, Some(i)));
                let after = heads.score(&inputs);
                assert_eq!(bits(&after)[..i], before[..]);
                let prior = heads.prior_score(&inputs, &[]);
                assert!(after[i].mean.abs() < 1e-9 && (after[i].variance - prior.variance).abs() < 1e-4);
                // What a learner would have written.
                heads.blocks_mut().dense_means[lane * shape.dense] = i as f32;
            }
        }
    }
}
