//! The policy that learns online: Thompson sampling over the heads, with exact probabilities.
//!
//! Quality comes from the heads, cost from the forecasts, and they meet only here: q is the mean of
//! the logistic under the head's belief, u = q − price, and the uncertainty of q by the delta method
//! is what the sampler explores with, around the mean or above it alone ([`Scatter`]), the more widely the
//! newer a model is ([`crate::cooling`]). So a price change is felt at once and is never mistaken for a
//! change of quality.
//!
//! A policy is a snapshot: it never changes once it is made. The version names the artifact (settings
//! and schema), not the online state, so traces of one artifact share one version while it learns.

use std::f64::consts::PI;
use std::fmt::Write as _;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::cooling::Cooling;
use crate::features::SchemaHash;
use crate::heads::{Heads, Prior, Score};
use crate::ids::PolicyVersion;
use crate::inputs::{Inputs, Shape};
use crate::policy::{Ask, Completion, Contender, Estimate, Policy, PolicyKind, Scored};
use crate::selection::{Scatter, Utility, floor, picks};

/// What the artifact of a bandit is made of, beside the meaning of its features.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BanditSettings {
    /// How many inputs the heads have.
    pub shape: Shape,
    /// Where the draws lie about the mean utility.
    pub scatter: Scatter,
    /// How wide the draws are about the mean.
    pub cooling: Cooling,
    /// Probability that is spread evenly over all contenders.
    pub floor: f64,
    /// The belief about a model before any feedback; beside what is shared, about its difference.
    pub prior: Prior,
    /// The belief about what all models have in common; `None`: each is learned alone.
    pub shared: Option<Prior>,
    /// Whether a head is loosened when it no longer fits its model.
    pub alarms: bool,
    /// How much faster than alone each sparse input grows certain: n-grams of one text tell the same
    /// thing many times, and a diagonal covariance does not see it.
    pub overlap: f32,
    /// Variance of its constant that a head which was loosened gains with each label of another model, for a while.
    pub regrow: f32,
}

impl Default for BanditSettings {
    /// At cold start: the best of those tried on recorded outcomes of 32 models and on simulated topics.
    fn default() -> Self {
        Self {
            shape: Shape::COLD,
            scatter: Scatter::Around,
            cooling: Cooling::COLD_START,
            floor: 0.0,
            prior: Prior::OWN,
            shared: Some(Prior::SHARED),
            alarms: true,
            overlap: 10.0,
            regrow: 0.005,
        }
    }
}

/// Changes whenever equal settings learn or choose otherwise.
const BANDIT_VERSION: &str = "pointsman bandit 4";

impl BanditSettings {
    /// Over this many dense inputs of length about one, the constant among them, and no sparse ones: the
    /// best of those tried on the `tune` stream of the peer benchmark.
    #[must_use]
    pub fn dense(dense: usize) -> Self {
        Self {
            shape: Shape { dense, sparse: 0 },
            scatter: Scatter::Above,
            cooling: Cooling::none(0.25),
            prior: Prior { bias: 4.0, surface: 4.0, projected: 4.0, sparse: 0.0 },
            shared: None,
            regrow: 0.0,
            ..Self::default()
        }
    }

    /// Over this many dense inputs of a fitted artifact, on whose logits the heads stand. The prior is
    /// that of a model which was not fitted; the heads of those that were begin with [`Prior::FITTED`],
    /// narrowed by the rows of the fit, and at [`Cooling::FITTED_AGE`]: they are told apart already, and
    /// draws as wide as at first would cost more than they find out.
    #[must_use]
    pub fn fitted(dense: usize) -> Self {
        Self {
            shape: Shape { dense, sparse: 0 },
            cooling: Cooling { least: 0.05, ..Cooling::COLD_START },
            prior: Prior { bias: 1.0, surface: 0.02, projected: 1.0, sparse: 0.0 },
            shared: None,
            ..Self::default()
        }
    }

