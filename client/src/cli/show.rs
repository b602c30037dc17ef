//! Decisions, attempts, answers and traces as text for people.

use pointsman_client::v1;

use super::tables::{
    Look, NONE, excerpt, latency, latency_or_none, or_none, score, score_or_none, time, usd_of_nanos, word, yes,
};

/// The longest answer or prompt that is shown in a table, in letters.
const CELL_LETTERS_MAX: usize = 60;

/// A whole reply of Route.
pub(crate) fn route(look: &Look, response: &v1::RouteResponse) -> String {
    let mut text = String::new();
    if let Some(found) = &response.answer {
        text += &answer(look, found);
    }
    if let Some(decision) = &response.decision {
        text += "\n";
        text += &self::decision(look, decision);
    }
    if !response.attempts.is_empty() {
        text += "\n";
        text += &attempts(look, &response.attempts);
    }
    for said in &response.model_answers {
        text += &format!("\n--- {} said:\n{}\n", said.model, said.text);
    }
    text += "\n";
    text += &look.pairs(&[
        ("decision", response.decision_id.clone()),
        ("cost", usd_of_nanos(response.cost_usd_nanos)),
        ("latency", latency(response.latency_us)),
        ("replayed", if response.replayed { "yes, nothing was called again".to_owned() } else { String::new() }),
    ]);
    text
}

