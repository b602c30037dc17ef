//! What a caller sent, as the core's raw request; and prompts, where content is kept.
//!
//! Nothing is checked here: the core's check sees every field as it arrived and names all faults at
//! once. A negative count or an unknown enum value must therefore survive as something that the
//! check refuses, or as "not given" where the wire says so.

use std::sync::Arc;
use std::time::Duration;

use pointsman_proto::v1;
use pointsman_router::request::{KindName, Message, Prompt, Role, RouteRequest};

use super::WireError;

/// The request as the core takes it in.
#[must_use]
pub fn from_wire(spec: v1::RequestSpec, deadline: Option<Duration>) -> RouteRequest {
    let kind = kind_from_wire(spec.answer_kind());
    RouteRequest {
        prompt: spec.prompt,
        messages: spec.messages.into_iter().map(message_from_wire).collect(),
        system: spec.system,
        kind,
        labels: spec.labels,
        number_tolerance: spec.number_tolerance,
        answer_pattern: spec.answer_pattern,
        json_schema: spec.json_schema,
        task_type: spec.task_type.unwrap_or_default(),
        tags: spec.tags,
        embedding: spec.embedding,
        max_cost_usd_micros: spec.max_cost_usd_micros,
        answer_value_usd_micros: spec.answer_value_usd_micros,
        output_tokens_max: spec.output_tokens_max,
        quality_threshold: spec.quality_threshold,
        calls_max: spec.calls_max,
        temperature: spec.temperature,
        stop: spec.stop,
        models_allowed: spec.models_allowed,
        models_denied: spec.models_denied,
        caller_ref: spec.caller_ref,
        key: None,
        deadline,
    }
}

fn message_from_wire(message: v1::ChatMessage) -> Message {
    // A role that was not given reads as the person's: the check of roles is one of the fields.
    let role = match message.role() {
        v1::Role::Assistant => Role::Assistant,
        v1::Role::User | v1::Role::Unspecified => Role::User,
    };
    Message { role, content: message.text }
}

/// The fields that the core's request cannot hold wrong, with what they may be: messages without a
/// known role, and a kind of answer that this build does not know.
#[must_use]
pub fn unknown_words(spec: &v1::RequestSpec) -> Vec<(String, &'static str)> {
    let without = |m: &v1::ChatMessage| m.role() == v1::Role::Unspecified;
    let faulty = spec.messages.iter().enumerate().filter(|(_, m)| without(m));
    let roles = faulty.map(|(at, _)| (format!("request.messages[{at}].role"), "ROLE_USER or ROLE_ASSISTANT"));
    let kind = v1::AnswerKind::try_from(spec.answer_kind).is_err();
    let kinds = "ANSWER_KIND_LABEL, ANSWER_KIND_NUMBER, ANSWER_KIND_JSON or ANSWER_KIND_TEXT";
    roles.chain(kind.then(|| ("request.answer_kind".to_owned(), kinds))).collect()
}

/// What was sent to the models, as a trace keeps it where content is kept.
#[must_use]
pub fn prompt_to_wire(prompt: &Prompt) -> v1::RequestSpec {
    let message = |m: &Message| v1::ChatMessage { role: role_to_wire(m.role).into(), text: m.content.clone() };
    v1::RequestSpec {
        messages: prompt.messages.iter().map(message).collect(),
        system: prompt.system.clone(),
        temperature: prompt.temperature,
        stop: prompt.stop.clone(),
        json_schema: prompt.schema.as_ref().map(|schema| schema.to_string()).unwrap_or_default(),
        caller_ref: prompt.caller_ref.clone().unwrap_or_default(),
        ..v1::RequestSpec::default()
    }
}

/// The prompt that a trace kept.
///
/// # Errors
/// [`WireError`] when its schema is not JSON.
pub fn prompt_from_wire(spec: v1::RequestSpec) -> Result<Prompt, WireError> {
    let schema = match spec.json_schema.as_str() {
        "" => None,
        text => Some(Arc::new(
            serde_json::from_str(text).map_err(|fault| WireError::Bytes { detail: fault.to_string() })?,
        )),
    };
    Ok(Prompt {
        system: spec.system,
        messages: spec.messages.into_iter().map(message_from_wire).collect(),
        temperature: spec.temperature,
        stop: spec.stop,
        schema,
        caller_ref: Some(spec.caller_ref).filter(|text| !text.is_empty()),
    })
}

fn role_to_wire(role: Role) -> v1::Role {
    match role {
        Role::User => v1::Role::User,
        Role::Assistant => v1::Role::Assistant,
    }
}

/// An answer kind as the wire names it.
#[must_use]
pub fn kind_to_wire(kind: KindName) -> v1::AnswerKind {
    match kind {
        KindName::Unspecified => v1::AnswerKind::Unspecified,
        KindName::Label => v1::AnswerKind::Label,
        KindName::Number => v1::AnswerKind::Number,
        KindName::Json => v1::AnswerKind::Json,
        KindName::Text => v1::AnswerKind::Text,
    }
}

/// An answer kind as the core names it.
#[must_use]
pub fn kind_from_wire(kind: v1::AnswerKind) -> KindName {
    match kind {
        v1::AnswerKind::Unspecified => KindName::Unspecified,
        v1::AnswerKind::Label => KindName::Label,
        v1::AnswerKind::Number => KindName::Number,
        v1::AnswerKind::Json => KindName::Json,
        v1::AnswerKind::Text => KindName::Text,
    }
}
