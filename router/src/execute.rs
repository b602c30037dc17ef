//! Execute: the chosen models are called, all at once, and what became of each call is noted.
//!
//! This is the only module that sleeps or times out, and it does so by tokio's clock alone: the time
//! to the deadline is handed in as a span. Each attempt runs no longer than its model's own time limit
//! and ends [`DEADLINE_MARGIN`] before the deadline, so that there is time to merge and reply.
//!
//! Money: an attempt is noted in the [`AttemptLog`] as lost, at its worst case, right before it is sent,
//! and noted again when it ends. Whoever drops the future of [`Execution::run`] thereby abandons the
//! calls upstream, and the log still holds them. No model is called more often than `attempts_max`,
//! which is what was held for it.
//!
//! Cost of an attempt that replied: by price card, the tokens that the provider counted (a counted zero
//! is a zero) times price; where it counted none, a token for every [`BYTES_PER_TOKEN`] bytes or part of
//! it, the whole output cap for output that was cut or is not there to be measured, never more than
//! the worst case, and marked as estimated. Metered backends say what it cost, else it is the most
//! that a call may cost. Of attempts that failed, those that may be billed count their worst case as
//! unknown, and the others nothing.
//!
//! Retries wait a jittered, doubled pause, or as long as a throttling provider asks, where that leaves
//! time for another attempt; the jitter is seeded by the request. The circuit breaker is asked before
//! each attempt. Where it lets no model of the set through, all are forced: a request never fails by its
//! breakers alone. A time limit that the caller's deadline cut to less than half of the model's own
//! says little about the model, so running into it is not held against it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};

use crate::backend::{Call, CallError, Reply};
use crate::breaker::{Permit, RETRY_AFTER_DEFAULT};
use crate::clock::{Clock, Draw};
use crate::ids::AttemptId;
use crate::model::{Model, ModelCard, Pricing};
use crate::money::NanoUsd;
use crate::outcome::{Attempt, AttemptLog, AttemptStatus, Billing, Outcome};
use crate::progress::{Event, Progress};
use crate::request::Prompt;

/// Calls end this long before the deadline.
pub const DEADLINE_MARGIN: Duration = Duration::from_millis(10);
/// Bytes per token where the provider counted none: fewer than the usual four, so that estimates
/// are rather too high.
pub const BYTES_PER_TOKEN: u64 = 3;
/// The pause before the first retry, doubled for each further one; jitter adds up to as much again.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(5);

/// The calls of one decision, ready to run.
#[derive(Debug)]
pub struct Execution<'a> {
    /// The chosen models, the first pick first.
    pub models: Vec<&'a Model>,
    /// What they are sent.
    pub prompt: &'a Arc<Prompt>,
    /// The request's cap on the output.
    pub output_tokens_max: Option<u32>,
    /// Time to the deadline; `None` without one.
    pub time_left: Option<Duration>,
    /// Attempts per model, the first included; zero counts as one.
    pub attempts_max: u32,
    /// Tells when attempts were sent.
    pub clock: &'a dyn Clock,
    /// The request's chance: ids and jitter.
    pub draw: &'a mut Draw,
    /// Where attempts are noted.
    pub log: &'a AttemptLog,
    /// Who watches.
    pub progress: &'a dyn Progress,
    /// Who hears of outcomes before the last is in.
    pub listener: &'a dyn Listener,
}

/// Hears of outcomes as they come in. It must never block.
pub trait Listener: Send + Sync + fmt::Debug {
    /// Hears all outcomes that are in, while `awaited` more are to come; never of the last one.
    fn came_in(&self, outcomes: &[Outcome], awaited: usize);
}

