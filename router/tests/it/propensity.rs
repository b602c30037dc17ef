//! The logged probabilities are those of the draw.

use std::collections::BTreeMap;

use pointsman_router::decision::Decision;
use pointsman_router::ids::ModelName;
use pointsman_router::request::RouteRequest;
use proptest::prelude::*;

use crate::stand::{Setup, ask, by_name, listed, model, paused};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// What every decision must show.
fn coherent(decision: &Decision) {
    let sum = |of: fn(&pointsman_router::decision::Candidate) -> f64| -> f64 {
        decision.candidates.iter().map(of).sum()
    };
    assert!((sum(|c| c.pick) - 1.0).abs() < 1e-9, "{decision:#?}");
    assert!(!decision.set.is_empty() && decision.set.len() <= decision.calls_max as usize);
    assert!(decision.set_propensity > 0.0 && decision.set_propensity <= 1.0 + 1e-9, "{decision:#?}");
    assert!((0.0..=1.0).contains(&decision.predicted_quality));
    for (i, candidate) in decision.candidates.iter().enumerate() {
        assert_eq!(candidate.chosen, decision.set.contains(&i));
        assert_eq!(decision.set.iter().filter(|at| **at == i).count(), usize::from(candidate.chosen));
        assert!(candidate.inclusion >= candidate.pick - 1e-12 && candidate.inclusion <= 1.0 + 1e-9);
        if candidate.chosen {
            assert!(candidate.ineligible.is_none());
            assert!(candidate.inclusion >= decision.set_propensity - 1e-12);
        }
    }
    // Somebody is picked first, so the expected size of the set is at least one and at most the limit.
    let size = sum(|c| c.inclusion);
    assert!(size >= 1.0 - 1e-9 && size <= f64::from(decision.calls_max) + 1e-9);
}

/// Draws `n` decisions and compares how often each set and each member came with what was logged.
fn check(table: &[(&str, f64, f64)], calls: u32, distinct_sets: usize) {
    const N: usize = 4_000;
    let (mut sets, mut members) = (BTreeMap::new(), BTreeMap::<ModelName, (usize, f64)>::new());
    paused(async {
        let stand = Setup::of(table.iter().map(|(name, ..)| model(name, "x"))).policy(by_name(table)).build();
        for _ in 0..N {
            let trace = stand.decide(RouteRequest { calls_max: Some(calls), ..ask("q") }).await.unwrap();
            let decision = &trace.decision;
            coherent(decision);
            let mut names: Vec<ModelName> = decision.chosen().map(|c| c.model.clone()).collect();
            names.sort();
            let (count, propensity) = sets.entry(names).or_insert((0, decision.set_propensity));
            *count += 1;
            assert!((*propensity - decision.set_propensity).abs() < 1e-12, "one set, one propensity");
            for candidate in &decision.candidates {
                let (count, inclusion) =
                    members.entry(candidate.model.clone()).or_insert((0, candidate.inclusion));
                *count += usize::from(candidate.chosen);
                assert!((*inclusion - candidate.inclusion).abs() < 1e-12);
            }
        }
    });
    assert_eq!(sets.len(), distinct_sets, "{sets:?}");
    let n = N as f64;
    let within =
        |count: usize, p: f64| (count as f64 - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).max(0.0).sqrt() + 1e-6;
    assert!(sets.values().all(|(count, p)| within(*count, *p)), "{sets:?}");
    assert!(members.values().all(|(count, p)| within(*count, *p)), "{members:?}");
    let total: f64 = sets.values().map(|(_, p)| p).sum();
    assert!((total - 1.0).abs() < 1e-9, "sets that were never drawn: {total}");
}

#[test]
fn one_call_is_drawn_as_logged() {
    check(&[("a", 0.5, 1.0), ("b", 0.6, 2.0), ("c", 0.7, 5.0), ("d", 0.9, 0.0)], 1, 3);
    check(&[("a", 0.5, 1.0)], 1, 1);
}

#[test]
fn sets_are_drawn_as_logged() {
    // From `e` or `f` the set is completed by the best two; any of those three leads to the same set.
    let table = [("a", 0.8, 1.0), ("b", 0.8, 2.0), ("c", 0.8, 3.0), ("e", 0.6, 2.0), ("f", 0.6, 2.0)];
    check(&table, 3, 3);
    check(&table[..3], 3, 1);
}

#[test]
fn a_listed_set_has_probability_one() {
    paused(async {
        let stand = Setup::of(NAMES.map(|name| model(name, "x"))).policy(listed(&["d", "b"])).build();
        for _ in 0..50 {
            let trace = stand.decide(RouteRequest { calls_max: Some(3), ..ask("q") }).await.unwrap();
            coherent(&trace.decision);
            let inclusion: Vec<f64> = trace.decision.candidates.iter().map(|c| c.inclusion).collect();
            assert_eq!(inclusion, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
        }
    });
}

#[test]
fn a_seed_repeats_its_decision() {
    let run = || {
        paused(async {
            let stand = Setup::of(NAMES.map(|name| model(name, "x"))).build();
            let mut sets = Vec::new();
            for _ in 0..20 {
                sets.push(
                    stand.decide(RouteRequest { calls_max: Some(3), ..ask("q") }).await.unwrap().decision.clone(),
                );
            }
            sets
        })
    };
    assert_eq!(run(), run());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_decision_is_coherent(
        models in prop::collection::vec((0.0..1.0_f64, 0.01..1.0_f64, 0..500_i64), 1..7),
        calls in 1..=8_u32,
        left in prop::option::of(500..3_000_i64),
        denied in prop::collection::vec(any::<bool>(), 6),
    ) {
        paused(async {
            let table: Vec<(&str, f64, f64)> =
                models.iter().zip(NAMES).map(|((q, p, _), name)| (name, *q, *p)).collect();
            let mut setup = Setup::of(models.iter().zip(NAMES).map(|((_, _, max), name)| model(name, "x").costs(*max)));
            setup.left = left;
            let stand = setup.policy(by_name(&table)).build();
            let models_denied: Vec<String> =
                NAMES.iter().take(models.len()).zip(&denied).skip(1).filter(|(_, d)| **d).map(|(n, _)| (*n).into()).collect();
            for _ in 0..5 {
                let raw = RouteRequest { calls_max: Some(calls), models_denied: models_denied.clone(), ..ask("q") };
                let trace = stand.decide(raw).await.unwrap();
                coherent(&trace.decision);
            }
            stand.audit();
        });
    }
}
