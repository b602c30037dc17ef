//! Trials: how the running policy, its shadow and its canary do, counted while rows come in.
//!
//! Off the request path and from what is committed alone: nobody is called. When a trace comes, each
//! policy on trial is asked what it would have done there ([`Hindsight`]); when the merged answer of that
//! decision is judged, the reward is weighed with what was noted. Every decision counts once: a corrected
//! score takes the place of the one before. Decisions that wait for feedback are noted up to a bound, the
//! newest; one that was dropped, or was made before a restart, is asked about again from its trace, with
//! the policies of that moment.
//!
//! What is kept is sums with their two marks, saved beside the learned states, so a restart goes on behind
//! the last row that was counted. Sums are no learned state: asking again may differ in the last digits
//! from what was noted before the restart, so nothing here need equal a rebuild.

use std::sync::Arc;

use pointsman_learner::evaluate::canary::CanaryVerdict;
use pointsman_router::clock::Timestamp;
use pointsman_router::hindsight::Hindsight;
use pointsman_router::policy::Snapshot;
use pointsman_router::trace::Trace;
use serde::{Deserialize, Serialize};

use super::standing_in::FallbackTally;
use super::tally::{CanaryTally, LiveTally, Noted, Open, ShadowTally};
use crate::store::StoreError;
use crate::store::ledger::{FeedbackCommitted, LedgerStore, Lifecycle};
use crate::store::traces::{Committed, Lookup, TraceStore};

/// Rows that are read at once while catching up.
const BATCH: usize = 512;

/// The policies as requests pin them, and the shadow.
#[derive(Debug, Clone)]
pub(super) struct Bench {
    /// The running policy as it would choose by itself.
    pub(super) unexplored: Arc<Snapshot>,
    pub(super) running: Arc<Snapshot>,
    pub(super) canary: Option<Arc<Snapshot>>,
    pub(super) shadow: Option<Arc<Snapshot>>,
}

/// What was counted, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Tallies {
    /// Sequences of the last feedback and of the last trace in it.
    pub(super) marks: (u64, u64),
    pub(super) live: LiveTally,
    pub(super) shadow: Option<ShadowTally>,
    pub(super) canary: Option<CanaryTally>,
    /// The running policy against each model alone, where one may stand in.
    #[serde(default)]
    pub(super) fallback: Option<FallbackTally>,
}

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Trials {
    tallies: Tallies,
    open: Open,
}

impl Trials {
    /// Goes on from what was kept, or begins behind these sequences.
    pub(super) async fn load(
        ledger: &LedgerStore,
        roles: &Lifecycle,
        (now, marks): (Timestamp, (u64, u64)),
        aim_budget: f64,
    ) -> Result<Self, StoreError> {
        let kept = ledger.load_trials().await?;
        // Counts that cannot be read are begun again: nothing depends on them but a report.
        let kept = kept.and_then(|body| serde_json::from_str(&body).ok());
        let live = || LiveTally { since: now, ..LiveTally::new(roles) };
        let begun = || Tallies { marks, live: live(), shadow: None, canary: None, fallback: None };
        let mut trials = Self { tallies: kept.unwrap_or_else(begun), open: Open::new(aim_budget) };
        trials.follow(roles);
        Ok(trials)
    }

    /// What was counted.
    pub(super) fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// What is kept of it.
    pub(super) fn body(&self) -> Result<String, StoreError> {
        serde_json::to_string(&self.tallies).map_err(|error| StoreError::Io { detail: error.to_string() })
    }

    /// Begins again with whatever the roles have changed.
    pub(super) fn follow(&mut self, roles: &Lifecycle) {
        let Tallies { live, shadow, canary, fallback, .. } = &mut self.tallies;
        if fallback.as_ref().is_none_or(|tally| !tally.is_of(roles)) {
            *fallback = Some(FallbackTally::new(roles));
        }
        let has_shadow = shadow.as_ref().map(|tally| &tally.trial) == roles.shadow.as_ref();
        let has_canary =
            canary.as_ref().map(|tally| &tally.trial) == roles.canary.as_ref().map(|canary| &canary.trial);
        let has_live = live.version == roles.running;
        if !has_live || (!has_shadow && roles.shadow.is_some()) {
            *live = LiveTally::new(roles);
        }
        if !has_shadow {
            *shadow = roles.shadow.clone().map(ShadowTally::new);
        }
        if !has_canary {
            *canary = roles.canary.as_ref().map(CanaryTally::new);
        }
        if !(has_live && has_shadow) {
            self.open = Open::new(self.open.budget);
        }
        if !has_canary {
            // What was noted was noted of other arms; how far the shadow differs is as it was.
            self.open.forget();
        }
    }

