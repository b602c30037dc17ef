//! Who decides: promotion, its refusals, rollback, canary and shadow; and that a restart keeps it all.

use pointsman_client::{Client, ClientError, v1};

use crate::harness::{Running, Setup};

/// Rules that know one model; the bandit learns beside them.
const RULES: &str = "[policy]\nkind = \"rules\"\ndefault = [\"left\"]";

async fn policies(client: &Client) -> Vec<v1::Policy> {
    client.list_policies(v1::ListPoliciesRequest {}).await.unwrap().policies
}

/// The version of a kind.
async fn version(daemon: &Running, kind: v1::PolicyKind) -> String {
    policies(&daemon.client).await.into_iter().find(|p| p.kind() == kind).unwrap().version
}

/// The states of the rules and of the bandit.
async fn states(daemon: &Running) -> (v1::PolicyState, v1::PolicyState) {
    let all = policies(&daemon.client).await;
    let of = |kind| all.iter().find(|p| p.kind() == kind).unwrap().state();
    (of(v1::PolicyKind::Rules), of(v1::PolicyKind::Bandit))
}

fn promote(version: &str, share: Option<f64>, force: bool) -> v1::PromoteRequest {
    v1::PromoteRequest { version: version.to_owned(), share, force, reason: "a test".to_owned() }
}

/// Which policy decided a request.
async fn decider(daemon: &Running) -> String {
    let reply = daemon.route("the jury", &["left", "right"]).await.unwrap();
    let version = reply.decision.map(|d| d.policy_version).filter(|version| !version.is_empty());
    match version {
        Some(version) => version,
        None => daemon.trace(&reply.decision_id).await.decision.unwrap().policy_version,
    }
}

fn reason(error: &ClientError) -> String {
    format!("{error:?}")
}

#[tokio::test]
async fn a_promoted_policy_decides_the_next_request_and_a_rollback_the_one_after() {
    let setup = Setup::with(RULES);
    let daemon = setup.start().await;
    let (rules, bandit) =
        (version(&daemon, v1::PolicyKind::Rules).await, version(&daemon, v1::PolicyKind::Bandit).await);
    assert_eq!(decider(&daemon).await, rules);
    let refused = daemon.client.promote(promote(&bandit, None, false)).await.unwrap_err();
    assert!(reason(&refused).contains("UNEVALUATED"), "{refused:?}");
    let refused = daemon.client.promote(promote("nobody", None, true)).await.unwrap_err();
    assert!(reason(&refused).contains("UNKNOWN_POLICY"), "{refused:?}");
    let refused = daemon.client.promote(promote(&bandit, Some(1.5), true)).await.unwrap_err();
    assert!(reason(&refused).contains("share"), "{refused:?}");
    let refused = daemon.client.rollback(v1::RollbackRequest::default()).await.unwrap_err();
    assert!(reason(&refused).contains("NO_PREDECESSOR"), "{refused:?}");

    let promoted = daemon.client.promote(promote(&bandit, None, true)).await.unwrap();
    let policy = promoted.policy.unwrap();
    assert_eq!((policy.state(), policy.predecessor), (v1::PolicyState::Running, rules.clone()));
    assert_eq!(decider(&daemon).await, bandit);
    let refused = daemon.client.promote(promote(&bandit, None, true)).await.unwrap_err();
    assert!(reason(&refused).contains("ALREADY_RUNNING"), "{refused:?}");
    daemon.stop().await;

    let daemon = setup.start().await;
    assert_eq!(decider(&daemon).await, bandit, "a restart keeps what was promoted");
    assert_eq!(states(&daemon).await, (v1::PolicyState::Retired, v1::PolicyState::Running));
    let id = daemon.route("the clause", &["left", "right"]).await.unwrap().decision_id;
    daemon.judge(&id, true).await.unwrap();
    let back = daemon.client.rollback(v1::RollbackRequest::default()).await.unwrap();
    assert_eq!((back.policy.unwrap().version, back.rolled_back.unwrap().version), (rules.clone(), bandit));
    assert_eq!(decider(&daemon).await, rules);
    daemon.stop().await;
    let daemon = setup.start().await;
    assert_eq!(decider(&daemon).await, rules, "a restart keeps a rollback");
    daemon.stop().await;
}

