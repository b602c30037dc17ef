use std::collections::BTreeMap;

use pointsman_router::trace::{TracePlace, TraceStatus};
use proptest::prelude::*;
use tempfile::TempDir;

use super::support::{START, sample};
use super::*;

/// A store in a folder of its own, and what its subscriber hears.
struct Room {
    folder: TempDir,
    store: TraceStore,
    events: mpsc::UnboundedReceiver<Committed>,
}

async fn open(folder: &TempDir, settings: TraceStoreSettings) -> (TraceStore, mpsc::UnboundedReceiver<Committed>) {
    let (tell, events) = mpsc::unbounded_channel();
    let settings = TraceStoreSettings { linger: Duration::ZERO, ..settings };
    (TraceStore::open(&folder.path().join("traces.db"), settings, tell).await.unwrap(), events)
}

async fn room(settings: TraceStoreSettings) -> Room {
    let folder = tempfile::tempdir().unwrap();
    let (store, events) = open(&folder, settings).await;
    Room { folder, store, events }
}

async fn small_room() -> Room {
    room(TraceStoreSettings::default()).await
}

impl Room {
    fn push(&self, n: u32) -> DecisionId {
        let trace = sample(n);
        let id = trace.decision.id;
        let sink: Arc<dyn TraceSink> = Arc::new(self.store.clone());
        TracePlace::reserve(&sink).unwrap().push(Arc::new(trace));
        id
    }

    async fn push_all(&self, numbers: impl IntoIterator<Item = u32>) -> Vec<DecisionId> {
        let ids = numbers.into_iter().map(|n| self.push(n)).collect();
        self.store.flushed().await.unwrap();
        ids
    }

    /// Closes and opens it again.
    async fn restart(self, settings: TraceStoreSettings) -> Self {
        let Self { folder, store, .. } = self;
        store.close().await.unwrap();
        let (store, events) = open(&folder, settings).await;
        Self { folder, store, events }
    }

    fn heard(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.events.try_recv().ok()).map(|event| event.seq()).collect()
    }

    async fn limit_pages(&self, pages: i64) {
        let set = move |tx: &Transaction<'_>| {
            tx.pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0))
        };
        self.store.alone(set).await.unwrap();
    }
}

fn report(decision: DecisionId, model: Option<&str>, body: u8) -> NewReport {
    let mut tally = Tally::default();
    tally.outcome(true, Some(Duration::from_millis(2)));
    let model = model.map(ModelName::from);
    NewReport { decision, model, task: "law".into(), at: START, tally, body: vec![body] }
}

fn found<T>(lookup: Lookup<T>) -> T {
    match lookup {
        Lookup::Found(found) => found,
        Lookup::Pruned => panic!("pruned"),
        Lookup::Unknown => panic!("unknown"),
    }
}

#[tokio::test]
async fn a_trace_comes_back_as_it_was_and_the_subscriber_was_told_by_then() {
    let mut room = small_room().await;
    let id = room.push(4);
    let (seq, trace) = found(room.store.committed(id).await.unwrap());
    assert_eq!((seq, room.heard()), (1, vec![1]));
    let room = room.restart(TraceStoreSettings::default()).await;
    let (seq, again) = found(room.store.committed(id).await.unwrap());
    assert_eq!(seq, 1);
    assert_eq!(format!("{again:?}"), format!("{trace:?}"));
    assert_eq!(found(room.store.get(id).await.unwrap()).message().unwrap().sequence, 1);
    assert!(matches!(room.store.committed(sample(5).decision.id).await, Ok(Lookup::Unknown)));
}

#[tokio::test]
async fn the_sequence_goes_on_after_a_restart_a_deletion_and_the_floor() {
    let room = small_room().await;
    let ids = room.push_all(0..3).await;
    room.store.delete(Deletion::Decisions(ids)).await.unwrap();
    let room = room.restart(TraceStoreSettings::default()).await;
    let id = room.push(3);
    assert_eq!(found(room.store.committed(id).await.unwrap()).0, 4);
    let mut room = room.restart(TraceStoreSettings { floor: 90, ..TraceStoreSettings::default() }).await;
    let id = room.push(4);
    assert_eq!(found(room.store.committed(id).await.unwrap()).0, 91);
    assert_eq!(room.heard(), [91]);
    assert_eq!(room.store.last_seq().await, Ok(91));
}

