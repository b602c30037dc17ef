//! The rows that are kept: all judged ones, or an even share of them; and what all say of the means.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use pointsman_router::features::Features;
use pointsman_router::forecast::log_bytes;
use pointsman_router::ids::{ModelName, TaskType};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{ROWS_MIN, Stage, TrainError, go_on};
use crate::fit::expense::Spent;
use crate::fit::ridge::Labels;
use crate::rows::{Rows, Seen, TrainingRow};

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
    /// What the calls of fitted models came to, judged or not.
    pub(super) spent: Vec<Spent>,
    /// The task type, where the caller named it.
    pub(super) task: Option<TaskType>,
}

/// The rows that are fitted on, in their order.
#[derive(Debug)]
pub(super) struct Sample {
    /// The models that are fitted, by name; their places are the lanes.
    pub(super) models: Vec<ModelName>,
    pub(super) rows: Vec<Judged>,
    /// What every judged row says of each lane's mean.
    sums: Vec<Sum>,
    /// Rows that were read, judged or not.
    pub(super) read: u64,
    /// Judged rows that were not kept.
    left_out: u64,
}

/// Labels added up.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    labels: f64,
    count: u64,
}

impl Sum {
    pub(super) fn add(&mut self, label: f32) {
        self.labels += f64::from(label);
        self.count += 1;
    }
}

/// Mean labels, shrunk a little towards the mean of all.
pub(super) fn means(sums: &[Sum]) -> Vec<f32> {
    let count = sums.iter().map(|sum| sum.count).sum::<u64>().max(1);
    let all = sums.iter().map(|sum| sum.labels).sum::<f64>() / count as f64;
    #[expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]
    let mean = |sum: &Sum| ((sum.labels + all) / (sum.count as f64 + 1.0)) as f32;
    sums.iter().map(mean).collect()
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
        let (mut kept, mut read, mut left_out) = (Vec::new(), 0_u64, 0_u64);
        let mut sums: Vec<Sum> = Vec::new();
        for row in rows.read().map_err(TrainError::Rows)? {
            let row = row.map_err(TrainError::Rows)?;
            read += 1;
            if read.is_multiple_of(TOLD_EVERY) {
                go_on(tell(Stage::Reading, 0.25 * (read as f64 / hint.max(read) as f64)))?;
            }
            if row.features.schema != schema {
                return Err(TrainError::MixedSchemas { found: row.features.schema.0, expected: schema.0 });
            }
            let said = named(&row, &mut names);
            sums.resize(names.len(), Sum::default());
            for (place, label) in &said.labels {
                if let Some(sum) = sums.get_mut(*place) {
                    sum.add(*label);
                }
            }
            if said.labels.is_empty() {
                continue;
            }
            if kept.len() < rows_max && is_kept(row.key) {
                kept.push(said);
            } else {
                left_out += 1;
            }
        }
        Ok(Self { read, left_out, ..Self::of(kept, &names, &sums)? })
    }

    /// Gives each model with enough rows its lane.
    fn of<E>(kept: Vec<Judged>, names: &BTreeMap<ModelName, usize>, sums: &[Sum]) -> Result<Self, TrainError<E>> {
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
        let (mut models, mut fitted) = (Vec::new(), Vec::new());
        for (name, place) in names {
            if let (Some(lane), true) =
                (lanes.get_mut(*place), counts.get(*place).is_some_and(|n| *n >= MODEL_ROWS_MIN))
            {
                *lane = Some(models.len());
                models.push(name.clone());
                fitted.push(sums.get(*place).copied().unwrap_or_default());
            }
        }
        let rows: Vec<Judged> = kept
            .into_iter()
            .map(|Judged { features, labels, spent, task }| {
                let lane = |place: usize| lanes.get(place).copied().flatten();
                let labels = labels.into_iter().filter_map(|(place, label)| Some((lane(place)?, label)));
                let mut labels: Labels = labels.collect();
                in_order(&mut labels);
                let spent = spent.into_iter().filter_map(|of| Some(Spent { lane: lane(of.lane)?, ..of }));
                let mut spent: Vec<Spent> = spent.collect();
                spent.sort_by_key(|of| of.lane);
                spent.dedup_by_key(|of| of.lane);
                Judged { features, labels, spent, task }
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
        Ok(Self { models, rows, sums: fitted, read: 0, left_out: 0 })
    }

    /// ln(prompt bytes) of each row, and what its calls came to.
    pub(super) fn spent(&self) -> Vec<(f64, &[Spent])> {
        self.rows.iter().map(|row| (log_bytes(row.features.prompt_bytes), row.spent.as_slice())).collect()
    }

    /// Whether every judged row was kept.
    pub(super) fn is_whole(&self) -> bool {
        self.left_out == 0
    }

    /// The mean label of each lane, over all rows.
    pub(super) fn means(&self) -> Vec<f32> {
        means(&self.sums)
    }

    /// Labels on the rows that were kept.
    pub(super) fn labels(&self) -> u64 {
        self.rows.iter().map(|row| row.labels.len() as u64).sum()
    }

    /// Labels on all rows.
    pub(super) fn labels_read(&self) -> u64 {
        self.sums.iter().map(|sum| sum.count).sum()
    }
}

/// The judged models by the order in which they were first met; of others nothing is kept.
fn named(row: &TrainingRow, names: &mut BTreeMap<ModelName, usize>) -> Judged {
    let mut labels = Labels::with_capacity(row.seen.len());
    for (model, label) in row.labels() {
        let next = names.len();
        labels.push((*names.entry(model.clone()).or_insert(next), label));
    }
    let of = |seen: &Seen| {
        // Zero says that it is not known.
        let log = |x: f64| (x > 0.0).then(|| libm::log(x));
        let latency = seen.latency.as_micros() as f64;
        let logs = [log(seen.tokens_out as f64), log(seen.cost.nanos() as f64), log(latency)];
        Some(Spent { lane: *names.get(&seen.model)?, logs })
    };
    let spent = row.seen.iter().filter_map(of).filter(|of| of.logs.iter().any(Option::is_some)).collect();
    Judged { features: Arc::clone(&row.features), labels, spent, task: row.task.clone() }
}

/// Brings labels into the order of their lanes; of a lane that is told twice the first counts.
pub(super) fn in_order(labels: &mut Labels) {
    labels.sort_by_key(|(lane, _)| *lane);
    labels.dedup_by_key(|(lane, _)| *lane);
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
