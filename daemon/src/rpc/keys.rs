//! The part of AdminService that makes and ends keys.
//!
//! The text of a key passes through here once, from the keyring into the reply; it must never be logged.

use pointsman_proto::v1;
use pointsman_router::check::{BadRequest, Fault, Problem};
use pointsman_router::clock::Timestamp;

use super::admin::Administration;
use super::status::{Reason, Refusal};
use crate::audit::By;
use crate::keyring::{Fresh, KeyError, Wanted};
use crate::keys::{KeyRecord, KeyState, Limits, Rotated, Scope, Scopes};
use crate::wire::{self, moment, timestamp};

/// Keys in a page where the caller does not say.
const PAGE_SIZE: usize = 100;
/// Most keys in a page.
const PAGE_SIZE_MAX: usize = 1_000;

impl Administration {
    pub(super) async fn do_create_key(
        &self,
        asked: v1::CreateKeyRequest,
        by: &By,
    ) -> Result<v1::CreateKeyResponse, Refusal> {
        let Fresh { record, text } = self.keyring.create(wanted(asked)?, by).await?;
        Ok(v1::CreateKeyResponse { key: Some(to_wire(&record, by.at)), text: text.expose().to_owned() })
    }

    pub(super) fn do_list_keys(&self, asked: &v1::ListKeysRequest) -> Result<v1::ListKeysResponse, Refusal> {
        let now = self.clock.now();
        let size = match usize::try_from(asked.page_size) {
            Ok(0) => PAGE_SIZE,
            Ok(size) => size.min(PAGE_SIZE_MAX),
            Err(_) => PAGE_SIZE_MAX,
        };
        let keys = self.keyring.list(Some(asked.tenant.as_str()).filter(|tenant| !tenant.is_empty()));
        // A token is the id of the last key of its page; keys are never deleted.
        let from = match asked.page_token.as_str() {
            "" => 0,
            token => {
                1 + keys.iter().position(|key| key.id.as_str() == token).ok_or_else(|| {
                    BadRequest::of("page_token", Problem::malformed("is no token of a page, give next_page_token"))
                })?
            }
        };
        let page: Vec<_> = keys.iter().skip(from).take(size).collect();
        let last = page.last().filter(|_| from + size < keys.len());
        Ok(v1::ListKeysResponse {
            next_page_token: last.map(|key| key.id.as_str().to_owned()).unwrap_or_default(),
            keys: page.into_iter().map(|key| to_wire(key, now)).collect(),
        })
    }

    pub(super) async fn do_revoke_key(
        &self,
        asked: v1::RevokeKeyRequest,
        by: &By,
    ) -> Result<v1::RevokeKeyResponse, Refusal> {
        let record = self.keyring.revoke(&asked.id, by).await?;
        Ok(v1::RevokeKeyResponse { key: Some(to_wire(&record, by.at)) })
    }

    pub(super) async fn do_rotate_key(
        &self,
        asked: v1::RotateKeyRequest,
        by: &By,
    ) -> Result<v1::RotateKeyResponse, Refusal> {
        let span = |span| {
            wire::duration(&span)
                .ok_or_else(|| BadRequest::of("grace", Problem::out_of_range("a span of zero or more")))
        };
        let grace = asked.grace.map(span).transpose()?;
        let expires_at = asked.expires_at.as_ref().map(moment);
        let Fresh { record, text } = self.keyring.rotate(&asked.id, grace, expires_at, by).await?;
        let Rotated { new, old } = record;
        Ok(v1::RotateKeyResponse {
            key: Some(to_wire(&new, by.at)),
            text: text.expose().to_owned(),
            previous: Some(to_wire(&old, by.at)),
        })
    }
}

/// The key that is wanted; what the keyring cannot see of the message is refused here.
fn wanted(asked: v1::CreateKeyRequest) -> Result<Wanted, BadRequest> {
    let v1::CreateKeyRequest { tenant, name, scopes, expires_at, limits } = asked;
    let mut faults = Vec::new();
    let scopes: Scopes = (0_usize..)
        .zip(scopes)
        .filter_map(|(at, scope)| {
            let known = v1::KeyScope::try_from(scope).ok().and_then(scope_from_wire);
            if known.is_none() {
                let problem = Problem::out_of_range("ROUTE, FEEDBACK, READ, TRAIN or ADMIN");
                faults.push(Fault::new(format!("scopes[{at}]"), problem));
            }
            known
        })
        .collect();
    let v1::KeyLimits { requests_per_minute, tokens_per_minute, spend_usd_micros_per_minute } =
        limits.unwrap_or_default();
    let spend = spend_usd_micros_per_minute.map(u64::try_from).transpose().unwrap_or_else(|_| {
        let problem = Problem::out_of_range("above zero, or leave it out");
        faults.push(Fault::new("limits.spend_usd_micros_per_minute", problem));
        None
    });
    if !faults.is_empty() {
        return Err(BadRequest { faults });
    }
    let limits = Limits { requests_per_minute, tokens_per_minute, spend_usd_micros_per_minute: spend };
    Ok(Wanted { tenant, name, scopes, expires_at: expires_at.as_ref().map(moment), limits })
}

fn scope_from_wire(scope: v1::KeyScope) -> Option<Scope> {
    match scope {
        v1::KeyScope::Unspecified => None,
        v1::KeyScope::Route => Some(Scope::Route),
        v1::KeyScope::Feedback => Some(Scope::Feedback),
        v1::KeyScope::Read => Some(Scope::Read),
        v1::KeyScope::Train => Some(Scope::Train),
        v1::KeyScope::Admin => Some(Scope::Admin),
    }
}

fn scope_to_wire(scope: Scope) -> v1::KeyScope {
    match scope {
        Scope::Route => v1::KeyScope::Route,
        Scope::Feedback => v1::KeyScope::Feedback,
        Scope::Read => v1::KeyScope::Read,
        Scope::Train => v1::KeyScope::Train,
        Scope::Admin => v1::KeyScope::Admin,
    }
}

fn to_wire(record: &KeyRecord, now: Timestamp) -> v1::Key {
    let state = match record.state(now) {
        KeyState::Active => v1::KeyState::Active,
        KeyState::Expired => v1::KeyState::Expired,
        KeyState::Revoked => v1::KeyState::Revoked,
    };
    let Limits { requests_per_minute, tokens_per_minute, spend_usd_micros_per_minute } = record.limits;
    let spend = spend_usd_micros_per_minute.and_then(|limit| i64::try_from(limit).ok());
    v1::Key {
        id: record.id.as_str().to_owned(),
        tenant: record.tenant.to_string(),
        name: record.name.clone(),
        scopes: record.scopes.iter().map(|scope| scope_to_wire(scope).into()).collect(),
        created_at: Some(timestamp(record.created_at)),
        expires_at: record.expires_at.map(timestamp),
        revoked_at: record.revoked_at.map(timestamp),
        rotated_from: record.rotated_from.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        limits: Some(v1::KeyLimits { requests_per_minute, tokens_per_minute, spend_usd_micros_per_minute: spend }),
        state: state.into(),
    }
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        let message = error.to_string();
        match error {
            KeyError::BadRequest(bad) => bad.into(),
            KeyError::Unknown => Self::new(Reason::UnknownKey, message),
            KeyError::Inactive { .. } => Self::new(Reason::KeyInactive, message),
            KeyError::Full => Self::new(Reason::KeysFull, message),
            KeyError::NoChance { .. } => Self::new(Reason::Internal, message),
            KeyError::Store(error) => error.into(),
        }
    }
}
