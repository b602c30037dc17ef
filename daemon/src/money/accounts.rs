//! The accounts in memory: a hold is taken from all that a request is charged to, or from none.
//!
//! Everything here is a step under one lock: look at every account first, then change all of them. What
//! needs a disk write is handed out as a [`Step`]; nothing waits in here, and nothing is durable.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pointsman_router::clock::Timestamp;
use pointsman_router::hold::{Bill, Charge, Hold, NoMoney};
use pointsman_router::ids::DecisionId;
use pointsman_router::money::NanoUsd;

use super::budgets::Named;
use super::meter::{Meter, Room};
use crate::config::{Budget, Enforcement, bounds};
use crate::store::ledger::{Lease, WindowOpening, WindowRow};

/// Windows kept in memory for holds that are settled late. A hold of an older window is settled by
/// the booking of its trace alone.
const WINDOWS_MAX: usize = 8;

/// One account: the window of now, and earlier ones that may still be settled.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) budget: Option<Arc<Budget>>,
    pub(super) current: Meter,
    /// Windows before the current one, by start.
    past: BTreeMap<Timestamp, Meter>,
    /// The highest share, in percent, of which somebody was told in this window.
    told: u8,
}

impl Account {
    fn new(budget: Option<Arc<Budget>>, current: Meter) -> Self {
        let mut account = Self { budget, current, past: BTreeMap::new(), told: 0 };
        // Whoever opens a window again was told before.
        account.told = account.reached().unwrap_or(0);
        account
    }

    /// The highest share of which somebody is to be told.
    fn reached(&self) -> Option<u8> {
        let budget = self.budget.as_ref()?;
        let (spent, amount) = (i128::from(self.current.spent().nanos()), i128::from(budget.amount.nanos()));
        budget.alert_at_percent.iter().rev().find(|percent| spent * 100 >= amount * i128::from(**percent)).copied()
    }

    /// The meter of a window, where it is still remembered.
    fn window(&mut self, start: Timestamp) -> Option<&mut Meter> {
        if self.current.start() == start { Some(&mut self.current) } else { self.past.get_mut(&start) }
    }
}

/// What may be spent in a window of this budget before requests are denied.
pub(super) fn limit(budget: Option<&Budget>) -> Option<NanoUsd> {
    budget.filter(|budget| budget.enforcement == Enforcement::Hard).map(|budget| budget.amount)
}

/// Start and end of the window of now; without a budget there is one for ever.
pub(super) fn bounds_of(budget: Option<&Budget>, now: Timestamp) -> (Timestamp, Option<Timestamp>) {
    budget.map_or((Timestamp::from_micros(0), None), |budget| bounds(budget.window, &budget.time_zone, now))
}

/// The opening of the window of now.
pub(super) fn opening(named: &Named, now: Timestamp) -> WindowOpening {
    let budget = named.budget.as_deref();
    WindowOpening { account: Arc::clone(&named.account), bounds: bounds_of(budget, now), amount: limit(budget) }
}

/// A share of a budget that was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The account.
    pub account: String,
    /// The share, in percent.
    pub percent: u8,
    /// What was spent by then.
    pub spent: NanoUsd,
    /// What the budget amounts to.
    pub amount: NanoUsd,
    /// When.
    pub at: Timestamp,
}

/// What a hold needs next.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing: it is taken.
    Held(Hold),
    /// A window is to be opened.
    Enter(Named),
    /// Leases are to be raised. The request is counted as waiting until [`Accounts::waited`].
    Lease(Vec<Lease>),
}

/// What settling brought to light.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// By how much calls cost more than was held for them.
    pub(super) overrun: NanoUsd,
    pub(super) alerts: Vec<Alert>,
}

/// All accounts.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    by_name: HashMap<Arc<str>, Account>,
    pub(super) closed: bool,
}

impl Accounts {
    pub(super) fn get(&self, account: &str) -> Option<&Account> {
        self.by_name.get(account)
    }

