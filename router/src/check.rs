//! Check: what arrived becomes a [`Request`] in which every limit holds, or every fault at once.
//!
//! Nothing behind this stage looks at a limit of the request again, so a new field of
//! [`RouteRequest`] is not done until it is checked here. Faults name the field by its path on the
//! wire, say what is wrong and what would mend it. They never quote a prompt or an answer, only short
//! names (models, labels, tag keys), cut; and they stop at [`FAULTS_MAX`], since they travel in the
//! trailers of a reply, which have a limit of their own.
//!
//! Edge cases: white space alone is an empty prompt; an empty task type, pattern, schema or
//! reference counts as not given; the kind defaults to text, but to label where labels are given;
//! labels that differ only in what the normal form drops are duplicates.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::ids::{ModelName, TaskType};
use crate::model::Pool;
use crate::money::NanoUsd;
use crate::normal::label_form;
use crate::request::{AnswerKind, KindName, Message, NUMBER_TOLERANCE, Prompt, Request, Role, RouteRequest};
use crate::settings::{CALLS_LIMIT, Settings};

/// No more faults than this are named.
pub const FAULTS_MAX: usize = 32;
/// Most allowed labels.
pub const LABELS_MAX: usize = 1_000;
/// Most tags.
pub const TAGS_MAX: usize = 32;
const TAG_KEY_BYTES_MAX: usize = 64;
const TAG_VALUE_BYTES_MAX: usize = 256;
const TASK_TYPE_BYTES_MAX: usize = 64;
const CALLER_REF_BYTES_MAX: usize = 256;
const PATTERN_BYTES_MAX: usize = 4_096;
/// Memory of a compiled pattern.
const PATTERN_SIZE_MAX_BYTES: usize = 1 << 20;
const STOPS_MAX: usize = 4;
const STOP_BYTES_MAX: usize = 256;
/// How much of a caller's own text a fault repeats.
const QUOTED_CHARS_MAX: usize = 64;

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is needed and empty.
    #[error("is empty, give a value")]
    Missing,
    /// It excludes another field.
    #[error("excludes {other}, give only one of them")]
    Conflict {
        /// The other field.
        other: Cow<'static, str>,
    },
    /// There is more of it than is allowed.
    #[error("has {found} {unit}, give at most {max}")]
    TooMuch {
        /// How much there is.
        found: usize,
        /// How much is allowed.
        max: usize,
        /// Of what.
        unit: &'static str,
    },
    /// Its value is outside the range.
    #[error("is out of range, give {expected}")]
    OutOfRange {
        /// What is in range.
        expected: Cow<'static, str>,
    },
    /// It names a model that is not registered.
    #[error("names the unknown model `{name}`, give a registered one")]
    UnknownModel {
        /// The name.
        name: String,
    },
    /// It equals another one in normal form.
    #[error("is the same answer as {other}, remove one of them")]
    Duplicate {
        /// The other field.
        other: String,
    },
    /// It goes only with another kind of answer.
    #[error("goes only with answer_kind {kind}, change the kind or leave it out")]
    OnlyWith {
        /// That kind.
        kind: &'static str,
    },
    /// It cannot be read.
    #[error("{detail}")]
    Malformed {
        /// Why, and what would mend it.
        detail: Cow<'static, str>,
    },
}

impl Problem {
    /// A field that cannot be read: why, and what would mend it.
    #[must_use]
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed { detail: detail.into() }
    }

    /// A value outside its range, which reads after "give".
    #[must_use]
    pub fn out_of_range(expected: impl Into<Cow<'static, str>>) -> Self {
        Self::OutOfRange { expected: expected.into() }
    }
}

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The path of the field on the wire, such as `request.embedding[3]`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

impl Fault {
    /// A fault of the field with this path.
    #[must_use]
    pub fn new(field: impl Into<String>, problem: Problem) -> Self {
        Self { field: field.into(), problem }
    }

    /// What is wrong and what would mend it, without the field's name.
    #[must_use]
    pub fn description(&self) -> String {
        self.problem.to_string()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.problem)
    }
}

/// Something that arrived with faults, all of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", joined(faults))]
pub struct BadRequest {
    /// The faults, in the order of the fields; never empty.
    pub faults: Vec<Fault>,
}

