//! How budgets stand, for people and programs: read only.

use std::sync::Arc;

use pointsman_router::clock::Timestamp;
use pointsman_router::money::NanoUsd;

use super::accounts::{Account, limit};
use super::budgets::Named;
use super::meter::Meter;
use super::{Alert, BudgetLedger};
use crate::config::{Budget, Enforcement, Scope, Window};
use crate::store::StoreError;
use crate::store::ledger::{Imbalance, Transfer};

/// How a budget stands.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetStatus {
    /// The account's name: that of the budget, with the value that it is kept for behind a slash;
    /// [`super::UNBUDGETED`] where none is configured.
    pub name: String,
    /// Whose spend it limits.
    pub scope: Scope,
    /// What happens where it has no room.
    pub enforcement: Enforcement,
    /// How long its window is; [`Window::Total`] where none is configured.
    pub window: Window,
    /// Whose calendar cuts the windows.
    pub time_zone: String,
    /// What may be spent in this window; `None` where no budget is configured.
    pub amount: Option<NanoUsd>,
    /// What was spent in it, `unknown` included.
    pub spent: NanoUsd,
    /// What is reserved for calls under way.
    pub held: NanoUsd,
    /// What counts as spent though nobody knows.
    pub unknown: NanoUsd,
    /// By how much calls cost more than was held for them, in sum.
    pub overrun: NanoUsd,
    /// What is leased beyond what was used: what a crash would lose sight of.
    pub lease: NanoUsd,
    /// What may still be spent, negative after an overrun or in a soft budget; `None` where no budget is
    /// configured.
    pub left: Option<NanoUsd>,
    /// When the window began.
    pub started_at: Timestamp,
    /// When it ends; `None`: never.
    pub resets_at: Option<Timestamp>,
    /// When the money ends as it is spent now, where that is before the window does.
    pub ends_at: Option<Timestamp>,
    /// Shares, in percent, at which somebody is told.
    pub alert_at_percent: Vec<u8>,
}

impl BudgetLedger {
    /// How the account stands that every request is charged to.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> BudgetStatus {
        let main = self.budgets.load().main().clone();
        self.status_of(&main, now)
    }

    /// How every account stands that has a window or a budget, the main one first, then by name.
    #[must_use]
    pub fn statuses(&self, now: Timestamp) -> Vec<BudgetStatus> {
        let budgets = self.budgets.load();
        let mut accounts: Vec<Named> = {
            let books = self.lock();
            let known = books.iter().filter_map(|(account, _)| {
                let budget = budgets.of_account(account)?;
                Some(Named { account: account.clone(), budget: Some(budget.clone()) })
            });
            known.filter(|named| named.account != budgets.main().account).collect()
        };
        let unasked = budgets.all().values().filter(|budget| budget.scope.of_one());
        for budget in unasked {
            if *budget.name != *budgets.main().account
                && !accounts.iter().any(|named| *named.account == *budget.name)
            {
                accounts.push(Named { account: budget.name.as_str().into(), budget: Some(Arc::clone(budget)) });
            }
        }
        accounts.sort_by(|a, b| a.account.cmp(&b.account));
        [budgets.main().clone()].iter().chain(&accounts).map(|named| self.status_of(named, now)).collect()
    }

    /// How one of these accounts stands; `None` where no budget of now keeps it.
    #[must_use]
    pub fn status_named(&self, account: &str, now: Timestamp) -> Option<BudgetStatus> {
        let budgets = self.budgets.load();
        if *budgets.main().account == *account {
            return Some(self.status_of(budgets.main(), now));
        }
        let budget = budgets.of_account(account)?;
        let is_one = *budget.name == *account && budget.scope.of_one();
        let is_kept = is_one || self.lock().get(account).is_some();
        let named = || Named { account: account.into(), budget: Some(Arc::clone(budget)) };
        is_kept.then(|| self.status_of(&named(), now))
    }

    /// The last shares that were reached, oldest first.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        let alerts = self.alerts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        alerts.iter().cloned().collect()
    }

    /// A budget by its name.
    #[must_use]
    pub fn budget(&self, name: &str) -> Option<Arc<Budget>> {
        self.budgets.load().all().get(name).cloned()
    }

    /// The newest movements of one window of an account, oldest first; all, or those that made money unknown or
    /// known.
    ///
    /// # Errors
    /// What the store met.
    pub async fn transfers(
        &self,
        account: &str,
        start: Timestamp,
        unknown_only: bool,
        limit: usize,
    ) -> Result<Vec<Transfer>, StoreError> {
        self.store.transfers((account, start), unknown_only, limit).await
    }

    /// Every balance that is not the sum of its movements.
    ///
    /// # Errors
    /// What the store met.
    pub async fn imbalances(&self) -> Result<Vec<Imbalance>, StoreError> {
        self.store.imbalances().await
    }

    fn status_of(&self, named: &Named, now: Timestamp) -> BudgetStatus {
        let books = self.lock();
        match books.get(&named.account) {
            Some(account) if !books.must_enter(named, now) => status(named, &account.current, now),
            Some(_) | None => status(named, &next(named, books.get(&named.account), now), now),
        }
    }
}

/// The window of now, which nobody has entered.
fn next(named: &Named, account: Option<&Account>, now: Timestamp) -> Meter {
    let budget = named.budget.as_deref();
    let empty = Meter::empty(super::accounts::bounds_of(budget, now), limit(budget), now);
    match account {
        Some(account) => empty.at_pace_of(&account.current),
        None => empty,
    }
}

fn status(named: &Named, meter: &Meter, now: Timestamp) -> BudgetStatus {
    let budget = named.budget.as_deref();
    let left = budget.map(|budget| budget.amount.saturating_sub(meter.used()));
    let resets_at = meter.resets_at();
    let ends_at = left.and_then(|left| meter.lasts(left, now)).map(|lasts| now.plus(lasts));
    let of = |read: fn(&Budget) -> String| budget.map_or_else(String::new, read);
    BudgetStatus {
        name: named.account.to_string(),
        scope: budget.map_or(Scope::Global, |budget| budget.scope.clone()),
        enforcement: budget.map_or(Enforcement::Soft, |budget| budget.enforcement),
        window: budget.map_or(Window::Total, |budget| budget.window),
        time_zone: of(|budget| budget.time_zone.iana_name().unwrap_or("UTC").to_owned()),
        amount: budget.map(|budget| budget.amount),
        spent: meter.spent(),
        held: meter.held(),
        unknown: meter.unknown(),
        overrun: meter.overrun(),
        lease: meter.leased().saturating_sub(meter.used()).max(NanoUsd::ZERO),
        left,
        started_at: meter.start(),
        resets_at,
        ends_at: ends_at.filter(|ends| resets_at.is_none_or(|resets| *ends < resets)),
        alert_at_percent: budget.map_or_else(Vec::new, |budget| budget.alert_at_percent.clone()),
    }
}
