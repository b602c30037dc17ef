//! The registered models: those of the configuration, with run-time changes on top.
//!
//! The registry is where the pipeline takes its pool from. A change is all or nothing: it is checked,
//! made durable through [`OverrideStore`], and only then published as a new pool behind an atomic
//! pointer; requests under way keep the pool that they pinned. Changes wait for one another, requests
//! wait for none.
//!
//! A model of the configuration that is removed at run time stays away after a restart too, until it is
//! registered again. Removing the last model is allowed; requests then fail with a typed error. A
//! model's breaker outlives switching it off and on, and starts anew when it is registered anew. An
//! override that no longer fits the configuration (its backend is gone) is listed as unavailable with
//! the reason and not dropped.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pointsman_router::backend::{Backend, Call, CallError, Reply};
use pointsman_router::breaker::Breaker;
use pointsman_router::clock::Timestamp;
use pointsman_router::ids::ModelName;
use pointsman_router::model::{Availability, Model, ModelCard, Pool, PoolSource, Pricing};
use pointsman_router::money::Price;
use serde_json::json;
use tokio::sync::Mutex;

use crate::audit::{By, Entry};
use crate::backends::{Backends, CardError};
use crate::config;
pub use crate::config::{Override, OverrideStore, OverrideStoreError, Registration};

/// Who marks price cards, in the audit log.
const PRICES: &str = "prices";

/// Where a registration comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the configuration's file or the files it names.
    Config,
    /// From an administrator, at run time.
    Runtime,
}

/// A registered model as it is listed.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The model as requests see it.
    pub model: Model,
    /// Where it comes from.
    pub origin: Origin,
    /// Why its price card cannot be right, since a call cost more than it allows.
    pub suspect: Option<String>,
}

