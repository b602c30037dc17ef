//! Fits the landmarks of `router::quality` on the dense inputs of a sample.
//!
//! Landmarks are rows of the sample, drawn by the seed; their weights solve
//! (KᵀK + α·W + ε)β = Kᵀ(y − ȳ) per model over the rows that saw it, W being the kernel among the
//! landmarks (Williams & Seeger 2001). Rows are added up one by one, so there may be any number of
//! them, and those that tell of every model are added up once for all.

#![expect(clippy::indexing_slicing, reason = "square matrices and rows whose sizes are fixed here")]

use ndarray::{Array2, ArrayView2};
use pointsman_router::clock::Draw;
use pointsman_router::quality::Landmarks;

use super::dense::solve_symmetric;
use super::ridge::Labels;

/// How many landmarks.
pub const LANDMARKS: usize = 128;
/// α of the landmarks' weights.
const LANDMARK_RIDGE: f64 = 10.0;
/// Pairs among which the median distance is found: this many squared.
const WIDTH_ROWS: usize = 300;

/// Landmarks without weights. `inputs` has one row a sampled request.
#[must_use]
pub fn landmarks(inputs: ArrayView2<'_, f32>, seed: u64) -> Landmarks {
    let chosen = draw_rows(inputs.nrows(), LANDMARKS, seed);
    let points: Vec<f32> = chosen.iter().flat_map(|at| inputs.row(*at).to_vec()).collect();
    Landmarks { points, inverse_width: inverse_width(inputs, seed), weights: Vec::new() }
}

/// The normal equations of the landmarks' weights, row by row.
#[derive(Debug, Clone)]
pub struct Normal {
    count: usize,
    /// Lower triangle of KᵀK over the rows on which every lane was judged.
    shared: Vec<f64>,
    /// The same over a lane's other rows; empty where it has none.
    own: Vec<Vec<f64>>,
    /// Kᵀ(y − ȳ), one row a lane.
    right: Vec<f64>,
    kernel: Vec<f64>,
}

impl Normal {
    /// No rows yet.
    #[must_use]
    pub fn new(landmarks: &Landmarks, inputs: usize, lanes: usize) -> Self {
        let count = landmarks.points.len() / inputs.max(1);
        let (shared, right) = (vec![0.0; count * count], vec![0.0; count * lanes]);
        Self { count, shared, own: vec![Vec::new(); lanes], right, kernel: vec![0.0; count] }
    }

    /// Takes in the kernels of a row and what it says.
    pub fn add(&mut self, kernels: &[f32], (labels, means): (&Labels, &[f32])) {
        self.kernel.iter_mut().zip(kernels).for_each(|(to, x)| *to = f64::from(*x));
        for (lane, label) in labels {
            let error = f64::from(label - means[*lane]);
            let right = &mut self.right[lane * self.count..(lane + 1) * self.count];
            right.iter_mut().zip(&self.kernel).for_each(|(sum, x)| *sum += x * error);
        }
        if labels.len() == means.len() {
            add_square(&mut self.shared, &self.kernel);
            return;
        }
        for (lane, _) in labels {
            self.own[*lane].resize(self.count * self.count, 0.0);
            add_square(&mut self.own[*lane], &self.kernel);
        }
    }

    /// Takes in the rows of another.
    pub fn merge(&mut self, other: &Self) {
        let sum = |to: &mut Vec<f64>, from: &[f64]| {
            to.resize(to.len().max(from.len()), 0.0);
            to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
        };
        sum(&mut self.shared, &other.shared);
        sum(&mut self.right, &other.right);
        self.own.iter_mut().zip(&other.own).for_each(|(to, from)| sum(to, from));
    }

    /// The weights: one row a landmark, one cell a lane.
    #[must_use]
    pub fn weights(&self, landmarks: &Landmarks) -> Vec<f32> {
        let (count, lanes) = (self.count, self.own.len());
        let mut weights = vec![0.0_f32; count * lanes];
        let inputs = landmarks.points.len() / count.max(1);
        let points: Vec<&[f32]> = landmarks.points.chunks_exact(inputs.max(1)).collect();
        let between: Vec<Vec<f32>> = points.iter().map(|point| landmarks.kernels(point)).collect();
        let mut solve = |own: &[f64], of: &[usize]| {
            let square = |i: usize, j: usize| {
                let at = i.max(j) * count + i.min(j);
                self.shared[at] + own.get(at).copied().unwrap_or(0.0) + LANDMARK_RIDGE * f64::from(between[i][j])
            };
            let mut gram = Array2::from_shape_fn((count, count), |(i, j)| square(i, j));
            let jitter = 1e-6 * gram.diag().sum() / count.max(1) as f64 + 1e-9;
            gram.diag_mut().iter_mut().for_each(|d| *d += jitter);
            let right = Array2::from_shape_fn((count, of.len()), |(i, at)| self.right[of[at] * count + i]);
            let Some(solved) = solve_symmetric(gram, right) else { return };
            for ((i, at), weight) in solved.indexed_iter() {
                weights[i * lanes + of[at]] = narrow(*weight);
            }
        };
        // Lanes that were judged on the same rows have one matrix.
        let (alike, apart): (Vec<usize>, Vec<usize>) = (0..lanes).partition(|lane| self.own[*lane].is_empty());
        if !alike.is_empty() {
            solve(&[], &alike);
        }
        for lane in apart {
            solve(&self.own[lane], &[lane]);
        }
        weights
    }
}

