//! The teacher: the one owner of the learned state of this daemon.
//!
//! Committed feedback teaches in ledger sequence, committed outcomes in trace sequence; nothing else
//! teaches, so the state after a restart equals a rebuild from all rows, bit for bit
//! ([`crate::verify`] proves it). Requests never wait for it: they read the last published snapshot
//! behind an atomic pointer. A row whose trace is gone moves the mark and teaches nothing.
//!
//! States are saved together with their marks. Before one is saved the trace file is synced, so a
//! power cut cannot take a trace that a saved state has learned from.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pointsman_learner::online::{Call, Lesson, Online, StateError};
use pointsman_router::bandit::BanditSettings;
use pointsman_router::clock::{Clock, Timestamp};
use pointsman_router::features::SchemaHash;
use pointsman_router::ids::{ModelName, PolicyVersion};
use pointsman_router::outcome::Outcome;
use pointsman_router::policy::{Policy, PolicyKind, PolicySource, Snapshot};
use pointsman_router::rules::RulesPolicy;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::store::StoreError;
use crate::store::ledger::{FeedbackCommitted, LedgerStore, PolicyState, StateRole};
use crate::store::traces::{Committed, Lookup, TraceStore};
use crate::wire::report::ModelReport;

/// Rows that are read at once while catching up.
const BATCH: usize = 512;
/// How long a lesson may wait before requests feel it.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// How often what was learned is saved.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// Requests to the teacher that wait, at most.
const ASKS_MAX: usize = 16;

/// Why the learned state cannot be had.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LearningError {
    /// The stores could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The saved state cannot be read.
    #[error("the saved state of `{version}` cannot be read, restore a backup of ledger.db: {cause}")]
    State {
        /// The policy.
        version: PolicyVersion,
        /// What is wrong with it.
        cause: StateError,
    },
}

/// What the daemon learns into.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The settings of the bandit.
    pub settings: BanditSettings,
    /// What its features mean.
    pub schema: SchemaHash,
}

impl Artifact {
    /// The version of the policy.
    #[must_use]
    pub fn version(&self) -> PolicyVersion {
        self.settings.version(self.schema)
    }

    /// A state that has seen nothing.
    #[must_use]
    pub fn fresh(&self) -> Online {
        Online::new(self.settings, self.schema)
    }

    /// The saved state of this role.
    ///
    /// # Errors
    /// [`LearningError`] when it cannot be read.
    pub async fn load(
        &self,
        ledger: &LedgerStore,
        role: StateRole,
    ) -> Result<Option<(Online, u64)>, LearningError> {
        let version = self.version();
        let Some(state) = ledger.load_state(version.clone(), role).await? else { return Ok(None) };
        Online::from_bytes(&state.bytes, self.settings, self.schema)
            .map(|online| Some((online, state.updates)))
            .map_err(|cause| LearningError::State { version, cause })
    }
}

/// Online state fed from the two stores.
#[derive(Debug)]
pub struct Student {
    online: Online,
    updates: u64,
    /// Rows of feedback whose trace a power cut took.
    orphans: Vec<u64>,
}

impl Student {
    /// Goes on from this state.
    #[must_use]
    pub fn new((online, updates): (Online, u64)) -> Self {
        Self { online, updates, orphans: Vec::new() }
    }

    /// The state.
    #[must_use]
    pub fn online(&self) -> &Online {
        &self.online
    }

