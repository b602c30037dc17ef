//! The rows that are fitted on: all judged ones, or an even share of them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use pointsman_router::features::Features;
use pointsman_router::ids::{ModelName, TaskType};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{ROWS_MIN, Stage, TrainError, go_on};
use crate::fit::ridge::Labels;
use crate::rows::{Rows, TrainingRow};

/// A model is fitted from so many judged rows on.
const MODEL_ROWS_MIN: usize = 30;
/// Rows between two tellings of how far reading is.
const TOLD_EVERY: u64 = 4_096;

/// One judged row.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    pub(super) features: Arc<Features>,
    /// Lane and label of each judged model that is fitted.
    pub(super) labels: Labels,
    /// The task type, where the caller named it.
    pub(super) task: Option<TaskType>,
}

/// The rows that are fitted on, in their order.
#[derive(Debug)]
pub(super) struct Sample {
    /// The models that are fitted, by name; their places are the lanes.
    pub(super) models: Vec<ModelName>,
    pub(super) rows: Vec<Judged>,
    /// Rows that were read, judged or not.
    pub(super) read: u64,
}

impl Sample {
    /// Reads the source once.
    pub(super) fn read<R: Rows>(
        rows: &R,
        rows_max: usize,
        seed: u64,
        tell: &mut dyn FnMut(Stage, f64) -> ControlFlow<()>,
    ) -> Result<Self, TrainError<R::Error>> {
        let (hint, schema) = (rows.len_hint(), rows.schema());
        let is_kept = |key: u64| xxh3_64_with_seed(&key.to_le_bytes(), seed) <= threshold(rows_max, hint);
        let mut names: BTreeMap<ModelName, usize> = BTreeMap::new();
        let (mut kept, mut read) = (Vec::new(), 0_u64);
        for row in rows.read().map_err(TrainError::Rows)? {
            let row = row.map_err(TrainError::Rows)?;
            read += 1;
            if read.is_multiple_of(TOLD_EVERY) {
                go_on(tell(Stage::Reading, 0.3 * (read as f64 / hint.max(read) as f64)))?;
            }
            if row.features.schema != schema {
                return Err(TrainError::MixedSchemas { found: row.features.schema.0, expected: schema.0 });
            }
            let judged = row.seen.iter().any(|seen| seen.label.is_some());
            if judged && kept.len() < rows_max && is_kept(row.key) {
                kept.push(named(&row, &mut names));
            }
        }
        Self::of(kept, &names, read)
    }

    /// Gives each model with enough rows its lane.
    fn of<E>(kept: Vec<Judged>, names: &BTreeMap<ModelName, usize>, read: u64) -> Result<Self, TrainError<E>> {
        let judged = kept.len();
        if judged < ROWS_MIN {
            return Err(TrainError::TooFew { found: judged, needed: ROWS_MIN });
        }
        let mut counts = vec![0_usize; names.len()];
        for (place, _) in kept.iter().flat_map(|row| &row.labels) {
            if let Some(count) = counts.get_mut(*place) {
                *count += 1;
            }
        }
        let mut lanes = vec![None; names.len()];
        let mut models = Vec::new();
        for (name, place) in names {
            if let (Some(lane), true) =
                (lanes.get_mut(*place), counts.get(*place).is_some_and(|n| *n >= MODEL_ROWS_MIN))
            {
                *lane = Some(models.len());
                models.push(name.clone());
            }
        }
        let rows: Vec<Judged> = kept
            .into_iter()
            .map(|Judged { features, labels, task }| {
                let lane = |place: usize| lanes.get(place).copied().flatten();
                let labels = labels.into_iter().filter_map(|(place, label)| Some((lane(place)?, label)));
                Judged { features, labels: labels.collect(), task }
            })
            .filter(|row| !row.labels.is_empty())
            .collect();
        if rows.len() < ROWS_MIN {
            return Err(TrainError::Thin { judged, found: rows.len(), needed: ROWS_MIN });
        }
        let mut labels = rows.iter().flat_map(|row| row.labels.iter().map(|(_, label)| *label));
        let first = labels.next().unwrap_or(0.0);
        if labels.all(|label| label.to_bits() == first.to_bits()) {
            return Err(TrainError::OneClass { score: first });
        }
        Ok(Self { models, rows, read })
    }

    /// Each row with the lanes of the models that were judged on it.
    pub(super) fn judged(&self) -> impl Iterator<Item = (&Features, impl Iterator<Item = usize>)> {
        self.rows.iter().map(|row| (&*row.features, row.labels.iter().map(|(lane, _)| *lane)))
    }

    /// Labels that are fitted on.
    pub(super) fn labels(&self) -> u64 {
        self.rows.iter().map(|row| row.labels.len() as u64).sum()
    }
}

/// The judged models by the order in which they were first met.
fn named(row: &TrainingRow, names: &mut BTreeMap<ModelName, usize>) -> Judged {
    let mut labels = Labels::with_capacity(row.seen.len());
    for seen in &row.seen {
        if let Some(label) = seen.label.filter(|label| label.is_finite()) {
            let next = names.len();
            let place = *names.entry(seen.model.clone()).or_insert(next);
            #[expect(clippy::cast_possible_truncation, reason = "a score in [0, 1]")]
            labels.push((place, label.clamp(0.0, 1.0) as f32));
        }
    }
    Judged { features: Arc::clone(&row.features), labels, task: row.task.clone() }
}

/// Hashes up to this are kept, so that about `rows_max` of `hint` rows are.
fn threshold(rows_max: usize, hint: u64) -> u64 {
    let share = rows_max as f64 / hint.max(1) as f64;
    if share >= 1.0 {
        return u64::MAX;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the whole range")]
    let threshold = (share * u64::MAX as f64) as u64;
    threshold
}
