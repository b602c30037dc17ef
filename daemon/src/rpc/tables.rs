//! The tables that StatsService shows: model statistics out of counts and feedback, files with their
//! sizes.
//!
//! Pure functions but for the reading of file sizes. A model that is no longer registered keeps its
//! row as long as it has statistics.

use std::collections::BTreeMap;
use std::path::Path;

use pointsman_proto::v1;
use pointsman_router::clock::Timestamp;
use pointsman_router::ids::{ModelName, TaskType};
use pointsman_router::model::Pool;
use pointsman_router::money::NanoUsd;

use crate::store::ledger::FeedbackStat;
use crate::store::traces::{Failures, Stats, Tally};
use crate::wire::micros;
use crate::wire::model::breaker_to_wire;

/// The 97.5th percentile of the standard normal distribution: a two-sided 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// A row is one model, and one task type where they are kept apart.
type Key = (ModelName, Option<TaskType>);

#[derive(Debug, Default)]
struct Row {
    tally: Tally,
    judged: u64,
    score_sum: f64,
}

/// The table of model statistics that was asked for.
pub(super) fn model_stats(
    asked: &v1::ListModelStatsRequest,
    counted: &Stats,
    judged: &[FeedbackStat],
    pool: &Pool,
    now: Timestamp,
) -> v1::ListModelStatsResponse {
    let task_wanted = |task: &TaskType| asked.task_type.is_empty() || task.as_str() == asked.task_type;
    let model_wanted =
        |model: &ModelName| asked.models.is_empty() || asked.models.iter().any(|name| name == model.as_str());
    let key = |model: &ModelName, task: &TaskType| (model.clone(), asked.by_task_type.then(|| task.clone()));
    let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
    if !asked.by_task_type {
        let names = pool.models().iter().map(|model| model.name()).filter(|name| model_wanted(name));
        rows.extend(names.map(|name| ((name.clone(), None), Row::default())));
    }
    for entry in counted.models.iter().filter(|e| model_wanted(&e.model) && task_wanted(&e.task)) {
        rows.entry(key(&entry.model, &entry.task)).or_default().tally.add(&entry.tally);
    }
    for entry in judged.iter().filter(|e| task_wanted(&e.task)) {
        if let Some(model) = entry.model.as_ref().filter(|model| model_wanted(model)) {
            let row = rows.entry(key(model, &entry.task)).or_default();
            row.judged += entry.judged;
            row.score_sum += entry.score_sum;
        }
    }
    let of_task = |wanted: &str| -> u64 {
        let tasks = counted.decisions.iter().filter(|(task, _)| wanted.is_empty() || task.as_str() == wanted);
        tasks.map(|(_, decisions)| decisions).sum()
    };
    let stats: Vec<v1::ModelStats> = rows
        .into_iter()
        .map(|((model, task), row)| {
            let task = task.map_or_else(|| asked.task_type.clone(), Into::into);
            let decisions = of_task(&task);
            let breaker = pool.get(model.as_str()).map_or(v1::BreakerState::Unspecified, |registered| {
                breaker_to_wire(registered.breaker.state(now))
            });
            v1::ModelStats { breaker: breaker.into(), ..row_to_wire(model, task, &row, decisions) }
        })
        .collect();
    let cost: NanoUsd = stats.iter().map(|row| NanoUsd::new(row.cost_usd_nanos)).sum();
    v1::ListModelStatsResponse {
        decisions: of_task(&asked.task_type),
        cost_usd_micros: cost.micros_rounded_up(),
        stats,
    }
}

fn row_to_wire(model: ModelName, task_type: String, row: &Row, decisions: u64) -> v1::ModelStats {
    let Row { tally, judged, score_sum } = row;
    let mean = (*judged > 0).then(|| (score_sum / *judged as f64).clamp(0.0, 1.0));
    let interval = mean.map(|mean| wilson(mean, *judged as f64));
    let quantile = |share| tally.latency.quantile(share).map(micros);
    v1::ModelStats {
        model: model.into(),
        task_type,
        eligible: tally.eligible,
        chosen: tally.chosen,
        share_chosen: if decisions > 0 { tally.chosen as f64 / decisions as f64 } else { 0.0 },
        calls: tally.calls,
        failures: failures(&tally.failures),
        feedback: *judged,
        correct_mean: mean,
        correct_low: interval.map(|(low, _)| low),
        correct_high: interval.map(|(_, high)| high),
        cost_usd_nanos: tally.cost_nanos,
        tokens_in: tally.tokens_in,
        tokens_out: tally.tokens_out,
        latency_p50_us: quantile(0.5),
        latency_p95_us: quantile(0.95),
        breaker: v1::BreakerState::Unspecified.into(),
    }
}

fn failures(failures: &Failures) -> Vec<v1::FailureCount> {
    let Failures { unavailable, timed_out, throttled, refused, malformed, abandoned } = *failures;
    let kinds = [
        (v1::AttemptStatus::Timeout, timed_out),
        (v1::AttemptStatus::Throttled, throttled),
        (v1::AttemptStatus::Unavailable, unavailable),
        (v1::AttemptStatus::Rejected, refused),
        (v1::AttemptStatus::Malformed, malformed),
        (v1::AttemptStatus::Cancelled, abandoned),
    ];
    let some = kinds.into_iter().filter(|(_, count)| *count > 0);
    some.map(|(status, count)| v1::FailureCount { status: status.into(), count }).collect()
}

/// Wilson's score interval of a mean of `n` values in [0, 1] (E. B. Wilson, 1927); for scores between
/// zero and one it is wider than needed, never narrower.
fn wilson(mean: f64, n: f64) -> (f64, f64) {
    let z2 = Z * Z;
    let centre = (mean + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (mean * (1.0 - mean) / n + z2 / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// The files of the state folder with their sizes; a write-ahead log counts with its file. A folder
/// that cannot be read shows none.
pub(super) async fn files(folder: &Path) -> Vec<v1::StoreFile> {
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    let Ok(mut entries) = tokio::fs::read_dir(folder).await else { return Vec::new() };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let Ok(metadata) = entry.metadata().await else { continue };
        if metadata.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let base = name.strip_suffix("-wal").or(name.strip_suffix("-shm")).unwrap_or(&name);
            *sizes.entry(base.to_owned()).or_default() += metadata.len();
        }
    }
    sizes.into_iter().map(|(name, size_bytes)| v1::StoreFile { name, size_bytes }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_agrees_with_the_published_example() {
        // 81 of 263 (Newcombe 1998, table I, method 3): 0.2553 to 0.3662.
        let (low, high) = wilson(81.0 / 263.0, 263.0);
        assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
        let (low, high) = wilson(0.0, 20.0);
        assert!(low.abs() < 1e-12 && (high - 0.1611).abs() < 5e-5, "{low} {high}");
    }
}
