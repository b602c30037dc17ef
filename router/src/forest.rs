//! A forest of randomised trees over what the projection makes of a request: the mean of the leaves
//! that the request falls into says how much better or worse than its mean each model does there.
//!
//! All models share the trees, so one walk serves them all. A tree lies in one table, every node before
//! its children, the lower child right behind it; walking therefore ends, whatever the numbers are.
//! Fitting is the learner's.

#![expect(clippy::indexing_slicing, reason = "places in tables that `is_sound` has checked")]

use serde::{Deserialize, Serialize};

/// One node.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The input that is looked at; [`LEAF`] for a leaf.
    pub input: u16,
    /// Of a leaf its row among the leaves; of others the place of the upper child.
    pub other: u32,
    /// Inputs up to this go to the lower child.
    pub threshold: f32,
}

/// The input of a node that is a leaf.
pub const LEAF: u16 = u16::MAX;

/// The trees.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Forest {
    /// Where each tree begins.
    pub roots: Vec<u32>,
    /// The nodes of all trees.
    pub nodes: Vec<Node>,
    /// One row a leaf, one cell a model: what its mean score differs by, over the number of trees.
    pub leaves: Vec<f32>,
}

impl Forest {
    /// Whether every walk over so many inputs ends at a leaf of so many models.
    #[must_use]
    pub fn is_sound(&self, inputs: usize, models: usize) -> bool {
        let rows = self.leaves.len() / models.max(1);
        let within = |(at, node): (usize, &Node)| {
            let other = node.other as usize;
            if node.input == LEAF {
                other < rows
            } else {
                usize::from(node.input) < inputs
                    && at + 1 < self.nodes.len()
                    && other > at
                    && other < self.nodes.len()
                    && node.threshold.is_finite()
            }
        };
        rows * models == self.leaves.len()
            && self.leaves.iter().all(|x| x.is_finite())
            && self.roots.iter().all(|root| (*root as usize) < self.nodes.len())
            && self.nodes.iter().enumerate().all(within)
    }

    /// The row of the leaf into which these inputs fall in each tree. All trees are walked side by side, a step of
    /// each at a time: their nodes lie far apart, and so a machine waits for many of them at once.
    #[must_use]
    pub fn reached(&self, inputs: &[f32]) -> Vec<u32> {
        let mut leaves: Vec<u32> = self.roots.clone();
        let mut walking: Vec<usize> = (0..self.roots.len()).collect();
        while !walking.is_empty() {
            let mut left = 0;
            for at in 0..walking.len() {
                let tree = walking[at];
                let place = leaves[tree];
                let Node { input, other, threshold } = self.nodes[place as usize];
                walking[left] = tree;
                if input == LEAF {
                    leaves[tree] = other;
                } else {
                    let lower = inputs[usize::from(input)] <= threshold;
                    leaves[tree] = if lower { place + 1 } else { other };
                    left += 1;
                }
            }
            walking.truncate(left);
        }
        leaves
    }

    /// Adds the mean of the leaves.
    pub fn add(&self, inputs: &[f32], sums: &mut [f32]) {
        let models = sums.len();
        for leaf in self.reached(inputs) {
            let leaf = leaf as usize * models;
            for (sum, cell) in sums.iter_mut().zip(&self.leaves[leaf..leaf + models]) {
                *sum += cell;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn split(input: u16, threshold: f32, other: u32) -> Node {
        Node { input, other, threshold }
    }

    const fn leaf(row: u32) -> Node {
        Node { input: LEAF, other: row, threshold: 0.0 }
    }

    /// Two trees: one by input 0 and then 1, one by input 1.
    fn forest() -> Forest {
        let nodes = vec![
            split(0, 0.5, 2),
            leaf(0),
            split(1, -1.0, 4),
            leaf(1),
            leaf(2),
            split(1, 0.0, 7),
            leaf(3),
            leaf(4),
        ];
        let leaves = (0..10_u8).map(|i| f32::from(i) / 8.0).collect();
        Forest { roots: vec![0, 5], nodes, leaves }
    }

    #[test]
    fn a_request_falls_into_one_leaf_of_each_tree() {
        let forest = forest();
        assert!(forest.is_sound(2, 2));
        let check = |inputs: [f32; 2], wanted: [u32; 2]| {
            assert_eq!(forest.reached(&inputs), wanted);
            let mut sums = [1.0, 2.0];
            forest.add(&inputs, &mut sums);
            for (model, sum) in sums.iter().enumerate() {
                let of = |leaf: u32| forest.leaves[2 * leaf as usize + model];
                assert!((sum - (1.0 + model as f32 + of(wanted[0]) + of(wanted[1]))).abs() < 1e-6);
            }
        };
        check([0.5, 3.0], [0, 4]);
        check([0.6, -2.0], [1, 3]);
        check([0.6, 0.0], [2, 3]);
    }

    #[test]
    fn what_would_not_end_is_unsound() {
        let check = |spoil: fn(&mut Forest)| {
            let mut forest = forest();
            spoil(&mut forest);
            assert!(!forest.is_sound(2, 2));
        };
        check(|f| f.nodes[0].other = 0);
        check(|f| f.nodes[2].other = 9);
        check(|f| f.nodes[7] = split(0, 0.0, 8));
        check(|f| f.nodes[4] = leaf(5));
        check(|f| f.nodes[0].input = 2);
        check(|f| f.nodes[0].threshold = f32::NAN);
        check(|f| f.roots[1] = 8);
        check(|f| f.leaves.truncate(9));
        assert!(Forest::default().is_sound(0, 0) && Forest::default().is_sound(3, 2));
    }
}
