//! What became of the calls: attempts, and the outcome of each model.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::CallError;
use crate::clock::Timestamp;
use crate::ids::{AttemptId, ModelName};
use crate::money::NanoUsd;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptStatus {
    /// A reply came back.
    Replied,
    /// No reply came back.
    Failed(CallError),
    /// The caller went away, or the deadline ended, while it ran.
    Abandoned,
}

impl fmt::Display for AttemptStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replied => f.write_str("replied"),
            Self::Failed(error) => error.fmt(f),
            Self::Abandoned => f.write_str("abandoned"),
        }
    }
}

/// How an attempt's cost is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Billing {
    /// Counted by the provider, or metered.
    Exact,
    /// The provider counted nothing: estimated from bytes.
    Estimated,
    /// It was sent and never accounted for: its worst case counts as spent until somebody settles it.
    Unknown,
    /// Nothing was sent, or the provider does not charge for it.
    Nothing,
}

/// One call of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// The model called.
    pub model: ModelName,
    /// 1 for the first, 2 for a retry.
    pub try_number: u32,
    /// When it was sent.
    pub started_at: Timestamp,
    /// How long it took.
    pub latency: Duration,
    /// How it ended.
    pub status: AttemptStatus,
    /// Input tokens: counted, or estimated where the billing says so.
    pub tokens_in: u64,
    /// Output tokens: counted, or estimated where the billing says so.
    pub tokens_out: u64,
    /// What it cost; with [`Billing::Unknown`], its worst case.
    pub cost: NanoUsd,
    /// How the cost is known.
    pub billing: Billing,
}

impl Attempt {
    /// What it is known or estimated to have cost. The worst case of a call that nobody accounted for is
    /// money held back, not what the model costs.
    #[must_use]
    pub fn known_cost(&self) -> NanoUsd {
        match self.billing {
            Billing::Exact | Billing::Estimated => self.cost,
            Billing::Unknown | Billing::Nothing => NanoUsd::ZERO,
        }
    }
}

/// The end of one model's attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The model.
    pub model: ModelName,
    /// Its raw text; `None` when every attempt failed, or a recorded row keeps no answer.
    pub text: Option<String>,
    /// Whether a reply came back at all.
    pub replied: bool,
    /// The probability of being right that the model gave itself.
    pub confidence: Option<f64>,
    /// Whether the reply was cut by the output cap.
    pub truncated: bool,
    /// Output tokens of the reply.
    pub tokens_out: u64,
    /// What all its attempts are known or estimated to cost together.
    pub cost: NanoUsd,
    /// The latency of the attempt that replied, or of all attempts together.
    pub latency: Duration,
}

#[derive(Debug, Default)]
struct Attempts {
    sent: Vec<Attempt>,
    ended: Vec<Attempt>,
}

/// The attempts of one request, shared between the stage that makes them and the guard that must
/// account for them should the request be dropped in between.
#[derive(Debug, Clone, Default)]
pub struct AttemptLog(Arc<Mutex<Attempts>>);

impl AttemptLog {
    /// Notes that an attempt was sent. `attempt` must be filled as if it will never be heard of again:
    /// [`AttemptStatus::Abandoned`], [`Billing::Unknown`], its worst case as cost.
    pub fn sent(&self, attempt: Attempt) {
        self.lock().sent.push(attempt);
    }

    /// Notes how an attempt ended.
    pub fn ended(&self, attempt: Attempt) {
        let mut log = self.lock();
        log.sent.retain(|sent| sent.id != attempt.id);
        log.ended.push(attempt);
    }

    /// All attempts: those that ended in the order in which they did, then those still out, which are
    /// thereby abandoned.
    #[must_use]
    pub fn take(&self) -> Vec<Attempt> {
        let Attempts { sent, mut ended } = std::mem::take(&mut *self.lock());
        ended.extend(sent);
        ended
    }

    fn lock(&self) -> MutexGuard<'_, Attempts> {
        // A panic while pushing leaves two vectors that are still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
