//! Who may be called, and the two masks that give way where they would leave nobody.

use std::time::Duration;

use pointsman_router::decision::Ineligible;
use pointsman_router::model::Availability;
use pointsman_router::request::RouteRequest;

use crate::stand::{Setup, Spec, ask, listed, model, ms, paused};

type Reasons = [(&'static str, Option<Ineligible>)];

fn check(models: Vec<Spec>, raw: RouteRequest, expected: &Reasons) {
    paused(async {
        let stand = Setup::of(models).build();
        let trace = stand.decide(raw).await.unwrap();
        let reasons: Vec<_> = trace.decision.candidates.iter().map(|c| (c.model.as_str(), c.ineligible)).collect();
        assert_eq!(reasons, expected);
        for candidate in trace.decision.candidates.iter().filter(|c| c.ineligible.is_some()) {
            let said = [candidate.quality, candidate.utility, candidate.pick, candidate.inclusion];
            assert!(said.iter().all(|x| *x == 0.0) && !candidate.chosen, "{candidate:?}");
        }
        stand.audit();
    });
}

fn open(name: &str) -> Spec {
    Spec { breaker_open: true, ..model(name, "x") }
}

fn seen(name: &str, latency: Duration) -> Spec {
    Spec { seen: Some(latency), ..model(name, "x") }
}

fn within(deadline: Duration) -> RouteRequest {
    RouteRequest { deadline: Some(deadline), ..ask("q") }
}

#[test]
fn each_mask_has_its_reason() {
    let reason = "no key".to_owned();
    let models = vec![
        Spec { availability: Availability::Disabled, ..model("a", "x") },
        Spec { availability: Availability::Unavailable { reason }, ..model("b", "x") },
        model("c", "x"),
        open("d"),
        model("e", "x").costs(2_000),
        seen("f", ms(900)),
        Spec { context_tokens_max: 1, ..model("g", "x") },
        Spec { covers: false, ..model("h", "x") },
        model("i", "x"),
    ];
    let raw = RouteRequest {
        models_denied: vec!["c".into()],
        max_cost_usd_micros: Some(1),
        ..RouteRequest { deadline: Some(ms(500)), ..ask("a question of some length") }
    };
    let expected = [
        ("a", Some(Ineligible::Disabled)),
        ("b", Some(Ineligible::Unavailable)),
        ("c", Some(Ineligible::NotAllowed)),
        ("d", Some(Ineligible::BreakerOpen)),
        ("e", Some(Ineligible::TooDear)),
        ("f", Some(Ineligible::TooSlow)),
        ("g", Some(Ineligible::TooLong)),
        ("h", Some(Ineligible::NotCovered)),
        ("i", None),
    ];
    check(models, raw, &expected);
    let raw = RouteRequest { models_allowed: vec!["b".into()], ..ask("q") };
    check(vec![model("a", "x"), model("b", "x")], raw, &[("a", Some(Ineligible::NotAllowed)), ("b", None)]);
}

#[test]
fn open_breakers_give_way_where_nobody_else_could_serve() {
    check(vec![open("a"), model("b", "x")], ask("q"), &[("a", Some(Ineligible::BreakerOpen)), ("b", None)]);
    check(vec![open("a"), open("b")], ask("q"), &[("a", None), ("b", None)]);
    let raw = RouteRequest { models_denied: vec!["b".into()], ..ask("q") };
    check(vec![open("a"), model("b", "x")], raw, &[("a", None), ("b", Some(Ineligible::NotAllowed))]);
    let raw = RouteRequest { max_cost_usd_micros: Some(1), ..ask("q") };
    let models = vec![open("a").costs(5_000), open("b")];
    check(models, raw, &[("a", Some(Ineligible::TooDear)), ("b", None)]);
}

#[test]
fn the_fastest_serves_where_all_are_too_slow() {
    let slow = [("a", Some(Ineligible::TooSlow)), ("b", None), ("c", Some(Ineligible::TooSlow))];
    check(vec![seen("a", ms(900)), seen("b", ms(600)), seen("c", ms(800))], within(ms(200)), &slow);
    // A model that was never called is not known to be slow.
    let models = vec![seen("a", ms(900)), model("b", "x"), seen("c", ms(800))];
    check(models, within(ms(200)), &slow);
}

#[test]
fn an_open_breaker_does_not_hide_that_a_model_is_too_slow() {
    let slow_and_open = |name, latency| Spec { seen: Some(latency), ..open(name) };
    // Of two open ones the one that fits the deadline may be tried.
    let models = vec![slow_and_open("a", ms(900)), open("b")];
    check(models, within(ms(200)), &[("a", Some(Ineligible::TooSlow)), ("b", None)]);
    // Among the too slow, one that works comes before a faster one that does not.
    let models = vec![slow_and_open("a", ms(600)), seen("b", ms(900))];
    check(models, within(ms(200)), &[("a", Some(Ineligible::TooSlow)), ("b", None)]);
    let models = vec![slow_and_open("a", ms(600)), slow_and_open("b", ms(900))];
    check(models, within(ms(200)), &[("a", None), ("b", Some(Ineligible::TooSlow))]);
}

#[test]
fn forced_models_are_really_called() {
    paused(async {
        let stand = Setup::of([open("a"), open("b")]).build();
        let trace = stand.route(RouteRequest { calls_max: Some(2), ..ask("q") }).await.unwrap();
        assert_eq!(trace.attempts.len(), trace.decision.set.len());
        stand.audit();
    });
}

#[test]
fn a_listed_set_follows_its_order() {
    for (calls, denied, expected) in
        [(3, "", vec!["c", "a", "b"]), (2, "", vec!["c", "a"]), (8, "c", vec!["a", "b"]), (1, "", vec!["c"])]
    {
        paused(async {
            let stand = Setup::of(["a", "b", "c", "d"].map(|name| model(name, "x")))
                .policy(listed(&["c", "a", "b"]))
                .build();
            let models_denied = if denied.is_empty() { Vec::new() } else { vec![denied.to_owned()] };
            let trace =
                stand.decide(RouteRequest { calls_max: Some(calls), models_denied, ..ask("q") }).await.unwrap();
            let set: Vec<_> = trace.decision.chosen().map(|c| c.model.as_str().to_owned()).collect();
            assert_eq!(set, expected);
            assert!((trace.decision.set_propensity - 1.0).abs() < 1e-12);
        });
    }
}
