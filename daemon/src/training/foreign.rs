//! Traces from elsewhere: from another installation, another system, or another time of this one.
//!
//! What another system's log does not have is filled in where nothing can be misunderstood: a decision
//! without candidates has the models that it called, one without an id gets one that is made of the
//! caller's own. What is missing and cannot be told is a fault with the path of its field. Features of
//! this installation are kept as they are; others are made anew from the request, if that is there.

use pointsman_proto::v1;
use pointsman_router::check::check;
use pointsman_router::clock::Timestamp;
use pointsman_router::encode::Encoder;
use pointsman_router::features::Features;
use pointsman_router::feedback::Entry;
use pointsman_router::ids::DecisionId;
use pointsman_router::model::Pool;
use pointsman_router::request::TENANT_TAG;
use pointsman_router::settings::Settings;
use pointsman_router::task;
use pointsman_router::trace::Trace;
use prost_types::Timestamp as WireTime;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::store::traces::NO_FEATURES;
use crate::wire::trace::{FORMAT, features_to_wire};
use crate::wire::{self, WireError, moment};

/// Why a trace was not taken in.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ForeignFault {
    /// A part is missing that cannot be told from others.
    #[error("{field} is missing")]
    Missing {
        /// Path of the field.
        field: &'static str,
    },
    /// A part cannot be read.
    #[error("cannot be read: {0}")]
    Wire(#[from] WireError),
    /// The fields mean what a newer version says.
    #[error("has format {found}, this daemon reads {FORMAT}")]
    Format {
        /// The format found.
        found: u32,
    },
    /// Its features are of another installation, and there is no request to encode anew.
    #[error(
        "has features {found:016x} and this installation makes {expected:016x}, give content.request to encode anew"
    )]
    Schema {
        /// The schema that it has; zero: none.
        found: u64,
        /// The schema of this installation.
        expected: u64,
    },
    /// Its request is none.
    #[error("has a request that is none: {detail}")]
    Request {
        /// All that is wrong with it.
        detail: String,
    },
}

/// A trace from elsewhere, as this installation would have made it.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// The trace.
    pub trace: Trace,
    /// What was said of it, in its order, with the rest of what an entry says.
    pub feedback: Vec<(Entry, v1::FeedbackEntry)>,
}

/// Whose features a trace may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// This installation's alone.
    Ours,
    /// Anybody's.
    Any,
}

/// Reads a trace that came from elsewhere.
///
/// # Errors
/// [`ForeignFault`].
pub fn read(mut message: v1::Trace, encoder: &Encoder, whose: Whose) -> Result<Foreign, ForeignFault> {
    match message.format {
        0 => return Err(ForeignFault::Missing { field: "trace.format" }),
        found if found > FORMAT => return Err(ForeignFault::Format { found }),
        _ => {}
    }
    let given = std::mem::take(&mut message.feedback);
    complete(&mut message)?;
    let features = features(&message, encoder, whose)?;
    if let Some(features) = &features {
        let decision = message.decision.get_or_insert_default();
        if decision.task_type.is_empty() {
            task::infer(features).as_str().clone_into(&mut decision.task_type);
            decision.task_type_inferred = true;
        }
        message.features = Some(features_to_wire(features));
    }
    let trace = wire::trace::from_wire(message)?;
    let mut feedback = Vec::with_capacity(given.len());
    for (place, entry) in (1_u64..).zip(given) {
        let mut read = wire::feedback::entry_from_wire(entry.clone())?;
        // Entries that name no place stand in the order in which they come.
        read.seq = if read.seq == 0 { place } else { read.seq };
        feedback.push((read, entry));
    }
    feedback.sort_by_key(|(entry, _)| entry.seq);
    Ok(Foreign { trace, feedback })
}

