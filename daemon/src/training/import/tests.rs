//! Imports into real files, beside a daemon that learns.

use pointsman_learner::rows::Rows as _;
use pointsman_proto::v1;
use pointsman_router::clock::Clock;
use pointsman_router::feedback::{RawVerdict, Verdict};

use super::*;
use crate::learning::tests::{School, lesson};
use crate::training::log::{Reach, StoredLog};
use crate::training::rows::StoredRows;

fn importer(school: &School) -> Importer {
    let clock = Arc::clone(&school.clock) as Arc<dyn Clock>;
    Importer::new(school.traces.clone(), school.ledger.clone(), clock, 0)
}

fn entry(seq: u64, model: &str, right: bool) -> Said {
    let entry = Entry {
        seq,
        model: Some(ModelName::new(model)),
        source: "elsewhere".to_owned(),
        verdict: Verdict::Correct(right),
        score: f64::from(u8::from(right)),
    };
    (entry, v1::FeedbackEntry::default())
}

fn foreign(n: u32, feedback: Vec<Said>) -> Foreign {
    Foreign { trace: lesson(3 * n), feedback }
}

#[tokio::test]
async fn imported_traces_are_trained_on_and_neither_booked_nor_counted_nor_taught() {
    let school = School::new().await;
    let importer = importer(&school);
    let some = |right| (0..40).map(|n| foreign(n, vec![entry(1, "large", right)])).collect::<Vec<_>>();
    let first = importer.import(some(true), &View::All).await.unwrap();
    assert_eq!(first, Imported { new: 40, repeated: 0, feedback: 40 });
    assert_eq!(
        importer.import(some(true), &View::All).await.unwrap(),
        Imported { repeated: 40, ..Imported::default() }
    );
    // A trace of our own afterwards, so that everything before it had its chance to be learned.
    let own = school.push(lesson(300));
    school.judge(own, "large", "one", RawVerdict::Correct(true)).await.unwrap();
    school.rest().await;
    assert_eq!(school.traces.stats().await.unwrap().decisions.values().sum::<u64>(), 1);
    assert_eq!(school.traces.scan(0, 100).await.unwrap().len(), 1);
    assert_eq!(school.ledger.scan_feedback(0, 100).await.unwrap().len(), 1);
    assert_eq!(school.learning.status().updates, 1);
    let judged: u64 = school.ledger.feedback_stats().await.unwrap().iter().map(|stat| stat.judged).sum();
    assert_eq!(judged, 1);
    let log = StoredLog::open(school.folder.path(), Reach::default()).unwrap();
    let rows = StoredRows::new(log, lesson(0).features.schema);
    let read: Vec<_> = rows.read().unwrap().map(Result::unwrap).collect();
    assert_eq!(read.len(), 41);
    assert!(read.iter().all(|row| row.seen.iter().any(|seen| seen.label == Some(1.0))));
    // Feedback that comes later, here, on what happened there, teaches nothing either.
    let id = lesson(0).decision.id;
    school.judge(id, "small", "one", RawVerdict::Correct(true)).await.unwrap();
    let school = school.restart().await;
    assert!(school.traces.is_imported(id).await.unwrap());
    assert!(!school.traces.is_imported(own).await.unwrap());
}

#[tokio::test]
async fn a_repeat_brings_what_is_new_of_its_feedback_and_nothing_old_again() {
    let school = School::new().await;
    let importer = importer(&school);
    let said = |entries: Vec<Said>| importer.import(vec![foreign(1, entries)], &View::All);
    assert_eq!(said(vec![entry(1, "large", true)]).await.unwrap().feedback, 1);
    let corrected = vec![entry(1, "large", true), entry(2, "large", false)];
    assert_eq!(said(corrected.clone()).await.unwrap().feedback, 1);
    assert_eq!(said(corrected).await.unwrap().feedback, 0);
    let rows = school.ledger.feedback_of(lesson(3).decision.id).await.unwrap();
    assert_eq!((rows.len(), rows[1].corrects), (2, Some(rows[0].seq)));
    // A model that was not part of the decision is nobody's to judge.
    assert_eq!(said(vec![entry(3, "stranger", true)]).await.unwrap().feedback, 0);
}

#[tokio::test]
async fn feedback_on_a_decision_of_our_own_teaches_as_any_other() {
    let school = School::new().await;
    let id = school.push(lesson(3));
    school.judge(id, "large", "one", RawVerdict::Correct(true)).await.unwrap();
    let mut trace = foreign(1, vec![entry(1, "small", true)]);
    trace.trace = lesson(3);
    let imported = importer(&school).import(vec![trace], &View::All).await.unwrap();
    assert_eq!(imported, Imported { new: 0, repeated: 1, feedback: 1 });
    school.rest().await;
    assert_eq!(school.learning.status().updates, 2);
}
