//! The budget as the pipeline meets it: holds are taken from a lease in memory, leases are durable.
//!
//! A hold costs a mutex and no disk write, as long as the lease covers it. Where it does not, one
//! request at a time sets a larger lease durably and the others wait for it; the lease is the larger
//! of that request's need and a hundredth of the budget, and never more than is left. So a crash can
//! lose sight of a hundredth of the budget at most (it counts as spent then), and never gives
//! anything twice.
//!
//! Spend never exceeds the budget while no call costs more than was held for it. A call that does is
//! booked as overrun, reported in the log, and denies what comes next. Spend belongs to the window in
//! which its hold was taken, however late it is settled.
//!
//! What is settled here becomes durable when the trace that carries the hold and the bill is booked
//! ([`LedgerStore::book`]). After a restart: book the traces and reports that are missing, then open
//! the ledger. At shutdown: drain, book, [`BudgetLedger::close`].
//!
//! Where no budget is configured everything is granted and still counted.

mod meter;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use pointsman_router::clock::Timestamp;
use pointsman_router::hold::{Bill, Hold, HoldError, Ledger, NoMoney};
use pointsman_router::ids::DecisionId;
use pointsman_router::money::NanoUsd;

use crate::config::{Budget, Window, bounds};
use crate::store::StoreError;
use crate::store::ledger::{LedgerStore, WindowRow};
use meter::{Meter, Take};

/// The name under which spend is counted where no budget is configured.
pub const UNBUDGETED: &str = "unbudgeted";
/// Windows kept in memory for holds that are settled late. A hold of an older window is settled by
/// the booking of its trace alone.
const WINDOWS_MAX: usize = 8;

/// Start and end of a window; no end: it never resets.
type Bounds = (Timestamp, Option<Timestamp>);

/// How a budget stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetStatus {
    /// Its name; [`UNBUDGETED`] where none is configured.
    pub name: String,
    /// How long its window is; [`Window::Total`] where none is configured.
    pub window: Window,
    /// What may be spent in this window; `None` where no budget is configured.
    pub amount: Option<NanoUsd>,
    /// What was spent in it, `unknown` included.
    pub spent: NanoUsd,
    /// What is reserved for calls under way.
    pub held: NanoUsd,
    /// What counts as spent though nobody knows.
    pub unknown: NanoUsd,
    /// What may still be held, negative after an overrun; `None` where no budget is configured.
    pub left: Option<NanoUsd>,
    /// When the window began.
    pub started_at: Timestamp,
    /// When it ends; `None`: never.
    pub resets_at: Option<Timestamp>,
}

/// The budget of this daemon.
#[derive(Debug)]
pub struct BudgetLedger {
    store: LedgerStore,
    budget: Option<Budget>,
    state: Mutex<State>,
    /// Whoever changes what is durable holds it; the fast path never does.
    granting: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    current: Meter,
    /// Windows before the current one, by start.
    past: BTreeMap<Timestamp, Meter>,
    closed: bool,
}

/// What a hold needs next.
enum Step {
    Held(Hold),
    Enter(Bounds),
    Lease { start: Timestamp, leased: NanoUsd },
}

impl BudgetLedger {
    /// Opens the ledger in the window of `now`. Every trace and report that was committed before must
    /// be booked already: what is leased and not booked becomes unknown.
    ///
    /// # Errors
    /// What the store met.
    pub async fn open(store: LedgerStore, budget: Option<Budget>, now: Timestamp) -> Result<Self, StoreError> {
        let (name, amount) = (name_of(budget.as_ref()), budget.as_ref().map(|b| b.amount));
        let row = store.open_window(name, bounds_of(budget.as_ref(), now), amount, now).await?;
        let state = State { current: Meter::new(&row), past: BTreeMap::new(), closed: false };
        let granting = tokio::sync::Mutex::new(());
        Ok(Self { store, budget, state: Mutex::new(state), granting })
    }

    /// The name under which spend is to be booked.
    #[must_use]
    pub fn name(&self) -> &str {
        name_of(self.budget.as_ref())
    }

    fn amount(&self) -> Option<NanoUsd> {
        self.budget.as_ref().map(|budget| budget.amount)
    }

    /// The window that has to be entered first, where `now` is beyond the current one. A clock that
    /// went back stays in the current window.
    fn next_window(&self, current: &Meter, now: Timestamp) -> Option<Bounds> {
        current.resets_at().filter(|end| now >= *end)?;
        Some(bounds_of(self.budget.as_ref(), now)).filter(|(start, _)| *start > current.start())
    }

