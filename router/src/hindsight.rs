//! Hindsight: which sets a policy would have drawn at a decision that was logged, and with which
//! probability.
//!
//! The policy is asked as it would have been at the time: the same features, the same models on offer at
//! the same expected costs, the same completion of sets. What it is not told is how much money was left:
//! the trace does not keep it, so a set here may be dearer than the budget of the moment allowed. Nobody
//! is called.

use crate::decide::{Growth, held_to_its_word, plausible_answers, sorted};
use crate::forecast::Forecast;
use crate::money::NanoUsd;
use crate::policy::{Ask, Contender, Policy};
use crate::subset::Limits;
use crate::trace::Trace;

/// A set that a policy may draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Chance {
    /// Its members as indices of the decision's candidates, sorted.
    pub set: Vec<usize>,
    /// The model that is picked first, as such an index.
    pub first: usize,
    /// The probability of this first pick, and so of the set by it.
    pub probability: f64,
    /// The probability that its merged answer is right, as the policy predicts it.
    pub predicted: f64,
    /// What it is expected to cost.
    pub cost: NanoUsd,
}

/// What a policy would have done at a logged decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Hindsight {
    /// Every set that it may draw, one for each first pick of positive probability, or for every first pick.
    pub chances: Vec<Chance>,
    /// What it predicts of the logged set.
    pub predicted: f64,
    /// The pick probability of each model on offer, by the order of the candidates.
    pub picks: Vec<f64>,
    /// The probability with which it would have drawn the logged set.
    pub propensity: f64,
}

impl Hindsight {
    /// Asks this policy about a logged decision.
    #[must_use]
    pub fn of(policy: &dyn Policy, trace: &Trace) -> Self {
        Self::asked(policy, trace, false)
    }

    /// The same with a chance for every first pick that is not barred, whatever its probability: what would have
    /// come of always beginning with one model.
    #[must_use]
    pub fn of_every_first(policy: &dyn Policy, trace: &Trace) -> Self {
        Self::asked(policy, trace, true)
    }

    fn asked(policy: &dyn Policy, trace: &Trace, every_first: bool) -> Self {
        let decision = &*trace.decision;
        let candidates = &decision.candidates;
        let offered: Vec<usize> =
            candidates.iter().enumerate().filter(|(_, c)| c.is_on_offer()).map(|(at, _)| at).collect();
        let contenders: Vec<Contender> = offered
            .iter()
            .filter_map(|at| candidates.get(*at))
            .map(|c| Contender {
                name: c.model.clone(),
                forecast: Forecast { cost: c.cost, latency_p95: c.latency_p95 },
                barred: c.ineligible.is_some(),
            })
            .collect();
        let ask = Ask {
            features: &trace.features,
            projected: &policy.project(&trace.features),
            task: &decision.task.name,
            objective: decision.objective,
            caller_ref: trace.caller_ref.as_deref(),
            contenders: &contenders,
        };
        let scored = held_to_its_word(policy.score(&ask), &contenders);
        let limits = Limits {
            calls_max: decision.calls_max as usize,
            ceiling: NanoUsd::MAX,
            quality_threshold: decision.quality_threshold,
            answers: plausible_answers(&trace.answer_kind()),
        };
        let growth = Growth::new(&scored, candidates, &offered, limits, decision.objective);
        let place = |at: &usize| offered.get(*at).copied();
        let picks: Vec<f64> = scored.estimates.iter().map(|estimate| estimate.pick).collect();
        let chances: Vec<Chance> = picks
            .iter()
            .enumerate()
            .zip(&contenders)
            .filter(|((_, pick), contender)| **pick > 0.0 || (every_first && !contender.barred))
            .map(|((first, pick), _)| {
                let grown = growth.set_of(first);
                let set: Vec<usize> = grown.iter().filter_map(place).collect();
                let cost = set.iter().filter_map(|at| candidates.get(*at)).map(|c| c.cost).sum();
                let predicted = growth.predicted(&grown);
                Chance {
                    set: sorted(&set),
                    first: place(&first).unwrap_or(first),
                    probability: *pick,
                    predicted,
                    cost,
                }
            })
            .collect();
        let logged = sorted(&decision.set);
        let within = |at: &usize| offered.iter().position(|place| place == at);
        let predicted = growth.predicted(&decision.set.iter().filter_map(within).collect::<Vec<_>>());
        let propensity = chances.iter().filter(|chance| chance.set == logged).map(|chance| chance.probability);
        Self { propensity: propensity.sum::<f64>().min(1.0), predicted, picks, chances }
    }

    /// The predicted probability that its answer is right, over all that it may draw.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.chances.iter().map(|chance| chance.probability * chance.predicted).sum()
    }

    /// The expected cost, over all that it may draw, in nano-dollars.
    #[must_use]
    pub fn cost_nanos(&self) -> f64 {
        self.chances.iter().map(|chance| chance.probability * chance.cost.nanos() as f64).sum()
    }

    /// The probability that it would have picked this candidate first.
    #[must_use]
    pub fn first(&self, candidate: usize) -> f64 {
        self.chances.iter().filter(|chance| chance.first == candidate).map(|chance| chance.probability).sum()
    }
}
