//! Retention: how long traces stay, and deleting them.
//!
//! Pruning has three steps, so that nothing learned depends on a row that is gone: the mark is set
//! durably, and from then on the older traces answer as pruned; whoever learns takes a snapshot that
//! holds all they taught; only then are the rows deleted, a small batch at a time between other
//! writes. Statistics are rows of their own and stay.
//!
//! The file does not shrink: freed pages are written again. A deletion waits for what is queued
//! first, so a trace that is on its way cannot escape it.

use std::time::Duration;

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::DecisionId;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::rows::{self, sql};
use super::stats::{day_of, fold_before};
use super::{PruneMark, TraceStore};
use crate::store::StoreError;

/// How long traces are kept; whichever ends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Days after which a trace is pruned.
    pub keep_days: u32,
    /// Bytes of the file's rows above which the oldest are pruned.
    pub keep_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep_days: 30, keep_bytes: 4 << 30 }
    }
}

/// Which traces to delete for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// Those of these decisions; unknown ones are passed over.
    Decisions(Vec<DecisionId>),
    /// All whose tag `tenant` has this value.
    Tenant(String),
}

/// How large the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSize {
    /// Traces that are kept.
    pub traces: u64,
    /// Admission of the oldest of them.
    pub oldest_at: Option<Timestamp>,
    /// Bytes in use in the file, without free pages and without the write-ahead log.
    pub used_bytes: u64,
}

/// Rows deleted in one transaction.
const DELETE_BATCH: usize = 500;
/// Pruning for size goes this far under the limit, so that it does not run for every row.
const PRUNED_TO_PERCENT: u64 = 95;

const SECONDS_PER_DAY: u64 = 86_400;

impl TraceStore {
    /// Whether traces are to be pruned, and up to which one; `None` while everything may stay.
    ///
    /// # Errors
    /// What reading met.
    pub async fn prune_plan(&self, now: Timestamp) -> Result<Option<PruneMark>, StoreError> {
        let retention = self.retention();
        let marked = self.pruned_through();
        self.readers()
            .read(move |conn| match plan(conn, retention, now)? {
                Some(mark) if mark.seq > marked.seq => Ok(Some(PruneMark { at: mark.at.max(marked.at), ..mark })),
                // A crash came between the mark and the last of its deletions.
                Some(_) | None => Ok(any_through(conn, marked)?.then_some(marked)),
            })
            .await
    }

    /// Sets the mark, durably: from now on all traces up to it answer as pruned. Marks never go back.
    ///
    /// # Errors
    /// What writing met; then the mark is as it was.
    pub async fn mark_pruned(&self, through: PruneMark) -> Result<(), StoreError> {
        if through.seq > self.pruned_through().seq {
            self.alone(move |tx| rows::set_prune_mark(tx, through)).await?;
            self.set_pruned_through(through);
        }
        Ok(())
    }

    /// Deletes up to `limit` of the oldest rows up to a mark that was set before; whether some
    /// remain. To be called until there are none, with other work in between.
    ///
    /// # Errors
    /// What writing met.
    pub async fn delete_through(&self, mark: PruneMark, limit: usize) -> Result<bool, StoreError> {
        let mark = if mark.seq <= self.pruned_through().seq { mark } else { self.pruned_through() };
        self.alone(move |tx| delete_oldest(tx, mark, limit)).await
    }

    /// Deletes traces and their reports for good, in small batches, and says how many traces. What
    /// statistics and learned state hold of them stays.
    ///
    /// # Errors
    /// What writing met; some may be deleted then.
    pub async fn delete(&self, which: Deletion) -> Result<u64, StoreError> {
        self.flushed().await?;
        let mut deleted = 0;
        match which {
            Deletion::Decisions(ids) => {
                for some in ids.chunks(DELETE_BATCH) {
                    let some = some.to_vec();
                    deleted += self.alone(move |tx| delete_decisions(tx, &some)).await?;
                }
            }
            Deletion::Tenant(tenant) => loop {
                let tenant = tenant.clone();
                match self.alone(move |tx| delete_of_tenant(tx, &tenant)).await? {
                    0 => break,
                    some => deleted += some,
                }
            },
        }
        Ok(deleted)
    }

