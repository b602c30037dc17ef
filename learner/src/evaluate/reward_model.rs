//! What each model would have scored: ridge regressions on dense features, cross-fitted.
//!
//! The rows are split into folds; the regression that speaks of a row was fitted on the others, so the
//! doubly robust estimate stays unbiased ([`super::estimate`]). Folds follow from a key: rows of
//! one decision, or better of one prompt, share it and are never split.
//!
//! One pass sums the normal equations per fold and model; the training sums of a fold are the total
//! less its own, so all folds cost one pass over the labels and a Cholesky factorisation each.
//! Features are centred and the penalty follows their mean squares, so the caller's scales do not
//! matter; a model's level is held to the mean of all labels by a few pseudo-labels, so a model that was
//! hardly called is taken as average. A linear probability is enough here: what q̂ misses, the
//! doubly robust correction adds.

#![expect(clippy::indexing_slicing, reason = "matrices whose lengths are checked once in `fit`")]

use pointsman_router::subset::predicted_accuracy;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How a model of rewards is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ridge {
    /// As many labels' weight pulls each coefficient to zero.
    pub labels: f64,
    /// As many labels' weight pulls a model's level to the mean of all.
    pub level_labels: f64,
}

impl Default for Ridge {
    /// The best of 10, 30, 100 and 300 by squared error out of fold on logs of recorded outcomes.
    fn default() -> Self {
        Self { labels: 100.0, level_labels: 5.0 }
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
    pub fn fit(design: &Design<'_>, models: usize, labels: &[Label], ridge: Ridge) -> Result<Self, FitError> {
        check(design, models, labels)?;
        let centre = centre(design);
        let folds = design.folds.iter().map(|fold| usize::from(*fold) + 1).max().unwrap_or(1);
        let sums = Sums::of(design, &centre, models, labels, folds);
        let squares = mean_squares(design, &centre);
        let stride = design.dims + 1;
        let mut coefficients = vec![0.0; folds * models * stride];
        let total = sums.total();
        for fold in 0..folds {
            // With one fold alone there is nothing else to learn from.
            let held_out = (folds > 1).then_some(fold);
            let level = total.level(&sums, held_out);
            for model in 0..models {
                let mut equations = total.without(&sums, held_out, model);
                equations.penalise(&squares, ridge, level);
                let solution = equations.solve();
                let at = (fold * models + model) * stride;
                coefficients[at..at + stride].copy_from_slice(&solution);
            }
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
    size: usize,
    triangle: Vec<f64>,
    right: Vec<f64>,
}

impl Equations {
    fn new(size: usize) -> Self {
        Self { size, triangle: vec![0.0; size * (size + 1) / 2], right: vec![0.0; size] }
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

    fn penalise(&mut self, squares: &[f64], ridge: Ridge, level: f64) {
        self.triangle[0] += ridge.level_labels;
        self.right[0] += ridge.level_labels * level;
        for (i, square) in squares.iter().enumerate() {
            // A feature that never changes gets a penalty all the same, or its row would be singular.
            self.triangle[(i + 1) * (i + 2) / 2 + i + 1] += ridge.labels * square.max(1e-9);
        }
    }

    /// Cholesky in place, then both substitutions. The penalty keeps every pivot positive; one that
    /// rounding took to zero leaves its coefficient at zero.
    fn solve(mut self) -> Vec<f64> {
        let n = self.size;
        let at = |i: usize| i * (i + 1) / 2;
        let a = &mut self.triangle;
        for i in 0..n {
            let (done, current) = a.split_at_mut(at(i));
            for j in 0..i {
                let above = &done[at(j)..=at(j) + j];
                let dot: f64 = current[..j].iter().zip(above).map(|(x, y)| x * y).sum();
                current[j] = if above[j] > 0.0 { (current[j] - dot) / above[j] } else { 0.0 };
            }
            let dot: f64 = current[..i].iter().map(|x| x * x).sum();
            current[i] = (current[i] - dot).max(0.0).sqrt();
        }
        let mut x = self.right;
        for i in 0..n {
            let row = &a[at(i)..=at(i) + i];
            let dot: f64 = row[..i].iter().zip(&x).map(|(l, x)| l * x).sum();
            x[i] = if row[i] > 0.0 { (x[i] - dot) / row[i] } else { 0.0 };
        }
        for i in (0..n).rev() {
            let row = &a[at(i)..=at(i) + i];
            x[i] = if row[i] > 0.0 { x[i] / row[i] } else { 0.0 };
            let solved = x[i];
            for (x, l) in x[..i].iter_mut().zip(row) {
                *x -= l * solved;
            }
        }
        x
    }
}

/// The equations per fold and model.
struct Sums {
    models: usize,
    parts: Vec<Equations>,
}

impl Sums {
    fn of(design: &Design<'_>, centre: &[f64], models: usize, labels: &[Label], folds: usize) -> Self {
        let size = design.dims + 1;
        let part =
            |label: &Label| usize::from(design.folds[label.row as usize]) * models + usize::from(label.model);
        let mut sorted: Vec<&Label> = labels.iter().collect();
        sorted.sort_by_key(|label| part(label));
        let mut parts = vec![Equations::new(size); folds * models];
        let mut z: [Vec<f64>; BLOCK] = std::array::from_fn(|_| vec![1.0; size]);
        for alike in sorted.chunk_by(|a, b| part(a) == part(b)) {
            for block in alike.chunks(BLOCK) {
                // A block that is not full ends with labels that do not count.
                let mut scores = [(0.0, 0.0); BLOCK];
                for ((z, score), label) in z.iter_mut().zip(&mut scores).zip(block) {
                    let row = label.row as usize;
                    let features = &design.features[row * design.dims..(row + 1) * design.dims];
                    for ((z, x), mean) in z[1..].iter_mut().zip(features).zip(centre) {
                        *z = f64::from(*x) - mean;
                    }
                    *score = (f64::from(label.score), f64::from(label.weight));
                }
                parts[part(block[0])].add(&z, &scores);
            }
        }
        Self { models, parts }
    }

    fn total(&self) -> Total {
        let mut models: Vec<Equations> = self.parts[..self.models].to_vec();
        for fold in self.parts[self.models..].chunks_exact(self.models) {
            for (total, part) in models.iter_mut().zip(fold) {
                total.shift(part, 1.0);
            }
        }
        Total { models }
    }
}

/// The equations per model over all folds.
struct Total {
    models: Vec<Equations>,
}

impl Total {
    fn without(&self, sums: &Sums, held_out: Option<usize>, model: usize) -> Equations {
        let mut equations = self.models[model].clone();
        if let Some(fold) = held_out {
            equations.shift(&sums.parts[fold * sums.models + model], -1.0);
        }
        equations
    }

    /// The mean label of all models outside a fold; a half where there is none.
    fn level(&self, sums: &Sums, held_out: Option<usize>) -> f64 {
        let (mut count, mut sum) = (0.0, 0.0);
        for (model, total) in self.models.iter().enumerate() {
            let held = held_out.map(|fold| &sums.parts[fold * sums.models + model]);
            count += total.triangle[0] - held.map_or(0.0, |part| part.triangle[0]);
            sum += total.right[0] - held.map_or(0.0, |part| part.right[0]);
        }
        if count > 0.0 { sum / count } else { 0.5 }
    }
}

#[cfg(test)]
mod tests;
