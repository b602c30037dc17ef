//! When a candidate is trained by itself.

use pointsman_router::clock::Clock;
use pointsman_router::feedback::RawVerdict;

use super::*;
use crate::learning::tests::{School, lesson};
use crate::store::artifacts::ArtifactStore;
use crate::training::trainer::Ground;

async fn retraining(school: &School, due: Due) -> Retraining {
    let ground = Ground {
        state_dir: school.folder.path().to_path_buf(),
        schema: lesson(0).features.schema,
        traces: school.traces.clone(),
        ledger: school.ledger.clone(),
        artifacts: ArtifactStore::open(school.folder.path()).unwrap(),
        clock: Arc::clone(&school.clock) as Arc<dyn Clock>,
    };
    Retraining::open(Trainer::new(ground.clone()), Evaluator::new(ground), due).await.unwrap()
}

async fn judged(school: &School, rows: std::ops::Range<u32>) {
    for n in rows {
        let id = school.push(lesson(3 * n));
        school.judge(id, "large", "test", RawVerdict::Correct(n % 3 == 0)).await.unwrap();
    }
}

fn incumbent() -> PolicyVersion {
    PolicyVersion::new("bandit-1")
}

#[tokio::test]
async fn a_candidate_comes_after_so_much_feedback_and_not_again() {
    let school = School::new().await;
    let due = Due { after_feedback: Some(300), every: None };
    let retraining = retraining(&school, due).await;
    judged(&school, 0..299).await;
    retraining.step(&incumbent()).await.unwrap();
    assert_eq!(school.candidates().await.len(), 0);
    judged(&school, 299..400).await;
    retraining.step(&incumbent()).await.unwrap();
    let policies = school.candidates().await;
    assert_eq!(policies.len(), 1);
    retraining.step(&incumbent()).await.unwrap();
    assert_eq!(school.candidates().await.len(), 1);
    let report = retraining.report().await.unwrap();
    assert_eq!(report.last_version, policies[0].row.version.as_str());
    assert_eq!(
        (report.enabled, report.running, report.feedback_since, report.feedback_due),
        (true, false, 0, 300)
    );
    // A start afterwards goes on counting.
    let again = self::retraining(&school, due).await.report().await.unwrap();
    assert_eq!((again.last_version, again.feedback_since), (report.last_version, 0));
}

#[tokio::test]
async fn a_run_that_failed_is_told_and_waits_for_its_next_time() {
    let school = School::new().await;
    let every = Duration::from_secs(3_600);
    let retraining = retraining(&school, Due { every: Some(every), after_feedback: None }).await;
    judged(&school, 0..10).await;
    retraining.step(&incumbent()).await.unwrap();
    assert_eq!(retraining.report().await.unwrap().last_run_at, None);
    school.clock.set(school.clock.now().plus(every));
    retraining.step(&incumbent()).await.unwrap();
    let report = retraining.report().await.unwrap();
    assert!(report.last_error.contains("too few") && report.last_version.is_empty(), "{report:?}");
    assert_eq!(report.due_at, Some(timestamp(school.clock.now().plus(every))));
}
