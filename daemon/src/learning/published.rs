//! What requests read: the snapshot of this moment behind an atomic pointer, and how learning stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pointsman_router::features::SchemaHash;
use pointsman_router::ids::PolicyVersion;
use pointsman_router::policy::{PolicyKind, PolicySource, Snapshot};

/// The snapshot that requests read.
#[derive(Debug)]
pub struct Published(ArcSwap<Snapshot>);

impl Published {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self(ArcSwap::from_pointee(snapshot))
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}

impl PolicySource for Published {
    fn current(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}

/// How far one policy has learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learned {
    /// Labels that it has taken in.
    pub updates: u64,
    /// Sequence of the last feedback in it.
    pub feedback_mark: u64,
    /// Sequence of the last trace in it.
    pub trace_mark: u64,
    /// What its features mean.
    pub schema: SchemaHash,
}

/// How learning stands.
#[derive(Debug, Clone, PartialEq)]
pub struct LearningStatus {
    /// The policy that serves.
    pub running: PolicyVersion,
    /// Its kind.
    pub kind: PolicyKind,
    /// The bandit that begins from nothing and learns, whether it serves or not.
    pub learning: PolicyVersion,
    /// Labels that that bandit has taken in.
    pub updates: u64,
    /// Sequence of the last feedback in it.
    pub feedback_mark: u64,
    /// Sequence of the last trace in it.
    pub trace_mark: u64,
    /// Every policy that learns, that bandit too.
    pub learned: BTreeMap<PolicyVersion, Learned>,
}
