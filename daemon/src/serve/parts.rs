//! The parts of the daemon, opened in the order in which one needs the other.

use std::path::PathBuf;
use std::sync::Arc;

use pointsman_router::bandit::BanditSettings;
use pointsman_router::clock::{Clock, Seeds};
use pointsman_router::encode::Encoder;
use pointsman_router::heads::Prior;
use pointsman_router::hold::Ledger;
use pointsman_router::model::PoolSource;
use pointsman_router::pipeline::{Ports, Router};
use pointsman_router::policy::{Policy as _, PolicyKind, PolicySource};
use pointsman_router::rules::RulesPolicy;
use pointsman_router::trace::TraceSink;
use serde_json::json;
use tokio::sync::mpsc;

use super::ServeError;
use super::transport::Services;
use crate::backends::Loaded;
use crate::booking;
use crate::clock::{OsSeeds, SystemClock};
use crate::config::{self, Config, Keys, Pacing, PolicyChoice, PolicyConfig, Store};
use crate::feedback::FeedbackDesk;
use crate::keyring::{KeyLimits, Keyring};
use crate::keys::HashKey;
use crate::learning::{Artifact, Learning, Opening, Teacher};
use crate::money::{BudgetLedger, Configured, UNBUDGETED};
use crate::pacing::BudgetPacer;
use crate::rates::{Braked, Callers, LimitSource};
use crate::registry::Registry;
use crate::reports::Reports;
use crate::retention::Retention;
use crate::rpc::admin::Administration;
use crate::rpc::budgets::Budgets;
use crate::rpc::door::Door;
use crate::rpc::feedback::Verdicts;
use crate::rpc::idempotency::Idempotency;
use crate::rpc::policy::Policies;
use crate::rpc::reading::TraceReader;
use crate::rpc::router::Routing;
use crate::rpc::stats::Statistics;
use crate::rpc::traffic::Traffic;
use crate::rpc::training::Candidates;
use crate::store::artifacts::ArtifactStore;
use crate::store::ledger::{FeedbackCommitted, LedgerStore};
use crate::store::lock::StateLock;
use crate::store::traces::{self, Committed, TraceStore, TraceStoreSettings};
use crate::store::{Durability, StoreError};
use crate::training::evaluate::Evaluator;
use crate::training::import::Importer;
use crate::training::known::KnownPolicies;
use crate::training::retrain::{Due, Retraining};
use crate::training::trainer::{Ground, Trainer};
use crate::wire::trace::Kept;

/// Committed rows that wait for the teacher; beyond it feedback and booking wait.
pub(super) const LESSONS_MAX: usize = 4_096;

/// Everything that serves.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) traces: TraceStore,
    pub(super) ledger: LedgerStore,
    pub(super) budget: Arc<BudgetLedger>,
    pacer: Arc<BudgetPacer>,
    pub(super) registry: Arc<Registry>,
    pub(super) learning: Learning,
    pub(super) reports: Arc<Reports>,
    pub(super) router: Arc<Router>,
    pub(super) traffic: Traffic,
    pub(super) trainer: Trainer,
    pub(super) evaluator: Evaluator,
    pub(super) retraining: Retraining,
    keyring: Arc<Keyring>,
    demands_keys: bool,
    state_dir: PathBuf,
    keeps: Store,
    departing_share: f64,
    /// What callers may do in a minute.
    limits: Arc<dyn LimitSource>,
    message_bytes_max: usize,
    /// Released last: fields are dropped in their order.
    _lock: StateLock,
}

/// The parts, and what the jobs are fed with.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) parts: Parts,
    pub(super) teacher: Teacher,
    pub(super) feedback: mpsc::Receiver<FeedbackCommitted>,
    pub(super) committed: mpsc::UnboundedReceiver<Committed>,
    /// The place up to which everything is booked.
    pub(super) booked: u64,
}

