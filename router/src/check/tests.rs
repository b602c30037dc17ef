use std::time::Duration;

use futures_util::future::BoxFuture;

use super::*;
use crate::backend::{Backend, Call, CallError, Reply};
use crate::breaker::Breaker;
use crate::model::{Availability, Model, ModelCard, Pricing};

#[derive(Debug)]
struct Never;

impl Backend for Never {
    fn generate(&self, _: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
        Box::pin(std::future::pending())
    }
}

fn pool() -> Pool {
    let model = |name: &str| Model {
        card: Arc::new(ModelCard {
            name: name.into(),
            backend: "b".into(),
            upstream: name.into(),
            pricing: Pricing::Metered { max_per_call: NanoUsd::ZERO },
            context_tokens_max: 1,
            output_tokens_max: 1,
            timeout: Duration::from_secs(1),
            family: None,
        }),
        backend: Arc::new(Never),
        breaker: Arc::new(Breaker::new(name)),
        availability: Availability::Available,
    };
    Pool::new(vec![model("m1"), model("m2")])
}

fn good() -> RouteRequest {
    RouteRequest { prompt: "Why?".to_owned(), ..RouteRequest::default() }
}

fn checked(change: impl FnOnce(&mut RouteRequest)) -> Result<Request, BadRequest> {
    let mut raw = good();
    change(&mut raw);
    check(raw, &Settings { prompt_bytes_max: 1_000, embedding_dims_max: 4, ..Settings::default() }, &pool())
}

/// Exactly these fields are at fault.
fn faulty(expected: &[&str], change: impl FnOnce(&mut RouteRequest)) {
    let faults = checked(change).map_or_else(|bad| bad.faults, |_| Vec::new());
    let fields: Vec<_> = faults.iter().map(|f| f.field.strip_prefix("request.").unwrap()).collect();
    assert_eq!(fields, expected, "{faults:?}");
}

fn message(role: Role, content: &str) -> Message {
    Message { role, content: content.to_owned() }
}

#[test]
fn a_good_request_keeps_what_it_said() {
    let request = checked(|r| {
        r.labels = vec!["Yes".into(), "No".into()];
        r.answer_pattern = r"answer: (\w+)".into();
        r.max_cost_usd_micros = Some(0);
        r.answer_value_usd_micros = Some(1);
        r.models_allowed = vec!["m2".into()];
        r.models_denied = vec!["m1".into()];
        r.embedding = vec![0.0, 1e-30];
        r.caller_ref = "row 7".into();
        r.task_type = "my.task-2_x".into();
    })
    .unwrap();
    assert_eq!(request.kind, AnswerKind::Label { allowed: vec!["Yes".into(), "No".into()] });
    assert_eq!(request.max_cost, Some(NanoUsd::ZERO));
    assert_eq!(request.answer_value, Some(NanoUsd::new(1_000)));
    assert_eq!(request.prompt.messages, vec![message(Role::User, "Why?")]);
    assert_eq!(request.prompt.caller_ref.as_deref(), Some("row 7"));
    assert_eq!(request.task_type, Some(TaskType::new("my.task-2_x")));
    assert_eq!(checked(|_| ()).unwrap().kind, AnswerKind::Text);
    let number = checked(|r| r.kind = KindName::Number).unwrap().kind;
    assert_eq!(number, AnswerKind::Number { tolerance: NUMBER_TOLERANCE });
}

#[test]
fn all_faults_are_named_at_once() {
    faulty(&["number_tolerance", "calls_max", "stop[1]", "embedding[0]", "embedding[2]", "prompt"], |r| {
        r.prompt = " \n".into();
        r.embedding = vec![f32::NAN, 1.0, f32::INFINITY];
        r.stop = vec!["x".into(), String::new()];
        r.calls_max = Some(9);
        r.number_tolerance = Some(0.1);
    });
    let many = checked(|r| r.models_denied = vec!["nobody".into(); 200]).unwrap_err();
    assert_eq!(many.faults.len(), FAULTS_MAX);
}

#[test]
fn prompt_and_messages() {
    faulty(&["prompt"], |r| r.prompt.clear());
    faulty(&["prompt"], |r| r.messages = vec![message(Role::User, "x")]);
    faulty(&["messages[0].text", "messages[1].role"], |r| {
        r.prompt.clear();
        r.messages = vec![message(Role::User, " "), message(Role::Assistant, "x")];
    });
    faulty(&["prompt"], |r| r.system = "x".repeat(997));
    faulty(&[], |r| r.system = "x".repeat(996));
}

#[test]
fn kinds_and_what_goes_with_them() {
    let labels = |labels: &[&str]| labels.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    faulty(&["labels[1]", "labels[2]"], |r| r.labels = labels(&["a", "(A).", "()"]));
    faulty(&["labels"], |r| r.labels = (0..=LABELS_MAX).map(|i| i.to_string()).collect());
    faulty(&["labels", "json_schema"], |r| {
        r.kind = KindName::Text;
        r.labels = labels(&["a"]);
        r.json_schema = "{}".into();
    });
    for tolerance in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
        faulty(&["number_tolerance"], |r| {
            r.kind = KindName::Number;
            r.number_tolerance = Some(tolerance);
        });
    }
    for schema in ["[]", "{", "true"] {
        faulty(&["json_schema"], |r| {
            r.kind = KindName::Json;
            r.json_schema = schema.into();
        });
    }
    for pattern in ["(", "none", "(a)(b)", r"(\w{1000}{1000})", &"x".repeat(5_000)] {
        faulty(&["answer_pattern"], |r| r.answer_pattern = pattern.into());
    }
    faulty(&[], |r| r.answer_pattern = "(?:a|b) (c)".into());
}

#[test]
fn numbers_out_of_range() {
    for value in [-1, i64::MAX] {
        faulty(&["max_cost_usd_micros"], |r| r.max_cost_usd_micros = Some(value));
    }
    faulty(&["answer_value_usd_micros"], |r| r.answer_value_usd_micros = Some(0));
    faulty(&["output_tokens_max"], |r| r.output_tokens_max = Some(0));
    for threshold in [0.0, 1.1, f64::NAN] {
        faulty(&["quality_threshold"], |r| r.quality_threshold = Some(threshold));
    }
    faulty(&["calls_max"], |r| r.calls_max = Some(0));
    for temperature in [-0.1, 2.1, f64::NAN] {
        faulty(&["temperature"], |r| r.temperature = Some(temperature));
    }
    faulty(&["deadline"], |r| r.deadline = Some(Duration::ZERO));
}

#[test]
fn texts_tags_embeddings_and_models() {
    faulty(&["task_type"], |r| r.task_type = "Big Task".into());
    faulty(&["task_type"], |r| r.task_type = "x".repeat(65));
    faulty(&["tags[]", "tags[k]"], |r| {
        r.tags = [(String::new(), String::new()), ("k".into(), "v".repeat(257))].into();
    });
    faulty(&["tags"], |r| r.tags = (0..33).map(|i| (i.to_string(), String::new())).collect());
    faulty(&["stop"], |r| r.stop = vec!["x".into(); 5]);
    faulty(&["caller_ref"], |r| r.caller_ref = "x".repeat(257));
    faulty(&["embedding"], |r| r.embedding = vec![0.0; 3]);
    faulty(&["embedding"], |r| r.embedding = vec![1.0; 5]);
    faulty(&["models_denied[0]", "models_allowed[0]"], |r| {
        r.models_allowed = vec!["m1".into(), "m2".into()];
        r.models_denied = vec!["m3".into(), "m1".into()];
    });
}
