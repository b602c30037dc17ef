//! The durable half of the budgets: what was leased of each account's window, and what was spent of it.
//!
//! Money is booked in sums, not by request: each committed trace and report has a sequence, and a
//! booking says "everything up to here", together with what that comes to, in one transaction. A
//! restart therefore books exactly what is missing, once. A lease is raised to a height, not added to: a
//! grant whose caller went away is covered by the next one and no money is lost.
//!
//! `leased` is all that may have been spent. What of it is neither booked nor given back when a
//! window is opened again belonged to requests that a crash cut off: it becomes `unknown` and counts
//! as spent. So book first what is missing, then open the window. Every change of a balance is noted as
//! a transfer ([`super::transfers`]) in the same transaction.

use std::sync::Arc;

use pointsman_router::clock::Timestamp;
use pointsman_router::money::NanoUsd;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::chain::chain;
use super::spend::{Spend, Spends};
use super::transfers::{Entry, TransferKind, is_noted, note};
use super::{LedgerStore, kept, number};
use crate::audit;
use crate::store::StoreError;

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
    /// When it is booked.
    pub at: Timestamp,
}

/// What became of a booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BookOutcome {
    /// It is booked.
    Booked,
    /// The mark is another: nothing was booked. Read on from there.
    MarkIs(u64),
}

/// What became of an adjustment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdjustOutcome {
    /// It is booked.
    Booked,
    /// It was booked before, under its key.
    Repeated,
    /// The account had no such window. Nothing was booked.
    NoWindow,
    /// Less is unknown. Nothing was booked.
    TooMuch {
        /// So much.
        there: NanoUsd,
    },
}

/// What is kept of one window of an account.
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

/// A window that is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowOpening {
    /// The account.
    pub account: Arc<str>,
    /// When it began, and when it ends.
    pub bounds: (Timestamp, Option<Timestamp>),
    /// What may be spent in it; `None`: there is no limit.
    pub amount: Option<NanoUsd>,
}

/// The height of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The account.
    pub account: Arc<str>,
    /// The start of its window.
    pub start: Timestamp,
    /// What may have been spent since the window began.
    pub leased: NanoUsd,
}

impl LedgerStore {
    /// Books what lies between two marks, or nothing where the mark is another.
    ///
    /// # Errors
    /// What the store met: then nothing was booked.
    pub async fn book(&self, booking: Booking) -> Result<BookOutcome, StoreError> {
        self.writer.run(move |tx| book(tx, &booking)).await
    }

    /// The sequence of the last trace or report that is booked; zero where none is.
    ///
    /// # Errors
    /// What the store met.
    pub async fn booked_through(&self) -> Result<u64, StoreError> {
        self.writer.run(mark).await
    }

    /// Opens a window, for the first time or again: `leased` is then at least what is booked. Only while nobody
    /// holds money in it, and, where it was opened before a crash, after [`Self::account_for_lost`].
    ///
    /// # Errors
    /// What the store met: then the window is not open.
    pub async fn open_window(&self, opening: WindowOpening, now: Timestamp) -> Result<WindowRow, StoreError> {
        self.writer.run(move |tx| open_window(tx, &opening, now)).await
    }

    /// The same for many windows in one commit, all of them or none; the rows are in the order of the openings.
    ///
    /// # Errors
    /// What the store met: then none is open.
    pub async fn open_windows(
        &self,
        openings: Vec<WindowOpening>,
        now: Timestamp,
    ) -> Result<Vec<WindowRow>, StoreError> {
        self.writer.run(move |tx| openings.iter().map(|opening| open_window(tx, opening, now)).collect()).await
    }

