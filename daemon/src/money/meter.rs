//! The arithmetic of one window of one account: what is leased, held and spent. No I/O, no locks.
//!
//! Two invariants hold after every step: what is held and spent is within the lease, unless a call
//! cost more than was held for it; and what was held plus overrun is what was settled, released,
//! unknown or is still held.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_router::clock::Timestamp;
use pointsman_router::hold::{Bill, Hold};
use pointsman_router::ids::DecisionId;
use pointsman_router::money::NanoUsd;

use super::rate::Rate;
use crate::store::ledger::WindowRow;

/// The most holds that are remembered one by one. Beyond it the oldest (of callers that never
/// reported) become unknown, as they would in a restart.
const OPEN_MAX: usize = 1 << 18;
/// What is leased beyond what is needed is at most the budget divided by this ...
const LEASE_PARTS: i64 = 100;
/// ... and at most what is spent in this time.
const LEASE_FOR: Duration = Duration::from_secs(1);
/// Memory of the rate that sizes leases.
const LEASE_MEMORY: Duration = Duration::from_secs(10);
/// Memory of the rate that a forecast goes by.
const FORECAST_MEMORY: Duration = Duration::from_secs(600);

/// Whether there is room for a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// There is.
    Yes,
    /// Once the window's lease is this high.
    Lease(NanoUsd),
    /// There is not.
    No {
        /// What the budget amounts to.
        amount: NanoUsd,
        /// What is left of it.
        left: NanoUsd,
    },
}

/// One window of an account.
#[derive(Debug)]
pub(super) struct Meter {
    start: Timestamp,
    resets_at: Option<Timestamp>,
    /// What may be spent; `None`: there is no limit, and no lease either.
    limit: Option<NanoUsd>,
    /// What may be spent without another disk write, since the window began.
    leased: NanoUsd,
    held: NanoUsd,
    /// What requests want that wait for a larger lease.
    waiting: NanoUsd,
    settled: NanoUsd,
    unknown: NanoUsd,
    /// The part of what is unknown that a late report may still explain: holds of an earlier run,
    /// holds that expired, and holds no longer remembered.
    unexplained: NanoUsd,
    overrun: NanoUsd,
    open: BTreeMap<DecisionId, NanoUsd>,
    asked: Rate,
    spending: Rate,
}

impl Meter {
    /// A window nobody has spent anything in.
    pub(super) fn empty(
        (start, resets_at): (Timestamp, Option<Timestamp>),
        limit: Option<NanoUsd>,
        now: Timestamp,
    ) -> Self {
        Self {
            start,
            resets_at,
            limit,
            leased: NanoUsd::ZERO,
            held: NanoUsd::ZERO,
            waiting: NanoUsd::ZERO,
            settled: NanoUsd::ZERO,
            unknown: NanoUsd::ZERO,
            unexplained: NanoUsd::ZERO,
            overrun: NanoUsd::ZERO,
            open: BTreeMap::new(),
            asked: Rate::new(LEASE_MEMORY, now),
            spending: Rate::new(FORECAST_MEMORY, now),
        }
    }

    /// A window as the store keeps it.
    pub(super) fn new(row: &WindowRow, now: Timestamp) -> Self {
        let empty = Self::empty((row.start, row.resets_at), row.amount, now);
        Self { leased: row.leased, settled: row.settled, unexplained: row.unknown, overrun: row.overrun, ..empty }
    }

    /// The same, going on at the pace of an earlier window.
    pub(super) fn at_pace_of(self, earlier: &Self) -> Self {
        Self { asked: earlier.asked, spending: earlier.spending, ..self }
    }

    pub(super) fn start(&self) -> Timestamp {
        self.start
    }

    pub(super) fn resets_at(&self) -> Option<Timestamp> {
        self.resets_at
    }

    pub(super) fn held(&self) -> NanoUsd {
        self.held
    }

    pub(super) fn leased(&self) -> NanoUsd {
        self.leased
    }

    pub(super) fn overrun(&self) -> NanoUsd {
        self.overrun
    }

    pub(super) fn unknown(&self) -> NanoUsd {
        self.unknown.saturating_add(self.unexplained)
    }

    pub(super) fn spent(&self) -> NanoUsd {
        self.settled.saturating_add(self.unknown())
    }

