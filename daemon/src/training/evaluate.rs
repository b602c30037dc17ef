//! Evaluate: what a candidate would have been worth on decisions that others made and feedback judged.
//!
//! Held out are the latest judged decisions: those whose first feedback came after the last feedback
//! that the candidate was trained on, and among the latest share that was asked for. For each of them
//! the candidate is asked again: with the features of the trace, the models that were on offer with
//! their expected costs, and the completion of the set as `decide` does it (`cases`). What it would
//! have drawn, weighed against what was drawn, is its value (`value`); the learner says how sure that
//! is, and whether it suffices.
//!
//! The log keeps neither what the budget had left nor a request's own cap, so sets of several models
//! are completed without a ceiling. Imported decisions count where their probability is logged.

mod cases;
mod told;
mod value;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pointsman_learner::basis::Basis;
use pointsman_learner::evaluate::calibration::Calibration;
use pointsman_learner::evaluate::estimate::{Estimate, EstimateError, Estimates, Gain};
use pointsman_learner::evaluate::gate::{Evidence, GateSettings, Verdict};
use pointsman_learner::evaluate::reward_model::FitError;
use pointsman_router::clock::Timestamp;
use pointsman_router::ids::{ModelName, PolicyVersion};

pub use self::cases::CASES_MAX;
pub use self::told::to_wire;
use super::log::{Reach, StoredLog};
use super::trainer::{CALLER, Ground, LEFT_OUT, on_low_thread};
use crate::store::StoreError;
use crate::store::artifacts::ArtifactFileError;
use crate::store::ledger::{AuditEntry, LedgerStore, PolicyAction, PolicyRunState, StoredPolicy};
use crate::wire::json::{self, JsonFault};

/// Judged decisions without which nothing is estimated.
pub const JUDGED_MIN: usize = 100;

/// How to evaluate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Share of the judged decisions to estimate on, the latest.
    pub held_out: f64,
    /// Error probability of each one-sided bound.
    pub delta: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { held_out: LEFT_OUT, delta: GateSettings::default().delta }
    }
}

/// Why there is no evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// No policy has this version.
    #[error("no policy has the version `{0}`, see ListPolicies")]
    Unknown(PolicyVersion),
    /// It is the one that runs.
    #[error("`{0}` is the running policy, it is measured as it runs")]
    Running(PolicyVersion),
    /// It was not fitted.
    #[error("`{0}` has no artifact, evaluate a policy that was trained or installed")]
    NotFitted(PolicyVersion),
    /// There is too little to estimate from.
    #[error(
        "{found} judged decisions are held out from the training of `{version}` and {JUDGED_MIN} are needed, route \
         more requests and send feedback"
    )]
    TooFew {
        /// The candidate.
        version: PolicyVersion,
        /// Judged decisions that there are.
        found: usize,
    },
    /// Its artifact cannot be used.
    #[error(transparent)]
    File(#[from] ArtifactFileError),
    /// A store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody waits for it any more, or the daemon ends.
    #[error("the evaluation was given up")]
    GivenUp,
    /// The figures make no sense: a fault of this daemon.
    #[error("the log cannot be estimated from, please report this: {detail}")]
    Figures {
        /// What is wrong with them.
        detail: String,
    },
}

impl From<EstimateError> for EvaluationError {
    fn from(error: EstimateError) -> Self {
        Self::Figures { detail: error.to_string() }
    }
}

impl From<FitError> for EvaluationError {
    fn from(error: FitError) -> Self {
        Self::Figures { detail: error.to_string() }
    }
}

impl From<JsonFault> for EvaluationError {
    fn from(error: JsonFault) -> Self {
        Self::Figures { detail: error.to_string() }
    }
}

/// What always calling one model is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Single {
    /// The model.
    pub model: ModelName,
    /// Its value, doubly robust.
    pub value: Estimate,
    /// What a request is expected to cost, in USD.
    pub cost_usd: f64,
    /// Judged rows on which it was seen.
    pub rows: u64,
}

/// What the candidate costs and is worth at one weight of cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrontierPoint {
    /// Quality given up per dollar.
    pub weight_per_usd: f64,
    /// What a request is expected to cost, in USD.
    pub cost_usd: f64,
    /// Its value, doubly robust.
    pub value: Estimate,
}

/// What a candidate would have been worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The candidate.
    pub version: PolicyVersion,
    /// The policy that ran.
    pub incumbent: PolicyVersion,
    /// When it was evaluated.
    pub at: Timestamp,
    /// How.
    pub settings: Settings,
    /// Share of the judged decisions that was held out.
    pub held_out: f64,
    /// Held-out decisions, judged or not.
    pub rows: u64,
    /// The estimates.
    pub estimates: Estimates,
    /// What the log itself earned.
    pub on_policy: Estimates,
    /// The candidate less what the log earned.
    pub gain: Gain,
    /// Every model alone, the best first.
    pub singles: Vec<Single>,
    /// The candidate less the best single model.
    pub over_single: Option<Estimate>,
    /// Share of the rows on which its likeliest first model is the logged one.
    pub agreement: f64,
    /// How honest its predictions are.
    pub calibration: Option<Calibration>,
    /// What it is worth when money counts more and more.
    pub frontier: Vec<FrontierPoint>,
    /// What the gate was shown.
    pub evidence: Evidence,
    /// What the gate says.
    pub verdict: Verdict,
}

