//! The queue of traces and reports on their way into the file.
//!
//! Handing a trace over is a push under a short lock; the conversion to bytes and the insertion
//! happen on the writer's thread, by one piece of work at a time ([`Flush`]), which takes what is at
//! the front of the queue and leaves it there until it is committed. So places are committed in
//! their order, and a trace is never lost to a failed commit.
//!
//! While the file cannot be written, traces stay queued and are tried again after a pause; their
//! places stay taken, so that new requests are refused before they cost anything. Reports and
//! everyone who waits hear the error instead: they can ask again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::{DecisionId, TaskType};
use pointsman_router::trace::{Trace, TracesFull};
use rusqlite::Transaction;
use tokio::sync::{mpsc, oneshot};

use super::rows::{self, LAST_SEQ, Origin, sql};
use super::stats::Gathered;
use super::tally::Tally;
use super::{Committed, NewReport, Report};
use crate::store::{StoreError, Writer};
use crate::wire::trace::Kept;

/// The most traces and reports that share one commit.
const FLUSH_MAX: usize = 1_024;
/// How long the writer waits before it tries again what could not be written.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A report with what it adds to the statistics.
#[derive(Debug)]
struct Counted {
    report: Arc<Report>,
    task: TaskType,
    at: Timestamp,
    tally: Tally,
}

/// What is written, without those who wait for it.
#[derive(Debug, Clone)]
enum Item {
    Trace {
        seq: u64,
        trace: Arc<Trace>,
    },
    Report(Arc<Counted>),
    /// A trace from elsewhere: no statistics, nobody is told.
    Import {
        seq: u64,
        trace: Arc<Trace>,
    },
    /// Nothing: whoever pushed it wants to know that all before it is committed.
    Barrier,
}

#[derive(Debug)]
struct Entry {
    item: Item,
    /// Hears whether a row was stored.
    reply: Option<Reply<bool>>,
}

#[derive(Debug)]
struct Pending {
    seq: u64,
    trace: Arc<Trace>,
    waiting: Vec<Reply<()>>,
}

#[derive(Debug, Default)]
struct State {
    next_seq: u64,
    /// Places that are reserved or queued.
    places_taken: usize,
    entries: VecDeque<Entry>,
    pending: HashMap<DecisionId, Pending>,
    flushing: bool,
    failing: bool,
    closing: bool,
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    places_max: usize,
    kept: Kept,
    writer: Writer,
    events: mpsc::UnboundedSender<Committed>,
}

/// Where a decision's trace stands as far as the queue knows.
pub(super) enum Place {
    /// On its way; hears when it is committed.
    Pending { seq: u64, trace: Arc<Trace>, committed: oneshot::Receiver<Result<(), StoreError>> },
    /// In the file, or nowhere.
    NotHere,
}

