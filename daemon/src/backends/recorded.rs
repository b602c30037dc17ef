//! The backend that answers out of recorded outcomes.
//!
//! It finds the row by the request's `caller_ref` and never by the prompt, since prompts repeat. Each
//! call costs what was recorded; a cost that nobody recorded is nothing. A row that lacks the model is
//! not covered, so the model is not eligible there; a row without an answer still brings tokens and
//! cost, with no text to vote with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pointsman_router::backend::{Backend, Call, CallError, Reply};
use pointsman_router::ids::ModelName;
use pointsman_router::model::{ModelCard, Pricing};
use pointsman_router::money::NanoUsd;

use super::recorded_rows::{self, Rows};

/// Answers from rows.
#[derive(Debug)]
pub struct RecordedBackend {
    rows: Arc<Rows>,
    model_index: HashMap<String, usize>,
}

impl RecordedBackend {
    /// Answers from these rows.
    #[must_use]
    pub fn new(rows: Arc<Rows>) -> Self {
        let model_index = rows.models.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        Self { rows, model_index }
    }

    /// A card for each model of the rows, registered under its own name on the backend of this name.
    #[must_use]
    pub fn cards(&self, backend: &str) -> Vec<ModelCard> {
        let backend: Arc<str> = Arc::from(backend);
        let card = |(at, name): (usize, &String)| ModelCard {
            name: ModelName::new(name),
            backend: Arc::clone(&backend),
            upstream: Arc::from(name.as_str()),
            pricing: Pricing::Metered { max_per_call: self.rows.cost_max(at) },
            context_tokens_max: u32::MAX,
            output_tokens_max: OUTPUT_TOKENS_MAX,
            timeout: Duration::from_secs(60),
            family: None,
        };
        self.rows.models.iter().enumerate().map(card).collect()
    }

    fn find(&self, upstream: &str, caller_ref: Option<&str>) -> Option<&recorded_rows::Recorded> {
        let at = self.model_index.get(upstream)?;
        self.rows.by_id(caller_ref?)?.outcomes.get(*at)?.as_ref()
    }
}

/// Recorded replies are as long as they are; the card needs some cap.
const OUTPUT_TOKENS_MAX: u32 = 4_096;

impl Backend for RecordedBackend {
    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
        let found = self.find(&call.upstream, call.prompt.caller_ref.as_deref());
        let reply = found.map(|recorded| Reply {
            text: recorded.answer.clone(),
            tokens_out: recorded.tokens_out,
            cost: Some(recorded.cost.unwrap_or(NanoUsd::ZERO)),
            latency: Some(Duration::ZERO),
            ..Reply::default()
        });
        let reply = reply.ok_or_else(|| CallError::Refused {
            detail: format!("no recorded outcome of {}; send the row's id as caller_ref", call.upstream),
        });
        std::future::ready(reply).boxed()
    }

    fn covers(&self, upstream: &str, caller_ref: Option<&str>) -> bool {
        self.find(upstream, caller_ref).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::recorded_rows::Selection;
    use super::super::testing::call;
    use super::*;

    fn backend() -> RecordedBackend {
        let lines = r#"{"id":"1","prompt":"p","outcomes":{"a":{"score":1,"cost":0.001,"tokens_out":0,"answer":"A"}}}
            {"id":"2","prompt":"p","outcomes":{"a":{"score":1,"cost":0.003},"b":{"score":0}}}"#;
        RecordedBackend::new(Arc::new(Rows::read_from(lines.as_bytes(), &Selection::default()).unwrap()))
    }

    #[tokio::test]
    async fn it_answers_by_reference_with_the_recorded_cost() {
        let backend = backend();
        let reply = backend.generate(call("a", "p", Some("1"))).await.unwrap();
        assert_eq!((reply.text.as_deref(), reply.tokens_out), (Some("A"), Some(0)));
        assert_eq!(reply.cost, Some(NanoUsd::new(1_000_000)));
        let reply = backend.generate(call("b", "p", Some("2"))).await.unwrap();
        assert_eq!((reply.text, reply.cost), (None, Some(NanoUsd::ZERO)));
        assert!(matches!(backend.generate(call("b", "p", Some("1"))).await, Err(CallError::Refused { .. })));
    }

    #[test]
    fn it_covers_what_was_recorded() {
        let backend = backend();
        assert!(backend.covers("a", Some("1")) && backend.covers("b", Some("2")));
        for (model, row) in [("b", Some("1")), ("a", Some("3")), ("z", Some("1")), ("a", None)] {
            assert!(!backend.covers(model, row), "{model} {row:?}");
        }
    }

    #[test]
    fn cards_hold_the_dearest_call() {
        let cards = backend().cards("log");
        let limits: Vec<_> = cards.iter().map(|card| card.pricing).collect();
        let metered = |nanos| Pricing::Metered { max_per_call: NanoUsd::new(nanos) };
        assert_eq!(limits, [metered(3_000_000), metered(0)]);
    }
}
