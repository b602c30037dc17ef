//! How values look to people: tables, money, times, probabilities.
//!
//! On a terminal tables are drawn with lines and fitted to its width. Anywhere else, or with NO_COLOR set, they are
//! plain ASCII and never wrapped, so that a log or a diff stays readable. Money is exact: digits come from integers.

use comfy_table::presets::{ASCII_FULL_CONDENSED, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, ContentArrangement, Table};
use pointsman_client::v1;
use prost_types::{Duration, Timestamp};

/// What stands where there is no value.
pub(crate) const NONE: &str = "-";

/// How tables look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    drawn: bool,
    fitted: bool,
}

impl Look {
    /// The look for this output.
    pub(crate) fn new(is_terminal: bool, no_color: bool) -> Self {
        Self { drawn: is_terminal && !no_color, fitted: is_terminal }
    }

    /// A table. A column whose title begins with `>` is aligned to the right.
    pub(crate) fn table(self, titles: &[&str], rows: Vec<Vec<String>>) -> String {
        let mut table = Table::new();
        table.load_style(if self.drawn { UTF8_FULL_CONDENSED } else { ASCII_FULL_CONDENSED });
        if self.fitted {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.force_no_tty();
        }
        table.set_header(titles.iter().map(|title| title.trim_start_matches('>')));
        for row in rows {
            table.add_row(row);
        }
        for (index, title) in titles.iter().enumerate() {
            if title.starts_with('>')
                && let Some(column) = table.column_mut(index)
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("{table}\n")
    }

    /// Names and values, one pair a line.
    pub(crate) fn pairs(self, pairs: &[(&str, String)]) -> String {
        let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        pairs
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name:width$}  {value}\n"))
            .collect()
    }
}

/// An amount in US dollars: all digits that are not 0, at least two decimals.
pub(crate) fn usd_of_nanos(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    let fraction = format!("{:09}", size % 1_000_000_000);
    let kept = fraction.trim_end_matches('0');
    format!("{sign}${}.{kept:0<2}", size / 1_000_000_000)
}

/// An amount of micro-dollars in US dollars.
pub(crate) fn usd_of_micros(micros: i64) -> String {
    usd_of_nanos(micros.saturating_mul(1_000))
}

/// An amount in US dollars that is a mean, to four digits that count.
pub(crate) fn usd_mean(usd: Option<f64>) -> String {
    usd.map_or_else(
        || NONE.to_owned(),
        |usd| {
            let decimals = match usd.abs() {
                size if size >= 100.0 => 1,
                size if size >= 1.0 => 3,
                size if size >= 0.01 => 4,
                _ => 6,
            };
            format!("${usd:.decimals$}")
        },
    )
}

/// A latency.
pub(crate) fn latency(micros: i64) -> String {
    match micros {
        ..=999 => format!("{micros} us"),
        1_000..=999_999 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{}.{:02} s", micros / 1_000_000, micros % 1_000_000 / 10_000),
    }
}

/// A latency that may be absent.
pub(crate) fn latency_or_none(micros: Option<i64>) -> String {
    micros.map_or_else(|| NONE.to_owned(), latency)
}

/// A probability or score.
pub(crate) fn score(value: f64) -> String {
    format!("{value:.3}")
}

/// A probability or score that may be absent.
pub(crate) fn score_or_none(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), score)
}

/// A value with its interval.
pub(crate) fn estimate(found: Option<&v1::Estimate>) -> String {
    within(found, score)
}

/// A difference with its interval.
pub(crate) fn difference(found: Option<&v1::Estimate>) -> String {
    within(found, signed)
}

fn within(found: Option<&v1::Estimate>, show: fn(f64) -> String) -> String {
    let Some(found) = found else { return NONE.to_owned() };
    match (found.lower, found.upper) {
        (None, None) => show(found.value),
        (lower, upper) => {
            let end = |end: Option<f64>| end.map_or_else(|| "?".to_owned(), show);
            format!("{} ({}..{})", show(found.value), end(lower), end(upper))
        }
    }
}