    /// The version of the artifact with features of this meaning: `bandit-` and 16 hex digits.
    #[must_use]
    pub fn version(&self, schema: SchemaHash) -> PolicyVersion {
        let Self { shape, scatter, cooling, floor, prior, shared, alarms, overlap, regrow } = *self;
        let mut text = format!("{BANDIT_VERSION} {:016x} {} {}", schema.0, shape.dense, shape.sparse);
        // Writing to a String cannot fail.
        for setting in [cooling.first, cooling.least, cooling.labels, floor] {
            let _ = write!(text, " {:016x}", setting.to_bits());
        }
        let _ = write!(text, " {} {}", scatter.as_str(), if alarms { "alarms" } else { "" });
        for Prior { bias, surface, projected, sparse } in [prior].into_iter().chain(shared) {
            for setting in [bias, surface, projected, sparse] {
                let _ = write!(text, " {:08x}", setting.to_bits());
            }
        }
        let _ = write!(text, " overlap {:08x} regrow {:08x}", overlap.to_bits(), regrow.to_bits());
        PolicyVersion::from(format!("bandit-{:016x}", xxh3_64(text.as_bytes())))
    }
}

/// One of those that the bandit chooses from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Its lane, where it has one.
    pub lane: Option<usize>,
    /// The logit to which its head's is added.
    pub offset: f32,
    /// The price of a call, in probabilities of being right.
    pub price: f64,
    /// Whether it is scored and must not be picked.
    pub barred: bool,
}

/// A snapshot of the bandit.
#[derive(Debug, Clone)]
pub struct BanditPolicy {
    version: PolicyVersion,
    settings: BanditSettings,
    heads: Arc<Heads>,
}

impl BanditPolicy {
    /// The policy of these heads.
    #[must_use]
    pub fn new(version: PolicyVersion, settings: BanditSettings, heads: Arc<Heads>) -> Self {
        Self { version, settings, heads }
    }

    /// The heads it reads.
    #[must_use]
    pub fn heads(&self) -> &Arc<Heads> {
        &self.heads
    }

    /// What it says of these contenders.
    pub fn estimates(&self, inputs: &Inputs, choices: impl ExactSizeIterator<Item = Choice>) -> Vec<Estimate> {
        let lanes = self.heads.score(inputs);
        let prior = self.heads.prior_score(inputs, &lanes);
        let mut estimates = Vec::with_capacity(choices.len());
        let mut utilities = Vec::with_capacity(choices.len());
        for Choice { lane, offset, price, barred } in choices {
            let Score { mean, variance } = lane.and_then(|lane| lanes.get(lane)).copied().unwrap_or(prior);
            let score = Score { mean: mean + offset, variance };
            let quality = mean_quality(score);
            let utility = quality - price;
            let width = self.settings.cooling.width(lane.map_or(0.0, |lane| self.heads.age(lane)));
            let sd = quality * (1.0 - quality) * width * f64::from(score.variance).sqrt();
            estimates.push(Estimate { quality, utility, pick: 0.0 });
            utilities.push(Utility { mean: if barred { f64::NEG_INFINITY } else { utility }, sd });
        }
        let mut picks = picks(&utilities, self.settings.scatter);
        floor(&mut picks, self.settings.floor);
        for (estimate, pick) in estimates.iter_mut().zip(picks) {
            estimate.pick = pick;
        }
        estimates
    }
}

/// The mean of σ over a Gaussian logit, σ(μ/√(1 + πv/8)) (MacKay 1992).
#[must_use]
pub fn mean_quality(score: Score) -> f64 {
    let (mean, variance) = (f64::from(score.mean), f64::from(score.variance));
    1.0 / (1.0 + libm::exp(-mean / (1.0 + PI * variance / 8.0).sqrt()))
}

impl Policy for BanditPolicy {
    fn version(&self) -> &PolicyVersion {
        &self.version
    }

    fn kind(&self) -> PolicyKind {
        PolicyKind::Bandit
    }

