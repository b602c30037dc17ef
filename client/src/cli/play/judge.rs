//! Was a reply right, and what is told to the daemon about it. Pure.
//!
//! Two judges that must not be mixed: the daemon judges `expected` feedback by its own equality and learns from that;
//! the accuracy that `play` prints is its own, so that it does not take the daemon's word for it.
//!
//! The accuracy of a reply is the recorded score of the called model when one was called. When several were, it is
//! the equality of the merged answer with gold, without regard to case and outer space; without gold, the recorded score
//! of the heaviest model. A reply that none of these fits is not judged.

use pointsman_client::v1;
use pointsman_client::v1::feedback::Verdict;

use super::workload::Row;

/// Who judges, as the daemon keeps it.
pub(crate) const SOURCE: &str = "play";

/// The models that were called, the heaviest first.
pub(crate) fn called(response: &v1::RouteResponse) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let weighed = response.answer.iter().flat_map(|answer| &answer.contributions);
    let weighed = weighed.map(|contribution| &contribution.model);
    let sent = response.attempts.iter().map(|attempt| &attempt.model);
    for name in weighed.chain(sent) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// How right the reply is, 0 to 1.
pub(crate) fn score(row: &Row, response: &v1::RouteResponse) -> Option<f64> {
    let called = called(response);
    let heaviest = called.first().and_then(|model| row.score_of(model));
    if called.len() == 1 && heaviest.is_some() {
        return heaviest;
    }
    let value = response.answer.as_ref().map_or("", |answer| &answer.value);
    match row.gold() {
        Some(gold) if !value.is_empty() => Some(f64::from(u8::from(equal(gold, value)))),
        Some(_) | None => heaviest,
    }
}

/// What is fed back about a reply.
pub(crate) fn feedback(row: &Row, response: &v1::RouteResponse) -> Vec<v1::Feedback> {
    let value = response.answer.as_ref().map_or("", |answer| &answer.value);
    if let Some(gold) = row.gold()
        && !value.is_empty()
    {
        let verdict = Verdict::Expected(gold.to_owned());
        return vec![about(&response.decision_id, "", verdict)];
    }
    scores(row, &response.decision_id, &called(response))
}

/// What is fed back about a request in which no model gave an answer that could vote: the recorded score of every
/// model that replied; a model without one gave no answer to a question that has one, which is wrong.
pub(crate) fn feedback_of_failed(row: &Row, trace: &v1::Trace) -> Vec<v1::Feedback> {
    let Some(decision) = &trace.decision else {
        return Vec::new();
    };
    let replied = trace.outcomes.iter().filter(|outcome| outcome.replied);
    replied
        .filter_map(|outcome| {
            let unusable = row.gold().map(|_| 0.0);
            let score = row.score_of(&outcome.model).or(unusable)?;
            let verdict = Verdict::Score(score);
            Some(about(&decision.decision_id, &outcome.model, verdict))
        })
        .collect()
}

fn scores(row: &Row, decision_id: &str, models: &[String]) -> Vec<v1::Feedback> {
    models
        .iter()
        .filter_map(|model| {
            let score = row.score_of(model)?;
            Some(about(decision_id, model, Verdict::Score(score)))
        })
        .collect()
}

fn about(decision_id: &str, model: &str, verdict: Verdict) -> v1::Feedback {
    v1::Feedback {
        decision_id: decision_id.to_owned(),
        model: model.to_owned(),
        verdict: Some(verdict),
        source: SOURCE.to_owned(),
        comment: String::new(),
    }
}

fn equal(gold: &str, value: &str) -> bool {
    gold.trim().to_lowercase() == value.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(gold: Option<&str>, scores: &[(&str, f64)]) -> Row {
        let outcomes: serde_json::Map<_, _> = scores
            .iter()
            .map(|(model, score)| ((*model).to_owned(), serde_json::json!({ "score": score })))
            .collect();
        serde_json::from_value(serde_json::json!({
            "id": "r", "prompt": "p", "gold": gold, "outcomes": outcomes
        }))
        .expect("is a row")
    }

    fn reply(value: &str, models: &[&str]) -> v1::RouteResponse {
        let contributions = models
            .iter()
            .map(|model| v1::Contribution { model: (*model).to_owned(), ..v1::Contribution::default() });
        v1::RouteResponse {
            decision_id: "d".to_owned(),
            answer: Some(v1::Answer {
                value: value.to_owned(),
                contributions: contributions.collect(),
                ..v1::Answer::default()
            }),
            ..v1::RouteResponse::default()
        }
    }

    #[test]
    fn accuracy() {
        let check = |row: &Row, reply: &v1::RouteResponse, expected: Option<f64>| {
            assert_eq!(score(row, reply), expected);
        };
        let known = row(Some("F"), &[("a", 0.0), ("b", 1.0)]);
        // One model: its recorded score, even where the texts look equal.
        check(&known, &reply("f", &["a"]), Some(0.0));
        check(&known, &reply("", &["b"]), Some(1.0));
        // One model that was not recorded, or several: gold.
        check(&known, &reply(" f ", &["new"]), Some(1.0));
        check(&known, &reply("f", &["a", "b"]), Some(1.0));
        check(&known, &reply("g", &["b", "a"]), Some(0.0));
        // Without gold the heaviest counts.
        let scored = row(None, &[("a", 0.25), ("b", 1.0)]);
        check(&scored, &reply("", &["a", "b"]), Some(0.25));
        check(&scored, &reply("text", &["b", "a"]), Some(1.0));
        check(&row(None, &[]), &reply("x", &["a"]), None);
    }

    #[test]
    fn what_is_fed_back() {
        let of = |row: &Row, reply: &v1::RouteResponse| -> Vec<(String, Verdict)> {
            let told = feedback(row, reply).into_iter();
            told.filter_map(|one| Some((one.model, one.verdict?))).collect()
        };
        let known = row(Some("F"), &[("a", 0.0), ("b", 1.0)]);
        assert_eq!(of(&known, &reply("f", &["a", "b"])), [(String::new(), Verdict::Expected("F".to_owned()))]);
        // No answer to compare: each called model's score.
        let each = [("a".to_owned(), Verdict::Score(0.0)), ("b".to_owned(), Verdict::Score(1.0))];
        assert_eq!(of(&known, &reply("", &["a", "b"])), each);
        let scored = row(None, &[("a", 0.0), ("b", 1.0)]);
        assert_eq!(of(&scored, &reply("text", &["a", "b", "c"])), each);
        assert_eq!(of(&row(None, &[]), &reply("text", &["a"])), []);
    }

    #[test]
    fn a_failed_request_teaches_who_gave_no_answer() {
        let outcome =
            |model: &str, replied| v1::Outcome { model: model.to_owned(), replied, ..v1::Outcome::default() };
        let trace = v1::Trace {
            decision: Some(v1::Decision::default()),
            outcomes: vec![outcome("a", true), outcome("down", false), outcome("new", true)],
            ..v1::Trace::default()
        };
        let told = feedback_of_failed(&row(Some("F"), &[("a", 0.0), ("down", 1.0)]), &trace);
        let models: Vec<_> = told.iter().map(|one| one.model.as_str()).collect();
        assert_eq!(models, ["a", "new"]);
    }
}
