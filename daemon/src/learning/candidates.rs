//! The port for policies that were trained or installed: their artifacts, and what is known of their
//! worth.

use std::fmt;

use futures_util::future::BoxFuture;
use pointsman_router::ids::PolicyVersion;

use super::roles::Standing;
use super::student::Artifact;
use crate::store::StoreError;

/// Why an artifact cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactFault {
    /// It reads features of another schema.
    #[error("`{version}` reads features of another schema, train it again on this daemon's traces")]
    Schema {
        /// The policy.
        version: PolicyVersion,
    },
    /// Its file is damaged.
    #[error("the artifact of `{version}` cannot be used, install or train it again: {detail}")]
    Corrupt {
        /// The policy.
        version: PolicyVersion,
        /// What is wrong with it.
        detail: String,
    },
    /// The ledger cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Knows the policies that were trained or installed.
pub trait Candidates: Send + Sync + fmt::Debug {
    /// The artifact of a version; `None` where nobody knows it.
    fn load(&self, version: PolicyVersion) -> BoxFuture<'_, Result<Option<Artifact>, ArtifactFault>>;

    /// What the last evaluation of a version says; `None` where there is none.
    fn standing(&self, version: PolicyVersion) -> BoxFuture<'_, Result<Option<Standing>, StoreError>>;
}

/// A daemon that has nothing but what its configuration names.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCandidates;

impl Candidates for NoCandidates {
    fn load(&self, _: PolicyVersion) -> BoxFuture<'_, Result<Option<Artifact>, ArtifactFault>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn standing(&self, _: PolicyVersion) -> BoxFuture<'_, Result<Option<Standing>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}
