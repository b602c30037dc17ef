//! The figures of a run: what `--json` prints and the tables show. Pure.
//!
//! `first` is the first tenth of the rows, `last` the last fifth, both rounded up. A failed row has the score 0; a row
//! that cannot be judged is left out of means. A model's score on a task is its recorded mean over the played rows of
//! the task; without records, its observed mean where it was called alone.

use std::collections::BTreeMap;

use serde::Serialize;

use super::reference::{self, Mean, Single, usd};
use super::run::{Played, Run};
use super::workload::Row;

/// All figures of a run. Costs are US dollars a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Rows that were played.
    pub(crate) rows: usize,
    /// Rows without an answer.
    pub(crate) failures: usize,
    /// Rows whose feedback was not acknowledged.
    pub(crate) feedback_failures: usize,
    /// Rows that could be judged.
    pub(crate) judged: usize,
    /// Seed of the order.
    pub(crate) seed: u64,
    /// Rows of the first tenth.
    pub(crate) rows_first: usize,
    /// Rows of the last fifth.
    pub(crate) rows_last: usize,
    /// Mean score of all rows.
    pub(crate) score_mean: Option<f64>,
    /// Mean score of the first tenth.
    pub(crate) score_first: Option<f64>,
    /// Mean score of the last fifth.
    pub(crate) score_last: Option<f64>,
    /// Mean cost of all rows.
    pub(crate) cost_mean: Option<f64>,
    /// Mean cost of the first tenth.
    pub(crate) cost_first: Option<f64>,
    /// Mean cost of the last fifth.
    pub(crate) cost_last: Option<f64>,
    /// Mean number of models called.
    pub(crate) calls_mean: Option<f64>,
    /// The best model if always called.
    pub(crate) best_single: Option<Single>,
    /// Mean score of a random choice.
    pub(crate) random_score: Option<f64>,
    /// Mean cost of a random choice.
    pub(crate) random_cost: Option<f64>,
    /// Mean score of the best choice of each row.
    pub(crate) oracle_score: Option<f64>,
    /// Mean cost of the best choice of each row.
    pub(crate) oracle_cost: Option<f64>,
    /// Requests a second, feedback included.
    pub(crate) requests_per_s: f64,
    /// Each model, in registry order.
    pub(crate) models: Vec<ModelFigures>,
    /// Each task, by name.
    pub(crate) tasks: Vec<TaskFigures>,
}

/// Figures of one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ModelFigures {
    /// Its name.
    pub(crate) name: String,
    /// Mean score, recorded or observed.
    pub(crate) score: Option<f64>,
    /// Recorded mean cost.
    pub(crate) cost: Option<f64>,
    /// Share of the rows of the first tenth that called it.
    pub(crate) share_first: Option<f64>,
    /// Share of the rows of the last fifth that called it.
    pub(crate) share_last: Option<f64>,
}

/// Figures of one task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TaskFigures {
    /// Its name.
    pub(crate) task: String,
    /// Rows of it.
    pub(crate) rows: usize,
    /// Mean score of its rows in the last fifth.
    pub(crate) score_last: Option<f64>,
    /// Each model on it, in registry order.
    pub(crate) models: Vec<TaskModel>,
}

/// One model on one task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TaskModel {
    /// Name of the model.
    pub(crate) name: String,
    /// Mean score, recorded or observed.
    pub(crate) score: Option<f64>,
    /// Share of the task's rows in the last fifth that called it.
    pub(crate) share_last: Option<f64>,
}

/// A played row beside what is known of it.
type Pair<'a> = (&'a Row, &'a Played);

