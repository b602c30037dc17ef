//! What is counted of a model's calls, so that statistics survive the traces they come from.
//!
//! A [`Tally`] is a sum: tallies of different days, tasks and models add up to the tally of them
//! all, in any order. Latencies are counted in buckets an eighth of an octave wide, so quantiles are
//! within about six percent and still add up. Nothing here divides or averages; readers do.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_router::backend::CallError;
use pointsman_router::ids::ModelName;
use pointsman_router::outcome::{Attempt, AttemptStatus};
use pointsman_router::trace::Trace;
use serde::{Deserialize, Serialize};

/// How attempts failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Failures {
    /// The model could not be reached or failed by itself.
    pub unavailable: u64,
    /// No reply within the time limit.
    pub timed_out: u64,
    /// The provider asked to come back later.
    pub throttled: u64,
    /// The provider refused the request.
    pub refused: u64,
    /// The reply could not be read.
    pub malformed: u64,
    /// The caller went away, or its deadline ended.
    pub abandoned: u64,
}

impl Failures {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { unavailable, timed_out, throttled, refused, malformed, abandoned } = self;
        unavailable + timed_out + throttled + refused + malformed + abandoned
    }
}

/// Bits of a latency under its leading one that choose its bucket.
const FRACTION_BITS: u32 = 3;

/// How long replies took: counts by bucket, and their sum.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Latencies {
    /// How many replies were timed.
    pub count: u64,
    /// Their latencies together, in microseconds.
    pub sum_us: u64,
    /// How many fell into each bucket; buckets without any are left out.
    pub buckets: BTreeMap<u16, u64>,
}

impl Latencies {
    /// Counts one reply.
    pub fn observe(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        *self.buckets.entry(bucket(us)).or_default() += 1;
    }

    /// The latency under which this share of the replies came, 0 to 1; the middle of its bucket.
    /// `None` when nothing was timed.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = share.clamp(0.0, 1.0) * self.count as f64;
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen as f64 >= wanted {
                return Some(Duration::from_micros(middle_us(*bucket)));
            }
        }
        None
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
    }
}

/// Octave and leading fraction, so that buckets are narrow for short and wide for long latencies.
fn bucket(us: u64) -> u16 {
    let us = us.max(1);
    let octave = us.ilog2();
    let fraction = (u128::from(us) << FRACTION_BITS >> octave) & ((1 << FRACTION_BITS) - 1);
    // At most 63 octaves of 8: it fits.
    u16::try_from((u128::from(octave) << FRACTION_BITS) | fraction).unwrap_or(u16::MAX)
}

fn middle_us(bucket: u16) -> u64 {
    let octave = u32::from(bucket) >> FRACTION_BITS;
    let fraction = u128::from(bucket) & ((1 << FRACTION_BITS) - 1);
    // The bucket spans [8 + f, 8 + f + 1) eighths of 2^octave; twice that keeps the half.
    let sixteenths = ((8 + fraction) << 1) + 1;
    u64::try_from(sixteenths << octave >> (FRACTION_BITS + 1)).unwrap_or(u64::MAX)
}

/// What was counted of one model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Decisions in which the model could be chosen.
    pub eligible: u64,
    /// Decisions that chose it.
    pub chosen: u64,
    /// Decisions that chose it first.
    pub picked_first: u64,
    /// Sum over its eligible decisions of the probability with which it was to be in the set.
    pub inclusion_sum: f64,
    /// Outcomes: decisions whose calls of this model came to an end, well or not.
    pub calls: u64,
    /// Outcomes with a reply.
    pub replies: u64,
    /// Attempts, retries counted.
    pub attempts: u64,
    /// Attempts that failed, by kind.
    pub failures: Failures,
    /// Input tokens of all attempts.
    pub tokens_in: u64,
    /// Output tokens of all attempts.
    pub tokens_out: u64,
    /// Known or estimated cost of all attempts, in nano-dollars.
    pub cost_nanos: i64,
    /// How long replies took.
    pub latency: Latencies,
}

impl Tally {
    /// Counts the end of a model's calls.
    pub fn outcome(&mut self, replied: bool, latency: Option<Duration>) {
        self.calls += 1;
        self.replies += u64::from(replied);
        if let (true, Some(latency)) = (replied, latency) {
            self.latency.observe(latency);
        }
    }

