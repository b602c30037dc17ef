//! The fake's policies and statistics: the version says what happens.
//!
//! `unknown` is NOT_FOUND, `unevaluated` is FAILED_PRECONDITION with its reason; any other succeeds. Training ends after
//! three responses; an import refuses the trace whose `caller_ref` is `bad`.

use futures_util::{StreamExt as _, stream};
use pointsman_client::v1;
use pointsman_client::v1::policy_service_server::PolicyService;
use pointsman_client::v1::stats_service_server::StatsService;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::fake::{Fake, Replies, not_here};

pub(crate) fn policy(version: &str, state: v1::PolicyState) -> v1::Policy {
    v1::Policy {
        version: version.to_owned(),
        kind: v1::PolicyKind::Bandit.into(),
        state: state.into(),
        trained_on_rows: 7,
        training_report: Some(v1::TrainingReport {
            rows: 7,
            judged_rows: 5,
            models: vec![v1::TrainedModel {
                model: "good".to_owned(),
                rows: 5,
                base_rate: 0.8,
                auc: Some(0.71),
                calibration_method: v1::CalibrationMethod::Platt.into(),
                ..v1::TrainedModel::default()
            }],
            ..v1::TrainingReport::default()
        }),
        ..v1::Policy::default()
    }
}

fn evaluation(version: &str) -> v1::Evaluation {
    let estimate = |value| Some(v1::Estimate { value, lower: Some(value - 0.01), upper: Some(value + 0.01) });
    v1::Evaluation {
        version: version.to_owned(),
        incumbent_version: "b-1".to_owned(),
        rows: 100,
        judged_rows: 90,
        doubly_robust: estimate(0.75),
        incumbent: estimate(0.72),
        difference: estimate(0.03),
        cost_usd_nanos: 1_000_000,
        incumbent_cost_usd_nanos: 2_000_000,
        gate: Some(v1::Gate {
            passes: false,
            reasons: vec![v1::GateReason {
                name: "ENOUGH_ALIKE".to_owned(),
                holds: false,
                message: "the log counts as 59 decisions of its own and 100 are needed".to_owned(),
            }],
        }),
        held_out_fraction: 0.3,
        delta: 0.025,
        ..v1::Evaluation::default()
    }
}

fn refusal(version: &str) -> Result<(), Status> {
    match version {
        "unknown" => Err(Status::not_found("no policy has this version")),
        "unevaluated" => {
            let details = ErrorDetails::with_error_info("UNEVALUATED", "pointsman.v1", []);
            Err(Status::with_error_details(Code::FailedPrecondition, "it was never evaluated", details))
        }
        _ => Ok(()),
    }
}

#[tonic::async_trait]
impl PolicyService for Fake {
    type TrainStream = Replies<v1::TrainResponse>;

    async fn list_policies(
        &self,
        _: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        let policies = vec![policy("h-2", v1::PolicyState::Candidate), policy("b-1", v1::PolicyState::Running)];
        Ok(Response::new(v1::ListPoliciesResponse { policies }))
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        let version = request.into_inner().version;
        refusal(&version)?;
        let policy = policy(&version, v1::PolicyState::Running);
        Ok(Response::new(v1::GetPolicyResponse { policy: Some(policy) }))
    }

    async fn train(&self, request: Request<v1::TrainRequest>) -> Result<Response<Self::TrainStream>, Status> {
        let request = request.into_inner();
        if request.rows_max == 1 {
            let details = ErrorDetails::with_error_info("TOO_FEW_TRACES", "pointsman.v1", []);
            return Err(Status::with_error_details(Code::FailedPrecondition, "1 trace is too few", details));
        }
        self.told(|told| told.trainings.push(request));
        let at = |stage: v1::TrainingStage, progress| v1::TrainResponse {
            stage: stage.into(),
            progress,
            rows: 7,
            ..v1::TrainResponse::default()
        };
        let last = v1::TrainResponse {
            policy: Some(policy("h-2", v1::PolicyState::Candidate)),
            ..at(v1::TrainingStage::Done, 1.0)
        };
        let responses =
            [at(v1::TrainingStage::Reading, 0.1), at(v1::TrainingStage::FittingModels, 0.6), last].map(Ok);
        Ok(Response::new(Box::pin(stream::iter(responses))))
    }

