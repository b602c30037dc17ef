//! The keyring: every key in memory, checked on each request, changed one at a time.
//!
//! A change is checked, made durable together with its entry in the audit chain, and only then published:
//! it holds from the next request on. Requests read one atomic pointer and wait for nobody.
//!
//! [`Keyring::admit`] takes the same way whatever a caller sends: one hash and one comparison, against the
//! record of the id or against one that nobody's secret has. A key that is wrong, unknown, expired, revoked
//! or malformed gets the same `None`, in the same time. No secret is kept here, and none may be logged: it
//! leaves once, as the [`Secret`] that [`Keyring::create`] and [`Keyring::rotate`] return.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pointsman_router::check::{BadRequest, Fault, Problem};
use pointsman_router::clock::Timestamp;
use pointsman_router::ids::KeyId;
use serde_json::json;
use subtle::{Choice, ConstantTimeEq as _};
use tokio::sync::Mutex;

use crate::audit::{By, Entry};
use crate::config::{NAME_BYTES_MAX, Secret, is_name};
use crate::keys::{
    Caller, Credential, Digest, HashKey, KeyRecord, KeyState, Limits, Rotated, SECRET_BYTES, Scope, Scopes, is_id,
    text_of,
};
use crate::rates::{self, Limit, LimitSource};
use crate::store::StoreError;
use crate::store::ledger::LedgerStore;

/// How fast callers may be: what their keys say, and a default where they say nothing.
#[derive(Debug)]
pub struct KeyLimits {
    /// The keys.
    pub keyring: Arc<Keyring>,
    /// The default.
    pub default: rates::Limits,
}

impl LimitSource for KeyLimits {
    fn limits(&self, key: Option<&KeyId>) -> rates::Limits {
        let Some(record) = key.and_then(|key| self.keyring.get(key.as_str())) else { return self.default };
        let limit = |per_minute: Option<u64>| per_minute.and_then(|per_minute| Limit::new(per_minute).ok());
        let own = rates::Limits {
            requests: limit(record.limits.requests_per_minute),
            tokens: limit(record.limits.tokens_per_minute),
            spend_micros: limit(record.limits.spend_usd_micros_per_minute),
        };
        own.or(self.default)
    }
}

/// The last moment that a timestamp on the wire can be, in the year 9999.
const END_OF_TIME: Timestamp = Timestamp::from_micros(253_402_300_799_000_000);
/// The most keys, those that let nobody in any more included.
pub const KEYS_MAX: usize = 100_000;

/// Why keys stay as they are.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// Something in the wish is wrong.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// No key has this id.
    #[error("no key has this id, see ListKeys")]
    Unknown,
    /// The key lets nobody in, so it has no successor.
    #[error("the key `{id}` is revoked or expired, create a new one instead")]
    Inactive {
        /// Its id.
        id: KeyId,
    },
    /// There is no room for another key.
    #[error("there are {KEYS_MAX} keys, which is the most")]
    Full,
    /// The system gave no random bits.
    #[error("the system gave no random bits: {detail}")]
    NoChance {
        /// What it said.
        detail: String,
    },
    /// The change could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A key that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose it is to be.
    pub tenant: String,
    /// What people call it; may be empty.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// From when on it lets nobody in.
    pub expires_at: Option<Timestamp>,
    /// What it may use up.
    pub limits: Limits,
}

/// A new key: its record, and its whole text, which is shown this once.
#[derive(Debug)]
pub struct Fresh<R> {
    /// What is kept.
    pub record: R,
    /// What is not.
    pub text: Secret,
}

type Records = HashMap<KeyId, Arc<KeyRecord>>;

/// Every key.
#[derive(Debug)]
pub struct Keyring {
    store: LedgerStore,
    hash_key: HashKey,
    published: ArcSwap<Records>,
    /// Held by the one change that is under way.
    changing: Mutex<()>,
}

impl Keyring {
    /// The keys of this store, whose secrets are hashed with this key.
    ///
    /// # Errors
    /// What the store met.
    pub async fn open(store: LedgerStore, hash_key: HashKey) -> Result<Self, StoreError> {
        let records: Records =
            store.keys().await?.into_iter().map(|record| (record.id.clone(), Arc::new(record))).collect();
        Ok(Self { store, hash_key, published: ArcSwap::from_pointee(records), changing: Mutex::default() })
    }

    /// Who calls with this text; `None`: nobody who may, whatever the reason.
    #[must_use]
    pub fn admit(&self, text: Option<&str>, now: Timestamp) -> Option<Caller> {
        admit(&self.hash_key, &self.published.load(), text, now)
    }

