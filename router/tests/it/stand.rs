//! The stand: a router over fake ports that remember all they were asked.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use pointsman_router::backend::{Backend, Call, CallError, Reply};
use pointsman_router::breaker::{Breaker, FAILURES_IN_A_ROW};
use pointsman_router::clock::{Clock, Seeds, Timestamp};
use pointsman_router::forecast::{Forecasts, Leans, ModelForecast};
use pointsman_router::hold::{Bill, Charge, Hold, HoldError, Ledger, NoMoney, Payer};
use pointsman_router::ids::{AttemptId, DecisionId, ModelName, PolicyVersion};
use pointsman_router::model::{Availability, Model, ModelCard, Pool, PoolSource, Pricing};
use pointsman_router::money::NanoUsd;
use pointsman_router::pacing::Unpaced;
use pointsman_router::pipeline::{Metering, Ports, RouteError, Router};
use pointsman_router::policy::{Ask, Completion, Estimate, Policy, PolicyKind, PolicySource, Scored, Snapshot};
use pointsman_router::progress::Unwatched;
use pointsman_router::request::RouteRequest;
use pointsman_router::settings::Settings;
use pointsman_router::trace::{Trace, TraceSink, TraceStatus, TracesFull};
use tokio::time::Instant;

pub(crate) const T0: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
/// The most that a call of a stand's model costs, where the test says nothing else.
pub(crate) const MAX_PER_CALL: i64 = 100;

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Runs a future on tokio's paused clock.
pub(crate) fn paused<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(future)
}

#[derive(Debug)]
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        T0.plus(self.0.elapsed())
    }
}

#[derive(Debug, Default)]
struct CountedSeeds(AtomicU64);

impl Seeds for CountedSeeds {
    fn next_seed(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// What a backend does with one call.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    After(Duration, Result<Reply, CallError>),
    Never,
    Panics,
}

/// Plays its steps one call after another, then `last` for ever.
#[derive(Debug)]
pub(crate) struct Script {
    steps: Mutex<VecDeque<Step>>,
    last: Step,
    covers: bool,
    pub(crate) calls: Mutex<Vec<Call>>,
}

impl Backend for Script {
    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
        self.calls.lock().unwrap().push(call);
        let step = self.steps.lock().unwrap().pop_front().unwrap_or_else(|| self.last.clone());
        Box::pin(async move {
            match step {
                Step::After(delay, result) => {
                    tokio::time::sleep(delay).await;
                    result
                }
                Step::Never => std::future::pending().await,
                Step::Panics => panic!("a backend with a bug"),
            }
        })
    }

    fn covers(&self, _upstream: &str, _caller_ref: Option<&str>) -> bool {
        self.covers
    }
}

/// A reply with this text that costs this much.
pub(crate) fn says(text: &str, cost: i64) -> Step {
    let reply = Reply { text: Some(text.to_owned()), cost: Some(NanoUsd::new(cost)), ..Reply::default() };
    Step::After(ms(20), Ok(reply))
}

pub(crate) fn fails(error: CallError) -> Step {
    Step::After(ms(20), Err(error))
}

pub(crate) fn refuses() -> Step {
    fails(CallError::Refused { detail: "no".into() })
}

/// A model of the stand.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) pricing: Pricing,
    pub(crate) steps: Vec<Step>,
    pub(crate) last: Step,
    pub(crate) timeout: Duration,
    pub(crate) availability: Availability,
    pub(crate) context_tokens_max: u32,
    pub(crate) covers: bool,
    pub(crate) breaker_open: bool,
    /// Latency seen in the past.
    pub(crate) seen: Option<Duration>,
    /// Nano-dollars spent on each call in the past.
    pub(crate) spent: Option<u32>,
}

/// A model that says `text` for half of what it may cost.
pub(crate) fn model(name: &str, text: &str) -> Spec {
    Spec {
        name: name.to_owned(),
        pricing: Pricing::Metered { max_per_call: NanoUsd::new(MAX_PER_CALL) },
        steps: Vec::new(),
        last: says(text, MAX_PER_CALL / 2),
        timeout: ms(1_000),
        availability: Availability::Available,
        context_tokens_max: 8_000,
        covers: true,
        breaker_open: false,
        seen: None,
        spent: None,
    }
}

impl Spec {
    pub(crate) fn costs(mut self, max: i64) -> Self {
        self.pricing = Pricing::Metered { max_per_call: NanoUsd::new(max) };
        self
    }

    pub(crate) fn always(mut self, step: Step) -> Self {
        self.last = step;
        self
    }

    pub(crate) fn first(mut self, steps: &[Step]) -> Self {
        self.steps = steps.to_vec();
        self
    }
}

