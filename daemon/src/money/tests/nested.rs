//! Budgets beside the main one: all or none, soft ones, alerts, changes at run time.

use super::*;
use crate::audit::By;
use crate::money::changes::{Adjustment, BudgetError};

fn by() -> By {
    By::new("tester", at(1))
}

fn tags(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn nested() -> Configured {
    Configured {
        main: Some(Budget::of("all", "global", 1_000, Window::Hour)),
        others: vec![
            Budget::of("each", "tenant:*", 400, Window::Hour),
            Budget::of("search", "tag:team=search", 300, Window::Day),
        ],
    }
}

async fn fresh(configured: Configured) -> (TempDir, BudgetLedger) {
    let (folder, store) = store().await;
    (folder, opened(store, configured, 0).await)
}

fn stands(ledger: &BudgetLedger, account: &str) -> (i64, i64, i64) {
    let status = ledger.statuses(at(1)).into_iter().find(|status| status.name == account).unwrap();
    (status.spent.nanos(), status.held.nanos(), status.left.unwrap().nanos())
}

#[tokio::test]
async fn a_hold_is_taken_from_every_account_or_from_none() {
    let (folder, ledger) = fresh(nested()).await;
    let (acme, other) = (tags(&[("tenant", "acme"), ("team", "search")]), tags(&[("tenant", "other")]));
    let (acme, other) = (Payer { key: None, tags: &acme }, Payer { key: None, tags: &other });
    let one = ledger.hold(decision(1), nanos(200), acme, at(1)).await.unwrap();
    let charged: Vec<&str> = one.charges.iter().map(|charge| &*charge.account).collect();
    assert_eq!(charged, ["all", "each/acme", "search"]);
    assert_eq!(
        [acme, other, anybody()].map(|who| ledger.left(who, at(1))),
        [100, 400, 800].map(|n| Some(nanos(n)))
    );

    let Err(HoldError::NoMoney(denied)) = ledger.hold(decision(2), nanos(150), acme, at(1)).await else {
        panic!("was granted")
    };
    assert_eq!(
        (denied.budget.as_str(), denied.left, denied.resets_at),
        ("search", nanos(100), Some(at(24 * HOUR)))
    );
    assert_eq!(stands(&ledger, "all"), (0, 200, 800), "nothing was taken anywhere");

    ledger.settle(&one, settled(150));
    for account in ["all", "each/acme", "search"] {
        assert_eq!(stands(&ledger, account).0, 150, "{account}");
    }
    book(&ledger, &[(&one, spend(&one, settled(150)))]).await;
    ledger.close().await.unwrap();
    drop(ledger);

    // Each is there again after a restart, without a new tenant's first request.
    let again = opened(reopen(&folder).await, nested(), 1).await;
    assert_eq!(
        ["all", "each/acme", "search"].map(|account| stands(&again, account)),
        [(150, 0, 850), (150, 0, 250), (150, 0, 150)]
    );
    again.hold(decision(3), nanos(400), other, at(1)).await.unwrap();
    assert!(again.hold(decision(4), nanos(1), other, at(1)).await.is_err());
}

#[tokio::test]
async fn a_crash_loses_nothing_of_a_tenant_that_nobody_asks_for_again() {
    let (folder, ledger) = fresh(nested()).await;
    let acme = tags(&[("tenant", "acme")]);
    ledger.hold(decision(1), nanos(120), Payer { key: None, tags: &acme }, at(1)).await.unwrap();
    drop(ledger);
    let again = opened(reopen(&folder).await, nested(), 1).await;
    assert_eq!(stands(&again, "each/acme"), (120, 0, 280));
    let unknown = again.statuses(at(1)).into_iter().find(|status| status.name == "each/acme").unwrap().unknown;
    assert_eq!(unknown, nanos(120));
    assert_eq!(again.store.imbalances().await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_soft_budget_tells_and_denies_nothing() {
    let soft = Budget {
        enforcement: Enforcement::Soft,
        alert_at_percent: vec![50, 80, 95],
        ..Budget::of("soft", "global", 100, Window::Hour)
    };
    let (folder, ledger) = fresh(Configured { main: None, others: vec![soft.clone()] }).await;
    assert_eq!(ledger.left(anybody(), at(1)), None);
    for (number, reached) in [(1, vec![]), (2, vec![80]), (3, vec![80, 95]), (4, vec![80, 95])] {
        let hold = ledger.held(number, 40, 1).await.unwrap();
        ledger.settle(&hold, settled(40));
        book(&ledger, &[(&hold, spend(&hold, settled(40)))]).await;
        let told: Vec<u8> = ledger.alerts().iter().map(|alert| alert.percent).collect();
        assert_eq!(told, reached, "after {number}");
    }
    assert_eq!(stands(&ledger, "soft"), (160, 0, -60));
    drop(ledger);
    let again = opened(reopen(&folder).await, Configured { main: None, others: vec![soft] }, 1).await;
    let hold = again.held(9, 1, 1).await.unwrap();
    again.settle(&hold, settled(1));
    assert!(again.alerts().is_empty(), "who was told once is not told again");
}

#[tokio::test]
async fn budgets_are_set_and_removed_at_run_time_and_survive() {
    let (folder, ledger) = fresh(nested()).await;
    let lower = Budget::of("all", "global", 100, Window::Hour);
    let hold = ledger.held(1, 300, 1).await.unwrap();
    ledger.settle(&hold, settled(300));
    book(&ledger, &[(&hold, spend(&hold, settled(300)))]).await;
    ledger.set(lower.clone(), &by()).await.unwrap();
    assert_eq!(ledger.left(anybody(), at(1)), Some(nanos(-200)));
    assert!(ledger.held(2, 1, 1).await.is_err(), "less than is spent is allowed, and denies");
    let moved = Budget { window: Window::Day, ..lower.clone() };
    let fixed = BudgetError::Fixed { name: "all".to_owned(), field: "window" };
    assert_eq!(ledger.set(moved, &by()).await, Err(fixed));
    ledger.set(Budget { amount: nanos(2_000), ..lower }, &by()).await.unwrap();
    ledger.set(Budget::of("new", "global", 50, Window::Minute), &by()).await.unwrap();
    ledger.remove("search", &by()).await.unwrap();
    assert_eq!(ledger.remove("search", &by()).await, Err(BudgetError::Unknown { name: "search".to_owned() }));
    assert_eq!(ledger.remove("all", &by()).await, Err(BudgetError::Main { name: "all".to_owned() }));
    let again_by_day = ledger.set(Budget::of("search", "tag:team=search", 9, Window::Hour), &by()).await;
    assert_eq!(again_by_day, Err(BudgetError::Fixed { name: "search".to_owned(), field: "window" }));
    assert!(ledger.held(3, 51, 1).await.is_err());
    ledger.held(4, 50, 1).await.unwrap();
    ledger.close().await.unwrap();
    drop(ledger);
    let again = opened(reopen(&folder).await, nested(), 1).await;
    let names: Vec<String> = again.statuses(at(1)).into_iter().map(|status| status.name).collect();
    assert_eq!(names, ["all", "new"]);
    assert_eq!(again.status(at(1)).amount, Some(nanos(2_000)));
}

#[tokio::test]
async fn what_was_unknown_ends_by_an_adjustment_alone() {
    let (folder, ledger) = ledger(1_000).await;
    let hold = ledger.held(1, 400, 1).await.unwrap();
    let bill = Bill { settled: nanos(50), unknown: nanos(300) };
    ledger.settle(&hold, bill);
    book(&ledger, &[(&hold, spend(&hold, bill))]).await;
    check(&ledger, HOUR - 1, (350, 0, 650));
    let adjustment = |unknown, settled| Adjustment {
        account: "all".to_owned(),
        start: at(0),
        unknown: nanos(unknown),
        settled: nanos(settled),
        key: format!("provider's bill {unknown}"),
    };
    assert_eq!(ledger.adjust(adjustment(200, 20), &by()).await, Ok(true));
    assert_eq!(ledger.adjust(adjustment(200, 20), &by()).await, Ok(false), "once, however often it is said");
    check(&ledger, 1, (170, 0, 830));
    let more = ledger.adjust(adjustment(101, 0), &by()).await;
    let there = nanos(100);
    assert_eq!(more, Err(BudgetError::TooMuch { name: "all".to_owned(), unknown: nanos(101), there }));
    // The provider billed more than was held.
    assert_eq!(ledger.adjust(adjustment(100, 160), &by()).await, Ok(true));
    check(&ledger, 1, (230, 0, 770));
    assert_eq!(ledger.status(at(1)).overrun, nanos(60));
    assert_eq!(ledger.store.imbalances().await, Ok(Vec::new()));
    ledger.close().await.unwrap();
    drop(ledger);
    check(&restarted(&folder, 1_000).await, 1, (230, 0, 770));
}

#[tokio::test]
async fn a_changed_balance_is_found() {
    let (folder, ledger) = ledger(1_000).await;
    let hold = ledger.held(1, 400, 1).await.unwrap();
    ledger.settle(&hold, settled(100));
    book(&ledger, &[(&hold, spend(&hold, settled(100)))]).await;
    let file = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
    file.execute("UPDATE budget_window SET settled = settled - 30", ()).unwrap();
    let found = ledger.store.imbalances().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].what, found[0].kept, found[0].summed), ("settled", nanos(70), nanos(100)));
    for forbidden in ["UPDATE transfers SET settled = 1", "DELETE FROM transfers"] {
        assert!(file.execute(forbidden, ()).is_err(), "transfers are only added to");
    }
}

