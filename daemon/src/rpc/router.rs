//! RouterService: the main job over gRPC.
//!
//! A handler turns the message into the core's raw request, runs the core within the caller's
//! deadline and turns the trace into the reply. When the caller goes away, tonic drops the handler's
//! future, and the core settles and traces what was begun. Only a request with an idempotency key
//! outlives its caller. Nothing is decided here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pointsman_proto::v1;
use pointsman_proto::v1::router_service_server::RouterService;
use pointsman_router::check::{BadRequest, Fault, Problem, check};
use pointsman_router::clock::Clock;
use pointsman_router::ids::ModelName;
use pointsman_router::model::PoolSource;
use pointsman_router::pipeline::{Metering, Router};
use pointsman_router::progress::{Progress, Unwatched};
use pointsman_router::request::RouteRequest;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use super::deadline::{deadline, within};
use super::door::{caller, claim, keyed};
use super::idempotency::{Idempotency, KEY_BYTES_MAX, Reply};
use super::status::{Reason, Refusal};
use super::traffic::Traffic;
use super::watch::{EVENTS_MAX, Item, Watch, last};
use crate::keys::Caller;
use crate::rates::{self, Callers, LimitSource};
use crate::reports::{Reports, Standing};
use crate::store::traces::Reported;
use crate::wire;

/// How long the caller of Decide has to report, where it does not say.
const REPORT_WITHIN: Duration = Duration::from_secs(600);

/// Routes requests over gRPC.
#[derive(Clone)]
pub struct Routing {
    /// The core.
    pub router: Arc<Router>,
    /// The models, for the calls that a caller of Decide is to make.
    pub pools: Arc<dyn PoolSource>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Requests that may be sent twice.
    pub idempotency: Idempotency,
    /// What callers of Decide saw.
    pub reports: Arc<Reports>,
    /// The requests under way.
    pub traffic: Traffic,
    /// How fast callers are.
    pub callers: Arc<Callers>,
    /// How fast they may be.
    pub limits: Arc<dyn LimitSource>,
}

impl fmt::Debug for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routing").field("router", &self.router).finish_non_exhaustive()
    }
}

/// One request to be answered, whichever way it came.
struct Job {
    spec: v1::RequestSpec,
    key: String,
    explain: bool,
    deadline: Option<Duration>,
    caller: Caller,
}

impl Routing {
    /// The request of a caller that is not too fast, with the faults that the core could not express.
    fn raw(
        &self,
        spec: Option<v1::RequestSpec>,
        deadline: Option<Duration>,
        caller: &Caller,
    ) -> Result<v1::RequestSpec, Refusal> {
        let mut spec = spec.ok_or_else(|| BadRequest::of("request", Problem::Missing))?;
        self.meter(&spec, caller)?;
        claim(&mut spec, caller)?;
        let unknown = wire::request::unknown_words(&spec);
        if unknown.is_empty() {
            return Ok(spec);
        }
        let fault = |(field, words)| Fault::new(field, Problem::out_of_range(words));
        let mut faults: Vec<Fault> = unknown.into_iter().map(fault).collect();
        let raw = wire::request::from_wire(spec, deadline);
        if let Err(others) = check(raw, self.router.settings(), &self.pools.pool()) {
            faults.extend(others.faults);
        }
        Err(BadRequest { faults }.into())
    }

    async fn answer(&self, job: Job, progress: Arc<dyn Progress>) -> Reply {
        let Job { spec, key, explain, deadline, caller } = job;
        if key.is_empty() {
            let raw = keyed(wire::request::from_wire(spec, deadline), &caller);
            return route(&self.router, raw, explain, &*progress).await;
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(Refusal::field("idempotency_key", "is too long, give at most 256 bytes"));
        }
        let claim = self.idempotency.claim(&spec, &key, explain);
        // Without the deadline of whoever came first: the caller's wait ends with it, the work goes on, and
        // a caller that sends the same again gets its reply instead of paying twice.
        let raw = keyed(wire::request::from_wire(spec, None), &caller);
        let router = Arc::clone(&self.router);
        // It may outlive its caller, and is under way as long as it runs.
        let under_way = self.traffic.enter()?;
        let work: BoxFuture<'static, Reply> = Box::pin(async move {
            let _under_way = under_way;
            route(&router, raw, explain, &*progress).await
        });
        self.idempotency.once(claim, work).await
    }

    /// Lets a request of this caller in, where it is not too fast.
    fn meter(&self, spec: &v1::RequestSpec, caller: &Caller) -> Result<(), Refusal> {
        let key = caller.key();
        let messages: usize = spec.messages.iter().map(|message| message.text.len()).sum();
        let bytes = spec.prompt.len() + spec.system.len() + spec.json_schema.len() + messages;
        // Without a cap of its own a request may take the largest that a model has.
        let pool = self.pools.pool();
        let largest = || pool.models().iter().map(|model| model.card.output_tokens_max).max();
        let tokens = rates::tokens(bytes, spec.output_tokens_max.or_else(largest));
        Ok(self.callers.admit(key, &self.limits.limits(key), tokens)?)
    }

    async fn bounded<T>(
        &self,
        deadline: Option<Duration>,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let _under_way = self.traffic.enter()?;
        within(deadline, self.traffic.bounded(work)).await
    }
}

async fn route(router: &Router, raw: RouteRequest, explain: bool, progress: &dyn Progress) -> Reply {
    let trace = router.route(raw, progress).await?;
    Ok(wire::response::route(&trace, explain))
}

