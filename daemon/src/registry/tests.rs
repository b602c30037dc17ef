//! Tests of the registry on the models of the demo.

use std::sync::Mutex as SyncMutex;

use super::*;
use crate::audit::{By, Entry};
use crate::backends::load;
use crate::config::{Environment, Flags};

/// Keeps overrides in memory; refuses when told to.
#[derive(Debug, Default)]
struct Memory {
    kept: SyncMutex<BTreeMap<ModelName, Override>>,
    broken: std::sync::atomic::AtomicBool,
}

impl OverrideStore for Memory {
    fn load(&self) -> Result<Vec<Override>, OverrideStoreError> {
        Ok(self.kept.lock().unwrap().values().cloned().collect())
    }

    fn save(&self, change: Override, _: Entry) -> BoxFuture<'_, Result<(), OverrideStoreError>> {
        let broken = self.broken.load(std::sync::atomic::Ordering::Relaxed);
        if !broken {
            // Through its stored form, so that this is tested too.
            let text = serde_json::to_string(&change).unwrap();
            self.kept.lock().unwrap().insert(change.model, serde_json::from_str(&text).unwrap());
        }
        let result = if broken { Err(OverrideStoreError { detail: "full".to_owned() }) } else { Ok(()) };
        std::future::ready(result).boxed()
    }
}

fn open(store: &Arc<Memory>) -> Registry {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/demo/pointsman.toml");
    let flags = Flags { file: Some(file.into()), ..Flags::default() };
    let loaded = load(&Environment::default(), &flags).unwrap();
    Registry::open(loaded.backends, loaded.models, Arc::clone(store) as _).unwrap()
}

fn twin(name: &str) -> Registration {
    Registration {
        name: ModelName::new(name),
        backend: "simulated".to_owned(),
        upstream: "atlas-large".to_owned(),
        price: None,
        context_tokens_max: None,
        output_tokens_max: None,
        timeout_ms: None,
        family: None,
    }
}

fn by() -> By {
    By::new("operator", pointsman_router::clock::Timestamp::from_micros(0))
}

fn names(registry: &Registry) -> Vec<(String, Origin)> {
    registry.list().into_iter().map(|listed| (listed.model.name().to_string(), listed.origin)).collect()
}

#[tokio::test]
async fn changes_survive_a_restart() {
    let store = Arc::new(Memory::default());
    let registry = open(&store);
    let (atlas, forge) = (ModelName::new("atlas-large"), ModelName::new("forge-code"));
    registry.register(twin("twin"), &by()).await.unwrap();
    registry.remove(&atlas, &by()).await.unwrap();
    registry.disable(&forge, &by()).await.unwrap();
    let before = names(&registry);
    assert!(before.contains(&("twin".to_owned(), Origin::Runtime)));
    assert!(!before.iter().any(|(name, _)| name == "atlas-large"));
    let again = open(&store);
    assert_eq!(names(&again), before);
    assert_eq!(again.get("forge-code").unwrap().model.availability, Availability::Disabled);
    // The name of a removed model is free, also that of one of the configuration.
    again.register(twin("atlas-large"), &by()).await.unwrap();
    assert_eq!(open(&store).get("atlas-large").unwrap().origin, Origin::Runtime);
    again.remove(&ModelName::new("twin"), &by()).await.unwrap();
    assert!(open(&store).get("twin").is_none());
}

