//! Rows of `traces.db`: the schema, and every statement that inserts or reads traces and reports.
//!
//! The columns beside the body exist to be filtered by; the body alone is the trace. Lists of models
//! and tags are one text column each, their parts between separators, because a side table would
//! cost an insertion as much as the trace itself.

use std::collections::BTreeMap;

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::{DecisionId, ModelName, PolicyVersion, TaskType};
use pointsman_router::request::TENANT_TAG;
use pointsman_router::trace::{Trace, TraceStatus};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, params_from_iter};

use super::body::StoredTrace;
use super::{PruneMark, Report};
use crate::store::{Migration, unreadable};
use crate::wire::trace::{Kept, status_to_wire};

pub(super) const SCHEMA: &[Migration] = &[Migration::new(FIRST), Migration::new(IMPORTED)];

/// Whether a trace happened elsewhere.
const IMPORTED: &str = "ALTER TABLE traces ADD COLUMN imported INTEGER NOT NULL DEFAULT 0";

const FIRST: &str = "CREATE TABLE traces (
       seq INTEGER PRIMARY KEY,
       decision_id BLOB NOT NULL UNIQUE,
       at_micros INTEGER NOT NULL,
       tenant TEXT,
       task TEXT NOT NULL,
       policy TEXT NOT NULL,
       status INTEGER NOT NULL,
       models TEXT NOT NULL,
       tags TEXT NOT NULL,
       caller_ref TEXT,
       cost_nanos INTEGER NOT NULL,
       body BLOB NOT NULL
     ) STRICT;
     CREATE INDEX traces_by_time ON traces (at_micros);
     CREATE INDEX traces_by_tenant ON traces (tenant) WHERE tenant IS NOT NULL;
     CREATE TABLE reports (
       seq INTEGER PRIMARY KEY,
       decision_id BLOB NOT NULL,
       model TEXT NOT NULL,
       body BLOB NOT NULL,
       UNIQUE (decision_id, model)
     ) STRICT;
     CREATE TABLE model_stats (
       model TEXT NOT NULL,
       task TEXT NOT NULL,
       day INTEGER NOT NULL,
       tally TEXT NOT NULL,
       PRIMARY KEY (model, task, day)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE decision_stats (
       task TEXT NOT NULL,
       day INTEGER NOT NULL,
       decisions INTEGER NOT NULL,
       PRIMARY KEY (task, day)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;";

/// Which traces. Everything that is set must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TraceFilter {
    /// A model that was chosen.
    pub model: Option<ModelName>,
    /// The task type, given or inferred.
    pub task: Option<TaskType>,
    /// Tags that the request had, each with exactly this value.
    pub tags: BTreeMap<String, String>,
    /// The one tenant that whoever asks may see, beside what the tags say.
    pub tenant: Option<String>,
    /// Admitted at this time or later.
    pub from: Option<Timestamp>,
    /// Admitted before this time.
    pub before: Option<Timestamp>,
    /// What became of the request.
    pub status: Option<TraceStatus>,
    /// The policy that chose.
    pub policy: Option<PolicyVersion>,
    /// The caller's own id of the request.
    pub caller_ref: Option<String>,
}

/// Which part of the matching traces, and in which direction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Span {
    /// Newest first, below this place.
    Below(u64),
    /// Oldest first, above the one and up to the other place.
    Between { after: u64, through: u64 },
}

/// Stands between the parts of a list; a part that holds it has it replaced.
const SEPARATOR: char = '\u{1f}';

fn part(text: &str) -> String {
    text.replace(SEPARATOR, " ")
}

fn list<'a>(parts: impl Iterator<Item = std::borrow::Cow<'a, str>>) -> String {
    parts.fold(String::from(SEPARATOR), |mut list, text| {
        list.push_str(&part(&text));
        list.push(SEPARATOR);
        list
    })
}

fn whole(text: &str) -> String {
    format!("{SEPARATOR}{}{SEPARATOR}", part(text))
}

/// A place as SQLite keeps it; what does not fit is beyond every place.
pub(super) fn sql(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// Where a trace happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Here,
    Elsewhere,
}

