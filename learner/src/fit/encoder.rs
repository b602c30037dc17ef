//! The fitted encoder: IDF weights, a truncated SVD and the spread of the surface statistics, from
//! the hashed features that traces keep. No text is needed, and none could be had.
//!
//! Fitted on a sample, because fifty directions of text are known well after some ten thousand
//! requests. What comes out is used by `router::projection`, whose weighing is used here too: the
//! feature code exists once.

#![expect(clippy::indexing_slicing, reason = "tables of one entry a projection row")]

use std::sync::Arc;

use pointsman_router::features::{Features, SURFACE_DIMS, SchemaHash, TAG_BUCKETS, TEXT_BUCKETS};
use pointsman_router::projection::{PROJECTION_ROWS, Projection, ProjectionShape, Spread, narrowed, weigh};

use super::svd::{self, SparseRow};

/// How the encoder is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderSettings {
    /// Dimensions to project to, at most [`pointsman_router::projection::PROJECTED_DIMS_MAX`].
    pub dims: usize,
    /// A bucket must occur in so many requests of the sample to count.
    pub requests_min: u32,
    /// Passes over the sample.
    pub passes: usize,
}

impl Default for EncoderSettings {
    fn default() -> Self {
        Self { dims: 64, requests_min: 2, passes: 4 }
    }
}

/// Fits an encoder to a sample of requests.
///
/// # Errors
/// [`ProjectionShape`] when more dimensions are asked for than there can be.
pub fn fit(
    sample: &[Arc<Features>],
    schema: SchemaHash,
    settings: &EncoderSettings,
    seed: u64,
) -> Result<Projection, ProjectionShape> {
    let idf = idf(sample, settings.requests_min);
    let row = |at: usize, row: &mut SparseRow| {
        row.clear();
        weigh(&sample[at], &idf, |part, scale| row.extend(part.iter().map(|(at, x)| (*at, x * scale))));
    };
    let found = svd::right_vectors((sample.len(), PROJECTION_ROWS), &row, settings.dims, (settings.passes, seed));
    let dims = found.vectors.ncols();
    // Each direction is brought to the spread that a single one of equal share would have: the sum of
    // squares of all projected dimensions stays, their order of weight too, only less steep.
    let scales = scales(&found.singular.to_vec(), sample.len());
    let mut rows = vec![0; PROJECTION_ROWS * settings.dims];
    for (from, to) in found.vectors.rows().into_iter().zip(rows.chunks_exact_mut(settings.dims)) {
        for ((cell, value), scale) in to.iter_mut().zip(from).zip(&scales) {
            *cell = narrowed(value * scale);
        }
    }
    debug_assert!(dims <= settings.dims, "no more directions than asked for");
    Projection::new(schema, settings.dims, surface(sample), (idf, rows))
}

/// ln((1 + n)/(1 + requests with the bucket)) + 1, scikit-learn's smooth IDF; zero for text that is too
/// rare. The dimensions of a sketch count as they are.
fn idf(sample: &[Arc<Features>], requests_min: u32) -> Vec<f32> {
    let mut requests = vec![0_u32; PROJECTION_ROWS];
    for features in sample {
        for count in &features.text {
            requests[usize::from(count.bucket)] += 1;
        }
        for tag in &features.tags {
            requests[TEXT_BUCKETS + usize::from(*tag) % TAG_BUCKETS] += 1;
        }
    }
    let n = sample.len() as f64;
    let weight = |(row, requests): (usize, u32)| {
        if row >= TEXT_BUCKETS + TAG_BUCKETS {
            1.0
        } else if requests < requests_min {
            0.0
        } else {
            narrow(libm::log((1.0 + n) / (1.0 + f64::from(requests))) + 1.0)
        }
    };
    requests.into_iter().enumerate().map(weight).collect()
}

/// What each direction is scaled with: see `WHITENING`.
fn scales(singular: &[f64], n: usize) -> Vec<f32> {
    let spread = |s: f64| s / (n.max(1) as f64).sqrt();
    singular.iter().map(|s| narrow(libm::pow(spread(*s).max(1e-6), -WHITENING))).collect()
}

/// 0 leaves the directions as they are, 1 gives all the same spread.
const WHITENING: f64 = 0.5;

fn surface(sample: &[Arc<Features>]) -> [Spread; SURFACE_DIMS] {
    let n = sample.len().max(1) as f64;
    std::array::from_fn(|i| {
        let values = || sample.iter().map(|features| f64::from(features.surface[i]));
        let mean = values().sum::<f64>() / n;
        let variance = values().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        let inverse_sd = if variance > 1e-8 { narrow(variance.sqrt().recip()) } else { 0.0 };
        Spread { mean: narrow(mean), inverse_sd }
    })
}

#[expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]
fn narrow(x: f64) -> f32 {
    x as f32
}
