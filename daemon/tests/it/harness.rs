//! A daemon of its own for each test: a temporary folder, a small world, a free port.
//!
//! The world has two topics and four models: `left` and `right` are good at one topic each, `brick`
//! always fails, `snail` takes seconds. Tests name the models they want.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman_client::{ApiKey, Client, ClientError, Fault, Target, v1};
use pointsman_daemon::config::{Environment, Flags};
use pointsman_daemon::keyring::{Keyring, Wanted};
use pointsman_daemon::keys::{HashKey, Limits, Scope};
use pointsman_daemon::rpc::traffic::Traffic;
use pointsman_daemon::serve::{self, ServeError};
use pointsman_daemon::store::ledger::LedgerStore;
use pointsman_daemon::{audit, backends, config};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const TOPICS: &str = r#"
seed = 7
labels = ["A", "B"]
distractor_correlation = 0.5
topic_word_share = 0.6
common_words = ["the", "of", "which"]
[[topic]]
name = "law"
share = 0.5
words = ["contract", "clause", "jury"]
[[topic]]
name = "code"
share = 0.5
words = ["pointer", "mutex", "array"]
"#;

/// What a test wants of its daemon.
pub(crate) struct Setup {
    folder: Arc<tempfile::TempDir>,
}

impl Setup {
    /// A daemon without a budget.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// A daemon with more in its configuration.
    pub(crate) fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = |name: &str, law: f64, code: f64, failure_rate: f64, latency_ms: u32| {
            format!(
                "[[model]]\nname = \"{name}\"\nfamily = \"{name}\"\ninput_usd_per_million_tokens = \"1\"\n\
                 output_usd_per_million_tokens = \"2\"\ntokens_out = 10\nlatency_ms = {latency_ms}\n\
                 failure_rate = {failure_rate}\nskill = {{ law = {law}, code = {code} }}\n"
            )
        };
        let quick = [model("left", 0.95, 0.4, 0.0, 20), model("right", 0.4, 0.95, 0.0, 20)].concat();
        let worlds = [
            ("quick", quick, 0),
            ("broken", model("brick", 0.5, 0.5, 1.0, 20), 0),
            ("slow", model("snail", 0.9, 0.9, 0.0, 2_000), 1),
        ];
        let mut config = format!("[server]\nlisten = \"127.0.0.1:0\"\nstate_dir = \"state\"\n{more}\n");
        for (name, models, latency_scale) in worlds {
            std::fs::write(folder.path().join(format!("{name}.toml")), format!("{TOPICS}{models}")).unwrap();
            config.push_str(&format!(
                "[[backend]]\nname = \"{name}\"\nkind = \"simulated\"\nworld = \"{name}.toml\"\nlatency_scale = {latency_scale}.0\n"
            ));
        }
        std::fs::write(folder.path().join("pointsman.toml"), config).unwrap();
        Self { folder: Arc::new(folder) }
    }

    /// The folder of the configuration.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Starts the daemon.
    pub(crate) async fn start(&self) -> Running {
        self.start_in(&Environment::default()).await
    }

    /// Starts the daemon with these variables.
    pub(crate) async fn start_in(&self, environment: &Environment) -> Running {
        Running::start(&self.folder, environment).await.unwrap()
    }

    /// The keyring while the daemon does not run.
    pub(crate) async fn keyring(&self) -> Keyring {
        let hash_key = HashKey::new(&config::key_secret(&self.state()).unwrap());
        let ledger = LedgerStore::open(&self.state().join("ledger.db"), None).await.unwrap();
        Keyring::open(ledger, hash_key).await.unwrap()
    }

    /// Makes a key while the daemon does not run: its text.
    pub(crate) async fn key(&self, tenant: &str, scopes: &[Scope]) -> String {
        let fresh = self.keyring().await.create(wanted(tenant, scopes), &operator()).await.unwrap();
        fresh.text.expose().to_owned()
    }

    /// Why the daemon does not start.
    pub(crate) async fn refusal(&self) -> ServeError {
        match Running::start(&self.folder, &Environment::default()).await {
            Ok(_) => panic!("the daemon started"),
            Err(error) => error,
        }
    }
}

/// A daemon that is up.
pub(crate) struct Running {
    pub client: Client,
    pub address: String,
    traffic: Traffic,
    served: JoinHandle<Result<(), ServeError>>,
    /// A folder that went with a setup nobody kept would be gone under the daemon.
    _folder: Arc<tempfile::TempDir>,
}