    async fn evaluate(
        &self,
        request: Request<v1::EvaluateRequest>,
    ) -> Result<Response<v1::EvaluateResponse>, Status> {
        let mut request = request.into_inner();
        for version in &request.versions {
            refusal(version)?;
        }
        if request.versions.is_empty() {
            request.versions.push("h-2".to_owned());
        }
        let evaluations = request.versions.iter().map(|version| v1::Evaluation {
            held_out_fraction: request.held_out_fraction.unwrap_or(0.3),
            ..evaluation(version)
        });
        Ok(Response::new(v1::EvaluateResponse { evaluations: evaluations.collect() }))
    }

    async fn promote(
        &self,
        request: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::PromoteResponse>, Status> {
        let request = request.into_inner();
        if !request.force {
            refusal(&request.version)?;
        }
        self.told(|told| told.promotions.push(request.clone()));
        let share = request.share.unwrap_or(1.0);
        let canary = (share < 1.0).then(|| v1::Canary {
            version: request.version.clone(),
            incumbent_version: "b-1".to_owned(),
            share,
            ..v1::Canary::default()
        });
        let state = if canary.is_some() { v1::PolicyState::Canary } else { v1::PolicyState::Running };
        let policy = Some(policy(&request.version, state));
        Ok(Response::new(v1::PromoteResponse { policy, canary }))
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::RollbackResponse>, Status> {
        if request.into_inner().reason == "none" {
            return Err(Status::failed_precondition("there is no predecessor"));
        }
        Ok(Response::new(v1::RollbackResponse {
            policy: Some(policy("b-1", v1::PolicyState::Running)),
            rolled_back: Some(policy("h-2", v1::PolicyState::Retired)),
        }))
    }

    async fn set_shadow(
        &self,
        request: Request<v1::SetShadowRequest>,
    ) -> Result<Response<v1::SetShadowResponse>, Status> {
        let version = request.into_inner().version;
        refusal(&version)?;
        let policy = (!version.is_empty()).then(|| policy(&version, v1::PolicyState::Shadow));
        Ok(Response::new(v1::SetShadowResponse { policy }))
    }

    async fn install_policy(
        &self,
        request: Request<Streaming<v1::InstallPolicyRequest>>,
    ) -> Result<Response<v1::InstallPolicyResponse>, Status> {
        let mut pieces = request.into_inner();
        let mut artifact = Vec::new();
        while let Some(piece) = pieces.next().await {
            let chunk = piece?.chunk;
            if chunk.len() > 1 << 20 {
                return Err(Status::invalid_argument("the piece is too long"));
            }
            artifact.extend(chunk);
        }
        if artifact.is_empty() {
            return Err(Status::invalid_argument("the artifact is empty"));
        }
        let artifact_bytes = artifact.len() as u64;
        let policy = v1::Policy { artifact_bytes, ..policy("i-3", v1::PolicyState::Candidate) };
        Ok(Response::new(v1::InstallPolicyResponse { policy: Some(policy), repeated_install: false }))
    }
}

#[tonic::async_trait]
impl StatsService for Fake {
    type ExportTracesStream = Replies<v1::ExportTracesResponse>;

    async fn list_model_stats(
        &self,
        _: Request<v1::ListModelStatsRequest>,
    ) -> Result<Response<v1::ListModelStatsResponse>, Status> {
        not_here()
    }

    async fn list_traces(
        &self,
        _: Request<v1::ListTracesRequest>,
    ) -> Result<Response<v1::ListTracesResponse>, Status> {
        not_here()
    }

    async fn get_trace(&self, _: Request<v1::GetTraceRequest>) -> Result<Response<v1::GetTraceResponse>, Status> {
        not_here()
    }

    /// Gives back what was imported.
    async fn export_traces(
        &self,
        _: Request<v1::ExportTracesRequest>,
    ) -> Result<Response<Self::ExportTracesStream>, Status> {
        let traces = self.told(|told| told.traces.clone());
        let responses =
            traces.into_iter().map(|trace| Ok(v1::ExportTracesResponse { trace: Some(trace), progress: 1.0 }));
        Ok(Response::new(Box::pin(stream::iter(responses))))
    }

    async fn delete_traces(
        &self,
        _: Request<v1::DeleteTracesRequest>,
    ) -> Result<Response<v1::DeleteTracesResponse>, Status> {
        not_here()
    }

    async fn get_store_info(
        &self,
        _: Request<v1::GetStoreInfoRequest>,
    ) -> Result<Response<v1::GetStoreInfoResponse>, Status> {
        not_here()
    }

    async fn import_traces(
        &self,
        request: Request<Streaming<v1::ImportTracesRequest>>,
    ) -> Result<Response<v1::ImportTracesResponse>, Status> {
        let mut items = request.into_inner();
        let mut response = v1::ImportTracesResponse::default();
        while let Some(item) = items.next().await {
            let v1::ImportTracesRequest { trace, line } = item?;
            let trace = trace.unwrap_or_default();
            if trace.caller_ref == "bad" {
                response.refused += 1;
                response.refusals.push(v1::ImportRefusal {
                    line,
                    reason: "UNKNOWN_FORMAT".to_owned(),
                    field: "trace.format".to_owned(),
                    message: "is of a newer version".to_owned(),
                });
                continue;
            }
            response.imported += 1;
            response.feedback += trace.feedback.len() as u64;
            self.told(|told| told.traces.push(trace));
        }
        Ok(Response::new(response))
    }

    async fn get_report(
        &self,
        request: Request<v1::GetReportRequest>,
    ) -> Result<Response<v1::GetReportResponse>, Status> {
        let asked = request.into_inner();
        Ok(Response::new(report(&asked)))
    }
}

fn report(asked: &v1::GetReportRequest) -> v1::GetReportResponse {
    let alert = v1::DriftAlert {
        model: "good".to_owned(),
        quantity: v1::DriftQuantity::Cost.into(),
        direction: v1::DriftDirection::Up.into(),
        before: 1_000.0,
        after: 10_000.0,
        ..v1::DriftAlert::default()
    };
    let entry = v1::PolicyAuditEntry {
        action: v1::PolicyAction::Promoted.into(),
        actor: "caller".to_owned(),
        to_version: "b-1".to_owned(),
        forced: true,
        ..v1::PolicyAuditEntry::default()
    };
    let take = |max: u32| usize::try_from(max).unwrap_or(usize::MAX);
    v1::GetReportResponse {
        running: Some(policy("b-1", v1::PolicyState::Running)),
        live: Some(v1::LiveReport { rows: 10, judged_rows: 8, ..v1::LiveReport::default() }),
        shadow: Some(v1::ShadowReport { version: "h-2".to_owned(), rows: 10, ..v1::ShadowReport::default() }),
        canary: Some(v1::Canary {
            version: "h-2".to_owned(),
            share: 0.1,
            verdict: v1::CanaryVerdict::RolledBack.into(),
            ..v1::Canary::default()
        }),
        pacing: vec![v1::PacingReport {
            budget: "global".to_owned(),
            spent_usd_nanos: 500,
            requests: 10,
            ..v1::PacingReport::default()
        }],
        retrain: Some(v1::RetrainReport { enabled: true, feedback_due: 500, ..v1::RetrainReport::default() }),
        drift_alerts: vec![alert; take(asked.drift_alerts_max).min(3)],
        audit: vec![entry; take(asked.audit_max).min(3)],
        sources: [("judge", false), ("stranger", true)]
            .map(|(source, departs)| v1::SourceReport {
                source: source.to_owned(),
                labels: 9,
                taught: 2.0,
                departs,
            })
            .to_vec(),
        ..v1::GetReportResponse::default()
    }
}
