//! The audit chain: what was done to the daemon, by whom and when, each entry bound to the one before.
//!
//! An entry's hash covers all of it and the hash before, so nothing can be changed, taken out or put in
//! without every later hash being another. What a chain cannot show by itself is a cut of its tail: so the
//! head, the place and hash of the last entry, is kept beside it, and whoever wrote a head down elsewhere
//! can hold the chain against that, which also finds a chain that was made anew.
//!
//! This module is pure: it hashes and compares. It must never hold a secret: details say which key, model
//! or budget was changed and how, never a credential or a text of a caller.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_router::clock::Timestamp;
use ring::digest;
use serde_json::{Value, json};

/// Who works on the state folder itself, while the daemon does not run.
pub const OPERATOR: &str = "operator";
/// Who calls a daemon that demands no keys.
pub const KEYLESS: &str = "keyless";

/// Parts of the hash of different versions never look alike.
const DOMAIN: &[u8] = b"pointsman audit 1\0";

/// Longest subject of an entry, in characters; a longer one is cut.
const SUBJECT_CHARS_MAX: usize = 256;
/// Longest details of an entry, in bytes; of longer ones their length and hash are kept.
const DETAILS_BYTES_MAX: usize = 4_096;

/// The hash of an entry.
pub type Hash = [u8; 32];

/// Who does something, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// The id of a key, [`OPERATOR`], [`KEYLESS`], or a part of the daemon.
    pub actor: Arc<str>,
    /// When.
    pub at: Timestamp,
}

impl By {
    /// This actor, at this time.
    #[must_use]
    pub fn new(actor: impl Into<Arc<str>>, at: Timestamp) -> Self {
        Self { actor: actor.into(), at }
    }
}

/// Something that was done and is to be written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Who and when.
    pub by: By,
    /// What, such as `key.created`.
    pub action: Cow<'static, str>,
    /// To what: the id of a key, the name of a model or budget, the version of a policy.
    pub subject: String,
    /// How, as an object.
    pub details: Value,
}

impl Entry {
    /// This was done to this by somebody.
    #[must_use]
    pub fn new(by: &By, action: impl Into<Cow<'static, str>>, subject: &str, details: Value) -> Self {
        let subject = subject.chars().take(SUBJECT_CHARS_MAX).collect();
        Self { by: by.clone(), action: action.into(), subject, details }
    }
}

/// An entry as it stands in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its place, from one and without gaps.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To what.
    pub subject: String,
    /// How, as [`canonical`] JSON.
    pub details: String,
    /// Covers all of it and the hash before.
    pub hash: Hash,
}

/// The end of a chain: the place and hash of its last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The place; zero where there is no entry.
    pub seq: u64,
    /// The hash.
    pub hash: Hash,
}

impl Head {
    /// The head of a chain without entries.
    pub const START: Self = Self { seq: 0, hash: [0; 32] };

    /// The entry that comes next.
    #[must_use]
    pub fn next(&self, entry: &Entry) -> Link {
        let mut link = Link {
            seq: self.seq + 1,
            at: entry.by.at,
            actor: entry.by.actor.to_string(),
            action: entry.action.to_string(),
            subject: entry.subject.clone(),
            details: bounded(canonical(&entry.details)),
            hash: [0; 32],
        };
        link.hash = link.hashed(&self.hash);
        link
    }
}

impl Link {
    /// The head of the chain that ends with this entry.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }

    fn hashed(&self, before: &Hash) -> Hash {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(DOMAIN);
        context.update(before);
        context.update(&self.seq.to_le_bytes());
        context.update(&self.at.micros().to_le_bytes());
        for part in [&self.actor, &self.action, &self.subject, &self.details] {
            // With its length, so that no text can move from one part to the next.
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }
}

/// How a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// An entry in the middle is gone.
    #[error("audit entry {seq} is missing")]
    Missing {
        /// Its place.
        seq: u64,
    },
    /// An entry is not what was written, or the one before it is another.
    #[error(
        "audit entry {seq} is not what was written, or was written after another entry than the one before it"
    )]
    Altered {
        /// Its place.
        seq: u64,
    },
    /// The tail is gone.
    #[error("the audit log ends at entry {last} and once went on to {head}")]
    Cut {
        /// The last entry there is.
        last: u64,
        /// The last entry there was.
        head: u64,
    },
    /// There are entries that no daemon wrote.
    #[error("audit entry {seq} was added without moving the head of the log")]
    Added {
        /// The first of them.
        seq: u64,
    },
}

/// Walks a chain from its beginning.
#[derive(Debug, Clone)]
pub struct Walk {
    head: Head,
    known: Option<Head>,
}

impl Walk {
    /// Begins; `known` is a head that somebody wrote down earlier.
    #[must_use]
    pub fn begin(known: Option<Head>) -> Self {
        Self { head: Head::START, known }
    }

    /// Where the walk is.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// [`Breach`] where it does not follow.
    pub fn step(&mut self, link: &Link) -> Result<(), Breach> {
        let seq = self.head.seq + 1;
        if link.seq != seq {
            return Err(Breach::Missing { seq });
        }
        let known = self.known.filter(|known| known.seq == seq);
        if link.hash != link.hashed(&self.head.hash) || known.is_some_and(|known| known.hash != link.hash) {
            return Err(Breach::Altered { seq });
        }
        self.head = link.head();
        Ok(())
    }

