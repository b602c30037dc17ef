//! The online state of the bandit: what feedback and outcomes have taught so far.
//!
//! [`Online`] is the one owner of the numbers. Feedback teaches the quality heads in ledger sequence,
//! outcomes teach the forecasts in trace sequence, and both marks are kept beside them, so a restart
//! goes on exactly behind the last row that counted. The numbers depend on the order of the calls
//! and on nothing else: no clock, no chance, no machine's own mathematics, so a rebuild from all rows
//! equals the state that was reached live, bit for bit.
//!
//! What a fitted artifact says of a request's cost and latency beyond its size is taken off before the
//! forecasts learn, and put on again where they are read ([`pointsman_router::expense`]).
//!
//! Readers get snapshots behind an `Arc`. While a snapshot is alive, the next lesson copies the heads
//! (about 50 KiB per model); where none is, as in a replay that drops its snapshot first, nothing is
//! copied.
//!
//! # What a label does
//!
//! | before | now | effect |
//! |---|---|---|
//! | none | y | one extended Kalman step: means and covariance (RECIPES: online Laplace logistic) |
//! | a | b | correction: m += Σz(b − a)/(1 + wv), covariance untouched |
//! | a | none | withdrawn: the same with b = the present prediction, as if it had been no surprise |
//! | none | none | nothing |
//!
//! Each step is one of the model's own head and of the shared one together, since their sum is what the
//! label speaks of. A first label makes all heads one label older.
//!
//! A label that was withdrawn leaves the certainty behind that it brought; if one comes again later,
//! it counts as a first one.
//!
//! # Change
//!
//! First labels also drive the tests of [`crate::drift`]; corrections and withdrawals do not, or one row
//! would count twice. When a lane's alarm rings, that lane alone is loosened: it keeps its mean, its
//! variances grow, and it explores and learns as if it were nearly new. When the cost or latency of a model
//! moved, its forecast begins anew. What moved is kept as the last alerts.
//!
//! # Who says it
//!
//! A label of a source that departs from the others counts for a part or for nothing ([`crate::sources`]): error
//! and certainty are multiplied by its weight, and it drives no alarm.

mod changes;
mod certainty;
mod loosen;
mod state;
mod update;

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::artifact::Artifact;
use pointsman_router::bandit::{BanditPolicy, BanditSettings};
use pointsman_router::cooling::Cooling;
use pointsman_router::features::{Features, SchemaHash};
use pointsman_router::forecast::{Forecasts, Leans, LogLine};
use pointsman_router::heads::Heads;
use pointsman_router::hybrid::{HybridPolicy, Standing};
use pointsman_router::ids::{ModelName, PolicyVersion};
use pointsman_router::inputs::Inputs;
use pointsman_router::money::NanoUsd;
use pointsman_router::policy::{Policy, Snapshot};

use crate::drift::{Alert, Watched};
use crate::sources::{Heard, Sources, Witness};

pub use self::certainty::certainty;
pub use self::changes::ALERTS_MAX;
use self::changes::{Changes, Found};
pub use self::state::StateError;

/// What one row of feedback says of one model.
#[derive(Debug, Clone, Copy)]
pub struct Lesson<'a> {
    /// The features of the decision, as its trace keeps them.
    pub features: &'a Features,
    /// The model.
    pub model: &'a ModelName,
    /// The label in [0, 1] that counted until now.
    pub old: Option<f64>,
    /// The label in [0, 1] that counts from now on.
    pub new: Option<f64>,
}

/// The same for whoever makes the inputs of the heads without [`Features`].
#[derive(Debug, Clone, Copy)]
pub struct InputLesson<'a> {
    /// The inputs of the decision; another number of dense ones than the heads have teaches nothing.
    pub inputs: &'a Inputs,
    /// The logit to which the head's is added.
    pub offset: f32,
    /// The model.
    pub model: &'a ModelName,
    /// The label in [0, 1] that counted until now.
    pub old: Option<f64>,
    /// The label in [0, 1] that counts from now on.
    pub new: Option<f64>,
}

/// What one call of one model that replied did cost and take.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The model.
    pub model: &'a ModelName,
    /// UTF-8 bytes that were sent.
    pub prompt_bytes: u32,
    /// What [`Online::project`] makes of the request's features.
    pub projected: &'a [f32],
    /// Output tokens; zero when they are not known.
    pub tokens_out: u64,
    /// What it cost; zero when it is not known.
    pub cost: NanoUsd,
    /// How long it took.
    pub latency: Duration,
}

