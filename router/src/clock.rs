//! Time and chance as ports, so that any run can be repeated.
//!
//! The router never reads a clock and never asks the machine for randomness. [`Clock`] tells the
//! time, [`Seeds`] hands out one seed per request; everything random about that request is drawn
//! from a [`Draw`] made of that seed, which the trace keeps.

use std::fmt;
use std::time::Duration;

use rand_core::{Rng as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

/// A moment in UTC, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since 1970, UTC.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970, UTC.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// This moment moved into the future; stays at the last representable moment.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this moment is; zero when it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Tells the time. Sleeping and timing out is not its business: that is tokio's, in
/// [`crate::execute`] alone.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// Hands out one seed per request.
pub trait Seeds: Send + Sync + fmt::Debug {
    /// The next seed; two calls may never return a value that a caller could foresee in the daemon,
    /// and return the same series for the same start in a replay.
    fn next_seed(&self) -> u64;
}

/// The chance of one request: a PCG generator made of one seed.
#[derive(Debug, Clone)]
pub struct Draw(Pcg64Mcg);

impl Draw {
    /// The generator that belongs to a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in [0, 1), with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        const SCALE: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.next_u64() >> 11) as f64 * SCALE
    }

    /// An index drawn with the given probabilities, which must be non-negative; they need not sum to
    /// exactly one. `None` when no weight is positive.
    pub fn index(&mut self, weights: impl Iterator<Item = f64> + Clone) -> Option<usize> {
        let total: f64 = weights.clone().sum();
        let mut left = self.uniform() * total;
        let mut last = None;
        for (i, weight) in weights.enumerate().filter(|(_, w)| *w > 0.0) {
            last = Some(i);
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        last
    }

    /// Ten random bytes, the random part of a UUIDv7.
    pub fn bytes10(&mut self) -> [u8; 10] {
        let mut bytes = [0; 10];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_draws() {
        let mut one = Draw::from_seed(7);
        let mut two = Draw::from_seed(7);
        assert_eq!(one.bytes10(), two.bytes10());
        assert!((one.uniform() - two.uniform()).abs() < f64::EPSILON);
    }

    #[test]
    fn an_index_is_drawn_in_proportion_and_never_with_weight_zero() {
        let mut draw = Draw::from_seed(3);
        let weights = [0.0, 0.25, 0.75, 0.0];
        let mut counts = [0_u32; 4];
        for _ in 0..40_000 {
            counts[draw.index(weights.iter().copied()).unwrap()] += 1;
        }
        assert_eq!((counts[0], counts[3]), (0, 0));
        assert!((f64::from(counts[1]) / 40_000.0 - 0.25).abs() < 0.01, "{counts:?}");
        assert_eq!(draw.index([0.0].into_iter()), None);
    }

    #[test]
    fn time_moves_and_never_runs_backwards() {
        let start = Timestamp::from_micros(5);
        let later = start.plus(Duration::from_micros(10));
        assert_eq!(later.since(start), Duration::from_micros(10));
        assert_eq!(start.since(later), Duration::ZERO);
    }
}
