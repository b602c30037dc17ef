//! Logs in files: JSON Lines, gzipped or not, of exported traces or of recorded outcomes.
//!
//! A line is one or the other by its keys: a trace has `format`, a recorded outcome has `prompt`.
//! A broken line is named by its number and passed over; the rest counts. The file is read again for
//! every pass and never held.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;
use pointsman_learner::rows::{RowReading, Rows, Seen, TrainingRow};
use pointsman_proto::v1;
use pointsman_router::check::check;
use pointsman_router::encode::Encoder;
use pointsman_router::features::SchemaHash;
use pointsman_router::feedback::{Entry, labels};
use pointsman_router::ids::ModelName;
use pointsman_router::model::Pool;
use pointsman_router::money::NanoUsd;
use pointsman_router::request::{KindName, RouteRequest};
use pointsman_router::settings::Settings;
use pointsman_router::trace::Trace;
use serde::Deserialize;
use serde::de::IgnoredAny;
use xxhash_rust::xxh3::xxh3_64;

use super::foreign::{self, Foreign, ForeignFault, Whose};
use super::rows::row;
use crate::backends::recorded_rows::{Line, LineFault};
use crate::store::ledger::Said;
use crate::store::traces::NO_FEATURES;
use crate::wire::json::{self, JsonFault};

/// The longest line, in bytes.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BrokenLine {
    /// It is longer than 16 MiB.
    #[error("is longer than 16 MiB")]
    TooLong,
    /// It has the keys of neither.
    #[error("is neither an exported trace nor a recorded outcome: {0}")]
    Neither(String),
    /// It is no trace.
    #[error(transparent)]
    Json(#[from] JsonFault),
    /// It is a trace that cannot be read here.
    #[error("is a trace that {0}")]
    Trace(#[from] ForeignFault),
    /// It is no recorded outcome.
    #[error(transparent)]
    Recorded(#[from] LineFault),
    /// Its prompt cannot be encoded.
    #[error("has a prompt that is no request: {0}")]
    Prompt(String),
    /// Its trace was kept without features.
    #[error("is a trace without features, there is nothing to learn from")]
    NoFeatures,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// It cannot be opened, read or unpacked.
    #[error("{} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No line of it can be used.
    #[error("{} has no line that can be used{}", path.display(), first.as_ref().map_or_else(String::new, |(line, fault)| format!(": line {line} {fault}")))]
    Nothing {
        /// The file.
        path: PathBuf,
        /// The first line, and what is wrong with it.
        first: Option<(u64, BrokenLine)>,
    },
}

/// How a line is read.
#[derive(Debug, Clone)]
pub struct Reader {
    encoder: Encoder,
    secret: u64,
}

/// The rows of a file.
#[derive(Debug)]
pub struct FileRows {
    path: PathBuf,
    reader: Reader,
    schema: SchemaHash,
    lines: u64,
    broken: RefCell<BTreeMap<u64, BrokenLine>>,
}

#[derive(Deserialize)]
struct Keys {
    format: Option<IgnoredAny>,
    prompt: Option<IgnoredAny>,
}

impl Reader {
    /// Encodes prompts, and compares answers, with this installation's secret.
    #[must_use]
    pub fn new(secret: u64) -> Self {
        Self { encoder: Encoder::new(secret), secret }
    }

    /// What features of prompts mean that are encoded here.
    #[must_use]
    pub fn schema(&self) -> SchemaHash {
        self.encoder.schema()
    }

    /// A line as a training row.
    ///
    /// # Errors
    /// [`BrokenLine`].
    pub fn row(&self, line: &[u8]) -> Result<TrainingRow, BrokenLine> {
        let keys: Keys = serde_json::from_slice(line).map_err(|error| BrokenLine::Neither(error.to_string()))?;
        match keys {
            Keys { format: Some(_), .. } => self.logged(json::read(line)?),
            Keys { prompt: Some(_), .. } => self.recorded(Line::read(line)?),
            Keys { format: None, prompt: None } => {
                Err(BrokenLine::Neither("it has neither `format` nor `prompt`".to_owned()))
            }
        }
    }

    fn logged(&self, message: v1::Trace) -> Result<TrainingRow, BrokenLine> {
        let Foreign { trace, feedback } = foreign::read(message, &self.encoder, Whose::Any)?;
        if trace.features.schema == NO_FEATURES {
            return Err(BrokenLine::NoFeatures);
        }
        let entries: Vec<Entry> = feedback.into_iter().map(|(entry, _)| entry).collect();
        Ok(row(&trace, &said(&trace, &entries, self.secret)))
    }

    fn recorded(&self, line: Line) -> Result<TrainingRow, BrokenLine> {
        let key = xxh3_64(line.id.as_bytes());
        let request = RouteRequest { prompt: line.prompt, kind: KindName::Text, ..RouteRequest::default() };
        let request = check(request, &Settings::default(), &Pool::default())
            .map_err(|bad| BrokenLine::Prompt(bad.to_string()))?;
        let seen = line.outcomes.into_iter().map(|(model, recorded)| Seen {
            model: ModelName::from(model),
            label: Some(recorded.score),
            tokens_out: recorded.tokens_out.unwrap_or(0),
            cost: recorded.cost.unwrap_or(NanoUsd::ZERO),
            latency: Duration::ZERO,
        });
        let features = Arc::new(self.encoder.encode(&request));
        Ok(TrainingRow { key, features, task: None, seen: seen.collect(), logged: None })
    }
}

/// What entries that came with a trace say of it.
#[must_use]
pub fn said(trace: &Trace, entries: &[Entry], secret: u64) -> Said {
    let mut by_source = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.model.is_none()) {
        let latest = by_source.entry(entry.source.as_str()).or_insert((entry.seq, entry.score));
        if entry.seq >= latest.0 {
            *latest = (entry.seq, entry.score);
        }
    }
    let sum: f64 = by_source.values().map(|(_, score)| score).sum();
    let answer = (!by_source.is_empty()).then(|| sum / by_source.len() as f64);
    let first = entries.iter().map(|entry| entry.seq).min().unwrap_or(0);
    Said { labels: labels(trace, entries, secret), answer, first }
}

impl FileRows {
    /// The rows of a file. Where `schema` is given all must have it, else that of the first.
    ///
    /// # Errors
    /// [`LinesError`] when it cannot be read, or has not one line of use.
    pub fn open(path: &Path, reader: Reader, schema: Option<SchemaHash>) -> Result<Self, LinesError> {
        let mut rows = Self {
            path: path.to_path_buf(),
            reader,
            schema: schema.unwrap_or(SchemaHash(0)),
            lines: count_lines(path)?,
            broken: RefCell::default(),
        };
        let first = rows.pass()?.next().transpose()?;
        match (first, schema) {
            (None, _) => {
                let first = rows.broken.into_inner().pop_first();
                Err(LinesError::Nothing { path: rows.path, first })
            }
            (Some(row), None) => {
                rows.schema = row.features.schema;
                Ok(rows)
            }
            (Some(_), Some(_)) => Ok(rows),
        }
    }

    /// The broken lines that were met so far, by their numbers, from 1.
    #[must_use]
    pub fn broken(&self) -> BTreeMap<u64, BrokenLine> {
        self.broken.borrow().clone()
    }

    fn pass(&self) -> Result<Pass<'_>, LinesError> {
        Ok(Pass { rows: self, lines: open(&self.path)?, number: 0, line: Vec::new() })
    }

    fn io(&self, source: io::Error) -> LinesError {
        LinesError::Io { path: self.path.clone(), source }
    }
}

