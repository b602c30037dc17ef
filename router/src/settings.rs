//! What an operator may set of the decision core, checked by whoever builds it.

use std::collections::BTreeMap;

use crate::ids::TaskType;
use crate::money::NanoUsd;

/// The settings of a router; immutable once it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The longest prompt, system text and schema together, in UTF-8 bytes.
    pub prompt_bytes_max: usize,
    /// The largest caller embedding, in dimensions.
    pub embedding_dims_max: usize,
    /// What a right answer is worth where the request does not say; `None`: quality alone counts.
    pub answer_value: Option<NanoUsd>,
    /// Quality given up per dollar, in place of an answer value; for replays.
    pub cost_weight_per_usd: Option<f64>,
    /// How many models a request may call where it does not say, by task type.
    pub calls_max_by_task: BTreeMap<TaskType, u32>,
    /// The same for any other task type.
    pub calls_max_default: u32,
    /// Attempts per model, the first included.
    pub attempts_max: u32,
    /// Whether traces keep prompts and raw answers.
    pub store_content: bool,
    /// The installation's secret: permutes feature buckets and keys the hashes of answers.
    pub secret: u64,
}

/// No request may call more models than this.
pub const CALLS_LIMIT: u32 = 8;

impl Default for Settings {
    fn default() -> Self {
        let calls = [("simple_query", 1), ("complex_reasoning", 2), ("data_validation", 3)];
        Self {
            prompt_bytes_max: 1 << 20,
            embedding_dims_max: 8_192,
            answer_value: Some(NanoUsd::new(50_000_000)),
            cost_weight_per_usd: None,
            calls_max_by_task: calls.iter().map(|(task, n)| (TaskType::new(task), *n)).collect(),
            calls_max_default: 1,
            attempts_max: 2,
            store_content: false,
            secret: 0,
        }
    }
}
