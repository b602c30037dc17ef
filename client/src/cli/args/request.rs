//! Arguments of `route`, `decide` and `report`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use pointsman_client::v1;
use prost_types::Timestamp;

use super::Kind;
use crate::cli::parse;

/// What is asked, and within which limits: one flag for each field of `RequestSpec`.
#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// The question: text, @FILE, or - for stdin. Default: stdin.
    pub(crate) prompt: Option<String>,
    /// A conversation instead of a prompt: a JSON list of {"role": "user"|"assistant", "text": "…"}, or @FILE, or -.
    #[arg(long, value_name = "JSON", conflicts_with = "prompt")]
    pub(crate) messages: Option<String>,
    /// How the answer is read and merged.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) kind: Kind,
    /// Sort of task, for instance simple_query. Default: inferred from the text.
    #[arg(long)]
    pub(crate) task_type: Option<String>,
    /// A tag KEY=VALUE; may be repeated. The tag `tenant` names the tenant.
    #[arg(long = "tag", value_parser = parse::pair, value_name = "KEY=VALUE")]
    pub(crate) tags: Vec<(String, String)>,
    /// An embedding of the prompt: numbers divided by commas or spaces, or @FILE.
    #[arg(long, value_name = "NUMBERS", allow_hyphen_values = true)]
    pub(crate) embedding: Option<String>,
    /// The most that this request may cost, in millionths of a US dollar.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) max_cost_usd_micros: Option<i64>,
    /// What a right answer is worth, in millionths of a US dollar.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) answer_value_usd_micros: Option<i64>,
    /// Cap on the output of each call, in tokens.
    #[arg(long, value_name = "N")]
    pub(crate) output_tokens_max: Option<u32>,
    /// Wanted probability that the answer is right, 0 to 1.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) quality_threshold: Option<f64>,
    /// The most models to call.
    #[arg(long, value_name = "N")]
    pub(crate) calls_max: Option<u32>,
    /// An answer that may win, for labels; may be repeated. Default: any.
    #[arg(long = "label", value_name = "TEXT")]
    pub(crate) labels: Vec<String>,
    /// Relative difference up to which two numbers are equal.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) number_tolerance: Option<f64>,
    /// Regular expression with one group that extracts the answer from longer text.
    #[arg(long, value_name = "REGEX")]
    pub(crate) answer_pattern: Option<String>,
    /// JSON Schema that the answer must satisfy, or @FILE.
    #[arg(long, value_name = "JSON")]
    pub(crate) json_schema: Option<String>,
    /// System text for the models, or @FILE.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Sampling temperature, 0 to 2.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// A string at which a model stops writing; may be repeated.
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// A model that may be called; may be repeated. Default: all.
    #[arg(long = "allow", value_name = "MODEL")]
    pub(crate) models_allowed: Vec<String>,
    /// A model that must not be called; may be repeated.
    #[arg(long = "deny", value_name = "MODEL")]
    pub(crate) models_denied: Vec<String>,
    /// Your own id of the request, kept in the trace.
    #[arg(long, value_name = "ID")]
    pub(crate) caller_ref: Option<String>,
}

/// Arguments of `route`.
#[derive(Debug, Args)]
pub(crate) struct RouteArgs {
    /// What is asked.
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    /// Makes a repeat within 24 hours safe: what was answered is not called again.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Show what each model itself said.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Show what happens while it happens.
    #[arg(long)]
    pub(crate) stream: bool,
}

