//! The logging policy, and candidates whose true gain is known.

use pointsman_learner::evaluate::exploration::share_within;
use pointsman_learner::evaluate::reward_model::{Design, Label, RewardModel, Ridge};
use pointsman_router::clock::Draw;
use pointsman_router::selection::{Utility, aim, floor, thompson};

use crate::features::DIMS;
use crate::world::{World, every_other};

/// Rows that the logging policy has learned from.
const KNOWN_ROWS: usize = 600;
/// Standard deviation of its beliefs.
const BELIEF_SD: f64 = 0.04;
const FLOOR: f64 = 0.05;
/// What aimed exploration may move on average.
const AIMED_BUDGET: f64 = 0.02;
/// True gains that are wanted of the candidates.
const GAINS: [f64; 3] = [0.05, -0.006, 0.0];
/// A gain above this part of what is there to gain is not wanted.
const HEADROOM: f64 = 0.6;
/// Standard deviation of what the candidates think wrongly.
const NOISE: f64 = 0.2;
/// Weights of cost that are tried until a candidate is no dearer than the logging policy.
const COST_WEIGHTS: [f64; 8] = [0.0, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0];

/// The policy that writes the log.
pub(crate) struct Logger {
    /// Its true value.
    pub(crate) value: f64,
    /// What it thinks each model scores, row after row.
    pub(crate) qualities: Vec<f64>,
    /// Its pick probabilities, row after row.
    pub(crate) picks: Vec<f64>,
    /// The best single model on the rows that it has learned from.
    pub(crate) single: u16,
}

impl Logger {
    /// The same policy on every other row.
    pub(crate) fn half(&self, world: &World, is_odd: bool) -> Self {
        let picks = every_other(&self.picks, world.models, is_odd);
        let value = world.half(is_odd).mean_under(&picks, &every_other(&world.scores, world.models, is_odd));
        Self { value, qualities: every_other(&self.qualities, world.models, is_odd), picks, single: self.single }
    }
}

/// A policy that always picks the same model on the same row.
pub(crate) struct Candidate {
    /// The model of each row.
    pub(crate) choice: Vec<u16>,
}

/// Thompson sampling over regressions that saw a few hundred rows, with an even floor.
pub(crate) fn logger(world: &World) -> anyhow::Result<Logger> {
    let mut draw = Draw::from_seed(20);
    let known: Vec<usize> = (0..KNOWN_ROWS).map(|_| (draw.next_u64() % world.rows as u64) as usize).collect();
    let labels: Vec<Label> =
        known.iter().flat_map(|row| (0..world.models).map(|model| label(world, *row, model))).collect();
    let folds = vec![0; world.rows];
    let design = Design { features: &world.features, dims: DIMS, folds: &folds };
    let qualities = RewardModel::fit(&design, world.models, &labels, &Ridge::default())?.predict_all(&design);
    let cost_mean = mean_cost(world);
    let picks: Vec<f64> = qualities
        .chunks_exact(world.models)
        .flat_map(|row| {
            let utility = |(quality, cost): (&f64, &f64)| Utility {
                mean: quality - world.price * cost / cost_mean,
                sd: BELIEF_SD,
            };
            let utilities: Vec<Utility> = row.iter().zip(&world.forecasts).map(utility).collect();
            let mut picks = thompson(&utilities);
            floor(&mut picks, FLOOR);
            picks
        })
        .collect();
    let total = |model: usize| -> f64 { known.iter().map(|row| world.scores[row * world.models + model]).sum() };
    let single = (0..world.models).max_by(|a, b| total(*a).total_cmp(&total(*b))).unwrap_or(0) as u16;
    Ok(Logger { value: world.mean_under(&picks, &world.scores), qualities, picks, single })
}

fn label(world: &World, row: usize, model: usize) -> Label {
    let score = world.scores[row * world.models + model] as f32;
    Label { row: row as u32, model: model as u16, score, weight: 1.0 }
}

