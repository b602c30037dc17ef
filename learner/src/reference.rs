//! Yardsticks: policies that no user would run and every learner is held against.
//!
//! They live here and never in `router`, so that none of them can ever serve. Random, oracle, best
//! single and a context-free Thompson sampler run through the same pipeline as a real policy, so a
//! difference in score is a difference in choosing and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_router::ids::{ModelName, PolicyVersion};
use pointsman_router::policy::{Ask, Completion, Estimate, Policy, PolicyKind, Scored};
use pointsman_router::selection::{Utility, thompson};

/// What a yardstick assumes of a model that it knows nothing about.
const UNKNOWN_QUALITY: f64 = 0.5;

/// Picks every contender with the same probability.
#[derive(Debug, Clone)]
pub struct Random(PolicyVersion);

impl Default for Random {
    fn default() -> Self {
        Self(PolicyVersion::new("random"))
    }
}

impl Policy for Random {
    fn version(&self) -> &PolicyVersion {
        &self.0
    }

    fn kind(&self) -> PolicyKind {
        PolicyKind::Reference
    }

    fn score(&self, ask: &Ask<'_>) -> Scored {
        let pick = 1.0 / ask.contenders.len() as f64;
        scored(ask, |_| UNKNOWN_QUALITY, |_| pick)
    }
}

/// Always picks the same model; where that is missing, the cheapest there is.
#[derive(Debug, Clone)]
pub struct BestSingle {
    version: PolicyVersion,
    model: ModelName,
}

impl BestSingle {
    /// The policy that always picks `model`.
    #[must_use]
    pub fn new(model: ModelName) -> Self {
        Self { version: PolicyVersion::new("best-single"), model }
    }
}

impl Policy for BestSingle {
    fn version(&self) -> &PolicyVersion {
        &self.version
    }

    fn kind(&self) -> PolicyKind {
        PolicyKind::Reference
    }

    fn score(&self, ask: &Ask<'_>) -> Scored {
        greedy(ask, |name| if *name == self.model { 1.0 } else { 0.0 })
    }
}

/// The true scores of each row, by the caller's own id of the request.
pub type TrueScores = BTreeMap<String, BTreeMap<ModelName, f64>>;

/// Knows every model's true score on every row and picks the best, ties to the cheaper.
#[derive(Debug, Clone)]
pub struct Oracle {
    version: PolicyVersion,
    scores: Arc<TrueScores>,
}

impl Oracle {
    /// The policy that knows these scores.
    #[must_use]
    pub fn new(scores: Arc<TrueScores>) -> Self {
        Self { version: PolicyVersion::new("oracle"), scores }
    }
}

impl Policy for Oracle {
    fn version(&self) -> &PolicyVersion {
        &self.version
    }

    fn kind(&self) -> PolicyKind {
        PolicyKind::Reference
    }

    fn score(&self, ask: &Ask<'_>) -> Scored {
        let row = ask.caller_ref.and_then(|caller_ref| self.scores.get(caller_ref));
        greedy(ask, |name| row.and_then(|row| row.get(name)).copied().unwrap_or(0.0))
    }
}

/// Thompson sampling that sees nothing of the request: a Beta posterior per model, drawn from by
/// its normal approximation so that the pick probabilities are exact like everybody's.
#[derive(Debug, Clone)]
pub struct ContextFree {
    version: PolicyVersion,
    counts: Arc<BTreeMap<ModelName, [f64; 2]>>,
}

impl Default for ContextFree {
    fn default() -> Self {
        Self { version: PolicyVersion::new("context-free"), counts: Arc::default() }
    }
}

impl ContextFree {
    /// Takes in what a call scored, in [0, 1].
    pub fn learn(&mut self, model: &ModelName, score: f64) {
        let [right, wrong] = Arc::make_mut(&mut self.counts).entry(model.clone()).or_insert([1.0, 1.0]);
        *right += score;
        *wrong += 1.0 - score;
    }

    /// Mean and standard deviation of the Beta posterior.
    fn posterior(&self, model: &ModelName) -> (f64, f64) {
        let [right, wrong] = self.counts.get(model).copied().unwrap_or([1.0, 1.0]);
        let n = right + wrong;
        (right / n, (right * wrong / (n * n * (n + 1.0))).sqrt())
    }
}

impl Policy for ContextFree {
    fn version(&self) -> &PolicyVersion {
        &self.version
    }

    fn kind(&self) -> PolicyKind {
        PolicyKind::Reference
    }

    fn score(&self, ask: &Ask<'_>) -> Scored {
        let utilities: Vec<Utility> = ask
            .contenders
            .iter()
            .map(|c| {
                let (mean, sd) = self.posterior(&c.name);
                Utility { mean: ask.objective.utility(mean, c.forecast.cost), sd }
            })
            .collect();
        let picks = thompson(&utilities);
        scored(ask, |name| self.posterior(name).0, |i| picks.get(i).copied().unwrap_or(0.0))
    }
}

/// Picks the contender of the highest utility, ties to the cheaper.
fn greedy(ask: &Ask<'_>, quality: impl Fn(&ModelName) -> f64) -> Scored {
    let key = |i: usize| {
        ask.contenders.get(i).map(|c| (ask.objective.utility(quality(&c.name), c.forecast.cost), c.forecast.cost))
    };
    let best = (0..ask.contenders.len()).reduce(|best, i| match (key(best), key(i)) {
        (Some((b, b_cost)), Some((u, u_cost))) if u > b || (u >= b && u_cost < b_cost) => i,
        _ => best,
    });
    scored(ask, quality, |i| if Some(i) == best { 1.0 } else { 0.0 })
}

fn scored(ask: &Ask<'_>, quality: impl Fn(&ModelName) -> f64, pick: impl Fn(usize) -> f64) -> Scored {
    let estimates = ask.contenders.iter().enumerate().map(|(i, c)| {
        let quality = quality(&c.name);
        Estimate { quality, utility: ask.objective.utility(quality, c.forecast.cost), pick: pick(i) }
    });
    Scored { estimates: estimates.collect(), completion: Completion::Greedy, note: None }
}
