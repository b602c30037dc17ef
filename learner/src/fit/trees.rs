//! Fits the forest of `router::forest`: extremely randomised trees (Geurts, Ernst & Wehenkel 2006).
//!
//! At each node a share of the inputs is drawn, and for each of them a threshold evenly between its
//! least and its greatest value there; the pair is kept that tells the models' scores apart best, by
//! Σ over models (Σ error)²/labels of both sides. All models share a tree. A side must hold
//! [`LEAF_LABELS`] labels for each model on average, whichever of them were judged on a row. Of a row on
//! which several models were judged only what sets them apart counts, error less the row's mean error:
//! how hard a request is for all of them is of no use to choose (measured: it takes up most splits).
//!
//! A tree depends on its seed and the rows only, so trees are grown side by side; the bits are the
//! same on any number of cores. What the leaves say is counted apart ([`Counts`]), so that rows may
//! fill the leaves that the trees were not grown on.

#![expect(clippy::indexing_slicing, reason = "tables of one row a request, one column an input or a lane")]

use ndarray::ArrayView2;
use pointsman_router::clock::Draw;
use pointsman_router::forest::{Forest, LEAF, Node};

use super::ridge::Labels;
use super::sparse::{PARTS, side_by_side};

/// How many trees.
pub const TREES: usize = 100;
/// Labels for each model, on average, that a leaf has at least.
pub const LEAF_LABELS: usize = 5;
/// Rows that trees are grown on, at most.
pub const GROWN_ROWS_MAX: usize = 12_000;
/// One input in so many is tried at a node.
const TRIED: usize = 3;
/// Labels at the mean that a leaf's score of a model is shrunk by.
const PRIOR_LABELS: f64 = 2.0;
/// Deeper than this no tree grows, whatever the thresholds are.
const DEPTH_MAX: usize = 40;

/// Grows the trees on these rows of inputs; the leaves are empty yet.
#[must_use]
pub fn grow(inputs: ArrayView2<'_, f32>, labels: &[Labels], means: &[f32], seed: u64) -> Forest {
    let step = labels.len().div_ceil(GROWN_ROWS_MAX).max(1);
    let rows: Vec<usize> = (0..labels.len()).step_by(step).filter(|row| !labels[*row].is_empty()).collect();
    // Columns side by side: a node reads one input of many rows.
    let columns: Vec<Vec<f32>> =
        inputs.columns().into_iter().map(|c| rows.iter().map(|r| c[*r]).collect()).collect();
    let errors = Errors::of(rows.iter().map(|row| &labels[*row]), means);
    let ground = Ground { columns: &columns, errors: &errors };
    let parts = side_by_side(|first| {
        (first..TREES).step_by(PARTS).map(|tree| ground.tree(rows.len(), seed, tree)).collect::<Vec<_>>()
    });
    let mut forest = Forest::default();
    let (mut leaves, mut parts) = (0, parts.into_iter().map(Vec::into_iter).collect::<Vec<_>>());
    for tree in 0..TREES {
        let Some(nodes) = parts[tree % PARTS].next() else { continue };
        let base = place(forest.nodes.len());
        forest.roots.push(base);
        for node in nodes {
            let other = if node.input == LEAF { leaves } else { node.other + base };
            leaves += u32::from(node.input == LEAF);
            forest.nodes.push(Node { other, ..node });
        }
    }
    forest
}

/// What rows said in the leaves.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Σ error and labels, one row a leaf, one cell a lane.
    cells: Vec<(f64, f64)>,
    lanes: usize,
}

impl Counts {
    /// None yet.
    #[must_use]
    pub fn new(forest: &Forest, lanes: usize) -> Self {
        let leaves = forest.nodes.iter().filter(|node| node.input == LEAF).count();
        Self { cells: vec![(0.0, 0.0); leaves * lanes], lanes }
    }

