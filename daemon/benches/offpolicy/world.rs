//! Recorded rows as matrices: scores, costs, features.

use pointsman_daemon::backends::recorded_rows::Rows;
use pointsman_learner::evaluate::reward_model::fold_of;

use crate::features;
use crate::recorded::{self, POOL_12};

/// A set of recorded rows and the pool that is routed over.
pub(crate) struct Set {
    pub(crate) name: &'static str,
    file: &'static str,
    pool: &'static [&'static str],
    /// Quality that the logging policy gives up per relative cost (cost over the pool's mean).
    pub(crate) price: f64,
}

/// The sets; an empty pool is all models of the file. On the judged set quality is near its ceiling where
/// money does not count, so its logging policy minds the price and there is something to gain.
pub(crate) const SETS: &[Set] = &[
    Set { name: "mmlu_pro", file: "mmlu_pro.jsonl.gz", pool: &POOL_12, price: 0.0 },
    Set { name: "llmrouter", file: "llmrouter_11tasks.jsonl.gz", pool: &[], price: 0.0 },
    Set { name: "paretobandit", file: "paretobandit_k4.jsonl.gz", pool: &[], price: 0.05 },
];

/// Folds of the reward models.
const FOLDS: u8 = 5;

/// The rows of a set on which every model was recorded.
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) price: f64,
    pub(crate) rows: usize,
    pub(crate) models: usize,
    /// Row after row, one score per model.
    pub(crate) scores: Vec<f64>,
    /// Row after row, one cost in USD per model; zero where it is not known.
    pub(crate) costs: Vec<f64>,
    /// What a call of each model costs on average: the forecast.
    pub(crate) forecasts: Vec<f64>,
    /// Row after row, [`features::DIMS`] numbers.
    pub(crate) features: Vec<f32>,
    pub(crate) folds: Vec<u8>,
}

impl World {
    /// Reads a set; `None` where its file is absent.
    pub(crate) fn read(set: &Set) -> anyhow::Result<Option<Self>> {
        Ok(recorded::read(set.file, set.pool)?.map(|read| Self::of(set, &read)))
    }

    fn of(set: &Set, read: &Rows) -> Self {
        let rows = &read.rows;
        let outcomes = || rows.iter().flat_map(|row| row.outcomes.iter().flatten());
        let scores = outcomes().map(|outcome| outcome.score).collect();
        let costs: Vec<f64> = outcomes().map(|outcome| outcome.cost.map_or(0.0, |cost| cost.usd())).collect();
        let models = read.models.len();
        let mut forecasts = vec![0.0; models];
        for row in costs.chunks_exact(models) {
            for (sum, cost) in forecasts.iter_mut().zip(row) {
                *sum += cost / rows.len() as f64;
            }
        }
        Self {
            name: set.name,
            price: set.price,
            rows: rows.len(),
            models,
            scores,
            costs,
            forecasts,
            features: features::of_prompts(rows.iter().map(|row| row.prompt.as_str())),
            // A prompt is a row here, so its draws are never split.
            folds: (0..rows.len() as u64).map(|row| fold_of(row, 1, FOLDS)).collect(),
        }
    }

    /// Every other row, the even or the odd ones.
    pub(crate) fn half(&self, is_odd: bool) -> Self {
        let folds: Vec<u8> = every_other(&self.folds, 1, is_odd);
        Self {
            rows: folds.len(),
            scores: every_other(&self.scores, self.models, is_odd),
            costs: every_other(&self.costs, self.models, is_odd),
            forecasts: self.forecasts.clone(),
            features: every_other(&self.features, features::DIMS, is_odd),
            folds,
            ..*self
        }
    }

    /// The mean over rows of a matrix, each row weighted by its pick probabilities.
    pub(crate) fn mean_under(&self, picks: &[f64], of: &[f64]) -> f64 {
        picks.iter().zip(of).map(|(p, x)| p * x).sum::<f64>() / self.rows as f64
    }

    /// The mean over rows of a matrix at one model each.
    pub(crate) fn mean_at(&self, choice: &[u16], of: &[f64]) -> f64 {
        let at = |(row, model): (usize, &u16)| of[row * self.models + usize::from(*model)];
        choice.iter().enumerate().map(at).sum::<f64>() / self.rows as f64
    }
}

/// Every other row of a matrix.
pub(crate) fn every_other<T: Copy>(matrix: &[T], stride: usize, is_odd: bool) -> Vec<T> {
    matrix.chunks_exact(stride).skip(usize::from(is_odd)).step_by(2).flatten().copied().collect()
}