impl BadRequest {
    /// One fault.
    #[must_use]
    pub fn of(field: impl Into<String>, problem: Problem) -> Self {
        Self { faults: vec![Fault::new(field, problem)] }
    }
}

fn joined(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Makes a checked request of what arrived.
///
/// # Errors
/// [`BadRequest`] naming every fault, up to [`FAULTS_MAX`].
pub fn check(raw: RouteRequest, settings: &Settings, pool: &Pool) -> Result<Request, BadRequest> {
    let mut faults = Faults::default();
    let kind = answer_kind(&raw, &mut faults);
    check_size(&raw, settings, &mut faults);
    check_numbers(&raw, &mut faults);
    check_texts(&raw, &mut faults);
    check_embedding(&raw.embedding, settings, &mut faults);
    check_models(&raw, pool, &mut faults);
    let answer_pattern = pattern(&raw.answer_pattern, &mut faults);
    let max_cost = money("max_cost_usd_micros", raw.max_cost_usd_micros, 0, &mut faults);
    let answer_value = money("answer_value_usd_micros", raw.answer_value_usd_micros, 1, &mut faults);
    let messages = messages(raw.prompt, raw.messages, &mut faults);
    if !faults.0.is_empty() {
        return Err(BadRequest { faults: faults.0 });
    }
    let schema = match &kind {
        AnswerKind::Json { schema } => schema.clone(),
        AnswerKind::Label { .. } | AnswerKind::Number { .. } | AnswerKind::Text => None,
    };
    let models = |names: Vec<String>| names.into_iter().map(ModelName::from).collect();
    Ok(Request {
        prompt: Arc::new(Prompt {
            system: raw.system,
            messages,
            temperature: raw.temperature,
            stop: raw.stop,
            schema,
            caller_ref: given(raw.caller_ref),
        }),
        kind,
        answer_pattern,
        task_type: given(raw.task_type).map(TaskType::from),
        tags: raw.tags,
        embedding: raw.embedding,
        max_cost,
        answer_value,
        output_tokens_max: raw.output_tokens_max,
        quality_threshold: raw.quality_threshold,
        calls_max: raw.calls_max,
        models_allowed: models(raw.models_allowed),
        models_denied: models(raw.models_denied),
        key: raw.key,
        deadline: raw.deadline,
    })
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// The faults found so far; fields are given without the leading `request.`.
#[derive(Debug, Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, field: impl fmt::Display, problem: Problem) {
        if self.0.len() < FAULTS_MAX {
            self.0.push(Fault::new(format!("request.{field}"), problem));
        }
    }

    /// Adds a fault unless the value is good.
    fn unless(&mut self, good: bool, field: impl fmt::Display, problem: impl FnOnce() -> Problem) {
        if !good {
            self.add(field, problem());
        }
    }

    fn at_most(&mut self, found: usize, max: usize, unit: &'static str, field: impl fmt::Display) {
        self.unless(found <= max, field, || Problem::TooMuch { found, max, unit });
    }
}

fn messages(prompt: String, messages: Vec<Message>, faults: &mut Faults) -> Vec<Message> {
    if messages.is_empty() {
        faults.unless(!prompt.trim().is_empty(), "prompt", || Problem::Missing);
        return vec![Message { role: Role::User, content: prompt }];
    }
    faults.unless(prompt.is_empty(), "prompt", || Problem::Conflict { other: "request.messages".into() });
    for (i, message) in messages.iter().enumerate() {
        faults.unless(!message.content.trim().is_empty(), format_args!("messages[{i}].text"), || Problem::Missing);
    }
    if let Some(last) = messages.last()
        && last.role != Role::User
    {
        let role = format!("messages[{}].role", messages.len() - 1);
        faults.add(role, Problem::out_of_range("ROLE_USER for the last message"));
    }
    messages
}

fn check_size(raw: &RouteRequest, settings: &Settings, faults: &mut Faults) {
    let messages: usize = raw.messages.iter().map(|m| m.content.len()).sum();
    let found = raw.prompt.len() + messages + raw.system.len() + raw.json_schema.len();
    let field = if raw.messages.is_empty() { "prompt" } else { "messages" };
    faults.at_most(found, settings.prompt_bytes_max, "bytes with system text and schema", field);
}

