//! What becomes of a head whose model changed: it keeps its mean and a part of its evidence.
//!
//! Evidence is what the labels added to the prior's precision, Σ⁻¹ − Σ₀⁻¹. A 24th of it is kept:
//! Σ ← (Σ₀⁻¹ + (Σ⁻¹ − Σ₀⁻¹)/24)⁻¹, and the same for each sparse input. So variances grow 24-fold where much
//! was known, and nowhere beyond the prior. Chosen on `tune` with two models swapped half-way: from 16 to 32
//! nothing is told apart, with 4 the head learns too slowly, and to forget the mean too costs a little.
//!
//! Its age is forgotten, so its draws are as bold as those of a new one. What is shared stays.
//!
//! A model that changed once may change back, and one that was given up is no longer looked at: so for a
//! while each label of another model makes the constant of its head a little less certain ([`regrow`]), until
//! a draw tries it again. On recorded outcomes a model that grew worse by .3 and then recovered is back
//! with it in a hundred requests, and without it not in three hundred and fifty.
//!
//! Reckoned in f64 by Gauss-Jordan elimination, which needs no pivots where all eigenvalues are positive;
//! rounding that made one of them negative ends in the prior.

#![expect(clippy::indexing_slicing, reason = "square matrices of one size, blocks whose lengths the heads fix")]
#![expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]

use pointsman_router::heads::Heads;
use pointsman_router::inputs::triangle;

/// The part of the evidence that is kept.
const EVIDENCE_KEPT: f64 = 1.0 / 24.0;

/// Makes a lane ready to learn anew.
pub(super) fn loosen(heads: &mut Heads, lane: usize) {
    let (stride, shape, prior) = (heads.stride(), heads.shape(), *heads.prior(lane));
    let blocks = heads.blocks_mut();
    blocks.ages[lane] = 0.0;
    let packed = &mut blocks.dense_covariances[lane * shape.triangle()..(lane + 1) * shape.triangle()];
    let at_first: Vec<f64> = (0..shape.dense).map(|i| f64::from(prior.dense(i))).collect();
    let loosened = kept(packed, &at_first);
    for (i, first) in at_first.iter().enumerate() {
        for j in 0..=i {
            let unlearned = if i == j { *first } else { 0.0 };
            packed[triangle(i, j)] = loosened.as_ref().map_or(unlearned, |matrix| matrix[i][j]) as f32;
        }
    }
    let first = f64::from(prior.sparse);
    for cell in blocks.sparse_variances.iter_mut().skip(lane).step_by(stride.max(1)) {
        let now = f64::from(*cell);
        if now > 0.0 && now < first {
            *cell = mix(now.recip(), first.recip()).recip() as f32;
        }
    }
}

/// Labels of all models for which a head that was loosened grows less certain.
const REGROWS_LABELS: f32 = 1_000.0;

/// Makes the constant of a loosened head less certain by so much variance, up to the prior's.
pub(super) fn regrow(heads: &mut Heads, lane: usize, by: f32) {
    if heads.age(lane) < REGROWS_LABELS {
        let (entries, most) = (heads.shape().triangle(), heads.prior(lane).bias);
        let constant = &mut heads.blocks_mut().dense_covariances[lane * entries];
        *constant = constant.max((*constant + by).min(most));
    }
}

/// A precision of which a part of the evidence is kept.
fn mix(now: f64, first: f64) -> f64 {
    first + (now - first) * EVIDENCE_KEPT
}

/// The covariance with a part of the evidence; `None` where the old one has no inverse.
fn kept(packed: &[f32], at_first: &[f64]) -> Option<Vec<Vec<f64>>> {
    let n = at_first.len();
    let entry = |i: usize, j: usize| f64::from(packed[triangle(i.max(j), i.min(j))]);
    let mut matrix: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| entry(i, j)).collect()).collect();
    invert(&mut matrix)?;
    for (i, row) in matrix.iter_mut().enumerate() {
        for (j, cell) in row.iter_mut().enumerate() {
            *cell = if i == j { mix(*cell, at_first[i].recip()) } else { *cell * EVIDENCE_KEPT };
        }
    }
    invert(&mut matrix)?;
    Some(matrix)
}

