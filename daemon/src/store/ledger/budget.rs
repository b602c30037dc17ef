//! The durable half of the budget: what was leased of each window, and what was spent of it.
//!
//! Money is booked in sums, not by request: each committed trace and report has a sequence, and a
//! booking says "everything up to here", together with what that comes to, in one transaction. A
//! restart therefore books exactly what is missing, once. A window's lease is set, not added to: a
//! grant whose caller went away is overwritten by the next one and no money is lost.
//!
//! `leased` is all that may have been spent. What of it is neither booked nor given back when a
//! window is opened again belonged to requests that a crash cut off: it becomes `unknown` and counts
//! as spent. So book first what is missing, then open the window.

use std::collections::BTreeMap;

use pointsman_router::clock::Timestamp;
use pointsman_router::hold::{Bill, Hold};
use pointsman_router::money::NanoUsd;
use pointsman_router::trace::{Trace, TraceStatus};
use rusqlite::{Row, Transaction, params};

use super::{LedgerStore, kept, number};
use crate::store::{StoreError, unreadable};

/// What is to be booked for one window: differences, so an amount may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spend {
    /// Known or estimated costs.
    pub settled: NanoUsd,
    /// Money that counts as spent though nobody knows.
    pub unknown: NanoUsd,
    /// How much of it was above what had been held.
    pub overrun: NanoUsd,
}

impl Spend {
    /// What a trace books when it is first committed: its bill; for a decision whose caller makes the
    /// calls, its whole hold as unknown until it is reported. `None` where nothing was held.
    #[must_use]
    pub fn of_trace(trace: &Trace) -> Option<(Timestamp, Self)> {
        let hold = trace.hold?;
        let spend = match trace.status {
            TraceStatus::Decided => Self { unknown: hold.amount, ..Self::default() },
            TraceStatus::Answered | TraceStatus::Failed | TraceStatus::Cancelled => {
                Self::of_bill(&hold, trace.bill)
            }
        };
        Some((hold.window, spend))
    }

    /// What the report that ends a decision's hold books: its bill in place of the unknown hold.
    #[must_use]
    pub fn of_report(hold: &Hold, bill: Bill) -> (Timestamp, Self) {
        let spend = Self::of_bill(hold, bill);
        (hold.window, Self { unknown: spend.unknown.saturating_sub(hold.amount), ..spend })
    }

    fn of_bill(hold: &Hold, bill: Bill) -> Self {
        Self { settled: bill.settled, unknown: bill.unknown, overrun: bill.overrun(hold.amount) }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            settled: self.settled.saturating_add(other.settled),
            unknown: self.unknown.saturating_add(other.unknown),
            overrun: self.overrun.saturating_add(other.overrun),
        }
    }
}

/// Adds up what is to be booked, by the start of the window.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spends(BTreeMap<Timestamp, Spend>);

impl Spends {
    /// Adds one part.
    pub fn add(&mut self, (window, spend): (Timestamp, Spend)) {
        let sum = self.0.entry(window).or_default();
        *sum = sum.plus(spend);
    }
}

/// Everything after one mark and up to another. Marks are sequences of the trace store, which traces
/// and reports share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// The mark that there is now.
    pub after: u64,
    /// The mark that there is to be.
    pub through: u64,
    /// What lies between them.
    pub spends: Spends,
}

/// What became of a booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BookOutcome {
    /// It is booked.
    Booked,
    /// The mark is another: nothing was booked. Read on from there.
    MarkIs(u64),
}

/// What is kept of one window of a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowRow {
    /// When it began.
    pub start: Timestamp,
    /// When it ends; `None`: never.
    pub resets_at: Option<Timestamp>,
    /// What the budget amounts to; `None` where none is configured.
    pub amount: Option<NanoUsd>,
    /// What may have been spent.
    pub leased: NanoUsd,
    /// What was booked as known or estimated.
    pub settled: NanoUsd,
    /// What was booked as spent though nobody knows.
    pub unknown: NanoUsd,
    /// How much was booked above what had been held.
    pub overrun: NanoUsd,
}

impl WindowRow {
    /// All that was booked as spent.
    #[must_use]
    pub fn spent(&self) -> NanoUsd {
        self.settled.saturating_add(self.unknown)
    }
}

/// Why the lease of a window changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferKind {
    /// More was leased.
    Granted,
    /// The unused rest was given back.
    Returned,
    /// What a crash left open was booked as unknown.
    Lost,
}