    /// Books as unknown what a crash left open in any window, those that are over included. Only while nobody holds
    /// money, and once everything that is committed is booked.
    ///
    /// # Errors
    /// What the store met: then nothing was booked.
    pub async fn account_for_lost(&self, now: Timestamp) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                let open: Vec<(String, Timestamp, NanoUsd)> = tx
                    .prepare("SELECT budget, start_micros, leased - settled - unknown FROM budget_window WHERE leased > settled + unknown")?
                    .query_map((), |row| {
                        Ok((row.get(0)?, Timestamp::from_micros(row.get(1)?), NanoUsd::new(row.get(2)?)))
                    })?
                    .collect::<rusqlite::Result<_>>()?;
                open.iter().try_for_each(|(account, start, lost)| {
                    let spend = Spend::lost(*lost);
                    add(tx, account, *start, spend)?;
                    let entry = Entry { kind: TransferKind::Lost, key: None, leased: NanoUsd::ZERO, spend };
                    note(tx, (account, *start), entry, now)
                })
            })
            .await
    }

    /// Raises leases of open windows, all of them or none; one that is higher already stays.
    ///
    /// # Errors
    /// What the store met: then the earlier leases stand.
    pub async fn grant(&self, leases: Vec<Lease>, now: Timestamp) -> Result<(), StoreError> {
        self.writer.run(move |tx| leases.iter().try_for_each(|lease| raise(tx, lease, now))).await
    }

    /// Lowers leases to what of them was used. Only while nobody holds more.
    ///
    /// # Errors
    /// What the store met: then what was unused counts as unknown after a restart.
    pub async fn give_back(&self, leases: Vec<Lease>, now: Timestamp) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                leases.iter().try_for_each(|lease| {
                    let before = read_window(tx, &lease.account, lease.start)?.leased;
                    set_lease(tx, lease, before, now)
                })
            })
            .await
    }

    /// Books what an operator or a provider said of an account's window, once under this key, with the entry that
    /// says who said it. Where `known` is less than what the file has as unknown, the rest may still be reported.
    ///
    /// # Errors
    /// What the store met: then nothing was booked.
    pub async fn adjust(
        &self,
        (account, start): (Arc<str>, Timestamp),
        (key, unknown, settled): (String, NanoUsd, NanoUsd),
        known: Option<NanoUsd>,
        audited: audit::Entry,
    ) -> Result<AdjustOutcome, StoreError> {
        self.writer
            .run(move |tx| {
                let window = read_window(tx, &account, start).optional()?;
                let Some(window) = window else { return Ok(AdjustOutcome::NoWindow) };
                let there = known.map_or(window.unknown, |known| known.min(window.unknown));
                let spend = Spend::of_adjustment(unknown, settled);
                let entry = Entry { kind: TransferKind::Adjusted, key: Some(&key), leased: NanoUsd::ZERO, spend };
                if is_noted(tx, (&account, start), &key)? {
                    return Ok(AdjustOutcome::Repeated);
                }
                if unknown > there {
                    return Ok(AdjustOutcome::TooMuch { there });
                }
                note(tx, (&account, start), entry, audited.by.at)?;
                add(tx, &account, start, spend)?;
                chain(tx, &audited)?;
                Ok(AdjustOutcome::Booked)
            })
            .await
    }

    /// The windows of an account, the newest first, at most `limit`.
    ///
    /// # Errors
    /// What the store met.
    pub async fn windows(&self, account: &str, limit: usize) -> Result<Vec<WindowRow>, StoreError> {
        let account = account.to_owned();
        self.readers
            .read(move |conn| {
                let sql = format!(
                    "SELECT {COLUMNS} FROM budget_window WHERE budget = ?1 ORDER BY start_micros DESC LIMIT ?2"
                );
                conn.prepare_cached(&sql)?.query_map(params![account, kept(limit as u64)], window_row)?.collect()
            })
            .await
    }

    /// The accounts whose windows do not end before `now`, by name.
    ///
    /// # Errors
    /// What the store met.
    pub async fn open_accounts(&self, now: Timestamp) -> Result<Vec<String>, StoreError> {
        self.readers
            .read(move |conn| {
                conn.prepare(
                    "SELECT DISTINCT budget FROM budget_window
                     WHERE resets_at_micros IS NULL OR resets_at_micros > ?1 ORDER BY budget",
                )?
                .query_map([now.micros()], |row| row.get(0))?
                .collect()
            })
            .await
    }
}

