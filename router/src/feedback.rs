//! Feedback: what was right, from whom, and which members it teaches.
//!
//! A verdict on the merged answer is credited to the members that gave that answer and says nothing
//! of the others; a verdict on one model overrides it for that model; an `expected` answer judges
//! every member by the same equality that the vote uses. Missing feedback is never taken for wrong,
//! and neither is a missing answer: a member whose call failed or was never reported stays unknown,
//! while one that replied what is no answer at all is wrong by any `expected`.
//! Nothing here learns: the labels go to `learner::online`, in the order of the ledger.

use std::collections::BTreeMap;

use crate::answer::{Answer, Contribution};
use crate::check::{BadRequest, Fault, Problem};
use crate::ids::{DecisionId, ModelName};
use crate::normal::{NormalForm, normalise, same};
use crate::request::{AnswerKind, KindName};
use crate::trace::{Trace, TraceStatus};

/// A verdict as it arrived.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum RawVerdict {
    /// None was given.
    #[default]
    Missing,
    /// Right or wrong.
    Correct(bool),
    /// How right.
    Score(f64),
    /// What would have been right.
    Expected(String),
}

/// Feedback as it arrived.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(missing_docs, reason = "each field is documented where it is checked, in `Feedback`")]
pub struct RawFeedback {
    pub decision_id: String,
    pub model: String,
    pub source: String,
    pub verdict: RawVerdict,
    pub comment: String,
}

/// Checked feedback, not yet held against its trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Feedback {
    /// The decision it judges.
    pub decision: DecisionId,
    /// The one model it judges; `None`: the merged answer.
    pub model: Option<ModelName>,
    /// Who says so; feedback is idempotent per decision, model and source.
    pub source: String,
    /// The verdict; never [`RawVerdict::Missing`].
    pub verdict: RawVerdict,
    /// A note for people, never read by the learner.
    pub comment: String,
}

/// A verdict as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Right or wrong.
    Correct(bool),
    /// How right, in [0, 1].
    Score(f64),
    /// What would have been right, in the form in which the trace stores answers.
    Expected(NormalForm),
}

/// One piece of feedback as the ledger keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place in the ledger.
    pub seq: u64,
    /// The one model it judges; `None`: the merged answer.
    pub model: Option<ModelName>,
    /// Who says so.
    pub source: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What the verdict comes to for what it judges, in [0, 1].
    pub score: f64,
}

/// Longest name of a source, in bytes.
const SOURCE_BYTES_MAX: usize = 128;
/// Longest comment, in bytes.
const COMMENT_BYTES_MAX: usize = 4_096;

/// Checks feedback as far as that is possible without its trace; all faults at once.
///
/// # Errors
/// [`BadRequest`] naming every field that is wrong.
pub fn check(raw: RawFeedback) -> Result<Feedback, BadRequest> {
    let mut faults = Vec::new();
    let mut fault = |field: &str, problem| faults.push(Fault::new(field, problem));
    let decision = DecisionId::parse(&raw.decision_id);
    if decision.is_err() {
        fault("feedback.decision_id", Problem::malformed("is not an id, give the decision_id of the reply"));
    }
    match &raw.verdict {
        RawVerdict::Missing => fault("feedback.verdict", Problem::Missing),
        RawVerdict::Score(score) if !(0.0..=1.0).contains(score) => {
            fault("feedback.score", Problem::out_of_range("0 to 1"));
        }
        RawVerdict::Expected(text) if text.trim().is_empty() => fault("feedback.expected", Problem::Missing),
        RawVerdict::Correct(_) | RawVerdict::Score(_) | RawVerdict::Expected(_) => {}
    }
    if raw.source.len() > SOURCE_BYTES_MAX {
        fault("feedback.source", Problem::out_of_range("at most 128 bytes"));
    }
    if raw.comment.len() > COMMENT_BYTES_MAX {
        fault("feedback.comment", Problem::out_of_range("at most 4096 bytes"));
    }
    match decision {
        Ok(decision) if faults.is_empty() => Ok(Feedback {
            decision,
            model: (!raw.model.is_empty()).then(|| ModelName::new(&raw.model)),
            source: raw.source,
            verdict: raw.verdict,
            comment: raw.comment,
        }),
        Ok(_) | Err(_) => Err(BadRequest { faults }),
    }
}