#[tokio::test]
async fn places_are_bounded_and_come_back_with_the_commit() {
    let room = room(TraceStoreSettings { places_max: 2, ..TraceStoreSettings::default() }).await;
    let sink: Arc<dyn TraceSink> = Arc::new(room.store.clone());
    let unused = TracePlace::reserve(&sink).unwrap();
    let id = room.push(0);
    room.store.committed(id).await.unwrap();
    let used = TracePlace::reserve(&sink).unwrap();
    assert_eq!(TracePlace::reserve(&sink).unwrap_err(), TracesFull);
    assert_eq!(room.store.report(vec![report(id, Some("small"), 1)]).await, Err(StoreError::Busy));
    drop(unused);
    assert_eq!(room.store.report(vec![report(id, Some("small"), 1)]).await, Ok(vec![Reported::Recorded]));
    drop(used);
}

#[tokio::test]
async fn reports_share_the_sequence_and_the_first_of_a_model_stands() {
    let mut room = small_room().await;
    let id = room.push(1);
    let both = vec![report(id, Some("small"), 1), report(id, None, 2)];
    assert_eq!(room.store.report(both).await, Ok(vec![Reported::Recorded; 2]));
    let again = vec![report(id, Some("small"), 9), report(id, Some("large"), 3)];
    assert_eq!(room.store.report(again).await, Ok(vec![Reported::Repeated, Reported::Recorded]));
    room.push_all([2]).await;
    assert_eq!(room.heard(), [1, 2, 3, 5, 6]);
    let bodies: Vec<u8> = room.store.reports(id).await.unwrap().iter().map(|r| r.body[0]).collect();
    assert_eq!(bodies, [1, 2, 3]);
    let mut scanned = Vec::new();
    loop {
        let some = room.store.scan(scanned.last().copied().unwrap_or(0), 2).await.unwrap();
        scanned.extend(some.iter().map(Committed::seq));
        if some.len() < 2 {
            break;
        }
    }
    assert_eq!(scanned, [1, 2, 3, 5, 6]);
    // Two traces counted by themselves, two reports of one outcome each.
    let calls: u64 = room.store.stats().await.unwrap().models.iter().map(|row| row.tally.calls).sum();
    assert_eq!(calls, 2 * 2 + 2);
}

#[tokio::test]
async fn a_full_disk_keeps_traces_refuses_new_ones_and_goes_on_once_there_is_room() {
    let mut room = room(TraceStoreSettings { places_max: 200, ..TraceStoreSettings::default() }).await;
    room.limit_pages(16).await;
    let ids: Vec<DecisionId> = (0..200).map(|n| room.push(n)).collect();
    assert!(matches!(room.store.committed(ids[199]).await, Err(StoreError::Full)));
    assert_eq!(room.store.flushed().await, Err(StoreError::Full));
    let sink: Arc<dyn TraceSink> = Arc::new(room.store.clone());
    // The first commits had room, so some places are free again; the others are not.
    let free: Vec<TracePlace> = (0..200).map_while(|_| TracePlace::reserve(&sink).ok()).collect();
    assert!(free.len() < 150, "{}", free.len());
    room.limit_pages(10_000).await;
    while room.store.flushed().await.is_err() {}
    drop(free);
    assert!(TracePlace::reserve(&sink).is_ok());
    assert_eq!(room.heard(), (1..=200).collect::<Vec<u64>>());
    assert_eq!(room.store.size().await.unwrap().traces, 200);
}