    pub(super) fn has_room(&self, account: &str, accounts_max: usize) -> bool {
        self.by_name.len() < accounts_max || self.by_name.contains_key(account)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Account)> {
        self.by_name.iter()
    }

    /// Whether the window of now must be opened first. A clock that went back stays in the current window.
    pub(super) fn must_enter(&self, named: &Named, now: Timestamp) -> bool {
        let Some(account) = self.by_name.get(&named.account) else { return true };
        let over = account.current.resets_at().is_some_and(|end| now >= end);
        over && bounds_of(named.budget.as_deref(), now).0 > account.current.start()
    }

    /// The window that the store opened is the current one, under the account's budget of now.
    pub(super) fn enter(&mut self, named: &Named, row: &WindowRow, now: Timestamp) {
        let mut meter = Meter::new(row, now);
        meter.set_limit(limit(named.budget.as_deref()));
        match self.by_name.get_mut(&named.account) {
            None => {
                let account = Account::new(named.budget.clone(), meter);
                self.by_name.insert(Arc::clone(&named.account), account);
            }
            Some(account) => {
                let next = meter.at_pace_of(&account.current);
                let past = std::mem::replace(&mut account.current, next);
                account.past.insert(past.start(), past);
                account.budget.clone_from(&named.budget);
                account.told = account.reached().unwrap_or(0);
                while account.past.len() > WINDOWS_MAX {
                    account.past.pop_first();
                }
            }
        }
    }

    /// What these accounts have left: the least of those that have a limit.
    pub(super) fn left(&self, accounts: &[Named], now: Timestamp) -> Option<NanoUsd> {
        let left = |named: &Named| match self.by_name.get(&named.account) {
            Some(account) if !self.must_enter(named, now) => account.current.left(),
            Some(_) | None => limit(named.budget.as_deref()),
        };
        accounts.iter().filter_map(left).min()
    }

    /// Takes a hold from all of these accounts, or says what it needs first.
    ///
    /// # Errors
    /// The first of them that has no room; nothing was taken.
    pub(super) fn step(
        &mut self,
        accounts: &[Named],
        (decision, ask): (DecisionId, NanoUsd),
        now: Timestamp,
    ) -> Result<Step, NoMoney> {
        let mut leases = Vec::new();
        for named in accounts {
            let Some(account) = self.by_name.get(&named.account).filter(|_| !self.must_enter(named, now)) else {
                return Ok(Step::Enter(named.clone()));
            };
            match account.current.room(ask, now) {
                Room::Yes => {}
                Room::Lease(leased) => {
                    let (account, start) = (Arc::clone(&named.account), account.current.start());
                    leases.push(Lease { account, start, leased });
                }
                Room::No { amount, left } => return Err(no_money(named, &account.current, (amount, left, ask))),
            }
        }
        for lease in &leases {
            self.with(&lease.account, lease.start, |meter| meter.wait(ask));
        }
        if !leases.is_empty() {
            return Ok(Step::Lease(leases));
        }
        let mut charges = Vec::with_capacity(accounts.len());
        for named in accounts {
            if let Some(account) = self.by_name.get_mut(&named.account) {
                account.current.take(decision, ask, now);
                charges.push(Charge { account: Arc::clone(&named.account), window: account.current.start() });
            }
        }
        Ok(Step::Held(Hold { decision, amount: ask, charges: charges.into() }))
    }

    /// A request waits no longer for these leases.
    pub(super) fn waited(&mut self, leases: &[Lease], ask: NanoUsd) {
        for lease in leases {
            self.with(&lease.account, lease.start, |meter| meter.waited(ask));
        }
    }

    /// Leases became durable.
    pub(super) fn set_leased(&mut self, leases: &[Lease]) {
        for lease in leases {
            self.with(&lease.account, lease.start, |meter| meter.set_leased(lease.leased));
        }
    }