/// A difference of scores, with its sign.
pub(crate) fn signed(value: f64) -> String {
    format!("{value:+.3}")
}

/// A length of time that people wait for.
pub(crate) fn span(duration: &Duration) -> String {
    let Duration { seconds, nanos } = *duration;
    match seconds {
        ..=9 => format!("{seconds}.{} s", nanos / 100_000_000),
        10..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A share in percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A time, to the second.
pub(crate) fn time(timestamp: Option<&Timestamp>) -> String {
    timestamp.map_or_else(
        || NONE.to_owned(),
        |timestamp| {
            let whole = Timestamp { seconds: timestamp.seconds, nanos: 0 };
            whole.to_string()
        },
    )
}

/// A size in bytes.
pub(crate) fn bytes(size: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in units {
        if size >= unit {
            return format!("{}.{} {name}", size / unit, size % unit * 10 / unit);
        }
    }
    format!("{size} B")
}

/// The word of an enum value: `ATTEMPT_STATUS_INVALID_ANSWER` under `ATTEMPT_STATUS_` is `invalid answer`.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    let rest = name.strip_prefix(prefix).unwrap_or(name);
    if rest == "UNSPECIFIED" {
        return NONE.to_owned();
    }
    rest.to_lowercase().replace('_', " ")
}

/// The beginning of a text on one line.
pub(crate) fn excerpt(text: &str, letters_max: usize) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if one_line.chars().count() <= letters_max {
        return one_line;
    }
    let kept: String = one_line.chars().take(letters_max).collect();
    format!("{kept}...")
}

/// The text, or a dash when it is empty.
pub(crate) fn or_none(text: &str) -> String {
    if text.is_empty() { NONE } else { text }.to_owned()
}

/// `yes` or `no`.
pub(crate) fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money() {
        let check = |nanos: i64, expected: &str| assert_eq!(usd_of_nanos(nanos), expected);
        check(0, "$0.00");
        check(1, "$0.000000001");
        check(1_500_000_000, "$1.50");
        check(-42_000, "-$0.000042");
        check(i64::MIN, "-$9223372036.854775808");
        assert_eq!(usd_of_micros(3), "$0.000003");
    }

    #[test]
    fn times_and_sizes() {
        assert_eq!(latency(999), "999 us");
        assert_eq!(latency(12_345), "12.3 ms");
        assert_eq!(latency(61_230_000), "61.23 s");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(12), "12 B");
    }

    #[test]
    fn intervals_and_spans() {
        let of = |value, lower, upper| v1::Estimate { value, lower, upper };
        assert_eq!(estimate(None), "-");
        assert_eq!(estimate(Some(&of(0.7344, None, None))), "0.734");
        assert_eq!(estimate(Some(&of(0.734, Some(0.7), Some(0.76)))), "0.734 (0.700..0.760)");
        assert_eq!(difference(Some(&of(0.01, Some(-0.002), None))), "+0.010 (-0.002..?)");
        let check = |seconds, expected: &str| {
            assert_eq!(span(&Duration { seconds, nanos: 250_000_000 }), expected);
        };
        check(0, "0.2 s");
        check(75, "75 s");
        check(130, "2 min");
        check(7_260, "2 h 1 min");
    }

    #[test]
    fn words_and_excerpts() {
        assert_eq!(word("A_B_TWO_WORDS", "A_B_"), "two words");
        assert_eq!(word("A_B_UNSPECIFIED", "A_B_"), "-");
        assert_eq!(excerpt("a\n  b  c", 3), "a b...");
        assert_eq!(excerpt("über", 4), "über");
    }

    #[test]
    fn a_file_gets_plain_ascii() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()]];
        let text = Look::new(false, false).table(&["name", ">n"], rows);
        assert!(text.is_ascii(), "{text}");
        assert!(text.contains("| a    | 1 |"), "{text}");
        assert!(!Look::new(true, false).table(&["x"], Vec::new()).is_ascii());
        assert!(Look::new(true, true).table(&["x"], Vec::new()).is_ascii());
    }
}
