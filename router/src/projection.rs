//! The fitted encoder: from hashed counts to a few dozen dense dimensions.
//!
//! A linear map, made by the learner (IDF weights and a truncated SVD over the counts of many
//! requests) and part of a policy's artifact. A count c of bucket b becomes
//! sign(c)·ln(1 + |c|)·idf(b); words and characters are scaled to half of length one each (in
//! squares), tags to length one together, a sketch has it already; the sum of the buckets' rows is
//! the projection. The surface statistics go beside it, standardised.
//!
//! Rows are kept as the upper halves of their f32 (bfloat16): a text touches 1,500 of them, so what
//! counts is how many bytes they are. Every entry carries an error of at most 2⁻⁸ of itself, which
//! the learner sees too, since it fits everything that follows on what this code makes.
//!
//! This module must never hold text, and never be read with features of another schema: whoever
//! loads an artifact checks that ([`crate::artifact`]).

#![expect(
    clippy::indexing_slicing,
    reason = "rows times dims of one table, whose length is checked when it is made"
)]

use std::sync::LazyLock;

use crate::features::{
    FIRST_CHAR_BUCKET, Features, SKETCH_DIMS, SURFACE_DIMS, SchemaHash, TAG_BUCKETS, TEXT_BUCKETS, TextCount,
};

/// Rows of the map: text buckets, tag buckets, sketch dimensions.
pub const PROJECTION_ROWS: usize = TEXT_BUCKETS + TAG_BUCKETS + SKETCH_DIMS;
/// More dimensions than this are never projected to.
pub const PROJECTED_DIMS_MAX: usize = 64;
/// Dense inputs beside the projected ones: the constant and the surface statistics.
pub const PLAIN_DIMS: usize = 1 + SURFACE_DIMS;

/// Mean and spread of a surface statistic over the rows that were fitted on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f32,
    /// One divided by the standard deviation; zero for a statistic that never varied.
    pub inverse_sd: f32,
}

/// A fitted encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    schema: SchemaHash,
    dims: usize,
    surface: [Spread; SURFACE_DIMS],
    /// One weight a row; zero: the row is left out, of the length too.
    idf: Vec<f32>,
    /// [`PROJECTION_ROWS`] rows of `dims` upper halves of f32.
    rows: Vec<u16>,
}

/// Why numbers are no projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a projection to {dims} dimensions needs {PROJECTION_ROWS} weights and as many rows, at most {PROJECTED_DIMS_MAX} wide"
)]
pub struct ProjectionShape {
    /// The dimensions that were asked for.
    pub dims: usize,
}

impl Projection {
    /// The map of these numbers.
    ///
    /// # Errors
    /// [`ProjectionShape`] when their lengths do not fit each other.
    pub fn new(
        schema: SchemaHash,
        dims: usize,
        surface: [Spread; SURFACE_DIMS],
        (idf, rows): (Vec<f32>, Vec<u16>),
    ) -> Result<Self, ProjectionShape> {
        if dims > PROJECTED_DIMS_MAX || idf.len() != PROJECTION_ROWS || rows.len() != PROJECTION_ROWS * dims {
            return Err(ProjectionShape { dims });
        }
        Ok(Self { schema, dims, surface, idf, rows })
    }

    /// What the features mean that this projects.
    #[must_use]
    pub fn schema(&self) -> SchemaHash {
        self.schema
    }

    /// Projected dimensions.
    #[must_use]
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// All dense inputs: the constant, the surface statistics, the projected dimensions.
    #[must_use]
    pub fn width(&self) -> usize {
        PLAIN_DIMS + self.dims
    }

    /// The numbers of which it is made: surface spreads, weights, rows.
    #[must_use]
    pub fn parts(&self) -> (&[Spread; SURFACE_DIMS], &[f32], &[u16]) {
        (&self.surface, &self.idf, &self.rows)
    }

    /// Writes the dense inputs of a request: one, the standardised surface statistics, the projection.
    /// `inputs` has [`Projection::width`] places; with fewer, the last ones are left out.
    pub fn project(&self, features: &Features, inputs: &mut [f32]) {
        let mut all = [0.0; PLAIN_DIMS + PROJECTED_DIMS_MAX];
        all[0] = 1.0;
        for ((to, value), spread) in all[1..].iter_mut().zip(features.surface).zip(self.surface) {
            *to = ((value - spread.mean) * spread.inverse_sd).clamp(-SPREADS_MAX, SPREADS_MAX);
        }
        let mut projected = [0.0; PROJECTED_DIMS_MAX];
        weigh(features, &self.idf, |part, scale| {
            let mut sum = [0.0; PROJECTED_DIMS_MAX];
            for (row, value) in part {
                self.add_row(&mut sum, *row, *value);
            }
            for (to, sum) in projected.iter_mut().zip(sum) {
                *to += scale * sum;
            }
        });
        all[PLAIN_DIMS..].copy_from_slice(&projected);
        for (to, value) in inputs.iter_mut().zip(all) {
            *to = value;
        }
    }

    fn add_row(&self, sum: &mut [f32; PROJECTED_DIMS_MAX], row: u32, value: f32) {
        let at = row as usize * self.dims;
        let cells = &self.rows[at..at + self.dims];
        if let Ok(cells) = <&[u16; PROJECTED_DIMS_MAX]>::try_from(cells) {
            for (sum, cell) in sum.iter_mut().zip(cells) {
                *sum += value * widened(*cell);
            }
        } else {
            for (sum, cell) in sum.iter_mut().zip(cells) {
                *sum += value * widened(*cell);
            }
        }
    }
}

