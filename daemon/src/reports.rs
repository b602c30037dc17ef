//! Reports: what the caller of `Decide` saw when it called the models itself.
//!
//! Reports come in parts, the first of each model stands, and the last one merges, settles the hold
//! and returns the answer; all of it is durable before it is acknowledged. A decision that nobody
//! reports in time keeps its hold as unknown, and a late report still settles it.
//!
//! Texts wait in memory for the merge, up to a bound, and are never stored; after a restart in the
//! middle of a report the earlier parts vote by the normal form that was kept in clear, or by their
//! text, where it is sent again.
//!
//! Reports of one decision take turns, so the end of a decision holds exactly what was acknowledged
//! before it. What comes after the end changes nothing.

mod joined;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pointsman_proto::v1;
use pointsman_router::answer::Answer;
use pointsman_router::check::{BadRequest, Fault, Problem};
use pointsman_router::clock::{Clock, Draw, Seeds, Timestamp};
use pointsman_router::hold::{Bill, Hold, Ledger};
use pointsman_router::ids::{AttemptId, BadId, DecisionId, ModelName};
use pointsman_router::merge::{MergeRules, merge};
use pointsman_router::model::{PoolSource, Pricing};
use pointsman_router::money::NanoUsd;
use pointsman_router::normal::{NormalForm, extract, normalise};
use pointsman_router::outcome::Outcome;
use pointsman_router::trace::{Trace, TraceStatus};

use self::joined::read;
pub use self::joined::{joined, with_reports};
use crate::keys::View;
use crate::money::BudgetLedger;
use crate::store::StoreError;
use crate::store::traces::{Lookup, NewReport, Reported, Tally, TraceStore};
use crate::wire::report::{ModelReport, ReportEnd, from_wire};
use crate::wire::{self, WireError};

/// Decisions that wait for their report, at most; beyond it the oldest are given up before their time.
const OPEN_MAX: usize = 1 << 18;
/// Bytes of texts that wait for their merge, all decisions together; beyond it parts vote by what is
/// stored of them.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// How long a text waits where nobody said how long the report may take.
const TEXTS_KEPT: Duration = Duration::from_secs(600);
/// Longest description of a failure, in bytes.
const ERROR_BYTES_MAX: usize = 1_024;
/// A reported cost is at most so many times the worst case by the price card, or ...
const COST_TIMES_MAX: u32 = 1_000;
/// ... ten dollars: one caller must not be able to end a budget by a slip of the pen.
const COST_LEAST_MAX: NanoUsd = NanoUsd::new(10_000_000_000);
/// Turns that reports take, by decision.
const TURNS: usize = 64;

/// Why a report was not taken. Nothing was changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReportError {
    /// Something in it is wrong.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// There is no such decision.
    #[error("no decision `{id}` is known")]
    Unknown {
        /// Its id.
        id: DecisionId,
    },
    /// The decision is older than what is kept.
    #[error("decision `{id}` is older than the traces that are kept")]
    Pruned {
        /// Its id.
        id: DecisionId,
    },
    /// The daemon made the calls itself.
    #[error("decision `{id}` was routed by the daemon, only decisions of Decide are reported")]
    NotDecideOnly {
        /// Its id.
        id: DecisionId,
    },
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored report cannot be read back.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// What stands after a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// What became of each outcome, in the order of the request.
    pub acks: Vec<(ModelName, Reported)>,
    /// The merged answer, once the decision is final and somebody replied.
    pub answer: Option<Answer>,
    /// The kind of answer wanted.
    pub kind: pointsman_router::request::KindName,
    /// What all reported calls cost so far.
    pub cost: NanoUsd,
    /// Whether the decision is final.
    pub settled: bool,
    /// Chosen models that were not reported so far.
    pub missing: Vec<ModelName>,
}

/// A decision that waits for its report, or was reported and may be asked for again.
#[derive(Debug)]
struct Waiting {
    report_by: Timestamp,
    /// What becomes unknown when the time is over.
    hold: Option<Hold>,
    /// What was reported so far, until it is merged.
    texts: BTreeMap<ModelName, String>,
    /// The merged answer in the words of its model.
    value: Option<String>,
}

