//! Decisions on the wire, both ways, without loss down to a microsecond.
//!
//! A candidate that could not be chosen has no scores: they are left out where they are zero, and
//! absent ones are read as zero.

use pointsman_proto::v1;
use pointsman_router::decision::{Candidate, Decision, Ineligible, Task};
use pointsman_router::ids::DecisionId;
use pointsman_router::money::NanoUsd;
use pointsman_router::policy::{Objective, PolicyKind};

use super::{WireError, from_micros, micros, moment, required, timestamp};

/// A decision as replies and traces carry it.
#[must_use]
pub fn to_wire(decision: &Decision) -> v1::Decision {
    v1::Decision {
        decision_id: decision.id.to_string(),
        policy_version: decision.policy.as_str().to_owned(),
        policy_kind: kind_to_wire(decision.policy_kind).into(),
        task_type: decision.task.name.as_str().to_owned(),
        task_type_inferred: decision.task.inferred,
        candidates: decision.candidates.iter().map(candidate_to_wire).collect(),
        set_propensity: decision.set_propensity,
        why: decision.why.clone(),
        seed: decision.seed,
        calls_max: decision.calls_max,
        predicted_quality: decision.predicted_quality,
        decided_at: Some(timestamp(decision.at)),
        chosen_order: decision.set.iter().filter_map(|at| u32::try_from(*at).ok()).collect(),
        cost_weight_per_dollar: decision.objective.cost_weight_per_usd,
        quality_threshold: decision.quality_threshold,
        pace_weight_per_dollar: decision.pace_weight_per_usd,
    }
}

/// The decision that a trace kept.
///
/// # Errors
/// [`WireError`] when it is not what [`to_wire`] makes.
pub fn from_wire(decision: v1::Decision) -> Result<Decision, WireError> {
    let policy_kind = kind_from_wire(decision.policy_kind)?;
    let candidates: Vec<Candidate> =
        decision.candidates.into_iter().map(candidate_from_wire).collect::<Result<_, _>>()?;
    let mut set = Vec::with_capacity(decision.chosen_order.len());
    for position in decision.chosen_order {
        let at = usize::try_from(position).ok().filter(|at| *at < candidates.len());
        set.push(at.ok_or(WireError::Value { field: "decision.chosen_order", value: i64::from(position) })?);
    }
    Ok(Decision {
        id: DecisionId::parse(&decision.decision_id)?,
        at: moment(&required(decision.decided_at, "decision.decided_at")?),
        seed: decision.seed,
        policy: decision.policy_version.into(),
        policy_kind,
        task: Task { name: decision.task_type.into(), inferred: decision.task_type_inferred },
        objective: Objective { cost_weight_per_usd: decision.cost_weight_per_dollar },
        pace_weight_per_usd: decision.pace_weight_per_dollar,
        candidates,
        set,
        set_propensity: decision.set_propensity,
        calls_max: decision.calls_max,
        quality_threshold: decision.quality_threshold,
        predicted_quality: decision.predicted_quality,
        why: decision.why,
    })
}

fn candidate_to_wire(candidate: &Candidate) -> v1::Candidate {
    let eligible = candidate.ineligible.is_none();
    let amount = |amount: NanoUsd| (eligible || amount != NanoUsd::ZERO).then_some(amount.nanos());
    // Bits, not values: what is kept must come back as it was.
    let score = |score: f64| (eligible || score.to_bits() != 0).then_some(score);
    v1::Candidate {
        model: candidate.model.as_str().to_owned(),
        eligible,
        ineligible_reason: candidate.ineligible.map_or(v1::IneligibleReason::Unspecified, reason_to_wire).into(),
        quality: score(candidate.quality),
        cost_usd_nanos: amount(candidate.cost),
        latency_p95_us: candidate.latency_p95.map(micros),
        utility: score(candidate.utility),
        pick_propensity: candidate.pick,
        inclusion_propensity: candidate.inclusion,
        chosen: candidate.chosen,
        worst_case_usd_nanos: amount(candidate.worst_case),
    }
}

