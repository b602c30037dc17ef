use pointsman_learner::online::{Lesson, StateError};
use pointsman_router::feedback::RawVerdict;
use pointsman_router::ids::ModelName;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::learning::tests::{School, artifact, lesson};
use crate::store::StoreError;
use crate::store::ledger::PolicyState;

/// A folder in which six labels were learned and saved.
async fn taught() -> TempDir {
    let school = School::new().await;
    for n in 0..6 {
        let id = school.route(n).await;
        school.judge(id, "large", "u", RawVerdict::Correct(n % 2 == 0)).await.unwrap();
    }
    school.rest().await;
    school.learning.save().await.unwrap();
    school.crash().await
}

fn change(folder: &TempDir, file: &str, sql: &str) {
    let changed = Connection::open(folder.path().join(file)).unwrap().execute(sql, ()).unwrap();
    assert!(changed > 0, "{sql}");
}

async fn check(folder: &TempDir, equal: bool) {
    let found = verify(folder.path(), &artifact()).await.unwrap();
    let expected = Verified { equal, feedback_mark: 6, trace_mark: 6, labels: 6, from_base: false };
    assert_eq!(found, expected);
}

#[tokio::test(start_paused = true)]
async fn a_label_an_outcome_or_a_row_that_was_changed_is_found() {
    for (file, sql) in [
        ("ledger.db", r#"UPDATE feedback SET labels = '{"large":0.875}' WHERE seq = 3"#),
        ("ledger.db", "DELETE FROM feedback WHERE seq = 3"),
        ("traces.db", "DELETE FROM traces WHERE seq = 2"),
    ] {
        let folder = taught().await;
        check(&folder, true).await;
        change(&folder, file, sql);
        assert!(!verify(folder.path(), &artifact()).await.unwrap().equal, "{sql}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_flipped_byte_of_the_saved_state_is_found() {
    let folder = taught().await;
    let path = folder.path().join("ledger.db");
    let ledger = LedgerStore::open(&path, None).await.unwrap();
    let saved = ledger.load_state(artifact().version(), StateRole::Latest).await.unwrap().unwrap();
    for at in (0..saved.bytes.len()).step_by(saved.bytes.len() / 20) {
        let mut bytes = saved.bytes.clone();
        bytes[at] ^= 0x10;
        ledger.save_states(vec![PolicyState { bytes, ..saved.clone() }]).await.unwrap();
        let found = verify(folder.path(), &artifact()).await;
        assert!(matches!(found, Err(LearningError::State { .. })), "{at}: {found:?}");
    }
    let short = PolicyState { bytes: saved.bytes[..40].to_vec(), ..saved.clone() };
    ledger.save_states(vec![short]).await.unwrap();
    let found = verify(folder.path(), &artifact()).await;
    assert!(matches!(found, Err(LearningError::State { cause: StateError::Damaged | StateError::Truncated, .. })));
    // Sound bytes of a state that learned something else.
    let (mut other, _) = (artifact().basis.restore(&saved.bytes).unwrap(), ());
    let (features, model) = (lesson(1).features, ModelName::from("large"));
    other.teach(6, &Lesson { features: &features, model: &model, old: None, new: Some(1.0) });
    ledger.save_states(vec![PolicyState { bytes: other.to_bytes(), ..saved.clone() }]).await.unwrap();
    check(&folder, false).await;
    ledger.save_states(vec![saved]).await.unwrap();
    check(&folder, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_folder_in_use_and_a_newer_file_are_refused() {
    let folder = taught().await;
    let lock = StateLock::take(folder.path()).unwrap();
    let found = verify(folder.path(), &artifact()).await;
    assert!(matches!(found, Err(LearningError::Store(StoreError::InUse { .. }))));
    drop(lock);
    for file in ["traces.db", "ledger.db"] {
        Connection::open(folder.path().join(file)).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let found = verify(folder.path(), &artifact()).await;
        assert!(matches!(found, Err(LearningError::Store(StoreError::NewerSchema { found: 99, .. }))), "{file}");
    }
}