    /// Counts one attempt.
    pub fn attempt(&mut self, attempt: &Attempt) {
        self.attempts += 1;
        self.tokens_in = self.tokens_in.saturating_add(attempt.tokens_in);
        self.tokens_out = self.tokens_out.saturating_add(attempt.tokens_out);
        self.cost_nanos = self.cost_nanos.saturating_add(attempt.known_cost().nanos());
        let failures = &mut self.failures;
        match &attempt.status {
            AttemptStatus::Replied => {}
            AttemptStatus::Abandoned => failures.abandoned += 1,
            AttemptStatus::Failed(error) => match error {
                CallError::Unavailable { .. } => failures.unavailable += 1,
                CallError::TimedOut { .. } => failures.timed_out += 1,
                CallError::Throttled { .. } => failures.throttled += 1,
                CallError::Refused { .. } => failures.refused += 1,
                CallError::Malformed { .. } => failures.malformed += 1,
            },
        }
    }

    /// Adds what another tally counted.
    pub fn add(&mut self, other: &Self) {
        self.eligible += other.eligible;
        self.chosen += other.chosen;
        self.picked_first += other.picked_first;
        self.inclusion_sum += other.inclusion_sum;
        self.calls += other.calls;
        self.replies += other.replies;
        self.attempts += other.attempts;
        self.tokens_in = self.tokens_in.saturating_add(other.tokens_in);
        self.tokens_out = self.tokens_out.saturating_add(other.tokens_out);
        self.cost_nanos = self.cost_nanos.saturating_add(other.cost_nanos);
        self.latency.add(&other.latency);
        let (mine, theirs) = (&mut self.failures, &other.failures);
        mine.unavailable += theirs.unavailable;
        mine.timed_out += theirs.timed_out;
        mine.throttled += theirs.throttled;
        mine.refused += theirs.refused;
        mine.malformed += theirs.malformed;
        mine.abandoned += theirs.abandoned;
    }
}

/// Counts a trace: calls `count` for each model that it says something of.
pub(super) fn count_trace<'a>(trace: &'a Trace, mut count: impl FnMut(&'a ModelName, &dyn Fn(&mut Tally))) {
    for candidate in trace.decision.candidates.iter().filter(|c| c.ineligible.is_none()) {
        count(&candidate.model, &|tally| {
            tally.eligible += 1;
            tally.chosen += u64::from(candidate.chosen);
            tally.inclusion_sum += candidate.inclusion;
        });
    }
    if let Some(first) = trace.decision.chosen().next() {
        count(&first.model, &|tally| tally.picked_first += 1);
    }
    for attempt in &trace.attempts {
        count(&attempt.model, &|tally| tally.attempt(attempt));
    }
    for outcome in &trace.outcomes {
        count(&outcome.model, &|tally| tally.outcome(outcome.replied, Some(outcome.latency)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_of_a_uniform_spread_are_within_a_bucket() {
        let mut latencies = Latencies::default();
        for us in 1..=100_000 {
            latencies.observe(Duration::from_micros(us));
        }
        for (share, us) in [(0.5, 50_000_f64), (0.95, 95_000_f64)] {
            let found = latencies.quantile(share).unwrap().as_micros() as f64;
            assert!((found / us - 1.0).abs() < 0.07, "{share}: {found}");
        }
        assert_eq!(latencies.sum_us, 100_000 * 100_001 / 2);
        assert_eq!(Latencies::default().quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn the_middle_of_a_bucket_is_near_all_it_holds(us in 16_u64..=u64::MAX / 2) {
            let middle = middle_us(bucket(us)) as f64;
            prop_assert!((middle / us as f64 - 1.0).abs() < 0.0626, "{us} -> {middle}");
        }

        #[test]
        fn buckets_rise_with_latency(a in any::<u64>(), b in any::<u64>()) {
            prop_assert!((a <= b) <= (bucket(a) <= bucket(b)));
        }

        #[test]
        fn tallies_add_up_in_any_split(us in proptest::collection::vec(1_u64..1_000_000, 0..40), at in 0_usize..40) {
            let tally = |us: &[u64]| {
                let mut tally = Tally::default();
                for (i, us) in us.iter().enumerate() {
                    tally.outcome(i % 3 != 0 || *us % 2 == 0, Some(Duration::from_micros(*us)));
                }
                tally
            };
            let whole: Vec<Tally> = us.iter().map(|us| tally(&[*us])).collect();
            let sum = |parts: &[Tally]| {
                parts.iter().fold(Tally::default(), |mut sum, part| {
                    sum.add(part);
                    sum
                })
            };
            let (left, right) = whole.split_at(at.min(whole.len()));
            prop_assert_eq!(sum(&[sum(left), sum(right)]), sum(&whole));
        }
    }
}
