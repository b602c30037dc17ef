//! A world: topics with words of their own, and models that are good at some of them.
//!
//! Nothing of it is stored: row n is computed from the seed each time it is wanted, and so is what a
//! model says of it. A wrong model says, with the set correlation, what the other wrong ones say (a
//! shared distractor), so that a majority can be wrong together as real ones are.
//!
//! A request that names no row of this world is answered all the same: its topic is the one whose
//! words it uses most, and its right answer is a label that its text hashes to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pointsman_router::clock::Draw;
use pointsman_router::ids::ModelName;
use pointsman_router::model::{ModelCard, Pricing};
use pointsman_router::money::{NanoUsd, Price};
use pointsman_router::request::{Prompt, Role};
use serde::Deserialize;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::config;

/// What every reference to a row of a world begins with.
const REFERENCE: &str = "world/";
/// Words of a prompt, at least and at most.
const WORDS: (u64, u64) = (24, 60);

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorldFile {
    seed: u64,
    labels: Vec<String>,
    distractor_correlation: f64,
    topic_word_share: f64,
    common_words: Vec<String>,
    topic: Vec<Topic>,
    model: Vec<Worker>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Topic {
    name: String,
    share: f64,
    words: Vec<String>,
}

/// A model of the world.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Worker {
    name: String,
    family: String,
    input_usd_per_million_tokens: String,
    output_usd_per_million_tokens: String,
    tokens_out: u32,
    latency_ms: u32,
    failure_rate: f64,
    skill: BTreeMap<String, f64>,
}

/// A world, ready to be asked.
#[derive(Debug)]
pub struct World {
    file: WorldFile,
    prices: Vec<Price>,
    /// For each word of a topic's own, the topic.
    topic_of_word: HashMap<String, usize>,
}

/// Why a file is no world.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// It cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not of the form.
    #[error("it is no world: {0}")]
    Form(String),
    /// A list that must hold something holds too little.
    #[error("`{key}` holds too little: at least {min}")]
    TooFew {
        /// The list.
        key: &'static str,
        /// How much it must hold.
        min: usize,
    },
    /// A share, rate or skill is not in [0, 1].
    #[error("`{key}` is not between 0 and 1")]
    OutOfRange {
        /// The key.
        key: String,
    },
    /// A name is there twice or is no name.
    #[error("the name `{name}` is there twice, or holds white space")]
    BadName {
        /// The name.
        name: String,
    },
    /// A model's skill names a topic that is not there, or misses one that is.
    #[error("the skills of `{model}` are not those of the topics; `{topic}` is missing or unknown")]
    Skills {
        /// The model.
        model: String,
        /// The topic.
        topic: String,
    },
    /// A price is no amount of money.
    #[error("`{model}` has a price that is no decimal number of zero or more dollars")]
    Price {
        /// The model.
        model: String,
    },
}

/// What decides everything about a row: made of the seed, never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowKey {
    hash: u64,
    topic: usize,
    gold: usize,
    distractor: usize,
}

/// A row of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorldRow {
    /// Its id, the `caller_ref` of its request.
    pub id: String,
    /// The name of its topic.
    pub topic: String,
    /// What is asked.
    pub prompt: String,
    /// The right answer.
    pub gold: String,
    /// What decides the models' answers.
    pub key: RowKey,
}

/// What a model says of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The label; `None` when the model fails.
    pub label: Option<String>,
    /// Input tokens.
    pub tokens_in: u64,
    /// Output tokens before any cap.
    pub tokens_out: u64,
    /// How long it takes.
    pub latency: Duration,
}

