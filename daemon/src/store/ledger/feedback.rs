//! Feedback, append-only: what was said stays, what was said last counts.
//!
//! Whoever says the same again about the same decision and model gets the first acknowledgement
//! again and nothing is written; whoever says something else adds a row that corrects the one
//! before. The sequence of the rows is the order in which policies learn: the subscriber of the
//! store hears of every row after its commit, in that order, with the labels that counted before it
//! and those that count now. Labels are made once, in the transaction that orders the rows, and kept
//! with the row: [`LedgerStore::scan_feedback`] gives the very same to a rebuild, whatever was
//! reported or changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pointsman_router::clock::Timestamp;
use pointsman_router::feedback::{Entry, Verdict};
use pointsman_router::ids::{DecisionId, ModelName, PolicyVersion, TaskType};
use pointsman_router::trace::Trace;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use tokio::sync::oneshot;

use super::{LedgerStore, answer, kept, number, verdict};
use crate::store::{StoreError, unreadable};

/// Feedback that was held against its trace.
#[derive(Debug, Clone, PartialEq)]
pub struct NewFeedback {
    /// The decision that it judges.
    pub decision: DecisionId,
    /// The one model that it judges; `None`: the merged answer.
    pub model: Option<ModelName>,
    /// Who says so.
    pub source: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What the verdict comes to, in [0, 1].
    pub score: f64,
    /// A note for people.
    pub comment: String,
    /// When it came.
    pub at: Timestamp,
    /// How much of all information its source may be while it departs from the others; `None`: nobody asks.
    pub departing_share: Option<f64>,
    /// The task type of the decision, for statistics.
    pub task: TaskType,
    /// The policy that decided.
    pub policy: PolicyVersion,
    /// The model whose spelling the merged answer has, where there was an answer.
    pub answer_model: Option<ModelName>,
    /// The models that were chosen, the first pick first.
    pub chosen: Vec<ModelName>,
}

/// Feedback as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedbackRow {
    /// Its place in the order of all feedback.
    pub seq: u64,
    /// What was said.
    pub feedback: NewFeedback,
    /// The row that it corrects.
    pub corrects: Option<u64>,
    /// Whether its trace was lost, so that it teaches nothing.
    pub orphan: bool,
    /// What all feedback up to this row says of each model.
    pub labels: Labels,
}

/// The label that counts for each model of a decision, in [0, 1].
pub type Labels = BTreeMap<ModelName, f64>;

impl FeedbackRow {
    /// What of it decides about labels.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Self::entry_of(&self.feedback, self.seq)
    }

    fn entry_of(feedback: &NewFeedback, seq: u64) -> Entry {
        Entry {
            seq,
            model: feedback.model.clone(),
            source: feedback.source.clone(),
            verdict: feedback.verdict.clone(),
            score: feedback.score,
        }
    }
}

/// A row that was committed, and what counted before it.
#[derive(Debug, Clone)]
pub struct FeedbackCommitted {
    /// The row.
    pub row: FeedbackRow,
    /// The labels of the same decision before this row.
    pub labels_before: Labels,
    /// The score of its merged answer before this row, and with it.
    pub answer: (Option<f64>, Option<f64>),
    /// The trace that it judges and its place, where it is at hand: live, not in a scan.
    pub trace: Option<(u64, Arc<Trace>)>,
}

/// What became of submitted feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckStatus {
    /// It was the first of its decision, model and source.
    Recorded,
    /// The same had been said; nothing was written.
    Repeated,
    /// Something else had been said, which it corrects.
    Corrected,
}

/// The durable acknowledgement of feedback.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ack {
    /// What became of it.
    pub status: AckStatus,
    /// The row that says it: of a repeat, the row that had said it.
    pub seq: u64,
    /// What the verdict comes to, as it is kept.
    pub score: f64,
}

