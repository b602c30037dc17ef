//! The course of one run: which rows are fed first and which are routed, in which order, with all
//! that changes on the way.
//!
//! A course holds the routed rows as they would have been recorded, changes and all, so whatever
//! reads them (backend, yardsticks, oracle) sees one and the same world.

use std::sync::Arc;

use pointsman_router::clock::Draw;

use super::args::{ReplayArgs, ReplayError};
use super::book::{self, BestSingle};
use super::changes::Changes;
use crate::backends::recorded_rows::{Row, Rows};

/// One run's rows.
#[derive(Debug)]
pub(super) struct Course {
    /// The seed of the order, and of all that is drawn on it.
    pub(super) seed: u64,
    /// The rows that are fed first.
    pub(super) train: Vec<Row>,
    /// The rows that are routed, in this order.
    pub(super) routed: Arc<Rows>,
    /// The best single model on the routed rows.
    pub(super) best_single: BestSingle,
}

/// What the courses of all seeds have in common.
#[derive(Debug)]
pub(super) struct Plan {
    /// How many rows are fed first.
    pub(super) trained: usize,
    /// What changes on the way.
    pub(super) changes: Changes,
}

impl Plan {
    /// The plan that the arguments make for these rows.
    ///
    /// # Errors
    /// [`ReplayError`] when the changes do not fit the rows.
    pub(super) fn new(args: &ReplayArgs, rows: &Rows) -> Result<Self, ReplayError> {
        let n = rows.rows.len();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a length is a length"
        )]
        let trained = ((n as f64 * args.train_fraction) as usize).min(n.saturating_sub(1));
        Ok(Self { trained, changes: Changes::new(args, &rows.models, n - trained)? })
    }
}

impl Course {
    /// The course of a seed.
    ///
    /// # Errors
    /// [`ReplayError::Nobody`] when the changes leave a row without any model.
    pub(super) fn new(rows: &Rows, warm: Option<&Rows>, plan: &Plan, seed: u64) -> Result<Self, ReplayError> {
        let mut order = order(rows.rows.len(), seed);
        let later = order.split_off(plan.trained);
        let row = |at: &usize| rows.rows.get(*at).cloned();
        let train = Rows::of(rows.models.clone(), order.iter().filter_map(row).collect());
        let later = later.iter().filter_map(row).enumerate();
        let routed = Rows::of(rows.models.clone(), later.map(|(at, row)| plan.changes.apply(row, at)).collect());
        if let Some(row) = routed.rows.iter().position(|row| row.outcomes.iter().all(Option::is_none)) {
            return Err(ReplayError::Nobody { row, seed });
        }
        let seen = match (train.rows.is_empty(), warm) {
            (false, _) => Some((&train, "train")),
            (true, Some(warm)) => Some((warm, "warm")),
            (true, None) => None,
        };
        let best_single = book::best_single(&routed, seen).ok_or(ReplayError::Nobody { row: 0, seed })?;
        Ok(Self { seed, train: train.rows, routed: Arc::new(routed), best_single })
    }
}

/// The rows in a seeded random order (Fisher-Yates).
fn order(rows: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    let mut draw = Draw::from_seed(seed ^ 0x0DDB_A110);
    for i in (1..rows).rev() {
        // Multiply-shift: the bias of 2^-64 · rows is none at this size.
        #[expect(clippy::cast_possible_truncation, reason = "the product's upper half is at most i")]
        let j = ((u128::from(draw.next_u64()) * (i as u128 + 1)) >> 64) as usize;
        order.swap(i, j);
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::testing::{args, rows};
    use super::*;

    fn courses(flags: &[&str], rows: &Rows, seeds: std::ops::Range<u64>) -> Result<Vec<Course>, ReplayError> {
        let plan = Plan::new(&args(flags), rows)?;
        seeds.map(|seed| Course::new(rows, None, &plan, seed)).collect()
    }

    #[test]
    fn an_order_is_a_permutation_that_its_seed_repeats() {
        let mut once = order(1_000, 3);
        assert_eq!(once, order(1_000, 3));
        assert_ne!(once, order(1_000, 4));
        once.sort_unstable();
        assert_eq!(once, (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn every_row_is_fed_or_routed_and_none_is_both() {
        let rows = rows(&["a", "b"], &[[1.0, 0.0]; 10]);
        let all = courses(&["--train-fraction", "0.75"], &rows, 5..8).unwrap();
        for course in &all {
            assert_eq!((course.train.len(), course.routed.rows.len()), (7, 3));
            let ids: BTreeSet<_> = course.train.iter().chain(&course.routed.rows).map(|row| &row.id).collect();
            assert_eq!(ids.len(), 10);
        }
        let routed = |course: &Course| course.routed.rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>();
        assert!(routed(&all[0]) != routed(&all[1]) || routed(&all[1]) != routed(&all[2]));
        // The order does not depend on where it is cut.
        let whole = courses(&[], &rows, 6..7).unwrap();
        assert_eq!(routed(&whole[0])[7..], routed(&all[1])[..]);
    }

    #[test]
    fn the_best_single_model_is_that_of_the_rows_that_were_fed() {
        // Model b wins the file, but only by its last rows; what was fed decides, whatever is routed.
        let rows = rows(&["a", "b"], &[[0.5, 0.0], [0.5, 0.0], [0.5, 1.0], [0.5, 1.0], [0.5, 1.0], [0.5, 1.0]]);
        let hindsight = &courses(&[], &rows, 0..1).unwrap()[0].best_single;
        assert_eq!((hindsight.name.as_str(), hindsight.by), ("b", "hindsight"));
        assert!((hindsight.score - 4.0 / 6.0).abs() < 1e-12);
        for course in courses(&["--train-fraction", "0.5"], &rows, 0..20).unwrap() {
            let fed: f64 = course.train.iter().map(|row| row.outcomes[1].as_ref().unwrap().score).sum();
            let best = if fed > 1.5 { 1 } else { 0 };
            assert_eq!((course.best_single.name.as_str(), course.best_single.by), (["a", "b"][best], "train"));
            let here = course.routed.rows.iter().map(|row| row.outcomes[best].as_ref().unwrap().score);
            assert!((course.best_single.score - here.sum::<f64>() / 3.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_row_without_any_model_is_told() {
        let rows = rows(&["a", "b"], &[[1.0, 0.0]; 4]);
        let fault = courses(&["--drop", "a@2", "--drop", "b@1", "--add", "b@3"], &rows, 0..1).unwrap_err();
        assert_eq!(fault, ReplayError::Nobody { row: 2, seed: 0 });
    }
}
