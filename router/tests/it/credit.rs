//! What feedback says of whom: DESIGN's credit, over traces that the router made.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_router::check::Problem;
use pointsman_router::feedback::{Entry, Feedback, RawFeedback, RawVerdict, Verdict, check, judge, labels};
use pointsman_router::ids::ModelName;
use pointsman_router::pipeline::Metering;
use pointsman_router::progress::Unwatched;
use pointsman_router::request::{KindName, RouteRequest};
use pointsman_router::trace::{Trace, TraceStatus};

use crate::stand::{Setup, Step, ask, listed, model, ms, paused, refuses};
use pointsman_router::backend::Reply;

const SECRET: u64 = 7;
static NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// The trace of models that say this, all of them called; `None`: the model refuses.
fn trace(kind: KindName, said: &[Option<&str>]) -> Arc<Trace> {
    paused(async {
        let models = NAMES.iter().zip(said).map(|(name, text)| match text {
            Some(text) => model(name, text),
            None => model(name, "").always(refuses()),
        });
        let stand = Setup::of(models).policy(listed(&NAMES)).build();
        let tolerance = (kind == KindName::Number).then_some(0.01);
        let calls_max = u32::try_from(said.len()).ok();
        let raw = RouteRequest { kind, calls_max, number_tolerance: tolerance, ..ask("q") };
        let _ = stand.route(raw).await;
        let trace = stand.traced().pop().unwrap();
        assert_eq!(trace.decision.set.len(), said.len(), "all are called");
        trace
    })
}

/// The trace as a store gives it back: no texts, long answers hashed.
fn stored(trace: &Trace) -> Trace {
    let mut kept = trace.clone();
    kept.outcomes.iter_mut().for_each(|outcome| outcome.text = None);
    if let Some(answer) = &mut kept.answer {
        let kind = trace.kind;
        answer.value = None;
        answer.normal = answer.normal.as_ref().map(|form| form.stored(kind, SECRET));
        for contribution in &mut answer.contributions {
            contribution.normal = contribution.normal.as_ref().map(|form| form.stored(kind, SECRET));
        }
    }
    kept
}

fn raw(trace: &Trace, model: &str, source: &str, verdict: RawVerdict) -> RawFeedback {
    RawFeedback {
        decision_id: trace.decision.id.to_string(),
        model: model.to_owned(),
        source: source.to_owned(),
        verdict,
        comment: String::new(),
    }
}

fn right() -> RawVerdict {
    RawVerdict::Correct(true)
}

fn wrong() -> RawVerdict {
    RawVerdict::Correct(false)
}

fn score(score: f64) -> RawVerdict {
    RawVerdict::Score(score)
}

fn expected(text: &str) -> RawVerdict {
    RawVerdict::Expected(text.to_owned())
}

type Said = (&'static str, &'static str, RawVerdict);

fn label(trace: &Trace, said: &[Said]) -> BTreeMap<String, f64> {
    let entries: Vec<Entry> = said
        .iter()
        .enumerate()
        .map(|(seq, (model, source, verdict))| {
            let feedback: Feedback = check(raw(trace, model, source, verdict.clone())).unwrap();
            let (verdict, score) = judge(trace, &feedback, SECRET).unwrap();
            Entry { seq: seq as u64, model: feedback.model, source: feedback.source, verdict, score }
        })
        .collect();
    let of = |entries: &[Entry]| -> BTreeMap<String, f64> {
        labels(trace, entries, SECRET)
            .into_iter()
            .map(|(model, label)| (model.as_str().to_owned(), label))
            .collect()
    };
    let reversed: Vec<Entry> = entries.iter().rev().cloned().collect();
    assert_eq!(of(&entries), of(&reversed), "the ledger's order counts, not the slice's");
    of(&entries)
}

fn credits(trace: &Trace, said: &[Said], wanted: &[(&str, f64)]) {
    let wanted: BTreeMap<String, f64> = wanted.iter().map(|(m, l)| ((*m).to_owned(), *l)).collect();
    assert_eq!(label(trace, said), wanted, "{said:?}");
    assert_eq!(label(&stored(trace), said), wanted, "as stored: {said:?}");
}

#[test]
fn a_verdict_on_the_answer_is_credited_to_those_who_gave_it() {
    let trace = trace(KindName::Label, &[Some("B"), Some("(b)."), Some("C")]);
    credits(&trace, &[("", "s", right())], &[("a", 1.0), ("b", 1.0)]);
    credits(&trace, &[("", "s", wrong())], &[("a", 0.0), ("b", 0.0)]);
    credits(&trace, &[("", "s", score(0.25))], &[("a", 0.25), ("b", 0.25)]);
    credits(&trace, &[], &[]);
}

