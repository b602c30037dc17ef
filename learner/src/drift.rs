//! Change: when a head no longer fits its model, and what an operator is to hear of it.
//!
//! Two things are kept apart, because they are for different readers. An [`Alarm`] is for the learner: it
//! asks whether a head is so wrong that unlearning pays, and must hardly ever ring without cause (a badly
//! tuned one costs more regret than the change does). A [`Watch`] is for people: it asks whether quality,
//! cost or latency of a model moved, and says from what to what. Both are sequential tests over the very
//! numbers that decisions were made with, so they are part of the learned state and depend on the order
//! of the rows alone.
//!
//! # The alarm
//!
//! - Page-Hinkley (Page 1954) on e = label − predicted quality, both ways: g ← max(0, g ± e − .05), alarm
//!   at 15. The prediction is the mean of the logistic under the belief, not the logistic of the mean: the
//!   latter is overconfident while a head learns, and alone rings .7 to 1.9 times on a stream that does not
//!   change (measured on `tune`).
//! - CUSUM of the log-likelihood ratio of "all logits are .4 of what the head says" against the head, alarm
//!   at 8. A model whose strengths moved from one kind of request to another nearly keeps its mean, so the
//!   first test is slow to see it; but the old head is then too sure of itself either way. Where two models
//!   are swapped, this rings after about 175 rounds and the first after about 1,350.
//!
//! Neither rings within 200 labels of the last reset. On a calibrated predictor the first rings in 20,000 labels
//! with a probability of .2 to .7, depending on its spread, the second with .06 to .19 (simulated).
//!
//! # The watch
//!
//! CUSUM of the log-likelihood ratio, alert at 8. Quality: the predicted probability moved by .1 (by half of
//! what is left to none or one, where that is less) against the prediction itself, label by label; at .85
//! a fall of .2 is noticed after 81 labels, and in 20,000 unchanged ones a fall is seen with a probability
//! of .14 (simulated). Cost and latency: the logarithm moved by a quarter of its standard
//! deviation against the forecast for a prompt of that length, single calls counting four deviations at most.

use pointsman_router::ids::ModelName;

/// Labels after a reset within which an alarm does not ring and a quality watch says nothing.
const LABELS_MIN: u64 = 200;
/// Page-Hinkley: errors up to this are not change.
const ERROR_SLACK: f64 = 0.05;
/// Page-Hinkley: sum of errors beyond the slack at which the alarm rings.
const ERROR_SUM_MAX: f64 = 15.0;
/// What a head's logits are worth once its model has changed under it.
const STALE_LOGIT: f64 = 0.4;
/// Log-likelihood ratio at which a CUSUM ends.
const RATIO_MAX: f64 = 8.0;
/// The change of a quality that a watch looks for.
const QUALITY_SHIFT: f64 = 0.1;
/// The change of a logarithm that a watch looks for, in standard deviations.
const LOG_SHIFT: f64 = 0.25;
/// What a single call counts at most, in standard deviations.
const LOG_REACH: f64 = 4.0;
/// Calls before a watch on cost or latency says anything: the forecast must be one.
const CALLS_MIN: u64 = 30;
/// A forecast is never taken to be surer than this: prompts of one length still differ by some per cent.
const LOG_VARIANCE_MIN: f64 = 0.0025;
/// Probabilities are held this far from none and one.
const PROBABILITY_MIN: f64 = 1e-3;

/// Says when a head no longer fits its model.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Alarm {
    /// Labels since the last reset.
    pub labels: u64,
    /// How often it rang.
    pub resets: u64,
    /// Page-Hinkley upwards and downwards, then the CUSUM of staleness.
    pub sums: [f64; 3],
}

impl Alarm {
    /// Takes in a label and what had been predicted; true when it rings, and then it begins anew.
    pub fn observe(&mut self, label: f64, predicted: f64) -> bool {
        self.labels += 1;
        let error = label - predicted;
        let terms = [error - ERROR_SLACK, -error - ERROR_SLACK, stale_ratio(label, predicted)];
        for (sum, term) in self.sums.iter_mut().zip(terms) {
            *sum = (*sum + term).max(0.0);
        }
        let [up, down, stale] = self.sums;
        let rings = self.labels > LABELS_MIN && (up.max(down) > ERROR_SUM_MAX || stale > RATIO_MAX);
        if rings {
            *self = Self { resets: self.resets + 1, ..Self::default() };
        }
        rings
    }
}

