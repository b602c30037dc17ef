//! The online state as bytes: versioned, checksummed, little-endian, equal bits back.
//!
//! | part | bytes |
//! |---|---|
//! | magic `pmonline` | 8 |
//! | format version | 4 |
//! | artifact version, feedback mark, trace mark | text, 8, 8 |
//! | number of lanes, their names, the five blocks of the heads | 4, texts, 4 per number |
//! | per lane its alarm and its watch | 40, 72 |
//! | number of forecasts, for each the name, three lines of six numbers, two watches | 4, text, 8 per number, 144 |
//! | alerts there ever were, number of those kept, for each its model and what it says | 8, 4, text, 26 |
//! | who gave labels, see `sources` | |
//! | XXH3 of all before | 8 |
//!
//! A text is its length in 4 bytes and its UTF-8. Nothing is allocated by a length that was not
//! checked against the bytes that are left. A state that cannot be read is no loss: it is rebuilt
//! from the rows.

use std::sync::Arc;

use pointsman_router::bandit::BanditSettings;
use pointsman_router::features::SchemaHash;
use pointsman_router::forecast::{LogLine, ModelForecast};
use pointsman_router::ids::ModelName;
use xxhash_rust::xxh3::xxh3_64;

use super::Online;
use super::changes::ALERTS_MAX;
use crate::drift::{Alarm, Alert, Direction, Side, Watch, Watched};
use crate::sources::Sources;

const MAGIC: &[u8; 8] = b"pmonline";
const FORMAT: u32 = 3;

/// Why bytes are no state of this artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// They are something else altogether.
    #[error("this is no online state, rebuild it from the rows")]
    Foreign,
    /// They end too early.
    #[error("the online state is cut short, rebuild it from the rows")]
    Truncated,
    /// They were changed since they were written.
    #[error("the online state is damaged, rebuild it from the rows")]
    Damaged,
    /// They were written by another version of the program.
    #[error("the online state has format {found} and this program reads {FORMAT}, rebuild it from the rows")]
    Format {
        /// The format found.
        found: u32,
    },
    /// They belong to other settings or features.
    #[error("the online state belongs to {found} and not to {expected}, rebuild it from the rows")]
    OtherArtifact {
        /// The version found.
        found: String,
        /// The version that was asked for.
        expected: String,
    },
}

