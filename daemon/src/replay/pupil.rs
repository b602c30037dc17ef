//! The policy under replay and how it learns between rows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::Context as _;
use pointsman_learner::basis::Basis;
use pointsman_learner::online::{Call, Lesson, Online};
use pointsman_learner::reference::{BestSingle, ContextFree, Oracle, Random, TrueScores};
use pointsman_learner::rows::{InMemory, TrainingRow};
use pointsman_learner::train::{TrainSettings, train};
use pointsman_router::artifact::ArtifactKind;
use pointsman_router::bandit::BanditSettings;
use pointsman_router::features::{Features, SchemaHash};
use pointsman_router::ids::ModelName;
use pointsman_router::policy::{Policy, Snapshot};
use pointsman_router::rules::RulesPolicy;
use pointsman_router::trace::Trace;

use super::Whose;

/// What a pupil may know beforehand.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// The pool in its given order.
    pub(super) pool: Vec<ModelName>,
    /// The best single model.
    pub(super) best_single: ModelName,
    /// The true scores; only the oracle looks.
    pub(super) scores: Arc<TrueScores>,
}

/// A policy and its state.
#[derive(Debug, Clone)]
pub(super) struct Pupil {
    /// Learns costs and latencies for every policy, and quality for the bandit.
    online: Online,
    seq: u64,
    choice: Choice,
}

#[derive(Debug, Clone)]
enum Choice {
    /// What was fed so far, to be fitted on once it is all there.
    Unfitted(ArtifactKind, Vec<TrainingRow>),
    Bandit,
    ContextFree(ContextFree),
    Fixed(Arc<dyn Policy>),
}

impl Pupil {
    /// `None` for a policy that is reckoned and not run.
    pub(super) fn new(whose: Whose, known: &Known, schema: SchemaHash) -> Option<Self> {
        let choice = match whose {
            Whose::Classifier => Choice::Unfitted(ArtifactKind::Classifier, Vec::new()),
            Whose::Hybrid => Choice::Unfitted(ArtifactKind::Hybrid, Vec::new()),
            Whose::Bandit => Choice::Bandit,
            Whose::ContextFree => Choice::ContextFree(ContextFree::default()),
            Whose::Rules => Choice::Fixed(Arc::new(RulesPolicy::new(BTreeMap::new(), known.pool.clone()))),
            Whose::BestSingle => Choice::Fixed(Arc::new(BestSingle::new(known.best_single.clone()))),
            Whose::Random => Choice::Fixed(Arc::new(Random::default())),
            Whose::Mix2 => return None,
            Whose::Oracle => Choice::Fixed(Arc::new(Oracle::new(Arc::clone(&known.scores)))),
        };
        Some(Self { online: Online::new(BanditSettings::default(), schema), seq: 0, choice })
    }

    /// What serves now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let policy: Arc<dyn Policy> = match &self.choice {
            Choice::Unfitted(..) => Arc::new(Random::default()),
            Choice::Bandit => self.online.policy(),
            Choice::ContextFree(policy) => Arc::new(policy.clone()),
            Choice::Fixed(policy) => Arc::clone(policy),
        };
        Snapshot { policy, forecasts: Arc::clone(self.online.forecasts()) }
    }

    /// A stand-in for while the pupil learns: see [`super::stand::LatestPolicy::publish`].
    pub(super) fn stand_in() -> Snapshot {
        Snapshot { policy: Arc::new(Random::default()), forecasts: Arc::default() }
    }

    /// Takes in a row of which everything is known, before anything is routed.
    pub(super) fn feed(&mut self, row: TrainingRow) {
        for seen in &row.seen {
            if let Some(label) = seen.label {
                self.learn(&row.features, &seen.model, label);
            }
        }
        self.observe_seen(&row);
        if let Choice::Unfitted(_, rows) = &mut self.choice {
            rows.push(row);
        }
    }

    /// Fits what is to be fitted before the first row is routed.
    ///
    /// # Errors
    /// There is not enough to fit on.
    pub(super) fn begin(&mut self, seed: u64) -> anyhow::Result<()> {
        let Choice::Unfitted(kind, rows) = &mut self.choice else { return Ok(()) };
        let (kind, rows) = (*kind, InMemory { schema: None, rows: std::mem::take(rows) });
        let settings = TrainSettings { kind, seed, ..TrainSettings::default() };
        let trained = train(&rows, &settings, &mut |_, _| ControlFlow::Continue(()))
            .context("give rows to fit on, by --train-fraction or --warm")?;
        let (_, version) = trained.artifact.to_bytes()?;
        let basis = Basis::Fitted { artifact: Arc::new(trained.artifact), version };
        self.online = basis.fresh();
        rows.rows.iter().for_each(|row| self.observe_seen(row));
        self.choice = if basis.learns() { Choice::Bandit } else { Choice::Fixed(basis.policy(&self.online)) };
        Ok(())
    }

    fn observe_seen(&mut self, row: &TrainingRow) {
        let projected = self.online.project(&row.features);
        for seen in &row.seen {
            self.observe_call(&Call {
                model: &seen.model,
                prompt_bytes: row.features.prompt_bytes,
                projected: &projected,
                tokens_out: seen.tokens_out,
                cost: seen.cost,
                latency: seen.latency,
            });
        }
    }

    /// Takes in what a model scored on a request.
    pub(super) fn learn(&mut self, features: &Features, model: &ModelName, score: f64) {
        self.seq += 1;
        match &mut self.choice {
            Choice::Bandit => {
                self.online.teach(self.seq, &Lesson { features, model, old: None, new: Some(score) });
            }
            Choice::ContextFree(policy) => policy.learn(model, score),
            Choice::Unfitted(..) | Choice::Fixed(_) => {}
        }
    }

    /// Takes in what the calls of a request cost.
    pub(super) fn observe(&mut self, trace: &Trace) {
        let projected = self.online.project(&trace.features);
        for outcome in trace.outcomes.iter().filter(|outcome| outcome.replied) {
            self.observe_call(&Call {
                model: &outcome.model,
                prompt_bytes: trace.features.prompt_bytes,
                projected: &projected,
                tokens_out: outcome.tokens_out,
                cost: outcome.cost,
                latency: outcome.latency,
            });
        }
    }

    /// Takes in what one call cost.
    pub(super) fn observe_call(&mut self, call: &Call<'_>) {
        self.online.observe(self.seq, call);
    }
}