fn mean_cost(world: &World) -> f64 {
    (world.forecasts.iter().sum::<f64>() / world.models as f64).max(f64::MIN_POSITIVE)
}

/// One candidate per wanted gain.
pub(crate) fn candidates(world: &World, logger: &Logger) -> Vec<Candidate> {
    GAINS.into_iter().map(|gain| candidate(world, logger, gain)).collect()
}

/// A candidate of this true gain: the logging policy's qualities, mixed with noise and with as much of the
/// recorded scores as gives the gain, at no higher cost.
pub(crate) fn candidate(world: &World, logger: &Logger, gain: f64) -> Candidate {
    let mut draw = Draw::from_seed(21);
    let noise: Vec<f64> = world.scores.iter().map(|_| NOISE * gaussian(&mut draw)).collect();
    let (value, cost) = (logger.value, world.mean_under(&logger.picks, &world.costs));
    let mix = |truth: f64, weight: f64| greedy(world, logger, &noise, truth, weight);
    let with_gain = |weight: f64| {
        let most = world.mean_at(&mix(1e3, weight), &world.scores) - value;
        let wanted = value + gain.min(HEADROOM * most);
        let (mut low, mut high) = (-2.0, 10.0);
        for _ in 0..40 {
            let middle = 0.5 * (low + high);
            if world.mean_at(&mix(middle, weight), &world.scores) < wanted { low = middle } else { high = middle }
        }
        mix(if gain < 0.0 { low } else { high }, weight)
    };
    let mut choice = with_gain(0.0);
    for weight in COST_WEIGHTS {
        choice = with_gain(weight);
        if world.mean_at(&choice, &world.costs) <= cost {
            break;
        }
    }
    Candidate { choice }
}

/// What a candidate chooses on rows that it has learned nothing of: the logging policy's qualities and noise.
pub(crate) fn unlearned(world: &World, logger: &Logger) -> Candidate {
    let mut draw = Draw::from_seed(22);
    let noise: Vec<f64> = world.scores.iter().map(|_| NOISE * gaussian(&mut draw)).collect();
    Candidate { choice: greedy(world, logger, &noise, 0.0, 0.0) }
}

fn greedy(world: &World, logger: &Logger, noise: &[f64], truth: f64, cost_weight: f64) -> Vec<u16> {
    let cost_mean = mean_cost(world);
    let best = |row: usize| {
        let utility = |model: usize| {
            let at = row * world.models + model;
            logger.qualities[at] + truth * world.scores[at] + noise[at]
                - (cost_weight + world.price) * world.forecasts[model] / cost_mean
        };
        (0..world.models).max_by(|a, b| utility(*a).total_cmp(&utility(*b))).unwrap_or(0) as u16
    };
    (0..world.rows).map(best).collect()
}

/// The logging policy with exploration aimed at a candidate.
pub(crate) fn aimed(world: &World, picks: &[f64], choice: &[u16]) -> Vec<f64> {
    let certain = |model: u16| -> Vec<f64> {
        (0..world.models).map(|m| if m == usize::from(model) { 1.0 } else { 0.0 }).collect()
    };
    let pairs: Vec<(Vec<f64>, Vec<f64>)> =
        picks.chunks_exact(world.models).zip(choice).map(|(row, model)| (row.to_vec(), certain(*model))).collect();
    let share = share_within(AIMED_BUDGET, &pairs);
    let lifted = |(mut row, towards): (Vec<f64>, Vec<f64>)| {
        aim(&mut row, &towards, share);
        row
    };
    pairs.into_iter().flat_map(lifted).collect()
}

/// A standard normal number (Box & Muller).
fn gaussian(draw: &mut Draw) -> f64 {
    let radius = (-2.0 * (1.0 - draw.uniform()).ln()).sqrt();
    radius * (std::f64::consts::TAU * draw.uniform()).cos()
}
