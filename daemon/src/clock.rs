//! The daemon's own clock and chance: the one place where the machine's time and randomness are
//! read for decisions.
//!
//! Seeds come from the operating system through a counter-mode hash, so one seed tells nothing of
//! the next; a replay brings its own [`Seeds`] instead. Where the system's clock stands before 1970
//! the time is 1970: decisions go on, and the traces show it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use pointsman_router::clock::{Clock, Seeds, Timestamp};

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
        let now = SystemTime::now();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Seeds that nobody outside can foresee: a keyed hash (`SipHash`, its key from the operating system)
/// of a counter.
#[derive(Debug, Default)]
pub struct OsSeeds {
    key: RandomState,
    count: AtomicU64,
}

impl Seeds for OsSeeds {
    fn next_seed(&self) -> u64 {
        self.key.hash_one(self.count.fetch_add(1, Ordering::Relaxed))
    }
}

/// A clock that stands still until it is set.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Stopped(pub(crate) std::sync::atomic::AtomicI64);

#[cfg(test)]
impl Stopped {
    pub(crate) fn at(now: Timestamp) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self(now.micros().into()))
    }

    pub(crate) fn set(&self, now: Timestamp) {
        self.0.store(now.micros(), Ordering::SeqCst);
    }
}

#[cfg(test)]
impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seeds_differ_between_calls_and_between_starts() {
        let (one, two) = (OsSeeds::default(), OsSeeds::default());
        let seeds: BTreeSet<u64> = (0..1_000).flat_map(|_| [one.next_seed(), two.next_seed()]).collect();
        assert_eq!(seeds.len(), 2_000);
    }

    #[test]
    fn the_clock_stands_after_this_was_written() {
        assert!(SystemClock.now() > Timestamp::from_micros(1_735_689_600_000_000));
    }
}
