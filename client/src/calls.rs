//! The client: one thin method for every rpc of `pointsman.v1`, and the health check.
//!
//! A method sends its message as it is, with the client's deadline, and turns a status into a [`ClientError`]; it adds
//! no default and no retry, because only the caller knows whether a repeat is safe (`Route` with an idempotency key is).
//! A client is a handle on one channel: clone it freely.

use std::future::Future;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use pointsman_proto::v1;
use pointsman_proto::v1::admin_service_client::AdminServiceClient;
use pointsman_proto::v1::feedback_service_client::FeedbackServiceClient;
use pointsman_proto::v1::policy_service_client::PolicyServiceClient;
use pointsman_proto::v1::router_service_client::RouterServiceClient;
use pointsman_proto::v1::stats_service_client::StatsServiceClient;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::connect::Target;
use crate::error::ClientError;
use crate::key::Bearer;
use crate::stream::Replies;

/// Bytes of an artifact in one message; the wire allows 1 MiB.
const ARTIFACT_PIECE_BYTES: usize = 256 * 1024;

/// A connection to the daemon. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    bearer: Bearer,
    deadline: Option<Duration>,
    message_bytes_max: usize,
}

/// Builds the generated client of one service over the channel, with the limits of the target.
macro_rules! service {
    ($self:ident, $service:ident) => {
        $service::with_interceptor($self.channel.clone(), $self.bearer.clone())
            .max_decoding_message_size($self.message_bytes_max)
            .max_encoding_message_size($self.message_bytes_max)
    };
}

/// Writes one method for each unary rpc; the documentation stands where the method is named.
macro_rules! unary {
    ($($(#[$doc:meta])* $method:ident: $service:ident, $request:ident -> $response:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`ClientError`] by the gRPC code that the call ended with.
                pub async fn $method(&self, request: v1::$request) -> Result<v1::$response, ClientError> {
                    let mut service = service!(self, $service);
                    finished(service.$method(self.timed(request))).await
                }
            )*
        }
    };
}

