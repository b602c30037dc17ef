//! Feedback on the wire: what arrived as the core's raw feedback, and stored verdicts.
//!
//! Nothing is checked here; the core's check names every fault at once.

use pointsman_proto::v1;
use pointsman_router::feedback::{RawFeedback, RawVerdict, Verdict};

use super::answer::normal_to_wire;

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
