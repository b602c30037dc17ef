//! The trace: decision, outcomes, answer and money of one request; with its feedback, the training
//! row.
//!
//! There is exactly one trace per decision, whatever became of the request. A trace never holds a
//! prompt or a raw answer unless the operator switched `store_content` on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use regex::Regex;

use crate::answer::Answer;
use crate::clock::Timestamp;
use crate::decision::Decision;
use crate::features::Features;
use crate::hold::{Bill, Hold};
use crate::ids::KeyId;
use crate::outcome::{Attempt, Outcome};
use crate::request::{AnswerKind, KindName, NUMBER_TOLERANCE, Prompt};

/// What became of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceStatus {
    /// An answer was returned.
    Answered,
    /// Every model called failed.
    Failed,
    /// The caller went away, or its deadline ended, before there was an answer.
    Cancelled,
    /// The caller asked for the decision alone and has not finished reporting.
    Decided,
}

/// One request, whole.
#[derive(Debug, Clone)]
pub struct Trace {
    /// When the request was admitted.
    pub at: Timestamp,
    /// The choice, with its propensities.
    pub decision: Arc<Decision>,
    /// The features that the choice was made from.
    pub features: Arc<Features>,
    /// The kind of answer wanted.
    pub kind: KindName,
    /// The relative tolerance of numbers.
    pub number_tolerance: Option<f64>,
    /// The labels that were allowed; empty: any.
    pub labels: Vec<String>,
    /// The regular expression that extracts the answer from a longer text.
    pub answer_pattern: Option<String>,
    /// The caller's tags.
    pub tags: BTreeMap<String, String>,
    /// The caller's own id of the request.
    pub caller_ref: Option<String>,
    /// The key that the caller came with.
    pub key: Option<KeyId>,
    /// Every attempt, in the order in which they ended.
    pub attempts: Vec<Attempt>,
    /// One outcome per model called.
    pub outcomes: Vec<Outcome>,
    /// The merged answer.
    pub answer: Option<Answer>,
    /// What became of the request.
    pub status: TraceStatus,
    /// The hold, as it was granted; `None` where the caller meters itself.
    pub hold: Option<Hold>,
    /// What was spent of it.
    pub bill: Bill,
    /// From admission to the end of the merge, in microseconds.
    pub total_us: u64,
    /// Encode and decide alone, in microseconds.
    pub decide_us: u64,
    /// What was sent, kept only where `store_content` is on.
    pub content: Option<Arc<Prompt>>,
}

impl Trace {
    /// The kind of answer wanted, as far as reading an answer needs it.
    #[must_use]
    pub fn answer_kind(&self) -> AnswerKind {
        match self.kind {
            KindName::Label => AnswerKind::Label { allowed: self.labels.clone() },
            KindName::Number => {
                AnswerKind::Number { tolerance: self.number_tolerance.unwrap_or(NUMBER_TOLERANCE) }
            }
            KindName::Json => AnswerKind::Json { schema: None },
            KindName::Text | KindName::Unspecified => AnswerKind::Text,
        }
    }

    /// The expression that extracts an answer; it compiled when the request was checked.
    #[must_use]
    pub fn pattern(&self) -> Option<Regex> {
        Regex::new(self.answer_pattern.as_deref()?).ok()
    }
}

/// No room for another trace: the store is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the trace store is behind, try again shortly")]
pub struct TracesFull;

/// The port for traces. A place is reserved before anything is called, so that handing the trace
/// over cannot fail once money was spent.
pub trait TraceSink: Send + Sync + fmt::Debug {
    /// Reserves the place of one trace.
    ///
    /// # Errors
    /// [`TracesFull`] when the store is behind.
    fn reserve(&self) -> Result<(), TracesFull>;

    /// Gives a reserved place back.
    fn release(&self);

    /// Hands a trace over, in a place reserved for it.
    fn push(&self, trace: Arc<Trace>);
}

/// A reserved place for one trace; given back when it is dropped unused.
#[derive(Debug)]
pub struct TracePlace {
    sink: Arc<dyn TraceSink>,
    used: bool,
}

impl TracePlace {
    /// Reserves a place.
    ///
    /// # Errors
    /// [`TracesFull`] when the store is behind.
    pub fn reserve(sink: &Arc<dyn TraceSink>) -> Result<Self, TracesFull> {
        sink.reserve()?;
        Ok(Self { sink: Arc::clone(sink), used: false })
    }

    /// Hands the trace over.
    pub fn push(mut self, trace: Arc<Trace>) {
        self.used = true;
        self.sink.push(trace);
    }
}

impl Drop for TracePlace {
    fn drop(&mut self) {
        if !self.used {
            self.sink.release();
        }
    }
}
