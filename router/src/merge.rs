//! Merge: what several models said becomes one answer.
//!
//! Answers vote by their normal form. The weight of a model is the log-odds of being right,
//! w = ln(p(L−1)/(1−p)), where p is the quality that the decision predicted, clipped, and L the number
//! of plausible answers (Nitzan & Paroush 1982). If models err independently and a wrong one picks
//! among the other L−1 answers evenly, then P(y) ∝ Π p^\[a=y\] ((1−p)/(L−1))^\[a≠y\] ∝ exp(Σ w of those
//! who said y): the heaviest answer is the most probable one, and the confidence is its share
//! exp(s)/(Σ exp(sᵧ) + L − k), where the L−k answers that nobody gave have the score zero. That is the
//! posterior of the vote and no more: `calibrated` is false until it was held against feedback.
//!
//! Edge cases. A reply without a normal form casts no vote, whatever its weight. A model worse than
//! chance (p < 1/L) has a negative weight: it speaks against what it says. Numbers form groups in which
//! any two are within the tolerance; the value is the weighted median of the winning group. Free text
//! has groups of equal normal form, so where all differ the best model's text wins. Ties go to the
//! group with the heavier member, then the cheaper one, then by name. Replies that keep no text at all
//! (recorded rows with a score alone) yield an answer without a value, credited to the heaviest of
//! them.
//!
//! This module must never look at anything but the decision and the outcomes: a merge can be repeated
//! from a trace.

use std::cmp::Ordering;

use regex::Regex;

use crate::answer::{Answer, Contribution};
use crate::decide::plausible_answers;
use crate::decision::Decision;
use crate::normal::{NormalForm, extract, normalise, numbers_same};
use crate::outcome::Outcome;
use crate::request::{AnswerKind, NUMBER_TOLERANCE, Request};

/// Probabilities are clipped to this and one minus this before they become weights.
const QUALITY_MIN: f64 = 0.001;

/// How answers are read and merged.
#[derive(Debug, Clone, Copy)]
pub struct MergeRules<'a> {
    /// The kind of answer wanted.
    pub kind: &'a AnswerKind,
    /// Extracts the answer from a longer text.
    pub pattern: Option<&'a Regex>,
    /// Relative difference up to which numbers are equal.
    pub tolerance: f64,
    /// How many different answers are plausible, L.
    pub answers: f64,
    /// The probability of being right under which the answer is marked.
    pub quality_threshold: Option<f64>,
}

impl<'a> MergeRules<'a> {
    /// The rules of a request.
    #[must_use]
    pub fn of(request: &'a Request) -> Self {
        Self::new(&request.kind, request.answer_pattern.as_ref(), request.quality_threshold)
    }

    /// The rules of a kind of answer.
    #[must_use]
    pub fn new(kind: &'a AnswerKind, pattern: Option<&'a Regex>, quality_threshold: Option<f64>) -> Self {
        let tolerance = match kind {
            AnswerKind::Number { tolerance } => *tolerance,
            AnswerKind::Label { .. } | AnswerKind::Json { .. } | AnswerKind::Text => NUMBER_TOLERANCE,
        };
        Self { kind, pattern, tolerance, answers: plausible_answers(kind), quality_threshold }
    }
}

/// Why there is nothing to merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// No model replied.
    #[error("no model replied, see why in the attempts")]
    NobodyReplied,
    /// Models replied, and none of the replies is an answer of the kind asked for.
    #[error("no reply is an answer of the kind asked for, change the prompt or the answer pattern")]
    NoUsableAnswer,
}