impl World {
    /// Reads a world's file.
    ///
    /// # Errors
    /// [`WorldError`], the first thing that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, WorldError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| WorldError::Io { path: path.to_path_buf(), source })?;
        Self::parse(&text)
    }

    /// Makes a world of its text.
    ///
    /// # Errors
    /// As [`World::read`].
    pub fn parse(text: &str) -> Result<Self, WorldError> {
        let file: WorldFile = toml::from_str(text).map_err(|error| WorldError::Form(error.to_string()))?;
        file.check()?;
        let prices = file.model.iter().map(Worker::price).collect::<Result<_, _>>()?;
        let mut topic_of_word = HashMap::new();
        for (at, topic) in file.topic.iter().enumerate() {
            topic_of_word.extend(topic.words.iter().map(|word| (word.to_lowercase(), at)));
        }
        Ok(Self { file, prices, topic_of_word })
    }

    /// The names of the models, in the order of the file.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.file.model.iter().map(|model| model.name.as_str())
    }

    /// The names of the topics, in the order of the file.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.file.topic.iter().map(|topic| topic.name.as_str())
    }

    /// The probability that a model is right on a topic, failures aside.
    #[must_use]
    pub fn skill(&self, model: &str, topic: &str) -> Option<f64> {
        self.file.model.iter().find(|worker| worker.name == model)?.skill.get(topic).copied()
    }

    /// The price card of a model.
    #[must_use]
    pub fn price(&self, model: &str) -> Option<Price> {
        let at = self.models().position(|name| name == model)?;
        self.prices.get(at).copied()
    }

    /// A card for each model.
    pub(super) fn cards(&self, backend: &str) -> Vec<ModelCard> {
        let backend: Arc<str> = Arc::from(backend);
        let card = |(worker, price): (&Worker, &Price)| ModelCard {
            name: ModelName::new(&worker.name),
            backend: Arc::clone(&backend),
            upstream: Arc::from(worker.name.as_str()),
            pricing: Pricing::PerToken(*price),
            context_tokens_max: 128_000,
            // No reply of the world is longer than half as long again as its mean.
            output_tokens_max: worker.tokens_out.saturating_mul(2),
            timeout: Duration::from_secs(60),
            family: Some(worker.family.clone()),
        };
        self.file.model.iter().zip(&self.prices).map(card).collect()
    }

    /// Row n.
    #[must_use]
    pub fn row(&self, n: u64) -> WorldRow {
        let id = format!("{REFERENCE}{n}");
        let (key, mut draw) = self.start(n);
        let topic = self.file.topic.get(key.topic);
        let count = WORDS.0 + draw.next_u64() % (WORDS.1 - WORDS.0 + 1);
        let mut prompt = String::new();
        for _ in 0..count {
            let own = draw.uniform() < self.file.topic_word_share;
            let words = topic.filter(|_| own).map_or(&self.file.common_words, |topic| &topic.words);
            prompt.push_str(words.get(pick(&mut draw, words.len())).map_or("", String::as_str));
            prompt.push(' ');
        }
        prompt.push_str("Answer with one of ");
        prompt.push_str(&self.file.labels.join(", "));
        prompt.push('.');
        let topic = topic.map(|topic| topic.name.clone()).unwrap_or_default();
        WorldRow { id, topic, prompt, gold: self.label(key.gold), key }
    }

    /// What decides the answers to a prompt: its row, or its text where it names none.
    #[must_use]
    pub fn key(&self, prompt: &Prompt) -> RowKey {
        let number = prompt.caller_ref.as_deref().and_then(|text| text.strip_prefix(REFERENCE)?.parse().ok());
        number.map_or_else(|| self.foreign(prompt), |n| self.start(n).0)
    }

    /// What a model says; `None` where the world has no such model.
    #[must_use]
    pub fn says(&self, model: &str, key: &RowKey, prompt_bytes: usize) -> Option<Said> {
        let worker = self.file.model.iter().find(|worker| worker.name == model)?;
        let topic = self.file.topic.get(key.topic)?;
        let mut draw = Draw::from_seed(xxh3_64_with_seed(model.as_bytes(), key.hash));
        // Every draw is made every time, so one setting does not change what another one decides.
        let (failure, skill, shared) = (draw.uniform(), draw.uniform(), draw.uniform());
        let elsewhere = self.wrong(key.gold, &mut draw);
        let (length, slowness) = (draw.uniform(), draw.uniform() + draw.uniform());
        let chosen = if skill < worker.skill.get(&topic.name).copied().unwrap_or(0.0) {
            key.gold
        } else if shared < self.file.distractor_correlation {
            key.distractor
        } else {
            elsewhere
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 1.5 times a u32")]
        let tokens_out = (f64::from(worker.tokens_out) * (0.5 + length)) as u64;
        Some(Said {
            label: (failure >= worker.failure_rate).then(|| self.label(chosen)),
            // Four bytes a token, as English text has about.
            tokens_in: prompt_bytes as u64 / 4 + 1,
            tokens_out: tokens_out.max(1),
            latency: Duration::from_millis(u64::from(worker.latency_ms)).mul_f64(0.5 + slowness / 2.0),
        })
    }

    /// The key of row n, and the draw that its words come from.
    fn start(&self, n: u64) -> (RowKey, Draw) {
        let hash = xxh3_64_with_seed(&n.to_le_bytes(), self.file.seed);
        let mut draw = Draw::from_seed(hash);
        let topic = draw.index(self.file.topic.iter().map(|topic| topic.share)).unwrap_or(0);
        let gold = pick(&mut draw, self.file.labels.len());
        let distractor = self.wrong(gold, &mut draw);
        (RowKey { hash, topic, gold, distractor }, draw)
    }

    /// The key of a prompt that is no row of this world.
    fn foreign(&self, prompt: &Prompt) -> RowKey {
        let mut votes = vec![0_u32; self.file.topic.len()];
        let mut hash = self.file.seed;
        for message in prompt.messages.iter().filter(|message| message.role == Role::User) {
            hash = xxh3_64_with_seed(message.content.as_bytes(), hash);
            for word in message.content.split(|c: char| !c.is_alphanumeric()) {
                let topic = self.topic_of_word.get(&word.to_lowercase());
                if let Some(votes) = topic.and_then(|topic| votes.get_mut(*topic)) {
                    *votes += 1;
                }
            }
        }
        // Of several topics with most words the first.
        let topic = votes.iter().enumerate().rev().max_by_key(|(_, votes)| **votes).map_or(0, |(at, _)| at);
        let mut draw = Draw::from_seed(hash);
        let gold = pick(&mut draw, self.file.labels.len());
        let distractor = self.wrong(gold, &mut draw);
        RowKey { hash: xxh3_64(&hash.to_le_bytes()), topic, gold, distractor }
    }

    /// Any label but the right one.
    fn wrong(&self, gold: usize, draw: &mut Draw) -> usize {
        let at = pick(draw, self.file.labels.len() - 1);
        at + usize::from(at >= gold)
    }

    fn label(&self, at: usize) -> String {
        self.file.labels.get(at).cloned().unwrap_or_default()
    }
}