/// What feedback says of one model at one task, over all time.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedbackStat {
    /// The model; `None`: the merged answer.
    pub model: Option<ModelName>,
    /// The task type.
    pub task: TaskType,
    /// How many verdicts count.
    pub judged: u64,
    /// The sum of their scores.
    pub score_sum: f64,
}

impl LedgerStore {
    /// Keeps feedback on a trace, which the subscriber gets too, and acknowledges it once a power cut cannot take it back. Dropping
    /// the future does not take it back either. `label` says what all entries of the decision, this one
    /// last, come to for each model.
    ///
    /// # Errors
    /// What the store met: then nothing was kept.
    pub async fn submit_feedback(
        &self,
        feedback: NewFeedback,
        trace: Option<(u64, Arc<Trace>)>,
        label: impl FnOnce(&[Entry]) -> Labels + Send + 'static,
    ) -> Result<Ack, StoreError> {
        // A place with the subscriber first: after the commit nothing may wait or fail.
        let place = match &self.subscriber {
            Some(subscriber) => subscriber.clone().reserve_owned().await.ok(),
            None => None,
        };
        let (reply, acknowledged) = oneshot::channel();
        let work = move |tx: &Transaction<'_>| record(tx, feedback, label);
        let done = move |committed: Result<(Ack, Option<FeedbackCommitted>), StoreError>| {
            let ack = committed.map(|(ack, row)| {
                if let (Some(place), Some(row)) = (place, row) {
                    place.send(FeedbackCommitted { trace, ..row });
                }
                ack
            });
            // Nobody waits any more: it is kept all the same.
            let _ = reply.send(ack);
        };
        self.writer.submit(work, done);
        acknowledged.await.map_err(|_| StoreError::Closed)?
    }

    /// All entries of a decision, by sequence, corrected ones included.
    ///
    /// # Errors
    /// What the store met.
    pub async fn feedback_entries(&self, decision: DecisionId) -> Result<Vec<Entry>, StoreError> {
        self.readers.read(move |conn| entries(conn, decision)).await
    }

    /// All rows on a decision, by sequence, corrected ones included.
    ///
    /// # Errors
    /// What the store met.
    pub async fn feedback_of(&self, decision: DecisionId) -> Result<Vec<FeedbackRow>, StoreError> {
        self.readers
            .read(move |conn| {
                let sql = format!("SELECT {COLUMNS} FROM feedback WHERE decision = ?1 ORDER BY seq");
                conn.prepare_cached(&sql)?.query_map([decision.as_bytes()], feedback_row)?.collect()
            })
            .await
    }

    /// Up to `limit` rows after `after`, by sequence, each with the labels before it: what the
    /// subscriber heard, orphans included, imported ones left out.
    ///
    /// # Errors
    /// What the store met.
    pub async fn scan_feedback(&self, after: u64, limit: usize) -> Result<Vec<FeedbackCommitted>, StoreError> {
        self.readers
            .read(move |conn| {
                let sql = format!("SELECT {COLUMNS} FROM feedback WHERE seq > ?1 AND imported_at_micros IS NULL ORDER BY seq LIMIT ?2");
                let rows: Vec<FeedbackRow> = conn
                    .prepare_cached(&sql)?
                    .query_map([kept(after), kept(limit as u64)], feedback_row)?
                    .collect::<Result<_, _>>()?;
                rows.into_iter()
                    .map(|row| {
                        let labels_before = labels(conn, row.feedback.decision, row.seq)?;
                        let answer = answer::around(&entries(conn, row.feedback.decision)?, row.seq);
                        Ok(FeedbackCommitted { row, labels_before, answer, trace: None })
                    })
                    .collect()
            })
            .await
    }

    /// The sequence of the last row that was ever kept; zero when there was none.
    ///
    /// # Errors
    /// What the store met.
    pub async fn feedback_through(&self) -> Result<u64, StoreError> {
        self.readers
            .read(|conn| {
                // AUTOINCREMENT remembers the last sequence even where its row was deleted.
                let sql = "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'feedback'), 0)";
                conn.query_row(sql, (), |row| number(row, 0))
            })
            .await
    }

