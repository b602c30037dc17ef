//! What the tests of the backends share.

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::backend::Call;
use pointsman_router::clock::{Draw, Timestamp};
use pointsman_router::ids::AttemptId;
use pointsman_router::request::{Message, Prompt, Role};

/// A prompt of one user message.
pub(super) fn prompt(text: &str, caller_ref: Option<&str>) -> Prompt {
    Prompt {
        system: String::new(),
        messages: vec![Message { role: Role::User, content: text.to_owned() }],
        temperature: None,
        stop: Vec::new(),
        schema: None,
        caller_ref: caller_ref.map(str::to_owned),
    }
}

/// A call of one model with one user message.
pub(super) fn call(upstream: &str, text: &str, caller_ref: Option<&str>) -> Call {
    call_of(upstream, prompt(text, caller_ref))
}

/// A call of one model.
pub(super) fn call_of(upstream: &str, prompt: Prompt) -> Call {
    Call {
        attempt: AttemptId::new(Timestamp::from_micros(0), &mut Draw::from_seed(1)),
        upstream: Arc::from(upstream),
        prompt: Arc::new(prompt),
        output_tokens_max: 64,
        timeout: Duration::from_secs(10),
    }
}
