//! One trace, one settled hold and no lost place per admitted request, however it ends.

use std::future::Future as _;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use pointsman_router::backend::{CallError, Reply};
use pointsman_router::money::NanoUsd;
use pointsman_router::outcome::{AttemptStatus, Billing};
use pointsman_router::pipeline::{ErrorKind, RouteError};
use pointsman_router::progress::Unwatched;
use pointsman_router::request::{KindName, RouteRequest};
use pointsman_router::trace::TraceStatus;
use proptest::prelude::*;

use crate::stand::{Setup, Spec, Stand, Step, ask, fails, model, ms, paused, refuses, says};

fn ask_for(kind: KindName, calls: u32) -> RouteRequest {
    RouteRequest { kind, calls_max: Some(calls), ..ask("what is it?") }
}

fn ends(models: Vec<Spec>, raw: RouteRequest, status: TraceStatus, kind: Option<ErrorKind>) {
    paused(async {
        let stand = Setup::of(models).budget(10_000).build();
        let ended = stand.route(raw).await;
        stand.audit();
        let traced = stand.traced();
        assert_eq!(traced.iter().map(|t| t.status).collect::<Vec<_>>(), [status]);
        assert_eq!(ended.as_ref().err().map(RouteError::kind), kind);
        let carried = match ended {
            Ok(trace)
            | Err(
                RouteError::AllFailed { trace }
                | RouteError::NoUsableAnswer { trace }
                | RouteError::DeadlineExceeded { trace },
            ) => trace,
            Err(other) => panic!("{other}"),
        };
        assert!(std::sync::Arc::ptr_eq(&carried, &traced[0]), "the reply is the very trace that is stored");
        assert_eq!(stand.left(), Some(10_000 - carried.bill.spent().nanos()));
    });
}

#[test]
fn every_end_has_its_trace() {
    let failed = TraceStatus::Failed;
    ends(vec![model("a", "x"), model("b", "y")], ask_for(KindName::Label, 2), TraceStatus::Answered, None);
    let all_refuse = vec![model("a", "").always(refuses()), model("b", "").always(refuses())];
    ends(all_refuse, ask_for(KindName::Label, 2), failed, Some(ErrorKind::ModelsFailed));
    let one = vec![model("a", "no number")];
    ends(one, ask_for(KindName::Number, 1), failed, Some(ErrorKind::NoUsableAnswer));
    let never = || vec![model("a", "").always(Step::Never)];
    ends(never(), ask_for(KindName::Label, 1), failed, Some(ErrorKind::ModelsFailed));
    let soon = |millis| RouteRequest { deadline: Some(ms(millis)), ..ask_for(KindName::Label, 1) };
    ends(never(), soon(300), failed, Some(ErrorKind::DeadlineExceeded));
    ends(never(), soon(3), failed, Some(ErrorKind::DeadlineExceeded));
    ends(never(), soon(30_000), failed, Some(ErrorKind::ModelsFailed));
    ends(vec![model("a", "x")], soon(300), TraceStatus::Answered, None);
}

