//! What each model would have scored: ridge regressions on dense features, cross-fitted.
//!
//! The rows are split into folds; the regression that speaks of a row was fitted on the others, so the
//! doubly robust estimate stays unbiased ([`super::estimate`]). Folds follow from a key: rows of
//! one decision, or better of one prompt, share it and are never split.
//!
//! One pass sums the normal equations per fold and model; the training sums of a fold are the total
//! less its own, so all folds cost one pass over the labels and a few Cholesky factorisations each: how
//! much the features are to be believed is chosen for each fold among the others, never on itself.
//! Features are centred and the penalty follows their mean squares, so the caller's scales do not
//! matter; a model's level is held to the mean of all labels by a few pseudo-labels, so a model that was
//! hardly called is taken as average. A linear probability is enough here: what q̂ misses, the
//! doubly robust correction adds.

#![expect(clippy::indexing_slicing, reason = "matrices whose lengths are checked once in `fit`")]

use pointsman_router::subset::predicted_accuracy;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::packed::{dot, solved};

/// How a model of rewards is fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Ridge {
    /// As many labels' weight pulls each coefficient to zero. Of several, the best is taken for each fold,
    /// by the squared error on the next fold of regressions fitted without either.
    pub labels: Vec<f64>,
    /// As many labels' weight pulls a model's level to the mean of all.
    pub level_labels: f64,
}

impl Default for Ridge {
    /// From features that tell much to features that tell little.
    fn default() -> Self {
        Self { labels: vec![30.0, 100.0, 300.0, 1_000.0, 3_000.0], level_labels: 5.0 }
    }
}

/// The features of the rows, and the fold of each.
#[derive(Debug, Clone, Copy)]
pub struct Design<'a> {
    /// Row after row, `dims` numbers each.
    pub features: &'a [f32],
    /// Numbers per row.
    pub dims: usize,
    /// One fold per row, from 0.
    pub folds: &'a [u8],
}

impl<'a> Design<'a> {
    fn row(&self, row: u32) -> &'a [f32] {
        let at = row as usize * self.dims;
        &self.features[at..at + self.dims]
    }
}

/// What one model was seen to score on one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Label {
    /// The row.
    pub row: u32,
    /// The model, from 0.
    pub model: u16,
    /// The score in [0, 1].
    pub score: f32,
    /// How much it counts: one, a number of equal draws, or an inverse propensity.
    pub weight: f32,
}

/// Why nothing can be fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// There are no labels.
    #[error("no model was judged on any row, submit feedback first")]
    NoLabels,
    /// The features are not rows times dims.
    #[error("{numbers} features are not {rows} rows of {dims}")]
    Shape {
        /// Features given.
        numbers: usize,
        /// Folds given, so rows.
        rows: usize,
        /// Numbers per row.
        dims: usize,
    },
    /// A label names what is not there, or is no number.
    #[error("label {label} names no row or model, or is no number")]
    Label {
        /// The label, from 0.
        label: usize,
    },
}

/// The fold of a key: the same for equal keys and seeds.
#[must_use]
pub fn fold_of(key: u64, seed: u64, folds: u8) -> u8 {
    let hash = xxh3_64_with_seed(&key.to_le_bytes(), seed);
    // The remainder is below `folds`.
    u8::try_from(hash % u64::from(folds.max(1))).unwrap_or(0)
}

/// The modelled reward of a set of models with these predicted scores (`answers`: how many distinct
/// answers are plausible).
#[must_use]
pub fn set_reward(scores: &[f64], set: &[usize], answers: f64) -> f64 {
    match set {
        [only] => scores.get(*only).copied().unwrap_or(0.0),
        _ => {
            let members: Vec<f64> = set.iter().filter_map(|at| scores.get(*at).copied()).collect();
            predicted_accuracy(&members, answers)
        }
    }
}

/// Cross-fitted regressions of all models.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardModel {
    dims: usize,
    models: usize,
    centre: Vec<f64>,
    /// Per fold and model: the level, then one coefficient per feature.
    coefficients: Vec<f64>,
}

impl RewardModel {
    /// Fits on the labels of all rows; the coefficients of a fold come from the other folds.
    ///
    /// # Errors
    /// [`FitError`] where there is nothing to fit on.
    pub fn fit(design: &Design<'_>, models: usize, labels: &[Label], ridge: &Ridge) -> Result<Self, FitError> {
        check(design, models, labels)?;
        let centre = centre(design);
        let sums = Sums::of(design, &centre, models, labels);
        let squares = mean_squares(design, &centre);
        let mut coefficients = Vec::new();
        for fold in 0..sums.folds {
            let penalty = |labels: f64| Penalty { squares: &squares, labels, level_labels: ridge.level_labels };
            let next = (fold + 1) % sums.folds;
            let error = |labels: f64| {
                let trial = sums.solve(&[fold, next], &penalty(labels));
                sums.error(design, &centre, next, &trial)
            };
            let best = match ridge.labels.as_slice() {
                // Two folds leave nothing to compare on, one not even something to hold out.
                [] => 0.0,
                [first, ..] if sums.folds < 3 => *first,
                several => several
                    .iter()
                    .map(|labels| (*labels, error(*labels)))
                    .reduce(|best, other| if other.1 < best.1 { other } else { best })
                    .map_or(0.0, |(labels, _)| labels),
            };
            let held_out = if sums.folds > 1 { &[fold][..] } else { &[] };
            coefficients.extend(sums.solve(held_out, &penalty(best)));
        }
        Ok(Self { dims: design.dims, models, centre, coefficients })
    }

