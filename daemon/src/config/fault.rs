//! What can be wrong with a configuration, and the list in which all of it is told at once.
//!
//! A fault names the key, says what is wrong and what would mend it. It never carries the value of a
//! secret: the only keys that hold secrets hold the *name* of a variable or file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, such as `model[2].input_usd_per_million_tokens`.
    pub path: String,
    /// What is wrong with it.
    pub kind: FaultKind,
    /// The variable or flag that set it, when the file did not.
    pub origin: Option<String>,
}

/// What is wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// Nobody knows this key.
    Unknown {
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
    /// The value is of another type or form.
    WrongForm {
        /// What it must be.
        wanted: &'static str,
        /// What stands there.
        found: String,
    },
    /// The value is of the right type and not acceptable.
    OutOfRange {
        /// What it must be.
        wanted: String,
    },
    /// The key is needed and absent.
    Missing {
        /// What to give.
        wanted: &'static str,
    },
    /// Two things have one name.
    Duplicate {
        /// The name.
        name: String,
    },
    /// It names something that is not there.
    NoSuch {
        /// What kind of thing: `model`, `backend`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A list or pool that must hold something is empty.
    Empty {
        /// What to put into it.
        wanted: &'static str,
    },
    /// A file cannot be read or does not hold what it should.
    Unreadable {
        /// What the reader said.
        detail: String,
    },
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { nearest: Some(nearest) } => write!(f, "is unknown; did you mean `{nearest}`?"),
            Self::Unknown { nearest: None } => write!(f, "is unknown; remove it"),
            Self::WrongForm { wanted, found } => write!(f, "is {found}; give {wanted}"),
            Self::OutOfRange { wanted } => write!(f, "is not acceptable; it must be {wanted}"),
            Self::Missing { wanted } => write!(f, "is missing; give {wanted}"),
            Self::Duplicate { name } => write!(f, "names `{name}` a second time; names are unique, rename one"),
            Self::NoSuch { what, name } => {
                write!(f, "names the {what} `{name}`, which does not exist; correct the name or add it")
            }
            Self::Empty { wanted } => write!(f, "is empty; give {wanted}"),
            Self::Unreadable { detail } => write!(f, "cannot be read: {detail}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} (set by {origin}) {}", self.path, self.kind),
            None => write!(f, "{} {}", self.path, self.kind),
        }
    }
}

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {} fault{}:{}", faults.len(), if faults.len() == 1 { "" } else { "s" }, listed(faults))]
pub struct ConfigError {
    /// Every fault, in the order of the file's sections.
    pub faults: Vec<Fault>,
}

impl ConfigError {
    /// The process exit code that tells scripts of a bad configuration (`EX_USAGE`).
    pub const EXIT_CODE: u8 = 64;
}

fn listed(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

/// Collects faults while everything is looked at. Sections share it, so it is filled through `&self`.
#[derive(Debug, Default)]
pub struct Faults {
    found: RefCell<Vec<Fault>>,
    origins: BTreeMap<String, String>,
}

impl Faults {
    /// An empty list that knows which keys a variable or a flag has set.
    pub(super) fn with_origins(origins: BTreeMap<String, String>) -> Self {
        Self { found: RefCell::default(), origins }
    }

    /// Adds one.
    pub fn add(&self, path: impl Into<String>, kind: FaultKind) {
        let path = path.into();
        let origin = self.origins.get(&path).cloned();
        self.found.borrow_mut().push(Fault { path, kind, origin });
    }

    /// Ends the collection.
    ///
    /// # Errors
    /// [`ConfigError`] with all that was added, when anything was.
    pub fn finish(self) -> Result<(), ConfigError> {
        let faults = self.found.into_inner();
        if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
    }
}
