//! The merged answer and what is said about it.

use crate::ids::ModelName;
use crate::normal::NormalForm;

/// What one member contributed to the merged answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Contribution {
    /// The member.
    pub model: ModelName,
    /// Its weight in the vote: log-odds of being right.
    pub weight: f64,
    /// The probability of being right that the weight was made of.
    pub quality: f64,
    /// The normal form of its answer; `None` when it cast no vote.
    pub normal: Option<NormalForm>,
    /// Whether it gave the answer that won.
    pub agrees: bool,
}

/// The merged result.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The answer as one of its members spelled it; `None` where no recorded member kept an answer.
    pub value: Option<String>,
    /// Its normal form.
    pub normal: Option<NormalForm>,
    /// The posterior probability of the vote that this answer is right.
    pub confidence: f64,
    /// Whether the confidence was calibrated against feedback.
    pub calibrated: bool,
    /// Whether the confidence is under the request's quality threshold.
    pub below_threshold: bool,
    /// Everyone who was called, whether it voted or not, heaviest first.
    pub contributions: Vec<Contribution>,
}

impl Answer {
    /// The member with the most weight among those who gave the winning answer.
    #[must_use]
    pub fn heaviest(&self) -> Option<&Contribution> {
        self.contributions.iter().filter(|c| c.agrees).max_by(|a, b| a.weight.total_cmp(&b.weight))
    }
}