    /// What every model would score on a row with these features, by the regressions of its fold; in
    /// [0, 1]. `scores` takes one number per model.
    pub fn predict(&self, fold: u8, features: &[f32], scores: &mut [f64]) {
        let stride = self.dims + 1;
        let begin = usize::from(fold) * self.models * stride;
        let rows = self.coefficients.get(begin..).unwrap_or_default().chunks_exact(stride);
        for (score, row) in scores.iter_mut().zip(rows.take(self.models)) {
            let sum: f64 = features
                .iter()
                .zip(&self.centre)
                .zip(&row[1..])
                .map(|((x, centre), coefficient)| (f64::from(*x) - centre) * coefficient)
                .sum();
            *score = (row[0] + sum).clamp(0.0, 1.0);
        }
    }

    /// The predictions for all rows of a design: row after row, one number per model.
    #[must_use]
    pub fn predict_all(&self, design: &Design<'_>) -> Vec<f64> {
        let mut scores = vec![0.0; design.folds.len() * self.models];
        if self.models > 0 && self.dims > 0 {
            let rows = design.features.chunks_exact(self.dims).zip(design.folds);
            for (into, (features, fold)) in scores.chunks_exact_mut(self.models).zip(rows) {
                self.predict(*fold, features, into);
            }
        }
        scores
    }
}

fn check(design: &Design<'_>, models: usize, labels: &[Label]) -> Result<(), FitError> {
    let (numbers, rows, dims) = (design.features.len(), design.folds.len(), design.dims);
    if dims == 0 || rows.checked_mul(dims) != Some(numbers) {
        return Err(FitError::Shape { numbers, rows, dims });
    }
    if labels.is_empty() {
        return Err(FitError::NoLabels);
    }
    let is_good = |label: &Label| {
        (label.row as usize) < rows
            && usize::from(label.model) < models
            && label.score.is_finite()
            && label.weight.is_finite()
            && label.weight >= 0.0
    };
    match labels.iter().position(|label| !is_good(label)) {
        Some(label) => Err(FitError::Label { label }),
        None => Ok(()),
    }
}

fn centre(design: &Design<'_>) -> Vec<f64> {
    let mut sums = vec![0.0; design.dims];
    for row in design.features.chunks_exact(design.dims) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += f64::from(*x);
        }
    }
    let rows = design.folds.len().max(1) as f64;
    sums.iter().map(|sum| sum / rows).collect()
}

fn mean_squares(design: &Design<'_>, centre: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; design.dims];
    for row in design.features.chunks_exact(design.dims) {
        for ((sum, x), mean) in sums.iter_mut().zip(row).zip(centre) {
            *sum += (f64::from(*x) - mean).powi(2);
        }
    }
    let rows = design.folds.len().max(1) as f64;
    sums.iter().map(|sum| sum / rows).collect()
}

/// Labels that are added at once.
const BLOCK: usize = 4;

/// The normal equations of one model: the lower triangle of Σw·zzᵀ row after row, and Σw·z·y, with
/// z = [1, features].
#[derive(Debug, Clone)]
struct Equations {
    triangle: Vec<f64>,
    right: Vec<f64>,
}

impl Equations {
    fn new(size: usize) -> Self {
        Self { triangle: vec![0.0; size * (size + 1) / 2], right: vec![0.0; size] }
    }

    /// Adds some labels at once, so that each cell is read and written once for all of them. `z` has a row
    /// per label.
    fn add(&mut self, z: &[Vec<f64>; BLOCK], labels: &[(f64, f64); BLOCK]) {
        let [z0, z1, z2, z3] = z;
        let mut rest = self.triangle.as_mut_slice();
        for (i, right) in self.right.iter_mut().enumerate() {
            let (row, below) = std::mem::take(&mut rest).split_at_mut(i + 1);
            let scaled: [f64; BLOCK] = std::array::from_fn(|b| labels[b].1 * z[b][i]);
            let columns = z0.iter().zip(z1).zip(z2).zip(z3);
            for (cell, (((a, b), c), d)) in row.iter_mut().zip(columns) {
                *cell += scaled[0] * a + scaled[1] * b + (scaled[2] * c + scaled[3] * d);
            }
            rest = below;
            *right += scaled.iter().zip(labels).map(|(x, (score, _))| x * score).sum::<f64>();
        }
    }

