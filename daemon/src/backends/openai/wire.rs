//! The chat-completions format: one request out, one reply or error in.
//!
//! A count that the provider sent as zero stays zero, and one that it did not send stays unknown: the
//! two cost differently. A reply without content (a refusal, a cut at the cap before the first word)
//! is an empty text and not an error, because its tokens are billed and must be settled.

use pointsman_router::backend::{Call, CallError, Reply};
use pointsman_router::request::Role;
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::{Map, Value, json};

use crate::config::{OpenaiConfig, OutputCapField};

/// The body of a request.
pub(super) fn request_body(call: &Call, config: &OpenaiConfig) -> Vec<u8> {
    let prompt = &call.prompt;
    let system = (!prompt.system.is_empty()).then(|| json!({"role": "system", "content": prompt.system}));
    let turns = prompt.messages.iter().map(|message| {
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        json!({"role": role, "content": message.content})
    });
    let cap_field = match config.output_cap_field {
        OutputCapField::MaxTokens => "max_tokens",
        OutputCapField::MaxCompletionTokens => "max_completion_tokens",
    };
    let mut body = Map::new();
    body.insert("model".to_owned(), Value::from(call.upstream.as_ref()));
    body.insert("messages".to_owned(), system.into_iter().chain(turns).collect());
    body.insert(cap_field.to_owned(), Value::from(call.output_tokens_max));
    body.insert("stream".to_owned(), Value::Bool(false));
    if let Some(temperature) = prompt.temperature {
        body.insert("temperature".to_owned(), Value::from(temperature));
    }
    if !prompt.stop.is_empty() {
        body.insert("stop".to_owned(), prompt.stop.iter().map(String::as_str).collect());
    }
    if let Some(schema) = prompt.schema.as_ref().filter(|_| config.json_schema) {
        let format = json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema.as_ref()}});
        body.insert("response_format".to_owned(), format);
    }
    Value::Object(body).to_string().into_bytes()
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Turn,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Turn {
    #[serde(default)]
    content: Option<Content>,
}

/// Most providers send a text; some send parts, of which the texts count.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

/// Reads the reply of a successful call.
pub(super) fn read_reply(body: &[u8]) -> Result<Reply, CallError> {
    let malformed = |detail: String| CallError::Malformed { detail };
    let completion: Completion = serde_json::from_slice(body).map_err(|error| malformed(place(&error)))?;
    let first = completion.choices.into_iter().next();
    let choice = first.ok_or_else(|| malformed("it has no choice".to_owned()))?;
    let text = match choice.message.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => {
            parts.into_iter().filter(|part| part.kind == "text").filter_map(|part| part.text).collect()
        }
        None => String::new(),
    };
    let usage = completion.usage.as_ref();
    Ok(Reply {
        text: Some(text),
        tokens_in: usage.and_then(|usage| usage.prompt_tokens),
        tokens_out: usage.and_then(|usage| usage.completion_tokens),
        truncated: choice.finish_reason.as_deref() == Some("length"),
        ..Reply::default()
    })
}

/// Where a reply stops being one. The parser's own text quotes what stands there, which may be an answer or the
/// key.
fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Data => "is no chat completion",
        Category::Eof => "ends too early",
        Category::Syntax | Category::Io => "is no JSON",
    };
    format!("it {what} at line {} column {}", error.line(), error.column())
}

/// What an error's body says: its message where it has the usual form, otherwise its text.
pub(super) fn error_text(body: &[u8]) -> String {
    let message = serde_json::from_slice::<Value>(body).ok().and_then(|value| {
        let error = value.get("error").unwrap_or(&value);
        let message = error.get("message").or(Some(error)).and_then(Value::as_str);
        message.map(str::to_owned)
    });
    message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}
