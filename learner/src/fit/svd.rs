//! The right singular vectors of a tall sparse matrix, by randomised subspace iteration.
//!
//! Halko, Martinsson & Tropp 2011, algorithm 4.4, on XᵀX: begin with a random block Q of a few more
//! columns than are wanted, then repeat Q ← orth(Xᵀ(XQ)); at the end the small matrix (XQ)ᵀ(XQ) is
//! diagonalised and turns Q into the vectors by falling singular value. Nothing of the height of X is
//! kept: one pass over the rows adds xᵀ(xQ) for each. The first passes only bring Q near, so they read
//! a part of the rows, evenly chosen; the last reads all and only maps.
//!
//! The sign of a vector is that of its largest entry.

#![expect(clippy::indexing_slicing, reason = "rows times columns of blocks made here")]

use ndarray::{Array1, Array2};
use pointsman_router::clock::Draw;

use super::sparse::{LANES, PARTS, Sparse, add_scaled, side_by_side};

/// Columns beyond those that are wanted.
const SPARE: usize = 8;

/// The leading right singular vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct RightVectors {
    /// One column a vector, as many rows as X has columns.
    pub vectors: Array2<f32>,
    /// Their singular values, falling.
    pub singular: Array1<f64>,
    /// Mean over the rows of their images x·v.
    pub means: Array1<f64>,
}

/// The `wanted` leading right singular vectors of one in `step` of the rows of a matrix, by so many
/// passes (4 is plenty for features of text). Fewer vectors come back where they have a lower rank.
#[must_use]
pub fn right_vectors(matrix: &Sparse, step: usize, wanted: usize, (passes, seed): (usize, u64)) -> RightVectors {
    let (height, width) = (matrix.height(), matrix.width());
    let columns = (wanted + SPARE).min(width).next_multiple_of(LANES);
    let mut block = random(width, columns, seed);
    let iterations = passes.saturating_sub(1);
    for pass in 0..iterations {
        let rows = (height, step * stride(height / step, iterations - 1 - pass));
        let images = matrix.times(&block, columns, rows);
        block = matrix.transposed_times(&images, columns, rows);
        // Two passes from anywhere leave no column too near another; the last is made accurate.
        if pass + 1 == iterations {
            orthonormalise(&mut block, columns, 2);
        } else if pass % 2 == 1 {
            orthonormalise(&mut block, columns, 1);
        }
    }
    let images = matrix.times(&block, columns, (height, step));
    let found = (gram(&images, columns), sums(&images, columns), images.len() / columns);
    rotate(&block, &found, columns, wanted)
}

/// Rows of which no more than one in two is left out by a pass.
const ROWS_WHOLE: usize = 1_000;

/// One in so many rows is read where so many passes over more of them follow.
fn stride(height: usize, following: usize) -> usize {
    let wanted = 1_usize << following.min(3);
    wanted.min((height / ROWS_WHOLE).max(1))
}

/// Gaussian enough: the sum of four uniform numbers.
fn random(width: usize, columns: usize, seed: u64) -> Vec<f32> {
    let mut draw = Draw::from_seed(seed);
    (0..width * columns)
        .map(|_| {
            let bits = draw.next_u64();
            let quarter = |shift: u32| f32::from(u16::try_from((bits >> shift) & 0xffff).unwrap_or(0));
            (quarter(0) + quarter(16) + quarter(32) + quarter(48)) / 65_536.0 - 2.0
        })
        .collect()
}

/// The products of the columns with each other.
fn gram(block: &[f32], columns: usize) -> Array2<f64> {
    let half = (block.len() / columns).div_ceil(PARTS).max(1);
    let parts = side_by_side(|first| {
        let mut gram = vec![0.0_f64; columns * columns];
        let mut row = vec![0.0_f64; columns];
        for cells in block.chunks_exact(columns).skip(first * half).take(half) {
            row.iter_mut().zip(cells).for_each(|(to, x)| *to = f64::from(*x));
            for (i, x) in row.iter().enumerate() {
                for (sum, y) in gram[i * columns..i * columns + i + 1].iter_mut().zip(&row) {
                    *sum += x * y;
                }
            }
        }
        gram
    });
    Array2::from_shape_fn((columns, columns), |(i, j)| {
        parts.iter().map(|p| p[i.max(j) * columns + i.min(j)]).sum()
    })
}

