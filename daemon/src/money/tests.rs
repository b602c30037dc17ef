//! Tests of money: the arithmetic against a slow model of itself, the rest against a real file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::FutureExt as _;
use pointsman_router::clock::Draw;
use pointsman_router::hold::NoMoney;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::meter::{Meter, Room};
use super::*;
use crate::clock::Stopped;
use crate::config::{Enforcement, Window};
use crate::store::ledger::tests::{at, decision, fill_disk, limit_pages, reopen, store};
use crate::store::ledger::{BookOutcome, Booking, Spend, Spends, TransferKind, WindowOpening};
use crate::store::traces::support::charged;

mod concurrency;
mod nested;

const HOUR: i64 = 3_600;

pub(super) fn nanos(amount: i64) -> NanoUsd {
    NanoUsd::new(amount)
}

fn main_of(amount: i64) -> Configured {
    Configured { main: Some(Budget::of("all", "global", amount, Window::Hour)), others: Vec::new() }
}

pub(super) fn settled(amount: i64) -> Bill {
    Bill { settled: nanos(amount), unknown: NanoUsd::ZERO }
}

static NO_TAGS: BTreeMap<String, String> = BTreeMap::new();

/// Somebody without a key or tags.
pub(super) fn anybody() -> Payer<'static> {
    Payer { key: None, tags: &NO_TAGS }
}

impl BudgetLedger {
    /// A hold of somebody without a key or tags.
    async fn held(&self, number: u64, ask: i64, seconds: i64) -> Result<Hold, HoldError> {
        self.hold(decision(number), nanos(ask), anybody(), at(seconds)).await
    }
}

async fn opened(store: LedgerStore, configured: Configured, seconds: i64) -> BudgetLedger {
    BudgetLedger::open(store, configured, Stopped::at(at(seconds))).await.unwrap()
}

async fn ledger(amount: i64) -> (TempDir, BudgetLedger) {
    let (folder, store) = store().await;
    (folder, opened(store, main_of(amount), 0).await)
}

/// As after a crash: the file is read by a new process.
async fn restarted(folder: &TempDir, amount: i64) -> BudgetLedger {
    opened(reopen(folder).await, main_of(amount), 1).await
}

async fn book(ledger: &BudgetLedger, parts: &[(&Hold, Spend)]) {
    let mut spends = Spends::default();
    parts.iter().for_each(|(hold, spend)| spends.add(hold, *spend, "all"));
    let after = ledger.store.booked_through().await.unwrap();
    let booking = Booking { after, through: after + parts.len() as u64, spends, at: at(1) };
    assert_eq!(ledger.store.book(booking).await, Ok(BookOutcome::Booked));
    assert_eq!(ledger.store.imbalances().await, Ok(Vec::new()));
}

