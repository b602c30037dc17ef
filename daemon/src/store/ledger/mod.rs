//! `ledger.db`: money, feedback, learned state and what an operator changed at run time.
//!
//! Every commit is synced before it is acknowledged ([`Durability::Full`]): what this file holds
//! cannot be made again. One writer thread runs all of it in one order, so feedback has a sequence
//! that learning follows and a lease that was set later stands. Times come in with the rows.
//!
//! Rows are small and few per request: feedback is the only table that grows with traffic, money is
//! booked in sums.

mod answer;
mod budget;
mod budgets;
mod candidates;
mod chain;
mod feedback;
mod idempotency;
mod imported;
mod keys;
mod lifecycle;
mod overrides;
mod said;
mod schema;
mod spend;
mod state;
mod transfers;
mod verdict;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Row;
use tokio::sync::mpsc;

pub use budget::{AdjustOutcome, BookOutcome, Booking, Lease, WindowOpening, WindowRow};
pub use budgets::BudgetChange;
pub use candidates::{FittedFacts, NewCandidate, StoredPolicy};
pub use feedback::{Ack, AckStatus, FeedbackCommitted, FeedbackRow, FeedbackStat, Labels, NewFeedback};
pub use idempotency::{Begin, KEEP as IDEMPOTENCY_KEEP};
pub use imported::ImportedFeedback;
pub use lifecycle::{AuditEntry, CanaryEnd, CanaryLife, Lifecycle, PolicyAction, StandIn, Trial};
pub use said::{Said, said_of};
pub use spend::{Spend, Spends};
pub use state::{PolicyRow, PolicyRunState, PolicyState, StateRole};
pub use transfers::{Imbalance, Transfer, TransferKind};

use super::{Durability, Readers, StoreError, Writer};

/// Connections that read beside the writer.
const READERS: usize = 2;

/// A cheap handle to `ledger.db`.
#[derive(Debug, Clone)]
pub struct LedgerStore {
    path: PathBuf,
    writer: Writer,
    readers: Readers,
    subscriber: Option<mpsc::Sender<FeedbackCommitted>>,
}

impl LedgerStore {
    /// Opens or creates the file. Every piece of feedback is sent to `subscriber` after its commit,
    /// in the order of its sequence; while the subscriber's channel is full, new feedback waits. A
    /// subscriber that went away stops nothing.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] when a newer daemon wrote the file, [`StoreError::Io`] when it
    /// cannot be opened.
    pub async fn open(
        path: &Path,
        subscriber: Option<mpsc::Sender<FeedbackCommitted>>,
    ) -> Result<Self, StoreError> {
        Self::open_as(path, Durability::Full, subscriber).await
    }

    /// Opens it for commits that survive so much. Less than [`Durability::Full`] is for the control run of the power
    /// cut in `scripts/chaos` alone: what is acknowledged may be lost then.
    ///
    /// # Errors
    /// As [`LedgerStore::open`].
    pub async fn open_as(
        path: &Path,
        durability: Durability,
        subscriber: Option<mpsc::Sender<FeedbackCommitted>>,
    ) -> Result<Self, StoreError> {
        let writer = Writer::open(path, durability, Duration::ZERO, schema::STEPS)?;
        let readers = Readers::open(path, READERS)?;
        let store = Self { path: path.to_owned(), writer, readers, subscriber };
        store.mark_crashed().await?;
        Ok(store)
    }

    /// Waits until all that was handed over before is written, or was refused.
    ///
    /// # Errors
    /// What the store met.
    pub async fn flushed(&self) -> Result<(), StoreError> {
        self.writer.run(|_| Ok(())).await
    }

    /// Writes what is queued and closes the file; everything asked later hears
    /// [`StoreError::Closed`].
    ///
    /// # Errors
    /// What closing met; what was acknowledged before is safe.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.writer.close().await
    }
}

/// A count or a sequence as SQLite keeps it: in 63 bits.
fn kept(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count or a sequence as it was kept.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

#[cfg(test)]
pub(crate) mod tests;
