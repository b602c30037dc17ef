//! Replies and events, made from the very trace that is stored.
//!
//! What a caller is told and what was logged cannot differ, since both are read off one
//! [`Trace`]. Raw texts of the models go out only to a caller that asked for them.

use pointsman_proto::v1;
use pointsman_router::clock::Timestamp;
use pointsman_router::model::Pool;
use pointsman_router::outcome::Outcome;
use pointsman_router::progress::Event;
use pointsman_router::trace::Trace;

use super::{answer, decision, outcome, span, timestamp};

/// The reply of Route.
#[must_use]
pub fn route(trace: &Trace, explain: bool) -> v1::RouteResponse {
    v1::RouteResponse {
        decision_id: trace.decision.id.to_string(),
        answer: trace.answer.as_ref().map(|a| answer::to_reply(a, trace.kind)),
        decision: Some(decision::to_wire(&trace.decision)),
        attempts: trace.attempts.iter().map(outcome::attempt_to_wire).collect(),
        cost_usd_micros: trace.bill.settled.micros_rounded_up(),
        cost_usd_nanos: trace.bill.settled.nanos(),
        latency_us: i64::try_from(trace.total_us).unwrap_or(i64::MAX),
        replayed: false,
        model_answers: if explain { model_answers(trace) } else { Vec::new() },
        decide_us: i64::try_from(trace.decide_us).unwrap_or(i64::MAX),
        unknown_usd_nanos: trace.bill.unknown.nanos(),
    }
}

/// What each model said, in the order of their contributions, then those that contributed nothing.
fn model_answers(trace: &Trace) -> Vec<v1::ModelAnswer> {
    let place = |o: &Outcome| {
        let contributions = trace.answer.iter().flat_map(|a| &a.contributions);
        contributions.take_while(|c| c.model != o.model).count()
    };
    let mut said: Vec<&Outcome> = trace.outcomes.iter().filter(|o| o.text.is_some()).collect();
    said.sort_by_key(|o| place(o));
    said.into_iter()
        .filter_map(|o| Some(v1::ModelAnswer { model: o.model.as_str().to_owned(), text: o.text.clone()? }))
        .collect()
}

/// The reply of Decide. A model that was removed since is listed with its name and hold alone.
#[must_use]
pub fn decide(
    trace: &Trace,
    pool: &Pool,
    output_tokens_max: Option<u32>,
    report_by: Option<Timestamp>,
) -> v1::DecideResponse {
    let call = |name: &str| {
        let card = pool.get(name).map(|model| &model.card);
        v1::PlannedCall {
            model: name.to_owned(),
            backend: card.map(|c| c.backend.to_string()).unwrap_or_default(),
            upstream: card.map(|c| c.upstream.to_string()).unwrap_or_default(),
            output_tokens_max: card
                .map(|c| c.output_cap(output_tokens_max))
                .or(output_tokens_max)
                .unwrap_or_default(),
            timeout: card.map(|c| span(c.timeout)),
        }
    };
    v1::DecideResponse {
        decision_id: trace.decision.id.to_string(),
        decision: Some(decision::to_wire(&trace.decision)),
        calls: trace.decision.chosen().map(|c| call(c.model.as_str())).collect(),
        hold_usd_nanos: trace.hold.as_ref().map(|hold| hold.amount.nanos()).unwrap_or_default(),
        report_by: report_by.map(timestamp),
        decide_us: i64::try_from(trace.decide_us).unwrap_or(i64::MAX),
    }
}

/// An event on the way, told at a moment.
#[must_use]
pub fn event(event: Event, now: Timestamp) -> v1::route_stream_response::Event {
    use v1::route_stream_response::Event as Wire;
    match event {
        Event::Admitted(id) => {
            Wire::Admitted(v1::RouteAdmitted { admitted_at: Some(timestamp(now)), decision_id: id.to_string() })
        }
        Event::Decided(chosen) => Wire::Decided(v1::RouteDecided { decision: Some(decision::to_wire(&chosen)) }),
        Event::AttemptStarted { id, model, try_number } => Wire::AttemptStarted(v1::AttemptStarted {
            attempt_id: id.to_string(),
            model: model.into(),
            try_number,
            started_at: Some(timestamp(now)),
        }),
        Event::AttemptFinished(attempt) => {
            Wire::AttemptFinished(v1::AttemptFinished { attempt: Some(outcome::attempt_to_wire(&attempt)) })
        }
        Event::Provisional { answer, kind, outcomes_in, awaited } => {
            Wire::ProvisionalAnswer(v1::ProvisionalAnswer {
                answer: Some(answer::to_reply(&answer, kind)),
                outcomes_in: u32::try_from(outcomes_in).unwrap_or(u32::MAX),
                outcomes_awaited: u32::try_from(awaited).unwrap_or(u32::MAX),
            })
        }
    }
}