/// What a trace with this hold and bill books.
pub(super) fn spend(hold: &Hold, bill: Bill) -> Spend {
    let overrun = bill.overrun(hold.amount);
    let released = hold.amount.saturating_add(overrun).saturating_sub(bill.spent());
    Spend { held: hold.amount, settled: bill.settled, released, unknown: bill.unknown, overrun }
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
    let mut meter = Meter::empty((at(0), None), Some(nanos(amount)), at(0));
    let mut open: Vec<Hold> = Vec::new();
    let (mut taken, mut known, mut unknown, mut released, mut overrun, mut most) = (0, 0, 0, 0, 0, 0);
    for (number, act) in acts.into_iter().enumerate() {
        match act {
            Act::Take(ask) => {
                let id = decision(number as u64);
                let held_before = taken + overrun - known - unknown - released;
                let used = held_before + known + unknown + ask;
                let mut room = meter.room(nanos(ask), at(1));
                if let Room::Lease(leased) = room {
                    assert!(leased <= nanos(amount));
                    meter.set_leased(leased);
                    room = meter.room(nanos(ask), at(1));
                }
                // Granted exactly where there is room.
                assert_eq!(room == Room::Yes, used <= amount || ask == 0);
                if room == Room::Yes {
                    meter.take(id, nanos(ask), at(1));
                    taken += ask;
                    open.push(Hold { decision: id, amount: nanos(ask), charges: charged("all", at(0)) });
                    most = most.max(used);
                }
            }
            Act::Settle(which, percent_known, percent_unknown) if !open.is_empty() => {
                let hold = open.swap_remove(which.index(open.len()));
                let held = hold.amount.nanos();
                let (part_known, part_unknown) = (held * percent_known / 100, held * percent_unknown / 100);
                let above =
                    meter.settle(&hold, Bill { settled: nanos(part_known), unknown: nanos(part_unknown) }, at(1));
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
                let Ok(hold) = ledger.held(task * 1_000 + call, ask, 1).await else {
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
    let transfers = ledger.store.transfers(("all", at(0)), false, usize::MAX).await.unwrap();
    assert!(transfers.len() < 600, "leases are taken in portions, not one by one: {}", transfers.len());
    assert_eq!(transfers.iter().map(|t| t.leased).sum::<NanoUsd>(), row.leased);
}

#[tokio::test]
async fn what_was_booked_is_kept_and_what_was_not_is_given_back_or_unknown() {
    let (folder, first) = ledger(10_000).await;
    let one = first.held(1, 700, 1).await.unwrap();
    first.settle(&one, settled(300));
    check(&first, 1, (300, 0, 9_700));
    book(&first, &[(&one, spend(&one, settled(300)))]).await;
    first.close().await.unwrap();
    assert!(matches!(first.held(2, 1, 2).await, Err(HoldError::Ledger { .. })));
    drop(first);

    // A clean end: nothing is lost.
    let second = restarted(&folder, 10_000).await;
    check(&second, 1, (300, 0, 9_700));
    let two = second.held(2, 50, 1).await.unwrap();
    second.settle(&two, settled(20));
    second.held(3, 60, 1).await.unwrap();
    drop(second);

    // A crash: the trace of the second is booked late, the rest of what was leased is unknown:
    // the two holds less what came back of the first, and a tenth of what the first moved in ten seconds.
    let store = reopen(&folder).await;
    let mut spends = Spends::default();
    spends.add(&two, spend(&two, settled(20)), "all");
    store.book(Booking { after: 1, through: 2, spends, at: at(1) }).await.unwrap();
    let third = opened(store, main_of(10_000), 1).await;
    let status = third.status(at(1));
    let leased = nanos(300 + 20 + 60 + 5);
    assert_eq!((status.spent, status.unknown, status.held), (leased, nanos(65), NanoUsd::ZERO));
    let last = third.store.transfers(("all", at(0)), false, usize::MAX).await.unwrap().pop().unwrap();
    assert_eq!((last.kind, last.spend.unknown), (TransferKind::Lost, nanos(65)));
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
            if ledger.held(run * 10 + call, 170, 1).await.is_ok() {
                granted += 170;
            }
        }
    }
    assert!(granted > AMOUNT / 2 && granted <= AMOUNT, "{granted}");
}

#[tokio::test]
async fn a_decision_counts_as_spent_until_it_is_reported() {
    let (folder, first) = ledger(1_000).await;
    let hold = first.held(1, 400, 1).await.unwrap();
    book(&first, &[(&hold, Spend { held: hold.amount, unknown: hold.amount, ..Spend::default() })]).await;
    check(&first, 1, (0, 400, 600));
    first.close().await.unwrap();
    drop(first);

    let second = restarted(&folder, 1_000).await;
    check(&second, 1, (400, 0, 600));
    second.settle(&hold, settled(150));
    check(&second, 1, (150, 0, 850));
    book(&second, &[(&hold, Spend::of_report(&hold, settled(150)))]).await;
    second.close().await.unwrap();
    drop(second);
    check(&restarted(&folder, 1_000).await, 1, (150, 0, 850));
}

#[tokio::test]
async fn an_expired_hold_is_unknown_until_a_late_report() {
    let (_folder, ledger) = ledger(1_000).await;
    let hold = ledger.held(1, 400, 1).await.unwrap();
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
    let early = ledger.held(1, 800, HOUR - 1).await.unwrap();
    assert_eq!(ledger.status(at(HOUR)).left, Some(nanos(1_000)));
    let late = ledger.held(2, 900, HOUR).await.unwrap();
    assert_eq!((early.charges[0].window, late.charges[0].window), (at(0), at(HOUR)));
    ledger.settle(&early, settled(500));
    check(&ledger, HOUR, (0, 900, 100));
    // A clock that went back stays in the later window.
    let denied = ledger.held(3, 101, HOUR - 1).await;
    assert!(matches!(denied, Err(HoldError::NoMoney(_))));
    ledger.close().await.unwrap();
    let leased: Vec<_> =
        ledger.store.windows("all", 9).await.unwrap().into_iter().map(|w| (w.start, w.leased)).collect();
    assert_eq!(leased, [(at(HOUR), nanos(900)), (at(0), nanos(500))]);
}

#[tokio::test]
async fn a_dropped_hold_leaks_nothing() {
    let (_folder, ledger) = ledger(1_000).await;
    for number in 0..20 {
        // Polled once: the lease is asked for and nobody waits for it.
        assert!(ledger.held(number, 600, 1).now_or_never().is_none());
    }
    check(&ledger, 1, (0, 0, 1_000));
    let all = ledger.held(99, 1_000, 1).await.unwrap();
    ledger.settle(&all, settled(0));
    ledger.close().await.unwrap();
    assert_eq!(ledger.store.windows("all", 1).await.unwrap()[0].leased, NanoUsd::ZERO);
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_reserves_nothing() {
    let (_folder, ledger) = ledger(1_000_000).await;
    let other = WindowOpening { account: "other".into(), bounds: (at(0), None), amount: None };
    ledger.store.open_window(other, at(0)).await.unwrap();
    fill_disk(&ledger.store).await;
    // Whatever room the last pages of the audit have.
    let mut lease = 0;
    let higher = |lease: i64| vec![Lease { account: "other".into(), start: at(0), leased: nanos(lease) }];
    while ledger.store.grant(higher(lease + 1), at(0)).await.is_ok() {
        lease += 1;
    }
    let refused = ledger.held(1, 10_000, 1).await;
    assert!(matches!(refused, Err(HoldError::Ledger { .. })), "{refused:?}");
    check(&ledger, 1, (0, 0, 1_000_000));
    limit_pages(&ledger.store, 1 << 20).await;
    ledger.held(500, 10_000, 1).await.unwrap();
}

#[tokio::test]
async fn an_overrun_denies_what_comes_next_and_names_the_budget() {
    let (_folder, ledger) = ledger(1_000).await;
    let hold = ledger.held(1, 900, 1).await.unwrap();
    ledger.settle(&hold, settled(1_200));
    check(&ledger, 1, (1_200, 0, -200));
    assert_eq!(ledger.left(anybody(), at(1)), Some(nanos(-200)));
    let Err(HoldError::NoMoney(denied)) = ledger.held(2, 1, 1).await else { panic!("was granted") };
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
    ledger.held(3, 1_000, HOUR).await.unwrap();
}

#[tokio::test]
async fn without_a_budget_everything_is_granted_and_counted() {
    let (folder, store) = store().await;
    let ledger = opened(store, Configured::default(), 0).await;
    assert_eq!(ledger.left(anybody(), at(1)), None);
    let hold = ledger.hold(decision(1), NanoUsd::MAX, anybody(), at(1)).await.unwrap();
    ledger.settle(&hold, settled(7));
    book(&ledger, &[(&hold, spend(&hold, settled(7)))]).await;
    ledger.close().await.unwrap();
    drop(ledger);
    let again = opened(reopen(&folder).await, Configured::default(), 1).await;
    assert_eq!((again.status(at(1)).spent, again.status(at(1)).left), (nanos(7), None));
}
