//! Tests against a scripted server on this machine that speaks the format over real sockets.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pointsman_router::request::{Message, Prompt};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::super::testing::{call, call_of, prompt};
use super::*;
use crate::config::{OutputCapField, Secret};

/// What the server answers and what it was last asked.
#[derive(Debug, Default)]
struct Script {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    asked: Mutex<Option<(String, Option<String>, Value)>>,
}

fn config(base_url: String) -> OpenaiConfig {
    OpenaiConfig {
        base_url,
        key: Key::Present(Secret::new("sk-hidden".to_owned())),
        concurrency_max: 4,
        connect_timeout: Duration::from_secs(5),
        reply_bytes_max: 4_096,
        output_cap_field: OutputCapField::MaxTokens,
        json_schema: true,
    }
}

async fn answer(
    script: Arc<Script>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let key = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    *script.asked.lock().unwrap() = Some((path, key, serde_json::from_slice(&body).unwrap()));
    let mut response = hyper::Response::builder().status(script.status);
    for (name, value) in &script.headers {
        response = response.header(*name, *value);
    }
    Ok(response.body(Full::new(Bytes::from(script.body.clone()))).unwrap())
}

/// A backend whose provider answers every call by the script.
async fn provider(script: Script) -> (OpenaiBackend, Arc<Script>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    let script = Arc::new(script);
    let shared = Arc::clone(&script);
    #[expect(clippy::disallowed_methods, reason = "the server of a test, which ends with its runtime")]
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shared = Arc::clone(&shared);
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            #[expect(clippy::disallowed_methods, reason = "the server of a test, which ends with its runtime")]
            tokio::spawn(serving);
        }
    });
    (OpenaiBackend::new(config(base_url)).unwrap(), script)
}

/// What a call comes to when the provider answers so.
async fn ask(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Result<Reply, CallError> {
    let script = Script { status, headers: headers.to_vec(), body: body.to_owned(), ..Script::default() };
    let (backend, _) = provider(script).await;
    backend.generate(call("m", "hi", None)).await
}

fn completion(content: &Value, finish: &str, usage: &Value) -> String {
    json!({"id": "x", "choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": finish}],
           "usage": usage})
    .to_string()
}

#[tokio::test]
async fn a_call_sends_the_format_and_reads_the_reply() {
    let body = completion(&json!("Paris"), "stop", &json!({"prompt_tokens": 9, "completion_tokens": 0}));
    let (backend, script) = provider(Script { status: 200, body, ..Script::default() }).await;
    let sent = Prompt {
        system: "Be brief.".to_owned(),
        temperature: Some(0.5),
        stop: vec!["END".to_owned()],
        schema: Some(Arc::new(json!({"type": "object"}))),
        messages: vec![
            Message { role: pointsman_router::request::Role::User, content: "one".to_owned() },
            Message { role: pointsman_router::request::Role::Assistant, content: "two".to_owned() },
        ],
        ..prompt("", None)
    };
    let reply = backend.generate(call_of("gpt", sent)).await.unwrap();
    assert_eq!((reply.text.as_deref(), reply.truncated), (Some("Paris"), false));
    assert_eq!((reply.tokens_in, reply.tokens_out), (Some(9), Some(0)));
    let (path, key, asked) = script.asked.lock().unwrap().take().unwrap();
    assert_eq!((path.as_str(), key.as_deref()), ("/v1/chat/completions", Some("Bearer sk-hidden")));
    let wanted = json!({
        "model": "gpt",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
        ],
        "max_tokens": 64,
        "stream": false,
        "temperature": 0.5,
        "stop": ["END"],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
    });
    assert_eq!(asked, wanted);
}

#[tokio::test]
async fn replies_of_other_shapes_are_read() {
    let cut = ask(200, &[], &completion(&json!("Par"), "length", &json!({"prompt_tokens": 1}))).await.unwrap();
    assert!(cut.truncated);
    assert_eq!((cut.tokens_in, cut.tokens_out), (Some(1), None));
    let empty = ask(200, &[], &completion(&Value::Null, "length", &Value::Null)).await.unwrap();
    assert_eq!((empty.text.as_deref(), empty.tokens_in), (Some(""), None));
    let parts = json!([{"type": "thinking", "text": "hm"}, {"type": "text", "text": "Par"}, {"type": "text", "text": "is"}]);
    let joined = ask(200, &[], &completion(&parts, "stop", &json!({}))).await.unwrap();
    assert_eq!(joined.text.as_deref(), Some("Paris"));
}

