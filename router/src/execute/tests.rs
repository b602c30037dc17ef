use std::collections::VecDeque;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::*;
use crate::backend::{Backend, Place};
use crate::breaker::{Breaker, BreakerState, FAILURES_IN_A_ROW};
use crate::clock::Timestamp;
use crate::model::Availability;
use crate::money::Price;
use crate::progress::Unwatched;
use crate::request::{Message, Role};

const T0: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// Hears nothing.
#[derive(Debug)]
struct Deaf;

impl Listener for Deaf {
    fn came_in(&self, _: &[Outcome], _: usize) {}
}

/// Goes with tokio's paused clock.
#[derive(Debug)]
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        T0.plus(self.0.elapsed())
    }
}

type Step = (Duration, Result<Reply, CallError>);

/// Plays its steps one call after another.
#[derive(Debug, Default)]
struct Script(Mutex<VecDeque<Step>>, Mutex<Vec<Call>>);

impl Backend for Script {
    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
        self.1.lock().unwrap().push(call);
        let (delay, result) = self.0.lock().unwrap().pop_front().expect("one call too many");
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            result
        })
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn price() -> Pricing {
    Pricing::PerToken(Price {
        input_per_million_tokens: NanoUsd::new(1_000_000),
        output_per_million_tokens: NanoUsd::new(10_000_000),
        per_call: NanoUsd::ZERO,
    })
}

fn model(name: &str, steps: Vec<Step>) -> Model {
    Model {
        card: Arc::new(ModelCard {
            name: name.into(),
            backend: "b".into(),
            upstream: "up".into(),
            pricing: price(),
            context_tokens_max: 8_000,
            output_tokens_max: 100,
            timeout: ms(1_000),
            family: None,
        }),
        backend: Arc::new(Script(Mutex::new(steps.into()), Mutex::default())),
        breaker: Arc::new(Breaker::new(name)),
        availability: Availability::Available,
    }
}

fn counted(tokens_in: u64, tokens_out: u64) -> Reply {
    Reply {
        text: Some("yes".into()),
        tokens_in: Some(tokens_in),
        tokens_out: Some(tokens_out),
        ..Reply::default()
    }
}

fn down() -> CallError {
    CallError::Unavailable { detail: "down".into(), billable: false }
}

fn prompt() -> Arc<Prompt> {
    let content = "0123456789".to_owned();
    Arc::new(Prompt {
        system: String::new(),
        messages: vec![Message { role: Role::User, content }],
        temperature: None,
        stop: Vec::new(),
        schema: None,
        caller_ref: None,
    })
}

/// What one attempt at these models can cost at most: ten bytes and three times sixteen tokens in,
/// a hundred out.
const WORST: NanoUsd = NanoUsd::new(58 + 1_000);

struct Ran {
    outcomes: Vec<Outcome>,
    attempts: Vec<Attempt>,
    took: Duration,
}

async fn run(models: &[Model], time_left: Option<Duration>) -> Ran {
    let (log, started) = (AttemptLog::default(), Instant::now());
    let (clock, mut draw, prompt) = (PausedClock(started), Draw::from_seed(7), prompt());
    let execution = Execution {
        models: models.iter().collect(),
        prompt: &prompt,
        output_tokens_max: None,
        time_left,
        attempts_max: 2,
        clock: &clock,
        draw: &mut draw,
        log: &log,
        progress: &Unwatched,
        listener: &Deaf,
    };
    let outcomes = execution.run().await;
    Ran { outcomes, attempts: log.take(), took: started.elapsed() }
}

fn trip(breaker: &Breaker) {
    for _ in 0..FAILURES_IN_A_ROW {
        breaker.admit(T0, true).unwrap().on_failure(T0);
    }
}

