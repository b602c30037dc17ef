//! Verify: proves that what was learned is what the rows say, and that the books of money are right.
//!
//! Two ways must lead to the same bits: the saved state and the rows behind its marks, as a restart
//! goes; and all rows from the beginning, or from the base that was kept when older rows were pruned.
//! What was learned, booked or said is not touched. The files are opened as a start opens them, though:
//! an older schema is brought up to date, and requests that a crash cut are marked as cut. The daemon
//! must not be running on the same state folder.

use std::path::Path;

use anyhow::Context as _;
use pointsman_learner::online::Online;
use pointsman_router::ids::PolicyVersion;
use tokio::sync::mpsc;

use crate::audit::Head;
use crate::learning::{Artifact, Candidates, LearningError};
use crate::store::artifacts::ArtifactStore;
use crate::store::ledger::{Imbalance, LedgerStore, StateRole};
use crate::store::lock::StateLock;
use crate::store::traces::{TraceStore, TraceStoreSettings};
use crate::training::known::KnownPolicies;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whether both ways led to the same bits.
    pub equal: bool,
    /// Sequence of the last feedback in both.
    pub feedback_mark: u64,
    /// Sequence of the last trace in both.
    pub trace_mark: u64,
    /// Labels that the rebuild took in.
    pub labels: u64,
    /// Whether the rebuild began from a base, because older rows are pruned.
    pub from_base: bool,
}

/// Verifies every policy of a state folder that has a role and learns, the bandit that begins from
/// nothing first.
///
/// # Errors
/// A folder that is in use or cannot be read, and a policy whose artifact is gone.
pub async fn all(state_dir: &Path, cold: Artifact) -> anyhow::Result<Vec<(PolicyVersion, Verified)>> {
    // A daemon that runs on this folder is noticed before anything is opened.
    drop(StateLock::take(state_dir)?);
    let known = KnownPolicies {
        artifacts: ArtifactStore::open(state_dir)?,
        ledger: LedgerStore::open(&state_dir.join("ledger.db"), None).await?,
        schema: cold.basis.schema(),
    };
    let others = others(state_dir, &cold, &known).await?;
    known.ledger.close().await?;
    let mut found = Vec::new();
    for artifact in std::iter::once(cold).chain(others) {
        found.push((artifact.version(), verify(state_dir, &artifact).await?));
    }
    Ok(found)
}

/// Proves the books of a state folder: every balance is the sum of its transfers, or is named.
///
/// # Errors
/// A folder that is in use or cannot be read.
pub async fn money(state_dir: &Path) -> anyhow::Result<Vec<Imbalance>> {
    let _lock = StateLock::take(state_dir)?;
    let ledger = LedgerStore::open(&state_dir.join("ledger.db"), None).await?;
    let found = ledger.imbalances().await?;
    ledger.close().await?;
    Ok(found)
}

/// Proves that the audit log of a state folder is what was written, up to its head.
///
/// # Errors
/// A folder that is in use or cannot be read, and [`Breach`](crate::audit::Breach) for a log that is broken.
pub async fn audit(state_dir: &Path) -> anyhow::Result<Head> {
    let _lock = StateLock::take(state_dir)?;
    let ledger = LedgerStore::open(&state_dir.join("ledger.db"), None).await?;
    let proved = ledger.prove_audit(None).await?;
    ledger.close().await?;
    Ok(proved?)
}

/// The other policies of a state folder that have a role and learn.
///
/// # Errors
/// A store that cannot be read, and a policy whose artifact is gone.
pub async fn others(
    state_dir: &Path,
    cold: &Artifact,
    candidates: &dyn Candidates,
) -> anyhow::Result<Vec<Artifact>> {
    let _lock = StateLock::take(state_dir)?;
    let ledger = LedgerStore::open(&state_dir.join("ledger.db"), None).await?;
    let mut others = Vec::new();
    if let Some(roles) = ledger.lifecycle().await? {
        for version in roles.named().into_iter().filter(|version| **version != cold.version()) {
            // Rules learn nothing, so nothing is kept of them.
            if ledger.load_state(version.clone(), StateRole::Latest).await?.is_some() {
                let artifact = candidates.load(version.clone()).await?;
                others.push(artifact.with_context(|| format!("the artifact of `{version}` is gone"))?);
            }
        }
    }
    ledger.close().await?;
    Ok(others)
}

/// Verifies the state of this artifact in a state folder.
///
/// # Errors
/// [`LearningError`] when a store or a saved state cannot be read.
pub async fn verify(state_dir: &Path, artifact: &Artifact) -> Result<Verified, LearningError> {
    let _lock = StateLock::take(state_dir)?;
    let (events, _nobody_listens) = mpsc::unbounded_channel();
    let ledger = LedgerStore::open(&state_dir.join("ledger.db"), None).await?;
    let traces = TraceStore::open(&state_dir.join("traces.db"), TraceStoreSettings::default(), events).await?;
    let from_base = artifact.load(&ledger, StateRole::Base).await?.is_some();
    let through = (ledger.feedback_through().await?, traces.last_seq().await?);
    let [mut restarted, mut rebuilt] = [
        artifact.clone().student(&ledger, StateRole::Latest).await?,
        artifact.clone().student(&ledger, StateRole::Base).await?,
    ];
    restarted.catch_up(&traces, &ledger, through).await?;
    rebuilt.catch_up(&traces, &ledger, through).await?;
    traces.close().await?;
    ledger.close().await?;
    let online: &Online = rebuilt.online();
    Ok(Verified {
        equal: restarted.online() == online,
        feedback_mark: online.feedback_mark(),
        trace_mark: online.trace_mark(),
        labels: rebuilt.updates(),
        from_base,
    })
}

#[cfg(test)]
mod tests;
