//! What happens to a request, from one end to the other.
//!
//! admit → encode → decide → hold → execute → merge → settle → trace: each stage takes what the
//! one before it made, so a request without a hold cannot be executed and an unsettled one cannot be
//! traced. Should the caller go away in between, what was begun is accounted for by
//! [`crate::settle::Unsettled`] as it is dropped.

use std::sync::Arc;
use std::time::Duration;

use crate::admit::{AdmitError, Admitted, Gate, admit};
use crate::clock::{Clock, Draw, Seeds, Timestamp};
use crate::decide::{DecideError, Means, decide};
use crate::decision::Decision;
use crate::encode::{Encoded, Encoder, encode};
use crate::execute::{DEADLINE_MARGIN, Execution, Listener};
use crate::hold::{Bill, Hold, HoldError, Ledger, Payer};
use crate::merge::{MergeError, MergeRules, merge};
use crate::model::{Pool, PoolSource};
use crate::money::NanoUsd;
use crate::outcome::Outcome;
use crate::pacing::{Offer, Pacer};
use crate::policy::PolicySource;
use crate::progress::{Event, Progress};
use crate::request::RouteRequest;
use crate::settings::Settings;
use crate::settle::{Books, Draft, Unsettled};
use crate::trace::{Trace, TraceSink, TraceStatus};

/// The ports that the pipeline runs on.
#[derive(Debug, Clone)]
pub struct Ports {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The chance.
    pub seeds: Arc<dyn Seeds>,
    /// The models.
    pub pools: Arc<dyn PoolSource>,
    /// The policy.
    pub policies: Arc<dyn PolicySource>,
    /// The money.
    pub ledger: Arc<dyn Ledger>,
    /// The price of money.
    pub pacer: Arc<dyn Pacer>,
    /// The traces.
    pub traces: Arc<dyn TraceSink>,
}

/// Who keeps the money of a decision whose caller makes the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metering {
    /// The daemon holds the worst case until the caller reports.
    Hold,
    /// The caller meters itself: nothing is held.
    Caller,
}

/// Why a request brought no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RouteError {
    /// It was not let in; nothing was changed.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// Nothing could be chosen; nothing was changed.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// No money could be held; nothing was called.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// Every model called failed.
    #[error("every model failed: {}", reasons(trace))]
    AllFailed {
        /// The trace, with each attempt's reason.
        trace: Arc<Trace>,
    },
    /// Models replied, and none of the replies is an answer of the kind asked for.
    #[error("no model gave an answer of the kind asked for")]
    NoUsableAnswer {
        /// The trace, with each outcome.
        trace: Arc<Trace>,
    },
    /// The caller's deadline ended before any model replied.
    #[error("the deadline ended before any model replied")]
    DeadlineExceeded {
        /// The trace, with each attempt.
        trace: Arc<Trace>,
    },
}

/// What kind of error it is, for whoever maps it to a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller must change the request.
    BadRequest,
    /// The daemon is behind; the same request may pass shortly.
    Overloaded,
    /// No registered model can be called for this request.
    NoModel,
    /// A budget, or the request's own cap, has no room.
    NoMoney,
    /// The payer holds more in a minute than it may.
    TooFast,
    /// The durable ledger cannot be written.
    LedgerDown,
    /// Every model called failed.
    ModelsFailed,
    /// No reply was an answer of the kind asked for.
    NoUsableAnswer,
    /// The deadline ended.
    DeadlineExceeded,
}

impl RouteError {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Admit(AdmitError::BadRequest(_)) => ErrorKind::BadRequest,
            Self::Admit(AdmitError::TracesFull(_)) => ErrorKind::Overloaded,
            Self::Decide(DecideError::NoModel { .. }) => ErrorKind::NoModel,
            Self::Decide(DecideError::RequestCap { .. } | DecideError::Budget { .. })
            | Self::Hold(HoldError::NoMoney(_)) => ErrorKind::NoMoney,
            Self::Hold(HoldError::TooFast { .. }) => ErrorKind::TooFast,
            Self::Hold(HoldError::Ledger { .. }) => ErrorKind::LedgerDown,
            Self::AllFailed { .. } => ErrorKind::ModelsFailed,
            Self::NoUsableAnswer { .. } => ErrorKind::NoUsableAnswer,
            Self::DeadlineExceeded { .. } => ErrorKind::DeadlineExceeded,
        }
    }
}

