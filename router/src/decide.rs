//! Decide: mask, score, draw, complete, and log with which probability.
//!
//! The eligible set is masked before the draw and logged; the first model is drawn from the policy's
//! pick probabilities; the set is completed deterministically from it ([`crate::subset`]), so the
//! probability of the set and of each member is exact: P(S) = Σ over the first picks a with S(a) = S
//! of p(a), and the inclusion probability of m is Σ over those with m ∈ S(a).
//!
//! Two masks give way where they would leave nobody, because nothing else would ever close them
//! again: when every model that could serve has its breaker open, all of them may be tried; when all
//! are too slow for the deadline, the fastest is, of those whose breaker is closed if there is one.
//! Money never gives way.
//!
//! A policy is held to its word before anything is drawn: what it says that is no number, no
//! probability or nobody's changes who is chosen, but neither who may be nor what is logged of it.

use std::fmt::Write as _;
use std::time::Duration;

use crate::admit::Admitted;
use crate::clock::Draw;
use crate::decision::{Candidate, Decision, Ineligible};
use crate::encode::Encoded;
use crate::forecast::Forecast;
use crate::ids::{ModelName, TaskType};
use crate::model::{Availability, Model, ModelCard};
use crate::money::NanoUsd;
use crate::pacing::Pace;
use crate::policy::{Ask, Completion, Contender, Estimate, Objective, Policy, PolicyKind, Scored};
use crate::request::{AnswerKind, Request};
use crate::settings::{CALLS_LIMIT, Settings};
use crate::subset::{self, Limits, Member};

/// Why nothing can be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecideError {
    /// No model may be called, for reasons other than money.
    #[error("no model can be called, see the reason of each")]
    NoModel {
        /// Each registered model's reason.
        reasons: Vec<(ModelName, Ineligible)>,
    },
    /// The cheapest call does not fit the request's own cap.
    #[error(
        "the cheapest call may cost {cheapest} and max_cost_usd_micros allows {cap}, raise it or lower output_tokens_max"
    )]
    RequestCap {
        /// Worst case of the cheapest eligible model.
        cheapest: NanoUsd,
        /// What the request allows.
        cap: NanoUsd,
    },
    /// The cheapest call does not fit what the budget has left.
    #[error("the cheapest call may cost {cheapest} and the budget has {left} left")]
    Budget {
        /// Worst case of the cheapest eligible model.
        cheapest: NanoUsd,
        /// What the budget has left.
        left: NanoUsd,
    },
}

/// What a decision may spend.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Means {
    /// What the budget has left; `None`: there is no budget.
    pub left: Option<NanoUsd>,
    /// What pacing asks.
    pub pace: Pace,
}

/// Chooses models for a request within these means.
///
/// # Errors
/// [`DecideError`] when nothing can be chosen; nothing was changed but `draw`.
pub fn decide(
    encoded: &Encoded,
    draw: &mut Draw,
    settings: &Settings,
    means: Means,
) -> Result<Decision, DecideError> {
    let Means { left, pace } = means;
    let Encoded { admitted, features, projected, task } = encoded;
    let request = &admitted.request;
    let objective = objective(request, settings, pace);
    // A free model passes even where a budget overran: denying it would save nothing.
    let left_at_least_nothing = left.unwrap_or(NanoUsd::MAX).max(NanoUsd::ZERO);
    let ceiling = request.max_cost.unwrap_or(NanoUsd::MAX).min(left_at_least_nothing);
    let mut candidates = mask(encoded, settings, ceiling, pace);
    let eligible: Vec<usize> = (0..candidates.len()).filter(|i| at(&candidates, *i).is_some()).collect();
    if eligible.is_empty() {
        return Err(refusal(&candidates, request.max_cost, left));
    }
    let contenders: Vec<Contender> = eligible.iter().filter_map(|i| candidates.get(*i)).map(contender).collect();
    let policy = admitted.snapshot.policy.as_ref();
    let ask = Ask {
        features,
        projected,
        task: &task.name,
        objective,
        caller_ref: request.prompt.caller_ref.as_deref(),
        contenders: &contenders,
    };
    let scored = held_to_its_word(policy.score(&ask), &contenders);
    let calls_max = calls_max(request, &task.name, settings);
    let growth = Growth::new(&scored, &candidates, &eligible, limits(request, calls_max, ceiling), objective);
    let chosen = growth.draw(draw);
    write_back(&mut candidates, &eligible, &scored, &chosen);
    let able = contenders.iter().filter(|c| !c.barred).count();
    let why = why(policy, &scored, &chosen, able);
    Ok(Decision {
        id: admitted.id,
        at: admitted.at,
        seed: admitted.seed,
        policy: policy.version().clone(),
        policy_kind: policy.kind(),
        task: task.clone(),
        objective,
        pace_weight_per_usd: pace.cost_weight_per_usd,
        set: chosen.set.iter().filter_map(|i| eligible.get(*i).copied()).collect(),
        candidates,
        set_propensity: chosen.propensity,
        calls_max,
        quality_threshold: request.quality_threshold,
        predicted_quality: chosen.predicted,
        why,
    })
}

