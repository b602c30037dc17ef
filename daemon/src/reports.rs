//! Reports: what the caller of `Decide` saw when it called the models itself.
//!
//! Reports come in parts, the first of each model stands, and the last one merges, settles the hold
//! and returns the answer; all of it is durable before it is acknowledged. A decision that nobody
//! reports in time keeps its hold as unknown, and a late report still settles it.
//!
//! Texts wait in memory for the merge and are never stored; after a restart in the middle of a report
//! the earlier parts vote by the normal form that was kept in clear.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman_proto::v1;
use pointsman_router::answer::Answer;
use pointsman_router::check::{BadRequest, Fault, Problem};
use pointsman_router::clock::{Clock, Draw, Seeds, Timestamp};
use pointsman_router::hold::{Bill, Hold, Ledger as _};
use pointsman_router::ids::{AttemptId, BadId, DecisionId, ModelName};
use pointsman_router::merge::{MergeRules, merge};
use pointsman_router::model::{PoolSource, Pricing};
use pointsman_router::money::NanoUsd;
use pointsman_router::normal::{NormalForm, normalise};
use pointsman_router::outcome::Outcome;
use pointsman_router::trace::{Trace, TraceStatus};

use crate::money::BudgetLedger;
use crate::store::StoreError;
use crate::store::traces::{Lookup, NewReport, Report, Reported, Tally, TraceStore};
use crate::wire::report::{ModelReport, ReportEnd, from_wire};
use crate::wire::{self, WireError};

/// Decisions that wait for their report, at most; beyond it the oldest are given up before their time.
const OPEN_MAX: usize = 1 << 18;

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

/// A decision that waits for its report.
#[derive(Debug)]
struct Waiting {
    report_by: Timestamp,
    hold: Option<Hold>,
    /// What was reported so far, until it is merged.
    texts: BTreeMap<ModelName, String>,
}

/// Decisions that wait for their report, by id and by when they are given up.
#[derive(Debug, Default)]
struct Open {
    waiting: BTreeMap<DecisionId, Waiting>,
    due: BTreeSet<(Timestamp, DecisionId)>,
}

impl Open {
    fn remove(&mut self, id: DecisionId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.due.remove(&(waiting.report_by, id));
        Some(waiting)
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
    pools: Arc<dyn PoolSource>,
    clock: Arc<dyn Clock>,
    seeds: Arc<dyn Seeds>,
    secret: u64,
    open: Mutex<Open>,
}

impl Reports {
    /// Takes reports over these stores. `secret` keys the hashes of answers.
    #[must_use]
    pub fn new(
        traces: TraceStore,
        ledger: Arc<BudgetLedger>,
        pools: Arc<dyn PoolSource>,
        (clock, seeds): (Arc<dyn Clock>, Arc<dyn Seeds>),
        secret: u64,
    ) -> Self {
        Self { traces, ledger, pools, clock, seeds, secret, open: Mutex::default() }
    }

    /// Waits for the report of a decision until `report_by`.
    pub fn expect(&self, trace: &Trace, report_by: Timestamp) {
        let mut open = self.lock();
        let id = trace.decision.id;
        open.waiting.insert(id, Waiting { report_by, hold: trace.hold, texts: BTreeMap::new() });
        open.due.insert((report_by, id));
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

    /// Takes a part of a report, or the end of it.
    ///
    /// # Errors
    /// [`ReportError`]; what was acknowledged before stands.
    pub async fn report(&self, request: v1::ReportOutcomesRequest) -> Result<Standing, ReportError> {
        let v1::ReportOutcomesRequest { decision_id, outcomes, r#final } = request;
        let id = DecisionId::parse(&decision_id)
            .map_err(|error: BadId| BadRequest::of("decision_id", Problem::malformed(error.to_string())))?;
        let trace = self.decided(id).await?;
        let costs = self.check(&trace, &outcomes)?;
        let acks = self.store_parts(&trace, outcomes, &costs).await?;
        let (parts, end) = read(&self.traces, id).await?;
        let missing: Vec<ModelName> = trace
            .decision
            .chosen()
            .map(|c| c.model.clone())
            .filter(|model| !parts.iter().any(|part| part.outcome.model == *model))
            .collect();
        let cost = parts.iter().map(|part| part.outcome.cost).sum();
        let settled = r#final || missing.is_empty() || end.is_some();
        let answer = if settled { self.merge(&trace, &parts) } else { None };
        if settled && end.is_none() {
            self.end(&trace, answer.as_ref(), cost).await?;
        }
        Ok(Standing { acks, answer, kind: trace.kind, cost, settled, missing })
    }

    async fn decided(&self, id: DecisionId) -> Result<Arc<Trace>, ReportError> {
        let trace = match self.traces.committed(id).await? {
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
                fault("model", Problem::malformed("not one of the chosen models"));
            } else if !seen.insert(reported.model.as_str()) {
                fault("model", Problem::malformed("reported twice in one request"));
            }
            if v1::AttemptStatus::try_from(reported.status).unwrap_or_default() == v1::AttemptStatus::Unspecified {
                fault("status", Problem::Missing);
            }
            if reported.self_confidence.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
                fault("self_confidence", Problem::out_of_range("0 to 1"));
            }
            if reported.latency_us.is_some_and(|us| us < 0) {
                fault("latency_us", Problem::out_of_range("zero or more"));
            }
            let pricing = pool.get(&reported.model).map(|model| model.card.pricing);
            match (reported.cost_usd_nanos, pricing) {
                (Some(nanos), _) if nanos >= 0 => costs.push(NanoUsd::new(nanos)),
                (Some(_), _) => fault("cost_usd_nanos", Problem::out_of_range("zero or more")),
                (None, Some(Pricing::PerToken(price))) => {
                    match price.cost(reported.tokens_in, reported.tokens_out) {
                        Some(cost) => costs.push(cost),
                        None => fault("tokens_out", Problem::out_of_range("a count that some money can pay")),
                    }
                }
                (None, Some(Pricing::Metered { .. }) | None) => fault("cost_usd_nanos", Problem::Missing),
            }
        }
        if faults.is_empty() { Ok(costs) } else { Err(BadRequest { faults }) }
    }

