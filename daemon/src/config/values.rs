//! Values as people write them: spans of time, amounts of money, names.
//!
//! Money is read digit by digit, never through a float, so `"0.1"` is exactly a hundred million
//! nano-dollars. A TOML float is taken by its shortest decimal form, which is what was written for up
//! to fifteen digits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pointsman_router::money::NanoUsd;

/// The longest name of a model, backend, task or budget, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Whether a text can name a model, backend or task: 1 to [`NAME_BYTES_MAX`] bytes, no white space
/// and no control characters, so that it stands in a table, a tag and a command line as it is.
#[must_use]
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Reads `"250ms"`, `"30s"`, `"2m"`, `"1h"`: a whole number and its unit.
#[must_use]
pub(super) fn span(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => number,
        "s" => number.checked_mul(1_000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(millis))
}

/// Reads a decimal number of dollars exactly; `None` when it is no plain decimal number, finer than a
/// nano-dollar, or out of range. A sign is read, so that the caller can say that it is negative.
#[must_use]
pub fn usd(text: &str) -> Option<NanoUsd> {
    const FINEST: usize = 9;
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let part = part.trim_end_matches('0');
    let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(part) || part.len() > FINEST || unsigned.ends_with('.') {
        return None;
    }
    let nanos: i64 = format!("{whole}{part:0<FINEST$}").parse().ok()?;
    Some(NanoUsd::new(if negative { nanos.checked_neg()? } else { nanos }))
}

/// A path of the file: relative ones are relative to the file.
pub(super) fn resolved(folder: &Path, text: &str) -> PathBuf {
    folder.join(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_digit_by_digit() {
        let check = |text: &str, nanos: Option<i64>| assert_eq!(usd(text), nanos.map(NanoUsd::new), "{text}");
        check("0.15", Some(150_000_000));
        check("2", Some(2_000_000_000));
        check("0.000000001", Some(1));
        check("0.0000000010", Some(1));
        check("0.0000000001", None);
        check("-1.5", Some(-1_500_000_000));
        check("9223372036.854775807", Some(i64::MAX));
        check("9223372036.854775808", None);
        for bad in ["", ".", "1.", ".5", "1e3", "$1", "1,5", "--1", "NaN", "inf", "1.-5"] {
            check(bad, None);
        }
        // Any float that was written with few digits comes back as it was written.
        assert_eq!(usd(&0.1_f64.to_string()), Some(NanoUsd::new(100_000_000)));
        assert_eq!(usd(&1e-7_f64.to_string()), Some(NanoUsd::new(100)));
    }

    #[test]
    fn spans_have_a_unit() {
        let check =
            |text: &str, millis: Option<u64>| assert_eq!(span(text), millis.map(Duration::from_millis), "{text}");
        check("250ms", Some(250));
        check("30s", Some(30_000));
        check("2m", Some(120_000));
        check("1h", Some(3_600_000));
        for bad in ["", "30", "s", "1.5s", "-1s", "1 s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            check(bad, None);
        }
    }

    #[test]
    fn names_stand_in_a_command_line_as_they_are() {
        assert!(is_name("meta-llama/llama-3.1-8b-instruct"));
        for bad in ["", "two words", "tab\t", "null\0", &"x".repeat(129)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
