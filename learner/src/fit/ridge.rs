//! Ridge regression of every model's score on all hashed buckets at once, by conjugate gradients.
//!
//! For model k it minimises Σ (y − ȳ_k − x·w_k)² + α‖w_k‖² over the rows that saw k, x being the
//! weighted buckets of `router::projection`. The systems are never written down: one pass over the
//! rows multiplies all of them, and models lie as neighbouring lanes. They share nothing but the
//! passes, so a model's solution does not depend on which others there are (but for when the passes
//! end, which is a matter of the tolerance).
//!
//! Text has a few dozen directions along which the rows vary much, and those alone make conjugate
//! gradients slow. They are known from the encoder: along them each system is solved at once, with
//! the squares of the rows' images there, and what is left converges in three or four passes.

#![expect(clippy::indexing_slicing, reason = "columns times lanes of blocks made here")]

use ndarray::{Array2, ArrayView2};

use super::sparse::{LANES, Sparse};

/// What one row says: lane and score of each model that it saw.
pub type Labels = Vec<(usize, f32)>;

/// How the regression is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RidgeSettings {
    /// α.
    pub alpha: f32,
    /// Passes at most.
    pub passes_max: usize,
    /// Ends when every model's residual has shrunk to this share of its first.
    pub tolerance: f64,
}

impl Default for RidgeSettings {
    fn default() -> Self {
        Self { alpha: 6.0, passes_max: 8, tolerance: 0.02 }
    }
}

/// The rows and what they say.
#[derive(Debug)]
pub struct Problem<'a> {
    /// The rows; of more than have labels the first.
    pub matrix: &'a Sparse,
    /// What each row says of which model.
    pub labels: &'a [Labels],
    /// ȳ of each lane.
    pub means: &'a [f32],
}

/// Orthonormal directions along which the rows vary much, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Main<'a> {
    /// One column a direction.
    pub vectors: ArrayView2<'a, f32>,
    /// Σ (x·v)² over the rows that a lane saw: one row a lane, one cell a direction.
    pub squares: &'a Array2<f64>,
}

/// Solutions as one block: for each column one cell a lane, and more of zero up to a multiple of what is
/// added at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Solution {
    block: Vec<f32>,
    cells: usize,
}

impl Solution {
    /// The solutions of the first `lanes` lanes, one row a column.
    #[must_use]
    pub fn weights(&self, lanes: usize) -> Vec<f32> {
        self.block.chunks_exact(self.cells.max(1)).flat_map(|row| row.iter().copied().take(lanes)).collect()
    }

    /// x·w of each row, the lanes first.
    #[must_use]
    pub fn images(&self, matrix: &Sparse) -> Vec<Vec<f32>> {
        let images = matrix.times(&self.block, self.cells, (matrix.height(), 1));
        images.chunks_exact(self.cells.max(1)).map(<[f32]>::to_vec).collect()
    }
}

impl Problem<'_> {
    /// The solutions, begun from `begin` where it has the size of one.
    #[must_use]
    pub fn solve(&self, settings: &RidgeSettings, main: Main<'_>, begin: Solution) -> Solution {
        let lanes = self.means.len().next_multiple_of(LANES);
        let begun = begin.block.len() == self.matrix.width() * lanes;
        let mut solution = if begun { begin.block } else { vec![0.0; self.matrix.width() * lanes] };
        let mut residual =
            if begun { self.residual(settings, &solution) } else { self.pass(|label, _| label, &[]) };
        let start = leap(main, settings.alpha, &residual, lanes);
        solution.iter_mut().zip(&start).for_each(|(w, more)| *w += more);
        residual = self.residual(settings, &solution);
        let mut squares = dots(&residual, &residual, lanes);
        // Of the leap and what is left after it, the former is most: it stands for the right side.
        let wanted: Vec<f64> = squares.iter().map(|r| r * settings.tolerance * settings.tolerance).collect();
        let mut direction = residual.clone();
        for _ in 0..settings.passes_max {
            if squares.iter().zip(&wanted).all(|(r, wanted)| r <= wanted) {
                break;
            }
            let mut image = self.pass(|_, image| image, &direction);
            image.iter_mut().zip(&direction).for_each(|(a, p)| *a += settings.alpha * p);
            let curvature = dots(&direction, &image, lanes);
            let step = ratios(&squares, &curvature);
            add(&mut solution, &direction, &step);
            let back: Vec<f32> = step.iter().map(|s| -s).collect();
            add(&mut residual, &image, &back);
            let before = std::mem::replace(&mut squares, dots(&residual, &residual, lanes));
            let turn = ratios(&squares, &before);
            for (p, r) in direction.chunks_exact_mut(lanes).zip(residual.chunks_exact(lanes)) {
                for ((p, r), turn) in p.iter_mut().zip(r).zip(&turn) {
                    *p = r + turn * *p;
                }
            }
        }
        Solution { block: solution, cells: lanes }
    }

    /// Xᵀ(y − ȳ) − (XᵀX + α)w.
    fn residual(&self, settings: &RidgeSettings, solution: &[f32]) -> Vec<f32> {
        let mut residual = self.pass(|label, image| label - image, solution);
        residual.iter_mut().zip(solution).for_each(|(r, w)| *r -= settings.alpha * w);
        residual
    }

    /// Σ xᵀ·of(y − ȳ, x·block) over the rows and the lanes that they saw. Without a block its images
    /// are zero.
    fn pass(&self, of: impl Fn(f32, f32) -> f32, block: &[f32]) -> Vec<f32> {
        let lanes = self.means.len().next_multiple_of(LANES);
        let rows = (self.labels.len(), 1);
        let images = if block.is_empty() { Vec::new() } else { self.matrix.times(block, lanes, rows) };
        let mut backs = vec![0.0_f32; self.labels.len() * lanes];
        for (row, labels) in self.labels.iter().enumerate() {
            for (lane, label) in labels {
                let at = row * lanes + lane;
                backs[at] = of(label - self.means[*lane], images.get(at).copied().unwrap_or(0.0));
            }
        }
        self.matrix.transposed_times(&backs, lanes, rows)
    }
}

