//! The ports of a replay: everything in memory, nothing kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use pointsman_router::clock::{Seeds, Timestamp};
use pointsman_router::forecast::Forecasts;
use pointsman_router::hold::{Bill, Hold, HoldError, Ledger, Payer};
use pointsman_router::ids::DecisionId;
use pointsman_router::model::{Pool, PoolSource};
use pointsman_router::money::NanoUsd;
use pointsman_router::pacing::{MeanCost, Offer, Pace, Pacer};
use pointsman_router::policy::{Policy, PolicySource, Snapshot};
use pointsman_router::trace::{Trace, TraceSink, TracesFull};

/// Grants everything: a replay has no budget.
#[derive(Debug)]
pub(super) struct NoBudget;

impl Ledger for NoBudget {
    fn left(&self, _: Payer<'_>, _: Timestamp) -> Option<NanoUsd> {
        None
    }

    fn hold<'a>(
        &'a self,
        decision: DecisionId,
        amount: NanoUsd,
        _: Payer<'a>,
        _: Timestamp,
    ) -> BoxFuture<'a, Result<Hold, HoldError>> {
        Box::pin(std::future::ready(Ok(Hold { decision, amount, charges: [].into() })))
    }

    fn settle(&self, _: &Hold, _: Bill) {}
}

/// Paces a run to its mean cost of a request, where it has one.
#[derive(Debug)]
pub(super) struct RunPacer(Option<Mutex<MeanCost>>);

impl RunPacer {
    pub(super) fn new(target_usd: Option<f64>) -> Self {
        Self(target_usd.and_then(NanoUsd::from_usd).map(|target| Mutex::new(MeanCost::new(target))))
    }

    fn with<T>(&self, of: impl FnOnce(&mut MeanCost) -> T) -> Option<T> {
        let pacer = self.0.as_ref()?;
        Some(of(&mut pacer.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Pacer for RunPacer {
    fn pace(&self, _: Timestamp) -> Pace {
        self.with(MeanCost::pace).unwrap_or_default()
    }

    fn offered(&self, offers: &[Offer], cost_weight_per_usd: f64) {
        self.with(|pacer| pacer.offered(offers, cost_weight_per_usd));
    }

    fn spent(&self, cost: NanoUsd, _: Timestamp) {
        self.with(|pacer| pacer.spent(cost));
    }
}

/// Keeps nothing: the runner is given each trace as the reply.
#[derive(Debug)]
pub(super) struct NoTraces;

impl TraceSink for NoTraces {
    fn reserve(&self) -> Result<(), TracesFull> {
        Ok(())
    }

    fn release(&self) {}

    fn push(&self, _: Arc<Trace>) {}
}

/// The seeds of a run: a counter, scrambled so that runs do not share draws.
#[derive(Debug)]
pub(super) struct RunSeeds {
    run: u64,
    next: AtomicU64,
}

impl RunSeeds {
    pub(super) fn new(run: u64) -> Self {
        Self { run, next: AtomicU64::new(0) }
    }
}

impl Seeds for RunSeeds {
    fn next_seed(&self) -> u64 {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.run.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(n.wrapping_mul(0xD134_2543_DE82_EF95))
    }
}

/// The same models all along.
#[derive(Debug)]
pub(super) struct OnePool(pub(super) Arc<Pool>);

impl PoolSource for OnePool {
    fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.0)
    }
}

/// The policy as it stands after the last row.
#[derive(Debug)]
pub(super) struct LatestPolicy(Mutex<Arc<Snapshot>>);

impl LatestPolicy {
    pub(super) fn new(policy: Arc<dyn Policy>) -> Self {
        Self(Mutex::new(Arc::new(Snapshot { policy, forecasts: Arc::new(Forecasts::default()) })))
    }

    /// Replaces the policy. What is replaced is dropped here, so that a learner whose last snapshot
    /// was replaced by a stand-in owns its state alone and updates it in place.
    pub(super) fn publish(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }
}

impl PolicySource for LatestPolicy {
    fn current(&self, _: u64) -> Arc<Snapshot> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
