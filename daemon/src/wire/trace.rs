//! Traces on the wire and in the store: the BLOB in `traces.db` is the bytes of [`v1::Trace`].
//!
//! Everything that learning, money and statistics need comes back as it was: features bucket by
//! bucket, propensities bit by bit, amounts to the nano-dollar, times and latencies to the
//! microsecond (whoever learns from a live trace must therefore take microseconds too). Prompts, raw
//! answers and the answer's spelling come back only where [`Kept::content`] is on; normal forms come
//! back as the store may hold them.

use std::sync::Arc;

use pointsman_proto::v1;
use pointsman_router::features::{Features, SURFACE_DIMS, SchemaHash, TextCount};
use pointsman_router::hold::{Bill, Charge, Hold};
use pointsman_router::ids::{DecisionId, KeyId};
use pointsman_router::money::NanoUsd;
use pointsman_router::trace::{Trace, TraceStatus};

use super::request::{kind_from_wire, kind_to_wire, prompt_from_wire, prompt_to_wire};
use super::{WireError, answer, decision, moment, outcome, required, timestamp};

/// The newest version of the meaning of stored fields.
pub const FORMAT: u32 = 1;

/// What a store may keep of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Whether prompts and raw answers are kept.
    pub content: bool,
    /// The installation's secret, which keys the hashes of answers.
    pub secret: u64,
}

/// The trace as the store keeps it; sequence and feedback are the store's own to fill.
#[must_use]
pub fn to_wire(trace: &Trace, kept: Kept) -> v1::Trace {
    v1::Trace {
        format: FORMAT,
        sequence: 0,
        status: status_to_wire(trace.status).into(),
        decision: Some(decision::to_wire(&trace.decision)),
        outcomes: trace.outcomes.iter().map(outcome::to_wire).collect(),
        attempts: trace.attempts.iter().map(outcome::attempt_to_wire).collect(),
        answer: trace
            .answer
            .as_ref()
            .map(|a| answer::to_stored(a, |normal| normal.stored(trace.kind, kept.secret))),
        feedback: Vec::new(),
        features: Some(features_to_wire(&trace.features)),
        answer_kind: kind_to_wire(trace.kind).into(),
        number_tolerance: trace.number_tolerance,
        labels: trace.labels.clone(),
        answer_pattern: trace.answer_pattern.clone().unwrap_or_default(),
        tags: trace.tags.clone(),
        caller_ref: trace.caller_ref.clone().unwrap_or_default(),
        key_id: trace.key.as_ref().map(|key| key.as_str().to_owned()).unwrap_or_default(),
        cost_usd_nanos: trace.bill.settled.nanos(),
        unknown_usd_nanos: trace.bill.unknown.nanos(),
        hold: trace.hold.as_ref().map(hold_to_wire),
        admitted_at: Some(timestamp(trace.at)),
        total_us: i64::try_from(trace.total_us).unwrap_or(i64::MAX),
        decide_us: i64::try_from(trace.decide_us).unwrap_or(i64::MAX),
        content: kept.content.then(|| content_to_wire(trace)),
    }
}

/// The trace that the store kept.
///
/// # Errors
/// [`WireError`] when a newer daemon wrote it, or it is not what [`to_wire`] makes.
pub fn from_wire(trace: v1::Trace) -> Result<Trace, WireError> {
    if trace.format > FORMAT {
        return Err(WireError::Format { found: trace.format, known: FORMAT });
    }
    let (kind, status) = (kind_from_wire(trace.answer_kind()), status_from_wire(trace.status)?);
    let decision = Arc::new(decision::from_wire(required(trace.decision, "decision")?)?);
    let (texts, value, content) = match trace.content {
        Some(kept) => {
            let prompt = kept.request.map(prompt_from_wire).transpose()?;
            (kept.model_answers, kept.answer, prompt.map(Arc::new))
        }
        None => (Vec::new(), None, None),
    };
    let text_of = |model: &str| texts.iter().find(|said| said.model == model).map(|said| said.text.clone());
    let outcomes = trace.outcomes.into_iter().map(|o| {
        let text = text_of(&o.model);
        outcome::from_wire(o, text)
    });
    Ok(Trace {
        at: moment(&required(trace.admitted_at, "admitted_at")?),
        features: Arc::new(features_from_wire(required(trace.features, "features")?)?),
        kind,
        number_tolerance: trace.number_tolerance,
        labels: trace.labels,
        answer_pattern: (!trace.answer_pattern.is_empty()).then_some(trace.answer_pattern),
        tags: trace.tags,
        caller_ref: Some(trace.caller_ref).filter(|text| !text.is_empty()),
        key: Some(trace.key_id).filter(|id| !id.is_empty()).map(KeyId::from),
        attempts: trace.attempts.into_iter().map(outcome::attempt_from_wire).collect::<Result<_, _>>()?,
        outcomes: outcomes.collect(),
        answer: trace.answer.map(|a| answer::from_stored(a, value)).transpose()?,
        status,
        hold: trace.hold.map(|hold| hold_from_wire(hold, decision.id)).transpose()?,
        bill: Bill { settled: NanoUsd::new(trace.cost_usd_nanos), unknown: NanoUsd::new(trace.unknown_usd_nanos) },
        total_us: u64::try_from(trace.total_us).unwrap_or(0),
        decide_us: u64::try_from(trace.decide_us).unwrap_or(0),
        content,
        decision,
    })
}

