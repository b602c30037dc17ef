//! The numbers of trials, one kind for each, and what is noted of a decision until it is judged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pointsman_learner::evaluate::canary::{Canary, CanarySettings, CanaryState, CanaryVerdict, Drawn};
use pointsman_learner::evaluate::estimate::Estimate;
use pointsman_learner::evaluate::exploration::share_within;
use pointsman_learner::evaluate::quantile::DEGREES_MIN;
use pointsman_learner::evaluate::running::{Look, Sums};
use pointsman_router::clock::Timestamp;
use pointsman_router::hindsight::Hindsight;
use pointsman_router::ids::{DecisionId, PolicyVersion};
use pointsman_router::policy::Snapshot;
use pointsman_router::trace::Trace;
use serde::{Deserialize, Serialize};

use crate::store::ledger::{CanaryLife, Lifecycle, Trial};

/// Decisions that are noted until they are judged, at most: the newest.
const OPEN_MAX: usize = 16_384;
/// Pairs of pick distributions that say how much aiming moves, at most: the newest.
const PAIRS_MAX: usize = 256;
/// How many new pairs it takes to find anew how hard to aim.
const PAIRS_STEP: u64 = 32;

/// What the policies on trial would have done at a decision.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Noted {
    /// The shadow's weights there, its expected cost, and how probably it picks the same model first.
    shadow: Option<(Look, f64, f64)>,
    /// Whether the canary decided, and the set's probability under both arms.
    arms: Option<(bool, Drawn)>,
}

impl Noted {
    pub(super) fn new(trace: &Trace, shadow: Option<&Hindsight>, arms: Option<(bool, Drawn)>) -> Self {
        let decision = &trace.decision;
        let shadow = shadow.map(|hindsight| {
            let look = Look {
                weight: hindsight.propensity / decision.set_propensity,
                direct: hindsight.value(),
                modelled: hindsight.predicted,
            };
            let agreed = decision.set.first().map_or(0.0, |first| hindsight.first(*first));
            (look, hindsight.cost_nanos(), agreed)
        });
        Self { shadow, arms }
    }
}

/// Decisions that wait for feedback, and how hard to aim at the challenger.
#[derive(Debug)]
pub(super) struct Open {
    /// The share of the picks that aiming may move.
    pub(super) budget: f64,
    aim: f64,
    seen: u64,
    /// By id, so by age: the oldest goes first.
    noted: BTreeMap<DecisionId, Noted>,
    pairs: VecDeque<(Vec<f64>, Vec<f64>)>,
}

impl Open {
    pub(super) fn new(budget: f64) -> Self {
        // A share moves no more than itself, so the budget is a safe begin.
        Self { budget, aim: budget, seen: 0, noted: BTreeMap::new(), pairs: VecDeque::new() }
    }

    pub(super) fn get(&self, id: DecisionId) -> Option<Noted> {
        self.noted.get(&id).cloned()
    }

    pub(super) fn forget(&mut self) {
        self.noted.clear();
    }

    pub(super) fn put(&mut self, id: DecisionId, noted: Noted) {
        self.noted.insert(id, noted);
        if self.noted.len() > OPEN_MAX {
            self.noted.pop_first();
        }
    }

    /// Remembers what the running policy by itself and the challenger would pick.
    pub(super) fn remember_picks(&mut self, running: Vec<f64>, challenger: Vec<f64>) {
        self.pairs.push_back((running, challenger));
        if self.pairs.len() > PAIRS_MAX {
            self.pairs.pop_front();
        }
        self.seen += 1;
        if self.seen.is_multiple_of(PAIRS_STEP) {
            self.aim = share_within(self.budget, self.pairs.make_contiguous()).max(self.budget);
        }
    }

    /// The share of the challenger's choices at which aiming moves the budget.
    pub(super) fn aim(&self) -> f64 {
        self.aim
    }
}

/// A mean over judged decisions.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Mean {
    pub(super) rows: u64,
    sum: f64,
    squares: f64,
}

impl Mean {
    /// Puts one score in the place of another.
    fn change(&mut self, before: Option<f64>, after: Option<f64>) {
        if let Some(before) = before {
            self.rows = self.rows.saturating_sub(1);
            self.sum -= before;
            self.squares -= before * before;
        }
        if let Some(after) = after {
            self.rows += 1;
            self.sum += after;
            self.squares += after * after;
        }
    }

    pub(super) fn value(&self) -> Option<f64> {
        (self.rows > 0).then(|| (self.sum / self.rows as f64).clamp(0.0, 1.0))
    }

    pub(super) fn estimate(&self) -> Option<Estimate> {
        let (value, n) = (self.value()?, self.rows as f64);
        let variance = (self.squares / n - value * value).max(0.0) / (n - 1.0);
        let standard_error = if self.rows < 2 { f64::INFINITY } else { variance.sqrt() };
        Some(Estimate { value, standard_error, degrees: (n - 1.0).max(DEGREES_MIN) })
    }
}

/// What the running policy earns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LiveTally {
    pub(super) version: PolicyVersion,
    pub(super) since: Timestamp,
    pub(super) rows: u64,
    pub(super) cost_nanos: f64,
    pub(super) scores: Mean,
}

