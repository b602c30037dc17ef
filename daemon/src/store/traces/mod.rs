//! Traces: one row for each decision, whatever became of it, and the reports of `Decide` callers.
//!
//! Traces and reports share one sequence, strictly rising over restarts; it is the order in which
//! money is booked and in which cost and latency are learned. After each group commit what was
//! committed is told, in that order, to one subscriber; a rebuild reads the same with
//! [`TraceStore::scan`]. A number may be missing (a repeated report, a deleted trace); none is ever
//! given twice.
//!
//! This module never reads a clock and never waits on the request path. Nothing is acknowledged
//! before its commit. The commit is not synced (`synchronous = NORMAL`): after a power cut the last
//! traces may be gone, never the file.

mod body;
mod queue;
mod retention;
mod rows;
mod stats;
mod tally;

pub use body::StoredTrace;
pub use retention::{Deletion, Retention, StoreSize};
pub use rows::{TraceFilter, reports_of as reports_in, traces_between};
pub use stats::{ModelStats, Stats};
pub use tally::{Failures, Latencies, Tally};

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pointsman_router::clock::Timestamp;
use pointsman_router::features::{Features, SURFACE_DIMS, SchemaHash};
use pointsman_router::ids::{DecisionId, ModelName, TaskType};
use pointsman_router::trace::{Trace, TraceSink, TracesFull};
use rusqlite::Transaction;
use tokio::sync::{RwLockReadGuard, RwLockWriteGuard, mpsc};
use xxhash_rust::xxh3::xxh3_64;

use super::{Durability, Readers, StoreError, Writer};
use crate::wire::trace::Kept;
use queue::{Place, Queue};
use rows::Span;

/// How a trace store is to run.
#[derive(Debug, Clone, Copy)]
pub struct TraceStoreSettings {
    /// What may be kept of a trace.
    pub kept: Kept,
    /// Requests in flight and traces in the queue, together; beyond it requests are refused.
    pub places_max: usize,
    /// How long the first trace of a commit waits for others.
    pub linger: Duration,
    /// Every number up to this one counts as given: the ledger's own mark, for the case that this
    /// file lost its tail in a power cut.
    pub floor: u64,
    /// How long traces are kept.
    pub retention: Retention,
    /// How many may read at once.
    pub readers: usize,
    /// The share of traces whose features are kept.
    pub sample: f64,
}

impl Default for TraceStoreSettings {
    fn default() -> Self {
        Self {
            kept: Kept { content: false, secret: 0 },
            places_max: 65_536,
            linger: Duration::from_millis(3),
            floor: 0,
            retention: Retention::default(),
            readers: 3,
            sample: 1.0,
        }
    }
}

/// What the caller of `Decide` saw of one model, or that its report is at an end.
#[derive(Debug, Clone, PartialEq)]
pub struct NewReport {
    /// The decision it is about.
    pub decision: DecisionId,
    /// The model; `None` for the row that ends the report of its decision. The first of each stands.
    pub model: Option<ModelName>,
    /// The task type of the decision, for the statistics.
    pub task: TaskType,
    /// When it came, for the statistics.
    pub at: Timestamp,
    /// What it adds to the statistics of its model.
    pub tally: Tally,
    /// The report itself; this store does not look into it.
    pub body: Vec<u8>,
}

/// A stored report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its place among all traces and reports.
    pub seq: u64,
    /// The decision it is about.
    pub decision: DecisionId,
    /// The model; `None` for the row that ends the report of its decision.
    pub model: Option<ModelName>,
    /// The report itself.
    pub body: Vec<u8>,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// It is stored.
    Recorded,
    /// An earlier one stands; this one changed nothing.
    Repeated,
}

/// A row that is committed.
#[derive(Debug, Clone)]
pub enum Committed {
    /// A trace.
    Trace {
        /// Its place.
        seq: u64,
        /// The trace.
        trace: Arc<Trace>,
    },
    /// A report; it carries its place.
    Report(Arc<Report>),
}

impl Committed {
    /// Its place among all traces and reports.
    #[must_use]
    pub fn seq(&self) -> u64 {
        match self {
            Self::Trace { seq, .. } => *seq,
            Self::Report(report) => report.seq,
        }
    }
}

/// What is known of a decision's trace.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup<T> {
    /// It is kept.
    Found(T),
    /// It is not kept, and its decision is older than what is.
    Pruned,
    /// There never was one, or it was deleted, or a power cut took it.
    Unknown,
}

