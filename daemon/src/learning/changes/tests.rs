use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pointsman_router::bandit::BanditSettings;
use pointsman_router::clock::{Clock, Draw};
use pointsman_router::decision::{Candidate, Decision};
use pointsman_router::features::SchemaHash;
use pointsman_router::feedback::{RawFeedback, RawVerdict};
use pointsman_router::ids::DecisionId;
use pointsman_router::money::NanoUsd;
use pointsman_router::policy::{Ask, Contender, Policy as _, PolicySource as _, Snapshot};
use pointsman_router::rules::RulesPolicy;
use pointsman_router::trace::{Trace, TracePlace, TraceSink};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;
use crate::clock::Stopped;
use crate::feedback::FeedbackDesk;
use crate::learning::tests::{SECRET, lesson};
use crate::learning::{
    Artifact, ArtifactFault, Candidates, Learning, LearningStatus, Opening, Report, Standing, Streams,
};
use crate::store::ledger::{LedgerStore, PolicyAction};
use crate::store::traces::support::START;
use crate::store::traces::{TraceStore, TraceStoreSettings};

/// A bandit that picks evenly whatever it learns.
pub(in crate::learning) fn even() -> Artifact {
    Artifact::cold(BanditSettings { floor: 1.0, ..BanditSettings::default() }, SchemaHash(11))
}

pub(in crate::learning) fn cold() -> Artifact {
    Artifact::cold(BanditSettings::default(), SchemaHash(11))
}

/// Rules that always pick `large`.
fn large() -> RulesPolicy {
    RulesPolicy::new(BTreeMap::new(), vec!["large".into()])
}

/// Candidates in memory, all with one standing.
#[derive(Debug, Clone, Default)]
struct Memory(Vec<Artifact>, Option<Standing>);

impl Candidates for Memory {
    fn load(&self, version: PolicyVersion) -> BoxFuture<'_, Result<Option<Artifact>, ArtifactFault>> {
        let found = self.0.iter().find(|artifact| artifact.version() == version).cloned();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn standing(&self, _: PolicyVersion) -> BoxFuture<'_, Result<Option<Standing>, StoreError>> {
        Box::pin(std::future::ready(Ok(self.1.clone())))
    }
}

/// A teacher with stores of its own, and requests that it decides.
pub(in crate::learning) struct Court {
    folder: TempDir,
    traces: TraceStore,
    pub(in crate::learning) ledger: LedgerStore,
    desk: FeedbackDesk,
    pub(in crate::learning) learning: Learning,
    jobs: JoinSet<()>,
    next: u32,
}

impl Court {
    pub(in crate::learning) async fn open(folder: TempDir, opening: Opening, next: u32) -> Self {
        let clock: Arc<dyn Clock> = Stopped::at(START);
        let (tell, feedback) = mpsc::channel(64);
        let ledger = LedgerStore::open(&folder.path().join("ledger.db"), Some(tell)).await.unwrap();
        let settings = TraceStoreSettings { linger: Duration::ZERO, ..TraceStoreSettings::default() };
        let (tell, mut committed) = mpsc::unbounded_channel();
        let traces = TraceStore::open(&folder.path().join("traces.db"), settings, tell).await.unwrap();
        let stores = (traces.clone(), ledger.clone());
        let (teacher, learning) = Teacher::open(opening, stores, Arc::clone(&clock)).await.unwrap();
        let (to_teacher, to_learn) = mpsc::channel(64);
        let mut jobs = JoinSet::new();
        jobs.spawn(teacher.run(Streams { feedback, committed: to_learn }));
        jobs.spawn(async move {
            while let Some(row) = committed.recv().await {
                let _ = to_teacher.send(row).await;
            }
        });
        let desk = FeedbackDesk::new((traces.clone(), ledger.clone()), clock, SECRET, 0.02);
        Self { folder, traces, ledger, desk, learning, jobs, next }
    }

    /// Everything is dropped, nothing is saved.
    pub(in crate::learning) async fn restart(mut self, opening: Opening) -> Self {
        self.jobs.shutdown().await;
        // The writers of a process that dies end with it; here they must be through first.
        self.traces.flushed().await.unwrap();
        self.ledger.flushed().await.unwrap();
        Self::open(self.folder, opening, self.next).await
    }

