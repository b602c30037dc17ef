//! What may be asked on the command line. Only shapes: what the words mean is in the file of each command.

mod budget;
mod keys;
mod play;
mod policy;
mod request;
mod stats;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use pointsman_client::v1;

pub(crate) use self::budget::{AdjustArgs, BudgetsCommand, SetBudgetArgs, TransfersArgs};
pub(crate) use self::keys::{AuditCommand, CreateKeyArgs, KeysCommand};
pub(crate) use self::play::PlayArgs;
pub(crate) use self::policy::{EvaluateArgs, PoliciesCommand, PromoteArgs, ShadowArgs, TrainArgs};
pub(crate) use self::request::{DecideArgs, ReportArgs, RequestArgs, RouteArgs};
pub(crate) use self::stats::{DeleteArgs, ExportArgs, FilterArgs, ListArgs, StatsArgs, TracesCommand};
use super::{exit, parse};

/// Asks a Pointsman daemon: which model should answer, what is the answer, was it right, what was learned.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, after_help = exit::HELP, max_term_width = 110)]
pub(crate) struct Cli {
    /// Address of the daemon, host:port.
    #[arg(long, global = true, env = "POINTSMAN_ADDRESS", default_value = "127.0.0.1:7001")]
    pub(crate) address: String,
    /// File that holds the key to send. Default: POINTSMAN_KEY, which holds the key itself.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<String>,
    /// File of the authorities (PEM) that are trusted behind an https:// address.
    #[arg(long, global = true, env = "POINTSMAN_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Files of this client's own certificate and its key (PEM), for daemons that demand one.
    #[arg(long, global = true, num_args = 2, value_names = ["CERTIFICATE", "KEY"], requires = "ca")]
    pub(crate) identity: Option<Vec<PathBuf>>,
    /// Print JSON instead of tables: one object, or one object a line for streams.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Time for each call, its gRPC deadline: 1500ms, 30s, 5m.
    #[arg(long, global = true, value_parser = parse::duration, default_value = "60s", value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// Time to go on trying to reach the daemon.
    #[arg(long, global = true, value_parser = parse::duration, default_value = "3s", value_name = "DURATION")]
    pub(crate) connect_within: Duration,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask: the daemon chooses models, calls them and merges their answers.
    Route(RouteArgs),
    /// Choose only: you call the models and `report`.
    Decide(DecideArgs),
    /// Report what a `decide` caller saw. Without a DECISION: the learning report, with the running policy, shadow,
    /// canary, drift, pacing, retraining and what was done to the policies.
    Report(ReportArgs),
    /// Say whether an answer was right.
    Feedback(FeedbackArgs),
    /// Play a recorded workload through the daemon, judge, feed back, and show what it learned.
    Play(PlayArgs),
    /// Statistics of the models.
    Stats(StatsArgs),
    /// List, show, export or delete traces.
    Traces {
        /// What to do with them.
        #[command(subcommand)]
        command: TracesCommand,
    },
    /// Where the daemon keeps its state, and how large it is.
    Store,
    /// List and change the models.
    Models {
        /// What to do with them.
        #[command(subcommand)]
        command: ModelsCommand,
    },
    /// Fit a candidate on the stored traces.
    Train(TrainArgs),
    /// What candidates would have been worth on held-out decisions, and whether they may be promoted.
    Evaluate(EvaluateArgs),
    /// Let a candidate choose, for all requests or for a share of them.
    Promote(PromoteArgs),
    /// End the canary, or return to the policy that chose before.
    Rollback {
        /// Why, for the audit log.
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// Let a policy decide beside the running one, without calling models.
    Shadow(ShadowArgs),
    /// List, show and install policies.
    Policies {
        /// What to do with them.
        #[command(subcommand)]
        command: PoliciesCommand,
    },
    /// The daemon's own budget and what is left of it.
    Budget,
    /// List, set, adjust and prove budgets.
    Budgets {
        /// What to do with them.
        #[command(subcommand)]
        command: BudgetsCommand,
    },
    /// Make, list, revoke and rotate keys.
    Keys {
        /// What to do with them.
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// What was done to the daemon, and whether the log of it is what was written.
    Audit {
        /// What to do with it.
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Begin the graceful end of the daemon.
    Drain {
        /// The most time for requests under way. Default: the daemon's configured time.
        #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
        grace: Option<Duration>,
    },
    /// Whether the daemon serves; exit code 69 when it does not.
    Health {
        /// Name of one of its services, for instance pointsman.v1.RouterService. Default: the whole daemon.
        #[arg(long, default_value = "")]
        service: String,
    },
    /// Print a completion script.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Arguments of `feedback`.
#[derive(Debug, Args)]
pub(crate) struct FeedbackArgs {
    /// Id of the decision.
    #[arg(required_unless_present = "lines", conflicts_with = "lines")]
    pub(crate) decision: Option<String>,
    /// The judgement.
    #[command(flatten)]
    pub(crate) verdict: VerdictArgs,
    /// Judge this model instead of the merged answer.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Who judges; each source has its own feedback.
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// A remark for people.
    #[arg(long)]
    pub(crate) comment: Option<String>,
    /// Many at once: JSON Lines of `pointsman.v1.Feedback`, for instance {"decisionId": "…", "correct": true}; - is
    /// stdin, .gz is unpacked.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "source", "comment", "verdict"])]
    pub(crate) lines: Option<String>,
}

/// The judgement: exactly one.
#[derive(Debug, Args)]
#[group(id = "verdict", required = false, multiple = false)]
pub(crate) struct VerdictArgs {
    /// The answer is right.
    #[arg(long)]
    pub(crate) right: bool,
    /// The answer is wrong.
    #[arg(long)]
    pub(crate) wrong: bool,
    /// How right it is, 0 to 1.
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) score: Option<f64>,
    /// The right answer (or @FILE, or -); the daemon compares.
    #[arg(long, value_name = "TEXT")]
    pub(crate) expected: Option<String>,
}

/// What to do with the models.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Every model with its card and state.
    List,
    /// Add a model, enabled.
    Register(RegisterArgs),
    /// Let a model be chosen again.
    Enable {
        /// Its name.
        name: String,
    },
    /// Keep a model from being chosen; what is known of it stays.
    Disable {
        /// Its name.
        name: String,
    },
    /// Take a model out; calls under way end normally.
    Remove {
        /// Its name.
        name: String,
    },
}

/// Arguments of `models register`.
#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// Name, unique in the daemon.
    pub(crate) name: String,
    /// Name of the configured backend that calls it.
    #[arg(long)]
    pub(crate) backend: String,
    /// The provider's own id of the model. Default: its name.
    #[arg(long)]
    pub(crate) upstream: Option<String>,
    /// It costs nothing. Some price is needed: an unknown one is refused.
    #[arg(long, conflicts_with_all = ["input_usd_per_million_tokens", "output_usd_per_million_tokens", "usd_per_call"])]
    pub(crate) free: bool,
    /// Price of a million input tokens, in US dollars, for instance 0.15.
    #[arg(long, value_parser = parse::usd_nanos, value_name = "USD")]
    pub(crate) input_usd_per_million_tokens: Option<i64>,
    /// Price of a million output tokens, in US dollars.
    #[arg(long, value_parser = parse::usd_nanos, value_name = "USD")]
    pub(crate) output_usd_per_million_tokens: Option<i64>,
    /// Price of a call as such, in US dollars.
    #[arg(long, value_parser = parse::usd_nanos, value_name = "USD")]
    pub(crate) usd_per_call: Option<i64>,
    /// The most that a call costs, in US dollars, where the backend itself reports each call's cost.
    #[arg(long, value_parser = parse::usd_nanos, value_name = "USD")]
    pub(crate) metered_max_usd_per_call: Option<i64>,
    /// Input and output that fit it together, in tokens. Default: the daemon's.
    #[arg(long, value_name = "N")]
    pub(crate) context_tokens_max: Option<u32>,
    /// Cap on the output of a call, in tokens. Default: the daemon's.
    #[arg(long, value_name = "N")]
    pub(crate) output_tokens_max: Option<u32>,
    /// Time after which a call of it is given up. Default: the daemon's.
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    pub(crate) call_timeout: Option<Duration>,
    /// Models of one family err alike, for instance llama-3.
    #[arg(long)]
    pub(crate) family: Option<String>,
}

/// How an answer is read, compared and merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A short answer out of few.
    Label,
    /// A number.
    Number,
    /// A JSON document.
    Json,
    /// Free text.
    Text,
}

impl Kind {
    /// The kind on the wire.
    pub(crate) fn wire(self) -> v1::AnswerKind {
        match self {
            Self::Label => v1::AnswerKind::Label,
            Self::Number => v1::AnswerKind::Number,
            Self::Json => v1::AnswerKind::Json,
            Self::Text => v1::AnswerKind::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_shape_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn one_verdict_only() {
        let check = |line: &str, fits: bool| {
            assert_eq!(Cli::try_parse_from(line.split(' ')).is_ok(), fits, "{line}");
        };
        check("pointsman feedback d-1 --right", true);
        check("pointsman feedback d-1 --right --wrong", false);
        check("pointsman feedback --right", false);
        check("pointsman feedback --lines - --right", false);
        check("pointsman feedback --lines -", true);
        check("pointsman feedback d-1 --score 0.5 --model m --json", true);
    }
}
