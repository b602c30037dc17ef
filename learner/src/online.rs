//! The online state of the bandit: what feedback and outcomes have taught so far.
//!
//! [`Online`] is the one owner of the numbers. Feedback teaches the quality heads in ledger sequence,
//! outcomes teach the forecasts in trace sequence, and both marks are kept beside them, so a restart
//! goes on exactly behind the last row that counted. The numbers depend on the order of the calls
//! and on nothing else: no clock, no chance, no machine's own mathematics, so a rebuild from all rows
//! equals the state that was reached live, bit for bit.
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
//! A label that was withdrawn leaves the certainty behind that it brought; if one comes again later,
//! it counts as a first one.

mod state;
mod update;

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::bandit::{BanditPolicy, BanditSettings};
use pointsman_router::features::{Features, SchemaHash};
use pointsman_router::forecast::Forecasts;
use pointsman_router::heads::{Heads, Inputs};
use pointsman_router::ids::{ModelName, PolicyVersion};
use pointsman_router::money::NanoUsd;
use pointsman_router::policy::Snapshot;

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

/// What one call of one model that replied did cost and take.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The model.
    pub model: &'a ModelName,
    /// UTF-8 bytes that were sent.
    pub prompt_bytes: u32,
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
    forecasts: Arc<Forecasts>,
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
            heads: Arc::new(Heads::new(settings.prior, schema)),
            forecasts: Arc::new(Forecasts::default()),
            feedback_mark: 0,
            trace_mark: 0,
        }
    }

    /// Takes in one label. Rows come in ledger sequence; one row may bring several lessons. Features of
    /// another schema, and labels that are not numbers, teach nothing, but the mark moves.
    pub fn teach(&mut self, seq: u64, lesson: &Lesson<'_>) {
        self.feedback_mark = self.feedback_mark.max(seq);
        let label = |y: Option<f64>| y.filter(|y| y.is_finite()).map(|y| y.clamp(0.0, 1.0));
        let (old, new) = (label(lesson.old), label(lesson.new));
        if lesson.features.schema != self.heads.schema() || (old.is_none() && new.is_none()) {
            return;
        }
        let inputs = Inputs::of(lesson.features);
        let heads = Arc::make_mut(&mut self.heads);
        let lane = heads.add(lesson.model);
        let reading = update::read(heads, lane, &inputs);
        match (old, new) {
            (None, Some(y)) => {
                reading.shift(heads, y - reading.probability());
                reading.narrow(heads, f64::from(self.settings.overlap));
            }
            (Some(a), Some(b)) => reading.shift(heads, b - a),
            (Some(a), None) => reading.shift(heads, reading.probability() - a),
            (None, None) => {}
        }
    }

    /// Takes in what a call did cost and take. Rows come in trace sequence; one row may bring several.
    pub fn observe(&mut self, seq: u64, call: &Call<'_>) {
        self.trace_mark = self.trace_mark.max(seq);
        let seen = Arc::make_mut(&mut self.forecasts).models.entry(call.model.clone()).or_default();
        seen.tokens_out.observe(call.prompt_bytes, call.tokens_out as f64);
        seen.cost_nanos.observe(call.prompt_bytes, call.cost.nanos() as f64);
        seen.latency_us.observe(call.prompt_bytes, call.latency.as_micros() as f64);
    }

    /// Moves the marks over rows that teach nothing.
    pub fn pass(&mut self, feedback_seq: u64, trace_seq: u64) {
        self.feedback_mark = self.feedback_mark.max(feedback_seq);
        self.trace_mark = self.trace_mark.max(trace_seq);
    }

    /// The policy of this moment; cheap.
    #[must_use]
    pub fn policy(&self) -> BanditPolicy {
        BanditPolicy::new(self.version.clone(), self.settings, Arc::clone(&self.heads))
    }

    /// What a request pins: the policy and the forecasts of this moment; cheap.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { policy: Arc::new(self.policy()), forecasts: Arc::clone(&self.forecasts) }
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
