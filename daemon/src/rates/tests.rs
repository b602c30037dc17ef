//! Tests of rates on a paused clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pointsman_router::backend::{Backend, Call, CallError, Reply};
use pointsman_router::clock::{Draw, Timestamp};
use pointsman_router::hold::{Bill, Hold, HoldError, Ledger, Payer};
use pointsman_router::ids::{AttemptId, DecisionId};
use pointsman_router::money::NanoUsd;
use pointsman_router::request::{Message, Prompt, Role};
use tokio::time::{Instant, advance};

use super::*;

/// The same for everybody.
impl LimitSource for Limits {
    fn limits(&self, _: Option<&KeyId>) -> Limits {
        *self
    }
}

fn limit(per_minute: u64) -> Limit {
    Limit::new(per_minute).unwrap()
}

fn limits(requests: Option<u64>, tokens: Option<u64>, spend: Option<u64>) -> Limits {
    Limits { requests: requests.map(limit), tokens: tokens.map(limit), spend_micros: spend.map(limit) }
}

#[test]
fn what_cannot_be_kept_is_no_limit() {
    for bad in [0, 600_000_001, u64::from(u32::MAX), u64::MAX] {
        assert_eq!(Limit::new(bad), Err(LimitError), "{bad}");
    }
    assert_eq!(limit(600_000_000).per_minute(), 600_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_flood_gets_its_limit_and_is_told_when_to_come_again() {
    let callers = Callers::new();
    let limits = limits(Some(600), None, None);
    let (mut passed, began) = (0, Instant::now());
    while began.elapsed() < Duration::from_secs(60) {
        match callers.admit(None, &limits, 0) {
            Ok(()) => passed += 1,
            Err(TooFast::Wait { metered, limit, retry_after }) => {
                assert_eq!((metered, limit), (Metered::Requests, 600));
                assert!(retry_after <= Duration::from_millis(101), "{retry_after:?}");
                // Whoever waits as told is let in.
                advance(retry_after).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    // A minute's, and ten seconds' worth that came at once.
    assert!((698..=702).contains(&passed), "{passed}");
}

#[tokio::test(start_paused = true)]
async fn keys_do_not_share_and_idle_limiters_are_let_go() {
    let callers = Callers::new();
    let (one, two) = (KeyId::from("one"), KeyId::from("two"));
    let slow = limits(Some(1), None, None);
    callers.admit(Some(&one), &slow, 0).unwrap();
    callers.admit(Some(&one), &slow, 0).unwrap_err();
    callers.admit(Some(&two), &slow, 0).unwrap();
    callers.admit(None, &slow, 0).unwrap();
    assert_eq!(callers.requests.limiters(), 1);
    advance(Duration::from_secs(3_600)).await;
    callers.admit(Some(&one), &limits(Some(7), None, None), 0).unwrap();
    assert_eq!(callers.requests.limiters(), 1, "nobody has had the other limit for an hour");
}

#[tokio::test(start_paused = true)]
async fn tokens_are_metered_and_what_never_fits_is_said() {
    let callers = Callers::new();
    let limits = limits(None, Some(1_000), None);
    callers.admit(None, &limits, 900).unwrap();
    let Err(TooFast::Wait { metered: Metered::Tokens, retry_after, .. }) = callers.admit(None, &limits, 400)
    else {
        panic!("was let in")
    };
    assert!(
        (17.9..18.1).contains(&retry_after.as_secs_f64()),
        "300 tokens at a thousand a minute: {retry_after:?}"
    );
    assert_eq!(callers.admit(None, &limits, 1_001), Err(TooFast::Never { asked: 1_001, limit: 1_000 }));
    assert_eq!(tokens(9, Some(100)), 103);
}

/// Grants everything and remembers it.
#[derive(Debug, Default)]
struct Open(Mutex<NanoUsd>);

impl Ledger for Open {
    fn left(&self, _: Payer<'_>, _: Timestamp) -> Option<NanoUsd> {
        None
    }

    fn hold<'a>(
        &'a self,
        decision: DecisionId,
        amount: NanoUsd,
        _: Payer<'a>,
        _: Timestamp,
    ) -> BoxFuture<'a, Result<Hold, HoldError>> {
        Box::pin(std::future::ready(Ok(Hold { decision, amount, charges: [].into() })))
    }

    fn settle(&self, _: &Hold, bill: Bill) {
        let mut spent = self.0.lock().unwrap();
        *spent = spent.saturating_add(bill.spent());
    }
}

#[tokio::test(start_paused = true)]
async fn a_brake_holds_up_the_worst_case_and_lets_a_steady_flow_of_the_real_cost_through() {
    let ledger = Arc::new(Open::default());
    let braked = Braked::new(ledger.clone(), Arc::new(limits(None, None, Some(10_000))));
    let (tags, mut draw) = (BTreeMap::new(), Draw::from_seed(1));
    let payer = Payer { key: None, tags: &tags };
    let micros = |n: i64| NanoUsd::from_micros(n).unwrap();
    let mut hold = || {
        let decision = DecisionId::new(Timestamp::from_micros(1), &mut draw);
        braked.hold(decision, micros(1_000), payer, Timestamp::from_micros(1)).now_or_never().unwrap()
    };
    // Ten worst cases at once are a minute's.
    let held: Vec<Hold> = (0..10).map(|_| hold().unwrap()).collect();
    let Err(HoldError::TooFast { retry_after: Some(wait), .. }) = hold() else { panic!("was let in") };
    assert!((5.9..6.1).contains(&wait.as_secs_f64()), "{wait:?}");
    // They cost a tenth: nine more fit at once.
    let cheap = Bill { settled: micros(100), unknown: NanoUsd::ZERO };
    held.iter().for_each(|hold| braked.settle(hold, cheap));
    let held: Vec<Hold> = (0..9).map(|_| hold().unwrap()).collect();
    assert!(hold().is_err());
    held.iter().for_each(|hold| braked.settle(hold, cheap));
    assert_eq!(*ledger.0.lock().unwrap(), micros(1_900), "the ledger behind it has every bill");
    // What is more than a minute's never passes, and is told so.
    let decision = DecisionId::new(Timestamp::from_micros(1), &mut Draw::from_seed(2));
    let never = braked.hold(decision, micros(90_001), payer, Timestamp::from_micros(1)).await;
    assert!(matches!(never, Err(HoldError::TooFast { retry_after: None, .. })), "{never:?}");
}

/// Replies at once and counts.
#[derive(Debug, Default)]
struct Counted(AtomicUsize);

impl Backend for Counted {
    fn generate(&self, _: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(Reply::default())).boxed()
    }
}

fn call(output_tokens_max: u32) -> Call {
    let messages = vec![Message { role: Role::User, content: "x".repeat(400) }];
    let (system, temperature, stop, schema, caller_ref) = (String::new(), None, Vec::new(), None, None);
    Call {
        attempt: AttemptId::new(Timestamp::from_micros(1), &mut Draw::from_seed(1)),
        upstream: "m".into(),
        prompt: Arc::new(Prompt { system, messages, temperature, stop, schema, caller_ref }),
        output_tokens_max,
        timeout: Duration::from_secs(60),
    }
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_their_providers_turn() {
    let inner = Arc::new(Counted::default());
    let governed = Governed::of(inner.clone(), Some(limit(60)), Some(limit(1_200)));
    let began = Instant::now();
    for _ in 0..10 {
        drop(governed.place().await);
    }
    let elapsed = began.elapsed().as_secs_f64();
    assert!((0.0..0.1).contains(&elapsed), "ten seconds' worth goes at once: {elapsed}");
    let (first, second) = (governed.place(), governed.place());
    let mut waiting = Box::pin(futures_util::future::join(first, second));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(governed.wait(), Duration::from_secs(2), "two wait, one goes a second");
    waiting.await;
    assert!((1.9..2.1).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    assert_eq!(governed.wait(), Duration::ZERO);

    let began = Instant::now();
    for _ in 0..7 {
        governed.generate(call(100)).await.unwrap();
    }
    // 200 tokens each: six are a minute's, the seventh waits for its own.
    assert!((9.9..10.1).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    assert!(matches!(governed.generate(call(1_101)).await, Err(CallError::Refused { .. })));
    assert_eq!(inner.0.load(Ordering::Relaxed), 7);
}
