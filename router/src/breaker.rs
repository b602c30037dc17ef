//! The circuit breaker of one model: keeps calls away from a model while it fails.
//!
//! # Why it exists
//!
//! A model that is down costs every request that picks it a time limit, and often money. The
//! breaker makes that known before the choice: a model whose breaker is open is not eligible, so
//! the policy draws among models that can answer.
//!
//! # When it trips
//!
//! After [`FAILURES_IN_A_ROW`] failures without a success in between, or when at least half of the
//! last [`WINDOW_CALLS`] calls failed. A failure is a call that the model should have answered and
//! did not. Being throttled (429) is no failure: it holds the model off until the provider said to
//! come back, by default a second, and counts neither for nor against it. A refused request says
//! nothing about the model; its permit is simply dropped. A call that was let through before the
//! breaker last changed its mind is ignored when it ends, so a burst that fails together opens the
//! breaker once and not once a call.
//!
//! # Cold start
//!
//! A breaker starts closed with an empty window: the rate counts only once the window is full, the
//! run of failures from the first call on. It is in memory alone; after a restart every model gets
//! a new chance.
//!
//! # Recovery
//!
//! It opens for a back-off that doubles from one second to a minute with every failed probe. When
//! that is over it is half open: exactly one call at a time is let through as a probe. Its success
//! closes the breaker and forgets the past; its failure opens it again, never with an earlier end
//! and never for a shorter time than before. A probe whose caller goes away frees its place, since a
//! [`Permit`] gives itself back when it is dropped.
//!
//! The jitter of the back-off is a hash of the model's name and the number of the trip: models that
//! fell together are not probed together, and a replay repeats. This module has no clock and no
//! chance of its own.
//!
//! The last model able to serve is never ejected, but that is for whoever sees all models to
//! decide: [`Breaker::admit`] lets a `forced` call through in any state, and its success closes the
//! breaker like that of a probe.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock::Timestamp;

/// Failures without a success in between that trip the breaker.
pub const FAILURES_IN_A_ROW: u32 = 5;
/// Calls over which the failure rate is taken; half of them failed trips the breaker.
pub const WINDOW_CALLS: u32 = 20;
/// How long a model is held off that throttles without saying for how long.
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// A provider that asks for a longer pause is asked again after this one.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Back-off before jitter: doubled from here ...
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// ... up to here. With jitter, which adds up to one half, that is a minute.
const BACKOFF_LAST: Duration = Duration::from_secs(40);

/// What the breaker would do with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls are kept away.
    Open {
        /// When the first probe may pass.
        until: Timestamp,
    },
    /// One call at a time passes as a probe.
    HalfOpen,
    /// The provider asked for a pause.
    Throttled {
        /// When it is over.
        until: Timestamp,
    },
}

/// The circuit breaker of one model. Every call that it lets through ends by its [`Permit`].
#[derive(Debug)]
pub struct Breaker {
    /// Hash of the model's name, the seed of the jitter.
    seed: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The end of the back-off while the breaker is open or half open; `None` while it is closed.
    open_until: Option<Timestamp>,
    throttled_until: Option<Timestamp>,
    /// Counts openings and closings: permits of an earlier epoch have no say any more.
    epoch: u64,
    probe_out: bool,
    /// Openings since it was last closed.
    trips: u32,
    backoff: Duration,
    failures_in_a_row: u32,
    /// The last calls, newest in the lowest bit, failures set.
    window: u32,
    window_filled: u32,
}

/// Leave to make one call. Report how it ended; dropping it instead says that nobody knows, and
/// frees the place of a probe.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once lets another probe through"]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    epoch: u64,
    probe: bool,
}

impl Breaker {
    /// A closed breaker for the model of this name.
    #[must_use]
    pub fn new(model: &str) -> Self {
        Self { seed: xxh3_64_with_seed(model.as_bytes(), 0), inner: Mutex::default() }
    }

    /// Whether a call would be let through now. Changes nothing: this is for eligibility.
    #[must_use]
    pub fn allows(&self, now: Timestamp) -> bool {
        self.lock().allows(now)
    }

