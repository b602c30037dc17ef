//! Transfers: every movement of money, only ever added to.
//!
//! A window's balances in `budget_window` are kept for speed; what they must be is the sum of the
//! window's transfers, and [`LedgerStore::imbalances`] proves that they are. Each transfer that books
//! spend balances in itself: held + overrun = settled + released + unknown. A transfer with a key is
//! made once, however often it is asked for. Nothing here is ever changed or removed.

use pointsman_router::clock::Timestamp;
use pointsman_router::money::NanoUsd;
use rusqlite::{Row, Transaction, params};

use super::spend::Spend;
use super::{LedgerStore, kept, number};
use crate::store::{StoreError, unreadable};

/// Why money moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferKind {
    /// What a window amounted to before transfers were kept in this form.
    Opened,
    /// More was leased.
    Granted,
    /// The unused rest of a lease was given back.
    Returned,
    /// Holds of committed traces and reports were booked, many in one sum.
    Booked,
    /// What a crash left open was booked as unknown.
    Lost,
    /// An operator, or a provider's report, said what it really was.
    Adjusted,
}

impl TransferKind {
    const ALL: [(&'static str, Self); 6] = [
        ("opened", Self::Opened),
        ("granted", Self::Granted),
        ("returned", Self::Returned),
        ("booked", Self::Booked),
        ("lost", Self::Lost),
        ("adjusted", Self::Adjusted),
    ];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

/// One movement: differences, so amounts may be negative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Its place in the order of all transfers.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub kind: TransferKind,
    /// What makes it one, however often it is asked for.
    pub key: Option<String>,
    /// By how much the lease changed.
    pub leased: NanoUsd,
    /// What was spent.
    pub spend: Spend,
}

/// What is to be noted of a movement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) kind: TransferKind,
    pub(super) key: Option<&'a str>,
    pub(super) leased: NanoUsd,
    pub(super) spend: Spend,
}

impl Entry<'static> {
    pub(super) fn of_lease(kind: TransferKind, leased: NanoUsd) -> Self {
        Self { kind, key: None, leased, spend: Spend::default() }
    }
}

/// A balance that is not what its transfers come to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("account `{account}`, window {}: {what} is {kept}, its transfers come to {summed}", start.micros())]
pub struct Imbalance {
    /// The account.
    pub account: String,
    /// The start of its window.
    pub start: Timestamp,
    /// Which balance.
    pub what: &'static str,
    /// What is kept.
    pub kept: NanoUsd,
    /// What it must be.
    pub summed: NanoUsd,
}

impl LedgerStore {
    /// The newest transfers of a window, oldest first, at most `limit`; all, or those that made money unknown
    /// or known.
    ///
    /// # Errors
    /// What the store met.
    pub async fn transfers(
        &self,
        (account, start): (&str, Timestamp),
        unknown_only: bool,
        limit: usize,
    ) -> Result<Vec<Transfer>, StoreError> {
        let account = account.to_owned();
        self.readers
            .read(move |conn| {
                let mut newest = conn
                    .prepare_cached(
                        "SELECT seq, at_micros, kind, key, leased, held, settled, released, unknown, overrun
                         FROM transfers WHERE account = ?1 AND start_micros = ?2 AND (unknown <> 0 OR NOT ?3)
                         ORDER BY seq DESC LIMIT ?4",
                    )?
                    .query_map(params![account, start.micros(), unknown_only, kept(limit as u64)], transfer_row)?
                    .collect::<rusqlite::Result<Vec<_>>>()?;
                newest.reverse();
                Ok(newest)
            })
            .await
    }

    /// Every balance that is not the sum of its transfers, and every transfer that does not balance in
    /// itself; none where the books are right.
    ///
    /// # Errors
    /// What the store met.
    pub async fn imbalances(&self) -> Result<Vec<Imbalance>, StoreError> {
        self.readers
            .read(|conn| {
                let mut found = Vec::new();
                let mut windows = conn.prepare(WINDOWS_AND_SUMS)?;
                let mut rows = windows.query(())?;
                while let Some(row) = rows.next()? {
                    for (at, what) in BALANCES.into_iter().enumerate() {
                        let (kept, summed): (i64, i64) = (row.get(2 + 2 * at)?, row.get(3 + 2 * at)?);
                        if kept != summed {
                            found.push(imbalance(row, what, (kept, summed))?);
                        }
                    }
                }
                let mut lame = conn.prepare(LAME)?;
                let mut rows = lame.query(())?;
                while let Some(row) = rows.next()? {
                    found.push(imbalance(row, "held + overrun", (row.get(2)?, row.get(3)?))?);
                }
                Ok(found)
            })
            .await
    }
}

const BALANCES: [&str; 4] = ["leased", "settled", "unknown", "overrun"];

/// Each window's balances beside the sums of its transfers.
const WINDOWS_AND_SUMS: &str = "
    SELECT w.budget, w.start_micros,
           w.leased, COALESCE(SUM(t.leased), 0), w.settled, COALESCE(SUM(t.settled), 0),
           w.unknown, COALESCE(SUM(t.unknown), 0), w.overrun, COALESCE(SUM(t.overrun), 0)
    FROM budget_window w LEFT JOIN transfers t ON t.account = w.budget AND t.start_micros = w.start_micros
    GROUP BY w.budget, w.start_micros";

/// Transfers that do not balance in themselves.
const LAME: &str = "
    SELECT account, start_micros, held + overrun, settled + released + unknown FROM transfers
    WHERE held + overrun <> settled + released + unknown";

fn imbalance(row: &Row<'_>, what: &'static str, (kept, summed): (i64, i64)) -> rusqlite::Result<Imbalance> {
    Ok(Imbalance {
        account: row.get(0)?,
        start: Timestamp::from_micros(row.get(1)?),
        what,
        kept: NanoUsd::new(kept),
        summed: NanoUsd::new(summed),
    })
}

/// Whether a movement with this key was noted.
pub(super) fn is_noted(
    tx: &Transaction<'_>,
    (account, start): (&str, Timestamp),
    key: &str,
) -> rusqlite::Result<bool> {
    tx.prepare_cached("SELECT 1 FROM transfers WHERE key = ?1 AND account = ?2 AND start_micros = ?3")?
        .exists(params![key, account, start.micros()])
}

/// Notes a movement.
pub(super) fn note(
    tx: &Transaction<'_>,
    (account, start): (&str, Timestamp),
    entry: Entry<'_>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let Entry { kind, key, leased, spend } = entry;
    tx
        .prepare_cached(
            "INSERT INTO transfers (account, start_micros, at_micros, kind, key, leased, held, settled, released, unknown, overrun)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            account,
            start.micros(),
            now.micros(),
            kind.as_str(),
            key,
            leased.nanos(),
            spend.held.nanos(),
            spend.settled.nanos(),
            spend.released.nanos(),
            spend.unknown.nanos(),
            spend.overrun.nanos()
        ])
        .map(|_| ())
}

fn transfer_row(row: &Row<'_>) -> rusqlite::Result<Transfer> {
    let word = row.get_ref(2)?.as_str()?;
    let kind = TransferKind::ALL.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind);
    let money = |column| row.get(column).map(NanoUsd::new);
    Ok(Transfer {
        seq: number(row, 0)?,
        at: Timestamp::from_micros(row.get(1)?),
        kind: kind.ok_or_else(|| unreadable(2, format!("`{word}` is no transfer")))?,
        key: row.get(3)?,
        leased: money(4)?,
        spend: Spend {
            held: money(5)?,
            settled: money(6)?,
            released: money(7)?,
            unknown: money(8)?,
            overrun: money(9)?,
        },
    })
}