/// An index below `len`; zero when there is none.
fn pick(draw: &mut Draw, len: usize) -> usize {
    let bounded = draw.next_u64() % (len as u64).max(1);
    usize::try_from(bounded).unwrap_or(0)
}

impl WorldFile {
    fn check(&self) -> Result<(), WorldError> {
        let lists = [
            ("labels", self.labels.len(), 2),
            ("common_words", self.common_words.len(), 1),
            ("topic", self.topic.len(), 1),
            ("model", self.model.len(), 1),
            ("topic.words", self.topic.iter().map(|topic| topic.words.len()).min().unwrap_or(0), 1),
        ];
        if let Some((key, _, min)) = lists.into_iter().find(|(_, len, min)| len < min) {
            return Err(WorldError::TooFew { key, min });
        }
        let named = |name: &str, value: f64| (name.to_owned(), value);
        let mut shares = vec![
            named("distractor_correlation", self.distractor_correlation),
            named("topic_word_share", self.topic_word_share),
        ];
        shares.extend(self.topic.iter().map(|topic| (format!("share of {}", topic.name), topic.share)));
        for model in &self.model {
            shares.push((format!("failure_rate of {}", model.name), model.failure_rate));
            shares.extend(
                model.skill.iter().map(|(topic, skill)| (format!("skill of {} in {topic}", model.name), *skill)),
            );
        }
        if let Some((key, _)) = shares.into_iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            return Err(WorldError::OutOfRange { key });
        }
        if self.topic.iter().all(|topic| topic.share <= 0.0) {
            return Err(WorldError::OutOfRange { key: "share of every topic".to_owned() });
        }
        unique(self.labels.iter())?;
        unique(self.topic.iter().map(|topic| &topic.name))?;
        unique(self.model.iter().map(|model| &model.name))?;
        self.model.iter().try_for_each(|model| model.check_skills(&self.topic))
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), WorldError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !config::is_name(name) || !seen.insert(name) {
            return Err(WorldError::BadName { name: name.clone() });
        }
    }
    Ok(())
}

impl Worker {
    fn check_skills(&self, topics: &[Topic]) -> Result<(), WorldError> {
        let missing = topics.iter().map(|topic| &topic.name).find(|topic| !self.skill.contains_key(*topic));
        let unknown = self.skill.keys().find(|skill| !topics.iter().any(|topic| topic.name == **skill));
        match missing.or(unknown) {
            Some(topic) => Err(WorldError::Skills { model: self.name.clone(), topic: topic.clone() }),
            None => Ok(()),
        }
    }

    fn price(&self) -> Result<Price, WorldError> {
        let read = |text: &str| config::usd(text).filter(|amount| *amount >= NanoUsd::ZERO);
        let input = read(&self.input_usd_per_million_tokens);
        let output = read(&self.output_usd_per_million_tokens);
        match (input, output) {
            (Some(input), Some(output)) => Ok(Price {
                input_per_million_tokens: input,
                output_per_million_tokens: output,
                per_call: NanoUsd::ZERO,
            }),
            (Some(_) | None, _) => Err(WorldError::Price { model: self.name.clone() }),
        }
    }
}
