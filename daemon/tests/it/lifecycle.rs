//! The main job: route, feed back, learn, inspect; and what a restart keeps.

use pointsman_client::{ClientError, v1};

use crate::harness::{Setup, feedback, request, spec};

#[tokio::test]
async fn route_feed_back_inspect() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let mut asked = request(spec("the contract clause", &["left", "right"]));
    asked.explain = true;
    let reply = daemon.client.route(asked).await.unwrap();
    let answer = reply.answer.clone().unwrap();
    assert!(["A", "B"].contains(&answer.value.as_str()), "{answer:?}");
    assert!(answer.confidence > 0.0 && answer.confidence <= 1.0 && !answer.calibrated);
    assert!(!answer.contributions.is_empty() && answer.contributions.iter().any(|c| c.agrees));
    assert_eq!(reply.model_answers.len(), reply.attempts.len());
    let decision = reply.decision.as_ref().unwrap();
    assert_eq!(decision.candidates.len(), 4);
    let picks: f64 = decision.candidates.iter().map(|c| c.pick_propensity).sum();
    assert!((picks - 1.0).abs() < 1e-9 && !decision.why.is_empty() && !decision.policy_version.is_empty());
    assert!(reply.cost_usd_nanos > 0 && reply.cost_usd_micros == (reply.cost_usd_nanos + 999) / 1_000);

    // Right after the reply, before its group commit may be over.
    let ack = daemon.judge(&reply.decision_id, true).await.unwrap();
    assert_eq!((ack.status(), ack.score), (v1::FeedbackStatus::Recorded, 1.0));
    let again = daemon.judge(&reply.decision_id, true).await.unwrap();
    assert_eq!((again.status(), again.sequence), (v1::FeedbackStatus::Repeated, ack.sequence));
    let other = daemon.judge(&reply.decision_id, false).await.unwrap();
    assert_eq!((other.status(), other.score), (v1::FeedbackStatus::Corrected, 0.0));

    let trace = daemon.trace(&reply.decision_id).await;
    assert_eq!(trace.status(), v1::RequestStatus::Answered);
    assert_eq!(trace.decision, reply.decision);
    assert_eq!(trace.attempts, reply.attempts);
    assert_eq!(trace.cost_usd_nanos, reply.cost_usd_nanos);
    assert!(trace.content.is_none() && trace.features.is_some());
    let given: Vec<_> = trace.feedback.iter().map(|f| (f.score, f.corrected_by_sequence)).collect();
    assert_eq!(given, [(1.0, other.sequence), (0.0, 0)]);

    let listed = daemon.traces().await;
    assert_eq!(listed.len(), 1);
    assert!(listed[0].features.is_none() && listed[0].feedback.len() == 2);
    let model = reply.attempts[0].model.clone();
    let stats = daemon.stats(&model).await;
    assert_eq!((stats.chosen, stats.calls), (1, 1));
    let info = daemon.client.get_store_info(v1::GetStoreInfoRequest {}).await.unwrap();
    assert_eq!((info.trace_rows, info.store_content), (1, false));
    daemon.stop().await;
}

#[tokio::test]
async fn what_was_learned_survives_a_restart() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let mut last = String::new();
    for n in 0..40 {
        let reply = daemon.route(&format!("the jury of clause {n}"), &["left", "right"]).await.unwrap();
        daemon.judge(&reply.decision_id, n % 3 > 0).await.unwrap();
        last = reply.decision_id;
    }
    let running =
        |policies: Vec<v1::Policy>| policies.into_iter().find(|p| p.state() == v1::PolicyState::Running).unwrap();
    daemon.stop().await;
    let daemon = setup.start().await;
    let policies = daemon.client.list_policies(v1::ListPoliciesRequest {}).await.unwrap().policies;
    let policy = running(policies);
    assert_eq!((policy.kind(), policy.feedback_mark, policy.trace_mark), (v1::PolicyKind::Bandit, 40, 40));
    assert!(policy.updates >= 40 && policy.settings.contains_key("width_first"));
    let got = daemon.client.get_policy(v1::GetPolicyRequest::default()).await.unwrap().policy.unwrap();
    assert_eq!(got.version, policy.version);
    // Late feedback finds its decision after the restart.
    let verdict = v1::feedback::Verdict::Expected("A".into());
    assert!(daemon.client.feedback(feedback(&last, verdict)).await.is_ok());
    daemon.stop().await;

    let secret = pointsman_daemon::config::installation_secret(&setup.state()).unwrap();
    let artifact = pointsman_daemon::serve::artifact(secret);
    let verified = pointsman_daemon::verify::verify(&setup.state(), &artifact).await.unwrap();
    assert!(verified.equal && verified.feedback_mark == 41, "{verified:?}");
}