    /// One request among `large` and `small`, decided by whoever its seed names.
    pub(in crate::learning) fn decide(&mut self) -> (DecisionId, String) {
        self.next += 1;
        let seed = u64::from(self.next).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let trace = decided(self.next, seed, &self.learning.policies().current(seed));
        let (id, picked) = (trace.decision.id, trace.decision.chosen().next().unwrap().model.to_string());
        let sink: Arc<dyn TraceSink> = Arc::new(self.traces.clone());
        TracePlace::reserve(&sink).unwrap().push(Arc::new(trace));
        (id, picked)
    }

    pub(in crate::learning) async fn judge(&self, id: DecisionId, model: &str, score: f64) {
        let raw = RawFeedback {
            decision_id: id.to_string(),
            model: model.to_owned(),
            source: "u".to_owned(),
            verdict: RawVerdict::Score(score),
            comment: String::new(),
        };
        self.desk.submit(raw, &crate::keys::View::All).await.unwrap();
    }

    /// Requests whose answers score what their models do.
    pub(in crate::learning) async fn serve(&mut self, count: usize, score: impl Fn(&str) -> f64) {
        for _ in 0..count {
            let (id, picked) = self.decide();
            self.judge(id, "", score(&picked)).await;
        }
    }

    /// The same, with a hundred that wait for their commits together.
    pub(in crate::learning) async fn serve_at_once(&mut self, count: usize, score: impl Fn(&str) -> f64) {
        for served in (0..count).step_by(100) {
            let decided: Vec<(DecisionId, String)> =
                (served..count.min(served + 100)).map(|_| self.decide()).collect();
            let judged = decided.iter().map(|(id, picked)| self.judge(*id, "", score(picked)));
            futures_util::future::join_all(judged).await;
        }
    }

    pub(in crate::learning) async fn report(&self) -> Report {
        self.traces.flushed().await.unwrap();
        self.learning.report().await.unwrap()
    }

    pub(in crate::learning) async fn log(&self) -> Vec<(PolicyAction, String)> {
        let entries = self.ledger.audit_log(99).await.unwrap();
        entries.into_iter().map(|entry| (entry.action, entry.actor)).collect()
    }
}

fn decided(n: u32, seed: u64, snapshot: &Snapshot) -> Trace {
    let base = lesson(1);
    let at = START.plus(Duration::from_secs(u64::from(n)));
    let mut draw = Draw::from_seed(seed);
    let names = ["large", "small"];
    let contender = |name: &str| Contender {
        name: name.into(),
        forecast: pointsman_router::forecast::Forecast { cost: NanoUsd::new(100), latency_p95: None },
        barred: false,
    };
    let ask = Ask {
        features: &base.features,
        projected: &snapshot.policy.project(&base.features),
        task: &base.decision.task.name,
        objective: base.decision.objective,
        caller_ref: None,
        contenders: &names.map(contender),
    };
    let estimates = snapshot.policy.score(&ask).estimates;
    let id = DecisionId::new(at, &mut draw);
    let picked = draw.index(estimates.iter().map(|e| e.pick)).unwrap();
    let candidate = |(i, name): (usize, &str)| Candidate {
        model: name.into(),
        ineligible: None,
        quality: estimates[i].quality,
        utility: estimates[i].utility,
        cost: NanoUsd::new(100),
        latency_p95: None,
        worst_case: NanoUsd::new(200),
        pick: estimates[i].pick,
        inclusion: estimates[i].pick,
        chosen: i == picked,
    };
    let decision = Decision {
        id,
        at,
        seed,
        policy: snapshot.policy.version().clone(),
        policy_kind: snapshot.policy.kind(),
        candidates: names.into_iter().enumerate().map(candidate).collect(),
        set: vec![picked],
        set_propensity: estimates[picked].pick,
        calls_max: 1,
        ..Decision::clone(&base.decision)
    };
    Trace { at, decision: Arc::new(decision), answer: None, outcomes: Vec::new(), hold: None, ..base }
}

/// Rules decide, the even bandit is a candidate.
fn rules_decide() -> Opening {
    Opening {
        rules: Some(large()),
        rules_decide: true,
        candidates: Arc::new(Memory(vec![even()], None)),
        ..Opening::of(cold())
    }
}

fn wish(forced: bool) -> Wish {
    Wish { actor: "caller".into(), reason: "a test".to_owned(), forced }
}

async fn court(opening: Opening) -> Court {
    Court::open(tempfile::tempdir().unwrap(), opening, 0).await
}

fn large_is_right(model: &str) -> f64 {
    f64::from(u8::from(model == "large"))
}

