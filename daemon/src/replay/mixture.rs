//! The best mixture of two fixed models in hindsight, under a ceiling on the mean cost.
//!
//! Whatever is learned has to be held against it: it sees nothing of the request, and beats many a
//! router that does. It is reckoned and not drawn. On a row that lacks a model the cheapest there
//! stands in, as for the best single one; then score and cost of a mixture are linear in its share,
//! and the best is a model that fits the ceiling, or a pair across it with exactly the share that
//! meets it.

use crate::backends::recorded_rows::{Row, Rows};

/// What a fixed choice comes to: score and cost in dollars of every row.
#[derive(Debug, Clone)]
struct Fixed {
    rows: Vec<(f64, f64)>,
    score: f64,
    cost: f64,
}

/// A mixture: two models by their place in the pool, and how much of the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mixture {
    pub(super) models: [usize; 2],
    pub(super) share: f64,
    /// Its mean score.
    pub(super) score: f64,
}

/// The best mixture under this ceiling, in dollars per row, and the expected score and cost of each
/// row. Where no model fits, the cheapest.
pub(super) fn best(rows: &Rows, ceiling: f64) -> Option<(Mixture, Vec<(f64, f64)>)> {
    let fixed: Vec<Fixed> = (0..rows.models.len()).map(|model| fixed(rows, model)).collect();
    let mut best: Option<Mixture> = None;
    let mut offer = |mixture: Mixture| {
        if best.is_none_or(|best| mixture.score > best.score) {
            best = Some(mixture);
        }
    };
    for (a, dear) in fixed.iter().enumerate() {
        if dear.cost <= ceiling {
            offer(Mixture { models: [a, a], share: 1.0, score: dear.score });
            continue;
        }
        for (b, cheap) in fixed.iter().enumerate().filter(|(_, cheap)| cheap.cost <= ceiling) {
            let share = (ceiling - cheap.cost) / (dear.cost - cheap.cost);
            let score = share * dear.score + (1.0 - share) * cheap.score;
            offer(Mixture { models: [a, b], share, score });
        }
    }
    let cheapest = || {
        let (at, fixed) = fixed.iter().enumerate().min_by(|a, b| a.1.cost.total_cmp(&b.1.cost))?;
        Some(Mixture { models: [at, at], share: 1.0, score: fixed.score })
    };
    let best = best.or_else(cheapest)?;
    let [Some(a), Some(b)] = best.models.map(|model| fixed.get(model)) else { return None };
    let mix = |a: f64, b: f64| best.share * a + (1.0 - best.share) * b;
    let mixed = a.rows.iter().zip(&b.rows).map(|(a, b)| (mix(a.0, b.0), mix(a.1, b.1)));
    Some((best, mixed.collect()))
}

fn fixed(rows: &Rows, model: usize) -> Fixed {
    let rows: Vec<(f64, f64)> = rows.rows.iter().map(|row| outcome(row, model)).collect();
    let n = rows.len().max(1) as f64;
    let score = rows.iter().map(|row| row.0).sum::<f64>() / n;
    let cost = rows.iter().map(|row| row.1).sum::<f64>() / n;
    Fixed { rows, score, cost }
}

/// Score and cost of a model on a row, or of the cheapest that the row has.
fn outcome(row: &Row, model: usize) -> (f64, f64) {
    let cost = |model: usize| row.outcomes.get(model)?.as_ref().map(|r| r.cost.unwrap_or_default());
    let cheapest = || (0..row.outcomes.len()).filter(|m| cost(*m).is_some()).min_by_key(|m| cost(*m));
    let there = if cost(model).is_some() { Some(model) } else { cheapest() };
    let recorded = there.and_then(|model| row.outcomes.get(model)?.as_ref());
    recorded.map_or((0.0, 0.0), |r| (r.score, r.cost.unwrap_or_default().usd()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{recorded, row};
    use super::*;

    /// Models of 1, 3 and 10 nano-dollars that score .5, .7 and .9.
    fn three() -> Rows {
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let of = |id: &str, scores: [f64; 3]| {
            let outcomes = scores.iter().zip([1, 3, 10]).map(|(score, nanos)| Some(recorded(*score, nanos)));
            row(id, outcomes.collect())
        };
        Rows::of(names, vec![of("1", [0.0, 0.4, 0.8]), of("2", [1.0, 1.0, 1.0])])
    }

    fn check(ceiling_nanos: f64, models: [usize; 2], share: f64, score: f64, cost_nanos: f64) {
        let (best, rows) = best(&three(), ceiling_nanos * 1e-9).unwrap();
        let mean = |of: fn(&(f64, f64)) -> f64| rows.iter().map(of).sum::<f64>() / rows.len() as f64;
        assert_eq!(best.models, models, "at {ceiling_nanos}");
        for (got, expected) in [
            (best.share, share),
            (best.score, score),
            (mean(|row| row.0), score),
            (mean(|row| row.1) * 1e9, cost_nanos),
        ] {
            assert!((got - expected).abs() < 1e-6, "at {ceiling_nanos}: {got} and not {expected}");
        }
    }

    #[test]
    fn the_share_meets_the_ceiling() {
        check(0.5, [0, 0], 1.0, 0.5, 1.0);
        check(1.0, [0, 0], 1.0, 0.5, 1.0);
        check(2.0, [1, 0], 0.5, 0.6, 2.0);
        check(3.0, [1, 1], 1.0, 0.7, 3.0);
        check(6.5, [2, 1], 0.5, 0.8, 6.5);
        check(10.0, [2, 2], 1.0, 0.9, 10.0);
        check(f64::INFINITY, [2, 2], 1.0, 0.9, 10.0);
    }

    #[test]
    fn a_pair_may_leap_over_a_model_between() {
        let mut rows = three();
        for row in &mut rows.rows {
            row.outcomes[1].as_mut().unwrap().score = 0.2;
        }
        let (best, _) = best(&rows, 5.5e-9).unwrap();
        assert_eq!(best.models, [2, 0]);
        assert!((best.share - 0.5).abs() < 1e-9 && (best.score - 0.7).abs() < 1e-9);
    }

    #[test]
    fn where_a_model_is_missing_the_cheapest_stands_in() {
        let mut rows = three();
        rows.rows[0].outcomes[2] = None;
        let (best, of_rows) = best(&rows, 1.0).unwrap();
        // b: .4 and 1; c: a's 0 on the first row and 1.
        assert_eq!((best.models, of_rows[0].0), ([1, 1], 0.4));
    }
}
