//! The two SQLite files of the daemon: `ledger.db` (money, feedback, learned state) and `traces.db`
//! (what happened to each request).
//!
//! Each file has one writer thread behind a bounded channel that commits in groups and acknowledges
//! after the commit ([`writer`]), a few read-only connections ([`readers`]) and numbered migrations
//! ([`migrate`]). Nothing here is acknowledged that is not committed, and nothing here reads a
//! clock: times come in with the rows.
//!
//! A file that a newer daemon wrote is refused, never guessed at. A full disk fails the batch that
//! met it; service returns by itself once there is room.

pub mod artifacts;
pub mod ledger;
pub mod lock;
pub mod migrate;
pub mod readers;
pub mod traces;
pub mod writer;

pub use migrate::Migration;
pub use readers::Readers;
pub use writer::{Durability, Writer};

use rusqlite::ErrorCode;

/// Why a store could not do what it was asked. Nothing of the request was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A newer daemon has written the file.
    #[error(
        "`{path}` has schema version {found} and this daemon knows up to {known}, run the daemon that wrote it or restore a backup made by this version"
    )]
    NewerSchema {
        /// The file.
        path: String,
        /// The version it has.
        found: u32,
        /// The newest version that this daemon knows.
        known: u32,
    },
    /// The disk, or the limit set on the file, is full.
    #[error("the disk is full, free some space: writing goes on by itself")]
    Full,
    /// The file cannot be opened, read or written.
    #[error("the store's file cannot be used, check the folder and its rights: {detail}")]
    Io {
        /// What SQLite said.
        detail: String,
    },
    /// The file holds what no daemon wrote.
    #[error("the store is damaged, restore a backup: {detail}")]
    Corrupt {
        /// What could not be read.
        detail: String,
    },
    /// Another daemon runs on the same state folder.
    #[error("another pointsmand runs on `{path}`, stop it or choose another --state-dir")]
    InUse {
        /// The folder.
        path: String,
    },
    /// Another process holds the file, or more work is queued than the writer may hold.
    #[error("the store is busy, try again shortly")]
    Busy,
    /// A statement failed: a fault of this daemon.
    #[error("a statement of the store failed, please report this: {detail}")]
    Sql {
        /// What SQLite said.
        detail: String,
    },
    /// The store was closed, or is closing.
    #[error("the store is closed, the daemon is shutting down")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let detail = error.to_string();
        if let Some(error) = error.sqlite_error() {
            // "disk I/O error" alone says nothing: the extended code has the operation that failed.
            return Self::of_code(error.code, format!("{detail} (SQLite {})", error.extended_code));
        }
        // A value that is not what its column promises was not written by us.
        if matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..)
        ) {
            return Self::Corrupt { detail };
        }
        Self::Sql { detail }
    }
}

impl StoreError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "SQLite's codes are many and may grow; the rest is our own fault"
    )]
    fn of_code(code: ErrorCode, detail: String) -> Self {
        match code {
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt { detail },
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                Self::Busy
            }
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::NoLargeFileSupport => Self::Io { detail },
            _ => Self::Sql { detail },
        }
    }
}

/// The error of a column whose bytes cannot be read back; becomes [`StoreError::Corrupt`].
pub fn unreadable(
    column: usize,
    why: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, why.into())
}
