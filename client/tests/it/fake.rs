//! A daemon that answers by rote: two models, fixed replies, and a record of what it was told.
//!
//! The prompt says what happens: `stall` never answers, `refuse` is INVALID_ARGUMENT with details, `broke` is
//! RESOURCE_EXHAUSTED, any other is answered with `F` by the model `good` at a cost of 2,000 nano-dollars.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt as _, stream};
use pointsman_client::v1;
use pointsman_client::v1::admin_service_server::{AdminService, AdminServiceServer};
use pointsman_client::v1::feedback_service_server::{FeedbackService, FeedbackServiceServer};
use pointsman_client::v1::policy_service_server::PolicyServiceServer;
use pointsman_client::v1::router_service_server::{RouterService, RouterServiceServer};
use pointsman_client::v1::stats_service_server::StatsServiceServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

pub(crate) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the daemon was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Requests, in order of arrival, with their gRPC deadline.
    pub(crate) requests: Vec<(v1::RequestSpec, Option<String>)>,
    /// Feedback, in order of arrival.
    pub(crate) feedback: Vec<v1::Feedback>,
    /// Trainings, in order of arrival.
    pub(crate) trainings: Vec<v1::TrainRequest>,
    /// Promotions, in order of arrival.
    pub(crate) promotions: Vec<v1::PromoteRequest>,
    /// Imported traces, in order of arrival.
    pub(crate) traces: Vec<v1::Trace>,
}

/// The daemon that answers by rote.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake {
    told: Arc<Mutex<Told>>,
}

impl Fake {
    /// Starts one on a free port.
    #[expect(clippy::disallowed_methods, reason = "the server of a test; it ends with the runtime of the test")]
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let fake = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has an address");
        let (_, health) = tonic_health::server::health_reporter();
        let server = tonic::transport::Server::builder()
            .add_service(RouterServiceServer::new(fake.clone()))
            .add_service(FeedbackServiceServer::new(fake.clone()))
            .add_service(AdminServiceServer::new(fake.clone()))
            .add_service(PolicyServiceServer::new(fake.clone()))
            .add_service(StatsServiceServer::new(fake.clone()))
            .add_service(health)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        (fake, address)
    }

    /// Reads what the daemon was told.
    pub(crate) fn told<T>(&self, read: impl FnOnce(&mut Told) -> T) -> T {
        read(&mut self.told.lock().expect("no test panicked before"))
    }

    async fn answer(&self, spec: Option<v1::RequestSpec>, deadline: Option<String>) -> Reply {
        let spec = spec.ok_or_else(|| Status::invalid_argument("no request"))?;
        self.told(|told| told.requests.push((spec.clone(), deadline)));
        match spec.prompt.as_str() {
            "stall" => std::future::pending().await,
            "refuse" => {
                let details = ErrorDetails::with_bad_request_violation("request.labels", "are twice there");
                let code = Code::InvalidArgument;
                Err(Status::with_error_details(code, "1 fault", details))
            }
            "broke" => Err(Status::resource_exhausted("nothing left")),
            _ => Ok(reply(&spec.caller_ref)),
        }
    }
}

type Reply = Result<v1::RouteResponse, Status>;

fn reply(caller_ref: &str) -> v1::RouteResponse {
    let candidate = |model: &str, chosen| v1::Candidate {
        model: model.to_owned(),
        eligible: true,
        chosen,
        ..v1::Candidate::default()
    };
    v1::RouteResponse {
        decision_id: format!("d/{caller_ref}"),
        answer: Some(v1::Answer {
            value: "F".to_owned(),
            confidence: 0.75,
            contributions: vec![v1::Contribution {
                model: "good".to_owned(),
                agrees: true,
                ..v1::Contribution::default()
            }],
            ..v1::Answer::default()
        }),
        decision: Some(v1::Decision {
            why: "by rote".to_owned(),
            candidates: vec![candidate("good", true), candidate("bad", false)],
            ..v1::Decision::default()
        }),
        cost_usd_nanos: 2_000,
        ..v1::RouteResponse::default()
    }
}

fn deadline<T>(request: &Request<T>) -> Option<String> {
    let value = request.metadata().get("grpc-timeout")?;
    value.to_str().ok().map(str::to_owned)
}

pub(crate) fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the fake has no such call"))
}

#[tonic::async_trait]
impl RouterService for Fake {
    type RouteStreamStream = Replies<v1::RouteStreamResponse>;

    async fn route(&self, request: Request<v1::RouteRequest>) -> Result<Response<v1::RouteResponse>, Status> {
        let deadline = deadline(&request);
        let spec = request.into_inner().request;
        self.answer(spec, deadline).await.map(Response::new)
    }

    async fn route_stream(
        &self,
        request: Request<v1::RouteStreamRequest>,
    ) -> Result<Response<Self::RouteStreamStream>, Status> {
        use v1::route_stream_response::Event;
        let deadline = deadline(&request);
        let fake = self.clone();
        let first =
            v1::RouteStreamResponse { progress: 0.0, event: Some(Event::Admitted(v1::RouteAdmitted::default())) };
        let last = stream::once(async move {
            let spec = request.into_inner().request;
            let response = Some(fake.answer(spec, deadline).await?);
            Ok(v1::RouteStreamResponse { progress: 1.0, event: Some(Event::Final(v1::RouteFinal { response })) })
        });
        Ok(Response::new(Box::pin(stream::iter([Ok(first)]).chain(last))))
    }

    async fn decide(&self, _: Request<v1::DecideRequest>) -> Result<Response<v1::DecideResponse>, Status> {
        not_here()
    }