    /// Ends a hold in every account; `main` has what was held when there was one account.
    pub(super) fn settle(&mut self, hold: &Hold, bill: Bill, main: &str, now: Timestamp) -> Findings {
        let mut findings = Findings::default();
        for charge in hold.charges.iter() {
            let name = charge.account_or(main);
            let Some(account) = self.by_name.get_mut(name) else { continue };
            if let Some(meter) = account.window(charge.window) {
                findings.overrun = findings.overrun.max(meter.settle(hold, bill, now));
            }
            if let Some(percent) = account.reached().filter(|percent| *percent > account.told) {
                account.told = percent;
                findings.alerts.push(Alert {
                    account: name.to_owned(),
                    percent,
                    spent: account.current.spent(),
                    amount: account.budget.as_ref().map_or(NanoUsd::ZERO, |budget| budget.amount),
                    at: now,
                });
            }
        }
        findings
    }

    /// Nobody waits for this hold any more.
    pub(super) fn expire(&mut self, hold: &Hold, main: &str) {
        for charge in hold.charges.iter() {
            let name = charge.account_or(main);
            self.with(name, charge.window, |meter| meter.expire(hold));
        }
    }

    /// What an operator said is known of a window now.
    pub(super) fn adjust(&mut self, (account, start): (&str, Timestamp), unknown: NanoUsd, settled: NanoUsd) {
        self.with(account, start, |meter| meter.adjust(unknown, settled));
    }

    /// A budget is another from now on; its accounts follow.
    pub(super) fn set_budget(&mut self, budget: &Arc<Budget>) {
        let of = |account: &Account| account.budget.as_ref().is_some_and(|own| own.name == budget.name);
        for account in self.by_name.values_mut().filter(|account| of(account)) {
            account.current.set_limit(limit(Some(budget)));
            account.budget = Some(Arc::clone(budget));
            // Nobody is told twice; what a lower amount newly reaches is told with the next settlement.
            account.told = account.told.min(account.reached().unwrap_or(0));
        }
    }

    /// The budget of this name, as far as an account was ever kept for it.
    pub(super) fn budget_named(&self, name: &str) -> Option<Arc<Budget>> {
        let mut budgets = self.by_name.values().filter_map(|account| account.budget.as_ref());
        budgets.find(|budget| budget.name == name).cloned()
    }

    /// Leases that would cover what is used, where those that there are do not and there is a limit.
    pub(super) fn uncovered(&self) -> Vec<Lease> {
        let hard = self.by_name.iter().filter(|(_, account)| account.current.left().is_some());
        hard.filter(|(_, account)| account.current.used() > account.current.leased())
            .map(|(name, account)| Lease {
                account: Arc::clone(name),
                start: account.current.start(),
                leased: account.current.used(),
            })
            .collect()
    }

    /// What is unknown in a window that is remembered.
    pub(super) fn unknown_in(&mut self, account: &str, start: Timestamp) -> Option<NanoUsd> {
        self.by_name.get_mut(account)?.window(start).map(|meter| meter.unknown())
    }

    /// The leases that are still needed, where they are lower than what is leased.
    pub(super) fn needed_leases(&self) -> Vec<Lease> {
        let meters = self.by_name.iter().flat_map(|(name, account)| {
            account.past.values().chain([&account.current]).map(move |meter| (name, meter))
        });
        meters
            .filter_map(|(name, meter)| {
                let leased = meter.needed_lease()?;
                Some(Lease { account: Arc::clone(name), start: meter.start(), leased })
            })
            .collect()
    }

    fn with(&mut self, account: &str, start: Timestamp, change: impl FnOnce(&mut Meter)) {
        if let Some(meter) = self.by_name.get_mut(account).and_then(|account| account.window(start)) {
            change(meter);
        }
    }
}

fn no_money(named: &Named, meter: &Meter, (amount, left, asked): (NanoUsd, NanoUsd, NanoUsd)) -> NoMoney {
    NoMoney {
        budget: named.account.to_string(),
        amount,
        left,
        asked,
        resets_at: meter.resets_at(),
        resets_at_text: meter.resets_at().map_or_else(|| "never".to_owned(), rfc3339),
    }
}

fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros()).map_or_else(|_| "never".to_owned(), |at| at.to_string())
}
