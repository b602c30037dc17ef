//! Import: traces from elsewhere become rows that are listed, exported and trained on.
//!
//! An imported trace is no spending, counts in no statistics of a model, and teaches no head: it
//! happened elsewhere. A decision that is here already is a repeat, and only its new feedback counts:
//! where the trace is this installation's own, as if it had been submitted.

use std::sync::Arc;

use pointsman_router::clock::Clock;
use pointsman_router::encode::Encoder;
use pointsman_router::feedback::{Entry, labels};
use pointsman_router::ids::{DecisionId, ModelName};
use pointsman_router::trace::Trace;

use super::foreign::Foreign;
use crate::keys::View;
use crate::reports::{ReportError, with_reports};
use crate::store::ledger::{AckStatus, ImportedFeedback, LedgerStore, NewFeedback};
use crate::store::traces::{Lookup, TraceStore};
use crate::wire::moment;

/// Traces that are stored at once.
pub const BATCH: usize = 256;

/// What came of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    /// Traces that are new.
    pub new: u64,
    /// Traces whose decision was here already.
    pub repeated: u64,
    /// Feedback that is new.
    pub feedback: u64,
}

/// Takes traces in.
#[derive(Debug, Clone)]
pub struct Importer {
    traces: TraceStore,
    ledger: LedgerStore,
    clock: Arc<dyn Clock>,
    encoder: Encoder,
    secret: u64,
}

impl Importer {
    /// Takes traces into these stores, for the installation with this secret.
    #[must_use]
    pub fn new(traces: TraceStore, ledger: LedgerStore, clock: Arc<dyn Clock>, secret: u64) -> Self {
        Self { traces, ledger, clock, encoder: Encoder::new(secret), secret }
    }

    /// What makes features here.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Takes some traces in; importing the same again changes nothing. A trace whose decision is here already and
    /// may not be seen counts as a repetition and changes nothing.
    ///
    /// # Errors
    /// What a store met; some may be in then.
    pub async fn import(&self, some: Vec<Foreign>, view: &View) -> Result<Imported, ReportError> {
        let _staying = self.traces.staying().await;
        let mut imported = Imported::default();
        let traces = some.iter().map(|foreign| Arc::new(foreign.trace.clone())).collect();
        let stored = self.traces.import(traces).await?;
        let mut said = Vec::new();
        for (Foreign { trace, feedback }, new) in some.into_iter().zip(stored) {
            imported.new += u64::from(new);
            imported.repeated += u64::from(!new);
            if feedback.is_empty() || !(new || self.is_seen(trace.decision.id, view).await?) {
                continue;
            }
            let own = !new && !self.traces.is_imported(trace.decision.id).await?;
            if own {
                imported.feedback += self.submit(trace.decision.id, feedback).await?;
            } else {
                said.push(self.rows(&trace, feedback));
            }
        }
        if !said.is_empty() {
            let secret = self.secret;
            imported.feedback += self.ledger.import_feedback(said, secret, self.clock.now()).await?;
        }
        Ok(imported)
    }

    async fn is_seen(&self, id: DecisionId, view: &View) -> Result<bool, ReportError> {
        if *view == View::All {
            return Ok(true);
        }
        Ok(match self.traces.committed(id).await? {
            Lookup::Found((_, trace)) => view.sees(&trace.tags),
            Lookup::Pruned | Lookup::Unknown => false,
        })
    }

    fn rows(&self, trace: &Trace, feedback: Vec<Said>) -> ImportedFeedback {
        let rows = feedback.into_iter().filter_map(|said| self.row(trace, said)).collect();
        ImportedFeedback { trace: Arc::new(trace.clone()), rows }
    }

    /// A row of feedback; `None` where it judges a model that was not part of the decision.
    fn row(&self, trace: &Trace, (entry, message): Said) -> Option<NewFeedback> {
        let Entry { model, source, verdict, score, .. } = entry;
        let chosen: Vec<ModelName> = trace.decision.chosen().map(|candidate| candidate.model.clone()).collect();
        if model.as_ref().is_some_and(|model| !chosen.contains(model)) {
            return None;
        }
        let heaviest = trace.answer.as_ref().and_then(|answer| answer.heaviest());
        Some(NewFeedback {
            decision: trace.decision.id,
            model,
            source,
            verdict,
            score,
            comment: message.comment,
            at: message.received_at.as_ref().map_or_else(|| self.clock.now(), moment),
            departing_share: None,
            task: trace.decision.task.name.clone(),
            policy: trace.decision.policy.clone(),
            answer_model: heaviest.map(|contribution| contribution.model.clone()),
            chosen,
        })
    }

    /// Feedback on a decision of this installation: it counts and teaches as any other.
    async fn submit(&self, id: DecisionId, feedback: Vec<Said>) -> Result<u64, ReportError> {
        let Lookup::Found((seq, trace)) = self.traces.committed(id).await? else { return Ok(0) };
        let trace = with_reports(&self.traces, trace).await?;
        let mut new = 0;
        for row in feedback.into_iter().filter_map(|said| self.row(&trace, said)) {
            // What was corrected since must not come back as the latest word.
            let known = self.ledger.feedback_of(id).await?;
            if known.iter().any(|old| is_same(&old.feedback, &row)) {
                continue;
            }
            let (judged, secret) = (Arc::clone(&trace), self.secret);
            let label = move |entries: &[Entry]| labels(&judged, entries, secret);
            let ack = self.ledger.submit_feedback(row, Some((seq, Arc::clone(&trace))), label).await?;
            new += u64::from(ack.status != AckStatus::Repeated);
        }
        Ok(new)
    }
}

type Said = (Entry, pointsman_proto::v1::FeedbackEntry);

/// Whether two pieces of feedback say the same of the same.
fn is_same(one: &NewFeedback, other: &NewFeedback) -> bool {
    (&one.model, &one.source, &one.verdict) == (&other.model, &other.source, &other.verdict)
}

#[cfg(test)]
mod tests;
