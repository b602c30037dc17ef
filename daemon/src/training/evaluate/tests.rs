//! Evaluations over real files: a candidate that knows what the log does not.

use std::sync::Arc;

use pointsman_learner::evaluate::gate::Reason;
use pointsman_proto::v1;
use pointsman_router::artifact::ArtifactKind;
use pointsman_router::clock::Clock;
use pointsman_router::decision::Decision;
use pointsman_router::feedback::RawVerdict;
use pointsman_router::outcome::Outcome;
use pointsman_router::trace::{Trace, TraceStatus};
use tokio::sync::watch;

use super::*;
use crate::learning::tests::{School, lesson};
use crate::store::artifacts::ArtifactStore;
use crate::training::trainer::{Progress, Trainer, Wish};

fn ground(school: &School) -> Ground {
    Ground {
        state_dir: school.folder.path().to_path_buf(),
        schema: lesson(0).features.schema,
        traces: school.traces.clone(),
        ledger: school.ledger.clone(),
        artifacts: ArtifactStore::open(school.folder.path()).unwrap(),
        clock: Arc::clone(&school.clock) as Arc<dyn Clock>,
    }
}

/// One call, drawn evenly from `large` and `small`; `large` is right on prompts of the first kind alone.
fn drawn(n: u32) -> (Trace, bool) {
    let first_kind = n.is_multiple_of(2);
    let picks_large = (n / 2).is_multiple_of(2);
    let trace = lesson(1);
    let mut decision = (*trace.decision).clone();
    decision.id = lesson(n).decision.id;
    decision.calls_max = 1;
    decision.set = vec![if picks_large { 0 } else { 2 }];
    decision.set_propensity = 0.5;
    for (at, candidate) in decision.candidates.iter_mut().enumerate() {
        candidate.chosen = at == decision.set[0];
        candidate.pick = if candidate.ineligible.is_none() { 0.5 } else { 0.0 };
        candidate.inclusion = candidate.pick;
    }
    let mut features = (*trace.features).clone();
    features.surface = [if first_kind { 0.9 } else { -0.9 }; 8];
    features.surface[7] = (n as f32 * 0.7).sin() * 0.1;
    let model = decision.candidates[decision.set[0]].model.clone();
    let outcome = Outcome { model, replied: true, ..trace.outcomes[1].clone() };
    let trace = Trace {
        at: lesson(n).at,
        decision: Arc::new(decision),
        features: Arc::new(features),
        status: TraceStatus::Answered,
        outcomes: vec![outcome],
        answer: None,
        ..trace
    };
    (trace, picks_large == first_kind)
}

async fn logged(school: &School, rows: std::ops::Range<u32>) {
    for n in rows {
        let (trace, right) = drawn(n);
        let model = trace.outcomes[0].model.clone();
        let id = school.push(trace);
        school.judge(id, model.as_str(), "test", RawVerdict::Correct(right)).await.unwrap();
    }
}

async fn trained(ground: &Ground) -> PolicyVersion {
    let trainer = Trainer::new(ground.clone());
    let wish = Wish { kind: ArtifactKind::Classifier, seed: 0, rows_max: None };
    let told = watch::channel(Progress::BEGIN).0;
    trainer.train(trainer.turn().unwrap(), wish, told).await.unwrap().row.version
}

fn incumbent() -> PolicyVersion {
    PolicyVersion::new("bandit-1")
}

#[tokio::test]
async fn a_candidate_that_knows_better_passes_and_its_evaluation_is_kept() {
    let school = School::new().await;
    logged(&school, 0..800).await;
    let ground = ground(&school);
    let version = trained(&ground).await;
    // What another policy decided, here or elsewhere, is no part of what the incumbent earned.
    for n in 800..900 {
        let (trace, _) = drawn(n);
        let decision = Decision { policy: "old-1".into(), ..(*trace.decision).clone() };
        let model = trace.outcomes[0].model.clone();
        let id = school.push(Trace { decision: Arc::new(decision), ..trace });
        school.judge(id, model.as_str(), "test", RawVerdict::Correct(false)).await.unwrap();
    }
    logged(&school, 900..1_100).await;
    let evaluator = Evaluator::new(ground);
    let evaluations = evaluator.evaluate(Vec::new(), incumbent(), Settings::default()).await.unwrap();
    let [evaluation] = evaluations.as_slice() else { panic!("{evaluations:?}") };
    assert_eq!(evaluation.version, version);
    // The last three tenths of all feedback, less what was said of the other.
    assert_eq!((evaluation.estimates.rows, evaluation.rows), (230, 230));
    // Drawn evenly, the log is right half of the time; the candidate always.
    assert!((evaluation.on_policy.doubly_robust.value - 0.5).abs() < 0.01, "{evaluation:?}");
    assert!(evaluation.estimates.doubly_robust.value > 0.95, "{:?}", evaluation.estimates);
    assert!(evaluation.gain.reward.lower(0.025) > 0.3);
    assert!((evaluation.estimates.effective_sample_size - 115.0).abs() < 10.0);
    assert!(evaluation.verdict.passes(), "{:?}", evaluation.verdict);
    assert!(evaluation.over_single.unwrap().value > 0.3);
    assert_eq!(evaluation.singles.len(), 2);
    let kept = school.ledger.policy(version).await.unwrap().unwrap().fitted.evaluation.unwrap();
    let message: v1::Evaluation = json::read(kept.as_bytes()).unwrap();
    assert_eq!(message, to_wire(evaluation));
    let gate = message.gate.unwrap();
    assert!(gate.passes && gate.reasons.len() == 5 && gate.reasons.iter().all(|reason| reason.holds));
}