/// What the daemon of this installation learns into.
#[must_use]
pub fn artifact(secret: u64) -> Artifact {
    Artifact::cold(BanditSettings::default(), Encoder::new(secret).schema())
}

/// Opens everything.
pub(super) async fn open(loaded: Loaded) -> Result<Opened, ServeError> {
    let Loaded { mut config, backends, models } = loaded;
    config.settings.secret = config::installation_secret(&config.server.state_dir)?;
    let secret = config.settings.secret;
    let lock = StateLock::take(&config.server.state_dir)?;
    let (clock, seeds): (Arc<dyn Clock>, Arc<dyn Seeds>) = (Arc::new(SystemClock), Arc::new(OsSeeds::default()));
    let artifact = artifact(secret);

    let (tell_feedback, feedback) = mpsc::channel(LESSONS_MAX);
    let ledger = open_ledger(&config, tell_feedback).await?;
    let keyring = open_keyring(&config, &ledger, &*clock).await?;
    let (traces, committed) = open_traces(&config, &ledger).await?;
    let (budget, booked) = open_budgets(&config, (&traces, &ledger), &clock).await?;

    let registry = Arc::new(Registry::open(backends, models, Arc::new(ledger.clone()))?);
    let state_dir =
        std::path::absolute(&config.server.state_dir).unwrap_or_else(|_| config.server.state_dir.clone());
    let (artifacts, schema) = (ArtifactStore::open(&state_dir)?, artifact.basis.schema());
    let known = KnownPolicies { artifacts: artifacts.clone(), ledger: ledger.clone(), schema };
    let opening = opening(&config.policy, artifact, known);
    describe(&config.policy, &opening, &ledger, &*clock).await?;
    let stores = (traces.clone(), ledger.clone());
    let (teacher, learning) = Teacher::open(opening, stores, Arc::clone(&clock)).await?;

    let limits: Arc<dyn LimitSource> = Arc::new(KeyLimits { keyring: keyring.clone(), default: config.limits });
    let pacing = config.budget.as_ref().map_or(Pacing::Off, |budget| budget.pacing);
    let pacer = Arc::new(BudgetPacer::new(Arc::clone(&budget), pacing));
    let ports = Ports {
        clock: Arc::clone(&clock),
        seeds: Arc::clone(&seeds),
        pools: Arc::clone(&registry) as Arc<dyn PoolSource>,
        policies: learning.policies() as Arc<dyn PolicySource>,
        ledger: Arc::new(Braked::new(Arc::clone(&budget) as Arc<dyn Ledger>, Arc::clone(&limits))),
        pacer: Arc::clone(&pacer) as _,
        traces: Arc::new(traces.clone()) as Arc<dyn TraceSink>,
    };
    let ground = Ground {
        artifacts,
        state_dir: state_dir.clone(),
        schema,
        traces: traces.clone(),
        ledger: ledger.clone(),
        clock: Arc::clone(&clock),
    };
    let (trainer, evaluator) = (Trainer::new(ground.clone()), Evaluator::new(ground));
    let due = Due { every: config.learning.retrain_every, after_feedback: config.learning.retrain_after_feedback };
    let (pools, desk) = (Arc::clone(&ports.pools), Arc::clone(&ports.ledger));
    let time = (Arc::clone(&clock), seeds);
    let parts = Parts {
        reports: Arc::new(Reports::new(traces.clone(), (Arc::clone(&budget), desk), pools, time, secret)),
        router: Arc::new(Router::new(config.settings.clone(), ports)),
        traffic: Traffic::new(config.server.requests_max),
        retraining: Retraining::open(trainer.clone(), evaluator.clone(), due).await?,
        trainer,
        evaluator,
        keyring,
        demands_keys: config.auth.keys == Keys::Required,
        state_dir,
        keeps: config.store,
        departing_share: config.learning.departing_share,
        limits,
        message_bytes_max: config.server.message_bytes_max,
        _lock: lock,
        clock,
        traces,
        ledger,
        budget,
        pacer,
        registry,
        learning,
    };
    Ok(Opened { parts, teacher, feedback, committed, booked })
}

