//! Small values of the command line: durations, money, pairs, times. Pure; each says what would be right.

use std::str::FromStr as _;
use std::time::Duration;

use prost_types::Timestamp;

const NANOS_DIGITS: usize = 9;

/// `1500ms`, `2s`, `5m`, `1h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, *factor)))
        .unwrap_or((text, 1.0));
    let wrong = || format!("`{text}` is not a duration; write for instance 1500ms, 30s or 5m");
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| wrong())
}

/// An amount of US dollars as nano-dollars, exactly: `0.15`, `3`, `0.000000001`.
pub(crate) fn usd_nanos(text: &str) -> Result<i64, String> {
    let wrong =
        || format!("`{text}` is not an amount of US dollars; write for instance 0.15, with at most nine decimals");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.len() > NANOS_DIGITS || !digits(whole) || !digits(fraction) || text == "." {
        return Err(wrong());
    }
    let padded = format!("0{whole}{fraction:0<NANOS_DIGITS$}");
    padded.parse().map_err(|_| wrong())
}

/// An amount of US dollars as micro-dollars, exactly: at most six decimals.
pub(crate) fn usd_micros(text: &str) -> Result<i64, String> {
    let nanos = usd_nanos(text)?;
    if nanos % 1_000 == 0 { Ok(nanos / 1_000) } else { Err(format!("`{text}` is finer than a micro-dollar")) }
}

/// `KEY=VALUE`; the key is not empty, the value may be.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("`{text}` is no pair; write KEY=VALUE")),
    }
}

/// An RFC 3339 time.
pub(crate) fn timestamp(text: &str) -> Result<Timestamp, String> {
    Timestamp::from_str(text)
        .map_err(|_| format!("`{text}` is not a time; write for instance 2026-03-01T08:00:00Z"))
}

/// Numbers divided by commas or white space, with or without brackets around them.
pub(crate) fn numbers(text: &str) -> Result<Vec<f32>, String> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    inner
        .split(|letter: char| letter == ',' || letter.is_whitespace())
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<f32>().map_err(|_| format!("`{part}` is not a number")))
        .collect()
}

/// A duration of the wire.
pub(crate) fn wire_duration(duration: Duration) -> Result<prost_types::Duration, String> {
    prost_types::Duration::try_from(duration).map_err(|_| "the duration is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, millis: Option<u128>| {
            assert_eq!(duration(text).ok().map(|found| found.as_millis()), millis, "{text}");
        };
        check("1500ms", Some(1_500));
        check("2", Some(2_000));
        check("0.5s", Some(500));
        check("5m", Some(300_000));
        check("1h", Some(3_600_000));
        check("-1s", None);
        check("soon", None);
        check("", None);
    }

    #[test]
    fn money_is_exact() {
        let check = |text: &str, nanos: Option<i64>| assert_eq!(usd_nanos(text).ok(), nanos, "{text}");
        check("0.15", Some(150_000_000));
        check("3", Some(3_000_000_000));
        check(".000000001", Some(1));
        check("0", Some(0));
        check("0.0000000001", None);
        check("-1", None);
        check("1e3", None);
        check(".", None);
        check("99999999999", None);
    }

    #[test]
    fn embeddings() {
        assert_eq!(numbers("[1, 2.5 -3]"), Ok(vec![1.0, 2.5, -3.0]));
        assert!(numbers("1,x").is_err());
    }
}