    /// What may still be held; `None` where there is no limit.
    pub(super) fn left(&self) -> Option<NanoUsd> {
        self.limit.map(|limit| limit.saturating_sub(self.used()))
    }

    pub(super) fn used(&self) -> NanoUsd {
        self.held.saturating_add(self.spent())
    }

    /// How long `left` lasts as money is spent now.
    pub(super) fn lasts(&self, left: NanoUsd, now: Timestamp) -> Option<Duration> {
        self.spending.lasts(left, now)
    }

    /// Another limit, from now on: it may be below what is spent, and then denies.
    pub(super) fn set_limit(&mut self, limit: Option<NanoUsd>) {
        self.limit = limit;
    }

    /// Whether a hold has room. A hold of nothing has, even where the budget overran: it can spend nothing.
    pub(super) fn room(&self, ask: NanoUsd, now: Timestamp) -> Room {
        let Some(limit) = self.limit.filter(|_| ask > NanoUsd::ZERO) else { return Room::Yes };
        let used = self.used().saturating_add(ask);
        if used > limit {
            Room::No { amount: limit, left: limit.saturating_sub(self.used()) }
        } else if used > self.leased {
            let ahead = NanoUsd::new(limit.nanos() / LEASE_PARTS).min(self.asked.over(LEASE_FOR, now));
            Room::Lease(used.saturating_add(self.waiting.max(ahead)).min(limit))
        } else {
            Room::Yes
        }
    }

    /// Takes a hold that has room.
    pub(super) fn take(&mut self, decision: DecisionId, ask: NanoUsd, now: Timestamp) {
        self.asked.add(ask, now);
        self.held = self.held.saturating_add(ask);
        let open = self.open.entry(decision).or_default();
        *open = open.saturating_add(ask);
        if self.open.len() > OPEN_MAX
            && let Some((_, oldest)) = self.open.pop_first()
        {
            self.forget(oldest);
        }
    }

    /// A request waits for a larger lease.
    pub(super) fn wait(&mut self, ask: NanoUsd) {
        self.waiting = self.waiting.saturating_add(ask);
    }

    /// It waits no longer.
    pub(super) fn waited(&mut self, ask: NanoUsd) {
        self.waiting = self.waiting.saturating_sub(ask);
    }

    /// Nobody waits for this hold any more: it counts as unknown until it is settled after all.
    pub(super) fn expire(&mut self, hold: &Hold) {
        if let Some(held) = self.open.remove(&hold.decision) {
            self.forget(held);
        }
    }

    fn forget(&mut self, held: NanoUsd) {
        self.held = self.held.saturating_sub(held);
        self.unexplained = self.unexplained.saturating_add(held);
    }

    /// Ends a hold; by how much its bill is above it.
    pub(super) fn settle(&mut self, hold: &Hold, bill: Bill, now: Timestamp) -> NanoUsd {
        match self.open.remove(&hold.decision) {
            Some(held) => self.held = self.held.saturating_sub(held),
            None => self.unexplained = self.unexplained.saturating_sub(hold.amount.min(self.unexplained)),
        }
        self.settled = self.settled.saturating_add(bill.settled);
        self.unknown = self.unknown.saturating_add(bill.unknown);
        self.spending.add(bill.spent(), now);
        let overrun = bill.overrun(hold.amount);
        self.overrun = self.overrun.saturating_add(overrun);
        overrun
    }

    /// So much of what was unknown is known now, and so much of it was spent.
    pub(super) fn adjust(&mut self, unknown: NanoUsd, settled: NanoUsd) {
        let told = unknown.min(self.unknown);
        self.unknown = self.unknown.saturating_sub(told);
        let rest = unknown.saturating_sub(told).min(self.unexplained);
        self.unexplained = self.unexplained.saturating_sub(rest);
        self.settled = self.settled.saturating_add(settled);
        self.overrun = self.overrun.saturating_add(settled.saturating_sub(unknown).max(NanoUsd::ZERO));
    }

    /// The lease became durable. A lease never shrinks while its window is in use.
    pub(super) fn set_leased(&mut self, leased: NanoUsd) {
        self.leased = self.leased.max(leased);
    }

    /// The lease that this window still needs, where that is less than it has.
    pub(super) fn needed_lease(&self) -> Option<NanoUsd> {
        (self.used() < self.leased).then(|| self.used())
    }
}
