//! What runs come to: means, intervals, shares, phases.

use std::collections::BTreeMap;

use pointsman_router::ids::ModelName;

use super::book::{BestSingle, mean};

/// What one run came to.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The score of each routed row, in the order in which they were routed.
    pub(super) scores: Vec<f64>,
    /// What each routed row cost, in dollars.
    pub(super) costs_usd: Vec<f64>,
    /// Encode and decide of each row, in microseconds.
    pub(super) decide_us: Vec<u64>,
    /// How often each model was called; of a policy that is reckoned, the expectation.
    pub(super) calls: BTreeMap<ModelName, f64>,
    /// What was thought of the two models of each row that has both; empty for any other pool.
    pub(super) duels: Vec<Duel>,
    /// How long the run took, in seconds.
    pub(super) seconds: f64,
}

/// A row with two models, by their place in the pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Duel {
    /// By how much the second was thought to be better.
    pub(super) lead: f64,
    /// What each scored.
    pub(super) scores: [f64; 2],
    /// What each cost, in dollars.
    pub(super) costs_usd: [f64; 2],
}

/// What the routed rows of one run say themselves.
#[derive(Debug, Clone)]
pub(super) struct Yardsticks {
    pub(super) seed: u64,
    pub(super) best_single: BestSingle,
    pub(super) random: f64,
    pub(super) oracle: f64,
}

/// Rows between two changes: score and cost in dollars of each run's mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stretch {
    pub(super) from_row: usize,
    pub(super) rows: usize,
    pub(super) score: f64,
    pub(super) cost_usd: f64,
}

/// The stretches that begin at these rows, ascending, in the mean over the runs.
pub(super) fn stretches(runs: &[Run], starts: &[usize]) -> Vec<Stretch> {
    let end = runs.iter().map(|run| run.scores.len()).max().unwrap_or(0);
    let ends = starts.iter().skip(1).copied().chain([end]);
    let stretch = |(from, to): (&usize, usize)| {
        let of = |values: fn(&Run) -> &Vec<f64>| {
            mean(runs.iter().filter_map(|run| mean(values(run).get(*from..to)?.iter().copied()))).unwrap_or(0.0)
        };
        Stretch {
            from_row: *from,
            rows: to - from,
            score: of(|run| &run.scores),
            cost_usd: of(|run| &run.costs_usd),
        }
    };
    starts.iter().zip(ends).map(stretch).collect()
}

/// Calls of each model in all runs.
pub(super) fn calls(runs: &[Run]) -> BTreeMap<String, f64> {
    let mut calls = BTreeMap::new();
    for (model, n) in runs.iter().flat_map(|run| &run.calls) {
        *calls.entry(model.to_string()).or_default() += n;
    }
    calls
}

/// Mean of the last fifth of a run.
pub(super) fn last_fifth(run: &Run) -> Option<f64> {
    mean(run.scores.iter().skip(run.scores.len() - run.scores.len() / 5).copied())
}

/// Mean over the runs of the mean score of the last fifth of each.
pub(super) fn last_fifths(runs: &[Run]) -> f64 {
    mean(runs.iter().filter_map(last_fifth)).unwrap_or(0.0)
}

/// The mean score and cost if this share of the rows had gone to the second model: those where it was
/// thought to lead by most.
pub(super) fn at_share(sorted: &[Duel], share: f64) -> (f64, f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length is a length")]
    let second = (share * sorted.len() as f64).round() as usize;
    let n = sorted.len().max(1) as f64;
    let sum = sorted.iter().enumerate().fold((0.0, 0.0), |sum, (at, duel)| {
        let ([first_score, second_score], [first_usd, second_usd]) = (duel.scores, duel.costs_usd);
        let (score, usd) = if at < second { (second_score, second_usd) } else { (first_score, first_usd) };
        (sum.0 + score, sum.1 + usd)
    });
    (sum.0 / n, sum.1 / n)
}

/// The duels with the largest lead of the second first; turned around where the first is to be second.
pub(super) fn sorted(run: &Run, turned: bool) -> Vec<Duel> {
    let turn = |duel: &Duel| {
        let ([a, b], [c, d]) = (duel.scores, duel.costs_usd);
        if turned { Duel { lead: -duel.lead, scores: [b, a], costs_usd: [d, c] } } else { *duel }
    };
    let mut duels: Vec<Duel> = run.duels.iter().map(turn).collect();
    duels.sort_by(|a, b| b.lead.total_cmp(&a.lead));
    duels
}

/// The value under which this share of the sorted values lies.
pub(super) fn quantile(sorted: &[u64], share: f64) -> u64 {
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
pub(super) fn interval(runs: &[Run]) -> [f64; 2] {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(scores: &[f64]) -> Run {
        Run { scores: scores.to_vec(), costs_usd: scores.iter().map(|s| 10.0 * s).collect(), ..Run::default() }
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

    #[test]
    fn stretches_part_the_rows() {
        let runs = [run(&[0.0, 0.0, 1.0, 1.0, 0.5]), run(&[0.0, 1.0, 1.0, 1.0, 0.0])];
        let stretch = |from_row, rows, score| Stretch { from_row, rows, score, cost_usd: 10.0 * score };
        assert_eq!(stretches(&runs, &[0, 2, 4]), [stretch(0, 2, 0.25), stretch(2, 2, 1.0), stretch(4, 1, 0.25)]);
        assert_eq!(stretches(&runs, &[0]), [stretch(0, 5, 0.55)]);
    }

    #[test]
    fn a_share_goes_where_the_lead_is_largest() {
        let duel = |lead, first, second| Duel { lead, scores: [first, second], costs_usd: [1.0, 3.0] };
        let run = Run { duels: vec![duel(-0.1, 1.0, 0.0), duel(0.4, 0.0, 1.0)], ..Run::default() };
        let points = |turned| [0.0, 0.5, 1.0].map(|share| at_share(&sorted(&run, turned), share));
        assert_eq!(points(false), [(0.5, 1.0), (1.0, 2.0), (0.5, 3.0)]);
        assert_eq!(points(true), [(0.5, 3.0), (1.0, 2.0), (0.5, 1.0)]);
    }
}
