//! Retraining: a candidate that nobody asked for, after some time or some feedback.
//!
//! It trains as a call of Train does, beside the requests and one at a time, and evaluates what came out
//! against the policy that runs. It promotes nothing. What was trained last, by whomever, is what time
//! and feedback count from; a run that failed counts as well, so that it is not tried again and again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pointsman_proto::v1;
use pointsman_router::artifact::ArtifactKind;
use pointsman_router::clock::Timestamp;
use pointsman_router::ids::PolicyVersion;
use tokio::sync::watch;

use super::evaluate::{Evaluator, Settings};
use super::trainer::{Progress, Trainer, TrainingError, Wish};
use crate::store::StoreError;
use crate::store::ledger::StoredPolicy;
use crate::wire::timestamp;

/// Traces that a training by itself reads, at most: the newest.
const ROWS_MAX: u64 = 1_000_000;
/// Whom the audit log names.
const ACTOR: &str = "retrain";

/// When a candidate is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// So long after the last one; `None`: not by the clock.
    pub every: Option<Duration>,
    /// After so much feedback since the last one; `None`: not by feedback.
    pub after_feedback: Option<u64>,
}

/// What is counted from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Last {
    /// When the last one was trained, or the daemon began.
    at: Timestamp,
    /// Whether one was trained at all.
    ran: bool,
    /// The last feedback by then.
    feedback: u64,
    version: Option<PolicyVersion>,
    error: Option<String>,
    running: bool,
}

/// Trains by itself.
#[derive(Debug, Clone)]
pub struct Retraining {
    trainer: Trainer,
    evaluator: Evaluator,
    due: Due,
    last: Arc<Mutex<Last>>,
}

impl Retraining {
    /// Counts from what was trained last.
    ///
    /// # Errors
    /// What the store met.
    pub async fn open(trainer: Trainer, evaluator: Evaluator, due: Due) -> Result<Self, StoreError> {
        let ground = trainer.ground();
        let trained = |policy: &StoredPolicy| policy.fitted.report.is_some();
        let newest = ground.ledger.stored_policies().await?.into_iter().find(trained);
        let last = match newest {
            Some(policy) => Last {
                at: policy.row.created_at,
                ran: true,
                feedback: feedback_seen(&policy),
                version: Some(policy.row.version),
                ..Last::default()
            },
            None => Last { at: ground.clock.now(), ..Last::default() },
        };
        let (trainer, evaluator) = (trainer.named(ACTOR), evaluator.named(ACTOR));
        Ok(Self { trainer, evaluator, due, last: Arc::new(Mutex::new(last)) })
    }

    /// Trains and evaluates, if that is due, against the policy that runs.
    ///
    /// # Errors
    /// What looking met; what training met is told by [`Retraining::report`].
    pub async fn step(&self, incumbent: &PolicyVersion) -> Result<(), StoreError> {
        let ground = self.trainer.ground();
        let (now, feedback) = (ground.clock.now(), ground.ledger.feedback_through().await?);
        if !self.is_due(now, feedback) {
            return Ok(());
        }
        let turn = match self.trainer.turn() {
            Ok(turn) => turn,
            // Somebody trains: what comes of that counts, and the next look tells.
            Err(_) => return Ok(()),
        };
        self.with(|last| last.running = true);
        let _over = Running(self);
        let wish = Wish { kind: ArtifactKind::Hybrid, seed: 0, rows_max: Some(ROWS_MAX) };
        let trained = self.trainer.train(turn, wish, watch::channel(Progress::BEGIN).0).await;
        let (version, error) = match trained {
            Err(TrainingError::GivenUp) => return Ok(()),
            Err(error) => (None, Some(error.to_string())),
            Ok(policy) => {
                let version = policy.row.version;
                let error = self.evaluate(version.clone(), incumbent).await;
                (Some(version), error)
            }
        };
        match (&version, &error) {
            (Some(version), None) => tracing::info!(%version, "a candidate was trained and evaluated"),
            (version, error) => tracing::warn!(?version, ?error, "retraining did not come to its end"),
        }
        self.with(|last| {
            *last = Last { at: now, ran: true, feedback, version, error, running: last.running };
        });
        Ok(())
    }

    /// Evaluates a fresh candidate; why it could not be, where it could not.
    async fn evaluate(&self, version: PolicyVersion, incumbent: &PolicyVersion) -> Option<String> {
        // The same rows give the same policy, and that may run by now.
        if version == *incumbent {
            return None;
        }
        let evaluated = self.evaluator.evaluate(vec![version], incumbent.clone(), Settings::default()).await;
        evaluated.err().map(|error| error.to_string())
    }

    fn is_due(&self, now: Timestamp, feedback: u64) -> bool {
        let Due { every, after_feedback } = self.due;
        self.with(|last| {
            let by_clock = every.is_some_and(|every| now >= last.at.plus(every));
            let by_feedback =
                after_feedback.is_some_and(|wanted| feedback.saturating_sub(last.feedback) >= wanted);
            // Without new feedback the same would come out again.
            (by_clock || by_feedback) && feedback > last.feedback
        })
    }

    /// How it stands.
    ///
    /// # Errors
    /// What the store met.
    pub async fn report(&self) -> Result<v1::RetrainReport, StoreError> {
        let feedback = self.trainer.ground().ledger.feedback_through().await?;
        let Due { every, after_feedback } = self.due;
        Ok(self.with(|last| v1::RetrainReport {
            enabled: every.is_some() || after_feedback.is_some(),
            running: last.running,
            last_run_at: last.ran.then(|| timestamp(last.at)),
            last_version: last.version.as_ref().map(|version| version.as_str().to_owned()).unwrap_or_default(),
            last_error: last.error.clone().unwrap_or_default(),
            due_at: every.map(|every| timestamp(last.at.plus(every))),
            feedback_since: feedback.saturating_sub(last.feedback),
            feedback_due: after_feedback.unwrap_or(0),
        }))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Last) -> T) -> T {
        // No look leaves it half changed.
        look(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Says that nothing runs any more, however it ended.
struct Running<'a>(&'a Retraining);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.with(|last| last.running = false);
    }
}

/// The last feedback when this policy was trained, as its settings tell.
fn feedback_seen(policy: &StoredPolicy) -> u64 {
    let settings: serde_json::Value = serde_json::from_str(&policy.row.settings).unwrap_or_default();
    let seen = settings.get("feedback_seen").and_then(serde_json::Value::as_u64);
    seen.unwrap_or(policy.fitted.trained_through)
}

#[cfg(test)]
mod tests;
