//! StatsService: what happened, read from the stores.
//!
//! Lists leave out features and content; a single trace and an export carry all that is kept, with
//! its feedback. Everything here reads through the stores' own connections and never waits for a
//! request; only DeleteTraces and ImportTraces change anything.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use pointsman_proto::v1;
use pointsman_proto::v1::stats_service_server::StatsService;
use pointsman_router::check::{BadRequest, Fault, Problem};
use pointsman_router::clock::Clock;
use pointsman_router::ids::DecisionId;
use pointsman_router::model::PoolSource;
use prost::Message as _;
use serde_json::json;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::door::caller;
use super::export::{self, Export};
use super::import;
use super::policy::Policies;
use super::reading::{TraceReader, Wanted};
use super::status::{Reason, Refusal};
use super::tables;
use crate::audit::{By, Entry};
use crate::config::Store;
use crate::keys::Scope;
use crate::retention::Retention;
use crate::store::traces::{Deletion, Lookup};
use crate::training::import::Importer;
use crate::wire;

/// Traces in a page where the caller does not say.
const PAGE_SIZE: usize = 50;
/// Most traces in a page.
const PAGE_SIZE_MAX: usize = 1_000;
/// Most decisions in one deletion.
const DELETE_MAX: usize = 10_000;
/// Decisions that the audit chain names of one deletion.
const DELETED_NAMED: usize = 20;

/// Shows what happened over gRPC.
#[derive(Clone)]
pub struct Statistics {
    /// What happened to each request and what was said of it.
    pub reader: TraceReader,
    /// The policies and how they do.
    pub policies: Policies,
    /// Lets rows go.
    pub retention: Retention,
    /// Takes traces in that happened elsewhere.
    pub importer: Importer,
    /// The models of the moment.
    pub pools: Arc<dyn PoolSource>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where state lies.
    pub state_dir: PathBuf,
    /// What the stores keep.
    pub keeps: Store,
    /// Whether they keep prompts and raw answers.
    pub store_content: bool,
    /// The largest reply, in bytes: a page of traces ends well before it.
    pub message_bytes_max: usize,
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statistics").field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl StatsService for Statistics {
    type ExportTracesStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<v1::ExportTracesResponse, Status>> + Send>>;

    async fn list_model_stats(
        &self,
        request: Request<v1::ListModelStatsRequest>,
    ) -> Result<Response<v1::ListModelStatsResponse>, Status> {
        let asked = request.into_inner();
        self.reader.see_own_writes().await;
        let counted = self.reader.traces.stats().await.map_err(Refusal::from)?;
        let judged = self.reader.ledger.feedback_stats().await.map_err(Refusal::from)?;
        let now = self.clock.now();
        Ok(Response::new(tables::model_stats(&asked, &counted, &judged, &self.pools.pool(), now)))
    }

    async fn list_traces(
        &self,
        request: Request<v1::ListTracesRequest>,
    ) -> Result<Response<v1::ListTracesResponse>, Status> {
        let view = caller(&request)?.view();
        let request = request.into_inner();
        let wanted = Wanted::from_wire(request.filter, &view)?;
        let below = page_token(&request.page_token)?;
        let size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE_SIZE,
            Ok(size) => size.min(PAGE_SIZE_MAX),
            Err(_) => PAGE_SIZE_MAX,
        };
        self.reader.see_own_writes().await;
        Ok(Response::new(self.page(&wanted, below, size).await?))
    }

    async fn get_trace(
        &self,
        request: Request<v1::GetTraceRequest>,
    ) -> Result<Response<v1::GetTraceResponse>, Status> {
        let view = caller(&request)?.view();
        let id = decision_id("decision_id", &request.into_inner().decision_id)?;
        let stored = found(self.reader.traces.get(id).await.map_err(Refusal::from)?)?;
        let mut trace = stored.message().map_err(Refusal::from)?;
        if !view.sees(&trace.tags) {
            found(Lookup::<()>::Unknown)?;
        }
        if trace.status() == v1::RequestStatus::Decided {
            self.reader.add_reports(&stored, &mut trace).await?;
        }
        trace.feedback = self.reader.feedback(id).await?;
        Ok(Response::new(v1::GetTraceResponse { trace: Some(trace) }))
    }

    async fn export_traces(
        &self,
        request: Request<v1::ExportTracesRequest>,
    ) -> Result<Response<Self::ExportTracesStream>, Status> {
        let view = caller(&request)?.view();
        let request = request.into_inner();
        let wanted = Wanted::from_wire(request.filter, &view)?;
        let limit = if request.limit == 0 { u64::MAX } else { request.limit };
        self.reader.see_own_writes().await;
        let through = self.reader.traces.last_seq().await.map_err(Refusal::from)?;
        let export = Export::new(self.reader.clone(), wanted, through, limit);
        Ok(Response::new(Box::pin(export::stream(export))))
    }

    async fn delete_traces(
        &self,
        request: Request<v1::DeleteTracesRequest>,
    ) -> Result<Response<v1::DeleteTracesResponse>, Status> {
        let by = caller(&request)?.by(self.clock.now());
        let which = deletion(request.into_inner())?;
        // Before it begins: what is gone must not be gone without a word.
        self.reader.ledger.note(deletion_entry(&by, &which)).await.map_err(Refusal::from)?;
        let deleted = self.retention.delete(which).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::DeleteTracesResponse { deleted }))
    }

    async fn get_store_info(
        &self,
        request: Request<v1::GetStoreInfoRequest>,
    ) -> Result<Response<v1::GetStoreInfoResponse>, Status> {
        let is_admin = caller(&request)?.may(Scope::Admin);
        let state_folder = if is_admin { self.state_dir.display().to_string() } else { String::new() };
        self.reader.see_own_writes().await;
        let size = self.reader.traces.size().await.map_err(Refusal::from)?;
        let feedback_rows = self.reader.ledger.feedback_rows().await.map_err(Refusal::from)?;
        Ok(Response::new(v1::GetStoreInfoResponse {
            state_folder,
            files: tables::files(&self.state_dir).await,
            trace_rows: size.traces,
            feedback_rows,
            oldest_trace_at: size.oldest_at.map(wire::timestamp),
            store_content: self.store_content,
            keep_days: self.keeps.keep_days,
            keep_bytes: self.keeps.keep_bytes,
        }))
    }

    async fn import_traces(
        &self,
        request: Request<Streaming<v1::ImportTracesRequest>>,
    ) -> Result<Response<v1::ImportTracesResponse>, Status> {
        let view = caller(&request)?.view();
        Ok(Response::new(import::import(&self.importer, request.into_inner(), &view).await?))
    }

    async fn get_report(
        &self,
        request: Request<v1::GetReportRequest>,
    ) -> Result<Response<v1::GetReportResponse>, Status> {
        let is_admin = caller(&request)?.may(Scope::Admin);
        self.reader.see_own_writes().await;
        let mut report = self.policies.report(request.into_inner()).await?;
        if !is_admin {
            // They name who of other tenants said and did what.
            (report.sources, report.audit) = (Vec::new(), Vec::new());
        }
        Ok(Response::new(report))
    }
}