    /// How the budget stands.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> BudgetStatus {
        let state = self.lock();
        let next = self.next_window(&state.current, now).map(|window| Meter::empty(window, self.amount()));
        let meter = next.as_ref().unwrap_or(&state.current);
        BudgetStatus {
            name: self.name().to_owned(),
            window: self.budget.as_ref().map_or(Window::Total, |budget| budget.window),
            amount: self.amount(),
            spent: meter.spent(),
            held: meter.held(),
            unknown: meter.unknown(),
            left: meter.left(),
            started_at: meter.start(),
            resets_at: meter.resets_at(),
        }
    }

    /// Gives unused leases back durably; every later hold is refused. Call it when no request is
    /// under way: what is still held stays leased.
    ///
    /// # Errors
    /// What the store met: then what was unused counts as unknown after the restart.
    pub async fn close(&self, now: Timestamp) -> Result<(), StoreError> {
        let _turn = self.granting.lock().await;
        let unused: Vec<(Timestamp, NanoUsd)> = {
            let mut state = self.lock();
            state.closed = true;
            state.past.values().chain([&state.current]).filter_map(Meter::needed_lease).collect()
        };
        for (start, leased) in unused {
            self.store.set_lease(self.name(), start, leased, now).await?;
        }
        Ok(())
    }

    /// Turns the hold of a decision that nobody reported in time into unknown spend. A late report
    /// still settles it.
    pub fn expire(&self, hold: &Hold) {
        if let Some(meter) = self.lock().window(hold.window) {
            meter.expire(hold);
        }
    }

    /// Takes the hold, or says what it needs first.
    fn step(&self, decision: DecisionId, ask: NanoUsd, now: Timestamp) -> Result<Step, HoldError> {
        let mut state = self.lock();
        if state.closed {
            return Err(HoldError::Ledger { detail: StoreError::Closed.to_string() });
        }
        if let Some(window) = self.next_window(&state.current, now) {
            return Ok(Step::Enter(window));
        }
        let meter = &mut state.current;
        let start = meter.start();
        match meter.take(decision, ask) {
            Take::Held => Ok(Step::Held(Hold { decision, amount: ask, window: start })),
            Take::Lease(leased) => Ok(Step::Lease { start, leased }),
            Take::NoRoom { amount, left } => Err(HoldError::NoMoney(NoMoney {
                budget: self.name().to_owned(),
                amount,
                left,
                asked: ask,
                resets_at: meter.resets_at(),
                resets_at_text: meter.resets_at().map_or_else(|| "never".to_owned(), rfc3339),
            })),
        }
    }

    async fn take(&self, decision: DecisionId, ask: NanoUsd, now: Timestamp) -> Result<Hold, HoldError> {
        if let Step::Held(hold) = self.step(decision, ask, now)? {
            return Ok(hold);
        }
        let _turn = self.granting.lock().await;
        // Ends: each round enters a later window or adds to a lease that cannot exceed the budget.
        loop {
            match self.step(decision, ask, now)? {
                Step::Held(hold) => return Ok(hold),
                Step::Enter(window) => {
                    let row = self
                        .store
                        .open_window(self.name(), window, self.amount(), now)
                        .await
                        .map_err(unwritten)?;
                    self.lock().enter(&row);
                }
                Step::Lease { start, leased } => {
                    self.store.set_lease(self.name(), start, leased, now).await.map_err(unwritten)?;
                    self.lock().current.set_leased(start, leased);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A meter is a few integers and a map; a panic between two of its updates can only leave
        // money held that nobody will settle.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The meter of a window, where it is still remembered.
    fn window(&mut self, start: Timestamp) -> Option<&mut Meter> {
        if self.current.start() == start { Some(&mut self.current) } else { self.past.get_mut(&start) }
    }

    fn enter(&mut self, row: &WindowRow) {
        let past = std::mem::replace(&mut self.current, Meter::new(row));
        self.past.insert(past.start(), past);
        while self.past.len() > WINDOWS_MAX {
            self.past.pop_first();
        }
    }
}

impl Ledger for BudgetLedger {
    fn left(&self, now: Timestamp) -> Option<NanoUsd> {
        self.amount()?;
        let state = self.lock();
        match self.next_window(&state.current, now) {
            Some(_) => self.amount(),
            None => state.current.left(),
        }
    }

    fn hold(
        &self,
        decision: DecisionId,
        amount: NanoUsd,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Hold, HoldError>> {
        Box::pin(self.take(decision, amount.max(NanoUsd::ZERO), now))
    }

    fn settle(&self, hold: &Hold, bill: Bill) {
        let overrun = self.lock().window(hold.window).map_or(NanoUsd::ZERO, |meter| meter.settle(hold, bill));
        if overrun > NanoUsd::ZERO {
            tracing::error!(budget = %self.name(), decision = %hold.decision, %overrun, "calls cost more than was held for them");
        }
    }
}

fn name_of(budget: Option<&Budget>) -> &str {
    budget.map_or(UNBUDGETED, |budget| &budget.name)
}

fn bounds_of(budget: Option<&Budget>, now: Timestamp) -> Bounds {
    budget.map_or((Timestamp::from_micros(0), None), |budget| bounds(budget.window, &budget.time_zone, now))
}

fn unwritten(error: StoreError) -> HoldError {
    HoldError::Ledger { detail: error.to_string() }
}

fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros()).map_or_else(|_| "never".to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests;
