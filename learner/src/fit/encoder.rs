//! The fitted encoder: IDF weights, a truncated SVD and the spread of the surface statistics, from
//! the hashed features that traces keep. No text is needed, and none could be had.
//!
//! Fitted on a sample, because fifty directions of text are known well after some ten thousand
//! requests. What comes out is used by `router::projection`, whose weighing is used here too: the
//! feature code exists once.

#![expect(clippy::indexing_slicing, reason = "tables of one entry a projection row")]

use std::sync::Arc;

use ndarray::Array2;
use pointsman_router::features::{Features, SURFACE_DIMS, SchemaHash, TAG_BUCKETS, TEXT_BUCKETS};
use pointsman_router::projection::{
    PROJECTED_DIMS_MAX, PROJECTION_ROWS, Projection, ProjectionShape, Rows, Spread, narrowed, weigh, widened,
};

use super::sparse::{Sparse, SparseRow};
use super::svd::{self, RightVectors};

/// How the encoder is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderSettings {
    /// Dimensions to project to, at most [`pointsman_router::projection::PROJECTED_DIMS_MAX`].
    pub dims: usize,
    /// A bucket must occur in so many requests of the sample to count.
    pub requests_min: u32,
    /// Passes over the sample.
    pub passes: usize,
    /// Requests that the vectors are found in, at most.
    pub rows_max: usize,
}

impl Default for EncoderSettings {
    fn default() -> Self {
        Self { dims: 48, requests_min: 2, passes: 4, rows_max: 15_000 }
    }
}

/// An encoder fitted to a sample, before supervised directions are put beside its dimensions.
#[derive(Debug, Clone)]
pub struct Encoder {
    schema: SchemaHash,
    idf: Vec<f32>,
    surface: [Spread; SURFACE_DIMS],
    vectors: Array2<f32>,
    /// Of each dimension: its mean over the sample, and what it is scaled with.
    spreads: Vec<(f32, f32)>,
}

impl Encoder {
    /// Fits to a sample of requests; beside it the matrix of their weighted buckets.
    #[must_use]
    pub fn fit(
        sample: &[Arc<Features>],
        schema: SchemaHash,
        settings: &EncoderSettings,
        seed: u64,
    ) -> (Self, Sparse) {
        let idf = idf(sample, settings.requests_min);
        let row = |at: usize, row: &mut SparseRow| weighted(&sample[at], &idf, row);
        let matrix = Sparse::new((sample.len(), PROJECTION_ROWS), &row);
        // Every so many requests, where there are more than the vectors need.
        let step = sample.len().div_ceil(settings.rows_max.max(1)).max(1);
        let dims = settings.dims.min(PROJECTED_DIMS_MAX);
        let found = svd::right_vectors(&matrix, step, dims, (settings.passes, seed));
        let spreads = spreads(sample.len().div_ceil(step), &found);
        (Self { schema, surface: surface(sample), idf, vectors: found.vectors, spreads }, matrix)
    }

    /// The row of a request over all buckets, as the projection weighs it.
    pub fn row(&self, features: &Features, row: &mut SparseRow) {
        weighted(features, &self.idf, row);
    }

    /// The vectors of the dimensions, one column each, before they are scaled.
    #[must_use]
    pub fn vectors(&self) -> &Array2<f32> {
        &self.vectors
    }

    /// The mean of each dimension before it is scaled, and what it is scaled with.
    #[must_use]
    pub fn spreads(&self) -> &[(f32, f32)] {
        &self.spreads
    }

    /// The projection to the fitted dimensions and these directions: one row a bucket, one cell each.
    ///
    /// # Errors
    /// [`ProjectionShape`] when the directions are not whole rows.
    pub fn projection(&self, directions: &[f32]) -> Result<Projection, ProjectionShape> {
        let (dims, beside) = (self.vectors.ncols(), directions.len() / PROJECTION_ROWS);
        let mut cells = Vec::with_capacity(PROJECTION_ROWS * (dims + beside));
        for (at, vector) in self.vectors.rows().into_iter().enumerate() {
            cells.extend(vector.iter().zip(&self.spreads).map(|(x, (_, scale))| x * scale));
            cells.extend(&directions[at * beside..(at + 1) * beside]);
        }
        let mut shift: Vec<f32> = self.spreads.iter().map(|(mean, scale)| mean * scale).collect();
        shift.resize(dims + beside, 0.0);
        let rows = Rows::new(&self.idf, dims + beside, &cells);
        Projection::new(self.schema, dims, self.surface, (rows, shift))
    }
}

fn weighted(features: &Features, idf: &[f32], row: &mut SparseRow) {
    row.clear();
    weigh(features, |row| idf[row], |part, scale| row.extend(part.iter().map(|(at, x)| (*at, x * scale))));
}

/// Each dimension is centred and brought to the square root of its spread, which leaves the order of
/// weight of the dimensions and makes it less steep; all together then have a mean square length of one.
fn spreads(height: usize, found: &RightVectors) -> Vec<(f32, f32)> {
    let n = height.max(1) as f64;
    let moments =
        || found.means.iter().zip(&found.singular).map(|(m, s)| (*m, (s * s / n - m * m).max(1e-12).sqrt()));
    // After scaling with sd^-½ the variance of a dimension is its sd.
    let length = moments().map(|(_, sd)| sd).sum::<f64>().sqrt().max(1e-6);
    moments().map(|(mean, sd)| (narrow(mean), narrow(1.0 / (sd.sqrt() * length)))).collect()
}

/// ln((1 + n)/(1 + requests with the bucket)) + 1, scikit-learn's smooth IDF; zero for text that is too
/// rare. The dimensions of a sketch count as they are. Rounded as the projection keeps it.
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
            widened(narrowed(narrow(libm::log((1.0 + n) / (1.0 + f64::from(requests))) + 1.0)))
        }
    };
    requests.into_iter().enumerate().map(weight).collect()
}

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