/// Standard deviations that a surface statistic counts with at most.
const SPREADS_MAX: f32 = 4.0;

/// The f32 whose upper half this is.
#[inline]
fn widened(upper: u16) -> f32 {
    f32::from_bits(u32::from(upper) << 16)
}

/// The upper half of the nearest f32 that has no lower one (ties to even).
#[must_use]
pub fn narrowed(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    u16::try_from(rounded).unwrap_or(0)
}

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

/// Tells the four parts of a request's features (words, characters, tags, sketch) as rows with their
/// weighted values, each with the scale that brings it to its length. The learner fits on the same.
pub fn weigh(features: &Features, idf: &[f32], mut part: impl FnMut(&[(u32, f32)], f32)) {
    let logs = &*LOGS;
    let words = features.text.partition_point(|c| c.bucket < FIRST_CHAR_BUCKET);
    let (words, chars) = features.text.split_at(words);
    let mut rows: Vec<(u32, f32)> = Vec::with_capacity(words.len().max(chars.len()));
    for counts in [words, chars] {
        let mut squares = 0.0;
        rows.clear();
        rows.extend(counts.iter().map(|TextCount { bucket, count }| {
            let value = log_count(logs, *count) * idf[usize::from(*bucket)];
            squares += value * value;
            (u32::from(*bucket), value)
        }));
        if squares > 0.0 {
            part(&rows, (0.5 / squares).sqrt());
        }
    }
    const FIRST_TAG: u32 = TEXT_BUCKETS as u32;
    const FIRST_SKETCH: u32 = FIRST_TAG + TAG_BUCKETS as u32;
    rows.clear();
    rows.extend(features.tags.iter().map(|tag| {
        let row = FIRST_TAG + u32::from(*tag) % TAG_BUCKETS as u32;
        (row, idf[row as usize])
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

    const PLAIN: Spread = Spread { mean: 0.0, inverse_sd: 1.0 };

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

    fn noise(i: usize) -> f32 {
        ((i * 7_919) % 1_000) as f32 / 1_000.0 - 0.4
    }

    /// The definition of the module's head, in f64 and one output at a time.
    fn expected(projection: &Projection, features: &Features, dim: usize) -> f64 {
        let cell = |row: usize| f64::from(widened(projection.rows[row * projection.dims + dim]));
        let idf = |row: usize| f64::from(projection.idf[row]);
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
        text(false) + text(true) + tagged + sketched
    }

    fn check(dims: usize) {
        let idf = (0..PROJECTION_ROWS).map(|i| 1.0 + noise(i)).collect();
        let rows = (0..PROJECTION_ROWS * dims).map(|i| narrowed(noise(i))).collect();
        let projection = Projection::new(SchemaHash(1), dims, [PLAIN; SURFACE_DIMS], (idf, rows)).unwrap();
        let mut inputs = vec![0.0; projection.width()];
        projection.project(&features(), &mut inputs);
        assert_eq!(inputs[0].to_bits(), 1.0_f32.to_bits());
        assert_eq!(inputs[1..PLAIN_DIMS], features().surface);
        for dim in 0..dims {
            let (got, wanted) = (f64::from(inputs[PLAIN_DIMS + dim]), expected(&projection, &features(), dim));
            assert!((got - wanted).abs() < 1e-5, "{dim}: {got} {wanted}");
        }
    }

    #[test]
    fn it_projects_as_defined() {
        check(1);
        check(48);
        check(64);
    }

    #[test]
    fn rows_without_weight_are_left_out_of_the_length() {
        let mut idf = vec![0.0; PROJECTION_ROWS];
        idf[700] = 2.0;
        let rows = vec![narrowed(1.0); PROJECTION_ROWS];
        let projection = Projection::new(SchemaHash(1), 1, [PLAIN; SURFACE_DIMS], (idf, rows)).unwrap();
        let mut inputs = [0.0; PLAIN_DIMS + 1];
        let mut features = features();
        features.sketch.clear();
        projection.project(&features, &mut inputs);
        assert!((inputs[PLAIN_DIMS] + 0.5_f32.sqrt()).abs() < 1e-6, "{inputs:?}");
        features.text.clear();
        features.tags.clear();
        projection.project(&features, &mut inputs);
        assert!(inputs[PLAIN_DIMS].abs() < 1e-9);
    }

    #[test]
    fn numbers_that_do_not_fit_are_no_projection() {
        let made = |dims, idf, rows| {
            Projection::new(SchemaHash(1), dims, [PLAIN; SURFACE_DIMS], (vec![0.0; idf], vec![0; rows])).is_ok()
        };
        assert!(made(2, PROJECTION_ROWS, 2 * PROJECTION_ROWS));
        assert!(!made(2, PROJECTION_ROWS - 1, 2 * PROJECTION_ROWS));
        assert!(!made(2, PROJECTION_ROWS, PROJECTION_ROWS));
        assert!(!made(65, PROJECTION_ROWS, 65 * PROJECTION_ROWS));
    }

    #[test]
    fn narrowing_is_within_an_eighth_bit() {
        for i in 0..2_000 {
            let value = noise(i) * 3.7;
            assert!((widened(narrowed(value)) - value).abs() <= value.abs() / 256.0);
        }
    }
}