/// Arguments of `decide`.
#[derive(Debug, Args)]
pub(crate) struct DecideArgs {
    /// What would be answered.
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    /// Whether money is held for the calls.
    #[arg(long, value_enum, default_value = "budget")]
    pub(crate) hold: Hold,
    /// Time within which you report. Default: ten minutes.
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    pub(crate) report_within: Option<Duration>,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Id of the decision. Without it: the learning report.
    pub(crate) decision: Option<String>,
    /// Of the learning report, the most drift alerts to print.
    #[arg(long, default_value_t = 20, value_name = "N", conflicts_with = "decision")]
    pub(crate) alerts: u32,
    /// Of the learning report, the most entries of the audit log to print.
    #[arg(long, default_value_t = 20, value_name = "N", conflicts_with = "decision")]
    pub(crate) audit: u32,
    /// Name of the model that is reported.
    #[arg(long, requires = "decision")]
    pub(crate) model: Option<String>,
    /// How its last call ended.
    #[arg(long, value_enum, requires = "model", default_value = "ok")]
    pub(crate) status: Status,
    /// Its text as received, or @FILE, or -.
    #[arg(long, value_name = "TEXT", requires = "model")]
    pub(crate) answer: Option<String>,
    /// The model's own probability of being right, 0 to 1.
    #[arg(long, value_name = "P", requires = "model", allow_negative_numbers = true)]
    pub(crate) self_confidence: Option<f64>,
    /// Tokens of the input.
    #[arg(long, value_name = "N", requires = "model")]
    pub(crate) tokens_in: Option<u64>,
    /// Tokens of the output.
    #[arg(long, value_name = "N", requires = "model")]
    pub(crate) tokens_out: Option<u64>,
    /// What its calls cost, in US dollars, for instance 0.00042. Default: tokens at the prices of its card.
    #[arg(long, value_parser = parse::usd_nanos, value_name = "USD", requires = "model")]
    pub(crate) cost_usd: Option<i64>,
    /// From sending the first call to the end of the last.
    #[arg(long, value_parser = parse::duration, value_name = "DURATION", requires = "model")]
    pub(crate) latency: Option<Duration>,
    /// What went wrong, in one sentence.
    #[arg(long, value_name = "TEXT", requires = "model")]
    pub(crate) error: Option<String>,
    /// Its text ends at the output cap.
    #[arg(long, requires = "model")]
    pub(crate) truncated: bool,
    /// When its first call was sent, RFC 3339.
    #[arg(long, value_parser = parse::timestamp, value_name = "TIME", requires = "model")]
    pub(crate) started_at: Option<Timestamp>,
    /// Many at once: JSON Lines of `pointsman.v1.ReportedOutcome`; - is stdin, .gz is unpacked.
    #[arg(long, value_name = "FILE", conflicts_with = "model", requires = "decision")]
    pub(crate) lines: Option<String>,
    /// The last part: settles the hold and asks for the merged answer.
    #[arg(long = "final", requires = "decision")]
    pub(crate) is_final: bool,
}

/// Whether money is held for the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hold {
    /// Hold the worst case out of the daemon's budget.
    Budget,
    /// Hold nothing: you meter your own spending.
    None,
}

impl Hold {
    /// The mode on the wire.
    pub(crate) fn wire(self) -> v1::HoldMode {
        match self {
            Self::Budget => v1::HoldMode::Budget,
            Self::None => v1::HoldMode::None,
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Status {
    /// An answer came.
    Ok,
    /// No complete answer in time.
    Timeout,
    /// The upstream asked to slow down.
    Throttled,
    /// The upstream could not be reached or reported a fault of its own.
    Unavailable,
    /// The upstream refused the request as wrong.
    Rejected,
    /// The upstream's reply was not a reply of its protocol.
    Malformed,
    /// You gave it up.
    Cancelled,
}

impl Status {
    /// The status on the wire.
    pub(crate) fn wire(self) -> v1::AttemptStatus {
        match self {
            Self::Ok => v1::AttemptStatus::Ok,
            Self::Timeout => v1::AttemptStatus::Timeout,
            Self::Throttled => v1::AttemptStatus::Throttled,
            Self::Unavailable => v1::AttemptStatus::Unavailable,
            Self::Rejected => v1::AttemptStatus::Rejected,
            Self::Malformed => v1::AttemptStatus::Malformed,
            Self::Cancelled => v1::AttemptStatus::Cancelled,
        }
    }
}