/// Stores a trace; false when its decision has one already.
pub(super) fn insert_trace(
    tx: &Transaction<'_>,
    seq: u64,
    trace: &Trace,
    (kept, origin): (Kept, Origin),
) -> rusqlite::Result<bool> {
    let stored = StoredTrace::of(seq, trace, kept);
    let models = list(trace.decision.chosen().map(|c| c.model.as_str().into()));
    let tags = list(trace.tags.iter().map(|(key, value)| format!("{key}={value}").into()));
    let inserted = tx
        .prepare_cached(
            "INSERT INTO traces (seq, decision_id, at_micros, tenant, task, policy, status, models, tags, caller_ref, cost_nanos, body, imported)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT (decision_id) DO NOTHING",
        )?
        .execute(params![
            sql(seq),
            trace.decision.id.as_bytes(),
            trace.at.micros(),
            trace.tags.get(TENANT_TAG),
            trace.decision.task.name.as_str(),
            trace.decision.policy.as_str(),
            i32::from(status_to_wire(trace.status)),
            models,
            tags,
            trace.caller_ref,
            trace.bill.spent().nanos(),
            stored.body,
            origin == Origin::Elsewhere,
        ])?;
    Ok(inserted > 0)
}

/// Stores a report; false when there is one of this model, or an end, already.
pub(super) fn insert_report(tx: &Transaction<'_>, report: &Report) -> rusqlite::Result<bool> {
    let inserted = tx
        .prepare_cached(
            "INSERT INTO reports (seq, decision_id, model, body) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (decision_id, model) DO NOTHING",
        )?
        .execute(params![
            sql(report.seq),
            report.decision.as_bytes(),
            report.model.as_ref().map_or("", ModelName::as_str),
            report.body,
        ])?;
    Ok(inserted > 0)
}

pub(super) fn set_mark(conn: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO marks (name, value) VALUES (?1, ?2)")?
        .execute(params![name, value])?;
    Ok(())
}

