//! The policy of a fitted artifact that learns nothing more: it picks by predicted utility.
//!
//! Quality is calibrated ([`crate::quality`]), cost comes from the forecasts, which lean as the artifact says, and the pick is the
//! best of them; what is kept for exploration is spread evenly, so every propensity stays above zero
//! where an operator wants to learn from the log. A model that was not fitted has the mean quality of
//! those that were, less what nobody knows: it is explored by the bandit, not by this policy.

use std::sync::Arc;

use crate::artifact::Artifact;
use crate::features::Features;
use crate::forecast::Leans;
use crate::ids::{PolicyVersion, TaskType};
use crate::policy::{Ask, Completion, Estimate, Policy, PolicyKind, Scored};
use crate::selection::floor;

/// A fitted artifact that decides.
#[derive(Debug, Clone)]
pub struct ClassifierPolicy {
    version: PolicyVersion,
    artifact: Arc<Artifact>,
    floor: f64,
}

impl ClassifierPolicy {
    /// Decides by this artifact; `floor` is spread evenly over the contenders.
    #[must_use]
    pub fn new(version: PolicyVersion, artifact: Arc<Artifact>, floor: f64) -> Self {
        Self { version, artifact, floor }
    }
}

impl Policy for ClassifierPolicy {
    fn version(&self) -> &PolicyVersion {
        &self.version
    }

    fn kind(&self) -> PolicyKind {
        PolicyKind::Classifier
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
        let quality = &self.artifact.quality;
        let logits = quality.logits(ask.projected);
        let fitted: Vec<f64> = logits.into_iter().map(|logit| sigmoid(f64::from(logit))).collect();
        let mean = fitted.iter().sum::<f64>() / fitted.len().max(1) as f64;
        let mut estimates: Vec<Estimate> = ask
            .contenders
            .iter()
            .map(|contender| {
                let at = quality.models.iter().position(|model| *model == contender.name);
                let quality = at.and_then(|at| fitted.get(at)).copied().unwrap_or(mean * UNFITTED);
                Estimate { quality, utility: ask.objective.utility(quality, contender.forecast.cost), pick: 0.0 }
            })
            .collect();
        let able = |i: &usize| ask.contenders.get(*i).is_some_and(|c| !c.barred);
        let key =
            |i: usize| estimates.get(i).map(|e| e.utility).zip(ask.contenders.get(i).map(|c| c.forecast.cost));
        let best = (0..estimates.len()).filter(able).reduce(|best, i| match (key(best), key(i)) {
            (Some((b, b_cost)), Some((u, u_cost))) if u > b || (u >= b && u_cost < b_cost) => i,
            _ => best,
        });
        let mut picks = vec![0.0; estimates.len()];
        if let Some(pick) = best.and_then(|best| picks.get_mut(best)) {
            *pick = 1.0;
        }
        floor(&mut picks, self.floor);
        for (estimate, pick) in estimates.iter_mut().zip(picks) {
            estimate.pick = pick;
        }
        Scored { estimates, completion: Completion::Greedy, note: None }
    }
}

/// What of the fitted models' mean quality a model is given that was not fitted.
const UNFITTED: f64 = 0.9;

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-logit))
}
