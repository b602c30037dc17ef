//! Decisions without feedback: by how much the judged ones are to count more, so that they stand for all.
//!
//! Nobody judges every answer, and what is judged is no even sample: one tenant reports everything, another
//! nothing. Where the chance of feedback depends on what is known before the answer (tenant, task, model),
//! a judged decision stands for all of its stratum, and counts by the inverse of the stratum's share of
//! judged ones. Where it depends on the answer itself (people report what annoyed them), no weight mends
//! it; asking for feedback on a random sample does.

use std::collections::BTreeMap;

/// Decisions of the overall share that every stratum is taken to have beside its own, so that a stratum
/// of a few decisions does not get a wild weight.
const PSEUDO_DECISIONS: f64 = 20.0;

/// The weight of each decision given its stratum and whether it was judged: at least one for judged
/// ones, zero for the others, which are no rows of an evaluation.
#[must_use]
pub fn feedback_weights(decisions: &[(u64, bool)]) -> Vec<f64> {
    let mut strata: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    let mut judged_all = 0.0;
    for (stratum, is_judged) in decisions {
        let (all, judged) = strata.entry(*stratum).or_default();
        *all += 1.0;
        if *is_judged {
            *judged += 1.0;
            judged_all += 1.0;
        }
    }
    let overall = judged_all / (decisions.len().max(1) as f64);
    let weight = |(stratum, is_judged): &(u64, bool)| match strata.get(stratum) {
        Some((all, judged)) if *is_judged => (all + PSEUDO_DECISIONS) / (judged + PSEUDO_DECISIONS * overall),
        Some(_) | None => 0.0,
    };
    decisions.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judged_decisions_stand_for_their_stratum() {
        // One stratum is judged always and scores 1, the other one time in ten and scores 0.
        let decisions: Vec<(u64, bool)> = (0..20_000).map(|i| (i % 2, i % 2 == 0 || i % 20 == 1)).collect();
        let weights = feedback_weights(&decisions);
        let (mut sum, mut right) = (0.0, 0.0);
        for ((stratum, _), weight) in decisions.iter().zip(&weights) {
            sum += weight;
            right += if *stratum == 0 { *weight } else { 0.0 };
        }
        assert!((right / sum - 0.5).abs() < 0.005, "{}", right / sum);
        let naive = decisions.iter().filter(|(_, judged)| *judged).map(|(stratum, _)| stratum == &0);
        assert!(naive.clone().filter(|is_right| *is_right).count() * 10 > naive.count() * 9);
    }

    #[test]
    fn all_judged_is_all_alike_and_few_are_not_wild() {
        assert!(feedback_weights(&[(1, true), (2, true), (2, true)]).iter().all(|w| (w - 1.0).abs() < 1e-12));
        let mut decisions = vec![(1, true); 100];
        decisions.extend([(2, false); 9]);
        decisions.push((2, true));
        let weights = feedback_weights(&decisions);
        assert!(weights[109] > 1.0 && weights[109] < 2.0, "{}", weights[109]);
        assert!(weights[100].abs() < 1e-12 && feedback_weights(&[]).is_empty());
    }
}
