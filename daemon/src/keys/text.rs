//! The text of a key, and the keyed hash of its secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use subtle::{Choice, ConstantTimeEq as _};

use crate::config::Secret;

/// How every key begins.
const PREFIX: &str = "pm_";
/// Characters of an id.
const ID_CHARS: usize = 16;
/// Characters of a secret: 256 bits in base64url without padding.
const SECRET_CHARS: usize = 43;
/// Bytes of a secret.
pub const SECRET_BYTES: usize = 32;

/// The keyed hash of a secret.
pub type Digest = [u8; 32];

/// What a caller sent, taken apart. It is never shown.
#[derive(Clone, Copy)]
pub struct Credential<'a> {
    /// The id.
    pub id: &'a str,
    /// The secret.
    pub secret: &'a str,
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<'a> Credential<'a> {
    /// Stands for a text that is no key, so that one is looked at in the same way as any other. Nobody has this id.
    pub const NONE: Credential<'static> =
        Credential { id: "----------------", secret: "-------------------------------------------" };

    /// Takes a text apart; `None` where it is no key, of which nothing else is said.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('.')?;
        let is_secret = secret.len() == SECRET_CHARS
            && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        (is_id(id) && is_secret).then_some(Self { id, secret })
    }
}

/// Whether a text can be the id of a key: sixteen lower-case hexadecimal digits.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == ID_CHARS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The whole text of a key with this id, out of the random bits of its secret.
#[must_use]
pub fn text_of(id: &str, bits: &[u8; SECRET_BYTES]) -> Secret {
    Secret::new(format!("{PREFIX}{id}.{}", URL_SAFE_NO_PAD.encode(bits)))
}

/// The key of the hashes: 256 random bits that are kept in a file of their own.
#[derive(Clone)]
pub struct HashKey(hmac::Key);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl HashKey {
    /// From the bits.
    #[must_use]
    pub fn new(bits: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bits))
    }

    /// The hash of a secret: HMAC-SHA256 (RFC 2104) over id and secret, so that no record can be given
    /// the hash of another.
    #[must_use]
    pub fn digest(&self, credential: Credential<'_>) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(credential.id.as_bytes());
        context.update(b".");
        context.update(credential.secret.as_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// Whether two hashes are the same, in a time that tells nothing of where they differ.
    #[must_use]
    pub fn is_same(&self, one: &Digest, other: &Digest) -> Choice {
        one.ct_eq(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_apart_or_is_no_key() {
        let text = text_of("0123456789abcdef", &[255; 32]);
        let credential = Credential::parse(text.expose()).unwrap();
        assert_eq!((credential.id, credential.secret.len()), ("0123456789abcdef", SECRET_CHARS));
        let secret = "a".repeat(SECRET_CHARS);
        for bad in [
            String::new(),
            "pm_".to_owned(),
            format!("0123456789abcdef.{secret}"),
            format!("pm_0123456789abcde.{secret}"),
            format!("pm_0123456789abcdeF.{secret}"),
            format!("pm_0123456789abcdef{secret}"),
            format!("pm_0123456789abcdef.{secret}a"),
            format!("pm_0123456789abcdef.{}", "a".repeat(SECRET_CHARS - 1)),
            format!("pm_0123456789abcdef.{}=", "a".repeat(SECRET_CHARS - 1)),
            format!(" pm_0123456789abcdef.{secret}"),
            "x".repeat(1 << 20),
        ] {
            assert!(Credential::parse(&bad).is_none(), "{bad:.80}");
        }
        // What stands for a text that is no key can be no key.
        let none = format!("pm_{}.{}", Credential::NONE.id, Credential::NONE.secret);
        assert!(Credential::parse(&none).is_none());
    }

    #[test]
    fn a_hash_needs_its_key_and_belongs_to_its_id() {
        let secret = "a".repeat(SECRET_CHARS);
        let of = |key: &HashKey, id: &'static str, secret: &str| key.digest(Credential { id, secret });
        let (one, two) = (HashKey::new(&[1; 32]), HashKey::new(&[2; 32]));
        let digest = of(&one, "0123456789abcdef", &secret);
        assert_eq!(digest, of(&one, "0123456789abcdef", &secret));
        for other in [of(&two, "0123456789abcdef", &secret), of(&one, "0123456789abcdee", &secret)] {
            assert_ne!(digest, other);
            assert!(!bool::from(one.is_same(&digest, &other)));
        }
        assert!(bool::from(one.is_same(&digest, &digest)));
        assert_eq!(format!("{one:?}"), "[secret]");
    }
}
