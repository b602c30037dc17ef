//! How a daemon begins and ends: health, reflection, drain, stores of another time.

use pointsman_client::{Client, ClientError, Target, v1};
use pointsman_daemon::serve::ServeError;
use pointsman_daemon::store::StoreError;

use crate::harness::{Setup, request, spec};

#[tokio::test]
async fn a_drain_finishes_what_runs_and_lets_nothing_in() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    for service in ["", "pointsman.v1.RouterService", "pointsman.v1.AdminService"] {
        assert!(daemon.client.serves(service).await.unwrap(), "{service}");
    }
    let watcher = Client::connect(Target::new(&daemon.address)).await.unwrap();
    let stream = v1::RouteStreamRequest { request: Some(spec("the jury", &["snail"])), ..Default::default() };
    let mut slow = daemon.client.route_stream(stream).await.unwrap();
    slow.next().await.unwrap();
    let grace = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let drained = daemon.client.drain(v1::DrainRequest { grace }).await.unwrap();
    assert_eq!(drained.in_flight, 1);
    let refused = watcher.route(request(spec("the jury", &["left"]))).await.unwrap_err();
    assert!(matches!(refused, ClientError::Unavailable(fault) if fault.reason == "DRAINING"));
    let mut last = None;
    while let Some(reply) = slow.next().await.unwrap() {
        last = reply.event;
    }
    assert!(matches!(last, Some(v1::route_stream_response::Event::Final(_))));
    drop((watcher, slow));
    daemon.stop().await;
    assert_eq!(setup.start().await.traces().await.len(), 1);
}

#[tokio::test]
async fn what_outlives_the_grace_is_cut_and_settled() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let stream = v1::RouteStreamRequest { request: Some(spec("the jury", &["snail"])), ..Default::default() };
    let mut slow = daemon.client.route_stream(stream).await.unwrap();
    slow.next().await.unwrap();
    let grace = Some(prost_types::Duration { seconds: 0, nanos: 0 });
    daemon.client.drain(v1::DrainRequest { grace }).await.unwrap();
    let cut = loop {
        match slow.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(error) => break error,
        }
    };
    assert_eq!(cut.fault().reason, "DRAINING");
    drop(slow);
    daemon.stop().await;
    let daemon = setup.start().await;
    assert_eq!(daemon.traces().await[0].status(), v1::RequestStatus::Cancelled);
    daemon.stop().await;
}

#[tokio::test]
async fn stores_that_a_newer_daemon_wrote_are_refused() {
    for file in ["ledger.db", "traces.db"] {
        let setup = Setup::new();
        setup.start().await.stop().await;
        let store = rusqlite::Connection::open(setup.state().join(file)).unwrap();
        store.pragma_update(None, "user_version", 9_999).unwrap();
        drop(store);
        let refused = setup.refusal().await;
        assert!(matches!(refused, ServeError::Store(StoreError::NewerSchema { found: 9_999, .. })), "{refused:?}");
    }
}
