//! The adapters through which models are called, one per `[[backend]]` of the configuration.
//!
//! [`load`] reads the configuration, opens what the backends need and ends the check: only now are the
//! models known that recorded and simulated backends bring along. A provider whose key is missing is
//! no fault: its models are listed as unavailable, and the daemon starts.
//!
//! A backend never retries, waits for no one and decides nothing; see the port,
//! [`pointsman_router::backend::Backend`].

pub mod openai;
pub mod recorded;
pub mod recorded_rows;
pub mod simulated;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pointsman_router::backend::{Backend, Call, CallError, Reply};
use pointsman_router::model::{ModelCard, Pool, Pricing};

use crate::config::{
    self, BackendConfig, BackendKind, Config, ConfigError, Environment, FaultKind, Faults, Flags, Key,
    OpenaiConfig, RecordedConfig, Registration, SimulatedConfig,
};
use crate::rates::Governed;
use openai::OpenaiBackend;
use recorded::RecordedBackend;
use recorded_rows::{Rows, Selection};
use simulated::{SimulatedBackend, World};

/// Output cap of a model whose card gives none.
const OUTPUT_TOKENS_MAX: u32 = 4_096;
/// Context of a model whose card gives none.
const CONTEXT_TOKENS_MAX: u32 = 128_000;
/// Time limit of a model whose card gives none.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A configured backend, ready to call.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its name.
    pub name: Arc<str>,
    /// Calls its models.
    pub adapter: Arc<dyn Backend>,
    /// Why none of its models can be called, where that is known beforehand; without secrets.
    pub unavailable: Option<String>,
    catalogue: Catalogue,
}

/// What a backend knows of its models.
#[derive(Debug, Clone)]
enum Catalogue {
    /// Nothing: any upstream name will do, and the price has to be given.
    Open,
    /// These are all that it serves.
    Closed(Vec<ModelCard>),
}

/// Why a model cannot be registered on a backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// No such backend is configured.
    #[error("there is no backend `{backend}`; configured are: {}", known.join(", "))]
    NoSuchBackend {
        /// The backend asked for.
        backend: String,
        /// Those that are there.
        known: Vec<String>,
    },
    /// The backend serves no such model.
    #[error("the backend `{backend}` serves no model `{upstream}`; give the upstream name of one it has")]
    NoSuchUpstream {
        /// The backend.
        backend: String,
        /// The provider's name of the model.
        upstream: String,
    },
    /// The price is not known, and an unknown price means deny.
    #[error("the price is missing; give the prices of input and output tokens, zero if it is free")]
    NoPrice,
    /// A limit is zero or contradicts another.
    #[error("output_tokens_max must be at least 1 and at most context_tokens_max, and the timeout above zero")]
    Limits,
}

/// All configured backends.
#[derive(Debug, Default)]
pub struct Backends {
    served: BTreeMap<Arc<str>, Served>,
}

/// The configuration, checked to its end, with all it needs to call models.
#[derive(Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// The backends.
    pub backends: Arc<Backends>,
    /// The models that are registered from the start, by name.
    pub models: Vec<ModelCard>,
}

/// Reads and checks the configuration and opens the backends. Every fault is told at once.
///
/// # Errors
/// [`ConfigError`] with all faults.
pub fn load(environment: &Environment, flags: &Flags) -> Result<Loaded, ConfigError> {
    let config::Draft { config, faults } = config::read(environment, flags)?;
    let (backends, models, all_open) = open(&config, &faults);
    if all_open {
        // Only when every backend's models are known can a name be called unknown.
        let mut known: BTreeSet<_> = models.iter().map(|card| card.name.clone()).collect();
        known.extend(config.models.iter().map(|model| model.name.clone()));
        config::check_rules(&config.policy, &known, &faults);
        // A file brings at least one model, or its pool is at fault already.
        if known.is_empty() && config.backends.iter().all(|backend| matches!(backend.kind, BackendKind::Openai(_)))
        {
            let wanted = "a [[model]] with its [[backend]], or a recorded or simulated backend";
            faults.add("model", FaultKind::Empty { wanted });
        }
    }
    faults.finish()?;
    Ok(Loaded { config, backends: Arc::new(backends), models })
}

