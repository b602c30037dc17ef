use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use pointsman_router::answer::{Answer, Contribution};
use pointsman_router::backend::{Backend, Call as BackendCall, CallError, Reply};
use pointsman_router::breaker::Breaker;
use pointsman_router::clock::Seeds;
use pointsman_router::features::{Features, TextCount};
use pointsman_router::feedback::{RawFeedback, RawVerdict};
use pointsman_router::hold::{Bill, Ledger, Payer};
use pointsman_router::ids::DecisionId;
use pointsman_router::model::{Availability, Model, ModelCard, Pool, PoolSource, Pricing};
use pointsman_router::money::{NanoUsd, Price};
use pointsman_router::normal::NormalForm;
use pointsman_router::trace::{Trace, TracePlace, TraceSink, TraceStatus};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::task::JoinSet;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pointsman_learner::online::{Lesson, StateError};
use pointsman_router::bandit::BanditSettings;
use pointsman_router::clock::{Clock, Timestamp};
use pointsman_router::features::SchemaHash;
use pointsman_router::ids::ModelName;
use pointsman_router::policy::PolicySource as _;
use tokio::sync::mpsc;

use super::teacher::{PUBLISH_EVERY, SAVE_EVERY};
use super::*;
use crate::booking;
use crate::config::{Budget, Window};
use crate::feedback::{FeedbackDesk, FeedbackError};
use crate::keys::View;
use crate::money::{BudgetLedger, Configured};
use crate::reports::Reports;
use crate::store::StoreError;
use crate::store::ledger::{
    AckStatus, FeedbackCommitted, LedgerStore, NewFeedback, PolicyRunState, StateRole, StoredPolicy,
};
use crate::store::traces::support::{START, sample};
use crate::store::traces::{Committed, TraceStore};
use crate::store::traces::{NewReport, Retention as Keep, Tally, TraceStoreSettings};
use crate::wire::report::ModelReport;

pub(crate) const SECRET: u64 = 5;
pub(crate) const HOLD: NanoUsd = NanoUsd::new(5_000);

/// What the traces of these tests are learned into.
pub(crate) fn artifact() -> Artifact {
    Artifact::cold(BanditSettings::default(), SchemaHash(11))
}

/// Whose money a trace spends.
pub(crate) fn payer(trace: &Trace) -> Payer<'_> {
    Payer { key: trace.key.as_ref(), tags: &trace.tags }
}

/// A clock that stands still until it is set, and counts how often it is read.
#[derive(Debug)]
pub(crate) struct Hand(AtomicI64, AtomicU64);

impl Hand {
    pub(crate) fn set(&self, now: Timestamp) {
        self.0.store(now.micros(), Ordering::SeqCst);
    }

