//! Arguments of `policies`, `train`, `evaluate`, `promote`, `shadow`.

use clap::{Args, Subcommand, ValueEnum};
use pointsman_client::v1;

/// What to do with the policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PoliciesCommand {
    /// Every policy, newest first.
    List,
    /// One policy, with what its training made and its last evaluation.
    Show {
        /// Its version. Default: the running one.
        version: Option<String>,
    },
    /// Take in an artifact that `pointsmand train` made, as a candidate.
    Install {
        /// The artifact; - is stdin.
        file: String,
    },
}

/// Arguments of `train`.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// What to fit.
    #[arg(long, value_enum, default_value = "hybrid")]
    pub(crate) kind: TrainedKind,
    /// Seed: the same traces, settings and seed make the same artifact.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// The most traces to train on, the newest. Default: all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rows_max: Option<u64>,
}

/// What can be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrainedKind {
    /// Per-model classifiers; they do not learn online.
    Classifier,
    /// A bandit over the fitted features: the same as hybrid.
    Bandit,
    /// A bandit that starts from the fitted classifiers.
    Hybrid,
}

impl TrainedKind {
    /// The kind on the wire.
    pub(crate) fn wire(self) -> v1::PolicyKind {
        match self {
            Self::Classifier => v1::PolicyKind::Classifier,
            Self::Bandit => v1::PolicyKind::Bandit,
            Self::Hybrid => v1::PolicyKind::Unspecified,
        }
    }
}

/// Arguments of `evaluate`.
#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// Versions of the candidates. Default: every candidate, the shadow and the canary too.
    #[arg(value_name = "VERSION")]
    pub(crate) versions: Vec<String>,
    /// Share of the decisions, the latest, to estimate on. Default: 0.3.
    #[arg(long, value_name = "F")]
    pub(crate) held_out: Option<f64>,
    /// Error probability of each one-sided bound. Default: 0.025, for intervals at 95 %.
    #[arg(long, value_name = "P")]
    pub(crate) delta: Option<f64>,
    /// Write a page for people too: one file with plots, to open in a browser.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<String>,
}

/// Arguments of `promote`.
#[derive(Debug, Args)]
pub(crate) struct PromoteArgs {
    /// Version of the candidate.
    pub(crate) version: String,
    /// Share of the requests for which it chooses; below 1 it is a canary, which is rolled back by itself when it is
    /// worse. Default: 1.
    #[arg(long, value_name = "F")]
    pub(crate) share: Option<f64>,
    /// Promote it even though it is unevaluated or fails the gate.
    #[arg(long)]
    pub(crate) force: bool,
    /// Why, for the audit log.
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) reason: String,
}

/// Arguments of `shadow`.
#[derive(Debug, Args)]
pub(crate) struct ShadowArgs {
    /// Version of the policy.
    #[arg(required_unless_present = "off", conflicts_with = "off")]
    pub(crate) version: Option<String>,
    /// Let none decide beside the running one.
    #[arg(long)]
    pub(crate) off: bool,
}
