//! What a caller asks, before and after it was checked.
//!
//! [`RouteRequest`] is what arrived, field by field, believed by nobody. [`Request`] is what
//! [`crate::check`] made of it: every limit holds, patterns are compiled, amounts are money. Only a
//! [`Request`] enters the pipeline, so no later stage checks anything about it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use crate::ids::{KeyId, ModelName, TaskType};
use crate::money::NanoUsd;

/// The tag that names a request's tenant.
pub const TENANT_TAG: &str = "tenant";

/// Who said a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The person or program that asks. Only these messages become features.
    User,
    /// A model's earlier reply.
    Assistant,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// Which kind of answer the caller wants, as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KindName {
    /// Not said: taken as [`KindName::Text`].
    #[default]
    Unspecified,
    /// A label or short answer, voted by its normal form.
    Label,
    /// A number, voted by value within a tolerance.
    Number,
    /// A JSON document, voted by its canonical form.
    Json,
    /// Free text.
    Text,
}

/// A request as it arrived: unchecked.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "each field is documented where it is checked, in `Request`")]
pub struct RouteRequest {
    pub prompt: String,
    pub messages: Vec<Message>,
    pub system: String,
    pub kind: KindName,
    pub labels: Vec<String>,
    pub number_tolerance: Option<f64>,
    pub answer_pattern: String,
    pub json_schema: String,
    pub task_type: String,
    pub tags: BTreeMap<String, String>,
    pub embedding: Vec<f32>,
    pub max_cost_usd_micros: Option<i64>,
    pub answer_value_usd_micros: Option<i64>,
    pub output_tokens_max: Option<u32>,
    pub quality_threshold: Option<f64>,
    pub calls_max: Option<u32>,
    pub temperature: Option<f64>,
    pub stop: Vec<String>,
    pub models_allowed: Vec<String>,
    pub models_denied: Vec<String>,
    pub caller_ref: String,
    pub key: Option<KeyId>,
    pub deadline: Option<Duration>,
}

/// The relative difference up to which two numbers are equal where the caller gives none.
pub const NUMBER_TOLERANCE: f64 = 1e-6;

/// The kind of answer wanted, with what its vote needs.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerKind {
    /// A label or short answer. With `allowed` labels, an answer outside them casts no vote.
    Label {
        /// The labels allowed, in normal form beside the caller's spelling; empty: any.
        allowed: Vec<String>,
    },
    /// A number.
    Number {
        /// Relative difference up to which two numbers are equal; [`NUMBER_TOLERANCE`] when the caller gave none.
        tolerance: f64,
    },
    /// A JSON document.
    Json {
        /// The JSON schema that is sent to models that take one.
        schema: Option<Arc<serde_json::Value>>,
    },
    /// Free text.
    Text,
}

impl AnswerKind {
    /// The name without its settings.
    #[must_use]
    pub fn name(&self) -> KindName {
        match self {
            Self::Label { .. } => KindName::Label,
            Self::Number { .. } => KindName::Number,
            Self::Json { .. } => KindName::Json,
            Self::Text => KindName::Text,
        }
    }
}

/// What the models are sent: shared by all attempts of a request, never copied per model.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// The system text; empty for none.
    pub system: String,
    /// The conversation, at least one user message, none of them empty.
    pub messages: Vec<Message>,
    /// Sampling temperature in [0, 2], where the caller set one.
    pub temperature: Option<f64>,
    /// Texts at which a model stops, at most four.
    pub stop: Vec<String>,
    /// The JSON schema that the reply is to follow.
    pub schema: Option<Arc<serde_json::Value>>,
    /// The caller's own id of this request: stored, handed to backends, never a feature.
    pub caller_ref: Option<String>,
}

impl Prompt {
    /// UTF-8 bytes that will be sent: the bound of the input's tokens, since no tokenizer makes more
    /// tokens than bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let schema = self.schema.as_ref().map_or(0, |s| s.to_string().len());
        self.messages.iter().map(|m| m.content.len()).sum::<usize>() + self.system.len() + schema
    }
}

/// A checked request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the models are sent.
    pub prompt: Arc<Prompt>,
    /// The kind of answer wanted.
    pub kind: AnswerKind,
    /// Extracts the answer from a longer text by its one group.
    pub answer_pattern: Option<Regex>,
    /// The task type, where the caller named one.
    pub task_type: Option<TaskType>,
    /// The caller's tags: features, and keys of statistics.
    pub tags: BTreeMap<String, String>,
    /// The caller's own embedding of the request, all finite; empty for none.
    pub embedding: Vec<f32>,
    /// What this request may cost at most.
    pub max_cost: Option<NanoUsd>,
    /// What a right answer is worth to the caller; `None`: the daemon's default.
    pub answer_value: Option<NanoUsd>,
    /// Cap on each model's output, always sent upstream; `None`: the model's own cap.
    pub output_tokens_max: Option<u32>,
    /// Ends the growth of the subset once the predicted probability of being right reaches it.
    pub quality_threshold: Option<f64>,
    /// How many models may be called at most; `None`: the task type's default.
    pub calls_max: Option<u32>,
    /// Only these models may be called; empty: all.
    pub models_allowed: Vec<ModelName>,
    /// These models may not be called.
    pub models_denied: Vec<ModelName>,
    /// The key that the caller came with; `None` where the daemon asks for none.
    pub key: Option<KeyId>,
    /// How long the caller is going to wait.
    pub deadline: Option<Duration>,
}
