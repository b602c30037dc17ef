//! What all feedback up to a place comes to for one decision, read on a connection of the caller's:
//! training reads millions of decisions and must not take the connections of requests.

use std::collections::BTreeMap;

use pointsman_router::ids::DecisionId;
use rusqlite::{Connection, params};

use super::feedback::{Labels, read_labels};
use super::{kept, number};

/// What was said of a decision.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Said {
    /// The label that counts for each of its models.
    pub labels: Labels,
    /// How right the merged answer is: the mean over sources, each by its latest word; `None` where
    /// nobody judged it.
    pub answer: Option<f64>,
    /// Sequence of the first word on it; zero where nothing was said.
    pub first: u64,
}

/// What was said of a decision up to this sequence.
///
/// # Errors
/// What SQLite met.
pub fn said_of(conn: &Connection, decision: DecisionId, through: u64) -> rusqlite::Result<Said> {
    let mut statement = conn.prepare_cached(
        "SELECT model IS NULL, source, score, labels, seq FROM feedback WHERE decision = ?1 AND seq <= ?2 ORDER BY seq",
    )?;
    let mut rows = statement.query(params![decision.as_bytes(), kept(through)])?;
    let (mut said, mut by_source) = (Said::default(), BTreeMap::new());
    while let Some(row) = rows.next()? {
        if row.get::<_, bool>(0)? {
            by_source.insert(row.get::<_, String>(1)?, row.get::<_, f64>(2)?);
        }
        said.labels = read_labels(row, 3)?;
        if said.first == 0 {
            said.first = number(row, 4)?;
        }
    }
    if !by_source.is_empty() {
        said.answer = Some(by_source.values().sum::<f64>() / by_source.len() as f64);
    }
    Ok(said)
}