#[test]
fn a_deadline_shorter_than_the_model_ends_the_call_before_it() {
    paused(async {
        let slow = Step::After(ms(800), Ok(Reply { text: Some("x".into()), ..Reply::default() }));
        let stand = Setup::of([model("a", "").always(slow)]).build();
        let started = tokio::time::Instant::now();
        let error = stand.route(RouteRequest { deadline: Some(ms(500)), ..ask("q") }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert!(started.elapsed() < ms(500));
        let trace = stand.traced().pop().unwrap();
        let AttemptStatus::Failed(CallError::TimedOut { limit }) = trace.attempts[0].status else { panic!() };
        assert_eq!(limit, ms(490));
        // It was sent, and nobody knows what it cost.
        assert_eq!((trace.bill.settled, trace.bill.unknown), (NanoUsd::ZERO, NanoUsd::new(100)));
        stand.audit();
    });
}

/// Polls the route `polls` times, time passing in between, then goes away. Whether it had ended.
async fn abandon(stand: &Stand, raw: RouteRequest, polls: usize) -> bool {
    let mut route = pin!(stand.router.route(raw, &Unwatched));
    for _ in 0..polls {
        let ended = std::future::poll_fn(|cx| Poll::Ready(route.as_mut().poll(cx).is_ready())).await;
        if ended {
            return true;
        }
        tokio::time::advance(ms(7)).await;
    }
    false
}

fn retried() -> Vec<Spec> {
    let sent = |billable| fails(CallError::Unavailable { detail: "down".into(), billable });
    vec![model("a", "x").first(&[sent(true), sent(false)]), model("b", "x"), model("c", "").always(Step::Never)]
}

#[test]
fn a_caller_that_goes_away_at_any_point_is_accounted_for() {
    let (mut polls, mut cancelled) = (0, 0);
    loop {
        let ended = paused(async {
            let mut setup = Setup::of(retried()).budget(10_000);
            setup.settings.attempts_max = 3;
            let stand = setup.build();
            let ended = abandon(&stand, ask_for(KindName::Label, 3), polls).await;
            stand.audit();
            if let Some(trace) = stand.traced().first().filter(|_| !ended) {
                assert_eq!((trace.status, trace.answer.is_none()), (TraceStatus::Cancelled, true));
                let out = trace.attempts.iter().filter(|a| a.status == AttemptStatus::Abandoned);
                assert!(out.clone().all(|a| a.billing == Billing::Unknown && a.cost == NanoUsd::new(100)));
                assert_eq!(out.count() + trace.attempts.iter().filter(|a| a.latency > Duration::ZERO).count(), {
                    stand.calls().len()
                });
                cancelled += 1;
            } else if !ended {
                assert!(stand.calls().is_empty() && stand.left() == Some(10_000));
            }
            ended
        });
        if ended {
            break;
        }
        polls += 1;
    }
    assert!(cancelled > 20, "only {cancelled} of {polls} polls were after the hold");
}

#[test]
fn a_backend_that_panics_is_accounted_for() {
    paused(async {
        let stand = Setup::of([model("a", "").always(Step::Panics)]).budget(1_000).build();
        let route = std::panic::AssertUnwindSafe(stand.route(ask("q")));
        assert!(futures_util::FutureExt::catch_unwind(route).await.is_err());
        let trace = stand.traced().pop().unwrap();
        assert_eq!((trace.status, trace.bill.unknown), (TraceStatus::Cancelled, NanoUsd::new(100)));
        stand.audit();
    });
}

#[test]
fn the_time_to_decide_is_not_the_time_that_the_money_took() {
    paused(async {
        let stand = Setup::of([model("a", "x")]).build();
        stand.ledger.0.lock().unwrap().grants_after = ms(50);
        let trace = stand.route(ask("q")).await.unwrap();
        assert_eq!((trace.decide_us, trace.total_us), (0, 70_000));
        // The deadline goes on while the money is fetched.
        let error = stand.route(RouteRequest { deadline: Some(ms(55)), ..ask("q") }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(stand.calls().len(), 1);
        stand.audit();
    });
}

#[test]
fn content_is_kept_only_where_the_operator_said_so() {
    for store_content in [false, true] {
        paused(async {
            let mut setup = Setup::of([model("a", "x")]);
            setup.settings.store_content = store_content;
            let stand = setup.build();
            let trace = stand.route(ask("secret")).await.unwrap();
            assert_eq!(trace.content.is_some(), store_content);
            let cancelled = abandon(&stand, ask("secret"), 3).await;
            assert!(!cancelled);
            for trace in stand.traced() {
                let said = trace.content.as_ref().map(|p| p.messages[0].content.clone());
                assert_eq!(said, store_content.then(|| "secret".to_owned()));
            }
            assert_eq!(stand.traced().len(), 2);
        });
    }
}

/// One step of a model and whether it can cost more than was held.
fn step() -> impl Strategy<Value = Step> {
    let text = prop_oneof![Just("x"), Just("y"), Just("7"), Just(""), Just("{\"a\":1}")];
    let reply =
        (text, prop_oneof![Just(None), (0..100_i64).prop_map(Some), Just(Some(-3)), Just(Some(250))]).prop_map(
            |(text, cost)| Reply { text: Some(text.into()), cost: cost.map(NanoUsd::new), ..Reply::default() },
        );
    let result = prop_oneof![
        4 => reply.prop_map(Ok),
        1 => Just(Ok(Reply::default())),
        2 => any::<bool>().prop_map(|billable| Err(CallError::Unavailable { detail: "d".into(), billable })),
        1 => Just(Err(CallError::Throttled { retry_after: Some(ms(150)) })),
        1 => Just(Err(CallError::Refused { detail: "r".into() })),
        1 => Just(Err(CallError::Malformed { detail: "m".into() })),
        1 => Just(Err(CallError::TimedOut { limit: ms(5) })),
    ];
    prop_oneof![
        9 => (0..1_500_u64, result).prop_map(|(delay, result)| Step::After(ms(delay), result)),
        1 => Just(Step::Never),
    ]
}

#[derive(Debug, Clone)]
struct Scenario {
    models: Vec<(Vec<Step>, i64)>,
    attempts_max: u32,
    calls_max: u32,
    left: Option<i64>,
    requests: Vec<(KindName, Option<u64>, Option<usize>)>,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let kind =
        prop_oneof![Just(KindName::Label), Just(KindName::Number), Just(KindName::Json), Just(KindName::Text)];
    let request = (kind, prop::option::of(1..3_000_u64), prop::option::of(0..60_usize));
    (
        prop::collection::vec((prop::collection::vec(step(), 1..4), 0..200_i64), 1..5),
        0..4_u32,
        1..=8_u32,
        prop::option::of(-100..2_000_i64),
        prop::collection::vec(request, 1..5),
    )
        .prop_map(|(models, attempts_max, calls_max, left, requests)| Scenario {
            models,
            attempts_max,
            calls_max,
            left,
            requests,
        })
}

fn play(scenario: &Scenario) {
    paused(async {
        let models = scenario.models.iter().enumerate().map(|(i, (steps, max))| {
            model(&format!("m{i}"), "x").costs(*max).first(steps).always(says("x", *max))
        });
        let mut setup = Setup::of(models);
        setup.left = scenario.left;
        setup.settings.attempts_max = scenario.attempts_max;
        let stand = setup.build();
        let requests = scenario.requests.iter().map(|(kind, deadline, polls)| {
            let raw = RouteRequest { deadline: deadline.map(ms), ..ask_for(*kind, scenario.calls_max) };
            let stand = &stand;
            async move {
                match polls {
                    Some(polls) => _ = abandon(stand, raw, *polls).await,
                    None => _ = stand.route(raw).await,
                }
            }
        });
        futures_util::future::join_all(requests).await;
        stand.audit();
        for trace in stand.traced() {
            let over = trace.attempts.iter().any(|a| {
                let worst = trace.decision.candidate(a.model.as_str()).unwrap().worst_case;
                a.cost.saturating_mul(scenario.attempts_max.max(1)) > worst
            });
            let held = trace.hold.as_ref().unwrap().amount;
            assert!(over || trace.bill.spent() <= held, "spent more than was held: {trace:#?}");
        }
        let over: i64 =
            stand.traced().iter().map(|t| t.bill.overrun(t.hold.as_ref().unwrap().amount).nanos()).sum();
        let floor = scenario.left.map(|left| left.min(0) - over);
        assert!(stand.left() >= floor, "{:?} is under {floor:?}", stand.left());
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_books_agree(scenario in scenario()) {
        play(&scenario);
    }
}
