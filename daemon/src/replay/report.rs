//! What a replay found, for people and for programs.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use pointsman_learner::evaluate::frontier::{Pair, Point, Recovery, average_quality};
use serde::Serialize;

use super::Whose;
use super::book::{BestSingle, mean};
use super::figures::{self, Run, Yardsticks};

/// What a replay found. Costs are in dollars, times in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whose choices.
    pub policy: &'static str,
    /// Rows routed per run.
    pub rows: usize,
    /// Runs, each in its own random order.
    pub seeds: usize,
    /// Each run alone.
    pub runs: Vec<OneRun>,
    /// The stretches between changes, where something changes on the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
    /// How two models share the rows, where there are exactly two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub two_models: Option<TwoModels>,
    /// Mean score over all rows and runs.
    pub score_mean: f64,
    /// Its two-sided 95 % confidence interval: over the runs, or over the rows of a single run.
    pub score_ci95: [f64; 2],
    /// Mean score over the last fifth of each run.
    pub score_last20pct: f64,
    /// Mean cost per row of all calls made for it.
    pub cost_mean_usd: f64,
    /// Mean cost per row over the ceiling, where there is one, in the mean over the runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_utilisation: Option<f64>,
    /// The same of the run that spent most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_utilisation_max: Option<f64>,
    /// The model that is best on its own. Where runs chose differently, the name that was chosen most
    /// often; the score is the mean over the runs of what each one's choice scored.
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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OneRun {
    /// Its seed.
    pub seed: u64,
    /// Mean score.
    pub score: f64,
    /// Mean score of the last fifth.
    pub last20pct: f64,
    /// Mean cost per row.
    pub cost_usd: f64,
    /// The best single model.
    pub single: String,
    /// What it scored.
    pub single_score: f64,
}

/// A stretch of rows between changes, in the mean over the runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    /// Its first routed row, counted from zero.
    pub from_row: usize,
    /// How many rows it has.
    pub rows: usize,
    /// Mean score.
    pub score_mean: f64,
    /// Mean cost per row.
    pub cost_mean_usd: f64,
    /// Mean cost per row over the ceiling, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_utilisation: Option<f64>,
}

/// What two models come to when the stronger gets a share of the rows: those where the policy, when it
/// decided them, thought that it leads by most.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TwoModels {
    /// The model with the lower mean score.
    pub weak: String,
    /// The model with the higher mean score.
    pub strong: String,
    /// The average part of the gap between the two that is recovered, over all shares; blind routing recovers a half.
    /// Absent, like the next two, where there is no gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apgr: Option<f64>,
    /// The least share that recovers half of the gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpt50: Option<f64>,
    /// The least share that recovers four fifths of the gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpt80: Option<f64>,
    /// The average quality between the cost of the one and the cost of the other, over the hull of the points. Absent
    /// where the stronger is not the dearer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aiq: Option<f64>,
    /// From none to all, in steps of a twentieth.
    pub points: Vec<SharePoint>,
}

/// One share of the stronger model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SharePoint {
    /// The share.
    pub share: f64,
    /// Mean score, over the rows that have both models.
    pub score: f64,
    /// Mean cost per row.
    pub cost_usd: f64,
}

/// What a report is made of; runs, their yardsticks and context-free runs in one order.
pub(super) struct Findings<'a> {
    pub(super) policy: Whose,
    pub(super) models: &'a [String],
    pub(super) ceiling_usd: Option<f64>,
    /// The rows at which something changes, and the first; empty where nothing does.
    pub(super) phases: &'a [usize],
    pub(super) runs: &'a [Run],
    pub(super) yardsticks: &'a [Yardsticks],
    pub(super) context_free: &'a [Run],
}

pub(super) fn report(found: &Findings<'_>) -> Option<Report> {
    let Findings { policy, runs, yardsticks, .. } = found;
    let all = |values: fn(&Run) -> &Vec<f64>| mean(runs.iter().flat_map(|run| values(run).iter().copied()));
    let mut decide_us: Vec<u64> = runs.iter().flat_map(|run| run.decide_us.iter().copied()).collect();
    decide_us.sort_unstable();
    let (routed, seconds) =
        (runs.iter().map(|r| r.scores.len()).sum::<usize>(), runs.iter().map(|r| r.seconds).sum::<f64>());
    let calls = figures::calls(runs);
    let calls_all: f64 = calls.values().sum();
    let used = |cost: f64| found.ceiling_usd.map(|ceiling| cost / ceiling);
    let used_by_run = || runs.iter().filter_map(|run| used(mean(run.costs_usd.iter().copied())?));
    Some(Report {
        policy: policy.as_str(),
        rows: runs.iter().map(|run| run.scores.len()).max()?,
        seeds: runs.len(),
        runs: runs.iter().zip(*yardsticks).map(|(run, yard)| one_run(run, yard)).collect(),
        phases: phases(found, &used),
        two_models: two_models(found),
        score_mean: all(|run| &run.scores).unwrap_or(0.0),
        score_ci95: figures::interval(runs),
        score_last20pct: figures::last_fifths(runs),
        cost_mean_usd: all(|run| &run.costs_usd).unwrap_or(0.0),
        budget_utilisation: mean(used_by_run()),
        budget_utilisation_max: used_by_run().reduce(f64::max),
        best_single: best_single(yardsticks)?,
        context_free_score: mean(found.context_free.iter().flat_map(|run| run.scores.iter().copied()))
            .unwrap_or(0.0),
        context_free_last20pct: figures::last_fifths(found.context_free),
        random_score: mean(yardsticks.iter().map(|yard| yard.random)).unwrap_or(0.0),
        oracle_score: mean(yardsticks.iter().map(|yard| yard.oracle)).unwrap_or(0.0),
        share_by_model: calls.iter().map(|(model, n)| (model.clone(), n / calls_all.max(1.0))).collect(),
        calls_mean: calls_all / routed.max(1) as f64,
        decide_p50_us: figures::quantile(&decide_us, 0.50),
        decide_p99_us: figures::quantile(&decide_us, 0.99),
        rounds_per_s: routed as f64 / seconds.max(1e-9),
    })
}