#[tokio::test(start_paused = true)]
async fn models_are_called_at_once_and_come_back_in_their_order() {
    let models = [model("b", vec![(ms(300), Ok(counted(2, 1)))]), model("a", vec![(ms(200), Ok(counted(2, 0)))])];
    let ran = run(&models, None).await;
    assert_eq!(ran.took, ms(300));
    let names: Vec<_> = ran.outcomes.iter().map(|o| o.model.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    // 2 · 1 + 1 · 10 nano-dollars, and the counted zero stays a zero.
    assert_eq!((ran.outcomes[0].cost, ran.outcomes[1].cost), (NanoUsd::new(12), NanoUsd::new(2)));
    assert_eq!((ran.outcomes[0].latency, ran.outcomes[1].latency), (ms(300), ms(200)));
    assert!(ran.attempts.iter().all(|a| a.billing == Billing::Exact && a.status == AttemptStatus::Replied));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_retried_once_and_both_attempts_are_accounted_for() {
    let sent = CallError::Unavailable { detail: "reset".into(), billable: true };
    let ran = run(&[model("m", vec![(ms(50), Err(sent.clone())), (ms(70), Ok(counted(2, 1)))])], None).await;
    assert!(ran.took >= ms(50 + 100 + 70) && ran.took <= ms(50 + 200 + 71), "{:?}", ran.took);
    assert!(ran.outcomes[0].replied);
    // What the model is known to cost; the worst case of the first stays with its attempt.
    assert_eq!(ran.outcomes[0].cost, NanoUsd::new(12));
    assert_eq!(ran.outcomes[0].latency, ms(70));
    let first = &ran.attempts[0];
    assert_eq!((first.try_number, first.billing, first.cost), (1, Billing::Unknown, WORST));
    assert_eq!(first.status, AttemptStatus::Failed(sent));
    assert_eq!((ran.attempts[1].try_number, ran.attempts.len()), (2, 2));

    let ran = run(&[model("m", vec![(ms(1), Err(down())), (ms(1), Err(down()))])], None).await;
    assert!(!ran.outcomes[0].replied && ran.attempts.len() == 2);
    assert_eq!(ran.outcomes[0].cost, NanoUsd::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_another_attempt_cannot_mend_is_not_retried() {
    let refused = CallError::Refused { detail: "no".into() };
    let malformed = CallError::Malformed { detail: "html".into() };
    for (error, billing) in [(refused, Billing::Nothing), (malformed, Billing::Unknown)] {
        let ran = run(&[model("m", vec![(ms(1), Err(error))])], None).await;
        assert_eq!((ran.attempts.len(), ran.attempts[0].billing), (1, billing));
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_is_the_models_own_or_ends_before_the_deadline() {
    for (left, limit) in [(None, 1_000), (Some(ms(5_000)), 1_000), (Some(ms(400)), 390)] {
        let models = [model("m", vec![(ms(60_000), Ok(counted(1, 1)))])];
        let ran = run(&models, left).await;
        assert_eq!(ran.took, ms(limit));
        assert_eq!(ran.attempts[0].status, AttemptStatus::Failed(CallError::TimedOut { limit: ms(limit) }));
        assert_eq!((ran.attempts[0].billing, ran.attempts[0].cost), (Billing::Unknown, WORST));
        assert_eq!(ran.outcomes[0].cost, NanoUsd::ZERO);
    }
    let ran = run(&[model("m", vec![])], Some(DEADLINE_MARGIN)).await;
    assert_eq!((ran.attempts[0].billing, ran.attempts[0].cost), (Billing::Nothing, NanoUsd::ZERO));
}

#[tokio::test(start_paused = true)]
async fn only_fair_time_limits_are_held_against_the_model() {
    for (left, state) in [(ms(300), BreakerState::Closed), (ms(2_000), BreakerState::HalfOpen)] {
        let slow = || (ms(60_000), Ok(counted(1, 1)));
        let model = model("m", (0..FAILURES_IN_A_ROW).map(|_| slow()).collect());
        for _ in 0..FAILURES_IN_A_ROW {
            run(std::slice::from_ref(&model), Some(left)).await;
        }
        assert_eq!(model.breaker.state(T0.plus(ms(600_000))), state);
    }
}

#[tokio::test(start_paused = true)]
async fn throttling_is_waited_out_where_the_deadline_allows_it() {
    let throttled = || (ms(0), Err(CallError::Throttled { retry_after: Some(ms(700)) }));
    let ran = run(&[model("m", vec![throttled(), (ms(10), Ok(counted(1, 1)))])], Some(ms(2_000))).await;
    assert!(ran.outcomes[0].replied);
    assert!(ran.took >= ms(710) && ran.took <= ms(712), "{:?}", ran.took);
    assert_eq!((ran.attempts[0].billing, ran.attempts[0].cost), (Billing::Nothing, NanoUsd::ZERO));

    let ran = run(&[model("m", vec![throttled()])], Some(ms(700))).await;
    assert_eq!((ran.took, ran.attempts.len(), ran.outcomes[0].replied), (ms(0), 1, false));
}

#[tokio::test(start_paused = true)]
async fn dropped_calls_stay_in_the_log_at_their_worst_case() {
    let models =
        [model("fast", vec![(ms(10), Ok(counted(2, 1)))]), model("slow", vec![(ms(900), Ok(counted(2, 1)))])];
    trip(&models[1].breaker);
    let BreakerState::Open { until } = models[1].breaker.state(T0) else { panic!("not open") };
    let (log, prompt, mut draw) = (AttemptLog::default(), prompt(), Draw::from_seed(1));
    let clock = PausedClock(Instant::now() - until.since(T0));
    let execution = Execution {
        models: models.iter().collect(),
        prompt: &prompt,
        output_tokens_max: None,
        time_left: None,
        attempts_max: 2,
        clock: &clock,
        draw: &mut draw,
        log: &log,
        progress: &Unwatched,
        listener: &Deaf,
    };
    assert!(timeout(ms(100), execution.run()).await.is_err());
    let attempts = log.take();
    assert_eq!(attempts[0].status, AttemptStatus::Replied);
    let lost = &attempts[1];
    assert_eq!((&lost.status, lost.billing, lost.cost), (&AttemptStatus::Abandoned, Billing::Unknown, WORST));
    assert!(models[1].breaker.allows(clock.now()), "the probe kept its place");
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_keeps_calls_away_unless_all_are_open() {
    let models = [model("open", vec![]), model("fine", vec![(ms(1), Ok(counted(1, 1)))])];
    trip(&models[0].breaker);
    let ran = run(&models, None).await;
    assert!(!ran.outcomes[0].replied && ran.outcomes[1].replied);
    assert_eq!(ran.attempts[0].billing, Billing::Nothing);

    let models = [model("open", vec![(ms(1), Ok(counted(1, 1)))])];
    trip(&models[0].breaker);
    assert!(run(&models, None).await.outcomes[0].replied);
    assert_eq!(models[0].breaker.state(T0), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_ids_and_pauses() {
    let ran = async || {
        let model = model("m", vec![(ms(1), Err(down())), (ms(1), Ok(counted(1, 1)))]);
        let ran = run(&[model], None).await;
        (ran.took, ran.attempts.iter().map(|a| a.id).collect::<Vec<_>>())
    };
    assert_eq!(ran().await, ran().await);
}

fn check_cost(pricing: Pricing, reply: Reply, tokens: (u64, u64), nanos: i64, billing: Billing) {
    let mut model = model("m", vec![(ms(0), Ok(reply.clone()))]);
    model.card = Arc::new(ModelCard { pricing, ..ModelCard::clone(&model.card) });
    let models = [model];
    let ran =
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(run(&models, None));
    let attempt = &ran.attempts[0];
    let seen = ((attempt.tokens_in, attempt.tokens_out), attempt.cost.nanos(), attempt.billing);
    assert_eq!(seen, (tokens, nanos, billing), "{reply:?}");
    assert_eq!(ran.outcomes[0].tokens_out, tokens.1);
}

#[test]
fn costs_are_counted_or_estimated_and_never_above_the_worst_case() {
    let text = |text: &str| Reply { text: Some(text.into()), ..Reply::default() };
    check_cost(price(), counted(0, 0), (0, 0), 0, Billing::Exact);
    // An overrun that the provider counted is told as it is.
    check_cost(price(), counted(10, 5_000), (10, 5_000), 50_010, Billing::Exact);
    check_cost(price(), text("1234567"), (4, 3), 34, Billing::Estimated);
    check_cost(price(), text(&"x".repeat(900)), (4, 100), 1_004, Billing::Estimated);
    check_cost(price(), Reply { truncated: true, ..text("x") }, (4, 100), 1_004, Billing::Estimated);
    check_cost(price(), Reply { tokens_in: Some(9), ..Reply::default() }, (9, 100), 1_009, Billing::Estimated);
    check_cost(price(), counted(u64::MAX, 1), (u64::MAX, 1), WORST.nanos(), Billing::Estimated);
    let metered = Pricing::Metered { max_per_call: NanoUsd::new(70) };
    let said = |cost| Reply { cost: Some(NanoUsd::new(cost)), ..counted(3, 4) };
    check_cost(metered, said(0), (3, 4), 0, Billing::Exact);
    check_cost(metered, said(99), (3, 4), 99, Billing::Exact);
    check_cost(metered, said(-1), (3, 4), 70, Billing::Estimated);
    check_cost(metered, text("x"), (0, 0), 70, Billing::Estimated);
}

#[test]
fn nothing_is_called_for_an_empty_set() {
    let (log, prompt, mut draw) = (AttemptLog::default(), prompt(), Draw::from_seed(1));
    let clock = PausedClock(Instant::now());
    let execution = Execution {
        models: Vec::new(),
        prompt: &prompt,
        output_tokens_max: None,
        time_left: None,
        attempts_max: 0,
        clock: &clock,
        draw: &mut draw,
        log: &log,
        progress: &Unwatched,
        listener: &Deaf,
    };
    assert_eq!(execution.run().now_or_never(), Some(Vec::new()));
}

/// Has room for one call at a time.
#[derive(Debug)]
struct Narrow(Script, Arc<tokio::sync::Semaphore>);

impl Backend for Narrow {
    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
        self.0.generate(call)
    }

    fn place(&self) -> BoxFuture<'_, Place> {
        Box::pin(async { Place::new(Arc::clone(&self.1).acquire_owned().await.unwrap()) })
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_room_is_not_a_call() {
    let script = Script(Mutex::new([(ms(700), Ok(counted(2, 1)))].into()), Mutex::default());
    let backend = Arc::new(Narrow(script, Arc::new(tokio::sync::Semaphore::new(1))));
    let narrow = |name| Model { backend: Arc::clone(&backend) as _, ..model(name, Vec::new()) };
    // Both wait for the same place; the second has no time left for its call when it is free.
    let models = [narrow("a"), narrow("b")];
    let ran = run(&models, Some(ms(600))).await;
    let ended: Vec<_> = ran.attempts.iter().map(|a| (a.model.as_str(), a.billing)).collect();
    assert!(ended.contains(&("a", Billing::Unknown)) && ended.contains(&("b", Billing::Nothing)), "{ended:?}");
    assert_eq!(models[1].breaker.state(T0), BreakerState::Closed);
    assert_eq!(backend.0.1.lock().unwrap().len(), 1);
}
