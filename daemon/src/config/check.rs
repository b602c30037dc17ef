//! Makes a checked [`Config`] of the layered tables and reports every fault on the way.
//!
//! A key that is at fault counts as absent, so the rest can still be looked at; the configuration
//! that comes out beside faults must not be used.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use pointsman_router::ids::{ModelName, TaskType};
use pointsman_router::money::NanoUsd;
use pointsman_router::settings::{CALLS_LIMIT, Settings};

use super::auth::auth;
use super::checked::{Config, PolicyChoice, PolicyConfig, Server, Store, TlsFiles};
use super::fault::{FaultKind, Faults};
use super::layers::{Environment, Layered};
use super::learning::learning;
use super::section::{self, Section};
use super::values::resolved;
use super::{budget, check_models};
use crate::rates::{Limit, Limits};

const MIB: u64 = 1 << 20;
/// More exploration than this is another policy.
const EXPLORATION_MAX: f64 = 0.2;

/// Checks all sections.
pub(super) fn check(layered: &Layered, environment: &Environment) -> Config {
    let faults = &layered.faults;
    let mut root = Section::root(&layered.table, faults);
    let mut settings = Settings::default();
    let server = server(root.table("server"), &layered.folder, &mut settings);
    let auth = auth(root.table("auth"), server.listen);
    let policy = policy(root.table("policy"), faults, &mut settings);
    let main = budget::main(root.table("budget"));
    let budgets = budget::others(root.tables("budgets"), main.as_ref());
    let limits = limits(root.table("limits"));
    let store = store(root.table("store"), environment, &mut settings);
    let learning = learning(root.table("learning"));
    let backends = check_models::backends(root.tables("backend"), &layered.folder, environment);
    let models = check_models::models(root.tables("model"), &backends);
    root.end();
    Config {
        server,
        auth,
        policy,
        settings,
        budget: main,
        budgets,
        limits,
        store,
        learning,
        backends: backends.known,
        models,
    }
}

/// Reports rules that name models which nobody registers. Called once the models are known that
/// recorded and simulated backends bring.
pub fn check_rules(policy: &PolicyConfig, known: &BTreeSet<ModelName>, faults: &Faults) {
    let rules = policy.rules.iter().map(|(task, models)| (format!("policy.rules.{task}"), models));
    for (path, models) in rules.chain([("policy.default".to_owned(), &policy.default)]) {
        for model in models.iter().filter(|model| !known.contains(*model)) {
            faults.add(path.clone(), FaultKind::NoSuch { what: "model", name: model.to_string() });
        }
    }
}

fn server(mut section: Section<'_>, folder: &Path, settings: &mut Settings) -> Server {
    const SECOND: Duration = Duration::from_secs(1);
    let message_bytes_max = section.whole("message_bytes_max", 64 << 10, 64 * MIB).unwrap_or(4 * MIB);
    let prompt_bytes_max = section.whole("prompt_bytes_max", 1, message_bytes_max);
    let prompt_bytes_max = prompt_bytes_max.unwrap_or(message_bytes_max.min(settings.prompt_bytes_max as u64));
    settings.prompt_bytes_max = usize::try_from(prompt_bytes_max).unwrap_or(usize::MAX);
    let state_dir = section.text("state_dir").unwrap_or_else(|| "pointsman-state".to_owned());
    if state_dir.is_empty() {
        section.fault("state_dir", FaultKind::Empty { wanted: "a folder" });
    }
    let server = Server {
        listen: listen(&mut section),
        reflection: section.flag("reflection").unwrap_or(true),
        state_dir: resolved(folder, &state_dir),
        message_bytes_max: usize::try_from(message_bytes_max).unwrap_or(usize::MAX),
        drain_timeout: section.span("drain_timeout", Duration::ZERO, 3_600 * SECOND).unwrap_or(30 * SECOND),
        requests_max: section.count("requests_max", 1, 1_000_000).map_or(4_096, |max| max as usize),
        tls: tls(section.table("tls"), folder),
    };
    section.end();
    server
}

