//! Reads recorded outcomes: JSON Lines, gzipped or not, one prompt a line.
//!
//! ```json
//! {"id": "set/1", "task": "law", "prompt": "…", "gold": "F",
//!  "outcomes": {"some-model": {"score": 0.5, "cost": 0.00012, "tokens_out": 78, "answer": "F"}}}
//! ```
//!
//! Rows are found by their id, since prompts repeat. A model whose score is null or that is absent is
//! missing from that row; `cost`, `tokens_out` and `answer` may be null or absent. Other keys are
//! ignored. A line that is broken ends the reading with its number: a replay of half a file would
//! report figures of another file. Rows that none of the wanted models has an outcome for are left
//! out, as nothing could be routed there.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use pointsman_router::money::NanoUsd;
use serde::Deserialize;

/// The longest line, in bytes.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// The most rows that are kept.
const ROWS_MAX: usize = 10_000_000;

/// Which part of a file is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these models, in this order; `None`: all, by name.
    pub pool: Option<Vec<String>>,
    /// Only this many rows, the first ones.
    pub limit: Option<usize>,
}

/// What one model did on one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// How good it was, in [0, 1].
    pub score: f64,
    /// What it cost; `None` where nobody recorded it.
    pub cost: Option<NanoUsd>,
    /// Output tokens.
    pub tokens_out: Option<u64>,
    /// What it answered.
    pub answer: Option<String>,
}

/// One prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its id, unique in the file.
    pub id: String,
    /// The true task name.
    pub task: String,
    /// What was asked.
    pub prompt: String,
    /// The right answer, where it is known.
    pub gold: Option<String>,
    /// One outcome per model of [`Rows::models`], in their order; `None` where the model is missing.
    pub outcomes: Vec<Option<Recorded>>,
}

/// The rows of a file.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// The models.
    pub models: Vec<String>,
    /// The rows, in the order of the file.
    pub rows: Vec<Row>,
    by_id: HashMap<String, usize>,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// It is no JSON or has not the keys.
    #[error("is no recorded outcome: {0}")]
    NotARow(String),
    /// It is longer than 16 MiB.
    #[error("is longer than 16 MiB")]
    TooLong,
    /// Its id stood in an earlier line.
    #[error("repeats the id `{0}`, ids are unique")]
    RepeatedId(String),
    /// A score is not in [0, 1].
    #[error("gives `{0}` a score outside [0, 1]")]
    Score(String),
    /// A cost is negative or too large.
    #[error("gives `{0}` a cost that is no amount of money")]
    Cost(String),
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// It cannot be opened or read.
    #[error("{} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is broken.
    #[error("line {line} {fault}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// A wanted model stands in no row.
    #[error("no row has the model `{name}`; the file has: {}", known.join(", "))]
    NoSuchModel {
        /// The model.
        name: String,
        /// The models that are there.
        known: Vec<String>,
    },
    /// There is no row left.
    #[error("there is no row with an outcome")]
    Empty,
    /// There are more rows than can be kept.
    #[error("there are more than {ROWS_MAX} rows, give a limit")]
    TooMany,
}

#[derive(Deserialize)]
struct RawRow {
    id: String,
    #[serde(default)]
    task: String,
    prompt: String,
    #[serde(default)]
    gold: Option<String>,
    outcomes: HashMap<String, RawOutcome>,
}

#[derive(Deserialize)]
struct RawOutcome {
    score: Option<f64>,
    #[serde(default)]
    cost: Option<f64>,
    #[serde(default)]
    tokens_out: Option<f64>,
    #[serde(default)]
    answer: Option<String>,
}

/// One line by itself: what each model of it did, by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The row's id.
    pub id: String,
    /// What was asked.
    pub prompt: String,
    /// The models that it has, by name.
    pub outcomes: BTreeMap<String, Recorded>,
}

