//! Budgets over gRPC: reading, setting, adjusting and proving them. The ledger decides; this translates.

mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;

use pointsman_proto::v1;
use pointsman_router::check::{BadRequest, Problem};
use pointsman_router::clock::{Clock, Timestamp};
use pointsman_router::money::NanoUsd;
use pointsman_router::request::TENANT_TAG;

use super::status::Refusal;
use crate::audit::By;
use crate::config::{Scope, Whose};
use crate::keys::Caller;
use crate::money::{Adjustment, BudgetError, BudgetLedger, BudgetStatus};
use crate::wire::moment;

/// The most that one adjustment books, in nano-dollars: a million dollars.
const ADJUSTED_MAX: i64 = 1_000_000_000_000_000;
/// Longest key of an adjustment, in bytes.
const KEY_BYTES_MAX: usize = 256;
/// Movements that are listed where the caller gives no number, and at most.
const TRANSFERS: (usize, usize) = (1_000, 10_000);

/// Reads and changes budgets.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// The money.
    pub ledger: Arc<BudgetLedger>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Budgets {
    /// A budget; one that the caller may not see is answered as one that never was.
    pub(super) fn get(
        &self,
        request: &v1::GetBudgetRequest,
        caller: &Caller,
    ) -> Result<v1::GetBudgetResponse, Refusal> {
        if request.name.is_empty() {
            let budget = wire::to_wire(self.ledger.status(self.clock.now()));
            return Ok(v1::GetBudgetResponse { budget });
        }
        let found = self.status(&request.name).filter(|status| shows(status, caller));
        let budget = found.and_then(wire::to_wire).ok_or_else(|| unknown(&request.name))?;
        Ok(v1::GetBudgetResponse { budget: Some(budget) })
    }

    /// The budgets that the caller may see, and their alerts.
    pub(super) fn list(&self, caller: &Caller) -> v1::ListBudgetsResponse {
        let mut statuses = self.ledger.statuses(self.clock.now());
        statuses.retain(|status| shows(status, caller));
        let names: BTreeSet<String> = statuses.iter().map(|status| status.name.clone()).collect();
        let alerts = self.ledger.alerts().into_iter().filter(|alert| names.contains(&alert.account));
        v1::ListBudgetsResponse {
            alerts: alerts.map(wire::alert_to_wire).collect(),
            budgets: statuses.into_iter().filter_map(wire::to_wire).collect(),
        }
    }

    pub(super) async fn set(
        &self,
        request: v1::SetBudgetRequest,
        by: &By,
    ) -> Result<v1::SetBudgetResponse, Refusal> {
        let known = self.ledger.budget(&request.name);
        let budget = wire::from_wire(request, known.as_deref())?;
        let name = budget.name.clone();
        self.ledger.set(budget, by).await?;
        tracing::info!(budget = %name, "budget set");
        Ok(v1::SetBudgetResponse { budget: self.found(&name) })
    }

    pub(super) async fn remove(
        &self,
        request: v1::RemoveBudgetRequest,
        by: &By,
    ) -> Result<v1::RemoveBudgetResponse, Refusal> {
        let name = given("name", request.name)?;
        self.ledger.remove(&name, by).await?;
        tracing::info!(budget = %name, "budget removed");
        Ok(v1::RemoveBudgetResponse {})
    }

    pub(super) async fn adjust(
        &self,
        request: v1::AdjustBudgetRequest,
        by: &By,
    ) -> Result<v1::AdjustBudgetResponse, Refusal> {
        let account = given("name", request.name)?;
        let key = given("key", request.key)?;
        if key.len() > KEY_BYTES_MAX {
            return Err(Refusal::field("key", "is too long, give at most 256 bytes"));
        }
        let start = self.start(&account, request.window_started_at)?;
        let unknown = amount("unknown_usd_nanos", request.unknown_usd_nanos)?;
        let settled = amount("settled_usd_nanos", request.settled_usd_nanos)?;
        let adjustment = Adjustment { account: account.clone(), start, unknown, settled, key };
        let new = self.ledger.adjust(adjustment, by).await?;
        if new {
            tracing::info!(budget = %account, %unknown, %settled, "budget adjusted");
        }
        Ok(v1::AdjustBudgetResponse { repeated: !new, budget: self.found(&account) })
    }

    pub(super) async fn transfers(
        &self,
        request: v1::ListTransfersRequest,
    ) -> Result<v1::ListTransfersResponse, Refusal> {
        let account = given("name", request.name)?;
        let start = self.start(&account, request.window_started_at)?;
        let limit = match usize::try_from(request.limit).unwrap_or(TRANSFERS.1) {
            0 => TRANSFERS.0,
            limit if limit <= TRANSFERS.1 => limit,
            _ => return Err(BadRequest::of("limit", Problem::out_of_range("at most 10,000")).into()),
        };
        let transfers = self.ledger.transfers(&account, start, request.unknown_only, limit).await?;
        Ok(v1::ListTransfersResponse { transfers: transfers.into_iter().map(wire::transfer_to_wire).collect() })
    }

    pub(super) async fn verify(&self) -> Result<v1::VerifyBudgetsResponse, Refusal> {
        let imbalances = self.ledger.imbalances().await?;
        if !imbalances.is_empty() {
            tracing::error!(count = imbalances.len(), "balances are not the sums of their movements");
        }
        let imbalances = imbalances.into_iter().map(wire::imbalance_to_wire).collect();
        Ok(v1::VerifyBudgetsResponse { imbalances })
    }

    fn status(&self, account: &str) -> Option<BudgetStatus> {
        self.ledger.status_named(account, self.clock.now())
    }

    fn found(&self, account: &str) -> Option<v1::Budget> {
        self.status(account).and_then(wire::to_wire)
    }

    /// The window that was meant: the present one where none was given.
    fn start(&self, account: &str, given: Option<prost_types::Timestamp>) -> Result<Timestamp, Refusal> {
        if let Some(given) = given {
            return Ok(moment(&given));
        }
        self.status(account).map(|status| status.started_at).ok_or_else(|| unknown(account))
    }
}

/// Whether a caller may see this account: an administrator each, others those of everybody, of their tenant and of
/// their key.
fn shows(status: &BudgetStatus, caller: &Caller) -> bool {
    let view = caller.view();
    let Some(tenant) = view.tenant() else { return true };
    let is = |whose: &Whose, own: &str| match whose {
        Whose::One(name) => name == own,
        // The value that the account is kept for stands behind the budget's name.
        Whose::Each => status.name.split_once('/').is_some_and(|(_, value)| value == own),
    };
    match &status.scope {
        Scope::Global => true,
        Scope::Tenant(whose) => is(whose, tenant),
        Scope::Key(whose) => caller.key().is_some_and(|key| is(whose, key.as_str())),
        Scope::Tag(tag, whose) => tag == TENANT_TAG && is(whose, tenant),
    }
}

fn unknown(name: &str) -> Refusal {
    BudgetError::Unknown { name: name.to_owned() }.into()
}

fn given(field: &'static str, text: String) -> Result<String, Refusal> {
    if text.is_empty() { Err(BadRequest::of(field, Problem::Missing).into()) } else { Ok(text) }
}

fn amount(field: &'static str, nanos: i64) -> Result<NanoUsd, Refusal> {
    let amount = (0..=ADJUSTED_MAX).contains(&nanos).then(|| NanoUsd::new(nanos));
    amount.ok_or_else(|| BadRequest::of(field, Problem::out_of_range("zero to a million dollars")).into())
}