    async fn report_outcomes(
        &self,
        _: Request<v1::ReportOutcomesRequest>,
    ) -> Result<Response<v1::ReportOutcomesResponse>, Status> {
        not_here()
    }
}

#[tonic::async_trait]
impl FeedbackService for Fake {
    type StreamFeedbackStream = Replies<v1::StreamFeedbackResponse>;

    async fn submit_feedback(
        &self,
        request: Request<v1::SubmitFeedbackRequest>,
    ) -> Result<Response<v1::SubmitFeedbackResponse>, Status> {
        let feedback = request.into_inner().feedback.unwrap_or_default();
        if feedback.decision_id == "unknown" {
            return Err(Status::not_found("no such decision"));
        }
        self.told(|told| told.feedback.push(feedback));
        Ok(Response::new(v1::SubmitFeedbackResponse { ack: Some(v1::FeedbackAck::default()) }))
    }

    async fn stream_feedback(
        &self,
        request: Request<Streaming<v1::StreamFeedbackRequest>>,
    ) -> Result<Response<Self::StreamFeedbackStream>, Status> {
        use v1::stream_feedback_response::Result as Ended;
        let fake = self.clone();
        let replies = request.into_inner().enumerate().map(move |(item, one)| {
            let feedback = one?.feedback.unwrap_or_default();
            let result = if feedback.decision_id == "unknown" {
                Ended::Error(v1::FeedbackError { code: Code::NotFound.into(), ..v1::FeedbackError::default() })
            } else {
                fake.told(|told| told.feedback.push(feedback));
                Ended::Ack(v1::FeedbackAck::default())
            };
            Ok(v1::StreamFeedbackResponse { item: u64::try_from(item).unwrap_or(u64::MAX), result: Some(result) })
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

/// Calls that no test of the client makes: they go their way on a live daemon.
macro_rules! nobody_asks {
    ($($name:ident: $request:ident -> $response:ident;)*) => {
        $(
            fn $name<'life, 'call>(
                &'life self,
                _: Request<v1::$request>,
            ) -> Pin<Box<dyn Future<Output = Result<Response<v1::$response>, Status>> + Send + 'call>>
            where
                'life: 'call,
                Self: 'call,
            {
                Box::pin(async { not_here() })
            }
        )*
    };
}

#[tonic::async_trait]
impl AdminService for Fake {
    async fn list_models(
        &self,
        _: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let models = ["good", "bad"].map(|name| v1::ModelListing {
            card: Some(v1::ModelCard { name: name.to_owned(), ..v1::ModelCard::default() }),
            enabled: true,
            available: true,
            ..v1::ModelListing::default()
        });
        Ok(Response::new(v1::ListModelsResponse { models: models.into() }))
    }

    async fn register_model(
        &self,
        _: Request<v1::RegisterModelRequest>,
    ) -> Result<Response<v1::RegisterModelResponse>, Status> {
        Err(Status::already_exists("the name is taken"))
    }

    async fn enable_model(
        &self,
        _: Request<v1::EnableModelRequest>,
    ) -> Result<Response<v1::EnableModelResponse>, Status> {
        not_here()
    }

    async fn disable_model(
        &self,
        _: Request<v1::DisableModelRequest>,
    ) -> Result<Response<v1::DisableModelResponse>, Status> {
        not_here()
    }

    async fn remove_model(
        &self,
        _: Request<v1::RemoveModelRequest>,
    ) -> Result<Response<v1::RemoveModelResponse>, Status> {
        not_here()
    }

    async fn drain(&self, _: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        not_here()
    }

    async fn get_budget(
        &self,
        _: Request<v1::GetBudgetRequest>,
    ) -> Result<Response<v1::GetBudgetResponse>, Status> {
        Ok(Response::new(v1::GetBudgetResponse::default()))
    }

    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::CreateKeyResponse>, Status> {
        let bearer = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if bearer != Some("Bearer pm_0123456789abcdef.good") {
            return Err(Status::unauthenticated("no key"));
        }
        let key = v1::Key { id: "fedcba9876543210".to_owned(), ..v1::Key::default() };
        Ok(Response::new(v1::CreateKeyResponse { key: Some(key), text: "pm_fedcba9876543210.new".to_owned() }))
    }

    async fn list_keys(&self, _: Request<v1::ListKeysRequest>) -> Result<Response<v1::ListKeysResponse>, Status> {
        not_here()
    }

    async fn revoke_key(
        &self,
        _: Request<v1::RevokeKeyRequest>,
    ) -> Result<Response<v1::RevokeKeyResponse>, Status> {
        not_here()
    }

    async fn rotate_key(
        &self,
        _: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::RotateKeyResponse>, Status> {
        not_here()
    }

    async fn list_audit(
        &self,
        _: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        not_here()
    }

    async fn verify_audit(
        &self,
        _: Request<v1::VerifyAuditRequest>,
    ) -> Result<Response<v1::VerifyAuditResponse>, Status> {
        let breach = "audit entry 3 is missing".to_owned();
        Ok(Response::new(v1::VerifyAuditResponse { sound: false, head: None, breach, breach_sequence: 3 }))
    }

    nobody_asks! {
        list_budgets: ListBudgetsRequest -> ListBudgetsResponse;
        set_budget: SetBudgetRequest -> SetBudgetResponse;
        remove_budget: RemoveBudgetRequest -> RemoveBudgetResponse;
        adjust_budget: AdjustBudgetRequest -> AdjustBudgetResponse;
        list_transfers: ListTransfersRequest -> ListTransfersResponse;
        verify_budgets: VerifyBudgetsRequest -> VerifyBudgetsResponse;
    }
}