#[tonic::async_trait]
impl RouterService for Routing {
    type RouteStreamStream = std::pin::Pin<Box<dyn Stream<Item = Item> + Send>>;

    async fn route(&self, request: Request<v1::RouteRequest>) -> Result<Response<v1::RouteResponse>, Status> {
        let (deadline, caller) = (deadline(request.metadata())?, caller(&request)?);
        let v1::RouteRequest { request, idempotency_key: key, explain } = request.into_inner();
        let job = Job { spec: self.raw(request, deadline, &caller)?, key, explain, deadline, caller };
        let work: BoxFuture<'_, Reply> = Box::pin(self.answer(job, Arc::new(Unwatched)));
        Ok(Response::new(self.bounded(deadline, work).await?))
    }

    async fn route_stream(
        &self,
        request: Request<v1::RouteStreamRequest>,
    ) -> Result<Response<Self::RouteStreamStream>, Status> {
        let (deadline, caller) = (deadline(request.metadata())?, caller(&request)?);
        let v1::RouteStreamRequest { request, idempotency_key: key, explain } = request.into_inner();
        let job = Job { spec: self.raw(request, deadline, &caller)?, key, explain, deadline, caller };
        let under_way = self.traffic.enter()?;
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let this = self.clone();
        let watch = Arc::new(Watch::new(tell.clone(), Arc::clone(&self.clock)));
        // A task of its own, so that a slow reader does not hold up the calls; it ends with its reader.
        let task = self.traffic.start(async move {
            let _under_way = under_way;
            let work: BoxFuture<'_, Reply> = Box::pin(this.answer(job, watch));
            let end = within(deadline, this.traffic.bounded(work)).await;
            // The reader went away: nobody is left to tell.
            let _ = tell.send(end.map(last).map_err(Status::from)).await;
        });
        Ok(Response::new(Box::pin(Reader {
            events: ReceiverStream::new(events),
            _task: AbortOnDropHandle::new(task),
        })))
    }

    async fn decide(&self, request: Request<v1::DecideRequest>) -> Result<Response<v1::DecideResponse>, Status> {
        let (deadline, caller) = (deadline(request.metadata())?, caller(&request)?);
        let request = request.into_inner();
        let metering = match request.hold() {
            v1::HoldMode::None => Metering::Caller,
            v1::HoldMode::Budget | v1::HoldMode::Unspecified => Metering::Hold,
        };
        let report_within = report_within(request.report_within)?;
        let spec = self.raw(request.request, deadline, &caller)?;
        let output_tokens_max = spec.output_tokens_max;
        let raw = keyed(wire::request::from_wire(spec, deadline), &caller);
        let work: BoxFuture<'_, _> = Box::pin(async { Ok(self.router.decide(raw, metering).await?) });
        let trace = self.bounded(deadline, work).await?;
        let report_by = trace.hold.as_ref().map(|_| trace.at.plus(report_within));
        if let Some(report_by) = report_by {
            self.reports.expect(&trace, report_by);
        }
        Ok(Response::new(wire::response::decide(&trace, &self.pools.pool(), output_tokens_max, report_by)))
    }

    async fn report_outcomes(
        &self,
        request: Request<v1::ReportOutcomesRequest>,
    ) -> Result<Response<v1::ReportOutcomesResponse>, Status> {
        let (deadline, view) = (deadline(request.metadata())?, caller(&request)?.view());
        let request = request.into_inner();
        // What was acknowledged stands, so even a drain lets reports in; and what is written is settled, though the
        // caller goes away in between.
        let reports = Arc::clone(&self.reports);
        let task = self.traffic.start(async move { reports.report(request, &view).await });
        let work = async {
            let ended = task.await.map_err(|_| Refusal::new(Reason::Internal, "the report broke down"))?;
            Ok(ended?)
        };
        let standing = within(deadline, work).await?;
        Ok(Response::new(reported(standing)))
    }
}

fn reported(standing: Standing) -> v1::ReportOutcomesResponse {
    let Standing { acks, answer, kind, cost, settled, missing } = standing;
    let ack = |(model, reported): (ModelName, Reported)| v1::ReportAck {
        model: model.into(),
        status: match reported {
            Reported::Recorded => v1::ReportStatus::Recorded,
            Reported::Repeated => v1::ReportStatus::Repeated,
        }
        .into(),
    };
    v1::ReportOutcomesResponse {
        acks: acks.into_iter().map(ack).collect(),
        answer: answer.map(|answer| wire::answer::to_reply(&answer, kind)),
        cost_usd_micros: cost.micros_rounded_up(),
        cost_usd_nanos: cost.nanos(),
        settled,
        models_missing: missing.into_iter().map(String::from).collect(),
    }
}

fn report_within(span: Option<prost_types::Duration>) -> Result<Duration, Refusal> {
    match span {
        None => Ok(REPORT_WITHIN),
        Some(span) => wire::duration(&span)
            .filter(|span| !span.is_zero())
            .ok_or_else(|| BadRequest::of("report_within", Problem::out_of_range("more than zero")).into()),
    }
}

/// The events of one request; dropping it ends the request.
struct Reader {
    events: ReceiverStream<Item>,
    _task: AbortOnDropHandle<()>,
}

impl Stream for Reader {
    type Item = Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Item>> {
        std::pin::Pin::new(&mut self.events).poll_next(cx)
    }
}