type Scorer = Box<dyn Fn(&Ask<'_>) -> Scored + Send + Sync>;

/// A policy that says what the test says.
pub(crate) struct Scripted {
    version: PolicyVersion,
    scorer: Scorer,
    leans: Leans,
    pub(crate) asked: AtomicUsize,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl Policy for Scripted {
    fn version(&self) -> &PolicyVersion {
        &self.version
    }

    fn kind(&self) -> PolicyKind {
        PolicyKind::Reference
    }

    fn leans(&self, _: &[f32], _: u32, _: &str) -> Leans {
        self.leans
    }

    fn score(&self, ask: &Ask<'_>) -> Scored {
        self.asked.fetch_add(1, Ordering::Relaxed);
        (self.scorer)(ask)
    }
}

/// Quality .7 and even picks for all, grown greedily.
pub(crate) fn even(ask: &Ask<'_>) -> Scored {
    let pick = 1.0 / ask.contenders.len() as f64;
    let estimate = Estimate { quality: 0.7, utility: 0.7, pick };
    Scored { estimates: vec![estimate; ask.contenders.len()], completion: Completion::Greedy, note: None }
}

/// By name: quality and weight of the pick, which is divided by the weights of those eligible.
pub(crate) fn by_name(table: &[(&str, f64, f64)]) -> Scorer {
    let table: BTreeMap<String, (f64, f64)> = table.iter().map(|(n, q, p)| ((*n).to_owned(), (*q, *p))).collect();
    Box::new(move |ask| {
        let of = |name: &ModelName| table.get(name.as_str()).copied().unwrap_or((0.5, 0.0));
        let total: f64 = ask.contenders.iter().map(|c| of(&c.name).1).sum();
        let estimates = ask.contenders.iter().map(|c| {
            let (quality, weight) = of(&c.name);
            let utility = ask.objective.utility(quality, c.forecast.cost);
            Estimate { quality, utility, pick: if total > 0.0 { weight / total } else { 1.0 } }
        });
        Scored { estimates: estimates.collect(), completion: Completion::Greedy, note: None }
    })
}

/// The first of the list that may be called, then the others in its order.
pub(crate) fn listed(order: &'static [&'static str]) -> Scorer {
    Box::new(move |ask| {
        let place = |name: &&str| ask.contenders.iter().position(|c| c.name.as_str() == *name);
        let order: Vec<usize> = order.iter().filter_map(place).collect();
        let pick = |at: usize| if order.first() == Some(&at) { 1.0 } else { 0.0 };
        let estimate = |at| Estimate { quality: 0.5, utility: 0.0, pick: pick(at) };
        let estimates = (0..ask.contenders.len()).map(estimate).collect();
        Scored { estimates, completion: Completion::Listed(order), note: None }
    })
}

#[derive(Debug, Default)]
struct Pools(Arc<Pool>);

impl PoolSource for Pools {
    fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.0)
    }
}

#[derive(Debug)]
struct OnePolicy(Arc<Snapshot>);

impl PolicySource for OnePolicy {
    fn current(&self, _: u64) -> Arc<Snapshot> {
        Arc::clone(&self.0)
    }
}

/// What was asked of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    Held(Hold),
    Denied(NanoUsd),
    Settled(Hold, Bill),
}

#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) left: Option<i64>,
    /// Taken by somebody else, or given back where negative, right after the next question what is
    /// left.
    pub(crate) stolen_next: i64,
    pub(crate) down: bool,
    /// How long a hold takes to be granted.
    pub(crate) grants_after: Duration,
    pub(crate) log: Vec<Entry>,
}

/// A budget in memory that never grants more than it has.
#[derive(Debug, Default)]
pub(crate) struct MemoryLedger(pub(crate) Mutex<Account>);

impl Ledger for MemoryLedger {
    fn left(&self, _payer: Payer<'_>, _now: Timestamp) -> Option<NanoUsd> {
        let mut account = self.0.lock().unwrap();
        let told = account.left;
        let stolen = std::mem::take(&mut account.stolen_next);
        account.left = told.map(|left| left - stolen);
        told.map(NanoUsd::new)
    }

