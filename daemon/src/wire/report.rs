//! Reports of `Decide` callers: from the wire, and to and from their stored rows.
//!
//! A stored row never holds a raw answer, only its normal form as traces keep it.

use pointsman_proto::v1;
use pointsman_router::backend::CallError;
use pointsman_router::clock::Timestamp;
use pointsman_router::hold::Hold;
use pointsman_router::ids::{AttemptId, DecisionId, ModelName};
use pointsman_router::money::NanoUsd;
use pointsman_router::normal::NormalForm;
use pointsman_router::outcome::{Attempt, AttemptStatus, Billing, Outcome};
use prost::Message as _;

use super::trace::{hold_from_wire, hold_to_wire};
use super::{WireError, answer, from_micros, moment, outcome};

/// What was reported of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelReport {
    /// How its calls ended, without its text.
    pub outcome: Outcome,
    /// Its calls, as one attempt.
    pub attempt: Attempt,
    /// The normal form of its answer, as traces keep it.
    pub normal: Option<NormalForm>,
}

impl ModelReport {
    /// The bytes of its stored row.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        v1::ModelReport {
            outcome: Some(outcome::to_wire(&self.outcome)),
            attempt: Some(outcome::attempt_to_wire(&self.attempt)),
            answer: self.normal.as_ref().map(answer::normal_to_wire),
        }
        .encode_to_vec()
    }

    /// Reads a stored row.
    ///
    /// # Errors
    /// [`WireError`] for bytes that no daemon wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        let report =
            v1::ModelReport::decode(bytes).map_err(|error| WireError::Bytes { detail: error.to_string() })?;
        let missing = |field| WireError::Missing { field };
        Ok(Self {
            outcome: outcome::from_wire(report.outcome.ok_or(missing("report.outcome"))?, None),
            attempt: outcome::attempt_from_wire(report.attempt.ok_or(missing("report.attempt"))?)?,
            normal: report.answer.map(answer::normal_from_wire).transpose()?,
        })
    }
}

/// The end of a decision's report.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportEnd {
    /// The merged answer, as traces keep it.
    pub answer: Option<v1::MergedAnswer>,
    /// What the reported calls cost.
    pub cost: NanoUsd,
    /// The hold that it ends.
    pub hold: Option<Hold>,
}

impl ReportEnd {
    /// The bytes of its stored row.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        v1::ReportEnd {
            answer: self.answer.clone(),
            cost_usd_nanos: self.cost.nanos(),
            hold: self.hold.as_ref().map(hold_to_wire),
        }
        .encode_to_vec()
    }

    /// Reads a stored row of this decision.
    ///
    /// # Errors
    /// [`WireError`] for bytes that no daemon wrote.
    pub fn from_bytes(decision: DecisionId, bytes: &[u8]) -> Result<Self, WireError> {
        let end = v1::ReportEnd::decode(bytes).map_err(|error| WireError::Bytes { detail: error.to_string() })?;
        Ok(Self {
            answer: end.answer,
            cost: NanoUsd::new(end.cost_usd_nanos),
            hold: end.hold.map(|hold| hold_from_wire(hold, decision)).transpose()?,
        })
    }
}

/// A reported outcome with its cost known, as an attempt and an outcome with its text.
#[must_use]
pub fn from_wire(
    reported: v1::ReportedOutcome,
    cost: NanoUsd,
    id: AttemptId,
    now: Timestamp,
) -> (Outcome, Attempt) {
    let model = ModelName::from(reported.model);
    let latency = from_micros(reported.latency_us.unwrap_or(0));
    let replied = reported.status == i32::from(v1::AttemptStatus::Ok);
    let attempt = Attempt {
        id,
        model: model.clone(),
        try_number: 1,
        started_at: reported.started_at.as_ref().map_or(now, moment),
        latency,
        status: status(reported.status, reported.error),
        tokens_in: reported.tokens_in,
        tokens_out: reported.tokens_out,
        cost,
        billing: Billing::Exact,
    };
    let outcome = Outcome {
        model,
        text: replied.then_some(reported.answer),
        replied,
        confidence: reported.self_confidence,
        truncated: reported.truncated,
        tokens_out: reported.tokens_out,
        cost,
        latency,
    };
    (outcome, attempt)
}

fn status(status: i32, detail: String) -> AttemptStatus {
    match v1::AttemptStatus::try_from(status).unwrap_or_default() {
        v1::AttemptStatus::Ok => AttemptStatus::Replied,
        v1::AttemptStatus::Cancelled => AttemptStatus::Abandoned,
        v1::AttemptStatus::Timeout => {
            AttemptStatus::Failed(CallError::TimedOut { limit: std::time::Duration::ZERO })
        }
        v1::AttemptStatus::Throttled => AttemptStatus::Failed(CallError::Throttled { retry_after: None }),
        v1::AttemptStatus::Rejected => AttemptStatus::Failed(CallError::Refused { detail }),
        v1::AttemptStatus::Malformed => AttemptStatus::Failed(CallError::Malformed { detail }),
        v1::AttemptStatus::Unavailable | v1::AttemptStatus::Unspecified => {
            AttemptStatus::Failed(CallError::Unavailable { detail, billable: true })
        }
    }
}
