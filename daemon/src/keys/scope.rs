//! What a key may do. `admin` implies everything.

use std::fmt;

/// One thing that a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Have requests routed, decide, and report what it saw.
    Route,
    /// Say what was right.
    Feedback,
    /// Read traces of its tenant, statistics, models, policies and budgets.
    Read,
    /// Train, evaluate, promote and roll back policies; bring traces in.
    Train,
    /// Everything, for every tenant.
    Admin,
}

impl Scope {
    /// Every scope by its word.
    pub const WORDS: [(&'static str, Self); 5] = [
        ("route", Self::Route),
        ("feedback", Self::Feedback),
        ("read", Self::Read),
        ("train", Self::Train),
        ("admin", Self::Admin),
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Feedback => "feedback",
            Self::Read => "read",
            Self::Train => "train",
            Self::Admin => "admin",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, scope)| *scope)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether the set lets its bearer do this.
    #[must_use]
    pub fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes that were given, in their order; what `admin` implies is not listed.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::WORDS.into_iter().map(|(_, scope)| scope).filter(move |scope| self.0 & scope.bit() != 0)
    }

    /// The words, divided by commas, as they are stored.
    #[must_use]
    pub fn words(self) -> String {
        self.iter().map(Scope::as_str).collect::<Vec<_>>().join(",")
    }

    /// Reads what [`Self::words`] wrote.
    #[must_use]
    pub fn parse(words: &str) -> Option<Self> {
        words.split(',').map(Scope::parse).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_implies_everything_and_nothing_else_implies_anything() {
        for (_, given) in Scope::WORDS {
            let scopes: Scopes = [given].into_iter().collect();
            for (_, asked) in Scope::WORDS {
                assert_eq!(scopes.allow(asked), given == asked || given == Scope::Admin, "{given} {asked}");
            }
            assert!(!Scopes::default().allow(given));
        }
    }

    #[test]
    fn words_are_read_back() {
        let scopes: Scopes = [Scope::Train, Scope::Route, Scope::Train].into_iter().collect();
        assert_eq!(scopes.words(), "route,train");
        assert_eq!(Scopes::parse("train,route"), Some(scopes));
        for bad in ["", "route,", "Route", "all", "route train"] {
            assert_eq!(Scopes::parse(bad), None, "{bad}");
        }
    }
}