fn stale_ratio(label: f64, predicted: f64) -> f64 {
    let predicted = held(predicted);
    let logit = libm::log(predicted / (1.0 - predicted));
    ratio(label, predicted, 1.0 / (1.0 + libm::exp(-STALE_LOGIT * logit)))
}

/// The log-likelihood ratio of two probabilities under a label in [0, 1].
fn ratio(label: f64, before: f64, after: f64) -> f64 {
    label * libm::log(after / before) + (1.0 - label) * libm::log((1.0 - after) / (1.0 - before))
}

fn held(probability: f64) -> f64 {
    probability.clamp(PROBABILITY_MIN, 1.0 - PROBABILITY_MIN)
}

/// Which way something moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It is higher than before.
    Up,
    /// It is lower than before.
    Down,
}

/// What can move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// The probability of being right.
    Quality,
    /// Nano-dollars per call.
    Cost,
    /// Microseconds per call.
    Latency,
}

/// What an operator is told: something about a model moved.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// The model.
    pub model: ModelName,
    /// What moved.
    pub what: Watched,
    /// Which way.
    pub direction: Direction,
    /// Where it was noticed: a ledger sequence for quality, a trace sequence for cost and latency.
    pub at_seq: u64,
    /// What was expected since the change, in the unit of what moved; for cost and latency a geometric mean.
    pub before: f64,
    /// What was seen since then.
    pub after: f64,
}

/// What moved: in which direction, from what to what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    /// Which way.
    pub direction: Direction,
    /// Mean of what was expected since the change, as far as the test can tell when that was.
    pub before: f64,
    /// Mean of what was seen since then.
    pub after: f64,
}

/// One direction of a CUSUM, with what was seen since it last was zero.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Side {
    /// The log-likelihood ratio, never negative.
    pub ratio: f64,
    /// Observations since it was zero.
    pub seen: f64,
    /// Sum of what had been expected of them.
    pub expected: f64,
    /// Sum of what they were.
    pub found: f64,
}

impl Side {
    fn step(&mut self, term: f64, expected: f64, found: f64) {
        if self.ratio + term <= 0.0 {
            *self = Self::default();
            return;
        }
        self.ratio += term;
        self.seen += 1.0;
        self.expected += expected;
        self.found += found;
    }

    fn moved(&self, direction: Direction) -> Moved {
        Moved { direction, before: self.expected / self.seen, after: self.found / self.seen }
    }
}

/// Says when a quantity moved, and from what to what.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Watch {
    /// Observations since it began, or since it last said something.
    pub seen: u64,
    /// Upwards and downwards.
    pub sides: [Side; 2],
}

impl Watch {
    /// Takes in a label in [0, 1] and the predicted quality.
    pub fn quality(&mut self, label: f64, predicted: f64) -> Option<Moved> {
        let before = held(predicted);
        let [up, down] =
            [before + QUALITY_SHIFT, before - QUALITY_SHIFT].map(|after| ratio(label, before, held(after)));
        self.step([up, down], LABELS_MIN, (predicted, label))
    }

    /// Takes in the logarithm of a cost or latency beside the mean and variance that had been forecast. What
    /// it says is in logarithms too.
    pub fn logarithm(&mut self, found: f64, (mean, variance): (f64, f64)) -> Option<Moved> {
        let deviation = ((found - mean) / variance.max(LOG_VARIANCE_MIN).sqrt()).clamp(-LOG_REACH, LOG_REACH);
        let term = |deviation: f64| LOG_SHIFT * deviation - 0.5 * LOG_SHIFT * LOG_SHIFT;
        self.step([term(deviation), term(-deviation)], CALLS_MIN, (mean, found))
    }

    /// What it would say if it had to by now; `None` where nothing points either way.
    #[must_use]
    pub fn suspected(&self) -> Option<Moved> {
        let [up, down] = &self.sides;
        let (side, direction) = if up.ratio > down.ratio { (up, Direction::Up) } else { (down, Direction::Down) };
        (side.seen > 0.0).then(|| side.moved(direction))
    }

    fn step(&mut self, terms: [f64; 2], seen_min: u64, (expected, found): (f64, f64)) -> Option<Moved> {
        self.seen += 1;
        if self.seen <= seen_min {
            return None;
        }
        for (side, term) in self.sides.iter_mut().zip(terms) {
            side.step(term, expected, found);
        }
        let [up, down] = &self.sides;
        let moved = if up.ratio > RATIO_MAX {
            up.moved(Direction::Up)
        } else if down.ratio > RATIO_MAX {
            down.moved(Direction::Down)
        } else {
            return None;
        };
        *self = Self::default();
        Some(moved)
    }
}

#[cfg(test)]
mod tests;