fn tls(mut section: Section<'_>, folder: &Path) -> Option<TlsFiles> {
    if !section.is_present() {
        return None;
    }
    for (key, wanted) in [("certificate", "a PEM file with the certificate"), ("key", "a PEM file with its key")] {
        if !section.has(key) {
            section.missing(key, wanted);
        }
    }
    let mut file = |key| section.text(key).map(|path| resolved(folder, &path));
    let (certificate, key, client_authorities) = (file("certificate"), file("key"), file("client_authorities"));
    section.end();
    Some(TlsFiles { certificate: certificate?, key: key?, client_authorities })
}

fn listen(section: &mut Section<'_>) -> SocketAddr {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 7001));
    let Some(text) = section.text("listen") else { return default };
    match text.parse::<SocketAddr>() {
        Ok(address) => return address,
        Err(_) => {
            let found = format!("\"{}\"", text.escape_debug());
            section.fault("listen", FaultKind::WrongForm { wanted: "ADDRESS:PORT such as 127.0.0.1:7001", found });
        }
    }
    default
}

fn policy(mut section: Section<'_>, faults: &Faults, settings: &mut Settings) -> PolicyConfig {
    const CALLS_WANTED: &str = "how many models to call at most, from 1 to 8";
    let kinds = [("rules", PolicyChoice::Rules), ("bandit", PolicyChoice::Bandit)];
    let kind = section.word("kind", &kinds);
    if let Some(micros) = section.whole("answer_value_usd_micros", 0, 1_000_000_000_000) {
        // Zero: no value was set on an answer, quality alone counts.
        let value = i64::try_from(micros).ok().and_then(NanoUsd::from_micros);
        settings.answer_value = value.filter(|value| *value > NanoUsd::ZERO);
    }
    if let Some(attempts) = section.count("attempts_max", 1, 5) {
        settings.attempts_max = attempts;
    }
    if let Some(calls) = section.count("calls_max_default", 1, CALLS_LIMIT) {
        settings.calls_max_default = calls;
    }
    let calls = section.entries("calls_max", CALLS_WANTED, |value| {
        value.as_integer().and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=CALLS_LIMIT).contains(n))
    });
    settings.calls_max_by_task.extend(calls.into_iter().map(|(task, n)| (TaskType::from(task), n)));
    let exploration = section.number("exploration", 0.0, EXPLORATION_MAX).unwrap_or(0.0);
    let best_single_fallback = section.flag("best_single_fallback").unwrap_or(true);
    let rules: BTreeMap<TaskType, Vec<ModelName>> = section
        .entries("rules", section::NAMES_WANTED, section::read_names)
        .into_iter()
        .map(|(task, names)| {
            section::check_names(faults, &section.at(&format!("rules.{task}")), &names);
            (TaskType::from(task), names.into_iter().map(ModelName::from).collect())
        })
        .collect();
    let default: Vec<ModelName> =
        section.names("default").unwrap_or_default().into_iter().map(ModelName::from).collect();
    if kind == Some(PolicyChoice::Rules) && rules.is_empty() && default.is_empty() && !section.has("default") {
        section.fault("rules", FaultKind::Empty { wanted: "models for a task type, or policy.default" });
    }
    section.end();
    PolicyConfig { kind: kind.unwrap_or(PolicyChoice::Bandit), rules, default, exploration, best_single_fallback }
}

fn limits(mut section: Section<'_>) -> Limits {
    let requests = section.limit("requests_per_minute");
    let tokens = section.limit("tokens_per_minute");
    let spend = section.usd("spend_usd_per_minute").map(|spend| {
        let micros = u64::try_from(spend.micros_rounded_up()).unwrap_or(0);
        Limit::new(micros).map_err(|_| {
            let wanted = "from 0.000001 to 600 dollars a minute, or left out for no limit".to_owned();
            section.fault("spend_usd_per_minute", FaultKind::OutOfRange { wanted });
        })
    });
    section.end();
    Limits { requests, tokens, spend_micros: spend.and_then(Result::ok) }
}

fn store(mut section: Section<'_>, environment: &Environment, settings: &mut Settings) -> Store {
    settings.store_content = section.flag("store_content").unwrap_or(false);
    let store = Store {
        keep_days: section.count("keep_days", 1, 36_500).unwrap_or(30),
        keep_bytes: section.whole("keep_bytes", MIB, 1 << 50).unwrap_or(4 << 30),
        ledger_synced: !environment.loses_acknowledged_rows(),
    };
    section.end();
    store
}
