//! What money costs: a hold and its settlement on the request path, and what a durable acknowledgement takes.
//!
//! `hold and settle`: 64 tasks contend for one ledger with the daemon's own budget and one of each tenant, on a file
//! whose leases are granted as in the daemon; the median of a pair is to be at most 2 microseconds. `durable`: as many
//! callers, each waiting for its acknowledgement, through the one writer with `synchronous=FULL`: at least 20,000 a
//! second, with the median and the 99th percentile of the wait. The file lies where temporary files lie; on a disk
//! that syncs slowly the batches are larger and the waits longer.

#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_daemon::clock::SystemClock;
use pointsman_daemon::config::{Budget, Enforcement, Pacing, Scope, Window};
use pointsman_daemon::money::{BudgetLedger, Configured};
use pointsman_daemon::store::ledger::{Lease, LedgerStore, WindowOpening};
use pointsman_router::clock::{Clock as _, Draw, Timestamp};
use pointsman_router::hold::{Bill, Ledger as _, Payer};
use pointsman_router::ids::DecisionId;
use pointsman_router::money::NanoUsd;
use tokio::task::JoinSet;

const TASKS: usize = 64;
const PAIRS: usize = 4_000;
const WRITES: usize = 1_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(hold_and_settle());
    runtime.block_on(durable(64));
    runtime.block_on(durable(1_024));
}

fn budget(name: &str, scope: &str) -> Budget {
    Budget {
        name: name.to_owned(),
        scope: Scope::read(scope).unwrap(),
        amount: NanoUsd::new(1_000_000_000_000_000),
        window: Window::Day,
        time_zone: jiff::tz::TimeZone::UTC,
        enforcement: Enforcement::Hard,
        alert_at_percent: vec![50, 80, 95],
        pacing: Pacing::Off,
    }
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}

async fn hold_and_settle() {
    let folder = tempfile::tempdir().unwrap();
    let store = LedgerStore::open(&folder.path().join("ledger.db"), None).await.unwrap();
    let configured = Configured { main: Some(budget("all", "global")), others: vec![budget("each", "tenant:*")] };
    let ledger = Arc::new(BudgetLedger::open(store, configured, Arc::new(SystemClock)).await.unwrap());
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let ledger = Arc::clone(&ledger);
        tasks.spawn(async move {
            let tags = BTreeMap::from([("tenant".to_owned(), format!("t{}", task % 8))]);
            let payer = Payer { key: None, tags: &tags };
            let (mut draw, mut took) = (Draw::from_seed(task as u64), Vec::with_capacity(PAIRS));
            for pair in 0..PAIRS {
                let decision = DecisionId::new(SystemClock.now(), &mut draw);
                let (now, began) = (SystemClock.now(), Instant::now());
                let hold = ledger.hold(decision, NanoUsd::new(100_000), payer, now).await.unwrap();
                ledger.settle(&hold, Bill { settled: NanoUsd::new(20_000), unknown: NanoUsd::ZERO });
                took.push(began.elapsed());
                if pair % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            took
        });
    }
    let mut took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    took.sort_unstable();
    println!(
        "hold and settle, {TASKS} tasks, two accounts: p50 {:.2} µs (at most 2), p99 {:.2} µs",
        quantile(&took, 50).as_secs_f64() * 1e6,
        quantile(&took, 99).as_secs_f64() * 1e6
    );
}

async fn durable(callers: usize) {
    let folder = tempfile::tempdir().unwrap();
    let store = LedgerStore::open(&folder.path().join("ledger.db"), None).await.unwrap();
    let start = Timestamp::from_micros(0);
    for caller in 0..callers {
        let opening = WindowOpening { account: format!("a{caller}").into(), bounds: (start, None), amount: None };
        store.open_window(opening, start).await.unwrap();
    }
    let (each, began) = (WRITES * 64 / callers, Instant::now());
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let store = store.clone();
        tasks.spawn(async move {
            let mut took = Vec::with_capacity(each);
            for write in 1..=each {
                let (account, leased) = (format!("a{caller}").into(), NanoUsd::new(write as i64));
                let asked = Instant::now();
                store.grant(vec![Lease { account, start, leased }], start).await.unwrap();
                took.push(asked.elapsed());
            }
            took
        });
    }
    let mut took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let rate = took.len() as f64 / began.elapsed().as_secs_f64();
    took.sort_unstable();
    println!(
        "durable, {callers} callers that wait: {rate:.0} a second (at least 20,000), p50 {:.2} ms, p99 {:.2} ms",
        quantile(&took, 50).as_secs_f64() * 1e3,
        quantile(&took, 99).as_secs_f64() * 1e3
    );
}
