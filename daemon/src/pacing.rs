//! Pacing of this daemon's budget: the port of `router::pacing` over the budget as it stands.
//!
//! Steering, not stopping: the ledger alone says whether money may be held. State is in memory: after
//! a restart the price is found again within some dozen requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman_router::clock::Timestamp;
use pointsman_router::money::NanoUsd;
use pointsman_router::pacing::{MeanCost, Offer, Pace, Pacer, WindowShare};

use crate::config::Pacing;
use crate::money::BudgetLedger;

/// How pacing stands.
#[derive(Debug, Clone, PartialEq)]
pub struct PacingStatus {
    /// Quality that is given up for a dollar now.
    pub cost_weight_per_usd: f64,
    /// The mean cost of a request that is kept; `None`: a window is.
    pub per_request: Option<NanoUsd>,
    /// Requests since the start.
    pub requests: u64,
    /// What they cost.
    pub spent: NanoUsd,
}

/// Paces the budget.
#[derive(Debug)]
pub struct BudgetPacer {
    ledger: Arc<BudgetLedger>,
    pacing: Pacing,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    means: Means,
    requests: u64,
    spent: NanoUsd,
}

#[derive(Debug)]
enum Means {
    Off,
    Window(WindowShare),
    PerRequest(MeanCost),
}

impl BudgetPacer {
    /// Paces this budget.
    #[must_use]
    pub fn new(ledger: Arc<BudgetLedger>, pacing: Pacing) -> Self {
        let means = match pacing {
            Pacing::Off => Means::Off,
            Pacing::Window => Means::Window(WindowShare::default()),
            Pacing::PerRequest(target) => Means::PerRequest(MeanCost::new(target)),
        };
        Self { ledger, pacing, state: Mutex::new(State { means, requests: 0, spent: NanoUsd::ZERO }) }
    }

    /// How it stands; `None` where nothing is paced.
    #[must_use]
    pub fn status(&self) -> Option<PacingStatus> {
        let state = self.state();
        let (cost_weight_per_usd, per_request) = match (&state.means, self.pacing) {
            (Means::Window(share), _) => (share.weight(), None),
            (Means::PerRequest(mean), Pacing::PerRequest(target)) => (mean.weight(), Some(target)),
            (Means::Off | Means::PerRequest(_), _) => return None,
        };
        Some(PacingStatus { cost_weight_per_usd, per_request, requests: state.requests, spent: state.spent })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pacer for BudgetPacer {
    fn pace(&self, now: Timestamp) -> Pace {
        if self.pacing == Pacing::Off {
            return Pace::default();
        }
        let budget = self.ledger.status(now);
        match (&mut self.state().means, budget.left, budget.resets_at) {
            (Means::Window(share), Some(left), Some(ends)) => share.pace(left, ends, now),
            (Means::PerRequest(mean), _, _) => mean.pace(),
            (Means::Off | Means::Window(_), _, _) => Pace::default(),
        }
    }

    fn offered(&self, offers: &[Offer], cost_weight_per_usd: f64) {
        match &mut self.state().means {
            Means::Off => {}
            Means::Window(share) => share.offered(offers, cost_weight_per_usd),
            Means::PerRequest(mean) => mean.offered(offers, cost_weight_per_usd),
        }
    }

    fn spent(&self, cost: NanoUsd, now: Timestamp) {
        let mut state = self.state();
        state.requests += 1;
        state.spent = state.spent.saturating_add(cost);
        match &mut state.means {
            Means::Off => {}
            Means::Window(share) => share.ended(now),
            Means::PerRequest(mean) => mean.spent(cost),
        }
    }
}
