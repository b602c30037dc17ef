//! An evaluation as the wire carries it, and as it is kept with its policy.

use pointsman_learner::evaluate::calibration::{Bin, Calibration};
use pointsman_learner::evaluate::estimate::Estimate;
use pointsman_learner::evaluate::gate::{Evidence, GateSettings, Reason};
use pointsman_proto::v1;
use pointsman_router::money::NanoUsd;

use super::{Evaluation, FrontierPoint, Single};
use crate::wire::timestamp;

/// The evaluation as a message.
#[must_use]
pub fn to_wire(evaluation: &Evaluation) -> v1::Evaluation {
    let Evaluation { estimates, on_policy, gain, evidence, settings, .. } = evaluation;
    // A log without a single row of the candidate's own has no self-normalised estimate: absent, and no NaN.
    let told =
        |estimate: &Estimate| estimate.value.is_finite().then(|| estimate_to_wire(estimate, settings.delta));
    let singles: Vec<v1::SingleValue> =
        evaluation.singles.iter().map(|single| single_to_wire(single, settings.delta)).collect();
    v1::Evaluation {
        version: evaluation.version.as_str().to_owned(),
        incumbent_version: evaluation.incumbent.as_str().to_owned(),
        evaluated_at: Some(timestamp(evaluation.at)),
        rows: evaluation.rows,
        judged_rows: estimates.rows as u64,
        effective_sample_size: estimates.effective_sample_size,
        ips: told(&estimates.ips),
        snips: told(&estimates.snips),
        direct: told(&estimates.direct),
        doubly_robust: told(&estimates.doubly_robust),
        incumbent: told(&on_policy.doubly_robust),
        difference: told(&gain.reward),
        cost_usd_nanos: nanos(evidence.cost_usd),
        incumbent_cost_usd_nanos: nanos(on_policy.cost.value),
        best_single: singles.first().cloned(),
        singles,
        agreement_share: evaluation.agreement,
        calibration: evaluation.calibration.as_ref().map(calibration_to_wire),
        frontier: evaluation.frontier.iter().map(|point| point_to_wire(point, settings.delta)).collect(),
        gate: Some(gate_to_wire(evaluation)),
        held_out_fraction: evaluation.held_out,
        delta: settings.delta,
        unsupported_share: estimates.unsupported,
        difference_to_single: evaluation.over_single.as_ref().and_then(told),
        cost_max_usd_nanos: Some(nanos(evidence.ceiling_usd)),
    }
}

fn estimate_to_wire(estimate: &Estimate, delta: f64) -> v1::Estimate {
    let known = |bound: f64| bound.is_finite().then_some(bound);
    v1::Estimate {
        value: estimate.value,
        lower: known(estimate.lower(delta)),
        upper: known(estimate.upper(delta)),
    }
}

fn nanos(usd: f64) -> i64 {
    // More than money can be is as much as money can be.
    NanoUsd::from_usd(usd.max(0.0)).unwrap_or(NanoUsd::MAX).nanos()
}

fn single_to_wire(single: &Single, delta: f64) -> v1::SingleValue {
    v1::SingleValue {
        model: single.model.as_str().to_owned(),
        value: Some(estimate_to_wire(&single.value, delta)),
        cost_usd_nanos: nanos(single.cost_usd),
        rows: single.rows,
    }
}

fn point_to_wire(point: &FrontierPoint, delta: f64) -> v1::FrontierPoint {
    v1::FrontierPoint {
        cost_weight_per_dollar: point.weight_per_usd,
        cost_usd_nanos: nanos(point.cost_usd),
        value: Some(estimate_to_wire(&point.value, delta)),
    }
}

fn calibration_to_wire(calibration: &Calibration) -> v1::Calibration {
    let width = 1.0 / calibration.bins.len().max(1) as f64;
    let bin = |(at, bin): (usize, &Bin)| v1::ReliabilityBin {
        predicted_from: at as f64 * width,
        predicted_to: (at + 1) as f64 * width,
        rows: bin.count,
        predicted_mean: bin.probability,
        right_mean: bin.score,
    };
    v1::Calibration {
        rows: calibration.bins.iter().map(|bin| bin.count).sum(),
        ece: calibration.expected_error,
        brier: calibration.brier,
        bins: calibration.bins.iter().enumerate().filter(|(_, bin)| bin.count > 0).map(bin).collect(),
    }
}

/// All conditions, those that hold too, each with its figures.
fn gate_to_wire(evaluation: &Evaluation) -> v1::Gate {
    let Evaluation { evidence, verdict, settings, .. } = evaluation;
    let failed = |name: &str| verdict.reasons.iter().find(|reason| condition(reason) == name);
    let reasons = holding(evidence, settings.delta).into_iter().map(|(name, message)| {
        let failed = failed(name);
        v1::GateReason {
            name: name.to_owned(),
            // Where the evidence is no number nothing is known to hold.
            holds: failed.is_none() && !verdict.reasons.contains(&Reason::NotANumber),
            message: failed.map_or(message, ToString::to_string),
        }
    });
    v1::Gate { passes: verdict.passes(), reasons: reasons.collect() }
}

/// The condition that a reason breaks.
fn condition(reason: &Reason) -> &'static str {
    match reason {
        Reason::NotBetter { .. } | Reason::NotShownBetter { .. } | Reason::NotANumber => "SHOWN_BETTER",
        Reason::Unsupported { .. } => "SUPPORTED",
        Reason::TooFewAlike { .. } => "ENOUGH_ALIKE",
        Reason::TooDear { .. } => "WITHIN_COST",
        Reason::BelowSingle { .. } => "NOT_BELOW_SINGLE",
    }
}

/// The conditions with what is said of each that holds.
fn holding(evidence: &Evidence, delta: f64) -> [(&'static str, String); 5] {
    let Evidence { effective_sample_size, unsupported, gain, cost_usd, ceiling_usd, over_single, .. } = evidence;
    let lower = gain.reward.lower(delta);
    let wanted = GateSettings::default().effective_sample_size_min;
    let single = over_single.map_or_else(
        || "no single model was judged often enough to compare with".to_owned(),
        |over| format!("against the best single model it gains {:+.4}", over.value),
    );
    [
        ("SHOWN_BETTER", format!("it gains {:+.4}, at least {lower:+.4}", gain.reward.value)),
        ("SUPPORTED", format!("the log could not have drawn {:.1} % of its choices", 100.0 * unsupported)),
        (
            "ENOUGH_ALIKE",
            format!("the log counts as {effective_sample_size:.0} decisions of its own, {wanted:.0} are needed"),
        ),
        ("WITHIN_COST", format!("a request would cost ${cost_usd:.3e} and may cost ${ceiling_usd:.3e}")),
        ("NOT_BELOW_SINGLE", single),
    ]
}
