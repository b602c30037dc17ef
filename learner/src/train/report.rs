//! What a training came to, on the rows that it held out.

use pointsman_router::ids::ModelName;
use pointsman_router::quality::{Platt, Quality};
use serde::{Deserialize, Serialize};

use super::sample::Sample;
use crate::evaluate::calibration::{Bin, Prediction, calibration};
use crate::fit::expense::Explained;

/// How well one model's probability of being right is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// The model.
    pub model: ModelName,
    /// Judged rows that were held out.
    pub rows: u64,
    /// Its mean score on them.
    pub base_rate: f64,
    /// Mean cross-entropy of the calibrated probability.
    pub log_loss: f64,
    /// Share of pairs of a better and a worse row that the probability orders so; absent where all are alike.
    pub auc: Option<f64>,
    /// Brier score before and after calibration.
    pub brier: [f64; 2],
    /// Expected calibration error, 15 bins, before and after calibration.
    pub calibration_error: [f64; 2],
    /// What the features explain of its costs and times beyond the size of a prompt.
    pub explained: Explained,
}

/// What routing by the predicted qualities scores, beside the best single model, on held-out rows of
/// which more than one model was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoutingReport {
    /// Such rows.
    pub rows: u64,
    /// Mean score of the model that is predicted best among those judged.
    pub score: f64,
    /// Mean score of the model that was best on the other rows.
    pub best_single_score: f64,
    /// That model.
    pub best_single: ModelName,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingReport {
    /// Rows that were read.
    pub rows: u64,
    /// Judged rows that were fitted on.
    pub judged_rows: u64,
    /// Labels on them.
    pub labels: u64,
    /// The models that were fitted.
    pub models: Vec<ModelReport>,
    /// Reliability of all calibrated probabilities together: count, mean probability, mean score.
    pub reliability: Vec<(u64, f64, f64)>,
    /// Routing, where several models were judged on the same rows.
    pub routing: Option<RoutingReport>,
}

/// Rows on which several models were judged, at least, for a figure on routing.
const ROUTED_ROWS_MIN: usize = 50;

/// Reports on the held-out rows, from `kept` on, whose scores these are.
pub(super) fn report(
    sample: &Sample,
    quality: &Quality,
    platt: &[Platt],
    (kept, scores): (usize, &[Vec<f32>]),
    explained: &[Explained],
) -> TrainingReport {
    let held_out = sample.rows.get(kept..).unwrap_or_default();
    let mut all = Vec::new();
    let models = quality.models.iter().zip(platt).enumerate().map(|(lane, (model, platt))| {
        let label_of =
            |labels: &[(usize, f32)]| labels.iter().find(|(l, _)| *l == lane).map(|(_, y)| f64::from(*y));
        let pairs: Vec<(f32, f64)> = held_out
            .iter()
            .zip(scores)
            .filter_map(|(row, scores)| Some((*scores.get(lane)?, label_of(&row.labels)?)))
            .collect();
        let raw = pairs.iter().map(|(score, label)| prediction(f64::from(*score), *label)).collect::<Vec<_>>();
        let told = pairs.iter().map(|(score, label)| prediction(sigmoid(platt.logit(*score)), *label));
        let told = told.collect::<Vec<_>>();
        all.extend_from_slice(&told);
        let explained = explained.get(lane).copied().unwrap_or_default();
        ModelReport { explained, ..model_report(model, &raw, &told) }
    });
    let models = models.collect();
    let bins = calibration(&all).map(|c| c.bins).unwrap_or_default();
    TrainingReport {
        rows: sample.read,
        judged_rows: sample.rows.len() as u64,
        labels: sample.labels(),
        models,
        reliability: bins.iter().map(|Bin { count, probability, score }| (*count, *probability, *score)).collect(),
        routing: routing(sample, &quality.means, (kept, scores)),
    }
}

fn prediction(probability: f64, score: f64) -> Prediction {
    Prediction { probability: probability.clamp(0.0, 1.0), score }
}

