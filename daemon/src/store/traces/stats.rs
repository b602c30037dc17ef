//! Statistics of the models, written in the same transaction as the traces they count.
//!
//! A row is a [`Tally`] of one model, task type and day (UTC), so pruning and deleting traces loses
//! none of it. Days older than the traces that are kept are folded into one row each, day 0, so the
//! table does not grow with the age of the installation.

use std::collections::{BTreeMap, HashMap};

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::{ModelName, TaskType};
use pointsman_router::trace::Trace;
use rusqlite::{Connection, OptionalExtension, params};

use super::tally::{Tally, count_trace};
use crate::store::unreadable;

/// Statistics of one model for one task type and day.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelStats {
    /// The model, registered still or not.
    pub model: ModelName,
    /// The task type, given or inferred.
    pub task: TaskType,
    /// Days since 1970 in UTC; 0 holds all days before the kept traces.
    pub day: i64,
    /// What was counted.
    pub tally: Tally,
}

/// All statistics of a store.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stats {
    /// All decisions so far, by task type.
    pub decisions: BTreeMap<TaskType, u64>,
    /// By model, then task type, then day.
    pub models: Vec<ModelStats>,
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Days since 1970 in UTC.
pub(super) fn day_of(at: Timestamp) -> i64 {
    at.micros().div_euclid(MICROS_PER_DAY)
}

type Key = (ModelName, TaskType, i64);

/// What one batch adds, gathered before it is written: a batch has many traces of few models.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    decisions: HashMap<(TaskType, i64), u64>,
    tallies: HashMap<Key, Tally>,
}

impl Gathered {
    pub(super) fn trace(&mut self, trace: &Trace) {
        let (task, day) = (&trace.decision.task.name, day_of(trace.at));
        *self.decisions.entry((task.clone(), day)).or_default() += 1;
        count_trace(trace, |model, count| {
            count(self.tallies.entry((model.clone(), task.clone(), day)).or_default());
        });
    }

    pub(super) fn report(&mut self, model: &ModelName, task: &TaskType, at: Timestamp, tally: &Tally) {
        self.tallies.entry((model.clone(), task.clone(), day_of(at))).or_default().add(tally);
    }

    pub(super) fn write(self, conn: &Connection) -> rusqlite::Result<()> {
        let mut more = conn.prepare_cached(
            "INSERT INTO decision_stats (task, day, decisions) VALUES (?1, ?2, ?3)
             ON CONFLICT (task, day) DO UPDATE SET decisions = decisions + excluded.decisions",
        )?;
        for ((task, day), decisions) in self.decisions {
            more.execute(params![task.as_str(), day, decisions])?;
        }
        self.tallies.into_iter().try_for_each(|(key, tally)| add(conn, &key, &tally))
    }
}

fn add(conn: &Connection, (model, task, day): &Key, more: &Tally) -> rusqlite::Result<()> {
    let stored: Option<String> = conn
        .prepare_cached("SELECT tally FROM model_stats WHERE model = ?1 AND task = ?2 AND day = ?3")?
        .query_row(params![model.as_str(), task.as_str(), day], |row| row.get(0))
        .optional()?;
    let mut sum = stored.as_deref().map(parse).transpose()?.unwrap_or_default();
    sum.add(more);
    let text =
        serde_json::to_string(&sum).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    conn.prepare_cached("INSERT OR REPLACE INTO model_stats (model, task, day, tally) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![model.as_str(), task.as_str(), day, text])?;
    Ok(())
}

fn parse(text: &str) -> rusqlite::Result<Tally> {
    serde_json::from_str(text).map_err(|error| unreadable(3, error))
}

pub(super) fn read(conn: &Connection) -> rusqlite::Result<Stats> {
    let decisions = conn
        .prepare_cached("SELECT task, sum(decisions) FROM decision_stats GROUP BY task")?
        .query_map((), |row| Ok((TaskType::from(row.get::<_, String>(0)?), row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let models = conn
        .prepare_cached("SELECT model, task, day, tally FROM model_stats ORDER BY model, task, day")?
        .query_map((), |row| {
            Ok(ModelStats {
                model: ModelName::from(row.get::<_, String>(0)?),
                task: TaskType::from(row.get::<_, String>(1)?),
                day: row.get(2)?,
                tally: parse(row.get_ref(3)?.as_str()?)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(Stats { decisions, models })
}

/// Folds the days before this one into day 0.
pub(super) fn fold_before(conn: &Connection, day: i64) -> rusqlite::Result<()> {
    let old: Vec<ModelStats> = read(conn)?.models.into_iter().filter(|row| row.day > 0 && row.day < day).collect();
    for row in old {
        add(conn, &(row.model.clone(), row.task.clone(), 0), &row.tally)?;
        conn.prepare_cached("DELETE FROM model_stats WHERE model = ?1 AND task = ?2 AND day = ?3")?
            .execute(params![row.model.as_str(), row.task.as_str(), row.day])?;
    }
    conn.execute(
        "INSERT INTO decision_stats (task, day, decisions)
         SELECT task, 0, sum(decisions) FROM decision_stats WHERE day > 0 AND day < ?1 GROUP BY task
         ON CONFLICT (task, day) DO UPDATE SET decisions = decisions + excluded.decisions",
        [day],
    )?;
    conn.execute("DELETE FROM decision_stats WHERE day > 0 AND day < ?1", [day])?;
    Ok(())
}
