//! Attempts and outcomes on the wire, both ways.
//!
//! An outcome's raw text is not in here: it goes into [`v1::TraceContent`], and only where the
//! operator keeps content.

use pointsman_proto::v1;
use pointsman_router::backend::CallError;
use pointsman_router::ids::AttemptId;
use pointsman_router::money::NanoUsd;
use pointsman_router::outcome::{Attempt, AttemptStatus, Billing, Outcome};

use super::{WireError, from_micros, micros, moment, required, timestamp};

/// An attempt as replies and traces carry it.
#[must_use]
pub fn attempt_to_wire(attempt: &Attempt) -> v1::Attempt {
    let (status, error) = status_to_wire(&attempt.status);
    v1::Attempt {
        attempt_id: attempt.id.to_string(),
        model: attempt.model.as_str().to_owned(),
        status: status.into(),
        error,
        tokens_in: attempt.tokens_in,
        tokens_out: attempt.tokens_out,
        cost_usd_nanos: attempt.cost.nanos(),
        latency_us: micros(attempt.latency),
        started_at: Some(timestamp(attempt.started_at)),
        try_number: attempt.try_number,
        billed: billing_to_wire(attempt.billing).into(),
        wait_us: wait_us(&attempt.status),
        sent: matches!(&attempt.status, AttemptStatus::Failed(CallError::Unavailable { billable: true, .. })),
    }
}

/// The attempt that a trace kept.
///
/// # Errors
/// [`WireError`] when it is not what [`attempt_to_wire`] makes.
pub fn attempt_from_wire(attempt: v1::Attempt) -> Result<Attempt, WireError> {
    let wait = attempt.wait_us.map(from_micros);
    let unknown = WireError::Value { field: "attempts.status", value: attempt.status.into() };
    let status = match v1::AttemptStatus::try_from(attempt.status) {
        Ok(v1::AttemptStatus::Ok) => AttemptStatus::Replied,
        Ok(v1::AttemptStatus::Timeout) => {
            AttemptStatus::Failed(CallError::TimedOut { limit: wait.unwrap_or_default() })
        }
        Ok(v1::AttemptStatus::Throttled) => AttemptStatus::Failed(CallError::Throttled { retry_after: wait }),
        Ok(v1::AttemptStatus::Unavailable) => {
            AttemptStatus::Failed(CallError::Unavailable { detail: attempt.error, billable: attempt.sent })
        }
        Ok(v1::AttemptStatus::Rejected) => AttemptStatus::Failed(CallError::Refused { detail: attempt.error }),
        Ok(v1::AttemptStatus::Malformed) => AttemptStatus::Failed(CallError::Malformed { detail: attempt.error }),
        Ok(v1::AttemptStatus::Cancelled) => AttemptStatus::Abandoned,
        Ok(v1::AttemptStatus::Unspecified) | Err(_) => return Err(unknown),
    };
    Ok(Attempt {
        id: AttemptId::parse(&attempt.attempt_id)?,
        model: attempt.model.into(),
        try_number: attempt.try_number,
        started_at: moment(&required(attempt.started_at, "attempts.started_at")?),
        latency: from_micros(attempt.latency_us),
        status,
        tokens_in: attempt.tokens_in,
        tokens_out: attempt.tokens_out,
        cost: NanoUsd::new(attempt.cost_usd_nanos),
        billing: billing_from_wire(attempt.billed)?,
    })
}

/// A status as the wire names it, with what went wrong.
#[must_use]
pub fn status_to_wire(status: &AttemptStatus) -> (v1::AttemptStatus, String) {
    match status {
        AttemptStatus::Replied => (v1::AttemptStatus::Ok, String::new()),
        AttemptStatus::Abandoned => (v1::AttemptStatus::Cancelled, String::new()),
        AttemptStatus::Failed(CallError::Unavailable { detail, .. }) => {
            (v1::AttemptStatus::Unavailable, detail.clone())
        }
        AttemptStatus::Failed(CallError::TimedOut { .. }) => (v1::AttemptStatus::Timeout, String::new()),
        AttemptStatus::Failed(CallError::Throttled { .. }) => (v1::AttemptStatus::Throttled, String::new()),
        AttemptStatus::Failed(CallError::Refused { detail }) => (v1::AttemptStatus::Rejected, detail.clone()),
        AttemptStatus::Failed(CallError::Malformed { detail }) => (v1::AttemptStatus::Malformed, detail.clone()),
    }
}

fn wait_us(status: &AttemptStatus) -> Option<i64> {
    match status {
        AttemptStatus::Failed(CallError::TimedOut { limit }) => Some(micros(*limit)),
        AttemptStatus::Failed(CallError::Throttled { retry_after }) => retry_after.map(micros),
        AttemptStatus::Replied
        | AttemptStatus::Abandoned
        | AttemptStatus::Failed(
            CallError::Unavailable { .. } | CallError::Refused { .. } | CallError::Malformed { .. },
        ) => None,
    }
}

fn billing_to_wire(billing: Billing) -> v1::Billing {
    match billing {
        Billing::Exact => v1::Billing::Exact,
        Billing::Estimated => v1::Billing::Estimated,
        Billing::Unknown => v1::Billing::Unknown,
        Billing::Nothing => v1::Billing::None,
    }
}

fn billing_from_wire(value: i32) -> Result<Billing, WireError> {
    match v1::Billing::try_from(value) {
        Ok(v1::Billing::Exact) => Ok(Billing::Exact),
        Ok(v1::Billing::Estimated) => Ok(Billing::Estimated),
        Ok(v1::Billing::Unknown) => Ok(Billing::Unknown),
        Ok(v1::Billing::None) => Ok(Billing::Nothing),
        Ok(v1::Billing::Unspecified) | Err(_) => {
            Err(WireError::Value { field: "attempts.billed", value: value.into() })
        }
    }
}

/// An outcome as traces carry it, without its text.
#[must_use]
pub fn to_wire(outcome: &Outcome) -> v1::Outcome {
    v1::Outcome {
        model: outcome.model.as_str().to_owned(),
        replied: outcome.replied,
        self_confidence: outcome.confidence,
        truncated: outcome.truncated,
        tokens_out: outcome.tokens_out,
        cost_usd_nanos: outcome.cost.nanos(),
        latency_us: micros(outcome.latency),
    }
}

/// The outcome that a trace kept, with its text where content was kept.
#[must_use]
pub fn from_wire(outcome: v1::Outcome, text: Option<String>) -> Outcome {
    Outcome {
        model: outcome.model.into(),
        text,
        replied: outcome.replied,
        confidence: outcome.self_confidence,
        truncated: outcome.truncated,
        tokens_out: outcome.tokens_out,
        cost: NanoUsd::new(outcome.cost_usd_nanos),
        latency: from_micros(outcome.latency_us),
    }
}
