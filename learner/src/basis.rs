//! What an online state stands on: nothing but settings, or a fitted artifact.
//!
//! The basis is immutable and names the policy's version; the state that grows on it is
//! [`crate::online`]'s. Whoever keeps states asks the basis for a fresh one and to read one back, and
//! for the policy that the two of them make, and need not know which kind it is.

use std::sync::Arc;

use pointsman_router::artifact::{Artifact, ArtifactKind};
use pointsman_router::bandit::BanditSettings;
use pointsman_router::classifier::ClassifierPolicy;
use pointsman_router::features::SchemaHash;
use pointsman_router::ids::PolicyVersion;
use pointsman_router::policy::Policy;

use crate::online::{Online, StateError};

/// What a policy is made of, beside what it learns online.
#[derive(Debug, Clone)]
pub enum Basis {
    /// A bandit that begins from nothing.
    Cold {
        /// Its settings.
        settings: BanditSettings,
        /// What its features mean.
        schema: SchemaHash,
    },
    /// A policy that begins from a fitted artifact.
    Fitted {
        /// The artifact.
        artifact: Arc<Artifact>,
        /// Its version.
        version: PolicyVersion,
    },
}

impl Basis {
    /// The version of the policy.
    #[must_use]
    pub fn version(&self) -> PolicyVersion {
        match self {
            Self::Cold { settings, schema } => settings.version(*schema),
            Self::Fitted { version, .. } => version.clone(),
        }
    }

    /// What its features mean.
    #[must_use]
    pub fn schema(&self) -> SchemaHash {
        match self {
            Self::Cold { schema, .. } => *schema,
            Self::Fitted { artifact, .. } => artifact.projection.schema(),
        }
    }

    /// Whether labels change the policy.
    #[must_use]
    pub fn learns(&self) -> bool {
        match self {
            Self::Cold { .. } => true,
            Self::Fitted { artifact, .. } => artifact.kind == ArtifactKind::Hybrid,
        }
    }

    /// A state that has seen nothing.
    #[must_use]
    pub fn fresh(&self) -> Online {
        match self {
            Self::Cold { settings, schema } => Online::new(*settings, *schema),
            Self::Fitted { artifact, version } => Online::fitted(Arc::clone(artifact), version.clone()),
        }
    }

    /// The state that these bytes hold.
    ///
    /// # Errors
    /// [`StateError`] when they are cut, changed, foreign, or of another basis.
    pub fn restore(&self, bytes: &[u8]) -> Result<Online, StateError> {
        self.fresh().restored(bytes)
    }

    /// The policy of this state; cheap.
    #[must_use]
    pub fn policy(&self, online: &Online) -> Arc<dyn Policy> {
        match self {
            Self::Fitted { artifact, version } if artifact.kind == ArtifactKind::Classifier => {
                Arc::new(ClassifierPolicy::new(version.clone(), Arc::clone(artifact), 0.0))
            }
            Self::Cold { .. } | Self::Fitted { .. } => online.policy(),
        }
    }
}