unary! {
    /// Decides, calls the chosen models, merges their answers.
    route: RouterServiceClient, RouteRequest -> RouteResponse;
    /// Chooses only; the caller calls the models and reports.
    decide: RouterServiceClient, DecideRequest -> DecideResponse;
    /// Reports what a `decide` caller saw.
    report_outcomes: RouterServiceClient, ReportOutcomesRequest -> ReportOutcomesResponse;
    /// Records one feedback; it is durable when this returns.
    submit_feedback: FeedbackServiceClient, SubmitFeedbackRequest -> SubmitFeedbackResponse;
    /// Statistics of the models.
    list_model_stats: StatsServiceClient, ListModelStatsRequest -> ListModelStatsResponse;
    /// One page of traces, newest first.
    list_traces: StatsServiceClient, ListTracesRequest -> ListTracesResponse;
    /// One trace with all that is kept.
    get_trace: StatsServiceClient, GetTraceRequest -> GetTraceResponse;
    /// Deletes traces for good.
    delete_traces: StatsServiceClient, DeleteTracesRequest -> DeleteTracesResponse;
    /// Where state lies and how large it is.
    get_store_info: StatsServiceClient, GetStoreInfoRequest -> GetStoreInfoResponse;
    /// What is being learned: the policies, drift, pacing, the audit log.
    get_report: StatsServiceClient, GetReportRequest -> GetReportResponse;
    /// Every policy, newest first.
    list_policies: PolicyServiceClient, ListPoliciesRequest -> ListPoliciesResponse;
    /// One policy.
    get_policy: PolicyServiceClient, GetPolicyRequest -> GetPolicyResponse;
    /// What candidates would have been worth on held-out decisions.
    evaluate: PolicyServiceClient, EvaluateRequest -> EvaluateResponse;
    /// Lets a candidate choose, for all requests or a share of them.
    promote: PolicyServiceClient, PromoteRequest -> PromoteResponse;
    /// Ends the canary, or returns to the policy before.
    rollback: PolicyServiceClient, RollbackRequest -> RollbackResponse;
    /// Lets a policy decide beside the running one, or none.
    set_shadow: PolicyServiceClient, SetShadowRequest -> SetShadowResponse;
    /// Every model with its card and state.
    list_models: AdminServiceClient, ListModelsRequest -> ListModelsResponse;
    /// Adds a model.
    register_model: AdminServiceClient, RegisterModelRequest -> RegisterModelResponse;
    /// Lets a model be chosen again.
    enable_model: AdminServiceClient, EnableModelRequest -> EnableModelResponse;
    /// Keeps a model from being chosen.
    disable_model: AdminServiceClient, DisableModelRequest -> DisableModelResponse;
    /// Takes a model out.
    remove_model: AdminServiceClient, RemoveModelRequest -> RemoveModelResponse;
    /// Begins the graceful end of the daemon.
    drain: AdminServiceClient, DrainRequest -> DrainResponse;
    /// A budget and what is left of it.
    get_budget: AdminServiceClient, GetBudgetRequest -> GetBudgetResponse;
    /// Every budget.
    list_budgets: AdminServiceClient, ListBudgetsRequest -> ListBudgetsResponse;
    /// Sets a budget, from the next request on.
    set_budget: AdminServiceClient, SetBudgetRequest -> SetBudgetResponse;
    /// Removes a budget.
    remove_budget: AdminServiceClient, RemoveBudgetRequest -> RemoveBudgetResponse;
    /// Says what is known now of money that counted as unknown.
    adjust_budget: AdminServiceClient, AdjustBudgetRequest -> AdjustBudgetResponse;
    /// The movements of one window of a budget.
    list_transfers: AdminServiceClient, ListTransfersRequest -> ListTransfersResponse;
    /// Proves that every balance is the sum of its movements.
    verify_budgets: AdminServiceClient, VerifyBudgetsRequest -> VerifyBudgetsResponse;
    /// Makes a key; its text is in the reply and nowhere else.
    create_key: AdminServiceClient, CreateKeyRequest -> CreateKeyResponse;
    /// Keys without their secrets.
    list_keys: AdminServiceClient, ListKeysRequest -> ListKeysResponse;
    /// Lets a key let nobody in any more.
    revoke_key: AdminServiceClient, RevokeKeyRequest -> RevokeKeyResponse;
    /// Replaces a key by a successor; its text is in the reply and nowhere else.
    rotate_key: AdminServiceClient, RotateKeyRequest -> RotateKeyResponse;
    /// One page of the audit log, newest first.
    list_audit: AdminServiceClient, ListAuditRequest -> ListAuditResponse;
    /// Whether the audit log is what was written.
    verify_audit: AdminServiceClient, VerifyAuditRequest -> VerifyAuditResponse;
}

impl Client {
    /// Connects to the daemon, trying again until the target's `connect_within` is over.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for an address that is none, [`ClientError::Unavailable`] when nothing answers there.
    pub async fn connect(target: Target) -> Result<Self, ClientError> {
        let channel = target.open().await?;
        let bearer = Bearer(target.key);
        Ok(Self { channel, bearer, deadline: target.deadline, message_bytes_max: target.message_bytes_max })
    }

    /// The same connection with another deadline for every call. Absent: none.
    #[must_use]
    pub fn with_deadline(&self, deadline: Option<Duration>) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// Like [`route`](Self::route), and tells what happens while it happens. The deadline holds to the last event.
    ///
    /// # Errors
    /// [`ClientError`] by the gRPC code that the call ended with, here or from the stream.
    pub async fn route_stream(
        &self,
        request: v1::RouteStreamRequest,
    ) -> Result<Replies<v1::RouteStreamResponse>, ClientError> {
        let mut service = service!(self, RouterServiceClient);
        let ends_at = self.deadline.map(|deadline| Instant::now() + deadline);
        let stream = finished(service.route_stream(self.timed(request))).await?;
        Ok(Replies::new(stream, ends_at))
    }

