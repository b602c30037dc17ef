//! What a store keeps must come back: whole where content is kept, without text where it is not.

use std::time::Duration;

use pointsman_router::answer::{Answer, Contribution};
use pointsman_router::backend::CallError;
use pointsman_router::clock::{Draw, Timestamp};
use pointsman_router::decision::{Candidate, Decision, Ineligible, Task};
use pointsman_router::ids::AttemptId;
use pointsman_router::normal::NormalForm;
use pointsman_router::outcome::{Attempt, AttemptStatus, Billing, Outcome};
use pointsman_router::policy::{Objective, PolicyKind};
use pointsman_router::request::{KindName, Message, Prompt, Role};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

const SECRET: u64 = 42;

fn candidate(model: &str, ineligible: Option<Ineligible>, scale: f64) -> Candidate {
    Candidate {
        model: model.into(),
        ineligible,
        quality: 0.1 * scale,
        utility: -0.3 * scale,
        cost: NanoUsd::new(1_234),
        latency_p95: ineligible.is_none().then(|| Duration::from_micros(1_500_001)),
        worst_case: NanoUsd::new(99_999),
        pick: scale / 3.0,
        inclusion: scale / 2.0,
        chosen: ineligible.is_none(),
    }
}

fn attempts(draw: &mut Draw) -> Vec<Attempt> {
    let at = Timestamp::from_micros(1_700_000_000_000_001);
    let statuses = [
        (AttemptStatus::Replied, Billing::Exact),
        (
            AttemptStatus::Failed(CallError::Unavailable { detail: "down".into(), billable: true }),
            Billing::Unknown,
        ),
        (
            AttemptStatus::Failed(CallError::Unavailable { detail: "gone".into(), billable: false }),
            Billing::Nothing,
        ),
        (AttemptStatus::Failed(CallError::TimedOut { limit: Duration::from_millis(700) }), Billing::Unknown),
        (AttemptStatus::Failed(CallError::Throttled { retry_after: None }), Billing::Nothing),
        (
            AttemptStatus::Failed(CallError::Throttled { retry_after: Some(Duration::from_secs(3)) }),
            Billing::Nothing,
        ),
        (AttemptStatus::Failed(CallError::Refused { detail: "no".into() }), Billing::Nothing),
        (AttemptStatus::Failed(CallError::Malformed { detail: "{".into() }), Billing::Estimated),
        (AttemptStatus::Abandoned, Billing::Unknown),
    ];
    let attempt = |(status, billing)| Attempt {
        id: AttemptId::new(at, draw),
        model: "small".into(),
        try_number: 2,
        started_at: at,
        latency: Duration::from_micros(812),
        status,
        tokens_in: u64::from(u32::MAX) + 1,
        tokens_out: 7,
        cost: NanoUsd::new(31),
        billing,
    };
    statuses.into_iter().map(attempt).collect()
}

fn contribution(model: &str, normal: Option<NormalForm>, agrees: bool) -> Contribution {
    Contribution { model: model.into(), weight: 0.7, quality: 0.66, normal, agrees }
}

fn decision(id: DecisionId, at: Timestamp) -> Decision {
    Decision {
        id,
        at,
        seed: u64::MAX,
        policy: "bandit-1f".into(),
        policy_kind: PolicyKind::Bandit,
        task: Task { name: "simple_query".into(), inferred: true },
        objective: Objective { cost_weight_per_usd: 20.0 },
        pace_weight_per_usd: 0.5,
        candidates: vec![
            candidate("large", None, 1.0),
            candidate("off", Some(Ineligible::TooDear), 0.0),
            candidate("small", None, 0.5),
        ],
        set: vec![2, 0],
        set_propensity: 1.0 / 3.0,
        calls_max: 2,
        quality_threshold: Some(0.9),
        predicted_quality: 0.71,
        why: "small was picked first".into(),
    }
}

