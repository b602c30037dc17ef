//! One routing choice as it is logged: every candidate with its score and its probability.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::ids::{DecisionId, ModelName, PolicyVersion, TaskType};
use crate::money::NanoUsd;
use crate::policy::{Objective, PolicyKind};

/// Why a model could not be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ineligible {
    /// An operator switched it off.
    Disabled,
    /// Its backend cannot be used, for example because its key is missing.
    Unavailable,
    /// The request does not allow it.
    NotAllowed,
    /// Its circuit breaker is open.
    BreakerOpen,
    /// Its worst case is above what the request or the budget has left.
    TooDear,
    /// Its 95th percentile of latency does not fit the deadline.
    TooSlow,
    /// The request does not fit its context.
    TooLong,
    /// The recorded backend has no row of it for this request.
    NotCovered,
    /// It is expected to cost more than pacing has put by.
    Paced,
}

/// A registered model as the decision saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The model.
    pub model: ModelName,
    /// Why it could not be chosen; `None` when it could.
    pub ineligible: Option<Ineligible>,
    /// The mean probability of being right; zero when it could not be chosen, as are the others below,
    /// but for a model that pacing alone kept out.
    pub quality: f64,
    /// The mean utility.
    pub utility: f64,
    /// What a call is expected to cost.
    pub cost: NanoUsd,
    /// 95th percentile of the latency; `None` before any call was seen.
    pub latency_p95: Option<Duration>,
    /// The most that its allowed attempts can cost: its part of the hold.
    pub worst_case: NanoUsd,
    /// The probability with which it was to be picked first.
    pub pick: f64,
    /// The probability with which it was to be in the set.
    pub inclusion: f64,
    /// Whether it is in the set.
    pub chosen: bool,
}

/// The task type of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub name: TaskType,
    /// Whether it was inferred and not given.
    pub inferred: bool,
}

/// One routing choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Its id, the key of its feedback.
    pub id: DecisionId,
    /// When it was made.
    pub at: Timestamp,
    /// The seed from which it was drawn.
    pub seed: u64,
    /// The policy that made it.
    pub policy: PolicyVersion,
    /// The kind of that policy.
    pub policy_kind: PolicyKind,
    /// The task type.
    pub task: Task,
    /// What counted.
    pub objective: Objective,
    /// What pacing put into the objective's weight of cost, in quality per dollar.
    pub pace_weight_per_usd: f64,
    /// All registered models, by name.
    pub candidates: Vec<Candidate>,
    /// The chosen set as indices into `candidates`, the first pick first.
    pub set: Vec<usize>,
    /// The probability with which exactly this set was to be chosen.
    pub set_propensity: f64,
    /// How many models could have been called.
    pub calls_max: u32,
    /// The probability of being right that the request asked for.
    pub quality_threshold: Option<f64>,
    /// The predicted probability that the merged answer is right.
    pub predicted_quality: f64,
    /// Why this choice, in a sentence.
    pub why: String,
}

impl Candidate {
    /// Whether the policy scored it: it could be chosen, or pacing alone kept it out.
    #[must_use]
    pub fn is_on_offer(&self) -> bool {
        matches!(self.ineligible, None | Some(Ineligible::Paced))
    }
}

impl Decision {
    /// The chosen models, the first pick first.
    pub fn chosen(&self) -> impl Iterator<Item = &Candidate> {
        self.set.iter().filter_map(|at| self.candidates.get(*at))
    }

    /// The candidate of this name.
    #[must_use]
    pub fn candidate(&self, model: &str) -> Option<&Candidate> {
        self.candidates.iter().find(|c| c.model.as_str() == model)
    }

    /// What the set is expected to cost.
    #[must_use]
    pub fn expected_cost(&self) -> NanoUsd {
        self.chosen().map(|c| c.cost).sum()
    }

    /// The most that the set can cost: what is held.
    #[must_use]
    pub fn worst_case(&self) -> NanoUsd {
        self.chosen().map(|c| c.worst_case).sum()
    }
}