#[tokio::test]
async fn what_cannot_be_evaluated_is_a_typed_error() {
    let school = School::new().await;
    logged(&school, 0..250).await;
    let ground = ground(&school);
    let version = trained(&ground).await;
    let evaluator = Evaluator::new(ground.clone());
    let evaluate = async |version: &str, running: &str| {
        let (version, running) = (PolicyVersion::new(version), PolicyVersion::new(running));
        evaluator.evaluate(vec![version], running, Settings::default()).await
    };
    let few = evaluate(version.as_str(), "bandit-1").await;
    assert!(matches!(few, Err(EvaluationError::TooFew { found: 75, .. })), "{few:?}");
    assert!(matches!(evaluate("other", "bandit-1").await, Err(EvaluationError::Unknown(_))));
    assert!(matches!(evaluate("same", "same").await, Err(EvaluationError::Running(_))));
    school.ledger.describe_policy(incumbent(), "bandit".into(), "{}".into(), school.clock.now()).await.unwrap();
    assert!(matches!(evaluate("bandit-1", "rules-1").await, Err(EvaluationError::NotFitted(_))));
    std::fs::write(school.folder.path().join("policies").join(version.as_str()), b"pmpolicy").unwrap();
    assert!(matches!(evaluate(version.as_str(), "bandit-1").await, Err(EvaluationError::File(_))));
    // None of this is an evaluation.
    assert_eq!(school.ledger.policy(version).await.unwrap().unwrap().fitted.evaluation, None);
}

#[tokio::test]
async fn no_more_than_the_share_asked_for_is_held_out_and_nothing_it_was_trained_on() {
    let school = School::new().await;
    logged(&school, 0..600).await;
    let ground = ground(&school);
    trained(&ground).await;
    logged(&school, 600..1_000).await;
    let evaluator = Evaluator::new(ground);
    let rows = async |held_out: f64| {
        let settings = Settings { held_out, ..Settings::default() };
        let evaluations = evaluator.evaluate(Vec::new(), incumbent(), settings).await.unwrap();
        evaluations[0].estimates.rows
    };
    // 420 of the first 600 were trained on.
    assert_eq!((rows(0.2).await, rows(0.5).await, rows(0.9).await), (200, 500, 580));
}

#[tokio::test]
async fn a_candidate_that_is_no_better_fails_by_name() {
    let school = School::new().await;
    // What is right has nothing to do with what is asked.
    for n in 0..600_u32 {
        let (trace, _) = drawn(n);
        let model = trace.outcomes[0].model.clone();
        let id = school.push(trace);
        let right = n.wrapping_mul(2_654_435_761) >> 31 == 0;
        school.judge(id, model.as_str(), "test", RawVerdict::Correct(right)).await.unwrap();
    }
    let ground = ground(&school);
    trained(&ground).await;
    let evaluations = Evaluator::new(ground).evaluate(Vec::new(), incumbent(), Settings::default()).await.unwrap();
    let verdict = &evaluations[0].verdict;
    let shown = |reason: &Reason| matches!(reason, Reason::NotBetter { .. } | Reason::NotShownBetter { .. });
    assert!(verdict.reasons.iter().any(shown), "{verdict:?}");
    let gate = to_wire(&evaluations[0]).gate.unwrap();
    let failed: Vec<&str> = gate.reasons.iter().filter(|r| !r.holds).map(|r| r.name.as_str()).collect();
    assert!(!gate.passes && failed.contains(&"SHOWN_BETTER"), "{failed:?}");
}
