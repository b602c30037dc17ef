//! Tests of the whole configuration, from text to faults.

use std::path::Path;
use std::time::Duration;

use pointsman_router::ids::{ModelName, TaskType};
use pointsman_router::money::NanoUsd;

use super::*;

const GOOD: &str = r#"
    [budget]
    amount_usd = "12.50"
    window = "week"
    time_zone = "Europe/Berlin"

    [[backend]]
    name = "openai"
    kind = "openai"
    base_url = "https://api.openai.com/v1/"
    key_env = "SOME_KEY"

    [[model]]
    name = "small"
    backend = "openai"
    upstream = "gpt-small"
    input_usd_per_million_tokens = 0.15
    output_usd_per_million_tokens = "0.6"
"#;

fn draft(text: &str, environment: &Environment, flags: Flags) -> Result<Draft, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pointsman.toml");
    std::fs::write(&file, text).unwrap();
    read(environment, &Flags { file: Some(file), ..flags })
}

fn faults(text: &str, environment: &Environment) -> Vec<Fault> {
    match draft(text, environment, Flags::default()).and_then(|draft| draft.faults.finish()) {
        Ok(()) => Vec::new(),
        Err(error) => error.faults,
    }
}

/// The paths at fault, in the order in which they are reported.
#[track_caller]
fn check(text: &str, paths: &[&str]) {
    let found = faults(text, &Environment::default());
    let found_paths: Vec<&str> = found.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(found_paths, paths, "{found:#?}");
}

#[test]
fn the_ledger_is_synced_whatever_is_set_but_for_the_control_run_of_a_debug_build() {
    let synced =
        |environment: Environment| draft(GOOD, &environment, Flags::default()).unwrap().config.store.ledger_synced;
    assert!(synced(Environment::default()));
    for text in ["", "1", "yes", "true", "Yes, lose them"] {
        assert!(synced(Environment::from([(LOSE_ACKNOWLEDGED_ROWS, text)])), "{text}");
    }
    assert_eq!(synced(Environment::from([(LOSE_ACKNOWLEDGED_ROWS, LOSE_THEM)])), !cfg!(debug_assertions));
}

#[test]
fn a_good_file_becomes_exact_values() {
    let environment = Environment::from([("SOME_KEY", "sk-hidden")]);
    let draft = draft(GOOD, &environment, Flags::default()).unwrap();
    assert!(!format!("{draft:?}").contains("hidden"));
    draft.faults.finish().unwrap();
    let config = draft.config;
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:7001");
    let budget = config.budget.unwrap();
    assert_eq!((budget.amount, budget.window), (NanoUsd::new(12_500_000_000), Window::Week));
    assert_eq!(config.settings.answer_value, Some(NanoUsd::new(50_000_000)));
    let price = config.models[0].price.unwrap();
    assert_eq!(price.input_per_million_tokens, NanoUsd::new(150_000_000));
    assert_eq!(price.output_per_million_tokens, NanoUsd::new(600_000_000));
    let BackendKind::Openai(openai) = &config.backends[0].kind else { panic!("not openai") };
    assert_eq!(openai.base_url, "https://api.openai.com/v1");
    assert_eq!(openai.output_cap_field, OutputCapField::MaxCompletionTokens);
    assert!(matches!(&openai.key, Key::Present(key) if key.expose() == "sk-hidden"));
}

const FAULTY: &str = r#"
        sever = 1
        [server]
        listen = "everywhere"
        lisen = "127.0.0.1:1"
        drain_timeout = "30"
        message_bytes_max = "big"
        [policy]
        kind = "magic"
        calls_max = { simple_query = 9, two = "x" }
        rules = { simple_query = [], other = ["a", "a"] }
        answer_value_usd_micros = -1
        [budget]
        window = "fortnight"
        time_zone = "Mars/Olympus"
        [store]
        keep_days = 0
        [[backend]]
        name = "cloud"
        kind = "openai"
        base_url = "ftp://example.org"
        key_env = "sk-hidden"
        api_key = "sk-hidden"
        [[backend]]
        name = "cloud"
        kind = "telepathy"
        [[backend]]
        kind = "recorded"
        file = "rows.jsonl"
        pool = []
        [[model]]
        name = "a"
        backend = "nowhere"
        input_usd_per_million_tokens = -0.1
        output_usd_per_million_tokens = "0.0000000001"
        [[model]]
        name = "a"
        backend = "cloud"
        timeout = "2d"
        context_tokens_max = 10
        output_tokens_max = 11
        "#;

#[test]
fn every_fault_is_told_at_once() {
    check(
        FAULTY,
        &[
            "server.message_bytes_max",
            "server.listen",
            "server.drain_timeout",
            "server.lisen",
            "policy.kind",
            "policy.answer_value_usd_micros",
            "policy.calls_max.simple_query",
            "policy.calls_max.two",
            "policy.rules.other[1]",
            "policy.rules.simple_query",
            "budget.amount_usd",
            "budget.window",
            "budget.time_zone",
            "store.keep_days",
            "backend[0].base_url",
            "backend[0].key_env",
            "backend[0].api_key",
            "backend[1].name",
            "backend[1].kind",
            "backend[2].name",
            "backend[2].pool",
            "model[0].backend",
            "model[0].input_usd_per_million_tokens",
            "model[0].output_usd_per_million_tokens",
            "model[1].name",
            "model[1].timeout",
            "model[1].output_tokens_max",
            "sever",
        ],
    );
}

