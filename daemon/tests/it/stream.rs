//! Events on the way: their order, their progress, and that they end with their caller.

use pointsman_client::v1;
use v1::route_stream_response::Event;

use crate::harness::{Setup, spec};

fn word(event: &Event) -> &'static str {
    match event {
        Event::Admitted(_) => "admitted",
        Event::Decided(_) => "decided",
        Event::AttemptStarted(_) => "started",
        Event::TokenDelta(_) => "delta",
        Event::AttemptFinished(_) => "finished",
        Event::ProvisionalAnswer(_) => "provisional",
        Event::Final(_) => "final",
    }
}

#[tokio::test]
async fn events_come_in_order_and_progress_never_falls() {
    let daemon = Setup::new().start().await;
    let request = v1::RouteStreamRequest { request: Some(spec("the jury", &["left"])), ..Default::default() };
    let mut replies = daemon.client.route_stream(request).await.unwrap();
    let (mut words, mut progress, mut id, mut last) = (Vec::new(), 0.0, String::new(), None);
    while let Some(reply) = replies.next().await.unwrap() {
        assert!(reply.progress >= progress && reply.progress <= 1.0);
        progress = reply.progress;
        let event = reply.event.unwrap();
        words.push(word(&event));
        match event {
            Event::Admitted(admitted) => id = admitted.decision_id,
            Event::Final(end) => last = end.response,
            _ => {}
        }
    }
    assert_eq!(words, ["admitted", "decided", "started", "finished", "final"]);
    assert!((progress - 1.0).abs() < f64::EPSILON);
    let last = last.unwrap();
    assert_eq!(last.decision_id, id);
    assert!(last.answer.is_some());
    daemon.stop().await;
}

#[tokio::test]
async fn a_failure_ends_the_stream_with_its_status() {
    let daemon = Setup::new().start().await;
    let request = v1::RouteStreamRequest { request: Some(spec("the jury", &["brick"])), ..Default::default() };
    let mut replies = daemon.client.route_stream(request).await.unwrap();
    let error = loop {
        match replies.next().await {
            Ok(Some(reply)) => assert!(!matches!(reply.event, Some(Event::Final(_)))),
            Ok(None) => panic!("the stream ended well"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.fault().reason, "MODELS_FAILED");
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_in_so_far_is_told_before_the_last_outcome() {
    let rules = "[policy]\nkind = \"rules\"\ndefault = [\"left\", \"right\"]\n";
    let daemon = Setup::with(rules).start().await;
    let spec = v1::RequestSpec { calls_max: Some(2), ..spec("the jury", &["left", "right"]) };
    let request = v1::RouteStreamRequest { request: Some(spec), ..Default::default() };
    let mut replies = daemon.client.route_stream(request).await.unwrap();
    let mut provisional = Vec::new();
    while let Some(reply) = replies.next().await.unwrap() {
        if let Event::ProvisionalAnswer(so_far) = reply.event.unwrap() {
            assert!(so_far.answer.is_some());
            provisional.push((so_far.outcomes_in, so_far.outcomes_awaited));
        }
    }
    assert_eq!(provisional, [(1, 1)]);
    daemon.stop().await;
}