/// Adds x·xᵀ to a lower triangle.
fn add_square(triangle: &mut [f64], x: &[f64]) {
    for (i, a) in x.iter().enumerate() {
        let row = &mut triangle[i * x.len()..i * x.len() + i + 1];
        row.iter_mut().zip(x).for_each(|(cell, b)| *cell += a * b);
    }
}

/// One over the median squared distance between rows.
fn inverse_width(inputs: ArrayView2<'_, f32>, seed: u64) -> f32 {
    let (some, others) =
        (draw_rows(inputs.nrows(), WIDTH_ROWS, seed ^ 0x51), draw_rows(inputs.nrows(), WIDTH_ROWS, seed ^ 0xA7));
    let apart = |i: usize, j: usize| -> f32 {
        inputs.row(i).iter().zip(inputs.row(j)).map(|(a, b)| (a - b) * (a - b)).sum()
    };
    let mut squares: Vec<f32> =
        some.iter().flat_map(|i| others.iter().filter(move |j| *j != i).map(move |j| apart(*i, *j))).collect();
    squares.sort_by(f32::total_cmp);
    let median = squares.get(squares.len() / 2).copied().unwrap_or(1.0);
    if median > 0.0 { median.recip() } else { 1.0 }
}

/// Up to `wanted` different rows, ascending.
fn draw_rows(rows: usize, wanted: usize, seed: u64) -> Vec<usize> {
    if rows <= wanted {
        return (0..rows).collect();
    }
    let mut draw = Draw::from_seed(seed);
    let mut left = wanted;
    // Selection sampling (Knuth 1969): each row is taken with the share of what is still wanted.
    (0..rows)
        .filter(|at| {
            let taken = draw.uniform() * ((rows - at) as f64) < left as f64;
            left -= usize::from(taken);
            taken
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two groups of requests; model 0 is good in the one, model 1 in the other.
    fn world() -> (Array2<f32>, Vec<Labels>) {
        let mut draw = Draw::from_seed(3);
        let mut labels = Vec::new();
        let inputs = Array2::from_shape_fn((400, 10), |(i, j)| {
            let centre = if (i % 2 == 0) == (j < 5) { 0.6 } else { 0.0 };
            #[expect(clippy::cast_possible_truncation, reason = "a test")]
            let noise = 0.05 * (draw.uniform() as f32 - 0.5);
            centre + noise
        });
        for i in 0..400 {
            let good = if i % 2 == 0 { 0 } else { 1 };
            labels.push(vec![(good, 1.0), (1 - good, 0.0)]);
        }
        (inputs, labels)
    }

    fn fitted(parts: usize) -> Landmarks {
        let (inputs, labels) = world();
        let mut kernels = landmarks(inputs.view(), 1);
        let mut sums = vec![Normal::new(&kernels, 10, 2); parts];
        for (i, labels) in labels.iter().enumerate() {
            // Some rows tell of one model only.
            let seen = labels[..if i % 5 == 0 { 1 } else { 2 }].to_vec();
            sums[i % parts].add(&kernels.kernels(&inputs.row(i).to_vec()), (&seen, &[0.5, 0.5]));
        }
        let (all, more) = sums.split_first_mut().unwrap();
        more.iter().for_each(|part| all.merge(part));
        kernels.weights = all.weights(&kernels);
        kernels
    }

    #[test]
    fn they_tell_the_groups_apart() {
        let (inputs, _) = world();
        let kernels = fitted(1);
        assert_eq!(kernels.points.len(), LANDMARKS * 10);
        for at in [0, 1] {
            let row = inputs.row(at).to_vec();
            let score = |lane: usize| {
                let k = kernels.kernels(&row);
                0.5 + k.iter().zip(kernels.weights.chunks(2)).map(|(k, w)| k * w[lane]).sum::<f32>()
            };
            assert!(score(at) > 0.8 && score(1 - at) < 0.2, "{} {}", score(0), score(1));
        }
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let (whole, parts) = (fitted(1), fitted(3));
        assert_eq!((whole.weights.len(), &whole.points), (2 * LANDMARKS, &parts.points));
        let apart = whole.weights.iter().zip(&parts.weights).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-2, "{apart}");
    }

    #[test]
    fn drawn_rows_are_different_and_as_many_as_wanted() {
        assert_eq!(draw_rows(5, 9, 1), [0, 1, 2, 3, 4]);
        let rows = draw_rows(1_000, 100, 1);
        assert_eq!(rows.len(), 100);
        assert!(rows.windows(2).all(|w| w[0] < w[1]));
    }
}