    /// Takes in a row.
    pub fn add(&mut self, forest: &Forest, inputs: &[f32], (labels, means): (&Labels, &[f32])) {
        for leaf in forest.reached(inputs) {
            for (lane, label) in labels {
                let cell = &mut self.cells[leaf as usize * self.lanes + lane];
                cell.0 += f64::from(label - means[*lane]);
                cell.1 += 1.0;
            }
        }
    }

    /// Takes in what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (cell, more) in self.cells.iter_mut().zip(&other.cells) {
            *cell = (cell.0 + more.0, cell.1 + more.1);
        }
    }

    /// The leaves as the forest keeps them.
    #[must_use]
    pub fn leaves(&self) -> Vec<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]
        let mean = |(sum, count): &(f64, f64)| (sum / (count + PRIOR_LABELS) / TREES as f64) as f32;
        self.cells.iter().map(mean).collect()
    }
}

/// Of each row the errors of its lanes: all of them as one row where every row has every label.
struct Errors {
    lanes: usize,
    /// Empty where a label is missing anywhere.
    full: Vec<f32>,
    some: Vec<Vec<(usize, f32)>>,
}

impl Errors {
    fn of<'a>(labels: impl Iterator<Item = &'a Labels>, means: &[f32]) -> Self {
        let some: Vec<Vec<(usize, f32)>> = labels.map(|row| errors(row, means)).collect();
        let lanes = means.len();
        let is_full =
            |row: &Vec<(usize, f32)>| row.iter().enumerate().all(|(i, (l, _))| i == *l) && row.len() == lanes;
        let full =
            if some.iter().all(is_full) { some.iter().flatten().map(|(_, e)| *e).collect() } else { Vec::new() };
        Self { lanes, full, some }
    }

    /// Adds the errors and the labels of a row.
    #[inline]
    fn add(&self, row: usize, sums: &mut Sums) {
        if self.full.is_empty() {
            for (lane, error) in &self.some[row] {
                sums.errors[*lane] += error;
                sums.labels[*lane] += 1.0;
            }
            sums.count += self.some[row].len();
        } else {
            let errors = &self.full[row * self.lanes..(row + 1) * self.lanes];
            let sums_of = &mut sums.errors[..errors.len()];
            for at in 0..errors.len() {
                sums_of[at] += errors[at];
            }
            sums.count += self.lanes;
        }
    }

    /// Adds those of the rows on the lower side.
    fn add_lower(&self, rows: &[u32], (column, threshold): (&[f32], f32), sums: &mut Sums) {
        if self.full.is_empty() {
            let lower = rows.iter().filter(|row| column[**row as usize] <= threshold);
            lower.for_each(|row| self.add(*row as usize, sums));
            return;
        }
        // Which side a row is on cannot be foretold, so both are reckoned alike.
        let sums_of = &mut sums.errors[..self.lanes];
        for row in rows {
            let row = *row as usize;
            let is_lower = column[row] <= threshold;
            let (weight, errors) =
                (f32::from(u8::from(is_lower)), &self.full[row * self.lanes..(row + 1) * self.lanes]);
            sums.count += usize::from(is_lower);
            for at in 0..self.lanes {
                sums_of[at] += weight * errors[at];
            }
        }
        sums.count *= self.lanes;
    }

    /// Σ (Σ error)²/labels of a side, and of the rest.
    fn gain(&self, side: &Sums, all: &Sums) -> f32 {
        let apart = |sum: f32, labels: f32| if labels > 0.0 { sum * sum / labels } else { 0.0 };
        let equal = (side.count as f32 / self.lanes as f32, all.count as f32 / self.lanes as f32);
        (0..self.lanes)
            .map(|l| {
                let (mine, total) = if self.full.is_empty() { (side.labels[l], all.labels[l]) } else { equal };
                apart(side.errors[l], mine) + apart(all.errors[l] - side.errors[l], total - mine)
            })
            .sum()
    }
}