/// The online state of one artifact.
#[derive(Debug, Clone)]
pub struct Online {
    settings: BanditSettings,
    version: PolicyVersion,
    heads: Arc<Heads>,
    /// What the heads stand on, where they do not begin from nothing.
    artifact: Option<Arc<Artifact>>,
    forecasts: Arc<Forecasts>,
    changes: Changes,
    sources: Sources,
    feedback_mark: u64,
    trace_mark: u64,
}

impl Online {
    /// A state that has seen nothing.
    #[must_use]
    pub fn new(settings: BanditSettings, schema: SchemaHash) -> Self {
        Self {
            settings,
            version: settings.version(schema),
            heads: Arc::new(Heads::new((settings.prior, settings.shared), settings.shape, schema)),
            artifact: None,
            forecasts: Arc::new(Forecasts::default()),
            changes: Changes::default(),
            sources: Sources::default(),
            feedback_mark: 0,
            trace_mark: 0,
        }
    }

    /// A state that has seen nothing beyond what an artifact was fitted on.
    #[must_use]
    pub fn fitted(artifact: Arc<Artifact>, version: PolicyVersion) -> Self {
        let (schema, shape) = (artifact.projection.schema(), artifact.shape());
        let mut online = Self { version, ..Self::new(BanditSettings::fitted(shape.dense), schema) };
        let heads = Arc::make_mut(&mut online.heads);
        for model in &artifact.quality.models {
            heads.add(model);
        }
        let blocks = heads.blocks_mut();
        blocks.dense_covariances.iter_mut().zip(&artifact.certainty).for_each(|(cell, begin)| *cell = *begin);
        blocks.ages.fill(Cooling::FITTED_AGE);
        Self { artifact: Some(artifact), ..online }
    }

    /// Takes in one label. Rows come in ledger sequence; one row may bring several lessons. Features of
    /// another schema, and labels that are not numbers, teach nothing, but the mark moves.
    pub fn teach(&mut self, seq: u64, lesson: &Lesson<'_>) {
        self.teach_by(seq, lesson, None);
    }

    /// The same where it is known who says so.
    pub fn teach_by(&mut self, seq: u64, lesson: &Lesson<'_>, from: Option<Witness<'_>>) {
        let Lesson { features, model, old, new } = *lesson;
        if features.schema != self.heads.schema() || (old.is_none() && new.is_none()) {
            self.feedback_mark = self.feedback_mark.max(seq);
            return;
        }
        let (inputs, offset) = match &self.artifact {
            None => (Inputs::of(features), 0.0),
            Some(artifact) => {
                let standing = Standing::of(artifact, &artifact.projection.project(features));
                let offset = standing.logit(artifact, model.as_str());
                (standing.inputs, offset)
            }
        };
        self.teach_inputs_by(seq, &InputLesson { inputs: &inputs, offset, model, old, new }, from);
    }

    /// The same where the inputs are there already.
    pub fn teach_inputs(&mut self, seq: u64, lesson: &InputLesson<'_>) {
        self.teach_inputs_by(seq, lesson, None);
    }

    /// The same where it is known who says so.
    pub fn teach_inputs_by(&mut self, seq: u64, lesson: &InputLesson<'_>, from: Option<Witness<'_>>) {
        self.feedback_mark = self.feedback_mark.max(seq);
        let InputLesson { inputs, offset, model, old, new } = *lesson;
        let label = |y: Option<f64>| y.filter(|y| y.is_finite()).map(|y| y.clamp(0.0, 1.0));
        let (old, new) = (label(old), label(new));
        if inputs.dense.len() != self.heads.shape().dense || (old.is_none() && new.is_none()) {
            return;
        }
        let heads = Arc::make_mut(&mut self.heads);
        let lane = heads.add(model);
        let mut reading = update::read(heads, lane, (inputs, offset));
        let (weight, was_misled) = match (from, old, new) {
            (Some(from), None, Some(label)) => {
                self.sources.hear(from, &Heard { lane, label, predicted: reading.quality() })
            }
            (Some(from), ..) => (self.sources.weigh(from), false),
            (None, ..) => (1.0, false),
        };
        if was_misled {
            (0..heads.models().len()).for_each(|lane| loosen::loosen(heads, lane));
            reading = update::read(heads, lane, (inputs, offset));
        }
        reading = reading.weighed(weight);
        match (old, new) {
            (None, Some(y)) => {
                let found = Found { seq, label: y, predicted: reading.quality() };
                if weight >= 1.0 && self.changes.label((lane, model), found, self.settings.alarms) {
                    loosen::loosen(heads, lane);
                    reading = update::read(heads, lane, (inputs, offset));
                }
                reading.shift(heads, y - reading.probability());
                reading.narrow(heads, f64::from(self.settings.overlap));
                update::grow_older(heads);
                let changed = self.changes.changed().filter(|other| *other != lane);
                changed.for_each(|other| loosen::regrow(heads, other, self.settings.regrow));
            }
            (Some(a), Some(b)) => reading.shift(heads, b - a),
            (Some(a), None) => reading.shift(heads, reading.probability() - a),
            (None, None) => {}
        }
    }

