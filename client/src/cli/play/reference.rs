//! What the rows themselves say: the best single model, a random choice, and the oracle. Pure.
//!
//! All of it is in hindsight over the rows that were played, and over the given pool only: the models that the daemon
//! could choose. A model may be missing from a row; it competes for best single when it is in at least half of them.
//! Costs are those recorded, in US dollars; a mean over rows of which none has a cost is absent.

use serde::Serialize;

use super::workload::{Recorded, Row};

/// A model that is always called.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Single {
    /// Name of the model.
    pub(crate) name: String,
    /// Its mean score.
    pub(crate) score: f64,
    /// Its mean cost, in US dollars.
    pub(crate) cost: Option<f64>,
}

/// Mean score and cost of a way to choose. Absent: no row has an outcome of the pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reference {
    /// Mean score.
    pub(crate) score: Option<f64>,
    /// Mean cost, in US dollars.
    pub(crate) cost: Option<f64>,
}

/// A running mean. Absent before the first value.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    /// Takes a value in.
    pub(crate) fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// The mean of what was taken in.
    pub(crate) fn get(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }

    /// The mean of many values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<f64> {
        let mut mean = Self::default();
        values.into_iter().for_each(|value| mean.add(value));
        mean.get()
    }
}

/// The model with the best mean score; of equals the cheaper.
pub(crate) fn best_single(rows: &[&Row], pool: &[String]) -> Option<Single> {
    pool.iter().filter_map(|name| single(rows, name)).reduce(|best, next| {
        let cheaper = next.cost.unwrap_or(f64::INFINITY) < best.cost.unwrap_or(f64::INFINITY);
        let order = next.score.total_cmp(&best.score);
        if order.is_gt() || (order.is_eq() && cheaper) { next } else { best }
    })
}

fn single(rows: &[&Row], name: &str) -> Option<Single> {
    let outcomes = || rows.iter().filter_map(|row| row.outcomes.get(name));
    if outcomes().count() * 2 < rows.len() {
        return None;
    }
    Some(Single {
        name: name.to_owned(),
        score: Mean::of(outcomes().map(|outcome| outcome.score))?,
        cost: Mean::of(outcomes().filter_map(|outcome| outcome.cost)),
    })
}

/// Each model of the pool equally often.
pub(crate) fn random(rows: &[&Row], pool: &[String]) -> Reference {
    let score = |row: &&Row| Mean::of(present(row, pool).map(|outcome| outcome.score));
    let cost = |row: &&Row| Mean::of(present(row, pool).filter_map(|outcome| outcome.cost));
    Reference { score: Mean::of(rows.iter().filter_map(score)), cost: Mean::of(rows.iter().filter_map(cost)) }
}

/// The best model of each row; of equals the cheapest.
pub(crate) fn oracle(rows: &[&Row], pool: &[String]) -> Reference {
    let best = |row: &&Row| {
        let best = present(row, pool).reduce(|best, next| {
            let cheaper = next.cost.unwrap_or(f64::INFINITY) < best.cost.unwrap_or(f64::INFINITY);
            let order = next.score.total_cmp(&best.score);
            if order.is_gt() || (order.is_eq() && cheaper) { next } else { best }
        });
        best.map(|outcome| (outcome.score, outcome.cost))
    };
    let chosen: Vec<_> = rows.iter().filter_map(best).collect();
    Reference {
        score: Mean::of(chosen.iter().map(|(score, _)| *score)),
        cost: Mean::of(chosen.iter().filter_map(|(_, cost)| *cost)),
    }
}

fn present<'a>(row: &'a Row, pool: &'a [String]) -> impl Iterator<Item = &'a Recorded> {
    pool.iter().filter_map(|name| row.outcomes.get(name))
}

/// Nano-dollars as US dollars, for a mean; below nine million dollars without loss.
#[expect(clippy::cast_precision_loss, reason = "a mean for people; exact below 2^53 nano-dollars")]
pub(crate) fn usd(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Three rows, three models, one of them outside of the pool: small enough to check by hand.
    pub(crate) fn tiny() -> (Vec<Row>, Vec<String>) {
        let lines = [
            r#"{"id": "1", "task": "law", "prompt": "p", "outcomes":
                {"a": {"score": 1, "cost": 0.4}, "b": {"score": 0, "cost": 0.1}, "out": {"score": 1}}}"#,
            r#"{"id": "2", "task": "math", "prompt": "p", "outcomes":
                {"a": {"score": 0, "cost": 0.4}, "b": {"score": 1, "cost": 0.1}, "out": {"score": 1}}}"#,
            r#"{"id": "3", "task": "math", "prompt": "p", "outcomes":
                {"a": {"score": 1, "cost": 0.4}, "b": {"score": 1, "cost": 0.1}, "out": {"score": 1}}}"#,
        ];
        let rows = lines.map(|line| serde_json::from_str(line).expect("is a row"));
        (rows.into(), vec!["a".to_owned(), "b".to_owned()])
    }

    fn near(found: Option<f64>, expected: f64) {
        let found = found.expect("is there");
        assert!((found - expected).abs() < 1e-12, "{found} != {expected}");
    }

    #[test]
    fn by_hand() {
        let (rows, pool) = tiny();
        let rows: Vec<&Row> = rows.iter().collect();
        let best = best_single(&rows, &pool).expect("there is one");
        // a and b are both right twice; b is cheaper.
        assert_eq!(best.name, "b");
        near(Some(best.score), 2.0 / 3.0);
        near(best.cost, 0.1);
        let random = random(&rows, &pool);
        near(random.score, (0.5 + 0.5 + 1.0) / 3.0);
        near(random.cost, 0.25);
        let oracle = oracle(&rows, &pool);
        near(oracle.score, 1.0);
        near(oracle.cost, (0.4 + 0.1 + 0.1) / 3.0);
    }

    #[test]
    fn nothing_recorded() {
        let (rows, _) = tiny();
        let rows: Vec<&Row> = rows.iter().collect();
        let pool = ["other".to_owned()];
        assert_eq!(best_single(&rows, &pool), None);
        assert_eq!(oracle(&rows, &pool).score, None);
        assert_eq!(random(&[], &pool).cost, None);
        // In one of three rows only: it does not compete.
        let (mut rows, pool) = tiny();
        for row in rows.iter_mut().take(2) {
            row.outcomes.remove("a");
        }
        let rows: Vec<&Row> = rows.iter().collect();
        let best = best_single(&rows, &pool).expect("there is one");
        assert_eq!(best.name, "b");
    }
}
