//! What a key is: who a caller is, what it may do, and for which tenant.
//!
//! The text of a key is `pm_<id>.<secret>`. The id is public and stands in traces, logs and the audit chain;
//! the secret is 256 random bits, is shown once, and only a keyed hash of it is kept: a stolen `ledger.db`
//! lets nobody in, and without the key of the hash nothing in it can even be tried.
//!
//! This module is pure. It must never let a secret be shown: [`Credential`] borrows what a caller sent and
//! prints nothing of it.

mod caller;
mod record;
mod scope;
mod text;

pub use caller::{Caller, View};
pub use record::{KeyRecord, KeyState, Limits, Rotated};
pub use scope::{Scope, Scopes};
pub use text::{Credential, Digest, HashKey, SECRET_BYTES, is_id, text_of};