/// The candidate at this place, if the policy is to score it.
fn at(candidates: &[Candidate], i: usize) -> Option<&Candidate> {
    candidates.get(i).filter(|c| c.is_on_offer())
}

fn contender(candidate: &Candidate) -> Contender {
    Contender {
        name: candidate.model.clone(),
        forecast: Forecast { cost: candidate.cost, latency_p95: candidate.latency_p95 },
        barred: candidate.ineligible.is_some(),
    }
}

/// Request over configuration; without a value, quality alone counts. Pacing raises the price of money.
fn objective(request: &Request, settings: &Settings, pace: Pace) -> Objective {
    let own = match (settings.cost_weight_per_usd, request.answer_value.or(settings.answer_value)) {
        (Some(cost_weight_per_usd), _) => cost_weight_per_usd,
        (None, Some(value)) => Objective::of_answer_value(value).cost_weight_per_usd,
        (None, None) => 0.0,
    };
    Objective { cost_weight_per_usd: own + pace.cost_weight_per_usd }
}

fn calls_max(request: &Request, task: &TaskType, settings: &Settings) -> u32 {
    let by_task = || settings.calls_max_by_task.get(task).copied().unwrap_or(settings.calls_max_default);
    request.calls_max.unwrap_or_else(by_task).clamp(1, CALLS_LIMIT)
}

/// How many different answers are plausible where the request does not list them.
pub(crate) const PLAUSIBLE_ANSWERS: f64 = 10.0;

/// How many different answers are plausible.
#[must_use]
pub fn plausible_answers(kind: &AnswerKind) -> f64 {
    match kind {
        AnswerKind::Label { allowed } if allowed.len() > 1 => allowed.len() as f64,
        AnswerKind::Label { .. } | AnswerKind::Number { .. } | AnswerKind::Json { .. } | AnswerKind::Text => {
            PLAUSIBLE_ANSWERS
        }
    }
}

fn limits(request: &Request, calls_max: u32, ceiling: NanoUsd) -> Limits {
    Limits {
        calls_max: calls_max as usize,
        ceiling,
        quality_threshold: request.quality_threshold,
        answers: plausible_answers(&request.kind),
    }
}

/// All registered models with the reasons of those that may not be called.
fn mask(encoded: &Encoded, settings: &Settings, ceiling: NanoUsd, pace: Pace) -> Vec<Candidate> {
    let admitted = &encoded.admitted;
    let mut candidates: Vec<Candidate> =
        admitted.pool.models().iter().map(|model| candidate(model, encoded, settings, ceiling)).collect();
    let none_left = |candidates: &[Candidate]| candidates.iter().all(|c| c.ineligible.is_some());
    if none_left(&candidates) {
        for open in candidates.iter_mut().filter(|c| c.ineligible == Some(Ineligible::BreakerOpen)) {
            open.ineligible = None;
        }
    }
    if none_left(&candidates) {
        let slow = candidates
            .iter_mut()
            .zip(admitted.pool.models())
            .filter(|(c, _)| c.ineligible == Some(Ineligible::TooSlow));
        let fastest = slow.min_by_key(|(c, model)| (!model.breaker.allows(admitted.at), c.latency_p95));
        if let Some((fastest, _)) = fastest {
            fastest.ineligible = None;
        }
    }
    if let Some(cost_max) = pace.cost_max {
        hold_to_pace(&mut candidates, cost_max);
    }
    candidates
}

/// Leaves out what pacing has not put by for; the cheapest always may be called.
fn hold_to_pace(candidates: &mut [Candidate], cost_max: NanoUsd) {
    let able = |c: &Candidate| c.ineligible.is_none();
    let Some(cheapest) = candidates.iter().filter(|c| able(c)).map(|c| c.cost).min() else { return };
    for dear in candidates.iter_mut().filter(|c| able(c) && c.cost > cost_max.max(cheapest)) {
        dear.ineligible = Some(Ineligible::Paced);
    }
}