    /// When the row with this sequence came; `None`: it is gone.
    ///
    /// # Errors
    /// What the store met.
    pub async fn feedback_at(&self, seq: u64) -> Result<Option<Timestamp>, StoreError> {
        let sql = "SELECT at_micros FROM feedback WHERE seq = ?1";
        let at = |row: &Row<'_>| row.get(0).map(Timestamp::from_micros);
        self.readers.read(move |conn| conn.prepare_cached(sql)?.query_row([kept(seq)], at).optional()).await
    }

    /// Marks rows whose traces were lost: they stay, and teach nothing.
    ///
    /// # Errors
    /// What the store met: then none is marked.
    pub async fn mark_orphans(&self, seqs: Vec<u64>) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                let mut mark = tx.prepare_cached("UPDATE feedback SET orphan = 1 WHERE seq = ?1")?;
                seqs.into_iter().try_for_each(|seq| mark.execute([kept(seq)]).map(|_| ()))
            })
            .await
    }

    /// Deletes all feedback of decisions whose traces are deleted, and their replies that an idempotency
    /// key keeps; statistics stay, sequences are not given out again. How many pieces of feedback.
    ///
    /// # Errors
    /// What the store met: then none is deleted.
    pub async fn delete_feedback(&self, decisions: Vec<DecisionId>) -> Result<usize, StoreError> {
        self.writer
            .run(move |tx| {
                let mut feedback = tx.prepare_cached("DELETE FROM feedback WHERE decision = ?1")?;
                let mut replies = tx.prepare_cached("DELETE FROM idempotency WHERE decision = ?1")?;
                let mut delete = |decision: DecisionId| {
                    replies.execute([decision.as_bytes()])?;
                    feedback.execute([decision.as_bytes()])
                };
                decisions.into_iter().map(&mut delete).sum()
            })
            .await
    }

    /// Deletes up to `limit` rows up to `through` on decisions that were made before the millisecond of
    /// `at`, which their ids tell, or that were imported before; statistics stay, sequences are not given out again. Whether rows may
    /// remain.
    ///
    /// # Errors
    /// What the store met: then none is deleted.
    pub async fn prune_feedback(&self, at: Timestamp, through: u64, limit: usize) -> Result<bool, StoreError> {
        let mut first_kept = [0_u8; 16];
        let millis = u64::try_from(at.micros() / 1_000).unwrap_or(0).to_be_bytes();
        // A UUIDv7 begins with 48 bits of milliseconds.
        first_kept.iter_mut().zip(millis.iter().skip(2)).for_each(|(to, from)| *to = *from);
        self.writer
            .run(move |tx| {
                let deleted = tx
                    .prepare_cached(
                        "DELETE FROM feedback WHERE seq IN
                         (SELECT seq FROM feedback WHERE seq <= ?2 AND
                          CASE WHEN imported_at_micros IS NULL THEN decision < ?1 ELSE imported_at_micros < ?4 END
                          ORDER BY decision LIMIT ?3)",
                    )?
                    .execute(params![first_kept, kept(through), kept(limit as u64), at.micros()])?;
                Ok(deleted == limit)
            })
            .await
    }

    /// How many rows are kept.
    ///
    /// # Errors
    /// What the store met.
    pub async fn feedback_rows(&self) -> Result<u64, StoreError> {
        self.readers.read(|conn| conn.query_row("SELECT count(*) FROM feedback", (), |row| number(row, 0))).await
    }

    /// What feedback says of each model at each task; a correction counts in place of what it
    /// corrects.
    ///
    /// # Errors
    /// What the store met.
    pub async fn feedback_stats(&self) -> Result<Vec<FeedbackStat>, StoreError> {
        self.readers
            .read(|conn| {
                conn.prepare_cached(
                    "SELECT model, task, judged, score_sum FROM feedback_stats ORDER BY model, task",
                )?
                .query_map((), |row| {
                    let model: String = row.get(0)?;
                    Ok(FeedbackStat {
                        model: (!model.is_empty()).then(|| ModelName::from(model)),
                        task: TaskType::from(row.get::<_, String>(1)?),
                        judged: number(row, 2)?,
                        score_sum: row.get(3)?,
                    })
                })?
                .collect()
            })
            .await
    }
}

