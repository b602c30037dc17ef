//! Fits the landmarks and the clusters of `router::quality` on the dense inputs of a sample.
//!
//! Landmarks are rows of the sample, drawn by the seed; their weights solve
//! (KᵀK + α·W + ε)β = Kᵀ(y − ȳ) per model over the rows that saw it, W being the kernel among the
//! landmarks (Williams & Seeger 2001). Clusters are linfa's k-means; the mean score of a model in one
//! is shrunk towards its mean over all rows by the weight of [`PRIOR_ROWS`] rows.

#![expect(clippy::indexing_slicing, reason = "square matrices and rows whose sizes are fixed here")]

use linfa::DatasetBase;
use linfa::traits::Fit as _;
use linfa_clustering::{KMeans, KMeansInit};
use ndarray::{Array2, ArrayView2};
use pointsman_router::clock::Draw;
use pointsman_router::quality::{Clusters, Landmarks};
use rand_xoshiro::Xoshiro256Plus;
use rand_xoshiro::rand_core::SeedableRng as _;

use super::dense::solve_symmetric;
use super::ridge::Labels;

/// How many landmarks.
pub const LANDMARKS: usize = 128;
/// The scales of the clusters.
pub const SCALES: [usize; 3] = [16, 32, 64];
/// Rows that a cluster's mean score is shrunk by.
pub const PRIOR_ROWS: f64 = 20.0;
/// Rows that centroids are looked for in.
const CLUSTERED_MAX: usize = 20_000;
const KMEANS_PASSES: u64 = 20;
/// α of the landmarks' weights.
const LANDMARK_RIDGE: f64 = 10.0;
/// Pairs among which the median distance is found: this many squared.
const WIDTH_ROWS: usize = 300;

/// Landmarks and their weights. `inputs` has one row a sampled request.
#[must_use]
pub fn landmarks(inputs: ArrayView2<'_, f32>, labels: &[Labels], means: &[f32], seed: u64) -> Landmarks {
    let chosen = draw_rows(inputs.nrows(), LANDMARKS, seed);
    let points: Vec<f32> = chosen.iter().flat_map(|at| inputs.row(*at).to_vec()).collect();
    let inverse_width = inverse_width(inputs, seed);
    let bare = Landmarks { points, inverse_width, weights: Vec::new() };
    let count = chosen.len();
    let mut weights = vec![0.0_f32; count * means.len()];
    let between = Array2::from_shape_fn((count, count), |(i, j)| {
        f64::from(bare.kernels(&inputs.row(chosen[i]).to_vec())[j])
    });
    let kernels: Vec<Vec<f32>> = inputs.rows().into_iter().map(|row| bare.kernels(&row.to_vec())).collect();
    for (lane, mean) in means.iter().enumerate() {
        let mut gram = &between * LANDMARK_RIDGE;
        let mut right = Array2::zeros((count, 1));
        for (kernel, labels) in kernels.iter().zip(labels) {
            for (_, label) in labels.iter().filter(|(l, _)| *l == lane) {
                accumulate(&mut gram, &mut right, kernel, f64::from(label - mean));
            }
        }
        for i in 0..count {
            for j in 0..i {
                gram[[j, i]] = gram[[i, j]];
            }
        }
        let jitter = 1e-6 * gram.diag().sum() / count.max(1) as f64 + 1e-9;
        gram.diag_mut().iter_mut().for_each(|d| *d += jitter);
        if let Some(solved) = solve_symmetric(gram, right) {
            for (i, weight) in solved.iter().enumerate() {
                weights[i * means.len() + lane] = narrow(*weight);
            }
        }
    }
    Landmarks { weights, ..bare }
}