#[test]
fn no_fault_shows_what_may_be_a_secret() {
    let text =
        "[[backend]]\nname = 'b'\nkind = 'openai'\nbase_url = 'https://u:hidden@host'\nkey_env = 'sk-hidden'\n";
    let shown = ConfigError { faults: faults(text, &Environment::default()) }.to_string();
    assert!(shown.contains("base_url") && shown.contains("key_env"), "{shown}");
    assert!(!shown.contains("hidden"), "{shown}");
    let broken = faults("key = \"sk-hidden\" oops", &Environment::default());
    assert!(
        matches!(&broken[..], [Fault { kind: FaultKind::Unreadable { detail }, .. }] if !detail.contains("hidden"))
    );
}

#[test]
fn a_price_is_needed_where_the_backend_knows_none() {
    let without = GOOD.replace("input_usd", "#");
    check(&without, &["model[0].input_usd_per_million_tokens"]);
    check(
        &without.replace("output_usd", "#"),
        &["model[0].input_usd_per_million_tokens", "model[0].output_usd_per_million_tokens"],
    );
}

#[test]
fn later_layers_win_and_name_themselves() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\nreflection = true\n";
    let environment = Environment::from([
        ("POINTSMAN_SERVER_LISTEN", "127.0.0.1:2"),
        ("POINTSMAN_SERVER_REFLECTION", "false"),
        ("POINTSMAN_POLICY_ANSWER_VALUE_USD_MICROS", "0"),
        ("POINTSMAN_STORE_KEEP_DAYS", "7"),
        ("POINTSMAN_ENDPOINT", "not ours"),
    ]);
    let read = draft(file, &environment, Flags::default()).unwrap();
    read.faults.finish().unwrap();
    assert_eq!(read.config.server.listen.port(), 2);
    assert!(!read.config.server.reflection);
    assert_eq!(read.config.settings.answer_value, None);
    assert_eq!(read.config.store.keep_days, 7);
    let flags = Flags { listen: Some("[::1]:3".to_owned()), state_dir: Some("there".into()), file: None };
    let read = draft(file, &environment, flags).unwrap();
    assert_eq!(read.config.server.listen.port(), 3);
    assert!(read.config.server.state_dir.is_absolute());
    let wrong = Environment::from([("POINTSMAN_STORE_KEEP_DAYS", "soon"), ("POINTSMAN_STORE_KEPT_DAYS", "7")]);
    let found = faults(file, &wrong);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].path, "POINTSMAN_STORE_KEPT_DAYS");
    assert_eq!(found[1].origin.as_deref(), Some("POINTSMAN_STORE_KEEP_DAYS"));
}

#[test]
fn keys_are_required_beyond_the_loopback() {
    let keys = |text: &str| {
        let draft = draft(text, &Environment::default(), Flags::default()).unwrap();
        draft.faults.finish().unwrap();
        (draft.config.auth.keys, transport(&draft.config.server, false).is_ok())
    };
    assert_eq!(keys(""), (Keys::Off, true));
    assert_eq!(keys("[auth]\nkeys = \"required\"\n"), (Keys::Required, true));
    assert_eq!(keys("[server]\nlisten = \"[::1]:1\"\n"), (Keys::Off, true));
    let open = "[server]\nlisten = \"0.0.0.0:7001\"\n";
    assert_eq!(keys(open), (Keys::Required, false));
    check(&format!("{open}[auth]\nkeys = \"off\"\n"), &["auth.keys"]);
    check("[auth]\nkeys = \"maybe\"\nkey = 1\n", &["auth.keys", "auth.key"]);
    let secured = format!("{open}tls = {{ certificate = \"c.pem\", key = \"k.pem\" }}\n");
    assert_eq!(keys(&secured), (Keys::Required, true), "TLS is enough");
    check("[server.tls]\ncertificate = \"c.pem\"\n", &["server.tls.key"]);
    let server = draft(open, &Environment::default(), Flags::default()).unwrap().config.server;
    let refused = transport(&server, false).unwrap_err();
    assert_eq!(refused.faults[0].path, "server.listen");
    assert!(transport(&server, true).is_ok());
}

#[test]
fn rules_and_calls_are_by_task_type() {
    let text = "[policy]\nkind = \"rules\"\ndefault = [\"b\"]\n[policy.rules]\nsimple_query = [\"a\", \"b\"]\n\
                [policy.calls_max]\nsimple_query = 4\n[server]\ndrain_timeout = \"2m\"\n";
    let draft = draft(text, &Environment::default(), Flags::default()).unwrap();
    draft.faults.finish().unwrap();
    let config = draft.config;
    assert_eq!(config.policy.kind, PolicyChoice::Rules);
    assert_eq!(config.policy.rules[&TaskType::new("simple_query")], ["a", "b"].map(ModelName::new));
    assert_eq!(config.settings.calls_max_by_task[&TaskType::new("simple_query")], 4);
    assert_eq!(config.settings.calls_max_by_task[&TaskType::new("data_validation")], 3);
    assert_eq!(config.server.drain_timeout, Duration::from_secs(120));
    let known = [ModelName::new("a")].into();
    let faults = Faults::default();
    check_rules(&config.policy, &known, &faults);
    assert_eq!(faults.finish().unwrap_err().faults.len(), 2);
    check("[policy]\nkind = \"rules\"\n", &["policy.rules"]);
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let flags = Flags { file: Some(Path::new("no/such/file.toml").to_path_buf()), ..Flags::default() };
    assert!(read(&Environment::default(), &flags).is_err());
}