impl<T> Lookup<T> {
    /// The same, with what was found turned into something else.
    ///
    /// # Errors
    /// What the turning met.
    pub fn try_map<U, E>(self, turn: impl FnOnce(T) -> Result<U, E>) -> Result<Lookup<U>, E> {
        Ok(match self {
            Self::Found(found) => Lookup::Found(turn(found)?),
            Self::Pruned => Lookup::Pruned,
            Self::Unknown => Lookup::Unknown,
        })
    }
}

/// A page of traces, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracePage {
    /// The traces.
    pub traces: Vec<StoredTrace>,
    /// Where the next page starts; `None` when this is the last.
    pub next: Option<u64>,
}

/// All traces up to a place were pruned, the last of them admitted at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneMark {
    /// The place; zero where nothing was pruned.
    pub seq: u64,
    /// Ids made up to this time and not found belonged to pruned traces.
    pub at: Timestamp,
}

const NOTHING_PRUNED: PruneMark = PruneMark { seq: 0, at: Timestamp::from_micros(i64::MIN) };

/// A cheap handle to `traces.db`.
#[derive(Debug, Clone)]
pub struct TraceStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: Arc<Queue>,
    writer: Writer,
    readers: Readers,
    /// One deletion or mark at a time, so that they never fill the writer's queue.
    alone: tokio::sync::Mutex<()>,
    /// Whoever adds to a decision reads it, whoever lets decisions go writes it.
    comings: tokio::sync::RwLock<()>,
    pruned_through: Mutex<PruneMark>,
    retention: Retention,
    sample: f64,
}

