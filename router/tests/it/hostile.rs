//! Policies that break their word, and sizes at the edge: no panic, no ineligible model, no lie in the
//! log.

use std::sync::atomic::Ordering;

use pointsman_router::model::Pricing;
use pointsman_router::money::{NanoUsd, Price};
use pointsman_router::policy::{Completion, Estimate, Scored};
use pointsman_router::request::{KindName, RouteRequest};
use pointsman_router::trace::TraceStatus;
use proptest::prelude::*;

use crate::stand::{Setup, ask, even, model, ms, paused, says};

const WEIRD: [f64; 9] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 0.5, 1.0, 2.0, f64::MAX];

fn weird() -> impl Strategy<Value = f64> {
    prop::sample::select(WEIRD.to_vec())
}

fn estimate() -> impl Strategy<Value = Estimate> {
    (weird(), weird(), weird()).prop_map(|(quality, utility, pick)| Estimate { quality, utility, pick })
}

fn completion() -> impl Strategy<Value = Completion> {
    prop_oneof![Just(Completion::Greedy), prop::collection::vec(0..9_usize, 0..12).prop_map(Completion::Listed)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_policy_may_say_anything(
        estimates in prop::collection::vec(estimate(), 0..8),
        completion in completion(),
        calls in 1..=8_u32,
        threshold in prop::option::of(0.1..1.0_f64),
        cost_weight in prop::option::of(prop_oneof![Just(f64::INFINITY), Just(f64::NAN), Just(1e6)]),
        max in prop::sample::select(vec![0_i64, 100, i64::MAX]),
    ) {
        paused(async {
            let scored = Scored { estimates, completion, note: None };
            let mut setup = Setup::of(["a", "b", "c", "d", "e"].map(|name| model(name, "7").costs(max).always(says("7", 0))));
            setup.settings.cost_weight_per_usd = cost_weight;
            let stand = setup.policy(move |_| scored.clone()).build();
            let raw = RouteRequest {
                kind: KindName::Number,
                calls_max: Some(calls),
                quality_threshold: threshold,
                models_denied: vec!["b".into()],
                ..ask("q")
            };
            let trace = stand.route(raw).await.unwrap();
            let decision = &trace.decision;
            prop_assert_eq!(trace.status, TraceStatus::Answered);
            prop_assert!(!decision.set.is_empty() && decision.set.len() <= calls as usize);
            prop_assert!(decision.chosen().all(|c| c.ineligible.is_none() && c.chosen && c.model.as_str() != "b"));
            let picks: f64 = decision.candidates.iter().map(|c| c.pick).sum();
            prop_assert!((picks - 1.0).abs() < 1e-9, "{:?}", decision);
            prop_assert!(decision.set_propensity > 0.0 && decision.set_propensity <= 1.0 + 1e-9);
            let calm = |c: &pointsman_router::decision::Candidate| {
                (0.0..=1.0).contains(&c.quality) && c.utility.is_finite() && (0.0..=1.0 + 1e-9).contains(&c.inclusion)
            };
            prop_assert!(decision.candidates.iter().all(calm), "{:?}", decision);
            prop_assert!((0.0..=1.0).contains(&decision.predicted_quality));
            prop_assert!((0.0..=1.0).contains(&trace.answer.as_ref().unwrap().confidence));
            let mut set = decision.set.clone();
            set.sort_unstable();
            set.dedup();
            prop_assert_eq!(set.len(), decision.set.len());
            prop_assert_eq!(stand.calls().len(), set.len());
            stand.audit();
            Ok(())
        })?;
    }
}

#[test]
fn a_pool_at_its_limit_is_decided_by_one_question() {
    paused(async {
        let stand = Setup::of((0..256).map(|i| model(&format!("m{i:03}"), "x"))).policy(|ask| {
            let mut scored = even(ask);
            for (i, estimate) in scored.estimates.iter_mut().enumerate() {
                estimate.quality = 0.5 + (i * 37 % 256) as f64 / 600.0;
            }
            scored
        });
        let stand = stand.build();
        let trace = stand.decide(RouteRequest { calls_max: Some(8), ..ask("q") }).await.unwrap();
        assert_eq!(stand.policy.asked.load(Ordering::Relaxed), 1);
        assert_eq!(trace.decision.candidates.len(), 256);
        let size: f64 = trace.decision.candidates.iter().map(|c| c.inclusion).sum();
        assert!((1.0..=8.0 + 1e-9).contains(&size));
    });
}

#[test]
fn prompts_of_any_script_and_size_are_routed_within_their_hold() {
    let price = Price {
        input_per_million_tokens: NanoUsd::new(1_000_000_000),
        output_per_million_tokens: NanoUsd::new(1_000_000_000),
        per_call: NanoUsd::new(7),
    };
    for prompt in ["🚂".repeat(200_000), "\u{0}".into(), "ﬁ\u{202e}e\u{301}".into(), "a\n".repeat(500_000)] {
        paused(async {
            let spec = model("a", "🚂").always(says("🚂\u{0}", 1));
            let mut setup = Setup::of([spec]).budget(i64::MAX / 2);
            setup.models[0].pricing = Pricing::PerToken(price);
            setup.models[0].context_tokens_max = u32::MAX;
            let stand = setup.build();
            let trace = stand.route(ask(&prompt)).await.unwrap();
            assert!(
                trace.bill.spent() <= trace.hold.as_ref().unwrap().amount && trace.bill.settled > NanoUsd::ZERO
            );
            assert!(trace.hold.as_ref().unwrap().amount.nanos() >= 1_000 * prompt.len() as i64);
            stand.audit();
        });
    }
}

#[test]
fn a_price_beyond_money_is_denied_by_any_budget() {
    let price = Price {
        input_per_million_tokens: NanoUsd::MAX,
        output_per_million_tokens: NanoUsd::MAX,
        per_call: NanoUsd::MAX,
    };
    paused(async {
        let mut setup = Setup::of([model("a", "x"), model("b", "x")]).budget(1_000);
        setup.models[0].pricing = Pricing::PerToken(price);
        let stand = setup.build();
        let trace = stand.route(RouteRequest { calls_max: Some(8), ..ask("q") }).await.unwrap();
        assert_eq!(trace.decision.chosen().map(|c| c.model.as_str()).collect::<Vec<_>>(), ["b"]);
        stand.audit();
    });
}

#[test]
fn deadlines_beyond_time_are_deadlines() {
    for deadline in [std::time::Duration::MAX, ms(u64::MAX), std::time::Duration::from_nanos(1)] {
        paused(async {
            let stand = Setup::of([model("a", "x")]).build();
            let ended = stand.route(RouteRequest { deadline: Some(deadline), ..ask("q") }).await;
            assert_eq!(ended.is_ok(), deadline > ms(1));
            stand.audit();
        });
    }
}
