//! Calendar windows of budgets: when the present one began and when it ends.
//!
//! Days, weeks (from Monday) and months follow the calendar of the budget's time zone, so a day may
//! have 23 or 25 hours and may begin at one o'clock where midnight does not exist. Minutes and hours
//! are those of UTC, whatever the zone: a shift of the local clock cannot bend or repeat them.
//! Windows never overlap and leave no gap.

use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};
use pointsman_router::clock::Timestamp;
use serde::{Deserialize, Serialize};

/// How long a budget lasts before it is full again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// A minute of UTC.
    Minute,
    /// An hour of UTC.
    Hour,
    /// A calendar day.
    Day,
    /// A calendar week, from Monday.
    Week,
    /// A calendar month.
    Month,
    /// For ever.
    Total,
}

impl Window {
    /// Every window by its word in the configuration.
    pub const WORDS: [(&'static str, Self); 6] = [
        ("minute", Self::Minute),
        ("hour", Self::Hour),
        ("day", Self::Day),
        ("week", Self::Week),
        ("month", Self::Month),
        ("total", Self::Total),
    ];
}

/// The start of the window that `now` lies in and its end, the start of the next; a window that never
/// ends starts in 1970 and has no end.
///
/// A moment outside the calendar's range (some eight thousand years away) counts as never ending.
#[must_use]
pub fn bounds(window: Window, zone: &TimeZone, now: Timestamp) -> (Timestamp, Option<Timestamp>) {
    const MINUTE_MICROS: i64 = 60_000_000;
    let fixed = |micros: i64| {
        let start = now.micros() - now.micros().rem_euclid(micros);
        (Timestamp::from_micros(start), Some(Timestamp::from_micros(start.saturating_add(micros))))
    };
    match window {
        Window::Minute => fixed(MINUTE_MICROS),
        Window::Hour => fixed(60 * MINUTE_MICROS),
        Window::Day | Window::Week | Window::Month => calendar(window, zone, now).unwrap_or(UNBOUNDED),
        Window::Total => UNBOUNDED,
    }
}

const UNBOUNDED: (Timestamp, Option<Timestamp>) = (Timestamp::from_micros(0), None);

/// `None` when the calendar ends before the window does.
fn calendar(window: Window, zone: &TimeZone, now: Timestamp) -> Option<(Timestamp, Option<Timestamp>)> {
    let today = jiff::Timestamp::from_microsecond(now.micros()).ok()?.to_zoned(zone.clone()).date();
    let (first, next) = match window {
        Window::Week => {
            let monday = today.checked_sub(i64::from(today.weekday().to_monday_zero_offset()).days()).ok()?;
            (monday, monday.checked_add(1.week()).ok()?)
        }
        Window::Month => (today.first_of_month(), today.first_of_month().checked_add(1.month()).ok()?),
        Window::Minute | Window::Hour | Window::Day | Window::Total => (today, today.tomorrow().ok()?),
    };
    let begin = |date: jiff::civil::Date| -> Option<Timestamp> {
        let start: Zoned = date.to_zoned(zone.clone()).ok()?;
        Some(Timestamp::from_micros(start.timestamp().as_microsecond()))
    };
    Some((begin(first)?, Some(begin(next)?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    #[track_caller]
    fn check(window: Window, zone_name: &str, now: &str, start: &str, end: &str) {
        assert_eq!(bounds(window, &zone(zone_name), at(now)), (at(start), Some(at(end))));
    }

    #[test]
    fn days_follow_the_local_calendar_over_clock_changes() {
        // 23 hours: clocks go forward on 2025-03-30 in Berlin.
        check(
            Window::Day,
            "Europe/Berlin",
            "2025-03-30T12:00:00Z",
            "2025-03-29T23:00:00Z",
            "2025-03-30T22:00:00Z",
        );
        // 25 hours: clocks go back on 2025-10-26.
        check(
            Window::Day,
            "Europe/Berlin",
            "2025-10-26T00:30:00Z",
            "2025-10-25T22:00:00Z",
            "2025-10-26T23:00:00Z",
        );
        // Midnight did not exist on 2018-11-04 in Sao Paulo: the day begins at one o'clock.
        check(
            Window::Day,
            "America/Sao_Paulo",
            "2018-11-04T12:00:00Z",
            "2018-11-04T03:00:00Z",
            "2018-11-05T02:00:00Z",
        );
        check(Window::Day, "UTC", "2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z", "2025-01-02T00:00:00Z");
    }

    #[test]
    fn weeks_start_on_monday_and_months_on_their_first() {
        // A Sunday; the week that began on Monday 24 March has an hour less.
        check(
            Window::Week,
            "Europe/Berlin",
            "2025-03-30T12:00:00Z",
            "2025-03-23T23:00:00Z",
            "2025-03-30T22:00:00Z",
        );
        check(Window::Week, "UTC", "2025-03-31T00:00:00Z", "2025-03-31T00:00:00Z", "2025-04-07T00:00:00Z");
        check(
            Window::Month,
            "America/New_York",
            "2024-02-29T12:00:00Z",
            "2024-02-01T05:00:00Z",
            "2024-03-01T05:00:00Z",
        );
        check(Window::Month, "UTC", "2025-12-31T23:59:59Z", "2025-12-01T00:00:00Z", "2026-01-01T00:00:00Z");
    }

    #[test]
    fn minutes_and_hours_are_those_of_utc() {
        check(
            Window::Hour,
            "Asia/Kolkata",
            "2025-06-01T10:29:59Z",
            "2025-06-01T10:00:00Z",
            "2025-06-01T11:00:00Z",
        );
        check(Window::Minute, "UTC", "2025-06-01T10:29:59Z", "2025-06-01T10:29:00Z", "2025-06-01T10:30:00Z");
        check(Window::Minute, "UTC", "1969-12-31T23:59:59Z", "1969-12-31T23:59:00Z", "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_total_never_ends_and_the_end_of_time_does_not_panic() {
        let utc = zone("UTC");
        assert_eq!(bounds(Window::Total, &utc, at("2025-06-01T10:00:00Z")), UNBOUNDED);
        for (_, window) in Window::WORDS {
            let _ = bounds(window, &utc, Timestamp::from_micros(i64::MAX));
        }
    }

    proptest! {
        #[test]
        fn windows_hold_their_moment_and_tile_the_time(
            seconds in 0_i64..4_000_000_000, window in 0_usize..5, place in 0_usize..5,
        ) {
            let zone = zone(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia"][place]);
            let window = Window::WORDS[window].1;
            let now = Timestamp::from_micros(seconds * 1_000_000);
            let (start, end) = bounds(window, &zone, now);
            let end = end.unwrap();
            prop_assert!(start <= now && now < end, "{start:?} {now:?} {end:?}");
            prop_assert_eq!(bounds(window, &zone, start), (start, Some(end)));
            prop_assert_eq!(bounds(window, &zone, end).0, end);
        }
    }
}
