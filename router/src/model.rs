//! Models and the pool of those that are registered.
//!
//! A [`Pool`] is an immutable snapshot: a request pins one at admission and sees the same models to
//! its end, while registering and removing replace the snapshot for later requests. What changes
//! while a model serves (its circuit breaker) sits behind an `Arc` that every snapshot shares.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::breaker::Breaker;
use crate::ids::ModelName;
use crate::money::{NanoUsd, Price};

/// How the cost of a call is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pricing {
    /// By a price card: tokens times price.
    PerToken(Price),
    /// The backend reports each call's cost, never more than this (recorded outcomes).
    Metered {
        /// The most that one call costs.
        max_per_call: NanoUsd,
    },
}

/// What is known of a model before it is called.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCard {
    /// The name under which it is registered.
    pub name: ModelName,
    /// The configured backend that serves it.
    pub backend: Arc<str>,
    /// The provider's own name of it.
    pub upstream: Arc<str>,
    /// How its cost is known.
    pub pricing: Pricing,
    /// Tokens that fit into a request and its reply together.
    pub context_tokens_max: u32,
    /// Cap on the output where the request gives none.
    pub output_tokens_max: u32,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// The family it belongs to: a model never judges its own.
    pub family: Option<String>,
}

/// Tokens that the message format adds around each message, at most.
const MESSAGE_OVERHEAD_TOKENS: u64 = 16;

impl ModelCard {
    /// The most that one attempt can cost: every byte a token, the output up to its cap.
    #[must_use]
    pub fn worst_case(&self, prompt_bytes: usize, messages: usize, output_tokens_max: Option<u32>) -> NanoUsd {
        match &self.pricing {
            Pricing::PerToken(price) => price
                .cost(Self::tokens_in_max(prompt_bytes, messages), u64::from(self.output_cap(output_tokens_max)))
                .unwrap_or(NanoUsd::MAX),
            Pricing::Metered { max_per_call } => *max_per_call,
        }
    }

    /// The most tokens that an input can have: one a byte and the format's own around each message
    /// and the system text.
    #[must_use]
    pub fn tokens_in_max(prompt_bytes: usize, messages: usize) -> u64 {
        (prompt_bytes as u64).saturating_add(MESSAGE_OVERHEAD_TOKENS.saturating_mul(messages as u64 + 2))
    }

    /// The output cap of a call: the smaller of the request's and the model's own.
    #[must_use]
    pub fn output_cap(&self, asked: Option<u32>) -> u32 {
        asked.map_or(self.output_tokens_max, |asked| asked.min(self.output_tokens_max))
    }
}

/// Whether a registered model can be called at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It can.
    Available,
    /// An operator switched it off.
    Disabled,
    /// It cannot, for example because its key is missing.
    Unavailable {
        /// Why, and what would mend it; without secrets.
        reason: String,
    },
}

/// A registered model.
#[derive(Debug, Clone)]
pub struct Model {
    /// What is known of it.
    pub card: Arc<ModelCard>,
    /// The adapter that calls it.
    pub backend: Arc<dyn Backend>,
    /// Keeps calls away while it fails; shared by every snapshot of the pool.
    pub breaker: Arc<Breaker>,
    /// Whether it can be called at all.
    pub availability: Availability,
}

impl Model {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ModelName {
        &self.card.name
    }
}

/// The models registered at one moment, at most [`Pool::MODELS_MAX`].
#[derive(Debug, Clone, Default)]
pub struct Pool {
    models: Vec<Model>,
}

impl Pool {
    /// More models than this are refused at registration.
    pub const MODELS_MAX: usize = 256;

    /// A pool of these models, ordered by name so that equal pools decide alike. Of two models with
    /// one name the first stays; registries refuse such pools before.
    #[must_use]
    pub fn new(mut models: Vec<Model>) -> Self {
        models.sort_by(|a, b| a.card.name.cmp(&b.card.name));
        models.dedup_by(|a, b| a.card.name == b.card.name);
        Self { models }
    }

    /// All models, by name.
    #[must_use]
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The model of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Model> {
        let at = self.models.binary_search_by(|m| m.card.name.as_str().cmp(name)).ok()?;
        self.models.get(at)
    }
}

/// Where the pipeline takes its pool from; each request pins what it got.
pub trait PoolSource: Send + Sync + std::fmt::Debug {
    /// The pool of this moment.
    fn pool(&self) -> Arc<Pool>;
}
