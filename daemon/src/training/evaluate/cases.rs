//! Held-out decisions as cases: what was on offer, what was drawn and said, and what the candidate
//! would have drawn instead.

use std::collections::{BTreeMap, VecDeque};

use pointsman_learner::evaluate::plan::Chance;
use pointsman_router::decide::plausible_answers;
use pointsman_router::decision::{Candidate, Decision};
use pointsman_router::forecast::Forecast;
use pointsman_router::ids::{ModelName, PolicyVersion};
use pointsman_router::money::NanoUsd;
use pointsman_router::policy::{Ask, Completion, Contender, Policy};
use pointsman_router::projection::Projection;
use pointsman_router::subset::{self, Limits, Member};
use pointsman_router::trace::Trace;

use super::EvaluationError;
use crate::store::ledger::Said;
use crate::training::log::{LoggedTrace, StoredLog};
use crate::training::rows::{cost, prompt_key, reward};

/// Judged decisions that are estimated on, at most: the latest.
pub const CASES_MAX: usize = 50_000;

/// A model that was on offer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    /// Its place among all models.
    pub(super) model: usize,
    /// What a call was expected to cost, in USD.
    pub(super) cost_usd: f64,
    /// How probably the candidate takes it to be right.
    pub(super) quality: f64,
    /// Whether pacing kept it out.
    pub(super) barred: bool,
}

/// One judged decision.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// Its place in the log.
    pub(super) seq: u64,
    /// What equal prompts share.
    pub(super) prompt: u64,
    /// The candidate's inputs.
    pub(super) dense: Vec<f32>,
    pub(super) offers: Vec<Offer>,
    /// The drawn set and its probability.
    pub(super) drawn: Vec<usize>,
    pub(super) propensity: f64,
    pub(super) reward: f64,
    pub(super) cost_usd: f64,
    /// What was said of single models.
    pub(super) labels: Vec<(usize, f64)>,
    /// The sets that the log could have drawn.
    pub(super) possible: Vec<Vec<usize>>,
    /// The sets that the candidate would draw.
    pub(super) chances: Vec<Chance>,
    /// The candidate's likeliest first model.
    pub(super) first: Option<usize>,
    pub(super) limits: Limits,
}

/// The cases of a log.
#[derive(Debug)]
pub(super) struct Cases {
    /// All models, by their places.
    pub(super) models: Vec<ModelName>,
    pub(super) judged: VecDeque<Case>,
    /// Held-out decisions, judged or not.
    pub(super) rows: u64,
    /// Judged decisions of the whole log.
    pub(super) judged_in_log: u64,
}

/// Reads the decisions that the incumbent made and whose first feedback came after `begin`: what others decided, in
/// another daemon, before it or on trial, says nothing of what the incumbent earns.
pub(super) fn read(
    log: &StoredLog,
    begin: u64,
    (policy, projection): (&dyn Policy, &Projection),
    incumbent: &PolicyVersion,
    is_over: &dyn Fn() -> bool,
) -> Result<Cases, EvaluationError> {
    let mut places = BTreeMap::new();
    let mut cases = Cases { models: Vec::new(), judged: VecDeque::new(), rows: 0, judged_in_log: 0 };
    for logged in log.read()? {
        if is_over() {
            return Err(EvaluationError::GivenUp);
        }
        let LoggedTrace { seq, trace, said } = logged?;
        let decision = &trace.decision;
        if decision.policy != *incumbent || trace.features.schema != projection.schema() || !was_drawn(decision) {
            continue;
        }
        let Some(right) = reward(&trace, &said) else {
            cases.rows += u64::from(!cases.judged.is_empty());
            continue;
        };
        cases.judged_in_log += 1;
        if said.first <= begin {
            continue;
        }
        cases.rows += 1;
        let mut place = |model: &ModelName| {
            let next = places.len();
            *places.entry(model.clone()).or_insert(next)
        };
        let case = case(&trace, &said, (policy, projection), &mut place);
        cases.judged.push_back(Case { seq, reward: right, ..case });
        if cases.judged.len() > CASES_MAX {
            cases.judged.pop_front();
        }
    }
    let mut models: Vec<(usize, ModelName)> = places.into_iter().map(|(model, place)| (place, model)).collect();
    models.sort();
    cases.models = models.into_iter().map(|(_, model)| model).collect();
    Ok(cases)
}

