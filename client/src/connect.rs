//! Where the daemon is and how the connection to it behaves.
//!
//! A first connection is tried again, with growing pauses, until `connect_within` is over: a client that starts beside
//! its daemon should not have to wait for it in a loop of its own. Later breaks are mended by the channel itself on the
//! next call. Nagle's algorithm is off, because requests are small and answers are waited for.
//!
//! It must never read the environment and never wait without a bound. Edge cases: an address without a scheme is taken
//! as plain HTTP/2, over which a key travels in clear; `https` needs the authorities that are trusted.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::error::ClientError;
use crate::key::ApiKey;

/// Pause after the first failed connection; doubled after each further one.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause between two tries to connect.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The most tries to connect, whatever `connect_within` says.
const TRIES_MAX: usize = 1_000;

/// Where the daemon is, and the limits of the connection and of every call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `host:port`, `http://host:port` or `https://host:port`.
    pub address: String,
    /// Whom to trust behind `https`, and who this client is. Absent: `https` is refused.
    pub tls: Option<Tls>,
    /// Time for one try to connect.
    pub connect_timeout: Duration,
    /// Time for all tries to connect together. Zero: one try.
    pub connect_within: Duration,
    /// Time for a call, sent as its gRPC deadline. Absent: none. The calls that take as long as there are data,
    /// `export_traces`, `import_traces`, `stream_feedback` and `train`, have no deadline.
    pub deadline: Option<Duration>,
    /// Silence on a connection with calls under way after which it is probed.
    pub keepalive_after: Duration,
    /// Time for the answer to a probe; after it the connection counts as broken.
    pub keepalive_timeout: Duration,
    /// The largest message that is sent or accepted, in bytes.
    pub message_bytes_max: usize,
    /// The key that is sent with every call. Absent: none, for a daemon that demands none.
    pub key: Option<ApiKey>,
}

/// TLS on the client's side, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    /// Authorities, one of which must have signed the daemon's certificate.
    pub authorities: Vec<u8>,
    /// This client's own certificate and its key, for daemons that demand one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

impl Tls {
    fn config(&self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.authorities));
        match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }
}

impl Target {
    /// A target with the defaults: 2 s for a try to connect, 5 s for all, 60 s for a call, probes after 20 s, 16 MiB.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            tls: None,
            connect_timeout: Duration::from_secs(2),
            connect_within: Duration::from_secs(5),
            deadline: Some(Duration::from_secs(60)),
            keepalive_after: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            message_bytes_max: 16 * 1024 * 1024,
            key: None,
        }
    }

    /// Opens the channel, trying again until `connect_within` is over.
    pub(crate) async fn open(&self) -> Result<Channel, ClientError> {
        let endpoint = self.endpoint()?;
        let pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSE_FIRST)
            .with_max_delay(PAUSE_MAX)
            .with_factor(2.0)
            .with_total_delay(Some(self.connect_within))
            .with_max_times(TRIES_MAX);
        let tries = || endpoint.connect();
        let opened = tokio::time::timeout(self.connect_within + self.connect_timeout, tries.retry(pauses)).await;
        match opened {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(ClientError::unreachable(&self.address, &deepest(&error))),
            Err(_) => Err(ClientError::unreachable(&self.address, "no answer in the time given to connect")),
        }
    }

    fn endpoint(&self) -> Result<Endpoint, ClientError> {
        let uri = match self.address.split_once("://") {
            None => format!("http://{}", self.address),
            Some(("http" | "https", _)) => self.address.clone(),
            Some((scheme, _)) => {
                return Err(ClientError::address(
                    &self.address,
                    &format!("the scheme `{scheme}` is not supported, write `https`, `http` or none"),
                ));
            }
        };
        let endpoint =
            Endpoint::from_shared(uri).map_err(|error| ClientError::address(&self.address, &deepest(&error)))?;
        if endpoint.uri().port().is_none() {
            return Err(ClientError::address(&self.address, "the port is missing, write `host:port`"));
        }
        let endpoint = match (&self.tls, endpoint.uri().scheme_str()) {
            (Some(tls), Some("https")) => endpoint
                .tls_config(tls.config())
                .map_err(|error| ClientError::address(&self.address, &deepest(&error)))?,
            (None, Some("https")) => {
                let problem = "https needs the authorities that are trusted, give them (--ca FILE)";
                return Err(ClientError::address(&self.address, problem));
            }
            _ => endpoint,
        };
        Ok(endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(self.keepalive_after))
            .http2_keep_alive_interval(self.keepalive_after)
            .keep_alive_timeout(self.keepalive_timeout))
    }
}

/// The last cause of an error: tonic's own text says no more than "transport error".
fn deepest(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, expected: Option<&str>) {
        let found = Target::new(address).endpoint();
        match (found, expected) {
            (Ok(endpoint), Some(uri)) => assert_eq!(endpoint.uri().to_string(), uri),
            (Err(ClientError::Invalid(fault)), None) => {
                assert_eq!(fault.violations[0].field, "address");
            }
            (found, expected) => panic!("{address}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn addresses() {
        check("127.0.0.1:7001", Some("http://127.0.0.1:7001/"));
        check("http://localhost:7001", Some("http://localhost:7001/"));
        check("[::1]:7001", Some("http://[::1]:7001/"));
        check("localhost", None);
        check("https://localhost:7001", None);
        check("", None);
        check("two words:7", None);
    }

    #[tokio::test]
    async fn a_closed_port_is_unavailable() {
        let target = Target { connect_within: Duration::ZERO, ..Target::new("127.0.0.1:1") };
        assert!(matches!(target.open().await, Err(ClientError::Unavailable(_))));
    }
}
