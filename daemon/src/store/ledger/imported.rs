//! Feedback that came with traces from elsewhere: kept as any other, but no subscriber hears of it, no
//! scan finds it and no statistics count it.

use std::sync::Arc;

use pointsman_router::clock::Timestamp;
use pointsman_router::feedback::{Entry, labels};
use pointsman_router::trace::Trace;
use rusqlite::{Transaction, params};

use super::feedback::{NewFeedback, entries, insert};
use super::{LedgerStore, kept};
use crate::store::StoreError;

/// All that came with one trace, in its order.
#[derive(Debug, Clone)]
pub struct ImportedFeedback {
    /// The trace.
    pub trace: Arc<Trace>,
    /// What was said of it.
    pub rows: Vec<NewFeedback>,
}

impl LedgerStore {
    /// Keeps feedback from elsewhere; what says the same of the same as a row that is there is passed
    /// over. How many pieces are new.
    ///
    /// # Errors
    /// What the store met: then none is kept.
    pub async fn import_feedback(
        &self,
        some: Vec<ImportedFeedback>,
        secret: u64,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.writer
            .run(move |tx| some.iter().map(|one| import(tx, one, secret, now)).sum::<rusqlite::Result<u64>>())
            .await
    }
}

fn import(
    tx: &Transaction<'_>,
    ImportedFeedback { trace, rows }: &ImportedFeedback,
    secret: u64,
    now: Timestamp,
) -> rusqlite::Result<u64> {
    let mut known = entries(tx, trace.decision.id)?;
    let mut new = 0;
    for row in rows {
        let same = |e: &Entry| e.model == row.model && e.source == row.source;
        if known.iter().any(|e| same(e) && e.verdict == row.verdict) {
            continue;
        }
        let corrects = known.iter().rev().find(|e| same(e)).map(|e| e.seq);
        let place = known.last().map_or(0, |e| e.seq) + 1;
        known.push(Entry {
            seq: place,
            model: row.model.clone(),
            source: row.source.clone(),
            verdict: row.verdict.clone(),
            score: row.score,
        });
        let seq = insert(tx, row, corrects, &labels(trace, &known, secret))?;
        if let Some(last) = known.last_mut() {
            last.seq = seq;
        }
        tx.prepare_cached("UPDATE feedback SET imported_at_micros = ?2 WHERE seq = ?1")?
            .execute(params![kept(seq), now.micros()])?;
        new += 1;
    }
    Ok(new)
}
