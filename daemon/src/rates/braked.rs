//! The brake on money: how much may be held in a minute, in front of the ledger.
//!
//! What is braked is the worst case that a request holds, less what earlier ones of the same key gave back: so many at
//! once are held up by what they might cost, and a steady flow by what it does cost. It never holds, books or
//! frees money itself: the ledger behind it does.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use pointsman_router::clock::Timestamp;
use pointsman_router::hold::{Bill, Hold, HoldError, Ledger, Payer};
use pointsman_router::ids::{DecisionId, KeyId};
use pointsman_router::money::NanoUsd;

use super::Limits;
use super::limiter::{Burst, Keyed, Limit, Refused};

/// Finds the limits of a key.
pub trait LimitSource: Send + Sync + fmt::Debug {
    /// What this caller may do in a minute.
    fn limits(&self, key: Option<&KeyId>) -> Limits;
}

/// Holds that are remembered until they are settled; of older ones nothing is given back to the brake.
const HELD_MAX: usize = 1 << 16;

/// A ledger behind a brake.
#[derive(Debug)]
pub struct Braked {
    inner: Arc<dyn Ledger>,
    limits: Arc<dyn LimitSource>,
    spend: Keyed,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who holds, by decision, while a limit is in force.
    held: BTreeMap<DecisionId, Box<str>>,
    /// What was given back, by key, in micro-dollars; never more than a minute's.
    credit: HashMap<Box<str>, u64>,
}

impl Braked {
    /// A brake in front of this ledger.
    #[must_use]
    pub fn new(inner: Arc<dyn Ledger>, limits: Arc<dyn LimitSource>) -> Self {
        Self { inner, limits, spend: Keyed::new(Burst::Minute), state: Mutex::default() }
    }

    fn brake(&self, key: &str, limit: Limit, ask: NanoUsd) -> Result<(), HoldError> {
        let asked = u64::try_from(ask.micros_rounded_up()).unwrap_or(0);
        let credit = self.state().credit.remove(key).unwrap_or(0);
        let used = credit.min(asked);
        let taken = self.spend.check(key, limit, asked - used);
        let kept = if taken.is_ok() { credit - used } else { credit };
        self.give_back(key, kept, limit);
        taken.map_err(|refused| HoldError::TooFast {
            per_minute: NanoUsd::from_micros(i64::from(limit.per_minute())).unwrap_or(NanoUsd::MAX),
            asked: ask,
            retry_after: match refused {
                Refused::Wait(wait) => Some(wait),
                Refused::Never => None,
            },
        })
    }

    fn give_back(&self, key: &str, micros: u64, limit: Limit) {
        if micros > 0 {
            let mut state = self.state();
            let credit = state.credit.entry(key.into()).or_default();
            *credit = credit.saturating_add(micros).min(u64::from(limit.per_minute()));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger for Braked {
    fn left(&self, payer: Payer<'_>, now: Timestamp) -> Option<NanoUsd> {
        self.inner.left(payer, now)
    }

    fn hold<'a>(
        &'a self,
        decision: DecisionId,
        amount: NanoUsd,
        payer: Payer<'a>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Hold, HoldError>> {
        let Some(limit) = self.limits.limits(payer.key).spend_micros else {
            return self.inner.hold(decision, amount, payer, now);
        };
        Box::pin(async move {
            let key = payer.key.map_or("", KeyId::as_str);
            self.brake(key, limit, amount)?;
            let held = self.inner.hold(decision, amount, payer, now).await;
            match &held {
                Ok(_) => {
                    let mut state = self.state();
                    // Ids rise with time: the first is the oldest.
                    if state.held.len() == HELD_MAX {
                        state.held.pop_first();
                    }
                    state.held.insert(decision, key.into());
                }
                Err(_) => self.give_back(key, u64::try_from(amount.micros_rounded_up()).unwrap_or(0), limit),
            }
            held
        })
    }

    fn settle(&self, hold: &Hold, bill: Bill) {
        self.inner.settle(hold, bill);
        let Some(key) = self.state().held.remove(&hold.decision) else { return };
        let id = Some(&*key).filter(|key| !key.is_empty()).map(KeyId::from);
        if let Some(limit) = self.limits.limits(id.as_ref()).spend_micros {
            let released = hold.amount.saturating_sub(bill.spent()).nanos().div_euclid(1_000);
            self.give_back(&key, u64::try_from(released).unwrap_or(0), limit);
        }
    }
}
