use super::*;
use crate::learning::Opening;
use crate::learning::changes::tests::{Court, cold, even};
use crate::store::ledger::{LedgerStore, PolicyAction};

fn large_is_right(model: &str) -> f64 {
    f64::from(u8::from(model == "large"))
}

/// The share of requests that begin with `large`.
fn share_of_large(court: &mut Court) -> f64 {
    let picked = (0..1_000).filter(|_| court.decide().1 == "large").count();
    picked as f64 / 1_000.0
}

#[tokio::test(start_paused = true)]
async fn the_best_single_model_stands_in_for_a_policy_that_picks_evenly() {
    let mut court = Court::open(tempfile::tempdir().unwrap(), Opening::of(even()), 0).await;
    court.serve_at_once(1_990, large_is_right).await;
    let before = court.report().await.fallback.unwrap();
    assert!(!before.active && before.model == Some("large".into()), "{before:?}");
    let difference = before.difference.unwrap();
    assert!((difference.value + 0.5).abs() < 0.05, "{difference:?}");
    court.serve_at_once(20, large_is_right).await;
    let begun = court.report().await;
    assert_eq!(begun.roles.stands_in.as_ref().map(|s| s.model.as_str()), Some("large"));
    assert!(begun.fallback.unwrap().active);
    let entries = court.ledger.audit_log(1).await.unwrap();
    assert_eq!((entries[0].action, entries[0].actor.as_str()), (PolicyAction::FallbackBegan, "fallback"));
    assert_eq!(entries[0].to, even().version());
    // The policy keeps a tenth, of which it gives half to `large`.
    assert!((share_of_large(&mut court) - 0.95).abs() < 0.03);
    // It stands in after a restart too, until the configuration wants nobody to.
    let mut court = court.restart(Opening::of(even())).await;
    assert!((share_of_large(&mut court) - 0.95).abs() < 0.03);
    let mut court = court.restart(Opening { may_fall_back: false, ..Opening::of(even()) }).await;
    let report = court.report().await;
    assert_eq!((report.roles.stands_in, report.fallback), (None, None));
    assert_eq!(court.log().await[0], (PolicyAction::FallbackEnded, "config".to_owned()));
    assert!((share_of_large(&mut court) - 0.5).abs() < 0.06);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_better_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let court = Court::open(folder, Opening::of(cold()), 0).await;
    let roles = court.report().await.roles;
    let small = StandIn { model: "small".into(), since: roles.running_since };
    stand(&court.ledger, Lifecycle { stands_in: Some(small), ..roles }).await;
    let mut court = court.restart(Opening::of(cold())).await;
    // Verdicts on these answers say nothing of models, so the policy stays as it is: better than `small`, which is
    // always wrong, and only its own tenth can tell so.
    court.serve_at_once(400, large_is_right).await;
    assert!(share_of_large(&mut court) < 0.2);
    court.serve_at_once(1_100, large_is_right).await;
    assert_eq!(court.report().await.roles.stands_in, None);
    assert_eq!(court.log().await[0], (PolicyAction::FallbackEnded, "fallback".to_owned()));
    assert!((share_of_large(&mut court) - 0.5).abs() < 0.06);
}

async fn stand(ledger: &LedgerStore, roles: Lifecycle) {
    ledger.change_policies(roles, Vec::new(), Vec::new()).await.unwrap();
}