/// Evaluates policies, one after the other.
#[derive(Debug, Clone)]
pub struct Evaluator {
    ground: Arc<Ground>,
    /// Whom the audit log names.
    actor: Arc<str>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Ends the work when whoever waited for it goes.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Evaluator {
    /// Evaluates on this ground.
    #[must_use]
    pub fn new(ground: Ground) -> Self {
        Self { ground: Arc::new(ground), actor: CALLER.into(), turn: Arc::default() }
    }

    /// The same evaluator, with another name in the audit log.
    #[must_use]
    pub fn named(&self, actor: &str) -> Self {
        Self { actor: actor.into(), ..self.clone() }
    }

    /// Evaluates these versions, or every candidate where there are none, against the policy that runs;
    /// keeps each result with its policy, as the JSON of `pointsman.v1.Evaluation`.
    ///
    /// # Errors
    /// [`EvaluationError`]; what was kept before stays.
    pub async fn evaluate(
        &self,
        versions: Vec<PolicyVersion>,
        incumbent: PolicyVersion,
        settings: Settings,
    ) -> Result<Vec<Evaluation>, EvaluationError> {
        let _turn = self.turn.lock().await;
        self.ground.traces.flushed().await?;
        let policies = self.asked_for(versions, &incumbent).await?;
        let given_up = Arc::new(AtomicBool::new(false));
        let _waiting = Waiting(Arc::clone(&given_up));
        let mut evaluations = Vec::with_capacity(policies.len());
        for policy in policies {
            let work = Work {
                ground: Arc::clone(&self.ground),
                incumbent: incumbent.clone(),
                settings,
                given_up: Arc::clone(&given_up),
            };
            let done = on_low_thread("evaluate", move || work.evaluate(&policy));
            let evaluation = done.await.map_err(|detail| EvaluationError::Figures { detail })??;
            let text = json::write(&to_wire(&evaluation))?;
            self.ground.ledger.set_evaluation(evaluation.version.clone(), text, self.entry(&evaluation)).await?;
            evaluations.push(evaluation);
        }
        Ok(evaluations)
    }

    /// What the audit log says of an evaluation.
    fn entry(&self, evaluation: &Evaluation) -> AuditEntry {
        let Evaluation { version, at, gain, verdict, .. } = evaluation;
        let failed: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
        let gate = if failed.is_empty() {
            "passes the gate".to_owned()
        } else {
            format!("does not pass the gate: {}", failed.join("; "))
        };
        let reason = format!("worth {:+.4} beside what ran, {gate}", gain.reward.value);
        AuditEntry::about(PolicyAction::Evaluated, version, (&*self.actor, *at), reason)
    }

    async fn asked_for(
        &self,
        versions: Vec<PolicyVersion>,
        incumbent: &PolicyVersion,
    ) -> Result<Vec<StoredPolicy>, EvaluationError> {
        let ledger: &LedgerStore = &self.ground.ledger;
        if versions.is_empty() {
            let waits = |policy: &StoredPolicy| {
                policy.fitted.artifact_bytes > 0
                    && policy.row.version != *incumbent
                    && !matches!(policy.row.state, PolicyRunState::Running | PolicyRunState::Retired)
            };
            return Ok(ledger.stored_policies().await?.into_iter().filter(waits).collect());
        }
        let mut policies = Vec::with_capacity(versions.len());
        for version in versions {
            if version == *incumbent {
                return Err(EvaluationError::Running(version));
            }
            let policy = ledger.policy(version.clone()).await?.ok_or(EvaluationError::Unknown(version))?;
            if policy.fitted.artifact_bytes == 0 {
                return Err(EvaluationError::NotFitted(policy.row.version));
            }
            policies.push(policy);
        }
        Ok(policies)
    }
}

/// The part of an evaluation that runs on its thread.
struct Work {
    ground: Arc<Ground>,
    incumbent: PolicyVersion,
    settings: Settings,
    given_up: Arc<AtomicBool>,
}

impl Work {
    fn evaluate(&self, policy: &StoredPolicy) -> Result<Evaluation, EvaluationError> {
        let Ground { state_dir, schema, artifacts, clock, .. } = &*self.ground;
        let version = policy.row.version.clone();
        let artifact = Arc::new(artifacts.load(&version, *schema)?);
        let basis = Basis::Fitted { artifact: Arc::clone(&artifact), version: version.clone() };
        let log = StoredLog::open(state_dir, Reach::default())?;
        let begin = log.feedback_at(1.0 - self.settings.held_out)?.max(policy.fitted.trained_through);
        let over = || self.given_up.load(Ordering::Acquire);
        let policy = basis.policy(&basis.fresh());
        let cases = cases::read(&log, begin, (&*policy, &artifact.projection), &self.incumbent, &over)?;
        if cases.judged.len() < JUDGED_MIN {
            return Err(EvaluationError::TooFew { version, found: cases.judged.len() });
        }
        let valued = value::value(&cases, self.settings.delta)?;
        Ok(Evaluation {
            version,
            incumbent: self.incumbent.clone(),
            at: clock.now(),
            settings: self.settings,
            held_out: cases.judged.len() as f64 / cases.judged_in_log.max(1) as f64,
            rows: cases.rows,
            estimates: valued.estimates,
            on_policy: valued.on_policy,
            gain: valued.gain,
            singles: valued.singles,
            over_single: valued.over_single,
            agreement: valued.agreement,
            calibration: valued.calibration,
            frontier: valued.frontier,
            evidence: valued.evidence,
            verdict: valued.verdict,
        })
    }
}

#[cfg(test)]
mod tests;
