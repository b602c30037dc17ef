//! Settle: the hold is ended, the trace is written, exactly once, whatever happened in between.
//!
//! From the moment money is held until the trace is handed over an [`Unsettled`] stands guard. A
//! request that runs to its end calls [`Unsettled::settle`]; one whose caller went away is dropped,
//! and the guard accounts for it: attempts that ended count what they cost, attempts still out count
//! their worst case as unknown, and the trace says that it was cancelled. A timer never refunds
//! anything.

use std::sync::Arc;

use crate::answer::Answer;
use crate::clock::{Clock, Timestamp};
use crate::decision::Decision;
use crate::features::Features;
use crate::hold::{Bill, Hold, Ledger};
use crate::outcome::{Attempt, AttemptLog, Billing, Outcome};
use crate::pacing::Pacer;
use crate::request::{AnswerKind, Prompt, Request};
use crate::trace::{Trace, TracePlace, TraceStatus};

/// What these attempts come to.
#[must_use]
pub fn bill(attempts: &[Attempt]) -> Bill {
    let unaccounted = attempts.iter().filter(|attempt| attempt.billing == Billing::Unknown);
    Bill {
        settled: attempts.iter().map(Attempt::known_cost).sum(),
        unknown: unaccounted.map(|attempt| attempt.cost).sum(),
    }
}

/// The part of a trace that is known before anything is called.
#[derive(Debug, Clone)]
pub struct Draft {
    /// When the request was admitted.
    pub at: Timestamp,
    /// The decision.
    pub decision: Arc<Decision>,
    /// The features it was made from.
    pub features: Arc<Features>,
    /// Encode and decide, in microseconds.
    pub decide_us: u64,
    /// The hold; `None` where the caller meters itself.
    pub hold: Option<Hold>,
    /// What was sent, where content is kept.
    pub content: Option<Arc<Prompt>>,
}

impl Draft {
    /// The trace of this draft and how the request ended.
    fn finish(&self, request: &Request, end: End, now: Timestamp) -> Trace {
        let (number_tolerance, labels) = match &request.kind {
            AnswerKind::Number { tolerance } => (Some(*tolerance), Vec::new()),
            AnswerKind::Label { allowed } => (None, allowed.clone()),
            AnswerKind::Json { .. } | AnswerKind::Text => (None, Vec::new()),
        };
        Trace {
            at: self.at,
            decision: Arc::clone(&self.decision),
            features: Arc::clone(&self.features),
            kind: request.kind.name(),
            number_tolerance,
            labels,
            answer_pattern: request.answer_pattern.as_ref().map(|pattern| pattern.as_str().to_owned()),
            tags: request.tags.clone(),
            caller_ref: request.prompt.caller_ref.clone(),
            key: request.key.clone(),
            bill: bill(&end.attempts),
            attempts: end.attempts,
            outcomes: end.outcomes,
            answer: end.answer,
            status: end.status,
            hold: self.hold.clone(),
            total_us: u64::try_from(now.since(self.at).as_micros()).unwrap_or(u64::MAX),
            decide_us: self.decide_us,
            content: self.content.clone(),
        }
    }
}

/// How a request ended.
#[derive(Debug)]
struct End {
    attempts: Vec<Attempt>,
    outcomes: Vec<Outcome>,
    answer: Option<Answer>,
    status: TraceStatus,
}

/// The ports that settling writes to.
#[derive(Debug, Clone)]
pub struct Books {
    /// The money.
    pub ledger: Arc<dyn Ledger>,
    /// The price of money.
    pub pacer: Arc<dyn Pacer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Held money and a trace that is still to be written.
#[derive(Debug)]
pub struct Unsettled {
    books: Books,
    draft: Draft,
    request: Request,
    log: AttemptLog,
    place: Option<TracePlace>,
}

impl Unsettled {
    /// Stands guard over a request that is about to be executed.
    #[must_use]
    pub fn new(books: Books, draft: Draft, request: Request, place: TracePlace) -> Self {
        Self { books, draft, request, log: AttemptLog::default(), place: Some(place) }
    }

    /// The decision that is executed.
    #[must_use]
    pub fn decision(&self) -> &Arc<Decision> {
        &self.draft.decision
    }

    /// The request that is executed.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Where attempts are noted.
    #[must_use]
    pub fn log(&self) -> &AttemptLog {
        &self.log
    }

    /// Ends the hold and hands over the trace, which is returned as well.
    #[must_use]
    pub fn settle(mut self, outcomes: Vec<Outcome>, answer: Option<Answer>, status: TraceStatus) -> Arc<Trace> {
        let trace = self.end(outcomes, answer, status);
        if let Some(place) = self.place.take() {
            place.push(Arc::clone(&trace));
        }
        trace
    }

    fn end(&self, outcomes: Vec<Outcome>, answer: Option<Answer>, status: TraceStatus) -> Arc<Trace> {
        let end = End { attempts: self.log.take(), outcomes, answer, status };
        let now = self.books.clock.now();
        let trace = self.draft.finish(&self.request, end, now);
        // A decision whose caller makes the calls keeps its hold until it is reported; what it is expected
        // to cost counts for the pace.
        let decided = matches!(status, TraceStatus::Decided);
        if let (Some(hold), false) = (&trace.hold, decided) {
            self.books.ledger.settle(hold, trace.bill);
        }
        let spent = if decided { trace.decision.expected_cost() } else { trace.bill.spent() };
        self.books.pacer.spent(spent, now);
        Arc::new(trace)
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.push(self.end(Vec::new(), None, TraceStatus::Cancelled));
        }
    }
}
