//! Symmetric positive definite systems of some dozens of unknowns, as packed lower triangles: what exact
//! regressions come down to. linfa-linalg would bring its decompositions and another layout for this one.
//! Always the same order of sums, so the same bits everywhere.

#![expect(clippy::indexing_slicing, reason = "packed triangles, whose places follow from their row")]

/// The solution, by Cholesky in place and both substitutions. A penalty on the diagonal keeps every pivot positive;
/// one that rounding took to zero leaves its coefficient at zero.
pub(crate) fn solved(mut a: Vec<f64>, mut x: Vec<f64>) -> Vec<f64> {
    let n = x.len();
    let at = |i: usize| i * (i + 1) / 2;
    for i in 0..n {
        let (done, current) = a.split_at_mut(at(i));
        for j in 0..i {
            let above = &done[at(j)..=at(j) + j];
            let rest = current[j] - dot(&current[..j], above);
            current[j] = if above[j] > 0.0 { rest / above[j] } else { 0.0 };
        }
        current[i] = (current[i] - dot(&current[..i], &current[..i])).max(0.0).sqrt();
    }
    for i in 0..n {
        let row = &a[at(i)..=at(i) + i];
        let rest = x[i] - dot(&row[..i], &x);
        x[i] = if row[i] > 0.0 { rest / row[i] } else { 0.0 };
    }
    for i in (0..n).rev() {
        let row = &a[at(i)..=at(i) + i];
        x[i] = if row[i] > 0.0 { x[i] / row[i] } else { 0.0 };
        let known = x[i];
        for (x, l) in x[..i].iter_mut().zip(row) {
            *x -= l * known;
        }
    }
    x
}

/// The sum of products, over as many elements as the shorter has; in four parts, so that it can be summed
/// in lanes, and always in the same order.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let length = a.len().min(b.len());
    let ((a, a_rest), (b, b_rest)) = (a[..length].as_chunks::<4>(), b[..length].as_chunks::<4>());
    let ends: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    let mut sums = [0.0; 4];
    for (x, y) in a.iter().zip(b) {
        for lane in 0..4 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + ends
}
