//! The section `[auth]`: whether callers need keys; and that keys do not travel in clear by accident.

use std::net::SocketAddr;

use super::checked::Server;
use super::fault::{ConfigError, Fault, FaultKind};
use super::section::Section;

/// Whether callers need keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Each request needs one.
    Required,
    /// Whoever can connect may do everything; a key that is sent is not looked at.
    Off,
}

/// How callers are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth {
    /// Whether callers need keys.
    pub keys: Keys,
}

/// Checks the section. On the loopback keys are off unless they are asked for; elsewhere they are required.
pub(super) fn auth(mut section: Section<'_>, listen: SocketAddr) -> Auth {
    let keys = section.word("keys", &[("required", Keys::Required), ("off", Keys::Off)]);
    let is_local = listen.ip().is_loopback();
    if keys == Some(Keys::Off) && !is_local {
        let wanted = "\"required\" where server.listen is no loopback address".to_owned();
        section.fault("keys", FaultKind::OutOfRange { wanted });
    }
    section.end();
    let default = if is_local { Keys::Off } else { Keys::Required };
    Auth { keys: keys.unwrap_or(default) }
}

/// Refuses to listen where keys and prompts would travel in clear, unless somebody takes the responsibility.
///
/// # Errors
/// [`ConfigError`] for an address that is no loopback address, where there is no TLS.
pub fn transport(server: &Server, insecure: bool) -> Result<(), ConfigError> {
    if insecure || server.tls.is_some() || server.listen.ip().is_loopback() {
        return Ok(());
    }
    let wanted = "a loopback address such as 127.0.0.1:7001, a [server.tls] section, or `pointsmand serve --insecure`: without TLS keys and prompts travel in clear".to_owned();
    let fault = Fault { path: "server.listen".to_owned(), kind: FaultKind::OutOfRange { wanted }, origin: None };
    Err(ConfigError { faults: vec![fault] })
}