/// Merges outcomes into one answer.
///
/// # Errors
/// [`MergeError`] when there is no vote and no reply to credit.
pub fn merge(decision: &Decision, outcomes: &[Outcome], rules: &MergeRules<'_>) -> Result<Answer, MergeError> {
    let mut members: Vec<Member<'_>> = outcomes.iter().map(|outcome| member(decision, outcome, rules)).collect();
    members.sort_by(Member::heaviest_first);
    if !members.iter().any(|m| m.outcome.replied) {
        return Err(MergeError::NobodyReplied);
    }
    let groups = groups(&members, rules.tolerance);
    let Some(winner) = groups.iter().min_by(|a, b| a.most_probable_first(b, &members)) else {
        return without_votes(&members, rules);
    };
    let spokesman = winner.spokesman(&members);
    let confidence = share(winner, &groups, rules.answers);
    let agreeing = |at: usize| winner.members.contains(&at);
    Ok(Answer {
        value: spokesman.and_then(|m| m.text).map(str::to_owned),
        normal: spokesman.and_then(|m| m.normal.clone()),
        ..answer(&members, confidence, rules, agreeing)
    })
}

/// The log-odds weight of a model that is right with probability `quality` among `answers` plausible
/// answers.
#[must_use]
pub fn weight(quality: f64, answers: f64) -> f64 {
    let p = clipped(quality);
    (p * (at_least_two(answers) - 1.0) / (1.0 - p)).ln()
}

fn clipped(quality: f64) -> f64 {
    // NaN, which no policy should predict, becomes the least trusted.
    if quality.is_nan() { QUALITY_MIN } else { quality.clamp(QUALITY_MIN, 1.0 - QUALITY_MIN) }
}

fn at_least_two(answers: f64) -> f64 {
    answers.max(2.0)
}

/// An outcome with its vote.
#[derive(Debug)]
struct Member<'a> {
    outcome: &'a Outcome,
    quality: f64,
    weight: f64,
    /// Its own words for its answer.
    text: Option<&'a str>,
    normal: Option<NormalForm>,
}

impl Member<'_> {
    fn heaviest_first(&self, other: &Self) -> Ordering {
        let by_cost = |m: &Self| (m.outcome.cost, m.outcome.model.clone());
        other.weight.total_cmp(&self.weight).then_with(|| by_cost(self).cmp(&by_cost(other)))
    }
}

fn member<'a>(decision: &Decision, outcome: &'a Outcome, rules: &MergeRules<'_>) -> Member<'a> {
    let quality = decision.candidate(outcome.model.as_str()).map_or(0.0, |c| c.quality);
    let whole = outcome.text.as_deref().filter(|_| outcome.replied);
    Member {
        outcome,
        quality,
        weight: weight(quality, rules.answers),
        text: whole.and_then(|text| extract(text, rules.pattern)).map(str::trim),
        normal: whole.and_then(|text| normalise(text, rules.kind, rules.pattern)),
    }
}

/// Members that said the same, as indices into the members, heaviest first.
#[derive(Debug)]
struct Group {
    members: Vec<usize>,
    score: f64,
}

