//! Trains a candidate on what is stored, beside the requests.
//!
//! One training runs at a time, on a thread of its own at low priority: it may use what the requests
//! leave. It reads the log up to where it ended at the beginning. A training that nobody waits for any
//! more stops at its next stage and leaves nothing behind.
//! The latest part of the feedback is left out, for [`super::evaluate`].
//! The artifact is on disk before the ledger names it, so a candidate that is listed can be loaded.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pointsman_learner::train::{Stage, TrainError, TrainSettings, TrainingReport, train};
use pointsman_router::artifact::{ArtifactError, ArtifactKind};
use pointsman_router::clock::Clock;
use pointsman_router::features::SchemaHash;
use pointsman_router::ids::PolicyVersion;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Notify, oneshot, watch};

use super::log::{Reach, StoredLog};
use super::rows::StoredRows;
use crate::store::StoreError;
use crate::store::artifacts::{ArtifactFileError, ArtifactStore};
use crate::store::ledger::{AuditEntry, FittedFacts, LedgerStore, NewCandidate, PolicyAction, StoredPolicy};
use crate::store::traces::TraceStore;

/// Who asks where nothing else is said.
pub(super) const CALLER: &str = "caller";
/// How much the thread gives way to others.
const NICE: i32 = 10;
/// The share of all feedback, the latest, that no training sees: a candidate is evaluated on what it was
/// not trained on, and the gate's promise holds for nothing else.
pub const LEFT_OUT: f64 = 0.3;
/// No time left is told before this share is done: it would be a guess.
const TOLD_FROM: f64 = 0.02;

/// What to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Whether the policy is to go on learning.
    pub kind: ArtifactKind,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// The most traces, the newest; `None`: all.
    pub rows_max: Option<u64>,
}

/// How far a training has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Where it is; never goes back.
    pub stage: Stage,
    /// How much is done, from 0 to 1; never falls.
    pub share: f64,
    /// Rows read so far.
    pub rows: u64,
    /// About how long it will still take; `None`: not known yet.
    pub left: Option<Duration>,
}

impl Progress {
    /// Nothing is done yet.
    pub const BEGIN: Self = Self { stage: Stage::Reading, share: 0.0, rows: 0, left: None };
}

/// Why there is no candidate.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// Another training runs.
    #[error("a training is under way, wait for its end or end its call")]
    Running,
    /// Nobody waits for it any more, or the daemon ends.
    #[error("the training was given up")]
    GivenUp,
    /// The rows do not do, or cannot be read.
    #[error(transparent)]
    Rows(#[from] TrainError<StoreError>),
    /// A store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The artifact cannot be kept.
    #[error(transparent)]
    File(#[from] ArtifactFileError),
    /// The artifact has no form in bytes.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The thread could not be had, or broke down.
    #[error("the training could not run: {detail}")]
    Thread {
        /// What the system said.
        detail: String,
    },
}

/// The report as it is kept with its policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptReport {
    /// The seed of the training.
    pub seed: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// What the learner said.
    #[serde(flatten)]
    pub report: TrainingReport,
}

/// What training stands on.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The state folder.
    pub state_dir: PathBuf,
    /// What the features of this installation mean.
    pub schema: SchemaHash,
    /// The traces.
    pub traces: TraceStore,
    /// Feedback and policies.
    pub ledger: LedgerStore,
    /// The artifacts.
    pub artifacts: ArtifactStore,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// A cheap handle to the one who trains.
#[derive(Debug, Clone)]
pub struct Trainer {
    ground: Arc<Ground>,
    /// Whom the audit log names.
    actor: Arc<str>,
    busy: Arc<Busy>,
    stopped: Arc<AtomicBool>,
}

/// Whether a training is under way, and the end of it.
#[derive(Debug, Default)]
struct Busy {
    now: AtomicBool,
    over: Notify,
}