    /// What the breaker would do with a call now.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> BreakerState {
        let inner = self.lock();
        match (inner.open_until, inner.throttled_until) {
            (Some(until), _) if now < until => BreakerState::Open { until },
            (_, Some(until)) if now < until => BreakerState::Throttled { until },
            (Some(_), _) => BreakerState::HalfOpen,
            (None, _) => BreakerState::Closed,
        }
    }

    /// Lets a call through, or not. A `forced` call always passes: no model is better able to serve.
    pub fn admit(&self, now: Timestamp, forced: bool) -> Option<Permit<'_>> {
        let mut inner = self.lock();
        if !forced && !inner.allows(now) {
            return None;
        }
        let probe = !inner.probe_out && inner.open_until.is_some_and(|until| now >= until);
        inner.probe_out |= probe;
        Some(Permit { breaker: self, epoch: inner.epoch, probe })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing here can panic while it holds the lock; were it so, the numbers would still be whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// The model answered.
    pub fn on_success(self) {
        let mut inner = self.breaker.lock();
        if inner.epoch == self.epoch {
            if inner.open_until.is_some() {
                inner.close();
            } else {
                inner.record(false);
            }
        }
    }

    /// The model should have answered and did not.
    pub fn on_failure(self, now: Timestamp) {
        let mut inner = self.breaker.lock();
        if inner.epoch != self.epoch {
            return;
        }
        if inner.open_until.is_none() {
            inner.record(true);
            if inner.is_too_much() {
                inner.open(now, self.breaker.seed);
            }
        } else if self.probe {
            inner.open(now, self.breaker.seed);
        }
        // A forced call that fails while the breaker is open tells nothing new.
    }

    /// The provider asked to come back later. A later end that is known already stays.
    pub fn on_throttled(self, now: Timestamp, retry_after: Option<Duration>) {
        let until = now.plus(retry_after.unwrap_or(RETRY_AFTER_DEFAULT).min(RETRY_AFTER_MAX));
        let mut inner = self.breaker.lock();
        inner.throttled_until = inner.throttled_until.max(Some(until));
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe {
            let mut inner = self.breaker.lock();
            if inner.epoch == self.epoch {
                inner.probe_out = false;
            }
        }
    }
}

impl Inner {
    fn allows(&self, now: Timestamp) -> bool {
        let throttled = self.throttled_until.is_some_and(|until| now < until);
        let open = self.open_until.is_some_and(|until| now < until || self.probe_out);
        !throttled && !open
    }

    fn record(&mut self, failed: bool) {
        self.failures_in_a_row = if failed { self.failures_in_a_row.saturating_add(1) } else { 0 };
        self.window = ((self.window << 1) | u32::from(failed)) & ((1 << WINDOW_CALLS) - 1);
        self.window_filled = (self.window_filled + 1).min(WINDOW_CALLS);
    }

    fn is_too_much(&self) -> bool {
        let half = self.window_filled == WINDOW_CALLS && self.window.count_ones() * 2 >= WINDOW_CALLS;
        self.failures_in_a_row >= FAILURES_IN_A_ROW || half
    }

    fn open(&mut self, now: Timestamp, seed: u64) {
        self.backoff = self.backoff.max(backoff(self.trips, seed));
        self.trips = self.trips.saturating_add(1);
        self.open_until = self.open_until.max(Some(now.plus(self.backoff)));
        self.epoch += 1;
        self.probe_out = false;
    }

    fn close(&mut self) {
        // The provider's wish for a pause outlives the closing: it is no verdict on the model.
        *self = Self { epoch: self.epoch + 1, throttled_until: self.throttled_until, ..Self::default() };
    }
}

