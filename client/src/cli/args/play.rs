//! Arguments of `play`.

use std::num::{NonZeroU32, NonZeroUsize};

use clap::Args;

use super::Kind;

/// Arguments of `play`.
#[derive(Debug, Args)]
pub(crate) struct PlayArgs {
    /// Workload: JSON Lines of {"id", "task", "prompt", "gold", "outcomes": {MODEL: {"score", "cost", "answer"}}}; .gz
    /// is unpacked, - is stdin.
    #[arg(long, value_name = "FILE")]
    pub(crate) workload: String,
    /// The most rows to play. Default: all.
    #[arg(long, value_name = "N")]
    pub(crate) rows: Option<NonZeroUsize>,
    /// Requests under way at once.
    #[arg(long, default_value = "8", value_name = "N")]
    pub(crate) concurrency: NonZeroUsize,
    /// The most models to call for a request. Default: the daemon's, by task type.
    #[arg(long, value_name = "N")]
    pub(crate) calls_max: Option<NonZeroU32>,
    /// Seed of the order in which rows are played.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// How answers are read and merged.
    #[arg(long, value_enum, default_value = "label")]
    pub(crate) kind: Kind,
    /// What a right answer is worth, in millionths of a US dollar. Default: the daemon's value.
    #[arg(long, value_name = "N")]
    pub(crate) answer_value_usd_micros: Option<i64>,
    /// Tell the daemon each row's task as its task type. Otherwise it has to find out by itself.
    #[arg(long)]
    pub(crate) show_task: bool,
    /// Print a line to stderr after every so many requests. 0: never.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) report_every: usize,
}
