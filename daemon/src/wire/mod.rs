//! The wire and the core: `pointsman.v1` messages to the router's types and back, as pure functions.
//!
//! What a caller sends is turned into raw router types and checked there, never here; what a store
//! kept is turned back into what it was made of, or refused with a [`WireError`]. Nothing in this
//! room reads a clock, a store or a registry. An enum value that this build does not know is refused
//! where a store kept it and taken as unspecified where a caller sent it.

pub mod answer;
pub mod decision;
pub mod feedback;
pub mod json;
pub mod model;
pub mod outcome;
pub mod report;
pub mod request;
pub mod response;
pub mod trace;
pub mod training;

use std::time::Duration;

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::BadId;

/// A message that cannot be what this daemon once wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are not the message they should be.
    #[error("the bytes are not a trace: {detail}")]
    Bytes {
        /// What the decoder said.
        detail: String,
    },
    /// A newer daemon wrote it.
    #[error("the trace has format {found}, this daemon reads up to {known}; start the newer daemon")]
    Format {
        /// The format found.
        found: u32,
        /// The newest that this build knows.
        known: u32,
    },
    /// A part that every message has is not there.
    #[error("the field `{field}` is missing")]
    Missing {
        /// Path of the field.
        field: &'static str,
    },
    /// A value is outside of what the field can hold.
    #[error("the field `{field}` holds {value}, which this daemon does not know")]
    Value {
        /// Path of the field.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// A text in it is no id.
    #[error(transparent)]
    Id(#[from] BadId),
}

/// A moment as protobuf writes it.
#[must_use]
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let nanos = at.micros().rem_euclid(1_000_000) * 1_000;
    prost_types::Timestamp { seconds: at.micros().div_euclid(1_000_000), nanos: i32::try_from(nanos).unwrap_or(0) }
}

/// A moment as the core knows it; what is finer than a microsecond is cut.
#[must_use]
pub fn moment(at: &prost_types::Timestamp) -> Timestamp {
    let micros = at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1_000);
    Timestamp::from_micros(micros)
}

/// A span as protobuf writes it.
#[must_use]
pub fn span(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A span as the core knows it; `None` when it is negative or out of range.
#[must_use]
pub fn duration(span: &prost_types::Duration) -> Option<Duration> {
    // By hand: the conversion that protobuf's types bring negates what cannot be negated.
    let (seconds, nanos) = (u64::try_from(span.seconds).ok()?, u32::try_from(span.nanos).ok()?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// Whole microseconds of a span, held at the end of the range.
#[must_use]
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A span of so many microseconds; zero when there are less.
#[must_use]
pub fn from_micros(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn required<T>(value: Option<T>, field: &'static str) -> Result<T, WireError> {
    value.ok_or(WireError::Missing { field })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_to_the_microsecond() {
        for micros in [0, 1, 999_999, 1_700_000_000_123_456, -1, -1_000_001] {
            let at = Timestamp::from_micros(micros);
            assert_eq!(moment(&timestamp(at)), at, "{micros}");
        }
        let negative = prost_types::Duration { seconds: -1, nanos: 0 };
        assert_eq!(duration(&negative), None);
        assert_eq!(duration(&span(Duration::from_micros(1_500_001))), Some(Duration::from_micros(1_500_001)));
    }
}
