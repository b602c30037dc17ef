//! Keys are made, listed, rotated and revoked while the daemon runs, and hold from the next request on; the audit log
//! tells who did it, and tells when it is not what was written.

use std::time::Duration;

use pointsman_client::{Client, ClientError, v1};
use pointsman_daemon::keys::Scope;

use crate::harness::{Setup, fields};

const REQUIRED: &str = "[auth]\nkeys = \"required\"\n";

fn wanted(scopes: &[v1::KeyScope]) -> v1::CreateKeyRequest {
    v1::CreateKeyRequest {
        tenant: "acme".to_owned(),
        name: "a test".to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
        ..v1::CreateKeyRequest::default()
    }
}

async fn may_read(client: &Client) -> bool {
    match client.list_models(v1::ListModelsRequest {}).await {
        Ok(_) => true,
        Err(ClientError::Denied(fault)) => {
            assert_eq!(fault.reason, "UNAUTHENTICATED");
            false
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_change_holds_from_the_next_request_on_and_over_a_restart() {
    let setup = Setup::with(REQUIRED);
    let admin_text = setup.key("ops", &[Scope::Admin]).await;
    let daemon = setup.start().await;
    let admin = daemon.client_with(&admin_text).await;
    let limits = v1::KeyLimits {
        requests_per_minute: Some(60),
        spend_usd_micros_per_minute: Some(5),
        ..Default::default()
    };
    let asked = v1::CreateKeyRequest { limits: Some(limits), ..wanted(&[v1::KeyScope::Read]) };
    let made = admin.create_key(asked).await.unwrap();
    let key = made.key.unwrap();
    assert!(made.text.starts_with(&format!("pm_{}.", key.id)));
    assert_eq!((key.tenant.as_str(), key.state(), key.limits), ("acme", v1::KeyState::Active, Some(limits)));
    let client = daemon.client_with(&made.text).await;
    assert!(may_read(&client).await);

    let grace = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let rotate = |id: &str, grace| v1::RotateKeyRequest { id: id.to_owned(), grace, expires_at: None };
    let second = admin.rotate_key(rotate(&key.id, grace)).await.unwrap();
    let second_client = daemon.client_with(&second.text).await;
    assert!(may_read(&client).await && may_read(&second_client).await);
    assert!(second.previous.unwrap().expires_at.is_some());
    let second_key = second.key.unwrap();
    assert_eq!((second_key.rotated_from.as_str(), second_key.limits), (key.id.as_str(), Some(limits)));
    let third = admin.rotate_key(rotate(&second_key.id, None)).await.unwrap();
    let third_client = daemon.client_with(&third.text).await;
    assert!(!may_read(&second_client).await && may_read(&third_client).await);
    let over = admin.rotate_key(rotate(&second_key.id, None)).await.unwrap_err();
    assert!(matches!(over, ClientError::Conflict(fault) if fault.reason == "KEY_INACTIVE"));

    let revoke = v1::RevokeKeyRequest { id: key.id.clone() };
    assert_eq!(admin.revoke_key(revoke.clone()).await.unwrap().key.unwrap().state(), v1::KeyState::Revoked);
    assert!(!may_read(&client).await && may_read(&third_client).await);
    admin.revoke_key(revoke).await.unwrap();
    let listed = admin
        .list_keys(v1::ListKeysRequest { tenant: "acme".to_owned(), ..Default::default() })
        .await
        .unwrap()
        .keys;
    let one = v1::ListKeysRequest { tenant: "acme".to_owned(), page_size: 2, ..Default::default() };
    let page = admin.list_keys(one.clone()).await.unwrap();
    let rest = v1::ListKeysRequest { page_token: page.next_page_token.clone(), ..one };
    let rest = admin.list_keys(rest).await.unwrap();
    assert_eq!(([page.keys, rest.keys].concat(), rest.next_page_token.as_str()), (listed.clone(), ""));
    let states: Vec<_> = listed.iter().map(v1::Key::state).collect();
    assert_eq!(states, [v1::KeyState::Revoked, v1::KeyState::Revoked, v1::KeyState::Active]);
    drop((admin, client, second_client, third_client));
    daemon.stop().await;

    let daemon = setup.start().await;
    let clients = [&made.text, &second.text, &third.text, &admin_text];
    let mut may = Vec::new();
    for text in clients {
        may.push(may_read(&daemon.client_with(text).await).await);
    }
    assert_eq!(may, [false, false, true, true]);
    daemon.stop().await;
}

#[tokio::test]
async fn a_key_that_makes_no_sense_is_named_and_changes_nothing() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let read = || wanted(&[v1::KeyScope::Read]);
    let past = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    let zero = Some(v1::KeyLimits { tokens_per_minute: Some(0), ..Default::default() });
    let negative = Some(v1::KeyLimits { spend_usd_micros_per_minute: Some(-1), ..Default::default() });
    let cases: [(v1::CreateKeyRequest, &[&str]); 9] = [
        (v1::CreateKeyRequest::default(), &["tenant", "scopes"]),
        (v1::CreateKeyRequest { tenant: "x".repeat(100_000), ..read() }, &["tenant"]),
        (v1::CreateKeyRequest { tenant: "two words".to_owned(), ..read() }, &["tenant"]),
        (v1::CreateKeyRequest { name: "x".repeat(100_000), ..read() }, &["name"]),
        (v1::CreateKeyRequest { scopes: vec![3, 99, 0], ..read() }, &["scopes[1]", "scopes[2]"]),
        (v1::CreateKeyRequest { scopes: vec![], ..read() }, &["scopes"]),
        (v1::CreateKeyRequest { expires_at: past, ..read() }, &["expires_at"]),
        (v1::CreateKeyRequest { limits: zero, ..read() }, &["limits.tokens_per_minute"]),
        (v1::CreateKeyRequest { limits: negative, ..read() }, &["limits.spend_usd_micros_per_minute"]),
    ];
    for (asked, expected) in cases {
        let error = daemon.client.create_key(asked).await.unwrap_err();
        assert_eq!(fields(error.fault()), expected);
    }
    let id = |id: &str| v1::RevokeKeyRequest { id: id.to_owned() };
    let error = daemon.client.revoke_key(id(&"x".repeat(10_000))).await.unwrap_err();
    assert_eq!(fields(error.fault()), ["id"]);
    let error = daemon.client.revoke_key(id("0123456789abcdef")).await.unwrap_err();
    assert!(matches!(error, ClientError::NotFound(fault) if fault.reason == "UNKNOWN_KEY"));
    let grace = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let rotate = v1::RotateKeyRequest { id: "0123456789abcdef".to_owned(), grace, expires_at: None };
    assert_eq!(fields(daemon.client.rotate_key(rotate).await.unwrap_err().fault()), ["grace"]);
    let page = v1::ListAuditRequest { page_token: "x".to_owned(), ..Default::default() };
    assert_eq!(fields(daemon.client.list_audit(page).await.unwrap_err().fault()), ["page_token"]);
    let page = v1::ListKeysRequest { page_token: "x".to_owned(), ..Default::default() };
    assert_eq!(fields(daemon.client.list_keys(page).await.unwrap_err().fault()), ["page_token"]);
    let known = Some(v1::AuditHead { sequence: 1, hash: vec![1] });
    let verify = v1::VerifyAuditRequest { known };
    assert_eq!(fields(daemon.client.verify_audit(verify).await.unwrap_err().fault()), ["known.hash"]);
    assert!(daemon.client.list_keys(v1::ListKeysRequest::default()).await.unwrap().keys.is_empty());
    daemon.stop().await;
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what_and_when_it_was_tampered_with() {
    let setup = Setup::with(REQUIRED);
    let admin_text = setup.key("ops", &[Scope::Admin]).await;
    let train_text = setup.key("ops", &[Scope::Train]).await;
    let daemon = setup.start().await;
    let (admin, trainer) = (daemon.client_with(&admin_text).await, daemon.client_with(&train_text).await);
    admin.disable_model(v1::DisableModelRequest { name: "left".to_owned() }).await.unwrap();
    admin.enable_model(v1::EnableModelRequest { name: "left".to_owned() }).await.unwrap();
    admin.remove_model(v1::RemoveModelRequest { name: "right".to_owned() }).await.unwrap();
    admin
        .delete_traces(v1::DeleteTracesRequest { tenant: "gone".to_owned(), ..Default::default() })
        .await
        .unwrap();
    // What is refused is no entry.
    trainer.rollback(v1::RollbackRequest::default()).await.unwrap_err();
    let page = v1::ListAuditRequest { page_size: 3, ..Default::default() };
    let first = admin.list_audit(page.clone()).await.unwrap();
    let actions = |page: &v1::ListAuditResponse| {
        page.entries.iter().map(|entry| (entry.action.clone(), entry.subject.clone())).collect::<Vec<_>>()
    };
    let pair = |action: &str, subject: &str| (action.to_owned(), subject.to_owned());
    assert_eq!(
        actions(&first),
        [pair("traces.deleted", "gone"), pair("model.removed", "right"), pair("model.enabled", "left")]
    );
    let admin_id = &admin_text[3..19];
    assert!(first.entries.iter().all(|entry| entry.actor == admin_id));
    let rest = v1::ListAuditRequest { page_token: first.next_page_token.clone(), ..Default::default() };
    let rest = admin.list_audit(rest).await.unwrap();
    let told = actions(&rest);
    assert_eq!(told[0], pair("model.disabled", "left"));
    assert_eq!(told.iter().filter(|(action, _)| action == "key.created").count(), 2);
    assert!(told.iter().any(|(action, _)| action.starts_with("policy.")) && rest.next_page_token.is_empty());
    let by_operator = rest.entries.iter().filter(|entry| entry.action == "key.created");
    assert!(by_operator.clone().all(|entry| entry.actor == "operator"));
    let sound = admin.verify_audit(v1::VerifyAuditRequest::default()).await.unwrap();
    assert!(sound.sound && sound.breach.is_empty());
    let head = sound.head.unwrap();
    assert_eq!(head.sequence, first.entries[0].sequence);
    // A head that was never there is missed.
    let known = Some(v1::AuditHead { sequence: head.sequence + 1, ..head.clone() });
    let cut = admin.verify_audit(v1::VerifyAuditRequest { known }).await.unwrap();
    assert_eq!((cut.sound, cut.breach_sequence), (false, head.sequence + 1));

    let file = rusqlite::Connection::open(setup.state().join("ledger.db")).unwrap();
    file.busy_timeout(Duration::from_secs(5)).unwrap();
    assert!(file.execute("UPDATE audit_chain SET actor = 'x'", ()).is_err());
    file.execute_batch(
        "DROP TRIGGER audit_chain_is_not_changed; UPDATE audit_chain SET actor = 'x' WHERE seq = 2;",
    )
    .unwrap();
    drop(file);
    let broken = admin.verify_audit(v1::VerifyAuditRequest::default()).await.unwrap();
    assert_eq!((broken.sound, broken.breach_sequence), (false, 2));
    drop((admin, trainer));
    daemon.stop().await;
    let offline = pointsman_daemon::verify::audit(&setup.state()).await.unwrap_err();
    assert_eq!(offline.downcast_ref(), Some(&pointsman_daemon::audit::Breach::Altered { seq: 2 }), "{offline:?}");
}
