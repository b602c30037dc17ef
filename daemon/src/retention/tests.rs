use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use pointsman_router::clock::Draw;
use pointsman_router::decision::Decision;
use pointsman_router::feedback::RawVerdict;
use pointsman_router::trace::Trace;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::feedback::FeedbackError;
use crate::learning::tests::{School, artifact, copy_store, lesson};
use crate::store::ledger::{StateRole, TransferKind};
use crate::store::traces::support::START;
use crate::store::traces::{Lookup, PruneMark};
use crate::verify::verify;

const DAYS_30: Duration = Duration::from_secs(30 * 86_400);

/// A school with traces 0 to 11, each judged, of which nothing was saved since the start.
async fn judged() -> (School, Vec<DecisionId>) {
    let school = School::new().await;
    let mut ids = Vec::new();
    for n in 0..12 {
        let id = school.route(n).await;
        let right = RawVerdict::Correct(n % 5 < 3);
        school.judge(id, "large", "u", right).await.unwrap();
        ids.push(id);
    }
    school.rest().await;
    (school, ids)
}

/// The first `n` traces are too old by now.
fn age(school: &School, n: u64) {
    school.clock.set(START.plus(DAYS_30 + Duration::from_secs(n)));
}

async fn check_verified(folder: &TempDir) {
    let found = verify(folder.path(), &artifact()).await.unwrap();
    assert!(found.equal, "{found:?}");
}

async fn kept(school: &School, ids: &[DecisionId]) -> Vec<bool> {
    let mut kept = Vec::new();
    for id in ids {
        kept.push(matches!(school.traces.committed(*id).await.unwrap(), Lookup::Found(_)));
    }
    kept
}

#[tokio::test(start_paused = true)]
async fn pruned_traces_leave_their_lessons_and_statistics_behind() {
    let (school, ids) = judged().await;
    let (feedback, stats) = (school.ledger.feedback_stats().await.unwrap(), school.traces.stats().await.unwrap());
    age(&school, 7);
    school.retention.prune().await.unwrap();
    // Feedback of the last pruned one may share its millisecond with a kept one, and stays until it is older.
    let rows = school.ledger.feedback_rows().await.unwrap();
    assert!((5..=6).contains(&rows), "{rows}");
    assert_eq!(kept(&school, &ids).await, (0..12).map(|n| n >= 7).collect::<Vec<_>>());
    let refused = school.judge(ids[0], "large", "late", RawVerdict::Correct(true)).await;
    assert!(matches!(refused, Err(FeedbackError::Pruned { id }) if id == ids[0]), "{refused:?}");
    assert_eq!(school.ledger.feedback_stats().await.unwrap(), feedback);
    assert_eq!(school.traces.stats().await.unwrap(), stats);
    let base = artifact().load(&school.ledger, StateRole::Base).await.unwrap().unwrap();
    assert_eq!((base.0.feedback_mark(), base.0.trace_mark(), base.1), (12, 12, 12));
    school.judge(ids[11], "large", "late", RawVerdict::Correct(true)).await.unwrap();
    let folder = school.crash().await;
    let found = verify(folder.path(), &artifact()).await.unwrap();
    assert!(found.equal && found.from_base && found.labels == 12 && found.feedback_mark == 13, "{found:?}");
    // A rebuild without the base could not know what is gone.
    let school = School::open(folder).await;
    let base = school.ledger.load_state(artifact().version(), StateRole::Base).await.unwrap().unwrap();
    let mut empty = base.clone();
    empty.bytes = artifact().fresh().to_bytes();
    school.ledger.save_states(vec![empty]).await.unwrap();
    let folder = school.crash().await;
    assert!(!verify(folder.path(), &artifact()).await.unwrap().equal);
}

#[tokio::test(start_paused = true)]
async fn deletion_takes_feedback_along_and_leaves_others_alone() {
    let (school, ids) = judged().await;
    assert_eq!(school.retention.delete(Deletion::Tenant("even".to_owned())).await, Ok(6));
    assert_eq!(school.retention.delete(Deletion::Tenant("even".to_owned())).await, Ok(0));
    let which = Deletion::Decisions(vec![ids[1], ids[0], lesson(77).decision.id]);
    assert_eq!(school.retention.delete(which).await, Ok(1));
    assert_eq!(kept(&school, &ids).await, (0..12).map(|n| n % 2 == 1 && n > 1).collect::<Vec<_>>());
    let rows = school.ledger.scan_feedback(0, 99).await.unwrap();
    let left: BTreeSet<_> = rows.iter().map(|row| row.row.feedback.decision).collect();
    assert_eq!(left, ids[2..].iter().skip(1).step_by(2).copied().collect());
    let refused = school.judge(ids[0], "large", "late", RawVerdict::Correct(true)).await;
    assert!(matches!(refused, Err(FeedbackError::Unknown { .. })));
    let folder = school.crash().await;
    check_verified(&folder).await;
    let school = School::open(folder).await;
    school.learning.save().await.unwrap();
    assert_eq!(school.learning.status().updates, 12, "what was learned stays");
}