impl LiveTally {
    /// Counts from when the policy began to run, or from when the shadow beside it began.
    pub(super) fn new(roles: &Lifecycle) -> Self {
        let since =
            roles.shadow.as_ref().map_or(roles.running_since, |trial| trial.since.max(roles.running_since));
        let (version, scores) = (roles.running.clone(), Mean::default());
        Self { version, since, rows: 0, cost_nanos: 0.0, scores }
    }

    fn counts(&self, trace: &Trace) -> bool {
        trace.decision.policy == self.version && trace.at >= self.since
    }

    pub(super) fn decided(&mut self, trace: &Trace) {
        if self.counts(trace) {
            self.rows += 1;
            self.cost_nanos += trace.bill.settled.nanos() as f64;
        }
    }

    pub(super) fn judged(&mut self, trace: &Trace, before: Option<f64>, after: Option<f64>) {
        if self.counts(trace) {
            self.scores.change(before, after);
        }
    }
}

/// What the shadow would earn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ShadowTally {
    pub(super) trial: Trial,
    pub(super) rows: u64,
    pub(super) agreed: f64,
    pub(super) cost_nanos: f64,
    pub(super) sums: Sums,
}

impl ShadowTally {
    pub(super) fn new(trial: Trial) -> Self {
        Self { trial, rows: 0, agreed: 0.0, cost_nanos: 0.0, sums: Sums::default() }
    }

    pub(super) fn decided(&mut self, noted: &Noted) {
        if let Some((_, cost_nanos, agreed)) = noted.shadow {
            self.rows += 1;
            self.agreed += agreed;
            self.cost_nanos += cost_nanos;
        }
    }

    pub(super) fn judged(&mut self, noted: &Noted, before: Option<f64>, after: Option<f64>) {
        let Some((look, ..)) = &noted.shadow else { return };
        if let Some(before) = before {
            self.sums.withdraw(look, before);
        }
        if let Some(after) = after {
            self.sums.observe(look, after);
        }
    }
}

/// How the two arms of a canary do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CanaryTally {
    pub(super) trial: Trial,
    incumbent: PolicyVersion,
    share: f64,
    expected: f64,
    judged: u64,
    sum: f64,
    squares: f64,
    pub(super) candidate_scores: Mean,
    pub(super) incumbent_scores: Mean,
    pub(super) looks: u64,
}

impl CanaryTally {
    pub(super) fn new(life: &CanaryLife) -> Self {
        Self {
            trial: life.trial.clone(),
            incumbent: life.incumbent.clone(),
            share: life.share,
            expected: life.expected,
            judged: 0,
            sum: 0.0,
            squares: 0.0,
            candidate_scores: Mean::default(),
            incumbent_scores: Mean::default(),
            looks: 0,
        }
    }

    /// Whether the canary decided, and the probability of the drawn set under both arms: the arm that drew
    /// has logged its own. `None` for a decision of neither, or from before the canary.
    pub(super) fn arms(
        &self,
        trace: &Trace,
        (incumbent, candidate): (&Arc<Snapshot>, &Arc<Snapshot>),
    ) -> Option<(bool, Drawn)> {
        let decision = &trace.decision;
        if trace.at < self.trial.since {
            return None;
        }
        let asked = |snapshot: &Arc<Snapshot>| Hindsight::of(&*snapshot.policy, trace).propensity;
        if decision.policy == self.trial.version {
            return Some((true, Drawn { candidate: decision.set_propensity, incumbent: asked(incumbent) }));
        }
        (decision.policy == self.incumbent)
            .then(|| (false, Drawn { candidate: asked(candidate), incumbent: decision.set_propensity }))
    }

    pub(super) fn judged(&mut self, noted: &Noted, before: Option<f64>, after: Option<f64>) {
        let Some((is_candidate, drawn)) = noted.arms else { return };
        let mut canary = self.canary();
        match (before, after) {
            (Some(before), Some(after)) => canary.correct(drawn, before, after),
            (None, Some(after)) => canary.observe(drawn, after),
            // A score is corrected, never taken back.
            (_, None) => {}
        }
        CanaryState { judged: self.judged, sum: self.sum, squares: self.squares } = canary.state;
        let scores = if is_candidate { &mut self.candidate_scores } else { &mut self.incumbent_scores };
        scores.change(before, after);
        self.looks += 1;
    }

    /// Judged decisions of both arms.
    pub(super) fn rows(&self) -> u64 {
        self.judged
    }

    pub(super) fn verdict(&self) -> CanaryVerdict {
        self.canary().verdict()
    }

    /// How much better the candidate is, with bounds that hold at every look.
    pub(super) fn difference(&self) -> Option<(f64, f64, f64)> {
        let (lower, upper) = self.canary().bounds();
        (self.judged > 0).then(|| (self.sum / self.judged as f64, lower, upper))
    }

    fn canary(&self) -> Canary {
        let settings = CanarySettings { share: self.share, expected: self.expected, ..CanarySettings::default() };
        let state = CanaryState { judged: self.judged, sum: self.sum, squares: self.squares };
        Canary { settings, state }
    }
}
