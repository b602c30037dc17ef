//! A few read-only connections to a file that a [`super::Writer`] writes.
//!
//! Reading is done on tokio's blocking threads and never waits for the writer (WAL); how many read
//! at once is bounded by the number of connections. A connection that a panicking closure took with
//! it is opened anew.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::StoreError;
use super::writer::BUSY_TIMEOUT;

/// A cheap handle to the read-only connections of one file.
#[derive(Debug, Clone)]
pub struct Readers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    room: Arc<Semaphore>,
}

impl Readers {
    /// Opens `connections` readers (at least one) of a file that its writer has opened before.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the file cannot be opened.
    pub fn open(path: &Path, connections: usize) -> Result<Self, StoreError> {
        let connections = connections.max(1);
        let idle = (0..connections).map(|_| connect(path)).collect::<Result<_, _>>()?;
        let room = Arc::new(Semaphore::new(connections));
        Ok(Self(Arc::new(Inner { path: path.to_owned(), idle: Mutex::new(idle), room })))
    }

    /// Runs `work` on one of the connections, on a thread that may block.
    ///
    /// # Errors
    /// What the work met; [`StoreError::Closed`] when the runtime is going away.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        let permit = Arc::clone(&inner.room).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let conn = match inner.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
                Some(conn) => conn,
                None => connect(&inner.path)?,
            };
            let result = work(&conn);
            inner.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
            result.map_err(StoreError::from)
        });
        reading.await.map_err(|_| StoreError::Closed)?
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let conn =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}