    fn score(&self, ask: &Ask<'_>) -> Scored {
        let inputs = Inputs::of(ask.features);
        let lane = |contender: &Contender| self.heads.lane(contender.name.as_str());
        let choices = ask.contenders.iter().map(|c| Choice {
            lane: lane(c),
            offset: 0.0,
            price: ask.objective.price(c.forecast.cost),
            barred: c.barred,
        });
        let estimates = self.estimates(&inputs, choices);
        Scored { estimates, completion: Completion::Greedy, note: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Features;
    use crate::forecast::Forecast;
    use crate::ids::{ModelName, TaskType};
    use crate::money::NanoUsd;
    use crate::policy::Objective;

    fn features() -> Features {
        Features {
            text: Vec::new(),
            surface: [0.0; 8],
            tags: Vec::new(),
            sketch: Vec::new(),
            prompt_bytes: 1,
            schema: SchemaHash(0),
        }
    }

    fn score(heads: Heads, settings: BanditSettings, objective: Objective, costs_nanos: &[i64]) -> Vec<Estimate> {
        let contenders: Vec<Contender> = costs_nanos
            .iter()
            .enumerate()
            .map(|(i, cost)| Contender {
                name: ModelName::from(format!("m{i}")),
                forecast: Forecast { cost: NanoUsd::new(*cost), latency_p95: None },
                barred: false,
            })
            .collect();
        let features = features();
        let policy = BanditPolicy::new(settings.version(SchemaHash(0)), settings, Arc::new(heads));
        let ask = Ask {
            projected: &[],
            features: &features,
            task: &TaskType::new("t"),
            objective,
            caller_ref: None,
            contenders: &contenders,
        };
        policy.score(&ask).estimates
    }

    /// Heads in which model i has this logit and variance whatever is asked.
    fn heads(beliefs: &[(f32, f32)]) -> Heads {
        let mut heads = Heads::new((Prior::OWN, None), Shape::COLD, SchemaHash(0));
        for (i, (mean, variance)) in beliefs.iter().enumerate() {
            let lane = heads.add(&ModelName::from(format!("m{i}")));
            let blocks = heads.blocks_mut();
            blocks.dense_means[lane * Shape::COLD.dense] = *mean;
            blocks.dense_covariances[lane * Shape::COLD.triangle()] = *variance;
        }
        heads
    }

    const QUALITY_ALONE: Objective = Objective { cost_weight_per_usd: 0.0 };

    #[test]
    fn models_without_feedback_are_alike_unless_one_costs() {
        let estimates = score(heads(&[]), BanditSettings::default(), QUALITY_ALONE, &[1, 2, 3]);
        assert!(estimates.iter().all(|e| (e.pick - 1.0 / 3.0).abs() < 1e-9 && (e.quality - 0.5).abs() < 1e-9));
        let priced = Objective { cost_weight_per_usd: 1e8 };
        let estimates = score(heads(&[]), BanditSettings::default(), priced, &[1, 2, 3]);
        assert!(estimates[0].pick > estimates[1].pick && estimates[1].pick > estimates[2].pick);
    }

    #[test]
    fn a_new_model_is_explored_beside_known_ones() {
        let estimates =
            score(heads(&[(1.0, 0.01), (0.0, 0.01)]), BanditSettings::default(), QUALITY_ALONE, &[1, 1, 1]);
        assert!(estimates[2].pick > 0.1, "{estimates:?}");
        assert!(estimates[1].pick < 1e-4);
        let even = BanditSettings { floor: 0.03, ..BanditSettings::default() };
        let estimates = score(heads(&[(1.0, 0.01), (0.0, 0.01)]), even, QUALITY_ALONE, &[1, 1, 1]);
        assert!(estimates[1].pick >= 0.01);
    }

    #[test]
    fn the_mean_quality_is_close_to_the_integral() {
        for (mean, variance) in [(0.0, 4.0), (1.0, 0.5), (-2.0, 2.0), (3.0, 0.0)] {
            let steps = 4_000;
            let integral: f64 = (0..steps)
                .map(|i| {
                    let z = -8.0 + 16.0 * (f64::from(i) + 0.5) / f64::from(steps);
                    let logit = f64::from(mean) + f64::from(variance).sqrt() * z;
                    (-0.5 * z * z).exp() / (2.0 * PI).sqrt() / (1.0 + (-logit).exp()) * 16.0 / f64::from(steps)
                })
                .sum();
            assert!((mean_quality(Score { mean, variance }) - integral).abs() < 0.02);
        }
    }

    #[test]
    fn the_version_is_that_of_settings_and_schema() {
        let version = |settings: BanditSettings, schema| settings.version(SchemaHash(schema));
        let one = version(BanditSettings::default(), 1);
        assert_eq!(one, version(BanditSettings::default(), 1));
        assert_ne!(one, version(BanditSettings::default(), 2));
        assert_ne!(one, version(BanditSettings { overlap: 9.0, ..BanditSettings::default() }, 1));
        assert_ne!(
            one,
            version(BanditSettings { shape: Shape { dense: 9, sparse: 0 }, ..BanditSettings::default() }, 1)
        );
        assert_ne!(one, version(BanditSettings { scatter: Scatter::Above, ..BanditSettings::default() }, 1));
        assert_eq!(one.as_str().len(), "bandit-".len() + 16);
    }
}
