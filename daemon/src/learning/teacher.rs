//! The teacher: feeds every row to everybody who learns, publishes what came of it, and saves it.

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::clock::Clock;
use pointsman_router::explore::{Explored, StoodIn};
use pointsman_router::ids::PolicyVersion;
use pointsman_router::policy::Snapshot;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::asks::Ask;
use super::class::Class;
use super::published::{Arms, LearningStatus, Published};
use super::report::Report;
use super::trials::{Bench, Trials};
use crate::store::StoreError;
use crate::store::ledger::{FeedbackCommitted, LedgerStore, Lifecycle, StandIn, StateRole};
use crate::store::traces::{Committed, TraceStore};

/// How long a lesson may wait before requests feel it.
pub(super) const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// How often what was learned is saved.
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(30);

/// Learns while the daemon runs.
#[derive(Debug)]
pub struct Teacher {
    pub(super) class: Class,
    pub(super) roles: Lifecycle,
    pub(super) trials: Trials,
    pub(super) bench: Bench,
    pub(super) exploration: f64,
    /// Whether the best single model may stand in for the running policy.
    pub(super) may_fall_back: bool,
    pub(super) published: Arc<Published>,
    pub(super) status: watch::Sender<LearningStatus>,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) traces: TraceStore,
    pub(super) ledger: LedgerStore,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) unsaved: bool,
    /// Whose alerts the log has told of, and how many.
    pub(super) alerts_told: (PolicyVersion, u64),
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
                    Some(row) => self.teach(&row).await,
                    None => {
                        feedback_ended = true;
                        continue;
                    }
                },
                row = streams.committed.recv(), if !committed_ended => match row {
                    Some(row) => {
                        self.trials.observe(&row, &self.bench);
                        self.class.observe(&row, &self.traces).await
                    }
                    None => {
                        committed_ended = true;
                        continue;
                    }
                },
                Some(ask) = self.asks.recv() => {
                    self.answer(ask).await;
                    unpublished = true;
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
            self.tell_alerts();
        }
        self.publish();
        self.save_latest().await;
    }

    /// Teaches one row of feedback. What it says of policies on trial is weighed first, by policies that
    /// have not learned from it; a canary that it shows to be worse is rolled back at once.
    async fn teach(&mut self, row: &FeedbackCommitted) -> Result<(), StoreError> {
        self.trials.judge(row, &self.bench, &self.traces).await?;
        self.class.teach(row, &self.traces).await?;
        self.watch_canary().await;
        self.watch_fallback().await;
        Ok(())
    }

    /// Says in the log which models the running policy's state has noticed to be others than before.
    fn tell_alerts(&mut self) {
        let online = self.class.online(&self.roles.running);
        let (version, total) = (online.version(), online.alerts_total());
        let known = if *version == self.alerts_told.0 { self.alerts_told.1 } else { total };
        let new = usize::try_from(total.saturating_sub(known)).unwrap_or(usize::MAX);
        for alert in online.alerts().skip(online.alerts().len().saturating_sub(new)) {
            let (what, direction) = (format!("{:?}", alert.what), format!("{:?}", alert.direction));
            let (before, after) = (alert.before, alert.after);
            tracing::warn!(model = %alert.model, what, direction, before, after, "a model has changed");
        }
        self.alerts_told = (version.clone(), total);
    }

    /// Does what is asked and says how it went; where nobody waits any more it is done all the same.
    async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Save { role, through, done } => {
                let saved = self.save_through(role, through).await;
                self.unsaved = saved.is_err();
                let _ = done.send(saved);
            }
            Ask::Change { change, done } => {
                let changed = self.apply(change).await;
                let _ = done.send(changed);
            }
            Ask::Report { done } => {
                let _ = done.send(self.report().await);
            }
        }
    }

    /// How those on trial do, with every row in it that is committed by now.
    async fn report(&mut self) -> Result<Report, StoreError> {
        let through = (self.ledger.feedback_through().await?, self.traces.last_seq().await?);
        self.trials.catch_up((&self.traces, &self.ledger), &self.bench, through).await?;
        self.watch_canary().await;
        self.watch_fallback().await;
        let online = self.class.online(&self.roles.running);
        Ok(Report::of(&self.roles, self.trials.tallies(), online, self.may_fall_back))
    }

    /// Saves in this role, with everything up to these sequences in it.
    async fn save_through(&mut self, role: StateRole, through: (u64, u64)) -> Result<(), StoreError> {
        self.trials.catch_up((&self.traces, &self.ledger), &self.bench, through).await?;
        self.class.catch_up((&self.traces, &self.ledger), through).await?;
        // A base is never ahead of the state that a restart goes on from: what is deleted behind it
        // could not be learned again.
        self.save(StateRole::Latest).await?;
        match role {
            StateRole::Latest => Ok(()),
            StateRole::Base => self.save(StateRole::Base).await,
        }
    }

    pub(super) fn publish(&mut self) {
        self.bench = bench(&self.class, &self.roles, self.exploration, self.trials.aim());
        self.published.publish(arms(&self.bench, &self.roles));
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
        self.ledger.save_states(self.class.states(role, self.clock.now())).await?;
        match role {
            StateRole::Latest => self.ledger.save_trials(self.trials.body()?).await,
            StateRole::Base => Ok(()),
        }
    }
}

