//! What traces, reports and adjustments add to an account's books: pure arithmetic, no store.
//!
//! Every sum here balances in itself: held + overrun = settled + released + unknown, to the
//! nano-dollar. Sums that do not fit stop at the end of the scale instead of wrapping.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_router::clock::Timestamp;
use pointsman_router::hold::{Bill, Hold};
use pointsman_router::money::NanoUsd;
use pointsman_router::trace::{Trace, TraceStatus};

/// What is to be booked for one window: differences, so an amount may be negative. Always
/// held + overrun = settled + released + unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spend {
    /// What had been held.
    pub held: NanoUsd,
    /// Known or estimated costs.
    pub settled: NanoUsd,
    /// What was held and not spent.
    pub released: NanoUsd,
    /// Money that counts as spent though nobody knows.
    pub unknown: NanoUsd,
    /// How much of it was above what had been held.
    pub overrun: NanoUsd,
}

impl Spend {
    /// What a trace books when it is first committed: its bill; for a decision whose caller makes the
    /// calls, its whole hold as unknown until it is reported. `None` where nothing was held.
    #[must_use]
    pub fn of_trace(trace: &Trace) -> Option<(&Hold, Self)> {
        let hold = trace.hold.as_ref()?;
        let spend = match trace.status {
            TraceStatus::Decided => Self::lost(hold.amount),
            TraceStatus::Answered | TraceStatus::Failed | TraceStatus::Cancelled => {
                Self::of_bill(hold.amount, hold.amount, trace.bill)
            }
        };
        Some((hold, spend))
    }

    /// What the report that ends a decision's hold books: its bill in place of the unknown hold.
    #[must_use]
    pub fn of_report(hold: &Hold, bill: Bill) -> Self {
        let spend = Self::of_bill(NanoUsd::ZERO, hold.amount, bill);
        let unknown = spend.unknown.saturating_sub(hold.amount);
        Self { unknown, released: spend.released.saturating_add(hold.amount), ..spend }
    }

    /// What is known now of money that nobody knew of: so much of what was unknown is gone, and so much of it
    /// was spent.
    #[must_use]
    pub fn of_adjustment(unknown: NanoUsd, settled: NanoUsd) -> Self {
        let overrun = settled.saturating_sub(unknown).max(NanoUsd::ZERO);
        let released = unknown.saturating_sub(settled).max(NanoUsd::ZERO);
        Self { held: NanoUsd::ZERO, settled, released, unknown: NanoUsd::ZERO.saturating_sub(unknown), overrun }
    }

    /// Held, and never heard of again.
    pub(super) fn lost(amount: NanoUsd) -> Self {
        Self { held: amount, unknown: amount, ..Self::default() }
    }

    /// A bill for a hold, of which so much is booked as held now.
    fn of_bill(held: NanoUsd, amount: NanoUsd, bill: Bill) -> Self {
        let overrun = bill.overrun(amount);
        let released = held.saturating_add(overrun).saturating_sub(bill.spent());
        Self { held, settled: bill.settled, released, unknown: bill.unknown, overrun }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            held: self.held.saturating_add(other.held),
            settled: self.settled.saturating_add(other.settled),
            released: self.released.saturating_add(other.released),
            unknown: self.unknown.saturating_add(other.unknown),
            overrun: self.overrun.saturating_add(other.overrun),
        }
    }
}

/// Adds up what is to be booked, by account and the start of its window.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spends(BTreeMap<(Arc<str>, Timestamp), Spend>);

impl Spends {
    /// Adds what became of a hold, to each of its accounts. What was held when there was one account is
    /// `main`'s.
    pub fn add(&mut self, hold: &Hold, spend: Spend, main: &str) {
        for charge in hold.charges.iter() {
            let sum = self.0.entry((charge.account_or(main).into(), charge.window)).or_default();
            *sum = sum.plus(spend);
        }
    }

    /// Each account's window with what it comes to.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&(Arc<str>, Timestamp), &Spend)> {
        self.0.iter()
    }
}