/// Each failed model with its last reason.
fn reasons(trace: &Trace) -> String {
    let failures = trace.attempts.iter().map(|attempt| format!("{}: {}", attempt.model, attempt.status));
    failures.collect::<Vec<_>>().join("; ")
}

/// Routes requests.
#[derive(Debug)]
pub struct Router {
    settings: Settings,
    encoder: Encoder,
    ports: Ports,
}

impl Router {
    /// A router over these ports.
    #[must_use]
    pub fn new(settings: Settings, ports: Ports) -> Self {
        Self { encoder: Encoder::new(settings.secret), settings, ports }
    }

    /// What the operator set.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Decides, calls, merges: one request to its answer. The trace is returned as it is stored, with
    /// the members' own texts.
    ///
    /// # Errors
    /// [`RouteError`]; where it carries a trace, models were called and what they cost is settled.
    pub async fn route(&self, raw: RouteRequest, progress: &dyn Progress) -> Result<Arc<Trace>, RouteError> {
        let admitted = self.admit(raw)?;
        progress.tell(Event::Admitted(admitted.id));
        let encoded = encode(&self.encoder, admitted);
        let mut held = self.decide_and_hold(encoded, Metering::Hold).await?;
        progress.tell(Event::Decided(Arc::clone(held.guard.decision())));
        let outcomes = self.execute(&mut held, progress).await;
        self.conclude(held, outcomes)
    }

    /// Decides only: the caller calls the models and reports what it saw.
    ///
    /// # Errors
    /// [`RouteError`]; nothing was called.
    pub async fn decide(&self, raw: RouteRequest, metering: Metering) -> Result<Arc<Trace>, RouteError> {
        let encoded = encode(&self.encoder, self.admit(raw)?);
        let held = self.decide_and_hold(encoded, metering).await?;
        Ok(held.guard.settle(Vec::new(), None, TraceStatus::Decided))
    }

    fn admit(&self, raw: RouteRequest) -> Result<Admitted, RouteError> {
        let Ports { clock, seeds, pools, policies, traces, .. } = &self.ports;
        let gate = Gate { clock: &**clock, seeds: &**seeds, pools: &**pools, policies: &**policies, traces };
        Ok(admit(raw, &self.settings, gate)?)
    }

    /// Decides and holds the set's worst case. When another request took the last money in between,
    /// it decides once more under the lower ceiling; the logged propensities are those of the last draw.
    async fn decide_and_hold(&self, encoded: Encoded, metering: Metering) -> Result<Held, RouteError> {
        let mut toll = Toll { draw: encoded.admitted.draw.clone(), waited: Duration::ZERO };
        let (decision, hold) = match self.try_hold(&encoded, &mut toll, metering).await {
            Err(RouteError::Hold(HoldError::NoMoney(_))) => self.try_hold(&encoded, &mut toll, metering).await?,
            held => held?,
        };
        let Encoded { admitted, features, .. } = encoded;
        let Admitted { at, request, pool, deadline, place, .. } = admitted;
        let Toll { draw, waited } = toll;
        let decided_in = self.ports.clock.now().since(at).saturating_sub(waited);
        let draft = Draft {
            at,
            decision: Arc::new(decision),
            features,
            decide_us: u64::try_from(decided_in.as_micros()).unwrap_or(u64::MAX),
            hold,
            content: self.settings.store_content.then(|| Arc::clone(&request.prompt)),
        };
        self.tell_pacer(&draft.decision);
        let Ports { ledger, pacer, clock, .. } = &self.ports;
        let books = Books { ledger: Arc::clone(ledger), pacer: Arc::clone(pacer), clock: Arc::clone(clock) };
        Ok(Held { guard: Unsettled::new(books, draft, request, place), pool, deadline, draw })
    }

    async fn try_hold(
        &self,
        encoded: &Encoded,
        toll: &mut Toll,
        metering: Metering,
    ) -> Result<(Decision, Option<Hold>), RouteError> {
        let Ports { clock, ledger, pacer, .. } = &self.ports;
        let now = clock.now();
        let means = Means { left: None, pace: pacer.pace(now) };
        if metering == Metering::Caller {
            return Ok((decide(encoded, &mut toll.draw, &self.settings, means)?, None));
        }
        let payer = payer(encoded);
        match decide(encoded, &mut toll.draw, &self.settings, Means { left: ledger.left(payer, now), ..means }) {
            Ok(decision) => {
                let hold = self.hold(encoded, decision.worst_case(), toll).await?;
                Ok((decision, Some(hold)))
            }
            // The ledger knows which budget is short and when it resets. Should it grant the cheapest
            // call after all, because another request was settled meanwhile, that is what is decided on.
            Err(DecideError::Budget { cheapest, .. }) => {
                let hold = self.hold(encoded, cheapest, toll).await?;
                let means = Means { left: Some(cheapest), ..means };
                let decided = decide(encoded, &mut toll.draw, &self.settings, means);
                let decision = decided.inspect_err(|_| ledger.settle(&hold, Bill::default()))?;
                Ok((decision, Some(hold)))
            }
            Err(error @ (DecideError::NoModel { .. } | DecideError::RequestCap { .. })) => Err(error.into()),
        }
    }