/// Computes the figures. `pool` is what the daemon could choose from, in registry order.
pub(crate) fn figures(rows: &[Row], run: &Run, pool: &[String], seed: u64) -> Figures {
    let played = &run.played;
    let with_row = |one| Some((rows.get(index_of(one))?, one));
    let pairs: Vec<Pair<'_>> = played.iter().filter_map(with_row).collect();
    let rows_first = pairs.len().div_ceil(10);
    let rows_last = pairs.len().div_ceil(5);
    let first = pairs.get(..rows_first).unwrap_or_default();
    let last = pairs.get(pairs.len() - rows_last..).unwrap_or_default();
    let known: Vec<&Row> = pairs.iter().map(|(row, _)| *row).collect();
    let random = reference::random(&known, pool);
    let oracle = reference::oracle(&known, pool);
    let scores = |pairs: &[Pair<'_>]| Mean::of(pairs.iter().filter_map(|(_, one)| one.score));
    let costs = |pairs: &[Pair<'_>]| Mean::of(pairs.iter().filter_map(|(_, one)| one.cost_usd_nanos).map(usd));
    Figures {
        rows: pairs.len(),
        failures: played.iter().filter(|one| one.failure.is_some()).count(),
        feedback_failures: played.iter().filter(|one| one.feedback_failure.is_some()).count(),
        judged: played.iter().filter(|one| one.score.is_some()).count(),
        seed,
        rows_first,
        rows_last,
        score_mean: scores(&pairs),
        score_first: scores(first),
        score_last: scores(last),
        cost_mean: costs(&pairs),
        cost_first: costs(first),
        cost_last: costs(last),
        calls_mean: Mean::of(played.iter().map(|one| count(one.called.len()))),
        best_single: reference::best_single(&known, pool),
        random_score: random.score,
        random_cost: random.cost,
        oracle_score: oracle.score,
        oracle_cost: oracle.cost,
        requests_per_s: count(pairs.len()) / run.took.as_secs_f64().max(1e-9),
        models: models(&pairs, first, last, pool),
        tasks: tasks(&pairs, last, pool),
    }
}

fn models(pairs: &[Pair<'_>], first: &[Pair<'_>], last: &[Pair<'_>], pool: &[String]) -> Vec<ModelFigures> {
    let figures = |name: &String| {
        let outcomes = pairs.iter().filter_map(|(row, _)| row.outcomes.get(name));
        ModelFigures {
            name: name.clone(),
            score: score_of(pairs, name),
            cost: Mean::of(outcomes.filter_map(|outcome| outcome.cost)),
            share_first: share_of(first, name),
            share_last: share_of(last, name),
        }
    };
    pool.iter().map(figures).collect()
}

fn tasks(pairs: &[Pair<'_>], last: &[Pair<'_>], pool: &[String]) -> Vec<TaskFigures> {
    let by_task = group(pairs);
    let last_by_task = group(last);
    let figures = |(task, pairs): (&str, Vec<Pair<'_>>)| {
        let last = last_by_task.get(task).map_or(&[][..], Vec::as_slice);
        TaskFigures {
            task: task.to_owned(),
            rows: pairs.len(),
            score_last: Mean::of(last.iter().filter_map(|(_, one)| one.score)),
            models: pool
                .iter()
                .map(|name| TaskModel {
                    name: name.clone(),
                    score: score_of(&pairs, name),
                    share_last: share_of(last, name),
                })
                .collect(),
        }
    };
    by_task.into_iter().map(figures).collect()
}

fn group<'a>(pairs: &[Pair<'a>]) -> BTreeMap<&'a str, Vec<Pair<'a>>> {
    let mut groups: BTreeMap<&str, Vec<Pair<'a>>> = BTreeMap::new();
    for pair in pairs {
        groups.entry(&pair.0.task).or_default().push(*pair);
    }
    groups
}

fn score_of(pairs: &[Pair<'_>], name: &str) -> Option<f64> {
    let recorded = pairs.iter().filter_map(|(row, _)| row.score_of(name));
    let alone = |one: &Played| one.called.len() == 1 && one.called.iter().any(|m| m == name);
    let observed = pairs.iter().filter(|(_, one)| alone(one));
    Mean::of(recorded).or_else(|| Mean::of(observed.filter_map(|(_, one)| one.score)))
}

fn share_of(pairs: &[Pair<'_>], name: &str) -> Option<f64> {
    let called = |one: &Played| one.called.iter().any(|model| model == name);
    Mean::of(pairs.iter().map(|(_, one)| f64::from(u8::from(called(one)))))
}

fn index_of(one: &Played) -> usize {
    one.index
}

fn count(items: usize) -> f64 {
    f64::from(u32::try_from(items).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::play::reference::tests::tiny;

    fn played(index: usize, called: &[&str], score: Option<f64>) -> Played {
        Played {
            index,
            called: called.iter().map(|name| (*name).to_owned()).collect(),
            score,
            cost_usd_nanos: Some(100_000_000),
            failure: None,
            feedback_failure: None,
        }
    }

    #[test]
    fn a_tiny_run() {
        let (rows, pool) = tiny();
        let run = Run {
            played: vec![
                played(0, &["b"], Some(0.0)),
                played(1, &["a", "b"], Some(1.0)),
                played(2, &["b"], Some(1.0)),
            ],
            last: None,
            took: Duration::from_millis(1_500),
        };
        let found = figures(&rows, &run, &pool, 7);
        assert_eq!((found.rows, found.failures, found.judged), (3, 0, 3));
        assert_eq!((found.rows_first, found.rows_last), (1, 1));
        assert_eq!(found.score_first, Some(0.0));
        assert_eq!(found.score_last, Some(1.0));
        assert_eq!(found.calls_mean, Some(4.0 / 3.0));
        assert!((found.requests_per_s - 2.0).abs() < 1e-12);
        assert_eq!(found.models[0].share_first, Some(0.0));
        assert_eq!(found.models[1].share_last, Some(1.0));
        assert_eq!(found.models[0].score, Some(2.0 / 3.0));
        let tasks: Vec<_> = found.tasks.iter().map(|task| task.task.as_str()).collect();
        assert_eq!(tasks, ["law", "math"]);
        assert_eq!(found.tasks[0].score_last, None);
        assert_eq!(found.tasks[1].models[1].score, Some(1.0));
        assert_eq!(found.tasks[1].models[1].share_last, Some(1.0));
    }

    #[test]
    fn the_windows_of_a_long_run() {
        let (mut rows, pool) = tiny();
        let row = rows.remove(0);
        let rows = vec![row; 50];
        let score = |index: usize| match index {
            0..5 => 0.25,
            5..40 => 0.5,
            _ => 0.75,
        };
        let run = Run {
            played: (0..50).map(|index| played(index, &["a"], Some(score(index)))).collect(),
            last: None,
            took: Duration::from_secs(1),
        };
        let found = figures(&rows, &run, &pool, 0);
        assert_eq!((found.rows_first, found.rows_last), (5, 10));
        assert_eq!(found.score_first, Some(0.25));
        assert_eq!(found.score_last, Some(0.75));
    }

    #[test]
    fn observed_where_nothing_is_recorded() {
        let (mut rows, _) = tiny();
        for row in &mut rows {
            row.outcomes.clear();
        }
        let run = Run {
            played: vec![played(0, &["a"], Some(0.5)), played(1, &["a", "b"], Some(1.0)), played(2, &["a"], None)],
            last: None,
            took: Duration::from_secs(1),
        };
        let pool = ["a".to_owned(), "b".to_owned()];
        let found = figures(&rows, &run, &pool, 0);
        assert_eq!(found.best_single, None);
        assert_eq!(found.judged, 2);
        assert_eq!(found.models[0].score, Some(0.5));
        assert_eq!(found.models[1].score, None);
    }
}
