//! The handle to the teacher: what the rest of the daemon may ask of it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::published::{LearningStatus, Published};
use crate::store::StoreError;
use crate::store::ledger::StateRole;

/// A handle to the teacher.
#[derive(Debug, Clone)]
pub struct Learning {
    pub(super) published: Arc<Published>,
    pub(super) status: watch::Receiver<LearningStatus>,
    pub(super) asks: mpsc::Sender<Ask>,
}

/// Asks for the states to be saved in this role, with everything up to these sequences of feedback and
/// traces in them.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) role: StateRole,
    pub(super) through: (u64, u64),
    pub(super) done: oneshot::Sender<Result<(), StoreError>>,
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
