//! Arguments of `stats` and `traces`.

use clap::{Args, Subcommand, ValueEnum};
use pointsman_client::v1;
use prost_types::Timestamp;

use crate::cli::parse;

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Only this model; may be repeated.
    #[arg(long = "model", value_name = "MODEL")]
    pub(crate) models: Vec<String>,
    /// Only this task type.
    #[arg(long)]
    pub(crate) task_type: Option<String>,
    /// A row for each model and task type.
    #[arg(long)]
    pub(crate) by_task_type: bool,
}

/// What to do with the traces.
#[derive(Debug, Subcommand)]
pub(crate) enum TracesCommand {
    /// Traces, newest first.
    List(ListArgs),
    /// One trace with all that is kept.
    Show {
        /// Id of the decision.
        decision: String,
    },
    /// All matching traces as JSON Lines, oldest first.
    Export(ExportArgs),
    /// Take in traces with their feedback, as an export wrote them. A faulty line is named and left out, the rest is
    /// kept.
    Import {
        /// JSON Lines of `pointsman.v1.Trace`; - is stdin, .gz is unpacked.
        file: String,
    },
    /// Delete traces for good.
    Delete(DeleteArgs),
}

/// Which traces. Everything that is given must hold.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// A model that was chosen.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Task type, given or inferred.
    #[arg(long)]
    pub(crate) task_type: Option<String>,
    /// A tag that the request had; may be repeated.
    #[arg(long = "tag", value_parser = parse::pair, value_name = "KEY=VALUE")]
    pub(crate) tags: Vec<(String, String)>,
    /// Admitted at this time or later, RFC 3339.
    #[arg(long, value_parser = parse::timestamp, value_name = "TIME")]
    pub(crate) from: Option<Timestamp>,
    /// Admitted before this time, RFC 3339.
    #[arg(long, value_parser = parse::timestamp, value_name = "TIME")]
    pub(crate) before: Option<Timestamp>,
    /// Only with feedback.
    #[arg(long, conflicts_with = "without_feedback")]
    pub(crate) with_feedback: bool,
    /// Only without feedback.
    #[arg(long)]
    pub(crate) without_feedback: bool,
    /// How far the request came.
    #[arg(long, value_enum)]
    pub(crate) status: Option<Reached>,
    /// Version of the policy that chose.
    #[arg(long)]
    pub(crate) policy_version: Option<String>,
    /// Your own id of the request.
    #[arg(long)]
    pub(crate) caller_ref: Option<String>,
}

/// Arguments of `traces list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Which traces.
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// The most traces to print.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) limit: u32,
    /// Token of the page to begin with, as printed by the call before.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) page: Option<String>,
}

/// Arguments of `traces export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Which traces.
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// The most traces to export. Default: all.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// File to write; .gz is packed. Default: stdout.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<String>,
}

/// Arguments of `traces delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Ids of the decisions.
    #[arg(required_unless_present = "tenant", conflicts_with = "tenant")]
    pub(crate) decisions: Vec<String>,
    /// All traces of this tenant.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
}

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reached {
    /// It was answered.
    Answered,
    /// No model gave an answer that could vote.
    Failed,
    /// The caller went away, or its deadline passed.
    Cancelled,
    /// Decided only; the caller called the models.
    Decided,
}

impl Reached {
    /// The status on the wire.
    pub(crate) fn wire(self) -> v1::RequestStatus {
        match self {
            Self::Answered => v1::RequestStatus::Answered,
            Self::Failed => v1::RequestStatus::Failed,
            Self::Cancelled => v1::RequestStatus::Cancelled,
            Self::Decided => v1::RequestStatus::Decided,
        }
    }
}