#[test]
fn an_expected_answer_judges_every_member() {
    let label = trace(KindName::Label, &[Some("B"), Some("b"), Some("C")]);
    credits(&label, &[("", "s", expected("**c**"))], &[("a", 0.0), ("b", 0.0), ("c", 1.0)]);
    credits(&label, &[("", "s", expected("B"))], &[("a", 1.0), ("b", 1.0), ("c", 0.0)]);
    let number = trace(KindName::Number, &[Some("1,000"), Some("$1005"), Some("1020")]);
    credits(&number, &[("", "s", expected("1000"))], &[("a", 1.0), ("b", 1.0), ("c", 0.0)]);
    let json = trace(KindName::Json, &[Some(r#"{"a":1,"b":[2]}"#), Some(r#"{"a":2}"#)]);
    credits(&json, &[("", "s", expected(r#"{ "b": [2.0], "a": 1 }"#))], &[("a", 1.0), ("b", 0.0)]);
    let long = format!("it is {}", "very ".repeat(60));
    let long: &'static str = long.leak();
    let text = trace(KindName::Text, &[Some(long), Some("no")]);
    credits(&text, &[("", "s", expected(long))], &[("a", 1.0), ("b", 0.0)]);
    let label = trace_of_long_label(long);
    credits(&label, &[("", "s", expected(long))], &[("a", 1.0), ("b", 0.0)]);
}

fn trace_of_long_label(long: &str) -> Arc<Trace> {
    trace(KindName::Label, &[Some(long), Some("no")])
}

#[test]
fn a_verdict_on_a_model_overrides_that_on_the_answer() {
    let trace = trace(KindName::Label, &[Some("B"), Some("B"), Some("C")]);
    credits(&trace, &[("", "s", right()), ("a", "s", wrong())], &[("a", 0.0), ("b", 1.0)]);
    credits(&trace, &[("c", "s", right())], &[("c", 1.0)]);
    credits(&trace, &[("c", "s", expected("c")), ("", "t", expected("b"))], &[("a", 1.0), ("b", 1.0), ("c", 1.0)]);
}

#[test]
fn sources_are_averaged_and_the_latest_of_each_counts() {
    let trace = trace(KindName::Label, &[Some("B"), Some("B"), Some("C")]);
    credits(&trace, &[("", "s", right()), ("", "t", wrong())], &[("a", 0.5), ("b", 0.5)]);
    credits(&trace, &[("", "s", right()), ("", "s", wrong())], &[("a", 0.0), ("b", 0.0)]);
    credits(&trace, &[("", "s", right()), ("", "t", expected("C"))], &[("a", 0.5), ("b", 0.5), ("c", 1.0)]);
    credits(&trace, &[("", "s", expected("C")), ("", "s", right())], &[("a", 1.0), ("b", 1.0)]);
}

#[test]
fn a_member_that_did_not_answer_is_unknown_and_one_that_answered_badly_is_wrong() {
    let number = trace(KindName::Number, &[Some("7"), None, Some("seven")]);
    credits(&number, &[("", "s", expected("7"))], &[("a", 1.0), ("c", 0.0)]);
    credits(&number, &[("", "s", wrong())], &[("a", 0.0)]);
    // Nobody's reply was an answer: whoever replied is wrong, whoever did not is unknown.
    let unusable = trace(KindName::Number, &[Some("seven"), None]);
    assert_eq!((unusable.status, unusable.answer.is_none()), (TraceStatus::Failed, true));
    credits(&unusable, &[("", "s", expected("7"))], &[("a", 0.0)]);
    let failed = trace(KindName::Number, &[None]);
    credits(&failed, &[("", "s", expected("7"))], &[]);
    credits(&failed, &[("", "s", wrong())], &[]);
}

/// Bad feedback names this field.
fn refuses_with(trace: &Trace, raw: RawFeedback, field: &str, problem: fn(&Problem) -> bool) {
    let refused = check(raw).and_then(|feedback| judge(trace, &feedback, SECRET).map(|_| ())).unwrap_err();
    let [fault] = refused.faults.as_slice() else { panic!("{refused}") };
    assert_eq!(fault.field, field);
    assert!(problem(&fault.problem), "{refused}");
}

#[test]
fn bad_feedback_names_its_field() {
    let trace = trace(KindName::Number, &[Some("7"), None]);
    let malformed = |p: &Problem| matches!(p, Problem::Malformed { .. });
    let out = |p: &Problem| matches!(p, Problem::OutOfRange { .. });
    let missing = |p: &Problem| *p == Problem::Missing;
    for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        refuses_with(&trace, raw(&trace, "", "s", score(bad)), "feedback.score", out);
    }
    refuses_with(&trace, raw(&trace, "", "s", RawVerdict::Missing), "feedback.verdict", missing);
    refuses_with(&trace, raw(&trace, "", "s", expected(" \n")), "feedback.expected", missing);
    refuses_with(&trace, raw(&trace, "", "s", expected("seven")), "feedback.expected", malformed);
    refuses_with(&trace, raw(&trace, "zz", "s", right()), "feedback.model", malformed);
    refuses_with(&trace, raw(&trace, "b", "s", expected("7")), "feedback.expected", malformed);
    refuses_with(&trace, raw(&trace, "", &"s".repeat(129), right()), "feedback.source", out);
    let id = RawFeedback { decision_id: "7".into(), ..raw(&trace, "", "s", right()) };
    refuses_with(&trace, id, "feedback.decision_id", malformed);
    let comment = RawFeedback { comment: "c".repeat(4_097), ..raw(&trace, "", "s", right()) };
    refuses_with(&trace, comment, "feedback.comment", out);
    let all = RawFeedback {
        decision_id: String::new(),
        verdict: score(2.0),
        ..raw(&trace, "", &"s".repeat(200), right())
    };
    assert_eq!(check(all).unwrap_err().faults.len(), 3);
}

#[test]
fn what_nobody_reported_cannot_be_compared_but_judged() {
    let trace = paused(async {
        let stand = Setup::of([model("a", "x")]).build();
        stand.router.decide(RouteRequest { kind: KindName::Label, ..ask("q") }, Metering::Hold).await.unwrap()
    });
    credits(&trace, &[("", "s", right())], &[("a", 1.0)]);
    credits(&trace, &[("", "s", score(0.5))], &[("a", 0.5)]);
    let malformed = |p: &Problem| matches!(p, Problem::Malformed { .. });
    refuses_with(&trace, raw(&trace, "", "s", expected("x")), "feedback.expected", malformed);
    refuses_with(&trace, raw(&trace, "a", "s", expected("x")), "feedback.expected", malformed);
    // Kept from before it was refused: it teaches nothing.
    let verdict = Verdict::Expected(pointsman_router::normal::NormalForm::Clear("x".into()));
    let entry = Entry { seq: 1, model: None, source: String::new(), verdict, score: 0.0 };
    assert!(labels(&trace, &[entry], SECRET).is_empty());
}

#[test]
fn a_cancelled_request_teaches_nothing_by_its_missing_answer() {
    let trace = paused(async {
        let stand = Setup::of([model("a", "").always(Step::Never)]).build();
        let route = stand.router.route(ask("q"), &Unwatched);
        assert!(tokio::time::timeout(ms(100), route).await.is_err());
        stand.traced().pop().unwrap()
    });
    assert_eq!(trace.status, TraceStatus::Cancelled);
    credits(&trace, &[("", "s", wrong())], &[]);
    credits(&trace, &[("a", "s", wrong())], &[("a", 0.0)]);
}

#[test]
fn scores_alone_are_credited_to_the_heaviest() {
    let trace = paused(async {
        let silent = Step::After(ms(1), Ok(Reply::default()));
        let models = ["a", "b"].map(|name| model(name, "").always(silent.clone()));
        let stand = Setup::of(models).policy(listed(&NAMES)).build();
        stand.route(RouteRequest { calls_max: Some(2), ..ask("q") }).await.unwrap()
    });
    let heaviest = trace.answer.as_ref().unwrap().heaviest().unwrap().model.clone();
    assert_eq!(labels_of(&trace, right()), BTreeMap::from([(heaviest, 1.0)]));
    let malformed = |p: &Problem| matches!(p, Problem::Malformed { .. });
    refuses_with(&trace, raw(&trace, "", "s", expected("x")), "feedback.expected", malformed);
}

fn labels_of(trace: &Trace, verdict: RawVerdict) -> BTreeMap<ModelName, f64> {
    let feedback = check(raw(trace, "", "s", verdict)).unwrap();
    let (verdict, score) = judge(trace, &feedback, SECRET).unwrap();
    labels(trace, &[Entry { seq: 1, model: None, source: "s".into(), verdict, score }], SECRET)
}