fn candidate(model: &Model, encoded: &Encoded, settings: &Settings, ceiling: NanoUsd) -> Candidate {
    let Encoded { admitted, features, projected, .. } = encoded;
    let request = &admitted.request;
    let forecast = admitted.snapshot.forecast(&model.card, (features, projected), request.output_tokens_max);
    let worst_case = model
        .card
        .worst_case(features.prompt_bytes as usize, request.prompt.messages.len(), request.output_tokens_max)
        .saturating_mul(settings.attempts_max.max(1));
    Candidate {
        model: model.name().clone(),
        ineligible: reason(model, admitted, features.prompt_bytes)
            .or((worst_case > ceiling).then_some(Ineligible::TooDear))
            .or(is_too_slow(&forecast, model.backend.wait(), admitted).then_some(Ineligible::TooSlow))
            // Last, because it gives way for all at once: an open breaker must hide no other reason.
            .or((!model.breaker.allows(admitted.at)).then_some(Ineligible::BreakerOpen)),
        quality: 0.0,
        utility: 0.0,
        cost: forecast.cost,
        latency_p95: forecast.latency_p95,
        worst_case,
        pick: 0.0,
        inclusion: 0.0,
        chosen: false,
    }
}

/// What keeps a model out whatever it costs.
fn reason(model: &Model, admitted: &Admitted, prompt_bytes: u32) -> Option<Ineligible> {
    let request = &admitted.request;
    let denied = request.models_denied.contains(model.name())
        || !(request.models_allowed.is_empty() || request.models_allowed.contains(model.name()));
    match model.availability {
        Availability::Disabled => Some(Ineligible::Disabled),
        Availability::Unavailable { .. } => Some(Ineligible::Unavailable),
        Availability::Available if denied => Some(Ineligible::NotAllowed),
        Availability::Available if does_not_fit(&model.card, prompt_bytes) => Some(Ineligible::TooLong),
        Availability::Available => {
            let covered = model.backend.covers(&model.card.upstream, request.prompt.caller_ref.as_deref());
            (!covered).then_some(Ineligible::NotCovered)
        }
    }
}

/// Whether a prompt cannot fit a context even at eight bytes a token, more than any tokenizer
/// averages over a whole prompt; closer calls are the provider's to refuse.
fn does_not_fit(card: &ModelCard, prompt_bytes: u32) -> bool {
    prompt_bytes / 8 > card.context_tokens_max
}

/// Whether the caller would not see the end of a call that has to wait for its turn.
fn is_too_slow(forecast: &Forecast, wait: Duration, admitted: &Admitted) -> bool {
    let Some(deadline) = admitted.deadline else { return false };
    let left = deadline.since(admitted.at);
    let takes = forecast.latency_p95.map_or(wait, |p95| p95.saturating_add(wait));
    takes > left || (!wait.is_zero() && wait >= left)
}

/// Says why nobody can be called: money, if money is all that is missing.
fn refusal(candidates: &[Candidate], cap: Option<NanoUsd>, left: Option<NanoUsd>) -> DecideError {
    let cheapest =
        candidates.iter().filter(|c| c.ineligible == Some(Ineligible::TooDear)).map(|c| c.worst_case).min();
    match (cheapest, cap, left) {
        (Some(cheapest), Some(cap), _) if cheapest > cap => DecideError::RequestCap { cheapest, cap },
        (Some(cheapest), _, Some(left)) => DecideError::Budget { cheapest, left },
        (None, _, _) | (Some(_), _, None) => DecideError::NoModel {
            reasons: candidates.iter().filter_map(|c| Some((c.model.clone(), c.ineligible?))).collect(),
        },
    }
}

/// How far from one the pick probabilities may sum before they are divided by their sum.
const PICKS_ROUNDING: f64 = 1e-9;

/// What a policy said, with one estimate for each contender, qualities and picks that are
/// probabilities and utilities that are finite. What kept its word is left as it is, to the bit.
pub(crate) fn held_to_its_word(mut scored: Scored, contenders: &[Contender]) -> Scored {
    scored.estimates.resize(contenders.len(), Estimate { quality: 0.0, utility: 0.0, pick: 0.0 });
    for (Estimate { quality, utility, pick }, contender) in scored.estimates.iter_mut().zip(contenders) {
        *quality = if quality.is_nan() { 0.0 } else { quality.clamp(0.0, 1.0) };
        *utility = if utility.is_nan() { f64::MIN } else { utility.clamp(f64::MIN, f64::MAX) };
        *pick = if pick.is_finite() && !contender.barred { pick.max(0.0) } else { 0.0 };
    }
    let total: f64 = scored.estimates.iter().map(|e| e.pick).sum();
    if (total - 1.0).abs() > PICKS_ROUNDING {
        let able = contenders.iter().filter(|c| !c.barred).count();
        for (estimate, contender) in scored.estimates.iter_mut().zip(contenders) {
            let even = if contender.barred { 0.0 } else { 1.0 / able.max(1) as f64 };
            estimate.pick = if total > 0.0 && total.is_finite() { estimate.pick / total } else { even };
        }
    }
    if let Completion::Listed(order) = &mut scored.completion {
        order.retain(|at| contenders.get(*at).is_some_and(|c| !c.barred));
    }
    scored
}

