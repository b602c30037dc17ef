//! Booking: what committed traces and reports come to is written into the ledger, each exactly once.
//!
//! The ledger keeps the sequence up to which it has booked, in the same transaction as the sums. So a
//! booking that is repeated changes nothing, and a restart books what the last run had no time for.
//! A trace is never booked before it is committed.

use pointsman_router::clock::Timestamp;
use pointsman_router::hold::Bill;
use pointsman_router::ids::ModelName;
use pointsman_router::money::NanoUsd;
use pointsman_router::outcome::Attempt;

use crate::store::StoreError;
use crate::store::ledger::{BookOutcome, Booking, LedgerStore, Spend, Spends};
use crate::store::traces::{Committed, TraceStore};
use crate::wire::report::ReportEnd;

/// Rows that are read at once when the ledger has fallen behind.
const BATCH: usize = 2_048;

/// Books what the trace store has and the ledger has not; to be called before the budgets are opened. `main` is the
/// account of what was held when there was one.
/// Returns the sequence up to which everything is booked now.
///
/// # Errors
/// What a store met; what was booked stays booked.
pub async fn catch_up(
    main: &str,
    traces: &TraceStore,
    ledger: &LedgerStore,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let mut mark = ledger.booked_through().await?;
    loop {
        let rows = traces.scan(mark, BATCH).await?;
        let Some(last) = rows.last().map(Committed::seq) else { return Ok(mark) };
        mark = book(main, ledger, (mark, last), &rows, now).await?;
    }
}

/// Books what lies between two marks; `rows` are all of them, and may be more. Returns the ledger's
/// mark, which is another where somebody booked in between.
///
/// # Errors
/// What the store met; nothing was booked.
pub async fn book(
    main: &str,
    ledger: &LedgerStore,
    (after, through): (u64, u64),
    rows: &[Committed],
    at: Timestamp,
) -> Result<u64, StoreError> {
    let mut spends = Spends::default();
    // After a catch-up the first rows that are told of are booked already.
    let between = rows.iter().filter(|row| row.seq() > after && row.seq() <= through);
    between.for_each(|row| add(&mut spends, row, main));
    match ledger.book(Booking { after, through, spends, at }).await? {
        BookOutcome::Booked => Ok(through),
        BookOutcome::MarkIs(mark) => Ok(mark),
    }
}

/// The models whose calls cost more than the worst case that was held for them, and by how much: no call can,
/// as long as the price card is right.
pub fn above_their_cards(row: &Committed) -> Vec<(ModelName, String)> {
    let Committed::Trace { trace, .. } = row else { return Vec::new() };
    let above = trace.decision.chosen().filter_map(|candidate| {
        let known = trace.attempts.iter().filter(|attempt| attempt.model == candidate.model);
        let cost: NanoUsd = known.map(Attempt::known_cost).sum();
        let (id, held) = (trace.decision.id, candidate.worst_case);
        (cost > held).then(|| {
            (candidate.model.clone(), format!("calls of decision {id} cost {cost}, at most {held} by the card"))
        })
    });
    above.collect()
}

/// Adds what a row comes to, where it comes to anything.
fn add(spends: &mut Spends, row: &Committed, main: &str) {
    match row {
        Committed::Trace { trace, .. } => {
            if let Some((hold, spend)) = Spend::of_trace(trace) {
                spends.add(hold, spend, main);
            }
        }
        Committed::Report(report) if report.model.is_none() => {
            // A row that cannot be read keeps its whole hold as unknown: that is never too little.
            let end = ReportEnd::from_bytes(report.decision, &report.body);
            if let Ok(ReportEnd { hold: Some(hold), cost, .. }) = end {
                let bill = Bill { settled: cost, unknown: NanoUsd::ZERO };
                spends.add(&hold, Spend::of_report(&hold, bill), main);
            }
        }
        Committed::Report(_) => {}
    }
}

#[cfg(test)]
mod tests;
