use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::{Draw, Timestamp};
use crate::decision::{Candidate, Task};
use crate::ids::DecisionId;
use crate::money::NanoUsd;
use crate::policy::{Objective, PolicyKind};

/// A model's name, its predicted quality and what it said; `None` for a failure.
type Said<'a> = (&'a str, f64, Option<&'a str>);

fn decision(said: &[Said<'_>]) -> Decision {
    let candidate = |(name, quality, _): &Said<'_>| Candidate {
        model: (*name).into(),
        ineligible: None,
        quality: *quality,
        utility: 0.0,
        cost: NanoUsd::ZERO,
        latency_p95: None,
        worst_case: NanoUsd::ZERO,
        pick: 0.0,
        inclusion: 1.0,
        chosen: true,
    };
    Decision {
        id: DecisionId::new(Timestamp::default(), &mut Draw::from_seed(0)),
        at: Timestamp::default(),
        seed: 0,
        policy: "test".into(),
        policy_kind: PolicyKind::Rules,
        task: Task { name: "test".into(), inferred: false },
        objective: Objective { cost_weight_per_usd: 0.0 },
        pace_weight_per_usd: 0.0,
        candidates: said.iter().map(candidate).collect(),
        set: (0..said.len()).collect(),
        set_propensity: 1.0,
        calls_max: 8,
        quality_threshold: None,
        predicted_quality: 0.0,
        why: String::new(),
    }
}

fn outcome((name, _, text): &Said<'_>) -> Outcome {
    Outcome {
        model: (*name).into(),
        text: text.map(str::to_owned),
        replied: text.is_some(),
        confidence: None,
        truncated: false,
        tokens_out: 0,
        cost: NanoUsd::ZERO,
        latency: Duration::ZERO,
    }
}

static LABEL: AnswerKind = AnswerKind::Label { allowed: Vec::new() };

