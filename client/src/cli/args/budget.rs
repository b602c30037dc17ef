//! Arguments of `budgets`.

use clap::{Args, Subcommand, ValueEnum};
use pointsman_client::v1;
use prost_types::Timestamp;

use crate::cli::parse;

/// What to do with budgets.
#[derive(Debug, Subcommand)]
pub(crate) enum BudgetsCommand {
    /// Every budget, and every account of those that are kept for each tenant, key or tag value.
    List,
    /// One budget.
    Show {
        /// Its name. Default: the daemon's own.
        name: Option<String>,
    },
    /// Set a budget, from the next request on.
    Set(SetBudgetArgs),
    /// Charge nothing to a budget any more.
    Remove {
        /// Its name.
        name: String,
    },
    /// Say what is known now of money that counted as unknown.
    Adjust(AdjustArgs),
    /// The movements of one window.
    Transfers(TransfersArgs),
    /// Prove that every balance is the sum of its movements; exit code 70 when one is not.
    Verify,
}

/// Arguments of `budgets set`.
#[derive(Debug, Args)]
pub(crate) struct SetBudgetArgs {
    /// Its name.
    pub(crate) name: String,
    /// Whose spend it limits: global, tenant:NAME, key:ID or tag:KEY=VALUE; * in place of the last word for each by
    /// itself. Needed for a new one.
    #[arg(long)]
    pub(crate) scope: Option<String>,
    /// What may be spent in a window, in dollars with at most six decimals.
    #[arg(long, value_parser = parse::usd_micros, value_name = "USD")]
    pub(crate) amount_usd: i64,
    /// How long a window is. Needed for a new one.
    #[arg(long)]
    pub(crate) window: Option<WindowWord>,
    /// Whose calendar cuts the windows, for instance Europe/Berlin. Default: UTC.
    #[arg(long, value_name = "ZONE")]
    pub(crate) time_zone: Option<String>,
    /// Tell somebody and let requests pass.
    #[arg(long, conflicts_with = "hard")]
    pub(crate) soft: bool,
    /// Deny requests (the default of a new one).
    #[arg(long)]
    pub(crate) hard: bool,
    /// Shares in percent, rising, at which somebody is told. Default of a new one: 50,80,95.
    #[arg(long, value_delimiter = ',', value_name = "PERCENT")]
    pub(crate) alert_at: Vec<u32>,
}

/// Arguments of `budgets adjust`.
#[derive(Debug, Args)]
pub(crate) struct AdjustArgs {
    /// The budget.
    pub(crate) name: String,
    /// Start of the window. Default: the present one.
    #[arg(long, value_parser = parse::timestamp, value_name = "TIME")]
    pub(crate) window: Option<Timestamp>,
    /// How much is unknown no longer, in dollars.
    #[arg(long, value_parser = parse::usd_nanos, value_name = "USD")]
    pub(crate) unknown_usd: i64,
    /// How much of it was spent, in dollars.
    #[arg(long, value_parser = parse::usd_nanos, value_name = "USD")]
    pub(crate) settled_usd: i64,
    /// What makes it one, however often it is sent: the number of a bill, a decision's id.
    #[arg(long)]
    pub(crate) key: String,
}

/// Arguments of `budgets transfers`.
#[derive(Debug, Args)]
pub(crate) struct TransfersArgs {
    /// The budget.
    pub(crate) name: String,
    /// Start of the window. Default: the present one.
    #[arg(long, value_parser = parse::timestamp, value_name = "TIME")]
    pub(crate) window: Option<Timestamp>,
    /// Only what made money unknown or known.
    #[arg(long)]
    pub(crate) unknown: bool,
    /// At most so many, the newest.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) limit: u32,
}

/// How long a window is.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum WindowWord {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A calendar day.
    Day,
    /// A calendar week, from Monday.
    Week,
    /// A calendar month.
    Month,
    /// For ever.
    Total,
}

impl WindowWord {
    pub(crate) fn wire(self) -> v1::BudgetWindow {
        match self {
            Self::Minute => v1::BudgetWindow::Minute,
            Self::Hour => v1::BudgetWindow::Hour,
            Self::Day => v1::BudgetWindow::Day,
            Self::Week => v1::BudgetWindow::Week,
            Self::Month => v1::BudgetWindow::Month,
            Self::Total => v1::BudgetWindow::Total,
        }
    }
}
