//! Training rows out of the stored log.
//!
//! A row is a trace of the current feature schema: what the policy saw, what the called models did,
//! and, where the choice was logged with its probability, how it was made. Traces of another schema,
//! and those whose features were not kept, are passed over and counted.

use std::cell::Cell;

use pointsman_learner::rows::{Logged, RowReading, Rows, Seen, TrainingRow};
use pointsman_router::features::{Features, SchemaHash};
use pointsman_router::money::NanoUsd;
use pointsman_router::trace::Trace;
use xxhash_rust::xxh3::Xxh3;

use super::log::{LoggedTrace, StoredLog};
use crate::store::StoreError;
use crate::store::ledger::Said;

/// The rows of a stored log.
pub struct StoredRows<'a> {
    log: StoredLog,
    schema: SchemaHash,
    passed_over: Cell<u64>,
    read: Cell<u64>,
    is_over: Option<&'a dyn Fn() -> bool>,
}

impl std::fmt::Debug for StoredRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredRows").field("log", &self.log).finish_non_exhaustive()
    }
}

impl<'a> StoredRows<'a> {
    /// The rows of this log whose features have this schema.
    #[must_use]
    pub fn new(log: StoredLog, schema: SchemaHash) -> Self {
        Self { log, schema, passed_over: Cell::new(0), read: Cell::new(0), is_over: None }
    }

    /// The same, whose readings end with [`StoreError::Closed`] once this is so.
    #[must_use]
    pub fn until(self, is_over: &'a dyn Fn() -> bool) -> Self {
        Self { is_over: Some(is_over), ..self }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &StoredLog {
        &self.log
    }

    /// Traces that the last reading has read so far.
    #[must_use]
    pub fn read_so_far(&self) -> u64 {
        self.read.get()
    }

    /// Traces that the last reading passed over, because their features are of another schema or were
    /// not kept.
    #[must_use]
    pub fn passed_over(&self) -> u64 {
        self.passed_over.get()
    }
}

impl Rows for StoredRows<'_> {
    type Error = StoreError;

    fn schema(&self) -> SchemaHash {
        self.schema
    }

    fn len_hint(&self) -> u64 {
        self.log.len_hint()
    }

    fn read(&self) -> Result<RowReading<'_, StoreError>, StoreError> {
        self.passed_over.set(0);
        self.read.set(0);
        let rows = self.log.read()?.filter_map(|logged| {
            if self.is_over.is_some_and(|is_over| is_over()) {
                return Some(Err(StoreError::Closed));
            }
            self.read.set(self.read.get() + 1);
            match logged {
                Ok(LoggedTrace { trace, .. }) if trace.features.schema != self.schema => {
                    self.passed_over.set(self.passed_over.get() + 1);
                    None
                }
                Ok(LoggedTrace { trace, said, .. }) => Some(Ok(row(&trace, &said))),
                Err(error) => Some(Err(error)),
            }
        });
        Ok(Box::new(rows))
    }
}

/// A trace as a training row.
#[must_use]
pub fn row(trace: &Trace, said: &Said) -> TrainingRow {
    let label = |model: &str| said.labels.get(model).copied();
    let mut seen: Vec<Seen> = trace
        .outcomes
        .iter()
        .map(|outcome| Seen {
            model: outcome.model.clone(),
            label: label(outcome.model.as_str()),
            tokens_out: outcome.tokens_out,
            cost: outcome.cost,
            latency: outcome.latency,
        })
        .collect();
    // Feedback may judge a model whose caller never reported what it did.
    for (model, label) in &said.labels {
        if !seen.iter().any(|seen| seen.model == *model) {
            seen.push(Seen {
                model: model.clone(),
                label: Some(*label),
                tokens_out: 0,
                cost: NanoUsd::ZERO,
                latency: std::time::Duration::ZERO,
            });
        }
    }
    let task = &trace.decision.task;
    TrainingRow {
        key: prompt_key(&trace.features),
        features: std::sync::Arc::clone(&trace.features),
        task: (!task.inferred).then(|| task.name.clone()),
        seen,
        logged: logged(trace, said),
    }
}

/// How the choice was made; `None` where it was not drawn with a probability that was logged.
fn logged(trace: &Trace, said: &Said) -> Option<Logged> {
    let decision = &trace.decision;
    let drawn = decision.set_propensity.is_finite() && decision.set_propensity > 0.0;
    if !drawn || decision.set.is_empty() {
        return None;
    }
    let on_offer = decision.candidates.iter().filter(|candidate| candidate.is_on_offer());
    Some(Logged {
        eligible: on_offer.map(|candidate| (candidate.model.clone(), candidate.cost)).collect(),
        set: decision.chosen().map(|candidate| candidate.model.clone()).collect(),
        propensity: decision.set_propensity.min(1.0),
        calls_max: decision.calls_max,
        cost_weight_per_usd: decision.objective.cost_weight_per_usd,
        reward: reward(trace, said),
        cost: cost(trace),
    })
}

/// How right the merged answer was: what was said of it, else what is known of a model that gave it.
/// `None` where nobody said; missing is never wrong.
#[must_use]
pub fn reward(trace: &Trace, said: &Said) -> Option<f64> {
    if said.answer.is_some() {
        return said.answer;
    }
    let label = |model: &str| said.labels.get(model).copied();
    match &trace.answer {
        Some(answer) => {
            // All who gave the answer are as right as it is; their labels differ only where sources do.
            let agreeing = answer.contributions.iter().filter(|c| c.agrees);
            let labels: Vec<f64> = agreeing.filter_map(|c| label(c.model.as_str())).collect();
            (!labels.is_empty()).then(|| labels.iter().sum::<f64>() / labels.len() as f64)
        }
        None => {
            let mut chosen = trace.decision.chosen();
            let only = chosen.next().filter(|_| trace.decision.set.len() == 1)?;
            label(only.model.as_str())
        }
    }
}

/// What the calls cost; what was expected of them where nobody reported it.
#[must_use]
pub fn cost(trace: &Trace) -> NanoUsd {
    let unknown = trace.outcomes.is_empty() && trace.attempts.is_empty();
    if unknown { trace.decision.expected_cost() } else { trace.bill.spent() }
}

/// What equal prompts share, so that they are never on both sides of a split.
#[must_use]
pub fn prompt_key(features: &Features) -> u64 {
    let mut hasher = Xxh3::new();
    for entry in &features.text {
        hasher.update(&entry.bucket.to_le_bytes());
        hasher.update(&entry.count.to_le_bytes());
    }
    for tag in &features.tags {
        hasher.update(&tag.to_le_bytes());
    }
    hasher.update(&features.prompt_bytes.to_le_bytes());
    hasher.digest()
}

#[cfg(test)]
mod tests;
