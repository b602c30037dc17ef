//! The audit chain in the file: only ever added to, one entry with each change, in the transaction of the
//! change.
//!
//! Triggers refuse updates and deletions, and let the head move by one entry at a time. Whoever writes to
//! the file past them is found by [`LedgerStore::prove_audit`].

use pointsman_router::clock::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::{LedgerStore, kept, number};
use crate::audit::{Breach, Entry, Hash, Head, Link, Walk};
use crate::store::StoreError;

/// Entries that are read at once while a chain is walked.
const BATCH: usize = 1_000;

/// Adds an entry to the chain, in the transaction of the change that it tells of: both are there, or
/// neither.
pub(super) fn chain(tx: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<Head> {
    let link = head(tx)?.next(entry);
    tx.prepare_cached(
        "INSERT INTO audit_chain (seq, at_micros, actor, action, subject, details, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        kept(link.seq),
        link.at.micros(),
        link.actor,
        link.action,
        link.subject,
        link.details,
        link.hash
    ])?;
    tx.prepare_cached("UPDATE audit_head SET seq = ?1, hash = ?2")?.execute(params![kept(link.seq), link.hash])?;
    Ok(link.head())
}

impl LedgerStore {
    /// Adds an entry on something that changes nothing else in this file.
    ///
    /// # Errors
    /// What the store met: then it was not added.
    pub async fn note(&self, entry: Entry) -> Result<Head, StoreError> {
        self.writer.run(move |tx| chain(tx, &entry)).await
    }

    /// The newest entries below a place, newest first.
    ///
    /// # Errors
    /// What the store met.
    pub async fn audit_chain(&self, below: Option<u64>, limit: usize) -> Result<Vec<Link>, StoreError> {
        let below = below.map_or(i64::MAX, kept);
        self.readers
            .read(move |conn| {
                conn.prepare_cached(&select("seq < ?1 ORDER BY seq DESC LIMIT ?2"))?
                    .query_map([below, kept(limit as u64)], link)?
                    .collect()
            })
            .await
    }

    /// Walks the whole chain to the head that is kept beside it, and past a head that somebody wrote down
    /// elsewhere. The head, or how the chain is broken.
    ///
    /// # Errors
    /// What the store met.
    pub async fn prove_audit(&self, known: Option<Head>) -> Result<Result<Head, Breach>, StoreError> {
        // One read transaction: what is added meanwhile is not seen.
        self.readers
            .read(move |conn| {
                let reading = conn.unchecked_transaction()?;
                walk(&reading, known)
            })
            .await
    }
}

fn walk(conn: &Connection, known: Option<Head>) -> rusqlite::Result<Result<Head, Breach>> {
    let mut walk = Walk::begin(known);
    let mut after = i64::MIN;
    let mut batch = conn.prepare_cached(&select("seq > ?1 ORDER BY seq LIMIT ?2"))?;
    loop {
        let links: Vec<Link> = batch.query_map([after, kept(BATCH as u64)], link)?.collect::<Result<_, _>>()?;
        for link in &links {
            if let Err(breach) = walk.step(link) {
                return Ok(Err(breach));
            }
        }
        match links.last() {
            Some(last) if links.len() == BATCH => after = kept(last.seq),
            Some(_) | None => return Ok(walk.end(head(conn)?)),
        }
    }
}

/// The head that is kept beside the chain; where it is gone, that of an empty chain.
fn head(conn: &Connection) -> rusqlite::Result<Head> {
    let read = |row: &Row<'_>| Ok(Head { seq: number(row, 0)?, hash: row.get::<_, Hash>(1)? });
    let head = conn.prepare_cached("SELECT seq, hash FROM audit_head")?.query_row((), read).optional()?;
    Ok(head.unwrap_or(Head::START))
}

fn select(rest: &str) -> String {
    format!("SELECT seq, at_micros, actor, action, subject, details, hash FROM audit_chain WHERE {rest}")
}

