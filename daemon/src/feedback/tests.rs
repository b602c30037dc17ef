use futures_util::FutureExt as _;
use pointsman_router::feedback::RawVerdict;

use super::*;
use crate::learning::tests::{School, lesson};
use crate::store::ledger::AckStatus;
use crate::store::ledger::tests::{fill_disk, limit_pages};
use crate::store::traces::Deletion;

const RIGHT: RawVerdict = RawVerdict::Correct(true);

#[tokio::test(start_paused = true)]
async fn every_way_to_be_refused_has_its_error_and_teaches_nothing() {
    let school = School::new().await;
    let id = school.route(0).await;
    let unknown = lesson(60).decision.id;
    let cases = [
        (unknown, "", RIGHT),
        (id, "off", RIGHT),
        (id, "", RawVerdict::Missing),
        (id, "", RawVerdict::Score(f64::NAN)),
        (id, "", RawVerdict::Expected(" ".to_owned())),
    ];
    for (decision, model, verdict) in cases {
        match school.judge(decision, model, "u", verdict.clone()).await {
            Err(FeedbackError::Unknown { id }) => assert_eq!(id, unknown),
            Err(FeedbackError::BadRequest(bad)) => assert_eq!(bad.faults.len(), 1),
            other => panic!("{verdict:?}: {other:?}"),
        }
    }
    assert_eq!(school.ledger.feedback_through().await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn an_expected_answer_judges_every_member() {
    let school = School::new().await;
    let id = school.route(0).await;
    assert_eq!(
        school.judge(id, "", "u", RawVerdict::Expected("'B'.".to_owned())).await.unwrap(),
        AckStatus::Recorded
    );
    let rows = school.ledger.scan_feedback(0, 9).await.unwrap();
    assert_eq!(rows[0].row.labels, [("large".into(), 0.0), ("small".into(), 1.0)].into());
    assert_eq!(rows[0].row.feedback.score.to_bits(), 0.0_f64.to_bits(), "the merged answer was `a`");
    // The same in other words is a repeat.
    let again = school.judge(id, "", "u", RawVerdict::Expected("(b)".to_owned())).await.unwrap();
    assert_eq!(again, AckStatus::Repeated);
}

#[tokio::test(start_paused = true)]
async fn feedback_right_after_the_reply_waits_for_its_trace() {
    let school = School::new().await;
    for n in 0..20 {
        let id = school.route(n).await;
        school.judge(id, "large", "u", RIGHT).await.unwrap();
    }
    school.rest().await;
    assert_eq!(school.learning.status().updates, 20);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_acknowledges_nothing_and_teaches_nothing() {
    let school = School::new().await;
    let id = school.route(0).await;
    school.rest().await;
    fill_disk(&school.ledger).await;
    let mut acknowledged = 0;
    let refused = loop {
        let source = format!("{}{acknowledged}", "s".repeat(100));
        match school.judge(id, "large", &source, RIGHT).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, FeedbackError::Store(StoreError::Full)), "{refused:?}");
    assert_eq!(school.ledger.feedback_through().await, Ok(acknowledged));
    limit_pages(&school.ledger, 1 << 20).await;
    school.judge(id, "small", "u", RIGHT).await.unwrap();
    school.rest().await;
    assert_eq!(school.learning.status().feedback_mark, acknowledged + 1);
}

#[tokio::test(start_paused = true)]
async fn feedback_waits_while_rows_go_and_one_that_gave_up_is_kept_whole_or_not_at_all() {
    let school = School::new().await;
    let (one, two) = (school.route(0).await, school.route(1).await);
    let going = school.traces.going().await;
    let mut waiting = Box::pin(school.judge(one, "large", "u", RIGHT));
    for _ in 0..200 {
        assert!(waiting.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    school.traces.delete(Deletion::Decisions(vec![one])).await.unwrap();
    drop(going);
    assert!(matches!(waiting.await, Err(FeedbackError::Unknown { id }) if id == one));
    // Given up after so and so many steps: what was written is learned.
    for steps in 0..30 {
        let mut submit = Box::pin(school.judge(two, "large", "s", RawVerdict::Score(f64::from(steps) / 30.0)));
        for _ in 0..steps {
            if submit.as_mut().now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    school.ledger.flushed().await.unwrap();
    school.rest().await;
    let rows = school.ledger.scan_feedback(0, 99).await.unwrap();
    assert_eq!(school.learning.status().updates, rows.len() as u64);
}