    fn hold<'a>(
        &'a self,
        decision: DecisionId,
        amount: NanoUsd,
        _payer: Payer<'a>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Hold, HoldError>> {
        Box::pin(async move {
            let grants_after = self.0.lock().unwrap().grants_after;
            tokio::time::sleep(grants_after).await;
            tokio::task::yield_now().await;
            let mut account = self.0.lock().unwrap();
            if account.down {
                return Err(HoldError::Ledger { detail: "disk full".into() });
            }
            if let Some(left) = account.left {
                if amount.nanos() > left.max(0) {
                    account.log.push(Entry::Denied(amount));
                    return Err(HoldError::NoMoney(NoMoney {
                        budget: "test".into(),
                        amount: NanoUsd::ZERO,
                        left: NanoUsd::new(left),
                        asked: amount,
                        resets_at: None,
                        resets_at_text: "never".into(),
                    }));
                }
                account.left = Some(left - amount.nanos());
            }
            let charges = [Charge { account: "test".into(), window: now }].into();
            let hold = Hold { decision, amount, charges };
            account.log.push(Entry::Held(hold.clone()));
            Ok(hold)
        })
    }

    fn settle(&self, hold: &Hold, bill: Bill) {
        let mut account = self.0.lock().unwrap();
        account.left = account.left.map(|left| left + hold.amount.nanos() - bill.spent().nanos());
        account.log.push(Entry::Settled(hold.clone(), bill));
    }
}

#[derive(Debug, Default)]
pub(crate) struct MemoryTraces {
    pub(crate) full: bool,
    pub(crate) reserved: AtomicUsize,
    pub(crate) released: AtomicUsize,
    pub(crate) pushed: Mutex<Vec<Arc<Trace>>>,
}

impl TraceSink for MemoryTraces {
    fn reserve(&self) -> Result<(), TracesFull> {
        if self.full {
            return Err(TracesFull);
        }
        self.reserved.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn release(&self) {
        self.released.fetch_add(1, Ordering::Relaxed);
    }

    fn push(&self, trace: Arc<Trace>) {
        self.pushed.lock().unwrap().push(trace);
    }
}

/// How a stand is to be.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) models: Vec<Spec>,
    pub(crate) scorer: Scorer,
    pub(crate) left: Option<i64>,
    pub(crate) traces_full: bool,
    pub(crate) leans: Leans,
}

impl Setup {
    /// These models under an even policy without a budget; quality alone counts, and a model has one
    /// attempt.
    pub(crate) fn of(models: impl IntoIterator<Item = Spec>) -> Self {
        let settings = Settings { answer_value: None, attempts_max: 1, secret: 7, ..Settings::default() };
        let models = models.into_iter().collect();
        Self { settings, models, scorer: Box::new(even), left: None, traces_full: false, leans: Leans::NONE }
    }

    pub(crate) fn policy(mut self, scorer: impl Fn(&Ask<'_>) -> Scored + Send + Sync + 'static) -> Self {
        self.scorer = Box::new(scorer);
        self
    }

    pub(crate) fn budget(mut self, left: i64) -> Self {
        self.left = Some(left);
        self
    }

    /// Must be called inside the runtime, whose clock the stand follows.
    pub(crate) fn build(self) -> Stand {
        let mut forecasts = Forecasts::default();
        let mut scripts = BTreeMap::new();
        let mut models = Vec::new();
        for spec in self.models {
            if let Some(latency) = spec.seen {
                let mut seen = ModelForecast::default();
                (0..500).for_each(|_| seen.latency_us.observe(10, latency.as_micros() as f64));
                forecasts.models.insert(ModelName::new(&spec.name), seen);
            }
            if let Some(nanos) = spec.spent {
                let seen = forecasts.models.entry(ModelName::new(&spec.name)).or_default();
                (0..500).for_each(|_| seen.cost_nanos.observe(10, f64::from(nanos)));
            }
            let script = Arc::new(Script {
                steps: Mutex::new(spec.steps.clone().into()),
                last: spec.last.clone(),
                covers: spec.covers,
                calls: Mutex::default(),
            });
            models.push(registered(&spec, Arc::clone(&script)));
            scripts.insert(spec.name, script);
        }
        let pool = Arc::new(Pool::new(models));
        let policy = Arc::new(Scripted {
            version: PolicyVersion::from("scripted".to_owned()),
            scorer: self.scorer,
            leans: self.leans,
            asked: AtomicUsize::new(0),
        });
        let snapshot = Snapshot { policy: Arc::clone(&policy) as Arc<dyn Policy>, forecasts: Arc::new(forecasts) };
        let ledger = Arc::new(MemoryLedger(Mutex::new(Account { left: self.left, ..Account::default() })));
        let traces = Arc::new(MemoryTraces { full: self.traces_full, ..MemoryTraces::default() });
        let ports = Ports {
            clock: Arc::new(PausedClock(Instant::now())),
            seeds: Arc::new(CountedSeeds::default()),
            pools: Arc::new(Pools(Arc::clone(&pool))),
            policies: Arc::new(OnePolicy(Arc::new(snapshot))),
            ledger: Arc::clone(&ledger) as Arc<dyn Ledger>,
            pacer: Arc::new(Unpaced),
            traces: Arc::clone(&traces) as Arc<dyn TraceSink>,
        };
        Stand { router: Router::new(self.settings, ports), scripts, policy, ledger, traces }
    }
}

fn registered(spec: &Spec, script: Arc<Script>) -> Model {
    let breaker = Breaker::new(&spec.name);
    for _ in 0..if spec.breaker_open { FAILURES_IN_A_ROW } else { 0 } {
        breaker.admit(T0, true).unwrap().on_failure(T0);
    }
    let card = ModelCard {
        name: ModelName::new(&spec.name),
        backend: "stand".into(),
        upstream: spec.name.as_str().into(),
        pricing: spec.pricing,
        context_tokens_max: spec.context_tokens_max,
        output_tokens_max: 100,
        timeout: spec.timeout,
        family: None,
    };
    let availability = spec.availability.clone();
    Model { card: Arc::new(card), backend: script, breaker: Arc::new(breaker), availability }
}

/// A router and the ports under it.
#[derive(Debug)]
pub(crate) struct Stand {
    pub(crate) router: Router,
    scripts: BTreeMap<String, Arc<Script>>,
    pub(crate) policy: Arc<Scripted>,
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) traces: Arc<MemoryTraces>,
}

