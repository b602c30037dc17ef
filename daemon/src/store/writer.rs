//! The one writer of a SQLite file: a thread behind a bounded channel that commits in groups and
//! acknowledges after the commit.
//!
//! Many small writes share one commit, so that a disk that syncs a hundred times a second still
//! takes thousands of writes: while one batch syncs, the next one gathers. A piece of work is a
//! closure that runs inside the batch's transaction; what it returned is handed on only once the
//! batch is committed. So nothing is ever acknowledged that a crash could take back.
//!
//! When a statement or the commit fails, the whole batch is rolled back and everyone in it hears
//! the same error. After that, pieces of work run one to a transaction until one succeeds, so that a
//! bad one cannot take others down with it again, and deletions have a chance on a full disk.
//!
//! Work must be quick and must not wait for anything; work that panics ends the thread, and all that
//! is and will be asked hears [`StoreError::Closed`].

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::migrate::{Migration, migrate};

/// The most pieces of work that share one commit.
pub const BATCH_MAX: usize = 2_048;
/// The most pieces of work that wait for the writer.
pub const QUEUE_MAX: usize = 8_192;
/// How long a connection waits for another process that holds the file.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: every commit is synced.
    Full,
    /// A crash of the process; a power cut may take the last commits, never the file.
    Normal,
}

/// A cheap handle to the writer thread of one file. The thread ends when it is closed or the last
/// handle is gone; either way what was queued is written first.
#[derive(Debug, Clone)]
pub struct Writer {
    to_thread: mpsc::Sender<Message>,
}

trait Job: Send {
    fn work(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()>;
    fn done(self: Box<Self>, committed: Result<(), StoreError>);
}

enum Message {
    Job(Box<dyn Job>),
    Sync(oneshot::Sender<Result<(), StoreError>>),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Job(_) => "Job",
            Self::Sync(_) => "Sync",
            Self::Close(_) => "Close",
        })
    }
}

impl Writer {
    /// Opens or creates the file, brings its schema to the newest version and starts the thread.
    /// `linger` is how long the first piece of work of a batch waits for others; zero is right where
    /// commits sync, since a batch gathers while the one before it does.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] when a newer daemon wrote the file; [`StoreError::Io`] when it
    /// cannot be opened.
    pub fn open(
        path: &Path,
        durability: Durability,
        linger: Duration,
        migrations: &[Migration],
    ) -> Result<Self, StoreError> {
        let mut conn = Connection::open(path)?;
        prepare(&conn, durability)?;
        migrate(&mut conn, path, migrations)?;
        let (to_thread, from_handles) = mpsc::channel(QUEUE_MAX);
        let name = path.file_stem().map_or_else(String::new, |stem| format!("write-{}", stem.display()));
        std::thread::Builder::new()
            .name(name)
            .spawn(move || run(conn, from_handles, linger))
            .map_err(|error| StoreError::Io { detail: error.to_string() })?;
        Ok(Self { to_thread })
    }

    /// Runs `work` in the next batch and returns what it returned once that is committed. Waits for
    /// room in the queue. Dropping the future does not take the work back.
    ///
    /// # Errors
    /// What the work or the commit met: then nothing of the batch was stored.
    /// [`StoreError::Closed`] when the writer is closed.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, committed) = oneshot::channel();
        let job = Closures::new(work, move |result| {
            // Nobody listens any more: the work is committed all the same.
            let _ = reply.send(result);
        });
        self.to_thread.send(Message::Job(Box::new(job))).await.map_err(|_| StoreError::Closed)?;
        committed.await.map_err(|_| StoreError::Closed)?
    }

    /// Queues `work` without waiting. `done` hears exactly once: on the writer's thread after the
    /// commit, with what the work returned or with the batch's error; or at once, on this thread,
    /// with [`StoreError::Busy`] when the queue is full or [`StoreError::Closed`]. The order in which
    /// work is queued is the order in which it runs and in which `done`s hear.
    pub fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
        done: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) {
        let job = Message::Job(Box::new(Closures::new(work, done)));
        let (refused, error) = match self.to_thread.try_send(job) {
            Ok(()) => return,
            Err(TrySendError::Full(message)) => (message, StoreError::Busy),
            Err(TrySendError::Closed(message)) => (message, StoreError::Closed),
        };
        if let Message::Job(job) = refused {
            job.done(Err(error));
        }
    }

    /// Writes what was queued before and syncs it, where commits alone do not.
    ///
    /// # Errors
    /// What the checkpoint met; [`StoreError::Closed`] when the writer is closed.
    pub async fn sync(&self) -> Result<(), StoreError> {
        let (reply, synced) = oneshot::channel();
        self.to_thread.send(Message::Sync(reply)).await.map_err(|_| StoreError::Closed)?;
        synced.await.map_err(|_| StoreError::Closed)?
    }

    /// Writes what is queued, checkpoints and closes the file. Everything asked later hears
    /// [`StoreError::Closed`].
    ///
    /// # Errors
    /// What the checkpoint met; the commits before it are safe. [`StoreError::Closed`] when it was
    /// closed before.
    pub async fn close(&self) -> Result<(), StoreError> {
        let (reply, closed) = oneshot::channel();
        self.to_thread.send(Message::Close(reply)).await.map_err(|_| StoreError::Closed)?;
        closed.await.map_err(|_| StoreError::Closed)?
    }
}