    /// Labels taken in so far.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Learns every row behind the marks, up to the given sequences.
    ///
    /// # Errors
    /// What a store met; what was learned until then stands.
    pub async fn catch_up(
        &mut self,
        traces: &TraceStore,
        ledger: &LedgerStore,
        (feedback_through, trace_through): (u64, u64),
    ) -> Result<(), StoreError> {
        // The last place may have no row, so each loop ends at the first batch that brings nothing.
        loop {
            let mut rows = traces.scan(self.online.trace_mark(), BATCH).await?;
            rows.retain(|row| row.seq() <= trace_through);
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                self.observe(row, traces).await?;
            }
        }
        loop {
            let mut rows = ledger.scan_feedback(self.online.feedback_mark(), BATCH).await?;
            rows.retain(|row| row.row.seq <= feedback_through);
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                self.teach(row, traces).await?;
            }
        }
        Ok(())
    }

    /// Learns from one row of feedback; one that was learned before changes nothing.
    async fn teach(&mut self, row: &FeedbackCommitted, traces: &TraceStore) -> Result<(), StoreError> {
        let seq = row.row.seq;
        if seq <= self.online.feedback_mark() {
            return Ok(());
        }
        // What is pruned teaches nothing, even where it is still at hand: a rebuild could not know it.
        let pruned = traces.pruned_through().seq;
        let trace = match &row.trace {
            Some((at, trace)) => (*at > pruned).then(|| Arc::clone(trace)),
            None => match traces.committed(row.row.feedback.decision).await? {
                Lookup::Found((_, trace)) => Some(trace),
                Lookup::Pruned => None,
                Lookup::Unknown => {
                    self.orphans.push(seq);
                    None
                }
            },
        };
        if let Some(trace) = trace {
            let models: BTreeSet<&ModelName> = row.labels_before.keys().chain(row.row.labels.keys()).collect();
            for model in models {
                let (old, new) = (row.labels_before.get(model).copied(), row.row.labels.get(model).copied());
                if old.map(f64::to_bits) != new.map(f64::to_bits) {
                    self.online.teach(seq, &Lesson { features: &trace.features, model, old, new });
                    self.updates += 1;
                }
            }
        }
        self.online.pass(seq, 0);
        Ok(())
    }

    /// Learns from the outcomes of one row; one that was learned before changes nothing.
    async fn observe(&mut self, row: &Committed, traces: &TraceStore) -> Result<(), StoreError> {
        let seq = row.seq();
        if seq <= self.online.trace_mark() {
            return Ok(());
        }
        match row {
            Committed::Trace { trace, .. } => {
                for outcome in &trace.outcomes {
                    self.observe_outcome(seq, trace.features.prompt_bytes, outcome);
                }
            }
            Committed::Report(report) if report.model.is_some() => {
                let part = ModelReport::from_bytes(&report.body).ok();
                if let (Some(part), Lookup::Found((_, trace))) = (part, traces.committed(report.decision).await?) {
                    self.observe_outcome(seq, trace.features.prompt_bytes, &part.outcome);
                }
            }
            Committed::Report(_) => {}
        }
        self.online.pass(0, seq);
        Ok(())
    }

    fn observe_outcome(&mut self, seq: u64, prompt_bytes: u32, outcome: &Outcome) {
        if outcome.replied {
            let Outcome { model, tokens_out, cost, latency, .. } = outcome;
            self.online.observe(
                seq,
                &Call { model, prompt_bytes, tokens_out: *tokens_out, cost: *cost, latency: *latency },
            );
        }
    }
}

/// The snapshot that requests read.
#[derive(Debug)]
pub struct Published(ArcSwap<Snapshot>);

