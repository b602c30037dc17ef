//! Money decides who may be called, holds the worst case and is never spent twice.

use pointsman_router::forecast::Leans;
use pointsman_router::money::NanoUsd;
use pointsman_router::pipeline::{ErrorKind, Metering};
use pointsman_router::request::RouteRequest;
use pointsman_router::trace::TraceStatus;

use crate::stand::{Entry, Setup, Spec, Stand, ask, by_name, fails, model, ms, paused, says};
use pointsman_router::backend::CallError;

fn cheap_and_dear() -> Setup {
    Setup::of([model("cheap", "x").costs(100), model("dear", "x").costs(1_000)])
        .policy(by_name(&[("cheap", 0.6, 0.0), ("dear", 0.9, 1.0)]))
}

fn chosen(stand: &Stand) -> Vec<String> {
    let trace = stand.traced().pop().unwrap();
    trace.decision.chosen().map(|c| c.model.as_str().to_owned()).collect()
}

#[test]
fn what_fits_only_the_cheaper_model_gives_the_cheaper_one() {
    paused(async {
        let stand = cheap_and_dear().budget(1_000).build();
        stand.route(ask("q")).await.unwrap();
        assert_eq!(chosen(&stand), ["dear"]);
        // Its call cost 50.
        assert_eq!(stand.left(), Some(950));
        stand.route(ask("q")).await.unwrap();
        assert_eq!(chosen(&stand), ["cheap"]);
        stand.audit();
    });
}

#[test]
fn the_requests_own_cap_gives_the_cheaper_one() {
    paused(async {
        let stand = Setup::of([model("cheap", "x").costs(1_000), model("dear", "x").costs(1_001)])
            .policy(by_name(&[("cheap", 0.6, 0.0), ("dear", 0.9, 1.0)]))
            .build();
        stand.route(RouteRequest { max_cost_usd_micros: Some(1), ..ask("q") }).await.unwrap();
        assert_eq!(chosen(&stand), ["cheap"]);
        stand.audit();
    });
}

#[test]
fn the_whole_set_fits_under_the_ceiling() {
    for (left, size) in [(100, 1), (299, 1), (300, 3), (1_000, 3)] {
        paused(async {
            let stand = Setup::of(["a", "b", "c"].map(|name| model(name, "x"))).budget(left).build();
            let trace = stand.route(RouteRequest { calls_max: Some(8), ..ask("q") }).await.unwrap();
            assert_eq!(
                (trace.decision.set.len(), trace.hold.as_ref().unwrap().amount.nanos()),
                (size, 100 * size as i64)
            );
            stand.audit();
        });
    }
}

/// A policy may say that a request is dearer or cheaper than others of its size. What is expected follows, within a
/// factor of four and never above the card; what is held, and whom a ceiling lets in, does not.
#[test]
fn a_lean_moves_what_is_expected_and_never_what_is_held() {
    let told = |shift: f64, max_cost_usd_micros| {
        paused(async {
            let spec = Spec { spent: Some(200), seen: Some(ms(40)), ..model("a", "x").costs(1_000) };
            let leans = Leans { tokens_out: shift, cost: shift, latency: shift };
            let stand = Setup { leans, ..Setup::of([spec]).budget(1_000) }.build();
            let trace = stand.route(RouteRequest { max_cost_usd_micros, ..ask("q") }).await.unwrap();
            let of = trace.decision.candidate("a").unwrap();
            let latency = of.latency_p95.unwrap().as_secs_f64();
            stand.audit();
            (of.cost.nanos() as f64, latency, of.worst_case, trace.hold.as_ref().unwrap().amount)
        })
    };
    let even = told(0.0, None);
    assert_eq!((even.2, even.3), (NanoUsd::new(1_000), NanoUsd::new(1_000)));
    for (shift, factor) in [(0.5, 0.5_f64.exp()), (-0.7, (-0.7_f64).exp()), (-30.0, 0.25), (f64::NAN, 1.0)] {
        let leaning = told(shift, Some(1));
        let wanted = (even.0 * factor, even.1 * factor);
        assert!(
            (leaning.0 - wanted.0).abs() <= 2.0 && (leaning.1 / wanted.1 - 1.0).abs() < 1e-3,
            "{shift} {leaning:?}"
        );
        assert_eq!((leaning.2, leaning.3), (even.2, even.3));
    }
    assert!(told(30.0, None).0 <= 1_000.0);
}

#[test]
fn retries_are_part_of_the_hold() {
    for (attempts_max, held) in [(0, 100), (1, 100), (2, 200), (3, 300)] {
        paused(async {
            let lost = fails(CallError::Unavailable { detail: "down".into(), billable: true });
            let mut setup = Setup::of([model("a", "x").always(lost)]).budget(1_000);
            setup.settings.attempts_max = attempts_max;
            let stand = setup.build();
            assert_eq!(stand.route(ask("q")).await.unwrap_err().kind(), ErrorKind::ModelsFailed);
            let trace = stand.traced().pop().unwrap();
            assert_eq!(trace.hold.as_ref().unwrap().amount, NanoUsd::new(held));
            assert_eq!((trace.bill.unknown, trace.bill.settled), (NanoUsd::new(held), NanoUsd::ZERO));
            stand.audit();
        });
    }
}

