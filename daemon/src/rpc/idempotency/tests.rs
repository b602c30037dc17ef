//! A key runs its request once, whoever asks, however often, and whatever becomes of the first caller.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use pointsman_router::clock::Timestamp;
use tokio::sync::Notify;

use super::*;
use crate::clock::Stopped;

/// When all of it happens.
const NOON: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

async fn keys(folder: &Path) -> Idempotency {
    let store = LedgerStore::open(&folder.join("ledger.db"), None).await.unwrap();
    Idempotency::new(store, Stopped::at(NOON), Traffic::new(64), 7)
}

fn spec(prompt: &str) -> v1::RequestSpec {
    v1::RequestSpec { prompt: prompt.to_owned(), ..v1::RequestSpec::default() }
}

/// Work that counts its runs and waits for leave.
fn work(runs: &Arc<AtomicU32>, leave: &Arc<Notify>) -> BoxFuture<'static, Reply> {
    let (runs, leave) = (Arc::clone(runs), Arc::clone(leave));
    Box::pin(async move {
        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
        leave.notified().await;
        Ok(v1::RouteResponse { decision_id: run.to_string(), ..v1::RouteResponse::default() })
    })
}

fn must_not_run() -> BoxFuture<'static, Reply> {
    Box::pin(async { panic!("it ran a second time") })
}

#[tokio::test]
async fn a_caller_that_goes_away_and_comes_back_gets_the_one_reply() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys(folder.path()).await;
    let (runs, leave) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let claim = keys.claim(&spec("p"), "k", false);
    {
        let first = keys.once(claim, work(&runs, &leave));
        tokio::pin!(first);
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        // Dropped here: the caller went away.
    }
    let (joined, ()) = tokio::join!(keys.once(claim, must_not_run()), async { leave.notify_one() });
    let joined = joined.unwrap();
    assert_eq!((joined.decision_id.as_str(), joined.replayed), ("1", true));
    let kept = keys.once(claim, must_not_run()).await.unwrap();
    assert_eq!((kept.decision_id.as_str(), kept.replayed), ("1", true));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_key_is_one_request_of_one_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys(folder.path()).await;
    let (runs, leave) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    leave.notify_one();
    let own = keys.once(keys.claim(&spec("p"), "k", false), work(&runs, &leave)).await.unwrap();
    assert!(!own.replayed);
    for (prompt, explain) in [("another", false), ("p", true)] {
        let other = keys.once(keys.claim(&spec(prompt), "k", explain), must_not_run()).await;
        assert_eq!(other.unwrap_err().reason(), Reason::KeyReused);
    }
    let mut of_tenant = spec("another");
    of_tenant.tags.insert("tenant".into(), "b".into());
    leave.notify_one();
    assert!(!keys.once(keys.claim(&of_tenant, "k", false), work(&runs, &leave)).await.unwrap().replayed);
}

#[tokio::test]
async fn a_failure_is_forgotten_and_may_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys(folder.path()).await;
    let claim = keys.claim(&spec("p"), "k", false);
    let failing = Box::pin(async { Err(Refusal::new(Reason::ModelsFailed, "all failed")) });
    assert_eq!(keys.once(claim, failing).await.unwrap_err().reason(), Reason::ModelsFailed);
    let (runs, leave) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    leave.notify_one();
    assert!(keys.once(claim, work(&runs, &leave)).await.is_ok());
}

#[tokio::test]
async fn a_crash_in_between_is_told_and_nothing_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let claim = {
        let keys = keys(folder.path()).await;
        let claim = keys.claim(&spec("p"), "k", false);
        keys.store.begin_key(claim.key, claim.body, NOON).await.unwrap();
        keys.store.close().await.unwrap();
        claim
    };
    let keys = keys(folder.path()).await;
    assert_eq!(keys.once(claim, must_not_run()).await.unwrap_err().reason(), Reason::KeyCrashed);
}