#[tokio::test]
async fn a_canary_decides_its_share_and_each_decision_names_who_made_it() {
    let setup = Setup::with(RULES);
    let daemon = setup.start().await;
    let bandit = version(&daemon, v1::PolicyKind::Bandit).await;
    let canary = daemon.client.promote(promote(&bandit, Some(0.5), true)).await.unwrap().canary.unwrap();
    assert_eq!((canary.share, canary.verdict()), (0.5, v1::CanaryVerdict::Undecided));
    assert_eq!(states(&daemon).await, (v1::PolicyState::Running, v1::PolicyState::Canary));
    let mut deciders = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..40 {
        *deciders.entry(decider(&daemon).await).or_default() += 1;
    }
    assert!(deciders.len() == 2 && deciders.values().all(|n| *n >= 5), "{deciders:?}");
    daemon.stop().await;
    let daemon = setup.start().await;
    assert_eq!(states(&daemon).await, (v1::PolicyState::Running, v1::PolicyState::Canary));
    let back = daemon.client.rollback(v1::RollbackRequest::default()).await.unwrap();
    assert_eq!(back.rolled_back.unwrap().version, bandit);
    let last = daemon.client.get_report(v1::GetReportRequest::default()).await.unwrap().canary.unwrap();
    assert_eq!((last.verdict(), last.version.as_str()), (v1::CanaryVerdict::Stopped, bandit.as_str()));
    assert!(last.ended_at.is_some());
    assert_eq!(states(&daemon).await, (v1::PolicyState::Running, v1::PolicyState::Candidate));
    for _ in 0..10 {
        assert_ne!(decider(&daemon).await, bandit);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_shadow_calls_nobody_and_is_gone_when_it_is_cleared() {
    let daemon = Setup::with(RULES).start().await;
    let (rules, bandit) =
        (version(&daemon, v1::PolicyKind::Rules).await, version(&daemon, v1::PolicyKind::Bandit).await);
    let shadow = |version: &str| v1::SetShadowRequest { version: version.to_owned() };
    let refused = daemon.client.set_shadow(shadow(&rules)).await.unwrap_err();
    assert!(reason(&refused).contains("ALREADY_RUNNING"), "{refused:?}");
    let set = daemon.client.set_shadow(shadow(&bandit)).await.unwrap().policy.unwrap();
    assert_eq!(set.state(), v1::PolicyState::Shadow);
    for n in 0..10 {
        let reply = daemon.route(&format!("the clause {n}"), &["left", "right"]).await.unwrap();
        daemon.judge(&reply.decision_id, true).await.unwrap();
    }
    assert_eq!((daemon.stats("left").await.calls, daemon.stats("right").await.calls), (10, 0));
    let report = daemon.client.get_report(v1::GetReportRequest::default()).await.unwrap();
    let beside = report.shadow.unwrap();
    assert_eq!((beside.version.as_str(), beside.rows, beside.judged_rows), (bandit.as_str(), 10, 10));
    assert!((0.0..=1.0).contains(&beside.agreement_share) && beside.doubly_robust.is_some());
    let live = report.live.unwrap();
    assert_eq!((live.rows, live.judged_rows, live.value.unwrap().value), (10, 10, 1.0));
    assert!(live.cost_usd_nanos > 0 && report.running.unwrap().version == rules);
    let done: Vec<_> = report.audit.iter().map(|entry| (entry.action(), entry.actor.as_str())).collect();
    assert_eq!(done, [(v1::PolicyAction::ShadowSet, "keyless"), (v1::PolicyAction::Promoted, "config")]);
    assert!(daemon.client.set_shadow(shadow("")).await.unwrap().policy.is_none());
    assert_eq!(states(&daemon).await, (v1::PolicyState::Running, v1::PolicyState::Candidate));
    daemon.stop().await;
}