fn sums(block: &[f32], columns: usize) -> Vec<f64> {
    let mut sums = vec![0.0_f64; columns];
    for cells in block.chunks_exact(columns) {
        sums.iter_mut().zip(cells).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    sums
}

/// Every row of the block times a small matrix of one row a column and `cells` cells, a multiple of what
/// is added at once.
fn turned(block: &[f32], columns: usize, (turns, cells): (&[f32], usize)) -> Vec<f32> {
    let half = (block.len() / columns).div_ceil(PARTS).max(1);
    let parts = side_by_side(|first| {
        let mine = || block.chunks_exact(columns).skip(first * half).take(half);
        let mut turned = vec![0.0_f32; mine().count() * cells];
        for (row, to) in mine().zip(turned.chunks_exact_mut(cells)) {
            for (x, turn) in row.iter().zip(turns.chunks_exact(cells)) {
                add_scaled(to, turn, *x);
            }
        }
        turned
    });
    parts.concat()
}

/// Columns shorter than this, relative to the longest, are noise and become zero.
const RANK_TOLERANCE: f64 = 1e-5;

/// Makes the columns orthonormal by the Gram matrix (Cholesky QR), so many times: twice for accuracy.
fn orthonormalise(block: &mut Vec<f32>, columns: usize, times: usize) {
    for _ in 0..times {
        let inverse = inverse_factor(&gram(block, columns), columns);
        let turns: Vec<f32> =
            (0..columns * columns).map(|at| narrow(inverse[at % columns * columns + at / columns])).collect();
        *block = turned(block, columns, (&turns, columns));
    }
}

/// The inverse of the Cholesky factor of a Gram matrix (lower triangles); a column that depends on
/// those before it gets a row of zeros, so it vanishes.
fn inverse_factor(gram: &Array2<f64>, n: usize) -> Vec<f64> {
    let largest = (0..n).map(|i| gram[[i, i]]).fold(0.0, f64::max);
    let mut factor = vec![0.0_f64; n * n];
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| factor[i * n + k] * factor[j * n + k]).sum();
            let rest = gram[[i, j]] - dot;
            factor[i * n + j] = if i == j {
                if rest > RANK_TOLERANCE * RANK_TOLERANCE * largest { rest.sqrt() } else { 0.0 }
            } else if factor[j * n + j] > 0.0 {
                rest / factor[j * n + j]
            } else {
                0.0
            };
        }
    }
    let mut inverse = vec![0.0_f64; n * n];
    for i in (0..n).filter(|i| factor[i * n + i] > 0.0) {
        let pivot = factor[i * n + i];
        for j in 0..i {
            let dot: f64 = (j..i).map(|k| factor[i * n + k] * inverse[k * n + j]).sum();
            inverse[i * n + j] = -dot / pivot;
        }
        inverse[i * n + i] = 1.0 / pivot;
    }
    inverse
}

/// Turns the block into singular vectors by the eigenvectors of the small matrix, which comes with the
/// sums of the images and their number.
fn rotate(
    block: &[f32],
    (gram, sums, height): &(Array2<f64>, Vec<f64>, usize),
    columns: usize,
    wanted: usize,
) -> RightVectors {
    let (values, turns) = eigen(gram.clone());
    let largest = values.first().copied().unwrap_or(0.0);
    let kept = values.iter().take(wanted).take_while(|v| **v > RANK_TOLERANCE * largest && **v > 0.0).count();
    let cells = kept.next_multiple_of(LANES);
    let cell = |at: usize| if at % cells < kept { narrow(turns[[at / cells, at % cells]]) } else { 0.0 };
    let narrowed: Vec<f32> = (0..columns * cells).map(cell).collect();
    let turned = turned(block, columns, (&narrowed, cells.max(1)));
    let vectors = turned.chunks_exact(cells.max(1)).flat_map(|row| row.iter().copied().take(kept)).collect();
    let mut vectors = Array2::from_shape_vec((block.len() / columns, kept), vectors).unwrap_or_default();
    let mut means: Array1<f64> = (0..kept)
        .map(|k| sums.iter().enumerate().map(|(i, s)| s * turns[[i, k]]).sum::<f64>() / (*height).max(1) as f64)
        .collect();
    for (mut column, mean) in vectors.columns_mut().into_iter().zip(&mut means) {
        let largest = column.iter().copied().fold(0.0_f32, |a, x| if x.abs() > a.abs() { x } else { a });
        if largest < 0.0 {
            column.mapv_inplace(|x| -x);
            *mean = -*mean;
        }
    }
    RightVectors { vectors, singular: values.iter().take(kept).map(|v| v.sqrt()).collect(), means }
}

/// Sweeps after which a small symmetric matrix is diagonal to the last bit that counts.
const SWEEPS_MAX: usize = 30;

