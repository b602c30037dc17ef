//! The policy that always works: task type to models, as the configuration lists them.
//!
//! It learns nothing and draws nothing: the first listed model that may be called is picked with
//! probability one, and a set is completed in the order of the list. A model that is not listed is
//! never called, except where no listed one can be: then the cheapest of the others serves, and the
//! note says so, because an answer is better than none.

use std::borrow::Cow;
use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{ModelName, PolicyVersion, TaskType};
use crate::policy::{Ask, Completion, Estimate, Policy, PolicyKind, Scored};

/// The probability of being right that rules state for every model: they do not know.
pub const PRIOR_QUALITY: f64 = 0.5;

/// Task type to models.
#[derive(Debug, Clone, PartialEq)]
pub struct RulesPolicy {
    version: PolicyVersion,
    rules: BTreeMap<TaskType, Vec<ModelName>>,
    default: Vec<ModelName>,
}

impl RulesPolicy {
    /// The policy of these rules; `default` serves task types without a rule of their own.
    #[must_use]
    pub fn new(rules: BTreeMap<TaskType, Vec<ModelName>>, default: Vec<ModelName>) -> Self {
        // Debug of a name is its quoted text, so no two different sets of rules read alike.
        let hash = xxh3_64(format!("{rules:?} {default:?}").as_bytes());
        Self { version: PolicyVersion::from(format!("rules-{hash:016x}")), rules, default }
    }
}

impl Policy for RulesPolicy {
    fn version(&self) -> &PolicyVersion {
        &self.version
    }

    fn kind(&self) -> PolicyKind {
        PolicyKind::Rules
    }

    /// A listed model's utility is 1/(1 + its place), every other's is zero: ranks, not money.
    fn score(&self, ask: &Ask<'_>) -> Scored {
        let rule = self.rules.get(ask.task);
        let names = rule.unwrap_or(&self.default);
        let place = |name: &ModelName| ask.contenders.iter().position(|c| c.name == *name && !c.barred);
        let mut order: Vec<usize> = Vec::with_capacity(names.len());
        for at in names.iter().filter_map(place) {
            if !order.contains(&at) {
                order.push(at);
            }
        }
        let note = if order.is_empty() {
            let able = ask.contenders.iter().enumerate().filter(|(_, c)| !c.barred);
            let cheapest = able.min_by_key(|(_, c)| c.forecast.cost);
            order.extend(cheapest.map(|(at, _)| at));
            Cow::Borrowed("no model of the rule can be called, the cheapest other one serves")
        } else if rule.is_some() {
            Cow::Owned(format!("rule for {}", ask.task))
        } else {
            Cow::Borrowed("default rule")
        };
        let mut estimates =
            vec![Estimate { quality: PRIOR_QUALITY, utility: 0.0, pick: 0.0 }; ask.contenders.len()];
        for (rank, at) in order.iter().enumerate() {
            if let Some(estimate) = estimates.get_mut(*at) {
                estimate.utility = 1.0 / (1.0 + rank as f64);
                estimate.pick = if rank == 0 { 1.0 } else { 0.0 };
            }
        }
        Scored { estimates, completion: Completion::Listed(order), note: Some(note) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{Features, SchemaHash};
    use crate::forecast::Forecast;
    use crate::money::NanoUsd;
    use crate::policy::{Contender, Objective};

    fn policy() -> RulesPolicy {
        let names = |list: &[&str]| list.iter().map(|n| ModelName::new(n)).collect::<Vec<_>>();
        RulesPolicy::new([(TaskType::new("sums"), names(&["c", "gone", "a", "c"]))].into(), names(&["b"]))
    }

    fn check(task: &str, contenders: &[(&str, i64)], picked: &str, listed: &[usize]) {
        let features = Features {
            text: Vec::new(),
            surface: [0.0; 8],
            tags: Vec::new(),
            sketch: Vec::new(),
            prompt_bytes: 1,
            schema: SchemaHash(0),
        };
        let contenders: Vec<Contender> = contenders
            .iter()
            .map(|(name, cost)| Contender {
                name: ModelName::new(name),
                forecast: Forecast { cost: NanoUsd::new(*cost), latency_p95: None },
                barred: false,
            })
            .collect();
        let ask = Ask {
            projected: &[],
            features: &features,
            task: &TaskType::new(task),
            objective: Objective { cost_weight_per_usd: 1.0 },
            caller_ref: None,
            contenders: &contenders,
        };
        let scored = policy().score(&ask);
        let first = scored.estimates.iter().position(|e| e.pick > 0.0).unwrap();
        assert_eq!(contenders[first].name.as_str(), picked);
        assert_eq!(scored.completion, Completion::Listed(listed.to_vec()));
        assert!((scored.estimates.iter().map(|e| e.pick).sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(
            scored.note.is_some_and(|n| n.contains("cheapest")),
            !["a", "c"].contains(&picked) && task == "sums"
        );
    }

    #[test]
    fn the_first_listed_model_that_can_be_called_is_picked() {
        check("sums", &[("a", 1), ("b", 1), ("c", 9)], "c", &[2, 0]);
        check("sums", &[("a", 1), ("b", 1)], "a", &[0]);
        check("other", &[("a", 1), ("b", 5), ("c", 9)], "b", &[1]);
    }

    #[test]
    fn without_a_listed_model_the_cheapest_serves() {
        check("sums", &[("x", 7), ("y", 3), ("z", 3)], "y", &[1]);
    }

    #[test]
    fn the_version_is_that_of_the_rules() {
        assert_eq!(policy().version(), policy().version());
        assert_ne!(policy().version(), RulesPolicy::new(BTreeMap::new(), Vec::new()).version());
        assert!(policy().version().as_str().starts_with("rules-"));
    }
}
