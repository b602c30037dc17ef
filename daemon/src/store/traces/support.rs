//! Small traces for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pointsman_router::backend::CallError;
use pointsman_router::clock::{Draw, Timestamp};
use pointsman_router::decision::{Candidate, Decision, Ineligible, Task};
use pointsman_router::features::{Features, SURFACE_DIMS, SchemaHash, TextCount};
use pointsman_router::hold::{Bill, Charge, Hold};
use pointsman_router::ids::{AttemptId, DecisionId};
use pointsman_router::money::NanoUsd;
use pointsman_router::outcome::{Attempt, AttemptStatus, Billing, Outcome};
use pointsman_router::policy::{Objective, PolicyKind};
use pointsman_router::request::KindName;
use pointsman_router::trace::{Trace, TraceStatus};

/// The moment of trace number zero: 2026-01-01.
pub(crate) const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// Trace number `n`: admitted `n` seconds after [`START`], `small` called in vain and `large` with
/// success, `off` switched off. Even numbers belong to the tenant `even`.
pub(crate) fn sample(n: u32) -> Trace {
    let mut draw = Draw::from_seed(u64::from(n));
    let at = START.plus(Duration::from_secs(u64::from(n)));
    let decision = decision(n, at, &mut draw);
    let failed =
        attempt("small", AttemptStatus::Failed(CallError::Throttled { retry_after: None }), &mut draw, at);
    let replied = attempt("large", AttemptStatus::Replied, &mut draw, at);
    let tags = if n.is_multiple_of(2) { vec![("tenant", "even"), ("team", "a")] } else { vec![("team", "b")] };
    Trace {
        at,
        features: Arc::new(Features {
            text: vec![TextCount { bucket: 3, count: -1 }, TextCount { bucket: 900, count: 2 }],
            surface: [0.25; SURFACE_DIMS],
            tags: vec![7],
            sketch: Vec::new(),
            prompt_bytes: 40,
            schema: SchemaHash(11),
        }),
        kind: KindName::Label,
        number_tolerance: None,
        labels: Vec::new(),
        answer_pattern: None,
        tags: tags.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<BTreeMap<_, _>>(),
        caller_ref: Some(format!("row-{n}")),
        key: None,
        outcomes: vec![outcome(&failed), outcome(&replied)],
        attempts: vec![failed, replied],
        answer: None,
        status: TraceStatus::Answered,
        hold: Some(Hold { decision: decision.id, amount: NanoUsd::new(5_000), charges: charged("all", START) }),
        bill: Bill { settled: NanoUsd::new(300), unknown: NanoUsd::ZERO },
        total_us: 1_500,
        decide_us: 30,
        content: None,
        decision: Arc::new(decision),
    }
}

fn decision(n: u32, at: Timestamp, draw: &mut Draw) -> Decision {
    Decision {
        id: DecisionId::new(at, draw),
        at,
        seed: u64::from(n),
        policy: "bandit-1".into(),
        policy_kind: PolicyKind::Bandit,
        task: Task { name: if n.is_multiple_of(3) { "math" } else { "law" }.into(), inferred: false },
        objective: Objective { cost_weight_per_usd: 20.0 },
        pace_weight_per_usd: 0.5,
        candidates: vec![
            candidate("large", None, 0.75),
            candidate("off", Some(Ineligible::Disabled), 0.0),
            candidate("small", None, 0.5),
        ],
        set: vec![2, 0],
        set_propensity: 0.375,
        calls_max: 2,
        quality_threshold: None,
        predicted_quality: 0.8,
        why: "for a test".to_owned(),
    }
}

fn candidate(model: &str, ineligible: Option<Ineligible>, inclusion: f64) -> Candidate {
    let chosen = ineligible.is_none();
    let quality = if chosen { 0.5 } else { 0.0 };
    Candidate {
        model: model.into(),
        ineligible,
        quality,
        utility: quality,
        cost: NanoUsd::ZERO,
        latency_p95: None,
        worst_case: NanoUsd::new(2_500),
        pick: inclusion / 1.25,
        inclusion,
        chosen,
    }
}

fn attempt(model: &str, status: AttemptStatus, draw: &mut Draw, at: Timestamp) -> Attempt {
    let replied = status == AttemptStatus::Replied;
    Attempt {
        id: AttemptId::new(at, draw),
        model: model.into(),
        try_number: 1,
        started_at: at,
        latency: Duration::from_millis(1),
        status,
        tokens_in: if replied { 10 } else { 0 },
        tokens_out: if replied { 20 } else { 0 },
        cost: NanoUsd::new(if replied { 300 } else { 0 }),
        billing: if replied { Billing::Exact } else { Billing::Nothing },
    }
}

fn outcome(attempt: &Attempt) -> Outcome {
    Outcome {
        model: attempt.model.clone(),
        text: None,
        replied: attempt.status == AttemptStatus::Replied,
        confidence: None,
        truncated: false,
        tokens_out: attempt.tokens_out,
        cost: attempt.cost,
        latency: attempt.latency,
    }
}

/// Lets the file grow to this many pages, or no further.
pub(crate) async fn limit_pages(store: &super::TraceStore, pages: i64) {
    let set = move |tx: &rusqlite::Transaction<'_>| {
        tx.pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0))
    };
    store.alone(set).await.unwrap();
}

/// One account.
pub(crate) fn charged(account: &str, window: Timestamp) -> Arc<[Charge]> {
    [Charge { account: account.into(), window }].into()
}
