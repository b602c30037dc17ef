//! Who calls, and what it may see.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::KeyId;
use pointsman_router::request::TENANT_TAG;

use super::{KeyRecord, Scope, Scopes};
use crate::audit::{By, KEYLESS};

/// Whose decisions a caller may see and speak of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// Everybody's.
    All,
    /// Those of one tenant; what has no tenant is nobody's.
    Tenant(Arc<str>),
}

impl View {
    /// Whether a decision with these tags may be seen. One that may not is to be answered as one that never was.
    #[must_use]
    pub fn sees(&self, tags: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(tenant) => tags.get(TENANT_TAG).is_some_and(|of| **of == **tenant),
        }
    }

    /// The one tenant that it is limited to.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Tenant(tenant) => Some(tenant),
        }
    }
}

/// Who calls. It is made at the door, out of a key that was checked, and travels with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    key: Option<(KeyId, Arc<str>)>,
    scopes: Scopes,
}

impl Caller {
    /// Whoever calls a daemon that demands no keys: it may do everything, and names its tenant itself.
    #[must_use]
    pub fn keyless() -> Self {
        Self { key: None, scopes: [Scope::Admin].into_iter().collect() }
    }

    /// Whoever came with this key.
    #[must_use]
    pub fn with(record: &KeyRecord) -> Self {
        Self { key: Some((record.id.clone(), Arc::clone(&record.tenant))), scopes: record.scopes }
    }

    /// The id of its key.
    #[must_use]
    pub fn key(&self) -> Option<&KeyId> {
        self.key.as_ref().map(|(id, _)| id)
    }

    /// The tenant of its key; `None`: it came without one.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.key.as_ref().map(|(_, tenant)| &**tenant)
    }

    /// Whether it may do this.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.allow(scope)
    }

    /// Whose decisions it may see.
    #[must_use]
    pub fn view(&self) -> View {
        match &self.key {
            Some((_, tenant)) if !self.may(Scope::Admin) => View::Tenant(Arc::clone(tenant)),
            Some(_) | None => View::All,
        }
    }

    /// The caller at this time, for the audit chain.
    #[must_use]
    pub fn by(&self, at: Timestamp) -> By {
        By::new(self.actor(), at)
    }

    /// Who it is, for the audit log: the id of its key.
    #[must_use]
    pub fn actor(&self) -> &str {
        self.key().map_or(KEYLESS, KeyId::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(tenant: Option<&str>) -> BTreeMap<String, String> {
        tenant.map(|tenant| (TENANT_TAG.to_owned(), tenant.to_owned())).into_iter().collect()
    }

    #[test]
    fn a_tenant_sees_its_own_alone() {
        let check = |view: &View, expected: [bool; 3]| {
            assert_eq!([Some("a"), Some("b"), None].map(|tenant| view.sees(&tags(tenant))), expected);
        };
        check(&View::All, [true; 3]);
        check(&View::Tenant("a".into()), [true, false, false]);
        check(&View::Tenant("".into()), [false; 3]);
    }
}
