//! Rows that go: old traces by age and size, others because somebody wants them gone.
//!
//! Before a row goes, or is marked as gone, the learned state that holds all it taught is saved as the
//! base of later rebuilds and for the next start, so nothing learned depends on a row that is gone and
//! `pointsmand verify` still agrees, wherever a crash comes. From that save to the mark, or to the last
//! deletion, feedback and reports wait: what came in between would have taught and left no row.
//! Rows go in small batches with pauses, off the request path.

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::clock::Clock;
use pointsman_router::ids::DecisionId;
use pointsman_router::request::TENANT_TAG;

use crate::learning::Learning;
use crate::store::StoreError;
use crate::store::ledger::LedgerStore;
use crate::store::traces::{Deletion, StoredTrace, TraceFilter, TraceStore};

/// Traces that go in one step.
const STEP: usize = 500;
/// The pause between two steps.
const PAUSE: Duration = Duration::from_millis(50);
/// Decisions that are deleted behind one saved state, while feedback waits.
const DELETED_AT_ONCE: usize = 2_000;

/// Lets rows go.
#[derive(Debug, Clone)]
pub struct Retention {
    traces: TraceStore,
    ledger: LedgerStore,
    learning: Learning,
    clock: Arc<dyn Clock>,
}

impl Retention {
    /// Over these stores.
    #[must_use]
    pub fn new(traces: TraceStore, ledger: LedgerStore, learning: Learning, clock: Arc<dyn Clock>) -> Self {
        Self { traces, ledger, learning, clock }
    }

    /// Prunes what is too old or too much: first what the rows taught, then the mark, then the rows
    /// with their feedback.
    ///
    /// # Errors
    /// What a store met; the next call goes on.
    pub async fn prune(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.ledger.prune_keys(now).await?;
        let Some(mark) = self.traces.prune_plan(now).await? else { return Ok(()) };
        let learned_through = {
            let _going = self.traces.going().await;
            let through = self.keep_base().await?;
            self.traces.mark_pruned(mark).await?;
            through
        };
        while self.traces.delete_through(mark, STEP).await? {
            tokio::time::sleep(PAUSE).await;
        }
        // What was made before the last pruned trace is pruned too, but for requests that took long: what
        // is said of those from now on is not in the base, and stays.
        while self.ledger.prune_feedback(mark.at, learned_through, STEP).await? {
            tokio::time::sleep(PAUSE).await;
        }
        tracing::info!(through = mark.seq, "traces pruned");
        Ok(())
    }

    /// Deletes traces with their feedback for good and says how many; what was learned stays. Of a
    /// tenant those that are committed by now.
    ///
    /// # Errors
    /// What a store met; some may be deleted then.
    pub async fn delete(&self, which: Deletion) -> Result<u64, StoreError> {
        let decisions = match which {
            Deletion::Decisions(ids) => ids,
            Deletion::Tenant(tenant) => self.decisions_of(&tenant).await?,
        };
        let mut deleted = 0;
        for some in decisions.chunks(DELETED_AT_ONCE) {
            let _going = self.traces.going().await;
            self.keep_base().await?;
            // Feedback first: a crash in between must not leave any whose decision nobody knows.
            self.ledger.delete_feedback(some.to_vec()).await?;
            deleted += self.traces.delete(Deletion::Decisions(some.to_vec())).await?;
        }
        Ok(deleted)
    }

    async fn decisions_of(&self, tenant: &str) -> Result<Vec<DecisionId>, StoreError> {
        self.traces.flushed().await?;
        let tags = [(TENANT_TAG.to_owned(), tenant.to_owned())].into();
        let filter = TraceFilter { tags, ..TraceFilter::default() };
        let (mut after, through) = (0, self.traces.last_seq().await?);
        let mut ids = Vec::new();
        loop {
            let batch = self.traces.export(filter.clone(), after, through, STEP).await?;
            let Some(last) = batch.last() else { return Ok(ids) };
            after = last.seq;
            let traces = batch.iter().map(StoredTrace::trace);
            ids.extend(traces.map(|t| t.map(|trace| trace.decision.id)).collect::<Result<Vec<_>, _>>()?);
        }
    }

    /// Keeps the learned state as a base, with every row in it that is committed or on its way. Returns
    /// the sequence of the last feedback in it.
    async fn keep_base(&self) -> Result<u64, StoreError> {
        self.ledger.flushed().await?;
        self.traces.flushed().await?;
        let through = (self.ledger.feedback_through().await?, self.traces.last_seq().await?);
        self.learning.keep_base(through).await?;
        Ok(through.0)
    }
}

#[cfg(test)]
mod tests;
