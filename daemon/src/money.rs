//! Money as the pipeline meets it: holds are taken from leases in memory, leases are durable.
//!
//! A request is charged to every budget that it falls under, to all of them or none. A hold costs a
//! mutex and no disk write, as long as the leases cover it. Where they do not, larger ones are made
//! durable first; what is leased beyond what is needed is at most a second's spend and a hundredth of the
//! budget, and never more than is left. So a crash can lose sight of that much at most (it counts as
//! spent then), and never gives anything twice.
//!
//! Spend never exceeds a hard budget while no call costs more than was held for it. A call that does is
//! booked as overrun, reported in the log, and denies what comes next. Spend belongs to the window in
//! which its hold was taken, however late it is settled. A soft budget counts and tells, and denies nothing.
//!
//! What is settled here becomes durable when the trace that carries the hold and the bill is booked
//! ([`LedgerStore::book`]). After a restart: book the traces and reports that are missing, then open
//! the ledger. At shutdown: drain, book, [`BudgetLedger::close`].
//!
//! Where no budget is configured everything is granted and still counted.

mod accounts;
mod budgets;
mod changes;
mod meter;
mod rate;
mod status;

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use pointsman_router::clock::{Clock, Timestamp};
use pointsman_router::hold::{Bill, Hold, HoldError, Ledger, Payer};
use pointsman_router::ids::DecisionId;
use pointsman_router::money::NanoUsd;

pub use self::accounts::Alert;
pub use self::changes::{Adjustment, BudgetError};
pub use self::status::BudgetStatus;
use crate::config::Budget;
use crate::store::StoreError;
use crate::store::ledger::{Lease, LedgerStore};
use accounts::{Accounts, Findings, Step, opening};
use budgets::{ACCOUNTS_MAX, Budgets, Named};

/// The name under which spend is counted where no budget is configured.
pub const UNBUDGETED: &str = "unbudgeted";
/// Windows that are opened at once, of different accounts.
const ENTRANCES: usize = 64;
/// Alerts that are remembered.
const ALERTS_KEPT: usize = 256;

/// The budgets of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    /// The daemon's own, which everything is charged to.
    pub main: Option<Budget>,
    /// Those of tenants, keys and tags.
    pub others: Vec<Budget>,
}

/// The budgets of this daemon.
#[derive(Debug)]
pub struct BudgetLedger {
    store: LedgerStore,
    clock: Arc<dyn Clock>,
    budgets: ArcSwap<Budgets>,
    accounts: Mutex<Accounts>,
    alerts: Mutex<VecDeque<Alert>>,
    /// Whoever opens a window of an account holds the one that its name falls to: a window is opened only
    /// while nobody holds money in it.
    entrances: [tokio::sync::Mutex<()>; ENTRANCES],
    hasher: RandomState,
    /// Whoever changes budgets holds it.
    changing: tokio::sync::Mutex<()>,
}

impl BudgetLedger {
    /// Opens the ledger in the windows of now. Every trace and report that was committed before must
    /// be booked already: what is leased and not booked becomes unknown.
    ///
    /// # Errors
    /// What the store met.
    pub async fn open(
        store: LedgerStore,
        configured: Configured,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let now = clock.now();
        let budgets = changes::changed(configured, store.budget_changes().await?);
        store.account_for_lost(now).await?;
        let main = budgets.main();
        let own = budgets.all().values().filter(|budget| budget.scope.of_one() && *budget.name != *main.account);
        let own =
            own.map(|budget| Named { account: budget.name.as_str().into(), budget: Some(Arc::clone(budget)) });
        // Those that are kept for one value among many, and were asked for before.
        let known = store.open_accounts(now).await?;
        let known = known.into_iter().filter(|account| account.contains('/')).filter_map(|account| {
            let budget = Arc::clone(budgets.of_account(&account)?);
            Some(Named { account: account.into(), budget: Some(budget) })
        });
        let opened: Vec<Named> = [main.clone()].into_iter().chain(own).chain(known.take(ACCOUNTS_MAX)).collect();
        let rows = store.open_windows(opened.iter().map(|named| opening(named, now)).collect(), now).await?;
        let mut accounts = Accounts::default();
        opened.iter().zip(&rows).for_each(|(named, row)| accounts.enter(named, row, now));
        Ok(Self {
            store,
            clock,
            budgets: ArcSwap::from_pointee(budgets),
            accounts: Mutex::new(accounts),
            alerts: Mutex::default(),
            entrances: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            hasher: RandomState::new(),
            changing: tokio::sync::Mutex::new(()),
        })
    }

