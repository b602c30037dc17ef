//! A policy of the ledger as the wire has it.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_proto::v1;
use serde_json::Value;

use crate::store::ledger::{FittedFacts, PolicyRow, PolicyRunState, StoredPolicy};
use crate::training::trainer::KeptReport;
use crate::wire::training::report_to_wire;
use crate::wire::{json, timestamp};

/// A policy as the ledger knows it.
#[must_use]
pub(super) fn stored_to_wire(policy: &StoredPolicy) -> v1::Policy {
    let StoredPolicy { row, fitted } = policy;
    let FittedFacts { artifact_bytes, schema, trained_rows, trained_through, report, evaluation, predecessor } =
        fitted;
    v1::Policy {
        artifact_bytes: *artifact_bytes,
        schema_hash: schema.map_or(0, |schema| schema.0),
        trained_on_rows: *trained_rows,
        trained_through: *trained_through,
        predecessor: predecessor.as_ref().map(|version| version.as_str().to_owned()).unwrap_or_default(),
        // What cannot be read back was not written by this daemon and is not shown.
        evaluation: evaluation.as_ref().and_then(|text| json::read(text.as_bytes()).ok()),
        training_report: report
            .as_ref()
            .and_then(|text| serde_json::from_str(text).ok())
            .map(|kept: KeptReport| report_to_wire(&kept.report, kept.seed, Duration::from_micros(kept.took_us))),
        ..row_to_wire(row)
    }
}

fn row_to_wire(row: &PolicyRow) -> v1::Policy {
    let kind = match row.kind.as_str() {
        "rules" => v1::PolicyKind::Rules,
        "bandit" | "hybrid" => v1::PolicyKind::Bandit,
        "classifier" => v1::PolicyKind::Classifier,
        _ => v1::PolicyKind::Unspecified,
    };
    let state = match row.state {
        PolicyRunState::Running => v1::PolicyState::Running,
        PolicyRunState::Retired => v1::PolicyState::Retired,
        PolicyRunState::Candidate => v1::PolicyState::Candidate,
        PolicyRunState::Shadow => v1::PolicyState::Shadow,
        PolicyRunState::Canary => v1::PolicyState::Canary,
    };
    let settings: BTreeMap<String, Value> = serde_json::from_str(&row.settings).unwrap_or_default();
    let text = |value: Value| match value {
        Value::String(text) => text,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    v1::Policy {
        version: row.version.as_str().to_owned(),
        kind: kind.into(),
        state: state.into(),
        created_at: Some(timestamp(row.created_at)),
        settings: settings.into_iter().map(|(name, value)| (name, text(value))).collect(),
        ..v1::Policy::default()
    }
}
