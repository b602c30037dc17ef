//! The teacher: feeds every row to everybody who learns, publishes what came of it, and saves it.

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::clock::Clock;
use pointsman_router::ids::PolicyVersion;
use pointsman_router::policy::{Policy as _, PolicySource as _};
use pointsman_router::rules::RulesPolicy;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::class::Class;
use super::handle::{Ask, Learning};
use super::published::{LearningStatus, Published};
use super::student::{Artifact, LearningError};
use crate::store::StoreError;
use crate::store::ledger::{FeedbackCommitted, LedgerStore, StateRole};
use crate::store::traces::{Committed, TraceStore};

/// How long a lesson may wait before requests feel it.
pub(super) const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// How often what was learned is saved.
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(30);
/// Requests to the teacher that wait, at most.
const ASKS_MAX: usize = 16;

/// Learns while the daemon runs.
#[derive(Debug)]
pub struct Teacher {
    class: Class,
    running: PolicyVersion,
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
        let cold = artifact.clone().student(&ledger, StateRole::Latest).await?;
        let running = rules.as_ref().map_or_else(|| cold.version().clone(), |rules| rules.version().clone());
        let mut class = Class::new(cold, rules);
        let through = (ledger.feedback_through().await?, traces.last_seq().await?);
        class.catch_up((&traces, &ledger), through).await?;
        let snapshot = class.snapshot(&running).unwrap_or_else(|| class.cold().snapshot());
        let published = Arc::new(Published::new(snapshot));
        let (status, watched) = watch::channel(status_of(&class, &published));
        let (to_teacher, asks) = mpsc::channel(ASKS_MAX);
        let learning = Learning { published: Arc::clone(&published), status: watched, asks: to_teacher };
        Ok((Self { class, running, published, status, asks, traces, ledger, clock, unsaved: true }, learning))
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
                    Some(row) => self.class.teach(&row, &self.traces).await,
                    None => {
                        feedback_ended = true;
                        continue;
                    }
                },
                row = streams.committed.recv(), if !committed_ended => match row {
                    Some(row) => self.class.observe(&row, &self.traces).await,
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
        self.class.catch_up((&self.traces, &self.ledger), through).await?;
        // A base is never ahead of the state that a restart goes on from: what is deleted behind it
        // could not be learned again.
        self.save(StateRole::Latest).await?;
        match role {
            StateRole::Latest => Ok(()),
            StateRole::Base => self.save(StateRole::Base).await,
        }
    }

    fn publish(&self) {
        if let Some(snapshot) = self.class.snapshot(&self.running) {
            self.published.publish(snapshot);
        }
        self.status.send_replace(status_of(&self.class, &self.published));
    }

    async fn save_latest(&mut self) {
        match self.save(StateRole::Latest).await {
            Ok(()) => self.unsaved = false,
            Err(error) => tracing::warn!(%error, "what was learned could not be saved, a restart learns it again"),
        }
    }

    async fn save(&self, role: StateRole) -> Result<(), StoreError> {
        self.traces.sync().await?;
        self.ledger.save_states(self.class.states(role, self.clock.now())).await
    }
}

fn status_of(class: &Class, published: &Published) -> LearningStatus {
    let (serving, cold) = (published.current(), class.cold());
    LearningStatus {
        running: serving.policy.version().clone(),
        kind: serving.policy.kind(),
        learning: cold.version().clone(),
        updates: cold.updates(),
        feedback_mark: cold.online().feedback_mark(),
        trace_mark: cold.online().trace_mark(),
        learned: class.learned(),
    }
}
