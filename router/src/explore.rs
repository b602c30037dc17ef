//! Exploration around a policy: what it chooses, bent by a known share towards what somebody wants to
//! learn of.
//!
//! The pick probabilities that come out are the ones that are drawn from and logged, so whatever is
//! explored stays exact. Where there is a challenger, most of the share is aimed at its choices, on the
//! requests where the two disagree ([`crate::selection::aim`]); the rest is spread evenly. A uniform
//! floor alone starves the gate: it spends most where nothing is to be learned. Without a challenger
//! all of it is spread evenly. The version and the kind are those of the policy that is explored around.

use std::borrow::Cow;
use std::sync::Arc;

use crate::features::Features;
use crate::forecast::Leans;
use crate::ids::{ModelName, PolicyVersion, TaskType};
use crate::policy::{Ask, Contender, Policy, PolicyKind, Scored};
use crate::selection::{aim, floor};

/// A policy that explores.
#[derive(Debug, Clone)]
pub struct Explored {
    policy: Arc<dyn Policy>,
    towards: Option<(Arc<dyn Policy>, f64)>,
    even: f64,
}

impl Explored {
    /// Explores around this policy: each choice of the challenger is given at least its share of the
    /// probability that the challenger gives it, and `even` is spread over all that may be picked.
    #[must_use]
    pub fn new(policy: Arc<dyn Policy>, towards: Option<(Arc<dyn Policy>, f64)>, even: f64) -> Self {
        Self { policy, towards, even: if even.is_nan() { 0.0 } else { even.clamp(0.0, 1.0) } }
    }
}

/// A policy for which one model stands in: that model is picked first wherever it is on offer. What the policy says
/// of the models, and how it completes a set, stays.
#[derive(Debug, Clone)]
pub struct StoodIn {
    policy: Arc<dyn Policy>,
    model: ModelName,
}

impl StoodIn {
    /// Lets this model stand in.
    #[must_use]
    pub fn new(policy: Arc<dyn Policy>, model: ModelName) -> Self {
        Self { policy, model }
    }
}

impl Policy for StoodIn {
    fn version(&self) -> &PolicyVersion {
        self.policy.version()
    }

    fn kind(&self) -> PolicyKind {
        self.policy.kind()
    }

    fn project(&self, features: &Features) -> Vec<f32> {
        self.policy.project(features)
    }

    fn infer_task(&self, projected: &[f32]) -> Option<TaskType> {
        self.policy.infer_task(projected)
    }

    fn leans(&self, projected: &[f32], prompt_bytes: u32, model: &str) -> Leans {
        self.policy.leans(projected, prompt_bytes, model)
    }

    fn score(&self, ask: &Ask<'_>) -> Scored {
        let mut scored = self.policy.score(ask);
        let stands = |contender: &Contender| contender.name == self.model && !contender.barred;
        if ask.contenders.iter().any(stands) {
            for (estimate, contender) in scored.estimates.iter_mut().zip(ask.contenders) {
                estimate.pick = f64::from(u8::from(stands(contender)));
            }
            scored.note = Some(Cow::Borrowed("the best single model stands in for the policy"));
        }
        scored
    }
}

/// The pick probabilities of a policy among those that may be picked, as a distribution; all alike
/// where it gives none.
#[must_use]
pub fn picks_of(scored: &Scored, contenders: &[Contender]) -> Vec<f64> {
    let pick = |(at, contender): (usize, &Contender)| {
        let pick = scored.estimates.get(at).map_or(0.0, |estimate| estimate.pick);
        if contender.barred || !pick.is_finite() { 0.0 } else { pick.max(0.0) }
    };
    let picks: Vec<f64> = contenders.iter().enumerate().map(pick).collect();
    let total: f64 = picks.iter().sum();
    if total > 0.0 && total.is_finite() {
        return picks.into_iter().map(|pick| pick / total).collect();
    }
    let able = contenders.iter().filter(|contender| !contender.barred).count().max(1) as f64;
    contenders.iter().map(|contender| if contender.barred { 0.0 } else { 1.0 / able }).collect()
}

impl Policy for Explored {
    fn version(&self) -> &PolicyVersion {
        self.policy.version()
    }

    fn kind(&self) -> PolicyKind {
        self.policy.kind()
    }

    fn project(&self, features: &Features) -> Vec<f32> {
        self.policy.project(features)
    }

    fn infer_task(&self, projected: &[f32]) -> Option<TaskType> {
        self.policy.infer_task(projected)
    }

    fn leans(&self, projected: &[f32], prompt_bytes: u32, model: &str) -> Leans {
        self.policy.leans(projected, prompt_bytes, model)
    }

