//! Fitting: from many rows to the parts of an artifact.

pub mod calibrate;
pub mod encoder;
pub mod expense;
pub mod ridge;
pub mod sparse;
pub mod svd;
pub mod topics;
pub mod trees;

#[cfg(test)]
pub(crate) mod tests {
    //! What fits are held against.

    use ndarray::{Array1, Array2};

    /// Gauss-Jordan elimination of a positive definite system.
    pub(crate) fn eliminated(mut a: Array2<f64>, mut b: Array1<f64>) -> Array1<f64> {
        for pivot in 0..b.len() {
            let (row, right) = (&a.row(pivot) / a[[pivot, pivot]], b[pivot] / a[[pivot, pivot]]);
            for other in (0..b.len()).filter(|other| *other != pivot) {
                let times = a[[other, pivot]];
                a.row_mut(other).scaled_add(-times, &row);
                b[other] -= times * right;
            }
            a.row_mut(pivot).assign(&row);
            b[pivot] = right;
        }
        b
    }
}