/// A price in probabilities of being right; one that is no number is too high.
fn price(objective: Objective, cost: NanoUsd) -> f64 {
    let price = objective.cost_weight_per_usd * cost.usd();
    if price.is_finite() { price } else { f64::MAX }
}

/// The set that was drawn, over the contenders' indices.
struct Chosen {
    set: Vec<usize>,
    propensity: f64,
    inclusion: Vec<f64>,
    predicted: f64,
}

/// Every set that could be drawn: one per first pick.
pub(crate) struct Growth<'a> {
    scored: &'a Scored,
    members: Vec<Member>,
    limits: Limits,
}

impl<'a> Growth<'a> {
    pub(crate) fn new(
        scored: &'a Scored,
        candidates: &[Candidate],
        eligible: &[usize],
        limits: Limits,
        objective: Objective,
    ) -> Self {
        let members = eligible
            .iter()
            .filter_map(|i| candidates.get(*i))
            .zip(&scored.estimates)
            .map(|(c, estimate)| Member {
                quality: estimate.quality,
                price: price(objective, c.cost),
                // What pacing bars joins no set, as if it were beyond every ceiling.
                worst_case: if c.ineligible.is_none() { c.worst_case } else { NanoUsd::MAX },
            })
            .collect();
        Self { scored, members, limits }
    }

    /// The set that follows from a first pick.
    pub(crate) fn set_of(&self, first: usize) -> Vec<usize> {
        match &self.scored.completion {
            Completion::Greedy => subset::grow(first, &self.members, &self.limits),
            Completion::Listed(order) => subset::listed(first, order, &self.members, &self.limits),
        }
    }

    fn draw(&self, draw: &mut Draw) -> Chosen {
        let picks = || self.scored.estimates.iter().map(|e| e.pick);
        let first = draw.index(picks()).unwrap_or(0);
        let set = self.set_of(first);
        let mut chosen = Chosen {
            predicted: self.predicted(&set),
            propensity: 0.0,
            inclusion: vec![0.0; self.members.len()],
            set,
        };
        let members = sorted(&chosen.set);
        for (other, pick) in picks().enumerate().filter(|(_, pick)| *pick > 0.0) {
            // With one call the set is the pick itself, and nothing needs to be grown to know it.
            let set = if self.limits.calls_max == 1 { vec![other] } else { self.set_of(other) };
            for member in &set {
                if let Some(inclusion) = chosen.inclusion.get_mut(*member) {
                    *inclusion += pick;
                }
            }
            if sorted(&set) == members {
                chosen.propensity += pick;
            }
        }
        chosen
    }

    /// The predicted accuracy of a set's merged answer.
    pub(crate) fn predicted(&self, set: &[usize]) -> f64 {
        let qualities: Vec<f64> = set.iter().filter_map(|i| self.members.get(*i)).map(|m| m.quality).collect();
        subset::predicted_accuracy(&qualities, self.limits.answers)
    }
}

/// The same members in the order of their indices.
pub(crate) fn sorted(set: &[usize]) -> Vec<usize> {
    let mut set = set.to_vec();
    set.sort_unstable();
    set
}

fn write_back(candidates: &mut [Candidate], eligible: &[usize], scored: &Scored, chosen: &Chosen) {
    for (i, ((place, estimate), inclusion)) in
        eligible.iter().zip(&scored.estimates).zip(&chosen.inclusion).enumerate()
    {
        if let Some(candidate) = candidates.get_mut(*place) {
            candidate.quality = estimate.quality;
            candidate.utility = estimate.utility;
            candidate.pick = estimate.pick;
            candidate.inclusion = *inclusion;
            candidate.chosen = chosen.set.contains(&i);
        }
    }
}

/// The choice in a sentence.
fn why(policy: &dyn Policy, scored: &Scored, chosen: &Chosen, eligible: usize) -> String {
    let mut text = String::with_capacity(96);
    let first = chosen.set.first().and_then(|i| scored.estimates.get(*i));
    let how = match policy.kind() {
        PolicyKind::Rules => "first of its rule",
        PolicyKind::Classifier => "best by predicted utility",
        PolicyKind::Bandit => "drawn by its chance of being best",
        PolicyKind::Reference => "as the reference says",
    };
    if let Some(first) = first {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{how} among {eligible}, p {:.2}; set of {} predicted right {:.2}",
            first.pick,
            chosen.set.len(),
            chosen.predicted
        );
    }
    if let Some(note) = &scored.note {
        text.push_str("; ");
        text.push_str(note);
    }
    text
}
