//! Candidates from the outside: trained, installed, evaluated, and traces that come and go.

use pointsman_client::v1;
use pointsman_daemon::training::offline::{self, Kind, TrainArgs};
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;
use v1::policy_service_client::PolicyServiceClient;
use v1::stats_service_client::StatsServiceClient;

use crate::harness::{Running, Setup, spec};

async fn policies(daemon: &Running) -> PolicyServiceClient<Channel> {
    PolicyServiceClient::connect(format!("http://{}", daemon.address)).await.unwrap()
}

async fn statistics(daemon: &Running) -> StatsServiceClient<Channel> {
    StatsServiceClient::connect(format!("http://{}", daemon.address)).await.unwrap()
}

fn reason(status: &tonic::Status) -> String {
    status.get_error_details().error_info().unwrap().reason.clone()
}

/// Routes and judges: `left` is right on law, `right` on code.
async fn busy(daemon: &Running, rows: usize) {
    for n in 0..rows {
        let prompt =
            if n % 2 == 0 { format!("which clause {n} of the contract") } else { format!("the mutex {n}") };
        let spec = v1::RequestSpec { calls_max: Some(1), ..spec(&prompt, &["left", "right"]) };
        let reply = daemon.client.route(crate::harness::request(spec)).await.unwrap();
        let called = &reply.answer.unwrap().contributions[0].model;
        daemon.judge(&reply.decision_id, (called == "left") == (n % 2 == 0)).await.unwrap();
    }
}

async fn train(client: &mut PolicyServiceClient<Channel>) -> Result<v1::Policy, tonic::Status> {
    let mut told = client.train(v1::TrainRequest::default()).await?.into_inner();
    let (mut progress, mut stage) = (0.0, 0);
    while let Some(response) = told.message().await? {
        assert!(response.progress >= progress && response.stage >= stage, "{response:?}");
        (progress, stage) = (response.progress, response.stage);
        if response.stage() == v1::TrainingStage::Done {
            return Ok(response.policy.unwrap());
        }
    }
    panic!("the stream ended without a policy")
}

#[tokio::test]
async fn a_candidate_is_trained_evaluated_and_installed_again() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let mut client = policies(&daemon).await;
    let refused = train(&mut client).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "TOO_FEW_TRACES"));
    busy(&daemon, 400).await;
    let policy = train(&mut client).await.unwrap();
    assert_eq!((policy.state(), policy.kind()), (v1::PolicyState::Candidate, v1::PolicyKind::Bandit));
    assert!(policy.artifact_bytes > 0 && policy.training_report.is_some() && policy.trained_on_rows > 200);

    let request = v1::EvaluateRequest { versions: vec![policy.version.clone()], ..Default::default() };
    let evaluated = client.evaluate(request).await.unwrap().into_inner().evaluations.remove(0);
    assert_eq!(evaluated.version, policy.version);
    assert!(evaluated.judged_rows >= 100 && evaluated.gate.is_some() && evaluated.doubly_robust.is_some());
    let listed = client.get_policy(v1::GetPolicyRequest { version: policy.version.clone() }).await.unwrap();
    assert_eq!(listed.into_inner().policy.unwrap().evaluation, Some(evaluated.clone()));
    let running = v1::EvaluateRequest { versions: vec![evaluated.incumbent_version], ..Default::default() };
    assert_eq!(reason(&client.evaluate(running).await.unwrap_err()), "ALREADY_RUNNING");
    let unknown = v1::EvaluateRequest { versions: vec!["none".to_owned()], ..Default::default() };
    assert_eq!(client.evaluate(unknown).await.unwrap_err().code(), Code::NotFound);

    let bytes = std::fs::read(setup.state().join("policies").join(&policy.version)).unwrap();
    let pieces = |bytes: Vec<u8>| {
        let pieces: Vec<_> =
            bytes.chunks(1 << 20).map(|chunk| v1::InstallPolicyRequest { chunk: chunk.to_vec() }).collect();
        tokio_stream::iter(pieces)
    };
    let installed = client.install_policy(pieces(bytes.clone())).await.unwrap().into_inner();
    assert!(installed.repeated_install);
    assert_eq!(installed.policy.unwrap().version, policy.version);
    for cut in [0, 100, bytes.len() - 1] {
        let refused = client.install_policy(pieces(bytes[..cut].to_vec())).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "ARTIFACT_CORRUPT"));
    }
    let other = Setup::new();
    let elsewhere = other.start().await;
    let refused = policies(&elsewhere).await.install_policy(pieces(bytes)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "ARTIFACT_SCHEMA"));
    elsewhere.stop().await;
    daemon.stop().await;
}

