//! The part of PolicyService that makes candidates: Train, InstallPolicy and Evaluate.
//!
//! A training lives as long as its call: a caller that goes ends it. Whatever fails here leaves the
//! running policy as it is, because nothing here touches it.

use std::pin::Pin;

use futures_util::future::BoxFuture;
use futures_util::stream;
use pointsman_learner::train::TrainError;
use pointsman_proto::v1;
use pointsman_router::artifact::{ARTIFACT_BYTES_MAX, Artifact, ArtifactError, ArtifactKind};
use pointsman_router::check::{BadRequest, Problem};
use pointsman_router::features::SchemaHash;
use pointsman_router::ids::PolicyVersion;
use serde_json::json;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::status::{Reason, Refusal};
use super::stored::stored_to_wire;
use crate::store::artifacts::ArtifactFileError;
use crate::store::ledger::{FittedFacts, PolicyAction, StoredPolicy};
use crate::training::evaluate::{EvaluationError, Evaluator, Settings, to_wire};
use crate::training::trainer::{Progress, Trainer, TrainingError, Wish};
use crate::wire;
use crate::wire::training::stage_to_wire;

/// The longest piece of an artifact, in bytes.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// How a training is told.
pub type TrainStream = Pin<Box<dyn Stream<Item = Result<v1::TrainResponse, Status>> + Send>>;

/// Makes candidates.
#[derive(Debug, Clone)]
pub struct Candidates {
    /// Trains them.
    pub trainer: Trainer,
    /// Says what they would have been worth.
    pub evaluator: Evaluator,
}

impl Candidates {
    /// The same, in the name of this actor.
    pub(super) fn named(&self, actor: &str) -> Self {
        Self { trainer: self.trainer.named(actor), evaluator: self.evaluator.named(actor) }
    }

    /// Begins a training and tells how far it comes.
    ///
    /// # Errors
    /// A request that makes no sense, or a training under way.
    pub(super) fn train(&self, request: &v1::TrainRequest) -> Result<TrainStream, Refusal> {
        let wish = wish(request)?;
        let turn = self.trainer.turn()?;
        let (tell, told) = watch::channel(Progress::BEGIN);
        let trainer = self.trainer.clone();
        let training = Box::pin(async move { trainer.train(turn, wish, tell).await });
        Ok(Box::pin(stream::unfold(Some(Telling { training, told }), |telling| async {
            let mut telling = telling?;
            match telling.next().await {
                Ok(Told::Progress(progress)) => Some((Ok(progress_to_wire(progress)), Some(telling))),
                Ok(Told::Done(policy)) => Some((Ok(done_to_wire(&policy)), None)),
                Err(error) => Some((Err(Refusal::from(error).into()), None)),
            }
        })))
    }

