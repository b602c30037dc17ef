//! Run-time changes of the registered models, and the port through which they are kept.
//!
//! The models of the configuration are the base; one [`Override`] per model lies on top of them and
//! survives a restart. The registry applies them, the ledger keeps them; this module knows neither.

use std::fmt;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use pointsman_router::ids::ModelName;

use super::checked::Registration;
use crate::audit::Entry;

/// What was changed of one model at run time: the whole state, so the latest one saved counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The model.
    pub model: ModelName,
    /// Its registration, when it was registered at run time.
    pub registered: Option<Registration>,
    /// Whether an operator switched it off.
    pub disabled: bool,
    /// Whether it was removed; the model of the configuration stays away too.
    pub removed: bool,
    /// Why its price card cannot be right, since a call cost more than it allows.
    #[serde(default)]
    pub suspect: Option<String>,
}

impl Override {
    /// No change at all.
    #[must_use]
    pub fn none(model: ModelName) -> Self {
        Self { model, registered: None, disabled: false, removed: false, suspect: None }
    }
}

/// The store of overrides could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model overrides cannot be kept: {detail}")]
pub struct OverrideStoreError {
    /// What the store said.
    pub detail: String,
}

/// Keeps overrides; the newest of a model replaces the one before.
pub trait OverrideStore: Send + Sync + fmt::Debug {
    /// All that are kept, one per model.
    ///
    /// # Errors
    /// [`OverrideStoreError`] when they cannot be read.
    fn load(&self) -> Result<Vec<Override>, OverrideStoreError>;

    /// Keeps one, and in the audit chain who changed it; returns once both are durable.
    ///
    /// # Errors
    /// [`OverrideStoreError`] when it may not be durable.
    fn save(&self, change: Override, entry: Entry) -> BoxFuture<'_, Result<(), OverrideStoreError>>;
}
