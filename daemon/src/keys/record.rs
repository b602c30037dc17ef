//! What is kept of a key.

use std::fmt;
use std::sync::Arc;

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::KeyId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Digest, Scopes};

/// What a key may use up in a minute; `None`: not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Tokens, in and out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Micro-dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend_usd_micros_per_minute: Option<u64>,
}

/// Whether a key lets anybody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It does.
    Active,
    /// Its time is over.
    Expired,
    /// Somebody ended it.
    Revoked,
}

/// What is kept of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its public id.
    pub id: KeyId,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it lets nobody in.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The key whose successor it is.
    pub rotated_from: Option<KeyId>,
    /// What it may use up.
    pub limits: Limits,
    /// The keyed hash of its secret.
    pub digest: Digest,
}

impl fmt::Debug for KeyRecord {
    /// Without the hash: it belongs into the store alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRecord").field("id", &self.id).field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// A key and the one that it follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The new key.
    pub new: KeyRecord,
    /// The old one as it is now.
    pub old: KeyRecord,
}

impl KeyRecord {
    /// Whether it lets anybody in at this time.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.revoked_at.is_some() {
            KeyState::Revoked
        } else if self.expires_at.is_some_and(|end| end <= now) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }

    /// What the audit chain says of it.
    #[must_use]
    pub fn details(&self) -> Value {
        json!({
            "tenant": &*self.tenant,
            "name": self.name,
            "scopes": self.scopes.words(),
            "expires_at_micros": self.expires_at.map(Timestamp::micros),
            "rotated_from": self.rotated_from.as_ref().map(KeyId::as_str),
            "limits": self.limits,
        })
    }
}
