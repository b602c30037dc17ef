//! Budgets beside the daemon's own: charged together, changed at run time, proven.

use pointsman_client::{ClientError, v1};

use crate::harness::{Running, Setup, request, spec};

const NESTED: &str = r#"
[budget]
amount_usd = "1"
window = "total"
[[budgets]]
name = "teams"
scope = "tag:team=*"
amount_usd = "0.5"
window = "day"
alert_at_percent = [1]
[[budgets]]
name = "ads"
scope = "tag:team=ads"
amount_usd = "0.00001"
window = "day"
"#;

async fn ask(daemon: &Running, team: &str) -> Result<v1::RouteResponse, ClientError> {
    let tags = [("team".to_owned(), team.to_owned())].into();
    daemon.client.route(request(v1::RequestSpec { tags, ..spec("the jury of the clause", &["left"]) })).await
}

async fn budgets(daemon: &Running) -> v1::ListBudgetsResponse {
    daemon.client.list_budgets(v1::ListBudgetsRequest {}).await.unwrap()
}

fn fault(error: ClientError) -> pointsman_client::Fault {
    match error {
        ClientError::Exhausted(fault)
        | ClientError::Invalid(fault)
        | ClientError::NotFound(fault)
        | ClientError::Conflict(fault) => *fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_is_charged_to_every_budget_that_it_falls_under() {
    let setup = Setup::with(NESTED);
    let daemon = setup.start().await;
    let cost = ask(&daemon, "search").await.unwrap().cost_usd_nanos;
    let refused = fault(ask(&daemon, "ads").await.unwrap_err());
    assert_eq!((refused.reason.as_str(), refused.quota[0].subject.as_str()), ("BUDGET_EXHAUSTED", "budget:ads"));
    let check = async |daemon: &Running| {
        let listed = budgets(daemon).await;
        let spent: Vec<(String, i64)> =
            listed.budgets.iter().map(|budget| (budget.name.clone(), budget.spent_usd_micros)).collect();
        let micros = (cost + 999) / 1_000;
        let expected = [("global", micros), ("ads", 0), ("teams/ads", 0), ("teams/search", micros)];
        assert_eq!(spent, expected.map(|(name, spent)| (name.to_owned(), spent)));
    };
    check(&daemon).await;
    let trace = daemon.traces().await.remove(0);
    let accounts: Vec<String> = trace.hold.unwrap().charges.into_iter().map(|charge| charge.account).collect();
    assert_eq!(accounts, ["global", "teams/search"]);
    daemon.stop().await;
    let daemon = setup.start().await;
    check(&daemon).await;
    let proof = daemon.client.verify_budgets(v1::VerifyBudgetsRequest {}).await.unwrap();
    assert!(proof.imbalances.is_empty(), "{proof:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn budgets_change_at_run_time_and_faults_change_nothing() {
    let daemon = Setup::with(NESTED).start().await;
    let set = |name: &str, micros: i64| v1::SetBudgetRequest {
        name: name.to_owned(),
        amount_usd_micros: Some(micros),
        ..v1::SetBudgetRequest::default()
    };
    let before = budgets(&daemon).await;
    let bad = [
        (set("ads", -1), "amount_usd_micros"),
        (set("new", 1), "scope"),
        (v1::SetBudgetRequest { window: 99, ..set("ads", 1) }, "window"),
        (v1::SetBudgetRequest { window: v1::BudgetWindow::Hour.into(), ..set("ads", 1) }, "window"),
        (v1::SetBudgetRequest { time_zone: "Mars".to_owned(), ..set("ads", 1) }, "time_zone"),
    ];
    for (request, field) in bad {
        let refused = fault(daemon.client.set_budget(request).await.unwrap_err());
        assert_eq!(refused.violations[0].field, field, "{refused:?}");
    }
    let unknown = v1::RemoveBudgetRequest { name: "nobody".to_owned() };
    assert_eq!(fault(daemon.client.remove_budget(unknown).await.unwrap_err()).reason, "UNKNOWN_BUDGET");
    assert_eq!(budgets(&daemon).await, before);

    daemon.client.set_budget(set("ads", 400_000)).await.unwrap();
    ask(&daemon, "ads").await.unwrap();
    daemon.client.set_budget(set("global", 0)).await.unwrap();
    let refused = fault(ask(&daemon, "ads").await.unwrap_err());
    assert_eq!(refused.quota[0].subject, "budget:global", "less than is spent is allowed, and denies");
    daemon.stop().await;
}

#[tokio::test]
async fn unknown_money_is_listed_and_ends_by_an_adjustment() {
    let setup = Setup::with("[budget]\namount_usd = \"1\"\nwindow = \"total\"\n");
    let daemon = setup.start().await;
    let decide = v1::DecideRequest { request: Some(spec("the jury", &["left"])), ..v1::DecideRequest::default() };
    let hold = daemon.client.decide(decide).await.unwrap().hold_usd_nanos;
    daemon.stop().await;
    // Nobody reports it: it is unknown, and stays so over the restart.
    let daemon = setup.start().await;
    let list = v1::ListTransfersRequest { name: "global".to_owned(), unknown_only: true, ..Default::default() };
    let listed = daemon.client.list_transfers(list).await.unwrap().transfers;
    assert_eq!(listed.iter().map(|transfer| transfer.unknown_usd_nanos).collect::<Vec<_>>(), [hold]);
    let adjust = |unknown: i64, key: &str| v1::AdjustBudgetRequest {
        name: "global".to_owned(),
        unknown_usd_nanos: unknown,
        settled_usd_nanos: 1_000,
        key: key.to_owned(),
        ..v1::AdjustBudgetRequest::default()
    };
    for (request, field) in [
        (adjust(hold + 1, "k"), "unknown_usd_nanos"),
        (adjust(-1, "k"), "unknown_usd_nanos"),
        (adjust(1, ""), "key"),
    ] {
        assert_eq!(fault(daemon.client.adjust_budget(request).await.unwrap_err()).violations[0].field, field);
    }
    for repeated in [false, true] {
        let adjusted = daemon.client.adjust_budget(adjust(hold, "bill 7")).await.unwrap();
        let budget = adjusted.budget.unwrap();
        assert_eq!((adjusted.repeated, budget.spent_usd_micros, budget.unknown_usd_micros), (repeated, 1, 0));
    }
    daemon.stop().await;
}
