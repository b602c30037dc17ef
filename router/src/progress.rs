//! What a caller may watch while its request is on the way.

use std::fmt;
use std::sync::Arc;

use crate::answer::Answer;
use crate::decision::Decision;
use crate::ids::{AttemptId, DecisionId, ModelName};
use crate::outcome::Attempt;
use crate::request::KindName;

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
    /// What the merged answer would be with the outcomes so far; not told of the last one, which ends
    /// the request.
    Provisional {
        /// The answer so far.
        answer: Answer,
        /// The kind of answer wanted.
        kind: KindName,
        /// Chosen models whose outcome is in.
        outcomes_in: usize,
        /// Chosen models whose outcome is awaited.
        awaited: usize,
    },
}

/// Watches a request. It must never block: a slow reader is the business of the daemon.
pub trait Progress: Send + Sync + fmt::Debug {
    /// Tells of one step.
    fn tell(&self, event: Event);

    /// Whether provisional answers are worth their merge.
    fn wants_provisional(&self) -> bool {
        true
    }
}

/// Watches nothing.
#[derive(Debug, Clone, Copy)]
pub struct Unwatched;

impl Progress for Unwatched {
    fn tell(&self, _: Event) {}

    fn wants_provisional(&self) -> bool {
        false
    }
}