pub(super) fn mark(conn: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT value FROM marks WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

/// The last place that was ever given out, as far as the file knows.
pub(super) const LAST_SEQ: &str = "last_seq";
const PRUNED_SEQ: &str = "pruned_seq";
const PRUNED_AT: &str = "pruned_at_micros";

pub(super) fn set_prune_mark(conn: &Connection, through: PruneMark) -> rusqlite::Result<()> {
    set_mark(conn, PRUNED_SEQ, sql(through.seq))?;
    set_mark(conn, PRUNED_AT, through.at.micros())
}

pub(super) fn prune_mark(conn: &Connection) -> rusqlite::Result<Option<PruneMark>> {
    let (Some(seq), Some(at)) = (mark(conn, PRUNED_SEQ)?, mark(conn, PRUNED_AT)?) else { return Ok(None) };
    Ok(Some(PruneMark { seq: u64::try_from(seq).unwrap_or(0), at: Timestamp::from_micros(at) }))
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredTrace> {
    Ok(StoredTrace { seq: row.get(0)?, body: row.get(1)? })
}

pub(super) fn trace(conn: &Connection, id: DecisionId) -> rusqlite::Result<Option<StoredTrace>> {
    conn.prepare_cached("SELECT seq, body FROM traces WHERE decision_id = ?1")?
        .query_row([id.as_bytes()], stored)
        .optional()
}

/// Whether the trace of a decision happened elsewhere; false where there is none.
pub(super) fn is_imported(conn: &Connection, id: DecisionId) -> rusqlite::Result<bool> {
    let found = conn
        .prepare_cached("SELECT imported FROM traces WHERE decision_id = ?1")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(false))
}

/// Traces that happened here, for whoever books and learns.
pub(super) fn traces_after(conn: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<StoredTrace>> {
    conn.prepare_cached("SELECT seq, body FROM traces WHERE seq > ?1 AND imported = 0 ORDER BY seq LIMIT ?2")?
        .query_map(params![sql(after), limit], stored)?
        .collect()
}

/// Up to `limit` traces of a span, oldest first, read on a connection of the caller's.
///
/// # Errors
/// What SQLite met.
pub fn traces_between(
    conn: &Connection,
    (after, through): (u64, u64),
    limit: usize,
) -> rusqlite::Result<Vec<StoredTrace>> {
    conn.prepare_cached("SELECT seq, body FROM traces WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3")?
        .query_map(params![sql(after), sql(through), limit], stored)?
        .collect()
}

fn report(row: &Row<'_>) -> rusqlite::Result<Report> {
    let id: Vec<u8> = row.get(1)?;
    let id: [u8; 16] = id.try_into().map_err(|_| unreadable(1, "a decision id has sixteen bytes"))?;
    let model = Some(row.get::<_, String>(2)?).filter(|model| !model.is_empty());
    Ok(Report {
        seq: row.get(0)?,
        decision: DecisionId::from_bytes(id),
        model: model.map(ModelName::from),
        body: row.get(3)?,
    })
}

pub(super) fn reports_after(conn: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<Report>> {
    conn.prepare_cached("SELECT seq, decision_id, model, body FROM reports WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
        .query_map(params![sql(after), limit], report)?
        .collect()
}

/// The reports of a decision, in their order, read on a connection of the caller's.
///
/// # Errors
/// What SQLite met.
pub fn reports_of(conn: &Connection, id: DecisionId) -> rusqlite::Result<Vec<Report>> {
    conn.prepare_cached("SELECT seq, decision_id, model, body FROM reports WHERE decision_id = ?1 ORDER BY seq")?
        .query_map([id.as_bytes()], report)?
        .collect()
}

/// The matching traces of a span. Bodies are read for the chosen rows only, never sorted.
pub(super) fn matching(
    conn: &Connection,
    filter: &TraceFilter,
    span: Span,
    limit: usize,
) -> rusqlite::Result<Vec<StoredTrace>> {
    let (mut conditions, mut values) = conditions(filter);
    let order = match span {
        Span::Below(seq) => {
            conditions.push("seq < ?");
            values.push(sql(seq).into());
            "DESC"
        }
        Span::Between { after, through } => {
            conditions.extend(["seq > ?", "seq <= ?"]);
            values.extend([sql(after).into(), sql(through).into()]);
            "ASC"
        }
    };
    values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
    let text = format!(
        "SELECT t.seq, t.body FROM (SELECT seq FROM traces WHERE {} ORDER BY seq {order} LIMIT ?) AS chosen
         JOIN traces AS t ON t.seq = chosen.seq ORDER BY t.seq {order}",
        conditions.join(" AND ")
    );
    conn.prepare_cached(&text)?.query_map(params_from_iter(values), stored)?.collect()
}

fn conditions(filter: &TraceFilter) -> (Vec<&'static str>, Vec<Value>) {
    let TraceFilter { model, task, tags, tenant, from, before, status, policy, caller_ref } = filter;
    let text = |text: &str| Value::from(text.to_owned());
    let mut all: Vec<(&'static str, Value)> = Vec::new();
    all.extend(model.iter().map(|model| ("instr(models, ?) > 0", Value::from(whole(model.as_str())))));
    all.extend(task.iter().map(|task| ("task = ?", text(task.as_str()))));
    all.extend(tenant.iter().map(|tenant| ("tenant = ?", text(tenant))));
    all.extend(tags.get(TENANT_TAG).map(|tenant| ("tenant = ?", text(tenant))));
    all.extend(
        tags.iter().map(|(key, value)| ("instr(tags, ?) > 0", Value::from(whole(&format!("{key}={value}"))))),
    );
    all.extend(from.iter().map(|from| ("at_micros >= ?", Value::from(from.micros()))));
    all.extend(before.iter().map(|before| ("at_micros < ?", Value::from(before.micros()))));
    all.extend(status.iter().map(|status| ("status = ?", Value::from(i32::from(status_to_wire(*status))))));
    all.extend(policy.iter().map(|policy| ("policy = ?", text(policy.as_str()))));
    all.extend(caller_ref.iter().map(|caller_ref| ("caller_ref = ?", text(caller_ref))));
    all.into_iter().unzip()
}