pub(crate) fn ask(prompt: &str) -> RouteRequest {
    RouteRequest { prompt: prompt.to_owned(), calls_max: Some(1), ..RouteRequest::default() }
}

impl Stand {
    pub(crate) async fn route(&self, raw: RouteRequest) -> Result<Arc<Trace>, RouteError> {
        self.router.route(raw, &Unwatched).await
    }

    pub(crate) async fn decide(&self, raw: RouteRequest) -> Result<Arc<Trace>, RouteError> {
        self.router.decide(raw, Metering::Caller).await
    }

    pub(crate) fn traced(&self) -> Vec<Arc<Trace>> {
        self.traces.pushed.lock().unwrap().clone()
    }

    pub(crate) fn log(&self) -> Vec<Entry> {
        self.ledger.0.lock().unwrap().log.clone()
    }

    pub(crate) fn left(&self) -> Option<i64> {
        self.ledger.0.lock().unwrap().left
    }

    /// The calls that each model got.
    pub(crate) fn calls(&self) -> Vec<(String, AttemptId)> {
        let of = |(name, script): (&String, &Arc<Script>)| -> Vec<(String, AttemptId)> {
            script.calls.lock().unwrap().iter().map(|call| (name.clone(), call.attempt)).collect()
        };
        self.scripts.iter().flat_map(of).collect()
    }

    /// What must hold after any request whatever: places, holds, bills and attempts agree.
    pub(crate) fn audit(&self) {
        let traces = self.traced();
        let reserved = self.traces.reserved.load(Ordering::Relaxed);
        let released = self.traces.released.load(Ordering::Relaxed);
        assert_eq!(reserved, released + traces.len(), "places leaked");
        let (mut held, mut settled) = (BTreeMap::new(), BTreeMap::new());
        for entry in self.log() {
            let twice = match entry.clone() {
                Entry::Held(hold) => held.insert(hold.decision, hold).is_some(),
                Entry::Settled(hold, bill) => settled.insert(hold.decision, (hold, bill)).is_some(),
                Entry::Denied(_) => false,
            };
            assert!(!twice, "{entry:?} twice");
        }
        let mut attempts = Vec::new();
        for trace in &traces {
            let id = trace.decision.id;
            assert_eq!(trace.hold, held.remove(&id), "one trace per hold");
            let spent: i64 = trace.attempts.iter().map(|a| a.cost.nanos()).sum();
            assert_eq!(trace.bill.spent().nanos(), spent);
            if trace.status == TraceStatus::Decided {
                assert!(trace.attempts.is_empty() && !settled.contains_key(&id));
            } else {
                assert_eq!(settled.remove(&id), trace.hold.clone().map(|hold| (hold, trace.bill)));
            }
            attempts.extend(trace.attempts.iter().map(|a| (a.model.as_str().to_owned(), a.id)));
        }
        assert!(held.is_empty() && settled.is_empty(), "held and never traced: {held:?} {settled:?}");
        let calls = self.calls();
        assert!(calls.iter().all(|call| attempts.iter().filter(|a| *a == call).count() == 1), "a call got lost");
        let mut unique = attempts.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), attempts.len(), "an attempt is there twice");
    }

    /// What a refused request leaves: nothing.
    pub(crate) fn audit_untouched(&self) {
        self.audit();
        assert!(self.calls().is_empty() && self.traced().is_empty());
        let spent = |entry: &Entry| matches!(entry, Entry::Held(_) | Entry::Settled(..));
        assert!(!self.log().iter().any(spent), "{:?}", self.log());
    }
}