    async fn store_parts(
        &self,
        trace: &Trace,
        outcomes: Vec<v1::ReportedOutcome>,
        costs: &[NanoUsd],
    ) -> Result<Vec<(ModelName, Reported)>, ReportError> {
        let now = self.clock.now();
        let (kind, pattern) = (trace.answer_kind(), trace.pattern());
        let mut draw = Draw::from_seed(self.seeds.next_seed());
        let mut texts = Vec::new();
        let mut rows = Vec::with_capacity(outcomes.len());
        for (reported, cost) in outcomes.into_iter().zip(costs) {
            let (mut outcome, attempt) = from_wire(reported, *cost, AttemptId::new(now, &mut draw), now);
            let text = outcome.text.take();
            let form = text.as_deref().and_then(|text| normalise(text, &kind, pattern.as_ref()));
            texts.extend(text.map(|text| (outcome.model.clone(), text)));
            let part =
                ModelReport { normal: form.map(|form| form.stored(trace.kind, self.secret)), outcome, attempt };
            rows.push(row(trace, now, &part));
        }
        let models: Vec<ModelName> = rows.iter().filter_map(|row| row.model.clone()).collect();
        let acks: Vec<(ModelName, Reported)> = models.into_iter().zip(self.traces.report(rows).await?).collect();
        let recorded = |model: &ModelName| acks.iter().any(|(m, ack)| m == model && *ack == Reported::Recorded);
        if let Some(waiting) = self.lock().waiting.get_mut(&trace.decision.id) {
            waiting.texts.extend(texts.into_iter().filter(|(model, _)| recorded(model)));
        }
        Ok(acks)
    }

    /// The merged answer of what was reported; `None` where nobody replied with an answer.
    fn merge(&self, trace: &Trace, parts: &[ModelReport]) -> Option<Answer> {
        let texts = self.lock().waiting.get(&trace.decision.id).map(|w| w.texts.clone()).unwrap_or_default();
        let outcomes: Vec<Outcome> = parts
            .iter()
            .map(|part| Outcome {
                text: texts.get(&part.outcome.model).cloned().or_else(|| part.normal.as_ref().and_then(clear)),
                ..part.outcome.clone()
            })
            .collect();
        let (kind, pattern) = (trace.answer_kind(), trace.pattern());
        let rules = MergeRules::new(&kind, pattern.as_ref(), trace.decision.quality_threshold);
        merge(&trace.decision, &outcomes, &rules).ok()
    }

    /// Makes the end durable and settles the hold; only the first end of a decision does.
    async fn end(&self, trace: &Trace, answer: Option<&Answer>, cost: NanoUsd) -> Result<(), ReportError> {
        let id = trace.decision.id;
        let stored =
            |answer| wire::answer::to_stored(answer, |form: &NormalForm| form.stored(trace.kind, self.secret));
        let end = ReportEnd { answer: answer.map(stored), cost, hold: trace.hold };
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
                self.ledger.settle(hold, Bill { settled: cost, unknown: NanoUsd::ZERO });
            }
            self.lock().remove(id);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Two maps; a panic between their updates leaves a text waiting at worst.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A trace with what its caller reported so far: its outcomes, attempts and, once it is final, its
/// answer and bill.
///
/// # Errors
/// What the store met, and [`WireError`] for a row that cannot be read back.
pub async fn with_reports(traces: &TraceStore, trace: Arc<Trace>) -> Result<Arc<Trace>, ReportError> {
    if trace.status != TraceStatus::Decided {
        return Ok(trace);
    }
    let (parts, end) = read(traces, trace.decision.id).await?;
    let mut whole = Trace::clone(&trace);
    if let Some(end) = end {
        whole.bill = Bill { settled: end.cost, unknown: NanoUsd::ZERO };
        whole.answer = end.answer.map(|answer| wire::answer::from_stored(answer, None)).transpose()?;
    }
    for part in parts {
        whole.outcomes.push(part.outcome);
        whole.attempts.push(part.attempt);
    }
    Ok(Arc::new(whole))
}

async fn read(traces: &TraceStore, id: DecisionId) -> Result<(Vec<ModelReport>, Option<ReportEnd>), ReportError> {
    let (mut parts, mut end) = (Vec::new(), None);
    for Report { model, body, .. } in traces.reports(id).await? {
        match model {
            Some(_) => parts.push(ModelReport::from_bytes(&body)?),
            None => end = Some(ReportEnd::from_bytes(id, &body)?),
        }
    }
    Ok((parts, end))
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
