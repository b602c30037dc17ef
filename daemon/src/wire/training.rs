//! What a training made, on the wire.

use std::time::Duration;

use pointsman_learner::train::{ModelReport, RoutingReport, Stage, TrainingReport};
use pointsman_proto::v1;

use super::span;

/// A stage as the wire names it.
#[must_use]
pub fn stage_to_wire(stage: Stage) -> v1::TrainingStage {
    match stage {
        Stage::Reading => v1::TrainingStage::Reading,
        Stage::FittingFeatures => v1::TrainingStage::FittingFeatures,
        Stage::FittingModels => v1::TrainingStage::FittingModels,
        Stage::Calibrating => v1::TrainingStage::Calibrating,
    }
}

/// A report as the wire carries it.
#[must_use]
pub fn report_to_wire(report: &TrainingReport, seed: u64, took: Duration) -> v1::TrainingReport {
    v1::TrainingReport {
        rows: report.rows,
        judged_rows: report.judged_rows,
        seed,
        models: report.models.iter().map(model_to_wire).collect(),
        held_out_routing: report.routing.as_ref().map(routing_to_wire),
        task_accuracy: None,
        took: Some(span(took)),
    }
}

fn model_to_wire(model: &ModelReport) -> v1::TrainedModel {
    let ModelReport {
        rows, base_rate, log_loss, auc, brier: [_, brier], calibration_error: [before, after], ..
    } = *model;
    let held_out = |figure: f64| (rows > 0).then_some(figure);
    v1::TrainedModel {
        model: model.model.as_str().to_owned(),
        rows,
        base_rate,
        log_loss: held_out(log_loss),
        auc,
        brier: held_out(brier),
        ece_before: held_out(before),
        ece_after: held_out(after),
        calibration_method: v1::CalibrationMethod::Platt.into(),
        // Reliability is kept for all models together only.
        bins: Vec::new(),
    }
}

fn routing_to_wire(routing: &RoutingReport) -> v1::HeldOutRouting {
    let RoutingReport { rows, score, best_single_score, best_single } = routing;
    let value = |value: f64| Some(v1::Estimate { value, ..v1::Estimate::default() });
    v1::HeldOutRouting {
        rows: *rows,
        score: value(*score),
        cost_usd_nanos: 0,
        best_single: Some(v1::SingleValue {
            model: best_single.as_str().to_owned(),
            value: value(*best_single_score),
            cost_usd_nanos: 0,
            rows: *rows,
        }),
    }
}