impl Queue {
    pub(super) fn new(
        writer: Writer,
        next_seq: u64,
        places_max: usize,
        kept: Kept,
        events: mpsc::UnboundedSender<Committed>,
    ) -> Arc<Self> {
        let state = Mutex::new(State { next_seq, ..State::default() });
        Arc::new(Self { state, places_max, kept, writer, events })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No step under this lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reserve(&self) -> Result<(), TracesFull> {
        let mut state = self.lock();
        if state.places_taken >= self.places_max {
            return Err(TracesFull);
        }
        state.places_taken += 1;
        Ok(())
    }

    pub(super) fn release(&self) {
        let mut state = self.lock();
        state.places_taken = state.places_taken.saturating_sub(1);
    }

    pub(super) fn push_trace(self: &Arc<Self>, trace: Arc<Trace>) {
        let mut state = self.lock();
        let seq = state.take_seq();
        let pending = Pending { seq, trace: Arc::clone(&trace), waiting: Vec::new() };
        state.pending.insert(trace.decision.id, pending);
        state.entries.push_back(Entry { item: Item::Trace { seq, trace }, reply: None });
        self.flush(state);
    }

    /// Queues reports, each in a place of its own that it takes here.
    pub(super) fn push_reports(
        self: &Arc<Self>,
        reports: Vec<NewReport>,
    ) -> Result<Vec<oneshot::Receiver<Result<bool, StoreError>>>, StoreError> {
        let mut state = self.lock();
        if state.places_taken.saturating_add(reports.len()) > self.places_max {
            return Err(StoreError::Busy);
        }
        state.places_taken += reports.len();
        let mut stored = Vec::with_capacity(reports.len());
        for NewReport { decision, model, task, at, tally, body } in reports {
            let (reply, hears) = oneshot::channel();
            let report = Arc::new(Report { seq: state.take_seq(), decision, model, body });
            let item = Item::Report(Arc::new(Counted { report, task, at, tally }));
            state.entries.push_back(Entry { item, reply: Some(reply) });
            stored.push(hears);
        }
        self.flush(state);
        Ok(stored)
    }

    /// Queues traces from elsewhere, each in a place of its own that it takes here.
    pub(super) fn push_imports(
        self: &Arc<Self>,
        traces: Vec<Arc<Trace>>,
    ) -> Result<Vec<oneshot::Receiver<Result<bool, StoreError>>>, StoreError> {
        let mut state = self.lock();
        if state.places_taken.saturating_add(traces.len()) > self.places_max {
            return Err(StoreError::Busy);
        }
        state.places_taken += traces.len();
        let mut stored = Vec::with_capacity(traces.len());
        for trace in traces {
            let (reply, hears) = oneshot::channel();
            let item = Item::Import { seq: state.take_seq(), trace };
            state.entries.push_back(Entry { item, reply: Some(reply) });
            stored.push(hears);
        }
        self.flush(state);
        Ok(stored)
    }

    /// Hears once all that was queued before is committed, or at the first failure.
    pub(super) fn push_barrier(self: &Arc<Self>, closing: bool) -> oneshot::Receiver<Result<bool, StoreError>> {
        let (reply, hears) = oneshot::channel();
        let mut state = self.lock();
        state.closing |= closing;
        state.entries.push_back(Entry { item: Item::Barrier, reply: Some(reply) });
        self.flush(state);
        hears
    }

    pub(super) fn find(&self, id: DecisionId) -> Place {
        let mut state = self.lock();
        let Some(pending) = state.pending.get_mut(&id) else { return Place::NotHere };
        let (reply, committed) = oneshot::channel();
        pending.waiting.retain(|waiting| !waiting.is_closed());
        pending.waiting.push(reply);
        Place::Pending { seq: pending.seq, trace: Arc::clone(&pending.trace), committed }
    }

    /// Starts a flush unless one is on its way. The lock must be free by then: a refused flush hears
    /// on this thread.
    fn flush(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let starts = !state.flushing && !state.entries.is_empty();
        state.flushing |= starts;
        drop(state);
        if starts {
            let (inside, after) = (Arc::clone(self), Arc::clone(self));
            self.writer.submit(move |tx| inside.write_front(tx), move |stored| after.flushed(stored));
        }
    }

    /// Writes what is at the front; tells of each entry whether a row was stored.
    fn write_front(&self, tx: &Transaction<'_>) -> rusqlite::Result<Vec<bool>> {
        let items: Vec<Item> =
            self.lock().entries.iter().take(FLUSH_MAX).map(|entry| entry.item.clone()).collect();
        let mut gathered = Gathered::default();
        let mut stored = Vec::with_capacity(items.len());
        for item in &items {
            stored.push(match item {
                Item::Trace { seq, trace } => {
                    let new = rows::insert_trace(tx, *seq, trace, (self.kept, Origin::Here))?;
                    if new {
                        gathered.trace(trace);
                    }
                    new
                }
                Item::Report(counted) => {
                    let new = rows::insert_report(tx, &counted.report)?;
                    if let (true, Some(model)) = (new, &counted.report.model) {
                        gathered.report(model, &counted.task, counted.at, &counted.tally);
                    }
                    new
                }
                Item::Import { seq, trace } => {
                    rows::insert_trace(tx, *seq, trace, (self.kept, Origin::Elsewhere))?
                }
                Item::Barrier => false,
            });
        }
        gathered.write(tx)?;
        if let Some(last_seq) = items.iter().rev().find_map(Item::seq) {
            rows::set_mark(tx, LAST_SEQ, sql(last_seq))?;
        }
        Ok(stored)
    }

    /// After the commit, or instead of it; runs on the writer's thread.
    fn flushed(self: Arc<Self>, stored: Result<Vec<bool>, StoreError>) {
        match stored {
            Ok(stored) => self.committed(&stored),
            Err(error) => {
                let goes_on = self.failed(&error);
                if !goes_on {
                    return;
                }
                std::thread::sleep(RETRY_PAUSE);
            }
        }
        let mut state = self.lock();
        state.flushing = false;
        self.flush(state);
    }

    /// Tells of what is committed, in its order: the subscriber first, so that whoever waited finds
    /// the subscriber told.
    fn committed(&self, stored: &[bool]) {
        let mut state = self.lock();
        if std::mem::take(&mut state.failing) {
            tracing::info!("traces are written again");
        }
        let count = stored.len().min(state.entries.len());
        let done: Vec<Entry> = state.entries.drain(..count).collect();
        drop(state);
        for (entry, stored) in done.iter().zip(stored) {
            let event = match &entry.item {
                Item::Trace { seq, trace } if *stored => Committed::Trace { seq: *seq, trace: Arc::clone(trace) },
                Item::Report(counted) if *stored => Committed::Report(Arc::clone(&counted.report)),
                Item::Trace { .. } | Item::Report(_) | Item::Import { .. } | Item::Barrier => continue,
            };
            // Without a subscriber there is nobody to tell; the rows are there for a scan.
            let _ = self.events.send(event);
        }
        let mut heard = Vec::new();
        let mut state = self.lock();
        for entry in &done {
            match &entry.item {
                Item::Trace { trace, .. } => heard.extend(state.pending.remove(&trace.decision.id)),
                Item::Report(_) | Item::Import { .. } => {}
                Item::Barrier => continue,
            }
            state.places_taken = state.places_taken.saturating_sub(1);
        }
        drop(state);
        // Whoever no longer listens has gone; that changes nothing.
        for waiting in heard.into_iter().flat_map(|pending| pending.waiting) {
            let _ = waiting.send(Ok(()));
        }
        for (entry, stored) in done.into_iter().zip(stored) {
            let _ = entry.reply.map(|reply| reply.send(Ok(*stored)));
        }
    }

    /// Tells everyone who waits; whether the traces are to be tried again.
    fn failed(&self, error: &StoreError) -> bool {
        let mut state = self.lock();
        let goes_on = *error != StoreError::Closed && !state.closing;
        let (kept, dropped): (VecDeque<Entry>, VecDeque<Entry>) = std::mem::take(&mut state.entries)
            .into_iter()
            .partition(|entry| goes_on && matches!(entry.item, Item::Trace { .. }));
        state.entries = kept;
        let held = dropped.iter().filter(|entry| !matches!(entry.item, Item::Barrier)).count();
        state.places_taken = state.places_taken.saturating_sub(held);
        let waiting: Vec<Reply<()>> =
            state.pending.values_mut().flat_map(|pending| std::mem::take(&mut pending.waiting)).collect();
        let first = !std::mem::replace(&mut state.failing, true);
        let traces = state.pending.len();
        if !goes_on {
            state.pending.clear();
            state.flushing = false;
        }
        drop(state);
        if !goes_on && traces > 0 {
            tracing::error!(traces, %error, "the store closes before these traces could be written");
        } else if first {
            tracing::warn!(traces, %error, "traces cannot be written and wait");
        }
        for waiting in waiting {
            let _ = waiting.send(Err(error.clone()));
        }
        for entry in dropped {
            let _ = entry.reply.map(|reply| reply.send(Err(error.clone())));
        }
        goes_on
    }
}

impl Item {
    fn seq(&self) -> Option<u64> {
        match self {
            Self::Trace { seq, .. } | Self::Import { seq, .. } => Some(*seq),
            Self::Report(counted) => Some(counted.report.seq),
            Self::Barrier => None,
        }
    }
}

impl State {
    fn take_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }
}