impl Statistics {
    /// The newest matching traces below a place, as many as fit a message. Filtering by feedback reads on until the page is full.
    async fn page(
        &self,
        wanted: &Wanted,
        below: Option<u64>,
        size: usize,
    ) -> Result<v1::ListTracesResponse, Refusal> {
        let (mut traces, mut next, mut bytes) = (Vec::with_capacity(size), below, 0);
        loop {
            let page = self.reader.traces.list(wanted.filter.clone(), next, size - traces.len()).await?;
            for stored in &page.traces {
                if let Some(trace) = self.reader.wanted(wanted, stored).await? {
                    let trace = v1::Trace { features: None, content: None, ..trace };
                    bytes += trace.encoded_len();
                    traces.push(trace);
                }
                if bytes > self.message_bytes_max / 2 {
                    return Ok(v1::ListTracesResponse { traces, next_page_token: stored.seq.to_string() });
                }
            }
            next = page.next;
            if next.is_none() || traces.len() >= size {
                let next_page_token = next.map(|seq| seq.to_string()).unwrap_or_default();
                return Ok(v1::ListTracesResponse { traces, next_page_token });
            }
        }
    }
}

fn page_token(token: &str) -> Result<Option<u64>, Refusal> {
    if token.is_empty() {
        return Ok(None);
    }
    let problem =
        || BadRequest::of("page_token", Problem::malformed("is no token of a page, give next_page_token"));
    Ok(Some(token.parse().map_err(|_| problem())?))
}

/// The id in a field.
///
/// # Errors
/// [`Reason::InvalidArgument`] when it is none.
pub(super) fn decision_id(field: &str, text: &str) -> Result<DecisionId, Refusal> {
    DecisionId::parse(text).map_err(|fault| BadRequest::of(field, Problem::malformed(fault.to_string())).into())
}

/// What was found, or why it was not.
///
/// # Errors
/// [`Reason::UnknownDecision`] or [`Reason::Pruned`].
pub(super) fn found<T>(lookup: Lookup<T>) -> Result<T, Refusal> {
    match lookup {
        Lookup::Found(found) => Ok(found),
        Lookup::Pruned => Err(Refusal::new(
            Reason::Pruned,
            "the trace of this decision was pruned, see keep_days and keep_bytes",
        )),
        Lookup::Unknown => Err(Refusal::new(Reason::UnknownDecision, "no decision has this id")),
    }
}

fn deletion_entry(by: &By, which: &Deletion) -> Entry {
    match which {
        Deletion::Tenant(tenant) => Entry::new(by, "traces.deleted", tenant, json!({"all_of": "tenant"})),
        Deletion::Decisions(ids) => {
            let first: Vec<String> = ids.iter().take(DELETED_NAMED).map(DecisionId::to_string).collect();
            Entry::new(by, "traces.deleted", "", json!({"decisions": ids.len(), "first": first}))
        }
    }
}

fn deletion(request: v1::DeleteTracesRequest) -> Result<Deletion, Refusal> {
    let v1::DeleteTracesRequest { tenant, decision_ids } = request;
    if !tenant.is_empty() && !decision_ids.is_empty() {
        return Err(BadRequest::of("tenant", Problem::Conflict { other: "decision_ids".into() }).into());
    }
    if !tenant.is_empty() {
        return Ok(Deletion::Tenant(tenant));
    }
    if decision_ids.is_empty() {
        return Err(BadRequest::of("decision_ids", Problem::Missing).into());
    }
    if decision_ids.len() > DELETE_MAX {
        let problem = Problem::TooMuch { found: decision_ids.len(), max: DELETE_MAX, unit: "ids" };
        return Err(BadRequest::of("decision_ids", problem).into());
    }
    let mut faults = Vec::new();
    let mut ids = Vec::with_capacity(decision_ids.len());
    for (at, text) in decision_ids.iter().enumerate() {
        match DecisionId::parse(text) {
            Ok(id) => ids.push(id),
            Err(fault) => {
                faults.push(Fault::new(format!("decision_ids[{at}]"), Problem::malformed(fault.to_string())))
            }
        }
    }
    if faults.is_empty() { Ok(Deletion::Decisions(ids)) } else { Err(BadRequest { faults }.into()) }
}
