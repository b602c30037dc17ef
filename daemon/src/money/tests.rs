//! Tests of the budget: the arithmetic against a slow model of itself, the rest against a real file.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::FutureExt as _;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::config::Pacing;
use crate::store::ledger::tests::{at, decision, fill_disk, limit_pages, reopen, store};
use crate::store::ledger::{BookOutcome, Booking, Spend, Spends, TransferKind};

const HOUR: i64 = 3_600;

fn nanos(amount: i64) -> NanoUsd {
    NanoUsd::new(amount)
}

fn budget(amount: i64) -> Option<Budget> {
    Some(Budget {
        name: "all".to_owned(),
        amount: nanos(amount),
        window: Window::Hour,
        time_zone: TimeZone::UTC,
        pacing: Pacing::Off,
    })
}

fn settled(amount: i64) -> Bill {
    Bill { settled: nanos(amount), unknown: NanoUsd::ZERO }
}

async fn ledger(amount: i64) -> (TempDir, BudgetLedger) {
    let (folder, store) = store().await;
    (folder, BudgetLedger::open(store, budget(amount), at(0)).await.unwrap())
}

/// As after a crash: the file is read by a new process.
async fn restarted(folder: &TempDir, amount: i64) -> BudgetLedger {
    BudgetLedger::open(reopen(folder).await, budget(amount), at(1)).await.unwrap()
}

async fn book(ledger: &BudgetLedger, parts: &[(Timestamp, Spend)]) {
    let mut spends = Spends::default();
    parts.iter().for_each(|part| spends.add(*part));
    let after = ledger.store.booked_through().await.unwrap();
    let booking = Booking { after, through: after + parts.len() as u64, spends };
    assert_eq!(ledger.store.book(ledger.name(), booking).await, Ok(BookOutcome::Booked));
}

/// What a trace with this hold and bill books.
fn spend(hold: &Hold, bill: Bill) -> (Timestamp, Spend) {
    let spend = Spend { settled: bill.settled, unknown: bill.unknown, overrun: bill.overrun(hold.amount) };
    (hold.window, spend)
}

/// Spent, held and left.
fn check(ledger: &BudgetLedger, seconds: i64, expected: (i64, i64, i64)) {
    let status = ledger.status(at(seconds));
    assert_eq!(
        (status.spent, status.held, status.left),
        (nanos(expected.0), nanos(expected.1), Some(nanos(expected.2)))
    );
}

#[derive(Debug, Clone)]
enum Act {
    Take(i64),
    /// Settle one of the open holds: known and unknown parts, in percent of it.
    Settle(prop::sample::Index, i64, i64),
}

fn acts(percent_max: i64) -> impl Strategy<Value = Vec<Act>> {
    let settle = (any::<prop::sample::Index>(), 0..=percent_max, 0..=percent_max);
    let act = prop_oneof![
        (0_i64..400).prop_map(Act::Take),
        settle.prop_map(|(which, known, unknown)| Act::Settle(which, known, unknown)),
    ];
    prop::collection::vec(act, 1..200)
}

