//! Lays the environment and the flags over the file: default < file < environment < flag.
//!
//! Every single-valued setting of a section has a variable, `POINTSMAN_` and its path in capitals:
//! `server.listen` is `POINTSMAN_SERVER_LISTEN`. A variable that begins like one and is none is a
//! fault, since a misspelt limit must not be silently off. This is the only place of the daemon that
//! reads the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::fault::{ConfigError, Fault, FaultKind, Faults};

/// The variable with which `scripts/chaos` opens `ledger.db` as it must never be opened, without syncing its commits, to
/// show that its simulated power cut finds what is lost then. Heard in debug builds only, and only when it says
/// [`LOSE_THEM`]; no setting of a file or flag does the same.
pub const LOSE_ACKNOWLEDGED_ROWS: &str = "POINTSMAN_CHAOS_LOSE_ACKNOWLEDGED_ROWS_AT_A_POWER_CUT";
/// What it must say.
pub const LOSE_THEM: &str = "yes, lose them";

/// The variables of a process.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Those of this process. What is not UTF-8 is left out: no setting of ours is.
    #[must_use]
    pub fn of_process() -> Self {
        let utf8 = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self(utf8.collect())
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn loses_acknowledged_rows(&self) -> bool {
        cfg!(debug_assertions) && self.get(LOSE_ACKNOWLEDGED_ROWS) == Some(LOSE_THEM)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }
}

impl std::fmt::Debug for Environment {
    /// Values may be keys, so only their number is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}

/// What the command line says of the configuration; it wins over everything.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`: the file; otherwise `POINTSMAN_CONFIG`, otherwise `pointsman.toml` where there is one.
    pub file: Option<PathBuf>,
    /// `--listen`: the address of the gRPC server.
    pub listen: Option<String>,
    /// `--state-dir`: the folder of everything that is kept.
    pub state_dir: Option<PathBuf>,
}

/// The file with everything laid over it.
#[derive(Debug)]
pub(super) struct Layered {
    /// All settings.
    pub(super) table: Table,
    /// The folder that paths in the file are relative to.
    pub(super) folder: PathBuf,
    /// Which keys a variable or a flag has set.
    pub(super) faults: Faults,
}

/// How the text of a variable is read.
#[derive(Debug, Clone, Copy)]
enum Form {
    Text,
    Whole,
    Number,
    Flag,
}

/// Every setting that a variable can set.
const SETTINGS: [(&str, &str, Form); 20] = [
    ("server", "listen", Form::Text),
    ("server", "reflection", Form::Flag),
    ("server", "state_dir", Form::Text),
    ("server", "message_bytes_max", Form::Whole),
    ("server", "prompt_bytes_max", Form::Whole),
    ("server", "drain_timeout", Form::Text),
    ("auth", "keys", Form::Text),
    ("policy", "kind", Form::Text),
    ("policy", "calls_max_default", Form::Whole),
    ("policy", "attempts_max", Form::Whole),
    ("policy", "answer_value_usd_micros", Form::Whole),
    ("policy", "exploration", Form::Number),
    ("policy", "best_single_fallback", Form::Flag),
    ("budget", "name", Form::Text),
    ("budget", "amount_usd", Form::Text),
    ("budget", "window", Form::Text),
    ("budget", "time_zone", Form::Text),
    ("store", "keep_days", Form::Whole),
    ("store", "keep_bytes", Form::Whole),
    ("store", "store_content", Form::Flag),
];
const DEFAULT_FILE: &str = "pointsman.toml";

/// Reads the file and lays the environment and the flags over it.
///
/// # Errors
/// [`ConfigError`] when the file cannot be read or is no TOML: then nothing else can be looked at.
pub(super) fn layer(environment: &Environment, flags: &Flags) -> Result<Layered, ConfigError> {
    let named = flags.file.clone().or_else(|| environment.get("POINTSMAN_CONFIG").map(PathBuf::from));
    let path = named.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()));
    let mut table = path.as_deref().map_or_else(|| Ok(Table::new()), read_file)?;
    let folder = path.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_path_buf();
    let mut origins = BTreeMap::new();
    let mut unknown = Vec::new();
    for (name, text) in &environment.0 {
        match SETTINGS.iter().find(|(section, key, _)| *name == variable(section, key)) {
            Some((section, key, form)) => {
                lay(&mut table, &mut origins, (section, key), (form.read(text), name));
            }
            None if SETTINGS.iter().any(|(section, _, _)| name.starts_with(&variable(section, ""))) => {
                unknown.push(name);
            }
            None => {}
        }
    }
    if let Some(listen) = &flags.listen {
        lay(&mut table, &mut origins, ("server", "listen"), (Value::String(listen.clone()), "--listen"));
    }
    if let Some(folder) = &flags.state_dir {
        // A path on the command line is relative to where the command is given, not to the file.
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        let text = Value::String(absolute.to_string_lossy().into_owned());
        lay(&mut table, &mut origins, ("server", "state_dir"), (text, "--state-dir"));
    }
    let faults = Faults::with_origins(origins);
    for name in unknown {
        faults.add(name, FaultKind::Unknown { nearest: None });
    }
    Ok(Layered { table, folder, faults })
}

impl Form {
    /// A text that is not of the form stays a text, and the check of its key says what it wants.
    fn read(self, text: &str) -> Value {
        let as_text = || Value::String(text.to_owned());
        match self {
            Self::Text => as_text(),
            Self::Whole => text.parse().map_or_else(|_| as_text(), Value::Integer),
            Self::Number => text.parse().map_or_else(|_| as_text(), Value::Float),
            Self::Flag => text.parse().map_or_else(|_| as_text(), Value::Boolean),
        }
    }
}

fn variable(section: &str, key: &str) -> String {
    format!("POINTSMAN_{}_{}", section.to_uppercase(), key.to_uppercase())
}

fn lay(
    table: &mut Table,
    origins: &mut BTreeMap<String, String>,
    (section, key): (&str, &str),
    (value, origin): (Value, &str),
) {
    let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    // A section that is no table is reported by the check; there is nothing to lay over.
    if let Some(inner) = inner.as_table_mut() {
        inner.insert(key.to_owned(), value);
        origins.insert(format!("{section}.{key}"), origin.to_owned());
    }
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    const FILE_BYTES_MAX: u64 = 1 << 20;
    let fault = |detail: String| {
        let kind = FaultKind::Unreadable { detail };
        ConfigError { faults: vec![Fault { path: path.display().to_string(), kind, origin: None }] }
    };
    let size = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(fault("it is larger than 1 MiB".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    text.parse::<Table>().map_err(|error| {
        // The parser's own display quotes the line, which may hold a key someone put there.
        let upto = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
        fault(format!("line {}: {}", upto.matches('\n').count() + 1, error.message()))
    })
}
