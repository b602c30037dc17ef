//! Promote, Rollback and SetShadow: who decides. The teacher changes the roles; here a call becomes a
//! wish, and the new roles become a reply.

use pointsman_proto::v1;
use pointsman_router::check::{BadRequest, Problem};
use pointsman_router::ids::PolicyVersion;

use super::canary::canary_with_figures;
use super::policy::Policies;
use super::status::{Reason, Refusal};
use crate::keys::Caller;
use crate::learning::{ArtifactFault, ChangeError, LearningError, Refused, Wish};
use crate::store::ledger::Lifecycle;

/// Longest reason of a change, in bytes.
const REASON_BYTES_MAX: usize = 1_024;

impl Policies {
    pub(super) async fn do_promote(
        &self,
        asked: v1::PromoteRequest,
        caller: &Caller,
    ) -> Result<v1::PromoteResponse, Refusal> {
        let v1::PromoteRequest { version, share, force, reason } = asked;
        let share = share.unwrap_or(1.0);
        if version.is_empty() {
            return Err(BadRequest::of("version", Problem::Missing).into());
        }
        // What is no number is out of range, too.
        if !(share > 0.0 && share <= 1.0) {
            return Err(BadRequest::of("share", Problem::out_of_range("above 0 to 1")).into());
        }
        let wish = Wish { forced: force, ..wish(reason, caller)? };
        let version = PolicyVersion::from(version);
        let roles = self.learning.promote(version.clone(), share, wish).await?;
        let canary = match roles.open_canary() {
            Some(_) => self.learning.report().await?.canary.as_ref().map(canary_with_figures),
            None => None,
        };
        Ok(v1::PromoteResponse { policy: self.find(&version, &roles).await?, canary })
    }

    pub(super) async fn do_roll_back(
        &self,
        asked: v1::RollbackRequest,
        caller: &Caller,
    ) -> Result<v1::RollbackResponse, Refusal> {
        let before = self.ledger.lifecycle().await?;
        let roles = self.learning.roll_back(wish(asked.reason, caller)?).await?;
        let left = before.as_ref().map(|before| match before.open_canary() {
            Some(canary) => &canary.trial.version,
            None => &before.running,
        });
        let rolled_back = match left {
            Some(version) => self.find(version, &roles).await?,
            None => None,
        };
        Ok(v1::RollbackResponse { policy: self.find(&roles.running, &roles).await?, rolled_back })
    }

    pub(super) async fn do_set_shadow(
        &self,
        asked: v1::SetShadowRequest,
        caller: &Caller,
    ) -> Result<v1::SetShadowResponse, Refusal> {
        let version = (!asked.version.is_empty()).then(|| PolicyVersion::from(asked.version));
        let roles = self.learning.set_shadow(version.clone(), wish(String::new(), caller)?).await?;
        let policy = match version {
            Some(version) => self.find(&version, &roles).await?,
            None => None,
        };
        Ok(v1::SetShadowResponse { policy })
    }

    /// A policy as these roles have it.
    pub(super) async fn find(
        &self,
        version: &PolicyVersion,
        roles: &Lifecycle,
    ) -> Result<Option<v1::Policy>, Refusal> {
        let all = self.all_in(Some(roles)).await?;
        Ok(all.into_iter().find(|policy| policy.version == version.as_str()))
    }
}

fn wish(reason: String, caller: &Caller) -> Result<Wish, Refusal> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(BadRequest::of("reason", Problem::out_of_range("at most 1024 bytes")).into());
    }
    Ok(Wish { actor: caller.actor().to_owned().into(), reason, forced: false })
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let message = error.to_string();
        match error {
            ChangeError::Unknown { .. } => Self::new(Reason::UnknownPolicy, message),
            ChangeError::Refused(refused) => refused.into(),
            ChangeError::Artifact(ArtifactFault::Schema { .. }) => Self::new(Reason::ArtifactSchema, message),
            ChangeError::Artifact(ArtifactFault::Corrupt { .. }) => Self::new(Reason::ArtifactCorrupt, message),
            ChangeError::Artifact(ArtifactFault::Store(error))
            | ChangeError::Learning(LearningError::Store(error)) => error.into(),
            ChangeError::Learning(LearningError::State { .. }) => Self::new(Reason::Internal, message),
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::AlreadyRunning { .. } => Self::new(Reason::AlreadyRunning, message),
            Refused::CanaryRunning { version } => {
                Self::new(Reason::CanaryRunning, message).with("canary_version", version.as_str())
            }
            Refused::NoPredecessor { .. } => Self::new(Reason::NoPredecessor, message),
            Refused::Unevaluated { running, .. } => {
                Self::new(Reason::Unevaluated, message).with("incumbent_version", running.as_str())
            }
            Refused::GateFailed { failed, .. } => {
                Self::new(Reason::GateFailed, message).with("conditions", failed.join(","))
            }
        }
    }
}
