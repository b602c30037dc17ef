//! Tests of `ledger.db` against a real file.

use pointsman_router::clock::Draw;
use pointsman_router::clock::Timestamp;
use pointsman_router::feedback::{Entry, Verdict};
use pointsman_router::hold::{Bill, Charge, Hold};
use pointsman_router::ids::{DecisionId, ModelName, PolicyVersion, TaskType};
use pointsman_router::money::NanoUsd;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;
use crate::audit;
use crate::config::{Override, OverrideStore as _};

/// A store in a folder of its own.
pub(crate) async fn store() -> (TempDir, LedgerStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = reopen(&folder).await;
    (folder, store)
}

pub(crate) async fn reopen(folder: &TempDir) -> LedgerStore {
    LedgerStore::open(&folder.path().join("ledger.db"), None).await.unwrap()
}

/// Lets the file grow to this many pages.
pub(crate) async fn limit_pages(store: &LedgerStore, pages: i64) {
    let limit = move |tx: &rusqlite::Transaction<'_>| {
        tx.query_row(&format!("PRAGMA max_page_count = {pages}"), (), |row| row.get::<_, i64>(0))
    };
    store.writer.run(limit).await.unwrap();
}

/// Lets the file grow no further.
pub(crate) async fn fill_disk(store: &LedgerStore) {
    let pages = store.writer.run(|tx| tx.query_row("PRAGMA page_count", (), |row| row.get(0))).await.unwrap();
    limit_pages(store, pages).await;
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

pub(crate) fn decision(number: u64) -> DecisionId {
    DecisionId::new(at(1_700_000_000), &mut Draw::from_seed(number))
}

fn feedback(decision: DecisionId, model: Option<&str>, source: &str, verdict: Verdict) -> NewFeedback {
    let score = match verdict {
        Verdict::Correct(correct) => f64::from(u8::from(correct)),
        Verdict::Score(score) => score,
        Verdict::Expected(_) => 0.0,
    };
    NewFeedback {
        decision,
        model: model.map(ModelName::new),
        source: source.to_owned(),
        verdict,
        score,
        comment: "a note".to_owned(),
        at: at(5),
        departing_share: Some(0.02),
        task: TaskType::new("simple_query"),
        policy: PolicyVersion::new("bandit-1"),
        answer_model: Some(ModelName::new("a")),
        chosen: vec![ModelName::new("a"), ModelName::new("b")],
    }
}

/// Each verdict on a model is its label; a verdict on the merged answer is everybody's.
fn labels(entries: &[Entry]) -> Labels {
    entries.iter().map(|e| (e.model.clone().unwrap_or_else(|| "all".into()), e.score)).collect()
}

async fn submit(store: &LedgerStore, row: NewFeedback) -> Result<Ack, StoreError> {
    store.submit_feedback(row, None, labels).await
}

fn noted() -> audit::Entry {
    audit::Entry::new(&audit::By::new("operator", at(1)), "model.disabled", "m", serde_json::json!({}))
}

#[tokio::test]
async fn feedback_repeats_and_corrects_per_decision_model_and_source() {
    let (_folder, store) = store().await;
    let one = decision(1);
    let steps = [
        (None, "user", Verdict::Correct(true), AckStatus::Recorded, 1),
        (None, "user", Verdict::Correct(true), AckStatus::Repeated, 1),
        (None, "judge", Verdict::Correct(true), AckStatus::Recorded, 2),
        (Some("b"), "user", Verdict::Score(0.25), AckStatus::Recorded, 3),
        (None, "user", Verdict::Correct(false), AckStatus::Corrected, 4),
        (None, "user", Verdict::Correct(false), AckStatus::Repeated, 4),
        (None, "user", Verdict::Correct(true), AckStatus::Corrected, 5),
        (Some("b"), "user", Verdict::Score(0.5), AckStatus::Corrected, 6),
    ];
    for (model, source, verdict, status, seq) in steps {
        let ack = submit(&store, feedback(one, model, source, verdict.clone())).await.unwrap();
        assert_eq!((ack.status, ack.seq), (status, seq), "{verdict:?}");
    }
    assert_eq!((store.feedback_at(1).await, store.feedback_at(7).await), (Ok(Some(at(5))), Ok(None)));
    let corrects: Vec<_> = store.scan_feedback(0, 99).await.unwrap().iter().map(|c| c.row.corrects).collect();
    assert_eq!(corrects, [None, None, None, Some(1), Some(4), Some(3)]);
    let stats: Vec<_> =
        store.feedback_stats().await.unwrap().into_iter().map(|s| (s.judged, s.score_sum)).collect();
    // The merged answer by two sources, the label that it gave, and the model's own.
    assert_eq!(stats, [(2, 2.0), (1, 1.0), (1, 0.5)]);
    let entries = store.feedback_entries(one).await.unwrap();
    assert_eq!(entries.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert!(store.feedback_entries(decision(2)).await.unwrap().is_empty());

    assert_eq!(store.delete_feedback(vec![decision(2), one]).await, Ok(6));
    let ack = submit(&store, feedback(one, None, "user", Verdict::Correct(true))).await.unwrap();
    assert_eq!((ack.status, ack.seq), (AckStatus::Recorded, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_subscriber_hears_every_row_in_its_order_and_a_scan_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, mut heard) = mpsc::channel(4);
    let store = LedgerStore::open(&folder.path().join("ledger.db"), Some(sender)).await.unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..200 {
        let store = store.clone();
        let row = feedback(
            decision(number % 7),
            None,
            &format!("s{}", number % 3),
            Verdict::Score(number as f64 / 200.0),
        );
        tasks.spawn(async move { submit(&store, row).await.unwrap() });
    }
    let mut rows = Vec::new();
    while rows.len() < 200 {
        rows.push(heard.recv().await.unwrap());
    }
    tasks.join_all().await;
    assert!(rows.iter().map(|c| c.row.seq).eq(1..=200));
    let kept = |rows: &[FeedbackCommitted]| -> Vec<_> {
        rows.iter().map(|c| (c.row.clone(), c.labels_before.clone())).collect()
    };
    assert_eq!(kept(&store.scan_feedback(0, 500).await.unwrap()), kept(&rows));
    assert_eq!(kept(&store.scan_feedback(150, 20).await.unwrap()), kept(&rows[150..170]));
    assert_eq!(store.feedback_through().await.unwrap(), 200);

    // A subscriber that went away stops nothing.
    drop(heard);
    submit(&store, feedback(decision(0), Some("a"), "s", Verdict::Correct(true))).await.unwrap();
    store.mark_orphans(vec![2]).await.unwrap();
    drop(store);
    let rows = reopen(&folder).await.scan_feedback(0, 500).await.unwrap();
    assert_eq!((rows.len(), rows[0].row.orphan, rows[1].row.orphan), (201, false, true));
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_goes_on_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, mut heard) = mpsc::channel(1_000);
    let store = LedgerStore::open(&folder.path().join("ledger.db"), Some(sender)).await.unwrap();
    fill_disk(&store).await;
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for number in 0..40 {
        let row = NewFeedback {
            comment: "x".repeat(2_000),
            ..feedback(decision(number), None, "s", Verdict::Correct(true))
        };
        match submit(&store, row).await {
            Ok(ack) => acknowledged.push(ack.seq),
            Err(error) => {
                assert_eq!(error, StoreError::Full);
                refused += 1;
            }
        }
    }
    assert!(refused > 30, "{refused}");
    limit_pages(&store, 1 << 20).await;
    acknowledged
        .push(submit(&store, feedback(decision(99), None, "s", Verdict::Correct(true))).await.unwrap().seq);
    store.close().await.unwrap();
    assert_eq!(store.feedback_stats().await.unwrap()[0].judged, acknowledged.len() as u64);
    let kept = reopen(&folder).await.scan_feedback(0, 500).await.unwrap();
    assert!(kept.iter().map(|c| c.row.seq).eq(acknowledged.iter().copied()));
    let mut told = Vec::new();
    while let Ok(committed) = heard.try_recv() {
        told.push(committed.row.seq);
    }
    assert_eq!(told, acknowledged);
}

#[tokio::test]
async fn a_key_is_claimed_once_and_remembered_for_a_day() {
    let (folder, store) = store().await;
    let day = 24 * 60 * 60;
    assert_eq!(store.begin_key(1, 10, at(0)).await, Ok(Begin::Fresh));
    assert_eq!(store.begin_key(1, 10, at(1)).await, Ok(Begin::Open));
    assert_eq!(store.begin_key(1, 11, at(1)).await, Ok(Begin::OtherBody));
    store.finish_key(1, Some(decision(1)), b"reply".to_vec()).await.unwrap();
    assert_eq!(store.begin_key(1, 10, at(2)).await, Ok(Begin::Done(b"reply".to_vec())));
    assert_eq!(store.begin_key(2, 10, at(2)).await, Ok(Begin::Fresh));
    store.forget_key(2).await.unwrap();
    assert_eq!(store.begin_key(2, 12, at(3)).await, Ok(Begin::Fresh));
    drop(store);

    let store = reopen(&folder).await;
    assert_eq!(store.begin_key(2, 12, at(4)).await, Ok(Begin::Crashed));
    assert_eq!(store.begin_key(1, 10, at(5)).await, Ok(Begin::Done(b"reply".to_vec())));
    assert_eq!(store.begin_key(2, 12, at(3 + day)).await, Ok(Begin::Crashed));
    assert_eq!(store.begin_key(2, 12, at(4 + day)).await, Ok(Begin::Fresh));
    let rows: i64 =
        store.writer.run(|tx| tx.query_row("SELECT count(*) FROM idempotency", (), |r| r.get(0))).await.unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn a_kept_reply_goes_with_its_decision_or_with_its_day() {
    let (_folder, store) = store().await;
    for key in [1, 2] {
        store.begin_key(key, 10, at(0)).await.unwrap();
        let reply = b"a raw answer".to_vec();
        store.finish_key(key, Some(decision(u64::try_from(key).unwrap())), reply).await.unwrap();
    }
    store.delete_feedback(vec![decision(1)]).await.unwrap();
    assert_eq!(store.begin_key(1, 10, at(1)).await, Ok(Begin::Fresh));
    assert!(matches!(store.begin_key(2, 10, at(1)).await, Ok(Begin::Done(_))));
    assert_eq!(store.prune_keys(at(24 * 60 * 60)).await, Ok(0));
    assert_eq!(store.prune_keys(at(24 * 60 * 60 + 1)).await, Ok(1));
}

#[tokio::test]
async fn learned_states_policies_and_overrides_survive() {
    let (folder, store) = store().await;
    let version = PolicyVersion::new("bandit-1");
    let state = |role, mark| PolicyState {
        version: version.clone(),
        role,
        kind: "bandit".to_owned(),
        created_at: at(9),
        feedback_mark: mark,
        trace_mark: mark + 1,
        updates: mark + 2,
        bytes: vec![1, 2, 255],
    };
    store.save_states(vec![state(StateRole::Base, 1)]).await.unwrap();
    store.save_states(vec![state(StateRole::Latest, 2)]).await.unwrap();
    store.save_states(vec![state(StateRole::Latest, 7)]).await.unwrap();
    let roles = |running: &str, shadow: Option<&str>| Lifecycle {
        configured: "c".to_owned(),
        by_config: false,
        running: running.into(),
        running_since: at(1),
        predecessor: Some("bandit-1".into()),
        shadow: shadow.map(|version| Trial { version: version.into(), since: at(2), marks: (3, 4) }),
        canary: None,
        stands_in: None,
    };
    let entry = |to: &str, share| AuditEntry {
        at: at(7),
        action: PolicyAction::Promoted,
        actor: "caller".to_owned(),
        from: Some("rules-1".into()),
        to: to.into(),
        share,
        forced: true,
        reason: "for a test".to_owned(),
    };
    for (name, time) in [("rules-1", 1), ("bandit-1", 2), ("rules-1", 3)] {
        store
            .describe_policy(PolicyVersion::new(name), "kind".to_owned(), "{}".to_owned(), at(time))
            .await
            .unwrap();
        let other = Some("other").filter(|_| time < 3);
        let kinds = other.map(|other| (PolicyVersion::new(other), "bandit")).into_iter().collect();
        store.change_policies(roles(name, other), vec![entry(name, None)], kinds).await.unwrap();
    }
    store.audit(entry("late", Some(0.5))).await.unwrap();
    let cut = store.writer.run(|tx| tx.execute("DELETE FROM audit", ())).await;
    assert!(cut.is_err(), "the audit log was cut");
    store.save_trials("{}".to_owned()).await.unwrap();
    let mut change = Override::none(ModelName::new("m"));
    store.save(change.clone(), noted()).await.unwrap();
    change.disabled = true;
    store.save(change.clone(), noted()).await.unwrap();
    drop(store);

    let store = reopen(&folder).await;
    assert_eq!(store.load_state(version.clone(), StateRole::Latest).await, Ok(Some(state(StateRole::Latest, 7))));
    assert_eq!(store.load_state(version.clone(), StateRole::Base).await, Ok(Some(state(StateRole::Base, 1))));
    assert_eq!(store.load_state(PolicyVersion::new("other"), StateRole::Base).await, Ok(None));
    let policies: Vec<_> =
        store.policies().await.unwrap().into_iter().map(|p| (p.version, p.state, p.created_at)).collect();
    let expected = [
        (version, PolicyRunState::Retired, at(2)),
        (PolicyVersion::new("other"), PolicyRunState::Candidate, at(1)),
        (PolicyVersion::new("rules-1"), PolicyRunState::Running, at(1)),
    ];
    assert_eq!(policies, expected);
    assert_eq!(store.lifecycle().await, Ok(Some(roles("rules-1", None))));
    let log = store.audit_log(2).await.unwrap();
    assert_eq!(log, [entry("late", Some(0.5)), entry("rules-1", None)]);
    assert_eq!(store.load_trials().await, Ok(Some("{}".to_owned())));
    assert_eq!(store.load(), Ok(vec![change]));
}

#[tokio::test]
async fn what_lies_between_two_marks_is_booked_once() {
    let (_folder, store) = store().await;
    let charge = |account: &str| Charge { account: account.into(), window: at(0) };
    let charges = [charge("b"), charge("each/acme"), charge("")];
    let hold = Hold { decision: decision(1), amount: NanoUsd::new(100), charges: charges.into() };
    let bill = Bill { settled: NanoUsd::new(90), unknown: NanoUsd::new(30) };
    let mut spends = Spends::default();
    let lost = Spend { held: hold.amount, unknown: hold.amount, ..Spend::default() };
    spends.add(&hold, lost, "main");
    spends.add(&hold, Spend::of_report(&hold, bill), "main");
    let booking = Booking { after: 0, through: 5, spends, at: at(1) };
    assert_eq!(store.book(booking.clone()).await, Ok(BookOutcome::Booked));
    assert_eq!(store.book(booking.clone()).await, Ok(BookOutcome::MarkIs(5)));
    assert_eq!(store.book(Booking { after: 4, through: 9, ..booking }).await, Ok(BookOutcome::MarkIs(5)));
    for account in ["b", "each/acme", "main"] {
        let window = store.windows(account, 9).await.unwrap().remove(0);
        assert_eq!(
            (window.settled, window.unknown, window.overrun),
            (bill.settled, bill.unknown, NanoUsd::new(20))
        );
        let transfer = store.transfers((account, at(0)), false, usize::MAX).await.unwrap().remove(0);
        let booked = Spend { held: hold.amount, overrun: NanoUsd::new(20), ..transfer.spend };
        assert_eq!((transfer.kind, transfer.spend), (TransferKind::Booked, booked));
    }
    assert_eq!(store.imbalances().await, Ok(Vec::new()));
    assert_eq!(store.booked_through().await, Ok(5));
}

#[tokio::test]
async fn a_newer_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refused = LedgerStore::open(&path, None).await;
    assert!(matches!(refused, Err(StoreError::NewerSchema { found: 99, .. })));
}
