//! Small dense systems: symmetric and positive definite, solved by Cholesky's factor.
//!
//! Some hundred unknowns and a handful of right sides; linfa-linalg would bring its own array of
//! decompositions for this one.

#![expect(clippy::indexing_slicing, reason = "square matrices whose size is the loop's bound")]

use ndarray::{Array1, Array2};

/// The solutions X of A·X = B; `None` where A is not positive definite.
#[must_use]
pub fn solve_symmetric(mut a: Array2<f64>, mut b: Array2<f64>) -> Option<Array2<f64>> {
    let n = a.nrows();
    for j in 0..n {
        for k in 0..j {
            let scale = a[[j, k]];
            if scale != 0.0 {
                for i in j..n {
                    let below = a[[i, k]];
                    a[[i, j]] -= scale * below;
                }
            }
        }
        let pivot = a[[j, j]];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        let root = pivot.sqrt();
        for i in j..n {
            a[[i, j]] /= root;
        }
    }
    for mut side in b.columns_mut() {
        let mut x: Array1<f64> = side.to_owned();
        for i in 0..n {
            let known: f64 = (0..i).map(|k| a[[i, k]] * x[k]).sum();
            x[i] = (x[i] - known) / a[[i, i]];
        }
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|k| a[[k, i]] * x[k]).sum();
            x[i] = (x[i] - known) / a[[i, i]];
        }
        side.assign(&x);
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solutions_solve() {
        let base = Array2::from_shape_fn((6, 6), |(i, j)| ((i * 7 + j * 3) % 5) as f64 - 1.5);
        let a = base.dot(&base.t()) + Array2::<f64>::eye(6) * 0.3;
        let b = Array2::from_shape_fn((6, 2), |(i, j)| (i + 3 * j) as f64 - 2.0);
        let x = solve_symmetric(a.clone(), b.clone()).unwrap();
        assert!((a.dot(&x) - b).iter().all(|r| r.abs() < 1e-9));
        assert!(solve_symmetric(-Array2::<f64>::eye(3), Array2::zeros((3, 1))).is_none());
        assert!(solve_symmetric(Array2::zeros((2, 2)), Array2::zeros((2, 1))).is_none());
    }
}