/// Books what is committed, then opens the budgets; the place up to which everything is booked.
async fn open_budgets(
    config: &Config,
    (traces, ledger): (&TraceStore, &LedgerStore),
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<BudgetLedger>, u64), ServeError> {
    let main = config.budget.as_ref().map_or(UNBUDGETED, |budget| &budget.name);
    let booked = booking::catch_up(main, traces, ledger, clock.now()).await?;
    let configured = Configured { main: config.budget.clone(), others: config.budgets.clone() };
    Ok((Arc::new(BudgetLedger::open(ledger.clone(), configured, Arc::clone(clock)).await?), booked))
}

/// The keys of callers. Where they are demanded and none may administrate, only the command line can make one.
async fn open_keyring(
    config: &Config,
    ledger: &LedgerStore,
    clock: &dyn Clock,
) -> Result<Arc<Keyring>, ServeError> {
    let hash_key = HashKey::new(&config::key_secret(&config.server.state_dir)?);
    let keyring = Keyring::open(ledger.clone(), hash_key).await?;
    if config.auth.keys == Keys::Required && !keyring.has_admin(clock.now()) {
        tracing::warn!("keys are required and none may administrate, make one with `pointsmand keys create`");
    }
    Ok(Arc::new(keyring))
}

async fn open_ledger(
    config: &Config,
    tell_feedback: mpsc::Sender<FeedbackCommitted>,
) -> Result<LedgerStore, StoreError> {
    let path = config.server.state_dir.join("ledger.db");
    if config.store.ledger_synced {
        return LedgerStore::open(&path, Some(tell_feedback)).await;
    }
    tracing::warn!("a power cut will lose acknowledged rows, as {} wants", config::LOSE_ACKNOWLEDGED_ROWS);
    LedgerStore::open_as(&path, Durability::Normal, Some(tell_feedback)).await
}

/// The trace store, in which no place is given that the ledger has seen already: a power cut may have
/// taken the tail of its file.
async fn open_traces(
    config: &Config,
    ledger: &LedgerStore,
) -> Result<(TraceStore, mpsc::UnboundedReceiver<Committed>), ServeError> {
    let settings = TraceStoreSettings {
        kept: Kept { content: config.settings.store_content, secret: config.settings.secret },
        floor: ledger.booked_through().await?.max(ledger.learned_through().await?),
        retention: traces::Retention { keep_days: config.store.keep_days, keep_bytes: config.store.keep_bytes },
        sample: config.learning.trace_sample,
        ..TraceStoreSettings::default()
    };
    let (tell, committed) = mpsc::unbounded_channel();
    let store = TraceStore::open(&config.server.state_dir.join("traces.db"), settings, tell).await?;
    Ok((store, committed))
}

/// What the teacher begins with: rules can decide, and be returned to, wherever there are any.
fn opening(config: &PolicyConfig, cold: Artifact, known: KnownPolicies) -> Opening {
    let rules_decide = match config.kind {
        PolicyChoice::Rules => true,
        PolicyChoice::Bandit => false,
    };
    let has_rules = rules_decide || !config.rules.is_empty() || !config.default.is_empty();
    let rules = has_rules.then(|| RulesPolicy::new(config.rules.clone(), config.default.clone()));
    Opening {
        cold,
        rules,
        rules_decide,
        candidates: Arc::new(known),
        exploration: config.exploration,
        may_fall_back: config.best_single_fallback,
    }
}