/// Inverts a symmetric matrix in place; `None` where an eigenvalue is not positive.
fn invert(matrix: &mut [Vec<f64>]) -> Option<()> {
    for k in 0..matrix.len() {
        let pivot = matrix[k][k];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        matrix[k][k] = 1.0;
        matrix[k].iter_mut().for_each(|cell| *cell /= pivot);
        let row = matrix[k].clone();
        for (_, other) in matrix.iter_mut().enumerate().filter(|(i, _)| *i != k) {
            let factor = std::mem::take(&mut other[k]);
            for (cell, value) in other.iter_mut().zip(&row) {
                *cell -= factor * value;
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use pointsman_router::clock::Draw;
    use pointsman_router::features::SchemaHash;
    use pointsman_router::heads::Prior;
    use pointsman_router::ids::ModelName;
    use pointsman_router::inputs::Shape;

    use super::*;

    #[test]
    #[expect(clippy::needless_range_loop, reason = "the sum of a product of matrices")]
    fn an_inverse_is_one() {
        let mut draw = Draw::from_seed(3);
        let root: Vec<Vec<f64>> = (0..12).map(|_| (0..12).map(|_| draw.uniform() - 0.5).collect()).collect();
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let matrix: Vec<Vec<f64>> = (0..12)
            .map(|i| (0..12).map(|j| dot(&root[i], &root[j]) + if i == j { 0.1 } else { 0.0 }).collect())
            .collect();
        let mut inverse = matrix.clone();
        invert(&mut inverse).unwrap();
        for i in 0..12 {
            for j in 0..12 {
                let product: f64 = (0..12).map(|k| matrix[i][k] * inverse[k][j]).sum();
                assert!((product - if i == j { 1.0 } else { 0.0 }).abs() < 1e-9, "{i} {j} {product}");
            }
        }
        assert_eq!(invert(&mut [vec![1.0, 2.0], vec![2.0, 1.0]]), None);
    }

    #[test]
    fn a_head_is_loosened_where_it_knew_much_and_nowhere_beyond_the_prior() {
        let prior = Prior { bias: 4.0, surface: 2.0, projected: 1.0, sparse: 2.0 };
        let mut heads = Heads::new((prior, None), Shape { dense: 3, sparse: 2 }, SchemaHash(0));
        for name in ["other", "m"] {
            heads.add(&ModelName::new(name));
        }
        let stride = heads.stride();
        let blocks = heads.blocks_mut();
        // Well known, untouched, and known a little.
        blocks.dense_covariances[6..].copy_from_slice(&[0.001, 0.0, 2.0, 0.0, 0.0, 1.0]);
        blocks.sparse_variances[stride + 1] = 0.01;
        let before = heads.clone();
        loosen(&mut heads, 1);
        let [_, sparse, means, dense, _] = heads.blocks();
        assert!((dense[6] - 0.0239).abs() < 2e-4, "{dense:?}");
        assert!((dense[8] - 2.0).abs() < 1e-6 && (dense[11] - 1.92).abs() < 1e-6, "{dense:?}");
        assert!((sparse[stride + 1] - 0.2155).abs() < 2e-3 && (sparse[1] - 2.0).abs() < 1e-6);
        assert_eq!((means, &dense[..6]), (before.blocks()[2], &before.blocks()[3][..6]));
        // A covariance that rounding spoiled becomes the prior.
        heads.blocks_mut().dense_covariances[6] = -0.5;
        loosen(&mut heads, 1);
        assert_eq!(heads.blocks()[3][6..], [4.0, 0.0, 2.0, 0.0, 0.0, 2.0]);
    }
}