/// The right to train, until it is dropped.
#[derive(Debug)]
pub struct Turn(Arc<Busy>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.now.store(false, Ordering::Release);
        self.0.over.notify_waiters();
    }
}

/// Gives a training up when whoever waited for it goes.
#[derive(Debug)]
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What a fit made.
#[derive(Debug)]
struct Fitted {
    version: PolicyVersion,
    bytes: Vec<u8>,
    trained_through: u64,
    report: KeptReport,
}

impl Trainer {
    /// Trains on this ground.
    #[must_use]
    pub fn new(ground: Ground) -> Self {
        Self { ground: Arc::new(ground), actor: CALLER.into(), busy: Arc::default(), stopped: Arc::default() }
    }

    /// The same trainer, with another name in the audit log.
    #[must_use]
    pub fn named(&self, actor: &str) -> Self {
        Self { actor: actor.into(), ..self.clone() }
    }

    /// What it stands on.
    #[must_use]
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Whether a training is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy.now.load(Ordering::Acquire)
    }

    /// Waits until no training is under way.
    pub async fn idle(&self) {
        loop {
            // Asked for before the look, so that no end falls between the two.
            let over = self.busy.over.notified();
            if !self.is_busy() {
                return;
            }
            over.await;
        }
    }

    /// Gives up what is under way: the daemon ends.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// The right to train.
    ///
    /// # Errors
    /// [`TrainingError::Running`] while another has it.
    pub fn turn(&self) -> Result<Turn, TrainingError> {
        if self.busy.now.swap(true, Ordering::AcqRel) {
            return Err(TrainingError::Running);
        }
        Ok(Turn(Arc::clone(&self.busy)))
    }

    /// Trains, and keeps the candidate. Dropping the future gives the training up.
    ///
    /// # Errors
    /// [`TrainingError`]; then there is no candidate.
    pub async fn train(
        &self,
        turn: Turn,
        wish: Wish,
        tell: watch::Sender<Progress>,
    ) -> Result<StoredPolicy, TrainingError> {
        self.ground.traces.flushed().await?;
        let given_up = Arc::new(AtomicBool::new(false));
        let waiting = Waiting(Arc::clone(&given_up));
        let work = Work { ground: Arc::clone(&self.ground), given_up, stopped: Arc::clone(&self.stopped) };
        let fitted = on_low_thread("train", move || {
            let fitted = work.fit(wish, &tell);
            // Whoever asks next must not be told that this one still runs.
            drop(turn);
            fitted
        });
        let fitted = fitted.await.map_err(|detail| TrainingError::Thread { detail })??;
        let stored = self.keep(wish, fitted).await;
        drop(waiting);
        stored
    }

    /// Keeps what was fitted: the file first, then the row that names it.
    async fn keep(&self, wish: Wish, fitted: Fitted) -> Result<StoredPolicy, TrainingError> {
        let Fitted { version, bytes, trained_through, report } = fitted;
        let Wish { kind, seed, rows_max } = wish;
        let seen = self.ground.ledger.feedback_through().await?;
        let settings = json!({"seed": seed, "rows_max": rows_max.unwrap_or(0), "feedback_seen": seen}).to_string();
        let facts = FittedFacts {
            artifact_bytes: bytes.len() as u64,
            schema: Some(self.ground.schema),
            trained_rows: report.report.rows,
            trained_through,
            report: serde_json::to_string(&report).ok(),
            ..FittedFacts::default()
        };
        self.admit((kind, PolicyAction::Trained), (version, bytes), settings, facts)
            .await
            .map(|(stored, _)| stored)
    }

    /// Takes an artifact in as a candidate that came by this action; one that is known already stays as it is. Whether it is
    /// new.
    ///
    /// # Errors
    /// What the stores met.
    pub async fn admit(
        &self,
        (kind, action): (ArtifactKind, PolicyAction),
        (version, bytes): (PolicyVersion, Vec<u8>),
        settings: String,
        fitted: FittedFacts,
    ) -> Result<(StoredPolicy, bool), TrainingError> {
        let Ground { artifacts, ledger, clock, .. } = &*self.ground;
        let (files, named) = (artifacts.clone(), version.clone());
        let put = tokio::task::spawn_blocking(move || files.put(&named, &bytes));
        put.await.map_err(|error| TrainingError::Thread { detail: error.to_string() })??;
        let candidate = NewCandidate {
            version: version.clone(),
            kind: kind.as_str().to_owned(),
            created_at: clock.now(),
            settings,
            fitted,
        };
        let reason = format!("on {} rows", candidate.fitted.trained_rows);
        let entry = AuditEntry::about(action, &version, (&*self.actor, candidate.created_at), reason);
        let new = ledger.insert_candidate(candidate, entry).await?;
        let gone = || StoreError::Corrupt { detail: format!("the policy `{version}` is gone from the ledger") };
        let stored = ledger.policy(version.clone()).await?.ok_or_else(gone)?;
        Ok((stored, new))
    }
}