fn sigmoid(logit: f32) -> f64 {
    1.0 / (1.0 + libm::exp(-f64::from(logit)))
}

fn model_report(model: &ModelName, raw: &[Prediction], told: &[Prediction]) -> ModelReport {
    let figures = |of: &[Prediction]| calibration(of).map_or((0.0, 0.0), |c| (c.brier, c.expected_error));
    let ((brier_raw, error_raw), (brier, error)) = (figures(raw), figures(told));
    let n = told.len().max(1) as f64;
    let loss = |p: &Prediction| {
        let held = p.probability.clamp(1e-6, 1.0 - 1e-6);
        -(p.score * libm::log(held) + (1.0 - p.score) * libm::log(1.0 - held))
    };
    ModelReport {
        model: model.clone(),
        rows: told.len() as u64,
        base_rate: told.iter().map(|p| p.score).sum::<f64>() / n,
        log_loss: told.iter().map(loss).sum::<f64>() / n,
        auc: auc(told),
        brier: [brier_raw, brier],
        calibration_error: [error_raw, error],
        explained: Explained::default(),
    }
}

/// The area under the curve by ranks (Mann & Whitney 1947), right being a score of a half or more; ties
/// count half.
fn auc(predictions: &[Prediction]) -> Option<f64> {
    let mut ranked: Vec<(f64, bool)> = predictions.iter().map(|p| (p.probability, p.score >= 0.5)).collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let right = ranked.iter().filter(|(_, right)| *right).count() as f64;
    let wrong = ranked.len() as f64 - right;
    let (mut sum, mut before) = (0.0, 0.0);
    for group in ranked.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let size = group.len() as f64;
        let right_here = group.iter().filter(|(_, right)| *right).count() as f64;
        sum += right_here * (before + (size + 1.0) / 2.0);
        before += size;
    }
    (right > 0.0 && wrong > 0.0).then(|| (sum - right * (right + 1.0) / 2.0) / (right * wrong))
}

fn routing(sample: &Sample, means: &[f32], (kept, scores): (usize, &[Vec<f32>])) -> Option<RoutingReport> {
    let held_out = sample.rows.get(kept..).unwrap_or_default();
    let best = (0..means.len()).reduce(|a, b| if means.get(b) > means.get(a) { b } else { a })?;
    let (mut n, mut sum, mut single) = (0, 0.0, 0.0);
    for (row, scores) in held_out.iter().zip(scores).filter(|(row, _)| row.labels.len() > 1) {
        let Some((_, of_best)) = row.labels.iter().find(|(lane, _)| *lane == best) else { continue };
        let score = |lane: usize| scores.get(lane).copied().unwrap_or(f32::MIN);
        let chosen = row.labels.iter().copied().reduce(|a, b| if score(b.0) > score(a.0) { b } else { a });
        n += 1;
        sum += chosen.map_or(0.0, |(_, label)| f64::from(label));
        single += f64::from(*of_best);
    }
    (n >= ROUTED_ROWS_MIN).then(|| RoutingReport {
        rows: n as u64,
        score: sum / n as f64,
        best_single_score: single / n as f64,
        best_single: sample.models.get(best).cloned().unwrap_or_else(|| ModelName::new("")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_under_the_curve_counts_pairs() {
        let check = |pairs: &[(f64, f64)], wanted: Option<f64>| {
            let predictions: Vec<Prediction> = pairs.iter().map(|(p, s)| prediction(*p, *s)).collect();
            assert_eq!(auc(&predictions), wanted);
        };
        check(&[(0.1, 0.0), (0.9, 1.0)], Some(1.0));
        check(&[(0.9, 0.0), (0.1, 1.0)], Some(0.0));
        check(&[(0.5, 0.0), (0.5, 1.0)], Some(0.5));
        // Of 2 × 2 pairs three are in order.
        check(&[(0.2, 0.0), (0.6, 0.0), (0.4, 1.0), (0.8, 1.0)], Some(0.75));
        check(&[(0.2, 1.0)], None);
    }
}
