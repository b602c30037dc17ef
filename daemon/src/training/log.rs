//! The log as training and evaluation read it: each trace with what was reported and what was said of it.
//!
//! A log ends where it ended when it was opened: traces, reports and feedback that come later are not in
//! it, so every reading gives the same, except for what is pruned or deleted meanwhile. Reading
//! uses connections of its own and holds no snapshot between two batches; one trace at a time is more
//! than bytes. It blocks, and is for threads that may.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use pointsman_router::ids::DecisionId;
use pointsman_router::trace::{Trace, TraceStatus};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use crate::reports::joined;
use crate::store::StoreError;
use crate::store::ledger::{Said, said_of};
use crate::store::traces::{Report, StoredTrace, reports_in, traces_between};

/// Traces that are read at once.
const BATCH: usize = 256;

/// Which part of the stores to read.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reach {
    /// The most traces, the newest; `None`: all.
    pub rows_max: Option<u64>,
    /// The share of all feedback, the latest, that is left out, and the traces after it with it.
    pub left_out: f64,
}

/// A trace and what feedback says of it.
#[derive(Debug, Clone)]
pub struct LoggedTrace {
    /// Its place.
    pub seq: u64,
    /// The trace, with what its caller reported.
    pub trace: Trace,
    /// What was said of it.
    pub said: Said,
}

/// The stored traces up to a fixed end, oldest first.
#[derive(Debug, Clone)]
pub struct StoredLog {
    traces: PathBuf,
    ledger: PathBuf,
    after: u64,
    through: u64,
    feedback_through: u64,
    rows: u64,
}

impl StoredLog {
    /// Fixes begin and end. What is still queued is not in it.
    ///
    /// # Errors
    /// What opening or reading met.
    pub fn open(state_dir: &Path, reach: Reach) -> Result<Self, StoreError> {
        let (traces, ledger) = (state_dir.join("traces.db"), state_dir.join("ledger.db"));
        let (conn, said) = (connect(&traces)?, connect(&ledger)?);
        let feedback_through = feedback_at(&said, 1.0 - reach.left_out)?;
        let last: u64 = conn.query_row("SELECT ifnull(max(seq), 0) FROM traces", (), |row| row.get(0))?;
        let through = match judged_by(&said, feedback_through)?.filter(|_| reach.left_out > 0.0) {
            Some(id) => place_of(&conn, id)?.unwrap_or(last),
            None => last,
        };
        let after = match reach.rows_max {
            Some(rows) => conn
                .query_row(
                    "SELECT seq FROM traces WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2",
                    params![through, rows],
                    |row| row.get(0),
                )
                .optional()?
                .unwrap_or(0),
            None => 0,
        };
        let rows = conn.query_row(
            "SELECT count(*) FROM traces WHERE seq > ?1 AND seq <= ?2",
            params![after, through],
            |row| row.get(0),
        )?;
        Ok(Self { traces, ledger, after, through, feedback_through, rows })
    }

    /// The sequence up to which this share of all feedback was given, the earliest.
    ///
    /// # Errors
    /// What reading met.
    pub fn feedback_at(&self, share: f64) -> Result<u64, StoreError> {
        feedback_at(&connect(&self.ledger)?, share)
    }

    /// About how many traces there are.
    #[must_use]
    pub fn len_hint(&self) -> u64 {
        self.rows
    }

    /// Sequence of the last feedback that is in it.
    #[must_use]
    pub fn feedback_through(&self) -> u64 {
        self.feedback_through
    }

    /// All traces, oldest first.
    ///
    /// # Errors
    /// What opening the files met; what reading met comes in place of a trace.
    pub fn read(&self) -> Result<Reading<'_>, StoreError> {
        Ok(Reading {
            log: self,
            traces: connect(&self.traces)?,
            ledger: connect(&self.ledger)?,
            after: self.after,
            batch: VecDeque::new(),
            ended: false,
        })
    }
}

/// A reading under way.
#[derive(Debug)]
pub struct Reading<'a> {
    log: &'a StoredLog,
    traces: Connection,
    ledger: Connection,
    after: u64,
    batch: VecDeque<StoredTrace>,
    ended: bool,
}

impl Reading<'_> {
    fn next_trace(&mut self) -> Result<Option<LoggedTrace>, StoreError> {
        if self.batch.is_empty() && !self.ended {
            let span = (self.after, self.log.through);
            self.batch = traces_between(&self.traces, span, BATCH)?.into();
            self.ended = self.batch.len() < BATCH;
        }
        let Some(stored) = self.batch.pop_front() else { return Ok(None) };
        self.after = stored.seq;
        let mut trace = stored.trace()?;
        let id = trace.decision.id;
        if trace.status == TraceStatus::Decided {
            let reports = self.reports(id)?;
            trace = joined(trace, &reports)
                .map_err(|error| StoreError::Corrupt { detail: format!("a report of {id}: {error}") })?;
        }
        let said = said_of(&self.ledger, id, self.log.feedback_through)?;
        Ok(Some(LoggedTrace { seq: stored.seq, trace, said }))
    }

    fn reports(&self, id: DecisionId) -> Result<Vec<Report>, StoreError> {
        Ok(reports_in(&self.traces, id)?)
    }
}

impl Iterator for Reading<'_> {
    type Item = Result<LoggedTrace, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_trace().transpose();
        if let Some(Err(_)) = next {
            // Whoever goes on after a fault must not read the same row for ever.
            (self.ended, self.batch) = (true, VecDeque::new());
        }
        next
    }
}

/// The sequence up to which this share of all feedback was given.
fn feedback_at(ledger: &Connection, share: f64) -> Result<u64, StoreError> {
    let count: u64 = ledger.query_row("SELECT count(*) FROM feedback", (), |row| row.get(0))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is a count")]
    let wanted = (share.clamp(0.0, 1.0) * count as f64).round() as u64;
    let Some(before) = wanted.checked_sub(1) else { return Ok(0) };
    let sql = "SELECT seq FROM feedback ORDER BY seq LIMIT 1 OFFSET ?1";
    Ok(ledger.query_row(sql, [before], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// The decision that a piece of feedback judges.
fn judged_by(ledger: &Connection, seq: u64) -> Result<Option<DecisionId>, StoreError> {
    let id =
        ledger.query_row("SELECT decision FROM feedback WHERE seq = ?1", [seq], |row| row.get(0)).optional()?;
    Ok(id.map(DecisionId::from_bytes))
}

fn place_of(traces: &Connection, id: DecisionId) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT seq FROM traces WHERE decision_id = ?1";
    Ok(traces.query_row(sql, [id.as_bytes()], |row| row.get(0)).optional()?)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let conn =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.pragma_update(None, "mmap_size", 0)?;
    Ok(conn)
}
