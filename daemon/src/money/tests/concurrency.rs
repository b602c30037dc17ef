//! Many requests at once, with every way in which a call can end: nothing is overspent, and nothing leaks.

use tokio::sync::Notify;

use super::*;

const REQUESTS: u64 = 1_000;
const SEEDS: u64 = 100;
const HOLD: i64 = 1_000;

/// What is counted beside the ledger.
#[derive(Debug, Default)]
struct Sums {
    held: AtomicI64,
    settled: AtomicI64,
    unknown: AtomicI64,
    released: AtomicI64,
    in_flight: AtomicI64,
    /// The least that was asked for and denied for good.
    denied: AtomicI64,
    ended: Notify,
}

impl Sums {
    fn of(sum: &AtomicI64) -> i64 {
        sum.load(Ordering::SeqCst)
    }
}

/// One request: held in two accounts, then answered, failed, retried, cut off or cancelled.
async fn request(ledger: &BudgetLedger, sums: &Sums, number: u64, draw: &mut Draw) {
    let tags = BTreeMap::from([("tenant".to_owned(), format!("t{}", number % 4))]);
    let payer = Payer { key: None, tags: &tags };
    let ask = HOLD / 2 + (draw.next_u64() % HOLD as u64) as i64;
    // One in sixteen callers goes away while its hold is being granted, and so never learns of it.
    if draw.next_u64().is_multiple_of(16) {
        if let Some(Ok(hold)) = ledger.hold(decision(number), nanos(ask), payer, at(1)).now_or_never() {
            sums.held.fetch_add(ask, Ordering::SeqCst);
            ledger.settle(&hold, Bill::default());
            sums.released.fetch_add(ask, Ordering::SeqCst);
            sums.ended.notify_waiters();
        }
        return;
    }
    let hold = loop {
        let ended = sums.ended.notified();
        sums.in_flight.fetch_add(1, Ordering::SeqCst);
        match ledger.hold(decision(number), nanos(ask), payer, at(1)).await {
            Ok(hold) => break hold,
            Err(HoldError::NoMoney(_)) => {}
            Err(error) => panic!("{error}"),
        }
        // Denied for good only once nothing is under way that could release some.
        if sums.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            sums.denied.fetch_min(ask, Ordering::SeqCst);
            sums.ended.notify_waiters();
            return;
        }
        let _ = tokio::time::timeout(std::time::Duration::from_millis(1), ended).await;
    };
    sums.held.fetch_add(ask, Ordering::SeqCst);
    tokio::task::yield_now().await;
    let part = (draw.next_u64() % (ask as u64 + 1)) as i64;
    let bill = match draw.next_u64() % 5 {
        // It failed before anything was sent.
        0 => Bill::default(),
        // It timed out after sending.
        1 => Bill { settled: NanoUsd::ZERO, unknown: nanos(part) },
        // A first attempt of which nobody knows, and a retry that answered.
        2 => Bill { settled: nanos(ask - part), unknown: nanos(part) },
        _ => settled(part),
    };
    sums.settled.fetch_add(bill.settled.nanos(), Ordering::SeqCst);
    sums.unknown.fetch_add(bill.unknown.nanos(), Ordering::SeqCst);
    sums.released.fetch_add(ask - bill.spent().nanos(), Ordering::SeqCst);
    ledger.settle(&hold, bill);
    sums.in_flight.fetch_sub(1, Ordering::SeqCst);
    sums.ended.notify_waiters();
}

/// A budget of a hundred requests, and a thousand that come at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_at_once_never_pass_a_budget_that_fits_a_hundred() {
    const AMOUNT: i64 = 100 * HOLD;
    for seed in 0..SEEDS {
        let (folder, store) = store().await;
        let others = vec![Budget::of("each", "tenant:*", AMOUNT, Window::Hour)];
        let configured = Configured { others, ..main_of(AMOUNT) };
        let ledger = Arc::new(opened(store, configured.clone(), 0).await);
        let sums = Arc::new(Sums { denied: i64::MAX.into(), ..Sums::default() });
        let mut requests = JoinSet::new();
        for number in 0..REQUESTS {
            let (ledger, sums) = (Arc::clone(&ledger), Arc::clone(&sums));
            requests.spawn(async move {
                let mut draw = Draw::from_seed(seed * REQUESTS + number);
                request(&ledger, &sums, number, &mut draw).await;
            });
        }
        requests.join_all().await;

        let [held, settled, unknown, released] =
            [&sums.held, &sums.settled, &sums.unknown, &sums.released].map(Sums::of);
        assert_eq!(held, settled + unknown + released, "seed {seed}");
        assert!(settled + unknown <= AMOUNT, "seed {seed}: {}", settled + unknown);
        for status in ledger.statuses(at(1)) {
            assert!(status.spent <= status.amount.unwrap(), "seed {seed}: {status:?}");
            assert_eq!(status.held, NanoUsd::ZERO, "seed {seed}: {status:?}");
        }
        let status = ledger.status(at(1));
        assert_eq!((status.spent, status.unknown), (nanos(settled + unknown), nanos(unknown)), "seed {seed}");
        let (left, denied) = (status.left.unwrap(), nanos(Sums::of(&sums.denied)));
        assert!(left < denied, "seed {seed}: {left} left, and {denied} was denied");

        // What a crash now would find: everything that may have been spent is covered by the leases.
        assert_eq!(ledger.store.imbalances().await, Ok(Vec::new()));
        drop(ledger);
        let again = opened(reopen(&folder).await, configured, 1).await;
        assert!(again.status(at(1)).spent >= nanos(settled + unknown), "seed {seed}");
        assert!(again.status(at(1)).spent <= nanos(AMOUNT), "seed {seed}");
    }
}
