//! Who gets in, and that whoever does not learns nothing from it.

use std::cell::Cell;
use std::path::Path;

use super::*;
use crate::audit::{Head, OPERATOR};

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn by() -> By {
    By::new(OPERATOR, NOW)
}

fn wanted(scopes: &[Scope]) -> Wanted {
    Wanted {
        tenant: "acme".to_owned(),
        name: "a test".to_owned(),
        scopes: scopes.iter().copied().collect(),
        expires_at: None,
        limits: Limits { requests_per_minute: Some(60), ..Limits::default() },
    }
}

async fn keyring(folder: &Path) -> Keyring {
    let store = LedgerStore::open(&folder.join("ledger.db"), None).await.unwrap();
    Keyring::open(store, HashKey::new(&[7; 32])).await.unwrap()
}

/// Counts what is hashed and compared.
struct Counting {
    key: HashKey,
    hashed: Cell<u32>,
    compared: Cell<u32>,
}

impl Hashing for Counting {
    fn digest(&self, credential: Credential<'_>) -> Digest {
        self.hashed.set(self.hashed.get() + 1);
        self.key.digest(credential)
    }

    fn is_same(&self, one: &Digest, other: &Digest) -> Choice {
        self.compared.set(self.compared.get() + 1);
        self.key.is_same(one, other)
    }
}

#[tokio::test]
async fn whatever_is_sent_is_hashed_once_and_compared_once() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = keyring(folder.path()).await;
    let good = keyring.create(wanted(&[Scope::Route]), &by()).await.unwrap();
    let ends = Wanted { expires_at: Some(later(1)), ..wanted(&[Scope::Route]) };
    let expired = keyring.create(ends, &by()).await.unwrap();
    let revoked = keyring.create(wanted(&[Scope::Route]), &by()).await.unwrap();
    keyring.revoke(revoked.record.id.as_str(), &by()).await.unwrap();
    let secret_of = |text: &Secret| text.expose().split_once('.').unwrap().1.to_owned();
    let wrong = format!("pm_{}.{}", good.record.id, secret_of(&expired.text));
    let unknown = format!("pm_0000000000000000.{}", secret_of(&good.text));
    let cut = good.text.expose()[..60].to_owned();
    let long = "x".repeat(1 << 16);
    let cases: [(Option<&str>, bool); 9] = [
        (Some(good.text.expose()), true),
        (Some(expired.text.expose()), false),
        (Some(revoked.text.expose()), false),
        (Some(&wrong), false),
        (Some(&unknown), false),
        (Some(&cut), false),
        (Some(&long), false),
        (Some(""), false),
        (None, false),
    ];
    for (text, admitted) in cases {
        let hashing = Counting { key: keyring.hash_key.clone(), hashed: Cell::new(0), compared: Cell::new(0) };
        let caller = admit(&hashing, &keyring.published.load(), text, later(2));
        assert_eq!(caller.is_some(), admitted);
        assert_eq!((hashing.hashed.get(), hashing.compared.get()), (1, 1));
    }
}

#[tokio::test]
async fn a_key_lets_in_from_its_creation_to_its_end_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = keyring(folder.path()).await;
    let ends = Wanted { expires_at: Some(later(10)), ..wanted(&[Scope::Read, Scope::Train]) };
    let Fresh { record, text } = keyring.create(ends, &by()).await.unwrap();
    let caller = keyring.admit(Some(text.expose()), later(9)).unwrap();
    assert_eq!((caller.key(), caller.tenant()), (Some(&record.id), Some("acme")));
    assert!(caller.may(Scope::Train) && !caller.may(Scope::Route));
    assert!(keyring.admit(Some(text.expose()), later(10)).is_none());
    assert!(!format!("{record:?} {text:?} {keyring:?}").contains(&text.expose()[20..]));
    let again = self::keyring(folder.path()).await;
    assert_eq!(again.list(None).iter().map(|key| KeyRecord::clone(key)).collect::<Vec<_>>(), [record]);
    assert!(again.admit(Some(text.expose()), later(9)).is_some());
    assert!(again.list(Some("other")).is_empty());
    // The same store without the key of the hashes lets nobody in.
    let store = LedgerStore::open(&folder.path().join("ledger.db"), None).await.unwrap();
    let stolen = Keyring::open(store, HashKey::new(&[8; 32])).await.unwrap();
    assert!(stolen.admit(Some(text.expose()), later(9)).is_none());
}

