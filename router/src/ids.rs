//! Names for things: ids and names as newtypes, so that a model's name cannot be passed where a
//! decision's id is meant.
//!
//! Ids are UUIDv7, so they sort by the time they were made; that time and the random part come
//! from the ports, never from this module, so a run can be repeated id by id.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{Draw, Timestamp};

/// A text that is no id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id, give the 36 characters that a response carried")]
pub struct BadId {
    text: String,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new UUIDv7 from the given time and chance.
            #[must_use]
            pub fn new(now: Timestamp, draw: &mut Draw) -> Self {
                let millis = u64::try_from(now.micros() / 1_000).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &draw.bytes10()).into_uuid())
            }

            /// Reads the hyphenated form.
            ///
            /// # Errors
            /// [`BadId`] when the text is not a UUID.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                Uuid::try_parse(text).map(Self).map_err(|_| BadId { text: text.chars().take(64).collect() })
            }

            /// The sixteen bytes, as stores keep them.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From the sixteen bytes that a store kept.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

uuid_id!(
    /// One routing choice, and the key under which feedback joins it.
    DecisionId
);
uuid_id!(
    /// One call of one model; a retry is another attempt.
    AttemptId
);

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a name as it is.
            #[must_use]
            pub fn new(text: &str) -> Self {
                Self(Arc::from(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The name under which a model is registered, unique in the daemon.
    ModelName
);
name!(
    /// What kind of work a request is, such as `complex_reasoning`.
    TaskType
);
name!(
    /// The version of a policy: its kind and the hash of what it is made of.
    PolicyVersion
);
name!(
    /// The public half of a caller's key, by which it is listed, billed and revoked.
    KeyId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_survive_the_text_form() {
        let mut draw = Draw::from_seed(1);
        let early = DecisionId::new(Timestamp::from_micros(1_000_000), &mut draw);
        let late = DecisionId::new(Timestamp::from_micros(2_000_000), &mut draw);
        assert!(early < late);
        assert_eq!(DecisionId::parse(&late.to_string()), Ok(late));
        assert_eq!(DecisionId::from_bytes(*late.as_bytes()), late);
        assert!(AttemptId::parse("seven").is_err());
    }
}
