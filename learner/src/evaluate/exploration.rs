//! How hard to aim: the share at which aimed exploration costs what it may.
//!
//! [`pointsman_router::selection::aim`] lifts the candidate's choices to a share of their probability;
//! what that moves is more where the two policies differ more. The share is found on recorded
//! decisions, so that on traffic like them the mean of what is moved is the budget.

use pointsman_router::selection::aim;

/// Halvings of the interval that the share is in.
const HALVINGS: u32 = 40;

/// The greatest share at which aiming the first distribution of each pair at the second moves no more
/// than `budget` on average; one where even that costs less.
#[must_use]
pub fn share_within(budget: f64, pairs: &[(Vec<f64>, Vec<f64>)]) -> f64 {
    let moved = |share: f64| {
        let sum: f64 = pairs.iter().map(|(picks, towards)| aim(&mut picks.clone(), towards, share)).sum();
        sum / pairs.len().max(1) as f64
    };
    if moved(1.0) <= budget {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if moved(middle) <= budget { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_spends_the_budget_where_they_differ() {
        // In one of four rows the candidate wants what the incumbent never picks: share/4 is moved.
        let agree = (vec![1.0, 0.0], vec![1.0, 0.0]);
        let differ = (vec![1.0, 0.0], vec![0.0, 1.0]);
        let pairs = [agree.clone(), agree.clone(), differ.clone(), agree.clone()];
        assert!((share_within(0.02, &pairs) - 0.08).abs() < 1e-9);
        assert!((share_within(0.5, &pairs) - 1.0).abs() < 1e-9);
        assert!(share_within(0.0, &pairs).abs() < 1e-9);
        // Half of what the candidate wants is explored anyhow.
        let known = (vec![0.95, 0.05], vec![0.0, 1.0]);
        assert!((share_within(0.05, &[known]) - 0.1).abs() < 1e-9);
        assert!((share_within(0.02, &[]) - 1.0).abs() < 1e-9);
    }
}
