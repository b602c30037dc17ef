//! `route`, `decide`, `report`: from flags to a request, and the reply back.

use std::time::Duration;

use pointsman_client::v1;
use serde::Deserialize;

use super::args::{DecideArgs, ReportArgs, RequestArgs, RouteArgs};
use super::exit::Exit;
use super::input::{self, InputFault, flag};
use super::session::Session;
use super::tables::{Look, excerpt, latency, percent, usd_of_nanos, word};
use super::{json, learn, parse, show};

/// The longest piece of text shown for an event, in letters.
const EVENT_LETTERS_MAX: usize = 100;

/// Asks, and prints the answer.
pub(crate) async fn route(session: &Session, args: RouteArgs) -> anyhow::Result<Exit> {
    let request = route_request(args.request, args.idempotency_key, args.explain)?;
    if args.stream {
        return route_stream(session, request).await;
    }
    let response = session.call("asking", session.client.route(request)).await?;
    session.reply(&response, show::route)?;
    Ok(Exit::Ok)
}

async fn route_stream(session: &Session, request: v1::RouteRequest) -> anyhow::Result<Exit> {
    let request = v1::RouteStreamRequest {
        request: request.request,
        idempotency_key: request.idempotency_key,
        explain: request.explain,
    };
    let mut events = session.call("asking", session.client.route_stream(request)).await?;
    while let Some(event) = session.call("waiting for the next event", events.next()).await? {
        session.reply(&event, event_text)?;
    }
    Ok(Exit::Ok)
}

/// Chooses only, and prints the calls to make.
pub(crate) async fn decide(session: &Session, args: DecideArgs) -> anyhow::Result<Exit> {
    let request = decide_request(args)?;
    let response = session.call("deciding", session.client.decide(request)).await?;
    session.reply(&response, show::decided)?;
    Ok(Exit::Ok)
}

/// Reports outcomes, and prints what became of them; without a decision, prints the learning report.
pub(crate) async fn report(session: &Session, args: ReportArgs) -> anyhow::Result<Exit> {
    if args.decision.is_none() {
        return learn::report(session, args.alerts, args.audit).await;
    }
    let request = report_request(args)?;
    let response = session.call("reporting", session.client.report_outcomes(request)).await?;
    session.reply(&response, report_text)?;
    Ok(Exit::Ok)
}

fn route_request(
    args: RequestArgs,
    idempotency_key: Option<String>,
    explain: bool,
) -> Result<v1::RouteRequest, InputFault> {
    Ok(v1::RouteRequest {
        request: Some(spec(args)?),
        idempotency_key: idempotency_key.unwrap_or_default(),
        explain,
    })
}

fn decide_request(args: DecideArgs) -> Result<v1::DecideRequest, InputFault> {
    let report_within = args.report_within.map(parse::wire_duration).transpose();
    Ok(v1::DecideRequest {
        request: Some(spec(args.request)?),
        hold: args.hold.wire().into(),
        report_within: report_within.map_err(|why| flag("--report-within", why))?,
    })
}

