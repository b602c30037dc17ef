//! Hindsight: a policy that is asked again about its own decision says what was logged of it, and another
//! one says what it would have drawn.

use std::fmt;

use pointsman_router::hindsight::Hindsight;
use pointsman_router::ids::PolicyVersion;
use pointsman_router::policy::{Ask, Policy, PolicyKind, Scored};
use pointsman_router::request::RouteRequest;

use crate::stand::{Setup, ask, by_name, model, paused};

/// A policy out of a table of name, quality and pick.
struct Table(PolicyVersion, &'static [(&'static str, f64, f64)]);

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table")
    }
}

impl Policy for Table {
    fn version(&self) -> &PolicyVersion {
        &self.0
    }

    fn kind(&self) -> PolicyKind {
        PolicyKind::Bandit
    }

    fn score(&self, ask: &Ask<'_>) -> Scored {
        by_name(self.1)(ask)
    }
}

const MIXED: &[(&str, f64, f64)] = &[("a", 0.8, 0.5), ("b", 0.7, 0.3), ("c", 0.6, 0.2)];
const ALWAYS_C: &[(&str, f64, f64)] = &[("a", 0.8, 0.0), ("b", 0.7, 0.0), ("c", 0.6, 1.0)];

fn table(rows: &'static [(&'static str, f64, f64)]) -> Table {
    Table(PolicyVersion::new("table"), rows)
}

#[test]
fn a_policy_says_of_its_own_decision_what_was_logged() {
    for calls_max in [1, 2, 3] {
        paused(async {
            let stand = Setup::of(["a", "b", "c"].map(|name| model(name, "x"))).policy(by_name(MIXED)).build();
            for n in 0..20 {
                let raw = RouteRequest { calls_max: Some(calls_max), ..ask(&format!("q{n}")) };
                stand.route(raw).await.unwrap();
            }
            for trace in stand.traced() {
                let own = Hindsight::of(&table(MIXED), &trace);
                let decision = &trace.decision;
                assert!((own.propensity - decision.set_propensity).abs() < 1e-12, "{own:?}");
                assert!((own.predicted - decision.predicted_quality).abs() < 1e-12);
                let picks: Vec<f64> = decision.candidates.iter().map(|c| c.pick).collect();
                assert_eq!(own.picks, picks);
                let total: f64 = own.chances.iter().map(|chance| chance.probability).sum();
                assert!((total - 1.0).abs() < 1e-12);
                let other = Hindsight::of(&table(ALWAYS_C), &trace);
                let first = decision.set[0];
                assert!((other.first(2) - 1.0).abs() < 1e-12 && other.chances.len() == 1);
                if calls_max == 1 {
                    assert!((other.propensity - f64::from(u8::from(first == 2))).abs() < 1e-12);
                    assert!((other.value() - 0.6).abs() < 1e-12);
                    assert!((other.cost_nanos() - decision.candidates[2].cost.nanos() as f64).abs() < 1e-9);
                }
            }
        });
    }
}