/// The back-off after this many earlier trips: doubled, plus up to one half.
fn backoff(trips: u32, seed: u64) -> Duration {
    let base = BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(trips)).min(BACKOFF_LAST);
    let share = xxh3_64_with_seed(&trips.to_le_bytes(), seed) >> 32;
    base.saturating_add(base.mul_f64(share as f64 / f64::from(u32::MAX) * 0.5))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn fail(breaker: &Breaker, now: Timestamp, times: u32) {
        for _ in 0..times {
            breaker.admit(now, true).unwrap().on_failure(now);
        }
    }

    /// A breaker that has just tripped, and the end of its back-off.
    fn tripped() -> (Breaker, Timestamp) {
        let breaker = Breaker::new("m");
        fail(&breaker, T0, FAILURES_IN_A_ROW);
        let BreakerState::Open { until } = breaker.state(T0) else { panic!("not open") };
        (breaker, until)
    }

    #[test]
    fn a_run_of_failures_trips_and_a_success_breaks_the_run() {
        let breaker = Breaker::new("m");
        fail(&breaker, T0, FAILURES_IN_A_ROW - 1);
        breaker.admit(T0, false).unwrap().on_success();
        fail(&breaker, T0, FAILURES_IN_A_ROW - 1);
        assert_eq!(breaker.state(T0), BreakerState::Closed);
        fail(&breaker, T0, 1);
        assert!(!breaker.allows(T0) && breaker.admit(T0, false).is_none());
    }

    #[test]
    fn half_of_a_full_window_trips_and_half_of_a_short_one_does_not() {
        let breaker = Breaker::new("m");
        for i in 0..WINDOW_CALLS {
            assert!(breaker.allows(T0), "tripped after {i} calls");
            let permit = breaker.admit(T0, false).unwrap();
            if i % 2 == 0 { permit.on_success() } else { permit.on_failure(T0) }
        }
        assert!(!breaker.allows(T0));
    }

    #[test]
    fn half_open_lets_one_probe_through_and_its_success_closes() {
        let (breaker, until) = tripped();
        assert_eq!(breaker.state(until), BreakerState::HalfOpen);
        let probe = breaker.admit(until, false).unwrap();
        assert!(!breaker.allows(until) && breaker.admit(until, false).is_none());
        probe.on_success();
        assert_eq!(breaker.state(until), BreakerState::Closed);
        fail(&breaker, until, FAILURES_IN_A_ROW - 1);
        assert!(breaker.allows(until), "the past was not forgotten");
    }

    #[test]
    fn an_abandoned_probe_frees_its_place() {
        let (breaker, until) = tripped();
        drop(breaker.admit(until, false).unwrap());
        assert!(breaker.admit(until, false).is_some());
    }

    #[test]
    fn calls_of_an_earlier_epoch_have_no_say() {
        let breaker = Breaker::new("m");
        let late: Vec<_> = (0..3).map(|_| breaker.admit(T0, false).unwrap()).collect();
        fail(&breaker, T0, FAILURES_IN_A_ROW);
        let before = breaker.state(T0);
        for (i, permit) in late.into_iter().enumerate() {
            if i == 0 { permit.on_success() } else { permit.on_failure(T0) }
        }
        assert_eq!(breaker.state(T0), before);
    }

    #[test]
    fn a_forced_call_passes_an_open_breaker_and_closes_it_by_success() {
        let (breaker, _) = tripped();
        let before = breaker.state(T0);
        fail(&breaker, T0, 3);
        assert_eq!(breaker.state(T0), before);
        breaker.admit(T0, true).unwrap().on_success();
        assert_eq!(breaker.state(T0), BreakerState::Closed);
    }

    #[test]
    fn throttling_holds_off_without_counting_as_failure() {
        let breaker = Breaker::new("m");
        fail(&breaker, T0, FAILURES_IN_A_ROW - 1);
        breaker.admit(T0, false).unwrap().on_throttled(T0, None);
        assert_eq!(breaker.state(T0), BreakerState::Throttled { until: T0.plus(RETRY_AFTER_DEFAULT) });
        assert!(breaker.admit(T0, false).is_none() && breaker.admit(T0, true).is_some());
        assert!(breaker.allows(T0.plus(RETRY_AFTER_DEFAULT)));
        breaker.admit(T0, true).unwrap().on_throttled(T0, Some(Duration::MAX));
        assert!(breaker.allows(T0.plus(RETRY_AFTER_MAX)));
    }

    proptest! {
        #[test]
        fn a_reopening_never_ends_sooner_nor_lasts_shorter(name in "[a-z]{1,8}", probes in 1_usize..12) {
            let breaker = Breaker::new(&name);
            fail(&breaker, T0, FAILURES_IN_A_ROW);
            let (mut opened, mut until) = (T0, T0);
            let mut lasted = Duration::ZERO;
            for _ in 0..probes {
                let BreakerState::Open { until: next } = breaker.state(opened) else { panic!("not open") };
                prop_assert!(next > until && next.since(opened) >= lasted);
                prop_assert!((1..=60).contains(&next.since(opened).as_secs()));
                (until, lasted) = (next, next.since(opened));
                opened = next;
                breaker.admit(next, false).unwrap().on_failure(next);
            }
        }
    }
}