/// The part of a training that runs on its thread.
struct Work {
    ground: Arc<Ground>,
    given_up: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
}

impl Work {
    fn is_over(&self) -> bool {
        self.given_up.load(Ordering::Acquire) || self.stopped.load(Ordering::Acquire)
    }

    fn fit(&self, wish: Wish, tell: &watch::Sender<Progress>) -> Result<Fitted, TrainingError> {
        let Ground { state_dir, schema, clock, .. } = &*self.ground;
        let began = clock.now();
        let log = StoredLog::open(state_dir, Reach { rows_max: wish.rows_max, left_out: LEFT_OUT })?;
        let trained_through = log.feedback_through();
        let over = || self.is_over();
        let rows = StoredRows::new(log, *schema).until(&over);
        let settings = TrainSettings { kind: wish.kind, seed: wish.seed, ..TrainSettings::default() };
        let trained = train(&rows, &settings, &mut |stage, share| {
            tell.send_modify(|last| {
                *last = later(*last, (stage, share), rows.read_so_far(), clock.now().since(began))
            });
            if self.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if self.is_over() {
            return Err(TrainingError::GivenUp);
        }
        let trained = trained?;
        if rows.passed_over() > 0 {
            tracing::info!(
                traces = rows.passed_over(),
                "training passed over traces without features of today's schema"
            );
        }
        let (bytes, version) = trained.artifact.to_bytes()?;
        let took_us = u64::try_from(clock.now().since(began).as_micros()).unwrap_or(u64::MAX);
        let report = KeptReport { seed: wish.seed, took_us, report: trained.report };
        Ok(Fitted { version, bytes, trained_through, report })
    }
}

/// What is told next: stages and shares never go back.
fn later(last: Progress, (stage, share): (Stage, f64), rows: u64, spent: Duration) -> Progress {
    let share = share.clamp(last.share, 1.0);
    let stage = if place(stage) > place(last.stage) { stage } else { last.stage };
    let left = (share >= TOLD_FROM).then(|| spent.mul_f64((1.0 - share) / share));
    Progress { stage, share, rows: rows.max(last.rows), left }
}

/// A stage's place in the order in which they are told.
fn place(stage: Stage) -> u8 {
    match stage {
        Stage::Reading => 0,
        Stage::FittingFeatures => 1,
        Stage::FittingModels => 2,
        Stage::Calibrating => 3,
    }
}

/// Runs work on a thread of its own, at low priority; what went wrong with the thread is an error.
pub(super) async fn on_low_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (done, result) = oneshot::channel();
    let thread = move || {
        give_way();
        // Whoever waited has gone: the result is of no use.
        let _ = done.send(work());
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(thread).map_err(|error| error.to_string())?;
    result.await.map_err(|_| "its thread broke down, see the log".to_owned())
}

/// Lowers the priority of the calling thread.
fn give_way() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "training runs at the priority of requests");
    }
}

#[cfg(test)]
mod tests;