async fn exported(daemon: &Running) -> Vec<v1::Trace> {
    let mut told =
        statistics(daemon).await.export_traces(v1::ExportTracesRequest::default()).await.unwrap().into_inner();
    let mut traces = Vec::new();
    while let Some(response) = told.message().await.unwrap() {
        traces.push(response.trace.unwrap());
    }
    traces
}

async fn import(daemon: &Running, traces: &[v1::Trace]) -> v1::ImportTracesResponse {
    let requests: Vec<_> =
        traces.iter().map(|trace| v1::ImportTracesRequest { trace: Some(trace.clone()), line: 0 }).collect();
    statistics(daemon).await.import_traces(tokio_stream::iter(requests)).await.unwrap().into_inner()
}

#[tokio::test]
async fn traces_go_out_and_come_in_and_a_file_of_them_trains_without_a_daemon() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    busy(&daemon, 150).await;
    let traces = exported(&daemon).await;
    let repeated = import(&daemon, &traces).await;
    assert_eq!((repeated.imported, repeated.repeated_traces, repeated.feedback), (0, 150, 0));

    // The same secret, an empty store: what a move to another machine is.
    let moved = Setup::new();
    std::fs::create_dir_all(moved.state()).unwrap();
    std::fs::copy(setup.state().join("secret"), moved.state().join("secret")).unwrap();
    let there = moved.start().await;
    let came = import(&there, &traces).await;
    assert_eq!((came.imported, came.feedback, came.refused), (150, 150, 0));
    let without_places = |mut traces: Vec<v1::Trace>| {
        for trace in &mut traces {
            trace.sequence = 0;
            trace.feedback.iter_mut().for_each(|entry| entry.sequence = 0);
        }
        traces
    };
    assert_eq!(without_places(exported(&there).await), without_places(traces.clone()));
    assert_eq!(there.stats("left").await.calls, 0);

    // Another installation cannot read these features, and says so by line.
    let stranger = Setup::new().start().await;
    let refused = import(&stranger, &traces[..2]).await;
    let named: Vec<_> = refused.refusals.iter().map(|refusal| (refusal.line, refusal.reason.as_str())).collect();
    assert_eq!((refused.refused, named), (2, vec![(1, "FEATURE_SCHEMA"), (2, "FEATURE_SCHEMA")]));

    let file = setup.state().join("log.jsonl");
    let line = |trace: &v1::Trace| pointsman_daemon::wire::json::write(trace).unwrap();
    let mut lines: Vec<String> = traces.iter().map(line).collect();
    lines[4] = "{\"format\":".to_owned();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let args = TrainArgs {
        traces: file,
        out: setup.state().join("made"),
        kind: Kind::Classifier,
        seed: 0,
        state_dir: Some(setup.state()),
        json: true,
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    offline::main(&args, &mut out, &mut err).unwrap();
    let made: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((made["broken_lines"].as_u64(), made["report"]["judged_rows"].as_u64()), (Some(1), Some(149)));
    assert!(String::from_utf8(err).unwrap().contains("line 5 "));
    let chunk = std::fs::read(&args.out).unwrap();
    let mut client = policies(&daemon).await;
    let pieces: Vec<_> =
        chunk.chunks(1 << 20).map(|chunk| v1::InstallPolicyRequest { chunk: chunk.to_vec() }).collect();
    let installed = client.install_policy(tokio_stream::iter(pieces)).await.unwrap().into_inner();
    assert!(!installed.repeated_install);
    assert_eq!(installed.policy.unwrap().version, made["version"].as_str().unwrap());
    for daemon in [daemon, there, stranger] {
        daemon.stop().await;
    }
}