fn sample(kind: KindName, forms: [Option<NormalForm>; 2]) -> Trace {
    let mut draw = Draw::from_seed(5);
    let at = Timestamp::from_micros(1_700_000_000_123_456);
    let id = DecisionId::new(at, &mut draw);
    let [won, lost] = forms;
    let outcome = |model: &str, text: Option<&str>| Outcome {
        model: model.into(),
        text: text.map(str::to_owned),
        replied: text.is_some(),
        confidence: Some(0.25),
        truncated: true,
        tokens_out: 12,
        cost: NanoUsd::new(45),
        latency: Duration::from_micros(99_001),
    };
    Trace {
        at,
        decision: Arc::new(decision(id, at)),
        features: Arc::new(Features {
            text: [(0, -1), (7, 3), (u16::MAX, i16::MIN)]
                .map(|(bucket, count)| TextCount { bucket, count })
                .to_vec(),
            surface: [0.1, -0.2, 0.3, 0.0, 1.0, -1.0, 0.5, f32::MIN_POSITIVE],
            tags: vec![0, 1_023],
            sketch: vec![0.5, -0.5],
            prompt_bytes: 1_000,
            schema: SchemaHash(u64::MAX - 1),
        }),
        kind,
        number_tolerance: Some(1e-6),
        labels: vec!["A".to_owned()],
        answer_pattern: Some("is (.)".to_owned()),
        tags: [("tenant".to_owned(), "a".to_owned())].into(),
        caller_ref: Some("row-1".into()),
        key: Some("k1".into()),
        attempts: attempts(&mut draw),
        outcomes: vec![outcome("small", Some("Paris.")), outcome("large", None)],
        answer: Some(Answer {
            value: Some("Paris.".into()),
            normal: won.clone(),
            confidence: 0.8,
            calibrated: false,
            below_threshold: true,
            contributions: vec![contribution("small", won, true), contribution("large", lost, false)],
        }),
        status: TraceStatus::Answered,
        hold: Some(Hold { decision: id, amount: NanoUsd::new(199_998), charges: charges() }),
        bill: Bill { settled: NanoUsd::new(90), unknown: NanoUsd::new(31) },
        total_us: 123,
        decide_us: 45,
        content: Some(Arc::new(Prompt {
            system: "be short".into(),
            messages: vec![Message { role: Role::User, content: "capital of France?".into() }],
            temperature: Some(0.2),
            stop: vec!["\n".into()],
            schema: Some(Arc::new(serde_json::json!({"type": "string"}))),
            caller_ref: Some("row-1".into()),
        })),
    }
}

fn label_sample() -> Trace {
    sample(KindName::Label, [Some(NormalForm::Clear("paris".into())), Some(NormalForm::Number(2.5))])
}

fn through_bytes(trace: &Trace, kept: Kept) -> Trace {
    let bytes = to_wire(trace, kept).encode_to_vec();
    from_wire(v1::Trace::decode(bytes.as_slice()).unwrap()).unwrap()
}

fn charges() -> Arc<[Charge]> {
    let charge =
        |account: &str, micros| Charge { account: account.into(), window: Timestamp::from_micros(micros) };
    [charge("all", -1), charge("each/acme", 7)].into()
}

#[test]
fn a_hold_that_was_stored_when_there_was_one_budget_is_read() {
    let window = Timestamp::from_micros(9);
    let stored = v1::Hold { amount_usd_nanos: 5, window_started_at: Some(timestamp(window)), charges: Vec::new() };
    let mut draw = Draw::from_seed(1);
    let id = DecisionId::new(window, &mut draw);
    let hold = hold_from_wire(stored, id).unwrap();
    assert_eq!(hold.charges.as_ref(), [Charge { account: "".into(), window }]);
    let nowhere = v1::Charge { account: "all".into(), window_started_at: None };
    let broken = v1::Hold { charges: vec![nowhere], ..Default::default() };
    assert!(hold_from_wire(broken, id).is_err());
}

/// Every part but the texts; `Trace` itself has no equality.
fn assert_survived(back: &Trace, trace: &Trace) {
    assert_eq!(back.decision, trace.decision);
    assert_eq!(back.features, trace.features);
    assert_eq!((back.kind, back.number_tolerance), (trace.kind, trace.number_tolerance));
    assert_eq!((&back.labels, &back.answer_pattern), (&trace.labels, &trace.answer_pattern));
    assert_eq!((&back.tags, &back.caller_ref, &back.key), (&trace.tags, &trace.caller_ref, &trace.key));
    assert_eq!(back.attempts, trace.attempts);
    assert_eq!((back.status, &back.hold, back.bill), (trace.status, &trace.hold, trace.bill));
    assert_eq!((back.at, back.total_us, back.decide_us), (trace.at, trace.total_us, trace.decide_us));
}