/// Errors of the judged lanes; of several less their mean.
fn errors(row: &Labels, means: &[f32]) -> Vec<(usize, f32)> {
    let of = || row.iter().map(|(lane, label)| (*lane, label - means[*lane]));
    let shared = if row.len() > 1 { of().map(|(_, e)| e).sum::<f32>() / row.len() as f32 } else { 0.0 };
    of().map(|(lane, error)| (lane, error - shared)).collect()
}

struct Sums {
    errors: Vec<f32>,
    labels: Vec<f32>,
    count: usize,
}

impl Sums {
    fn new(lanes: usize) -> Self {
        Self { errors: vec![0.0; lanes], labels: vec![0.0; lanes], count: 0 }
    }

    fn clear(&mut self) {
        self.errors.fill(0.0);
        self.labels.fill(0.0);
        self.count = 0;
    }
}

struct Ground<'a> {
    columns: &'a [Vec<f32>],
    errors: &'a Errors,
}

/// Rows of a node that is still to be made, as a range of the tree's order.
struct Open {
    from: usize,
    to: usize,
    depth: usize,
    /// The node whose upper child it is.
    upper_of: Option<usize>,
}

impl Ground<'_> {
    /// The nodes of one tree; places are its own, leaves have none yet.
    fn tree(&self, rows: usize, seed: u64, tree: usize) -> Vec<Node> {
        let mut draw = Draw::from_seed(seed ^ (tree as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut order: Vec<u32> = (0..place(rows)).collect();
        let mut nodes: Vec<Node> = Vec::new();
        let mut open = vec![Open { from: 0, to: rows, depth: 0, upper_of: None }];
        let (mut all, mut side) = (Sums::new(self.errors.lanes), Sums::new(self.errors.lanes));
        while let Some(Open { from, to, depth, upper_of }) = open.pop() {
            let at = nodes.len();
            if let Some(parent) = upper_of {
                nodes[parent].other = place(at);
            }
            let mine = &mut order[from..to];
            all.clear();
            mine.iter().for_each(|row| self.errors.add(*row as usize, &mut all));
            let split = if depth < DEPTH_MAX { self.split(mine, &mut draw, &all, &mut side) } else { None };
            let Some((input, threshold)) = split else {
                nodes.push(Node { input: LEAF, other: 0, threshold: 0.0 });
                continue;
            };
            let middle = from + part(mine, |row| self.columns[usize::from(input)][row as usize] <= threshold);
            nodes.push(Node { input, other: 0, threshold });
            open.push(Open { from: middle, to, depth: depth + 1, upper_of: Some(at) });
            open.push(Open { from, to: middle, depth: depth + 1, upper_of: None });
        }
        nodes
    }

    /// The best of the drawn splits, where one leaves enough labels on both sides.
    fn split(&self, rows: &[u32], draw: &mut Draw, all: &Sums, side: &mut Sums) -> Option<(u16, f32)> {
        let labels_min = LEAF_LABELS * self.errors.lanes;
        if all.count < 2 * labels_min {
            return None;
        }
        let mut best: Option<(f32, u16, f32)> = None;
        let mut left: Vec<usize> = (0..self.columns.len()).collect();
        let mut tried = 0;
        while tried < self.columns.len().div_ceil(TRIED) && !left.is_empty() {
            let input = left.swap_remove(below(draw, left.len()));
            let column = &self.columns[input];
            let (mut least, mut greatest) = (f32::INFINITY, f32::NEG_INFINITY);
            for row in rows {
                let x = column[*row as usize];
                least = least.min(x);
                greatest = greatest.max(x);
            }
            // An input that is the same on all rows is no try.
            if least >= greatest {
                continue;
            }
            tried += 1;
            #[expect(clippy::cast_possible_truncation, reason = "a threshold between two f32")]
            let threshold = (f64::from(least) + draw.uniform() * f64::from(greatest - least)) as f32;
            side.clear();
            self.errors.add_lower(rows, (column, threshold), side);
            if side.count < labels_min || all.count - side.count < labels_min {
                continue;
            }
            let gain = self.errors.gain(side, all);
            if best.is_none_or(|(most, _, _)| gain > most) {
                best = Some((gain, u16::try_from(input).ok()?, threshold));
            }
        }
        best.map(|(_, input, threshold)| (input, threshold))
    }
}

fn below(draw: &mut Draw, n: usize) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place below n")]
    let at = (draw.uniform() * n as f64) as usize;
    at.min(n - 1)
}