impl TraceStore {
    /// Opens or creates the file. What is committed from now on is told to `events`, in order.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] when a newer daemon wrote the file; [`StoreError::Io`] when it
    /// cannot be opened.
    pub async fn open(
        path: &Path,
        settings: TraceStoreSettings,
        events: mpsc::UnboundedSender<Committed>,
    ) -> Result<Self, StoreError> {
        let TraceStoreSettings { kept, places_max, linger, floor, retention, readers, sample } = settings;
        let writer = Writer::open(path, Durability::Normal, linger, rows::SCHEMA)?;
        let readers = Readers::open(path, readers)?;
        let (last_seq, pruned_through) =
            readers.read(|conn| Ok((rows::mark(conn, rows::LAST_SEQ)?, rows::prune_mark(conn)?))).await?;
        let last_seq = last_seq.and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0).max(floor);
        Ok(Self(Arc::new(Inner {
            queue: Queue::new(writer.clone(), last_seq.saturating_add(1), places_max, kept, events),
            writer,
            readers,
            alone: tokio::sync::Mutex::new(()),
            comings: tokio::sync::RwLock::new(()),
            pruned_through: Mutex::new(pruned_through.unwrap_or(NOTHING_PRUNED)),
            retention,
            sample,
        })))
    }

    /// Stores reports, all in one commit where it has room, and says of each what became of it.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the queue is full; otherwise what the commit met. Sending the same
    /// again is safe.
    pub async fn report(&self, reports: Vec<NewReport>) -> Result<Vec<Reported>, StoreError> {
        let mut reported = Vec::with_capacity(reports.len());
        for stored in self.0.queue.push_reports(reports)? {
            let new = stored.await.map_err(|_| StoreError::Closed)??;
            reported.push(if new { Reported::Recorded } else { Reported::Repeated });
        }
        Ok(reported)
    }

    /// Stores traces that happened elsewhere, and says of each whether it is new. They are listed and
    /// exported as others are; no subscriber hears of them, no scan finds them, no statistics count them.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the queue is full; otherwise what the commit met. Sending the same
    /// again is safe.
    pub async fn import(&self, traces: Vec<Arc<Trace>>) -> Result<Vec<bool>, StoreError> {
        let mut stored = Vec::with_capacity(traces.len());
        for new in self.0.queue.push_imports(traces)? {
            stored.push(new.await.map_err(|_| StoreError::Closed)??);
        }
        Ok(stored)
    }

    /// Whether the trace of a decision happened elsewhere.
    ///
    /// # Errors
    /// What reading met.
    pub async fn is_imported(&self, id: DecisionId) -> Result<bool, StoreError> {
        self.0.readers.read(move |conn| rows::is_imported(conn, id)).await
    }

    /// While this is held no trace goes: what was found of a decision still stands when what is said
    /// of it is committed.
    pub async fn staying(&self) -> RwLockReadGuard<'_, ()> {
        self.0.comings.read().await
    }

    /// Waits until nobody adds to a decision any more, and lets nobody add while this is held; for
    /// whoever lets traces go. Who gave up adding may still have something queued with a writer.
    pub async fn going(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.comings.write().await
    }

    /// The trace of a decision and its place, once it is committed: waits for the commit of one that
    /// is on its way, by when the subscriber was told of it. One that happened elsewhere comes without
    /// the features that it could teach by.
    ///
    /// # Errors
    /// What the commit or the reading met.
    pub async fn committed(&self, id: DecisionId) -> Result<Lookup<(u64, Arc<Trace>)>, StoreError> {
        if let Place::Pending { seq, trace, committed } = self.0.queue.find(id) {
            committed.await.map_err(|_| StoreError::Closed)??;
            return Ok(Lookup::Found((seq, trace)));
        }
        let found = self.get(id).await?;
        let elsewhere = matches!(found, Lookup::Found(_)) && self.is_imported(id).await?;
        found.try_map(|stored| {
            let trace = stored.trace()?;
            Ok((stored.seq, Arc::new(if elsewhere { bare(&trace) } else { trace })))
        })
    }

    /// The stored trace of a decision; one that is on its way is waited for.
    ///
    /// # Errors
    /// What the commit or the reading met.
    pub async fn get(&self, id: DecisionId) -> Result<Lookup<StoredTrace>, StoreError> {
        if let Place::Pending { committed, .. } = self.0.queue.find(id) {
            committed.await.map_err(|_| StoreError::Closed)??;
        }
        let found = self.0.readers.read(move |conn| rows::trace(conn, id)).await?;
        let mark = self.pruned_through();
        Ok(match found {
            Some(stored) if stored.seq > mark.seq => Lookup::Found(stored),
            Some(_) => Lookup::Pruned,
            None if mark.seq > 0 && made_at(id) <= mark.at => Lookup::Pruned,
            None => Lookup::Unknown,
        })
    }

    /// The reports of a decision, in their order.
    ///
    /// # Errors
    /// What reading met.
    pub async fn reports(&self, id: DecisionId) -> Result<Vec<Report>, StoreError> {
        self.0.readers.read(move |conn| rows::reports_of(conn, id)).await
    }

    /// A page of the matching traces, newest first, below the place where the page before ended.
    ///
    /// # Errors
    /// What reading met.
    pub async fn list(
        &self,
        filter: TraceFilter,
        below: Option<u64>,
        limit: usize,
    ) -> Result<TracePage, StoreError> {
        let span = Span::Below(below.unwrap_or(u64::MAX));
        let one_more = limit.saturating_add(1);
        let mut traces = self.0.readers.read(move |conn| rows::matching(conn, &filter, span, one_more)).await?;
        let more = traces.len() > limit;
        traces.truncate(limit);
        let next = traces.last().filter(|_| more).map(|last| last.seq);
        Ok(TracePage { traces, next })
    }

    /// The next matching traces, oldest first, from above `after` up to `through`: see
    /// [`TraceStore::last_seq`].
    ///
    /// # Errors
    /// What reading met.
    pub async fn export(
        &self,
        filter: TraceFilter,
        after: u64,
        through: u64,
        limit: usize,
    ) -> Result<Vec<StoredTrace>, StoreError> {
        let span = Span::Between { after, through };
        self.0.readers.read(move |conn| rows::matching(conn, &filter, span, limit)).await
    }

    /// The last place that is committed; zero in an empty store.
    ///
    /// # Errors
    /// What reading met.
    pub async fn last_seq(&self) -> Result<u64, StoreError> {
        let last = self.0.readers.read(|conn| rows::mark(conn, rows::LAST_SEQ)).await?;
        Ok(last.and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0))
    }

    /// The next rows above a place, traces and reports in their common order: what a rebuild reads,
    /// and what the subscriber missed. Fewer than `limit`: there are no more.
    ///
    /// # Errors
    /// What reading met; [`StoreError::Corrupt`] for a row that cannot be read back.
    pub async fn scan(&self, after: u64, limit: usize) -> Result<Vec<Committed>, StoreError> {
        let read = self.0.readers.read(move |conn| {
            // One snapshot for both tables: a commit in between must not tear a hole.
            let tx = conn.unchecked_transaction()?;
            let rows = (rows::traces_after(&tx, after, limit)?, rows::reports_after(&tx, after, limit)?);
            tx.finish()?;
            let traces = rows.0.iter().map(|stored| {
                stored.trace().map(|trace| Committed::Trace { seq: stored.seq, trace: Arc::new(trace) })
            });
            let reports = rows.1.into_iter().map(|report| Ok(Committed::Report(Arc::new(report))));
            Ok(traces.chain(reports).collect::<Result<Vec<_>, StoreError>>())
        });
        let mut rows = read.await??;
        rows.sort_by_key(Committed::seq);
        rows.truncate(limit);
        Ok(rows)
    }

    /// Statistics of all models, over all time.
    ///
    /// # Errors
    /// What reading met.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        self.0.readers.read(stats::read).await
    }

    /// Waits until all that was handed over before is committed.
    ///
    /// # Errors
    /// What the commit met; the traces are kept and tried again.
    pub async fn flushed(&self) -> Result<(), StoreError> {
        self.0.queue.push_barrier(false).await.map_err(|_| StoreError::Closed)?.map(|_| ())
    }

    /// Writes what was handed over and syncs the file: a power cut cannot take it any more.
    ///
    /// # Errors
    /// What the commit or the sync met.
    pub async fn sync(&self) -> Result<(), StoreError> {
        self.flushed().await?;
        self.0.writer.sync().await
    }

    /// Writes what was handed over and closes the file. What cannot be written now is lost, and the
    /// log says how much.
    ///
    /// # Errors
    /// What the last commit or the checkpoint met.
    pub async fn close(&self) -> Result<(), StoreError> {
        let flushed = self.0.queue.push_barrier(true).await.map_err(|_| StoreError::Closed)?;
        let closed = self.0.writer.close().await;
        flushed.and(closed)
    }

    /// Up to where traces were pruned.
    #[must_use]
    pub fn pruned_through(&self) -> PruneMark {
        *self.0.pruned_through.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_pruned_through(&self, mark: PruneMark) {
        *self.0.pruned_through.lock().unwrap_or_else(PoisonError::into_inner) = mark;
    }

    fn retention(&self) -> Retention {
        self.0.retention
    }

    fn readers(&self) -> &Readers {
        &self.0.readers
    }

    async fn alone<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _alone = self.0.alone.lock().await;
        self.0.writer.run(work).await
    }
}

