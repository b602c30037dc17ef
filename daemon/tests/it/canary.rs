//! Secrets as canaries: a provider's key and callers' keys, in a run in which everything fails that can, are found
//! nowhere but where they belong: not in the log at its finest, not in errors and traces, not in any file.

use std::convert::Infallible;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pointsman_client::v1;
use pointsman_daemon::config::Environment;
use pointsman_daemon::keys::Scope;
use tokio::net::TcpListener;

use crate::harness::{Running, Setup, feedback, request, spec};

const PROVIDER_KEY: &str = "sk-canary-5f1d2c3b4a";

/// Collects the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A provider that tells the key back in everything that it says: the model's name says how it fails.
async fn provider() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(answer);
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::task::spawn(serving);
        }
    });
    format!("http://{address}/v1")
}

async fn answer(request: hyper::Request<Incoming>) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    use http_body_util::BodyExt as _;
    let key = request.headers()["authorization"].to_str().unwrap().to_owned();
    assert!(key.ends_with(PROVIDER_KEY), "the provider is sent its key");
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    let asked: serde_json::Value = serde_json::from_slice(&asked).unwrap();
    let key = key.trim_start_matches("Bearer ");
    let told =
        format!(r#"{{"error": {{"message": "the key {key} is wrong", "code": "{key}", "type": "{key}"}}}}"#);
    let (status, body) = match asked["model"].as_str().unwrap() {
        "unauthorized" => (401, told),
        "bad" => (400, told),
        "gone" => (404, format!("plain text with {key}")),
        "down" => (500, told),
        "moved" => (302, told),
        "garbled" => (200, format!("{key} is no JSON")),
        "misshapen" => (200, format!(r#"{{"choices": "{key}", "usage": "{key}"}}"#)),
        "odd" => (200, format!(r#"{{"choices": [{{"message": {{"content": {{"{key}": 1}}}}}}]}}"#)),
        other => (503, format!("{other} {key}")),
    };
    let response =
        hyper::Response::builder().status(status).header("location", format!("/{key}")).header("x-key", key);
    Ok(response.body(Full::new(Bytes::from(body))).unwrap())
}

const MODELS: [&str; 9] =
    ["unauthorized", "bad", "gone", "down", "moved", "garbled", "misshapen", "odd", "unavailable"];

fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

/// Fails where a canary is found, with the text around it and without it.
fn check(place: &str, bytes: &[u8], canaries: &[String]) {
    for (n, canary) in canaries.iter().enumerate() {
        let canary = canary.as_bytes();
        if let Some(at) = bytes.windows(canary.len()).position(|window| window == canary) {
            let before = String::from_utf8_lossy(&bytes[at.saturating_sub(200)..at]).into_owned();
            panic!("canary {n} is in {place}, after: {before}");
        }
    }
}

/// The texts of an administrator's key, of one that was replaced, and of its successor.
struct Texts {
    admin: String,
    old: String,
    new: String,
}

async fn texts(daemon: &Running, admin: String) -> Texts {
    let client = daemon.client_with(&admin).await;
    let wanted = v1::CreateKeyRequest {
        tenant: "acme".into(),
        scopes: vec![1, 2, 3, 4],
        ..v1::CreateKeyRequest::default()
    };
    let made = client.create_key(wanted).await.unwrap();
    let rotate = v1::RotateKeyRequest { id: made.key.unwrap().id, grace: None, expires_at: None };
    let rotated = client.rotate_key(rotate).await.unwrap();
    Texts { admin, old: made.text, new: rotated.text }
}

fn secret(text: &str) -> String {
    text.split_once('.').unwrap().1.to_owned()
}

/// Lets everything fail that can, and collects all that callers are told.
async fn run(daemon: &Running, texts: &Texts) -> Vec<String> {
    let (admin, client) = (daemon.client_with(&texts.admin).await, daemon.client_with(&texts.new).await);
    let wrong = format!("{}{}", &texts.new[..20], secret(&texts.admin));
    let denied = [daemon.client_with(&texts.old).await, daemon.client_with(&wrong).await];
    let mut told = Vec::new();
    for model in MODELS {
        let asked = request(spec("the jury", &[model]));
        let asked = v1::RouteRequest { explain: true, idempotency_key: model.to_owned(), ..asked };
        told.push(format!("{:?}", client.route(asked.clone()).await.unwrap_err()));
        for denied in &denied {
            told.push(format!("{:?}", denied.route(asked.clone()).await.unwrap_err()));
        }
    }
    // Other clients do not mark the header as sensitive.
    let endpoint = tonic::transport::Endpoint::new(format!("http://{}", daemon.address)).unwrap();
    let mut plain = v1::admin_service_client::AdminServiceClient::new(endpoint.connect().await.unwrap());
    for (text, is_let_in) in [(&texts.admin, true), (&texts.old, false)] {
        let mut asked = tonic::Request::new(v1::ListModelsRequest {});
        asked.metadata_mut().insert("authorization", format!("Bearer {text}").parse().unwrap());
        assert_eq!(plain.list_models(asked).await.is_ok(), is_let_in);
    }
    let good = client.route(request(spec("the jury", &["left"]))).await.unwrap();
    client.feedback(feedback(&good.decision_id, v1::feedback::Verdict::Correct(true))).await.unwrap();
    told.push(format!("{:?}", admin.list_traces(v1::ListTracesRequest::default()).await.unwrap()));
    let mut replies = admin.export_traces(v1::ExportTracesRequest::default()).await.unwrap();
    while let Some(reply) = replies.next().await.unwrap() {
        told.push(format!("{reply:?}"));
    }
    assert!(told.len() > 3 * MODELS.len() + MODELS.len(), "every failed request has its trace");
    told.push(format!("{:?}", admin.list_keys(v1::ListKeysRequest::default()).await.unwrap()));
    told.push(format!("{:?}", admin.list_audit(v1::ListAuditRequest::default()).await.unwrap()));
    told.push(format!("{:?}", admin.list_models(v1::ListModelsRequest {}).await.unwrap()));
    told.push(format!("{:?}", admin.get_report(v1::GetReportRequest::default()).await.unwrap()));
    told
}

fn config(base_url: &str) -> String {
    let mut config = format!(
        "[auth]\nkeys = \"required\"\n[store]\nstore_content = true\n\
         [[backend]]\nname = \"canary\"\nkind = \"openai\"\nbase_url = \"{base_url}\"\nkey_env = \"CANARY_KEY\"\n"
    );
    for model in MODELS {
        config.push_str(&format!(
            "[[model]]\nname = \"{model}\"\nbackend = \"canary\"\ninput_usd_per_million_tokens = 1\n\
             output_usd_per_million_tokens = 1\n"
        ));
    }
    config
}

#[tokio::test]
async fn secrets_are_found_nowhere() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let setup = Setup::with(&config(&provider().await));
    let admin = setup.key("ops", &[Scope::Admin]).await;
    let daemon = setup.start_in(&Environment::from([("CANARY_KEY", PROVIDER_KEY)])).await;
    let texts = texts(&daemon, admin).await;
    let told = run(&daemon, &texts).await;
    let canaries = [PROVIDER_KEY.to_owned(), secret(&texts.admin), secret(&texts.old), secret(&texts.new)];
    let mut found = Vec::new();
    files(&setup.state(), &mut found);
    assert!(found.iter().any(|(name, _)| name.ends_with("ledger.db-wal")), "the logs of the stores are looked at");
    daemon.stop().await;
    files(&setup.state(), &mut found);
    for (name, bytes) in &found {
        check(name, bytes, &canaries);
    }
    for text in &told {
        check("what callers were told", text.as_bytes(), &canaries);
    }
    let log = log.0.lock().unwrap();
    assert!(log.len() > 10_000, "the log is looked at");
    check("the log", &log, &canaries);
}
