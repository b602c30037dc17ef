//! What candidates are worth, as text for people.

use pointsman_client::v1;

use crate::cli::tables::{Look, difference, estimate, percent, score, time, usd_of_nanos, word};

/// The gate in one word.
pub(crate) fn gate_word(evaluation: Option<&v1::Evaluation>) -> String {
    match evaluation.and_then(|evaluation| evaluation.gate.as_ref()) {
        None => word("UNSPECIFIED", ""),
        Some(gate) => if gate.passes { "passes" } else { "held back" }.to_owned(),
    }
}

/// All candidates side by side, then for each its estimates and the reasons of the gate.
pub(crate) fn text(look: &Look, evaluations: &[v1::Evaluation]) -> String {
    if evaluations.is_empty() {
        return "there is no candidate; `pointsman train` makes one\n".to_owned();
    }
    let rows = evaluations.iter().map(|found| {
        vec![
            found.version.clone(),
            estimate(found.doubly_robust.as_ref()),
            difference(found.difference.as_ref()),
            usd_of_nanos(found.cost_usd_nanos),
            format!("{:.0}", found.effective_sample_size),
            percent(found.agreement_share),
            gate_word(Some(found)),
        ]
    });
    let titles = ["candidate", ">value", ">gain", ">cost a request", ">rows alike", ">agrees", "gate"];
    let mut text = look.table(&titles, rows.collect());
    for found in evaluations {
        text += "\n";
        text += &one(look, found);
    }
    text
}

fn one(look: &Look, found: &v1::Evaluation) -> String {
    let held_out = percent(found.held_out_fraction);
    let single = found.best_single.as_ref().map(|single| {
        format!(
            "{} with {} at {} a request; gain on it {}",
            single.model,
            estimate(single.value.as_ref()),
            usd_of_nanos(single.cost_usd_nanos),
            difference(found.difference_to_single.as_ref())
        )
    });
    let calibration = found
        .calibration
        .as_ref()
        .map(|calibration| format!("ECE {}, Brier {}", score(calibration.ece), score(calibration.brier)));
    let mut text = look.pairs(&[
        ("candidate", found.version.clone()),
        ("incumbent", format!("{} with {}", found.incumbent_version, estimate(found.incumbent.as_ref()))),
        ("its cost", format!("{} a request", usd_of_nanos(found.incumbent_cost_usd_nanos))),
        ("best single model", single.unwrap_or_default()),
        ("rows", format!("{}, {} of them judged, the latest {held_out}", found.rows, found.judged_rows)),
        ("intervals", format!("at {}", percent(1.0 - 2.0 * found.delta))),
        ("not covered by the log", percent(found.unsupported_share)),
        ("calibration", calibration.unwrap_or_default()),
        ("evaluated", time(found.evaluated_at.as_ref())),
    ]);
    let estimates = [
        ("doubly robust", &found.doubly_robust),
        ("self-normalised IPS", &found.snips),
        ("IPS", &found.ips),
        ("direct method", &found.direct),
    ];
    let rows = estimates.map(|(name, found)| vec![name.to_owned(), estimate(found.as_ref())]);
    text += &look.table(&["estimate", ">value"], rows.into());
    text += &gate(found.gate.as_ref());
    text
}

/// Every condition of the gate, those that do not hold first.
fn gate(gate: Option<&v1::Gate>) -> String {
    let Some(gate) = gate else { return "the gate was not asked\n".to_owned() };
    let mut text = if gate.passes { "The gate lets it pass:\n" } else { "The gate holds it back:\n" }.to_owned();
    let (met, missing): (Vec<_>, Vec<_>) = gate.reasons.iter().partition(|reason| reason.holds);
    for reason in missing.iter().chain(&met) {
        let mark = if reason.holds { "holds " } else { "FAILS " };
        text += &format!("  {mark} {}: {}\n", word(&reason.name, ""), reason.message);
    }
    text
}