#[tokio::test]
async fn what_is_no_reply_is_malformed() {
    for body in
        ["", "<html>", "{}", r#"{"choices":[]}"#, r#"{"choices":[{"message":{"content":7}}]}"#, &"x".repeat(5_000)]
    {
        assert!(matches!(ask(200, &[], body).await, Err(CallError::Malformed { .. })), "{:.40}", body);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_reply_is_told_without_quoting_it() {
    for body in [r#"{"choices": "said"}"#, r#"{"choices": [], "usage": "said"}"#, "said", r#"{"choices": [{"said"#]
    {
        match ask(200, &[], body).await {
            Err(CallError::Malformed { detail }) => assert!(!detail.contains("said"), "{detail}"),
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_status_becomes_the_error_one_can_act_on() {
    for status in [400, 413, 422, 302] {
        assert!(matches!(ask(status, &[], "no").await, Err(CallError::Refused { .. })), "{status}");
    }
    // A complete error is not billed, and a key or model that is not accepted is the model's trouble, which
    // its breaker must see.
    for status in [401, 403, 404, 408, 500, 502, 503, 529] {
        assert!(
            matches!(ask(status, &[], "no").await, Err(CallError::Unavailable { billable: false, .. })),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_pause_is_read_in_seconds_or_as_a_date() {
    async fn check(headers: &[(&'static str, &'static str)], seconds: Option<u64>) {
        let retry_after = seconds.map(Duration::from_secs);
        assert_eq!(ask(429, headers, "").await, Err(CallError::Throttled { retry_after }), "{headers:?}");
    }
    let date = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
    check(&[("retry-after", "7")], Some(7)).await;
    check(&[("retry-after", "99999999999")], Some(86_400)).await;
    check(&[date, ("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT")], Some(30)).await;
    check(&[date, ("retry-after", "Wed, 21 Oct 2015 07:27:00 GMT")], Some(0)).await;
    check(&[("retry-after", "soon")], None).await;
    check(&[], None).await;
}

#[tokio::test]
async fn no_error_shows_the_key() {
    let echo = r#"{"error":{"message":"bad key sk-hidden given"}}"#;
    for status in [400, 401, 403, 500] {
        let error = ask(status, &[], echo).await.unwrap_err().to_string();
        assert!(!error.contains("hidden"), "{error}");
    }
    let long = ask(400, &[], &"y".repeat(1_000)).await.unwrap_err();
    assert!(matches!(&long, CallError::Refused { detail } if detail.chars().count() < 330));
    let backend = OpenaiBackend::new(config("http://127.0.0.1:1".to_owned())).unwrap();
    assert!(!format!("{backend:?}").contains("hidden"));
}

#[tokio::test]
async fn a_connection_that_never_stood_was_not_sent_and_a_broken_one_was() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let backend = OpenaiBackend::new(config(format!("http://{closed}"))).unwrap();
    let error = backend.generate(call("m", "hi", None)).await.unwrap_err();
    assert!(matches!(error, CallError::Unavailable { billable: false, .. }), "{error:?}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = OpenaiBackend::new(config(format!("http://{}", listener.local_addr().unwrap()))).unwrap();
    let hang_up = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Read something first, so that the request is known to be under way.
        tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 64]).await.unwrap();
    };
    let (result, ()) = tokio::join!(backend.generate(call("m", "hi", None)), hang_up);
    assert!(matches!(result, Err(CallError::Unavailable { billable: true, .. })), "{result:?}");
}

#[tokio::test]
async fn without_its_key_nothing_is_sent() {
    let mut absent = config("http://127.0.0.1:1".to_owned());
    absent.key = Key::Absent { reason: "the variable X is not set".to_owned() };
    let error = OpenaiBackend::new(absent).unwrap().generate(call("m", "hi", None)).await.unwrap_err();
    assert!(matches!(error, CallError::Unavailable { billable: false, detail } if detail.contains('X')));
}