impl TraceSink for TraceStore {
    fn reserve(&self) -> Result<(), TracesFull> {
        self.0.queue.reserve()
    }

    fn release(&self) {
        self.0.queue.release();
    }

    fn push(&self, trace: Arc<Trace>) {
        let trace = if is_sampled(trace.decision.id, self.0.sample) { trace } else { Arc::new(bare(&trace)) };
        self.0.queue.push_trace(trace);
    }
}

/// Whether the features of this decision's trace are kept: a share of all, by the hash of the id.
fn is_sampled(id: DecisionId, share: f64) -> bool {
    // 53 bits, so that the quotient is exact.
    share >= 1.0 || ((xxh3_64(id.as_bytes()) >> 11) as f64) < share * (1_u64 << 53) as f64
}

/// The trace without the features that it could teach by. They are dropped before anybody learns, so
/// that a rebuild finds what was there; the length of the prompt stays, by which costs are learned.
fn bare(trace: &Trace) -> Trace {
    let features = Features {
        text: Vec::new(),
        surface: [0.0; SURFACE_DIMS],
        tags: Vec::new(),
        sketch: Vec::new(),
        prompt_bytes: trace.features.prompt_bytes,
        schema: NO_FEATURES,
    };
    Trace { features: Arc::new(features), ..trace.clone() }
}

/// The schema of a trace without features; no encoder makes it.
pub const NO_FEATURES: SchemaHash = SchemaHash(0);

/// When an id was made: its first 48 bits are milliseconds.
fn made_at(id: DecisionId) -> Timestamp {
    let millis = id.as_bytes().iter().take(6).fold(0_i64, |millis, byte| (millis << 8) | i64::from(*byte));
    Timestamp::from_micros(millis.saturating_mul(1_000))
}

#[cfg(test)]
pub(crate) mod support;
#[cfg(test)]
mod tests;