/// Writes down the policy that the configuration asks for, with its settings for people.
async fn describe(
    config: &PolicyConfig,
    opening: &Opening,
    ledger: &LedgerStore,
    clock: &dyn Clock,
) -> Result<(), ServeError> {
    let (version, kind, settings) = match opening.rules.as_ref().filter(|_| opening.rules_decide) {
        Some(rules) => {
            let settings = config.rules.iter().map(|(task, models)| (task.as_str(), json!(models)));
            let settings = settings.chain([("default", json!(config.default))]).collect::<serde_json::Value>();
            (rules.version().clone(), PolicyKind::Rules, settings)
        }
        None => {
            let BanditSettings { shape, scatter, cooling, floor, prior, shared, alarms, overlap, regrow } =
                BanditSettings::default();
            let prior_of = |Prior { bias, surface, projected, sparse }: Prior| {
                json!({"bias": bias,
                   "surface": surface, "projected": projected, "sparse": sparse})
            };
            let settings = json!({"width_first": cooling.first, "width_least": cooling.least,
                   "width_labels": cooling.labels, "floor": floor, "overlap": overlap, "regrow": regrow,
                   "prior": prior_of(prior), "prior_shared": shared.map(prior_of), "scatter": scatter.as_str(), "alarms": alarms,
                   "inputs_dense": shape.dense, "inputs_sparse": shape.sparse});
            (opening.cold.version(), PolicyKind::Bandit, settings)
        }
    };
    ledger.describe_policy(version, kind.as_str().to_owned(), settings.to_string(), clock.now()).await?;
    Ok(())
}

impl Parts {
    /// Lets rows go.
    pub(super) fn retention(&self) -> Retention {
        Retention::new(self.traces.clone(), self.ledger.clone(), self.learning.clone(), Arc::clone(&self.clock))
    }

    /// The services over these parts.
    pub(super) fn services(&self) -> Services {
        let (clock, traffic) = (Arc::clone(&self.clock), self.traffic.clone());
        let settings = self.router.settings();
        let secret = settings.secret;
        let pools = Arc::clone(&self.registry) as Arc<dyn PoolSource>;
        let policies = Policies {
            learning: self.learning.clone(),
            ledger: self.ledger.clone(),
            candidates: Candidates { trainer: self.trainer.clone(), evaluator: self.evaluator.clone() },
            retraining: self.retraining.clone(),
            pacer: Arc::clone(&self.pacer),
            budget: Arc::clone(&self.budget),
            clock: Arc::clone(&clock),
        };
        Services {
            door: Door {
                keyring: Arc::clone(&self.keyring),
                demands_keys: self.demands_keys,
                clock: Arc::clone(&clock),
            },
            routing: Routing {
                router: Arc::clone(&self.router),
                pools: Arc::clone(&pools),
                clock: Arc::clone(&clock),
                idempotency: Idempotency::new(self.ledger.clone(), Arc::clone(&clock), traffic.clone(), secret),
                reports: Arc::clone(&self.reports),
                traffic: traffic.clone(),
                callers: Arc::new(Callers::new()),
                limits: Arc::clone(&self.limits),
            },
            verdicts: Verdicts {
                desk: FeedbackDesk::new(
                    (self.traces.clone(), self.ledger.clone()),
                    Arc::clone(&clock),
                    secret,
                    self.departing_share,
                ),
            },
            statistics: Statistics {
                reader: TraceReader { traces: self.traces.clone(), ledger: self.ledger.clone() },
                policies: policies.clone(),
                retention: self.retention(),
                importer: Importer::new(self.traces.clone(), self.ledger.clone(), Arc::clone(&clock), secret),
                pools,
                clock: Arc::clone(&clock),
                state_dir: self.state_dir.clone(),
                keeps: self.keeps,
                store_content: settings.store_content,
                message_bytes_max: self.message_bytes_max,
            },
            policies,
            administration: Administration {
                registry: Arc::clone(&self.registry),
                budgets: Budgets { ledger: Arc::clone(&self.budget), clock: Arc::clone(&clock) },
                keyring: Arc::clone(&self.keyring),
                ledger: self.ledger.clone(),
                clock,
                traffic,
            },
        }
    }
}
