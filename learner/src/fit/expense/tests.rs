use ndarray::{Array1, Array2};
use pointsman_router::clock::Draw;

use super::*;
use crate::fit::tests::eliminated;

const INPUTS: usize = 4;

/// Rows whose costs follow `weights`, their size and noise; tokens are said on every other row, and times on
/// none.
struct World {
    inputs: Array2<f32>,
    sizes: Vec<f64>,
    spent: Vec<Vec<Spent>>,
}

fn world(rows: usize, (weights, noise): ([f64; INPUTS], f64), seed: u64) -> World {
    let mut draw = Draw::from_seed(seed);
    let sizes: Vec<f64> = (0..rows).map(|_| 3.0 + 4.0 * draw.uniform()).collect();
    // The first input goes with the size.
    let inputs = Array2::from_shape_fn((rows, INPUTS), |(row, input)| {
        let with_size = if input == 0 { sizes[row] - 5.0 } else { 0.0 };
        narrow(with_size + 2.0 * draw.uniform() - 1.0)
    });
    let spent = (0..rows).map(|row| {
        let said: f64 = inputs.row(row).iter().zip(weights).map(|(x, w)| f64::from(*x) * w).sum();
        let y = 9.0 + 0.7 * sizes[row] + said + noise * (draw.uniform() - 0.5);
        vec![Spent { lane: 0, logs: [(row % 2 == 0).then_some(y - 3.0), Some(y), None] }]
    });
    let spent = spent.collect();
    World { inputs, sizes, spent }
}

fn fitted(world: &World, kept: usize, lanes: usize) -> (Expense, Vec<Explained>) {
    let calls: Vec<(f64, &[Spent])> =
        world.sizes.iter().copied().zip(world.spent.iter().map(Vec::as_slice)).collect();
    expense(&SpentRows { inputs: world.inputs.view(), calls: &calls, kept }, lanes)
}

/// The weights of one regression on 1, s and the inputs together, from its normal equations: α on the inputs, and
/// nearly what the line's own ridge does on s.
fn together(world: &World) -> Array1<f64> {
    let (mut gram, mut right) = (Array2::<f64>::zeros((INPUTS + 2, INPUTS + 2)), Array1::<f64>::zeros(INPUTS + 2));
    for (row, (size, spent)) in world.inputs.rows().into_iter().zip(world.sizes.iter().zip(&world.spent)) {
        let all: Vec<f64> = [1.0, *size].into_iter().chain(row.iter().map(|x| f64::from(*x))).collect();
        for i in 0..all.len() {
            right[i] += all[i] * spent[0].logs[1].unwrap();
            (0..all.len()).for_each(|j| gram[[i, j]] += all[i] * all[j]);
        }
    }
    (2..INPUTS + 2).for_each(|i| gram[[i, i]] += ALPHA);
    eliminated(gram, right)
}

#[test]
fn it_solves_the_normal_equations() {
    let world = world(4_000, ([0.4, -0.6, 0.0, 0.2], 0.5), 1);
    let calls: Vec<(f64, &[Spent])> =
        world.sizes.iter().copied().zip(world.spent.iter().map(Vec::as_slice)).collect();
    let rows = SpentRows { inputs: world.inputs.view(), calls: &calls, kept: 4_000 };
    let line = Line::fit(&moments(&rows, TARGETS, |_| true)[1]).unwrap();
    let wanted = together(&world);
    for (found, wanted) in line.weights.iter().zip(wanted.iter().skip(2)) {
        assert!((found - wanted).abs() < 2e-3, "{:?} {wanted}", line.weights);
    }
}

#[test]
fn a_head_says_what_the_size_does_not() {
    let world = world(3_000, ([0.4, -0.6, 0.0, 0.2], 0.5), 2);
    let (expense, told) = fitted(&world, 2_400, 1);
    let head = &expense.models[0].cost;
    assert!(expense.is_sound(INPUTS + 1, 1) && told[0].cost.unwrap() > 0.85, "{told:?}");
    // A lean is uncorrelated with the size and zero on average.
    let (mut sum, mut with_size) = (0.0, 0.0);
    for (row, size) in world.inputs.rows().into_iter().zip(&world.sizes) {
        let dense: Vec<f32> = std::iter::once(1.0).chain(row.iter().copied()).collect();
        let shift = head.lean(&dense, *size);
        (sum, with_size) = (sum + shift, with_size + shift * (size - 5.0));
    }
    assert!(sum.abs() < 3.0 && with_size.abs() < 6.0, "{sum} {with_size}");
    let half = &expense.models[0].tokens_out;
    assert!(half.weights.iter().zip(&head.weights).all(|(a, b)| (a - b).abs() < 0.1), "{half:?} {head:?}");
}

#[test]
fn what_is_not_known_is_left_out() {
    let world = world(600, ([0.4, -0.6, 0.0, 0.2], 0.5), 3);
    let (expense, told) = fitted(&world, 480, 2);
    assert!(expense.is_sound(INPUTS + 1, 2));
    assert!(expense.models[0].latency.weights.is_empty() && told[0].latency.is_none());
    assert!(expense.models[1].cost.weights.is_empty() && told[1] == Explained::default());
}

#[test]
fn noise_is_not_believed() {
    let world = world(400, ([0.0; INPUTS], 2.0), 4);
    let (expense, told) = fitted(&world, 320, 1);
    let head = &expense.models[0].cost;
    assert!(told[0].cost.unwrap() < 0.05 && head.weights.iter().all(|w| w.abs() < 0.2), "{head:?} {told:?}");
    let few = super::tests::world(39, ([0.4, -0.6, 0.0, 0.2], 0.5), 5);
    assert!(fitted(&few, 31, 1).0.models[0].cost.weights.is_empty(), "eight rows judge nothing");
}