/// A hold as a trace or the end of a report keeps it.
#[must_use]
pub fn hold_to_wire(hold: &Hold) -> v1::Hold {
    v1::Hold {
        amount_usd_nanos: hold.amount.nanos(),
        window_started_at: None,
        charges: hold.charges.iter().map(charge_to_wire).collect(),
    }
}

fn charge_to_wire(charge: &Charge) -> v1::Charge {
    v1::Charge { account: charge.account.to_string(), window_started_at: Some(timestamp(charge.window)) }
}

/// The hold of a decision that a store kept. What was stored when there was one budget names no account.
///
/// # Errors
/// [`WireError`] where it is not what [`hold_to_wire`] makes, nor what was made then.
pub fn hold_from_wire(hold: v1::Hold, decision: DecisionId) -> Result<Hold, WireError> {
    let charge = |charge: v1::Charge| -> Result<Charge, WireError> {
        let window = moment(&required(charge.window_started_at, "hold.charges.window_started_at")?);
        Ok(Charge { account: charge.account.into(), window })
    };
    let alone = hold.window_started_at.map(|window| Charge { account: "".into(), window: moment(&window) });
    let charges = hold.charges.into_iter().map(charge).chain(alone.map(Ok)).collect::<Result<_, _>>()?;
    Ok(Hold { decision, amount: NanoUsd::new(hold.amount_usd_nanos), charges })
}

fn content_to_wire(trace: &Trace) -> v1::TraceContent {
    v1::TraceContent {
        request: trace.content.as_deref().map(prompt_to_wire),
        model_answers: trace
            .outcomes
            .iter()
            .filter_map(|o| Some(v1::ModelAnswer { model: o.model.as_str().to_owned(), text: o.text.clone()? }))
            .collect(),
        answer: trace.answer.as_ref().and_then(|a| a.value.clone()),
    }
}

/// A status as the wire names it.
#[must_use]
pub fn status_to_wire(status: TraceStatus) -> v1::RequestStatus {
    match status {
        TraceStatus::Answered => v1::RequestStatus::Answered,
        TraceStatus::Failed => v1::RequestStatus::Failed,
        TraceStatus::Cancelled => v1::RequestStatus::Cancelled,
        TraceStatus::Decided => v1::RequestStatus::Decided,
    }
}

fn status_from_wire(value: i32) -> Result<TraceStatus, WireError> {
    match v1::RequestStatus::try_from(value) {
        Ok(v1::RequestStatus::Answered) => Ok(TraceStatus::Answered),
        Ok(v1::RequestStatus::Failed) => Ok(TraceStatus::Failed),
        Ok(v1::RequestStatus::Cancelled) => Ok(TraceStatus::Cancelled),
        Ok(v1::RequestStatus::Decided) => Ok(TraceStatus::Decided),
        Ok(v1::RequestStatus::Unspecified) | Err(_) => {
            Err(WireError::Value { field: "status", value: value.into() })
        }
    }
}

/// Features as a trace keeps them.
#[must_use]
pub fn features_to_wire(features: &Features) -> v1::Features {
    let mut before = 0_u32;
    let deltas = features.text.iter().map(|entry| {
        let bucket = u32::from(entry.bucket);
        let delta = bucket.saturating_sub(before);
        before = bucket;
        delta
    });
    v1::Features {
        schema_hash: features.schema.0,
        index_deltas: deltas.collect(),
        counts: features.text.iter().map(|entry| i32::from(entry.count)).collect(),
        surface: features.surface.to_vec(),
        tag_buckets: features.tags.iter().map(|tag| u32::from(*tag)).collect(),
        embedding_sketch: features.sketch.clone(),
        prompt_bytes: features.prompt_bytes,
    }
}

fn features_from_wire(features: v1::Features) -> Result<Features, WireError> {
    let mut bucket = 0_u32;
    let mut text = Vec::with_capacity(features.counts.len());
    if features.index_deltas.len() != features.counts.len() {
        let value = i64::try_from(features.counts.len()).unwrap_or(i64::MAX);
        return Err(WireError::Value { field: "features.counts", value });
    }
    for (delta, count) in features.index_deltas.into_iter().zip(features.counts) {
        bucket = bucket.saturating_add(delta);
        text.push(TextCount {
            bucket: narrow(bucket, "features.index_deltas")?,
            count: i16::try_from(count)
                .map_err(|_| WireError::Value { field: "features.counts", value: count.into() })?,
        });
    }
    let surface: [f32; SURFACE_DIMS] =
        features.surface.try_into().map_err(|_| WireError::Missing { field: "features.surface" })?;
    let tags = features.tag_buckets.into_iter().map(|tag| narrow(tag, "features.tag_buckets"));
    Ok(Features {
        text,
        surface,
        tags: tags.collect::<Result<_, _>>()?,
        sketch: features.embedding_sketch,
        prompt_bytes: features.prompt_bytes,
        schema: SchemaHash(features.schema_hash),
    })
}

fn narrow(bucket: u32, field: &'static str) -> Result<u16, WireError> {
    u16::try_from(bucket).map_err(|_| WireError::Value { field, value: bucket.into() })
}

#[cfg(test)]
mod tests;