/// Holds checked feedback against its trace: the verdict in stored form and what it comes to.
///
/// # Errors
/// [`BadRequest`] when the model was not part of the decision, the expected answer is none of the
/// request's kind, or there is nothing that it could be compared with.
pub fn judge(trace: &Trace, feedback: &Feedback, secret: u64) -> Result<(Verdict, f64), BadRequest> {
    if let Some(model) = &feedback.model
        && !trace.decision.chosen().any(|c| c.model == *model)
    {
        return Err(BadRequest::of("feedback.model", Problem::malformed("is not a model of this decision")));
    }
    match &feedback.verdict {
        RawVerdict::Correct(right) => Ok((Verdict::Correct(*right), f64::from(u8::from(*right)))),
        RawVerdict::Score(score) => Ok((Verdict::Score(*score), *score)),
        RawVerdict::Expected(text) => {
            let kind = kind_of(trace);
            let expected = normalise(text, &kind, None).ok_or_else(|| {
                BadRequest::of("feedback.expected", Problem::malformed("is not an answer of the request's kind"))
            })?;
            let expected = expected.stored(trace.kind, secret);
            let given = match &feedback.model {
                Some(model) => given_by(trace, model),
                None => given(trace),
            };
            let Some(given) = given else {
                let nothing = "finds no answer to be compared with, give correct or score";
                return Err(BadRequest::of("feedback.expected", Problem::malformed(nothing)));
            };
            let score = agreement(given, &expected, trace, secret);
            Ok((Verdict::Expected(expected), score))
        }
        RawVerdict::Missing => Err(BadRequest::of("feedback.verdict", Problem::Missing)),
    }
}

/// What all feedback so far says of each member: the mean over its sources, where a verdict on the
/// model overrides verdicts on the merged answer. Members that nothing was said of are missing.
#[must_use]
pub fn labels(trace: &Trace, entries: &[Entry], secret: u64) -> BTreeMap<ModelName, f64> {
    let latest = latest(entries);
    let mut labels = BTreeMap::new();
    for candidate in trace.decision.chosen() {
        let own = latest.iter().filter(|e| e.model.as_ref() == Some(&candidate.model)).map(|e| e.score);
        let shared =
            latest.iter().filter(|e| e.model.is_none()).filter_map(|e| credit(trace, &candidate.model, e, secret));
        if let Some(label) = mean(own).or_else(|| mean(shared)) {
            labels.insert(candidate.model.clone(), label);
        }
    }
    labels
}

/// The latest entry of each (model, source), in ledger order.
fn latest(entries: &[Entry]) -> Vec<&Entry> {
    let mut latest: BTreeMap<(Option<&ModelName>, &str), &Entry> = BTreeMap::new();
    for entry in entries {
        let newest = latest.entry((entry.model.as_ref(), &entry.source)).or_insert(entry);
        if entry.seq > newest.seq {
            *newest = entry;
        }
    }
    let mut latest: Vec<&Entry> = latest.into_values().collect();
    latest.sort_by_key(|e| e.seq);
    latest
}

/// What a verdict on the merged answer says of one member; `None`: nothing.
fn credit(trace: &Trace, model: &ModelName, entry: &Entry, secret: u64) -> Option<f64> {
    match (&entry.verdict, &trace.answer) {
        (Verdict::Expected(expected), _) => Some(agreement(given_by(trace, model)?, expected, trace, secret)),
        (Verdict::Correct(_) | Verdict::Score(_), Some(answer)) => {
            contribution(answer, model)?.agrees.then_some(entry.score)
        }
        // A caller that made the only call itself and never reported it can still judge it.
        (Verdict::Correct(_) | Verdict::Score(_), None) => {
            let seen = trace.status == TraceStatus::Decided || replied(trace, model);
            (seen && trace.decision.set.len() == 1).then_some(entry.score)
        }
    }
}

/// What the request was answered: `None` where nobody can say, `Some(None)` where it was no answer.
fn given(trace: &Trace) -> Option<Option<&NormalForm>> {
    match &trace.answer {
        Some(answer) => answer.normal.as_ref().map(Some),
        None => (trace.status == TraceStatus::Failed).then_some(None),
    }
}

/// The same for what one member answered.
fn given_by<'a>(trace: &'a Trace, model: &ModelName) -> Option<Option<&'a NormalForm>> {
    let answer = trace.answer.as_ref();
    let form = answer.and_then(|a| contribution(a, model)).and_then(|c| c.normal.as_ref());
    // Where the vote read others' replies, or refused all, one without a form was not even an answer.
    form.map(Some).or_else(|| (replied(trace, model) && given(trace).is_some()).then_some(None))
}

fn agreement(given: Option<&NormalForm>, expected: &NormalForm, trace: &Trace, secret: u64) -> f64 {
    let right = given.is_some_and(|form| same(form, expected, tolerance(trace), secret));
    f64::from(u8::from(right))
}

fn contribution<'a>(answer: &'a Answer, model: &ModelName) -> Option<&'a Contribution> {
    answer.contributions.iter().find(|c| c.model == *model)
}

fn replied(trace: &Trace, model: &ModelName) -> bool {
    trace.outcomes.iter().any(|o| o.model == *model && o.replied)
}

fn mean(scores: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum) = scores.fold((0.0, 0.0), |(n, sum), score| (n + 1.0, sum + score));
    (n > 0.0).then(|| sum / n)
}

fn tolerance(trace: &Trace) -> f64 {
    trace.number_tolerance.unwrap_or(crate::request::NUMBER_TOLERANCE)
}

/// The request's kind as far as judging needs it: any label may be expected.
fn kind_of(trace: &Trace) -> AnswerKind {
    match trace.kind {
        KindName::Label => AnswerKind::Label { allowed: Vec::new() },
        KindName::Number | KindName::Json | KindName::Text | KindName::Unspecified => trace.answer_kind(),
    }
}