#[test]
fn a_lost_race_decides_once_more_under_the_lower_ceiling() {
    paused(async {
        let stand = Setup::of([model("cheap", "x").costs(100), model("dear", "x").costs(1_000)])
            .policy(by_name(&[("cheap", 0.6, 1.0), ("dear", 0.9, 999.0)]))
            .budget(1_000)
            .build();
        stand.ledger.0.lock().unwrap().stolen_next = 800;
        let trace = stand.route(ask("q")).await.unwrap();
        assert_eq!(chosen(&stand), ["cheap"]);
        let [cheap, dear] = trace.decision.candidates.as_slice() else { panic!("{trace:?}") };
        assert_eq!((cheap.pick, cheap.inclusion, trace.decision.set_propensity), (1.0, 1.0, 1.0));
        assert_eq!((dear.pick, dear.inclusion), (0.0, 0.0));
        assert_eq!(stand.log().first(), Some(&Entry::Denied(NanoUsd::new(1_000))));
        stand.audit();
    });
}

#[test]
fn a_race_lost_twice_ends() {
    paused(async {
        let stand = cheap_and_dear().budget(1_000).build();
        stand.ledger.0.lock().unwrap().stolen_next = 990;
        assert_eq!(stand.route(ask("q")).await.unwrap_err().kind(), ErrorKind::NoMoney);
        stand.audit_untouched();
    });
}

/// Somebody settles between the question what is left and the refusal.
#[test]
fn money_that_comes_free_meanwhile_is_used() {
    paused(async {
        let stand = cheap_and_dear().budget(0).build();
        stand.ledger.0.lock().unwrap().stolen_next = -500;
        stand.route(ask("q")).await.unwrap();
        assert_eq!((chosen(&stand), stand.left()), (vec!["cheap".to_owned()], Some(450)));
        stand.audit();
    });
}

#[test]
fn more_than_was_held_is_booked_and_denies_what_comes_next() {
    paused(async {
        let stand = Setup::of([model("a", "x").always(says("x", 250))]).budget(100).build();
        let trace = stand.route(ask("q")).await.unwrap();
        let hold = trace.hold.as_ref().unwrap();
        assert_eq!((trace.bill.settled, trace.bill.overrun(hold.amount)), (NanoUsd::new(250), NanoUsd::new(150)));
        assert_eq!(stand.left(), Some(-150));
        stand.audit();
        assert_eq!(stand.route(ask("q")).await.unwrap_err().kind(), ErrorKind::NoMoney);
        assert_eq!(stand.calls().len(), 1);
        stand.audit();
    });
}

#[test]
fn what_costs_nothing_passes_even_where_the_budget_overran() {
    paused(async {
        let models = [model("a", "x").always(says("x", 250)), model("free", "x").costs(0).always(says("x", 0))];
        let stand = Setup::of(models).budget(100).build();
        stand.route(RouteRequest { models_allowed: vec!["a".into()], ..ask("q") }).await.unwrap();
        assert_eq!(stand.left(), Some(-150));
        stand.route(ask("q")).await.unwrap();
        assert_eq!(chosen(&stand), vec!["free".to_owned()]);
        stand.audit();
    });
}

#[test]
fn what_costs_nothing_needs_no_money() {
    paused(async {
        let stand =
            Setup::of([model("free", "x").costs(0).always(says("x", 0)), model("dear", "x")]).budget(0).build();
        let raw = RouteRequest { max_cost_usd_micros: Some(0), calls_max: Some(2), ..ask("q") };
        stand.route(raw).await.unwrap();
        assert_eq!((chosen(&stand), stand.left()), (vec!["free".to_owned()], Some(0)));
        stand.audit();
    });
}

#[test]
fn a_decision_alone_keeps_its_hold_open_or_takes_none() {
    paused(async {
        let stand = cheap_and_dear().budget(1_000).build();
        let trace = stand.router.decide(ask("q"), Metering::Caller).await.unwrap();
        assert_eq!((&trace.hold, trace.status, stand.left()), (&None, TraceStatus::Decided, Some(1_000)));
        assert!(stand.log().is_empty());
        let trace = stand.router.decide(ask("q"), Metering::Hold).await.unwrap();
        assert_eq!(trace.hold.as_ref().map(|h| h.amount), Some(NanoUsd::new(1_000)));
        assert_eq!((trace.status, stand.left()), (TraceStatus::Decided, Some(0)));
        assert!(stand.calls().is_empty());
        stand.audit();
    });
}