/// A crash after each step; the next start equals a rebuild and ends what was begun.
// The machine's own time: no save may come between the steps.
#[tokio::test]
async fn wherever_pruning_is_cut_a_restart_equals_a_rebuild_and_goes_on() {
    let (school, ids) = judged().await;
    age(&school, 7);
    let mark: PruneMark = school.traces.prune_plan(school.clock.now()).await.unwrap().unwrap();
    let mut cuts = vec![school.copy()];
    school.retention.keep_base().await.unwrap();
    cuts.push(school.copy());
    school.traces.mark_pruned(mark).await.unwrap();
    cuts.push(school.copy());
    school.traces.delete_through(mark, 2).await.unwrap();
    cuts.push(school.copy());
    for (cut, folder) in cuts.into_iter().enumerate() {
        check_verified(&folder).await;
        let again = School::open(folder).await;
        assert_eq!(again.learning.status().updates, 12, "{cut}");
        age(&again, 7);
        again.retention.prune().await.unwrap();
        assert_eq!(kept(&again, &ids).await, (0..12).map(|n| n >= 7).collect::<Vec<_>>(), "{cut}");
        check_verified(&again.crash().await).await;
    }
}

// The machine's own time: no save may come between the steps.
#[tokio::test]
async fn wherever_a_deletion_is_cut_a_restart_equals_a_rebuild_and_can_end_it() {
    let (school, _) = judged().await;
    let even = school.retention.decisions_of("even").await.unwrap();
    assert_eq!(even.len(), 6);
    school.retention.keep_base().await.unwrap();
    let mut cuts = vec![school.copy()];
    school.ledger.delete_feedback(even.clone()).await.unwrap();
    cuts.push(school.copy());
    school.traces.delete(Deletion::Decisions(even[..3].to_vec())).await.unwrap();
    cuts.push(school.copy());
    for (cut, folder) in cuts.into_iter().enumerate() {
        check_verified(&folder).await;
        let again = School::open(folder).await;
        assert_eq!(again.learning.status().updates, 12, "{cut}");
        let left = if cut == 2 { 3 } else { 6 };
        assert_eq!(again.retention.delete(Deletion::Tenant("even".to_owned())).await, Ok(left), "{cut}");
        let rows = again.ledger.scan_feedback(0, 99).await.unwrap();
        assert!(rows.iter().all(|row| !even.contains(&row.row.feedback.decision)), "{cut}");
        check_verified(&again.crash().await).await;
    }
}

/// Feedback and reports pour in while rows go: none may teach and leave no row, or leave a row of a
/// decision that is gone.
#[tokio::test(start_paused = true)]
async fn feedback_at_the_same_time_as_pruning_and_deletion_leaves_no_gap() {
    for round in 0..6_u64 {
        let (school, ids) = judged().await;
        let mut tasks = JoinSet::new();
        for i in 0..120_usize {
            let (desk, id) = (school.desk.clone(), ids[i % ids.len()].to_string());
            let raw = pointsman_router::feedback::RawFeedback {
                decision_id: id,
                model: "large".to_owned(),
                source: format!("s{i}"),
                verdict: RawVerdict::Score(i as f64 / 120.0),
                comment: String::new(),
            };
            tasks.spawn(async move { drop(desk.submit(raw, &crate::keys::View::All).await) });
        }
        // Some have begun, some have not, and some give up in the middle.
        for _ in 0..round * 40 {
            tokio::task::yield_now().await;
        }
        age(&school, 5);
        let (pruned, deleted) =
            tokio::join!(school.retention.prune(), school.retention.delete(Deletion::Tenant("even".to_owned())));
        pruned.unwrap();
        deleted.unwrap();
        if round % 2 == 0 {
            tasks.shutdown().await;
        } else {
            tasks.join_all().await;
        }
        school.ledger.flushed().await.unwrap();
        let left: BTreeSet<_> = ids.iter().skip(5).filter(|id| **id != ids[6] && **id != ids[8]).collect();
        let rows = school.ledger.scan_feedback(0, 999).await.unwrap();
        for row in rows {
            let id = row.row.feedback.decision;
            let n = ids.iter().position(|i| *i == id).unwrap();
            assert!(n % 2 == 1 && (n < 5 || left.contains(&id)), "{n}: feedback of a deleted decision");
        }
        school.rest().await;
        school.learning.save().await.unwrap();
        check_verified(&school.crash().await).await;
    }
}

