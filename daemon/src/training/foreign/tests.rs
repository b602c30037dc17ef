//! Traces of other systems and installations.

use super::*;
use crate::store::traces::support::sample;
use crate::wire::trace::{Kept, to_wire};

fn encoder() -> Encoder {
    Encoder::new(5)
}

/// What another system's log has at least.
fn bare_log(prompt: &str) -> v1::Trace {
    let outcome = |model: &str| v1::Outcome {
        model: model.to_owned(),
        replied: true,
        cost_usd_nanos: 70,
        ..v1::Outcome::default()
    };
    v1::Trace {
        format: 1,
        caller_ref: "row-1".to_owned(),
        admitted_at: Some(WireTime { seconds: 1_700_000_000, nanos: 0 }),
        outcomes: vec![outcome("a")],
        content: Some(v1::TraceContent {
            request: Some(v1::RequestSpec { prompt: prompt.to_owned(), ..Default::default() }),
            ..Default::default()
        }),
        feedback: vec![v1::FeedbackEntry {
            model: "a".to_owned(),
            given: Some(v1::feedback_entry::Given::Correct(true)),
            score: 1.0,
            ..Default::default()
        }],
        ..v1::Trace::default()
    }
}

#[test]
fn a_log_of_another_system_is_completed_and_encoded_here() {
    let foreign = read(bare_log("which clause ends it?"), &encoder(), Whose::Ours).unwrap();
    let trace = &foreign.trace;
    assert_eq!(trace.features.schema, encoder().schema());
    assert!(!trace.features.text.is_empty() && trace.decision.task.inferred);
    assert_eq!(trace.decision.chosen().map(|c| c.model.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(trace.decision.set_propensity.to_bits(), 0);
    assert_eq!(foreign.feedback[0].0.seq, 1);
    let id = |log: v1::Trace| read(log, &encoder(), Whose::Ours).unwrap().trace.decision.id;
    assert_eq!(id(bare_log("x")), trace.decision.id);
    assert_ne!(id(v1::Trace { caller_ref: "row-2".into(), ..bare_log("x") }), trace.decision.id);
    assert!(trace.decision.id.to_string().chars().nth(14) == Some('7'), "{}", trace.decision.id);
}

#[test]
fn what_this_installation_made_comes_back_as_it_was() {
    let mut trace = sample(3);
    let features = Features { schema: encoder().schema(), ..(*trace.features).clone() };
    trace.features = features.into();
    let message = to_wire(&trace, Kept { content: false, secret: 5 });
    let foreign = read(message.clone(), &encoder(), Whose::Ours).unwrap();
    assert_eq!(to_wire(&foreign.trace, Kept { content: false, secret: 5 }), message);
}

#[test]
fn what_cannot_be_told_is_a_fault_with_its_field() {
    let check = |spoil: &dyn Fn(&mut v1::Trace), expected: &dyn Fn(&ForeignFault) -> bool| {
        let mut log = bare_log("x");
        spoil(&mut log);
        let fault = read(log, &encoder(), Whose::Ours).unwrap_err();
        assert!(expected(&fault), "{fault:?}");
    };
    let missing = |wanted: &'static str| move |fault: &ForeignFault| matches!(fault, ForeignFault::Missing { field } if *field == wanted);
    check(&|log| log.format = 0, &missing("trace.format"));
    check(&|log| log.format = 2, &|fault| matches!(fault, ForeignFault::Format { found: 2 }));
    check(&|log| log.admitted_at = None, &missing("trace.admitted_at"));
    check(&|log| log.caller_ref.clear(), &missing("trace.decision.decision_id"));
    check(&|log| log.outcomes.clear(), &missing("trace.decision.candidates"));
    check(&|log| log.content = None, &|fault| matches!(fault, ForeignFault::Schema { found: 0, .. }));
    check(&|log| log.feedback[0].given = None, &|fault| matches!(fault, ForeignFault::Wire(_)));
    let empty = |log: &mut v1::Trace| log.content.as_mut().unwrap().request = Some(v1::RequestSpec::default());
    check(&empty, &|fault| matches!(fault, ForeignFault::Request { .. }));
    let other = to_wire(&sample(1), Kept { content: false, secret: 0 });
    assert!(matches!(read(other.clone(), &encoder(), Whose::Ours), Err(ForeignFault::Schema { found: 11, .. })));
    assert!(read(other, &encoder(), Whose::Any).is_ok());
}

/// The least that teaches, as the client's guide shows it.
#[test]
fn the_example_of_the_guide_is_taken_in() {
    let guide = include_str!("../../../../client/README.md");
    let example = guide.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let message: v1::Trace = crate::wire::json::read(example.replace('\n', " ").as_bytes()).unwrap();
    let taken = read(message, &encoder(), Whose::Ours).unwrap();
    let (entry, _) = &taken.feedback[0];
    assert_eq!(
        (entry.model.as_ref().map(|m| m.as_str()), entry.score.to_bits()),
        (Some("model-a"), 1f64.to_bits())
    );
}