#[tokio::test]
async fn a_rotated_key_ends_at_once_or_after_its_grace() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = keyring(folder.path()).await;
    let first = keyring.create(wanted(&[Scope::Admin]), &by()).await.unwrap();
    let id = first.record.id.as_str();
    let second = keyring.rotate(id, Some(Duration::from_secs(5)), None, &by()).await.unwrap();
    let Rotated { new, old } = &second.record;
    assert_eq!((&new.tenant, new.scopes, new.limits), (&old.tenant, old.scopes, old.limits));
    assert_eq!((new.rotated_from.as_ref(), new.expires_at), (Some(&old.id), None));
    let admits = |text: &Secret, at| keyring.admit(Some(text.expose()), at).is_some();
    assert!(admits(&first.text, later(4)) && admits(&second.text, later(4)));
    assert!(!admits(&first.text, later(5)) && admits(&second.text, later(5)));
    let third = keyring.rotate(new.id.as_str(), None, Some(later(60)), &by()).await.unwrap();
    assert!(!admits(&second.text, NOW) && admits(&third.text, NOW) && !admits(&third.text, later(60)));
    assert!(keyring.has_admin(NOW) && !keyring.has_admin(later(60)));
    let over = keyring.rotate(new.id.as_str(), None, None, &by()).await;
    assert!(matches!(over, Err(KeyError::Inactive { .. })));
}

#[tokio::test]
async fn what_makes_no_sense_is_named_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = keyring(folder.path()).await;
    let good = wanted(&[Scope::Route]);
    let zero = Limits { tokens_per_minute: Some(0), ..Limits::default() };
    let cases = [
        (Wanted { tenant: String::new(), ..good.clone() }, "tenant"),
        (Wanted { tenant: "two words".into(), ..good.clone() }, "tenant"),
        (Wanted { tenant: "x".repeat(1 << 20), ..good.clone() }, "tenant"),
        (Wanted { name: "x".repeat(129), ..good.clone() }, "name"),
        (Wanted { name: "a\nb".into(), ..good.clone() }, "name"),
        (Wanted { scopes: Scopes::default(), ..good.clone() }, "scopes"),
        (Wanted { expires_at: Some(NOW), ..good.clone() }, "expires_at"),
        (Wanted { limits: zero, ..good.clone() }, "limits.tokens_per_minute"),
    ];
    for (wanted, field) in cases {
        match keyring.create(wanted, &by()).await {
            Err(KeyError::BadRequest(bad)) => assert_eq!(bad.faults[0].field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert!(matches!(keyring.revoke("nonsense", &by()).await, Err(KeyError::BadRequest(_))));
    assert!(matches!(keyring.revoke("0123456789abcdef", &by()).await, Err(KeyError::Unknown)));
    assert!(matches!(keyring.rotate("0123456789abcdef", None, None, &by()).await, Err(KeyError::Unknown)));
    assert!(keyring.list(None).is_empty());
    assert_eq!(keyring.store.prove_audit(None).await, Ok(Ok(Head::START)));
}

#[tokio::test]
async fn every_change_is_in_the_chain_and_no_secret_is() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = keyring(folder.path()).await;
    let key = keyring.create(wanted(&[Scope::Route]), &by()).await.unwrap();
    let other = keyring.rotate(key.record.id.as_str(), None, None, &by()).await.unwrap();
    let id = other.record.new.id.as_str();
    keyring.revoke(id, &by()).await.unwrap();
    // A repetition is no change.
    keyring.revoke(id, &by()).await.unwrap();
    let chain = keyring.store.audit_chain(None, 10).await.unwrap();
    let actions: Vec<_> = chain.iter().map(|link| (link.action.as_str(), link.actor.as_str())).collect();
    assert_eq!(actions, [("key.revoked", OPERATOR), ("key.rotated", OPERATOR), ("key.created", OPERATOR)]);
    assert!(keyring.store.prove_audit(None).await.unwrap().is_ok());
    keyring.store.close().await.unwrap();
    let bytes = std::fs::read(folder.path().join("ledger.db")).unwrap();
    for text in [&key.text, &other.text] {
        let secret = text.expose().split_once('.').unwrap().1.as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}