#[tokio::test]
async fn a_store_that_cannot_write_closes_all_the_same() {
    let room = small_room().await;
    room.limit_pages(16).await;
    let ids: Vec<DecisionId> = (0..200).map(|n| room.push(n)).collect();
    assert!(matches!(room.store.committed(ids[199]).await, Err(StoreError::Full)));
    assert_eq!(room.store.close().await, Err(StoreError::Full));
    let late = room.push(201);
    assert!(matches!(room.store.committed(late).await, Ok(Lookup::Unknown)));
}

#[tokio::test]
async fn lists_are_filtered_and_paged_newest_first() {
    let room = small_room().await;
    room.push_all(0..30).await;
    let check = async |filter: TraceFilter, expected: &[u64]| {
        let mut seqs: Vec<u64> = Vec::new();
        let mut below = None;
        loop {
            let page = room.store.list(filter.clone(), below, 4).await.unwrap();
            seqs.extend(page.traces.iter().map(|stored| stored.seq));
            below = page.next;
            if below.is_none() {
                break;
            }
        }
        assert_eq!(seqs, expected, "{filter:?}");
        let export = room.store.export(filter, 0, 30, 100).await.unwrap();
        assert!(export.iter().map(|stored| stored.seq).eq(seqs.into_iter().rev()));
    };
    let tag = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let all: Vec<u64> = (1..=30).rev().collect();
    let even: Vec<u64> = (1..=30).rev().step_by(2).map(|seq| seq - 1).collect();
    let filter = TraceFilter::default;
    check(filter(), &all).await;
    check(TraceFilter { model: Some("small".into()), ..filter() }, &all).await;
    check(TraceFilter { model: Some("mall".into()), ..filter() }, &[]).await;
    check(TraceFilter { model: Some("off".into()), ..filter() }, &[]).await;
    check(TraceFilter { tags: tag("tenant", "even"), ..filter() }, &even).await;
    check(TraceFilter { tags: tag("team", "a"), task: Some("math".into()), ..filter() }, &[25, 19, 13, 7, 1])
        .await;
    check(TraceFilter { status: Some(TraceStatus::Failed), ..filter() }, &[]).await;
    check(TraceFilter { caller_ref: Some("row-7".to_owned()), policy: Some("bandit-1".into()), ..filter() }, &[8])
        .await;
    let second = |n: u64| START.plus(Duration::from_secs(n));
    check(TraceFilter { from: Some(second(3)), before: Some(second(6)), ..filter() }, &[6, 5, 4]).await;
}

#[tokio::test]
async fn pruning_marks_first_then_deletes_and_keeps_the_statistics() {
    const DAYS: u64 = 86_400;
    let room = room(TraceStoreSettings {
        retention: Retention { keep_days: 1, keep_bytes: u64::MAX },
        ..TraceStoreSettings::default()
    })
    .await;
    let ids = room.push_all(0..10).await;
    room.store.report(vec![report(ids[0], Some("small"), 1)]).await.unwrap();
    let stats = room.store.stats().await.unwrap();
    let at = |seconds: u64| START.plus(Duration::from_secs(seconds));
    assert_eq!(room.store.prune_plan(at(DAYS)).await, Ok(None));
    let mark = room.store.prune_plan(at(DAYS + 4)).await.unwrap().unwrap();
    assert_eq!(mark, PruneMark { seq: 4, at: at(3) });
    assert!(matches!(room.store.get(ids[0]).await, Ok(Lookup::Found(_))));
    room.store.mark_pruned(mark).await.unwrap();
    assert!(matches!(room.store.get(ids[3]).await, Ok(Lookup::Pruned)));
    assert!(matches!(room.store.get(ids[4]).await, Ok(Lookup::Found(_))));
    assert_eq!(room.store.delete_through(mark, 3).await, Ok(true));

    // A crash here: what is marked is planned again.
    let settings =
        TraceStoreSettings { retention: Retention { keep_days: 1, keep_bytes: u64::MAX }, ..Default::default() };
    let room = room.restart(settings).await;
    assert_eq!(room.store.pruned_through(), mark);
    assert_eq!(room.store.prune_plan(at(DAYS)).await, Ok(Some(mark)));
    assert_eq!(room.store.delete_through(mark, 3).await, Ok(false));
    assert_eq!(room.store.prune_plan(at(DAYS)).await, Ok(None));
    assert_eq!(room.store.size().await.unwrap().traces, 6);
    assert_eq!(room.store.stats().await, Ok(stats));
    assert!(matches!(room.store.get(ids[0]).await, Ok(Lookup::Pruned)));
    assert!(matches!(room.store.get(sample(70).decision.id).await, Ok(Lookup::Unknown)));
}

