//! Hold: money is reserved before anything is called.
//!
//! A hold is the worst case of the chosen set with its allowed retries. The [`Ledger`] grants it or
//! says which budget has no room; it must never grant more than a budget has left, however many ask
//! at once, and never forget a grant. [`crate::settle`] ends every hold exactly once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::clock::Timestamp;
use crate::ids::{DecisionId, KeyId};
use crate::money::NanoUsd;
use crate::request::TENANT_TAG;

/// A budget that has no room for a hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "budget `{budget}` has {left} left of {amount} and the cheapest call may cost {asked}; it resets at {resets_at_text}"
)]
pub struct NoMoney {
    /// The budget's name.
    pub budget: String,
    /// What it amounts to per window.
    pub amount: NanoUsd,
    /// What is left in this window.
    pub left: NanoUsd,
    /// What was asked for.
    pub asked: NanoUsd,
    /// When the window ends; `None` for a budget that never resets.
    pub resets_at: Option<Timestamp>,
    /// The same as text, `never` for a budget that never resets.
    pub resets_at_text: String,
}

/// Why a hold was not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// A budget has no room. Nothing was reserved.
    #[error(transparent)]
    NoMoney(#[from] NoMoney),
    /// The payer holds more in a minute than it may. Nothing was reserved.
    #[error("the key may hold {per_minute} a minute, and {asked} more is too fast")]
    TooFast {
        /// What it may hold in a minute.
        per_minute: NanoUsd,
        /// What was asked for.
        asked: NanoUsd,
        /// When the same may pass; `None`: it is more than a minute's, and never does.
        retry_after: Option<Duration>,
    },
    /// The durable ledger cannot be written. Nothing was reserved.
    #[error("the ledger cannot be written: {detail}")]
    Ledger {
        /// What the store said.
        detail: String,
    },
}

/// Who pays: by this the ledger finds the accounts that a request is charged to, all of them or none.
#[derive(Debug, Clone, Copy)]
pub struct Payer<'a> {
    /// The key that the caller came with.
    pub key: Option<&'a KeyId>,
    /// The request's tags.
    pub tags: &'a BTreeMap<String, String>,
}

impl<'a> Payer<'a> {
    /// The tenant, where the request has one.
    #[must_use]
    pub fn tenant(self) -> Option<&'a str> {
        self.tags.get(TENANT_TAG).map(String::as_str)
    }
}

/// One account that a hold is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The account's name; empty in what was stored when there was only one.
    pub account: Arc<str>,
    /// The start of the window in which it was taken: spend belongs there.
    pub window: Timestamp,
}

impl Charge {
    /// The account's name; `main` for what was stored when there was only one.
    #[must_use]
    pub fn account_or<'a>(&'a self, main: &'a str) -> &'a str {
        if self.account.is_empty() { main } else { &self.account }
    }
}

/// Money reserved for one decision, in every account that it is charged to. It is a claim ticket and moves no
/// money by being dropped: the stage that holds it settles it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The decision that holds it.
    pub decision: DecisionId,
    /// How much, in each account.
    pub amount: NanoUsd,
    /// The accounts.
    pub charges: Arc<[Charge]>,
}

/// How a hold ends. The three parts are what was really spent; the rest of the hold is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bill {
    /// What the calls cost, known or estimated.
    pub settled: NanoUsd,
    /// Worst cases of calls that were sent and never accounted for: count as spent.
    pub unknown: NanoUsd,
}

impl Bill {
    /// All that counts as spent.
    #[must_use]
    pub fn spent(&self) -> NanoUsd {
        self.settled.saturating_add(self.unknown)
    }

    /// By how much the bill is above what was held; zero when it is not.
    #[must_use]
    pub fn overrun(&self, held: NanoUsd) -> NanoUsd {
        self.spent().saturating_sub(held).max(NanoUsd::ZERO)
    }
}

/// The port for money.
pub trait Ledger: Send + Sync + fmt::Debug {
    /// What this payer may still hold now: the least that any of its accounts has left; `None` where none has
    /// a limit.
    fn left(&self, payer: Payer<'_>, now: Timestamp) -> Option<NanoUsd>;

    /// Reserves an amount in all of the payer's accounts, or nothing anywhere.
    ///
    /// # Errors
    /// [`HoldError::NoMoney`] when a budget has no room, [`HoldError::Ledger`] when the durable part
    /// cannot be written.
    fn hold<'a>(
        &'a self,
        decision: DecisionId,
        amount: NanoUsd,
        payer: Payer<'a>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Hold, HoldError>>;

    /// Ends a hold in memory: books the bill in every account, releases the rest. It becomes durable with the trace
    /// that carries the same hold and bill. Must be called exactly once per hold.
    fn settle(&self, hold: &Hold, bill: Bill);
}
