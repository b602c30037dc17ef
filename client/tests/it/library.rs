//! The library over a real connection.

use std::time::Duration;

use futures_util::stream;
use pointsman_client::{Client, ClientError, Target, v1};

use crate::fake::Fake;

async fn start() -> (Fake, Client) {
    let (fake, address) = Fake::start().await;
    let client = Client::connect(Target::new(address.to_string())).await.expect("connects");
    (fake, client)
}

fn asking(prompt: &str) -> Option<v1::RequestSpec> {
    Some(v1::RequestSpec { prompt: prompt.to_owned(), ..v1::RequestSpec::default() })
}

fn route(prompt: &str) -> v1::RouteRequest {
    v1::RouteRequest { request: asking(prompt), ..v1::RouteRequest::default() }
}

#[tokio::test]
async fn the_deadline_is_sent() {
    let (fake, client) = start().await;
    client.route(route("hi")).await.expect("answers");
    let none = client.with_deadline(None);
    none.route(route("hi")).await.expect("answers");
    let deadlines = fake.told(|told| {
        let sent = told.requests.iter().map(|(_, deadline)| deadline.clone());
        sent.collect::<Vec<_>>()
    });
    assert!(deadlines[0].is_some());
    assert_eq!(deadlines[1], None);
}

#[tokio::test]
async fn a_call_and_a_stream_end_at_the_deadline() {
    let (_fake, client) = start().await;
    let client = client.with_deadline(Some(Duration::from_millis(50)));
    let ended = client.route(route("stall")).await;
    assert!(matches!(ended, Err(ClientError::Deadline(_))), "{ended:?}");

    let request = v1::RouteStreamRequest { request: asking("stall"), ..v1::RouteStreamRequest::default() };
    let mut events = client.route_stream(request).await.expect("begins");
    assert!(events.next().await.expect("is an event").is_some());
    let ended = events.next().await;
    assert!(matches!(ended, Err(ClientError::Deadline(_))), "{ended:?}");
    assert!(matches!(events.next().await, Ok(None)));
}

#[tokio::test]
async fn faulty_fields_come_through() {
    let (_fake, client) = start().await;
    let Err(ClientError::Invalid(fault)) = client.route(route("refuse")).await else { panic!("was not refused") };
    assert_eq!(fault.violations[0].field, "request.labels");
}

#[tokio::test]
async fn feedback_has_one_reply_for_each() {
    let (fake, client) = start().await;
    let items =
        ["a", "unknown", "b"].map(|id| v1::Feedback { decision_id: id.to_owned(), ..v1::Feedback::default() });
    let mut replies = client.stream_feedback(stream::iter(items)).await.expect("begins");
    let mut seen = Vec::new();
    while let Some(reply) = replies.next().await.expect("goes on") {
        seen.push(reply.item);
    }
    assert_eq!(seen, [0, 1, 2]);
    assert_eq!(fake.told(|told| told.feedback.len()), 2);
}

#[tokio::test]
async fn health() {
    let (_fake, client) = start().await;
    assert!(client.serves("").await.expect("answers"));
    let unknown = client.serves("no.such.Service").await;
    assert!(matches!(unknown, Err(ClientError::NotFound(_))));
}
