//! Replay: what a policy would have scored on recorded outcomes.
//!
//! Every row's prompt goes once, in a seeded random order, through the very pipeline that serves
//! requests, over in-memory ports; only the outcomes of the models that were called are revealed, and
//! their recorded scores come back as per-model feedback before the next row. Reference policies run
//! the same way, so the scores differ in nothing but the choosing. A replay writes nothing and needs
//! no configuration; the true task of a row stays hidden unless it is asked to be shown.

mod args;
mod at;
mod book;
mod changes;
mod course;
mod feedback;
mod figures;
mod mixture;
mod pupil;
mod report;
mod run;
mod stand;

use std::path::PathBuf;

use anyhow::Context as _;

pub use args::{ReplayArgs, ReplayError, Whose};
pub use at::{At, AtValue, ChangeFault};
pub use report::Report;

use crate::backends::recorded_rows::{Rows, Selection};

/// Replays and prints.
///
/// # Errors
/// A file that cannot be read, a pool that names unknown models; [`ReplayError`] where the arguments
/// make no sense or do not fit the rows.
pub fn main(args: &ReplayArgs, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    let report = replay(args)?;
    if args.json {
        serde_json::to_writer(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", report.table())?;
    }
    Ok(())
}

/// Replays.
///
/// # Errors
/// As [`main`].
pub fn replay(args: &ReplayArgs) -> anyhow::Result<Report> {
    args.check()?;
    let read = |path: &PathBuf, limit| {
        let pool = (!args.pool.is_empty()).then(|| args.pool.clone());
        Rows::read(path, &Selection { pool, limit }).with_context(|| format!("cannot replay {}", path.display()))
    };
    let rows = read(&args.outcomes, args.limit)?;
    let warm = args.warm.as_ref().map(|path| read(path, None)).transpose()?;
    run::run(args, &rows, warm.as_ref())
}

#[cfg(test)]
mod testing;