#[tokio::test]
async fn a_forecast_says_when_the_money_ends() {
    let (_folder, ledger) = ledger(1_000_000).await;
    let clock = Stopped::at(at(0));
    let ledger = BudgetLedger { clock: clock.clone(), ..ledger };
    for second in 1..=3_000 {
        clock.set(at(second));
        let hold = ledger.held(second as u64, 300, second).await.unwrap();
        ledger.settle(&hold, settled(300));
    }
    // 300 a second; 100,000 are left: 333 seconds, and the hour has 600 more.
    let ends = ledger.status(at(3_000)).ends_at.unwrap();
    let seconds = ends.since(at(3_000)).as_secs_f64();
    assert!((325.0..345.0).contains(&seconds), "{seconds}");
    let slow = Budget::of("all", "global", 1_000_000_000, Window::Hour);
    ledger.set(slow, &by()).await.unwrap();
    assert_eq!(ledger.status(at(3_000)).ends_at, None, "the window ends first");
}

#[tokio::test]
async fn a_window_that_is_opened_late_has_the_budget_of_now() {
    let (_folder, ledger) = fresh(nested()).await;
    let acme = tags(&[("tenant", "acme")]);
    let payer = Payer { key: None, tags: &acme };
    // A request looked its budgets up, and before it opened the window somebody set another amount.
    let looked_up = ledger.accounts_of(payer);
    ledger.set(Budget::of("each", "tenant:*", 0, Window::Hour), &by()).await.unwrap();
    ledger.enter(&looked_up[1], at(1)).await.unwrap();
    assert!(ledger.hold(decision(1), nanos(1), payer, at(1)).await.is_err());
    assert_eq!(stands(&ledger, "each/acme"), (0, 0, 0));
}

