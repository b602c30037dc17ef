//! Money is held before anything is called, and what is refused spends nothing.

use pointsman_client::{ClientError, v1};

use crate::harness::{Setup, request, spec};

#[tokio::test]
async fn a_budget_that_cannot_fit_the_cheapest_call_calls_nothing() {
    let setup = Setup::with("[budget]\nname = \"tiny\"\namount_usd = \"0.00001\"\nwindow = \"day\"\n");
    let daemon = setup.start().await;
    match daemon.route("the jury of the clause", &["left", "right"]).await {
        Err(ClientError::Exhausted(fault)) => {
            assert_eq!(fault.reason, "BUDGET_EXHAUSTED");
            assert_eq!(fault.quota[0].subject, "budget:tiny");
            assert!(fault.metadata["resets_at"].ends_with('Z'), "{:?}", fault.metadata);
        }
        other => panic!("{other:?}"),
    }
    let budget = daemon.client.get_budget(v1::GetBudgetRequest::default()).await.unwrap().budget.unwrap();
    assert_eq!((budget.spent_usd_micros, budget.held_usd_micros, budget.left_usd_micros), (0, 0, 10));
    assert_eq!((budget.name.as_str(), budget.window()), ("tiny", v1::BudgetWindow::Day));
    assert_eq!(daemon.stats("left").await.calls, 0);
    assert!(daemon.traces().await.is_empty());
    daemon.stop().await;
}

#[tokio::test]
async fn a_requests_own_cap_is_a_quota_too() {
    let daemon = Setup::new().start().await;
    let capped = v1::RequestSpec { max_cost_usd_micros: Some(1), ..spec("the jury", &["left"]) };
    match daemon.client.route(request(capped)).await {
        Err(ClientError::Exhausted(fault)) => {
            assert_eq!(fault.reason, "REQUEST_CAP");
            assert_eq!(fault.quota[0].subject, "request:max_cost_usd_micros");
        }
        other => panic!("{other:?}"),
    }
    daemon.stop().await;
}

#[tokio::test]
async fn spend_is_what_calls_cost_and_survives_a_restart() {
    let setup = Setup::with("[budget]\namount_usd = \"1\"\nwindow = \"total\"\n");
    let daemon = setup.start().await;
    let mut nanos = 0;
    for n in 0..10 {
        nanos += daemon.route(&format!("the array {n}"), &["left", "right"]).await.unwrap().cost_usd_nanos;
    }
    let spent = async |daemon: &crate::harness::Running| {
        let budget = daemon.client.get_budget(v1::GetBudgetRequest::default()).await.unwrap().budget.unwrap();
        (budget.spent_usd_micros, budget.held_usd_micros, budget.unknown_usd_micros)
    };
    assert_eq!(spent(&daemon).await, ((nanos + 999) / 1_000, 0, 0));
    daemon.stop().await;
    let daemon = setup.start().await;
    assert_eq!(spent(&daemon).await, ((nanos + 999) / 1_000, 0, 0));
    daemon.stop().await;
}

#[tokio::test]
async fn all_models_failing_is_told_with_each_reason() {
    let setup = Setup::with("[budget]\namount_usd = \"1\"\nwindow = \"total\"\n");
    let daemon = setup.start().await;
    let error = daemon.route("the jury", &["brick"]).await.unwrap_err();
    let ClientError::Unavailable(fault) = &error else { panic!("{error:?}") };
    assert_eq!(fault.reason, "MODELS_FAILED");
    assert!(fault.message.contains("brick") && fault.message.contains("simulated failure"), "{}", fault.message);
    assert!(fault.metadata.contains_key("model:brick:1"), "{:?}", fault.metadata);
    let trace = daemon.trace(error.decision_id().unwrap()).await;
    assert_eq!(trace.status(), v1::RequestStatus::Failed);
    assert!(trace.answer.is_none() && !trace.attempts.is_empty());
    let stats = daemon.stats("brick").await;
    assert_eq!(stats.failures[0].status(), v1::AttemptStatus::Unavailable);
    daemon.stop().await;
}

#[tokio::test]
async fn no_model_that_may_be_called_is_a_failed_precondition() {
    let daemon = Setup::new().start().await;
    daemon.client.disable_model(v1::DisableModelRequest { name: "left".into() }).await.unwrap();
    let error = daemon.route("the jury", &["left"]).await.unwrap_err();
    let ClientError::Conflict(fault) = &error else { panic!("{error:?}") };
    assert_eq!((fault.reason.as_str(), fault.metadata["model:left"].as_str()), ("NO_MODEL", "switched off"));
    daemon.stop().await;
}
