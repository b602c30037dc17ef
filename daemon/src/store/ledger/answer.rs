//! What feedback comes to for the merged answer of a decision: the mean over its sources, each by its
//! latest word. Verdicts on single models say nothing of it.

use std::collections::BTreeMap;

use pointsman_router::feedback::Entry;

/// The score before the row with this sequence, and with it; `None`: nobody judged the answer. The entries
/// are those of one decision, by sequence.
pub(super) fn around(entries: &[Entry], seq: u64) -> (Option<f64>, Option<f64>) {
    let up_to = |last: u64| {
        let mut latest: BTreeMap<&str, f64> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.model.is_none() && entry.seq <= last) {
            latest.insert(&entry.source, entry.score);
        }
        (!latest.is_empty()).then(|| latest.values().sum::<f64>() / latest.len() as f64)
    };
    (up_to(seq.saturating_sub(1)), up_to(seq))
}

#[cfg(test)]
mod tests {
    use pointsman_router::feedback::Verdict;

    use super::*;

    fn entry(seq: u64, model: Option<&str>, source: &str, score: f64) -> Entry {
        let (model, source) = (model.map(Into::into), source.to_owned());
        Entry { seq, model, source, verdict: Verdict::Score(score), score }
    }

    #[test]
    fn each_source_counts_by_its_latest_word_and_models_do_not() {
        let entries = [
            entry(1, Some("m"), "u", 0.0),
            entry(3, None, "u", 1.0),
            entry(4, None, "v", 0.0),
            entry(9, None, "u", 0.5),
        ];
        let expected =
            [(1, None, None), (3, None, Some(1.0)), (4, Some(1.0), Some(0.5)), (9, Some(0.5), Some(0.25))];
        for (seq, before, after) in expected {
            assert_eq!(around(&entries, seq), (before, after), "{seq}");
        }
    }
}
