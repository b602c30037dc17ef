//! A student: the online state of one policy, fed from the two stores, each in its own order.

use std::collections::BTreeSet;
use std::sync::Arc;

use pointsman_learner::basis::Basis;
use pointsman_learner::online::{Call, Lesson, Online, StateError};
use pointsman_learner::sources::Witness;
use pointsman_router::bandit::BanditSettings;
use pointsman_router::clock::Timestamp;
use pointsman_router::features::{Features, SchemaHash};
use pointsman_router::ids::{ModelName, PolicyVersion};
use pointsman_router::outcome::Outcome;
use pointsman_router::policy::Snapshot;

use crate::store::StoreError;
use crate::store::ledger::{FeedbackCommitted, LedgerStore, PolicyState, StateRole};
use crate::store::traces::{Committed, Lookup, TraceStore};
use crate::wire::report::ModelReport;

/// Rows that are read at once while catching up.
const BATCH: usize = 512;

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

/// What a policy learns from the rows with.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// What it is made of.
    pub basis: Basis,
    /// The sequence of the last feedback that made it: it learns from what came later. Zero: from all.
    pub trained_through: u64,
}

impl Artifact {
    /// The bandit that begins from nothing.
    #[must_use]
    pub fn cold(settings: BanditSettings, schema: SchemaHash) -> Self {
        Self { basis: Basis::Cold { settings, schema }, trained_through: 0 }
    }

    /// The version of the policy.
    #[must_use]
    pub fn version(&self) -> PolicyVersion {
        self.basis.version()
    }

    /// A state that has seen nothing.
    #[must_use]
    pub fn fresh(&self) -> Online {
        let mut online = self.basis.fresh();
        online.pass(self.trained_through, 0);
        online
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
        self.basis
            .restore(&state.bytes)
            .map(|online| Some((online, state.updates)))
            .map_err(|cause| LearningError::State { version, cause })
    }

    /// The student who goes on from the saved state of this role, or begins.
    ///
    /// # Errors
    /// [`LearningError`] when it cannot be read.
    pub async fn student(self, ledger: &LedgerStore, role: StateRole) -> Result<Student, LearningError> {
        let from = self.load(ledger, role).await?.unwrap_or_else(|| (self.fresh(), 0));
        Ok(Student::new(self, from))
    }
}

/// Online state fed from the two stores.
#[derive(Debug)]
pub struct Student {
    artifact: Artifact,
    version: PolicyVersion,
    pub(super) online: Online,
    updates: u64,
    /// Rows of feedback whose trace a power cut took.
    pub(super) orphans: Vec<u64>,
}

impl Student {
    /// Goes on from this state, with so many labels in it.
    #[must_use]
    pub fn new(artifact: Artifact, (online, updates): (Online, u64)) -> Self {
        Self { version: artifact.version(), artifact, online, updates, orphans: Vec::new() }
    }

    /// The policy whose state it is.
    #[must_use]
    pub fn version(&self) -> &PolicyVersion {
        &self.version
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

    /// What its features mean.
    #[must_use]
    pub fn schema(&self) -> SchemaHash {
        self.artifact.basis.schema()
    }

    /// What requests would pin; cheap.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let policy = self.artifact.basis.policy(&self.online);
        Snapshot { policy, forecasts: Arc::clone(self.online.forecasts()) }
    }

    /// What is saved of it in this role.
    #[must_use]
    pub fn state(&self, role: StateRole, now: Timestamp) -> PolicyState {
        PolicyState {
            version: self.version.clone(),
            role,
            kind: self.snapshot().policy.kind().as_str().to_owned(),
            created_at: now,
            feedback_mark: self.online.feedback_mark(),
            trace_mark: self.online.trace_mark(),
            updates: self.updates,
            bytes: self.online.to_bytes(),
        }
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
    pub(super) async fn teach(&mut self, row: &FeedbackCommitted, traces: &TraceStore) -> Result<(), StoreError> {
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
        if let Some(trace) = trace.filter(|_| self.artifact.basis.learns()) {
            let said = &row.row.feedback;
            let from = said.departing_share.map(|share_max| Witness { source: &said.source, share_max });
            let models: BTreeSet<&ModelName> = row.labels_before.keys().chain(row.row.labels.keys()).collect();
            for model in models {
                let (old, new) = (row.labels_before.get(model).copied(), row.row.labels.get(model).copied());
                if old.map(f64::to_bits) != new.map(f64::to_bits) {
                    self.online.teach_by(seq, &Lesson { features: &trace.features, model, old, new }, from);
                    self.updates += 1;
                }
            }
        }
        self.online.pass(seq, 0);
        Ok(())
    }

    /// Learns from the outcomes of one row; one that was learned before changes nothing.
    pub(super) async fn observe(&mut self, row: &Committed, traces: &TraceStore) -> Result<(), StoreError> {
        let seq = row.seq();
        if seq <= self.online.trace_mark() {
            return Ok(());
        }
        match row {
            Committed::Trace { trace, .. } => {
                let projected = self.online.project(&trace.features);
                for outcome in &trace.outcomes {
                    self.observe_outcome(seq, (&trace.features, &projected), outcome);
                }
            }
            Committed::Report(report) if report.model.is_some() => {
                let part = ModelReport::from_bytes(&report.body).ok();
                if let (Some(part), Lookup::Found((_, trace))) = (part, traces.committed(report.decision).await?) {
                    let projected = self.online.project(&trace.features);
                    self.observe_outcome(seq, (&trace.features, &projected), &part.outcome);
                }
            }
            Committed::Report(_) => {}
        }
        self.online.pass(0, seq);
        Ok(())
    }

    fn observe_outcome(&mut self, seq: u64, (features, projected): (&Features, &[f32]), outcome: &Outcome) {
        if outcome.replied {
            let Outcome { model, tokens_out, cost, latency, .. } = outcome;
            let (prompt_bytes, tokens_out, cost, latency) = (features.prompt_bytes, *tokens_out, *cost, *latency);
            self.online.observe(seq, &Call { model, prompt_bytes, projected, tokens_out, cost, latency });
        }
    }
}

#[cfg(test)]
mod tests;