    /// Tells the pacer what was on offer, at the price that money has without it.
    fn tell_pacer(&self, decision: &Decision) {
        let able = decision.candidates.iter().filter(|c| c.is_on_offer());
        let offers: Vec<Offer> = able.map(|c| Offer { quality: c.quality, cost_usd: c.cost.usd() }).collect();
        self.ports.pacer.offered(&offers, decision.objective.cost_weight_per_usd - decision.pace_weight_per_usd);
    }

    async fn hold(&self, encoded: &Encoded, amount: NanoUsd, toll: &mut Toll) -> Result<Hold, HoldError> {
        let Ports { clock, ledger, .. } = &self.ports;
        let asked_at = clock.now();
        let held = ledger.hold(encoded.admitted.id, amount, payer(encoded), asked_at).await;
        toll.waited += clock.now().since(asked_at);
        held
    }

    async fn execute(&self, held: &mut Held, progress: &dyn Progress) -> Vec<Outcome> {
        let now = self.ports.clock.now();
        let Held { guard, pool, deadline, draw } = held;
        let decision = guard.decision();
        let so_far = SoFar { decision, rules: MergeRules::of(guard.request()), progress };
        Execution {
            models: decision.chosen().filter_map(|c| pool.get(c.model.as_str())).collect(),
            prompt: &guard.request().prompt,
            output_tokens_max: guard.request().output_tokens_max,
            time_left: deadline.map(|deadline| deadline.since(now)),
            attempts_max: self.settings.attempts_max,
            clock: &*self.ports.clock,
            draw,
            log: guard.log(),
            progress,
            listener: &so_far,
        }
        .run()
        .await
    }

    /// Merges, settles and traces.
    fn conclude(&self, held: Held, outcomes: Vec<Outcome>) -> Result<Arc<Trace>, RouteError> {
        let Held { guard, deadline, .. } = held;
        let merged = merge(guard.decision(), &outcomes, &MergeRules::of(guard.request()));
        match merged {
            Ok(answer) => Ok(guard.settle(outcomes, Some(answer), TraceStatus::Answered)),
            Err(MergeError::NoUsableAnswer) => {
                Err(RouteError::NoUsableAnswer { trace: guard.settle(outcomes, None, TraceStatus::Failed) })
            }
            Err(MergeError::NobodyReplied) => {
                let late =
                    deadline.is_some_and(|deadline| self.ports.clock.now().plus(DEADLINE_MARGIN) >= deadline);
                let trace = guard.settle(outcomes, None, TraceStatus::Failed);
                Err(if late { RouteError::DeadlineExceeded { trace } } else { RouteError::AllFailed { trace } })
            }
        }
    }
}

/// Who pays for this request.
fn payer(encoded: &Encoded) -> Payer<'_> {
    let request = &encoded.admitted.request;
    Payer { key: request.key.as_ref(), tags: &request.tags }
}

/// What deciding uses up: the request's chance, and time that is the ledger's.
struct Toll {
    draw: Draw,
    waited: Duration,
}

/// Merges what is in so far for whoever watches.
#[derive(Debug)]
struct SoFar<'a> {
    decision: &'a Decision,
    rules: MergeRules<'a>,
    progress: &'a dyn Progress,
}

impl Listener for SoFar<'_> {
    fn came_in(&self, outcomes: &[Outcome], awaited: usize) {
        if let (true, Ok(answer)) =
            (self.progress.wants_provisional(), merge(self.decision, outcomes, &self.rules))
        {
            let (kind, outcomes_in) = (self.rules.kind.name(), outcomes.len());
            self.progress.tell(Event::Provisional { answer, kind, outcomes_in, awaited });
        }
    }
}

/// A decision with its money held, ready to be executed.
struct Held {
    guard: Unsettled,
    pool: Arc<Pool>,
    deadline: Option<Timestamp>,
    draw: Draw,
}
