//! What the teacher asks of policies that were trained or installed: their artifacts out of the state
//! folder, and what their last evaluation says out of the ledger.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use pointsman_learner::basis::Basis;
use pointsman_proto::v1;
use pointsman_router::artifact::ArtifactError;
use pointsman_router::features::SchemaHash;
use pointsman_router::ids::PolicyVersion;

use crate::learning::{Artifact, ArtifactFault, Candidates, Standing};
use crate::store::StoreError;
use crate::store::artifacts::{ArtifactFileError, ArtifactStore};
use crate::store::ledger::LedgerStore;
use crate::wire::json;

/// The policies of this installation.
#[derive(Debug, Clone)]
pub struct KnownPolicies {
    /// Their files.
    pub artifacts: ArtifactStore,
    /// What is known of them.
    pub ledger: LedgerStore,
    /// What the features of this installation mean.
    pub schema: SchemaHash,
}

impl KnownPolicies {
    async fn artifact(&self, version: PolicyVersion) -> Result<Option<Artifact>, ArtifactFault> {
        let Some(stored) = self.ledger.policy(version.clone()).await? else { return Ok(None) };
        // A policy without an artifact is one that the configuration names.
        if stored.fitted.artifact_bytes == 0 {
            return Ok(None);
        }
        let (artifacts, schema, asked) = (self.artifacts.clone(), self.schema, version.clone());
        let reading = tokio::task::spawn_blocking(move || artifacts.load(&asked, schema));
        let artifact = reading.await.map_err(|_| StoreError::Closed)?.map_err(|error| fault(&version, &error))?;
        let basis = Basis::Fitted { artifact: Arc::new(artifact), version };
        Ok(Some(Artifact { basis, trained_through: stored.fitted.trained_through }))
    }

    async fn evaluated(&self, version: PolicyVersion) -> Result<Option<Standing>, StoreError> {
        let stored = self.ledger.policy(version).await?;
        let text = stored.and_then(|policy| policy.fitted.evaluation);
        // An evaluation that cannot be read back says nothing.
        let evaluation: Option<v1::Evaluation> = text.and_then(|text| json::read(text.as_bytes()).ok());
        Ok(evaluation.map(|evaluation| {
            let gate = evaluation.gate.unwrap_or_default();
            let mut failed: Vec<String> = gate.reasons.into_iter().filter(|r| !r.holds).map(|r| r.name).collect();
            if !gate.passes && failed.is_empty() {
                failed.push("UNKNOWN".to_owned());
            }
            Standing { incumbent: PolicyVersion::from(evaluation.incumbent_version), failed }
        }))
    }
}

fn fault(version: &PolicyVersion, error: &ArtifactFileError) -> ArtifactFault {
    let version = version.clone();
    match error {
        ArtifactFileError::Unusable { cause: ArtifactError::Schema { .. }, .. } => {
            ArtifactFault::Schema { version }
        }
        ArtifactFileError::Io { .. } | ArtifactFileError::Missing { .. } | ArtifactFileError::Unusable { .. } => {
            ArtifactFault::Corrupt { version, detail: error.to_string() }
        }
    }
}

impl Candidates for KnownPolicies {
    fn load(&self, version: PolicyVersion) -> BoxFuture<'_, Result<Option<Artifact>, ArtifactFault>> {
        Box::pin(self.artifact(version))
    }

    fn standing(&self, version: PolicyVersion) -> BoxFuture<'_, Result<Option<Standing>, StoreError>> {
        Box::pin(self.evaluated(version))
    }
}