fn link(row: &Row<'_>) -> rusqlite::Result<Link> {
    Ok(Link {
        seq: number(row, 0)?,
        at: Timestamp::from_micros(row.get(1)?),
        actor: row.get(2)?,
        action: row.get(3)?,
        subject: row.get(4)?,
        details: row.get(5)?,
        hash: row.get(6)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::By;
    use crate::store::ledger::tests::{at, store};

    async fn three(ledger: &LedgerStore) -> Head {
        let mut head = Head::START;
        for n in 1..=3 {
            let by = By::new("operator", at(n));
            head = ledger.note(Entry::new(&by, "model.removed", &format!("m{n}"), json!({}))).await.unwrap();
        }
        head
    }

    /// What a hand on the file does, past the triggers.
    fn tamper(folder: &tempfile::TempDir, sql: &str) {
        let conn = Connection::open(folder.path().join("ledger.db")).unwrap();
        conn.execute_batch(
            "DROP TRIGGER audit_chain_is_not_changed; DROP TRIGGER audit_chain_is_not_cut;
             DROP TRIGGER audit_head_moves_on; DROP TRIGGER audit_head_stays;",
        )
        .unwrap();
        conn.execute_batch(sql).unwrap();
    }

    async fn check(sql: &str, expected: Breach) {
        let (folder, ledger) = store().await;
        three(&ledger).await;
        tamper(&folder, sql);
        assert_eq!(ledger.prove_audit(None).await, Ok(Err(expected)), "{sql}");
    }

    #[tokio::test]
    async fn entries_follow_one_another_and_are_listed_newest_first() {
        let (_folder, ledger) = store().await;
        assert_eq!(ledger.prove_audit(None).await, Ok(Ok(Head::START)));
        let head = three(&ledger).await;
        assert_eq!(ledger.prove_audit(Some(head)).await, Ok(Ok(head)));
        let subjects = |links: Vec<Link>| links.into_iter().map(|link| link.subject).collect::<Vec<_>>();
        assert_eq!(subjects(ledger.audit_chain(None, 2).await.unwrap()), ["m3", "m2"]);
        assert_eq!(subjects(ledger.audit_chain(Some(2), 2).await.unwrap()), ["m1"]);
    }

    #[tokio::test]
    async fn tampering_is_found_and_named() {
        check("UPDATE audit_chain SET subject = 'other' WHERE seq = 2", Breach::Altered { seq: 2 }).await;
        check("UPDATE audit_chain SET actor = 'other' WHERE seq = 3", Breach::Altered { seq: 3 }).await;
        check("DELETE FROM audit_chain WHERE seq = 2", Breach::Missing { seq: 2 }).await;
        check("DELETE FROM audit_chain WHERE seq = 1", Breach::Missing { seq: 1 }).await;
        check("DELETE FROM audit_chain WHERE seq = 3", Breach::Cut { last: 2, head: 3 }).await;
        check("DELETE FROM audit_chain", Breach::Cut { last: 0, head: 3 }).await;
        check("DELETE FROM audit_head", Breach::Added { seq: 1 }).await;
        let moved = "INSERT INTO audit_chain SELECT 4, at_micros, actor, action, subject, details, hash FROM audit_chain WHERE seq = 3";
        check(moved, Breach::Altered { seq: 4 }).await;
        check("UPDATE audit_head SET hash = zeroblob(32)", Breach::Altered { seq: 3 }).await;
    }

    #[tokio::test]
    async fn a_tail_that_was_cut_with_its_head_is_found_by_whoever_wrote_the_head_down() {
        let (folder, ledger) = store().await;
        let head = three(&ledger).await;
        tamper(
            &folder,
            "DELETE FROM audit_chain WHERE seq = 3;
             UPDATE audit_head SET seq = 2, hash = (SELECT hash FROM audit_chain WHERE seq = 2);",
        );
        assert!(ledger.prove_audit(None).await.unwrap().is_ok());
        assert_eq!(ledger.prove_audit(Some(head)).await, Ok(Err(Breach::Cut { last: 2, head: 3 })));
    }

    #[tokio::test]
    async fn the_file_itself_refuses_changes() {
        let (folder, ledger) = store().await;
        three(&ledger).await;
        let conn = Connection::open(folder.path().join("ledger.db")).unwrap();
        for sql in [
            "UPDATE audit_chain SET actor = 'x'",
            "DELETE FROM audit_chain",
            "DELETE FROM audit_head",
            "UPDATE audit_head SET seq = 1",
        ] {
            assert!(conn.execute(sql, ()).is_err(), "{sql}");
        }
        assert!(ledger.prove_audit(None).await.unwrap().is_ok());
    }
}
