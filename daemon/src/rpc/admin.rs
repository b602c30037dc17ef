//! AdminService: models, budgets, keys, the audit chain, the end.
//!
//! Every change is durable before it is acknowledged, together with its entry in the audit chain, and
//! holds from the next decision on; requests under way keep the models they began with.

use std::fmt;
use std::sync::Arc;

use pointsman_proto::v1;
use pointsman_proto::v1::admin_service_server::AdminService;
use pointsman_router::check::{BadRequest, Problem};
use pointsman_router::clock::Clock;
use pointsman_router::ids::ModelName;
use serde_json::json;
use tonic::{Request, Response, Status};

use super::budgets::Budgets;
use super::door::caller;
use super::status::Refusal;
use super::traffic::Traffic;
use crate::audit::{By, Entry};
use crate::keyring::Keyring;
use crate::registry::{Listed, Origin, Registry};
use crate::store::ledger::LedgerStore;
use crate::wire;

/// Changes the daemon at run time over gRPC.
#[derive(Clone)]
pub struct Administration {
    /// The models.
    pub registry: Arc<Registry>,
    /// The budgets.
    pub budgets: Budgets,
    /// The keys of callers.
    pub keyring: Arc<Keyring>,
    /// The audit chain.
    pub ledger: LedgerStore,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The requests under way.
    pub traffic: Traffic,
}

impl fmt::Debug for Administration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Administration").finish_non_exhaustive()
    }
}

impl Administration {
    /// Who asks, and when.
    fn by<T>(&self, request: &Request<T>) -> Result<By, Refusal> {
        Ok(caller(request)?.by(self.clock.now()))
    }

    fn listing(&self, listed: &Listed) -> v1::ModelListing {
        let origin = match listed.origin {
            Origin::Config => v1::ModelOrigin::Config,
            Origin::Runtime => v1::ModelOrigin::Runtime,
        };
        let price_suspect_reason = listed.suspect.clone().unwrap_or_default();
        v1::ModelListing { price_suspect_reason, ..wire::model::to_wire(&listed.model, origin, self.clock.now()) }
    }
}

#[tonic::async_trait]
impl AdminService for Administration {
    async fn list_models(
        &self,
        _: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let models = self.registry.list().iter().map(|listed| self.listing(listed)).collect();
        Ok(Response::new(v1::ListModelsResponse { models }))
    }

    async fn register_model(
        &self,
        request: Request<v1::RegisterModelRequest>,
    ) -> Result<Response<v1::RegisterModelResponse>, Status> {
        let by = self.by(&request)?;
        let registration = wire::model::from_wire(request.into_inner().card).map_err(Refusal::from)?;
        let listed = self.registry.register(registration, &by).await.map_err(Refusal::from)?;
        tracing::info!(model = %listed.model.name(), "model registered");
        Ok(Response::new(v1::RegisterModelResponse { model: Some(self.listing(&listed)) }))
    }

    async fn enable_model(
        &self,
        request: Request<v1::EnableModelRequest>,
    ) -> Result<Response<v1::EnableModelResponse>, Status> {
        let by = self.by(&request)?;
        let listed = self.registry.enable(&name(request.into_inner().name)?, &by).await.map_err(Refusal::from)?;
        tracing::info!(model = %listed.model.name(), "model enabled");
        Ok(Response::new(v1::EnableModelResponse { model: Some(self.listing(&listed)) }))
    }

    async fn disable_model(
        &self,
        request: Request<v1::DisableModelRequest>,
    ) -> Result<Response<v1::DisableModelResponse>, Status> {
        let by = self.by(&request)?;
        let listed = self.registry.disable(&name(request.into_inner().name)?, &by).await.map_err(Refusal::from)?;
        tracing::info!(model = %listed.model.name(), "model disabled");
        Ok(Response::new(v1::DisableModelResponse { model: Some(self.listing(&listed)) }))
    }

