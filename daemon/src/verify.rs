//! Verify: proves that what was learned is what the rows say.
//!
//! Two ways must lead to the same bits: the saved state and the rows behind its marks, as a restart
//! goes; and all rows from the beginning, or from the base that was kept when older rows were pruned.
//! What was learned, booked or said is not touched. The files are opened as a start opens them, though:
//! an older schema is brought up to date, and requests that a crash cut are marked as cut. The daemon
//! must not be running on the same state folder.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use pointsman_learner::online::Online;
use pointsman_router::bandit::BanditSettings;
use pointsman_router::encode::Encoder;
use tokio::sync::mpsc;

use crate::backends::Loaded;
use crate::config;
use crate::learning::{Artifact, Candidates, LearningError, NoCandidates};
use crate::store::ledger::{LedgerStore, StateRole};
use crate::store::lock::StateLock;
use crate::store::traces::{TraceStore, TraceStoreSettings};

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

/// Verifies the state folder of a configuration and says what was found.
///
/// # Errors
/// A folder that is in use or cannot be read, and bits that differ.
pub async fn main(loaded: Loaded, out: &mut impl Write) -> anyhow::Result<()> {
    let state_dir = &loaded.config.server.state_dir;
    let secret = config::installation_secret(state_dir)?;
    let artifact = Artifact::cold(BanditSettings::default(), Encoder::new(secret).schema());
    say(&verify(state_dir, &artifact).await?, &artifact, out)?;
    for other in others(state_dir, &artifact, &NoCandidates).await? {
        say(&verify(state_dir, &other).await?, &other, out)?;
    }
    Ok(())
}

fn say(found: &Verified, artifact: &Artifact, out: &mut impl Write) -> anyhow::Result<()> {
    let Verified { equal, feedback_mark, trace_mark, labels, from_base } = found;
    let rows = if *from_base { "the rows since the base" } else { "all rows" };
    anyhow::ensure!(
        equal,
        "the learned state of {} differs from a rebuild of {rows} (feedback {feedback_mark}, trace {trace_mark})",
        artifact.version()
    );
    writeln!(
        out,
        "the learned state equals a rebuild of {rows} bit for bit: {labels} labels, feedback {feedback_mark}, trace {trace_mark} ({})",
        artifact.version()
    )?;
    Ok(())
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