#[tokio::test]
async fn a_breaker_outlives_switching_off_and_a_pinned_pool_stays() {
    let registry = open(&Arc::default());
    let forge = ModelName::new("forge-code");
    let pinned = registry.pool();
    let breaker = Arc::clone(&registry.get("forge-code").unwrap().model.breaker);
    registry.disable(&forge, &by()).await.unwrap();
    let on = registry.enable(&forge, &by()).await.unwrap();
    assert_eq!(on.model.availability, Availability::Available);
    assert!(Arc::ptr_eq(&breaker, &on.model.breaker));
    registry.remove(&forge, &by()).await.unwrap();
    assert!(pinned.get("forge-code").is_some() && registry.pool().get("forge-code").is_none());
    let anew =
        registry.register(Registration { upstream: String::new(), ..twin("forge-code") }, &by()).await.unwrap();
    assert!(!Arc::ptr_eq(&breaker, &anew.model.breaker));
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let store = Arc::new(Memory::default());
    let registry = open(&store);
    let before = names(&registry);
    let refused = async |registration: Registration| registry.register(registration, &by()).await.unwrap_err();
    assert!(matches!(refused(twin("forge-code")).await, RegistryError::Duplicate(_)));
    assert!(matches!(refused(twin("two words")).await, RegistryError::BadName(_)));
    let other = Registration { backend: "nowhere".to_owned(), ..twin("a") };
    assert!(matches!(refused(other).await, RegistryError::Card(CardError::NoSuchBackend { .. })));
    let negative = Price { per_call: pointsman_router::money::NanoUsd::new(-1), ..Price::default() };
    assert_eq!(refused(Registration { price: Some(negative), ..twin("a") }).await, RegistryError::NegativePrice);
    for result in [
        registry.remove(&ModelName::new("a"), &by()).await.err(),
        registry.enable(&ModelName::new("a"), &by()).await.err(),
        registry.disable(&ModelName::new("a"), &by()).await.err(),
    ] {
        assert_eq!(result, Some(RegistryError::NotFound(ModelName::new("a"))));
    }
    store.broken.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(refused(twin("a")).await, RegistryError::Store(_)));
    assert!(matches!(registry.remove(&ModelName::new("forge-code"), &by()).await, Err(RegistryError::Store(_))));
    assert_eq!(names(&registry), before);
    assert_eq!(names(&open(&store)), before);
}

#[tokio::test]
async fn the_pool_has_an_end_and_may_be_empty() {
    let registry = open(&Arc::default());
    for n in registry.list().len()..Pool::MODELS_MAX {
        registry.register(twin(&format!("twin-{n}")), &by()).await.unwrap();
    }
    assert_eq!(registry.register(twin("one-more"), &by()).await.unwrap_err(), RegistryError::Full);
    for listed in registry.list() {
        registry.remove(listed.model.name(), &by()).await.unwrap();
    }
    assert!(registry.pool().models().is_empty());
}

#[tokio::test]
async fn an_override_whose_backend_is_gone_is_listed_with_the_reason() {
    let store = Arc::new(Memory::default());
    let lost = Registration { backend: "gone".to_owned(), ..twin("lost") };
    let change = Override { registered: Some(lost), ..Override::none(ModelName::new("lost")) };
    let entry = Entry::new(&by(), "model.disabled", "x", json!({}));
    store.save(change, entry).await.unwrap();
    let listed = open(&store).get("lost").unwrap();
    assert!(matches!(listed.model.availability, Availability::Unavailable { .. }));
}

#[tokio::test]
async fn a_suspect_price_card_is_marked_until_somebody_takes_it_as_right() {
    let store = Arc::new(Memory::default());
    let registry = open(&store);
    let name = registry.list()[0].model.name().clone();
    assert_eq!(registry.suspect(&name, "cost $2".to_owned(), Timestamp::from_micros(1)).await, Ok(true));
    assert_eq!(
        registry.suspect(&name, "cost $3".to_owned(), Timestamp::from_micros(1)).await,
        Ok(false),
        "once is enough"
    );
    assert_eq!(
        registry.suspect(&"nobody".into(), "cost $3".to_owned(), Timestamp::from_micros(1)).await,
        Ok(false)
    );
    let registry = open(&store);
    assert_eq!(registry.get(name.as_str()).unwrap().suspect.as_deref(), Some("cost $2"), "it survives a restart");
    registry.disable(&name, &by()).await.unwrap();
    assert!(registry.get(name.as_str()).unwrap().suspect.is_some());
    assert_eq!(registry.enable(&name, &by()).await.unwrap().suspect, None);
}
