//! Trainings over real files.

use pointsman_router::feedback::RawVerdict;

use super::*;
use crate::learning::tests::{School, lesson};
use crate::store::ledger::PolicyRunState;

const WISH: Wish = Wish { kind: ArtifactKind::Hybrid, seed: 3, rows_max: None };

fn trainer(school: &School) -> Trainer {
    Trainer::new(Ground {
        state_dir: school.folder.path().to_path_buf(),
        schema: lesson(0).features.schema,
        traces: school.traces.clone(),
        ledger: school.ledger.clone(),
        artifacts: ArtifactStore::open(school.folder.path()).unwrap(),
        clock: Arc::clone(&school.clock) as Arc<dyn Clock>,
    })
}

/// Judged lessons; `right` says which.
async fn judged(school: &School, rows: u32, right: impl Fn(u32) -> bool) {
    for n in 0..rows {
        let id = school.push(lesson(3 * n));
        school.judge(id, "large", "test", RawVerdict::Correct(right(n))).await.unwrap();
        school.judge(id, "small", "test", RawVerdict::Correct(!right(n))).await.unwrap();
    }
}

async fn train(trainer: &Trainer, wish: Wish) -> Result<StoredPolicy, TrainingError> {
    trainer.train(trainer.turn()?, wish, watch::channel(Progress::BEGIN).0).await
}

#[tokio::test]
async fn a_training_leaves_a_candidate_that_can_be_loaded_and_the_same_twice() {
    let school = School::new().await;
    judged(&school, 200, |n| n % 3 == 0).await;
    let trainer = trainer(&school);
    let made = train(&trainer, WISH).await.unwrap();
    assert_eq!((made.row.state, made.fitted.trained_rows), (PolicyRunState::Candidate, 140));
    assert_eq!(made.fitted.trained_through, 280);
    let artifact = trainer.ground().artifacts.load(&made.row.version, trainer.ground().schema).unwrap();
    assert_eq!((artifact.kind, artifact.origin.seed), (ArtifactKind::Hybrid, 3));
    let kept: KeptReport = serde_json::from_str(made.fitted.report.as_ref().unwrap()).unwrap();
    assert_eq!((kept.seed, kept.report.judged_rows), (3, 140));
    assert_eq!(train(&trainer, WISH).await.unwrap(), made);
    let other = train(&trainer, Wish { seed: 4, rows_max: Some(120), ..WISH }).await.unwrap();
    assert_ne!(other.row.version, made.row.version);
    assert_eq!(other.fitted.trained_rows, 120);
    assert_eq!(school.candidates().await.len(), 2);
}

#[tokio::test]
async fn what_cannot_be_trained_on_is_a_typed_error_and_leaves_nothing() {
    let school = School::new().await;
    judged(&school, 60, |n| n % 3 == 0).await;
    let trainer = trainer(&school);
    let few = train(&trainer, WISH).await;
    assert!(matches!(few, Err(TrainingError::Rows(TrainError::TooFew { found: 42, .. }))), "{few:?}");
    let (turn, second) = (trainer.turn(), trainer.turn());
    assert!(matches!((&turn, second), (Ok(_), Err(TrainingError::Running))));
    drop(turn);
    trainer.stop();
    assert!(matches!(train(&trainer, WISH).await, Err(TrainingError::GivenUp)));
    assert!(school.candidates().await.is_empty());
}

#[tokio::test]
async fn a_training_that_nobody_waits_for_keeps_nothing_and_frees_its_turn() {
    let school = School::new().await;
    judged(&school, 200, |n| n % 3 == 0).await;
    let trainer = trainer(&school);
    {
        let turn = trainer.turn().unwrap();
        let (tell, mut told) = watch::channel(Progress::BEGIN);
        // As soon as it has begun, whoever waits for it goes.
        tokio::select! {
            biased;
            ended = trainer.train(turn, WISH, tell) => panic!("it ended unasked: {ended:?}"),
            begun = told.changed() => begun.unwrap(),
        }
    }
    trainer.idle().await;
    assert!(school.candidates().await.is_empty());
}

#[test]
fn progress_never_goes_back() {
    let mut told = Progress::BEGIN;
    let seconds = Duration::from_secs;
    let steps = [(Stage::Reading, 0.3), (Stage::Calibrating, 0.75), (Stage::FittingModels, 0.5)];
    let told: Vec<Progress> = steps
        .into_iter()
        .map(|step| {
            told = later(told, step, 7, seconds(3));
            told
        })
        .collect();
    assert_eq!(told.iter().map(|p| p.share).collect::<Vec<_>>(), [0.3, 0.75, 0.75]);
    assert_eq!((told[2].stage, told[0].left), (Stage::Calibrating, Some(seconds(7))));
    assert_eq!(later(Progress::BEGIN, (Stage::Reading, 0.01), 0, seconds(1)).left, None);
}