#[test]
fn with_content_everything_comes_back() {
    let trace = label_sample();
    let back = through_bytes(&trace, Kept { content: true, secret: SECRET });
    assert_survived(&back, &trace);
    assert_eq!(back.outcomes, trace.outcomes);
    assert_eq!(back.answer, trace.answer);
    assert_eq!(back.content, trace.content);
}

#[test]
fn without_content_no_text_is_in_the_bytes_and_the_rest_comes_back() {
    let secret_text = "a long free answer that nobody may read out of a stolen store, ever";
    let mut trace = sample(KindName::Text, [Some(NormalForm::Clear(secret_text.into())), None]);
    for outcome in &mut trace.outcomes {
        outcome.text = outcome.text.take().map(|_| secret_text.to_owned());
    }
    if let Some(answer) = &mut trace.answer {
        answer.value = Some(secret_text.to_owned());
    }
    let kept = Kept { content: false, secret: SECRET };
    let bytes = to_wire(&trace, kept).encode_to_vec();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    for word in ["nobody", "France", "short"] {
        assert!(!text.contains(word), "{word}");
    }
    let back = through_bytes(&trace, kept);
    assert_survived(&back, &trace);
    for outcome in &mut trace.outcomes {
        outcome.text = None;
    }
    assert_eq!(back.outcomes, trace.outcomes);
    let answer = back.answer.as_ref().unwrap();
    assert!(matches!(answer.normal, Some(NormalForm::Hashed(_))));
    assert_eq!((answer.value.as_deref(), &back.content), (None, &None));
    // Storing what was read keeps the same bytes: a hash is not hashed again.
    assert_eq!(to_wire(&back, kept).encode_to_vec(), bytes);
}

#[test]
fn a_newer_or_broken_trace_is_refused() {
    let wire = to_wire(&label_sample(), Kept { content: false, secret: SECRET });
    let check = |change: fn(&mut v1::Trace), expected: fn(&WireError) -> bool| {
        let mut changed = wire.clone();
        change(&mut changed);
        let fault = from_wire(changed).unwrap_err();
        assert!(expected(&fault), "{fault}");
    };
    check(|t| t.format = 2, |e| matches!(e, WireError::Format { found: 2, known: 1 }));
    check(|t| t.decision = None, |e| matches!(e, WireError::Missing { field: "decision" }));
    check(|t| t.status = 99, |e| matches!(e, WireError::Value { field: "status", value: 99 }));
    check(
        |t| t.decision.as_mut().unwrap().chosen_order.push(3),
        |e| matches!(e, WireError::Value { field: "decision.chosen_order", value: 3 }),
    );
    check(|t| t.features.as_mut().unwrap().counts.push(1), |e| matches!(e, WireError::Value { .. }));
    check(|t| t.attempts[0].attempt_id.clear(), |e| matches!(e, WireError::Id(_)));
}

proptest! {
    #[test]
    fn features_come_back_bucket_by_bucket(
        text in proptest::collection::btree_map(any::<u16>(), any::<i16>(), 0..200),
        surface in any::<[f32; SURFACE_DIMS]>().prop_filter("finite", |s| s.iter().all(|x| x.is_finite())),
        tags in proptest::collection::btree_set(0_u16..1_024, 0..10),
        prompt_bytes in any::<u32>(),
        schema in any::<u64>(),
    ) {
        let features = Features {
            text: text.into_iter().map(|(bucket, count)| TextCount { bucket, count }).collect(),
            surface,
            tags: tags.into_iter().collect(),
            sketch: Vec::new(),
            prompt_bytes,
            schema: SchemaHash(schema),
        };
        prop_assert_eq!(features_from_wire(features_to_wire(&features)).unwrap(), features);
    }
}
