//! What a replay found, for people and for programs.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use pointsman_router::ids::ModelName;
use serde::Serialize;

use super::Whose;
use super::book::{self, BestSingle, mean};
use crate::backends::recorded_rows::Rows;

/// What a replay found. Costs are in dollars, times in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whose choices.
    pub policy: &'static str,
    /// Rows routed per run.
    pub rows: usize,
    /// Runs, each in its own random order.
    pub seeds: usize,
    /// Mean score over all rows and runs.
    pub score_mean: f64,
    /// Its two-sided 95 % confidence interval: over the runs, or over the rows of a single run.
    pub score_ci95: [f64; 2],
    /// Mean score over the last fifth of each run.
    pub score_last20pct: f64,
    /// Mean cost per row of all calls made for it.
    pub cost_mean_usd: f64,
    /// The model that is best on its own.
    pub best_single: BestSingle,
    /// Mean score of context-free Thompson sampling over the same runs.
    pub context_free_score: f64,
    /// The same over the last fifth of each run.
    pub context_free_last20pct: f64,
    /// Mean score of choosing any model with the same probability.
    pub random_score: f64,
    /// Mean score of the best model of each row.
    pub oracle_score: f64,
    /// Each model's share of all calls.
    pub share_by_model: BTreeMap<String, f64>,
    /// Mean number of calls per row.
    pub calls_mean: f64,
    /// Median of encode and decide.
    pub decide_p50_us: u64,
    /// 99th percentile of encode and decide.
    pub decide_p99_us: u64,
    /// Rows per second on one thread: decide, recorded call, merge, learn.
    pub rounds_per_s: f64,
}

/// What one run came to.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The score of each routed row, in the order in which they were routed.
    pub(super) scores: Vec<f64>,
    /// What each routed row cost, in dollars.
    pub(super) costs_usd: Vec<f64>,
    /// Encode and decide of each row, in microseconds.
    pub(super) decide_us: Vec<u64>,
    /// How often each model was called.
    pub(super) calls: BTreeMap<ModelName, u64>,
    /// How long the run took, in seconds.
    pub(super) seconds: f64,
}

/// What a report is made of.
pub(super) struct Findings<'a> {
    pub(super) policy: Whose,
    pub(super) rows: &'a Rows,
    pub(super) best_single: BestSingle,
    pub(super) runs: &'a [Run],
    pub(super) context_free: &'a [Run],
}

pub(super) fn report(found: &Findings<'_>) -> Report {
    let Findings { policy, rows, runs, .. } = found;
    let all = |values: fn(&Run) -> &Vec<f64>| mean(runs.iter().flat_map(|run| values(run).iter().copied()));
    let mut decide_us: Vec<u64> = runs.iter().flat_map(|run| run.decide_us.iter().copied()).collect();
    decide_us.sort_unstable();
    let (routed, seconds) =
        (runs.iter().map(|r| r.scores.len()).sum::<usize>(), runs.iter().map(|r| r.seconds).sum::<f64>());
    let calls = calls(runs);
    let calls_all: u64 = calls.values().sum();
    Report {
        policy: policy.as_str(),
        rows: rows.rows.len(),
        seeds: runs.len(),
        score_mean: all(|run| &run.scores).unwrap_or(0.0),
        score_ci95: interval(runs),
        score_last20pct: last_fifths(runs),
        cost_mean_usd: all(|run| &run.costs_usd).unwrap_or(0.0),
        best_single: found.best_single.clone(),
        context_free_score: mean(found.context_free.iter().flat_map(|run| run.scores.iter().copied()))
            .unwrap_or(0.0),
        context_free_last20pct: last_fifths(found.context_free),
        random_score: book::random(rows),
        oracle_score: book::oracle(rows),
        share_by_model: calls
            .iter()
            .map(|(model, n)| (model.clone(), *n as f64 / calls_all.max(1) as f64))
            .collect(),
        calls_mean: calls_all as f64 / routed.max(1) as f64,
        decide_p50_us: quantile(&decide_us, 0.50),
        decide_p99_us: quantile(&decide_us, 0.99),
        rounds_per_s: routed as f64 / seconds.max(1e-9),
    }
}

