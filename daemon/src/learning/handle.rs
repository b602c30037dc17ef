//! The handle to the teacher: what the rest of the daemon may ask of it.

use std::sync::Arc;

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::PolicyVersion;
use tokio::sync::{mpsc, oneshot, watch};

use super::asks::{Ask, Change, ChangeError, What};
use super::candidates::{ArtifactFault, Candidates};
use super::published::{LearningStatus, Published};
use super::report::Report;
use super::roles::{Promotion, Wish};
use super::student::Student;
use crate::store::StoreError;
use crate::store::ledger::{LedgerStore, Lifecycle, StateRole};
use crate::store::traces::{Committed, Lookup, TraceStore};

/// A handle to the teacher.
#[derive(Debug, Clone)]
pub struct Learning {
    pub(super) published: Arc<Published>,
    pub(super) status: watch::Receiver<LearningStatus>,
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) candidates: Arc<dyn Candidates>,
    pub(super) traces: TraceStore,
    pub(super) ledger: LedgerStore,
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

    /// Lets a candidate decide, for all requests or for a share of them. It is durable when this returns,
    /// and holds from the next request on. Returns the new roles.
    ///
    /// # Errors
    /// [`ChangeError`]; then everything is as it was.
    pub async fn promote(&self, version: PolicyVersion, share: f64, wish: Wish) -> Result<Lifecycle, ChangeError> {
        let student = self.student(&version).await?;
        let standing = self.candidates.standing(version.clone()).await?;
        let what = What::Promote(Promotion { version, share, standing });
        self.change(Change { what, student, wish }).await
    }

    /// Ends the canary that is under way, or lets the predecessor decide again, with all that it has
    /// learned meanwhile. Returns the new roles.
    ///
    /// # Errors
    /// [`ChangeError`]; then everything is as it was.
    pub async fn roll_back(&self, wish: Wish) -> Result<Lifecycle, ChangeError> {
        self.change(Change { what: What::RollBack, student: None, wish }).await
    }

    /// Lets a policy, or nobody, decide beside the running one. Returns the new roles.
    ///
    /// # Errors
    /// [`ChangeError`]; then everything is as it was.
    pub async fn set_shadow(&self, version: Option<PolicyVersion>, wish: Wish) -> Result<Lifecycle, ChangeError> {
        let student = match &version {
            Some(version) => self.student(version).await?,
            None => None,
        };
        self.change(Change { what: What::Shadow(version), student, wish }).await
    }

    /// A student who is to join, with all in it that was said so far, so that the teacher has little left
    /// to tell; `None` where it has joined before.
    async fn student(&self, version: &PolicyVersion) -> Result<Option<Box<Student>>, ChangeError> {
        let schema = {
            let status = self.status.borrow();
            if status.learned.contains_key(version) || status.rules.as_ref() == Some(version) {
                return Ok(None);
            }
            status.schema
        };
        let unknown = || ChangeError::Unknown { version: version.clone() };
        let artifact = self.candidates.load(version.clone()).await?.ok_or_else(unknown)?;
        if artifact.basis.schema() != schema {
            return Err(ArtifactFault::Schema { version: version.clone() }.into());
        }
        let mut student = artifact.student(&self.ledger, StateRole::Latest).await?;
        let through = (self.ledger.feedback_through().await?, self.traces.last_seq().await?);
        student.catch_up(&self.traces, &self.ledger, through).await?;
        Ok(Some(Box::new(student)))
    }

    /// Who has which role, and how those on trial do.
    ///
    /// # Errors
    /// What a store met, [`StoreError::Closed`] when the teacher is gone.
    pub async fn report(&self) -> Result<Report, StoreError> {
        let (done, report) = oneshot::channel();
        self.asks.send(Ask::Report { done }).await.map_err(|_| StoreError::Closed)?;
        report.await.map_err(|_| StoreError::Closed)?
    }

    /// The time of the decision whose trace or report has this sequence; `None`: it is pruned.
    ///
    /// # Errors
    /// What the store met.
    pub async fn seen_at(&self, seq: u64) -> Result<Option<Timestamp>, StoreError> {
        let rows = self.traces.scan(seq.saturating_sub(1), 1).await?;
        match rows.first().filter(|row| row.seq() == seq) {
            Some(Committed::Trace { trace, .. }) => Ok(Some(trace.at)),
            Some(Committed::Report(report)) => match self.traces.committed(report.decision).await? {
                Lookup::Found((_, trace)) => Ok(Some(trace.at)),
                Lookup::Pruned | Lookup::Unknown => Ok(None),
            },
            None => Ok(None),
        }
    }

    async fn change(&self, change: Change) -> Result<Lifecycle, ChangeError> {
        let (done, changed) = oneshot::channel();
        self.asks.send(Ask::Change { change, done }).await.map_err(|_| StoreError::Closed)?;
        changed.await.map_err(|_| StoreError::Closed)?
    }

    async fn ask(&self, role: StateRole, through: (u64, u64)) -> Result<(), StoreError> {
        let (done, saved) = oneshot::channel();
        self.asks.send(Ask::Save { role, through, done }).await.map_err(|_| StoreError::Closed)?;
        saved.await.map_err(|_| StoreError::Closed)?
    }
}
