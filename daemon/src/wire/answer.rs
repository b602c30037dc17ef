//! Merged answers and normal forms on the wire.
//!
//! Two forms, for two readers: a reply tells its caller the answer and the dissent in clear
//! ([`to_reply`]); a trace keeps normal forms as the store may hold them ([`to_stored`]), where
//! everything but short labels and numbers is a keyed hash, so that `expected` feedback can still be
//! judged and no text can be read back.

use std::collections::BTreeMap;

use pointsman_proto::v1;
use pointsman_router::answer::{Answer, Contribution};
use pointsman_router::normal::NormalForm;
use pointsman_router::request::KindName;

use super::WireError;
use super::request::kind_to_wire;

/// The answer as a reply carries it.
#[must_use]
pub fn to_reply(answer: &Answer, kind: KindName) -> v1::Answer {
    v1::Answer {
        value: answer.value.clone().unwrap_or_default(),
        kind: kind_to_wire(kind).into(),
        confidence: answer.confidence,
        calibrated: answer.calibrated,
        below_threshold: answer.below_threshold,
        contributions: answer.contributions.iter().map(|c| contribution_to_wire(c, None)).collect(),
        dissent: dissent(answer),
    }
}

/// The answers that did not win, each once, heaviest first.
fn dissent(answer: &Answer) -> Vec<v1::Dissent> {
    let mut groups: BTreeMap<String, v1::Dissent> = BTreeMap::new();
    for contribution in answer.contributions.iter().filter(|c| !c.agrees) {
        let Some(value) = contribution.normal.as_ref().and_then(shown) else { continue };
        let group = groups.entry(value.clone()).or_default();
        group.value = value;
        group.models.push(contribution.model.as_str().to_owned());
        group.weight += contribution.weight;
    }
    let mut dissent: Vec<v1::Dissent> = groups.into_values().collect();
    dissent.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    dissent
}

/// A normal form for people; nothing for a hash.
fn shown(normal: &NormalForm) -> Option<String> {
    match normal {
        NormalForm::Clear(text) => Some(text.clone()),
        NormalForm::Number(number) => Some(number.to_string()),
        NormalForm::Hashed(_) => None,
    }
}

/// The answer as a trace keeps it. `stored` turns a normal form into what the store may hold.
#[must_use]
pub fn to_stored(answer: &Answer, stored: impl Fn(&NormalForm) -> NormalForm) -> v1::MergedAnswer {
    let normal = |form: &NormalForm| normal_to_wire(&stored(form));
    v1::MergedAnswer {
        value: answer.normal.as_ref().map(normal),
        confidence: answer.confidence,
        calibrated: answer.calibrated,
        below_threshold: answer.below_threshold,
        contributions: answer
            .contributions
            .iter()
            .map(|c| contribution_to_wire(c, c.normal.as_ref().map(normal)))
            .collect(),
    }
}

/// The answer that a trace kept, with its value where content was kept.
///
/// # Errors
/// [`WireError`] when it is not what [`to_stored`] makes.
pub fn from_stored(answer: v1::MergedAnswer, value: Option<String>) -> Result<Answer, WireError> {
    Ok(Answer {
        value,
        normal: answer.value.map(normal_from_wire).transpose()?,
        confidence: answer.confidence,
        calibrated: answer.calibrated,
        below_threshold: answer.below_threshold,
        contributions: answer.contributions.into_iter().map(contribution_from_wire).collect::<Result<_, _>>()?,
    })
}

fn contribution_to_wire(contribution: &Contribution, normal: Option<v1::NormalAnswer>) -> v1::Contribution {
    v1::Contribution {
        model: contribution.model.as_str().to_owned(),
        weight: contribution.weight,
        agrees: contribution.agrees,
        quality: contribution.quality,
        normal,
    }
}

fn contribution_from_wire(contribution: v1::Contribution) -> Result<Contribution, WireError> {
    Ok(Contribution {
        model: contribution.model.into(),
        weight: contribution.weight,
        quality: contribution.quality,
        normal: contribution.normal.map(normal_from_wire).transpose()?,
        agrees: contribution.agrees,
    })
}

/// A normal form as the wire carries it.
#[must_use]
pub fn normal_to_wire(normal: &NormalForm) -> v1::NormalAnswer {
    use v1::normal_answer::Form;
    let form = match normal {
        NormalForm::Clear(text) => Form::Clear(text.clone()),
        NormalForm::Number(number) => Form::Number(*number),
        NormalForm::Hashed(hash) => Form::KeyedHash(hash.to_be_bytes().to_vec()),
    };
    v1::NormalAnswer { form: Some(form) }
}

/// A normal form as the core knows it.
///
/// # Errors
/// [`WireError`] when no form is set, or the hash has another length than sixteen bytes.
pub fn normal_from_wire(normal: v1::NormalAnswer) -> Result<NormalForm, WireError> {
    use v1::normal_answer::Form;
    match super::required(normal.form, "normal.form")? {
        Form::Clear(text) => Ok(NormalForm::Clear(text)),
        Form::Number(number) => Ok(NormalForm::Number(number)),
        Form::KeyedHash(bytes) => {
            let value = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
            let hash = bytes.try_into().map_err(|_| WireError::Value { field: "normal.keyed_hash", value })?;
            Ok(NormalForm::Hashed(u128::from_be_bytes(hash)))
        }
    }
}
