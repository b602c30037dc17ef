//! What looks at neighbours among the dense inputs: k-nearest neighbours, and k-means clusters with the models' means in
//! each. Nothing is fitted to what the models scored, so distances must mean something by themselves: the surface
//! statistics together are brought to the length of the text.

use ndarray::{Array2, ArrayView1};
use pointsman_router::clock::Draw;
use pointsman_router::features::SURFACE_DIMS;

use crate::learners::Scorer;
use crate::split::{Split, Told};

const NEIGHBOURS: usize = 100;
/// Rows that a mean score is shrunk by towards the model's mean.
pub(crate) const PRIOR_ROWS: f64 = 20.0;
/// Squared distance at which a neighbour counts e times less.
const TEMPERATURE: f32 = 0.6;
const PASSES: usize = 30;

/// The mean scores of the nearest rows, softmax-weighted by their squared distances.
pub(crate) fn neighbours(split: &Split) -> anyhow::Result<Scorer<'_>> {
    let (points, asked) = (evened(&split.train.inputs), evened(&split.test.inputs));
    let of = move |at: usize| {
        let mut near: Vec<(f32, usize)> =
            points.rows().into_iter().enumerate().map(|(row, point)| (apart(point, asked.row(at)), row)).collect();
        let count = NEIGHBOURS.min(near.len());
        near.select_nth_unstable_by(count - 1, |a, b| a.0.total_cmp(&b.0));
        near.truncate(count);
        let nearest = near.iter().map(|(apart, _)| *apart).fold(f32::INFINITY, f32::min);
        let (mut sums, mut weights) = (vec![0.0; split.models.len()], 0.0);
        for (apart, row) in near {
            let weight = ((nearest - apart) / TEMPERATURE).exp();
            weights += weight;
            let labels = &split.train.rows[row].labels;
            sums.iter_mut().zip(labels).for_each(|(sum, (_, label))| *sum += weight * label);
        }
        sums.iter().map(|sum| sum / weights).collect()
    };
    Ok(Box::new(of))
}

/// The shrunken mean scores of the cluster that a row falls into.
pub(crate) fn clusters(split: &Split, k: usize) -> Scorer<'_> {
    let (points, asked) = (evened(&split.train.inputs), evened(&split.test.inputs));
    let centres = centres(&points, k, split.seed);
    let mut told = vec![Told::new(split.models.len()); k];
    for (point, row) in points.rows().into_iter().zip(&split.train.rows) {
        told[nearest(&centres, point).0].add(row);
    }
    let means: Vec<Vec<f32>> = told.iter().map(|told| told.means(&split.means, PRIOR_ROWS)).collect();
    Box::new(move |at| means[nearest(&centres, asked.row(at)).0].clone())
}

/// k-means, begun far apart (Arthur & Vassilvitskii 2007).
fn centres(points: &Array2<f32>, k: usize, seed: u64) -> Array2<f32> {
    let mut draw = Draw::from_seed(seed ^ k as u64);
    let mut centres = Array2::zeros((k, points.ncols()));
    let mut chances = vec![1.0; points.nrows()];
    for place in 0..k {
        let drawn = draw.index(chances.iter().copied()).unwrap_or(place);
        centres.row_mut(place).assign(&points.row(drawn));
        for (chance, point) in chances.iter_mut().zip(points.rows()) {
            let apart = f64::from(apart(point, points.row(drawn)));
            *chance = if place == 0 { apart } else { apart.min(*chance) };
        }
    }
    for _ in 0..PASSES {
        let (mut sums, mut counts) = (Array2::<f32>::zeros(centres.dim()), vec![0.0_f32; k]);
        for point in points.rows() {
            let (mine, _) = nearest(&centres, point);
            sums.row_mut(mine).scaled_add(1.0, &point);
            counts[mine] += 1.0;
        }
        for ((mut centre, sum), count) in centres.rows_mut().into_iter().zip(sums.rows()).zip(&counts) {
            if *count > 0.0 {
                centre.assign(&(&sum / *count));
            }
        }
    }
    centres
}

fn nearest(centres: &Array2<f32>, point: ArrayView1<'_, f32>) -> (usize, f32) {
    let all = centres.rows().into_iter().enumerate().map(|(place, centre)| (place, apart(centre, point)));
    all.reduce(|a, b| if b.1 < a.1 { b } else { a }).unwrap_or((0, 0.0))
}

fn apart(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// The inputs with the surface statistics scaled to length one together, as the projected dimensions are.
fn evened(inputs: &Array2<f32>) -> Array2<f32> {
    let mut evened = inputs.clone();
    for mut column in evened.columns_mut().into_iter().take(SURFACE_DIMS) {
        column /= (SURFACE_DIMS as f32).sqrt();
    }
    evened
}