/// Opens every backend and makes the cards of all models; says whether all could be opened.
fn open(config: &Config, faults: &Faults) -> (Backends, Vec<ModelCard>, bool) {
    let mut backends = Backends::default();
    let mut models: Vec<ModelCard> = Vec::new();
    let mut all_open = true;
    for backend in &config.backends {
        let Some((served, brought)) = serve(backend, faults) else {
            all_open = false;
            continue;
        };
        let (requests, tokens) = backend.provider;
        let served = Served { adapter: Governed::of(served.adapter, requests, tokens), ..served };
        add_all(&mut models, brought, &backend.path, faults);
        backends.served.insert(Arc::clone(&served.name), served);
    }
    for (i, registration) in config.models.iter().enumerate() {
        // A backend at fault was reported already.
        if !backends.served.contains_key(registration.backend.as_str()) {
            continue;
        }
        match backends.card(registration) {
            Ok(card) => add_all(&mut models, vec![card], &format!("model[{i}].name"), faults),
            Err(CardError::NoSuchUpstream { upstream, .. }) => {
                faults.add(
                    format!("model[{i}].upstream"),
                    FaultKind::NoSuch { what: "upstream model", name: upstream },
                );
            }
            Err(CardError::Limits) => {
                let wanted = "at most context_tokens_max".to_owned();
                faults.add(format!("model[{i}].output_tokens_max"), FaultKind::OutOfRange { wanted });
            }
            // Both were reported by the check of the file.
            Err(CardError::NoSuchBackend { .. } | CardError::NoPrice) => {}
        }
    }
    if models.len() > Pool::MODELS_MAX {
        let wanted = format!("at most {} models", Pool::MODELS_MAX);
        faults.add("model", FaultKind::OutOfRange { wanted });
    }
    models.sort_by(|a, b| a.name.cmp(&b.name));
    (backends, models, all_open)
}

fn add_all(models: &mut Vec<ModelCard>, cards: Vec<ModelCard>, path: &str, faults: &Faults) {
    for card in cards {
        if models.iter().any(|model| model.name == card.name) {
            faults.add(path, FaultKind::Duplicate { name: card.name.to_string() });
        } else {
            models.push(card);
        }
    }
}

/// One backend and the models that it brings along; `None` when it cannot be opened.
fn serve(backend: &BackendConfig, faults: &Faults) -> Option<(Served, Vec<ModelCard>)> {
    let name = Arc::clone(&backend.name);
    let (adapter, catalogue, pool): (Arc<dyn Backend>, _, _) = match &backend.kind {
        BackendKind::Openai(config) => return Some((openai(name, config), Vec::new())),
        BackendKind::Recorded(RecordedConfig { file, pool }) => {
            // Models outside the pool can be registered later, so all of them are read.
            let rows = Rows::read(file, &Selection::default())
                .map_err(|error| unreadable(faults, format!("{}.file", backend.path), &error))
                .ok()?;
            let adapter = RecordedBackend::new(Arc::new(rows));
            let cards = adapter.cards(&name);
            (Arc::new(adapter), cards, pool)
        }
        BackendKind::Simulated(SimulatedConfig { world, pool, latency_scale }) => {
            let world = World::read(world)
                .map_err(|error| unreadable(faults, format!("{}.world", backend.path), &error))
                .ok()?;
            let adapter = SimulatedBackend::new(Arc::new(world), *latency_scale);
            let cards = adapter.cards(&name);
            (Arc::new(adapter), cards, pool)
        }
    };
    let brought = match pool {
        None => catalogue.clone(),
        Some(pool) => {
            let find = |name: &String| catalogue.iter().find(|card| card.name.as_str() == name).cloned();
            for name in pool.iter().filter(|name| find(name).is_none()) {
                let kind = FaultKind::NoSuch { what: "model", name: name.clone() };
                faults.add(format!("{}.pool", backend.path), kind);
            }
            pool.iter().filter_map(find).collect()
        }
    };
    Some((Served { name, adapter, unavailable: None, catalogue: Catalogue::Closed(catalogue) }, brought))
}