/// Plays acts on a meter and on plain sums; the largest amount that was held and spent together.
fn play(amount: i64, acts: Vec<Act>) -> i64 {
    let mut meter = Meter::empty((at(0), None), Some(nanos(amount)));
    let mut open: Vec<Hold> = Vec::new();
    let (mut taken, mut known, mut unknown, mut released, mut overrun, mut most) = (0, 0, 0, 0, 0, 0);
    for (number, act) in acts.into_iter().enumerate() {
        match act {
            Act::Take(ask) => {
                let id = decision(number as u64);
                let held_before = taken + overrun - known - unknown - released;
                let used = held_before + known + unknown + ask;
                let mut took = meter.take(id, nanos(ask));
                if let Take::Lease(leased) = took {
                    assert!(leased <= nanos(amount));
                    meter.set_leased(at(0), leased);
                    took = meter.take(id, nanos(ask));
                }
                // Granted exactly where there is room.
                assert_eq!(took == Take::Held, used <= amount || ask == 0);
                if took == Take::Held {
                    taken += ask;
                    open.push(Hold { decision: id, amount: nanos(ask), window: at(0) });
                    most = most.max(used);
                }
            }
            Act::Settle(which, percent_known, percent_unknown) if !open.is_empty() => {
                let hold = open.swap_remove(which.index(open.len()));
                let held = hold.amount.nanos();
                let (part_known, part_unknown) = (held * percent_known / 100, held * percent_unknown / 100);
                let above = meter.settle(&hold, Bill { settled: nanos(part_known), unknown: nanos(part_unknown) });
                known += part_known;
                unknown += part_unknown;
                released += (held - part_known - part_unknown).max(0);
                overrun += above.nanos();
            }
            Act::Settle(..) => {}
        }
        let still_held: i64 = open.iter().map(|hold| hold.amount.nanos()).sum();
        assert_eq!(meter.held(), nanos(still_held));
        assert_eq!(meter.spent(), nanos(known + unknown));
        assert_eq!(meter.left(), Some(nanos(amount - still_held - known - unknown)));
        assert_eq!(taken + overrun, known + released + unknown + still_held);
    }
    most
}