impl Group {
    fn new(mut members: Vec<usize>, all: &[Member<'_>]) -> Self {
        members.sort_unstable();
        let score = members.iter().filter_map(|at| all.get(*at)).map(|m| m.weight).sum();
        Self { members, score }
    }

    /// Scores that differ only by the order of their sum are a tie. Members are sorted, so the lower
    /// index is the heavier, cheaper, earlier name.
    fn most_probable_first(&self, other: &Self, all: &[Member<'_>]) -> Ordering {
        const GRAIN: f64 = 1e-9;
        let grains = |group: &Self| (group.score / GRAIN).round();
        let heaviest = |group: &Self| group.members.iter().copied().min().unwrap_or(all.len());
        grains(other).total_cmp(&grains(self)).then_with(|| heaviest(self).cmp(&heaviest(other)))
    }

    /// The member that speaks for the group: the weighted median of numbers, else the heaviest.
    fn spokesman<'m, 'a>(&self, all: &'m [Member<'a>]) -> Option<&'m Member<'a>> {
        let mut numbers: Vec<(f64, &Member<'_>)> = Vec::new();
        let members = || self.members.iter().filter_map(|at| all.get(*at));
        for member in members() {
            match &member.normal {
                Some(NormalForm::Number(x)) => numbers.push((*x, member)),
                Some(NormalForm::Clear(_) | NormalForm::Hashed(_)) | None => return members().next(),
            }
        }
        // Stable: of equal numbers the heaviest member stays first.
        numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
        // A model that is trusted less than chance has no say in where the middle is.
        let weight = |m: &Member<'_>| m.weight.max(f64::MIN_POSITIVE);
        let half: f64 = numbers.iter().map(|(_, m)| weight(m)).sum::<f64>() / 2.0;
        let mut below = 0.0;
        let median = numbers.iter().find(|(_, m)| {
            below += weight(m);
            below >= half
        });
        let (value, _) = median.or(numbers.last())?;
        // Among those who gave exactly this number the heaviest speaks.
        numbers.iter().find(|(x, _)| x.total_cmp(value).is_eq()).map(|(_, m)| *m)
    }
}

/// Groups of equal answers. Numbers first form the heaviest group in which any two are equal, then
/// the heaviest of what is left, and so on: equality within a tolerance is not transitive.
fn groups(all: &[Member<'_>], tolerance: f64) -> Vec<Group> {
    let mut numbers: Vec<(f64, usize)> = Vec::new();
    let mut clear: Vec<(&NormalForm, Vec<usize>)> = Vec::new();
    for (at, member) in all.iter().enumerate() {
        match &member.normal {
            Some(NormalForm::Number(x)) => numbers.push((*x, at)),
            Some(form @ (NormalForm::Clear(_) | NormalForm::Hashed(_))) => {
                match clear.iter_mut().find(|(other, _)| *other == form) {
                    Some((_, group)) => group.push(at),
                    None => clear.push((form, vec![at])),
                }
            }
            None => {}
        }
    }
    numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut groups: Vec<Group> = clear.into_iter().map(|(_, members)| Group::new(members, all)).collect();
    while !numbers.is_empty() {
        let windows = numbers.iter().enumerate().map(|(from, (lowest, _))| {
            let equal = numbers.iter().skip(from).take_while(|(x, _)| numbers_same(*lowest, *x, tolerance));
            Group::new(equal.map(|(_, at)| *at).collect(), all)
        });
        let Some(heaviest) = windows.min_by(|a, b| a.most_probable_first(b, all)) else { break };
        numbers.retain(|(_, at)| !heaviest.members.contains(at));
        groups.push(heaviest);
    }
    groups
}

/// The posterior probability of a group's answer.
fn share(winner: &Group, groups: &[Group], answers: f64) -> f64 {
    let unseen = (at_least_two(answers) - groups.len() as f64).max(0.0);
    // Scores relative to the largest exponent, so that none overflows.
    let top = groups.iter().map(|g| g.score).fold(0.0, f64::max);
    let seen: f64 = groups.iter().map(|g| (g.score - top).exp()).sum();
    (winner.score - top).exp() / (seen + unseen * (-top).exp())
}

/// Nobody voted: the heaviest of those that replied without any text, as recorded rows do.
fn without_votes(members: &[Member<'_>], rules: &MergeRules<'_>) -> Result<Answer, MergeError> {
    let silent = members.iter().position(|m| m.outcome.replied && m.outcome.text.is_none());
    let heaviest = silent.ok_or(MergeError::NoUsableAnswer)?;
    let confidence = members.get(heaviest).map_or(0.0, |m| clipped(m.quality));
    Ok(answer(members, confidence, rules, |at| at == heaviest))
}

/// An answer without a value yet.
fn answer(
    members: &[Member<'_>],
    confidence: f64,
    rules: &MergeRules<'_>,
    agrees: impl Fn(usize) -> bool,
) -> Answer {
    let contribution = |(at, m): (usize, &Member<'_>)| Contribution {
        model: m.outcome.model.clone(),
        weight: m.weight,
        quality: m.quality,
        normal: m.normal.clone(),
        agrees: agrees(at),
    };
    Answer {
        value: None,
        normal: None,
        confidence,
        calibrated: false,
        below_threshold: rules.quality_threshold.is_some_and(|threshold| confidence < threshold),
        contributions: members.iter().enumerate().map(contribution).collect(),
    }
}

#[cfg(test)]
mod tests;