/// V·(squares + α)⁻¹·Vᵀr: the solution along the main directions.
fn leap(main: Main<'_>, alpha: f32, residual: &[f32], lanes: usize) -> Vec<f32> {
    let kept = main.vectors.ncols();
    let columns = || main.vectors.rows().into_iter();
    let mut along = Array2::<f32>::zeros((kept, lanes));
    for (v, r) in columns().zip(residual.chunks_exact(lanes.max(1))) {
        for (v, mut along) in v.iter().zip(along.rows_mut()) {
            along.iter_mut().zip(r).for_each(|(sum, r)| *sum += v * r);
        }
    }
    for ((k, lane), along) in along.indexed_iter_mut() {
        #[expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]
        let square = main.squares.get((lane, k)).map_or(0.0, |square| *square as f32);
        *along /= square + alpha;
    }
    let mut leap = vec![0.0; residual.len()];
    for (v, to) in columns().zip(leap.chunks_exact_mut(lanes.max(1))) {
        for (v, along) in v.iter().zip(along.rows()) {
            to.iter_mut().zip(along).for_each(|(to, a)| *to += v * a);
        }
    }
    leap
}

fn dots(a: &[f32], b: &[f32], lanes: usize) -> Vec<f64> {
    let mut sums = vec![0.0; lanes];
    for (a, b) in a.chunks_exact(lanes.max(1)).zip(b.chunks_exact(lanes.max(1))) {
        for ((sum, x), y) in sums.iter_mut().zip(a).zip(b) {
            *sum += f64::from(*x) * f64::from(*y);
        }
    }
    sums
}

#[expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]
fn ratios(over: &[f64], under: &[f64]) -> Vec<f32> {
    over.iter().zip(under).map(|(a, b)| if *b > 0.0 { (a / b) as f32 } else { 0.0 }).collect()
}

fn add(to: &mut [f32], what: &[f32], times: &[f32]) {
    let lanes = times.len().max(1);
    for (to, what) in to.chunks_exact_mut(lanes).zip(what.chunks_exact(lanes)) {
        for ((to, x), t) in to.iter_mut().zip(what).zip(times) {
            *to += t * x;
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};
    use pointsman_router::clock::Draw;

    use super::*;
    use crate::fit::sparse::SparseRow;
    use crate::fit::tests::eliminated;

    /// The normal equations of one lane, solved directly.
    fn direct(x: &Array2<f64>, labels: &[Labels], (lane, mean): (usize, f64), alpha: f64) -> Array1<f64> {
        let mut gram = Array2::<f64>::eye(x.ncols()) * alpha;
        let mut right = Array1::<f64>::zeros(x.ncols());
        for (row, labels) in x.rows().into_iter().zip(labels) {
            for (_, y) in labels.iter().filter(|(l, _)| *l == lane) {
                for i in 0..x.ncols() {
                    right[i] += row[i] * (f64::from(*y) - mean);
                    for j in 0..x.ncols() {
                        gram[[i, j]] += row[i] * row[j];
                    }
                }
            }
        }
        eliminated(gram, right)
    }

    fn check(lanes: usize, seen: usize) {
        let mut draw = Draw::from_seed(seen as u64);
        // Numbers that the matrix keeps exactly.
        let x = Array2::from_shape_fn((80, 12), |_| (draw.uniform() * 64.0).floor() / 64.0 - 0.375);
        let labels: Vec<Labels> = (0..80)
            .map(|i| (0..seen).map(|s| ((i + s) % lanes, if draw.uniform() < 0.6 { 1.0 } else { 0.0 })).collect())
            .collect();
        let row = |at: usize, row: &mut SparseRow| {
            row.clear();
            #[expect(clippy::cast_possible_truncation, reason = "a test")]
            row.extend((0_u32..).zip(x.row(at)).map(|(j, x)| (j, *x as f32)));
        };
        let means: Vec<f32> = (0..lanes).map(|l| 0.5 + 0.01 * l as f32).collect();
        let matrix = Sparse::new((80, 12), &row);
        let problem = Problem { matrix: &matrix, labels: &labels, means: &means };
        let exact = RidgeSettings { alpha: 2.0, passes_max: 60, tolerance: 1e-6 };
        let vectors = Array2::from_shape_fn((12, 2), |(i, k)| if i == 5 * k { 1.0 } else { 0.0 });
        let squares = Array2::from_elem((lanes, 2), 3.0);
        let main = Main { vectors: vectors.view(), squares: &squares };
        let solution = problem.solve(&exact, main, Solution::default());
        let found = solution.weights(lanes);
        for lane in 0..lanes {
            let wanted = direct(&x, &labels, (lane, f64::from(means[lane])), 2.0);
            for column in 0..12 {
                let got = f64::from(found[column * lanes + lane]);
                assert!((got - wanted[column]).abs() < 1e-4, "{lane} {column}: {got} {}", wanted[column]);
            }
        }
        let again = problem.solve(&exact, main, solution).weights(lanes);
        assert!(found.iter().zip(again).all(|(a, b)| (a - b).abs() < 1e-4), "a solution stays one");
    }

    #[test]
    fn it_solves_the_normal_equations() {
        check(3, 3);
        check(3, 2);
        check(9, 1);
    }
}
