//! What an operator changed about models at run time: one JSON document per model, with each change in the audit
//! chain.

use futures_util::future::BoxFuture;
use pointsman_router::ids::ModelName;
use rusqlite::{Connection, OpenFlags, params};

use super::LedgerStore;
use super::chain::chain;
use crate::audit::Entry;
use crate::config::{Override, OverrideStore, OverrideStoreError};
use crate::store::{StoreError, unreadable};

impl OverrideStore for LedgerStore {
    /// Reads on a connection of its own, at start-up, before there is anything to wait for.
    fn load(&self) -> Result<Vec<Override>, OverrideStoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(&self.path, flags).and_then(|conn| read(&conn)).map_err(|e| failed(&e.into()))
    }

    fn save(&self, change: Override, entry: Entry) -> BoxFuture<'_, Result<(), OverrideStoreError>> {
        Box::pin(async move {
            let body = serde_json::to_string(&change)
                .map_err(|error| OverrideStoreError { detail: error.to_string() })?;
            let saving = self.writer.run(move |tx| {
                write(tx, &change.model, &body)?;
                chain(tx, &entry).map(|_| ())
            });
            saving.await.map_err(|error| failed(&error))
        })
    }
}

fn read(conn: &Connection) -> rusqlite::Result<Vec<Override>> {
    conn.prepare("SELECT body FROM model_overrides ORDER BY model")?
        .query_map((), |row| {
            serde_json::from_str(row.get_ref(0)?.as_str()?).map_err(|error| unreadable(0, error))
        })?
        .collect()
}

fn write(conn: &Connection, model: &ModelName, body: &str) -> rusqlite::Result<()> {
    conn.execute(
        "INSERT OR REPLACE INTO model_overrides (model, body) VALUES (?1, ?2)",
        params![model.as_str(), body],
    )
    .map(|_| ())
}

fn failed(error: &StoreError) -> OverrideStoreError {
    OverrideStoreError { detail: error.to_string() }
}
