//! Who may call what: every rpc, with every scope, without a key, and with keys that let nobody in.

use pointsman_client::v1;
use pointsman_daemon::keyring::Wanted;
use pointsman_daemon::keys::Scope;
use pointsman_router::clock::Timestamp;
use prost::Message as _;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

use crate::harness::{Running, Setup, operator, wanted};

const REQUIRED: &str = "[auth]\nkeys = \"required\"\n";

/// Every rpc and the one scope, besides `admin`, that lets it through. The daemon's end comes last.
const ALLOWED: [(&str, Option<Scope>); 41] = [
    ("RouterService/Route", Some(Scope::Route)),
    ("RouterService/RouteStream", Some(Scope::Route)),
    ("RouterService/Decide", Some(Scope::Route)),
    ("RouterService/ReportOutcomes", Some(Scope::Route)),
    ("FeedbackService/SubmitFeedback", Some(Scope::Feedback)),
    ("FeedbackService/StreamFeedback", Some(Scope::Feedback)),
    ("StatsService/ListModelStats", Some(Scope::Read)),
    ("StatsService/ListTraces", Some(Scope::Read)),
    ("StatsService/GetTrace", Some(Scope::Read)),
    ("StatsService/ExportTraces", Some(Scope::Read)),
    ("StatsService/GetReport", Some(Scope::Read)),
    ("StatsService/GetStoreInfo", Some(Scope::Read)),
    ("StatsService/ImportTraces", Some(Scope::Train)),
    ("StatsService/DeleteTraces", None),
    ("PolicyService/ListPolicies", Some(Scope::Read)),
    ("PolicyService/GetPolicy", Some(Scope::Read)),
    ("PolicyService/Train", Some(Scope::Train)),
    ("PolicyService/Evaluate", Some(Scope::Train)),
    ("PolicyService/Promote", Some(Scope::Train)),
    ("PolicyService/Rollback", Some(Scope::Train)),
    ("PolicyService/SetShadow", Some(Scope::Train)),
    ("PolicyService/InstallPolicy", Some(Scope::Train)),
    ("AdminService/ListModels", Some(Scope::Read)),
    ("AdminService/GetBudget", Some(Scope::Read)),
    ("AdminService/ListBudgets", Some(Scope::Read)),
    ("AdminService/SetBudget", None),
    ("AdminService/RemoveBudget", None),
    ("AdminService/AdjustBudget", None),
    ("AdminService/ListTransfers", None),
    ("AdminService/VerifyBudgets", None),
    ("AdminService/RegisterModel", None),
    ("AdminService/EnableModel", None),
    ("AdminService/DisableModel", None),
    ("AdminService/RemoveModel", None),
    ("AdminService/CreateKey", None),
    ("AdminService/ListKeys", None),
    ("AdminService/RevokeKey", None),
    ("AdminService/RotateKey", None),
    ("AdminService/ListAudit", None),
    ("AdminService/VerifyAudit", None),
    ("AdminService/Drain", None),
];

async fn channel(daemon: &Running) -> Channel {
    Endpoint::new(format!("http://{}", daemon.address)).unwrap().connect().await.unwrap()
}

/// Calls an rpc with an empty message: what matters is whether it gets as far as the handler.
async fn call(channel: &Channel, path: &str, header: Option<&str>) -> Result<(), tonic::Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let mut request = tonic::Request::new(());
    if let Some(header) = header {
        request.metadata_mut().insert("authorization", header.parse().unwrap());
    }
    let codec: tonic_prost::ProstCodec<(), ()> = tonic_prost::ProstCodec::default();
    let path = PathAndQuery::try_from(path).unwrap();
    // One message that way and a stream this way is what every kind of rpc can be called with.
    grpc.server_streaming(request, path, codec).await?.into_inner().message().await.map(|_| ())
}

fn rpc(name: &str) -> String {
    format!("/pointsman.v1.{name}")
}

/// What a refusal says: its code, its reason, its message.
fn said(status: &tonic::Status) -> (Code, String, String) {
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default();
    (status.code(), reason, status.message().to_owned())
}