impl TransferKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Returned => "returned",
            Self::Lost => "lost",
        }
    }
}

/// One line of the audit: the window's lease is the sum of what was granted less what was returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Its place in the order of all transfers.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub kind: TransferKind,
    /// How much.
    pub amount: NanoUsd,
    /// What was leased after it.
    pub leased: NanoUsd,
    /// What had been booked by then, all of it.
    pub spent: NanoUsd,
}

impl LedgerStore {
    /// Books what lies between two marks, or nothing where the mark is another.
    ///
    /// # Errors
    /// What the store met: then nothing was booked.
    pub async fn book(&self, budget: &str, booking: Booking) -> Result<BookOutcome, StoreError> {
        let budget = budget.to_owned();
        self.writer.run(move |tx| book(tx, &budget, &booking)).await
    }

    /// The sequence of the last trace or report that is booked; zero where none is.
    ///
    /// # Errors
    /// What the store met.
    pub async fn booked_through(&self) -> Result<u64, StoreError> {
        self.writer.run(mark).await
    }

    /// Opens a window, for the first time or again: `leased` then equals what is booked, and what a
    /// crash left between the two is unknown. Only while nobody holds money in it.
    ///
    /// # Errors
    /// What the store met: then the window is not open.
    pub async fn open_window(
        &self,
        budget: &str,
        window: (Timestamp, Option<Timestamp>),
        amount: Option<NanoUsd>,
        now: Timestamp,
    ) -> Result<WindowRow, StoreError> {
        let budget = budget.to_owned();
        self.writer.run(move |tx| open_window(tx, &budget, window, amount, now)).await
    }

    /// Sets what is leased of an open window.
    ///
    /// # Errors
    /// What the store met: then the earlier lease stands.
    pub async fn set_lease(
        &self,
        budget: &str,
        start: Timestamp,
        leased: NanoUsd,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let budget = budget.to_owned();
        self.writer.run(move |tx| set_lease(tx, &budget, start, leased, now)).await
    }

    /// The windows of a budget, the newest first, at most `limit`.
    ///
    /// # Errors
    /// What the store met.
    pub async fn windows(&self, budget: &str, limit: usize) -> Result<Vec<WindowRow>, StoreError> {
        let budget = budget.to_owned();
        self.readers
            .read(move |conn| {
                let sql = format!(
                    "SELECT {COLUMNS} FROM budget_window WHERE budget = ?1 ORDER BY start_micros DESC LIMIT ?2"
                );
                conn.prepare_cached(&sql)?.query_map(params![budget, kept(limit as u64)], window_row)?.collect()
            })
            .await
    }

    /// The audit of a window, oldest first.
    ///
    /// # Errors
    /// What the store met.
    pub async fn transfers(&self, budget: &str, start: Timestamp) -> Result<Vec<Transfer>, StoreError> {
        let budget = budget.to_owned();
        self.readers
            .read(move |conn| {
                conn.prepare_cached(
                    "SELECT seq, at_micros, kind, amount, leased, settled, unknown FROM transfers
                     WHERE budget = ?1 AND start_micros = ?2 ORDER BY seq",
                )?
                .query_map(params![budget, start.micros()], transfer_row)?
                .collect()
            })
            .await
    }
}

fn mark(tx: &Transaction<'_>) -> rusqlite::Result<u64> {
    tx.prepare_cached("SELECT through FROM budget_mark")?.query_row((), |row| number(row, 0))
}

fn book(tx: &Transaction<'_>, budget: &str, booking: &Booking) -> rusqlite::Result<BookOutcome> {
    let mark = mark(tx)?;
    if mark != booking.after || booking.through < mark {
        return Ok(BookOutcome::MarkIs(mark));
    }
    for (start, spend) in &booking.spends.0 {
        tx.prepare_cached("INSERT OR IGNORE INTO budget_window (budget, start_micros) VALUES (?1, ?2)")?
            .execute(params![budget, start.micros()])?;
        // Added here and not there: a sum that does not fit would be refused, and all that follows it.
        let WindowRow { settled, unknown, overrun, .. } = read_window(tx, budget, *start)?;
        let sum = Spend { settled, unknown, overrun }.plus(*spend);
        tx.prepare_cached(
            "UPDATE budget_window SET settled = ?3, unknown = ?4, overrun = ?5 WHERE budget = ?1 AND start_micros = ?2",
        )?
        .execute(params![budget, start.micros(), sum.settled.nanos(), sum.unknown.nanos(), sum.overrun.nanos()])?;
    }
    tx.prepare_cached("UPDATE budget_mark SET through = ?1")?.execute([kept(booking.through)])?;
    Ok(BookOutcome::Booked)
}

