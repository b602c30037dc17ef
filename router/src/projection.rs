//! The fitted encoder: from hashed counts to a few dozen dense dimensions.
//!
//! A linear map, made by the learner (IDF weights and a truncated SVD over the counts of many
//! requests) and part of a policy's artifact. A count c of bucket b becomes
//! sign(c)·ln(1 + |c|)·idf(b); words and characters are scaled to half of length one each (in
//! squares), tags to length one together, a sketch has it already; the sum of the buckets' rows is
//! the projection, less a constant. The surface statistics go beside it, standardised. Rows may have
//! further cells, for supervised directions: linear scores over all buckets cost nothing extra to read.
//!
//! This module must never hold text, and never be read with features of another schema: whoever
//! loads an artifact checks that ([`crate::artifact`]).

mod rows;

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::features::{
    FIRST_CHAR_BUCKET, Features, SKETCH_DIMS, SURFACE_DIMS, SchemaHash, TAG_BUCKETS, TEXT_BUCKETS, TextCount,
};

pub use rows::{Rows, narrowed, widened};

/// Rows of the map: text buckets, tag buckets, sketch dimensions.
pub const PROJECTION_ROWS: usize = TEXT_BUCKETS + TAG_BUCKETS + SKETCH_DIMS;
/// More dimensions than this are never projected to.
pub const PROJECTED_DIMS_MAX: usize = 64;
/// Dense inputs beside the projected ones: the constant and the surface statistics.
pub const PLAIN_DIMS: usize = 1 + SURFACE_DIMS;

/// Mean and spread of a surface statistic over the rows that were fitted on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean.
    pub mean: f32,
    /// One divided by the standard deviation; zero for a statistic that never varied.
    pub inverse_sd: f32,
}

/// A fitted encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    schema: SchemaHash,
    dims: usize,
    surface: [Spread; SURFACE_DIMS],
    /// Subtracted from each output, the dimensions and then the directions.
    shift: Vec<f32>,
    /// [`PROJECTION_ROWS`] rows. One without weight is left out, of the length too.
    rows: Rows,
}

/// Why numbers are no projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{outputs} outputs need as many shifts and {PROJECTION_ROWS} rows; at most {PROJECTED_DIMS_MAX} of them are dimensions"
)]
pub struct ProjectionShape {
    /// The outputs that were asked for.
    pub outputs: usize,
}

impl Projection {
    /// The map of these rows to so many dimensions, the other outputs supervised directions beside them.
    ///
    /// # Errors
    /// [`ProjectionShape`] when the lengths do not fit each other.
    pub fn new(
        schema: SchemaHash,
        dims: usize,
        surface: [Spread; SURFACE_DIMS],
        (rows, shift): (Rows, Vec<f32>),
    ) -> Result<Self, ProjectionShape> {
        let outputs = rows.outputs();
        let made = Self { schema, dims, surface, shift, rows };
        made.is_sound().then_some(made).ok_or(ProjectionShape { outputs })
    }

    /// Whether all lengths fit each other and every number is one; to be asked of what was read from bytes.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let plain = self.surface.iter().flat_map(|s| [s.mean, s.inverse_sd]);
        self.dims <= PROJECTED_DIMS_MAX.min(self.rows.outputs())
            && self.shift.len() == self.rows.outputs()
            && self.rows.len() == PROJECTION_ROWS
            && plain.chain(self.shift.iter().copied()).all(f32::is_finite)
            && self.rows.is_sound()
    }

    /// What the features mean that this projects.
    #[must_use]
    pub fn schema(&self) -> SchemaHash {
        self.schema
    }

    /// All dense inputs: the constant, the surface statistics, the projected dimensions.
    #[must_use]
    pub fn width(&self) -> usize {
        PLAIN_DIMS + self.dims
    }

    /// Supervised directions.
    #[must_use]
    pub fn directions(&self) -> usize {
        self.rows.outputs().saturating_sub(self.dims)
    }

    /// The dense inputs that are not projected: one, and the standardised surface statistics.
    #[must_use]
    pub fn plain(&self, features: &Features) -> [f32; PLAIN_DIMS] {
        let mut plain = [1.0; PLAIN_DIMS];
        for ((to, value), spread) in plain.iter_mut().skip(1).zip(&features.surface).zip(&self.surface) {
            *to = ((value - spread.mean) * spread.inverse_sd).clamp(-SPREADS_MAX, SPREADS_MAX);
        }
        plain
    }

    /// The table of its rows in full, one cell an output, and what is subtracted from each output.
    #[must_use]
    pub fn table(&self) -> (Vec<f32>, &[f32]) {
        (self.rows.cells(), &self.shift)
    }

    /// Makes the dense inputs of a request (one, the standardised surface statistics, the projected
    /// dimensions: [`Projection::width`] of them), and behind them the supervised directions.
    #[must_use]
    pub fn project(&self, features: &Features) -> Vec<f32> {
        let mut sums = self.rows.sums();
        weigh(features, |row| self.rows.weight(row), |part, scale| self.rows.add(part, scale, &mut sums));
        let mut all = Vec::with_capacity(PLAIN_DIMS + self.shift.len());
        all.extend(self.plain(features));
        all.extend(self.rows.totals(&sums).zip(&self.shift).map(|(total, shift)| total - shift));
        all
    }
}

