//! What is wrong with a request is told by field, all of it at once, and changes nothing.

use pointsman_client::{ClientError, v1};

use crate::harness::{Running, Setup, feedback, fields, request, spec};

async fn check(daemon: &Running, change: impl FnOnce(&mut v1::RequestSpec), expected: &[&str]) {
    let mut spec = spec("the jury", &[]);
    change(&mut spec);
    match daemon.client.route(request(spec)).await {
        Err(ClientError::Invalid(fault)) => {
            assert_eq!(fault.reason, "INVALID_ARGUMENT");
            assert_eq!(fields(&fault), expected, "{}", fault.message);
        }
        other => panic!("{expected:?}: {other:?}"),
    }
}

#[tokio::test]
async fn every_fault_is_named_and_nothing_changes() {
    let setup = Setup::with("prompt_bytes_max = 100\n[budget]\namount_usd = \"1\"\nwindow = \"total\"\n");
    let daemon = setup.start().await;
    check(&daemon, |s| s.prompt = " ".into(), &["request.prompt"]).await;
    check(&daemon, |s| s.prompt = "x".repeat(101), &["request.prompt"]).await;
    check(&daemon, |s| s.models_allowed = vec!["ghost".into()], &["request.models_allowed[0]"]).await;
    check(&daemon, |s| s.embedding = vec![0.0, f32::NAN], &["request.embedding[1]"]).await;
    check(&daemon, |s| s.max_cost_usd_micros = Some(-1), &["request.max_cost_usd_micros"]).await;
    check(&daemon, |s| s.quality_threshold = Some(1.5), &["request.quality_threshold"]).await;
    check(&daemon, |s| s.calls_max = Some(0), &["request.calls_max"]).await;
    check(&daemon, |s| s.temperature = Some(f64::INFINITY), &["request.temperature"]).await;
    check(&daemon, |s| s.answer_pattern = "(".into(), &["request.answer_pattern"]).await;
    let two = |s: &mut v1::RequestSpec| {
        s.calls_max = Some(0);
        s.embedding = vec![f32::INFINITY];
    };
    check(&daemon, two, &["request.calls_max", "request.embedding[0]"]).await;
    let roleless = |s: &mut v1::RequestSpec| {
        s.prompt.clear();
        s.messages = vec![v1::ChatMessage { role: 0, text: "hello".into() }];
        s.calls_max = Some(0);
    };
    check(&daemon, roleless, &["request.messages[0].role", "request.calls_max"]).await;

    let nothing = daemon.client.route(v1::RouteRequest::default()).await.unwrap_err();
    assert_eq!(fields(nothing.fault()), ["request"]);
    assert!(daemon.traces().await.is_empty());
    let budget = daemon.client.get_budget(v1::GetBudgetRequest::default()).await.unwrap().budget.unwrap();
    assert_eq!((budget.spent_usd_micros, budget.held_usd_micros, budget.left_usd_micros), (0, 0, 1_000_000));
    daemon.stop().await;
}

#[tokio::test]
async fn faulty_feedback_is_named() {
    let daemon = Setup::new().start().await;
    let id = daemon.route("the jury", &["left"]).await.unwrap().decision_id;
    let submit = async |feedback: v1::Feedback| daemon.client.feedback(feedback).await.unwrap_err();
    for score in [-0.1, 1.1, f64::NAN] {
        let error = submit(feedback(&id, v1::feedback::Verdict::Score(score))).await;
        assert_eq!(fields(error.fault()), ["feedback.score"]);
    }
    let error = submit(v1::Feedback::default()).await;
    assert_eq!(fields(error.fault()), ["feedback.decision_id", "feedback.verdict"]);
    let stranger = v1::Feedback { model: "right".into(), ..feedback(&id, v1::feedback::Verdict::Correct(true)) };
    assert_eq!(fields(submit(stranger).await.fault()), ["feedback.model"]);
    let unknown = feedback("0190a5a0-0000-7000-8000-000000000000", v1::feedback::Verdict::Correct(true));
    assert!(matches!(submit(unknown).await, ClientError::NotFound(fault) if fault.reason == "UNKNOWN_DECISION"));
    daemon.stop().await;
}

/// `RouteRequest` as a careless client might write it: text that is no UTF-8.
#[derive(Clone, PartialEq, prost::Message)]
struct CarelessRequest {
    #[prost(message, optional, tag = "1")]
    request: Option<CarelessSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CarelessSpec {
    #[prost(bytes = "vec", tag = "1")]
    prompt: Vec<u8>,
}

#[tokio::test]
async fn bad_utf8_is_the_callers_fault() {
    let daemon = Setup::new().start().await;
    let channel =
        tonic::transport::Endpoint::new(format!("http://{}", daemon.address)).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec: tonic_prost::ProstCodec<CarelessRequest, v1::RouteResponse> = tonic_prost::ProstCodec::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/pointsman.v1.RouterService/Route");
    let careless = CarelessRequest { request: Some(CarelessSpec { prompt: vec![0xff, 0xfe] }) };
    let status = grpc.unary(tonic::Request::new(careless), path, codec).await.unwrap_err();
    let error = ClientError::from(status);
    assert!(matches!(error, ClientError::Invalid(_)), "{error:?}");
    assert_eq!(fields(error.fault()), ["request.prompt"]);
    daemon.stop().await;
}
