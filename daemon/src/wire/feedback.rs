//! Feedback on the wire: what arrived as the core's raw feedback, and stored verdicts.
//!
//! Nothing that arrives is checked here; the core's check names every fault at once.

use pointsman_proto::v1;
use pointsman_router::feedback::{Entry, RawFeedback, RawVerdict, Verdict};
use pointsman_router::ids::ModelName;

use super::WireError;
use super::answer::{normal_from_wire, normal_to_wire};

/// Feedback as the core takes it in; a missing message has no field given.
#[must_use]
pub fn from_wire(feedback: Option<v1::Feedback>) -> RawFeedback {
    use v1::feedback::Verdict as Given;
    let feedback = feedback.unwrap_or_default();
    RawFeedback {
        decision_id: feedback.decision_id,
        model: feedback.model,
        source: feedback.source,
        verdict: match feedback.verdict {
            None => RawVerdict::Missing,
            Some(Given::Correct(right)) => RawVerdict::Correct(right),
            Some(Given::Score(score)) => RawVerdict::Score(score),
            Some(Given::Expected(text)) => RawVerdict::Expected(text),
        },
        comment: feedback.comment,
    }
}

/// A stored verdict as entries carry it.
#[must_use]
pub fn verdict_to_wire(verdict: &Verdict) -> v1::feedback_entry::Given {
    use v1::feedback_entry::Given;
    match verdict {
        Verdict::Correct(right) => Given::Correct(*right),
        Verdict::Score(score) => Given::GivenScore(*score),
        Verdict::Expected(normal) => Given::Expected(normal_to_wire(normal)),
    }
}

/// What of an entry decides about labels, as a trace from elsewhere carries it.
///
/// # Errors
/// [`WireError`] when it says nothing, or its score is none.
pub fn entry_from_wire(entry: v1::FeedbackEntry) -> Result<Entry, WireError> {
    use v1::feedback_entry::Given;
    let verdict =
        match entry.given.ok_or(WireError::Missing { field: "feedback: correct, givenScore or expected" })? {
            Given::Correct(right) => Verdict::Correct(right),
            Given::GivenScore(score) => Verdict::Score(score),
            Given::Expected(normal) => Verdict::Expected(normal_from_wire(normal)?),
        };
    // What was said decides; only of an expected answer does the score say how it was judged.
    let score = match &verdict {
        Verdict::Score(score) => *score,
        Verdict::Correct(right) => f64::from(u8::from(*right)),
        Verdict::Expected(_) => entry.score,
    };
    if !(0.0..=1.0).contains(&score) {
        return Err(WireError::Value { field: "feedback.score", value: -1 });
    }
    Ok(Entry {
        seq: entry.sequence,
        model: (!entry.model.is_empty()).then(|| ModelName::from(entry.model)),
        source: entry.source,
        verdict,
        score,
    })
}
