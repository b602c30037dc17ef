//! The class: every policy that learns, each with a state of its own.
//!
//! All are fed the same rows; each skips what it has learned already, so one that joins late or was
//! saved at another mark catches up by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_learner::online::Online;
use pointsman_router::clock::Timestamp;
use pointsman_router::ids::PolicyVersion;
use pointsman_router::policy::{Policy, Snapshot};
use pointsman_router::rules::RulesPolicy;

use super::published::Learned;
use super::student::Student;
use crate::store::StoreError;
use crate::store::ledger::{FeedbackCommitted, LedgerStore, PolicyState, StateRole};
use crate::store::traces::{Committed, TraceStore};

/// Every policy that learns, and the rules, which do not.
#[derive(Debug)]
pub(super) struct Class {
    /// The bandit that begins from nothing.
    cold: Student,
    others: Vec<Student>,
    rules: Option<Arc<RulesPolicy>>,
}

impl Class {
    pub(super) fn new(cold: Student, rules: Option<RulesPolicy>) -> Self {
        Self { cold, others: Vec::new(), rules: rules.map(Arc::new) }
    }

    /// The bandit that begins from nothing.
    pub(super) fn cold(&self) -> &Student {
        &self.cold
    }

    /// Whether this policy can decide at once.
    pub(super) fn has(&self, version: &PolicyVersion) -> bool {
        self.snapshot(version).is_some()
    }

    /// The kind of a policy that can decide at once.
    pub(super) fn kind(&self, version: &PolicyVersion) -> Option<&'static str> {
        self.snapshot(version).map(|snapshot| snapshot.policy.kind().as_str())
    }

    /// The policy that rules make.
    pub(super) fn rules(&self) -> Option<&PolicyVersion> {
        self.rules.as_ref().map(|rules| rules.version())
    }

    /// Takes a student in; one that is there already stays as it is.
    pub(super) fn enrol(&mut self, student: Student) {
        if self.students().all(|present| present.version() != student.version()) {
            self.others.push(student);
        }
    }

    /// Lets everybody go who is not named; the bandit that begins from nothing stays.
    pub(super) fn dismiss_all_but(&mut self, named: &[&PolicyVersion]) {
        self.others.retain(|student| named.contains(&student.version()));
    }

    /// What requests would pin of this policy.
    pub(super) fn snapshot(&self, version: &PolicyVersion) -> Option<Snapshot> {
        let student = self.students().find(|student| student.version() == version);
        if let Some(student) = student {
            return Some(student.snapshot());
        }
        let rules = self.rules.as_ref().filter(|rules| rules.version() == version)?;
        Some(self.of_rules(rules))
    }

    /// What requests pin where rules serve: costs and latencies are learned all the same.
    fn of_rules(&self, rules: &Arc<RulesPolicy>) -> Snapshot {
        Snapshot { policy: Arc::clone(rules) as Arc<dyn Policy>, ..self.cold.snapshot() }
    }

    /// Teaches everybody one row of feedback.
    pub(super) async fn teach(&mut self, row: &FeedbackCommitted, traces: &TraceStore) -> Result<(), StoreError> {
        for student in self.students_mut() {
            student.teach(row, traces).await?;
        }
        Ok(())
    }

    /// Shows everybody the outcomes of one row.
    pub(super) async fn observe(&mut self, row: &Committed, traces: &TraceStore) -> Result<(), StoreError> {
        for student in self.students_mut() {
            student.observe(row, traces).await?;
        }
        Ok(())
    }

    /// Learns every row behind the marks, up to the given sequences.
    pub(super) async fn catch_up(
        &mut self,
        (traces, ledger): (&TraceStore, &LedgerStore),
        through: (u64, u64),
    ) -> Result<(), StoreError> {
        for student in self.students_mut() {
            student.catch_up(traces, ledger, through).await?;
        }
        let mut orphans: Vec<u64> = self.students_mut().flat_map(|s| std::mem::take(&mut s.orphans)).collect();
        orphans.sort_unstable();
        orphans.dedup();
        if orphans.is_empty() { Ok(()) } else { ledger.mark_orphans(orphans).await }
    }

    /// The state that a policy learns; of one that does not learn, that of the bandit from nothing.
    pub(super) fn online(&self, version: &PolicyVersion) -> &Online {
        self.students().find(|student| student.version() == version).unwrap_or(&self.cold).online()
    }

    /// What is saved of everybody.
    pub(super) fn states(&self, role: StateRole, now: Timestamp) -> Vec<PolicyState> {
        self.students().map(|student| student.state(role, now)).collect()
    }

    /// What is saved of one.
    pub(super) fn state(&self, version: &PolicyVersion, role: StateRole, now: Timestamp) -> Option<PolicyState> {
        self.students().find(|student| student.version() == version).map(|student| student.state(role, now))
    }

    /// How far everybody has learned.
    pub(super) fn learned(&self) -> BTreeMap<PolicyVersion, Learned> {
        let learned = |student: &Student| Learned {
            updates: student.updates(),
            feedback_mark: student.online().feedback_mark(),
            trace_mark: student.online().trace_mark(),
            schema: student.schema(),
        };
        self.students().map(|student| (student.version().clone(), learned(student))).collect()
    }

    fn students(&self) -> impl Iterator<Item = &Student> {
        std::iter::once(&self.cold).chain(&self.others)
    }

    fn students_mut(&mut self) -> impl Iterator<Item = &mut Student> {
        std::iter::once(&mut self.cold).chain(&mut self.others)
    }
}