proptest! {
    #[test]
    fn a_meter_never_spends_more_than_its_amount(amount in 0_i64..3_000, acts in acts(50)) {
        prop_assert!(play(amount, acts) <= amount);
    }

    #[test]
    fn its_books_balance_where_calls_cost_more_than_was_held(amount in 0_i64..3_000, acts in acts(200)) {
        play(amount, acts);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_never_hold_more_than_there_is() {
    const AMOUNT: i64 = 100_000;
    let (_folder, ledger) = ledger(AMOUNT).await;
    let ledger = Arc::new(ledger);
    let (admitted, spent) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let mut tasks = JoinSet::new();
    for task in 0..16_u64 {
        let (ledger, admitted, spent) = (Arc::clone(&ledger), Arc::clone(&admitted), Arc::clone(&spent));
        tasks.spawn(async move {
            let mut draw = pointsman_router::clock::Draw::from_seed(task);
            for call in 0..100 {
                let ask = 1 + (draw.next_u64() % 300) as i64;
                let Ok(hold) = ledger.hold(decision(task * 1_000 + call), nanos(ask), at(1)).await else {
                    continue;
                };
                let now = admitted.fetch_add(ask, Ordering::SeqCst) + ask;
                assert!(now <= AMOUNT, "{now}");
                tokio::task::yield_now().await;
                let cost = (draw.next_u64() % (ask as u64 + 1)) as i64;
                spent.fetch_add(cost, Ordering::SeqCst);
                // First out of the sum, then out of the ledger: the sum is never above the truth.
                admitted.fetch_sub(ask - cost, Ordering::SeqCst);
                ledger.settle(&hold, settled(cost));
            }
        });
    }
    tasks.join_all().await;
    let spent = spent.load(Ordering::SeqCst);
    assert!(spent > AMOUNT * 9 / 10, "the budget was hardly used: {spent}");
    check(&ledger, 1, (spent, 0, AMOUNT - spent));
    let row = ledger.store.windows("all", 1).await.unwrap().remove(0);
    assert!(row.leased >= nanos(spent) && row.leased <= nanos(AMOUNT), "{row:?}");
    let transfers = ledger.store.transfers("all", at(0)).await.unwrap();
    assert!(transfers.len() < 110, "leases are taken in portions, not one by one");
    assert_eq!(transfers.iter().map(|t| t.amount).sum::<NanoUsd>(), row.leased);
}

#[tokio::test]
async fn what_was_booked_is_kept_and_what_was_not_is_given_back_or_unknown() {
    let (folder, first) = ledger(10_000).await;
    let one = first.hold(decision(1), nanos(700), at(1)).await.unwrap();
    first.settle(&one, settled(300));
    check(&first, 1, (300, 0, 9_700));
    book(&first, &[spend(&one, settled(300))]).await;
    first.close(at(2)).await.unwrap();
    assert!(matches!(first.hold(decision(2), nanos(1), at(2)).await, Err(HoldError::Ledger { .. })));
    drop(first);

    // A clean end: nothing is lost.
    let second = restarted(&folder, 10_000).await;
    check(&second, 1, (300, 0, 9_700));
    let two = second.hold(decision(2), nanos(50), at(1)).await.unwrap();
    second.settle(&two, settled(20));
    second.hold(decision(3), nanos(60), at(1)).await.unwrap();
    drop(second);

    // A crash: the trace of the second is booked late, the rest of the lease of 100 is unknown.
    let store = reopen(&folder).await;
    let mut spends = Spends::default();
    spends.add(spend(&two, settled(20)));
    store.book("all", Booking { after: 1, through: 2, spends }).await.unwrap();
    let third = BudgetLedger::open(store, budget(10_000), at(1)).await.unwrap();
    let status = third.status(at(1));
    let leased = nanos(300 + 100);
    assert_eq!((status.spent, status.unknown, status.held), (leased, nanos(80), NanoUsd::ZERO));
    let last = third.store.transfers("all", at(0)).await.unwrap().pop().unwrap();
    assert_eq!((last.kind, last.amount), (TransferKind::Lost, nanos(80)));
    drop(third);
    check(&restarted(&folder, 10_000).await, 1, (leased.nanos(), 0, 10_000 - leased.nanos()));
}

#[tokio::test]
async fn crash_after_crash_gives_nothing_twice() {
    const AMOUNT: i64 = 5_000;
    let (folder, first) = ledger(AMOUNT).await;
    drop(first);
    let mut granted = 0;
    for run in 0..40_u64 {
        let ledger = restarted(&folder, AMOUNT).await;
        for call in 0..5 {
            if ledger.hold(decision(run * 10 + call), nanos(170), at(1)).await.is_ok() {
                granted += 170;
            }
        }
    }
    assert!(granted > AMOUNT / 2 && granted <= AMOUNT, "{granted}");
}

#[tokio::test]
async fn a_decision_counts_as_spent_until_it_is_reported() {
    let (folder, first) = ledger(1_000).await;
    let hold = first.hold(decision(1), nanos(400), at(1)).await.unwrap();
    book(&first, &[(hold.window, Spend { unknown: hold.amount, ..Spend::default() })]).await;
    check(&first, 1, (0, 400, 600));
    first.close(at(2)).await.unwrap();
    drop(first);

    let second = restarted(&folder, 1_000).await;
    check(&second, 1, (400, 0, 600));
    second.settle(&hold, settled(150));
    check(&second, 1, (150, 0, 850));
    book(&second, &[Spend::of_report(&hold, settled(150))]).await;
    second.close(at(2)).await.unwrap();
    drop(second);
    check(&restarted(&folder, 1_000).await, 1, (150, 0, 850));
}

#[tokio::test]
async fn an_expired_hold_is_unknown_until_a_late_report() {
    let (_folder, ledger) = ledger(1_000).await;
    let hold = ledger.hold(decision(1), nanos(400), at(1)).await.unwrap();
    ledger.expire(&hold);
    ledger.expire(&hold);
    check(&ledger, 1, (400, 0, 600));
    assert_eq!(ledger.status(at(1)).unknown, nanos(400));
    ledger.settle(&hold, settled(150));
    ledger.expire(&hold);
    check(&ledger, 1, (150, 0, 850));
}

#[tokio::test]
async fn spend_belongs_to_the_window_of_its_hold() {
    let (_folder, ledger) = ledger(1_000).await;
    let early = ledger.hold(decision(1), nanos(800), at(HOUR - 1)).await.unwrap();
    assert_eq!(ledger.status(at(HOUR)).left, Some(nanos(1_000)));
    let late = ledger.hold(decision(2), nanos(900), at(HOUR)).await.unwrap();
    assert_eq!((early.window, late.window), (at(0), at(HOUR)));
    ledger.settle(&early, settled(500));
    check(&ledger, HOUR, (0, 900, 100));
    // A clock that went back stays in the later window.
    let denied = ledger.hold(decision(3), nanos(101), at(HOUR - 1)).await;
    assert!(matches!(denied, Err(HoldError::NoMoney(_))));
    ledger.close(at(HOUR)).await.unwrap();
    let leased: Vec<_> =
        ledger.store.windows("all", 9).await.unwrap().into_iter().map(|w| (w.start, w.leased)).collect();
    assert_eq!(leased, [(at(HOUR), nanos(900)), (at(0), nanos(500))]);
}

#[tokio::test]
async fn a_dropped_hold_leaks_nothing() {
    let (_folder, ledger) = ledger(1_000).await;
    for number in 0..20 {
        // Polled once: the lease is asked for and nobody waits for it.
        assert!(ledger.hold(decision(number), nanos(600), at(1)).now_or_never().is_none());
    }
    check(&ledger, 1, (0, 0, 1_000));
    let all = ledger.hold(decision(99), nanos(1_000), at(1)).await.unwrap();
    ledger.settle(&all, settled(0));
    ledger.close(at(1)).await.unwrap();
    assert_eq!(ledger.store.windows("all", 1).await.unwrap()[0].leased, NanoUsd::ZERO);
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_reserves_nothing() {
    let (_folder, ledger) = ledger(1_000_000).await;
    ledger.store.open_window("other", (at(0), None), None, at(0)).await.unwrap();
    fill_disk(&ledger.store).await;
    // Whatever room the last pages of the audit have.
    let mut lease = 0;
    while ledger.store.set_lease("other", at(0), nanos(lease + 1), at(0)).await.is_ok() {
        lease += 1;
    }
    let refused = ledger.hold(decision(1), nanos(10_000), at(1)).await;
    assert!(matches!(refused, Err(HoldError::Ledger { .. })), "{refused:?}");
    check(&ledger, 1, (0, 0, 1_000_000));
    limit_pages(&ledger.store, 1 << 20).await;
    ledger.hold(decision(500), nanos(10_000), at(1)).await.unwrap();
}

#[tokio::test]
async fn an_overrun_denies_what_comes_next_and_names_the_budget() {
    let (_folder, ledger) = ledger(1_000).await;
    let hold = ledger.hold(decision(1), nanos(900), at(1)).await.unwrap();
    ledger.settle(&hold, settled(1_200));
    check(&ledger, 1, (1_200, 0, -200));
    assert_eq!(ledger.left(at(1)), Some(nanos(-200)));
    let Err(HoldError::NoMoney(denied)) = ledger.hold(decision(2), nanos(1), at(1)).await else {
        panic!("was granted")
    };
    let expected = NoMoney {
        budget: "all".to_owned(),
        amount: nanos(1_000),
        left: nanos(-200),
        asked: nanos(1),
        resets_at: Some(at(HOUR)),
        resets_at_text: "1970-01-01T01:00:00Z".to_owned(),
    };
    assert_eq!(denied, expected);
    // The next hour starts anew.
    ledger.hold(decision(3), nanos(1_000), at(HOUR)).await.unwrap();
}

#[tokio::test]
async fn without_a_budget_everything_is_granted_and_counted() {
    let (folder, store) = store().await;
    let ledger = BudgetLedger::open(store, None, at(0)).await.unwrap();
    assert_eq!(ledger.left(at(1)), None);
    let hold = ledger.hold(decision(1), NanoUsd::MAX, at(1)).await.unwrap();
    ledger.settle(&hold, settled(7));
    book(&ledger, &[spend(&hold, settled(7))]).await;
    ledger.close(at(1)).await.unwrap();
    drop(ledger);
    let again = BudgetLedger::open(reopen(&folder).await, None, at(1)).await.unwrap();
    assert_eq!((again.status(at(1)).spent, again.status(at(1)).left), (nanos(7), None));
}