    fn reads(&self) -> u64 {
        self.1.load(Ordering::SeqCst)
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        self.1.fetch_add(1, Ordering::SeqCst);
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counted(AtomicU64);

impl Seeds for Counted {
    fn next_seed(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// `large` has a price by the token, `small` says itself what a call costs.
#[derive(Debug)]
pub(crate) struct Models;

#[derive(Debug)]
struct Nobody;

impl Backend for Nobody {
    fn generate(&self, _call: BackendCall) -> futures_util::future::BoxFuture<'_, Result<Reply, CallError>> {
        Box::pin(std::future::pending())
    }
}

impl PoolSource for Models {
    fn pool(&self) -> Arc<Pool> {
        let price = Price {
            input_per_million_tokens: NanoUsd::new(1_000_000),
            output_per_million_tokens: NanoUsd::new(2_000_000),
            per_call: NanoUsd::ZERO,
        };
        let priced = [
            ("large", Pricing::PerToken(price)),
            ("small", Pricing::Metered { max_per_call: NanoUsd::new(2_500) }),
        ];
        let model = |(name, pricing): (&str, Pricing)| Model {
            card: Arc::new(ModelCard {
                name: name.into(),
                backend: "none".into(),
                upstream: name.into(),
                pricing,
                context_tokens_max: 1_000,
                output_tokens_max: 100,
                timeout: Duration::from_secs(1),
                family: None,
            }),
            backend: Arc::new(Nobody),
            breaker: Arc::new(Breaker::new(name)),
            availability: Availability::Available,
        };
        Arc::new(Pool::new(priced.into_iter().map(model).collect()))
    }
}

/// The learning side of a daemon on a state folder, wired as the daemon wires it.
pub(crate) struct School {
    pub(crate) folder: TempDir,
    pub(crate) clock: Arc<Hand>,
    pub(crate) traces: TraceStore,
    pub(crate) ledger: LedgerStore,
    pub(crate) budget: Arc<BudgetLedger>,
    pub(crate) desk: FeedbackDesk,
    pub(crate) reports: Arc<Reports>,
    pub(crate) learning: Learning,
    pub(crate) retention: crate::retention::Retention,
    jobs: JoinSet<()>,
}

impl School {
    pub(crate) async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn open(folder: TempDir) -> Self {
        let clock = Arc::new(Hand(AtomicI64::new(START.micros()), AtomicU64::default()));
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let (tell_feedback, feedback) = mpsc::channel(64);
        let ledger = LedgerStore::open(&folder.path().join("ledger.db"), Some(tell_feedback)).await.unwrap();
        let settings = TraceStoreSettings {
            floor: ledger.booked_through().await.unwrap().max(ledger.learned_through().await.unwrap()),
            linger: Duration::ZERO,
            retention: Keep { keep_days: 30, keep_bytes: u64::MAX },
            ..TraceStoreSettings::default()
        };
        let (tell, committed) = mpsc::unbounded_channel();
        let traces = TraceStore::open(&folder.path().join("traces.db"), settings, tell).await.unwrap();
        let budget = Budget::of("all", "global", 1_000_000_000, Window::Total);
        let booked = booking::catch_up("all", &traces, &ledger, START).await.unwrap();
        let configured = Configured { main: Some(budget), others: Vec::new() };
        let budget = Arc::new(BudgetLedger::open(ledger.clone(), configured, Arc::clone(&shared)).await.unwrap());
        let stores = (traces.clone(), ledger.clone());
        let (teacher, learning) =
            Teacher::open(Opening::of(artifact()), stores, Arc::clone(&shared)).await.unwrap();
        let (to_teacher, to_learn) = mpsc::channel(64);
        let mut jobs = JoinSet::new();
        jobs.spawn(teacher.run(Streams { feedback, committed: to_learn }));
        jobs.spawn(keep_books(traces.clone(), ledger.clone(), booked, committed, to_teacher));
        let time = (Arc::clone(&shared), Arc::new(Counted::default()) as Arc<dyn Seeds>);
        Self {
            desk: FeedbackDesk::new((traces.clone(), ledger.clone()), Arc::clone(&shared), SECRET, 0.02),
            reports: Arc::new(Reports::new(
                traces.clone(),
                (Arc::clone(&budget), Arc::clone(&budget) as Arc<dyn Ledger>),
                Arc::new(Models),
                time,
                SECRET,
            )),
            retention: crate::retention::Retention::new(traces.clone(), ledger.clone(), learning.clone(), shared),
            folder,
            clock,
            traces,
            ledger,
            budget,
            learning,
            jobs,
        }
    }

    /// Everything is dropped, nothing is closed.
    pub(crate) async fn crash(mut self) -> TempDir {
        self.jobs.shutdown().await;
        // A process that dies takes its writers along. Here they would go on beside those of the next start, and
        // write at places that it gives out again.
        self.traces.flushed().await.unwrap();
        self.ledger.flushed().await.unwrap();
        self.folder
    }

    /// A desk that writes another share on what it takes.
    pub(crate) fn desk_with(&self, departing_share: f64) -> FeedbackDesk {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        FeedbackDesk::new((self.traces.clone(), self.ledger.clone()), clock, SECRET, departing_share)
    }

    /// An orderly end, so that no lease is lost, and a new start.
    pub(crate) async fn restart(self) -> Self {
        self.rest().await;
        self.budget.close().await.unwrap();
        Self::open(self.crash().await).await
    }

    /// What the files hold now, as a copy in a folder of its own: what a power cut would leave.
    pub(crate) fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        ["ledger.db", "traces.db"].iter().for_each(|name| copy_store(self.folder.path(), copy.path(), name));
        copy
    }

    pub(crate) fn push(&self, trace: Trace) -> DecisionId {
        let id = trace.decision.id;
        let sink: Arc<dyn TraceSink> = Arc::new(self.traces.clone());
        TracePlace::reserve(&sink).unwrap().push(Arc::new(trace));
        id
    }

    /// A request, from its hold to its trace.
    pub(crate) async fn route(&self, n: u32) -> DecisionId {
        let trace = lesson(n);
        let hold = self.budget.hold(trace.decision.id, HOLD, payer(&trace), START).await.unwrap();
        if trace.status != TraceStatus::Decided {
            self.budget.settle(&hold, trace.bill);
        }
        let trace = Trace { hold: Some(hold), ..trace };
        if trace.status == TraceStatus::Decided {
            self.reports.expect(&trace, trace.at.plus(Duration::from_secs(600)));
        }
        self.push(trace)
    }

    pub(crate) async fn judge(
        &self,
        decision: DecisionId,
        model: &str,
        source: &str,
        verdict: RawVerdict,
    ) -> Result<AckStatus, FeedbackError> {
        let raw = RawFeedback {
            decision_id: decision.to_string(),
            model: model.to_owned(),
            source: source.to_owned(),
            verdict,
            comment: String::new(),
        };
        self.desk.submit(raw, &View::All).await.map(|ack| ack.status)
    }

    /// Waits until all that is committed is booked, so that the sums are exact when rows go; returns
    /// the last place. What goes before it is booked becomes unknown by the next start.
    async fn booked(&self) -> u64 {
        self.traces.flushed().await.unwrap();
        let rows = self.traces.scan(0, usize::MAX >> 1).await.unwrap();
        let last = rows.last().map_or(0, Committed::seq);
        while self.ledger.booked_through().await.unwrap() < last {
            tokio::task::yield_now().await;
        }
        last
    }

    /// Waits until all that is committed is booked and learned.
    /// The policies that were trained here.
    pub(crate) async fn candidates(&self) -> Vec<StoredPolicy> {
        let all = self.ledger.stored_policies().await.unwrap();
        all.into_iter().filter(|policy| policy.row.state == PolicyRunState::Candidate).collect()
    }

    pub(crate) async fn rest(&self) {
        let traces = self.booked().await;
        let feedback = self.ledger.feedback_through().await.unwrap();
        let mut status = self.learning.status.clone();
        let learned = status.wait_for(|s| s.feedback_mark >= feedback && s.trace_mark >= traces).await;
        drop(learned.unwrap());
    }
}

pub(crate) fn copy_store(from: &Path, to: &Path, name: &str) {
    for ending in ["", "-wal"] {
        let file = format!("{name}{ending}");
        // Without a log there is none to copy.
        let _ = std::fs::remove_file(to.join(&file));
        let _ = std::fs::copy(from.join(&file), to.join(&file));
    }
    let _ = std::fs::remove_file(to.join(format!("{name}-shm")));
}

async fn keep_books(
    traces: TraceStore,
    ledger: LedgerStore,
    mut booked: u64,
    mut committed: mpsc::UnboundedReceiver<Committed>,
    teacher: mpsc::Sender<Committed>,
) {
    let mut rows = Vec::new();
    while committed.recv_many(&mut rows, 16).await > 0 {
        let through = rows.last().unwrap().seq();
        booked = booking::book("all", &ledger, (booked, through), &rows, START).await.unwrap();
        if booked != through {
            booked = booking::catch_up("all", &traces, &ledger, START).await.unwrap();
        }
        for row in rows.drain(..) {
            let _ = teacher.send(row).await;
        }
    }
}

/// Trace number `n` of three kinds: both models answer and differ, one answers, nobody did yet.
pub(crate) fn lesson(n: u32) -> Trace {
    let features = Features {
        text: vec![TextCount { bucket: (n * 37 % 500) as u16, count: 1 + (n % 3) as i16 }],
        surface: std::array::from_fn(|i| ((n as f32) * 0.37 + i as f32).sin()),
        ..Features::clone(&sample(n).features)
    };
    let trace = Trace { features: Arc::new(features), ..sample(n) };
    let said = |model: &str, text: &str, agrees| Contribution {
        model: model.into(),
        weight: 1.0,
        quality: 0.5,
        normal: Some(NormalForm::Clear(text.to_owned())),
        agrees,
    };
    let answer = |contributions| Answer {
        value: None,
        normal: Some(NormalForm::Clear("a".to_owned())),
        confidence: 0.6,
        calibrated: false,
        below_threshold: false,
        contributions,
    };
    match n % 3 {
        0 => {
            let mut outcomes = trace.outcomes.clone();
            outcomes.iter_mut().for_each(|outcome| outcome.replied = true);
            let answer = Some(answer(vec![said("large", "a", true), said("small", "b", false)]));
            Trace { answer, outcomes, ..trace }
        }
        1 => Trace { answer: Some(answer(vec![said("large", "a", true)])), ..trace },
        _ => Trace {
            status: TraceStatus::Decided,
            outcomes: Vec::new(),
            attempts: Vec::new(),
            bill: Bill::default(),
            ..trace
        },
    }
}

/// Lets everything that is ready run; the clock stands still meanwhile.
async fn settle_down() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

/// Waits for other threads; the clock stands still meanwhile.
pub(crate) async fn soon<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    for _ in 0..20_000_000_u64 {
        if let Some(ready) = ready() {
            return ready;
        }
        tokio::task::yield_now().await;
    }
    panic!("did not happen")
}

fn correct(right: bool) -> RawVerdict {
    RawVerdict::Correct(right)
}

fn row(seq: u64, n: u32, label: f64) -> FeedbackCommitted {
    let trace = lesson(n);
    let feedback = NewFeedback {
        decision: trace.decision.id,
        model: Some("large".into()),
        source: "s".to_owned(),
        verdict: pointsman_router::feedback::Verdict::Score(label),
        score: label,
        comment: String::new(),
        at: START,
        departing_share: None,
        task: "law".into(),
        policy: "p".into(),
        answer_model: None,
        chosen: vec!["large".into()],
    };
    let labels = [("large".into(), label)].into();
    let row = crate::store::ledger::FeedbackRow { seq, feedback, corrects: None, orphan: false, labels };
    FeedbackCommitted {
        row,
        labels_before: crate::store::ledger::Labels::new(),
        answer: (None, None),
        trace: Some((seq, Arc::new(trace))),
    }
}

/// A teacher that is fed by hand.
struct Lone {
    _folder: TempDir,
    clock: Arc<Hand>,
    ledger: LedgerStore,
    learning: Learning,
    feedback: mpsc::Sender<FeedbackCommitted>,
    committed: mpsc::Sender<Committed>,
    running: JoinSet<()>,
}

async fn lone() -> Lone {
    let folder = tempfile::tempdir().unwrap();
    let (tell, _) = mpsc::unbounded_channel();
    let ledger = LedgerStore::open(&folder.path().join("ledger.db"), None).await.unwrap();
    let path = folder.path().join("traces.db");
    let traces = TraceStore::open(&path, TraceStoreSettings::default(), tell).await.unwrap();
    let clock = Arc::new(Hand(AtomicI64::new(START.micros()), AtomicU64::default()));
    let shared = Arc::clone(&clock) as Arc<dyn Clock>;
    let stores = (traces.clone(), ledger.clone());
    let (teacher, learning) = Teacher::open(Opening::of(artifact()), stores, shared).await.unwrap();
    let opened = clock.reads();
    let (feedback, from_ledger) = mpsc::channel(512);
    let (committed, from_traces) = mpsc::channel(512);
    let mut running = JoinSet::new();
    running.spawn(teacher.run(Streams { feedback: from_ledger, committed: from_traces }));
    // The first save, of a state that is new.
    while clock.reads() == opened {
        tokio::task::yield_now().await;
    }
    settle_down().await;
    Lone { _folder: folder, clock, ledger, learning, feedback, committed, running }
}

#[tokio::test(start_paused = true)]
async fn a_lesson_is_felt_within_the_interval_and_a_burst_costs_one_snapshot() {
    let lone = lone().await;
    let current = || Arc::as_ptr(&lone.learning.policies().current(0)) as usize;
    // Long idle: no tick that was missed may be made up for.
    tokio::time::advance(Duration::from_secs(10)).await;
    settle_down().await;
    let mut seen = std::collections::BTreeSet::from([current()]);
    let mut kept = vec![lone.learning.policies().current(0)];
    for seq in 1..=200 {
        lone.feedback.send(row(seq, 3, 1.0)).await.unwrap();
        settle_down().await;
        if seen.insert(current()) {
            kept.push(lone.learning.policies().current(0));
        }
    }
    assert!(seen.len() <= 2, "{} snapshots within one interval", seen.len());
    tokio::time::advance(PUBLISH_EVERY).await;
    settle_down().await;
    assert_eq!(lone.learning.status().feedback_mark, 200);
    assert_eq!(lone.learning.status().updates, 200);
    assert!(!seen.contains(&current()));
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_is_saved_twice_a_minute_and_never_in_a_burst() {
    let lone = lone().await;
    let saved = || async {
        let state = lone.ledger.load_state(artifact().version(), StateRole::Latest).await.unwrap();
        state.map_or(0, |state| state.feedback_mark)
    };
    tokio::time::advance(SAVE_EVERY * 100).await;
    let reads = lone.clock.reads();
    for seq in 1..=50 {
        lone.feedback.send(row(seq, 3, 1.0)).await.unwrap();
        // A save writes and syncs two files meanwhile.
        for _ in 0..20 {
            settle_down().await;
        }
    }
    assert!(lone.clock.reads() - reads <= 1, "{} saves at once", lone.clock.reads() - reads);
    tokio::time::sleep(SAVE_EVERY).await;
    while saved().await < 50 {
        tokio::task::yield_now().await;
    }
    let reads = lone.clock.reads();
    tokio::time::sleep(SAVE_EVERY * 5).await;
    settle_down().await;
    assert_eq!(lone.clock.reads(), reads, "nothing new, nothing saved");
}

#[tokio::test(start_paused = true)]
async fn the_teacher_ends_with_its_streams_and_saves() {
    let Lone { _folder, learning, ledger, feedback, committed, mut running, .. } = lone().await;
    feedback.send(row(1, 3, 1.0)).await.unwrap();
    drop(feedback);
    drop(committed);
    soon(|| running.try_join_next()).await.unwrap();
    let state = ledger.load_state(artifact().version(), StateRole::Latest).await.unwrap().unwrap();
    assert_eq!((state.feedback_mark, learning.status().feedback_mark), (1, 1));
    assert_eq!(learning.save().await, Err(StoreError::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_stops_learning_in_front_of_the_hole_and_nothing_else() {
    let school = School::new().await;
    let ids = [school.route(0).await, school.route(2).await];
    school.judge(ids[0], "", "u", correct(true)).await.unwrap();
    school.rest().await;
    let file = rusqlite::Connection::open(school.folder.path().join("traces.db")).unwrap();
    file.execute("UPDATE traces SET body = x'ff' WHERE seq = 2", ()).unwrap();
    let report = NewReport {
        decision: ids[1],
        model: Some("large".into()),
        task: "law".into(),
        at: START,
        tally: Tally::default(),
        body: part().to_bytes(),
    };
    school.traces.report(vec![report]).await.unwrap();
    let mut status = school.learning.status.clone();
    while status.changed().await.is_ok() {}
    assert_eq!((school.learning.status().feedback_mark, school.learning.status().trace_mark), (1, 2));
    assert_eq!(school.learning.save().await, Err(StoreError::Closed));
    // The daemon serves on: traces are taken and booked, feedback is acknowledged.
    let three = school.route(3).await;
    assert_eq!(school.judge(three, "", "u", correct(true)).await.unwrap(), AckStatus::Recorded);
    while school.ledger.booked_through().await.unwrap() < 4 {
        tokio::task::yield_now().await;
    }
    // What was learned in front of the hole was saved; the restart says what is wrong, too.
    let state = school.ledger.load_state(artifact().version(), StateRole::Latest).await.unwrap().unwrap();
    assert_eq!((state.feedback_mark, state.trace_mark), (1, 2));
    let stores = (school.traces.clone(), school.ledger.clone());
    let refused = Teacher::open(Opening::of(artifact()), stores, school.clock.clone()).await;
    assert!(matches!(refused, Err(LearningError::Store(StoreError::Corrupt { .. }))), "{refused:?}");
}

fn part() -> ModelReport {
    let trace = sample(0);
    ModelReport { outcome: trace.outcomes[1].clone(), attempt: trace.attempts[1].clone(), normal: None }
}

#[tokio::test]
async fn catching_up_ends_where_the_last_row_is_gone_and_newer_ones_came() {
    let school = School::new().await;
    let ids = [school.route(0).await, school.route(1).await];
    for id in ids {
        school.judge(id, "", "u", correct(true)).await.unwrap();
    }
    school.rest().await;
    let mut student = Student::new(artifact(), (artifact().fresh(), 0));
    // Up to places that no row has, with rows behind them.
    school.ledger.delete_feedback(vec![ids[0]]).await.unwrap();
    school.traces.delete(crate::store::traces::Deletion::Decisions(vec![ids[0]])).await.unwrap();
    let work = student.catch_up(&school.traces, &school.ledger, (1, 1));
    tokio::time::timeout(Duration::from_secs(5), work).await.expect("goes round for ever").unwrap();
    assert_eq!((student.online.feedback_mark(), student.online.trace_mark()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn concurrent_feedback_teaches_in_the_order_of_the_ledger() {
    let school = School::new().await;
    let mut ids = Vec::new();
    for n in 0..12 {
        ids.push(school.route(n).await);
    }
    let mut tasks = JoinSet::new();
    for i in 0..300_usize {
        let (desk, id) = (school.desk.clone(), ids[i % ids.len()].to_string());
        tasks.spawn(async move {
            let raw = RawFeedback {
                decision_id: id,
                model: "large".to_owned(),
                source: format!("s{}", i % 5),
                verdict: RawVerdict::Score(f64::from(u32::try_from(i).unwrap()) / 300.0),
                comment: String::new(),
            };
            desk.submit(raw, &View::All).await.unwrap().seq
        });
    }
    let mut seqs = tasks.join_all().await;
    seqs.sort_unstable();
    assert!(seqs.into_iter().eq(1..=300));
    school.rest().await;
    school.learning.save().await.unwrap();
    let live = artifact().load(&school.ledger, StateRole::Latest).await.unwrap().unwrap();
    let mut rebuilt = Student::new(artifact(), (artifact().fresh(), 0));
    rebuilt.catch_up(&school.traces, &school.ledger, (u64::MAX, u64::MAX)).await.unwrap();
    assert!(live.0 == rebuilt.online, "another order than the ledger's");
    // In another order the bits differ, so the comparison above can fail.
    let mut rows = school.ledger.scan_feedback(0, 999).await.unwrap();
    rows.swap(0, 1);
    let mut other = artifact().fresh();
    for row in &rows {
        let at = ids.iter().position(|id| *id == row.row.feedback.decision).unwrap();
        let trace = lesson(u32::try_from(at).unwrap());
        let model = ModelName::from("large");
        let (old, new) = (row.labels_before.get(&model).copied(), row.row.labels.get(&model).copied());
        other.teach(row.row.seq, &Lesson { features: &trace.features, model: &model, old, new });
    }
    assert_ne!(other.heads(), live.0.heads());
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_at_a_crash_takes_no_place_of_what_comes_after() {
    let mut school = School::new().await;
    for round in 0..20 {
        for n in 0..200 {
            school.push(lesson(1_000 * round + n));
        }
        // At once, while the writer has most of it before it.
        school = School::open(school.crash().await).await;
        school.push(lesson(1_000 * round + 500));
        school.traces.flushed().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn unusable_state_is_a_typed_error() {
    let school = School::new().await;
    let one = school.route(0).await;
    school.judge(one, "", "u", correct(true)).await.unwrap();
    school.rest().await;
    school.learning.save().await.unwrap();
    let (traces, clock) = (school.traces.clone(), Arc::clone(&school.clock));
    let folder = school.crash().await;
    let ledger = LedgerStore::open(&folder.path().join("ledger.db"), None).await.unwrap();
    let mut state = ledger.load_state(artifact().version(), StateRole::Latest).await.unwrap().unwrap();
    let middle = state.bytes.len() / 2;
    state.bytes[middle] ^= 1;
    ledger.save_states(vec![state]).await.unwrap();
    let refused = Teacher::open(Opening::of(artifact()), (traces, ledger), clock).await;
    assert!(matches!(refused, Err(LearningError::State { cause: StateError::Damaged, .. })));
}

#[derive(Debug, Clone)]
enum Act {
    Route,
    Judge { which: prop::sample::Index, model: u8, source: u8, verdict: u8 },
    Report { which: prop::sample::Index, models: u8, last: bool },
    Unknown,
    Save,
    Restart,
    Prune(prop::sample::Index),
    Delete(prop::sample::Index),
    DeleteTenant,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let index = any::<prop::sample::Index>;
    let judge = (index(), 0_u8..3, 0_u8..3, 0_u8..6);
    let act = prop_oneof![
        6 => Just(Act::Route),
        12 => judge.prop_map(|(which, model, source, verdict)| Act::Judge { which, model, source, verdict }),
        5 => (index(), 0_u8..4, any::<bool>()).prop_map(|(which, models, last)| Act::Report { which, models, last }),
        1 => Just(Act::Unknown),
        2 => Just(Act::Save),
        2 => Just(Act::Restart),
        1 => index().prop_map(Act::Prune),
        1 => index().prop_map(Act::Delete),
        1 => Just(Act::DeleteTenant),
    ];
    prop::collection::vec(act, 1..80)
}

/// What the money of the acts must come to, found in another way.
#[derive(Default)]
struct Money {
    settled: i64,
    open: BTreeSet<DecisionId>,
    reported: std::collections::BTreeMap<(DecisionId, &'static str), i64>,
}

impl School {
    async fn check_money(&self, money: &Money) {
        let row = self.ledger.windows("all", 1).await.unwrap().remove(0);
        let transfers = self.ledger.transfers(("all", row.start), false, usize::MAX).await.unwrap();
        let lost: i64 = transfers
            .iter()
            .filter(|t| t.kind == crate::store::ledger::TransferKind::Lost)
            .map(|t| t.spend.unknown.nanos())
            .sum();
        let unknown = money.open.len() as i64 * HOLD.nanos() + lost;
        assert_eq!((row.settled.nanos(), row.unknown.nanos()), (money.settled, unknown));
        let status = self.budget.status(START);
        assert_eq!(status.spent.saturating_add(status.held), row.spent());
    }
}

fn verdict_of(number: u8) -> RawVerdict {
    match number {
        0 | 1 => correct(number == 1),
        2 | 3 => RawVerdict::Score(f64::from(number) / 7.0),
        4 => RawVerdict::Expected("A".to_owned()),
        _ => RawVerdict::Expected("b.".to_owned()),
    }
}

async fn play(acts: Vec<Act>) {
    let mut school = School::new().await;
    let (mut ids, mut money, mut n) = (Vec::new(), Money::default(), 0);
    for act in acts {
        match act {
            Act::Route => {
                let id = school.route(n).await;
                match lesson(n).status {
                    TraceStatus::Decided => drop(money.open.insert(id)),
                    TraceStatus::Answered | TraceStatus::Failed | TraceStatus::Cancelled => {
                        money.settled += lesson(n).bill.settled.nanos();
                    }
                }
                ids.push(id);
                n += 1;
            }
            Act::Judge { which, model, source, verdict } if !ids.is_empty() => {
                let model = ["", "large", "small"][usize::from(model)];
                let source = ["u", "v", "w"][usize::from(source)];
                match school.judge(*which.get(&ids), model, source, verdict_of(verdict)).await {
                    Ok(_)
                    | Err(
                        FeedbackError::BadRequest(_)
                        | FeedbackError::Unknown { .. }
                        | FeedbackError::Pruned { .. },
                    ) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            Act::Report { which, models, last } if !ids.is_empty() => {
                report(&school, *which.get(&ids), models, last, &mut money).await;
            }
            Act::Judge { .. } | Act::Report { .. } | Act::Delete(_) if ids.is_empty() => {}
            Act::Unknown => {
                let nobody = DecisionId::new(START, &mut pointsman_router::clock::Draw::from_seed(1 << 40));
                assert!(school.judge(nobody, "", "u", correct(true)).await.is_err());
            }
            Act::Save => school.learning.save().await.unwrap(),
            Act::Restart => {
                let folder = school.crash().await;
                let found = crate::verify::verify(folder.path(), &artifact()).await.unwrap();
                assert!(found.equal, "{found:?}");
                school = School::open(folder).await;
            }
            Act::Prune(through) => {
                school.booked().await;
                let last = START.plus(Duration::from_secs(through.index(n as usize + 1) as u64));
                school.clock.set(last.plus(Duration::from_secs(30 * 86_400)));
                school.retention.prune().await.unwrap();
                school.clock.set(START);
            }
            Act::Delete(which) => {
                school.booked().await;
                let which = crate::store::traces::Deletion::Decisions(vec![*which.get(&ids)]);
                school.retention.delete(which).await.unwrap();
            }
            Act::DeleteTenant => {
                school.booked().await;
                let which = crate::store::traces::Deletion::Tenant("even".to_owned());
                school.retention.delete(which).await.unwrap();
            }
            Act::Judge { .. } | Act::Report { .. } => {}
        }
    }
    school.rest().await;
    school.check_money(&money).await;
    let folder = school.crash().await;
    let found = crate::verify::verify(folder.path(), &artifact()).await.unwrap();
    assert!(found.equal, "{found:?}");
}

async fn report(school: &School, id: DecisionId, models: u8, last: bool, money: &mut Money) {
    use pointsman_proto::v1;
    let named = |name: &'static str, cost: Option<i64>| v1::ReportedOutcome {
        model: name.to_owned(),
        status: v1::AttemptStatus::Ok.into(),
        answer: "a".to_owned(),
        tokens_in: 3,
        tokens_out: 5,
        cost_usd_nanos: cost,
        ..Default::default()
    };
    let mut outcomes = Vec::new();
    outcomes.extend((models & 1 > 0).then(|| named("large", None)));
    outcomes.extend((models & 2 > 0).then(|| named("small", Some(900))));
    let names: Vec<&str> = outcomes.iter().map(|o| o.model.as_str()).collect();
    let names: Vec<&'static str> = ["large", "small"].into_iter().filter(|n| names.contains(n)).collect();
    let request = v1::ReportOutcomesRequest { decision_id: id.to_string(), outcomes, r#final: last };
    let Ok(standing) = school.reports.report(request, &View::All).await else { return };
    if !money.open.contains(&id) {
        return;
    }
    for name in names {
        money.reported.insert((id, name), if name == "large" { 3 + 10 } else { 900 });
    }
    let parts: Vec<i64> = money.reported.iter().filter(|((of, _), _)| *of == id).map(|(_, cost)| *cost).collect();
    assert_eq!(standing.settled, last || parts.len() == 2);
    if standing.settled {
        money.open.remove(&id);
        money.settled += parts.iter().sum::<i64>();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_restart_equals_a_rebuild_and_the_books_are_exact(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(acts));
    }
}