    /// How large the store is.
    ///
    /// # Errors
    /// What reading met.
    pub async fn size(&self) -> Result<StoreSize, StoreError> {
        let size = |conn: &Connection| {
            let traces = conn.query_row("SELECT count(*) FROM traces", (), |row| row.get(0))?;
            let oldest: Option<i64> = conn.query_row("SELECT min(at_micros) FROM traces", (), |row| row.get(0))?;
            Ok(StoreSize { traces, oldest_at: oldest.map(Timestamp::from_micros), used_bytes: used_bytes(conn)? })
        };
        self.readers().read(size).await
    }
}

fn used_bytes(conn: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok(pragma("page_count")?.saturating_sub(pragma("freelist_count")?).saturating_mul(pragma("page_size")?))
}

fn any_through(conn: &Connection, mark: PruneMark) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM traces WHERE seq <= ?1)")?
        .query_row([sql(mark.seq)], |row| row.get(0))
}

/// The later of the two ends that days and bytes ask for. Imported traces stand where they came in, not
/// where they happened: they go with their neighbours.
fn plan(conn: &Connection, retention: Retention, now: Timestamp) -> rusqlite::Result<Option<PruneMark>> {
    let days = Duration::from_secs(u64::from(retention.keep_days) * SECONDS_PER_DAY);
    let cut = now.micros().saturating_sub(i64::try_from(days.as_micros()).unwrap_or(i64::MAX));
    let by_age: Option<u64> = conn
        .prepare_cached(
            "SELECT seq FROM traces WHERE at_micros < ?1 AND imported = 0 ORDER BY at_micros DESC LIMIT 1",
        )?
        .query_row([cut], |row| row.get(0))
        .optional()?;
    let by_size = excess(conn, retention.keep_bytes)?;
    let Some(seq) = by_age.max(by_size) else { return Ok(None) };
    let at: Option<i64> = conn
        .prepare_cached("SELECT at_micros FROM traces WHERE seq <= ?1 AND imported = 0 ORDER BY seq DESC LIMIT 1")?
        .query_row([sql(seq)], |row| row.get(0))
        .optional()?;
    // Where all of them happened elsewhere nothing of our own time goes.
    Ok(Some(PruneMark { seq, at: Timestamp::from_micros(at.unwrap_or(i64::MIN)) }))
}

/// The place up to which rows must go for the file to be small enough, taking rows as equally large.
fn excess(conn: &Connection, keep_bytes: u64) -> rusqlite::Result<Option<u64>> {
    let used = used_bytes(conn)?;
    if used <= keep_bytes {
        return Ok(None);
    }
    let ends: (Option<u64>, Option<u64>) =
        conn.query_row("SELECT (SELECT min(seq) FROM traces), (SELECT max(seq) FROM traces)", (), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let (Some(first), Some(last)) = ends else { return Ok(None) };
    let excess_bytes = u128::from(used - keep_bytes / 100 * PRUNED_TO_PERCENT);
    let rows = u128::from(last - first + 1) * excess_bytes / u128::from(used.max(1));
    Ok(Some(first.saturating_add(u64::try_from(rows).unwrap_or(u64::MAX)).min(last)))
}

fn delete_oldest(tx: &Transaction<'_>, mark: PruneMark, limit: usize) -> rusqlite::Result<bool> {
    let mut deleted = 0;
    for table in ["traces", "reports"] {
        let text = format!(
            "DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} WHERE seq <= ?1 ORDER BY seq LIMIT ?2)"
        );
        deleted += tx.prepare_cached(&text)?.execute(params![sql(mark.seq), limit - deleted.min(limit)])?;
    }
    if deleted < limit {
        fold_before(tx, day_of(mark.at))?;
    }
    Ok(deleted >= limit)
}

fn delete_decisions(tx: &Transaction<'_>, ids: &[DecisionId]) -> rusqlite::Result<u64> {
    let mut traces = tx.prepare_cached("DELETE FROM traces WHERE decision_id = ?1")?;
    let mut reports = tx.prepare_cached("DELETE FROM reports WHERE decision_id = ?1")?;
    let mut deleted = 0;
    for id in ids {
        deleted += traces.execute([id.as_bytes()])? as u64;
        reports.execute([id.as_bytes()])?;
    }
    Ok(deleted)
}

fn delete_of_tenant(tx: &Transaction<'_>, tenant: &str) -> rusqlite::Result<u64> {
    let ids = tx
        .prepare_cached("SELECT decision_id FROM traces WHERE tenant = ?1 LIMIT ?2")?
        .query_map(params![tenant, DELETE_BATCH], |row| row.get(0).map(DecisionId::from_bytes))?
        .collect::<Result<Vec<_>, _>>()?;
    delete_decisions(tx, &ids)
}
