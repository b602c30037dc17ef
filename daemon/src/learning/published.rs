//! What requests read: the snapshot of this moment behind an atomic pointer, and how learning stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pointsman_router::clock::Draw;
use pointsman_router::features::SchemaHash;
use pointsman_router::ids::PolicyVersion;
use pointsman_router::policy::{PolicyKind, PolicySource, Snapshot};

/// What decides at one moment, all of it behind one pointer: no request sees half of a change.
#[derive(Debug)]
pub(super) struct Arms {
    /// The running policy.
    pub(super) running: Arc<Snapshot>,
    /// The canary, with its share of the requests.
    pub(super) canary: Option<(f64, Arc<Snapshot>)>,
}

/// The snapshots that requests read.
#[derive(Debug)]
pub struct Published(ArcSwap<Arms>);

/// Sets the lot of a request apart from every other chance that its seed makes.
const LOT: u64 = 0x6361_6E61_7279_2E31;

impl Published {
    pub(super) fn new(arms: Arms) -> Self {
        Self(ArcSwap::from_pointee(arms))
    }

    pub(super) fn publish(&self, arms: Arms) {
        self.0.store(Arc::new(arms));
    }

    /// What the running policy is published as, whatever the canary.
    pub(super) fn running(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.load().running)
    }
}

impl PolicySource for Published {
    fn current(&self, seed: u64) -> Arc<Snapshot> {
        let arms = self.0.load();
        let chosen = arms.canary.as_ref().filter(|(share, _)| Draw::from_seed(seed ^ LOT).uniform() < *share);
        Arc::clone(chosen.map_or(&arms.running, |(_, canary)| canary))
    }
}

/// How far one policy has learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learned {
    /// Labels that it has taken in.
    pub updates: u64,
    /// Sequence of the last feedback in it.
    pub feedback_mark: u64,
    /// Sequence of the last trace in it.
    pub trace_mark: u64,
    /// What its features mean.
    pub schema: SchemaHash,
}

/// How learning stands.
#[derive(Debug, Clone, PartialEq)]
pub struct LearningStatus {
    /// The policy that serves.
    pub running: PolicyVersion,
    /// Its kind.
    pub kind: PolicyKind,
    /// The bandit that begins from nothing and learns, whether it serves or not.
    pub learning: PolicyVersion,
    /// Labels that that bandit has taken in.
    pub updates: u64,
    /// Sequence of the last feedback in it.
    pub feedback_mark: u64,
    /// Sequence of the last trace in it.
    pub trace_mark: u64,
    /// What the features of this daemon mean.
    pub schema: SchemaHash,
    /// Every policy that learns, that bandit too.
    pub learned: BTreeMap<PolicyVersion, Learned>,
    /// The policy that rules make, where there are any.
    pub rules: Option<PolicyVersion>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pointsman_router::rules::RulesPolicy;

    use super::*;

    fn snapshot(model: &str) -> Arc<Snapshot> {
        let policy = Arc::new(RulesPolicy::new(BTreeMap::new(), vec![model.into()]));
        Arc::new(Snapshot { policy, forecasts: Arc::default() })
    }

    #[test]
    fn the_seed_alone_says_who_decides_and_the_share_is_kept() {
        let (running, canary) = (snapshot("a"), snapshot("b"));
        let arms = || Arms { running: Arc::clone(&running), canary: Some((0.2, Arc::clone(&canary))) };
        let published = Published::new(arms());
        let is_canary = |seed| Arc::ptr_eq(&published.current(seed), &canary);
        let count = (0..20_000).filter(|seed| is_canary(*seed)).count();
        assert!((3_800..=4_200).contains(&count), "{count}");
        // The draws of the request itself are as even among the canary's requests as among all.
        let low = (0..20_000).filter(|seed| is_canary(*seed) && Draw::from_seed(*seed).uniform() < 0.5).count();
        assert!((1_850..=2_150).contains(&low), "{low}");
        let before: Vec<bool> = (0..100).map(is_canary).collect();
        published.publish(arms());
        assert_eq!(before, (0..100).map(is_canary).collect::<Vec<bool>>());
        published.publish(Arms { running: Arc::clone(&running), canary: None });
        assert!((0..100).all(|seed| Arc::ptr_eq(&published.current(seed), &running)));
    }
}
