//! Checks the backends and the models that the configuration lists.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman_router::ids::ModelName;
use pointsman_router::money::{NanoUsd, Price};

use super::checked::{
    BackendConfig, BackendKind, OpenaiConfig, OutputCapField, RecordedConfig, Registration, SimulatedConfig,
};
use super::fault::FaultKind;
use super::layers::Environment;
use super::secret::Key;
use super::section::Section;
use super::values::resolved;

/// The backends, and the names of those that were at fault: models may refer to them, so that one
/// fault does not show twice.
#[derive(Debug, Default)]
pub(super) struct Backends {
    pub(super) known: Vec<BackendConfig>,
    named: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Openai,
    Recorded,
    Simulated,
}

const KINDS: [(&str, Kind); 3] =
    [("openai", Kind::Openai), ("recorded", Kind::Recorded), ("simulated", Kind::Simulated)];
/// More backends than this are a mistake.
const BACKENDS_MAX: usize = 64;

/// Checks `[[backend]]`.
pub(super) fn backends(sections: Vec<Section<'_>>, folder: &Path, environment: &Environment) -> Backends {
    let mut backends = Backends::default();
    if let Some(first_too_many) = sections.get(BACKENDS_MAX) {
        first_too_many
            .fault("name", FaultKind::OutOfRange { wanted: format!("one of at most {BACKENDS_MAX} backends") });
    }
    for mut section in sections {
        let name = section.name_needed("name", "a name that models refer to");
        if let Some(name) = &name
            && !backends.named.insert(name.clone())
        {
            section.fault("name", FaultKind::Duplicate { name: name.clone() });
        }
        if !section.has("kind") {
            section.missing("kind", "\"openai\", \"recorded\" or \"simulated\"");
        }
        let path = section.at("").trim_end_matches('.').to_owned();
        let kind = match section.word("kind", &KINDS) {
            Some(Kind::Openai) => openai(&mut section, folder, environment).map(BackendKind::Openai),
            Some(Kind::Recorded) => recorded(&mut section, folder).map(BackendKind::Recorded),
            Some(Kind::Simulated) => simulated(&mut section, folder).map(BackendKind::Simulated),
            // Which keys it may have is not known, so none of them can be called unknown.
            None => continue,
        };
        let provider = (section.limit("requests_per_minute"), section.limit("tokens_per_minute"));
        section.end();
        if let (Some(name), Some(kind)) = (name, kind) {
            backends.known.push(BackendConfig { name: Arc::from(name), path, kind, provider });
        }
    }
    backends
}

fn openai(section: &mut Section<'_>, folder: &Path, environment: &Environment) -> Option<OpenaiConfig> {
    const SECOND: Duration = Duration::from_secs(1);
    const OPENAI_HOST: &str = "api.openai.com";
    const WORDS: [(&str, OutputCapField); 2] = [
        ("max_tokens", OutputCapField::MaxTokens),
        ("max_completion_tokens", OutputCapField::MaxCompletionTokens),
    ];
    if !section.has("base_url") {
        section.missing("base_url", "the provider's address, such as \"https://api.openai.com/v1\"");
    }
    let url = section.text("base_url").and_then(|text| {
        let url = reqwest::Url::parse(&text).ok().filter(|url| {
            let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
            matches!(url.scheme(), "http" | "https") && url.has_host() && plain && url.fragment().is_none()
        });
        if url.is_none() {
            // The text is not shown: it may hold a password.
            let wanted = "an http or https address without user, password, query or fragment".to_owned();
            section.fault("base_url", FaultKind::OutOfRange { wanted });
        }
        url
    });
    let key = key(section, folder, environment);
    let cap_default = match url.as_ref().and_then(reqwest::Url::host_str) {
        Some(OPENAI_HOST) => OutputCapField::MaxCompletionTokens,
        Some(_) | None => OutputCapField::MaxTokens,
    };
    let concurrency = section.count("concurrency_max", 1, 4_096).unwrap_or(64);
    let reply_bytes = section.count("reply_bytes_max", 1 << 10, 64 << 20).unwrap_or(4 << 20);
    let connect_timeout = section.span("connect_timeout", Duration::from_millis(10), 60 * SECOND);
    let output_cap_field = section.word("output_cap_field", &WORDS).unwrap_or(cap_default);
    let json_schema = section.flag("json_schema").unwrap_or(true);
    Some(OpenaiConfig {
        base_url: url?.as_str().trim_end_matches('/').to_owned(),
        key,
        concurrency_max: usize::try_from(concurrency).unwrap_or(usize::MAX),
        connect_timeout: connect_timeout.unwrap_or(5 * SECOND),
        reply_bytes_max: usize::try_from(reply_bytes).unwrap_or(usize::MAX),
        output_cap_field,
        json_schema,
    })
}

