//! What the heads of the bandit look at: the inputs that are made of a request's features.
//!
//! Dense inputs are few and have a full covariance; sparse ones are the hashed text, the tags and the
//! sketch of a cold start. How many there are of each kind is the [`Shape`], which an artifact fixes. Must
//! never depend on what was learned: the same features give the same inputs for as long as their schema
//! is the same.

#![expect(clippy::cast_possible_truncation, reason = "numbers of rows are far below 65,536")]

use std::sync::LazyLock;

use crate::features::{FIRST_CHAR_BUCKET, Features, SKETCH_DIMS, SURFACE_DIMS, TAG_BUCKETS, TextCount};

/// Rows that the text's buckets are folded to.
pub const TEXT_ROWS: usize = 1 << 12;
/// Sparse inputs at cold start: text, tags, sketch.
pub const SPARSE_ROWS: usize = TEXT_ROWS + TAG_BUCKETS + SKETCH_DIMS;
/// Dense inputs at cold start: one and the surface statistics.
pub const DENSE_ROWS: usize = 1 + SURFACE_DIMS;
/// Dense inputs beyond which an update is no longer worth its time: it grows with their square.
pub const DENSE_MAX: usize = 80;

/// How many inputs heads have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Inputs with a full covariance: the constant first, then the surface statistics, then projected
    /// dimensions. At least one; more than [`DENSE_MAX`] are slow.
    pub dense: usize,
    /// Inputs with a diagonal covariance, at most 65,536.
    pub sparse: usize,
}

impl Shape {
    /// The inputs of an artifact without fitted features, as [`Inputs::of`] makes them.
    pub const COLD: Self = Self { dense: DENSE_ROWS, sparse: SPARSE_ROWS };

    /// Entries of the packed lower triangle of a dense covariance; entry (i, j), j ≤ i, is at
    /// i(i + 1)/2 + j.
    #[must_use]
    pub const fn triangle(self) -> usize {
        triangle(self.dense, 0)
    }
}

/// Where entry (i, j), j ≤ i, of a packed lower triangle is.
#[must_use]
pub const fn triangle(i: usize, j: usize) -> usize {
    i * (i + 1) / 2 + j
}

/// The inputs that the heads make of a request's features.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// One, then the surface statistics, then projected dimensions.
    pub dense: Vec<f32>,
    /// Row and value; a row may come more than once and then counts with the sum.
    pub sparse: Vec<(u16, f32)>,
}

impl Inputs {
    /// The inputs of [`Shape::COLD`]. A count c becomes sign(c)·ln(1 + |c|); words and characters are scaled
    /// to half of length one each (in squares), so that a long text weighs as much as a short one. Tags have
    /// length one together, as has the sketch.
    #[must_use]
    pub fn of(features: &Features) -> Self {
        let mut dense = Vec::with_capacity(DENSE_ROWS);
        dense.push(1.0);
        dense.extend_from_slice(&features.surface);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::tests::features;

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
}
