//! What the teacher may be asked: to save, to report, to change the roles.

use pointsman_router::ids::PolicyVersion;
use tokio::sync::oneshot;

use super::candidates::ArtifactFault;
use super::report::Report;
use super::roles::{Promotion, Refused, Wish};
use super::student::{LearningError, Student};
use crate::store::StoreError;
use crate::store::ledger::{Lifecycle, StateRole};

/// What the teacher is asked.
#[derive(Debug)]
pub(super) enum Ask {
    /// To save the states in this role, with everything up to these sequences of feedback and traces in
    /// them.
    Save { role: StateRole, through: (u64, u64), done: oneshot::Sender<Result<(), StoreError>> },
    /// How policies on trial do.
    Report { done: oneshot::Sender<Result<Report, StoreError>> },
    /// To change the roles.
    Change { change: Change, done: oneshot::Sender<Result<Lifecycle, ChangeError>> },
}

/// A change that a person, or a part of the daemon, wants.
#[derive(Debug)]
pub(super) struct Change {
    /// What it is.
    pub(super) what: What,
    /// Who joins for it.
    pub(super) student: Option<Box<Student>>,
    /// Who wants it and why.
    pub(super) wish: Wish,
}

/// What is to change.
#[derive(Debug)]
pub(super) enum What {
    /// A candidate is to decide.
    Promote(Promotion),
    /// The canary is to end, or the predecessor to decide again.
    RollBack,
    /// A policy, or nobody, is to decide beside the running one.
    Shadow(Option<PolicyVersion>),
}

/// Why nothing changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ChangeError {
    /// Nobody knows the policy.
    #[error("no policy has the version `{version}`, see ListPolicies")]
    Unknown {
        /// The version that was asked for.
        version: PolicyVersion,
    },
    /// The roles do not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The artifact cannot be used.
    #[error(transparent)]
    Artifact(#[from] ArtifactFault),
    /// The learned state cannot be had.
    #[error(transparent)]
    Learning(#[from] LearningError),
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        Self::Learning(error.into())
    }
}
