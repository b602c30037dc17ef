//! Models come and go while requests run.

use pointsman_client::{ClientError, v1};

use crate::harness::{Setup, fields, request, spec};

fn card(name: &str) -> v1::ModelCard {
    v1::ModelCard {
        name: name.into(),
        backend: "quick".into(),
        upstream: "left".into(),
        price: Some(v1::Price { input_usd_nanos_per_million_tokens: 1_000_000, ..Default::default() }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_model_is_registered_and_removed_under_traffic() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let client = daemon.client.clone();
    let traffic = tokio::task::spawn(async move {
        let mut n = 0;
        while !*stopped.borrow() {
            let spec = v1::RequestSpec {
                models_denied: vec!["brick".into(), "snail".into()],
                ..spec(&format!("the clause {n}"), &[])
            };
            client.route(request(spec)).await.unwrap();
            n += 1;
        }
        n
    });
    let has = |reply: &v1::RouteResponse, name: &str| {
        reply.decision.as_ref().unwrap().candidates.iter().any(|c| c.model == name && c.eligible)
    };
    for _ in 0..5 {
        let registered = v1::RegisterModelRequest { card: Some(card("newcomer")) };
        let model = daemon.client.register_model(registered).await.unwrap().model.unwrap();
        assert_eq!(model.origin(), v1::ModelOrigin::Runtime);
        let reply = daemon.route("the jury", &["newcomer"]).await.unwrap();
        assert!(has(&reply, "newcomer") && reply.attempts[0].model == "newcomer");
        daemon.client.remove_model(v1::RemoveModelRequest { name: "newcomer".into() }).await.unwrap();
        let reply = daemon.route("the jury", &["left"]).await.unwrap();
        let candidates = &reply.decision.unwrap().candidates;
        assert!(candidates.iter().all(|c| c.model != "newcomer"), "it was there one decision too long");
        let error = daemon.route("the jury", &["newcomer"]).await.unwrap_err();
        assert_eq!(fields(error.fault()), ["request.models_allowed[0]"]);
    }
    stop.send_replace(true);
    assert!(traffic.await.unwrap() > 0);
    // What was counted of a removed model stays.
    assert_eq!(daemon.stats("newcomer").await.calls, daemon.stats("newcomer").await.chosen);
    daemon.stop().await;
}

#[tokio::test]
async fn changes_are_checked_and_durable() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let register = async |card| daemon.client.register_model(v1::RegisterModelRequest { card }).await;
    assert_eq!(fields(register(None).await.unwrap_err().fault()), ["card"]);
    let faulty = v1::ModelCard {
        price: Some(v1::Price { per_call_usd_nanos: -1, ..Default::default() }),
        backend: String::new(),
        ..card("x")
    };
    assert_eq!(
        fields(register(Some(faulty)).await.unwrap_err().fault()),
        ["card.backend", "card.price.per_call_usd_nanos"]
    );
    let nowhere = v1::ModelCard { backend: "nowhere".into(), ..card("x") };
    assert_eq!(fields(register(Some(nowhere)).await.unwrap_err().fault()), ["card.backend"]);
    let taken = register(Some(card("left"))).await.unwrap_err();
    assert!(matches!(taken, ClientError::Conflict(fault) if fault.reason == "MODEL_EXISTS"));
    let unknown = daemon.client.enable_model(v1::EnableModelRequest { name: "ghost".into() }).await.unwrap_err();
    assert!(matches!(unknown, ClientError::NotFound(fault) if fault.reason == "UNKNOWN_MODEL"));

    register(Some(card("newcomer"))).await.unwrap();
    daemon.client.disable_model(v1::DisableModelRequest { name: "left".into() }).await.unwrap();
    daemon.client.remove_model(v1::RemoveModelRequest { name: "right".into() }).await.unwrap();
    daemon.stop().await;
    let daemon = setup.start().await;
    let models = daemon.client.list_models(v1::ListModelsRequest {}).await.unwrap().models;
    let listed: Vec<(String, bool)> = models.into_iter().map(|m| (m.card.unwrap().name, m.enabled)).collect();
    let expected = [("brick", true), ("left", false), ("newcomer", true), ("snail", true)];
    assert_eq!(listed, expected.map(|(name, enabled)| (name.to_owned(), enabled)));
    daemon.stop().await;
}
