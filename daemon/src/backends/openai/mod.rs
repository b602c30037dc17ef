//! The backend for OpenAI-compatible chat completions: OpenAI, DeepSeek, DashScope, Mistral, Ollama,
//! vLLM and whatever else speaks the format.
//!
//! One call is one POST to `{base_url}/chat/completions`, without streaming. Nothing is retried, no
//! redirect is followed (the key would go along) and no proxy is used that the environment names.
//! Dropping the future closes the connection, which is how a provider learns that nobody waits.
//!
//! What can be known of the money decides the error: a refusal and any other complete error reply
//! cost nothing, a connection that never stood was not sent, everything else may be billed. The key stands in
//! no error: 401 and 403 get a text of our own, since providers quote the key in theirs, and any
//! other text has the key cut out.

#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::fmt::rfc2822::DateTimeParser;
use pointsman_router::backend::{Backend, Call, CallError, Place, Reply};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use tokio::sync::Semaphore;

use crate::config::{Key, OpenaiConfig};

/// Characters of a provider's text that an error keeps.
const DETAIL_CHARS: usize = 300;
/// A provider that asks for a longer pause is taken to mean this one.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Calls one provider.
#[derive(Debug)]
pub struct OpenaiBackend {
    client: Client,
    endpoint: String,
    config: OpenaiConfig,
    calls: Arc<Semaphore>,
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no HTTPS client could be made: {0}; install the system's CA certificates")]
pub struct ClientError(#[source] reqwest::Error);

impl OpenaiBackend {
    /// A backend for one provider. Connects to nothing yet.
    ///
    /// # Errors
    /// [`ClientError`] when the system has no certificates to trust.
    pub fn new(config: OpenaiConfig) -> Result<Self, ClientError> {
        // Another part of the process may have installed one already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .connect_timeout(config.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .tcp_nodelay(true)
            .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")));
        if config.base_url.starts_with("http://") {
            // Nothing to trust where nothing is encrypted: a machine without certificates will do.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        let client = builder.build().map_err(ClientError)?;
        let endpoint = format!("{}/chat/completions", config.base_url);
        let calls = Arc::new(Semaphore::new(config.concurrency_max));
        Ok(Self { client, endpoint, config, calls })
    }

    async fn call(&self, call: Call) -> Result<Reply, CallError> {
        let request = self.client.post(&self.endpoint).header(CONTENT_TYPE, "application/json");
        let request = match &self.config.key {
            Key::NotNeeded => request,
            Key::Present(key) => request.bearer_auth(key.expose()),
            Key::Absent { reason } => return Err(unbilled(reason.clone())),
        };
        let body = wire::request_body(&call, &self.config);
        let response = request.body(body).send().await.map_err(|error| transport(&error))?;
        let status = response.status();
        let headers = response.headers().clone();
        if status.is_success() {
            let body = self.body(response).await?;
            return wire::read_reply(&body);
        }
        // An error's text is a courtesy: one that cannot be read changes nothing.
        let text = self.body(response).await.unwrap_or_default();
        Err(self.failure(status, &headers, &text))
    }

    /// The whole body, up to the limit.
    async fn body(&self, mut response: Response) -> Result<Vec<u8>, CallError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| transport(&error))? {
            if body.len() + chunk.len() > self.config.reply_bytes_max {
                let detail = format!("larger than {} bytes (reply_bytes_max)", self.config.reply_bytes_max);
                return Err(CallError::Malformed { detail });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// What a status other than success means.
    fn failure(&self, status: StatusCode, headers: &HeaderMap, text: &[u8]) -> CallError {
        let code = status.as_u16();
        let detail = || format!("status {code}: {}", self.shown(&wire::error_text(text)));
        match code {
            429 => CallError::Throttled { retry_after: retry_after(headers) },
            // Not this request's fault: every call of this model would end so, and its breaker must see it.
            401 | 403 => unbilled(format!("status {code}: the provider does not accept the key")),
            404 => unbilled(detail()),
            300..=399 => {
                CallError::Refused { detail: format!("status {code}: redirects are not followed, set base_url") }
            }
            // A complete error is an end: nothing was generated, so there is nothing to pay.
            408 | 425 | 500..=599 => unbilled(detail()),
            _ => CallError::Refused { detail: detail() },
        }
    }

    /// A provider's text without the key, cut short.
    fn shown(&self, text: &str) -> String {
        let text = match &self.config.key {
            Key::Present(key) => text.replace(key.expose(), "[secret]"),
            Key::NotNeeded | Key::Absent { .. } => text.to_owned(),
        };
        text.chars().take(DETAIL_CHARS).collect()
    }
}

impl Backend for OpenaiBackend {
    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
        self.call(call).boxed()
    }

    fn place(&self) -> BoxFuture<'_, Place> {
        // The semaphore is never closed; if it were, the provider's own limit would speak.
        async { Arc::clone(&self.calls).acquire_owned().await.map_or_else(|_| Place::default(), Place::new) }
            .boxed()
    }
}

fn unbilled(detail: String) -> CallError {
    CallError::Unavailable { detail, billable: false }
}

/// What a failed transport means: only a connection that never stood is known not to have carried the
/// request.
fn transport(error: &reqwest::Error) -> CallError {
    // The sources carry what happened; the outermost text would only name the address.
    let mut detail = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if !detail.is_empty() {
            detail.push_str(": ");
        }
        detail.push_str(&inner.to_string());
        source = inner.source();
    }
    if detail.is_empty() {
        "the connection failed".clone_into(&mut detail);
    }
    let billable = !error.is_connect() && !error.is_builder();
    CallError::Unavailable { detail: detail.chars().take(DETAIL_CHARS).collect(), billable }
}

/// How long a provider asks to wait: seconds, or a date against the date of the same response, so
/// that clocks need not agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let parser = DateTimeParser::new();
    let until = parser.parse_timestamp(asked).ok()?;
    let now = parser.parse_timestamp(text(DATE)?).ok()?;
    let wait = Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO);
    Some(wait.min(RETRY_AFTER_MAX))
}
