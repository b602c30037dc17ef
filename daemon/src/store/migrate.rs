//! Migrations: numbered steps on `PRAGMA user_version`, each in a transaction of its own.
//!
//! Step n brings a file from version n − 1 to n. A step that was released is never edited; a change
//! is a new step at the end. A file whose version is above the newest step was written by a newer
//! daemon and is refused before anything is read of it: an older daemon that guesses would damage
//! what it does not understand.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// One step of a schema.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    sql: &'static str,
}

impl Migration {
    /// A step made of these statements, separated by semicolons.
    #[must_use]
    pub const fn new(sql: &'static str) -> Self {
        Self { sql }
    }
}

/// Brings a file to the newest version.
///
/// # Errors
/// [`StoreError::NewerSchema`] when the file is ahead of the steps; otherwise what SQLite said, with
/// the file left at the last step that succeeded.
pub fn migrate(conn: &mut Connection, path: &Path, steps: &[Migration]) -> Result<(), StoreError> {
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    let found = version(conn)?;
    if found > known {
        return Err(StoreError::NewerSchema { path: path.display().to_string(), found, known });
    }
    for (number, step) in (1_u32..).zip(steps) {
        if number > found {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute_batch(step.sql)?;
            tx.pragma_update(None, "user_version", number)?;
            tx.commit()?;
        }
    }
    Ok(())
}

fn version(conn: &Connection) -> rusqlite::Result<u32> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Migration = Migration::new("CREATE TABLE a (x INTEGER)");
    const TWO: Migration = Migration::new("ALTER TABLE a ADD COLUMN y INTEGER; CREATE TABLE b (z INTEGER)");
    const BROKEN: Migration = Migration::new("CREATE TABLE c (x INTEGER); CREATE TABLE a (x INTEGER)");

    fn check(conn: &mut Connection, steps: &[Migration], expected: u32) {
        migrate(conn, Path::new("x.db"), steps).unwrap();
        assert_eq!(version(conn).unwrap(), expected);
    }

    #[test]
    fn steps_are_taken_once_and_from_where_the_file_stands() {
        let mut conn = Connection::open_in_memory().unwrap();
        check(&mut conn, &[ONE], 1);
        check(&mut conn, &[ONE], 1);
        check(&mut conn, &[ONE, TWO], 2);
        conn.execute("INSERT INTO a (x, y) VALUES (1, 2)", ()).unwrap();
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let mut conn = Connection::open_in_memory().unwrap();
        assert!(matches!(migrate(&mut conn, Path::new("x.db"), &[ONE, BROKEN]), Err(StoreError::Sql { .. })));
        assert_eq!(version(&conn).unwrap(), 1);
        assert!(conn.execute("INSERT INTO c (x) VALUES (1)", ()).is_err());
    }

    #[test]
    fn a_newer_file_is_refused() {
        let mut conn = Connection::open_in_memory().unwrap();
        check(&mut conn, &[ONE, TWO], 2);
        let refused = migrate(&mut conn, Path::new("x.db"), &[ONE]);
        assert_eq!(refused, Err(StoreError::NewerSchema { path: "x.db".to_owned(), found: 2, known: 1 }));
    }
}