/// How much of the exploration is aimed at a challenger, where there is one.
pub(super) const AIMED: f64 = 0.75;
/// The share of the choices that a policy keeps while the best single model stands in for it.
const OWN_SHARE: f64 = 0.1;

/// The policies as requests will pin them. The running policy can always decide: a change that names
/// one that cannot is refused before it is made.
pub(super) fn bench(class: &Class, roles: &Lifecycle, exploration: f64, aim: f64) -> Bench {
    let of = |version: &PolicyVersion| class.snapshot(version).map(Arc::new);
    let unexplored = of(&roles.running).unwrap_or_else(|| Arc::new(class.cold().snapshot()));
    let canary = roles.open_canary().and_then(|canary| of(&canary.trial.version));
    let shadow = roles.shadow.as_ref().and_then(|shadow| of(&shadow.version));
    let mut running = Arc::clone(&unexplored);
    if let Some(StandIn { model, .. }) = &roles.stands_in {
        let model = StoodIn::new(Arc::clone(&unexplored.policy), model.clone());
        // What it would do itself is tried a little, or nobody could tell that it is worth it again.
        let own = Some((Arc::clone(&unexplored.policy), OWN_SHARE));
        let policy = Arc::new(Explored::new(Arc::new(model), own, 0.0));
        running = Arc::new(Snapshot { policy, forecasts: Arc::clone(&unexplored.forecasts) });
    }
    if exploration > 0.0 {
        let challenger = shadow.as_ref().or(canary.as_ref());
        let even = if challenger.is_some() { exploration * (1.0 - AIMED) } else { exploration };
        let towards = challenger.map(|challenger| (Arc::clone(&challenger.policy), aim));
        let policy = Arc::new(Explored::new(Arc::clone(&running.policy), towards, even));
        running = Arc::new(Snapshot { policy, forecasts: Arc::clone(&unexplored.forecasts) });
    }
    Bench { unexplored, running, canary, shadow }
}

pub(super) fn arms(bench: &Bench, roles: &Lifecycle) -> Arms {
    let share = roles.open_canary().map(|canary| canary.share);
    Arms { running: Arc::clone(&bench.running), canary: share.zip(bench.canary.clone()) }
}

pub(super) fn status_of(class: &Class, published: &Published) -> LearningStatus {
    let (serving, cold) = (published.running(), class.cold());
    LearningStatus {
        running: serving.policy.version().clone(),
        kind: serving.policy.kind(),
        learning: cold.version().clone(),
        updates: cold.updates(),
        feedback_mark: cold.online().feedback_mark(),
        trace_mark: cold.online().trace_mark(),
        schema: cold.schema(),
        learned: class.learned(),
        rules: class.rules().cloned(),
    }
}