    /// Whether any key may administrate now.
    #[must_use]
    pub fn has_admin(&self, now: Timestamp) -> bool {
        let records = self.published.load();
        records.values().any(|key| key.scopes.allow(Scope::Admin) && key.state(now) == KeyState::Active)
    }

    /// One key.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<KeyRecord>> {
        self.published.load().get(id).cloned()
    }

    /// All keys of a tenant, or of all, the oldest first.
    #[must_use]
    pub fn list(&self, tenant: Option<&str>) -> Vec<Arc<KeyRecord>> {
        let records = self.published.load();
        let wanted = records.values().filter(|record| tenant.is_none_or(|tenant| *record.tenant == *tenant));
        let mut found: Vec<_> = wanted.cloned().collect();
        found.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        found
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`KeyError`]; nothing changed.
    pub async fn create(&self, wanted: Wanted, by: &By) -> Result<Fresh<KeyRecord>, KeyError> {
        check(&wanted, by.at)?;
        let Wanted { tenant, name, scopes, expires_at, limits } = wanted;
        let _changing = self.changing.lock().await;
        let (id, text, digest) = self.fresh()?;
        let record = KeyRecord {
            id,
            tenant: tenant.into(),
            name,
            scopes,
            created_at: by.at,
            expires_at,
            revoked_at: None,
            rotated_from: None,
            limits,
            digest,
        };
        let entry = Entry::new(by, "key.created", record.id.as_str(), record.details());
        self.change(vec![record.clone()], entry).await?;
        tracing::info!(key = %record.id, tenant = &*record.tenant, scopes = record.scopes.words(), "key created");
        Ok(Fresh { record, text })
    }

    /// Lets a key let nobody in any more; repeating it changes nothing.
    ///
    /// # Errors
    /// [`KeyError`]; nothing changed.
    pub async fn revoke(&self, id: &str, by: &By) -> Result<KeyRecord, KeyError> {
        let _changing = self.changing.lock().await;
        let record = self.find(id)?;
        if record.revoked_at.is_some() {
            return Ok(record);
        }
        let record = KeyRecord { revoked_at: Some(by.at), ..record };
        let entry = Entry::new(by, "key.revoked", record.id.as_str(), json!({"tenant": &*record.tenant}));
        self.change(vec![record.clone()], entry).await?;
        tracing::info!(key = %record.id, "key revoked");
        Ok(record)
    }

    /// Makes a successor with the same tenant, scopes and limits. The old key is revoked, or with a grace
    /// expires at its end. Without an end of its own the successor ends when the old one would have.
    ///
    /// # Errors
    /// [`KeyError`]; nothing changed.
    pub async fn rotate(
        &self,
        id: &str,
        grace: Option<Duration>,
        expires_at: Option<Timestamp>,
        by: &By,
    ) -> Result<Fresh<Rotated>, KeyError> {
        check_end(expires_at, by.at).map_err(|fault| BadRequest { faults: vec![fault] })?;
        let _changing = self.changing.lock().await;
        let old = self.find(id)?;
        if old.state(by.at) != KeyState::Active {
            return Err(KeyError::Inactive { id: old.id });
        }
        let (id, text, digest) = self.fresh()?;
        let new = KeyRecord {
            id,
            created_at: by.at,
            expires_at: expires_at.or(old.expires_at),
            rotated_from: Some(old.id.clone()),
            digest,
            ..old.clone()
        };
        let old = match grace.filter(|grace| !grace.is_zero()).map(|grace| by.at.plus(grace)) {
            Some(end) => {
                KeyRecord { expires_at: Some(old.expires_at.map_or(end, |before| before.min(end))), ..old }
            }
            None => KeyRecord { revoked_at: Some(by.at), ..old },
        };
        let entry = Entry::new(
            by,
            "key.rotated",
            old.id.as_str(),
            json!({"to": new.details(), "to_id": new.id.as_str(),
                   "old_ends_at_micros": old.revoked_at.or(old.expires_at).map(Timestamp::micros)}),
        );
        self.change(vec![new.clone(), old.clone()], entry).await?;
        tracing::info!(key = %old.id, to = %new.id, "key rotated");
        Ok(Fresh { record: Rotated { new, old }, text })
    }

    fn find(&self, id: &str) -> Result<KeyRecord, KeyError> {
        if !is_id(id) {
            let problem = Problem::malformed("is no id of a key, give the sixteen characters after `pm_`");
            return Err(BadRequest::of("id", problem).into());
        }
        self.published.load().get(id).map(|record| KeyRecord::clone(record)).ok_or(KeyError::Unknown)
    }

    /// An id that is free, a text, and the hash of its secret.
    fn fresh(&self) -> Result<(KeyId, Secret, Digest), KeyError> {
        let no_chance = |error: getrandom::Error| KeyError::NoChance { detail: error.to_string() };
        let records = self.published.load();
        if records.len() >= KEYS_MAX {
            return Err(KeyError::Full);
        }
        let id = KeyId::from(format!("{:016x}", getrandom::u64().map_err(no_chance)?));
        if records.contains_key(&id) {
            // One chance in a quadrillion; whoever asks again gets another.
            return Err(KeyError::NoChance { detail: "the id is taken, try again".to_owned() });
        }
        let mut bits = [0; SECRET_BYTES];
        getrandom::fill(&mut bits).map_err(no_chance)?;
        let text = text_of(id.as_str(), &bits);
        let digest = self.hash_key.digest(Credential::parse(text.expose()).unwrap_or(Credential::NONE));
        Ok((id, text, digest))
    }

    /// Makes a change durable, then lets requests feel it.
    async fn change(&self, records: Vec<KeyRecord>, entry: Entry) -> Result<(), StoreError> {
        self.store.save_keys(records.clone(), entry).await?;
        let mut published = Records::clone(&self.published.load());
        published.extend(records.into_iter().map(|record| (record.id.clone(), Arc::new(record))));
        self.published.store(Arc::new(published));
        Ok(())
    }
}