fn mark(tx: &Transaction<'_>) -> rusqlite::Result<u64> {
    tx.prepare_cached("SELECT through FROM budget_mark")?.query_row((), |row| number(row, 0))
}

fn book(tx: &Transaction<'_>, booking: &Booking) -> rusqlite::Result<BookOutcome> {
    let mark = mark(tx)?;
    if mark != booking.after || booking.through < mark {
        return Ok(BookOutcome::MarkIs(mark));
    }
    let key = format!("through {}", booking.through);
    for ((account, start), spend) in booking.spends.iter() {
        tx.prepare_cached("INSERT OR IGNORE INTO budget_window (budget, start_micros) VALUES (?1, ?2)")?
            .execute(params![account, start.micros()])?;
        add(tx, account, *start, *spend)?;
        let entry = Entry { kind: TransferKind::Booked, key: Some(&key), leased: NanoUsd::ZERO, spend: *spend };
        note(tx, (account, *start), entry, booking.at)?;
    }
    tx.prepare_cached("UPDATE budget_mark SET through = ?1")?.execute([kept(booking.through)])?;
    Ok(BookOutcome::Booked)
}

/// Adds to a window's balances. Added here and not in SQL: a sum that does not fit would be refused, and all
/// that follows it.
fn add(tx: &Transaction<'_>, account: &str, start: Timestamp, spend: Spend) -> rusqlite::Result<()> {
    let WindowRow { settled, unknown, overrun, .. } = read_window(tx, account, start)?;
    let sum = Spend { settled, unknown, overrun, ..Spend::default() }.plus(spend);
    tx.prepare_cached(
        "UPDATE budget_window SET settled = ?3, unknown = ?4, overrun = ?5 WHERE budget = ?1 AND start_micros = ?2",
    )?
    .execute(params![account, start.micros(), sum.settled.nanos(), sum.unknown.nanos(), sum.overrun.nanos()])
    .map(|_| ())
}

fn open_window(tx: &Transaction<'_>, opening: &WindowOpening, now: Timestamp) -> rusqlite::Result<WindowRow> {
    let WindowOpening { account, bounds: (start, resets_at), amount } = opening;
    tx.prepare_cached(
        "INSERT INTO budget_window (budget, start_micros, resets_at_micros, amount) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (budget, start_micros) DO UPDATE SET resets_at_micros = excluded.resets_at_micros,
             amount = excluded.amount",
    )?
    .execute(params![
        account,
        start.micros(),
        resets_at.map(Timestamp::micros),
        amount.map(NanoUsd::nanos)
    ])?;
    // Calls may have cost more than was held for them, or were made before the budget was configured.
    let leased = read_window(tx, account, *start)?.spent();
    raise(tx, &Lease { account: Arc::clone(account), start: *start, leased }, now)?;
    read_window(tx, account, *start)
}

/// Raises a lease; one that is higher already stays.
fn raise(tx: &Transaction<'_>, lease: &Lease, now: Timestamp) -> rusqlite::Result<()> {
    let before = read_window(tx, &lease.account, lease.start)?.leased;
    if lease.leased > before { set_lease(tx, lease, before, now) } else { Ok(()) }
}

fn set_lease(tx: &Transaction<'_>, lease: &Lease, before: NanoUsd, now: Timestamp) -> rusqlite::Result<()> {
    let Lease { account, start, leased } = lease;
    if before == *leased {
        return Ok(());
    }
    tx.prepare_cached("UPDATE budget_window SET leased = ?3 WHERE budget = ?1 AND start_micros = ?2")?
        .execute(params![account, start.micros(), leased.nanos()])?;
    let kind = if *leased > before { TransferKind::Granted } else { TransferKind::Returned };
    note(tx, (account, *start), Entry::of_lease(kind, leased.saturating_sub(before)), now)
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