fn merged(kind: &AnswerKind, said: &[Said<'_>]) -> Result<Answer, MergeError> {
    let outcomes: Vec<_> = said.iter().map(outcome).collect();
    merge(&decision(said), &outcomes, &MergeRules::new(kind, None, Some(0.8)))
}

fn check(kind: &AnswerKind, said: &[Said<'_>], value: &str, agreeing: &[&str]) {
    let answer = merged(kind, said).unwrap();
    assert_eq!(answer.value.as_deref(), Some(value));
    let agree: Vec<_> = answer.contributions.iter().filter(|c| c.agrees).map(|c| c.model.as_str()).collect();
    assert_eq!(agree, agreeing, "{answer:?}");
}

#[test]
fn weight_beats_number_and_number_beats_weight() {
    check(
        &LABEL,
        &[("a", 0.85, Some(" **X** ")), ("b", 0.5, Some("y")), ("c", 0.5, Some("Y."))],
        "y",
        &["b", "c"],
    );
    check(&LABEL, &[("a", 0.99, Some(" **X** ")), ("b", 0.5, Some("y")), ("c", 0.5, Some("Y."))], "**X**", &["a"]);
}

#[test]
fn what_cannot_vote_still_contributes() {
    let kind = AnswerKind::Label { allowed: vec!["yes".into(), "no".into()] };
    let said = [("dear", 0.9, Some("maybe")), ("gone", 0.7, None), ("m", 0.6, Some("No."))];
    let answer = merged(&kind, &said).unwrap();
    assert_eq!(answer.normal, Some(NormalForm::Clear("no".into())));
    let votes: Vec<_> = answer.contributions.iter().map(|c| (c.model.as_str(), c.normal.is_some())).collect();
    assert_eq!(votes, [("dear", false), ("gone", false), ("m", true)]);
    assert!((answer.confidence - 0.6).abs() < 1e-12 && answer.below_threshold && !answer.calibrated);
}

#[test]
fn ties_go_to_the_heavier_member_then_the_cheaper_then_by_name() {
    check(&LABEL, &[("b", 0.6, Some("x")), ("a", 0.6, Some("y"))], "y", &["a"]);
    let said = [("b", 0.6, Some("x")), ("a", 0.6, Some("y"))];
    let mut outcomes: Vec<_> = said.iter().map(outcome).collect();
    outcomes[1].cost = NanoUsd::new(1);
    let answer = merge(&decision(&said), &outcomes, &MergeRules::new(&LABEL, None, None)).unwrap();
    assert_eq!(answer.value.as_deref(), Some("x"));
    // Three log-odds that sum to a fourth: w(p) with L = 10 and odds 2, 3 and 6 times 1/9.
    let p = |odds: f64| odds / (odds + 9.0);
    let tied = [("a", p(2.0), Some("x")), ("b", p(3.0), Some("x")), ("c", p(6.0), Some("y"))];
    check(&LABEL, &tied, "y", &["c"]);
}

#[test]
fn numbers_merge_by_group_and_weighted_median() {
    let kind = AnswerKind::Number { tolerance: 0.1 };
    let said =
        [("a", 0.95, Some("10")), ("b", 0.5, Some("10.5")), ("c", 0.5, Some("= 10.9")), ("d", 0.9, Some("3"))];
    check(&kind, &said, "10", &["a", "b", "c"]);
    let said =
        [("a", 0.8, Some("10")), ("b", 0.8, Some("$10.50")), ("c", 0.8, Some("10.9")), ("d", 0.9, Some("3"))];
    check(&kind, &said, "$10.50", &["a", "b", "c"]);
    // 9.2 ~ 10 ~ 10.9, but 9.2 is not 10.9: a group never chains.
    let said = [("a", 0.8, Some("9.2")), ("b", 0.8, Some("10")), ("c", 0.9, Some("10.9"))];
    let answer = merged(&kind, &said).unwrap();
    assert_eq!(answer.contributions.iter().filter(|c| c.agrees).count(), 2);
    assert!(!answer.contributions.iter().any(|c| c.agrees && c.model.as_str() == "a"));
}

#[test]
fn json_is_one_whatever_its_spelling_and_text_falls_to_the_best() {
    let kind = AnswerKind::Json { schema: None };
    let said = [
        ("a", 0.8, Some("{\"x\":2}")),
        ("b", 0.7, Some("{\"a\":1,\"x\":2.0}")),
        ("c", 0.7, Some("{\"x\": 2, \"a\": 1}")),
    ];
    check(&kind, &said, "{\"a\":1,\"x\":2.0}", &["b", "c"]);
    check(&AnswerKind::Text, &[("a", 0.4, Some("One.")), ("b", 0.5, Some(" Two. "))], "Two.", &["b"]);
}

#[test]
fn a_pattern_gives_the_extracted_value() {
    let pattern = Regex::new(r"is (\w+ ?)").unwrap();
    let said = [("a", 0.8, Some("It is Paris , surely"))];
    let rules = MergeRules::new(&LABEL, Some(&pattern), None);
    let answer = merge(&decision(&said), &[outcome(&said[0])], &rules).unwrap();
    assert_eq!(answer.value.as_deref(), Some("Paris"));
}

#[test]
fn nothing_to_merge() {
    assert_eq!(merged(&LABEL, &[]), Err(MergeError::NobodyReplied));
    assert_eq!(merged(&LABEL, &[("a", 0.9, None)]), Err(MergeError::NobodyReplied));
    assert_eq!(merged(&LABEL, &[("a", 0.9, Some(" ")), ("b", 0.5, None)]), Err(MergeError::NoUsableAnswer));
}

#[test]
fn replies_without_any_text_are_credited_to_the_heaviest() {
    let said = [("a", 0.7, None), ("b", 0.9, None), ("c", 0.99, None)];
    let mut outcomes: Vec<_> = said.iter().map(outcome).collect();
    outcomes[0].replied = true;
    outcomes[1].replied = true;
    let answer = merge(&decision(&said), &outcomes, &MergeRules::new(&LABEL, None, None)).unwrap();
    assert_eq!((answer.value.as_deref(), &answer.normal), (None, &None));
    assert!((answer.confidence - 0.9).abs() < 1e-12 && !answer.below_threshold);
    assert_eq!(answer.heaviest().map(|c| c.model.as_str()), Some("b"));
}

/// The posterior by enumeration of every plausible truth, product by product.
fn by_enumeration(votes: &[(f64, usize)], answers: usize) -> Vec<f64> {
    let l = answers as f64;
    let likelihood = |truth: usize| -> f64 {
        votes.iter().map(|(p, said)| if *said == truth { *p } else { (1.0 - p) / (l - 1.0) }).product()
    };
    let all: Vec<f64> = (0..answers).map(likelihood).collect();
    let total: f64 = all.iter().sum();
    all.into_iter().map(|x| x / total).collect()
}

proptest! {
    #[test]
    fn the_winner_and_its_confidence_are_those_of_the_enumerated_posterior(
        answers in 2_usize..6,
        votes in proptest::collection::vec((0.01_f64..0.99, 0_usize..6), 1..8),
    ) {
        let votes: Vec<_> = votes.into_iter().map(|(p, said)| (p, said % answers)).collect();
        let labels: Vec<String> = (0..answers).map(|i| format!("label {i}")).collect();
        let names: Vec<String> = (0..votes.len()).map(|i| format!("m{i}")).collect();
        let said: Vec<Said<'_>> =
            votes.iter().zip(&names).map(|((p, at), name)| (name.as_str(), *p, Some(labels[*at].as_str()))).collect();
        let answer = merged(&AnswerKind::Label { allowed: labels.clone() }, &said).unwrap();
        let posterior = by_enumeration(&votes, answers);
        let given = votes.iter().map(|(_, at)| posterior[*at]).fold(0.0, f64::max);
        prop_assert!((answer.confidence - given).abs() < 1e-9, "{} {posterior:?}", answer.confidence);
        let won = labels.iter().position(|l| Some(l.as_str()) == answer.value.as_deref()).unwrap();
        prop_assert!((posterior[won] - given).abs() < 1e-9);
        let weights: Vec<f64> = answer.contributions.iter().map(|c| c.weight).collect();
        prop_assert!(weights.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn number_groups_hold_only_equal_numbers(
        values in proptest::collection::vec(-20_i32..20, 1..8),
        tolerance in 0.0_f64..0.5,
    ) {
        let texts: Vec<String> = values.iter().map(i32::to_string).collect();
        let names: Vec<String> = (0..values.len()).map(|i| format!("m{i}")).collect();
        let said: Vec<Said<'_>> =
            texts.iter().zip(&names).map(|(text, name)| (name.as_str(), 0.6, Some(text.as_str()))).collect();
        let answer = merged(&AnswerKind::Number { tolerance }, &said).unwrap();
        let agreeing: Vec<f64> = answer
            .contributions
            .iter()
            .filter(|c| c.agrees)
            .map(|c| if let Some(NormalForm::Number(x)) = c.normal { x } else { f64::NAN })
            .collect();
        for x in &agreeing {
            for y in &agreeing {
                prop_assert!(numbers_same(*x, *y, tolerance), "{agreeing:?}");
            }
        }
        prop_assert!(matches!(answer.normal, Some(NormalForm::Number(x)) if agreeing.contains(&x)));
    }
}
