//! One tree for all models on the dense inputs, every split tried (Breiman et al. 1984): that which tells the models'
//! scores apart best, by the measure of the product's trees. Alone it must have larger leaves than they.

use crate::learners::Scorer;
use crate::near::PRIOR_ROWS;
use crate::split::{Split, Told};

/// Rows of a leaf, at least.
const LEAF_ROWS: usize = 100;

enum Tree {
    Leaf(Vec<f32>),
    Node { input: usize, threshold: f32, sides: Box<[Tree; 2]> },
}

/// Grows it.
pub(crate) fn fit(split: &Split) -> anyhow::Result<Scorer<'_>> {
    // A score less the model's mean, and less the row's mean of that.
    let errors = split.train.rows.iter().map(|row| {
        let mut errors: Vec<f32> = row.labels.iter().map(|(lane, label)| label - split.means[*lane]).collect();
        let shared = errors.iter().sum::<f32>() / errors.len() as f32;
        errors.iter_mut().for_each(|error| *error -= shared);
        errors
    });
    let errors: Vec<Vec<f32>> = errors.collect();
    let tree = grow(split, &errors, (0..errors.len()).collect());
    let of = move |at: usize| {
        let inputs = split.test.inputs.row(at);
        let mut here = &tree;
        loop {
            match here {
                Tree::Leaf(scores) => return scores.clone(),
                Tree::Node { input, threshold, sides } => {
                    here = &sides[usize::from(inputs[*input] > *threshold)];
                }
            }
        }
    };
    Ok(Box::new(of))
}

fn grow(split: &Split, errors: &[Vec<f32>], rows: Vec<usize>) -> Tree {
    let Some((input, threshold)) = best_split(split, errors, &rows) else {
        let mut told = Told::new(split.models.len());
        rows.iter().for_each(|row| told.add(&split.train.rows[*row]));
        return Tree::Leaf(told.means(&split.means, PRIOR_ROWS));
    };
    let (lower, upper) = rows.iter().partition(|row| split.train.inputs[[**row, input]] <= threshold);
    let sides = [lower, upper].map(|side| grow(split, errors, side));
    Tree::Node { input, threshold, sides: Box::new(sides) }
}

fn best_split(split: &Split, errors: &[Vec<f32>], rows: &[usize]) -> Option<(usize, f32)> {
    let square = |sums: &[f32], rows: usize| sums.iter().map(|sum| sum * sum).sum::<f32>() / rows as f32;
    let mut all = vec![0.0; split.models.len()];
    rows.iter().for_each(|row| add(&mut all, &errors[*row]));
    let mut best: Option<(f32, usize, f32)> = None;
    for (input, column) in split.train.inputs.columns().into_iter().enumerate() {
        let mut order = rows.to_vec();
        order.sort_unstable_by(|a, b| column[*a].total_cmp(&column[*b]));
        let mut lower = vec![0.0; all.len()];
        for (at, row) in order.iter().enumerate() {
            let (below, above) = (at, order.len() - at);
            if below >= LEAF_ROWS && above >= LEAF_ROWS && column[order[at - 1]] < column[*row] {
                let upper: Vec<f32> = all.iter().zip(&lower).map(|(all, lower)| all - lower).collect();
                let gain = square(&lower, below) + square(&upper, above);
                if best.is_none_or(|(most, _, _)| gain > most) {
                    best = Some((gain, input, column[order[at - 1]]));
                }
            }
            add(&mut lower, &errors[*row]);
        }
    }
    best.map(|(_, input, threshold)| (input, threshold))
}

fn add(sums: &mut [f32], errors: &[f32]) {
    sums.iter_mut().zip(errors).for_each(|(sum, error)| *sum += error);
}