impl PolicySource for Published {
    fn current(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}

/// How learning stands.
#[derive(Debug, Clone, PartialEq)]
pub struct LearningStatus {
    /// The policy that serves.
    pub running: PolicyVersion,
    /// Its kind.
    pub kind: PolicyKind,
    /// The bandit that learns, whether it serves or not.
    pub learning: PolicyVersion,
    /// Labels that the bandit has taken in.
    pub updates: u64,
    /// Sequence of the last feedback in it.
    pub feedback_mark: u64,
    /// Sequence of the last trace in it.
    pub trace_mark: u64,
    /// What its features mean.
    pub schema: SchemaHash,
}

/// A handle to the teacher.
#[derive(Debug, Clone)]
pub struct Learning {
    published: Arc<Published>,
    status: watch::Receiver<LearningStatus>,
    asks: mpsc::Sender<Ask>,
}

/// Asks for the state to be saved in this role, with everything up to these sequences of feedback and
/// traces in it.
#[derive(Debug)]
struct Ask {
    role: StateRole,
    through: (u64, u64),
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl Learning {
    /// Where requests take their policy from.
    #[must_use]
    pub fn policies(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// How learning stands.
    #[must_use]
    pub fn status(&self) -> LearningStatus {
        self.status.borrow().clone()
    }

    /// Saves what was learned so far, for a restart to go on from.
    ///
    /// # Errors
    /// What the store met, [`StoreError::Closed`] when the teacher is gone.
    pub async fn save(&self) -> Result<(), StoreError> {
        self.ask(StateRole::Latest, (0, 0)).await
    }

    /// Keeps what was learned as the base of later rebuilds, with everything up to these sequences of
    /// feedback and traces in it: to be called before rows that taught are deleted.
    ///
    /// # Errors
    /// What the store met, [`StoreError::Closed`] when the teacher is gone; then nothing may be deleted.
    pub async fn keep_base(&self, through: (u64, u64)) -> Result<(), StoreError> {
        self.ask(StateRole::Base, through).await
    }

    async fn ask(&self, role: StateRole, through: (u64, u64)) -> Result<(), StoreError> {
        let (done, saved) = oneshot::channel();
        self.asks.send(Ask { role, through, done }).await.map_err(|_| StoreError::Closed)?;
        saved.await.map_err(|_| StoreError::Closed)?
    }
}

/// Learns while the daemon runs.
#[derive(Debug)]
pub struct Teacher {
    student: Student,
    rules: Option<Arc<RulesPolicy>>,
    published: Arc<Published>,
    status: watch::Sender<LearningStatus>,
    asks: mpsc::Receiver<Ask>,
    traces: TraceStore,
    ledger: LedgerStore,
    clock: Arc<dyn Clock>,
    unsaved: bool,
}

/// What the teacher listens to, each in its own order.
#[derive(Debug)]
pub struct Streams {
    /// Committed feedback.
    pub feedback: mpsc::Receiver<FeedbackCommitted>,
    /// Committed traces and reports.
    pub committed: mpsc::Receiver<Committed>,
}

impl Teacher {
    /// Loads what was saved, learns what was committed since, and publishes it. With `rules` those
    /// serve, and the bandit learns beside them.
    ///
    /// # Errors
    /// [`LearningError`] when the saved state or a store cannot be read.
    pub async fn open(
        artifact: &Artifact,
        rules: Option<RulesPolicy>,
        (traces, ledger): (TraceStore, LedgerStore),
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Learning), LearningError> {
        let saved = artifact.load(&ledger, StateRole::Latest).await?;
        let mut student = Student::new(saved.unwrap_or_else(|| (artifact.fresh(), 0)));
        let through = (ledger.feedback_through().await?, traces.last_seq().await?);
        student.catch_up(&traces, &ledger, through).await?;
        ledger.mark_orphans(std::mem::take(&mut student.orphans)).await?;
        let rules = rules.map(Arc::new);
        let published = Arc::new(Published(ArcSwap::from_pointee(snapshot(&student, rules.as_ref()))));
        let (status, watched) = watch::channel(status_of(&student, &published, artifact.schema));
        let (to_teacher, asks) = mpsc::channel(ASKS_MAX);
        let learning = Learning { published: Arc::clone(&published), status: watched, asks: to_teacher };
        Ok((Self { student, rules, published, status, asks, traces, ledger, clock, unsaved: true }, learning))
    }

    /// Learns until both streams end; then saves.
    pub async fn run(mut self, mut streams: Streams) {
        let mut publish = tokio::time::interval(PUBLISH_EVERY);
        let mut save = tokio::time::interval(SAVE_EVERY);
        // After a pause one tick is due, not all that nobody waited for.
        publish.set_missed_tick_behavior(MissedTickBehavior::Delay);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unpublished = false;
        let (mut feedback_ended, mut committed_ended) = (false, false);
        while !(feedback_ended && committed_ended) {
            let learned = tokio::select! {
                row = streams.feedback.recv(), if !feedback_ended => match row {
                    Some(row) => self.student.teach(&row, &self.traces).await,
                    None => {
                        feedback_ended = true;
                        continue;
                    }
                },
                row = streams.committed.recv(), if !committed_ended => match row {
                    Some(row) => self.student.observe(&row, &self.traces).await,
                    None => {
                        committed_ended = true;
                        continue;
                    }
                },
                Some(ask) = self.asks.recv() => {
                    let saved = self.answer(ask.role, ask.through).await;
                    (unpublished, self.unsaved) = (true, saved.is_err());
                    // Nobody waits any more: it is saved all the same.
                    let _ = ask.done.send(saved);
                    continue;
                }
                _ = publish.tick(), if unpublished => {
                    self.publish();
                    unpublished = false;
                    continue;
                }
                _ = save.tick(), if self.unsaved => {
                    self.save_latest().await;
                    continue;
                }
            };
            // A row that could not be read is read again by the next restart's catch-up only if its
            // mark did not move, so learning stops here rather than go on behind a hole.
            if let Err(error) = learned {
                tracing::error!(%error, "learning stopped, restart the daemon once the store can be read");
                break;
            }
            (unpublished, self.unsaved) = (true, true);
        }
        self.publish();
        self.save_latest().await;
    }

    /// Saves in this role, with everything up to these sequences in it.
    async fn answer(&mut self, role: StateRole, through: (u64, u64)) -> Result<(), StoreError> {
        self.student.catch_up(&self.traces, &self.ledger, through).await?;
        self.mark_orphans().await?;
        // A base is never ahead of the state that a restart goes on from: what is deleted behind it
        // could not be learned again.
        self.save(StateRole::Latest).await?;
        match role {
            StateRole::Latest => Ok(()),
            StateRole::Base => self.save(StateRole::Base).await,
        }
    }

    async fn mark_orphans(&mut self) -> Result<(), StoreError> {
        if self.student.orphans.is_empty() {
            return Ok(());
        }
        self.ledger.mark_orphans(std::mem::take(&mut self.student.orphans)).await
    }

    fn publish(&self) {
        self.published.0.store(Arc::new(snapshot(&self.student, self.rules.as_ref())));
        let schema = self.student.online.heads().schema();
        self.status.send_replace(status_of(&self.student, &self.published, schema));
    }

    async fn save_latest(&mut self) {
        match self.save(StateRole::Latest).await {
            Ok(()) => self.unsaved = false,
            Err(error) => tracing::warn!(%error, "what was learned could not be saved, a restart learns it again"),
        }
    }

    async fn save(&self, role: StateRole) -> Result<(), StoreError> {
        self.traces.sync().await?;
        let online = self.student.online();
        self.ledger
            .save_state(PolicyState {
                version: online.version().clone(),
                role,
                kind: PolicyKind::Bandit.as_str().to_owned(),
                created_at: self.now(),
                feedback_mark: online.feedback_mark(),
                trace_mark: online.trace_mark(),
                updates: self.student.updates,
                bytes: online.to_bytes(),
            })
            .await
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn snapshot(student: &Student, rules: Option<&Arc<RulesPolicy>>) -> Snapshot {
    let snapshot = student.online.snapshot();
    match rules {
        Some(rules) => Snapshot { policy: Arc::clone(rules) as Arc<dyn Policy>, ..snapshot },
        None => snapshot,
    }
}

fn status_of(student: &Student, published: &Published, schema: SchemaHash) -> LearningStatus {
    let running = published.current();
    LearningStatus {
        running: running.policy.version().clone(),
        kind: running.policy.kind(),
        learning: student.online.version().clone(),
        updates: student.updates,
        feedback_mark: student.online.feedback_mark(),
        trace_mark: student.online.trace_mark(),
        schema,
    }
}

#[cfg(test)]
pub(crate) mod tests;
