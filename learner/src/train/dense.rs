//! The dense inputs of many rows at once, as the projection makes them of one.
//!
//! Of one request the projection looks up 1,500 rows of its table all over memory; of many, the table is
//! better read part by part for all of them (`fit::sparse`). The values are rounded to upper halves of
//! f32 there, which the table itself is: inputs differ in the third digit at most.

use std::sync::Arc;

use pointsman_router::features::Features;
use pointsman_router::projection::{PLAIN_DIMS, PROJECTION_ROWS, Projection, ProjectionShape};

use crate::fit::encoder::Encoder;
use crate::fit::sparse::{Sparse, SparseRow};

/// Makes dense inputs without the constant.
pub(super) struct Dense<'a> {
    encoder: &'a Encoder,
    projection: Projection,
    table: Vec<f32>,
    shift: Vec<f32>,
}

impl<'a> Dense<'a> {
    pub(super) fn new(encoder: &'a Encoder) -> Result<Self, ProjectionShape> {
        let projection = encoder.projection(&[])?;
        let (table, shift) = projection.table();
        let shift = shift.to_vec();
        Ok(Self { encoder, projection, table, shift })
    }

    /// How many there are.
    pub(super) fn inputs(&self) -> usize {
        PLAIN_DIMS - 1 + self.shift.len()
    }

    /// Those of requests whose weighted buckets are the rows of a matrix.
    pub(super) fn of_matrix(&self, features: &[Arc<Features>], matrix: &Sparse) -> Vec<f32> {
        let images = matrix.times(&self.table, self.shift.len(), (features.len(), 1));
        self.rows(features.iter(), &images)
    }

    /// Those of a few requests, on one thread.
    pub(super) fn of_few(&self, features: &[&Arc<Features>]) -> Vec<f32> {
        let row = |at: usize, row: &mut SparseRow| {
            row.clear();
            if let Some(features) = features.get(at) {
                self.encoder.row(features, row);
            }
        };
        let matrix = Sparse::alone((features.len(), PROJECTION_ROWS), &row);
        self.rows(features.iter().copied(), &matrix.times_alone(&self.table, self.shift.len()))
    }

    fn rows<'f>(&self, features: impl Iterator<Item = &'f Arc<Features>>, images: &[f32]) -> Vec<f32> {
        let mut images = images.chunks_exact(self.shift.len().max(1));
        let mut rows = Vec::with_capacity(features.size_hint().0 * self.inputs());
        for features in features {
            rows.extend(self.projection.plain(features).iter().skip(1));
            let image = images.next().unwrap_or_default();
            rows.extend(image.iter().zip(&self.shift).map(|(x, shift)| x - shift));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use pointsman_router::features::{SURFACE_DIMS, SchemaHash, TextCount};

    use super::*;
    use crate::fit::encoder::EncoderSettings;

    #[test]
    fn they_are_what_the_projection_makes() {
        let request = |i: u16| {
            let text = (0..40_u16).map(|k| TextCount { bucket: k * 1_500 + i % 7, count: 1 });
            Arc::new(Features {
                text: text.collect(),
                surface: [f32::from(i) / 50.0; SURFACE_DIMS],
                tags: vec![i % 3],
                sketch: Vec::new(),
                prompt_bytes: 1,
                schema: SchemaHash(1),
            })
        };
        let features: Vec<_> = (0..60).map(request).collect();
        let settings = EncoderSettings { dims: 4, ..EncoderSettings::default() };
        let (encoder, matrix) = Encoder::fit(&features, SchemaHash(1), &settings, 1);
        let dense = Dense::new(&encoder).unwrap();
        let (all, few) = (dense.of_matrix(&features, &matrix), dense.of_few(&features.iter().collect::<Vec<_>>()));
        assert_eq!(all, few);
        for (row, features) in all.chunks_exact(dense.inputs()).zip(&features) {
            for (found, wanted) in row.iter().zip(&dense.projection.project(features)[1..]) {
                assert!((found - wanted).abs() < 5e-3, "{found} {wanted}");
            }
        }
    }
}