impl Line {
    /// Reads a line.
    ///
    /// # Errors
    /// [`LineFault`]; an id that repeats is not found here.
    pub fn read(line: &[u8]) -> Result<Self, LineFault> {
        let raw: RawRow = serde_json::from_slice(line).map_err(|error| LineFault::NotARow(error.to_string()))?;
        let mut outcomes = BTreeMap::new();
        for (model, outcome) in raw.outcomes {
            if let Some(recorded) = outcome.checked(&model)? {
                outcomes.insert(model, recorded);
            }
        }
        Ok(Self { id: raw.id, prompt: raw.prompt, outcomes })
    }
}

impl Rows {
    /// These rows of these models, each with one outcome per model and an id of its own.
    #[must_use]
    pub fn of(models: Vec<String>, rows: Vec<Row>) -> Self {
        let by_id = rows.iter().enumerate().map(|(at, row)| (row.id.clone(), at)).collect();
        Self { models, rows, by_id }
    }

    /// Reads a file; one whose name ends in `.gz` is unpacked on the way.
    ///
    /// # Errors
    /// [`RowsError`], with the line's number where a line is at fault.
    pub fn read(path: &Path, selection: &Selection) -> Result<Self, RowsError> {
        let io_error = |source| RowsError::Io { path: path.to_path_buf(), source };
        let file = BufReader::with_capacity(1 << 16, File::open(path).map_err(io_error)?);
        let result = if path.extension().is_some_and(|extension| extension == "gz") {
            Self::read_from(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file)), selection)
        } else {
            Self::read_from(file, selection)
        };
        result.map_err(|error| match error {
            RowsError::Io { source, .. } => io_error(source),
            RowsError::Line { .. } | RowsError::NoSuchModel { .. } | RowsError::Empty | RowsError::TooMany => {
                error
            }
        })
    }

    /// Reads lines; blank ones are passed over.
    ///
    /// # Errors
    /// As [`Rows::read`], with an empty path.
    pub fn read_from(mut lines: impl BufRead, selection: &Selection) -> Result<Self, RowsError> {
        let mut building = Building::new(selection);
        let mut line = Vec::new();
        let mut number = 0;
        while !building.is_full(selection.limit) {
            line.clear();
            let read = (&mut lines).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
            let bytes = read.map_err(|source| RowsError::Io { path: PathBuf::new(), source })?;
            if bytes == 0 {
                break;
            }
            number += 1;
            let fault = |fault| RowsError::Line { line: number, fault };
            if bytes as u64 > LINE_BYTES_MAX {
                return Err(fault(LineFault::TooLong));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let raw: RawRow =
                serde_json::from_slice(&line).map_err(|error| fault(LineFault::NotARow(error.to_string())))?;
            building.add(raw).map_err(fault)?;
            if building.rows.len() > ROWS_MAX {
                return Err(RowsError::TooMany);
            }
        }
        building.finish()
    }

    /// The row of this id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Row> {
        self.by_id.get(id).and_then(|at| self.rows.get(*at))
    }

    /// The place of a model in [`Rows::models`] and in every row's outcomes.
    #[must_use]
    pub fn model_index(&self, name: &str) -> Option<usize> {
        self.models.iter().position(|model| model == name)
    }

    /// What a model did on the row of this id.
    #[must_use]
    pub fn outcome(&self, id: &str, model: &str) -> Option<&Recorded> {
        let at = self.model_index(model)?;
        self.by_id(id)?.outcomes.get(at)?.as_ref()
    }

    /// The most that one call of this model cost; nothing where no cost is known.
    #[must_use]
    pub fn cost_max(&self, model_index: usize) -> NanoUsd {
        let costs = self.rows.iter().filter_map(|row| row.outcomes.get(model_index)?.as_ref()?.cost);
        costs.max().unwrap_or(NanoUsd::ZERO)
    }
}

/// Rows while their models are still being found.
#[derive(Debug)]
struct Building {
    models: Vec<String>,
    /// Whether a model that is not in `models` is left out or added.
    is_pool: bool,
    /// Models that stand in the file, wanted or not, for the message when a wanted one does not.
    seen: HashMap<String, bool>,
    rows: Vec<Row>,
    by_id: HashMap<String, usize>,
}