fn one_run(run: &Run, yard: &Yardsticks) -> OneRun {
    OneRun {
        seed: yard.seed,
        score: mean(run.scores.iter().copied()).unwrap_or(0.0),
        last20pct: figures::last_fifth(run).unwrap_or(0.0),
        cost_usd: mean(run.costs_usd.iter().copied()).unwrap_or(0.0),
        single: yard.best_single.name.clone(),
        single_score: yard.best_single.score,
    }
}

fn phases(found: &Findings<'_>, used: &impl Fn(f64) -> Option<f64>) -> Vec<Phase> {
    if found.phases.is_empty() {
        return Vec::new();
    }
    let stretches = figures::stretches(found.runs, found.phases);
    let phase = |stretch: figures::Stretch| Phase {
        from_row: stretch.from_row,
        rows: stretch.rows,
        score_mean: stretch.score,
        cost_mean_usd: stretch.cost_usd,
        budget_utilisation: used(stretch.cost_usd),
    };
    stretches.into_iter().map(phase).collect()
}

fn two_models(found: &Findings<'_>) -> Option<TwoModels> {
    let [first, second] = found.models else { return None };
    let duels = || found.runs.iter().flat_map(|run| &run.duels);
    let [a, b] = [0, 1].map(|i| mean(duels().filter_map(|duel| duel.scores.get(i).copied())));
    let turned = a? > b?;
    let sorted: Vec<_> = found.runs.iter().map(|run| figures::sorted(run, turned)).collect();
    let point = |step: u32| {
        let share = f64::from(step) / 20.0;
        let at = || sorted.iter().map(|duels| figures::at_share(duels, share));
        let (score, cost_usd) = (mean(at().map(|p| p.0)).unwrap_or(0.0), mean(at().map(|p| p.1)).unwrap_or(0.0));
        SharePoint { share, score, cost_usd }
    };
    let (weak, strong) = if turned { (second, first) } else { (first, second) };
    let points: Vec<SharePoint> = (0..=20).map(point).collect();
    let pair = |duel: &figures::Duel| Pair { wish: duel.lead, weak: duel.scores[0], strong: duel.scores[1] };
    let recoveries: Vec<Recovery> =
        sorted.iter().filter_map(|duels| Recovery::of(&duels.iter().map(pair).collect::<Vec<_>>())).collect();
    let over_runs = |figure: &dyn Fn(&Recovery) -> Option<f64>| {
        mean(recoveries.iter().map(figure).collect::<Option<Vec<f64>>>()?.into_iter())
    };
    let costs = || points.iter().map(|point| Point { cost: point.cost_usd, quality: point.score });
    let ends = points.first().zip(points.last());
    Some(TwoModels {
        weak: weak.clone(),
        strong: strong.clone(),
        apgr: over_runs(&|recovery| Some(recovery.average())),
        cpt50: over_runs(&|recovery| recovery.calls_for(0.5)),
        cpt80: over_runs(&|recovery| recovery.calls_for(0.8)),
        aiq: ends
            .and_then(|(low, high)| average_quality(&costs().collect::<Vec<_>>(), low.cost_usd, high.cost_usd)),
        points,
    })
}

/// The choice made most often, the first by name of equals, with the mean score of all.
fn best_single(yardsticks: &[Yardsticks]) -> Option<BestSingle> {
    let mut chosen: BTreeMap<&str, usize> = BTreeMap::new();
    for yard in yardsticks {
        *chosen.entry(&yard.best_single.name).or_default() += 1;
    }
    let most = chosen.values().copied().max()?;
    let (name, _) = chosen.into_iter().find(|(_, n)| *n == most)?;
    let score = mean(yardsticks.iter().map(|yard| yard.best_single.score))?;
    Some(BestSingle { name: name.to_owned(), score, by: yardsticks.first()?.best_single.by })
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
        if let Some((mean, max)) = self.budget_utilisation.zip(self.budget_utilisation_max) {
            let text = format!("{:.1} %, at most {:.1} %", mean * 100.0, max * 100.0);
            table.add_row(["of the budget per row".to_owned(), text]);
        }
        table.add_row(["calls per row".to_owned(), format!("{:.2}", self.calls_mean)]);
        table.add_row([
            "encode + decide".to_owned(),
            format!("{} µs median, {} µs p99", self.decide_p50_us, self.decide_p99_us),
        ]);
        table.add_row(["rows per second".to_owned(), format!("{:.0}", self.rounds_per_s)]);
        for Phase { from_row, rows, score_mean, cost_mean_usd, .. } in &self.phases {
            let text = format!("{score_mean:.4} at ${cost_mean_usd:.7} a row");
            table.add_row([format!("{rows} rows from {from_row}"), text]);
        }
        if let Some(two) = &self.two_models {
            let of = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.4}"));
            let text = format!("{}, {}, {}, {}", of(two.apgr), of(two.cpt50), of(two.cpt80), of(two.aiq));
            table.add_row([format!("{} over {}: APGR, CPT(50 %), CPT(80 %), AIQ", two.strong, two.weak), text]);
        }
        let mut shares: Vec<_> = self.share_by_model.iter().collect();
        shares.sort_by(|a, b| b.1.total_cmp(a.1));
        for (model, share) in shares {
            table.add_row([format!("share of {model}"), format!("{:.1} %", share * 100.0)]);
        }
        table
    }
}