    async fn remove_model(
        &self,
        request: Request<v1::RemoveModelRequest>,
    ) -> Result<Response<v1::RemoveModelResponse>, Status> {
        let by = self.by(&request)?;
        let name = name(request.into_inner().name)?;
        self.registry.remove(&name, &by).await.map_err(Refusal::from)?;
        tracing::info!(model = %name, "model removed");
        Ok(Response::new(v1::RemoveModelResponse {}))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let by = self.by(&request)?;
        let grace = match request.into_inner().grace {
            None => None,
            Some(span) => Some(wire::duration(&span).ok_or_else(|| {
                Refusal::from(BadRequest::of("grace", Problem::out_of_range("a span of zero or more")))
            })?),
        };
        let details = json!({"grace_ms": grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX))});
        // A daemon whose disk is full must be able to end all the same.
        if let Err(error) = self.ledger.note(Entry::new(&by, "daemon.drained", "", details)).await {
            tracing::error!(%error, actor = &*by.actor, "the drain could not be written into the audit log");
        }
        self.traffic.drain(grace);
        let in_flight = u32::try_from(self.traffic.len()).unwrap_or(u32::MAX);
        Ok(Response::new(v1::DrainResponse { in_flight }))
    }

    async fn get_budget(
        &self,
        request: Request<v1::GetBudgetRequest>,
    ) -> Result<Response<v1::GetBudgetResponse>, Status> {
        Ok(Response::new(self.budgets.get(request.get_ref(), &caller(&request)?)?))
    }

    async fn list_budgets(
        &self,
        request: Request<v1::ListBudgetsRequest>,
    ) -> Result<Response<v1::ListBudgetsResponse>, Status> {
        Ok(Response::new(self.budgets.list(&caller(&request)?)))
    }

    async fn set_budget(
        &self,
        request: Request<v1::SetBudgetRequest>,
    ) -> Result<Response<v1::SetBudgetResponse>, Status> {
        let by = self.by(&request)?;
        Ok(Response::new(self.budgets.set(request.into_inner(), &by).await?))
    }

    async fn remove_budget(
        &self,
        request: Request<v1::RemoveBudgetRequest>,
    ) -> Result<Response<v1::RemoveBudgetResponse>, Status> {
        let by = self.by(&request)?;
        Ok(Response::new(self.budgets.remove(request.into_inner(), &by).await?))
    }

    async fn adjust_budget(
        &self,
        request: Request<v1::AdjustBudgetRequest>,
    ) -> Result<Response<v1::AdjustBudgetResponse>, Status> {
        let by = self.by(&request)?;
        Ok(Response::new(self.budgets.adjust(request.into_inner(), &by).await?))
    }

    async fn list_transfers(
        &self,
        request: Request<v1::ListTransfersRequest>,
    ) -> Result<Response<v1::ListTransfersResponse>, Status> {
        Ok(Response::new(self.budgets.transfers(request.into_inner()).await?))
    }

    async fn verify_budgets(
        &self,
        _: Request<v1::VerifyBudgetsRequest>,
    ) -> Result<Response<v1::VerifyBudgetsResponse>, Status> {
        Ok(Response::new(self.budgets.verify().await?))
    }

    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::CreateKeyResponse>, Status> {
        let by = self.by(&request)?;
        Ok(Response::new(self.do_create_key(request.into_inner(), &by).await?))
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        Ok(Response::new(self.do_list_keys(request.get_ref())?))
    }

    async fn revoke_key(
        &self,
        request: Request<v1::RevokeKeyRequest>,
    ) -> Result<Response<v1::RevokeKeyResponse>, Status> {
        let by = self.by(&request)?;
        Ok(Response::new(self.do_revoke_key(request.into_inner(), &by).await?))
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::RotateKeyResponse>, Status> {
        let by = self.by(&request)?;
        Ok(Response::new(self.do_rotate_key(request.into_inner(), &by).await?))
    }

    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        Ok(Response::new(self.do_list_audit(request.into_inner()).await?))
    }

    async fn verify_audit(
        &self,
        request: Request<v1::VerifyAuditRequest>,
    ) -> Result<Response<v1::VerifyAuditResponse>, Status> {
        Ok(Response::new(self.do_verify_audit(request.into_inner()).await?))
    }
}

fn name(name: String) -> Result<ModelName, Refusal> {
    if name.is_empty() { Err(BadRequest::of("name", Problem::Missing).into()) } else { Ok(name.into()) }
}