fn answer_kind(raw: &RouteRequest, faults: &mut Faults) -> AnswerKind {
    let kind = match raw.kind {
        KindName::Unspecified if !raw.labels.is_empty() => KindName::Label,
        KindName::Unspecified => KindName::Text,
        named @ (KindName::Label | KindName::Number | KindName::Json | KindName::Text) => named,
    };
    let only_with = |kind| Problem::OnlyWith { kind };
    faults.unless(raw.labels.is_empty() || kind == KindName::Label, "labels", || only_with("LABEL"));
    let tolerance_fits = raw.number_tolerance.is_none() || kind == KindName::Number;
    faults.unless(tolerance_fits, "number_tolerance", || only_with("NUMBER"));
    let schema_fits = raw.json_schema.is_empty() || kind == KindName::Json;
    faults.unless(schema_fits, "json_schema", || only_with("JSON"));
    match kind {
        KindName::Label => {
            check_labels(&raw.labels, faults);
            AnswerKind::Label { allowed: raw.labels.clone() }
        }
        KindName::Number => {
            let tolerance = raw.number_tolerance.unwrap_or(NUMBER_TOLERANCE);
            faults.unless((0.0..1.0).contains(&tolerance), "number_tolerance", || {
                Problem::out_of_range("at least 0 and less than 1")
            });
            AnswerKind::Number { tolerance }
        }
        KindName::Json => AnswerKind::Json { schema: schema(&raw.json_schema, faults) },
        KindName::Text | KindName::Unspecified => AnswerKind::Text,
    }
}

fn check_labels(labels: &[String], faults: &mut Faults) {
    faults.at_most(labels.len(), LABELS_MAX, "labels", "labels");
    let mut seen = BTreeMap::new();
    for (i, label) in labels.iter().enumerate().take(LABELS_MAX) {
        match label_form(label) {
            None => faults.add(format_args!("labels[{i}]"), Problem::Missing),
            Some(form) => {
                let first = *seen.entry(form).or_insert(i);
                faults.unless(first == i, format_args!("labels[{i}]"), || Problem::Duplicate {
                    other: format!("request.labels[{first}]"),
                });
            }
        }
    }
}

fn schema(text: &str, faults: &mut Faults) -> Option<Arc<Value>> {
    if text.is_empty() {
        return None;
    }
    match serde_json::from_str::<Value>(text) {
        Ok(schema) if schema.is_object() => Some(Arc::new(schema)),
        Ok(_) => {
            faults.add("json_schema", Problem::malformed("is no JSON object, give a JSON Schema as an object"));
            None
        }
        Err(error) => {
            let detail = format!("is not JSON at line {}, column {}", error.line(), error.column());
            faults.add("json_schema", Problem::malformed(detail));
            None
        }
    }
}

fn pattern(text: &str, faults: &mut Faults) -> Option<Regex> {
    const FIELD: &str = "answer_pattern";
    if text.is_empty() {
        return None;
    }
    if text.len() > PATTERN_BYTES_MAX {
        faults.at_most(text.len(), PATTERN_BYTES_MAX, "bytes", FIELD);
        return None;
    }
    match RegexBuilder::new(text).size_limit(PATTERN_SIZE_MAX_BYTES).build() {
        // The whole match counts as the first group.
        Ok(pattern) if pattern.captures_len() == 2 => Some(pattern),
        Ok(pattern) => {
            let groups = pattern.captures_len() - 1;
            let detail = format!("has {groups} groups, give exactly one; `(?:...)` groups without capturing");
            faults.add(FIELD, Problem::malformed(detail));
            None
        }
        Err(error) => {
            // The regex crate draws a picture first and says what is wrong in the last line.
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            faults.add(FIELD, Problem::malformed(format!("is no regular expression: {why}")));
            None
        }
    }
}

fn check_numbers(raw: &RouteRequest, faults: &mut Faults) {
    let out = |expected: &'static str| Problem::out_of_range(expected);
    faults.unless(raw.output_tokens_max != Some(0), "output_tokens_max", || out("at least 1"));
    let threshold = raw.quality_threshold.is_none_or(|q| q > 0.0 && q <= 1.0);
    faults.unless(threshold, "quality_threshold", || out("more than 0 and at most 1"));
    let calls = raw.calls_max.is_none_or(|calls| (1..=CALLS_LIMIT).contains(&calls));
    faults.unless(calls, "calls_max", || Problem::out_of_range(format!("1 to {CALLS_LIMIT}")));
    let temperature = raw.temperature.is_none_or(|t| (0.0..=2.0).contains(&t));
    faults.unless(temperature, "temperature", || out("0 to 2"));
    let deadline = raw.deadline.is_none_or(|left| !left.is_zero());
    faults.unless(deadline, "deadline", || out("a gRPC deadline that has not passed"));
}