/// Standard deviations that a surface statistic counts with at most.
const SPREADS_MAX: f32 = 4.0;

/// Logarithms of the counts that nearly all buckets have.
static LOGS: LazyLock<[f32; 32]> = LazyLock::new(|| {
    let mut logs = [0.0; 32];
    let mut count = 0.0;
    for log in &mut logs {
        *log = libm::logf(1.0 + count);
        count += 1.0;
    }
    logs
});

/// What a count says, by its logarithm and with its sign.
fn log_count(logs: &[f32; 32], count: i16) -> f32 {
    let size = count.unsigned_abs();
    let log = logs.get(usize::from(size)).copied().unwrap_or_else(|| libm::logf(1.0 + f32::from(size)));
    if count < 0 { -log } else { log }
}

/// The first row of the tags, and of the sketch.
const FIRST_TAG: u32 = 1 << 16;
const FIRST_SKETCH: u32 = FIRST_TAG + (1 << 10);

/// Tells the four parts of a request's features (words, characters, tags, sketch) as rows with their
/// weighted values, each with the scale that brings it to its length. The learner fits on the same.
pub fn weigh(features: &Features, idf: impl Fn(usize) -> f32, mut part: impl FnMut(&[(u32, f32)], f32)) {
    let logs = &*LOGS;
    let words = features.text.partition_point(|c| c.bucket < FIRST_CHAR_BUCKET);
    let (words, chars) = features.text.split_at(words);
    let mut rows: Vec<(u32, f32)> = Vec::with_capacity(words.len().max(chars.len()));
    for counts in [words, chars] {
        let mut squares = 0.0;
        rows.clear();
        rows.extend(counts.iter().map(|TextCount { bucket, count }| {
            let value = log_count(logs, *count) * idf(usize::from(*bucket));
            squares += value * value;
            (u32::from(*bucket), value)
        }));
        if squares > 0.0 {
            part(&rows, (0.5 / squares).sqrt());
        }
    }
    rows.clear();
    rows.extend(features.tags.iter().map(|tag| {
        let row = FIRST_TAG + u32::from(*tag) % (FIRST_SKETCH - FIRST_TAG);
        (row, idf(row as usize))
    }));
    let squares: f32 = rows.iter().map(|(_, value)| value * value).sum();
    if squares > 0.0 {
        part(&rows, squares.sqrt().recip());
    }
    rows.clear();
    rows.extend((FIRST_SKETCH..).zip(features.sketch.iter().copied().take(SKETCH_DIMS)));
    if !rows.is_empty() {
        part(&rows, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::tests::features;

    const PLAIN: Spread = Spread { mean: 0.0, inverse_sd: 1.0 };

    fn noise(i: usize) -> f32 {
        ((i * 7_919) % 1_000) as f32 / 1_000.0 - 0.4
    }

    /// The definition of the module's head, in f64 and one output at a time.
    fn expected(projection: &Projection, features: &Features, dim: usize) -> f64 {
        let (table, outputs) = (projection.rows.cells(), projection.rows.outputs());
        let cell = |row: usize| f64::from(table[row * outputs + dim]);
        let idf = |row: usize| f64::from(projection.rows.weight(row));
        let value = |c: &TextCount| {
            f64::from(c.count.signum()) * (1.0 + f64::from(c.count).abs()).ln() * idf(usize::from(c.bucket))
        };
        let text = |chars: bool| {
            let mine = || features.text.iter().filter(|c| (c.bucket >= FIRST_CHAR_BUCKET) == chars);
            let length = mine().map(|c| value(c).powi(2)).sum::<f64>().sqrt();
            mine().map(|c| value(c) * cell(usize::from(c.bucket))).sum::<f64>() / length * 0.5_f64.sqrt()
        };
        let tags = || features.tags.iter().map(|t| TEXT_BUCKETS + usize::from(*t));
        let length = tags().map(|row| idf(row).powi(2)).sum::<f64>().sqrt();
        let tagged = tags().map(|row| idf(row) * cell(row)).sum::<f64>() / length;
        let sketched = features
            .sketch
            .iter()
            .enumerate()
            .map(|(i, x)| f64::from(*x) * cell(TEXT_BUCKETS + TAG_BUCKETS + i))
            .sum::<f64>();
        text(false) + text(true) + tagged + sketched - f64::from(projection.shift[dim])
    }

    fn shift(outputs: usize) -> Vec<f32> {
        (0..outputs).map(|i| noise(i + 3)).collect()
    }

    fn rows(outputs: usize) -> Rows {
        let weights: Vec<f32> = (0..PROJECTION_ROWS).map(|i| 1.0 + noise(i)).collect();
        Rows::new(&weights, outputs, &(0..PROJECTION_ROWS * outputs).map(noise).collect::<Vec<_>>())
    }

    fn made(dims: usize, parts: (Rows, Vec<f32>)) -> Result<Projection, ProjectionShape> {
        Projection::new(SchemaHash(1), dims, [PLAIN; SURFACE_DIMS], parts)
    }

    fn check(dims: usize, directions: usize) {
        let projection = made(dims, (rows(dims + directions), shift(dims + directions))).unwrap();
        let inputs = projection.project(&features());
        assert_eq!(inputs.len(), projection.width() + directions);
        assert_eq!(inputs[0].to_bits(), 1.0_f32.to_bits());
        assert_eq!(inputs[1..PLAIN_DIMS], features().surface);
        for dim in 0..dims + directions {
            let (got, wanted) = (f64::from(inputs[PLAIN_DIMS + dim]), expected(&projection, &features(), dim));
            assert!((got - wanted).abs() < 1e-5, "{dim}: {got} {wanted}");
        }
    }

    #[test]
    fn it_projects_as_defined() {
        check(1, 0);
        check(48, 3);
        check(64, 12);
    }

    #[test]
    fn rows_without_weight_are_left_out_of_the_length() {
        let mut weights = vec![0.0; PROJECTION_ROWS];
        weights[700] = 2.0;
        let only = Rows::new(&weights, 1, &vec![1.0; PROJECTION_ROWS]);
        let projection = made(1, (only, vec![0.0])).unwrap();
        let mut features = features();
        features.sketch.clear();
        let inputs = projection.project(&features);
        assert!((inputs[PLAIN_DIMS] + 0.5_f32.sqrt()).abs() < 4e-3, "{inputs:?}");
        features.text.clear();
        features.tags.clear();
        assert!(projection.project(&features)[PLAIN_DIMS].abs() < 1e-9);
    }

    #[test]
    fn numbers_that_do_not_fit_are_no_projection() {
        let is = |dims, rows: Rows, shift| made(dims, (rows, shift)).is_ok();
        assert!(is(2, rows(2), shift(2)) && is(1, rows(2), shift(2)) && is(64, rows(94), shift(94)));
        assert!(!is(2, rows(3), shift(2)) && !is(65, rows(65), shift(65)) && !is(3, rows(2), shift(2)));
        assert!(!is(2, Rows::new(&[1.0], 2, &[]), shift(2)));
        assert!(!is(2, rows(2), vec![f32::NAN; 2]));
    }

    #[test]
    fn tags_and_sketch_have_rows_of_their_own() {
        assert_eq!((FIRST_TAG as usize, FIRST_SKETCH as usize), (TEXT_BUCKETS, TEXT_BUCKETS + TAG_BUCKETS));
    }
}
