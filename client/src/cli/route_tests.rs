//! From an argument line to the message on the wire, every field.

use clap::Parser as _;

use super::*;
use crate::cli::args::{Cli, Command};

fn command(words: &[&str]) -> Command {
    let line = std::iter::once("pointsman").chain(words.iter().copied());
    Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).command
}

const EVERY_FLAG: &[&str] = &[
    "what is 6 x 7?",
    "--kind=number",
    "--task-type=complex_reasoning",
    "--tag=tenant=acme",
    "--tag=empty=",
    "--embedding=-0.5,1",
    "--max-cost-usd-micros=900",
    "--answer-value-usd-micros=50000",
    "--output-tokens-max=64",
    "--quality-threshold=0.9",
    "--calls-max=3",
    "--label=41",
    "--label=42",
    "--number-tolerance=0.01",
    "--answer-pattern=is (\\d+)",
    "--json-schema={}",
    "--system=be brief",
    "--temperature=0",
    "--stop=END",
    "--allow=a",
    "--allow=b",
    "--deny=c",
    "--caller-ref=row/1",
];

fn every_field() -> v1::RequestSpec {
    v1::RequestSpec {
        prompt: "what is 6 x 7?".to_owned(),
        messages: Vec::new(),
        answer_kind: v1::AnswerKind::Number.into(),
        task_type: Some("complex_reasoning".to_owned()),
        tags: [("tenant", "acme"), ("empty", "")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        embedding: vec![-0.5, 1.0],
        max_cost_usd_micros: Some(900),
        answer_value_usd_micros: Some(50_000),
        output_tokens_max: Some(64),
        quality_threshold: Some(0.9),
        calls_max: Some(3),
        labels: vec!["41".to_owned(), "42".to_owned()],
        number_tolerance: Some(0.01),
        answer_pattern: "is (\\d+)".to_owned(),
        json_schema: "{}".to_owned(),
        system: "be brief".to_owned(),
        temperature: Some(0.0),
        stop: vec!["END".to_owned()],
        models_allowed: vec!["a".to_owned(), "b".to_owned()],
        models_denied: vec!["c".to_owned()],
        caller_ref: "row/1".to_owned(),
    }
}

#[test]
fn route_sends_every_field() {
    let more = ["--idempotency-key=k-1", "--explain", "--json"];
    let words = [&["route"], EVERY_FLAG, &more].concat();
    let Command::Route(args) = command(&words) else { panic!("not route") };
    let request = route_request(args.request, args.idempotency_key, args.explain).expect("is sound");
    let expected =
        v1::RouteRequest { request: Some(every_field()), idempotency_key: "k-1".to_owned(), explain: true };
    assert_eq!(request, expected);
}

#[test]
fn decide_sends_every_field() {
    let more = ["--hold=none", "--report-within=90s"];
    let words = [&["decide"], EVERY_FLAG, &more].concat();
    let Command::Decide(args) = command(&words) else { panic!("not decide") };
    let expected = v1::DecideRequest {
        request: Some(every_field()),
        hold: v1::HoldMode::None.into(),
        report_within: Some(prost_types::Duration { seconds: 90, nanos: 0 }),
    };
    assert_eq!(decide_request(args).expect("is sound"), expected);
}

#[test]
fn absent_stays_absent() {
    let Command::Route(args) = command(&["route", "hi"]) else { panic!("not route") };
    let expected = v1::RequestSpec {
        prompt: "hi".to_owned(),
        answer_kind: v1::AnswerKind::Text.into(),
        ..v1::RequestSpec::default()
    };
    assert_eq!(spec(args.request).expect("is sound"), expected);
}

#[test]
fn a_conversation() {
    let talk = r#"[{"role": "user", "text": "2+2?"}, {"role": "assistant", "text": "4"}]"#;
    let Command::Route(args) = command(&["route", "--messages", talk]) else { panic!("not route") };
    let spec = spec(args.request).expect("is sound");
    assert_eq!(spec.prompt, "");
    let roles: Vec<_> = spec.messages.iter().map(v1::ChatMessage::role).collect();
    assert_eq!(roles, [v1::Role::User, v1::Role::Assistant]);

    let Command::Route(args) = command(&["route", "--messages", r#"[{"role": "system"}]"#]) else {
        panic!("not route")
    };
    assert!(matches!(super::spec(args.request), Err(InputFault::Flag { .. })));
}

#[test]
fn report_sends_every_field() {
    let words = "report d-1 --model m --status throttled --answer a --self-confidence 0.5 --tokens-in 1 \
                 --tokens-out 2 --cost-usd 0.5 --latency 3ms --error slow --truncated \
                 --started-at 2026-03-01T08:00:00Z --final";
    let words: Vec<_> = words.split_whitespace().collect();
    let Command::Report(args) = command(&words) else { panic!("not report") };
    let expected = v1::ReportOutcomesRequest {
        decision_id: "d-1".to_owned(),
        outcomes: vec![v1::ReportedOutcome {
            model: "m".to_owned(),
            status: v1::AttemptStatus::Throttled.into(),
            answer: "a".to_owned(),
            self_confidence: Some(0.5),
            tokens_in: 1,
            tokens_out: 2,
            cost_usd_nanos: Some(500_000_000),
            latency_us: Some(3_000),
            error: "slow".to_owned(),
            truncated: true,
            started_at: Some(prost_types::Timestamp { seconds: 1_772_352_000, nanos: 0 }),
        }],
        r#final: true,
    };
    assert_eq!(report_request(args).expect("is sound"), expected);

    let Command::Report(args) = command(&["report", "d-1"]) else { panic!("not report") };
    assert!(matches!(report_request(args), Err(InputFault::Flag { .. })));
}