impl Building {
    fn new(selection: &Selection) -> Self {
        let models = selection.pool.clone().unwrap_or_default();
        Self {
            models,
            is_pool: selection.pool.is_some(),
            seen: HashMap::new(),
            rows: Vec::new(),
            by_id: HashMap::new(),
        }
    }

    fn is_full(&self, limit: Option<usize>) -> bool {
        limit.is_some_and(|limit| self.rows.len() >= limit)
    }

    fn add(&mut self, mut raw: RawRow) -> Result<(), LineFault> {
        if self.by_id.contains_key(&raw.id) {
            return Err(LineFault::RepeatedId(raw.id));
        }
        let mut fresh: Vec<&String> = raw.outcomes.keys().filter(|name| !self.seen.contains_key(*name)).collect();
        fresh.sort();
        for name in fresh {
            self.seen.insert(name.clone(), true);
            if !self.is_pool {
                self.models.push(name.clone());
            }
        }
        let mut outcomes = Vec::with_capacity(self.models.len());
        for model in &self.models {
            let outcome = raw.outcomes.remove(model);
            outcomes.push(outcome.map(|outcome| outcome.checked(model)).transpose()?.flatten());
        }
        if outcomes.iter().any(Option::is_some) {
            self.by_id.insert(raw.id.clone(), self.rows.len());
            let RawRow { id, task, prompt, gold, .. } = raw;
            self.rows.push(Row { id, task, prompt, gold, outcomes });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Rows, RowsError> {
        let missing = self.models.iter().find(|model| !self.seen.contains_key(*model));
        if let Some(name) = missing {
            let mut known: Vec<String> = self.seen.into_keys().collect();
            known.sort();
            return Err(RowsError::NoSuchModel { name: name.clone(), known });
        }
        if self.rows.is_empty() {
            return Err(RowsError::Empty);
        }
        // Rows from before a model was first seen know nothing of it.
        for row in &mut self.rows {
            row.outcomes.resize(self.models.len(), None);
        }
        if !self.is_pool {
            sort_by_name(&mut self.models, &mut self.rows);
        }
        Ok(Rows { models: self.models, rows: self.rows, by_id: self.by_id })
    }
}

/// Orders the models by name, and every row's outcomes with them.
fn sort_by_name(models: &mut [String], rows: &mut [Row]) {
    let mut order: Vec<usize> = (0..models.len()).collect();
    order.sort_by(|a, b| models.get(*a).cmp(&models.get(*b)));
    for row in rows {
        row.outcomes = order.iter().map(|at| row.outcomes.get_mut(*at).and_then(Option::take)).collect();
    }
    models.sort();
}

impl RawOutcome {
    /// `None` when the model is missing from the row.
    fn checked(self, model: &str) -> Result<Option<Recorded>, LineFault> {
        let Some(score) = self.score else { return Ok(None) };
        if !(0.0..=1.0).contains(&score) {
            return Err(LineFault::Score(model.to_owned()));
        }
        let cost = match self.cost {
            Some(usd) if usd >= 0.0 => {
                Some(NanoUsd::from_usd(usd).ok_or_else(|| LineFault::Cost(model.to_owned()))?)
            }
            Some(_) => return Err(LineFault::Cost(model.to_owned())),
            None => None,
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "held in the range of u32 first"
        )]
        let tokens_out = self.tokens_out.map(|tokens| tokens.round().clamp(0.0, f64::from(u32::MAX)) as u64);
        Ok(Some(Recorded { score, cost, tokens_out, answer: self.answer }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const TWO: &str = concat!(
        r#"{"id":"1","task":"law","prompt":"p","gold":"A","outcomes":{"b":{"score":1,"cost":1.5e-5,"tokens_out":7,"answer":"A"},"a":{"score":null,"cost":1}}}"#,
        "\n\n",
        r#"{"id":"2","prompt":"p","split":"x","outcomes":{"c":{"score":0.25,"cost":null,"tokens_out":null,"answer":null},"a":{"score":0}}}"#,
        "\n",
    );

    fn pool(names: &[&str]) -> Selection {
        Selection { pool: Some(names.iter().map(|&name| name.to_owned()).collect()), limit: None }
    }

    #[test]
    fn models_are_found_on_the_way_and_null_means_missing() {
        let rows = Rows::read_from(TWO.as_bytes(), &Selection::default()).unwrap();
        assert_eq!(rows.models, ["a", "b", "c"]);
        let is_there = |id: &str| rows.by_id(id).unwrap().outcomes.iter().map(Option::is_some).collect::<Vec<_>>();
        assert_eq!(is_there("1"), [false, true, false]);
        assert_eq!(is_there("2"), [true, false, true]);
        let b = rows.outcome("1", "b").unwrap();
        assert_eq!((b.cost, b.tokens_out, b.answer.as_deref()), (Some(NanoUsd::new(15_000)), Some(7), Some("A")));
        assert_eq!(rows.outcome("2", "c").unwrap().cost, None);
        assert_eq!(rows.cost_max(1), NanoUsd::new(15_000));
        assert_eq!(rows.by_id("2").unwrap().gold, None);
    }

    #[test]
    fn a_pool_and_a_limit_restrict() {
        let rows = Rows::read_from(TWO.as_bytes(), &pool(&["c", "a"])).unwrap();
        assert_eq!(rows.models, ["c", "a"]);
        assert_eq!(rows.rows.len(), 1, "row 1 has neither");
        let limited = Selection { limit: Some(1), ..Selection::default() };
        assert_eq!(Rows::read_from(TWO.as_bytes(), &limited).unwrap().rows.len(), 1);
        assert!(matches!(
            Rows::read_from(TWO.as_bytes(), &pool(&["a", "z"])),
            Err(RowsError::NoSuchModel { name, known }) if name == "z" && known == ["a", "b", "c"]
        ));
        assert!(matches!(Rows::read_from(&b""[..], &Selection::default()), Err(RowsError::Empty)));
    }

    #[test]
    fn a_broken_line_is_named() {
        let check = |line: &str, matches: fn(&LineFault) -> bool| {
            let text = format!("{TWO}{line}\n");
            let error = Rows::read_from(text.as_bytes(), &Selection::default()).unwrap_err();
            assert!(matches!(&error, RowsError::Line { line: 4, fault } if matches(fault)), "{line}: {error}");
        };
        check("{", |fault| matches!(fault, LineFault::NotARow(_)));
        check(r#"{"id":"3","outcomes":{}}"#, |fault| matches!(fault, LineFault::NotARow(_)));
        check(r#"{"id":"1","prompt":"","outcomes":{}}"#, |fault| matches!(fault, LineFault::RepeatedId(_)));
        check(r#"{"id":"3","prompt":"","outcomes":{"a":{"score":1.1}}}"#, |fault| {
            matches!(fault, LineFault::Score(_))
        });
        check(r#"{"id":"3","prompt":"","outcomes":{"a":{"score":1,"cost":-1}}}"#, |fault| {
            matches!(fault, LineFault::Cost(_))
        });
        check(r#"{"id":"3","prompt":"","outcomes":{"a":{"score":1,"cost":1e300}}}"#, |fault| {
            matches!(fault, LineFault::Cost(_))
        });
    }

    #[test]
    fn a_gzipped_file_reads_alike_and_a_cut_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl.gz");
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(TWO.as_bytes()).unwrap();
        let packed = packer.finish().unwrap();
        std::fs::write(&path, &packed).unwrap();
        let rows = Rows::read(&path, &Selection::default()).unwrap();
        assert_eq!(rows.rows, Rows::read_from(TWO.as_bytes(), &Selection::default()).unwrap().rows);
        std::fs::write(&path, &packed[..packed.len() - 9]).unwrap();
        assert!(
            matches!(Rows::read(&path, &Selection::default()), Err(RowsError::Io { path: p, .. }) if p == path)
        );
    }
}
