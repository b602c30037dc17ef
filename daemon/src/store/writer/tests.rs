use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as std_mpsc;

use super::*;
use crate::store::Readers;

const SCHEMA: &[Migration] = &[Migration::new("CREATE TABLE t (x INTEGER PRIMARY KEY, body BLOB)")];

fn open(folder: &tempfile::TempDir) -> Writer {
    Writer::open(&folder.path().join("t.db"), Durability::Full, Duration::ZERO, SCHEMA).unwrap()
}

async fn rows(folder: &tempfile::TempDir) -> Vec<i64> {
    let readers = Readers::open(&folder.path().join("t.db"), 1).unwrap();
    let read = readers
        .read(|conn| conn.prepare("SELECT x FROM t ORDER BY x")?.query_map((), |row| row.get(0))?.collect());
    read.await.unwrap()
}

fn insert(x: i64) -> impl FnOnce(&Transaction<'_>) -> rusqlite::Result<i64> + Send + 'static {
    move |tx| tx.execute("INSERT INTO t (x) VALUES (?1)", [x]).map(|_| x)
}

/// Keeps the thread inside a batch until the returned sender is dropped, so that what is queued
/// meanwhile shares the next one.
async fn held_up(writer: &Writer) -> std_mpsc::Sender<()> {
    let (release, released) = std_mpsc::channel::<()>();
    let (started, starts) = oneshot::channel();
    let work = move |_: &Transaction<'_>| {
        let _ = started.send(());
        let _ = released.recv();
        Ok(())
    };
    writer.submit(work, |_| ());
    starts.await.unwrap();
    release
}

#[tokio::test]
async fn what_is_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    assert_eq!(writer.run(insert(1)).await, Ok(1));
    assert_eq!(rows(&folder).await, [1]);
    writer.close().await.unwrap();
    assert_eq!(writer.run(insert(2)).await, Err(StoreError::Closed));
    let again = open(&folder);
    assert_eq!(again.run(insert(3)).await, Ok(3));
    assert_eq!(rows(&folder).await, [1, 3]);
}

#[tokio::test]
async fn nothing_is_acknowledged_before_its_commit() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let release = held_up(&writer).await;
    let acknowledged = Arc::new(AtomicBool::new(false));
    let (first, seen_inside) = (Arc::clone(&acknowledged), Arc::clone(&acknowledged));
    writer.submit(insert(1), move |result| first.store(result.is_ok(), Ordering::SeqCst));
    // In the same batch, after the first one's statement and before the commit.
    let (heard, inside) = oneshot::channel();
    writer.submit(move |_| Ok(seen_inside.load(Ordering::SeqCst)), move |result| heard.send(result).unwrap());
    drop(release);
    assert_eq!(inside.await, Ok(Ok(false)));
    assert!(acknowledged.load(Ordering::SeqCst));
}

#[tokio::test]
async fn one_failure_fails_the_batch_and_everyone_hears_it() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let release = held_up(&writer).await;
    let (good, bad, late) = (writer.run(insert(1)), writer.run(insert(1)), writer.run(insert(2)));
    let all = async { tokio::join!(good, bad, late) };
    let (results, ()) = tokio::join!(all, async move { drop(release) });
    assert!(matches!(
        results,
        (Err(StoreError::Sql { .. }), Err(StoreError::Sql { .. }), Err(StoreError::Sql { .. }))
    ));
    assert_eq!(rows(&folder).await, [] as [i64; 0]);
    assert_eq!(writer.run(insert(2)).await, Ok(2));
}

#[tokio::test]
async fn after_a_failure_a_bad_one_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    assert_eq!(writer.run(insert(1)).await, Ok(1));
    assert!(writer.run(insert(1)).await.is_err());
    let (bad, good) = tokio::join!(writer.run(insert(1)), writer.run(insert(2)));
    assert!(bad.is_err());
    assert_eq!(good, Ok(2));
}

#[tokio::test]
async fn a_full_disk_is_heard_and_writing_goes_on_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let limit = |pages: i64| {
        move |tx: &Transaction<'_>| {
            tx.pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0))
        }
    };
    writer.run(limit(3)).await.unwrap();
    let big = |x: i64| move |tx: &Transaction<'_>| tx.execute("INSERT INTO t VALUES (?1, zeroblob(100000))", [x]);
    assert_eq!(writer.run(big(1)).await, Err(StoreError::Full));
    assert_eq!(rows(&folder).await, [] as [i64; 0]);
    writer.run(limit(1_000)).await.unwrap();
    assert_eq!(writer.run(big(2)).await, Ok(1));
    assert_eq!(rows(&folder).await, [2]);
}

#[tokio::test]
async fn a_full_queue_refuses_and_drops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let release = held_up(&writer).await;
    let (heard, hears) = std_mpsc::channel();
    for x in 0..=i64::try_from(QUEUE_MAX).unwrap() {
        let heard = heard.clone();
        writer.submit(insert(x), move |result| heard.send(result).unwrap());
    }
    assert_eq!(hears.try_recv(), Ok(Err(StoreError::Busy)));
    drop(release);
    writer.close().await.unwrap();
    drop(heard);
    assert_eq!(hears.iter().filter(Result::is_ok).count(), QUEUE_MAX);
    assert_eq!(rows(&folder).await.len(), QUEUE_MAX);
}

#[tokio::test]
async fn the_last_handle_to_go_leaves_everything_written() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(&folder);
    let (heard, hears) = oneshot::channel();
    writer.submit(insert(7), move |result| heard.send(result).unwrap());
    drop(writer);
    assert_eq!(hears.await, Ok(Ok(7)));
    assert_eq!(rows(&folder).await, [7]);
}
