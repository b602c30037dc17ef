//! Rows that go: old traces by age and size, others because somebody wants them gone.
//!
//! Before a row goes, the learned state that holds all it taught is saved as the base of later
//! rebuilds, so nothing learned depends on a row that is gone and `pointsmand verify` still agrees.
//! Rows go in small batches with pauses, off the request path.

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::clock::Clock;
use pointsman_router::ids::DecisionId;

use crate::learning::Learning;
use crate::store::StoreError;
use crate::store::ledger::LedgerStore;
use crate::store::traces::{Deletion, StoredTrace, TraceFilter, TraceStore};

/// Traces that go in one step.
const STEP: usize = 500;
/// The pause between two steps.
const PAUSE: Duration = Duration::from_millis(50);

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

    /// Prunes what is too old or too much: first the mark, then what the rows taught, then the rows.
    ///
    /// # Errors
    /// What a store met; the next call goes on.
    pub async fn prune(&self) -> Result<(), StoreError> {
        let Some(mark) = self.traces.prune_plan(self.clock.now()).await? else { return Ok(()) };
        self.traces.mark_pruned(mark).await?;
        self.keep_base().await?;
        while self.traces.delete_through(mark, STEP).await? {
            tokio::time::sleep(PAUSE).await;
        }
        tracing::info!(through = mark.seq, "traces pruned");
        Ok(())
    }

    /// Deletes traces with their feedback for good and says how many; what was learned stays.
    ///
    /// # Errors
    /// What a store met; some may be deleted then.
    pub async fn delete(&self, which: Deletion) -> Result<u64, StoreError> {
        let decisions = match &which {
            Deletion::Decisions(ids) => ids.clone(),
            Deletion::Tenant(tenant) => self.decisions_of(tenant).await?,
        };
        self.keep_base().await?;
        let deleted = self.traces.delete(which).await?;
        self.ledger.delete_feedback(decisions).await?;
        Ok(deleted)
    }

    async fn decisions_of(&self, tenant: &str) -> Result<Vec<DecisionId>, StoreError> {
        self.traces.flushed().await?;
        let tags = [("tenant".to_owned(), tenant.to_owned())].into();
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

    /// Keeps the learned state as a base, with every row in it that is committed now.
    async fn keep_base(&self) -> Result<(), StoreError> {
        self.traces.flushed().await?;
        let through = (self.ledger.feedback_through().await?, self.traces.last_seq().await?);
        self.learning.keep_base(through).await
    }
}