impl Waiting {
    fn new(report_by: Timestamp, hold: Option<Hold>) -> Self {
        Self { report_by, hold, texts: BTreeMap::new(), value: None }
    }

    fn bytes(&self) -> usize {
        self.texts.values().chain(&self.value).map(String::len).sum()
    }
}

/// Decisions that wait for their report, by id and by when they are given up.
#[derive(Debug, Default)]
struct Open {
    waiting: BTreeMap<DecisionId, Waiting>,
    due: BTreeSet<(Timestamp, DecisionId)>,
    text_bytes: usize,
}

impl Open {
    fn insert(&mut self, id: DecisionId, waiting: Waiting) {
        self.due.insert((waiting.report_by, id));
        self.waiting.insert(id, waiting);
    }

    fn remove(&mut self, id: DecisionId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.due.remove(&(waiting.report_by, id));
        self.text_bytes = self.text_bytes.saturating_sub(waiting.bytes());
        Some(waiting)
    }

    /// Keeps texts until the merge, as far as there is room.
    fn keep(&mut self, id: DecisionId, texts: &BTreeMap<ModelName, String>, now: Timestamp) {
        if texts.is_empty() {
            return;
        }
        if !self.waiting.contains_key(&id) {
            self.insert(id, Waiting::new(now.plus(TEXTS_KEPT), None));
        }
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        for (model, text) in texts {
            if self.text_bytes.saturating_add(text.len()) <= TEXT_BYTES_MAX && !waiting.texts.contains_key(model) {
                self.text_bytes += text.len();
                waiting.texts.insert(model.clone(), text.clone());
            }
        }
    }

    /// The end: of the texts only the value of the merged answer is kept, for whoever asks again.
    fn end(&mut self, id: DecisionId, answer: Option<&Answer>) {
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        self.text_bytes = self.text_bytes.saturating_sub(waiting.bytes());
        waiting.hold = None;
        waiting.texts.clear();
        waiting.value = answer.and_then(|answer| answer.value.clone());
        self.text_bytes += waiting.bytes();
    }

    /// The next decision to give up, where one is due or there are too many.
    fn next_due(&self, now: Timestamp) -> Option<DecisionId> {
        let (report_by, id) = *self.due.first()?;
        (report_by <= now || self.due.len() > OPEN_MAX).then_some(id)
    }
}

/// Takes reports.
#[derive(Debug)]
pub struct Reports {
    traces: TraceStore,
    ledger: Arc<BudgetLedger>,
    /// Where holds end: the ledger, with whatever stands in front of it.
    desk: Arc<dyn Ledger>,
    pools: Arc<dyn PoolSource>,
    clock: Arc<dyn Clock>,
    seeds: Arc<dyn Seeds>,
    secret: u64,
    open: Mutex<Open>,
    turns: [tokio::sync::Mutex<()>; TURNS],
}

impl Reports {
    /// Takes reports over these stores. `secret` keys the hashes of answers.
    #[must_use]
    pub fn new(
        traces: TraceStore,
        (ledger, desk): (Arc<BudgetLedger>, Arc<dyn Ledger>),
        pools: Arc<dyn PoolSource>,
        (clock, seeds): (Arc<dyn Clock>, Arc<dyn Seeds>),
        secret: u64,
    ) -> Self {
        let turns = std::array::from_fn(|_| tokio::sync::Mutex::new(()));
        Self { traces, ledger, desk, pools, clock, seeds, secret, open: Mutex::default(), turns }
    }

    /// Waits for the report of a decision until `report_by`.
    pub fn expect(&self, trace: &Trace, report_by: Timestamp) {
        let mut open = self.lock();
        open.insert(trace.decision.id, Waiting::new(report_by, trace.hold.clone()));
        self.give_up(open, trace.at);
    }

    /// Gives up waiting for decisions whose time is over: their holds are unknown from now on.
    pub fn expire(&self, now: Timestamp) {
        self.give_up(self.lock(), now);
    }

