//! Replay: what a policy would have scored on recorded outcomes.
//!
//! Every row's prompt goes once, in a seeded random order, through the very pipeline that serves
//! requests, over in-memory ports; only the outcomes of the models that were called are revealed, and
//! their recorded scores come back as per-model feedback before the next row. Reference policies run
//! the same way, so the scores differ in nothing but the choosing. A replay writes nothing and needs
//! no configuration; the true task of a row stays hidden unless it is asked to be shown.

mod book;
mod pupil;
mod report;
mod run;
mod stand;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

pub use report::Report;

use crate::backends::recorded_rows::{Rows, Selection};

/// Whose choices are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Whose {
    /// The pool in its given order: the first that can serve.
    Rules,
    /// The online bandit.
    Bandit,
    /// Thompson sampling that sees nothing of the request.
    ContextFree,
    /// The model that is best on all rows seen before routing, or in hindsight.
    BestSingle,
    /// Any model with the same probability.
    Random,
    /// The best model of each row.
    Oracle,
}

impl Whose {
    /// The word on the command line and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Bandit => "bandit",
            Self::ContextFree => "context-free",
            Self::BestSingle => "best-single",
            Self::Random => "random",
            Self::Oracle => "oracle",
        }
    }
}

/// What is replayed.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Recorded outcomes, JSON Lines, gzipped where the name ends in .gz
    #[arg(long, value_name = "FILE")]
    pub outcomes: PathBuf,
    /// Recorded outcomes that are fed first, as logs in which every model was called
    #[arg(long, value_name = "FILE")]
    pub warm: Option<PathBuf>,
    /// Only these models, comma-separated; without it, all of the file
    #[arg(long, value_name = "MODEL,…", value_delimiter = ',')]
    pub pool: Vec<String>,
    /// Whose choices to replay
    #[arg(long, value_enum)]
    pub policy: Whose,
    /// Models called per row, at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub calls: u32,
    /// Random orders to run, with the seeds 0 to N−1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// Only the first rows of the file
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Tell the policy the true task of each row
    #[arg(long)]
    pub show_task: bool,
    /// Quality given up per dollar; zero: quality alone counts, ties to the cheaper
    #[arg(long, value_name = "W", default_value_t = 0.0)]
    pub cost_weight: f64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Replays and prints.
///
/// # Errors
/// A file that cannot be read, a pool that names unknown models, a cost weight that is negative.
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
    anyhow::ensure!(
        args.cost_weight.is_finite() && args.cost_weight >= 0.0,
        "--cost-weight must be zero or more, it is {}",
        args.cost_weight
    );
    let read = |path: &PathBuf, limit| {
        let pool = (!args.pool.is_empty()).then(|| args.pool.clone());
        Rows::read(path, &Selection { pool, limit }).with_context(|| format!("cannot replay {}", path.display()))
    };
    let rows = read(&args.outcomes, args.limit)?;
    let warm = args.warm.as_ref().map(|path| read(path, None)).transpose()?;
    run::run(args, rows, warm)
}
