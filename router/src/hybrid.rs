//! The bandit that begins from a fitted artifact: what was fitted is where it starts, what it learns
//! online is added.
//!
//! The logit of a model is its fitted, calibrated logit plus its head's over the dense inputs. A fitted
//! model's head begins at zero, and as certain as the rows that it was fitted on make it; a model that
//! was not fitted begins at the mean logit of the others and knows nothing of itself, so it is
//! explored. Everything else (draw, floor, probabilities) is the bandit's.

use std::sync::Arc;

use crate::artifact::Artifact;
use crate::bandit::{BanditPolicy, Choice};
use crate::features::Features;
use crate::forecast::Leans;
use crate::ids::{PolicyVersion, TaskType};
use crate::inputs::Inputs;
use crate::policy::{Ask, Completion, Policy, PolicyKind, Scored};

/// A snapshot of it.
#[derive(Debug, Clone)]
pub struct HybridPolicy {
    artifact: Arc<Artifact>,
    bandit: BanditPolicy,
}

impl HybridPolicy {
    /// What was fitted, and the heads that were learned on it.
    #[must_use]
    pub fn new(artifact: Arc<Artifact>, bandit: BanditPolicy) -> Self {
        Self { artifact, bandit }
    }
}

/// What an artifact says of a request, for the heads that stand on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The inputs of the heads.
    pub inputs: Inputs,
    logits: Vec<f32>,
    mean: f32,
}

impl Standing {
    /// From what the artifact's projection made of the request.
    #[must_use]
    pub fn of(artifact: &Artifact, projected: &[f32]) -> Self {
        let logits = artifact.quality.logits(projected);
        let mean = logits.iter().sum::<f32>() / logits.len().max(1) as f32;
        let dense = projected.get(..artifact.projection.width()).unwrap_or_default().to_vec();
        Self { inputs: Inputs { dense, sparse: Vec::new() }, logits, mean }
    }

    /// The logit from which the head of a model goes on.
    #[must_use]
    pub fn logit(&self, artifact: &Artifact, model: &str) -> f32 {
        let at = artifact.quality.models.iter().position(|name| name.as_str() == model);
        at.and_then(|at| self.logits.get(at)).copied().unwrap_or(self.mean)
    }
}

impl Policy for HybridPolicy {
    fn version(&self) -> &PolicyVersion {
        self.bandit.version()
    }

    fn kind(&self) -> PolicyKind {
        PolicyKind::Bandit
    }

    fn project(&self, features: &Features) -> Vec<f32> {
        self.artifact.projection.project(features)
    }

    fn infer_task(&self, projected: &[f32]) -> Option<TaskType> {
        self.artifact.infer_task(projected)
    }

    fn leans(&self, projected: &[f32], prompt_bytes: u32, model: &str) -> Leans {
        self.artifact.leans(projected, prompt_bytes, model)
    }

    fn score(&self, ask: &Ask<'_>) -> Scored {
        let standing = Standing::of(&self.artifact, ask.projected);
        let heads = self.bandit.heads();
        let choices = ask.contenders.iter().map(|contender| Choice {
            lane: heads.lane(contender.name.as_str()),
            offset: standing.logit(&self.artifact, contender.name.as_str()),
            price: ask.objective.price(contender.forecast.cost),
            barred: contender.barred,
        });
        let estimates = self.bandit.estimates(&standing.inputs, choices);
        Scored { estimates, completion: Completion::Greedy, note: None }
    }
}