/// Why a change was refused. Nothing was changed, in memory or in the store, unless the store says
/// that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The name is taken.
    #[error("a model named `{0}` is registered already; remove it first or choose another name")]
    Duplicate(ModelName),
    /// No such model.
    #[error("no model named `{0}` is registered")]
    NotFound(ModelName),
    /// The name cannot name a model.
    #[error("`{0}` cannot name a model: 1 to 128 bytes, no white space, no control characters")]
    BadName(String),
    /// A price is negative.
    #[error("a price is negative, give zero or more")]
    NegativePrice,
    /// The registration does not fit the backend.
    #[error(transparent)]
    Card(#[from] CardError),
    /// There is no room for another model.
    #[error("{} models are registered, which is the most; remove one first", Pool::MODELS_MAX)]
    Full,
    /// The change could not be made durable.
    #[error(transparent)]
    Store(#[from] OverrideStoreError),
}

/// The registered models.
#[derive(Debug)]
pub struct Registry {
    backends: Arc<Backends>,
    base: BTreeMap<ModelName, ModelCard>,
    store: Arc<dyn OverrideStore>,
    /// Held by the one change that is under way.
    overrides: Mutex<BTreeMap<ModelName, Override>>,
    published: ArcSwap<Published>,
}

/// What is registered at one moment.
#[derive(Debug)]
struct Published {
    pool: Arc<Pool>,
    origins: BTreeMap<ModelName, Origin>,
    suspects: BTreeMap<ModelName, String>,
}

impl Published {
    fn listed(&self, model: &Model) -> Listed {
        Listed {
            model: model.clone(),
            origin: self.origins.get(model.name()).copied().unwrap_or(Origin::Config),
            suspect: self.suspects.get(model.name()).cloned(),
        }
    }
}

impl Registry {
    /// The models of the configuration with the stored changes on top.
    ///
    /// # Errors
    /// [`OverrideStoreError`] when the stored changes cannot be read.
    pub fn open(
        backends: Arc<Backends>,
        base: Vec<ModelCard>,
        store: Arc<dyn OverrideStore>,
    ) -> Result<Self, OverrideStoreError> {
        let base = base.into_iter().map(|card| (card.name.clone(), card)).collect();
        let stored = store.load()?.into_iter().map(|change| (change.model.clone(), change));
        let overrides: BTreeMap<_, _> = stored.collect();
        let published = assemble(&backends, &base, &overrides, None);
        Ok(Self {
            backends,
            base,
            store,
            overrides: Mutex::new(overrides),
            published: ArcSwap::from_pointee(published),
        })
    }

    /// All registered models by name, with their origin.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let published = self.published.load();
        published.pool.models().iter().map(|model| published.listed(model)).collect()
    }

    /// One registered model.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Listed> {
        let published = self.published.load();
        Some(published.listed(published.pool.get(name)?))
    }

    /// Registers a model; it takes part from the next decision on.
    ///
    /// # Errors
    /// [`RegistryError`]; the name must be free, the backend configured, the price known.
    pub async fn register(&self, registration: Registration, by: &By) -> Result<Listed, RegistryError> {
        let name = registration.name.clone();
        if !config::is_name(name.as_str()) {
            return Err(RegistryError::BadName(name.to_string().chars().take(config::NAME_BYTES_MAX).collect()));
        }
        if registration.price.is_some_and(|price| is_negative(&price)) {
            return Err(RegistryError::NegativePrice);
        }
        self.backends.card(&registration)?;
        let mut overrides = self.overrides.lock().await;
        let pool = self.pool();
        if pool.get(name.as_str()).is_some() {
            return Err(RegistryError::Duplicate(name));
        }
        if pool.models().len() >= Pool::MODELS_MAX {
            return Err(RegistryError::Full);
        }
        let entry = Entry::new(by, "model.registered", name.as_str(), json!(registration));
        let change = Override { registered: Some(registration), ..Override::none(name.clone()) };
        self.apply(&mut overrides, change, entry).await?;
        self.get(name.as_str()).ok_or(RegistryError::NotFound(name))
    }

    /// Switches a model on again, and takes its price card as right.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Store`].
    pub async fn enable(&self, name: &ModelName, by: &By) -> Result<Listed, RegistryError> {
        self.switch(name, false, by).await
    }

    /// Switches a model off: it stays registered and is not called.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Store`].
    pub async fn disable(&self, name: &ModelName, by: &By) -> Result<Listed, RegistryError> {
        self.switch(name, true, by).await
    }

    /// Marks a model whose call cost more than its price card allows, durably, until it is enabled or registered
    /// again; `false` where it was marked before or is gone.
    ///
    /// # Errors
    /// [`RegistryError::Store`].
    pub async fn suspect(&self, name: &ModelName, why: String, now: Timestamp) -> Result<bool, RegistryError> {
        if self.get(name.as_str()).is_none_or(|listed| listed.suspect.is_some()) {
            return Ok(false);
        }
        let mut overrides = self.overrides.lock().await;
        let present = overrides.get(name).cloned().unwrap_or_else(|| Override::none(name.clone()));
        if present.removed || present.suspect.is_some() {
            return Ok(false);
        }
        let by = By::new(PRICES, now);
        let entry = Entry::new(&by, "model.suspected", name.as_str(), json!({ "why": why }));
        self.apply(&mut overrides, Override { suspect: Some(why), ..present }, entry).await?;
        Ok(true)
    }

    /// Removes a model; it is gone from the next decision on.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Store`].
    pub async fn remove(&self, name: &ModelName, by: &By) -> Result<(), RegistryError> {
        let mut overrides = self.overrides.lock().await;
        self.found(name)?;
        let entry = Entry::new(by, "model.removed", name.as_str(), json!({}));
        self.apply(&mut overrides, Override { removed: true, ..Override::none(name.clone()) }, entry).await
    }

    async fn switch(&self, name: &ModelName, disabled: bool, by: &By) -> Result<Listed, RegistryError> {
        let mut overrides = self.overrides.lock().await;
        let listed = self.found(name)?;
        let present = overrides.get(name).cloned().unwrap_or_else(|| Override::none(name.clone()));
        let suspect = present.suspect.clone().filter(|_| disabled);
        if present.disabled == disabled && present.suspect == suspect {
            return Ok(listed);
        }
        let action = if disabled { "model.disabled" } else { "model.enabled" };
        let entry = Entry::new(by, action, name.as_str(), json!({}));
        self.apply(&mut overrides, Override { disabled, suspect, ..present }, entry).await?;
        self.found(name)
    }

    fn found(&self, name: &ModelName) -> Result<Listed, RegistryError> {
        self.get(name.as_str()).ok_or_else(|| RegistryError::NotFound(name.clone()))
    }

    /// Makes a change durable, then visible.
    async fn apply(
        &self,
        overrides: &mut BTreeMap<ModelName, Override>,
        change: Override,
        entry: Entry,
    ) -> Result<(), RegistryError> {
        self.store.save(change.clone(), entry).await?;
        overrides.insert(change.model.clone(), change);
        let before = self.pool();
        self.published.store(Arc::new(assemble(&self.backends, &self.base, overrides, Some(&before))));
        Ok(())
    }
}

