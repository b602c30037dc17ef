//! The backend of a simulated world: models without a key and without a network.
//!
//! It behaves like a provider: it takes time, costs money by a price card, fails now and then. What a
//! model says of a row is decided by the world's seed, the row and the model alone, so the daemon, a
//! workload file and a replay of it agree to the letter, and a second attempt fails like the first.

mod workload;
mod world;

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pointsman_router::backend::{Backend, Call, CallError, Reply};
use pointsman_router::model::ModelCard;

pub use workload::{WorkloadError, write_workload};
pub use world::{RowKey, Said, World, WorldError, WorldRow};

/// Answers as the models of a world do.
#[derive(Debug)]
pub struct SimulatedBackend {
    world: Arc<World>,
    latency_scale: f64,
}

impl SimulatedBackend {
    /// The models of this world. `latency_scale` is how many real seconds a simulated one takes: zero
    /// answers at once and only reports the latency.
    #[must_use]
    pub fn new(world: Arc<World>, latency_scale: f64) -> Self {
        Self { world, latency_scale }
    }

    /// A card for each model of the world, registered under its own name on the backend of this name.
    #[must_use]
    pub fn cards(&self, backend: &str) -> Vec<ModelCard> {
        self.world.cards(backend)
    }

    async fn answer(&self, call: Call) -> Result<Reply, CallError> {
        let prompt = &call.prompt;
        let key = self.world.key(prompt);
        let Some(said) = self.world.says(&call.upstream, &key, prompt.bytes()) else {
            return Err(CallError::Refused { detail: format!("the world has no model {}", call.upstream) });
        };
        if self.latency_scale > 0.0 {
            // A provider's own time, not a wait of ours: the time limit of the attempt runs meanwhile.
            tokio::time::sleep(said.latency.mul_f64(self.latency_scale)).await;
        }
        if said.latency > call.timeout {
            return Err(CallError::TimedOut { limit: call.timeout });
        }
        let Some(label) = said.label else {
            return Err(CallError::Unavailable { detail: "simulated failure".to_owned(), billable: false });
        };
        let cap = u64::from(call.output_tokens_max);
        Ok(Reply {
            text: Some(label),
            tokens_in: Some(said.tokens_in),
            tokens_out: Some(said.tokens_out.min(cap)),
            truncated: said.tokens_out > cap,
            latency: Some(said.latency),
            ..Reply::default()
        })
    }
}

impl Backend for SimulatedBackend {
    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
        self.answer(call).boxed()
    }
}

#[cfg(test)]
mod tests;
