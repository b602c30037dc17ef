//! Callers that go away, come twice, call the models themselves, or are too late.

use std::time::Duration;

use pointsman_client::{Client, ClientError, Replies, v1};

use crate::harness::{Running, Setup, request, spec};

/// The first trace with this status, once it is committed: abandoned requests have no reply to wait for.
async fn trace_with(daemon: &Running, status: v1::RequestStatus) -> v1::Trace {
    let filter = v1::TraceFilter { status: status.into(), ..Default::default() };
    let request = v1::ListTracesRequest { filter: Some(filter), ..Default::default() };
    let listed = async {
        loop {
            let traces = daemon.client.list_traces(request.clone()).await.unwrap().traces;
            match traces.into_iter().next() {
                Some(trace) => return trace,
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), listed).await.unwrap()
}

/// Waits until a call of the slow model was sent.
async fn called(client: Client, spec: v1::RequestSpec) -> Replies<v1::RouteStreamResponse> {
    let mut replies =
        client.route_stream(v1::RouteStreamRequest { request: Some(spec), ..Default::default() }).await.unwrap();
    while let Some(reply) = replies.next().await.unwrap() {
        if matches!(reply.event, Some(v1::route_stream_response::Event::AttemptStarted(_))) {
            break;
        }
    }
    replies
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_a_cancelled_trace() {
    let setup = Setup::with("[budget]\namount_usd = \"1\"\nwindow = \"total\"\n");
    let daemon = setup.start().await;
    let replies = called(daemon.client.clone(), spec("the jury", &["snail"])).await;
    drop(replies);
    let trace = trace_with(&daemon, v1::RequestStatus::Cancelled).await;
    assert_eq!(trace.attempts[0].status(), v1::AttemptStatus::Cancelled);
    // It was sent: nobody knows whether it is billed, so it counts as spent.
    assert!(trace.unknown_usd_nanos > 0 && trace.attempts[0].billed() == v1::Billing::Unknown);
    let budget = daemon.client.get_budget(v1::GetBudgetRequest::default()).await.unwrap().budget.unwrap();
    assert!(budget.unknown_usd_micros > 0 && budget.held_usd_micros == 0);
    daemon.stop().await;
}

#[tokio::test]
async fn an_abandoned_unary_call_is_cancelled_too() {
    let daemon = Setup::new().start().await;
    let (client, asked) = (daemon.client.clone(), request(spec("the jury", &["snail"])));
    let call = tokio::task::spawn(async move { client.route(asked).await });
    // Under way on the daemon's side, then dropped on the caller's.
    tokio::time::timeout(Duration::from_secs(20), async {
        while daemon.under_way() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    call.abort();
    let trace = trace_with(&daemon, v1::RequestStatus::Cancelled).await;
    assert_eq!(trace.decision.unwrap().candidates.iter().filter(|c| c.chosen).count(), 1);
    daemon.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_the_request_with_its_own_code() {
    let daemon = Setup::new().start().await;
    let hurried = daemon.client.with_deadline(Some(Duration::from_millis(300)));
    let error = hurried.route(request(spec("the jury", &["snail"]))).await.unwrap_err();
    assert!(matches!(error, ClientError::Deadline(_)), "{error:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn the_same_key_is_routed_once() {
    let daemon = Setup::new().start().await;
    let keyed = |prompt: &str| v1::RouteRequest {
        idempotency_key: "k-1".into(),
        ..request(spec(prompt, &["left", "right"]))
    };
    let first = daemon.client.route(keyed("the jury")).await.unwrap();
    let again = daemon.client.route(keyed("the jury")).await.unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(v1::RouteResponse { replayed: false, ..again }, first);
    let stream = v1::RouteStreamRequest {
        request: Some(spec("the jury", &["left", "right"])),
        idempotency_key: "k-1".into(),
        explain: false,
    };
    let mut events = daemon.client.route_stream(stream).await.unwrap();
    let only = events.next().await.unwrap().unwrap();
    assert!(matches!(only.event, Some(v1::route_stream_response::Event::Final(_))));
    assert!(events.next().await.unwrap().is_none());
    let other = daemon.client.route(keyed("another")).await.unwrap_err();
    assert!(matches!(other, ClientError::Conflict(fault) if fault.reason == "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(daemon.traces().await.len(), 1);
    daemon.stop().await;
}

#[tokio::test]
async fn a_caller_of_decide_reports_and_is_told_the_answer() {
    let setup = Setup::with("[budget]\namount_usd = \"1\"\nwindow = \"total\"\n");
    let daemon = setup.start().await;
    let budget = async || daemon.client.get_budget(v1::GetBudgetRequest::default()).await.unwrap().budget.unwrap();
    let asked = v1::DecideRequest { request: Some(spec("the jury", &["left"])), ..Default::default() };
    let decided = daemon.client.decide(asked).await.unwrap();
    assert!(decided.hold_usd_nanos > 0 && decided.report_by.is_some());
    let call = &decided.calls[0];
    assert_eq!((call.model.as_str(), call.backend.as_str(), call.upstream.as_str()), ("left", "quick", "left"));
    assert!(budget().await.held_usd_micros > 0);

    let outcome = v1::ReportedOutcome {
        model: "left".into(),
        status: v1::AttemptStatus::Ok.into(),
        answer: "b".into(),
        tokens_in: 100,
        tokens_out: 10,
        ..Default::default()
    };
    let report = v1::ReportOutcomesRequest {
        decision_id: decided.decision_id.clone(),
        outcomes: vec![outcome.clone()],
        r#final: true,
    };
    let reported = daemon.client.report_outcomes(report.clone()).await.unwrap();
    assert_eq!(reported.acks[0].status(), v1::ReportStatus::Recorded);
    assert_eq!((reported.settled, reported.answer.unwrap().value.as_str()), (true, "b"));
    assert_eq!(reported.cost_usd_nanos, 120_000);
    let repeated = daemon.client.report_outcomes(report).await.unwrap();
    assert_eq!((repeated.acks[0].status(), repeated.cost_usd_nanos), (v1::ReportStatus::Repeated, 120_000));
    assert_eq!((budget().await.spent_usd_micros, budget().await.held_usd_micros), (120, 0));

    let ack = daemon.judge(&decided.decision_id, true).await.unwrap();
    assert_eq!(ack.status(), v1::FeedbackStatus::Recorded);
    let trace = daemon.trace(&decided.decision_id).await;
    assert_eq!((trace.outcomes.len(), trace.cost_usd_nanos), (1, 120_000));
    let stranger = v1::ReportOutcomesRequest {
        decision_id: decided.decision_id,
        outcomes: vec![v1::ReportedOutcome { model: "right".into(), ..outcome }],
        r#final: false,
    };
    let error = daemon.client.report_outcomes(stranger).await.unwrap_err();
    assert!(matches!(error, ClientError::Invalid(_)), "{error:?}");
    daemon.stop().await;
}