/// A job made of two closures; the value waits between them for the commit.
struct Closures<W, D, T> {
    work: Option<W>,
    done: D,
    value: Option<T>,
}

impl<W, D, T> Closures<W, D, T> {
    fn new(work: W, done: D) -> Self {
        Self { work: Some(work), done, value: None }
    }
}

impl<W, D, T> Job for Closures<W, D, T>
where
    W: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send,
    D: FnOnce(Result<T, StoreError>) + Send,
    T: Send,
{
    fn work(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.value = Some(work(tx)?);
        }
        Ok(())
    }

    fn done(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { done, value, .. } = *self;
        done(committed.and_then(|()| value.ok_or(StoreError::Closed)));
    }
}

fn prepare(conn: &Connection, durability: Durability) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(64);
    let _mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "mmap_size", 0)?;
    // In KiB when negative. Pages: 16 MiB of log before its content moves into the file.
    conn.pragma_update(None, "cache_size", -16_384)?;
    conn.pragma_update(None, "wal_autocheckpoint", 4_096)?;
    conn.pragma_update(None, "journal_size_limit", 64 << 20)
}

/// The thread. Its loop ends when the channel is closed and empty.
fn run(mut conn: Connection, mut from_handles: mpsc::Receiver<Message>, linger: Duration) {
    let mut closing = Vec::new();
    let mut batch_max = BATCH_MAX;
    while let Some(first) = from_handles.blocking_recv() {
        let (mut batch, mut syncing) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        if closing.is_empty() && !linger.is_zero() && batch_max > 1 {
            std::thread::sleep(linger);
        }
        while let Some(message) = next.take() {
            match message {
                Message::Job(job) => batch.push(job),
                Message::Sync(reply) => syncing.push(reply),
                Message::Close(reply) => {
                    from_handles.close();
                    closing.push(reply);
                }
            }
            if batch.len() < batch_max {
                next = from_handles.try_recv().ok();
            }
        }
        if !batch.is_empty() {
            let committed = commit(&mut conn, &mut batch);
            batch_max = if committed.is_ok() { BATCH_MAX } else { 1 };
            for job in batch {
                job.done(committed.clone());
            }
        }
        if !syncing.is_empty() {
            let synced = sync(&conn).map_err(StoreError::from);
            for reply in syncing {
                // Whoever asked has gone: it is synced all the same.
                let _ = reply.send(synced.clone());
            }
        }
    }
    if closing.is_empty() {
        return;
    }
    let closed = checkpoint(&conn).map_err(StoreError::from);
    drop(conn);
    for reply in closing {
        // Whoever asked has gone: the file is closed all the same.
        let _ = reply.send(closed.clone());
    }
}

/// Runs a batch in one transaction; it is rolled back where it does not end in `Ok`.
fn commit(conn: &mut Connection, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in batch {
        job.work(&tx)?;
    }
    Ok(tx.commit()?)
}

/// A checkpoint syncs the log before it moves anything; readers may keep it from moving all.
fn sync(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))
}

fn checkpoint(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
}

#[cfg(test)]
mod tests;