    fn shift(&mut self, other: &Self, factor: f64) {
        for (cell, x) in self.triangle.iter_mut().zip(&other.triangle) {
            *cell += factor * x;
        }
        for (cell, x) in self.right.iter_mut().zip(&other.right) {
            *cell += factor * x;
        }
    }

    fn penalise(&mut self, penalty: &Penalty<'_>, level: f64) {
        self.triangle[0] += penalty.level_labels;
        self.right[0] += penalty.level_labels * level;
        for (i, square) in penalty.squares.iter().enumerate() {
            // A feature that never changes gets a penalty all the same, or its row would be singular.
            self.triangle[(i + 1) * (i + 2) / 2 + i + 1] += (penalty.labels * square).max(1e-9);
        }
    }

    fn solve(self) -> Vec<f64> {
        solved(self.triangle, self.right)
    }
}

/// What pulls coefficients to zero and levels to the mean.
struct Penalty<'a> {
    /// The mean square of each centred feature.
    squares: &'a [f64],
    labels: f64,
    level_labels: f64,
}

/// The equations per fold and model, and the labels that they were made of.
struct Sums<'a> {
    folds: usize,
    models: usize,
    size: usize,
    /// Of all folds, per model.
    total: Vec<Equations>,
    parts: Vec<Equations>,
    /// The labels of each fold.
    labels: Vec<Vec<&'a Label>>,
}

impl<'a> Sums<'a> {
    fn of(design: &Design<'_>, centre: &[f64], models: usize, labels: &'a [Label]) -> Self {
        let size = design.dims + 1;
        let folds = design.folds.iter().map(|fold| usize::from(*fold) + 1).max().unwrap_or(1);
        let mut by_fold: Vec<Vec<&Label>> = vec![Vec::new(); folds];
        for label in labels {
            by_fold[usize::from(design.folds[label.row as usize])].push(label);
        }
        let mut parts = vec![Equations::new(size); folds * models];
        let mut z: [Vec<f64>; BLOCK] = std::array::from_fn(|_| vec![1.0; size]);
        for (fold, labels) in by_fold.iter_mut().enumerate() {
            labels.sort_by_key(|label| label.model);
            for alike in labels.chunk_by(|a, b| a.model == b.model) {
                for block in alike.chunks(BLOCK) {
                    // A block that is not full ends with labels that do not count.
                    let mut scores = [(0.0, 0.0); BLOCK];
                    for ((z, score), label) in z.iter_mut().zip(&mut scores).zip(block) {
                        fill(z, design.row(label.row), centre);
                        *score = (f64::from(label.score), f64::from(label.weight));
                    }
                    parts[fold * models + usize::from(block[0].model)].add(&z, &scores);
                }
            }
        }
        let mut total = parts[..models].to_vec();
        for fold in parts[models..].chunks_exact(models) {
            total.iter_mut().zip(fold).for_each(|(total, part)| total.shift(part, 1.0));
        }
        Self { folds, models, size, total, parts, labels: by_fold }
    }

    /// The coefficients of all models, one after the other, from all folds but these.
    fn solve(&self, held_out: &[usize], penalty: &Penalty<'_>) -> Vec<f64> {
        let mut equations = self.total.clone();
        for fold in held_out {
            let parts = &self.parts[fold * self.models..(fold + 1) * self.models];
            equations.iter_mut().zip(parts).for_each(|(rest, part)| rest.shift(part, -1.0));
        }
        let count: f64 = equations.iter().map(|of| of.triangle[0]).sum();
        let sum: f64 = equations.iter().map(|of| of.right[0]).sum();
        let level = if count > 0.0 { sum / count } else { 0.5 };
        let solved = |mut equations: Equations| {
            equations.penalise(penalty, level);
            equations.solve()
        };
        equations.into_iter().flat_map(solved).collect()
    }

    /// The squared error of these coefficients on the labels of a fold.
    fn error(&self, design: &Design<'_>, centre: &[f64], fold: usize, coefficients: &[f64]) -> f64 {
        let mut z = vec![1.0; self.size];
        let of_label = |label: &&Label| {
            fill(&mut z, design.row(label.row), centre);
            let model = usize::from(label.model) * self.size;
            let score = dot(&coefficients[model..model + self.size], &z).clamp(0.0, 1.0);
            f64::from(label.weight) * (score - f64::from(label.score)).powi(2)
        };
        self.labels[fold].iter().map(of_label).sum()
    }
}

/// z = [1, features less their mean]; the one is there already.
fn fill(z: &mut [f64], features: &[f32], centre: &[f64]) {
    for ((z, x), mean) in z[1..].iter_mut().zip(features).zip(centre) {
        *z = f64::from(*x) - mean;
    }
}

#[cfg(test)]
mod tests;
