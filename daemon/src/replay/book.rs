//! What the rows themselves say, before anything is routed: best single model, random, oracle.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_learner::reference::TrueScores;
use pointsman_router::ids::ModelName;
use serde::Serialize;

use crate::backends::recorded_rows::{Row, Rows};

/// The model that is best on its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BestSingle {
    /// Its name.
    pub name: String,
    /// Its mean score over the routed rows that have it.
    pub score: f64,
    /// What it was chosen on: `train` rows, `warm` rows, or the routed rows in `hindsight`.
    pub by: &'static str,
}

/// Mean score of each model over the rows that have it, by the model's place in the pool.
pub(super) fn means(rows: &Rows) -> Vec<Option<f64>> {
    (0..rows.models.len()).map(|model| mean(rows.rows.iter().filter_map(|row| score(row, model)))).collect()
}

/// The recorded score of a model on a row.
pub(super) fn score(row: &Row, model: usize) -> Option<f64> {
    row.outcomes.get(model)?.as_ref().map(|recorded| recorded.score)
}

/// The best single model of those that the rows have: chosen on what was seen before, which has a
/// name, else in hindsight.
pub(super) fn best_single(rows: &Rows, seen: Option<(&Rows, &'static str)>) -> Option<BestSingle> {
    let (chosen_on, by) = seen.unwrap_or((rows, "hindsight"));
    let here = means(rows);
    let at = |(model, mean): (usize, Option<f64>)| {
        let name = chosen_on.models.get(model)?;
        let score = here.get(rows.model_index(name)?).copied().flatten()?;
        Some((mean?, BestSingle { name: name.clone(), score, by }))
    };
    let best = means(chosen_on).into_iter().enumerate().filter_map(at).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, best)| best)
}

/// Mean over the rows of the mean score of the models they have.
pub(super) fn random(rows: &Rows) -> f64 {
    mean(rows.rows.iter().filter_map(|row| mean(scores(row)))).unwrap_or(0.0)
}

/// Mean over the rows of the best score.
pub(super) fn oracle(rows: &Rows) -> f64 {
    mean(rows.rows.iter().filter_map(|row| scores(row).reduce(f64::max))).unwrap_or(0.0)
}

/// All recorded scores by row and model.
pub(super) fn true_scores(rows: &Rows) -> Arc<TrueScores> {
    let by_row = rows.rows.iter().map(|row| {
        let by_model: BTreeMap<ModelName, f64> = rows
            .models
            .iter()
            .enumerate()
            .filter_map(|(i, model)| Some((ModelName::new(model), score(row, i)?)))
            .collect();
        (row.id.clone(), by_model)
    });
    Arc::new(by_row.collect())
}

fn scores(row: &Row) -> impl Iterator<Item = f64> {
    row.outcomes.iter().flatten().map(|recorded| recorded.score)
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum) = values.fold((0.0, 0.0), |(n, sum), value| (n + 1.0, sum + value));
    (n > 0.0).then(|| sum / n)
}