/// An amount in micro-dollars, at least `min`.
fn money(field: &'static str, micros: Option<i64>, min: i64, faults: &mut Faults) -> Option<NanoUsd> {
    let micros = micros?;
    let amount = NanoUsd::from_micros(micros).filter(|_| micros >= min);
    faults.unless(amount.is_some(), field, || {
        let max = NanoUsd::MAX.nanos() / 1_000;
        Problem::out_of_range(format!("{min} to {max}, or leave it out"))
    });
    amount
}

fn check_texts(raw: &RouteRequest, faults: &mut Faults) {
    faults.at_most(raw.task_type.len(), TASK_TYPE_BYTES_MAX, "bytes", "task_type");
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b);
    faults.unless(raw.task_type.bytes().all(is_plain), "task_type", || {
        Problem::out_of_range("lower-case letters a to z, digits, `_`, `.` and `-` only")
    });
    faults.at_most(raw.tags.len(), TAGS_MAX, "tags", "tags");
    for (key, value) in raw.tags.iter().take(TAGS_MAX) {
        let field = format!("tags[{}]", quoted(key));
        faults.unless(!key.is_empty(), &field, || Problem::malformed("has an empty key, give one"));
        faults.at_most(key.len(), TAG_KEY_BYTES_MAX, "bytes in its key", &field);
        faults.at_most(value.len(), TAG_VALUE_BYTES_MAX, "bytes", &field);
    }
    faults.at_most(raw.stop.len(), STOPS_MAX, "texts", "stop");
    for (i, stop) in raw.stop.iter().enumerate().take(STOPS_MAX) {
        faults.unless(!stop.is_empty(), format_args!("stop[{i}]"), || Problem::Missing);
        faults.at_most(stop.len(), STOP_BYTES_MAX, "bytes", format_args!("stop[{i}]"));
    }
    faults.at_most(raw.caller_ref.len(), CALLER_REF_BYTES_MAX, "bytes", "caller_ref");
}

fn check_embedding(embedding: &[f32], settings: &Settings, faults: &mut Faults) {
    faults.at_most(embedding.len(), settings.embedding_dims_max, "dimensions", "embedding");
    let mut all_finite = true;
    for (i, _) in embedding.iter().enumerate().filter(|(_, x)| !x.is_finite()) {
        all_finite = false;
        faults.add(format_args!("embedding[{i}]"), Problem::out_of_range("a finite number"));
        if faults.0.len() >= FAULTS_MAX {
            break;
        }
    }
    let is_zero = !embedding.is_empty() && embedding.iter().all(|x| x.abs() < f32::MIN_POSITIVE);
    faults.unless(!all_finite || !is_zero, "embedding", || Problem::out_of_range("at least one number but zeros"));
}

fn check_models(raw: &RouteRequest, pool: &Pool, faults: &mut Faults) {
    let denied: BTreeSet<&str> = raw.models_denied.iter().map(String::as_str).collect();
    for (list, names) in [("models_allowed", &raw.models_allowed), ("models_denied", &raw.models_denied)] {
        faults.at_most(names.len(), Pool::MODELS_MAX, "names", list);
        for (i, name) in names.iter().enumerate().take(Pool::MODELS_MAX) {
            faults.unless(pool.get(name).is_some(), format_args!("{list}[{i}]"), || Problem::UnknownModel {
                name: quoted(name),
            });
        }
    }
    for (i, name) in raw.models_allowed.iter().enumerate().filter(|(_, name)| denied.contains(name.as_str())) {
        faults.add(
            format_args!("models_allowed[{i}]"),
            Problem::Conflict { other: format!("`{}` in request.models_denied", quoted(name)).into() },
        );
    }
}

fn quoted(name: &str) -> String {
    name.chars().take(QUOTED_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
