//! The feedback desk: feedback is held against its trace, made durable, acknowledged, in that order.
//!
//! Feedback right after a reply waits for the group commit of its trace, so "decision unknown" is said
//! only of decisions that never were. What it teaches follows from the ledger's order, not from here:
//! the desk never touches a policy. Between the look at the trace and the commit no trace may go, or
//! feedback on a deleted decision would stay behind.

use std::sync::Arc;

use pointsman_router::check::BadRequest;
use pointsman_router::clock::Clock;
use pointsman_router::feedback::{self, Feedback, RawFeedback};
use pointsman_router::ids::DecisionId;
use pointsman_router::trace::Trace;

use crate::keys::View;
use crate::reports::{ReportError, with_reports};
use crate::store::StoreError;
use crate::store::ledger::{Ack, LedgerStore, NewFeedback};
use crate::store::traces::{Lookup, TraceStore};

/// Why feedback was not taken. Nothing was changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FeedbackError {
    /// Something in it is wrong.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// There is no such decision.
    #[error("no decision `{id}` is known")]
    Unknown {
        /// Its id.
        id: DecisionId,
    },
    /// The decision is older than what is kept.
    #[error("decision `{id}` is older than the traces that are kept")]
    Pruned {
        /// Its id.
        id: DecisionId,
    },
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was reported of the decision cannot be read.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// Takes feedback.
#[derive(Debug, Clone)]
pub struct FeedbackDesk {
    traces: TraceStore,
    ledger: LedgerStore,
    clock: Arc<dyn Clock>,
    secret: u64,
    departing_share: f64,
}

impl FeedbackDesk {
    /// Takes feedback over these stores. `secret` keys the hashes of answers; `departing_share` is how much of all
    /// information a source may be while it departs from the others.
    #[must_use]
    pub fn new(
        (traces, ledger): (TraceStore, LedgerStore),
        clock: Arc<dyn Clock>,
        secret: u64,
        departing_share: f64,
    ) -> Self {
        Self { traces, ledger, clock, secret, departing_share }
    }

    /// Takes one piece of feedback and acknowledges it once it is durable. A decision that the caller may not see is
    /// answered as one that never was.
    ///
    /// # Errors
    /// [`FeedbackError`]; nothing was changed.
    pub async fn submit(&self, raw: RawFeedback, view: &View) -> Result<Ack, FeedbackError> {
        let feedback = feedback::check(raw)?;
        let id = feedback.decision;
        let _staying = self.traces.staying().await;
        let (seq, trace) = match self.traces.committed(id).await? {
            Lookup::Found((_, trace)) if !view.sees(&trace.tags) => return Err(FeedbackError::Unknown { id }),
            Lookup::Found((seq, trace)) => (seq, with_reports(&self.traces, trace).await?),
            Lookup::Pruned => return Err(FeedbackError::Pruned { id }),
            Lookup::Unknown => return Err(FeedbackError::Unknown { id }),
        };
        let row = self.row(&trace, feedback)?;
        let (judged, secret) = (Arc::clone(&trace), self.secret);
        let label = move |entries: &[feedback::Entry]| feedback::labels(&judged, entries, secret);
        Ok(self.ledger.submit_feedback(row, Some((seq, trace)), label).await?)
    }

    fn row(&self, trace: &Trace, feedback: Feedback) -> Result<NewFeedback, BadRequest> {
        let (verdict, score) = feedback::judge(trace, &feedback, self.secret)?;
        let heaviest = trace.answer.as_ref().and_then(|answer| answer.heaviest());
        Ok(NewFeedback {
            decision: feedback.decision,
            model: feedback.model,
            source: feedback.source,
            verdict,
            score,
            comment: feedback.comment,
            at: self.clock.now(),
            departing_share: Some(self.departing_share),
            task: trace.decision.task.name.clone(),
            policy: trace.decision.policy.clone(),
            answer_model: heaviest.map(|contribution| contribution.model.clone()),
            chosen: trace.decision.chosen().map(|candidate| candidate.model.clone()).collect(),
        })
    }
}

#[cfg(test)]
mod tests;
