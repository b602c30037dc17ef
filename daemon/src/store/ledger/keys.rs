//! Keys of callers: what is known of each, and the keyed hash of its secret.
//!
//! A change and its entry in the audit chain are one transaction. A key is never deleted, so an id in a
//! trace or in the chain can always be asked for.

use std::sync::Arc;

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::KeyId;
use rusqlite::{Row, Transaction, params};

use super::LedgerStore;
use super::chain::chain;
use crate::audit::Entry;
use crate::keys::{KeyRecord, Scopes};
use crate::store::{StoreError, unreadable};

impl LedgerStore {
    /// All keys, the oldest first.
    ///
    /// # Errors
    /// What the store met.
    pub async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.readers
            .read(|conn| {
                conn.prepare_cached(
                    "SELECT id, tenant, name, scopes, created_at_micros, expires_at_micros, revoked_at_micros,
                         rotated_from, limits, hash FROM api_keys ORDER BY created_at_micros, id",
                )?
                .query_map((), record)?
                .collect()
            })
            .await
    }

    /// Keeps these keys as they are now, new or changed, with the entry that says why, all or nothing.
    ///
    /// # Errors
    /// What the store met: then nothing changed.
    pub async fn save_keys(&self, records: Vec<KeyRecord>, entry: Entry) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                records.iter().try_for_each(|record| save(tx, record))?;
                chain(tx, &entry).map(|_| ())
            })
            .await
    }
}

fn save(tx: &Transaction<'_>, record: &KeyRecord) -> rusqlite::Result<()> {
    let limits = serde_json::to_string(&record.limits)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    // What a key is never changes; only when it ends does.
    tx.prepare_cached(
        "INSERT INTO api_keys (id, tenant, name, scopes, created_at_micros, expires_at_micros, revoked_at_micros,
             rotated_from, limits, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (id) DO UPDATE SET expires_at_micros = ?6, revoked_at_micros = ?7",
    )?
    .execute(params![
        record.id.as_str(),
        record.tenant,
        record.name,
        record.scopes.words(),
        record.created_at.micros(),
        record.expires_at.map(Timestamp::micros),
        record.revoked_at.map(Timestamp::micros),
        record.rotated_from.as_ref().map(KeyId::as_str),
        limits,
        record.digest,
    ])
    .map(|_| ())
}

fn record(row: &Row<'_>) -> rusqlite::Result<KeyRecord> {
    let scopes = Scopes::parse(row.get_ref(3)?.as_str()?).ok_or_else(|| unreadable(3, "unknown scopes"))?;
    let moment = |micros: Option<i64>| micros.map(Timestamp::from_micros);
    Ok(KeyRecord {
        id: KeyId::from(row.get::<_, String>(0)?),
        tenant: Arc::from(row.get_ref(1)?.as_str()?),
        name: row.get(2)?,
        scopes,
        created_at: Timestamp::from_micros(row.get(4)?),
        expires_at: moment(row.get(5)?),
        revoked_at: moment(row.get(6)?),
        rotated_from: row.get::<_, Option<String>>(7)?.map(KeyId::from),
        limits: serde_json::from_str(row.get_ref(8)?.as_str()?).map_err(|error| unreadable(8, error))?,
        digest: row.get(9)?,
    })
}
