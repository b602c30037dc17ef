//! The arithmetic of one budget window: what is leased, held and spent. No I/O, no locks.
//!
//! Two invariants hold after every step: what is held and spent is within the lease, unless a call
//! cost more than was held for it; and what was held plus overrun is what was settled, released,
//! unknown or is still held.

use std::collections::BTreeMap;

use pointsman_router::clock::Timestamp;
use pointsman_router::hold::{Bill, Hold};
use pointsman_router::ids::DecisionId;
use pointsman_router::money::NanoUsd;

use crate::store::ledger::WindowRow;

/// The most holds that are remembered one by one. Beyond it the oldest (of callers that never
/// reported) become unknown, as they would in a restart.
const OPEN_MAX: usize = 1 << 18;
/// A lease is at least the budget divided by this, where so much is left.
const LEASE_PARTS: i64 = 100;

/// What became of asking for a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// It was taken.
    Held,
    /// The window's lease must be this much first.
    Lease(NanoUsd),
    /// The budget has no room.
    NoRoom {
        /// What the budget amounts to.
        amount: NanoUsd,
        /// What is left of it.
        left: NanoUsd,
    },
}

/// One window of the budget.
#[derive(Debug)]
pub(super) struct Meter {
    start: Timestamp,
    resets_at: Option<Timestamp>,
    amount: Option<NanoUsd>,
    /// What may be spent without another disk write, since the window began.
    leased: NanoUsd,
    held: NanoUsd,
    settled: NanoUsd,
    unknown: NanoUsd,
    /// The part of what is unknown that a late report may still explain: holds of an earlier run,
    /// holds that expired, and holds no longer remembered.
    unexplained: NanoUsd,
    open: BTreeMap<DecisionId, NanoUsd>,
}

impl Meter {
    /// A window nobody has spent anything in.
    pub(super) fn empty((start, resets_at): (Timestamp, Option<Timestamp>), amount: Option<NanoUsd>) -> Self {
        Self {
            start,
            resets_at,
            amount,
            leased: NanoUsd::ZERO,
            held: NanoUsd::ZERO,
            settled: NanoUsd::ZERO,
            unknown: NanoUsd::ZERO,
            unexplained: NanoUsd::ZERO,
            open: BTreeMap::new(),
        }
    }

    /// A window as the store keeps it.
    pub(super) fn new(row: &WindowRow) -> Self {
        let empty = Self::empty((row.start, row.resets_at), row.amount);
        Self { leased: row.leased, settled: row.settled, unexplained: row.unknown, ..empty }
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

    pub(super) fn unknown(&self) -> NanoUsd {
        self.unknown.saturating_add(self.unexplained)
    }

    pub(super) fn spent(&self) -> NanoUsd {
        self.settled.saturating_add(self.unknown())
    }

    /// What may still be held; `None` where no budget is configured.
    pub(super) fn left(&self) -> Option<NanoUsd> {
        self.amount.map(|amount| amount.saturating_sub(self.used()))
    }

    fn used(&self) -> NanoUsd {
        self.held.saturating_add(self.spent())
    }

    /// Takes a hold, where the lease has room for it. A hold of nothing is granted even
    /// where the budget overran: it can spend nothing.
    pub(super) fn take(&mut self, decision: DecisionId, ask: NanoUsd) -> Take {
        let used = self.used().saturating_add(ask);
        if let Some(amount) = self.amount
            && ask > NanoUsd::ZERO
        {
            if used > amount {
                return Take::NoRoom { amount, left: amount.saturating_sub(self.used()) };
            }
            if used > self.leased {
                let part = NanoUsd::new(amount.nanos() / LEASE_PARTS);
                return Take::Lease(self.leased.saturating_add(part).max(used).min(amount));
            }
        }
        self.held = self.held.saturating_add(ask);
        let open = self.open.entry(decision).or_default();
        *open = open.saturating_add(ask);
        if self.open.len() > OPEN_MAX
            && let Some((_, oldest)) = self.open.pop_first()
        {
            self.forget(oldest);
        }
        Take::Held
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
    pub(super) fn settle(&mut self, hold: &Hold, bill: Bill) -> NanoUsd {
        match self.open.remove(&hold.decision) {
            Some(held) => self.held = self.held.saturating_sub(held),
            None => self.unexplained = self.unexplained.saturating_sub(hold.amount.min(self.unexplained)),
        }
        self.settled = self.settled.saturating_add(bill.settled);
        self.unknown = self.unknown.saturating_add(bill.unknown);
        bill.overrun(hold.amount)
    }

    /// The lease became durable. A lease never shrinks while its window is in use.
    pub(super) fn set_leased(&mut self, start: Timestamp, leased: NanoUsd) {
        if self.start == start {
            self.leased = self.leased.max(leased);
        }
    }

    /// The lease that this window still needs, where that is less than it has.
    pub(super) fn needed_lease(&self) -> Option<(Timestamp, NanoUsd)> {
        (self.used() < self.leased).then(|| (self.start, self.used()))
    }
}