/// Fills in what other systems do not log.
fn complete(message: &mut v1::Trace) -> Result<(), ForeignFault> {
    let at = message.admitted_at.ok_or(ForeignFault::Missing { field: "trace.admitted_at" })?;
    if message.status() == v1::RequestStatus::Unspecified {
        message.set_status(v1::RequestStatus::Answered);
    }
    // What tenants call alike is not the same.
    let tenant = message.tags.get(TENANT_TAG).map_or("", String::as_str);
    let caller_ref = if tenant.is_empty() {
        message.caller_ref.clone()
    } else {
        format!("{tenant}\u{ff}{}", message.caller_ref)
    };
    let outcomes = &message.outcomes;
    let decision = message.decision.get_or_insert_default();
    if decision.decision_id.is_empty() {
        if message.caller_ref.is_empty() {
            return Err(ForeignFault::Missing { field: "trace.decision.decision_id" });
        }
        decision.decision_id = id_of(moment(&at), &caller_ref).to_string();
    }
    if decision.candidates.is_empty() {
        decision.candidates = outcomes.iter().map(candidate).collect();
    }
    if decision.chosen_order.is_empty() {
        let chosen = (0_u32..).zip(&decision.candidates).filter(|(_, candidate)| candidate.chosen);
        decision.chosen_order = chosen.map(|(place, _)| place).collect();
    }
    if decision.candidates.is_empty() {
        return Err(ForeignFault::Missing { field: "trace.decision.candidates" });
    }
    if decision.policy_kind() == v1::PolicyKind::Unspecified {
        decision.set_policy_kind(v1::PolicyKind::Reference);
    }
    let known: WireTime = decision.decided_at.unwrap_or(at);
    decision.decided_at = Some(known);
    Ok(())
}

/// A model that was called and of which nothing else is known.
fn candidate(outcome: &v1::Outcome) -> v1::Candidate {
    v1::Candidate {
        model: outcome.model.clone(),
        eligible: true,
        chosen: true,
        cost_usd_nanos: Some(outcome.cost_usd_nanos),
        ..v1::Candidate::default()
    }
}

/// The id that a caller's own id and the time of a request make: the same each time.
fn id_of(at: Timestamp, caller_ref: &str) -> DecisionId {
    let millis = u64::try_from(at.micros() / 1_000).unwrap_or(0);
    let mut bytes = xxh3_128_with_seed(caller_ref.as_bytes(), millis).to_be_bytes();
    for (byte, milli) in bytes.iter_mut().zip(millis.to_be_bytes().iter().skip(2)) {
        *byte = *milli;
    }
    // Version 7 and the variant, where UUIDs have them.
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = (*version & 0x0f) | 0x70;
    *variant = (*variant & 0x3f) | 0x80;
    DecisionId::from_bytes(bytes)
}

/// The features to keep; `None`: those that it has.
fn features(message: &v1::Trace, encoder: &Encoder, whose: Whose) -> Result<Option<Features>, ForeignFault> {
    let expected = encoder.schema().0;
    let found = message.features.as_ref().map_or(0, |features| features.schema_hash);
    let has_some = message.features.is_some();
    // One whose features were not kept says so itself and is complete otherwise.
    if found == expected || (has_some && (found == NO_FEATURES.0 || whose == Whose::Any)) {
        return Ok(None);
    }
    let request = message.content.as_ref().and_then(|content| content.request.clone());
    let mut request = request.ok_or(ForeignFault::Schema { found, expected })?;
    if request.tags.is_empty() {
        request.tags.clone_from(&message.tags);
    }
    // Which answer was wanted stands in the trace; here the text alone counts.
    let request =
        v1::RequestSpec { answer_kind: v1::AnswerKind::Text.into(), json_schema: String::new(), ..request };
    let raw = wire::request::from_wire(request, None);
    let request = check(raw, &Settings::default(), &Pool::default())
        .map_err(|bad| ForeignFault::Request { detail: bad.to_string() })?;
    Ok(Some(encoder.encode(&request)))
}

#[cfg(test)]
mod tests;