/// The key by the name of its variable or file. A missing key is no fault, see [`Key`].
fn key(section: &mut Section<'_>, folder: &Path, environment: &Environment) -> Key {
    let file = section.text("key_file");
    let Some(variable) = section.text("key_env") else {
        return file.map_or(Key::NotNeeded, |file| Key::from_file(&resolved(folder, &file)));
    };
    if file.is_some() {
        section.fault("key_file", FaultKind::OutOfRange { wanted: "left out where key_env is given".to_owned() });
    }
    if !variable.is_empty() && variable.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Key::from_variable(&variable, environment.get(&variable));
    }
    // The text is not shown: it may be the key itself, put into the wrong place.
    let wanted = "the name of a variable (letters, digits, underscores), never the key itself".to_owned();
    section.fault("key_env", FaultKind::OutOfRange { wanted });
    Key::NotNeeded
}

fn recorded(section: &mut Section<'_>, folder: &Path) -> Option<RecordedConfig> {
    let file = file(section, "file", "a recorded-outcomes file, .jsonl or .jsonl.gz");
    let pool = section.names("pool");
    Some(RecordedConfig { file: resolved(folder, &file?), pool })
}

fn simulated(section: &mut Section<'_>, folder: &Path) -> Option<SimulatedConfig> {
    let world = file(section, "world", "a world file, .toml");
    let pool = section.names("pool");
    let latency_scale = section.number("latency_scale", 0.0, 10.0).unwrap_or(0.0);
    Some(SimulatedConfig { world: resolved(folder, &world?), pool, latency_scale })
}

fn file(section: &mut Section<'_>, key: &'static str, wanted: &'static str) -> Option<String> {
    if !section.has(key) {
        section.missing(key, wanted);
    }
    let text = section.text(key)?;
    if text.is_empty() {
        section.fault(key, FaultKind::Empty { wanted });
        return None;
    }
    Some(text)
}

/// Checks `[[model]]`.
pub(super) fn models(sections: Vec<Section<'_>>, backends: &Backends) -> Vec<Registration> {
    const LONGEST_TIMEOUT: Duration = Duration::from_secs(3_600);
    let mut names = BTreeSet::new();
    let mut models = Vec::new();
    for mut section in sections {
        let name = section.name_needed("name", "the name under which it is registered");
        if let Some(name) = &name
            && !names.insert(name.clone())
        {
            section.fault("name", FaultKind::Duplicate { name: name.clone() });
        }
        let backend = section.name_needed("backend", "the name of a backend");
        if let Some(backend) = &backend
            && !backends.named.contains(backend)
        {
            section.fault("backend", FaultKind::NoSuch { what: "backend", name: backend.clone() });
        }
        let serving = backends.known.iter().find(|known| Some(known.name.as_ref()) == backend.as_deref());
        let price_needed = serving.is_some_and(|serving| matches!(serving.kind, BackendKind::Openai(_)));
        let price = price(&mut section, price_needed);
        let upstream = section.name("upstream").unwrap_or_default();
        let context_tokens_max = section.count("context_tokens_max", 1, 100_000_000);
        let output_tokens_max = section.count("output_tokens_max", 1, 10_000_000);
        let timeout = section.span("timeout", Duration::from_millis(1), LONGEST_TIMEOUT);
        let family = section.name("family");
        if let (Some(context), Some(output)) = (context_tokens_max, output_tokens_max)
            && output > context
        {
            let wanted = format!("at most context_tokens_max, {context}");
            section.fault("output_tokens_max", FaultKind::OutOfRange { wanted });
        }
        section.end();
        if let (Some(name), Some(backend)) = (name, backend) {
            let timeout_ms = timeout.and_then(|span| u64::try_from(span.as_millis()).ok());
            let name = ModelName::from(name);
            models.push(Registration {
                name,
                backend,
                upstream,
                price,
                context_tokens_max,
                output_tokens_max,
                timeout_ms,
                family,
            });
        }
    }
    models
}

/// The price card; both token prices are needed where the backend does not know them itself. A call
/// fee alone is no price: tokens could still cost.
fn price(section: &mut Section<'_>, needed: bool) -> Option<Price> {
    const INPUT: &str = "input_usd_per_million_tokens";
    const OUTPUT: &str = "output_usd_per_million_tokens";
    let any = [INPUT, OUTPUT, "per_call_usd"].iter().any(|key| section.has(key));
    if needed || any {
        for key in [INPUT, OUTPUT] {
            if !section.has(key) {
                section.missing(
                    key,
                    "the provider's price, \"0\" if it is free; a model of unknown price is never called",
                );
            }
        }
    }
    let input = section.usd(INPUT);
    let output = section.usd(OUTPUT);
    let per_call = section.usd("per_call_usd").unwrap_or(NanoUsd::ZERO);
    Some(Price { input_per_million_tokens: input?, output_per_million_tokens: output?, per_call })
}