/// Every field of the request, out of its flag.
fn spec(args: RequestArgs) -> Result<v1::RequestSpec, InputFault> {
    let messages = args.messages.as_deref().map(turns).transpose()?;
    let prompt = match messages {
        Some(_) => String::new(),
        None => input::text_or_stdin(args.prompt.as_deref(), "PROMPT")?,
    };
    let embedding = match args.embedding {
        None => Vec::new(),
        Some(numbers) => parse::numbers(&input::text(&numbers)?).map_err(|why| flag("--embedding", why))?,
    };
    Ok(v1::RequestSpec {
        prompt,
        messages: messages.unwrap_or_default(),
        answer_kind: args.kind.wire().into(),
        task_type: args.task_type,
        tags: args.tags.into_iter().collect(),
        embedding,
        max_cost_usd_micros: args.max_cost_usd_micros,
        answer_value_usd_micros: args.answer_value_usd_micros,
        output_tokens_max: args.output_tokens_max,
        quality_threshold: args.quality_threshold,
        calls_max: args.calls_max,
        labels: args.labels,
        number_tolerance: args.number_tolerance,
        answer_pattern: args.answer_pattern.unwrap_or_default(),
        json_schema: optional_text(args.json_schema)?,
        system: optional_text(args.system)?,
        temperature: args.temperature,
        stop: args.stop,
        models_allowed: args.models_allowed,
        models_denied: args.models_denied,
        caller_ref: args.caller_ref.unwrap_or_default(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: Speaker,
    text: String,
}

#[derive(Deserialize)]
enum Speaker {
    #[serde(rename = "user", alias = "ROLE_USER")]
    User,
    #[serde(rename = "assistant", alias = "ROLE_ASSISTANT")]
    Assistant,
}

fn turns(argument: &str) -> Result<Vec<v1::ChatMessage>, InputFault> {
    let turns: Vec<Turn> =
        serde_json::from_str(&input::text(argument)?).map_err(|error| flag("--messages", error.to_string()))?;
    let turns = turns.into_iter().map(|turn| {
        let role = match turn.role {
            Speaker::User => v1::Role::User,
            Speaker::Assistant => v1::Role::Assistant,
        };
        v1::ChatMessage { role: role.into(), text: turn.text }
    });
    Ok(turns.collect())
}

fn optional_text(argument: Option<String>) -> Result<String, InputFault> {
    argument.map_or_else(|| Ok(String::new()), |argument| input::text(&argument))
}

fn report_request(args: ReportArgs) -> Result<v1::ReportOutcomesRequest, InputFault> {
    let mut outcomes = match &args.lines {
        None => Vec::new(),
        Some(path) => input::each_line(path, |line| json::read(line).map_err(|error| format!("{error:#}")))?,
    };
    if let Some(model) = args.model {
        outcomes.push(v1::ReportedOutcome {
            model,
            status: args.status.wire().into(),
            answer: optional_text(args.answer)?,
            self_confidence: args.self_confidence,
            tokens_in: args.tokens_in.unwrap_or_default(),
            tokens_out: args.tokens_out.unwrap_or_default(),
            cost_usd_nanos: args.cost_usd,
            latency_us: args.latency.map(micros),
            error: args.error.unwrap_or_default(),
            truncated: args.truncated,
            started_at: args.started_at,
        });
    }
    if outcomes.is_empty() && !args.is_final {
        return Err(flag("report", "nothing to report; give --model, --lines or --final"));
    }
    Ok(v1::ReportOutcomesRequest {
        decision_id: args.decision.unwrap_or_default(),
        outcomes,
        r#final: args.is_final,
    })
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn event_text(look: &Look, response: &v1::RouteStreamResponse) -> String {
    use v1::route_stream_response::Event;
    let done = percent(response.progress);
    match &response.event {
        // An event of a newer daemon.
        None => String::new(),
        Some(Event::Admitted(_)) => format!("{done:>5}  admitted\n"),
        Some(Event::Decided(decided)) => {
            let why = decided.decision.as_ref().map_or("", |found| &found.why);
            format!("{done:>5}  decided: {why}\n")
        }
        Some(Event::AttemptStarted(started)) => {
            format!("{done:>5}  calling {}\n", started.model)
        }
        Some(Event::TokenDelta(delta)) => {
            let piece = excerpt(&delta.text, EVENT_LETTERS_MAX);
            format!("{done:>5}  {}: {piece}\n", delta.model)
        }
        Some(Event::AttemptFinished(finished)) => {
            let attempt = finished.attempt.clone().unwrap_or_default();
            let status = word(attempt.status().as_str_name(), "ATTEMPT_STATUS_");
            let took = latency(attempt.latency_us);
            format!("{done:>5}  {} ended: {status}, {took}\n", attempt.model)
        }
        Some(Event::ProvisionalAnswer(answer)) => {
            let value = answer.answer.as_ref().map_or("", |found| &found.value);
            let so_far = excerpt(value, EVENT_LETTERS_MAX);
            format!("{done:>5}  so far: {so_far}\n")
        }
        Some(Event::Final(last)) => last
            .response
            .as_ref()
            .map_or_else(String::new, |response| format!("{done:>5}  done\n\n{}", show::route(look, response))),
    }
}

fn report_text(look: &Look, response: &v1::ReportOutcomesResponse) -> String {
    let rows = response.acks.iter().map(|ack| {
        let status = word(ack.status().as_str_name(), "REPORT_STATUS_");
        vec![ack.model.clone(), status]
    });
    let mut text =
        if response.acks.is_empty() { String::new() } else { look.table(&["model", "report"], rows.collect()) };
    if let Some(answer) = &response.answer {
        text += &show::answer(look, answer);
    }
    let settled = if response.settled { "yes" } else { "no, not final" };
    text += &look.pairs(&[
        ("settled", settled.to_owned()),
        ("cost so far", usd_of_nanos(response.cost_usd_nanos)),
        ("not reported", response.models_missing.join(", ")),
    ]);
    text
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
