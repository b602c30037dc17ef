//! What a training made, as text for people.

use pointsman_client::v1;

use crate::cli::tables::{Look, NONE, estimate, percent, score_or_none, span, usd_of_nanos, word};

/// The report of a training: a row for each model, then what routing by it earns.
pub(crate) fn text(look: &Look, report: &v1::TrainingReport) -> String {
    let rows = report.models.iter().map(|model| {
        vec![
            model.model.clone(),
            model.rows.to_string(),
            score_or_none(Some(model.base_rate)),
            score_or_none(model.log_loss),
            score_or_none(model.auc),
            score_or_none(model.brier),
            score_or_none(model.ece_before),
            score_or_none(model.ece_after),
            word(model.calibration_method().as_str_name(), "CALIBRATION_METHOD_"),
        ]
    });
    let titles = [
        "model",
        ">judged",
        ">right",
        ">log loss",
        ">AUC",
        ">Brier",
        ">ECE before",
        ">ECE after",
        "calibrated by",
    ];
    let mut text = look.table(&titles, rows.collect());
    text += &look.pairs(&[
        ("rows", format!("{}, {} of them judged", report.rows, report.judged_rows)),
        ("seed", report.seed.to_string()),
        ("held-out routing", routing(report.held_out_routing.as_ref())),
        ("best single model", single(report.held_out_routing.as_ref())),
        ("task types named rightly", report.task_accuracy.map(percent).unwrap_or_default()),
        ("took", report.took.as_ref().map(span).unwrap_or_default()),
    ]);
    text
}

fn routing(found: Option<&v1::HeldOutRouting>) -> String {
    let Some(found) = found else { return NONE.to_owned() };
    let cost = usd_of_nanos(found.cost_usd_nanos);
    format!("{} at {cost} a request, on {} rows", estimate(found.score.as_ref()), found.rows)
}

fn single(found: Option<&v1::HeldOutRouting>) -> String {
    let Some(best) = found.and_then(|found| found.best_single.as_ref()) else { return NONE.to_owned() };
    let cost = usd_of_nanos(best.cost_usd_nanos);
    format!("{} with {} at {cost} a request", best.model, estimate(best.value.as_ref()))
}