#[tokio::test]
async fn what_a_crash_left_open_is_unknown_in_its_own_window_however_late_the_restart() {
    let (folder, ledger) = ledger(1_000).await;
    ledger.held(1, 400, 1).await.unwrap();
    drop(ledger);
    let again = opened(reopen(&folder).await, main_of(1_000), HOUR + 1).await;
    check(&again, HOUR + 1, (0, 0, 1_000));
    let windows = again.store.windows("all", 9).await.unwrap();
    assert_eq!(windows.iter().map(|window| window.unknown).collect::<Vec<_>>(), [NanoUsd::ZERO, nanos(400)]);
    assert_eq!(again.store.imbalances().await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_budget_that_became_hard_covers_what_it_held_when_it_was_soft() {
    let soft = Budget { enforcement: Enforcement::Soft, ..Budget::of("all", "global", 1_000, Window::Hour) };
    let (folder, ledger) = fresh(Configured { main: Some(soft), others: Vec::new() }).await;
    ledger.held(1, 300, 1).await.unwrap();
    ledger.set(Budget::of("all", "global", 1_000, Window::Hour), &by()).await.unwrap();
    drop(ledger);
    check(&restarted(&folder, 1_000).await, 1, (300, 0, 700));
}

#[tokio::test]
async fn what_may_still_be_reported_is_not_adjusted() {
    let (_folder, ledger) = ledger(1_000).await;
    let hold = ledger.held(1, 400, 1).await.unwrap();
    book(&ledger, &[(&hold, Spend { held: hold.amount, unknown: hold.amount, ..Spend::default() })]).await;
    let adjustment = || Adjustment {
        account: "all".to_owned(),
        start: at(0),
        unknown: nanos(400),
        settled: nanos(100),
        key: "bill".to_owned(),
    };
    let there = NanoUsd::ZERO;
    let refused = BudgetError::TooMuch { name: "all".to_owned(), unknown: nanos(400), there };
    assert_eq!(ledger.adjust(adjustment(), &by()).await, Err(refused));
    ledger.expire(&hold);
    assert_eq!(ledger.adjust(adjustment(), &by()).await, Ok(true));
    check(&ledger, 1, (100, 0, 900));
}
