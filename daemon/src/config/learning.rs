//! The section `[learning]`: what is kept to learn from, and when a candidate is trained by itself.

use std::time::Duration;

use super::section::Section;

/// The longest time between two trainings.
const EVERY_MAX: Duration = Duration::from_secs(366 * 86_400);
const EVERY_MIN: Duration = Duration::from_secs(60);
/// Enough to notice that one who departs was right after all, too little to mislead.
const DEPARTING_SHARE: f64 = 0.02;

/// What is kept to learn from, and when a candidate is trained by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningConfig {
    /// A candidate is trained this long after the last one; `None`: not by the clock.
    pub retrain_every: Option<Duration>,
    /// A candidate is trained after so much feedback since the last one; `None`: not by feedback.
    pub retrain_after_feedback: Option<u64>,
    /// The share of traces whose features are kept.
    pub trace_sample: f64,
    /// The share of all information that a source of feedback may be while it departs from the others.
    pub departing_share: f64,
}

impl Default for LearningConfig {
    fn default() -> Self {
        Self {
            retrain_every: None,
            retrain_after_feedback: None,
            trace_sample: 1.0,
            departing_share: DEPARTING_SHARE,
        }
    }
}

/// Checks the section.
pub(super) fn learning(mut section: Section<'_>) -> LearningConfig {
    let learning = LearningConfig {
        retrain_every: section.span("retrain_every", EVERY_MIN, EVERY_MAX),
        retrain_after_feedback: section.whole("retrain_after_feedback", 1, u64::from(u32::MAX)),
        trace_sample: section.number("trace_sample", 0.0, 1.0).unwrap_or(1.0),
        departing_share: section.number("departing_share", 0.0, 1.0).unwrap_or(DEPARTING_SHARE),
    };
    section.end();
    learning
}