#[tokio::test]
async fn a_trace_from_elsewhere_is_as_old_as_its_place_and_nobody_is_told() {
    let keep = Retention { keep_days: 1, keep_bytes: u64::MAX };
    let mut room = room(TraceStoreSettings { retention: keep, ..TraceStoreSettings::default() }).await;
    let old = |n: u32| Arc::new(Trace { at: Timestamp::from_micros(0), ..sample(n) });
    let ids = room.push_all([1, 2]).await;
    assert_eq!(room.store.import(vec![old(5), old(1)]).await, Ok(vec![true, false]));
    room.push_all([3]).await;
    assert_eq!(room.heard(), [1, 2, 5]);
    assert_eq!(room.store.is_imported(sample(5).decision.id).await, Ok(true));
    assert_eq!(room.store.is_imported(ids[0]).await, Ok(false));
    assert_eq!(room.store.scan(0, 9).await.unwrap().iter().map(Committed::seq).collect::<Vec<_>>(), [1, 2, 5]);
    let Ok(Lookup::Found((3, found))) = room.store.committed(sample(5).decision.id).await else { panic!() };
    assert_eq!((found.features.schema, found.features.prompt_bytes), (NO_FEATURES, 40));
    // Younger than a day are all that happened here.
    assert_eq!(room.store.prune_plan(START.plus(Duration::from_secs(86_400))).await, Ok(None));
    let mark = room.store.prune_plan(START.plus(Duration::from_secs(86_403))).await.unwrap().unwrap();
    assert_eq!((mark.seq, mark.at), (2, sample(2).at));
    assert_eq!(room.store.list(TraceFilter::default(), None, 9).await.unwrap().traces.len(), 4);
}

#[tokio::test]
async fn a_share_of_the_traces_keeps_its_features_and_always_the_same_ones() {
    let with = |sample| TraceStoreSettings { sample, ..TraceStoreSettings::default() };
    let kept = async |share: f64| {
        let room = room(with(share)).await;
        room.push_all(0..400).await;
        let found = room.store.scan(0, 1_000).await.unwrap();
        let schema = |row: &Committed| match row {
            Committed::Trace { trace, .. } => trace.features.schema,
            Committed::Report(_) => panic!("nothing was reported"),
        };
        found.iter().filter(|row| schema(row) != NO_FEATURES).map(Committed::seq).collect::<Vec<_>>()
    };
    let some = kept(0.25).await;
    assert!((70..130).contains(&some.len()), "{}", some.len());
    assert_eq!(kept(0.25).await, some);
    let more = kept(0.5).await;
    assert!(some.iter().all(|seq| more.contains(seq)));
    assert_eq!((kept(0.0).await.len(), kept(1.0).await.len()), (0, 400));
}

#[tokio::test]
async fn a_file_that_is_too_large_is_pruned_from_the_oldest_to_under_the_limit() {
    let keep = |keep_bytes| TraceStoreSettings {
        retention: Retention { keep_days: 999, keep_bytes },
        ..Default::default()
    };
    let filled = room(keep(u64::MAX)).await;
    filled.push_all(0..1_000).await;
    let used = filled.store.size().await.unwrap().used_bytes;
    let room = filled.restart(keep(used / 2)).await;
    // Rows are taken as equally large, so it may take more than one round.
    while let Some(mark) = room.store.prune_plan(START).await.unwrap() {
        room.store.mark_pruned(mark).await.unwrap();
        while room.store.delete_through(mark, 100).await.unwrap() {}
    }
    let left = room.store.size().await.unwrap();
    assert!(left.used_bytes <= used / 2, "{} of {used}", left.used_bytes);
    assert!((400..=500).contains(&left.traces), "{}", left.traces);
}

