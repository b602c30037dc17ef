//! The rows of a workload and the order in which they are played.
//!
//! The format is that of recorded outcomes: one JSON object a line with `id`, `prompt`, and as far as known `task`,
//! `gold` and `outcomes`. Other keys are ignored. The order is a permutation that depends on the seed and the number of
//! rows alone, so that two runs can be compared.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

use crate::cli::input::{self, InputFault, flag};

/// One request to play, and what is known about its right answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Row {
    /// Id, unique in the workload; sent as `caller_ref`.
    pub(crate) id: String,
    /// The true task or topic. Empty: not known.
    #[serde(default)]
    pub(crate) task: String,
    /// What is asked.
    pub(crate) prompt: String,
    /// The right answer, if there is one.
    #[serde(default)]
    pub(crate) gold: Option<String>,
    /// What each model did with it when the workload was recorded.
    #[serde(default)]
    pub(crate) outcomes: BTreeMap<String, Recorded>,
}

/// What a model did with a row when the workload was recorded.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Recorded {
    /// How right it was, 0 to 1.
    pub(crate) score: f64,
    /// What it cost, in US dollars, if known.
    #[serde(default)]
    pub(crate) cost: Option<f64>,
}

impl Row {
    /// The right answer, if there is one that is not empty.
    pub(crate) fn gold(&self) -> Option<&str> {
        self.gold.as_deref().filter(|gold| !gold.trim().is_empty())
    }

    /// The recorded score of a model.
    pub(crate) fn score_of(&self, model: &str) -> Option<f64> {
        self.outcomes.get(model).map(|outcome| outcome.score)
    }
}

/// Reads a workload. Ids must be unique and scores between 0 and 1.
pub(crate) fn read(path: &str) -> Result<Vec<Row>, InputFault> {
    let mut ids = HashSet::new();
    let rows = input::each_line(path, |line| {
        let row: Row = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if !ids.insert(row.id.clone()) {
            return Err(format!("the id `{}` is there twice", row.id));
        }
        let in_range = |outcome: &Recorded| (0.0..=1.0).contains(&outcome.score);
        if !row.outcomes.values().all(in_range) {
            return Err("a score is not between 0 and 1".to_owned());
        }
        Ok(row)
    })?;
    if rows.is_empty() {
        return Err(flag("--workload", format!("{path} has no rows")));
    }
    Ok(rows)
}

/// Puts the rows into the order of the seed: a Fisher-Yates shuffle.
pub(crate) fn shuffle(rows: &mut [Row], seed: u64) {
    let mut state = seed;
    for last in (1..rows.len()).rev() {
        let bound = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
        let drawn = split_mix(&mut state) % bound;
        rows.swap(last, usize::try_from(drawn).unwrap_or(last));
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014). Enough for an order; nothing is drawn from it that is learned from.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize) -> Vec<Row> {
        let row = |index: usize| {
            serde_json::from_value(serde_json::json!({ "id": index.to_string(), "prompt": "p" }))
                .expect("is a row")
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn the_generator_is_split_mix() {
        // First outputs of the reference implementation for the seed 1234567.
        let mut state = 1_234_567;
        assert_eq!(split_mix(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(split_mix(&mut state), 3_203_168_211_198_807_973);
    }

    #[test]
    fn the_order_is_a_permutation_of_the_seed() {
        let (mut first, mut second, mut third) = (rows(50), rows(50), rows(50));
        shuffle(&mut first, 7);
        shuffle(&mut second, 7);
        shuffle(&mut third, 8);
        assert_eq!(first, second);
        assert_ne!(first, third);
        assert_ne!(first, rows(50));
        first.sort_by_key(|row| row.id.parse::<usize>().expect("is a number"));
        assert_eq!(first, rows(50));
    }

    #[test]
    fn a_row_of_the_recorded_format() {
        let line = r#"{"id": "x/1", "task": "law", "prompt": "p", "gold": "F", "split": "val",
            "outcomes": {"a": {"score": 1, "cost": null, "tokens_out": 3, "answer": null}}}"#;
        let row: Row = serde_json::from_str(line).expect("reads");
        assert_eq!(row.gold(), Some("F"));
        assert_eq!(row.score_of("a"), Some(1.0));
        assert_eq!(row.score_of("b"), None);
        assert_eq!(row.outcomes["a"].cost, None);
    }
}
