//! The arguments of `keys` and `audit`. A secret is never one of them: arguments are seen by whoever lists processes.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use pointsman_client::v1;
use prost_types::Timestamp;

use crate::cli::parse;

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and show its text, this once.
    Create(CreateKeyArgs),
    /// Every key, also those that let nobody in any more.
    List {
        /// Those of one tenant.
        #[arg(long, default_value = "", value_name = "TENANT")]
        tenant: String,
    },
    /// Let a key let nobody in any more.
    Revoke {
        /// Its id.
        id: String,
    },
    /// Replace a key by a successor with the same tenant, scopes and limits, and show its text, this once.
    Rotate {
        /// Its id.
        id: String,
        /// How long the old key goes on letting in. Default: not at all.
        #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
        grace: Option<Duration>,
        /// From when on the new key lets nobody in. Default: when the old one would have ended.
        #[arg(long, value_parser = parse::timestamp, value_name = "TIME")]
        expires_at: Option<Timestamp>,
    },
}

/// Arguments of `keys create`.
#[derive(Debug, Args)]
pub(crate) struct CreateKeyArgs {
    /// Whose it is.
    #[arg(long)]
    pub(crate) tenant: String,
    /// What people call it.
    #[arg(long, default_value = "")]
    pub(crate) name: String,
    /// What it may do; several times or divided by commas.
    #[arg(long = "scope", required = true, value_delimiter = ',')]
    pub(crate) scopes: Vec<ScopeArg>,
    /// From when on it lets nobody in, for instance 2027-01-01T00:00:00Z.
    #[arg(long, value_parser = parse::timestamp, value_name = "TIME")]
    pub(crate) expires_at: Option<Timestamp>,
    /// Requests that it may make in a minute.
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_minute: Option<u64>,
    /// Tokens, in and out, that it may use in a minute.
    #[arg(long, value_name = "N")]
    pub(crate) tokens_per_minute: Option<u64>,
    /// Micro-dollars that it may spend in a minute.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) spend_usd_micros_per_minute: Option<i64>,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeArg {
    /// Have requests routed, decide, report.
    Route,
    /// Say what was right.
    Feedback,
    /// Read traces of its tenant, and statistics.
    Read,
    /// Train, evaluate, promote, import.
    Train,
    /// Everything, for every tenant.
    Admin,
}

impl ScopeArg {
    /// The scope on the wire.
    pub(crate) fn wire(self) -> v1::KeyScope {
        match self {
            Self::Route => v1::KeyScope::Route,
            Self::Feedback => v1::KeyScope::Feedback,
            Self::Read => v1::KeyScope::Read,
            Self::Train => v1::KeyScope::Train,
            Self::Admin => v1::KeyScope::Admin,
        }
    }
}

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// What was done, newest first.
    List {
        /// The most entries.
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: u32,
    },
    /// Whether the log is what was written; exit code 70 when it is not.
    Verify {
        /// A head that was written down earlier, as `audit verify` showed it: it must still be in the log.
        #[arg(long, value_name = "PLACE:HASH")]
        known: Option<String>,
    },
}