    /// Records many feedbacks: one reply for each, in their order. Without a deadline, since only the caller knows how
    /// many there are.
    ///
    /// # Errors
    /// [`ClientError`] when the stream as such fails; a faulty item has its error in its reply.
    pub async fn stream_feedback<S>(&self, feedback: S) -> Result<Replies<v1::StreamFeedbackResponse>, ClientError>
    where
        S: Stream<Item = v1::Feedback> + Send + 'static,
    {
        let mut service = service!(self, FeedbackServiceClient);
        let items = feedback.map(|feedback| v1::StreamFeedbackRequest { feedback: Some(feedback) });
        let stream = finished(service.stream_feedback(items)).await?;
        Ok(Replies::new(stream, None))
    }

    /// All matching traces with all that is kept, oldest first. Without a deadline, since the stream is as long as the
    /// store.
    ///
    /// # Errors
    /// [`ClientError`] by the gRPC code that the call ended with, here or from the stream.
    pub async fn export_traces(
        &self,
        request: v1::ExportTracesRequest,
    ) -> Result<Replies<v1::ExportTracesResponse>, ClientError> {
        let mut service = service!(self, StatsServiceClient);
        let stream = finished(service.export_traces(request)).await?;
        Ok(Replies::new(stream, None))
    }

    /// Takes in traces with their feedback; what was imported is durable when this returns. Without a deadline, since
    /// only the caller knows how many there are.
    ///
    /// # Errors
    /// [`ClientError`] when the stream as such fails; a faulty trace is named in the reply.
    pub async fn import_traces<S>(&self, traces: S) -> Result<v1::ImportTracesResponse, ClientError>
    where
        S: Stream<Item = v1::ImportTracesRequest> + Send + 'static,
    {
        let mut service = service!(self, StatsServiceClient);
        finished(service.import_traces(traces)).await
    }

    /// Fits a candidate on the stored traces and tells how far it has come; the last reply carries the policy. Without a
    /// deadline, since it takes as long as the traces are many; dropping the replies ends the training.
    ///
    /// # Errors
    /// [`ClientError`] by the gRPC code that the call ended with, here or from the stream.
    pub async fn train(&self, request: v1::TrainRequest) -> Result<Replies<v1::TrainResponse>, ClientError> {
        let mut service = service!(self, PolicyServiceClient);
        let stream = finished(service.train(request)).await?;
        Ok(Replies::new(stream, None))
    }

    /// Hands over an artifact that was trained elsewhere, cut into messages.
    ///
    /// # Errors
    /// [`ClientError`] by the gRPC code that the call ended with.
    pub async fn install_policy(&self, artifact: Vec<u8>) -> Result<v1::InstallPolicyResponse, ClientError> {
        let mut service = service!(self, PolicyServiceClient);
        let pieces: Vec<_> = artifact
            .chunks(ARTIFACT_PIECE_BYTES)
            .map(|piece| v1::InstallPolicyRequest { chunk: piece.to_vec() })
            .collect();
        finished(service.install_policy(self.timed(stream::iter(pieces)))).await
    }

    /// Whether the daemon serves; with a name, whether that one of its services does.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] for a service that the daemon does not know, else as for every call.
    pub async fn serves(&self, service_name: &str) -> Result<bool, ClientError> {
        let mut service = HealthClient::with_interceptor(self.channel.clone(), self.bearer.clone());
        let request = tonic_health::pb::HealthCheckRequest { service: service_name.to_owned() };
        let response = finished(service.check(self.timed(request))).await?;
        Ok(response.status() == ServingStatus::Serving)
    }

    /// Records one feedback and returns its acknowledgement: [`submit_feedback`](Self::submit_feedback) for a single one.
    ///
    /// # Errors
    /// As for `submit_feedback`; [`ClientError::Internal`] when the reply carries no acknowledgement.
    pub async fn feedback(&self, feedback: v1::Feedback) -> Result<v1::FeedbackAck, ClientError> {
        let request = v1::SubmitFeedbackRequest { feedback: Some(feedback) };
        let response = self.submit_feedback(request).await?;
        response.ack.ok_or_else(|| ClientError::incomplete("acknowledgement"))
    }

    fn timed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline);
        }
        request
    }
}

async fn finished<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, ClientError> {
    Ok(call.await?.into_inner())
}
