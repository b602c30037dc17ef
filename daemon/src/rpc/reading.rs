//! Reading traces for callers: with what was reported of them and what was said of them.
//!
//! Pages and exports read the same way. Nothing here writes, and nothing that a store may not hold is
//! shown.

use std::sync::Arc;

use pointsman_proto::v1;
use pointsman_router::ids::DecisionId;
use pointsman_router::trace::TraceStatus;

use super::feedback::entries_to_wire;
use super::status::Refusal;
use crate::keys::View;
use crate::reports::with_reports;
use crate::store::StoreError;
use crate::store::ledger::LedgerStore;
use crate::store::traces::{StoredTrace, TraceFilter, TraceStore};
use crate::wire::{self, moment};

/// Reads traces.
#[derive(Debug, Clone)]
pub struct TraceReader {
    /// What happened to each request.
    pub traces: TraceStore,
    /// What was said of it.
    pub ledger: LedgerStore,
}

impl TraceReader {
    /// Whoever asks after a reply sees the trace of that reply. A file that cannot be written just now
    /// shows what it has.
    pub(super) async fn see_own_writes(&self) {
        let _ = self.traces.flushed().await;
    }

    /// What the caller of Decide reported so far.
    pub(super) async fn add_reports(&self, stored: &StoredTrace, message: &mut v1::Trace) -> Result<(), Refusal> {
        let whole = with_reports(&self.traces, Arc::new(stored.trace()?)).await?;
        message.set_status(wire::trace::status_to_wire(whole.status));
        message.outcomes = whole.outcomes.iter().map(wire::outcome::to_wire).collect();
        message.attempts = whole.attempts.iter().map(wire::outcome::attempt_to_wire).collect();
        // It comes from the store, so its normal forms are what a store may hold already.
        message.answer = whole.answer.as_ref().map(|answer| wire::answer::to_stored(answer, Clone::clone));
        message.cost_usd_nanos = whole.bill.settled.nanos();
        message.unknown_usd_nanos = whole.bill.unknown.nanos();
        Ok(())
    }

    /// All feedback of a decision, in ledger order.
    pub(super) async fn feedback(&self, id: DecisionId) -> Result<Vec<v1::FeedbackEntry>, Refusal> {
        Ok(entries_to_wire(&self.ledger.feedback_of(id).await?))
    }

    /// Whether a trace has the feedback that was asked for, and that feedback.
    pub(super) async fn wanted(
        &self,
        wanted: &Wanted,
        stored: &StoredTrace,
    ) -> Result<Option<v1::Trace>, Refusal> {
        let mut trace = stored.message()?;
        let id = trace.decision.as_ref().map_or("", |decision| &decision.decision_id);
        let id = DecisionId::parse(id).map_err(|fault| StoreError::Corrupt { detail: fault.to_string() })?;
        trace.feedback = self.feedback(id).await?;
        Ok(wanted.has_feedback.is_none_or(|has| has != trace.feedback.is_empty()).then_some(trace))
    }
}

/// Which traces a caller wants.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) filter: TraceFilter,
    has_feedback: Option<bool>,
}

impl Wanted {
    /// Of what a caller may see, what it asks for.
    pub(super) fn from_wire(filter: Option<v1::TraceFilter>, view: &View) -> Result<Self, Refusal> {
        let filter = filter.unwrap_or_default();
        let status = match filter.status() {
            v1::RequestStatus::Unspecified => None,
            v1::RequestStatus::Answered => Some(TraceStatus::Answered),
            v1::RequestStatus::Failed => Some(TraceStatus::Failed),
            v1::RequestStatus::Cancelled => Some(TraceStatus::Cancelled),
            v1::RequestStatus::Decided => Some(TraceStatus::Decided),
        };
        Ok(Self {
            has_feedback: filter.has_feedback,
            filter: TraceFilter {
                model: given(filter.model),
                task: given(filter.task_type),
                tags: filter.tags,
                tenant: view.tenant().map(str::to_owned),
                from: filter.admitted_from.as_ref().map(moment),
                before: filter.admitted_before.as_ref().map(moment),
                status,
                policy: given(filter.policy_version),
                caller_ref: given(filter.caller_ref),
            },
        })
    }
}

fn given<T: From<String>>(text: String) -> Option<T> {
    (!text.is_empty()).then(|| T::from(text))
}