/// Admitted before the last trace that is pruned, ended after it, and judged while rows go.
#[tokio::test(start_paused = true)]
async fn feedback_on_a_slow_request_outlives_the_pruning_of_its_time() {
    let (school, _) = judged().await;
    let early = lesson(3);
    let decision = Arc::new(Decision { id: at_start(), ..Decision::clone(&early.decision) });
    let slow = school.push(Trace { decision, hold: None, ..early });
    school.rest().await;
    age(&school, 7);
    let mark = PruneMark { seq: 7, at: lesson(6).at };
    let through = school.retention.keep_base().await.unwrap();
    school.traces.mark_pruned(mark).await.unwrap();
    school.judge(slow, "large", "u", RawVerdict::Correct(true)).await.unwrap();
    while school.ledger.prune_feedback(mark.at, through, 3).await.unwrap() {}
    school.rest().await;
    assert_eq!(school.learning.status().updates, 13);
    school.learning.save().await.unwrap();
    check_verified(&school.crash().await).await;
}

/// An id of the first moment that no other trace has.
fn at_start() -> DecisionId {
    DecisionId::new(START, &mut Draw::from_seed(1 << 33))
}

/// The caller is gone, what it had handed over is still on its way to the file.
#[tokio::test]
async fn feedback_whose_caller_gave_up_is_learned_before_its_trace_goes() {
    let school = School::new().await;
    let id = school.route(0).await;
    school.rest().await;
    // Another holds the file: what is queued with the writer waits.
    let other = rusqlite::Connection::open(school.folder.path().join("ledger.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut submit = Box::pin(school.judge(id, "large", "u", RawVerdict::Correct(true)));
    for _ in 0..20_000 {
        assert!(submit.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(submit);
    let release = async {
        for _ in 0..20_000 {
            tokio::task::yield_now().await;
        }
        other.execute_batch("COMMIT").unwrap();
    };
    let (deleted, ()) = tokio::join!(school.retention.delete(Deletion::Decisions(vec![id])), release);
    assert_eq!(deleted, Ok(1));
    assert_eq!(school.ledger.feedback_rows().await, Ok(0));
    school.rest().await;
    school.learning.save().await.unwrap();
    check_verified(&school.crash().await).await;
}

#[tokio::test]
async fn a_power_cut_leaves_orphans_that_count_and_teach_nothing() {
    // The machine's own time: no save may come between, a save would have synced the traces.
    let school = School::new().await;
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(school.route(n).await);
    }
    school.judge(ids[0], "large", "u", RawVerdict::Correct(true)).await.unwrap();
    school.rest().await;
    let early = school.copy();
    for n in 6..12 {
        let id = school.route(n).await;
        school.judge(id, "large", "u", RawVerdict::Correct(false)).await.unwrap();
        ids.push(id);
    }
    // The same decision again, and one more request that never came back.
    school.judge(ids[6], "large", "u", RawVerdict::Score(0.5)).await.unwrap();
    school.rest().await;
    let stats = school.ledger.feedback_stats().await.unwrap();
    let spent = school.budget.status(START).spent;
    let booked = school.ledger.booked_through().await.unwrap();
    let cut = school.copy();
    copy_store(early.path(), cut.path(), "traces.db");

    let school = School::open(cut).await;
    let rows = school.ledger.scan_feedback(0, 99).await.unwrap();
    let orphans: Vec<bool> = rows.iter().map(|row| row.row.orphan).collect();
    assert_eq!(orphans, [false, true, true, true, true, true, true, true]);
    assert_eq!((school.learning.status().updates, school.learning.status().feedback_mark), (1, 8));
    assert_eq!(school.ledger.feedback_stats().await.unwrap(), stats);
    let status = school.budget.status(START);
    assert!(status.spent >= spent, "money of lost traces stays spent: {status:?}");
    let row = school.ledger.windows("all", 1).await.unwrap().remove(0);
    let last = school.ledger.transfers(("all", row.start), false, usize::MAX).await.unwrap().pop().unwrap();
    assert_eq!((row.leased, last.kind), (row.spent(), TransferKind::Lost));
    let lost = school.judge(ids[7], "large", "u", RawVerdict::Correct(true)).await;
    assert!(matches!(lost, Err(FeedbackError::Unknown { .. })));
    // No place that was booked is given again.
    school.route(20).await;
    school.rest().await;
    let last = school.traces.scan(0, 99).await.unwrap().last().unwrap().seq();
    assert_eq!(last, booked + 1);
    check_verified(&school.crash().await).await;
}
