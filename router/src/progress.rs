//! What a caller may watch while its request is on the way.

use std::fmt;
use std::sync::Arc;

use crate::decision::Decision;
use crate::ids::{AttemptId, DecisionId, ModelName};
use crate::outcome::Attempt;

/// One step of a request.
#[derive(Debug, Clone)]
pub enum Event {
    /// It was admitted.
    Admitted(DecisionId),
    /// The models were chosen.
    Decided(Arc<Decision>),
    /// A call was sent.
    AttemptStarted {
        /// The attempt.
        id: AttemptId,
        /// The model called.
        model: ModelName,
        /// 1 for the first, 2 for a retry.
        try_number: u32,
    },
    /// A call ended.
    AttemptFinished(Attempt),
}

/// Watches a request. It must never block: a slow reader is the business of the daemon.
pub trait Progress: Send + Sync + fmt::Debug {
    /// Tells of one step.
    fn tell(&self, event: Event);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy)]
pub struct Unwatched;

impl Progress for Unwatched {
    fn tell(&self, _: Event) {}
}
