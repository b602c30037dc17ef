//! The policy under replay and how it learns between rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_learner::online::{Call, Lesson, Online};
use pointsman_learner::reference::{BestSingle, ContextFree, Oracle, Random, TrueScores};
use pointsman_router::bandit::BanditSettings;
use pointsman_router::features::{Features, SchemaHash};
use pointsman_router::ids::ModelName;
use pointsman_router::policy::{Policy, Snapshot};
use pointsman_router::rules::RulesPolicy;
use pointsman_router::trace::Trace;

use super::Whose;

/// What a pupil may know beforehand.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// The pool in its given order.
    pub(super) pool: Vec<ModelName>,
    /// The best single model.
    pub(super) best_single: ModelName,
    /// The true scores; only the oracle looks.
    pub(super) scores: Arc<TrueScores>,
}

/// A policy and its state.
#[derive(Debug)]
pub(super) struct Pupil {
    /// Learns costs and latencies for every policy, and quality for the bandit.
    online: Online,
    seq: u64,
    choice: Choice,
}

#[derive(Debug)]
enum Choice {
    Bandit,
    ContextFree(ContextFree),
    Fixed(Arc<dyn Policy>),
}

impl Pupil {
    /// `None` for a policy that is reckoned and not run.
    pub(super) fn new(whose: Whose, known: &Known, schema: SchemaHash) -> Option<Self> {
        let choice = match whose {
            Whose::Bandit => Choice::Bandit,
            Whose::ContextFree => Choice::ContextFree(ContextFree::default()),
            Whose::Rules => Choice::Fixed(Arc::new(RulesPolicy::new(BTreeMap::new(), known.pool.clone()))),
            Whose::BestSingle => Choice::Fixed(Arc::new(BestSingle::new(known.best_single.clone()))),
            Whose::Random => Choice::Fixed(Arc::new(Random::default())),
            Whose::Mix2 => return None,
            Whose::Oracle => Choice::Fixed(Arc::new(Oracle::new(Arc::clone(&known.scores)))),
        };
        Some(Self { online: Online::new(BanditSettings::default(), schema), seq: 0, choice })
    }

    /// What serves now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let policy: Arc<dyn Policy> = match &self.choice {
            Choice::Bandit => Arc::new(self.online.policy()),
            Choice::ContextFree(policy) => Arc::new(policy.clone()),
            Choice::Fixed(policy) => Arc::clone(policy),
        };
        Snapshot { policy, forecasts: Arc::clone(self.online.forecasts()) }
    }

    /// A stand-in for while the pupil learns: see [`super::stand::LatestPolicy::publish`].
    pub(super) fn stand_in() -> Snapshot {
        Snapshot { policy: Arc::new(Random::default()), forecasts: Arc::default() }
    }

    /// Takes in what a model scored on a request.
    pub(super) fn learn(&mut self, features: &Features, model: &ModelName, score: f64) {
        self.seq += 1;
        match &mut self.choice {
            Choice::Bandit => {
                self.online.teach(self.seq, &Lesson { features, model, old: None, new: Some(score) });
            }
            Choice::ContextFree(policy) => policy.learn(model, score),
            Choice::Fixed(_) => {}
        }
    }

    /// Takes in what the calls of a request cost.
    pub(super) fn observe(&mut self, trace: &Trace) {
        for outcome in trace.outcomes.iter().filter(|outcome| outcome.replied) {
            self.observe_call(&Call {
                model: &outcome.model,
                prompt_bytes: trace.features.prompt_bytes,
                tokens_out: outcome.tokens_out,
                cost: outcome.cost,
                latency: outcome.latency,
            });
        }
    }

    /// Takes in what one call cost.
    pub(super) fn observe_call(&mut self, call: &Call<'_>) {
        self.online.observe(self.seq, call);
    }
}