#[tokio::test]
async fn old_days_fold_into_one_row_and_lose_nothing() {
    let room = small_room().await;
    room.push_all([0, 1, 86_400, 172_800]).await;
    let total = |stats: &Stats| {
        let mut sum = Tally::default();
        stats.models.iter().for_each(|row| sum.add(&row.tally));
        (sum, stats.decisions.clone())
    };
    let before = room.store.stats().await.unwrap();
    let day = stats::day_of(START) + 2;
    room.store.alone(move |tx| stats::fold_before(tx, day)).await.unwrap();
    room.store.alone(move |tx| stats::fold_before(tx, day)).await.unwrap();
    let after = room.store.stats().await.unwrap();
    assert_eq!(total(&after), total(&before));
    assert!(after.models.iter().all(|row| row.day == 0 || row.day == day));
}

#[tokio::test]
async fn deleting_takes_traces_on_their_way_and_their_reports() {
    let room = small_room().await;
    let ids: Vec<DecisionId> = (0..10).map(|n| room.push(n)).collect();
    assert_eq!(room.store.delete(Deletion::Tenant("even".to_owned())).await, Ok(5));
    room.store.report(vec![report(ids[1], Some("small"), 1)]).await.unwrap();
    let some = vec![ids[0], ids[1], sample(99).decision.id];
    assert_eq!(room.store.delete(Deletion::Decisions(some)).await, Ok(1));
    assert_eq!(room.store.reports(ids[1]).await, Ok(Vec::new()));
    assert_eq!(room.store.size().await.unwrap().traces, 4);
    assert!(matches!(room.store.get(ids[0]).await, Ok(Lookup::Unknown)));
}

#[tokio::test]
async fn statistics_count_what_the_traces_say() {
    let room = small_room().await;
    room.push_all(0..6).await;
    let stats = room.store.stats().await.unwrap();
    assert_eq!(stats.decisions, BTreeMap::from([("law".into(), 4), ("math".into(), 2)]));
    let row = |model: &str, task: &str| {
        let row = stats.models.iter().find(|row| row.model.as_str() == model && row.task.as_str() == task);
        row.map(|row| row.tally.clone())
    };
    assert_eq!(row("off", "law"), None);
    let small = row("small", "law").unwrap();
    assert_eq!((small.eligible, small.chosen, small.picked_first), (4, 4, 4));
    assert_eq!((small.calls, small.replies, small.attempts), (4, 0, 4));
    assert_eq!(small.failures, Failures { throttled: 4, ..Failures::default() });
    let large = row("large", "law").unwrap();
    assert!((large.inclusion_sum - 3.0).abs() < 1e-12);
    assert_eq!((large.picked_first, large.replies, large.cost_nanos), (0, 4, 1_200));
    assert_eq!((large.tokens_in, large.tokens_out, large.latency.sum_us), (40, 80, 4_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// However pushes and restarts fall: one row and one event per push, in rising order.
    #[test]
    fn there_is_one_row_per_push(bursts in proptest::collection::vec(0_u32..60, 1..5)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut room = small_room().await;
            let (mut pushed, mut heard) = (0, Vec::new());
            for burst in bursts {
                room.push_all(pushed..pushed + burst).await;
                // Handed over twice: the first stands.
                room.push_all(pushed.saturating_sub(1)..pushed).await;
                pushed += burst;
                heard.extend(room.heard());
                room = room.restart(TraceStoreSettings::default()).await;
            }
            let scanned: Vec<u64> = room.store.scan(0, 1_000).await.unwrap().iter().map(Committed::seq).collect();
            assert_eq!(scanned.len(), pushed as usize);
            assert_eq!(scanned, heard);
            assert!(heard.is_sorted_by(|a, b| a < b));
        });
    }
}