    /// What the canary under way says.
    pub(super) fn verdict(&self, roles: &Lifecycle) -> Option<CanaryVerdict> {
        let open = roles.open_canary()?;
        let tally = self.tallies.canary.as_ref().filter(|tally| tally.trial == open.trial)?;
        (tally.rows() > 0).then(|| tally.verdict())
    }

    /// Notes what each policy on trial would have done at a decision.
    pub(super) fn observe(&mut self, row: &Committed, bench: &Bench) {
        let Committed::Trace { seq, trace } = row else {
            self.tallies.marks.1 = self.tallies.marks.1.max(row.seq());
            return;
        };
        if *seq <= self.tallies.marks.1 {
            return;
        }
        self.tallies.marks.1 = *seq;
        self.tallies.live.decided(trace);
        let noted = self.note(*seq, trace, bench);
        if let (Some(shadow), Some(noted)) = (&mut self.tallies.shadow, noted) {
            shadow.decided(&noted);
        }
    }

    /// Weighs the reward of a judged decision; one that was counted before changes nothing.
    pub(super) async fn judge(
        &mut self,
        row: &FeedbackCommitted,
        bench: &Bench,
        traces: &TraceStore,
    ) -> Result<(), StoreError> {
        let (seq, (before, after)) = (row.row.seq, row.answer);
        if seq <= self.tallies.marks.0 {
            return Ok(());
        }
        self.tallies.marks.0 = seq;
        if before.map(f64::to_bits) == after.map(f64::to_bits) {
            return Ok(());
        }
        let found = match &row.trace {
            Some((at, trace)) => Some((*at, Arc::clone(trace))),
            None => match traces.committed(row.row.feedback.decision).await? {
                Lookup::Found(found) => Some(found),
                Lookup::Pruned | Lookup::Unknown => None,
            },
        };
        if let Some((at, trace)) = found {
            self.tallies.live.judged(&trace, before, after);
            if let Some(fallback) = &mut self.tallies.fallback {
                fallback.judged(&trace, &bench.unexplored, (before, after));
            }
            if let Some(noted) = self.note(at, &trace, bench) {
                if let Some(shadow) = &mut self.tallies.shadow {
                    shadow.judged(&noted, before, after);
                }
                // What is said after its end changes the figures of a canary no more.
                if let Some(canary) = self.tallies.canary.as_mut().filter(|_| bench.canary.is_some()) {
                    canary.judged(&noted, before, after);
                }
            }
        }
        Ok(())
    }

    /// What the policies on trial would have done; `None` where nobody is on trial.
    fn note(&mut self, seq: u64, trace: &Trace, bench: &Bench) -> Option<Noted> {
        let Tallies { shadow, canary, .. } = &self.tallies;
        if shadow.is_none() && bench.canary.is_none() {
            return None;
        }
        let id = trace.decision.id;
        if let Some(noted) = self.open.get(id) {
            return Some(noted);
        }
        let shadow = shadow.as_ref().filter(|tally| seq > tally.trial.marks.1).zip(bench.shadow.as_ref());
        let shadow = shadow.map(|(_, snapshot)| Hindsight::of(&*snapshot.policy, trace));
        let canary = canary.as_ref().filter(|tally| seq > tally.trial.marks.1).zip(bench.canary.as_ref());
        let arms = canary.and_then(|(tally, snapshot)| tally.arms(trace, (&bench.running, snapshot)));
        let noted = Noted::new(trace, shadow.as_ref(), arms);
        if let (Some(challenger), true) = (&shadow, self.open.budget > 0.0) {
            let unexplored = Hindsight::of(&*bench.unexplored.policy, trace);
            self.open.remember_picks(unexplored.picks, challenger.picks.clone());
        }
        self.open.put(id, noted.clone());
        Some(noted)
    }

    /// How hard to aim at the challenger, so that the budget of picks is moved.
    pub(super) fn aim(&self) -> f64 {
        self.open.aim()
    }

    /// Counts every row behind the marks, up to the given sequences.
    pub(super) async fn catch_up(
        &mut self,
        (traces, ledger): (&TraceStore, &LedgerStore),
        bench: &Bench,
        (feedback_through, trace_through): (u64, u64),
    ) -> Result<(), StoreError> {
        loop {
            let mut rows = traces.scan(self.tallies.marks.1, BATCH).await?;
            rows.retain(|row| row.seq() <= trace_through);
            if rows.is_empty() {
                break;
            }
            rows.iter().for_each(|row| self.observe(row, bench));
        }
        loop {
            let mut rows = ledger.scan_feedback(self.tallies.marks.0, BATCH).await?;
            rows.retain(|row| row.row.seq <= feedback_through);
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                self.judge(row, bench, traces).await?;
            }
        }
        Ok(())
    }
}