fn calls(runs: &[Run]) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for (model, n) in runs.iter().flat_map(|run| &run.calls) {
        *calls.entry(model.to_string()).or_default() += n;
    }
    calls
}

/// Mean over the runs of the mean score of the last fifth of each.
fn last_fifths(runs: &[Run]) -> f64 {
    let last = |run: &Run| mean(run.scores.iter().skip(run.scores.len() - run.scores.len() / 5).copied());
    mean(runs.iter().filter_map(last)).unwrap_or(0.0)
}

/// The value under which this share of the sorted values lies.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length is an index")]
    let at = (share * sorted.len() as f64) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// Student's t at 97.5 % by degrees of freedom from one; beyond the table, the normal value.
const T975: [f64; 20] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086,
];

/// The 95 % interval of the mean score: over the runs' means, or over the rows of a single run.
fn interval(runs: &[Run]) -> [f64; 2] {
    let values: Vec<f64> = match runs {
        [only] => only.scores.clone(),
        runs => runs.iter().filter_map(|run| mean(run.scores.iter().copied())).collect(),
    };
    let n = values.len() as f64;
    let Some(center) = mean(values.iter().copied()) else { return [0.0, 0.0] };
    if values.len() < 2 {
        return [center, center];
    }
    let variance = values.iter().map(|v| (v - center) * (v - center)).sum::<f64>() / (n - 1.0);
    let half = T975.get(values.len() - 2).copied().unwrap_or(1.96) * (variance / n).sqrt();
    [center - half, center + half]
}

impl Report {
    /// The report as a table for people.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["what", "score"]);
        let [low, high] = self.score_ci95;
        let best = &self.best_single;
        table.add_row(["random".to_owned(), format!("{:.4}", self.random_score)]);
        table.add_row(["context-free".to_owned(), format!("{:.4}", self.context_free_score)]);
        table.add_row([format!("best single ({}, by {})", best.name, best.by), format!("{:.4}", best.score)]);
        table.add_row([
            format!("{} over {} rows × {} orders", self.policy, self.rows, self.seeds),
            format!("{:.4} ({low:.4} to {high:.4})", self.score_mean),
        ]);
        table.add_row([format!("{}, last fifth", self.policy), format!("{:.4}", self.score_last20pct)]);
        table.add_row(["oracle".to_owned(), format!("{:.4}", self.oracle_score)]);
        table.add_row(["cost per row".to_owned(), format!("${:.7}", self.cost_mean_usd)]);
        table.add_row(["calls per row".to_owned(), format!("{:.2}", self.calls_mean)]);
        table.add_row([
            "encode + decide".to_owned(),
            format!("{} µs median, {} µs p99", self.decide_p50_us, self.decide_p99_us),
        ]);
        table.add_row(["rows per second".to_owned(), format!("{:.0}", self.rounds_per_s)]);
        let mut shares: Vec<_> = self.share_by_model.iter().collect();
        shares.sort_by(|a, b| b.1.total_cmp(a.1));
        for (model, share) in shares {
            table.add_row([format!("share of {model}"), format!("{:.1} %", share * 100.0)]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(scores: &[f64]) -> Run {
        Run { scores: scores.to_vec(), ..Run::default() }
    }

    #[test]
    fn the_last_fifth_is_the_last_fifth_of_each_run() {
        let runs = [run(&[0.0, 0.0, 0.0, 0.0, 1.0]), run(&[1.0, 1.0, 1.0, 1.0, 0.0])];
        assert!((last_fifths(&runs) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn an_interval_over_runs_uses_students_t() {
        // Means .4 and .6: sd .1414, se .1, t(1) = 12.706.
        let [low, high] = interval(&[run(&[0.4]), run(&[0.6])]);
        assert!((low - (0.5 - 1.2706)).abs() < 1e-9 && (high - (0.5 + 1.2706)).abs() < 1e-9);
    }

    #[test]
    fn quantiles_of_nothing_are_nothing() {
        assert_eq!(quantile(&[], 0.5), 0);
        assert_eq!(quantile(&[1, 2, 3, 4], 0.5), 3);
        assert_eq!(quantile(&[1, 2, 3, 4], 0.99), 4);
    }
}