#[tokio::test]
async fn every_rpc_with_every_scope() {
    let served: usize = prost_types::FileDescriptorSet::decode(pointsman_proto::FILE_DESCRIPTOR_SET)
        .unwrap()
        .file
        .iter()
        .filter(|file| file.package() == "pointsman.v1")
        .flat_map(|file| &file.service)
        .map(|service| service.method.len())
        .sum();
    assert_eq!(served, ALLOWED.len(), "an rpc is missing in the table of this test");
    let setup = Setup::with(REQUIRED);
    let mut keys = Vec::new();
    for (_, scope) in Scope::WORDS {
        keys.push((scope, format!("Bearer {}", setup.key("acme", &[scope]).await)));
    }
    let daemon = setup.start().await;
    let channel = channel(&daemon).await;
    for (name, needed) in ALLOWED {
        for (scope, header) in &keys {
            let expected = *scope == Scope::Admin || needed == Some(*scope);
            match call(&channel, &rpc(name), Some(header)).await {
                Err(status) if status.code() == Code::PermissionDenied => {
                    assert!(!expected, "{name} with {scope}: {status:?}");
                    let details = status.get_error_details();
                    let info = details.error_info().unwrap();
                    let needed = needed.unwrap_or(Scope::Admin).as_str();
                    assert_eq!((info.reason.as_str(), info.metadata["scope"].as_str()), ("SCOPE_MISSING", needed));
                    assert!(status.message().contains(needed), "{}", status.message());
                }
                Err(status) if status.code() == Code::Unauthenticated => panic!("{name} with {scope}: {status:?}"),
                Ok(()) | Err(_) => assert!(expected, "{name} with {scope} was let through"),
            }
        }
    }
    drop(channel);
    daemon.stop().await;
}

#[tokio::test]
async fn whatever_lets_nobody_in_is_told_alike() {
    let setup = Setup::with(REQUIRED);
    let good = setup.key("acme", &[Scope::Admin]).await;
    let keyring = setup.keyring().await;
    let ends = Wanted { expires_at: Some(Timestamp::from_micros(1)), ..wanted("acme", &[Scope::Admin]) };
    let expired = keyring.create(ends, &operator()).await.unwrap();
    let revoked = keyring.create(wanted("acme", &[Scope::Admin]), &operator()).await.unwrap();
    keyring.revoke(revoked.record.id.as_str(), &operator()).await.unwrap();
    drop(keyring);
    let daemon = setup.start().await;
    let channel = channel(&daemon).await;
    let (id, secret) = good.trim_start_matches("pm_").split_once('.').unwrap();
    let other_secret = expired.text.expose().split_once('.').unwrap().1;
    let headers: Vec<Option<String>> = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(good.clone()),
        Some(format!("Basic {good}")),
        Some(format!("Bearer  {good}")),
        Some(format!("Bearer {}", expired.text.expose())),
        Some(format!("Bearer {}", revoked.text.expose())),
        Some(format!("Bearer pm_{id}.{other_secret}")),
        Some(format!("Bearer pm_0000000000000000.{secret}")),
        Some(format!("Bearer pm_{id}.")),
        Some(format!("Bearer pm_{id}.{secret}{secret}")),
        Some(format!("Bearer {}", "x".repeat(8_000))),
    ]
    .into();
    let mut told = Vec::new();
    for (name, _) in ALLOWED {
        for header in &headers {
            let refused = call(&channel, &rpc(name), header.as_deref()).await.unwrap_err();
            told.push(said(&refused));
        }
    }
    for path in [
        "/pointsman.v1.RouterService/Nothing",
        "/nobody.v1.Nothing/Nothing",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        told.push(said(&call(&channel, path, None).await.unwrap_err()));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!((told[0].0, told[0].1.as_str()), (Code::Unauthenticated, "UNAUTHENTICATED"));
    let good = format!("Bearer {good}");
    let unknown = call(&channel, "/pointsman.v1.RouterService/Nothing", Some(&good)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::PermissionDenied);
    call(&channel, &rpc("AdminService/ListModels"), Some(&good)).await.unwrap();
    drop(channel);
    daemon.stop().await;
}

#[tokio::test]
async fn health_needs_no_key_and_reflection_any() {
    let setup = Setup::with(REQUIRED);
    let key = setup.key("acme", &[Scope::Feedback]).await;
    let daemon = setup.start().await;
    assert!(daemon.client.serves("pointsman.v1.RouterService").await.unwrap());
    let channel = channel(&daemon).await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let denied = call(&channel, &path, None).await.unwrap_err();
        assert_eq!(denied.code(), Code::Unauthenticated);
        let asked = call(&channel, &path, Some(&format!("Bearer {key}"))).await;
        assert!(
            !asked.is_err_and(|status| matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied))
        );
    }
    drop(channel);
    daemon.stop().await;
}

#[tokio::test]
async fn without_keys_everybody_may_do_everything_and_is_called_keyless() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let disable = v1::DisableModelRequest { name: "left".to_owned() };
    // A key that is sent all the same is not looked at.
    let client = daemon.client_with("pm_0123456789abcdef.nonsense").await;
    client.disable_model(disable).await.unwrap();
    let audit = daemon.client.list_audit(v1::ListAuditRequest::default()).await.unwrap();
    let entry = &audit.entries[0];
    assert_eq!(
        (entry.actor.as_str(), entry.action.as_str(), entry.subject.as_str()),
        ("keyless", "model.disabled", "left")
    );
    drop(client);
    daemon.stop().await;
}