impl Rows for FileRows {
    type Error = LinesError;

    fn schema(&self) -> SchemaHash {
        self.schema
    }

    fn len_hint(&self) -> u64 {
        self.lines
    }

    fn read(&self) -> Result<RowReading<'_, LinesError>, LinesError> {
        Ok(Box::new(self.pass()?))
    }
}

/// One pass over a file.
struct Pass<'a> {
    rows: &'a FileRows,
    lines: Box<dyn BufRead>,
    number: u64,
    line: Vec<u8>,
}

impl Pass<'_> {
    fn next_row(&mut self) -> Result<Option<TrainingRow>, LinesError> {
        while let Some(whole) =
            next_line(&mut self.lines, &mut self.line).map_err(|source| self.rows.io(source))?
        {
            self.number += 1;
            if whole && self.line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let read = if whole { self.rows.reader.row(&self.line) } else { Err(BrokenLine::TooLong) };
            match read {
                Ok(row) => return Ok(Some(row)),
                Err(fault) => {
                    self.rows.broken.borrow_mut().insert(self.number, fault);
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for Pass<'_> {
    type Item = Result<TrainingRow, LinesError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

/// Reads the next line, without its end. `None` at the end of the file; `Some(false)` for a line that is
/// too long, which is passed over and not kept.
fn next_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    if lines.take(LINE_BYTES_MAX + 1).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    let whole = line.len() as u64 <= LINE_BYTES_MAX || line.last() == Some(&b'\n');
    if !whole {
        line.clear();
        lines.skip_until(b'\n')?;
    }
    Ok(Some(whole))
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, LinesError> {
    let failed = |source| LinesError::Io { path: path.to_path_buf(), source };
    let file = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
    if path.extension().is_some_and(|extension| extension == "gz") {
        return Ok(Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))));
    }
    Ok(Box::new(file))
}

/// How many lines a file has: what tells how far a reading is.
fn count_lines(path: &Path) -> Result<u64, LinesError> {
    let failed = |source| LinesError::Io { path: path.to_path_buf(), source };
    let mut file = open(path)?;
    let mut lines = 0;
    while file.skip_until(b'\n').map_err(failed)? > 0 {
        lines += 1;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests;
