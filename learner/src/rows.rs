//! The rows that training and evaluation read: one per decision, whatever it was logged by.
//!
//! A source can be read again and again, always the same rows in the same order, because fitting
//! takes several passes and never holds all of them. Rows are ordered by time, oldest first: what is
//! held out is the end.

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::features::{Features, SchemaHash};
use pointsman_router::ids::{ModelName, TaskType};
use pointsman_router::money::NanoUsd;

/// What is known of one called model on one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The model.
    pub model: ModelName,
    /// How right it was, in [0, 1]; `None` where nobody said.
    pub label: Option<f64>,
    /// Output tokens; zero where they are not known.
    pub tokens_out: u64,
    /// What it cost; zero where it is not known.
    pub cost: NanoUsd,
    /// How long it took; zero where it is not known.
    pub latency: Duration,
}

/// How the choice was made, where it was logged with its probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct Logged {
    /// The models that could have been chosen, by name, each with its expected cost.
    pub eligible: Vec<(ModelName, NanoUsd)>,
    /// The chosen set, the first pick first.
    pub set: Vec<ModelName>,
    /// The probability with which exactly this set was chosen.
    pub propensity: f64,
    /// The most models that could have been called.
    pub calls_max: u32,
    /// Quality given up per dollar.
    pub cost_weight_per_usd: f64,
    /// How right the merged answer was, in [0, 1]; `None` where nobody said.
    pub reward: Option<f64>,
    /// What all calls of the request cost.
    pub cost: NanoUsd,
}

/// One decision.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingRow {
    /// What tells it from others, equal in every pass; rows of one prompt may share it, and are then
    /// never split between folds.
    pub key: u64,
    /// What the policy saw.
    pub features: Arc<Features>,
    /// The task type, where the caller named it.
    pub task: Option<TaskType>,
    /// The models that were called.
    pub seen: Vec<Seen>,
    /// How they were chosen.
    pub logged: Option<Logged>,
}

impl TrainingRow {
    /// The models that were judged, and their labels in [0, 1] as they are fitted on.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&ModelName, f32)> {
        self.seen.iter().filter_map(|seen| {
            let label = seen.label.filter(|label| label.is_finite())?;
            #[expect(clippy::cast_possible_truncation, reason = "a score in [0, 1]")]
            let label = label.clamp(0.0, 1.0) as f32;
            Some((&seen.model, label))
        })
    }
}

/// Rows as they are read; what reading meets comes in place of a row.
pub type RowReading<'a, E> = Box<dyn Iterator<Item = Result<TrainingRow, E>> + 'a>;

/// A source of rows that can be read again and again.
pub trait Rows {
    /// What reading may meet.
    type Error: std::error::Error + Send + Sync + 'static;

    /// What the features of all rows mean.
    fn schema(&self) -> SchemaHash;

    /// About how many rows there are, for progress.
    fn len_hint(&self) -> u64;

    /// All rows, oldest first; every call gives the same.
    ///
    /// # Errors
    /// What opening the source met; what reading met comes in place of a row.
    fn read(&self) -> Result<RowReading<'_, Self::Error>, Self::Error>;
}

/// Rows that are in memory.
#[derive(Debug, Clone, Default)]
pub struct InMemory {
    /// What their features mean.
    pub schema: Option<SchemaHash>,
    /// The rows.
    pub rows: Vec<TrainingRow>,
}

impl Rows for InMemory {
    type Error = std::convert::Infallible;

    fn schema(&self) -> SchemaHash {
        self.schema.or_else(|| self.rows.first().map(|row| row.features.schema)).unwrap_or(SchemaHash(0))
    }

    fn len_hint(&self) -> u64 {
        self.rows.len() as u64
    }

    fn read(&self) -> Result<RowReading<'_, Self::Error>, Self::Error> {
        Ok(Box::new(self.rows.iter().cloned().map(Ok)))
    }
}