impl Running {
    async fn start(folder: &Arc<tempfile::TempDir>, environment: &Environment) -> Result<Self, ServeError> {
        let flags = Flags { file: Some(folder.path().join("pointsman.toml")), ..Flags::default() };
        let loaded = backends::load(environment, &flags).unwrap();
        let listener = TcpListener::bind(loaded.config.server.listen).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let daemon = serve::Daemon::open(loaded).await?;
        let traffic = daemon.traffic().clone();
        let served = tokio::task::spawn(daemon.serve(listener));
        let client = Client::connect(Target::new(&address)).await.unwrap();
        Ok(Self { client, address, traffic, served, _folder: Arc::clone(folder) })
    }

    /// Drains the daemon and waits for its end.
    pub(crate) async fn stop(self) {
        let Self { client, traffic, served, _folder, .. } = self;
        drop(client);
        traffic.drain(None);
        served.await.unwrap().unwrap();
    }

    /// A client that comes with a key.
    pub(crate) async fn client_with(&self, key: &str) -> Client {
        let target = Target { key: Some(ApiKey::new(key).unwrap()), ..Target::new(&self.address) };
        Client::connect(target).await.unwrap()
    }

    /// Requests under way.
    pub(crate) fn under_way(&self) -> usize {
        self.traffic.len()
    }

    /// Routes a prompt to one of these models.
    pub(crate) async fn route(&self, prompt: &str, models: &[&str]) -> Result<v1::RouteResponse, ClientError> {
        self.client.route(request(spec(prompt, models))).await
    }

    /// Judges a decision's answer.
    pub(crate) async fn judge(&self, decision: &str, correct: bool) -> Result<v1::FeedbackAck, ClientError> {
        self.client.feedback(feedback(decision, v1::feedback::Verdict::Correct(correct))).await
    }

    /// A trace, once it is committed.
    pub(crate) async fn trace(&self, decision: &str) -> v1::Trace {
        let request = v1::GetTraceRequest { decision_id: decision.to_owned() };
        self.client.get_trace(request).await.unwrap().trace.unwrap()
    }

    /// All traces, newest first.
    pub(crate) async fn traces(&self) -> Vec<v1::Trace> {
        self.client.list_traces(v1::ListTracesRequest::default()).await.unwrap().traces
    }

    /// Statistics of one model.
    pub(crate) async fn stats(&self, model: &str) -> v1::ModelStats {
        let request = v1::ListModelStatsRequest { models: vec![model.to_owned()], ..Default::default() };
        self.client.list_model_stats(request).await.unwrap().stats.remove(0)
    }
}

/// A key that somebody wants.
pub(crate) fn wanted(tenant: &str, scopes: &[Scope]) -> Wanted {
    Wanted {
        tenant: tenant.to_owned(),
        name: String::new(),
        scopes: scopes.iter().copied().collect(),
        expires_at: None,
        limits: Limits::default(),
    }
}

/// Whoever works on the state folder, long ago.
pub(crate) fn operator() -> audit::By {
    audit::By::new(audit::OPERATOR, pointsman_router::clock::Timestamp::from_micros(0))
}

/// A label question for these models.
pub(crate) fn spec(prompt: &str, models: &[&str]) -> v1::RequestSpec {
    v1::RequestSpec {
        prompt: prompt.to_owned(),
        answer_kind: v1::AnswerKind::Label.into(),
        labels: vec!["A".into(), "B".into()],
        calls_max: Some(2),
        models_allowed: models.iter().map(|model| (*model).to_owned()).collect(),
        ..v1::RequestSpec::default()
    }
}

pub(crate) fn request(spec: v1::RequestSpec) -> v1::RouteRequest {
    v1::RouteRequest { request: Some(spec), ..v1::RouteRequest::default() }
}

pub(crate) fn feedback(decision: &str, verdict: v1::feedback::Verdict) -> v1::Feedback {
    v1::Feedback {
        decision_id: decision.to_owned(),
        verdict: Some(verdict),
        source: "test".into(),
        ..Default::default()
    }
}

/// The fields at fault.
pub(crate) fn fields(fault: &Fault) -> Vec<&str> {
    fault.violations.iter().map(|violation| violation.field.as_str()).collect()
}