fn candidate_from_wire(candidate: v1::Candidate) -> Result<Candidate, WireError> {
    Ok(Candidate {
        ineligible: reason_from_wire(candidate.ineligible_reason)?,
        model: candidate.model.into(),
        quality: candidate.quality.unwrap_or_default(),
        utility: candidate.utility.unwrap_or_default(),
        cost: NanoUsd::new(candidate.cost_usd_nanos.unwrap_or_default()),
        latency_p95: candidate.latency_p95_us.map(from_micros),
        worst_case: NanoUsd::new(candidate.worst_case_usd_nanos.unwrap_or_default()),
        pick: candidate.pick_propensity,
        inclusion: candidate.inclusion_propensity,
        chosen: candidate.chosen,
    })
}

fn reason_to_wire(reason: Ineligible) -> v1::IneligibleReason {
    match reason {
        Ineligible::Disabled => v1::IneligibleReason::Disabled,
        Ineligible::Unavailable => v1::IneligibleReason::Unavailable,
        Ineligible::NotAllowed => v1::IneligibleReason::NotAllowed,
        Ineligible::BreakerOpen => v1::IneligibleReason::BreakerOpen,
        Ineligible::TooDear => v1::IneligibleReason::TooDear,
        Ineligible::TooSlow => v1::IneligibleReason::TooSlow,
        Ineligible::TooLong => v1::IneligibleReason::TooLong,
        Ineligible::NotCovered => v1::IneligibleReason::NotCovered,
        Ineligible::Paced => v1::IneligibleReason::Paced,
    }
}

fn reason_from_wire(value: i32) -> Result<Option<Ineligible>, WireError> {
    let field = "decision.candidates.ineligible_reason";
    let known =
        v1::IneligibleReason::try_from(value).map_err(|_| WireError::Value { field, value: value.into() })?;
    Ok(match known {
        v1::IneligibleReason::Unspecified => None,
        v1::IneligibleReason::Disabled => Some(Ineligible::Disabled),
        v1::IneligibleReason::Unavailable => Some(Ineligible::Unavailable),
        v1::IneligibleReason::NotAllowed => Some(Ineligible::NotAllowed),
        v1::IneligibleReason::BreakerOpen => Some(Ineligible::BreakerOpen),
        v1::IneligibleReason::TooDear => Some(Ineligible::TooDear),
        v1::IneligibleReason::TooSlow => Some(Ineligible::TooSlow),
        v1::IneligibleReason::TooLong => Some(Ineligible::TooLong),
        v1::IneligibleReason::NotCovered => Some(Ineligible::NotCovered),
        v1::IneligibleReason::Paced => Some(Ineligible::Paced),
    })
}

/// A policy's kind as the wire names it.
#[must_use]
pub fn kind_to_wire(kind: PolicyKind) -> v1::PolicyKind {
    match kind {
        PolicyKind::Rules => v1::PolicyKind::Rules,
        PolicyKind::Classifier => v1::PolicyKind::Classifier,
        PolicyKind::Bandit => v1::PolicyKind::Bandit,
        PolicyKind::Reference => v1::PolicyKind::Reference,
    }
}

fn kind_from_wire(value: i32) -> Result<PolicyKind, WireError> {
    match v1::PolicyKind::try_from(value) {
        Ok(v1::PolicyKind::Rules) => Ok(PolicyKind::Rules),
        Ok(v1::PolicyKind::Bandit) => Ok(PolicyKind::Bandit),
        Ok(v1::PolicyKind::Reference) => Ok(PolicyKind::Reference),
        Ok(v1::PolicyKind::Classifier) => Ok(PolicyKind::Classifier),
        Ok(v1::PolicyKind::Unspecified) | Err(_) => {
            Err(WireError::Value { field: "decision.policy_kind", value: value.into() })
        }
    }
}
