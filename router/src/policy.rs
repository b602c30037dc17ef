//! The port for policies: versioned, immutable, features in, scores and probabilities out.
//!
//! A policy sees only models that may be called (the mask was applied before) and says of each how
//! probably it is right and with which probability it is to be picked first. The draw, the growth
//! of the subset and the propensities of the set are the same for every policy and live in
//! [`crate::decide`], so no policy can log a propensity that its draw did not have.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::features::Features;
use crate::forecast::{Forecast, Forecasts, Foreseen, Leans};
use crate::ids::{ModelName, PolicyVersion, TaskType};
use crate::model::ModelCard;
use crate::money::NanoUsd;

/// What a right answer is worth against money.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// Quality given up per dollar: u = q − `cost_weight_per_usd` · cost. Zero: quality alone counts,
    /// ties to the cheaper.
    pub cost_weight_per_usd: f64,
}

impl Objective {
    /// The objective in which a right answer is worth this much.
    #[must_use]
    pub fn of_answer_value(value: NanoUsd) -> Self {
        Self { cost_weight_per_usd: if value > NanoUsd::ZERO { 1.0 / value.usd() } else { 0.0 } }
    }

    /// The price of a call, in probabilities of being right.
    #[must_use]
    pub fn price(&self, cost: NanoUsd) -> f64 {
        self.cost_weight_per_usd * cost.usd()
    }

    /// The utility of a call, in probabilities of being right.
    #[must_use]
    pub fn utility(&self, quality: f64, cost: NanoUsd) -> f64 {
        quality - self.price(cost)
    }
}

/// A model that may be called for this request.
#[derive(Debug, Clone)]
pub struct Contender {
    /// Its name.
    pub name: ModelName,
    /// What a call is expected to cost and take.
    pub forecast: Forecast,
    /// Whether pacing has nothing put by for it: it is scored and must not be picked.
    pub barred: bool,
}

/// What a policy is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The features of the request.
    pub features: &'a Features,
    /// What this very policy made of them by [`Policy::project`].
    pub projected: &'a [f32],
    /// The task type, given or inferred.
    pub task: &'a TaskType,
    /// What counts.
    pub objective: Objective,
    /// The caller's own id of the request; only reference policies that know the answers look at it.
    pub caller_ref: Option<&'a str>,
    /// The models that may be called, by name; never empty.
    pub contenders: &'a [Contender],
}

/// What a policy says of one contender.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean probability of being right, in [0, 1].
    pub quality: f64,
    /// The mean utility under the ask's objective.
    pub utility: f64,
    /// The probability with which it is picked first; over all contenders they sum to one.
    pub pick: f64,
}

/// How the set is completed once the first model is picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// Grown greedily by predicted gain against price.
    Greedy,
    /// By these contenders, as indices in this order, up to the limit: rules say so.
    Listed(Vec<usize>),
}

/// What a policy says of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// One estimate per contender, in their order.
    pub estimates: Vec<Estimate>,
    /// How the set is completed.
    pub completion: Completion,
    /// Why the policy chose as it did, where it has something to say (a fallback, a rule's name).
    pub note: Option<Cow<'static, str>>,
}

/// The kind of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    /// Task type to models, from the configuration.
    Rules,
    /// Fitted offline; learns nothing more.
    Classifier,
    /// Learns online from feedback.
    Bandit,
    /// A yardstick of replays; never serves.
    Reference,
}

impl PolicyKind {
    /// The word for it in logs, traces and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Classifier => "classifier",
            Self::Bandit => "bandit",
            Self::Reference => "reference",
        }
    }
}

/// Maps features to scores and pick probabilities.
pub trait Policy: Send + Sync + fmt::Debug {
    /// The version that traces carry.
    fn version(&self) -> &PolicyVersion;

    /// The kind of policy.
    fn kind(&self) -> PolicyKind;

    /// What it makes of the features before it is asked, once a request; empty where it reads them as they
    /// are.
    fn project(&self, _: &Features) -> Vec<f32> {
        Vec::new()
    }

    /// The task type of a request whose caller named none, where the policy can tell.
    fn infer_task(&self, _: &[f32]) -> Option<TaskType> {
        None
    }

    /// How far calls of a model lean on a request of this size, from what was projected of it; nothing where
    /// the policy knows no more than the size.
    fn leans(&self, _projected: &[f32], _prompt_bytes: u32, _model: &str) -> Leans {
        Leans::NONE
    }

    /// Scores the contenders. The answer depends on nothing but the policy and the ask.
    fn score(&self, ask: &Ask<'_>) -> Scored;
}

/// What serves at one moment: a request pins it and uses no other to its end.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The running policy.
    pub policy: Arc<dyn Policy>,
    /// What calls are expected to cost and take.
    pub forecasts: Arc<Forecasts>,
}

impl Snapshot {
    /// What a call of a model is expected to cost and take, with all that the policy knows of the request,
    /// of which it made `projected`.
    #[must_use]
    pub fn forecast(
        &self,
        card: &ModelCard,
        (features, projected): (&Features, &[f32]),
        output_tokens_max: Option<u32>,
    ) -> Forecast {
        let prompt_bytes = features.prompt_bytes;
        let leans = self.policy.leans(projected, prompt_bytes, card.name.as_str());
        self.forecasts.forecast(card, &Foreseen { prompt_bytes, output_tokens_max, leans })
    }
}

/// Where the pipeline takes its policy from.
pub trait PolicySource: Send + Sync + fmt::Debug {
    /// The snapshot of this moment for the request with this seed. Where a share of the requests is given
    /// to another policy, the seed alone says to which a request belongs.
    fn current(&self, seed: u64) -> Arc<Snapshot>;
}
