use pointsman_router::feedback::RawVerdict;

use super::*;
use crate::learning::tests::{School, artifact};

async fn judge(school: &School, n: u32, source: &str, right: bool) {
    let id = school.route(n).await;
    school.judge(id, "large", source, RawVerdict::Correct(right)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_departs_is_kept_and_counted_and_teaches_next_to_nothing() {
    let school = School::new().await;
    for n in 0..600 {
        match n % 5 {
            4 => judge(&school, n, "liar", false).await,
            0 | 1 => judge(&school, n, "judge", true).await,
            _ => judge(&school, n, "user", true).await,
        }
    }
    school.rest().await;
    let report = school.learning.report().await.unwrap();
    let found: Vec<(&str, u64, bool)> =
        report.sources.iter().map(|s| (s.source.as_str(), s.labels, s.departs)).collect();
    assert_eq!(found, [("judge", 240, false), ("liar", 120, true), ("user", 240, false)]);
    assert!(report.sources[1].taught < 100.0 && report.sources[0].taught > 239.9);
    assert_eq!(school.ledger.feedback_rows().await, Ok(600));
    // What was decided about each row is decided again from the rows.
    school.learning.save().await.unwrap();
    let live = artifact().load(&school.ledger, StateRole::Latest).await.unwrap().unwrap();
    let mut rebuilt = Student::new(artifact(), (artifact().fresh(), 0));
    rebuilt.catch_up(&school.traces, &school.ledger, (u64::MAX, u64::MAX)).await.unwrap();
    assert!(live.0 == rebuilt.online, "a rebuild decides otherwise");
}

#[tokio::test(start_paused = true)]
async fn another_share_holds_for_rows_that_come_after_it() {
    let mut school = School::new().await;
    for (share, first) in [(0.02, 0), (1.0, 200), (0.3, 400)] {
        school.desk = school.desk_with(share);
        for n in first..first + 200 {
            let source = ["a", "b", "liar"][n as usize % 3];
            judge(&school, n, source, source != "liar").await;
        }
    }
    school.rest().await;
    school.learning.save().await.unwrap();
    let live = artifact().load(&school.ledger, StateRole::Latest).await.unwrap().unwrap();
    let mut rebuilt = Student::new(artifact(), (artifact().fresh(), 0));
    rebuilt.catch_up(&school.traces, &school.ledger, (u64::MAX, u64::MAX)).await.unwrap();
    assert!(live.0 == rebuilt.online, "a rebuild takes another share");
}
