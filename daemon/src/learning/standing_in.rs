//! Whether the best single model stands in for the running policy: counted from judged decisions, decided like every
//! change of the roles.
//!
//! A policy that is beaten by always beginning with one model keeps a small share of the choices, learns on from all of
//! them, and is back when its own estimate says that it is better ([`pointsman_learner::evaluate::fallback`]). Nothing
//! here is on the request path.

use pointsman_learner::evaluate::fallback::Fallback;
use pointsman_learner::evaluate::running::Look;
use pointsman_router::clock::Timestamp;
use pointsman_router::hindsight::{Chance, Hindsight};
use pointsman_router::ids::{ModelName, PolicyVersion};
use pointsman_router::policy::{PolicyKind, Snapshot};
use pointsman_router::trace::Trace;
use serde::{Deserialize, Serialize};

use crate::store::ledger::{Lifecycle, StandIn};

/// The running policy against each model alone, since it, or whoever stands in for it, began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FallbackTally {
    version: PolicyVersion,
    stands_in: Option<ModelName>,
    pub(super) since: Timestamp,
    pub(super) sums: Fallback,
}

impl FallbackTally {
    pub(super) fn new(roles: &Lifecycle) -> Self {
        let Lifecycle { running, running_since, stands_in, .. } = roles;
        Self {
            version: running.clone(),
            stands_in: stands_in.as_ref().map(|stands_in| stands_in.model.clone()),
            since: stands_in.as_ref().map_or(*running_since, |stands_in| stands_in.since),
            sums: Fallback::default(),
        }
    }

    /// Whether it counts what these roles are.
    pub(super) fn is_of(&self, roles: &Lifecycle) -> bool {
        let stands_in = roles.stands_in.as_ref().map(|StandIn { model, .. }| model);
        self.version == roles.running && self.stands_in.as_ref() == stands_in
    }

    pub(super) fn judged(&mut self, trace: &Trace, policy: &Snapshot, scores: (Option<f64>, Option<f64>)) {
        let decision = &trace.decision;
        let learns = policy.policy.kind() != PolicyKind::Rules;
        if !learns || decision.policy != self.version || trace.at < self.since {
            return;
        }
        let hindsight = Hindsight::of_every_first(&*policy.policy, trace);
        let mut logged = decision.set.clone();
        logged.sort_unstable();
        let price = decision.objective.cost_weight_per_usd / 1e9;
        let utility = |chance: &Chance| chance.predicted - price * chance.cost.nanos() as f64;
        let own = Look {
            weight: hindsight.propensity / decision.set_propensity,
            direct: hindsight.chances.iter().map(|chance| chance.probability * utility(chance)).sum(),
            modelled: hindsight.predicted,
        };
        let rivals: Vec<(ModelName, Look)> = hindsight
            .chances
            .iter()
            .filter_map(|chance| {
                let hit = f64::from(u8::from(chance.set == logged));
                let model = decision.candidates.get(chance.first)?.model.clone();
                Some((model, Look { weight: hit / decision.set_propensity, direct: utility(chance), ..own }))
            })
            .collect();
        self.sums.observe(&own, &rivals, scores);
    }
}

#[cfg(test)]
mod tests;