    /// Takes in an artifact piece by piece.
    ///
    /// # Errors
    /// What is no sound artifact for this installation.
    pub(super) async fn install(
        &self,
        mut pieces: Streaming<v1::InstallPolicyRequest>,
    ) -> Result<v1::InstallPolicyResponse, Status> {
        let mut bytes = Vec::new();
        while let Some(v1::InstallPolicyRequest { chunk }) = pieces.message().await? {
            if chunk.len() > CHUNK_BYTES_MAX {
                let problem = Problem::TooMuch { found: chunk.len(), max: CHUNK_BYTES_MAX, unit: "bytes" };
                return Err(Refusal::from(BadRequest::of("chunk", problem)).into());
            }
            if bytes.len() + chunk.len() > ARTIFACT_BYTES_MAX {
                let message = format!("the artifact is larger than {} MiB", ARTIFACT_BYTES_MAX >> 20);
                return Err(Refusal::new(Reason::ArtifactTooLarge, message).into());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(self.take_in(bytes).await?)
    }

    /// Estimates what candidates would have been worth beside the policy that runs.
    ///
    /// # Errors
    /// A request that makes no sense, a candidate that cannot be evaluated, or too little to estimate from.
    pub(super) async fn evaluate(
        &self,
        request: v1::EvaluateRequest,
        incumbent: PolicyVersion,
    ) -> Result<v1::EvaluateResponse, Refusal> {
        let v1::EvaluateRequest { versions, held_out_fraction, delta } = request;
        let defaults = Settings::default();
        let settings = Settings {
            held_out: held_out_fraction.unwrap_or(defaults.held_out),
            delta: delta.unwrap_or(defaults.delta),
        };
        if !(settings.held_out > 0.0 && settings.held_out < 1.0) {
            return Err(Refusal::field("held_out_fraction", "must be above 0 and below 1"));
        }
        if !(settings.delta > 0.0 && settings.delta < 0.5) {
            return Err(Refusal::field("delta", "must be above 0 and below .5"));
        }
        let versions = versions.into_iter().map(PolicyVersion::from).collect();
        let evaluations = self.evaluator.evaluate(versions, incumbent, settings).await?;
        Ok(v1::EvaluateResponse { evaluations: evaluations.iter().map(to_wire).collect() })
    }

    async fn take_in(&self, bytes: Vec<u8>) -> Result<v1::InstallPolicyResponse, Refusal> {
        let schema = self.trainer.ground().schema;
        let (artifact, version, bytes) = tokio::task::spawn_blocking(move || read(bytes, schema))
            .await
            .map_err(|error| Refusal::new(Reason::Internal, error.to_string()))??;
        let origin = &artifact.origin;
        let settings = json!({"seed": origin.seed, "trained_elsewhere": true}).to_string();
        let facts = FittedFacts {
            artifact_bytes: bytes.len() as u64,
            schema: Some(schema),
            trained_rows: origin.rows,
            ..FittedFacts::default()
        };
        let (stored, new) = self
            .trainer
            .admit((artifact.kind, PolicyAction::Installed), (version, bytes), settings, facts)
            .await?;
        Ok(v1::InstallPolicyResponse { policy: Some(stored_to_wire(&stored)), repeated_install: !new })
    }
}

type Sound = (Artifact, PolicyVersion, Vec<u8>);

fn read(bytes: Vec<u8>, schema: SchemaHash) -> Result<Sound, Refusal> {
    let (artifact, version) = Artifact::from_bytes(&bytes, schema)?;
    Ok((artifact, version, bytes))
}

fn wish(request: &v1::TrainRequest) -> Result<Wish, Refusal> {
    let kind = match v1::PolicyKind::try_from(request.kind) {
        Ok(v1::PolicyKind::Classifier) => ArtifactKind::Classifier,
        Ok(v1::PolicyKind::Bandit | v1::PolicyKind::Unspecified) => ArtifactKind::Hybrid,
        Ok(v1::PolicyKind::Rules | v1::PolicyKind::Reference) | Err(_) => {
            return Err(Refusal::field("kind", "give CLASSIFIER, BANDIT or nothing"));
        }
    };
    Ok(Wish { kind, seed: request.seed, rows_max: (request.rows_max > 0).then_some(request.rows_max) })
}

/// A training under way and its reader.
struct Telling {
    training: BoxFuture<'static, Result<StoredPolicy, TrainingError>>,
    told: watch::Receiver<Progress>,
}

enum Told {
    Progress(Progress),
    Done(StoredPolicy),
}

impl Telling {
    async fn next(&mut self) -> Result<Told, TrainingError> {
        tokio::select! {
            biased;
            done = &mut self.training => done.map(Told::Done),
            Ok(()) = self.told.changed() => Ok(Told::Progress(*self.told.borrow_and_update())),
        }
    }
}

fn progress_to_wire(progress: Progress) -> v1::TrainResponse {
    let Progress { stage, share, rows, left } = progress;
    v1::TrainResponse {
        stage: stage_to_wire(stage).into(),
        progress: share,
        time_left: left.map(wire::span),
        rows,
        policy: None,
    }
}

fn done_to_wire(policy: &StoredPolicy) -> v1::TrainResponse {
    v1::TrainResponse {
        stage: v1::TrainingStage::Done.into(),
        progress: 1.0,
        time_left: None,
        rows: policy.fitted.trained_rows,
        policy: Some(stored_to_wire(policy)),
    }
}

impl From<TrainingError> for Refusal {
    fn from(error: TrainingError) -> Self {
        let message = error.to_string();
        match error {
            TrainingError::Running => Self::new(Reason::TrainingRunning, message),
            TrainingError::GivenUp | TrainingError::Rows(TrainError::GivenUp) => {
                Self::new(Reason::Draining, message)
            }
            TrainingError::Rows(TrainError::TooFew { .. } | TrainError::Thin { .. }) => {
                Self::new(Reason::TooFewTraces, message)
            }
            TrainingError::Rows(TrainError::OneClass { .. }) => Self::new(Reason::OneClass, message),
            TrainingError::Rows(TrainError::Rows(error)) | TrainingError::Store(error) => error.into(),
            TrainingError::File(error) => error.into(),
            TrainingError::Artifact(error) => error.into(),
            TrainingError::Rows(TrainError::MixedSchemas { .. } | TrainError::Shape(_))
            | TrainingError::Thread { .. } => Self::new(Reason::Internal, message),
        }
    }
}

impl From<EvaluationError> for Refusal {
    fn from(error: EvaluationError) -> Self {
        let message = error.to_string();
        match error {
            EvaluationError::Unknown(_) => Self::new(Reason::UnknownPolicy, message),
            EvaluationError::Running(_) => Self::new(Reason::AlreadyRunning, message),
            EvaluationError::NotFitted(_) => Self::field("versions", &message),
            EvaluationError::TooFew { .. } => Self::new(Reason::TooFewTraces, message),
            EvaluationError::File(error) => error.into(),
            EvaluationError::Store(error) => error.into(),
            EvaluationError::GivenUp => Self::new(Reason::Draining, message),
            EvaluationError::Figures { .. } => Self::new(Reason::Internal, message),
        }
    }
}

impl From<ArtifactFileError> for Refusal {
    fn from(error: ArtifactFileError) -> Self {
        let message = error.to_string();
        match error {
            ArtifactFileError::Io { .. } => Self::new(Reason::StoreDown, message),
            ArtifactFileError::Missing { .. } => Self::new(Reason::ArtifactDamaged, message),
            ArtifactFileError::Unusable { cause: ArtifactError::Schema { .. }, .. } => {
                Self::new(Reason::ArtifactSchema, message)
            }
            ArtifactFileError::Unusable { .. } => Self::new(Reason::ArtifactDamaged, message),
        }
    }
}

/// What a caller sent is the caller's fault, unlike a file of ours.
impl From<ArtifactError> for Refusal {
    fn from(error: ArtifactError) -> Self {
        let message = error.to_string();
        match error {
            ArtifactError::Foreign
            | ArtifactError::Truncated
            | ArtifactError::Damaged
            | ArtifactError::Format { .. } => Self::new(Reason::ArtifactCorrupt, message),
            ArtifactError::Schema { .. } => Self::new(Reason::ArtifactSchema, message),
            ArtifactError::Unwritable { .. } => Self::new(Reason::Internal, message),
        }
    }
}