    /// Ends at the head that is kept beside the chain.
    ///
    /// # Errors
    /// [`Breach`] where the chain ends elsewhere.
    pub fn end(self, kept: Head) -> Result<Head, Breach> {
        let last = self.head.seq;
        let head = kept.seq.max(self.known.map_or(0, |known| known.seq));
        if head > last {
            return Err(Breach::Cut { last, head });
        }
        if last > kept.seq {
            return Err(Breach::Added { seq: kept.seq + 1 });
        }
        if self.head.hash != kept.hash {
            return Err(Breach::Altered { seq: last });
        }
        Ok(self.head)
    }
}

/// JSON with the keys of every object in order and no spaces: equal values have equal bytes.
#[must_use]
pub fn canonical(value: &Value) -> String {
    sorted(value).to_string()
}

/// Entries are listed many at a time, so none may be as long as whoever asked for a change would have it.
fn bounded(details: String) -> String {
    if details.len() <= DETAILS_BYTES_MAX {
        return details;
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, details.as_bytes()).as_ref());
    canonical(&json!({"bytes": details.len(), "sha256": hex(&hash)}))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let by_key: BTreeMap<&String, Value> = map.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(by_key.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// A hash as people write it.
#[must_use]
pub fn hex(hash: &Hash) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: i64) -> Vec<Link> {
        let mut head = Head::START;
        let link = |n: i64| {
            let by = By::new("0123456789abcdef", Timestamp::from_micros(n));
            let link = head.next(&Entry::new(&by, "key.revoked", &format!("k{n}"), json!({"b": n, "a": [n]})));
            head = link.head();
            link
        };
        (0..length).map(link).collect()
    }

    fn walk(links: &[Link], known: Option<Head>, kept: Head) -> Result<Head, Breach> {
        let mut walk = Walk::begin(known);
        links.iter().try_for_each(|link| walk.step(link))?;
        walk.end(kept)
    }

    #[test]
    fn what_was_written_is_sound() {
        assert_eq!(walk(&[], None, Head::START), Ok(Head::START));
        let links = chain(5);
        let head = links[4].head();
        for known in [None, Some(links[2].head()), Some(head)] {
            assert_eq!(walk(&links, known, head), Ok(head));
        }
        assert_eq!(links[1].details, r#"{"a":[1],"b":1}"#);
    }

    #[test]
    fn no_entry_is_as_long_as_its_subject_would_have_it() {
        let long = "é".repeat(1 << 20);
        let by = By::new(OPERATOR, Timestamp::from_micros(1));
        let link = Head::START.next(&Entry::new(&by, "model.registered", &long, json!({"upstream": long})));
        assert_eq!(link.subject.chars().count(), SUBJECT_CHARS_MAX);
        assert!(
            link.details.starts_with(r#"{"bytes":2097"#) && link.details.contains("sha256"),
            "{}",
            link.details
        );
        assert_eq!(walk(std::slice::from_ref(&link), None, link.head()), Ok(link.head()));
    }

    #[test]
    fn every_change_of_an_entry_is_found_and_named() {
        let links = chain(5);
        let head = links[4].head();
        let changes: [fn(&mut Link); 6] = [
            |link| link.at = Timestamp::from_micros(77),
            |link| link.actor.push('x'),
            |link| link.action = "key.created".into(),
            |link| link.subject = String::new(),
            |link| link.details = "{}".into(),
            |link| link.hash[31] ^= 1,
        ];
        for change in changes {
            for at in 0..5 {
                let mut links = links.clone();
                change(&mut links[at]);
                assert_eq!(walk(&links, None, head), Err(Breach::Altered { seq: at as u64 + 1 }));
            }
        }
        // A text that moves to its neighbour is another entry.
        let mut moved = links.clone();
        moved[2].actor = format!("{}{}", links[2].actor, links[2].action);
        moved[2].action = String::new();
        assert_eq!(walk(&moved, None, head), Err(Breach::Altered { seq: 3 }));
    }

    #[test]
    fn gaps_cuts_additions_and_a_chain_made_anew_are_found() {
        let links = chain(5);
        let head = links[4].head();
        let mut gap = links.clone();
        gap.remove(2);
        assert_eq!(walk(&gap, None, head), Err(Breach::Missing { seq: 3 }));
        assert_eq!(walk(&links[..3], None, head), Err(Breach::Cut { last: 3, head: 5 }));
        // The head was moved back with the tail: only who knew it can tell.
        assert_eq!(walk(&links[..3], None, links[2].head()), Ok(links[2].head()));
        assert_eq!(walk(&links[..3], Some(head), links[2].head()), Err(Breach::Cut { last: 3, head: 5 }));
        assert_eq!(walk(&links, None, links[3].head()), Err(Breach::Added { seq: 5 }));
        assert_eq!(walk(&links, None, Head { hash: [9; 32], ..head }), Err(Breach::Altered { seq: 5 }));
        let mut anew = Head::START;
        let links: Vec<Link> = chain(5)
            .iter()
            .map(|old| {
                let link = anew.next(&Entry::new(&By::new("x", old.at), "model.removed", "m", json!({})));
                anew = link.head();
                link
            })
            .collect();
        assert_eq!(walk(&links, Some(head), anew), Err(Breach::Altered { seq: 5 }));
    }
}