    fn give_up(&self, mut open: MutexGuard<'_, Open>, now: Timestamp) {
        while let Some(id) = open.next_due(now) {
            if let Some(hold) = open.remove(id).and_then(|waiting| waiting.hold) {
                self.ledger.expire(&hold);
            }
        }
    }

    /// Takes a part of a report, or the end of it; a decision that the caller may not see is answered as one that
    /// never was. To be run to its end: a caller that drops it between
    /// the commit and the settlement leaves its hold to its time.
    ///
    /// # Errors
    /// [`ReportError`]; what was acknowledged before stands.
    pub async fn report(&self, request: v1::ReportOutcomesRequest, view: &View) -> Result<Standing, ReportError> {
        let v1::ReportOutcomesRequest { decision_id, outcomes, r#final } = request;
        let id = DecisionId::parse(&decision_id)
            .map_err(|error: BadId| BadRequest::of("decision_id", Problem::malformed(error.to_string())))?;
        let _turn = self.turn(id).await;
        let _staying = self.traces.staying().await;
        let trace = self.decided(id, view).await?;
        let costs = self.check(&trace, &outcomes)?;
        let (parts, end) = read(&self.traces, id).await?;
        if let Some(end) = end {
            return self.ended(&trace, &outcomes, &parts, end);
        }
        let now = self.clock.now();
        let said = self.said(&trace, outcomes, &costs, now);
        let rows = said.iter().map(|(part, _)| row(&trace, now, part)).collect();
        let reported = self.traces.report(rows).await?;
        let acks = said.iter().map(|(part, _)| part.outcome.model.clone()).zip(reported).collect();
        let (parts, _) = read(&self.traces, id).await?;
        let texts = texts(said, &parts);
        self.lock().keep(id, &texts, now);
        let (missing, cost) = (missing(&trace, &parts), cost(&parts));
        let settled = r#final || missing.is_empty();
        let answer = if settled { self.merge(&trace, &parts, texts) } else { None };
        if settled {
            self.end(&trace, answer.as_ref(), cost).await?;
        }
        Ok(Standing { acks, answer, kind: trace.kind, cost, settled, missing })
    }

    async fn turn(&self, id: DecisionId) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        // The end of an id is chance.
        let at = id.as_bytes().last().map_or(0, |byte| usize::from(*byte) % TURNS);
        match self.turns.get(at) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        }
    }

    /// What is said to whoever reports on after the end: the same again.
    fn ended(
        &self,
        trace: &Trace,
        outcomes: &[v1::ReportedOutcome],
        parts: &[ModelReport],
        end: ReportEnd,
    ) -> Result<Standing, ReportError> {
        let value = self.lock().waiting.get(&trace.decision.id).and_then(|waiting| waiting.value.clone());
        let mut answer = end.answer.map(|answer| wire::answer::from_stored(answer, value)).transpose()?;
        if let Some(answer) = &mut answer
            && answer.value.is_none()
        {
            answer.value = answer.normal.as_ref().and_then(clear);
        }
        let acks = outcomes.iter().map(|o| (ModelName::new(&o.model), Reported::Repeated)).collect();
        let (missing, cost) = (missing(trace, parts), end.cost);
        Ok(Standing { acks, answer, kind: trace.kind, cost, settled: true, missing })
    }

    async fn decided(&self, id: DecisionId, view: &View) -> Result<Arc<Trace>, ReportError> {
        let trace = match self.traces.committed(id).await? {
            Lookup::Found((_, trace)) if !view.sees(&trace.tags) => return Err(ReportError::Unknown { id }),
            Lookup::Found((_, trace)) => trace,
            Lookup::Pruned => return Err(ReportError::Pruned { id }),
            Lookup::Unknown => return Err(ReportError::Unknown { id }),
        };
        match trace.status {
            TraceStatus::Decided => Ok(trace),
            TraceStatus::Answered | TraceStatus::Failed | TraceStatus::Cancelled => {
                Err(ReportError::NotDecideOnly { id })
            }
        }
    }

    /// All faults of a part at once; else what each outcome cost.
    fn check(&self, trace: &Trace, outcomes: &[v1::ReportedOutcome]) -> Result<Vec<NanoUsd>, BadRequest> {
        let pool = self.pools.pool();
        let mut faults = Vec::new();
        let mut seen = BTreeSet::new();
        let mut costs = Vec::with_capacity(outcomes.len());
        for (i, reported) in outcomes.iter().enumerate() {
            let mut fault =
                |field: &str, problem| faults.push(Fault::new(format!("outcomes[{i}].{field}"), problem));
            if !trace.decision.chosen().any(|c| c.model.as_str() == reported.model) {
                fault("model", Problem::malformed("is not one of the chosen models"));
            } else if !seen.insert(reported.model.as_str()) {
                fault("model", Problem::malformed("is reported twice in one request"));
            }
            if v1::AttemptStatus::try_from(reported.status).unwrap_or_default() == v1::AttemptStatus::Unspecified {
                fault("status", Problem::Missing);
            }
            if reported.status != i32::from(v1::AttemptStatus::Ok) && !reported.answer.is_empty() {
                fault("answer", Problem::malformed("must be empty unless the status is OK"));
            }
            if reported.error.len() > ERROR_BYTES_MAX {
                fault("error", Problem::out_of_range("at most 1024 bytes"));
            }
            if reported.self_confidence.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
                fault("self_confidence", Problem::out_of_range("0 to 1"));
            }
            if reported.latency_us.is_some_and(|us| us < 0) {
                fault("latency_us", Problem::out_of_range("zero or more"));
            }
            let most = trace.decision.chosen().find(|c| c.model.as_str() == reported.model);
            let most =
                most.map_or(COST_LEAST_MAX, |c| c.worst_case.saturating_mul(COST_TIMES_MAX).max(COST_LEAST_MAX));
            let pricing = pool.get(&reported.model).map(|model| model.card.pricing);
            match (reported.cost_usd_nanos, pricing) {
                (Some(nanos), _) if (0..=most.nanos()).contains(&nanos) => costs.push(NanoUsd::new(nanos)),
                (Some(_), _) => fault(
                    "cost_usd_nanos",
                    Problem::out_of_range(format!("0 to {}, a thousand times what it could cost", most.nanos())),
                ),
                (None, Some(Pricing::PerToken(price))) => {
                    match price.cost(reported.tokens_in, reported.tokens_out) {
                        Some(cost) if cost <= most => costs.push(cost),
                        Some(_) | None => {
                            fault("tokens_out", Problem::out_of_range("a count that some money can pay"))
                        }
                    }
                }
                (None, Some(Pricing::Metered { .. }) | None) => fault("cost_usd_nanos", Problem::Missing),
            }
        }
        if faults.is_empty() { Ok(costs) } else { Err(BadRequest { faults }) }
    }

    /// What is stored of each outcome, and its text.
    fn said(
        &self,
        trace: &Trace,
        outcomes: Vec<v1::ReportedOutcome>,
        costs: &[NanoUsd],
        now: Timestamp,
    ) -> Vec<(ModelReport, Option<String>)> {
        let (kind, pattern) = (trace.answer_kind(), trace.pattern());
        let mut draw = Draw::from_seed(self.seeds.next_seed());
        let said = |(reported, cost): (v1::ReportedOutcome, &NanoUsd)| {
            let (mut outcome, attempt) = from_wire(reported, *cost, AttemptId::new(now, &mut draw), now);
            let text = outcome.text.take();
            let form = text.as_deref().and_then(|text| normalise(text, &kind, pattern.as_ref()));
            let normal = form.map(|form| form.stored(trace.kind, self.secret));
            (ModelReport { outcome, attempt, normal }, text)
        };
        outcomes.into_iter().zip(costs).map(said).collect()
    }

    /// The merged answer of what was reported, `fresh` texts included that found no room to wait;
    /// `None` where nobody replied with an answer.
    fn merge(
        &self,
        trace: &Trace,
        parts: &[ModelReport],
        mut fresh: BTreeMap<ModelName, String>,
    ) -> Option<Answer> {
        if let Some(waiting) = self.lock().waiting.get(&trace.decision.id) {
            fresh.extend(waiting.texts.clone());
        }
        let (kind, pattern) = (trace.answer_kind(), trace.pattern());
        // The pattern reads texts, not what is stored of them, so it is used before the merge.
        let extracted = |model: &ModelName| fresh.get(model).and_then(|text| extract(text, pattern.as_ref()));
        let text = |part: &ModelReport| match (&part.normal, part.outcome.replied) {
            (Some(normal), _) => extracted(&part.outcome.model).map(str::to_owned).or_else(|| clear(normal)),
            // A reply that is no answer, other than one whose words are not at hand.
            (None, true) => Some(String::new()),
            (None, false) => None,
        };
        let outcomes: Vec<Outcome> =
            parts.iter().map(|part| Outcome { text: text(part), ..part.outcome.clone() }).collect();
        let rules = MergeRules::new(&kind, None, trace.decision.quality_threshold);
        merge(&trace.decision, &outcomes, &rules).ok()
    }

    /// Makes the end durable and settles the hold; only the first end of a decision does.
    async fn end(&self, trace: &Trace, answer: Option<&Answer>, cost: NanoUsd) -> Result<(), ReportError> {
        let id = trace.decision.id;
        let stored =
            |answer| wire::answer::to_stored(answer, |form: &NormalForm| form.stored(trace.kind, self.secret));
        let end = ReportEnd { answer: answer.map(stored), cost, hold: trace.hold.clone() };
        let row = NewReport {
            decision: id,
            model: None,
            task: trace.decision.task.name.clone(),
            at: self.clock.now(),
            tally: Tally::default(),
            body: end.to_bytes(),
        };
        if self.traces.report(vec![row]).await?.first() == Some(&Reported::Recorded) {
            if let Some(hold) = &trace.hold {
                self.desk.settle(hold, Bill { settled: cost, unknown: NanoUsd::ZERO });
            }
            self.lock().end(id, answer);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Two maps; a panic between their updates leaves a text waiting at worst.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The texts of those parts that stand as they were said just now.
fn texts(said: Vec<(ModelReport, Option<String>)>, parts: &[ModelReport]) -> BTreeMap<ModelName, String> {
    let stands = |part: &ModelReport| {
        part.normal.is_some()
            && parts.iter().any(|p| p.outcome.model == part.outcome.model && p.normal == part.normal)
    };
    said.into_iter()
        .filter(|(part, _)| stands(part))
        .filter_map(|(p, text)| Some((p.outcome.model, text?)))
        .collect()
}

/// Chosen models that were not reported.
fn missing(trace: &Trace, parts: &[ModelReport]) -> Vec<ModelName> {
    let chosen = trace.decision.chosen().map(|candidate| candidate.model.clone());
    chosen.filter(|model| !parts.iter().any(|part| part.outcome.model == *model)).collect()
}

fn cost(parts: &[ModelReport]) -> NanoUsd {
    parts.iter().map(|part| part.outcome.cost).sum()
}

fn row(trace: &Trace, at: Timestamp, part: &ModelReport) -> NewReport {
    let mut tally = Tally::default();
    tally.attempt(&part.attempt);
    let timed = (!part.outcome.latency.is_zero()).then_some(part.outcome.latency);
    tally.outcome(part.outcome.replied, timed);
    NewReport {
        decision: trace.decision.id,
        model: Some(part.outcome.model.clone()),
        task: trace.decision.task.name.clone(),
        at,
        tally,
        body: part.to_bytes(),
    }
}

/// The text that a stored form still tells.
fn clear(form: &NormalForm) -> Option<String> {
    match form {
        NormalForm::Clear(text) => Some(text.clone()),
        NormalForm::Number(number) => Some(number.to_string()),
        NormalForm::Hashed(_) => None,
    }
}

#[cfg(test)]
mod tests;