    fn score(&self, ask: &Ask<'_>) -> Scored {
        let mut scored = self.policy.score(ask);
        let mut picks = picks_of(&scored, ask.contenders);
        if let Some((challenger, share)) = &self.towards {
            let projected = &challenger.project(ask.features);
            let wanted = picks_of(&challenger.score(&Ask { projected, ..*ask }), ask.contenders);
            aim(&mut picks, &wanted, *share);
        }
        spread(&mut picks, ask.contenders, self.even);
        for (estimate, pick) in scored.estimates.iter_mut().zip(picks) {
            estimate.pick = pick;
        }
        scored
    }
}

/// Spreads the share over those that may be picked.
fn spread(picks: &mut [f64], contenders: &[Contender], share: f64) {
    let mut able: Vec<f64> =
        picks.iter().zip(contenders).filter(|(_, contender)| !contender.barred).map(|(pick, _)| *pick).collect();
    floor(&mut able, share);
    let places = picks.iter_mut().zip(contenders).filter(|(_, contender)| !contender.barred);
    for ((pick, _), spread) in places.zip(able) {
        *pick = spread;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::features::{SURFACE_DIMS, SchemaHash};
    use crate::forecast::Forecast;
    use crate::money::NanoUsd;
    use crate::policy::Objective;
    use crate::rules::RulesPolicy;

    fn always(model: &str) -> Arc<dyn Policy> {
        Arc::new(RulesPolicy::new(BTreeMap::new(), vec![model.into()]))
    }

    /// The picks among `a`, `b` and `c`, of which `c` is barred.
    fn picks(policy: &Explored) -> Vec<f64> {
        let contender = |(name, barred): (&str, bool)| Contender {
            name: name.into(),
            forecast: Forecast { cost: NanoUsd::ZERO, latency_p95: None },
            barred,
        };
        let features = Features {
            text: Vec::new(),
            surface: [0.0; SURFACE_DIMS],
            tags: Vec::new(),
            sketch: Vec::new(),
            prompt_bytes: 1,
            schema: SchemaHash(0),
        };
        let ask = Ask {
            features: &features,
            projected: &[],
            task: &TaskType::new("t"),
            objective: Objective { cost_weight_per_usd: 0.0 },
            caller_ref: None,
            contenders: &[("a", false), ("b", false), ("c", true)].map(contender),
        };
        policy.score(&ask).estimates.iter().map(|estimate| estimate.pick).collect()
    }

    fn check(towards: Option<(&str, f64)>, even: f64, expected: [f64; 3]) {
        let towards = towards.map(|(model, share)| (always(model), share));
        let got = picks(&Explored::new(always("a"), towards, even));
        assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-12), "{got:?} {expected:?}");
    }

    #[test]
    fn what_is_explored_is_exact_and_never_barred() {
        check(None, 0.0, [1.0, 0.0, 0.0]);
        check(None, 0.1, [0.95, 0.05, 0.0]);
        check(Some(("b", 0.2)), 0.0, [0.8, 0.2, 0.0]);
        check(Some(("b", 0.2)), 0.1, [0.77, 0.23, 0.0]);
        // Where the two agree nothing is spent, and a barred choice is not wanted.
        check(Some(("a", 0.2)), 0.0, [1.0, 0.0, 0.0]);
        check(Some(("c", 0.2)), 0.0, [1.0, 0.0, 0.0]);
        check(None, f64::NAN, [1.0, 0.0, 0.0]);
    }

    #[test]
    fn who_stands_in_is_picked_wherever_it_may_be_and_the_policy_a_little() {
        let stood_in = |model: &str| Arc::new(StoodIn::new(always("a"), model.into())) as Arc<dyn Policy>;
        let check = |model: &str, expected: [f64; 3]| {
            let got = picks(&Explored::new(stood_in(model), Some((always("a"), 0.1)), 0.0));
            assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-12), "{got:?} {expected:?}");
        };
        check("b", [0.1, 0.9, 0.0]);
        check("a", [1.0, 0.0, 0.0]);
        // Barred, or not there: the policy decides.
        check("c", [1.0, 0.0, 0.0]);
        check("d", [1.0, 0.0, 0.0]);
        assert_eq!(stood_in("b").version(), always("a").version());
    }

    #[test]
    fn it_goes_by_the_name_of_the_policy_around_which_it_explores() {
        let explored = Explored::new(always("a"), Some((always("b"), 0.5)), 0.0);
        assert_eq!((explored.version(), explored.kind()), (always("a").version(), PolicyKind::Rules));
    }
}