impl Execution<'_> {
    /// Calls all models at once and waits for the last: one outcome per model, in their order.
    pub async fn run(self) -> Vec<Outcome> {
        let now = self.clock.now();
        let forced = !self.models.iter().any(|model| model.breaker.allows(now));
        let shared = Shared {
            prompt: self.prompt,
            prompt_bytes: self.prompt.bytes(),
            output_tokens_max: self.output_tokens_max,
            ends_at: self.time_left.map(|left| Instant::now() + left.saturating_sub(DEADLINE_MARGIN)),
            attempts_max: self.attempts_max.max(1),
            clock: self.clock,
            log: self.log,
            progress: self.progress,
        };
        // Each model gets its chance before any is called: what one draws does not depend on how
        // fast another one is.
        let calls: Vec<ModelCalls<'_>> = self
            .models
            .iter()
            .map(|model| ModelCalls::new(&shared, model, forced, self.draw.next_u64()))
            .collect();
        let mut running: FuturesUnordered<_> = calls.iter().map(ModelCalls::run).collect();
        let mut outcomes = Vec::with_capacity(calls.len());
        while let Some(outcome) = running.next().await {
            outcomes.push(outcome);
            if !running.is_empty() {
                self.listener.came_in(&outcomes, running.len());
            }
        }
        outcomes.sort_by_key(|outcome| self.models.iter().position(|model| *model.name() == outcome.model));
        outcomes
    }
}

/// What all calls of a request share.
#[derive(Debug)]
struct Shared<'a> {
    prompt: &'a Arc<Prompt>,
    prompt_bytes: usize,
    output_tokens_max: Option<u32>,
    ends_at: Option<Instant>,
    attempts_max: u32,
    clock: &'a dyn Clock,
    log: &'a AttemptLog,
    progress: &'a dyn Progress,
}

/// The attempts of one model.
#[derive(Debug)]
struct ModelCalls<'a> {
    shared: &'a Shared<'a>,
    model: &'a Model,
    worst_case: NanoUsd,
    forced: bool,
    seed: u64,
    tally: Mutex<Tally>,
}

/// What the attempts of one model come to so far.
#[derive(Debug)]
struct Tally {
    draw: Draw,
    attempts: u32,
    cost: NanoUsd,
    latency: Duration,
}

/// Why an attempt brought no reply.
#[derive(Debug)]
enum Failure {
    /// It was made.
    Made(CallError),
    /// It was not, because there is no time or the breaker is open.
    NotMade,
}

/// A reply with what is needed of its attempt.
#[derive(Debug)]
struct Success {
    reply: Reply,
    latency: Duration,
    tokens_out: u64,
}

/// What an attempt cost.
#[derive(Debug, Default, Clone, Copy)]
struct Cost {
    tokens_in: u64,
    tokens_out: u64,
    amount: NanoUsd,
}

impl<'a> ModelCalls<'a> {
    fn new(shared: &'a Shared<'a>, model: &'a Model, forced: bool, seed: u64) -> Self {
        let mut draw = Draw::from_seed(seed);
        let seed = draw.next_u64();
        let worst_case =
            model.card.worst_case(shared.prompt_bytes, shared.prompt.messages.len(), shared.output_tokens_max);
        let tally = Tally { draw, attempts: 0, cost: NanoUsd::ZERO, latency: Duration::ZERO };
        Self { shared, model, worst_case, forced, seed, tally: Mutex::new(tally) }
    }

    async fn run(&self) -> Outcome {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(PAUSE_FIRST)
            .with_max_delay(PAUSE_LAST)
            .with_max_times(self.shared.attempts_max as usize - 1)
            .with_jitter()
            .with_jitter_seed(self.seed);
        let result = (|| self.attempt())
            .retry(pauses)
            .when(|failure| matches!(failure, Failure::Made(error) if error.can_be_retried()))
            .adjust(|failure, pause| self.fitting(failure, pause?))
            .await;
        let tally = self.tally();
        let (cost, model) = (tally.cost, self.model.name().clone());
        match result {
            Ok(Success { reply, latency, tokens_out }) => Outcome {
                model,
                text: reply.text,
                replied: true,
                // What is no probability says nothing; it must not reach a trace.
                confidence: reply.confidence.filter(|p| (0.0..=1.0).contains(p)),
                truncated: reply.truncated,
                tokens_out,
                cost,
                latency,
            },
            Err(Failure::Made(_) | Failure::NotMade) => Outcome {
                model,
                text: None,
                replied: false,
                confidence: None,
                truncated: false,
                tokens_out: 0,
                cost,
                latency: tally.latency,
            },
        }
    }