/// Appends a row, unless the last one of the same decision, model and source says the same.
fn record(
    tx: &Transaction<'_>,
    feedback: NewFeedback,
    label: impl FnOnce(&[Entry]) -> Labels,
) -> rusqlite::Result<(Ack, Option<FeedbackCommitted>)> {
    let mut entries = entries(tx, feedback.decision)?;
    let last = entries.iter().rev().find(|e| e.model == feedback.model && e.source == feedback.source);
    if let Some(last) = last
        && verdict::encode(&last.verdict) == verdict::encode(&feedback.verdict)
    {
        return Ok((Ack { status: AckStatus::Repeated, seq: last.seq, score: last.score }, None));
    }
    let corrects = last.map(|last| last.seq);
    let corrected = last.map(|last| last.score);
    let labels_before = labels(tx, feedback.decision, NEWEST)?;
    let entry = FeedbackRow::entry_of(&feedback, entries.last().map_or(0, |e| e.seq) + 1);
    entries.push(entry);
    let labels = label(&entries);
    let answer = answer::around(&entries, entries.last().map_or(0, |entry| entry.seq));
    count(tx, &feedback, corrected)?;
    count_labels(tx, &feedback.task, &labels_before, &labels)?;
    let seq = insert(tx, &feedback, corrects, &labels)?;
    let status = if corrects.is_some() { AckStatus::Corrected } else { AckStatus::Recorded };
    let ack = Ack { status, seq, score: feedback.score };
    let row = FeedbackRow { seq, feedback, corrects, orphan: false, labels };
    Ok((ack, Some(FeedbackCommitted { row, labels_before, answer, trace: None })))
}

pub(super) fn insert(
    tx: &Transaction<'_>,
    feedback: &NewFeedback,
    corrects: Option<u64>,
    labels: &Labels,
) -> rusqlite::Result<u64> {
    let (kind, bytes) = verdict::encode(&feedback.verdict);
    let chosen: Vec<&str> = feedback.chosen.iter().map(ModelName::as_str).collect();
    let json = |error: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
    let (chosen, labels) =
        (serde_json::to_string(&chosen).map_err(json)?, serde_json::to_string(labels).map_err(json)?);
    tx.prepare_cached(
        "INSERT INTO feedback (decision, model, source, verdict_kind, verdict, score, comment, at_micros,
                               corrects_seq, task, policy, answer_model, chosen, labels, departing_share)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        feedback.decision.as_bytes(),
        feedback.model.as_ref().map(ModelName::as_str),
        feedback.source,
        kind,
        bytes,
        feedback.score,
        feedback.comment,
        feedback.at.micros(),
        corrects.map(kept),
        feedback.task.as_str(),
        feedback.policy.as_str(),
        feedback.answer_model.as_ref().map(ModelName::as_str),
        chosen,
        labels,
        feedback.departing_share,
    ])?;
    Ok(u64::try_from(tx.last_insert_rowid()).unwrap_or(0))
}

/// Counts a verdict on the merged answer, in place of the score that it corrects.
fn count(tx: &Transaction<'_>, feedback: &NewFeedback, corrected: Option<f64>) -> rusqlite::Result<()> {
    match feedback.model {
        None => add(tx, "", &feedback.task, (corrected, Some(feedback.score))),
        Some(_) => Ok(()),
    }
}

/// Counts what became of the label of each model.
fn count_labels(tx: &Transaction<'_>, task: &TaskType, before: &Labels, after: &Labels) -> rusqlite::Result<()> {
    let models: BTreeSet<&ModelName> = before.keys().chain(after.keys()).collect();
    models.into_iter().try_for_each(|model| {
        add(tx, model.as_str(), task, (before.get(model).copied(), after.get(model).copied()))
    })
}