/// Brings the rows that go down to the front, both sides in their order; how many they are.
fn part(rows: &mut [u32], goes_down: impl Fn(u32) -> bool) -> usize {
    let upper: Vec<u32> = rows.iter().copied().filter(|row| !goes_down(*row)).collect();
    let mut down = 0;
    for at in 0..rows.len() {
        if goes_down(rows[at]) {
            rows[down] = rows[at];
            down += 1;
        }
    }
    rows[down..].copy_from_slice(&upper);
    down
}

fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Model 0 is good where input 1 is high, model 1 where it is low; the other inputs say nothing.
    fn world(rows: usize, labels_each: usize) -> (Array2<f32>, Vec<Labels>) {
        let mut draw = Draw::from_seed(5);
        #[expect(clippy::cast_possible_truncation, reason = "a test")]
        let inputs = Array2::from_shape_fn((rows, 5), |_| draw.uniform() as f32);
        let label = |i: usize, lane: usize| {
            let high = inputs[[i, 1]] > 0.5;
            (lane, if high == (lane == 0) { 1.0 } else { 0.0 })
        };
        let labels = (0..rows).map(|i| (i..i + labels_each).map(|k| label(i, k % 2)).collect::<Labels>());
        let sorted = labels.map(|mut row| {
            row.sort_by_key(|(lane, _)| *lane);
            row
        });
        let labels = sorted.collect();
        (inputs, labels)
    }

    fn check(labels_each: usize) {
        let means = [0.5, 0.5];
        let (inputs, labels) = world(2_000, labels_each);
        let mut forest = grow(inputs.view(), &labels, &means, 3);
        let mut counts = [Counts::new(&forest, 2), Counts::new(&forest, 2)];
        for (i, labels) in labels.iter().enumerate() {
            counts[i % 2].add(&forest, &inputs.row(i).to_vec(), (labels, &means));
        }
        let [mut all, other] = counts;
        all.merge(&other);
        assert!(all.cells.chunks(2).all(|leaf| leaf[0].1 + leaf[1].1 > 0.0), "no leaf is empty");
        forest.leaves = all.leaves();
        assert!(forest.is_sound(5, 2) && forest.roots.len() == TREES);
        for at in [0.1_f32, 0.9] {
            let mut sums = means;
            forest.add(&[0.5, at, 0.2, 0.8, 0.4], &mut sums);
            let (good, bad) = if at > 0.5 { (sums[0], sums[1]) } else { (sums[1], sums[0]) };
            assert!(good > 0.85 && bad < 0.15, "{sums:?}");
        }
    }

    #[test]
    fn what_tells_the_models_apart_is_found() {
        check(2);
        check(1);
    }

    #[test]
    fn too_few_labels_make_one_leaf_a_tree() {
        let (inputs, labels) = world(19, 1);
        let forest = grow(inputs.view(), &labels, &[0.5, 0.5], 3);
        assert!(forest.nodes.iter().all(|node| node.input == LEAF));
        assert_eq!(grow(Array2::zeros((0, 3)).view(), &[], &[0.5], 1).roots.len(), TREES);
    }

    #[test]
    fn parting_keeps_both_orders() {
        let mut rows = [5, 2, 9, 4, 1, 8];
        assert_eq!(part(&mut rows, |row| row < 5), 3);
        assert_eq!(rows, [2, 4, 1, 5, 9, 8]);
    }
}
