//! Idempotency keys: a request that is sent twice is routed once.
//!
//! A key is claimed durably before anything is done for it, and its reply is kept for a day. A key
//! that was open when the daemon stopped became neither: whether its request spent money is unknown,
//! so it is never run again under the same key.

use std::time::Duration;

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::DecisionId;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::LedgerStore;
use crate::store::StoreError;

/// How long a key is remembered.
pub const KEEP: Duration = Duration::from_secs(24 * 60 * 60);
/// Rows that are forgotten with each claim, at most: more than one, so that old rows go faster than
/// new ones come.
const PRUNED_PER_CLAIM: u32 = 8;

/// What became of claiming a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// It is yours: do the work, then call [`LedgerStore::finish_key`] or
    /// [`LedgerStore::forget_key`].
    Fresh,
    /// The same request is on its way.
    Open,
    /// The same request was answered, with these bytes.
    Done(Vec<u8>),
    /// The key was used for another request.
    OtherBody,
    /// The daemon stopped in the middle of the same request: what it spent is unknown.
    Crashed,
}

impl LedgerStore {
    /// Claims a key for a request; durable before it returns. Both are given as 128-bit hashes.
    ///
    /// # Errors
    /// What the store met: then the key is not claimed.
    pub async fn begin_key(&self, key: u128, body: u128, now: Timestamp) -> Result<Begin, StoreError> {
        self.writer.run(move |tx| claim(tx, &key.to_le_bytes(), &body.to_le_bytes(), now)).await
    }

    /// Keeps the reply of a claimed key, until the key is old or the decision is deleted. A key that was
    /// forgotten meanwhile stays forgotten.
    ///
    /// # Errors
    /// What the store met: then the key stays open.
    pub async fn finish_key(
        &self,
        key: u128,
        decision: Option<DecisionId>,
        reply: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                tx.prepare_cached(
                    "UPDATE idempotency SET state = 'done', reply = ?2, decision = ?3
                     WHERE key = ?1 AND state = 'open'",
                )?
                .execute(params![key.to_le_bytes(), reply, decision.as_ref().map(DecisionId::as_bytes)])
                .map(|_| ())
            })
            .await
    }

    /// Gives a claimed key back, because nothing was done for it: it may be used again.
    ///
    /// # Errors
    /// What the store met: then the key stays open.
    pub async fn forget_key(&self, key: u128) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                tx.prepare_cached("DELETE FROM idempotency WHERE key = ?1 AND state = 'open'")?
                    .execute([key.to_le_bytes()])
                    .map(|_| ())
            })
            .await
    }

    /// Forgets keys that are older than [`KEEP`], with their replies; how many.
    ///
    /// # Errors
    /// What the store met.
    pub async fn prune_keys(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.writer.run(move |tx| prune(tx, now, u32::MAX)).await
    }

    /// At start-up: what is open was cut.
    pub(super) async fn mark_crashed(&self) -> Result<(), StoreError> {
        self.writer
            .run(|tx| tx.execute("UPDATE idempotency SET state = 'crashed' WHERE state = 'open'", ()).map(|_| ()))
            .await
    }
}

/// When keys that count were claimed, at the earliest.
fn oldest(now: Timestamp) -> i64 {
    now.micros().saturating_sub(i64::try_from(KEEP.as_micros()).unwrap_or(i64::MAX))
}

fn prune(tx: &Transaction<'_>, now: Timestamp, at_most: u32) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE at_micros < ?1 ORDER BY at_micros LIMIT ?2)",
    )?
    .execute(params![oldest(now), at_most])
}

fn claim(tx: &Transaction<'_>, key: &[u8; 16], body: &[u8; 16], now: Timestamp) -> rusqlite::Result<Begin> {
    prune(tx, now, PRUNED_PER_CLAIM)?;
    let oldest = oldest(now);
    let found = tx
        .prepare_cached("SELECT body, state, reply FROM idempotency WHERE key = ?1 AND at_micros >= ?2")?
        .query_row(params![key, oldest], |row| {
            Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<Vec<u8>>>(2)?))
        })
        .optional()?;
    Ok(match found {
        None => {
            tx.prepare_cached(
                "INSERT OR REPLACE INTO idempotency (key, body, state, at_micros) VALUES (?1, ?2, 'open', ?3)",
            )?
            .execute(params![key, body, now.micros()])?;
            Begin::Fresh
        }
        Some((known, _, _)) if known != *body => Begin::OtherBody,
        Some((_, state, Some(reply))) if state == "done" => Begin::Done(reply),
        Some((_, state, _)) if state == "open" => Begin::Open,
        Some(_) => Begin::Crashed,
    })
}
