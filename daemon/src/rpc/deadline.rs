//! The caller's deadline, out of the `grpc-timeout` header.
//!
//! A handler must answer DEADLINE_EXCEEDED itself, a moment before tonic would end it with CANCELLED
//! (`ANSWER_MARGIN`). A header that cannot be read is refused rather than taken for "no deadline".

use std::future::Future;
use std::time::Duration;

use tonic::codegen::http;
use tonic::metadata::MetadataMap;

use super::status::{Reason, Refusal};

/// How long before the deadline a handler gives up.
const ANSWER_MARGIN: Duration = Duration::from_millis(2);

/// How long the caller is going to wait; `None`: for ever.
///
/// # Errors
/// [`Reason::InvalidArgument`] for a header that is no timeout.
pub fn deadline(metadata: &MetadataMap) -> Result<Option<Duration>, Refusal> {
    of_headers(metadata.as_ref())
}

/// The same, out of a request's headers.
pub(crate) fn of_headers(headers: &http::HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let read = value.to_str().ok().and_then(parse);
    read.map(Some).ok_or_else(|| Refusal::field("grpc-timeout", "give up to eight digits and a unit of HMSmun"))
}

/// Reads the header's form: up to eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(count * 3_600)),
        'M' => Some(Duration::from_secs(count * 60)),
        'S' => Some(Duration::from_secs(count)),
        'm' => Some(Duration::from_millis(count)),
        'u' => Some(Duration::from_micros(count)),
        'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Runs a handler's work within the deadline; it is dropped where it does not end in time.
///
/// # Errors
/// The work's own, or [`Reason::DeadlineExceeded`].
pub async fn within<T>(
    deadline: Option<Duration>,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    match deadline {
        None => work.await,
        Some(left) => {
            let ended = tokio::time::timeout(left.saturating_sub(ANSWER_MARGIN), work).await;
            ended.unwrap_or_else(|_| Err(expired()))
        }
    }
}

/// What a caller is told whose deadline ended.
pub(crate) fn expired() -> Refusal {
    Refusal::new(Reason::DeadlineExceeded, "the deadline ended before there was an answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<Duration>) {
        assert_eq!(parse(text), expected, "{text}");
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        check("1H", Some(Duration::from_secs(3_600)));
        check("99999999S", Some(Duration::from_secs(99_999_999)));
        check("250m", Some(Duration::from_millis(250)));
        check("3u", Some(Duration::from_micros(3)));
        check("3n", Some(Duration::from_nanos(3)));
        for bad in ["", "S", "1", "123456789S", "-1S", "1s", "1 S", "1é"] {
            check(bad, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_does_not_end_is_dropped_just_before_the_deadline() {
        let started = tokio::time::Instant::now();
        let late = within(Some(Duration::from_millis(50)), std::future::pending::<Result<(), Refusal>>()).await;
        assert_eq!(late.unwrap_err().reason(), Reason::DeadlineExceeded);
        assert!(started.elapsed() < Duration::from_millis(50));
    }
}
