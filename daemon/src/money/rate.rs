//! How fast money moves: an average that forgets, for the size of a lease and for a forecast.
//!
//! It steers and never decides whether money may be held. Nothing here is durable.

use std::time::Duration;

use pointsman_router::clock::Timestamp;
use pointsman_router::money::NanoUsd;

/// Nano-dollars a second, each of them counting less the longer ago it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// After this long an amount counts 1/e.
    memory: Duration,
    /// What is remembered, in nano-dollars.
    remembered: f64,
    at: Timestamp,
}

impl Rate {
    pub(super) fn new(memory: Duration, now: Timestamp) -> Self {
        Self { memory, remembered: 0.0, at: now }
    }

    /// Takes in an amount.
    pub(super) fn add(&mut self, amount: NanoUsd, now: Timestamp) {
        self.remembered = self.remembered_at(now) + amount.nanos().max(0) as f64;
        self.at = self.at.max(now);
    }

    /// What moves in this long, at the rate of now.
    pub(super) fn over(&self, span: Duration, now: Timestamp) -> NanoUsd {
        let nanos = self.remembered_at(now) * span.as_secs_f64() / self.memory.as_secs_f64();
        NanoUsd::from_usd(nanos / 1e9).unwrap_or(NanoUsd::MAX)
    }

    /// How long an amount lasts at the rate of now; `None` where nothing moves, or it outlasts centuries.
    pub(super) fn lasts(&self, amount: NanoUsd, now: Timestamp) -> Option<Duration> {
        let per_second = self.remembered_at(now) / self.memory.as_secs_f64();
        let seconds = amount.nanos().max(0) as f64 / per_second;
        (seconds < 1e10).then(|| Duration::from_secs_f64(seconds))
    }

    /// A clock that went back forgets nothing.
    fn remembered_at(&self, now: Timestamp) -> f64 {
        self.remembered * (-(now.since(self.at).as_secs_f64() / self.memory.as_secs_f64())).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_is_its_rate() {
        let second = |s: i64| Timestamp::from_micros(s * 1_000_000);
        let mut rate = Rate::new(Duration::from_secs(100), second(0));
        assert_eq!(rate.lasts(NanoUsd::new(5), second(0)), None);
        (1..2_000).for_each(|s| rate.add(NanoUsd::new(1_000), second(s)));
        let per_second = rate.over(Duration::from_secs(1), second(1_999)).nanos();
        // A step of a second in a memory of a hundred: half a percent above the integral.
        assert!((1_000..1_010).contains(&per_second), "{per_second}");
        let lasts = rate.lasts(NanoUsd::new(60_000), second(1_999)).unwrap().as_secs_f64();
        assert!((59.0..60.1).contains(&lasts), "{lasts}");
        assert!(rate.over(Duration::from_secs(1), second(2_099)).nanos() < 380, "and is forgotten");
    }
}
