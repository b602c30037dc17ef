//! Limits a minute and the keyed limiters that keep them. Nothing here knows what is metered.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::{NotUntil, Quota, RateLimiter};
use tokio::time::Instant;

pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// Above it the interval between two is under a hundred nanoseconds, and off by more than a percent.
const PER_MINUTE_MAX: u32 = 600_000_000;
/// Keys that are remembered for each limit; beyond it the idle ones are let go.
const KEYS_MAX: usize = 1 << 16;

/// So many a minute: at least one, and no more than can be kept to within a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit(NonZeroU32);

/// A number that is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give from 1 to {PER_MINUTE_MAX} a minute; leave it out for no limit")]
pub struct LimitError;

impl Limit {
    /// What a limit must be.
    pub const WANTED: &'static str = "from 1 to 600,000,000 a minute, or left out for no limit";

    /// Checks a number.
    ///
    /// # Errors
    /// [`LimitError`] for zero, and for what cannot be kept.
    pub fn new(per_minute: u64) -> Result<Self, LimitError> {
        let number = u32::try_from(per_minute).ok().filter(|number| *number <= PER_MINUTE_MAX);
        number.and_then(NonZeroU32::new).map(Self).ok_or(LimitError)
    }

    /// The number.
    #[must_use]
    pub fn per_minute(self) -> u32 {
        self.0.get()
    }

    fn quota(self, burst: Burst) -> Option<Quota> {
        // Rounded up: the interval may be longer than asked for and never shorter.
        let nanos = MINUTE.as_nanos().div_ceil(u128::from(self.0.get()));
        let interval = Duration::from_nanos(u64::try_from(nanos).ok()?);
        let burst = match burst {
            Burst::Minute => self.0,
            Burst::SixthOfAMinute => NonZeroU32::new(self.0.get() / 6).unwrap_or(NonZeroU32::MIN),
        };
        Some(Quota::with_period(interval)?.allow_burst(burst))
    }
}

/// What may come at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Burst {
    /// A whole minute's: so a minute after a pause may see up to twice the limit.
    Minute,
    /// Ten seconds' worth, at least one.
    SixthOfAMinute,
}

/// Why it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It may come after this long.
    Wait(Duration),
    /// It is more than may ever come at once.
    Never,
}

/// The time since this was made: it never goes back, as the time of day may, and stands still with a test's.
#[derive(Debug, Clone, Copy)]
struct Monotonic(Instant);

impl Clock for Monotonic {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

type Limiter = RateLimiter<String, HashMapStateStore<String>, Monotonic, NoOpMiddleware<Nanos>>;

/// One limiter for all keys of one limit: keys with limits of their own cost one more each.
pub(super) struct Keyed {
    clock: Monotonic,
    burst: Burst,
    limiters: Mutex<HashMap<Limit, Arc<Limiter>>>,
}

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("burst", &self.burst).finish_non_exhaustive()
    }
}

impl Keyed {
    pub(super) fn new(burst: Burst) -> Self {
        Self { clock: Monotonic(Instant::now()), burst, limiters: Mutex::default() }
    }

    /// Takes so many for this key, or none.
    pub(super) fn check(&self, key: &str, limit: Limit, many: u64) -> Result<(), Refused> {
        let Some(many) = u32::try_from(many).map_err(|_| Refused::Never).map(NonZeroU32::new)? else {
            return Ok(());
        };
        let Some(limiter) = self.limiter(limit) else { return Ok(()) };
        match limiter.check_key_n(&key.to_owned(), many) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(Refused::Wait(self.wait(&until))),
            Err(_) => Err(Refused::Never),
        }
    }

    fn wait(&self, until: &NotUntil<Nanos>) -> Duration {
        until.wait_time_from(self.clock.now())
    }

    fn limiter(&self, limit: Limit) -> Option<Arc<Limiter>> {
        let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limiter) = limiters.get(&limit) {
            if limiter.len() > KEYS_MAX {
                limiter.retain_recent();
            }
            return Some(Arc::clone(limiter));
        }
        // Limits that nobody has any more leave with their idle keys.
        limiters.retain(|_, limiter| {
            limiter.retain_recent();
            !limiter.is_empty()
        });
        let state = HashMapStateStore::default();
        let limiter = Arc::new(RateLimiter::new(limit.quota(self.burst)?, state, self.clock));
        limiters.insert(limit, Arc::clone(&limiter));
        Some(limiter)
    }

    #[cfg(test)]
    pub(super) fn limiters(&self) -> usize {
        self.limiters.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