fn unreadable(faults: &Faults, path: String, error: &dyn std::error::Error) {
    faults.add(path, FaultKind::Unreadable { detail: error.to_string() });
}

fn openai(name: Arc<str>, config: &OpenaiConfig) -> Served {
    let catalogue = Catalogue::Open;
    match OpenaiBackend::new(config.clone()) {
        Ok(adapter) => {
            let unavailable = match &config.key {
                Key::Absent { reason } => Some(reason.clone()),
                Key::NotNeeded | Key::Present(_) => None,
            };
            Served { name, adapter: Arc::new(adapter), unavailable, catalogue }
        }
        Err(error) => {
            let reason = error.to_string();
            Served {
                name,
                adapter: Arc::new(Unusable { reason: reason.clone() }),
                unavailable: Some(reason),
                catalogue,
            }
        }
    }
}

/// Stands for a backend that cannot be used on this machine.
#[derive(Debug)]
struct Unusable {
    reason: String,
}

impl Backend for Unusable {
    fn generate(&self, _: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
        let error = CallError::Unavailable { detail: self.reason.clone(), billable: false };
        std::future::ready(Err(error)).boxed()
    }
}

impl Backends {
    /// The backend of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Served> {
        self.served.get(name)
    }

    /// The card of a model that is to be registered: what the registration says, else what the
    /// backend knows, else defaults.
    ///
    /// # Errors
    /// [`CardError`] when the backend or the model on it is unknown, the price is, or limits
    /// contradict each other.
    pub fn card(&self, asked: &Registration) -> Result<ModelCard, CardError> {
        let served = self.get(&asked.backend).ok_or_else(|| CardError::NoSuchBackend {
            backend: asked.backend.clone(),
            known: self.served.keys().map(ToString::to_string).collect(),
        })?;
        let known = match &served.catalogue {
            Catalogue::Open => None,
            Catalogue::Closed(cards) => {
                let find = cards.iter().find(|card| card.upstream.as_ref() == asked.upstream());
                Some(find.ok_or_else(|| CardError::NoSuchUpstream {
                    backend: asked.backend.clone(),
                    upstream: asked.upstream().to_owned(),
                })?)
            }
        };
        let pricing = match (known.map(|card| card.pricing), asked.price) {
            // What a recorded call costs is on record; no card can say otherwise.
            (Some(metered @ Pricing::Metered { .. }), _) => metered,
            (_, Some(price)) => Pricing::PerToken(price),
            (Some(known @ Pricing::PerToken(_)), None) => known,
            (None, None) => return Err(CardError::NoPrice),
        };
        let context_tokens_max =
            asked.context_tokens_max.or(known.map(|card| card.context_tokens_max)).unwrap_or(CONTEXT_TOKENS_MAX);
        let output_default =
            known.map_or(OUTPUT_TOKENS_MAX, |card| card.output_tokens_max).min(context_tokens_max);
        let card = ModelCard {
            name: asked.name.clone(),
            backend: Arc::clone(&served.name),
            upstream: Arc::from(asked.upstream()),
            pricing,
            context_tokens_max,
            output_tokens_max: asked.output_tokens_max.unwrap_or(output_default),
            timeout: asked
                .timeout_ms
                .map(Duration::from_millis)
                .or(known.map(|card| card.timeout))
                .unwrap_or(TIMEOUT),
            family: asked.family.clone().or_else(|| known?.family.clone()),
        };
        let within = (1..=card.context_tokens_max).contains(&card.output_tokens_max);
        if within && !card.timeout.is_zero() { Ok(card) } else { Err(CardError::Limits) }
    }
}
