//! The port through which models are called.
//!
//! A backend turns one [`Call`] into one [`Reply`] or one [`CallError`]. It never retries, never
//! waits longer than it is told and never decides anything: attempts, time limits and money are the
//! business of [`crate::execute`]. Dropping the future that `generate` returned must abandon the
//! call upstream.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::ids::AttemptId;
use crate::money::NanoUsd;
use crate::request::Prompt;

/// One call of one model.
#[derive(Debug, Clone)]
pub struct Call {
    /// The attempt that this call is.
    pub attempt: AttemptId,
    /// The provider's own name of the model.
    pub upstream: Arc<str>,
    /// What is sent.
    pub prompt: Arc<Prompt>,
    /// The output cap, always sent upstream.
    pub output_tokens_max: u32,
    /// How long the call may take; the caller of the port enforces it, a backend may pass it on.
    pub timeout: Duration,
}

/// What came back from a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// The text; `None` from a recorded row that keeps a score but no answer.
    pub text: Option<String>,
    /// Input tokens as the provider counted them.
    pub tokens_in: Option<u64>,
    /// Output tokens as the provider counted them.
    pub tokens_out: Option<u64>,
    /// The cost, from backends whose price card is [`crate::model::Pricing::Metered`].
    pub cost: Option<NanoUsd>,
    /// The probability of being right that the model gave itself, in [0, 1].
    pub confidence: Option<f64>,
    /// Whether the reply was cut by the output cap.
    pub truncated: bool,
    /// The latency that the backend reports in place of a measured one (recorded and simulated).
    pub latency: Option<Duration>,
}

/// Why a call brought no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The model could not be reached or failed by itself; another attempt may help.
    #[error("unavailable: {detail}")]
    Unavailable {
        /// What the transport or provider said, without secrets, cut to 300 characters.
        detail: String,
        /// Whether the provider may bill it: it had been sent, and no complete reply says that it failed.
        billable: bool,
    },
    /// No reply within the time limit. It had been sent: it may be billed.
    #[error("no reply within {} ms", limit.as_millis())]
    TimedOut {
        /// The limit that ran out.
        limit: Duration,
    },
    /// The provider asked to come back later. Not a failure of the model.
    #[error("throttled")]
    Throttled {
        /// How long to wait, where the provider said so.
        retry_after: Option<Duration>,
    },
    /// The provider refused this request; another attempt would be refused alike.
    #[error("refused: {detail}")]
    Refused {
        /// What the provider said, without secrets, cut to 300 characters.
        detail: String,
    },
    /// The reply could not be read. It may be billed.
    #[error("malformed reply: {detail}")]
    Malformed {
        /// What was wrong with it.
        detail: String,
    },
}

impl CallError {
    /// Whether the provider may charge for the attempt although nothing usable came back.
    #[must_use]
    pub fn may_be_billed(&self) -> bool {
        match self {
            Self::Unavailable { billable, .. } => *billable,
            Self::TimedOut { .. } | Self::Malformed { .. } => true,
            Self::Throttled { .. } | Self::Refused { .. } => false,
        }
    }

    /// Whether another attempt at the same model can help.
    #[must_use]
    pub fn can_be_retried(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Throttled { .. } => true,
            Self::TimedOut { .. } | Self::Refused { .. } | Self::Malformed { .. } => false,
        }
    }
}

/// Room for one more call at a backend, held until it is dropped.
#[derive(Default)]
pub struct Place(Option<Box<dyn Send + Sync>>);

impl Place {
    /// A place that gives `held` back when it is dropped.
    #[must_use]
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self(Some(Box::new(held)))
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.0.is_some()).finish()
    }
}

/// The adapter through which models are called.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Makes one call.
    ///
    /// # Errors
    /// [`CallError`], one kind per thing the caller can do about it.
    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Reply, CallError>>;

    /// Waits for room for one more call. Nothing is sent while it waits, so nothing is charged and the
    /// model is not blamed. Backends without a limit of their own always have room.
    fn place(&self) -> BoxFuture<'_, Place> {
        Box::pin(std::future::ready(Place::default()))
    }

    /// How long a call would wait for its turn now, where the backend keeps a limit of its provider's.
    fn wait(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether this backend can answer a request that carries this reference. Backends that do not
    /// answer from recorded rows always can.
    fn covers(&self, upstream: &str, caller_ref: Option<&str>) -> bool {
        let _ = (upstream, caller_ref);
        true
    }
}