/// Counts `new` in place of `old`.
fn add(
    tx: &Transaction<'_>,
    model: &str,
    task: &TaskType,
    (old, new): (Option<f64>, Option<f64>),
) -> rusqlite::Result<()> {
    let judged = i64::from(new.is_some()) - i64::from(old.is_some());
    tx.prepare_cached(
        "INSERT INTO feedback_stats (model, task, judged, score_sum) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (model, task) DO UPDATE SET judged = judged + excluded.judged, score_sum = score_sum + excluded.score_sum",
    )?
    .execute(params![model, task.as_str(), judged, new.unwrap_or(0.0) - old.unwrap_or(0.0)])
    .map(|_| ())
}

/// Every row, however new.
const NEWEST: u64 = i64::MAX as u64;

/// The labels that counted for a decision before a sequence.
fn labels(conn: &Connection, decision: DecisionId, before: u64) -> rusqlite::Result<Labels> {
    let found = conn
        .prepare_cached("SELECT labels FROM feedback WHERE decision = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT 1")?
        .query_row(params![decision.as_bytes(), kept(before)], |row| read_labels(row, 0))
        .optional()?;
    Ok(found.unwrap_or_default())
}

pub(super) fn read_labels(row: &Row<'_>, column: usize) -> rusqlite::Result<Labels> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|error| unreadable(column, error))
}

/// The entries of a decision, by sequence.
pub(super) fn entries(conn: &Connection, decision: DecisionId) -> rusqlite::Result<Vec<Entry>> {
    conn.prepare_cached(
        "SELECT seq, model, source, verdict_kind, verdict, score FROM feedback
         WHERE decision = ?1 ORDER BY seq",
    )?
    .query_map([decision.as_bytes()], |row| {
        Ok(Entry {
            seq: number(row, 0)?,
            model: row.get::<_, Option<String>>(1)?.map(ModelName::from),
            source: row.get(2)?,
            verdict: read_verdict(row, 3)?,
            score: row.get(5)?,
        })
    })?
    .collect()
}

const COLUMNS: &str = "seq, decision, model, source, verdict_kind, verdict, score, comment, at_micros, corrects_seq, \
                       orphan, task, policy, answer_model, chosen, labels, departing_share";

fn feedback_row(row: &Row<'_>) -> rusqlite::Result<FeedbackRow> {
    let chosen: Vec<String> =
        serde_json::from_str(row.get_ref(14)?.as_str()?).map_err(|error| unreadable(14, error))?;
    let corrects = row.get::<_, Option<i64>>(9)?.is_some().then(|| number(row, 9)).transpose()?;
    Ok(FeedbackRow {
        seq: number(row, 0)?,
        feedback: NewFeedback {
            decision: DecisionId::from_bytes(row.get(1)?),
            model: row.get::<_, Option<String>>(2)?.map(ModelName::from),
            source: row.get(3)?,
            verdict: read_verdict(row, 4)?,
            score: row.get(6)?,
            comment: row.get(7)?,
            at: Timestamp::from_micros(row.get(8)?),
            departing_share: row.get(16)?,
            task: TaskType::from(row.get::<_, String>(11)?),
            policy: PolicyVersion::from(row.get::<_, String>(12)?),
            answer_model: row.get::<_, Option<String>>(13)?.map(ModelName::from),
            chosen: chosen.into_iter().map(ModelName::from).collect(),
        },
        corrects,
        orphan: row.get(10)?,
        labels: read_labels(row, 15)?,
    })
}

/// The verdict in a column of its kind and the one after it.
fn read_verdict(row: &Row<'_>, kind: usize) -> rusqlite::Result<Verdict> {
    verdict::decode(row.get_ref(kind)?.as_str()?, row.get_ref(kind + 1)?.as_blob()?)
        .ok_or_else(|| unreadable(kind + 1, "not the bytes of a verdict"))
}
