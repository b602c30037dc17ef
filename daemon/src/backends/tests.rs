//! Tests of loading: from a configuration's text to backends and models.

use pointsman_router::ids::ModelName;
use pointsman_router::money::{NanoUsd, Price};

use super::*;

const WORLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/demo/world.toml");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data");

fn load_text(text: &str, environment: &Environment) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pointsman.toml");
    std::fs::write(&file, text.replace("WORLD", WORLD)).unwrap();
    load(environment, &Flags { file: Some(file), ..Flags::default() })
}

#[track_caller]
fn check(text: &str, paths: &[&str]) {
    let error = load_text(text, &Environment::default()).unwrap_err();
    let found: Vec<&str> = error.faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(found, paths, "{error}");
}

const SIMULATED: &str = "[[backend]]\nname = 'sim'\nkind = 'simulated'\nworld = 'WORLD'\n";

#[test]
fn a_world_brings_its_models_and_a_missing_key_stops_nothing() {
    let text = format!(
        "{SIMULATED}[[backend]]\nname = 'cloud'\nkind = 'openai'\nbase_url = 'https://example.org'\nkey_env = 'NO_KEY'\n\
         [[model]]\nname = 'paid'\nbackend = 'cloud'\ninput_usd_per_million_tokens = 1\noutput_usd_per_million_tokens = 2\n"
    );
    let loaded = load_text(&text, &Environment::default()).unwrap();
    let world = World::read(WORLD.as_ref()).unwrap();
    assert_eq!(loaded.models.len(), world.models().count() + 1);
    assert!(loaded.backends.get("sim").unwrap().unavailable.is_none());
    let reason = loaded.backends.get("cloud").unwrap().unavailable.clone().unwrap();
    assert!(reason.contains("NO_KEY") || reason.contains("certificates"), "{reason}");
}

#[test]
fn faults_of_files_and_of_the_text_come_together() {
    check(
        "[policy]\ndefault = ['nobody']\n[store]\nkeep = 1\n\
         [[backend]]\nname = 'sim'\nkind = 'simulated'\nworld = 'WORLD'\npool = ['nobody']\n",
        &["store.keep", "backend[0].pool", "policy.default"],
    );
    check(
        "[store]\nkeep = 1\n[[backend]]\nname = 'log'\nkind = 'recorded'\nfile = 'none.jsonl'\n",
        &["store.keep", "backend[0].file"],
    );
    let two = format!("{SIMULATED}[[backend]]\nname = 'sim2'\nkind = 'simulated'\nworld = 'WORLD'\n");
    let error = load_text(&two, &Environment::default()).unwrap_err();
    assert!(error.faults.iter().all(|fault| matches!(fault.kind, FaultKind::Duplicate { .. })));
    check("", &["model"]);
}

#[test]
fn a_card_takes_what_is_given_then_what_is_known() {
    let loaded = load_text(SIMULATED, &Environment::default()).unwrap();
    let upstream = loaded.models[0].name.to_string();
    let asked = Registration {
        name: ModelName::new("twin"),
        backend: "sim".to_owned(),
        upstream: upstream.clone(),
        price: None,
        context_tokens_max: Some(1_000),
        output_tokens_max: None,
        timeout_ms: None,
        family: None,
    };
    let card = loaded.backends.card(&asked).unwrap();
    assert_eq!((card.pricing, card.context_tokens_max), (loaded.models[0].pricing, 1_000));
    assert_eq!(card.family, loaded.models[0].family);
    let price = Price { per_call: NanoUsd::new(5), ..Price::default() };
    let dearer = loaded.backends.card(&Registration { price: Some(price), ..asked.clone() }).unwrap();
    assert_eq!(dearer.pricing, Pricing::PerToken(price));
    let refused = |change: Registration| loaded.backends.card(&change).unwrap_err();
    assert!(matches!(
        refused(Registration { upstream: "x".to_owned(), ..asked.clone() }),
        CardError::NoSuchUpstream { .. }
    ));
    assert!(matches!(
        refused(Registration { backend: "x".to_owned(), ..asked.clone() }),
        CardError::NoSuchBackend { .. }
    ));
    assert_eq!(refused(Registration { output_tokens_max: Some(0), ..asked.clone() }), CardError::Limits);
    assert_eq!(refused(Registration { output_tokens_max: Some(2_000), ..asked.clone() }), CardError::Limits);
    assert_eq!(refused(Registration { timeout_ms: Some(0), ..asked }), CardError::Limits);
}

#[test]
fn the_configurations_that_we_ship_are_accepted() {
    for name in ["demo/pointsman.toml", "pointsman.example.toml", "models.toml"] {
        let flags = Flags { file: Some(format!("{DATA}/{name}").into()), ..Flags::default() };
        if let Err(error) = load(&Environment::default(), &flags) {
            panic!("{name}: {error}");
        }
    }
}
