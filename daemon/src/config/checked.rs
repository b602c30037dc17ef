//! The checked configuration: every limit holds, every path is resolved, amounts are money.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pointsman_router::ids::{ModelName, TaskType};
use pointsman_router::money::Price;
use pointsman_router::settings::Settings;
use serde::{Deserialize, Serialize};

use super::auth::Auth;
use super::budget::Budget;
use super::learning::LearningConfig;
use super::secret::Key;
use crate::rates::{Limit, Limits};

/// Everything that an operator set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where and how to listen.
    pub server: Server,
    /// Whether callers need keys.
    pub auth: Auth,
    /// How to choose.
    pub policy: PolicyConfig,
    /// The settings of the decision core. The secret in it is zero until the state folder is opened:
    /// whoever wires the router puts [`super::installation_secret`] there.
    pub settings: Settings,
    /// The daemon-wide budget, where there is one.
    pub budget: Option<Budget>,
    /// The budgets of tenants, keys and tags beside it.
    pub budgets: Vec<Budget>,
    /// What a caller may do in a minute, where its key says nothing else.
    pub limits: Limits,
    /// What the stores keep.
    pub store: Store,
    /// What is kept to learn from, and when a candidate is trained by itself.
    pub learning: LearningConfig,
    /// The adapters, by name in the order of the file.
    pub backends: Vec<BackendConfig>,
    /// The models that are listed one by one. Recorded and simulated backends bring more.
    pub models: Vec<Registration>,
}

/// Where and how to listen.
#[derive(Debug, Clone)]
pub struct Server {
    /// Address of the gRPC server; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether the server describes itself to clients such as grpcurl.
    pub reflection: bool,
    /// The folder of everything that is kept.
    pub state_dir: PathBuf,
    /// The largest message, in bytes, both ways.
    pub message_bytes_max: usize,
    /// How long a drain waits for requests that are under way.
    pub drain_timeout: Duration,
    /// Requests that may be under way at once; more are refused.
    pub requests_max: usize,
    /// The files of TLS; `None`: connections are in clear.
    pub tls: Option<TlsFiles>,
}

/// Where certificates come from, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, with those between it and its authority.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// Authorities, one of which must have signed a client's certificate; `None`: clients need none.
    pub client_authorities: Option<PathBuf>,
}

/// Which policy serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyChoice {
    /// Task type to models, as listed.
    Rules,
    /// Learns online from feedback.
    Bandit,
}

/// How to choose.
#[derive(Debug, Clone)]
pub struct PolicyConfig {
    /// Which policy serves.
    pub kind: PolicyChoice,
    /// The models of a task type, the best first.
    pub rules: BTreeMap<TaskType, Vec<ModelName>>,
    /// The models of any other task type, the best first; empty: all.
    pub default: Vec<ModelName>,
    /// The share of the choices that the running policy gives to exploration.
    pub exploration: f64,
    /// Whether the best single model stands in for a learned policy that it beats.
    pub best_single_fallback: bool,
}

/// What the stores keep. Whether content is kept stands in [`Settings::store_content`].
#[derive(Debug, Clone, Copy)]
pub struct Store {
    /// Traces older than this are pruned.
    pub keep_days: u32,
    /// The oldest traces are pruned beyond this many bytes.
    pub keep_bytes: u64,
    /// Whether commits of `ledger.db` are synced before they are acknowledged. Always, but for the control run of
    /// `scripts/chaos`: see [`LOSE_ACKNOWLEDGED_ROWS`](super::LOSE_ACKNOWLEDGED_ROWS).
    pub ledger_synced: bool,
}

/// A configured adapter.
#[derive(Debug, Clone)]
pub struct BackendConfig {
    /// Its name, to which models refer.
    pub name: Arc<str>,
    /// Its key in the file, for faults: `backend[0]`.
    pub path: String,
    /// What it is.
    pub kind: BackendKind,
    /// The provider's own limits: requests and tokens a minute.
    pub provider: (Option<Limit>, Option<Limit>),
}

/// What an adapter is.
#[derive(Debug, Clone)]
pub enum BackendKind {
    /// OpenAI-compatible chat completions.
    Openai(OpenaiConfig),
    /// Answers out of a recorded-outcomes file.
    Recorded(RecordedConfig),
    /// A seeded world.
    Simulated(SimulatedConfig),
}

/// The field in which a provider takes the output cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputCapField {
    /// `max_tokens`: what nearly every compatible server knows.
    MaxTokens,
    /// `max_completion_tokens`: what OpenAI itself wants since its reasoning models.
    MaxCompletionTokens,
}

/// An OpenAI-compatible provider.
#[derive(Debug, Clone)]
pub struct OpenaiConfig {
    /// Where `/chat/completions` is appended; http or https, no trailing slash.
    pub base_url: String,
    /// The key.
    pub key: Key,
    /// Calls under way at once; more wait.
    pub concurrency_max: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// The largest reply, in bytes.
    pub reply_bytes_max: usize,
    /// The field of the output cap.
    pub output_cap_field: OutputCapField,
    /// Whether a JSON schema is sent along; off for servers that refuse it.
    pub json_schema: bool,
}

/// A recorded-outcomes file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedConfig {
    /// The JSONL file, gzipped when its name ends in `.gz`.
    pub file: PathBuf,
    /// The models that are registered from it; `None`: all.
    pub pool: Option<Vec<String>>,
}

/// A simulated world.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulatedConfig {
    /// The world's TOML file.
    pub world: PathBuf,
    /// The models that are registered from it; `None`: all.
    pub pool: Option<Vec<String>>,
    /// Real seconds slept per simulated second; zero: none.
    pub latency_scale: f64,
}

/// A model as the configuration or an administrator registers it: what is not given comes from the
/// backend where that knows it, from a default otherwise. A price has no default: unknown price means
/// deny.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The name under which it is registered.
    pub name: ModelName,
    /// The backend that serves it.
    pub backend: String,
    /// The provider's own name of it; empty: the same name.
    pub upstream: String,
    /// What the provider charges.
    pub price: Option<Price>,
    /// Tokens that fit into a request and its reply together.
    pub context_tokens_max: Option<u32>,
    /// Cap on the output where the request gives none.
    pub output_tokens_max: Option<u32>,
    /// How long one attempt may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The family it belongs to.
    pub family: Option<String>,
}

impl Registration {
    /// The provider's own name of the model.
    #[must_use]
    pub fn upstream(&self) -> &str {
        if self.upstream.is_empty() { self.name.as_str() } else { &self.upstream }
    }
}