    /// The account that every request is charged to.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.budgets.load().main().account)
    }

    /// Gives unused leases back durably; every later hold is refused. Call it when no request is
    /// under way: what is still held stays leased.
    ///
    /// # Errors
    /// What the store met: then what was unused counts as unknown after the restart.
    pub async fn close(&self) -> Result<(), StoreError> {
        let unused = {
            let mut accounts = self.lock();
            accounts.closed = true;
            accounts.needed_leases()
        };
        self.store.give_back(unused, self.clock.now()).await
    }

    /// Turns the hold of a decision that nobody reported in time into unknown spend. A late report
    /// still settles it.
    pub fn expire(&self, hold: &Hold) {
        let main = self.name();
        self.lock().expire(hold, &main);
    }

    async fn take(
        &self,
        decision: DecisionId,
        ask: NanoUsd,
        payer: Payer<'_>,
        now: Timestamp,
    ) -> Result<Hold, HoldError> {
        let accounts = self.accounts_of(payer);
        // Ends: each round opens a window or adds to leases that cannot exceed their budgets.
        loop {
            let step = {
                let mut books = self.lock();
                if books.closed {
                    return Err(unwritten(&StoreError::Closed));
                }
                books.step(&accounts, (decision, ask), now)?
            };
            match step {
                Step::Held(hold) => return Ok(hold),
                Step::Enter(named) => self.enter(&named, now).await.map_err(|error| unwritten(&error))?,
                Step::Lease(leases) => self.lease(leases, ask, now).await.map_err(|error| unwritten(&error))?,
            }
        }
    }

    fn accounts_of(&self, payer: Payer<'_>) -> Vec<Named> {
        self.budgets.load().of(payer, |account| self.lock().has_room(account, ACCOUNTS_MAX))
    }

    async fn enter(&self, named: &Named, now: Timestamp) -> Result<(), StoreError> {
        let entrance = usize::try_from(self.hasher.hash_one(&named.account) % ENTRANCES as u64).unwrap_or(0);
        let Some(entrance) = self.entrances.get(entrance) else { return Ok(()) };
        let _turn = entrance.lock().await;
        if !self.lock().must_enter(named, now) {
            return Ok(());
        }
        let row = self.store.open_window(opening(named, now), now).await?;
        let mut accounts = self.lock();
        // The budget may be another since the request was looked at: what counts is the one of now, read under the
        // lock, so that a change either sees the account or is seen here.
        let budget = self.budgets.load().of_account(&named.account).or(named.budget.as_ref()).cloned();
        accounts.enter(&Named { account: Arc::clone(&named.account), budget }, &row, now);
        Ok(())
    }

    async fn lease(&self, leases: Vec<Lease>, ask: NanoUsd, now: Timestamp) -> Result<(), StoreError> {
        let waiting = Waiting { ledger: self, leases, ask };
        self.store.grant(waiting.leases.clone(), now).await?;
        self.lock().set_leased(&waiting.leases);
        Ok(())
    }

    fn tell(&self, decision: DecisionId, findings: Findings) {
        let Findings { overrun, alerts } = findings;
        if overrun > NanoUsd::ZERO {
            tracing::error!(%decision, %overrun, "calls cost more than was held for them");
        }
        for alert in alerts {
            let Alert { account, percent, spent, amount, .. } = &alert;
            tracing::warn!(budget = %account, percent, %spent, %amount, "a share of a budget is spent");
            let mut kept = self.alerts.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == ALERTS_KEPT {
                kept.pop_front();
            }
            kept.push_back(alert);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        // A meter is a few integers and a map; a panic between two of its updates can only leave
        // money held that nobody will settle.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for larger leases; it waits no longer when this is dropped.
struct Waiting<'a> {
    ledger: &'a BudgetLedger,
    leases: Vec<Lease>,
    ask: NanoUsd,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.ledger.lock().waited(&self.leases, self.ask);
    }
}

impl Ledger for BudgetLedger {
    fn left(&self, payer: Payer<'_>, now: Timestamp) -> Option<NanoUsd> {
        let accounts = self.accounts_of(payer);
        self.lock().left(&accounts, now)
    }

    fn hold<'a>(
        &'a self,
        decision: DecisionId,
        amount: NanoUsd,
        payer: Payer<'a>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Hold, HoldError>> {
        Box::pin(self.take(decision, amount.max(NanoUsd::ZERO), payer, now))
    }

    fn settle(&self, hold: &Hold, bill: Bill) {
        let (main, now) = (self.name(), self.clock.now());
        let findings = self.lock().settle(hold, bill, &main, now);
        self.tell(hold.decision, findings);
    }
}

fn unwritten(error: &StoreError) -> HoldError {
    HoldError::Ledger { detail: error.to_string() }
}

#[cfg(test)]
mod tests;