/// Adds one row to the lower triangle and the right side.
fn accumulate(gram: &mut Array2<f64>, right: &mut Array2<f64>, kernel: &[f32], error: f64) {
    for (i, x) in kernel.iter().enumerate() {
        let x = f64::from(*x);
        right[[i, 0]] += x * error;
        for (cell, y) in gram.row_mut(i).iter_mut().zip(&kernel[..=i]) {
            *cell += x * f64::from(*y);
        }
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

/// Clusters at every scale and the shrunken mean scores in them.
#[must_use]
pub fn clusters(inputs: ArrayView2<'_, f32>, labels: &[Labels], means: &[f32], seed: u64) -> Vec<Clusters> {
    let among = draw_rows(inputs.nrows(), CLUSTERED_MAX, seed ^ 0x3C);
    let sample = Array2::from_shape_fn((among.len(), inputs.ncols()), |(i, j)| f64::from(inputs[[among[i], j]]));
    let scales = SCALES.iter().filter(|k| **k <= sample.nrows());
    scales.filter_map(|k| one_scale(*k, &sample, inputs, labels, (means, seed))).collect()
}

fn one_scale(
    k: usize,
    sample: &Array2<f64>,
    inputs: ArrayView2<'_, f32>,
    labels: &[Labels],
    (means, seed): (&[f32], u64),
) -> Option<Clusters> {
    let chance = Xoshiro256Plus::seed_from_u64(seed ^ k as u64);
    let fitted = KMeans::params_with_rng(k, chance)
        .n_runs(1)
        .init_method(KMeansInit::Random)
        .max_n_iterations(KMEANS_PASSES)
        .tolerance(1e-3)
        .fit(&DatasetBase::from(sample.clone()));
    let centroids: Vec<f32> = fitted.ok()?.centroids().iter().map(|x| narrow(*x)).collect();
    let bare = Clusters { centroids, means: Vec::new() };
    let mut sums = vec![(0.0_f64, 0.0_f64); k * means.len()];
    for (row, labels) in inputs.rows().into_iter().zip(labels) {
        let shares = bare.responsibilities(&row.to_vec());
        for (r, sums) in shares.iter().zip(sums.chunks_exact_mut(means.len())) {
            for (lane, label) in labels {
                sums[*lane].0 += f64::from(*r) * f64::from(*label);
                sums[*lane].1 += f64::from(*r);
            }
        }
    }
    let shrunk = |(at, (score, weight)): (usize, &(f64, f64))| {
        narrow((score + PRIOR_ROWS * f64::from(means[at % means.len()])) / (weight + PRIOR_ROWS))
    };
    Some(Clusters { means: sums.iter().enumerate().map(shrunk).collect(), ..bare })
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

    #[test]
    fn both_tell_the_groups_apart() {
        let (inputs, labels) = world();
        let means = [0.5, 0.5];
        let kernels = landmarks(inputs.view(), &labels, &means, 1);
        assert_eq!(kernels.points.len(), LANDMARKS * 10);
        for at in [0, 1] {
            let row = inputs.row(at).to_vec();
            let score = |lane: usize| {
                let k = kernels.kernels(&row);
                0.5 + k.iter().zip(kernels.weights.chunks(2)).map(|(k, w)| k * w[lane]).sum::<f32>()
            };
            assert!(score(at) > 0.8 && score(1 - at) < 0.2, "{} {}", score(0), score(1));
        }
        let scales = clusters(inputs.view(), &labels, &means, 1);
        assert_eq!(scales.len(), 3);
        for scale in &scales {
            for at in [0, 1] {
                let shares = scale.responsibilities(&inputs.row(at).to_vec());
                let score: f32 = shares.iter().zip(scale.means.chunks(2)).map(|(r, m)| r * m[at]).sum();
                // Shrunk by twenty rows of .5, the more the more clusters share the rows.
                assert!(score > 0.55, "{score}");
            }
        }
    }

    #[test]
    fn equal_seeds_give_equal_bits() {
        let (inputs, labels) = world();
        let means = [0.5, 0.5];
        assert_eq!(landmarks(inputs.view(), &labels, &means, 5), landmarks(inputs.view(), &labels, &means, 5));
        assert_eq!(clusters(inputs.view(), &labels, &means, 5), clusters(inputs.view(), &labels, &means, 5));
    }

    #[test]
    fn drawn_rows_are_different_and_as_many_as_wanted() {
        assert_eq!(draw_rows(5, 9, 1), [0, 1, 2, 3, 4]);
        let rows = draw_rows(1_000, 100, 1);
        assert_eq!(rows.len(), 100);
        assert!(rows.windows(2).all(|w| w[0] < w[1]));
    }
}