    /// What the artifact makes of the features of a row, for its calls; empty where there is none.
    #[must_use]
    pub fn project(&self, features: &Features) -> Vec<f32> {
        let of = self.artifact.as_ref().filter(|artifact| artifact.projection.schema() == features.schema);
        of.map(|artifact| artifact.projection.project(features)).unwrap_or_default()
    }

    /// Takes in what a call did cost and take, freed of what the artifact says of the request. Rows come in trace sequence; one row may bring several.
    pub fn observe(&mut self, seq: u64, call: &Call<'_>) {
        self.trace_mark = self.trace_mark.max(seq);
        let Call { model, prompt_bytes, projected, tokens_out, cost, latency } = *call;
        let leans = self.artifact.as_ref().map(|fitted| fitted.leans(projected, prompt_bytes, model.as_str()));
        let leans = leans.unwrap_or(Leans::NONE);
        let upright = |found: f64, lean: f64| found * libm::exp(-lean);
        let cost = upright(cost.nanos() as f64, leans.cost);
        let latency = upright(latency.as_micros() as f64, leans.latency);
        let seen = Arc::make_mut(&mut self.forecasts).models.entry(model.clone()).or_default();
        seen.tokens_out.observe(prompt_bytes, upright(tokens_out as f64, leans.tokens_out));
        let lines =
            [(Watched::Cost, &mut seen.cost_nanos, cost), (Watched::Latency, &mut seen.latency_us, latency)];
        for (what, line, found) in lines {
            if let Some(forecast) = line.predict(prompt_bytes).filter(|_| found > 0.0)
                && self.changes.call(model, what, seq, (libm::log(found), forecast))
            {
                *line = LogLine::default();
            }
            line.observe(prompt_bytes, found);
        }
    }

    /// Moves the marks over rows that teach nothing.
    pub fn pass(&mut self, feedback_seq: u64, trace_seq: u64) {
        self.feedback_mark = self.feedback_mark.max(feedback_seq);
        self.trace_mark = self.trace_mark.max(trace_seq);
    }

    /// The heads as a bandit, without what they stand on; cheap.
    #[must_use]
    pub fn bandit(&self) -> BanditPolicy {
        BanditPolicy::new(self.version.clone(), self.settings, Arc::clone(&self.heads))
    }

    /// The policy of this moment; cheap.
    #[must_use]
    pub fn policy(&self) -> Arc<dyn Policy> {
        match &self.artifact {
            None => Arc::new(self.bandit()),
            Some(artifact) => Arc::new(HybridPolicy::new(Arc::clone(artifact), self.bandit())),
        }
    }

    /// What a request pins: the policy and the forecasts of this moment; cheap.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { policy: self.policy(), forecasts: Arc::clone(&self.forecasts) }
    }

    /// The artifact whose state this is.
    #[must_use]
    pub fn version(&self) -> &PolicyVersion {
        &self.version
    }

    /// The settings of the artifact.
    #[must_use]
    pub fn settings(&self) -> &BanditSettings {
        &self.settings
    }

    /// The quality heads.
    #[must_use]
    pub fn heads(&self) -> &Arc<Heads> {
        &self.heads
    }

    /// The forecasts of cost and latency.
    #[must_use]
    pub fn forecasts(&self) -> &Arc<Forecasts> {
        &self.forecasts
    }

    /// The last alerts, oldest first, [`ALERTS_MAX`] at most.
    pub fn alerts(&self) -> impl ExactSizeIterator<Item = &Alert> {
        self.changes.alerts.iter()
    }

    /// How many alerts there ever were: who remembers it knows how many of the last are new.
    #[must_use]
    pub fn alerts_total(&self) -> u64 {
        self.changes.alerts_total
    }

    /// How often the head of a model was loosened because it no longer fitted.
    #[must_use]
    pub fn resets(&self, model: &str) -> u64 {
        let lane = self.heads.lane(model).and_then(|lane| self.changes.lanes.get(lane));
        lane.map_or(0, |(alarm, _)| alarm.resets)
    }

    /// What is remembered of those who gave labels.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Sequence number of the last feedback row taken in; zero before any.
    #[must_use]
    pub fn feedback_mark(&self) -> u64 {
        self.feedback_mark
    }

    /// Sequence number of the last trace taken in; zero before any.
    #[must_use]
    pub fn trace_mark(&self) -> u64 {
        self.trace_mark
    }
}

impl PartialEq for Online {
    /// Equal to the bit, marks included.
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

#[cfg(test)]
mod tests;
