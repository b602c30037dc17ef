//! Canaries on candidates that are what they seem, and on two that looked good off-policy and are not.
//!
//! - *drifted*: the candidate of the first column, which the gate lets pass. After the log was written
//!   the models that it calls more than the running policy does lose four fifths of what they score, one
//!   after the other, until it is worse by .03 or none of them is left.
//! - *overfitted*: it was trained on the very rows that it is evaluated on, every other one of the set, and
//!   knows them by heart. The traffic is the other rows, of which it has learned nothing but noise.

use pointsman_learner::evaluate::canary::{Canary, CanarySettings, CanaryVerdict, Drawn};
use pointsman_learner::evaluate::gate::{GateSettings, judge};
use pointsman_router::clock::Draw;

use crate::Options;
use crate::logs::Log;
use crate::policies::{Candidate, Logger, candidate, unlearned};
use crate::world::World;

const SHARE: f64 = 0.1;
/// Canaries of each kind, at most.
const RUNS_MAX: u64 = 100;
/// How much worse the drifted candidate is to be.
const DRIFT: f64 = -0.03;
/// What a model that drifted still scores.
const LEFT: f64 = 0.2;
/// What the overfitted candidate gains on the rows that it knows.
const KNOWN_GAIN: f64 = 0.08;
/// Logs that the overfitted candidate is evaluated on.
const LOOKS: u64 = 20;

/// What became of the canaries of one kind.
pub(crate) struct CanaryReport {
    pub(crate) name: &'static str,
    /// What led to it, in words.
    pub(crate) story: String,
    /// The true difference while the canary ran.
    pub(crate) difference: f64,
    pub(crate) runs: u64,
    /// Shares of the runs.
    pub(crate) rolled_back: f64,
    pub(crate) proven: f64,
    /// Judged decisions until the end, the median.
    pub(crate) judged_median: u64,
}

pub(crate) fn run(
    world: &World,
    logger: &Logger,
    candidates: &[Candidate],
    options: &Options,
) -> anyhow::Result<Vec<CanaryReport>> {
    let runs = options.runs.min(RUNS_MAX);
    let watch = |name, story: String, choice: &[u16], scores: &[f64]| {
        canaries(world, logger, Case { name, story, choice, scores }, runs)
    };
    let [better, _, equal] = candidates else { anyhow::bail!("three candidates are expected") };
    let (drifted, lost) = drift(world, logger, &better.choice);
    Ok(vec![
        watch("better", "as it was in the log".to_owned(), &better.choice, &world.scores),
        watch("equal", "as it was in the log".to_owned(), &equal.choice, &world.scores),
        watch("drifted", format!("{lost} of its models broke after the log"), &better.choice, &drifted),
        overfitted(world, logger, options, runs)?,
    ])
}

fn overfitted(world: &World, logger: &Logger, options: &Options, runs: u64) -> anyhow::Result<CanaryReport> {
    let (seen, traffic) = (world.half(false), world.half(true));
    let (seen_logger, logger) = (logger.half(world, false), logger.half(world, true));
    let known = [candidate(&seen, &seen_logger, KNOWN_GAIN)];
    let mut log = Log::new(&seen, &seen_logger.picks);
    let mut opened = 0;
    for look in 0..LOOKS {
        log.fill(options.decisions, 900_000 + look)?;
        let found = log.evidence(&known, seen_logger.single)?;
        opened += found.iter().filter(|(_, one)| judge(one, &GateSettings::default()).passes()).count();
    }
    let gain = seen.mean_at(&known[0].choice, &seen.scores) - seen_logger.value;
    let story =
        format!("{gain:+.3} on what it was trained and evaluated on: the gate opened {opened} times of {LOOKS}");
    let choice = unlearned(&traffic, &logger).choice;
    let case = Case { name: "overfitted", story, choice: &choice, scores: &traffic.scores };
    Ok(canaries(&traffic, &logger, case, runs))
}

/// The scores after the drift, and how many models it met.
fn drift(world: &World, logger: &Logger, choice: &[u16]) -> (Vec<f64>, usize) {
    let mut extra = vec![0.0; world.models];
    for (row, chosen) in logger.picks.chunks_exact(world.models).zip(choice) {
        extra[usize::from(*chosen)] += 1.0;
        for (sum, pick) in extra.iter_mut().zip(row) {
            *sum -= pick;
        }
    }
    let mut order: Vec<usize> = (0..world.models).collect();
    order.sort_by(|a, b| extra[*b].total_cmp(&extra[*a]));
    let mut scores = world.scores.clone();
    let mut lost = 0;
    for model in order.into_iter().filter(|model| extra[*model] > 0.0) {
        lost += 1;
        scores.iter_mut().skip(model).step_by(world.models).for_each(|score| *score *= LEFT);
        if world.mean_at(choice, &scores) - world.mean_under(&logger.picks, &scores) <= DRIFT {
            break;
        }
    }
    (scores, lost)
}

/// One kind of canary.
struct Case<'a> {
    name: &'static str,
    story: String,
    choice: &'a [u16],
    scores: &'a [f64],
}

fn canaries(world: &World, logger: &Logger, case: Case<'_>, runs: u64) -> CanaryReport {
    let settings = CanarySettings { share: SHARE, expected: logger.value, ..CanarySettings::default() };
    let (mut rolled_back, mut proven, mut lengths) = (0.0, 0.0, Vec::new());
    for run in 0..runs {
        match canary(world, logger, &case, settings, run) {
            CanaryVerdict::RollBack { judged, .. } => {
                rolled_back += 1.0 / runs as f64;
                lengths.push(judged);
            }
            CanaryVerdict::Passed { judged, is_proven, .. } => {
                proven += f64::from(u8::from(is_proven)) / runs as f64;
                lengths.push(judged);
            }
            CanaryVerdict::Continue => {}
        }
    }
    lengths.sort_unstable();
    let difference = world.mean_at(case.choice, case.scores) - world.mean_under(&logger.picks, case.scores);
    let judged_median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    CanaryReport { name: case.name, story: case.story, difference, runs, rolled_back, proven, judged_median }
}

/// Serves requests until the canary ends, and looks at it after each.
fn canary(world: &World, logger: &Logger, case: &Case<'_>, settings: CanarySettings, seed: u64) -> CanaryVerdict {
    let mut draw = Draw::from_seed(700_000 + seed);
    let mut canary = Canary::new(settings);
    loop {
        let row = (draw.next_u64() % world.rows as u64) as usize;
        let picks = &logger.picks[row * world.models..(row + 1) * world.models];
        let own = usize::from(case.choice[row]);
        let is_own = draw.uniform() < settings.share;
        let model = if is_own { own } else { draw.index(picks.iter().copied()).unwrap_or(0) };
        let drawn = Drawn { candidate: if model == own { 1.0 } else { 0.0 }, incumbent: picks[model] };
        canary.observe(drawn, case.scores[row * world.models + model]);
        let verdict = canary.verdict();
        if verdict != CanaryVerdict::Continue {
            return verdict;
        }
    }
}
