//! The figures as a table for people and as one JSON object.

use comfy_table::Table;
use serde_json::{Value, json};

use crate::logs::Tally;
use crate::{Options, SetReport};

/// One set as tables.
pub(crate) fn table(report: &SetReport, options: &Options) -> String {
    let world = &report.world;
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "log",
        "candidate",
        "true gain",
        "cost",
        "covers value",
        "covers gain",
        "error / spread",
        "SNIPS covers",
        "ESS",
        "gain shown",
        "promoted",
        "refused: ESS, cost, single",
        "wanted",
    ]);
    for (log, tallies) in &report.logs {
        for (tally, (name, wanted)) in tallies.iter().zip(WANTED) {
            table.add_row(row(log, name, tally, wanted));
        }
    }
    let mut canaries = Table::new();
    canaries.load_style(comfy_table::presets::NOTHING);
    canaries.set_header([
        "canary",
        "true difference",
        "rolled back",
        "proven no worse",
        "judged, median",
        "story",
    ]);
    for canary in &report.canaries {
        canaries.add_row([
            canary.name.to_owned(),
            format!("{:+.4}", canary.difference),
            format!("{:.3}", canary.rolled_back),
            format!("{:.3}", canary.proven),
            canary.judged_median.to_string(),
            canary.story.clone(),
        ]);
    }
    format!(
        "{}: {} rows, {} models, {} logs of {} decisions, {:.0} s\n{table}\n\n{canaries}\n\n{REFERENCE}\n",
        world.name, world.rows, world.models, options.runs, options.decisions, report.seconds
    )
}

/// What RECIPES measured, for comparison.
const REFERENCE: &str = "reference (RECIPES, pool 12, floor 5 %, gain +.046, 50,000 decisions): covers .92, ESS 413, \
                         promotes .55; with 20,000 .94, 166, .26";

/// The candidates and what must be so of each.
const WANTED: [(&str, &str); 3] = [
    ("better", "covers >= .90, promoted >= .50"),
    ("worse", "covers >= .90, promoted <= .03"),
    ("equal", "covers >= .90"),
];

fn row(log: &str, name: &str, tally: &Tally, wanted: &str) -> Vec<String> {
    let [small, dear, below] = tally.refused;
    vec![
        log.to_owned(),
        name.to_owned(),
        format!("{:+.4}", tally.gain),
        format!("{:.2}", tally.cost_ratio),
        format!("{:.3}", tally.covers_value),
        format!("{:.3}", tally.covers_gain),
        format!("{:.4} / {:.4}", tally.standard_error, tally.spread),
        format!("{:.3}", tally.snips_covers),
        format!("{:.0}", tally.effective_sample_size),
        format!("{:.3}", tally.shown_better),
        format!("{:.3}", tally.promoted),
        format!("{small:.3}, {dear:.3}, {below:.3}"),
        wanted.to_owned(),
    ]
}

/// All sets as one object.
pub(crate) fn json(reports: &[SetReport], options: &Options) -> Value {
    let sets: Vec<Value> = reports.iter().map(set).collect();
    json!({ "runs": options.runs, "decisions": options.decisions, "sets": sets })
}

fn set(report: &SetReport) -> Value {
    let logs = report.logs.iter().flat_map(|(log, tallies)| {
        tallies.iter().zip(WANTED).map(move |(tally, (name, _))| {
            json!({
                "log": log,
                "candidate": name,
                "true_value": tally.value,
                "true_gain": tally.gain,
                "cost_ratio": tally.cost_ratio,
                "covers_value": tally.covers_value,
                "covers_gain": tally.covers_gain,
                "snips_covers_value": tally.snips_covers,
                "standard_error": tally.standard_error,
                "spread": tally.spread,
                "gain_standard_error": tally.gain_error,
                "effective_sample_size": tally.effective_sample_size,
                "gain_shown": tally.shown_better,
                "promoted": tally.promoted,
                "refused_small_cost_single": tally.refused,
            })
        })
    });
    let canaries = report.canaries.iter().map(|canary| {
        json!({
            "canary": canary.name,
            "story": canary.story,
            "true_difference": canary.difference,
            "runs": canary.runs,
            "rolled_back": canary.rolled_back,
            "proven": canary.proven,
            "judged_median": canary.judged_median,
        })
    });
    json!({
        "set": report.world.name,
        "rows": report.world.rows,
        "models": report.world.models,
        "seconds": report.seconds,
        "logs": logs.collect::<Vec<_>>(),
        "canaries": canaries.collect::<Vec<_>>(),
    })
}