impl PoolSource for Registry {
    fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.published.load().pool)
    }
}

fn is_negative(price: &Price) -> bool {
    [price.input_per_million_tokens, price.output_per_million_tokens, price.per_call].iter().any(|p| p.nanos() < 0)
}

/// Lays the overrides over the base. Breakers of models that were there `before` go on.
fn assemble(
    backends: &Backends,
    base: &BTreeMap<ModelName, ModelCard>,
    overrides: &BTreeMap<ModelName, Override>,
    before: Option<&Pool>,
) -> Published {
    let mut models = Vec::with_capacity(base.len() + overrides.len());
    let mut origins = BTreeMap::new();
    let mut add = |model: Model, origin: Origin| {
        // A configuration that grew past the limit beside stored overrides keeps what comes first.
        if models.len() < Pool::MODELS_MAX {
            origins.insert(model.name().clone(), origin);
            models.push(model);
        }
    };
    for (name, card) in base {
        let change = overrides.get(name);
        if change.is_none_or(|change| !change.removed && change.registered.is_none()) {
            add(model(backends, Ok(card.clone()), change, before), Origin::Config);
        }
    }
    for change in overrides.values().filter(|change| !change.removed) {
        if let Some(registration) = &change.registered {
            let card = backends.card(registration).map_err(|error| (registration, error));
            add(model(backends, card, Some(change), before), Origin::Runtime);
        }
    }
    let suspects =
        overrides.values().filter_map(|change| Some((change.model.clone(), change.suspect.clone()?))).collect();
    Published { pool: Arc::new(Pool::new(models)), origins, suspects }
}

/// A model of its card, or of a registration that no longer fits.
fn model(
    backends: &Backends,
    card: Result<ModelCard, (&Registration, CardError)>,
    change: Option<&Override>,
    before: Option<&Pool>,
) -> Model {
    let (card, misfit) = match card {
        Ok(card) => (card, None),
        Err((registration, error)) => (orphan(registration), Some(error.to_string())),
    };
    let served = backends.get(&card.backend);
    let reason = misfit.or_else(|| served.map_or_else(|| Some(gone(&card)), |served| served.unavailable.clone()));
    let availability = match reason {
        _ if change.is_some_and(|change| change.disabled) => Availability::Disabled,
        Some(reason) => Availability::Unavailable { reason },
        None => Availability::Available,
    };
    let backend: Arc<dyn Backend> =
        served.map_or_else(|| Arc::new(Gone) as _, |served| Arc::clone(&served.adapter));
    let earlier = before.and_then(|pool| pool.get(card.name.as_str()));
    let breaker =
        earlier.map_or_else(|| Arc::new(Breaker::new(card.name.as_str())), |model| Arc::clone(&model.breaker));
    Model { card: Arc::new(card), backend, breaker, availability }
}

fn gone(card: &ModelCard) -> String {
    format!("the backend `{}` is not configured any more, add it or remove the model", card.backend)
}

/// The card of a registration that no longer fits; it is only listed, never called.
fn orphan(registration: &Registration) -> ModelCard {
    ModelCard {
        name: registration.name.clone(),
        backend: Arc::from(registration.backend.as_str()),
        upstream: Arc::from(registration.upstream()),
        pricing: Pricing::PerToken(registration.price.unwrap_or_default()),
        context_tokens_max: registration.context_tokens_max.unwrap_or(1),
        output_tokens_max: registration.output_tokens_max.unwrap_or(1),
        timeout: Duration::from_millis(registration.timeout_ms.unwrap_or(1)),
        family: registration.family.clone(),
    }
}

/// Stands for a backend that is gone.
#[derive(Debug)]
struct Gone;

impl Backend for Gone {
    fn generate(&self, _: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
        let detail = "the backend is not configured any more".to_owned();
        std::future::ready(Err(CallError::Unavailable { detail, billable: false })).boxed()
    }
}