/// What hashes and compares; a port, so that a test can count.
trait Hashing {
    fn digest(&self, credential: Credential<'_>) -> Digest;
    fn is_same(&self, one: &Digest, other: &Digest) -> Choice;
}

impl Hashing for HashKey {
    fn digest(&self, credential: Credential<'_>) -> Digest {
        HashKey::digest(self, credential)
    }

    fn is_same(&self, one: &Digest, other: &Digest) -> Choice {
        HashKey::is_same(self, one, other)
    }
}

/// What an unknown key is compared with.
const NOBODY: Digest = [0; 32];

fn admit(hashing: &impl Hashing, records: &Records, text: Option<&str>, now: Timestamp) -> Option<Caller> {
    let given = text.and_then(Credential::parse);
    let credential = given.unwrap_or(Credential::NONE);
    let record = records.get(credential.id);
    let expected = record.map_or(&NOBODY, |record| &record.digest);
    let is_same = hashing.is_same(&hashing.digest(credential), expected);
    let is_active = u8::from(record.is_some_and(|record| record.state(now) == KeyState::Active));
    let admitted = is_same & is_active.ct_eq(&1);
    record.filter(|_| bool::from(admitted)).map(|record| Caller::with(record))
}

/// All that is wrong with a wanted key, at once.
fn check(wanted: &Wanted, now: Timestamp) -> Result<(), BadRequest> {
    let Wanted { tenant, name, scopes, expires_at, limits } = wanted;
    let mut faults = Vec::new();
    if tenant.is_empty() {
        faults.push(Fault::new("tenant", Problem::Missing));
    } else if !is_name(tenant) {
        faults.push(Fault::new("tenant", Problem::out_of_range(NAME_WANTED)));
    }
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        faults.push(Fault::new("name", Problem::out_of_range("at most 128 bytes without control characters")));
    }
    if scopes.is_empty() {
        faults.push(Fault::new("scopes", Problem::Missing));
    }
    faults.extend(check_end(*expires_at, now).err());
    let Limits { requests_per_minute, tokens_per_minute, spend_usd_micros_per_minute } = limits;
    for (field, limit) in [
        ("requests_per_minute", requests_per_minute),
        ("tokens_per_minute", tokens_per_minute),
        ("spend_usd_micros_per_minute", spend_usd_micros_per_minute),
    ] {
        if limit.is_some_and(|limit| Limit::new(limit).is_err()) {
            faults.push(Fault::new(format!("limits.{field}"), Problem::out_of_range(Limit::WANTED)));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(BadRequest { faults }) }
}

const NAME_WANTED: &str = "1 to 128 bytes without white space or control characters";

fn check_end(expires_at: Option<Timestamp>, now: Timestamp) -> Result<(), Fault> {
    match expires_at {
        Some(end) if end <= now || end > END_OF_TIME => {
            Err(Fault::new("expires_at", Problem::out_of_range("a time to come, or leave it out")))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