#[tokio::test]
async fn a_canary_that_is_worse_is_rolled_back_by_itself_and_a_restart_keeps_that() {
    let mut court = court(rules_decide()).await;
    court.learning.promote(even().version(), 0.5, wish(true)).await.unwrap();
    court.serve(12, large_is_right).await;
    let before = court.report().await.canary.unwrap();
    let mut court = court.restart(rules_decide()).await;
    let after = court.report().await.canary.unwrap();
    assert_eq!((after.candidate, after.incumbent), (before.candidate, before.incumbent), "a restart counts on");
    assert_eq!(after.candidate.0 + after.incumbent.0, 12);
    for _ in 0..40 {
        court.serve(20, large_is_right).await;
        if court.report().await.roles.open_canary().is_none() {
            break;
        }
    }
    let canary = court.report().await.canary.unwrap();
    assert_eq!(canary.life.ended.unwrap().1, CanaryEnd::RolledBack);
    let (value, _, upper) = canary.difference.unwrap();
    assert!(value < 0.0 && upper < 0.0 && canary.candidate.1 < canary.incumbent.1, "{canary:?}");
    assert_eq!(court.log().await[0], (PolicyAction::RolledBack, "canary".to_owned()));
    let court = court.restart(rules_decide()).await;
    assert!((0..200).all(|seed| court.learning.policies().current(seed).policy.version() == large().version()));
}

#[tokio::test]
async fn a_canary_that_is_as_good_goes_on_and_a_correction_counts_once() {
    let mut court = court(rules_decide()).await;
    court.learning.promote(even().version(), 0.5, wish(true)).await.unwrap();
    let (id, _) = court.decide();
    for score in [0.0, 0.25, 1.0, 1.0] {
        court.judge(id, "", score).await;
    }
    court.serve(150, |_| 1.0).await;
    let report = court.report().await;
    assert!(report.roles.open_canary().is_some());
    let canary = report.canary.unwrap();
    assert_eq!(canary.candidate.0 + canary.incumbent.0, 151);
    assert_eq!((canary.candidate.1, canary.incumbent.1), (Some(1.0), Some(1.0)));
    let (_, lower, upper) = canary.difference.unwrap();
    assert!(lower < 0.0 && upper > 0.0);
}

#[tokio::test]
async fn a_shadow_is_worth_what_its_choices_earn_and_is_counted_on_after_a_restart() {
    let opening = || Opening { rules: Some(large()), ..Opening::of(even()) };
    let mut court = court(opening()).await;
    court.learning.set_shadow(Some(large().version().clone()), wish(false)).await.unwrap();
    court.serve(200, |model| if model == "large" { 0.8 } else { 0.2 }).await;
    let report = court.report().await;
    let shadow = report.shadow.unwrap();
    assert_eq!((shadow.rows, shadow.judged, report.live.judged), (200, 200, 200));
    assert!((0.4..0.6).contains(&shadow.agreement), "{shadow:?}");
    let snips = shadow.snips.unwrap();
    assert!((snips.value - 0.8).abs() < 1e-9 && (80.0..120.0).contains(&shadow.effective_sample_size));
    let (low, high) = shadow.doubly_robust.unwrap().interval();
    assert!(low < 0.8 && 0.8 < high && high - low < 0.3, "{low} {high}");
    assert!((shadow.cost_nanos - 100.0).abs() < 1e-9);
    let live = report.live.value.unwrap();
    assert!((0.4..0.6).contains(&live.value));
    court.learning.save().await.unwrap();
    let mut court = court.restart(opening()).await;
    court.serve(20, |model| if model == "large" { 0.8 } else { 0.2 }).await;
    let shadow = court.report().await.shadow.unwrap();
    assert_eq!((shadow.rows, shadow.judged), (220, 220));
    // Another shadow begins from nothing.
    court.learning.set_shadow(None, wish(false)).await.unwrap();
    assert_eq!(court.report().await.shadow, None);
    court.learning.set_shadow(Some(large().version().clone()), wish(false)).await.unwrap();
    assert_eq!(court.report().await.shadow.unwrap().rows, 0);
}