impl Online {
    /// The state as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let blocks = self.heads.blocks();
        let mut out = Vec::with_capacity(4 * blocks.iter().map(|b| b.len()).sum::<usize>() + 4_096);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        push_text(&mut out, self.version.as_str());
        out.extend_from_slice(&self.feedback_mark.to_le_bytes());
        out.extend_from_slice(&self.trace_mark.to_le_bytes());
        push_length(&mut out, self.heads.models().len());
        for name in self.heads.models() {
            push_text(&mut out, name.as_str());
        }
        for number in blocks.into_iter().flatten() {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for lane in 0..self.heads.models().len() {
            let (alarm, watch) = self.changes.lanes.get(lane).copied().unwrap_or_default();
            push_alarm(&mut out, &alarm);
            push_watch(&mut out, &watch);
        }
        push_length(&mut out, self.forecasts.models.len());
        for (name, seen) in &self.forecasts.models {
            push_text(&mut out, name.as_str());
            for line in [seen.tokens_out, seen.cost_nanos, seen.latency_us] {
                push_numbers(&mut out, [line.n].into_iter().chain(line.sums));
            }
            for watch in self.changes.calls.get(name).copied().unwrap_or_default() {
                push_watch(&mut out, &watch);
            }
        }
        out.extend_from_slice(&self.changes.alerts_total.to_le_bytes());
        push_length(&mut out, self.changes.alerts.len());
        for alert in &self.changes.alerts {
            push_alert(&mut out, alert);
        }
        self.sources.push(&mut out);
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// The state that these bytes hold, of the artifact with these settings and features.
    ///
    /// # Errors
    /// [`StateError`] when they are cut, changed, foreign, or of another artifact.
    pub fn from_bytes(bytes: &[u8], settings: BanditSettings, schema: SchemaHash) -> Result<Self, StateError> {
        Self::new(settings, schema).restored(bytes)
    }

    /// The state that these bytes hold, of the artifact of this fresh one.
    ///
    /// # Errors
    /// As [`Online::from_bytes`].
    pub fn restored(self, bytes: &[u8]) -> Result<Self, StateError> {
        let mut head = Reader(bytes);
        if head.array::<8>()? != *MAGIC {
            return Err(StateError::Foreign);
        }
        let found = u32::from_le_bytes(head.array()?);
        if found != FORMAT {
            return Err(StateError::Format { found });
        }
        let (body, checksum) = head.0.split_last_chunk::<8>().ok_or(StateError::Truncated)?;
        let covered = bytes.len().saturating_sub(checksum.len());
        if xxh3_64(bytes.get(..covered).unwrap_or_default()) != u64::from_le_bytes(*checksum) {
            return Err(StateError::Damaged);
        }
        let mut reader = Reader(body);
        let found = reader.text()?;
        let mut online = self;
        if found != online.version.as_str() {
            return Err(StateError::OtherArtifact { found, expected: online.version.as_str().to_owned() });
        }
        online.feedback_mark = u64::from_le_bytes(reader.array()?);
        online.trace_mark = u64::from_le_bytes(reader.array()?);
        online.read_heads(&mut reader)?;
        online.read_forecasts(&mut reader)?;
        online.read_alerts(&mut reader)?;
        online.sources = Sources::take(&mut reader.0).ok_or(StateError::Damaged)?;
        if reader.0.is_empty() { Ok(online) } else { Err(StateError::Damaged) }
    }

    fn read_heads(&mut self, reader: &mut Reader<'_>) -> Result<(), StateError> {
        let heads = Arc::make_mut(&mut self.heads);
        for lane in 0..reader.length()? {
            if heads.add(&ModelName::from(reader.text()?)) != lane {
                return Err(StateError::Damaged);
            }
        }
        let blocks = heads.blocks_mut();
        let sparse = [blocks.sparse_means, blocks.sparse_variances];
        let by_lane = [blocks.dense_means, blocks.dense_covariances, blocks.ages];
        for cell in sparse.into_iter().chain(by_lane).flatten() {
            *cell = f32::from_le_bytes(reader.array()?);
        }
        for _ in heads.models() {
            self.changes.lanes.push((reader.alarm()?, reader.watch()?));
        }
        Ok(())
    }

    fn read_forecasts(&mut self, reader: &mut Reader<'_>) -> Result<(), StateError> {
        let forecasts = Arc::make_mut(&mut self.forecasts);
        for _ in 0..reader.length()? {
            let name = ModelName::from(reader.text()?);
            let seen = ModelForecast {
                tokens_out: reader.line()?,
                cost_nanos: reader.line()?,
                latency_us: reader.line()?,
            };
            self.changes.calls.insert(name.clone(), [reader.watch()?, reader.watch()?]);
            forecasts.models.insert(name, seen);
        }
        Ok(())
    }

    fn read_alerts(&mut self, reader: &mut Reader<'_>) -> Result<(), StateError> {
        self.changes.alerts_total = u64::from_le_bytes(reader.array()?);
        let kept = reader.length()?;
        if kept > ALERTS_MAX {
            return Err(StateError::Damaged);
        }
        for _ in 0..kept {
            self.changes.alerts.push_back(reader.alert()?);
        }
        Ok(())
    }
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn push_numbers(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = f64>) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn push_alarm(out: &mut Vec<u8>, alarm: &Alarm) {
    out.extend_from_slice(&alarm.labels.to_le_bytes());
    out.extend_from_slice(&alarm.resets.to_le_bytes());
    push_numbers(out, alarm.sums);
}

fn push_watch(out: &mut Vec<u8>, watch: &Watch) {
    out.extend_from_slice(&watch.seen.to_le_bytes());
    for Side { ratio, seen, expected, found } in watch.sides {
        push_numbers(out, [ratio, seen, expected, found]);
    }
}

fn push_alert(out: &mut Vec<u8>, alert: &Alert) {
    push_text(out, alert.model.as_str());
    out.push(match alert.what {
        Watched::Quality => 0,
        Watched::Cost => 1,
        Watched::Latency => 2,
    });
    out.push(match alert.direction {
        Direction::Up => 0,
        Direction::Down => 1,
    });
    out.extend_from_slice(&alert.at_seq.to_le_bytes());
    push_numbers(out, [alert.before, alert.after]);
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (taken, left) = self.0.split_first_chunk::<N>().ok_or(StateError::Truncated)?;
        self.0 = left;
        Ok(*taken)
    }

    fn length(&mut self) -> Result<usize, StateError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn text(&mut self) -> Result<String, StateError> {
        let length = self.length()?;
        let (taken, left) = self.0.split_at_checked(length).ok_or(StateError::Truncated)?;
        self.0 = left;
        String::from_utf8(taken.to_vec()).map_err(|_| StateError::Damaged)
    }

    fn integer(&mut self) -> Result<u64, StateError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn numbers<const N: usize>(&mut self) -> Result<[f64; N], StateError> {
        let mut numbers = [0.0; N];
        for number in &mut numbers {
            *number = f64::from_le_bytes(self.array()?);
        }
        Ok(numbers)
    }

    fn line(&mut self) -> Result<LogLine, StateError> {
        let [n] = self.numbers()?;
        Ok(LogLine { n, sums: self.numbers()? })
    }

    fn alarm(&mut self) -> Result<Alarm, StateError> {
        Ok(Alarm { labels: self.integer()?, resets: self.integer()?, sums: self.numbers()? })
    }

    fn watch(&mut self) -> Result<Watch, StateError> {
        let seen = self.integer()?;
        let mut sides = [Side::default(); 2];
        for side in &mut sides {
            let [ratio, seen, expected, found] = self.numbers()?;
            *side = Side { ratio, seen, expected, found };
        }
        Ok(Watch { seen, sides })
    }

    fn alert(&mut self) -> Result<Alert, StateError> {
        let model = ModelName::from(self.text()?);
        let what = match self.array()? {
            [0] => Watched::Quality,
            [1] => Watched::Cost,
            [2] => Watched::Latency,
            [_] => return Err(StateError::Damaged),
        };
        let direction = match self.array()? {
            [0] => Direction::Up,
            [1] => Direction::Down,
            [_] => return Err(StateError::Damaged),
        };
        let at_seq = self.integer()?;
        let [before, after] = self.numbers()?;
        Ok(Alert { model, what, direction, at_seq, before, after })
    }
}