/// A merged answer: the value first, on lines of its own, then how sure it is and who said so.
pub(crate) fn answer(look: &Look, answer: &v1::Answer) -> String {
    let mut text = format!("{}\n\n", answer.value);
    let mut sure = score(answer.confidence);
    if answer.calibrated {
        sure += ", calibrated on feedback";
    }
    if answer.below_threshold {
        sure += ", BELOW the threshold";
    }
    let names = |agrees: bool| {
        let side = answer.contributions.iter().filter(|contribution| contribution.agrees == agrees);
        side.map(|contribution| format!("{} ({:.2})", contribution.model, contribution.weight))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let others = answer
        .dissent
        .iter()
        .map(|dissent| format!("{} ({})", excerpt(&dissent.value, CELL_LETTERS_MAX), dissent.models.join(", ")))
        .collect::<Vec<_>>();
    text += &look.pairs(&[
        ("confidence", sure),
        ("from", names(true)),
        ("not agreeing", names(false)),
        ("other answers", others.join("; ")),
    ]);
    text
}

/// A decision: why, and every candidate with its scores.
pub(crate) fn decision(look: &Look, decision: &v1::Decision) -> String {
    let inferred = if decision.task_type_inferred { " (inferred)" } else { "" };
    let kind = word(decision.policy_kind().as_str_name(), "POLICY_KIND_");
    let mut text = look.pairs(&[
        ("why", decision.why.clone()),
        ("policy", format!("{kind}, {}", decision.policy_version)),
        ("task type", format!("{}{inferred}", decision.task_type)),
        ("subset drawn with", format!("probability {}", score(decision.set_propensity))),
    ]);
    let rows = decision.candidates.iter().map(candidate).collect();
    text += &look.table(
        &[
            "model",
            "chosen",
            ">quality",
            ">cost",
            ">latency p95",
            ">utility",
            ">picked first",
            ">in the subset",
            "why not",
        ],
        rows,
    );
    text
}

fn candidate(candidate: &v1::Candidate) -> Vec<String> {
    let why_not = if candidate.eligible {
        String::new()
    } else {
        word(candidate.ineligible_reason().as_str_name(), "INELIGIBLE_REASON_")
    };
    vec![
        candidate.model.clone(),
        if candidate.chosen { "yes" } else { "" }.to_owned(),
        score_or_none(candidate.quality),
        candidate.cost_usd_nanos.map_or_else(|| NONE.to_owned(), usd_of_nanos),
        latency_or_none(candidate.latency_p95_us),
        score_or_none(candidate.utility),
        score(candidate.pick_propensity),
        score(candidate.inclusion_propensity),
        why_not,
    ]
}

/// Attempts as a table.
pub(crate) fn attempts(look: &Look, attempts: &[v1::Attempt]) -> String {
    let rows = attempts.iter().map(|attempt| {
        let billed = word(attempt.billed().as_str_name(), "BILLING_");
        vec![
            attempt.model.clone(),
            attempt.try_number.to_string(),
            word(attempt.status().as_str_name(), "ATTEMPT_STATUS_"),
            attempt.tokens_in.to_string(),
            attempt.tokens_out.to_string(),
            usd_of_nanos(attempt.cost_usd_nanos),
            billed,
            latency(attempt.latency_us),
            excerpt(&attempt.error, CELL_LETTERS_MAX),
        ]
    });
    look.table(
        &["attempt", ">try", "status", ">tokens in", ">tokens out", ">cost", "billed", ">latency", "error"],
        rows.collect(),
    )
}

/// The calls that a Decide caller is to make.
pub(crate) fn decided(look: &Look, response: &v1::DecideResponse) -> String {
    let mut text = response.decision.as_ref().map_or_else(String::new, |decision| self::decision(look, decision));
    let rows = response.calls.iter().map(|call| {
        let timeout = call.timeout.as_ref();
        vec![
            call.model.clone(),
            call.backend.clone(),
            call.upstream.clone(),
            call.output_tokens_max.to_string(),
            timeout.map_or_else(|| NONE.to_owned(), ToString::to_string),
        ]
    });
    text += "\n";
    text += &look.table(&["call", "backend", "upstream", ">output tokens", ">timeout"], rows.collect());
    text += "\n";
    text += &look.pairs(&[
        ("decision", response.decision_id.clone()),
        ("held", usd_of_nanos(response.hold_usd_nanos)),
        ("report by", time(response.report_by.as_ref())),
    ]);
    text
}

/// Traces as a table.
pub(crate) fn traces(look: &Look, response: &v1::ListTracesResponse) -> String {
    let rows = response.traces.iter().map(|trace| {
        let decision = trace.decision.clone().unwrap_or_default();
        let chosen = decision.candidates.iter().filter(|found| found.chosen);
        let models: Vec<_> = chosen.map(|found| found.model.as_str()).collect();
        vec![
            time(trace.admitted_at.as_ref()),
            decision.decision_id.clone(),
            word(trace.status().as_str_name(), "REQUEST_STATUS_"),
            decision.task_type.clone(),
            models.join(", "),
            trace.answer.as_ref().map_or_else(|| NONE.to_owned(), |answer| normal(answer.value.as_ref())),
            score_or_none(trace.answer.as_ref().map(|answer| answer.confidence)),
            usd_of_nanos(trace.cost_usd_nanos),
            score_or_none(judged(trace)),
        ]
    });
    let mut text = look.table(
        &["admitted", "decision", "status", "task type", "models", "answer", ">confidence", ">cost", ">feedback"],
        rows.collect(),
    );
    if !response.next_page_token.is_empty() {
        text += &format!("more: --page {}\n", response.next_page_token);
    }
    text
}

/// One trace.
pub(crate) fn trace(look: &Look, trace: &v1::Trace) -> String {
    let mut text = look.pairs(&[
        ("status", word(trace.status().as_str_name(), "REQUEST_STATUS_")),
        ("admitted", time(trace.admitted_at.as_ref())),
        ("caller ref", trace.caller_ref.clone()),
        ("tags", trace.tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")),
        ("cost", usd_of_nanos(trace.cost_usd_nanos)),
    ]);
    if let Some(decision) = &trace.decision {
        text += &self::decision(look, decision);
    }
    if let Some(answer) = &trace.answer {
        text += "\n";
        text += &look.pairs(&[
            ("answer", normal(answer.value.as_ref())),
            ("confidence", score(answer.confidence)),
            ("below threshold", yes(answer.below_threshold)),
        ]);
    }
    if !trace.attempts.is_empty() {
        text += "\n";
        text += &attempts(look, &trace.attempts);
    }
    if !trace.feedback.is_empty() {
        text += "\n";
        text += &entries(look, &trace.feedback);
    }
    if let Some(content) = &trace.content {
        text += &format!(
            "\nprompt: {}\nanswer: {}\n",
            content.request.as_ref().map_or("", |request| request.prompt.as_str()),
            content.answer()
        );
    }
    text
}

fn entries(look: &Look, feedback: &[v1::FeedbackEntry]) -> String {
    let rows = feedback.iter().map(|entry| {
        vec![
            entry.sequence.to_string(),
            time(entry.received_at.as_ref()),
            if entry.model.is_empty() { "(answer)".to_owned() } else { entry.model.clone() },
            score(entry.score),
            or_none(&entry.source),
            match entry.corrected_by_sequence {
                0 => String::new(),
                by => format!("by {by}"),
            },
            excerpt(&entry.comment, CELL_LETTERS_MAX),
        ]
    });
    look.table(&[">feedback", "received", "judged", ">score", "source", "corrected", "comment"], rows.collect())
}

/// The score of the last feedback on the answer that still counts.
fn judged(trace: &v1::Trace) -> Option<f64> {
    let counting = |entry: &&v1::FeedbackEntry| entry.corrected_by_sequence == 0;
    let mut found = trace.feedback.iter().rev().filter(counting);
    let of_answer = found.clone().find(|entry| entry.model.is_empty());
    of_answer.or_else(|| found.next()).map(|entry| entry.score)
}

/// A stored answer, as far as it can be read.
fn normal(answer: Option<&v1::NormalAnswer>) -> String {
    match answer.and_then(|answer| answer.form.as_ref()) {
        None => NONE.to_owned(),
        Some(v1::normal_answer::Form::Clear(text)) => excerpt(text, CELL_LETTERS_MAX),
        Some(v1::normal_answer::Form::Number(number)) => number.to_string(),
        Some(v1::normal_answer::Form::KeyedHash(hash)) => {
            let start: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            format!("(hash {start})")
        }
    }
}