#[tokio::test]
async fn the_predecessor_learns_on_and_whoever_left_comes_back_as_it_would_be_rebuilt() {
    let memory =
        Arc::new(Memory(vec![even()], Some(Standing { incumbent: cold().version(), failed: Vec::new() })));
    let opening = || Opening { candidates: Arc::clone(&memory) as Arc<dyn Candidates>, ..Opening::of(cold()) };
    let mut court = court(opening()).await;
    let teach = async |court: &mut Court, count: usize| {
        for _ in 0..count {
            let (id, picked) = court.decide();
            court.judge(id, &picked, large_is_right(&picked)).await;
        }
        court.report().await;
        court.learning.save().await.unwrap();
    };
    teach(&mut court, 10).await;
    let roles = court.learning.promote(even().version(), 1.0, wish(false)).await.unwrap();
    assert_eq!((roles.running, roles.predecessor), (even().version(), Some(cold().version())));
    teach(&mut court, 10).await;
    let roles = court.learning.roll_back(wish(false)).await.unwrap();
    assert_eq!(roles.running, cold().version());
    teach(&mut court, 5).await;
    // The predecessor learned all along.
    let status = court.learning.status.clone().wait_for(|status| status.updates == 25).await.unwrap().clone();
    assert_eq!(status.learned.len(), 1, "who has no role learns no more");
    let mut court = court.restart(opening()).await;
    court.learning.set_shadow(Some(even().version()), wish(false)).await.unwrap();
    teach(&mut court, 5).await;
    let updates = |status: &LearningStatus| status.learned.get(&even().version()).map(|learned| learned.updates);
    court.learning.status.clone().wait_for(|status| updates(status) == Some(30)).await.unwrap();
    for artifact in [cold(), even()] {
        let through = (u64::MAX, u64::MAX);
        let [mut saved, mut rebuilt] = [
            artifact.clone().student(&court.ledger, StateRole::Latest).await.unwrap(),
            Student::new(artifact.clone(), (artifact.fresh(), 0)),
        ];
        saved.catch_up(&court.traces, &court.ledger, through).await.unwrap();
        rebuilt.catch_up(&court.traces, &court.ledger, through).await.unwrap();
        assert!(saved.online() == rebuilt.online(), "{}", artifact.version());
    }
}

#[tokio::test]
async fn a_policy_whose_artifact_is_gone_does_not_keep_the_daemon_from_deciding() {
    let court = court(rules_decide()).await;
    court.learning.promote(even().version(), 1.0, wish(true)).await.unwrap();
    let court = court.restart(Opening { candidates: Arc::new(Memory::default()), ..rules_decide() }).await;
    assert_eq!(court.learning.status().running, *large().version());
    assert_eq!(court.log().await[0], (PolicyAction::RolledBack, "start".to_owned()));
    let unknown = court.learning.promote(even().version(), 1.0, wish(true)).await;
    assert_eq!(unknown, Err(ChangeError::Unknown { version: even().version() }));
    let other = Artifact::cold(BanditSettings { floor: 1.0, ..BanditSettings::default() }, SchemaHash(12));
    let version = other.version();
    let court = court.restart(Opening { candidates: Arc::new(Memory(vec![other], None)), ..rules_decide() }).await;
    let refused = court.learning.promote(version.clone(), 1.0, wish(true)).await;
    assert_eq!(refused, Err(ChangeError::Artifact(ArtifactFault::Schema { version })));
}

#[tokio::test]
async fn exploration_goes_to_the_challengers_choices_and_is_logged_as_it_is_drawn() {
    let opening = || Opening { exploration: 0.1, ..rules_decide() };
    let mut court = court(opening()).await;
    let pick = |court: &Court| {
        let trace = decided(1, 1, &court.learning.policies().current(1));
        trace.decision.candidate("small").unwrap().pick
    };
    assert!((pick(&court) - 0.05).abs() < 1e-9, "all of it evenly");
    court.learning.set_shadow(Some(even().version()), wish(false)).await.unwrap();
    let first = pick(&court);
    // Half of the challenger's picks are on `small`; a share of them, and a quarter of the floor.
    assert!((first - (0.075 * 0.5 * 0.975 + 0.0125)).abs() < 1e-9, "{first}");
    court.serve(64, large_is_right).await;
    court.report().await;
    court.learning.set_shadow(Some(even().version()), wish(false)).await.unwrap();
    court.learning.promote(cold().version(), 0.5, wish(true)).await.unwrap();
    // Moved is half of what is aimed, so aiming twice as hard spends what may be spent.
    assert!((pick(&court) - (0.15 * 0.5 * 0.975 + 0.0125)).abs() < 1e-6, "{}", pick(&court));
}
