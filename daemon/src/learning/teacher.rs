//! The teacher: feeds every row to everybody who learns, publishes what came of it, and saves it.

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::clock::Clock;
use pointsman_router::explore::Explored;
use pointsman_router::ids::PolicyVersion;
use pointsman_router::policy::{Policy as _, Snapshot};
use pointsman_router::rules::RulesPolicy;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::candidates::{Candidates, NoCandidates};
use super::class::Class;
use super::handle::{Ask, Learning};
use super::published::{Arms, LearningStatus, Published};
use super::report::Report;
use super::roles::{self, Changed, Configured};
use super::student::{Artifact, LearningError};
use super::trials::{Bench, Trials};
use crate::store::StoreError;
use crate::store::ledger::{FeedbackCommitted, LedgerStore, Lifecycle, StateRole};
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
    pub(super) class: Class,
    pub(super) roles: Lifecycle,
    pub(super) trials: Trials,
    bench: Bench,
    exploration: f64,
    published: Arc<Published>,
    status: watch::Sender<LearningStatus>,
    asks: mpsc::Receiver<Ask>,
    pub(super) traces: TraceStore,
    pub(super) ledger: LedgerStore,
    pub(super) clock: Arc<dyn Clock>,
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

/// What a teacher begins with.
#[derive(Debug)]
pub struct Opening {
    /// The bandit that begins from nothing.
    pub cold: Artifact,
    /// The rules, where there are any.
    pub rules: Option<RulesPolicy>,
    /// Whether the configuration asks for the rules to decide, and not for the bandit.
    pub rules_decide: bool,
    /// Policies that were trained or installed.
    pub candidates: Arc<dyn Candidates>,
    /// The share of the picks that the running policy gives to exploration.
    pub exploration: f64,
}

impl Opening {
    /// The bandit that begins from nothing, and nobody else.
    #[must_use]
    pub fn of(cold: Artifact) -> Self {
        Self { cold, rules: None, rules_decide: false, candidates: Arc::new(NoCandidates), exploration: 0.0 }
    }

    fn configured(&self) -> Configured {
        match self.rules.as_ref().filter(|_| self.rules_decide) {
            // Other rules are another wish.
            Some(rules) => Configured { key: rules.version().to_string(), version: rules.version().clone() },
            // The bandit is the bandit, whatever version of it this program has.
            None => Configured { key: "bandit".to_owned(), version: self.cold.version() },
        }
    }
}

impl Teacher {
    /// Loads what was saved, gives everybody the roles of before, learns what was committed since, and
    /// publishes it.
    ///
    /// # Errors
    /// [`LearningError`] when the saved state or a store cannot be read.
    pub async fn open(
        opening: Opening,
        (traces, ledger): (TraceStore, LedgerStore),
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Learning), LearningError> {
        let configured = opening.configured();
        let Opening { cold, rules, candidates, exploration, .. } = opening;
        let schema = cold.basis.schema();
        let mut class = Class::new(cold.student(&ledger, StateRole::Latest).await?, rules);
        let before = ledger.lifecycle().await?;
        let begun = roles::begin(before.as_ref(), &configured, clock.now());
        let mut changed = match (begun, before) {
            (Some(changed), _) => changed,
            (None, Some(roles)) => Changed { roles, entries: Vec::new() },
            (None, None) => return Err(StoreError::Corrupt { detail: "no policy has a role".to_owned() }.into()),
        };
        for version in changed.roles.named().into_iter().cloned().collect::<Vec<_>>() {
            if class.has(&version) {
                continue;
            }
            match candidates.load(version.clone()).await {
                Ok(Some(artifact)) if artifact.basis.schema() == schema => {
                    class.enrol(artifact.student(&ledger, StateRole::Latest).await?);
                    continue;
                }
                Ok(_) => tracing::error!(%version, "the artifact is gone or reads other features"),
                Err(error) => tracing::error!(%version, %error, "the artifact cannot be loaded"),
            }
            let lost = roles::lose(&changed.roles, &version, &configured, clock.now());
            changed = Changed { roles: lost.roles, entries: [changed.entries, lost.entries].concat() };
        }
        let through = (ledger.feedback_through().await?, traces.last_seq().await?);
        class.catch_up((&traces, &ledger), through).await?;

        let roles = changed.roles.clone();
        let begin = (clock.now(), through);
        let mut trials = Trials::load(&ledger, &roles, begin, exploration * AIMED).await?;
        let bench = bench(&class, &roles, exploration, trials.aim());
        trials.catch_up((&traces, &ledger), &bench, through).await?;
        let published = Arc::new(Published::new(arms(&bench, &roles)));
        let (status, watched) = watch::channel(status_of(&class, &published));
        let (to_teacher, asks) = mpsc::channel(ASKS_MAX);
        let learning = Learning {
            published: Arc::clone(&published),
            status: watched,
            asks: to_teacher,
            candidates,
            traces: traces.clone(),
            ledger: ledger.clone(),
        };
        let mut teacher = Self {
            class,
            roles,
            trials,
            bench,
            exploration,
            published,
            status,
            asks,
            traces,
            ledger,
            clock,
            unsaved: true,
        };
        teacher.take(changed, None).await?;
        Ok((teacher, learning))
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
        Ok(())
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
                let _ = done.send(Report::of(&self.roles, self.trials.tallies()));
            }
        }
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
const AIMED: f64 = 0.75;

/// The policies as requests will pin them. The running policy can always decide: a change that names
/// one that cannot is refused before it is made.
fn bench(class: &Class, roles: &Lifecycle, exploration: f64, aim: f64) -> Bench {
    let of = |version: &PolicyVersion| class.snapshot(version).map(Arc::new);
    let unexplored = of(&roles.running).unwrap_or_else(|| Arc::new(class.cold().snapshot()));
    let canary = roles.open_canary().and_then(|canary| of(&canary.trial.version));
    let shadow = roles.shadow.as_ref().and_then(|shadow| of(&shadow.version));
    let mut running = Arc::clone(&unexplored);
    if exploration > 0.0 {
        let challenger = shadow.as_ref().or(canary.as_ref());
        let even = if challenger.is_some() { exploration * (1.0 - AIMED) } else { exploration };
        let towards = challenger.map(|challenger| (Arc::clone(&challenger.policy), aim));
        let policy = Arc::new(Explored::new(Arc::clone(&unexplored.policy), towards, even));
        running = Arc::new(Snapshot { policy, forecasts: Arc::clone(&unexplored.forecasts) });
    }
    Bench { unexplored, running, canary, shadow }
}

fn arms(bench: &Bench, roles: &Lifecycle) -> Arms {
    let share = roles.open_canary().map(|canary| canary.share);
    Arms { running: Arc::clone(&bench.running), canary: share.zip(bench.canary.clone()) }
}

fn status_of(class: &Class, published: &Published) -> LearningStatus {
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