fn open_window(
    tx: &Transaction<'_>,
    budget: &str,
    (start, resets_at): (Timestamp, Option<Timestamp>),
    amount: Option<NanoUsd>,
    now: Timestamp,
) -> rusqlite::Result<WindowRow> {
    tx.execute(
        "INSERT INTO budget_window (budget, start_micros, resets_at_micros, amount) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (budget, start_micros) DO UPDATE SET resets_at_micros = excluded.resets_at_micros,
             amount = excluded.amount",
        params![budget, start.micros(), resets_at.map(Timestamp::micros), amount.map(NanoUsd::nanos)],
    )?;
    let row = read_window(tx, budget, start)?;
    let open = row.leased.saturating_sub(row.spent());
    if open > NanoUsd::ZERO {
        tx.execute(
            "UPDATE budget_window SET unknown = unknown + ?3 WHERE budget = ?1 AND start_micros = ?2",
            params![budget, start.micros(), open.nanos()],
        )?;
        audit(tx, budget, start, (TransferKind::Lost, open), now)?;
    } else if open < NanoUsd::ZERO {
        // Calls cost more than was held for them, or were made before the budget was configured.
        set_lease(tx, budget, start, row.spent(), now)?;
    }
    read_window(tx, budget, start)
}

fn set_lease(
    tx: &Transaction<'_>,
    budget: &str,
    start: Timestamp,
    leased: NanoUsd,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let before = read_window(tx, budget, start)?.leased;
    if before == leased {
        return Ok(());
    }
    tx.prepare_cached("UPDATE budget_window SET leased = ?3 WHERE budget = ?1 AND start_micros = ?2")?
        .execute(params![budget, start.micros(), leased.nanos()])?;
    let moved = if leased > before {
        (TransferKind::Granted, leased.saturating_sub(before))
    } else {
        (TransferKind::Returned, before.saturating_sub(leased))
    };
    audit(tx, budget, start, moved, now)
}

fn audit(
    tx: &Transaction<'_>,
    budget: &str,
    start: Timestamp,
    (kind, amount): (TransferKind, NanoUsd),
    now: Timestamp,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO transfers (budget, start_micros, at_micros, kind, amount, leased, settled, unknown, overrun)
         SELECT budget, start_micros, ?3, ?4, ?5, leased, settled, unknown, overrun
         FROM budget_window WHERE budget = ?1 AND start_micros = ?2",
    )?
    .execute(params![budget, start.micros(), now.micros(), kind.as_str(), amount.nanos()])
    .map(|_| ())
}

const COLUMNS: &str = "start_micros, resets_at_micros, amount, leased, settled, unknown, overrun";

fn read_window(tx: &Transaction<'_>, budget: &str, start: Timestamp) -> rusqlite::Result<WindowRow> {
    let sql = format!("SELECT {COLUMNS} FROM budget_window WHERE budget = ?1 AND start_micros = ?2");
    tx.prepare_cached(&sql)?.query_row(params![budget, start.micros()], window_row)
}

fn window_row(row: &Row<'_>) -> rusqlite::Result<WindowRow> {
    let money = |column| row.get(column).map(NanoUsd::new);
    Ok(WindowRow {
        start: Timestamp::from_micros(row.get(0)?),
        resets_at: row.get::<_, Option<i64>>(1)?.map(Timestamp::from_micros),
        amount: row.get::<_, Option<i64>>(2)?.map(NanoUsd::new),
        leased: money(3)?,
        settled: money(4)?,
        unknown: money(5)?,
        overrun: money(6)?,
    })
}

fn transfer_row(row: &Row<'_>) -> rusqlite::Result<Transfer> {
    let kind = match row.get_ref(2)?.as_str()? {
        "granted" => TransferKind::Granted,
        "returned" => TransferKind::Returned,
        "lost" => TransferKind::Lost,
        other => return Err(unreadable(2, format!("`{other}` is no transfer"))),
    };
    Ok(Transfer {
        seq: number(row, 0)?,
        at: Timestamp::from_micros(row.get(1)?),
        kind,
        amount: NanoUsd::new(row.get(3)?),
        leased: NanoUsd::new(row.get(4)?),
        spent: NanoUsd::new(row.get(5)?).saturating_add(NanoUsd::new(row.get(6)?)),
    })
}