/// Whether the choice was logged with its probability.
fn was_drawn(decision: &Decision) -> bool {
    decision.set_propensity.is_finite() && decision.set_propensity > 0.0 && !decision.set.is_empty()
}

fn case(
    trace: &Trace,
    said: &Said,
    (policy, projection): (&dyn Policy, &Projection),
    place: &mut dyn FnMut(&ModelName) -> usize,
) -> Case {
    let decision = &trace.decision;
    let on_offer: Vec<&Candidate> = decision.candidates.iter().filter(|c| c.is_on_offer()).collect();
    let places: Vec<usize> = on_offer.iter().map(|candidate| place(&candidate.model)).collect();
    let limits = Limits {
        calls_max: decision.calls_max.max(1) as usize,
        ceiling: NanoUsd::MAX,
        quality_threshold: decision.quality_threshold,
        answers: plausible_answers(&trace.answer_kind()),
    };
    let contenders: Vec<Contender> = on_offer.iter().map(|candidate| contender(candidate)).collect();
    let ask = Ask {
        features: &trace.features,
        projected: &policy.project(&trace.features),
        task: &decision.task.name,
        objective: decision.objective,
        caller_ref: None,
        contenders: &contenders,
    };
    let scored = policy.score(&ask);
    let weight = decision.objective.cost_weight_per_usd;
    let qualities = |i: usize| scored.estimates.get(i).map_or(0.0, |estimate| estimate.quality);
    let (own, theirs) = (
        members(&on_offer, weight, qualities),
        members(&on_offer, weight, |i| on_offer.get(i).map_or(0.0, |c| c.quality)),
    );
    let named = |set: Vec<usize>| set.iter().filter_map(|i| places.get(*i).copied()).collect::<Vec<usize>>();
    let mut chances = Vec::new();
    for (i, estimate) in scored.estimates.iter().enumerate().filter(|(_, e)| e.pick > 0.0) {
        let set = match &scored.completion {
            Completion::Greedy => grow(i, &own, &limits),
            Completion::Listed(order) => subset::listed(i, order, &own, &limits),
        };
        chances.push(Chance { set: named(set), probability: estimate.pick });
    }
    let first = scored.estimates.iter().enumerate().max_by(|a, b| a.1.pick.total_cmp(&b.1.pick));
    let drawn: Vec<usize> = decision.chosen().map(|candidate| place(&candidate.model)).collect();
    let mut possible = vec![drawn.clone()];
    let picked = on_offer.iter().enumerate().filter(|(_, candidate)| candidate.pick > 0.0);
    possible.extend(picked.map(|(i, _)| named(grow(i, &theirs, &limits))));
    let labels = said.labels.iter().map(|(model, label)| (place(model), *label)).collect();
    let offers = on_offer.iter().zip(&places).enumerate().map(|(i, (candidate, model))| Offer {
        model: *model,
        cost_usd: candidate.cost.usd(),
        quality: qualities(i),
        barred: candidate.ineligible.is_some(),
    });
    Case {
        seq: 0,
        prompt: prompt_key(&trace.features),
        dense: projection.project(&trace.features).get(1..).unwrap_or_default().to_vec(),
        offers: offers.collect(),
        drawn,
        propensity: decision.set_propensity.min(1.0),
        reward: 0.0,
        cost_usd: cost(trace).usd(),
        labels,
        possible,
        chances,
        first: first.and_then(|(i, _)| places.get(i).copied()),
        limits,
    }
}

fn contender(candidate: &Candidate) -> Contender {
    Contender {
        name: candidate.model.clone(),
        forecast: Forecast { cost: candidate.cost, latency_p95: candidate.latency_p95 },
        barred: candidate.ineligible.is_some(),
    }
}

fn members(on_offer: &[&Candidate], weight_per_usd: f64, quality: impl Fn(usize) -> f64) -> Vec<Member> {
    let member = |(i, candidate): (usize, &&Candidate)| Member {
        quality: quality(i),
        price: weight_per_usd * candidate.cost.usd(),
        worst_case: if candidate.ineligible.is_none() { NanoUsd::ZERO } else { NanoUsd::MAX },
    };
    on_offer.iter().enumerate().map(member).collect()
}

/// The set that a first pick grows into; with one call it is the pick itself.
pub(super) fn grow(first: usize, members: &[Member], limits: &Limits) -> Vec<usize> {
    if limits.calls_max == 1 { vec![first] } else { subset::grow(first, members, limits) }
}