/// Eigenvalues, falling, and eigenvectors as columns of a symmetric matrix, by cyclic Jacobi rotations.
#[must_use]
pub fn eigen(mut a: Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let n = a.nrows();
    let mut v = Array2::eye(n);
    for _ in 0..SWEEPS_MAX {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|ij| a[ij] * a[ij]).sum();
        let diagonal: f64 = a.diag().iter().map(|x| x * x).sum();
        if off <= 1e-26 * diagonal {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                turn(&mut a, &mut v, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| a[[*j, *j]].total_cmp(&a[[*i, *i]]).then(i.cmp(j)));
    let vectors = Array2::from_shape_fn((n, n), |(i, k)| v[[i, order[k]]]);
    (order.iter().map(|i| a[[*i, *i]]).collect(), vectors)
}

/// One rotation that makes entry (p, q) vanish.
fn turn(a: &mut Array2<f64>, v: &mut Array2<f64>, p: usize, q: usize) {
    if a[[p, q]] == 0.0 {
        return;
    }
    let theta = (a[[q, q]] - a[[p, p]]) / (2.0 * a[[p, q]]);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    let n = a.nrows();
    for k in 0..n {
        let (x, y) = (a[[k, p]], a[[k, q]]);
        (a[[k, p]], a[[k, q]]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..n {
        let (x, y) = (a[[p, k]], a[[q, k]]);
        (a[[p, k]], a[[q, k]]) = (c * x - s * y, s * x + c * y);
        let (x, y) = (v[[k, p]], v[[k, q]]);
        (v[[k, p]], v[[k, q]]) = (c * x - s * y, s * x + c * y);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::super::sparse::SparseRow;
    use super::*;

    /// A matrix of known singular values: Σ σ_k u_k v_kᵀ with cosine vectors, which are orthonormal.
    fn known(height: usize, width: usize, singular: &[f64]) -> Array2<f64> {
        let cosine = |n: usize, k: usize, i: usize| {
            let angle = std::f64::consts::PI * (i as f64 + 0.5) * (k + 1) as f64 / n as f64;
            (2.0 / n as f64).sqrt() * angle.cos()
        };
        Array2::from_shape_fn((height, width), |(i, j)| {
            singular.iter().enumerate().map(|(k, s)| s * cosine(height, k, i) * cosine(width, k, j)).sum()
        })
    }

    fn fit(matrix: &Array2<f64>, wanted: usize, seed: u64) -> RightVectors {
        let row = |at: usize, row: &mut SparseRow| {
            row.clear();
            row.extend((0_u32..).zip(matrix.row(at)).map(|(j, x)| (j, narrow(*x))));
        };
        right_vectors(&Sparse::new(matrix.dim(), &row), 1, wanted, (5, seed))
    }

    #[test]
    fn known_vectors_are_found() {
        let singular = [9.0, 5.0, 3.0, 1.0, 0.2];
        let matrix = known(60, 40, &singular);
        let found = fit(&matrix, 3, 1);
        for (k, wanted) in singular.iter().take(3).enumerate() {
            assert!((found.singular[k] - wanted).abs() < 1e-3, "{:?}", found.singular);
            let along: f64 = (0..40)
                .map(|j| {
                    let angle = std::f64::consts::PI * (j as f64 + 0.5) * (k + 1) as f64 / 40.0;
                    (2.0 / 40.0_f64).sqrt() * angle.cos() * f64::from(found.vectors[[j, k]])
                })
                .sum();
            assert!((along.abs() - 1.0).abs() < 1e-4, "vector {k}: {along}");
        }
    }

    #[test]
    fn a_low_rank_gives_fewer_vectors() {
        assert_eq!(fit(&known(50, 30, &[4.0, 2.0]), 6, 2).vectors.dim(), (30, 2));
        assert_eq!(fit(&Array2::zeros((5, 4)), 3, 2).vectors.dim(), (4, 0));
    }

    #[test]
    fn equal_seeds_give_equal_bits() {
        let matrix = known(64, 40, &[3.0, 2.0, 1.5, 1.2, 1.0]);
        assert_eq!(fit(&matrix, 3, 7), fit(&matrix, 3, 7));
        let (one, other) = (fit(&matrix, 3, 7), fit(&matrix, 3, 8));
        // Cosines have entries of one size, so the sign may differ.
        let apart = (one.vectors.mapv(f32::abs) - other.vectors.mapv(f32::abs)).mapv(f32::abs);
        let apart = apart.into_iter().fold(0.0, f32::max);
        assert!(apart < 1e-3, "the seed hardly matters: {apart}");
    }

    #[test]
    fn eigenvectors_diagonalise() {
        let base = known(12, 12, &[3.0, -1.0, 0.5, 0.1]);
        let symmetric = &base + &base.t();
        let (values, vectors) = eigen(symmetric.clone());
        let back = vectors.dot(&Array2::from_diag(&Array1::from(values.clone()))).dot(&vectors.t());
        assert!((back - symmetric).mapv(f64::abs).into_iter().all(|x| x < 1e-10));
        assert!(values.windows(2).all(|w| w[0] >= w[1]));
    }
}