    /// The pause before another attempt; `None` when it would leave no time for one.
    fn fitting(&self, failure: &Failure, pause: Duration) -> Option<Duration> {
        let pause = match failure {
            Failure::Made(CallError::Throttled { retry_after }) => {
                pause.max(retry_after.unwrap_or(RETRY_AFTER_DEFAULT))
            }
            Failure::Made(
                CallError::Unavailable { .. }
                | CallError::TimedOut { .. }
                | CallError::Refused { .. }
                | CallError::Malformed { .. },
            )
            | Failure::NotMade => pause,
        };
        // Without a deadline nobody waits longer for a retry than for the model itself.
        let left = self.time_left().unwrap_or(self.model.card.timeout);
        (pause < left).then_some(pause)
    }

    /// How long a call may take that is sent now.
    fn limit(&self) -> Duration {
        let timeout = self.model.card.timeout;
        self.time_left().map_or(timeout, |left| left.min(timeout))
    }

    fn time_left(&self) -> Option<Duration> {
        self.shared.ends_at.map(|end| end.saturating_duration_since(Instant::now()))
    }

    async fn attempt(&self) -> Result<Success, Failure> {
        let card = &self.model.card;
        let waited = timeout(self.limit(), self.model.backend.place()).await;
        let (mut attempt, limit) = (self.next_attempt(), self.limit());
        if limit.is_zero() {
            return Err(self.not_made(attempt, "not called: the deadline has passed"));
        }
        let Ok(_place) = waited else {
            return Err(self.not_made(attempt, "not called: its backend has no room for another call"));
        };
        let Some(permit) = self.model.breaker.admit(attempt.started_at, self.forced) else {
            return Err(self.not_made(attempt, "not called: its circuit breaker is open"));
        };
        let call = Call {
            attempt: attempt.id,
            upstream: Arc::clone(&card.upstream),
            prompt: Arc::clone(self.shared.prompt),
            output_tokens_max: card.output_cap(self.shared.output_tokens_max),
            timeout: limit,
        };
        self.shared.log.sent(attempt.clone());
        let (id, try_number) = (attempt.id, attempt.try_number);
        self.shared.progress.tell(Event::AttemptStarted { id, model: self.model.name().clone(), try_number });
        let sent_at = Instant::now();
        let result = match timeout(limit, self.model.backend.generate(call)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::TimedOut { limit }),
        };
        let reported = result.as_ref().ok().and_then(|reply| reply.latency);
        attempt.latency = reported.unwrap_or_else(|| sent_at.elapsed());
        self.report(permit, &result);
        let (cost, billing) = self.cost(&result);
        attempt.tokens_in = cost.tokens_in;
        attempt.tokens_out = cost.tokens_out;
        attempt.cost = cost.amount;
        attempt.billing = billing;
        let latency = attempt.latency;
        attempt.status = match &result {
            Ok(_) => AttemptStatus::Replied,
            Err(error) => AttemptStatus::Failed(error.clone()),
        };
        self.end(attempt);
        result.map(|reply| Success { reply, latency, tokens_out: cost.tokens_out }).map_err(Failure::Made)
    }

    /// The next attempt, as if it were sent and never heard of again.
    fn next_attempt(&self) -> Attempt {
        let started_at = self.shared.clock.now();
        let mut tally = self.tally();
        tally.attempts += 1;
        Attempt {
            id: AttemptId::new(started_at, &mut tally.draw),
            model: self.model.name().clone(),
            try_number: tally.attempts,
            started_at,
            latency: Duration::ZERO,
            status: AttemptStatus::Abandoned,
            tokens_in: 0,
            tokens_out: 0,
            cost: self.worst_case,
            billing: Billing::Unknown,
        }
    }

    /// Notes an attempt that came to nothing before it was sent, so that the trace says why.
    fn not_made(&self, mut attempt: Attempt, why: &str) -> Failure {
        attempt.status = AttemptStatus::Failed(CallError::Unavailable { detail: why.to_owned(), billable: false });
        attempt.cost = NanoUsd::ZERO;
        attempt.billing = Billing::Nothing;
        self.end(attempt);
        Failure::NotMade
    }

    fn end(&self, attempt: Attempt) {
        {
            let mut tally = self.tally();
            tally.cost = tally.cost.saturating_add(attempt.known_cost());
            tally.latency = tally.latency.saturating_add(attempt.latency);
        }
        self.shared.log.ended(attempt.clone());
        self.shared.progress.tell(Event::AttemptFinished(attempt));
    }

    /// Tells the breaker how a call ended.
    fn report(&self, permit: Permit<'_>, result: &Result<Reply, CallError>) {
        let now = self.shared.clock.now();
        match result {
            Ok(_) => permit.on_success(),
            Err(CallError::Throttled { retry_after }) => permit.on_throttled(now, *retry_after),
            Err(CallError::TimedOut { limit }) if *limit < self.model.card.timeout / 2 => drop(permit),
            Err(CallError::TimedOut { .. } | CallError::Unavailable { .. } | CallError::Malformed { .. }) => {
                permit.on_failure(now);
            }
            Err(CallError::Refused { .. }) => drop(permit),
        }
    }

    fn cost(&self, result: &Result<Reply, CallError>) -> (Cost, Billing) {
        match result {
            Ok(reply) => self.reply_cost(reply),
            Err(error) if error.may_be_billed() => {
                (Cost { amount: self.worst_case, ..Cost::default() }, Billing::Unknown)
            }
            Err(_) => (Cost::default(), Billing::Nothing),
        }
    }

    fn reply_cost(&self, reply: &Reply) -> (Cost, Billing) {
        let Shared { prompt, prompt_bytes, output_tokens_max, .. } = self.shared;
        let card = &self.model.card;
        match &card.pricing {
            Pricing::Metered { max_per_call } => {
                let (tokens_in, tokens_out) = (reply.tokens_in.unwrap_or(0), reply.tokens_out.unwrap_or(0));
                // A negative cost is no cost.
                let metered = reply.cost.filter(|cost| *cost >= NanoUsd::ZERO);
                let billing = if metered.is_some() { Billing::Exact } else { Billing::Estimated };
                (Cost { tokens_in, tokens_out, amount: metered.unwrap_or(*max_per_call) }, billing)
            }
            Pricing::PerToken(price) => {
                let tokens_in = reply.tokens_in.unwrap_or_else(|| {
                    let worst = ModelCard::tokens_in_max(*prompt_bytes, prompt.messages.len());
                    tokens_of(*prompt_bytes).min(worst)
                });
                let tokens_out = reply.tokens_out.unwrap_or_else(|| {
                    let cap = u64::from(card.output_cap(*output_tokens_max));
                    let measured = reply.text.as_deref().filter(|_| !reply.truncated).map(|t| tokens_of(t.len()));
                    measured.map_or(cap, |tokens| tokens.min(cap))
                });
                let counted = reply.tokens_in.is_some() && reply.tokens_out.is_some();
                // A count whose price does not fit into 64 bits is no count.
                match price.cost(tokens_in, tokens_out) {
                    Some(amount) => {
                        let billing = if counted { Billing::Exact } else { Billing::Estimated };
                        (Cost { tokens_in, tokens_out, amount }, billing)
                    }
                    None => (Cost { tokens_in, tokens_out, amount: self.worst_case }, Billing::Estimated),
                }
            }
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Held for a few additions that cannot panic.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tokens of a text, estimated, rounded up.
fn tokens_of(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(BYTES_PER_TOKEN)
}

#[cfg(test)]
mod tests;
