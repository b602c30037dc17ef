//! How long training takes and how much memory, beside what it may: one million traces of 900-byte prompts (about 1,590
//! buckets each), twelve models of which one was called, in at most 120 s and 2 GiB on two cores, and ten times the rows
//! in at most eleven times the time; and 4,600 rows on which all twelve were judged.
//!
//! The rows are made anew at every reading, from a seed: none is kept. `train [--quick]`; quick leaves the million out.
//! Memory is the process's peak, where the system tells it.

#![allow(missing_docs, reason = "a bench")]
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench that prints what it measured on rows of its own"
)]

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_learner::rows::{RowReading, Rows, Seen, TrainingRow};
use pointsman_learner::train::{TrainSettings, Trained, TrainingReport, train};
use pointsman_router::artifact::Artifact;
use pointsman_router::clock::Draw;
use pointsman_router::features::{FIRST_CHAR_BUCKET, Features, SURFACE_DIMS, SchemaHash, TextCount};
use pointsman_router::ids::ModelName;
use pointsman_router::money::NanoUsd;

const MODELS: usize = 12;
const TOPICS: u64 = 4;
/// N-grams of words and of characters: some of them share a bucket.
const GRAMS: [(u16, usize); 2] = [(0, 330), (FIRST_CHAR_BUCKET, 1_650)];

/// Rows from a seed.
struct Synthetic {
    rows: u64,
    judged: usize,
    names: Vec<ModelName>,
}

impl Synthetic {
    fn new(rows: u64, judged: usize) -> Self {
        Self { rows, judged, names: (0..MODELS).map(|i| ModelName::from(format!("model-{i:02}"))).collect() }
    }

    fn row(&self, at: u64) -> TrainingRow {
        let mut draw = Draw::from_seed(at.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let topic = draw.next_u64() % TOPICS;
        let mut text = Vec::with_capacity(1_700);
        GRAMS.iter().for_each(|(first, grams)| n_grams(&mut text, (*first, *grams), topic as u16, &mut draw));
        let features = Features {
            text,
            surface: std::array::from_fn::<f32, SURFACE_DIMS, _>(|_| draw.uniform() as f32 - 0.5),
            tags: Vec::new(),
            sketch: Vec::new(),
            prompt_bytes: 900,
            schema: SchemaHash(1),
        };
        let first = (draw.next_u64() % MODELS as u64) as usize;
        let seen = (first..first + self.judged).map(|model| {
            let model = model % MODELS;
            let right = 0.4 + 0.02 * model as f64 + if model as u64 % TOPICS == topic { 0.3 } else { 0.0 };
            Seen {
                model: self.names[model].clone(),
                label: Some(f64::from(u8::from(draw.uniform() < right))),
                tokens_out: 50,
                cost: NanoUsd::new(100_000),
                latency: Duration::from_millis(300),
            }
        });
        let seen = seen.collect();
        TrainingRow { key: at, features: Arc::new(features), task: None, seen, logged: None }
    }
}

/// Ascending buckets, low ones often, as frequent n-grams are; three in ten tell the topic.
fn n_grams(text: &mut Vec<TextCount>, (first, grams): (u16, usize), topic: u16, draw: &mut Draw) {
    let (mut position, mut bits) = (0.0_f32, 0_u64);
    for gram in 0..grams {
        if gram % 4 == 0 {
            bits = draw.next_u64();
        }
        let chance = bits as u16;
        bits >>= 16;
        position += f32::from(chance) / 32_768.0 / grams as f32;
        let even = ((position * position).min(0.999) * f32::from(FIRST_CHAR_BUCKET)) as u16;
        let bucket = first + if chance % 10 < 3 { (even & !3) | topic } else { even };
        match text.last_mut() {
            Some(last) if last.bucket >= bucket => last.count += 1,
            _ => text.push(TextCount { bucket, count: if chance.is_multiple_of(2) { 1 } else { -1 } }),
        }
    }
    text.retain(|count| count.count != 0);
}

impl Rows for Synthetic {
    type Error = Infallible;

