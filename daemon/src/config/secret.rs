//! Secrets: API keys that are read from a variable or a file and never shown.
//!
//! [`Secret`] has no way of being printed, compared or serialised by accident; whoever sends it asks
//! for it by [`Secret::expose`]. A key that cannot be had is no fault of the configuration: the models
//! that need it are listed as unavailable with the reason, and the daemon starts.

use std::fmt;
use std::path::Path;

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The key of a backend.
#[derive(Debug, Clone)]
pub enum Key {
    /// The backend asks for none (a local server).
    NotNeeded,
    /// Here it is.
    Present(Secret),
    /// It is named and cannot be had.
    Absent {
        /// Why, and what would mend it; names the variable or file, never a value.
        reason: String,
    },
}

impl Key {
    /// The key in a variable's value.
    pub(super) fn from_variable(name: &str, value: Option<&str>) -> Self {
        match value.map(str::trim) {
            Some(value) if !value.is_empty() => Self::checked(value, &format!("the variable {name}")),
            Some(_) => Self::Absent { reason: format!("the variable {name} is empty, put the key into it") },
            None => Self::Absent { reason: format!("the variable {name} is not set, put the key into it") },
        }
    }

    /// The key in a file, white space around it cut off.
    pub(super) fn from_file(path: &Path) -> Self {
        const FILE_BYTES_MAX: u64 = 16 << 10;
        let shown = path.display();
        match std::fs::metadata(path) {
            Ok(meta) if meta.len() > FILE_BYTES_MAX => {
                return Self::Absent { reason: format!("the key file {shown} is larger than 16 KiB") };
            }
            Ok(_) | Err(_) => {}
        }
        match std::fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => {
                Self::Absent { reason: format!("the key file {shown} is empty") }
            }
            Ok(text) => Self::checked(text.trim(), &format!("the key file {shown}")),
            Err(error) => {
                Self::Absent { reason: format!("the key file {shown} cannot be read: {}", error.kind()) }
            }
        }
    }

    /// Only what can stand in a header is a key.
    fn checked(value: &str, origin: &str) -> Self {
        if value.bytes().all(|b| b.is_ascii_graphic()) {
            Self::Present(Secret::new(value.to_owned()))
        } else {
            Self::Absent { reason: format!("{origin} holds characters that no key has") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_nothing() {
        let key = Key::from_variable("SOME_KEY", Some(" sk-hidden \n"));
        assert!(matches!(&key, Key::Present(secret) if secret.expose() == "sk-hidden"));
        assert!(!format!("{key:?}").contains("hidden"));
        assert_eq!(Secret::new("sk-hidden".to_owned()).to_string(), "[secret]");
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_absent_and_its_value_is_not_told() {
        for value in [None, Some(""), Some("  "), Some("two\nhidden lines"), Some("hidden \u{e9}")] {
            let key = Key::from_variable("SOME_KEY", value);
            assert!(matches!(&key, Key::Absent { reason } if !reason.contains("hidden")), "{value:?}: {key:?}");
        }
        assert!(matches!(Key::from_file(Path::new("no/such/file")), Key::Absent { .. }));
    }
}
