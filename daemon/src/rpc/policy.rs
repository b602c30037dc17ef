//! PolicyService: which policies there are and what they have learned from.
//!
//! The ledger knows every version that ever served, and who has which role; how far the learning one has come is the
//! teacher's to say. The bandit is listed while it learns beside rules, too: as a candidate.

use std::sync::Arc;

use pointsman_proto::v1;
use pointsman_proto::v1::policy_service_server::PolicyService;
use pointsman_router::clock::Clock;
use tonic::{Request, Response, Status, Streaming};

use super::door::caller;
use super::status::{Reason, Refusal};
use super::stored::stored_to_wire;
use super::training::{Candidates, TrainStream};
use crate::learning::{Learning, LearningStatus};
use crate::money::BudgetLedger;
use crate::pacing::BudgetPacer;
use crate::store::ledger::{LedgerStore, Lifecycle, StoredPolicy};
use crate::training::retrain::Retraining;

/// Shows the policies over gRPC.
#[derive(Debug, Clone)]
pub struct Policies {
    /// What serves and learns.
    pub learning: Learning,
    /// What served before.
    pub ledger: LedgerStore,
    /// Makes candidates.
    pub candidates: Candidates,
    /// Trains by itself.
    pub retraining: Retraining,
    /// What paces the budget.
    pub pacer: Arc<BudgetPacer>,
    /// The budget.
    pub budget: Arc<BudgetLedger>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl PolicyService for Policies {
    async fn list_policies(
        &self,
        _: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        Ok(Response::new(v1::ListPoliciesResponse { policies: self.all().await? }))
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        let asked = request.into_inner().version;
        let is_asked = |policy: &v1::Policy| match asked.as_str() {
            "" => policy.state() == v1::PolicyState::Running,
            version => policy.version == version,
        };
        let policy = self.all().await?.into_iter().find(is_asked);
        let unknown = || Refusal::new(Reason::UnknownPolicy, "no policy has this version, see ListPolicies");
        Ok(Response::new(v1::GetPolicyResponse { policy: Some(policy.ok_or_else(unknown)?) }))
    }

    type TrainStream = TrainStream;

    async fn train(&self, request: Request<v1::TrainRequest>) -> Result<Response<Self::TrainStream>, Status> {
        let candidates = self.candidates.named(caller(&request)?.actor());
        Ok(Response::new(candidates.train(request.get_ref())?))
    }

    async fn install_policy(
        &self,
        request: Request<Streaming<v1::InstallPolicyRequest>>,
    ) -> Result<Response<v1::InstallPolicyResponse>, Status> {
        let candidates = self.candidates.named(caller(&request)?.actor());
        Ok(Response::new(candidates.install(request.into_inner()).await?))
    }

    async fn evaluate(
        &self,
        request: Request<v1::EvaluateRequest>,
    ) -> Result<Response<v1::EvaluateResponse>, Status> {
        let candidates = self.candidates.named(caller(&request)?.actor());
        let incumbent = self.learning.status().running;
        Ok(Response::new(candidates.evaluate(request.into_inner(), incumbent).await?))
    }

    async fn promote(
        &self,
        request: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::PromoteResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(self.do_promote(request.into_inner(), &caller).await?))
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::RollbackResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(self.do_roll_back(request.into_inner(), &caller).await?))
    }

    async fn set_shadow(
        &self,
        request: Request<v1::SetShadowRequest>,
    ) -> Result<Response<v1::SetShadowResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(self.do_set_shadow(request.into_inner(), &caller).await?))
    }
}

impl Policies {
    async fn all(&self) -> Result<Vec<v1::Policy>, Refusal> {
        let roles = self.ledger.lifecycle().await?;
        self.all_in(roles.as_ref()).await
    }

    /// All policies, newest first, the running one with its predecessor.
    pub(super) async fn all_in(&self, roles: Option<&Lifecycle>) -> Result<Vec<v1::Policy>, Refusal> {
        let status = self.learning.status();
        let mut policies: Vec<v1::Policy> =
            self.ledger.stored_policies().await?.iter().map(|policy| served(policy, &status)).collect();
        if !policies.iter().any(|policy| policy.version == status.learning.as_str()) {
            let candidate = v1::Policy {
                version: status.learning.as_str().to_owned(),
                kind: v1::PolicyKind::Bandit.into(),
                state: v1::PolicyState::Candidate.into(),
                ..v1::Policy::default()
            };
            policies.insert(0, learned(candidate, &status));
        }
        for policy in &mut policies {
            let roles = roles.filter(|roles| roles.running.as_str() == policy.version);
            let predecessor = roles.and_then(|roles| roles.predecessor.as_ref());
            policy.predecessor = predecessor.map(|version| version.as_str().to_owned()).unwrap_or_default();
        }
        Ok(policies)
    }
}

fn served(policy: &StoredPolicy, status: &LearningStatus) -> v1::Policy {
    let shown = stored_to_wire(policy);
    if policy.row.version == status.learning { learned(shown, status) } else { shown }
}

/// The policy with how far it has come, where it learns.
fn learned(policy: v1::Policy, status: &LearningStatus) -> v1::Policy {
    let Some(learned) = status.learned.get(policy.version.as_str()) else { return policy };
    v1::Policy {
        updates: learned.updates,
        feedback_mark: learned.feedback_mark,
        trace_mark: learned.trace_mark,
        schema_hash: learned.schema.0,
        ..policy
    }
}