    fn schema(&self) -> SchemaHash {
        SchemaHash(1)
    }

    fn len_hint(&self) -> u64 {
        self.rows
    }

    fn read(&self) -> Result<RowReading<'_, Infallible>, Infallible> {
        Ok(Box::new((0..self.rows).map(|at| Ok(self.row(at)))))
    }
}

/// The process's peak memory in GiB so far.
fn peak_gib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / f64::from(1 << 20))
}

fn seconds(rows: u64, judged: usize, aim: &str, stages: bool) -> f64 {
    let source = Synthetic::new(rows, judged);
    let began = Instant::now();
    let mut last = String::new();
    let trained = train(&source, &TrainSettings::default(), &mut |stage, share| {
        let told = format!("{stage:?} {share:.2}");
        if stages && told != last {
            println!("    {:>7.2} s  {told}", began.elapsed().as_secs_f64());
            last = told;
        }
        ControlFlow::Continue(())
    });
    let took = began.elapsed().as_secs_f64();
    let Trained { artifact, report: TrainingReport { routing, .. } } = trained.unwrap();
    let gain = routing
        .map_or(String::new(), |r| format!(", routed {:.3} best single {:.3}", r.score, r.best_single_score));
    let peak = peak_gib().map_or("unknown".to_owned(), |gib| format!("{gib:.2} GiB"));
    println!(
        "train {rows:>9} rows, {judged:>2} models judged on each: {took:>7.2} s ({aim}), peak memory {peak}{gain}"
    );
    if judged == MODELS {
        [1, 2_000].iter().for_each(|requests| reading(&artifact, &source, *requests));
    }
    took
}

/// The median times that an artifact takes on so many different requests: on one its table is near, on
/// many of random buckets it is nowhere near.
fn reading(artifact: &Artifact, source: &Synthetic, requests: u64) {
    let (mut projected, mut scored) = (Vec::new(), Vec::new());
    for at in 0..2_000 {
        let row = source.row(1_000_000 + at % requests);
        let began = Instant::now();
        let inputs = std::hint::black_box(artifact.projection.project(&row.features));
        let between = Instant::now();
        std::hint::black_box(artifact.quality.logits(&inputs));
        projected.push((between - began).as_nanos());
        scored.push(between.elapsed().as_nanos());
    }
    let median = |times: &mut Vec<u128>| {
        times.sort_unstable();
        times[times.len() / 2] as f64 / 1e3
    };
    let (project, score) = (median(&mut projected), median(&mut scored));
    let mib = artifact.to_bytes().unwrap().0.len() as f64 / f64::from(1 << 20);
    println!(
        "an artifact of {mib:.1} MiB; project {project:.1} µs, qualities of {MODELS} models {score:.1} µs, {requests} requests"
    );
}

fn main() {
    let has = |word: &str| std::env::args().any(|given| given == word);
    let (quick, stages) = (has("--quick"), has("--stages"));
    let buckets: usize = (0..100).map(|at| Synthetic::new(1, 1).row(at).features.text.len()).sum();
    println!("{} buckets a prompt; the reading alone of 100,000 rows takes {:.2} s", buckets / 100, {
        let began = Instant::now();
        let source = Synthetic::new(100_000, 1);
        let rows =
            source.read().unwrap().filter(|row| row.as_ref().is_ok_and(|row| !row.features.text.is_empty()));
        assert_eq!(rows.count(), 100_000);
        began.elapsed().as_secs_f64()
    });
    seconds(4_600, MODELS, "a few seconds", stages);
    if quick {
        return;
    }
    let tenth = seconds(100_000, 1, "", stages);
    let whole = seconds(1_000_000, 1, "at most 120 s, 2 GiB", stages);
    println!("ten times the rows take {:.1} times as long (at most 11)", whole / tenth);
}