#[tokio::test]
async fn feedback_in_a_stream_is_acknowledged_in_order_and_a_fault_does_not_end_it() {
    let daemon = Setup::new().start().await;
    let id = daemon.route("the mutex", &["left", "right"]).await.unwrap().decision_id;
    let score = |score| feedback(&id, v1::feedback::Verdict::Score(score));
    let unknown = feedback("0190a5a0-0000-7000-8000-000000000000", v1::feedback::Verdict::Correct(true));
    let items = vec![score(0.25), score(7.0), unknown, score(0.5), score(0.5)];
    let mut replies = daemon.client.stream_feedback(tokio_stream::iter(items)).await.unwrap();
    let mut seen = Vec::new();
    while let Some(reply) = replies.next().await.unwrap() {
        use v1::stream_feedback_response::Result as Wire;
        seen.push(match reply.result.unwrap() {
            Wire::Ack(ack) => (reply.item, format!("{} {}", ack.status().as_str_name(), ack.score)),
            Wire::Error(error) => {
                assert_ne!(error.reason, "STORE_DOWN", "{}", error.message);
                (reply.item, format!("{} {} {}", error.code, error.reason, error.field))
            }
        });
    }
    let expected = [
        "FEEDBACK_STATUS_RECORDED 0.25",
        "3 INVALID_ARGUMENT feedback.score",
        "5 UNKNOWN_DECISION ",
        "FEEDBACK_STATUS_CORRECTED 0.5",
        "FEEDBACK_STATUS_REPEATED 0.5",
    ];
    let expected: Vec<(u64, String)> = (0..).zip(expected.map(str::to_owned)).collect();
    assert_eq!(seen, expected);
    daemon.stop().await;
}

#[tokio::test]
async fn a_stream_that_runs_far_ahead_of_its_acknowledgements_stays_open() {
    const ITEMS: u64 = 4_000;
    let daemon = Setup::new().start().await;
    let id = daemon.route("the mutex", &["left", "right"]).await.unwrap().decision_id;
    let item = feedback(&id, v1::feedback::Verdict::Correct(true));
    // Each item travels in a frame of its own: nothing is ready to share one with it.
    let items = futures_util::stream::unfold(0, move |sent| {
        let item = item.clone();
        async move {
            tokio::task::yield_now().await;
            (sent < ITEMS).then_some((item, sent + 1))
        }
    });
    let mut replies = daemon.client.stream_feedback(items).await.unwrap();
    let mut acknowledged = 0;
    while let Some(reply) = replies.next().await.unwrap() {
        assert!(matches!(reply.result, Some(v1::stream_feedback_response::Result::Ack(_))), "{reply:?}");
        acknowledged += 1;
    }
    assert_eq!(acknowledged, ITEMS);
    daemon.stop().await;
}

#[tokio::test]
async fn deleted_traces_are_gone_and_the_learned_state_still_verifies() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let mut kept = String::new();
    for tenant in ["a", "b"] {
        let mut spec = spec("the pointer", &["left", "right"]);
        spec.tags.insert("tenant".into(), tenant.into());
        kept = daemon.client.route(request(spec)).await.unwrap().decision_id;
        daemon.judge(&kept, true).await.unwrap();
    }
    let delete = v1::DeleteTracesRequest { tenant: "a".into(), ..Default::default() };
    assert_eq!(daemon.client.delete_traces(delete).await.unwrap().deleted, 1);
    let left: Vec<_> = daemon.traces().await.into_iter().map(|t| t.decision.unwrap().decision_id).collect();
    assert_eq!(left, [kept]);
    daemon.stop().await;
    let secret = pointsman_daemon::config::installation_secret(&setup.state()).unwrap();
    let artifact = pointsman_daemon::serve::artifact(secret);
    assert!(pointsman_daemon::verify::verify(&setup.state(), &artifact).await.unwrap().equal);
}

#[tokio::test]
async fn an_export_has_everything_once_oldest_first() {
    let daemon = Setup::new().start().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(daemon.route(&format!("the array {n}"), &["left"]).await.unwrap().decision_id);
    }
    daemon.judge(&ids[1], true).await.unwrap();
    // The trace that is waited for was committed last.
    daemon.trace(&ids[4]).await;
    let filter = v1::TraceFilter { has_feedback: Some(false), ..Default::default() };
    let request = v1::ExportTracesRequest { filter: Some(filter), limit: 3 };
    let mut replies = daemon.client.export_traces(request).await.unwrap();
    let (mut exported, mut progress) = (Vec::new(), 0.0);
    while let Some(reply) = replies.next().await.unwrap() {
        assert!(reply.progress >= progress && reply.progress <= 1.0);
        progress = reply.progress;
        exported.push(reply.trace.unwrap().decision.unwrap().decision_id);
    }
    assert_eq!(exported, [ids[0].clone(), ids[2].clone(), ids[3].clone()]);
    let unknown = v1::GetTraceRequest { decision_id: "0190a5a0-0000-7000-8000-000000000000".into() };
    assert!(matches!(daemon.client.get_trace(unknown).await, Err(ClientError::NotFound(_))));
    daemon.stop().await;
}
