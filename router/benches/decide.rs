//! How long a decision takes: a prompt of 200 tokens (900 bytes), twelve models, all of them learned.
//!
//! `encode_and_decide` is what a request pays before its hold, with sets of up to one, three and eight
//! models; the budget with one is 60 µs. `encode`, `score` and `thompson` are parts of it.
//!
//! `fitted` is the same by a policy that stands on a fitted artifact (48 projected dimensions, 12 directions, 100
//! trees of 800 leaves); the budget is 25 µs. `project`, `qualities` and `score/57` (its heads) are parts of it.

#![allow(missing_docs, reason = "criterion's macro makes public items without documentation")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a bench over tables of its own"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use futures_util::future::BoxFuture;
use pointsman_router::admit::Admitted;
use pointsman_router::artifact::{Artifact, ArtifactKind, Origin};
use pointsman_router::backend::{Backend, Call, CallError, Reply};
use pointsman_router::bandit::{BanditPolicy, BanditSettings};
use pointsman_router::breaker::Breaker;
use pointsman_router::clock::{Draw, Timestamp};
use pointsman_router::decide::{Means, decide};
use pointsman_router::encode::{Encoder, encode};
use pointsman_router::expense::{Expense, LeanHead, ModelExpense};
use pointsman_router::features::{SURFACE_DIMS, SchemaHash};

use pointsman_router::forecast::{Forecast, Forecasts};
use pointsman_router::forest::{Forest, LEAF, Node};
use pointsman_router::heads::Heads;
use pointsman_router::hybrid::HybridPolicy;
use pointsman_router::ids::{DecisionId, ModelName, TaskType};
use pointsman_router::inputs::{Inputs, Shape};
use pointsman_router::model::{Availability, Model, ModelCard, Pool, Pricing};
use pointsman_router::money::{NanoUsd, Price};
use pointsman_router::policy::{Ask, Contender, Objective, Policy, Snapshot};
use pointsman_router::projection::{PROJECTION_ROWS, Projection, Rows, Spread};
use pointsman_router::quality::{Platt, Quality};
use pointsman_router::request::{AnswerKind, Message, Prompt, Request, Role};
use pointsman_router::selection::{Scatter, Utility, picks, thompson};
use pointsman_router::settings::Settings;
use pointsman_router::topic::Topics;
use pointsman_router::trace::{Trace, TracePlace, TraceSink, TracesFull};

const MODELS: usize = 12;
const QUESTION: &str = "A refrigerator discards heat from a freezer box to the air of the kitchen. \
    During a test the box was held at -18 degrees while the room stayed at 24 degrees, and a meter on \
    the cord read 412 watts. The maker claims that 1,350 watts leave the box. Which of the following \
    statements about the claim is correct, if losses through the walls can be neglected and the \
    working fluid returns to its state after each cycle? Give the letter only.\n\
    A. It contradicts the first law.\nB. It contradicts the second law.\nC. It contradicts both laws.\n\
    D. It is possible, and the coefficient of performance is 3.28.\n\
    E. It is possible only while the room is colder than the box.\n\
    F. It cannot be judged without the mass flow.\nG. It holds for a heat pump but not for a freezer.\n\
    H. It is possible, and the coefficient of performance is 0.31.\nI. None of these, because the \
    meter reads apparent and not real power.\nJ. All of the above are wrong.";

/// Takes every trace and keeps none.
#[derive(Debug)]
struct NoTraces;

impl TraceSink for NoTraces {
    fn reserve(&self) -> Result<(), TracesFull> {
        Ok(())
    }

    fn release(&self) {}

    fn push(&self, _trace: Arc<Trace>) {}
}

/// A decision calls nobody.
#[derive(Debug)]
struct Uncalled;

impl Backend for Uncalled {
    fn generate(&self, _call: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
        Box::pin(std::future::pending())
    }
}

fn request(calls_max: u32) -> Request {
    Request {
        prompt: Arc::new(Prompt {
            system: String::new(),
            messages: vec![Message { role: Role::User, content: QUESTION.to_owned() }],
            temperature: None,
            stop: Vec::new(),
            schema: None,
            caller_ref: None,
        }),
        kind: AnswerKind::Label { allowed: Vec::new() },
        answer_pattern: None,
        task_type: None,
        tags: [("tenant".to_owned(), "bench".to_owned())].into(),
        embedding: Vec::new(),
        max_cost: None,
        answer_value: None,
        output_tokens_max: None,
        quality_threshold: None,
        calls_max: Some(calls_max),
        models_allowed: Vec::new(),
        models_denied: Vec::new(),
        key: None,
        deadline: None,
    }
}

fn names() -> Vec<ModelName> {
    (0..MODELS).map(|i| ModelName::from(format!("model-{i:02}"))).collect()
}

fn pool() -> Arc<Pool> {
    let price = Price {
        input_per_million_tokens: NanoUsd::new(150_000_000),
        output_per_million_tokens: NanoUsd::new(600_000_000),
        per_call: NanoUsd::ZERO,
    };
    let model = |name: ModelName| Model {
        breaker: Arc::new(Breaker::new(name.as_str())),
        card: Arc::new(ModelCard {
            backend: "bench".into(),
            upstream: name.as_str().into(),
            name,
            pricing: Pricing::PerToken(price),
            context_tokens_max: 32_000,
            output_tokens_max: 1_024,
            timeout: Duration::from_secs(30),
            family: None,
        }),
        backend: Arc::new(Uncalled),
        availability: Availability::Available,
    };
    Arc::new(Pool::new(names().into_iter().map(model).collect()))
}

/// A policy as feedback would have left it: every number set, every model somewhat known.
fn policy(encoder: &Encoder) -> BanditPolicy {
    let settings = BanditSettings::default();
    let mut heads = Heads::new((settings.prior, settings.shared), settings.shape, encoder.schema());
    for name in names() {
        heads.add(&name);
    }
    let blocks = heads.blocks_mut();
    for (mean, i) in blocks.sparse_means.iter_mut().chain(blocks.dense_means).zip((0..=u16::MAX).cycle()) {
        *mean = f32::from(i.wrapping_mul(7_919)) / 131_072.0 - 0.25;
    }
    for variance in blocks.dense_covariances {
        *variance *= 0.05;
    }
    BanditPolicy::new(settings.version(encoder.schema()), settings, Arc::new(heads))
}

fn snapshot(policy: impl Policy + 'static) -> Arc<Snapshot> {
    let mut forecasts = Forecasts::default();
    for name in names() {
        let seen = forecasts.models.entry(name).or_default();
        for bytes in [200, 400, 900, 1_500] {
            seen.tokens_out.observe(bytes, 120.0);
            seen.latency_us.observe(bytes, 900_000.0);
        }
    }
    Arc::new(Snapshot { policy: Arc::new(policy), forecasts: Arc::new(forecasts) })
}

fn admitted(
    request: &Request,
    pool: &Arc<Pool>,
    snapshot: &Arc<Snapshot>,
    sink: &Arc<dyn TraceSink>,
) -> Option<Admitted> {
    let at = Timestamp::from_micros(1_800_000_000_000_000);
    let mut draw = Draw::from_seed(5);
    Some(Admitted {
        id: DecisionId::new(at, &mut draw),
        at,
        seed: 5,
        draw,
        request: request.clone(),
        pool: Arc::clone(pool),
        snapshot: Arc::clone(snapshot),
        deadline: None,
        place: TracePlace::reserve(sink).ok()?,
    })
}

/// Times what a request pays before its hold.
fn timed(c: &mut Criterion, name: &str, request: &Request, (pool, snapshot): (&Arc<Pool>, &Arc<Snapshot>)) {
    let (settings, encoder) = (Settings::default(), Encoder::new(7));
    let sink: Arc<dyn TraceSink> = Arc::new(NoTraces);
    c.bench_function(name, |b| {
        b.iter_batched(
            || admitted(request, pool, snapshot, &sink),
            |admitted| {
                let encoded = encode(&encoder, admitted?);
                let decision = decide(&encoded, &mut Draw::from_seed(9), &settings, Means::default());
                Some((decision.ok()?, encoded))
            },
            BatchSize::SmallInput,
        );
    });
}

fn whole(c: &mut Criterion) {
    let (pool, snapshot) = (pool(), snapshot(policy(&Encoder::new(7))));
    for calls_max in [1, 3, 8] {
        let request = request(calls_max);
        timed(c, &format!("encode_and_decide/{calls_max}"), &request, (&pool, &snapshot));
    }
}

fn parts(c: &mut Criterion) {
    let encoder = Encoder::new(7);
    let request = request(1);
    let policy = policy(&encoder);
    let forecast = Forecast { cost: NanoUsd::new(20_000), latency_p95: None };
    let contenders: Vec<Contender> =
        names().into_iter().map(|name| Contender { name, forecast, barred: false }).collect();
    let task = TaskType::new("complex_reasoning");
    let features = encoder.encode(&request);
    let ask = Ask {
        projected: &[],
        features: &features,
        task: &task,
        objective: Objective { cost_weight_per_usd: 20.0 },
        caller_ref: None,
        contenders: &contenders,
    };
    let utilities: Vec<Utility> = (0_u8..12)
        .map(|i| Utility { mean: 0.5 + 0.01 * f64::from(i), sd: 0.02 + 0.01 * f64::from((i * 5) % 7) })
        .collect();
    c.bench_function("encode", |b| b.iter(|| encoder.encode(black_box(&request))));
    c.bench_function("score", |b| b.iter(|| policy.score(black_box(&ask))));
    c.bench_function("thompson", |b| b.iter(|| thompson(black_box(&utilities))));
    c.bench_function("thompson/above", |b| b.iter(|| picks(black_box(&utilities), Scatter::Above)));
}

/// A number that looks drawn.
fn noise(i: usize) -> f32 {
    ((i * 7_919) % 1_009) as f32 / 1_009.0 - 0.5
}

const DIMS: usize = 48;
const TREES: usize = 100;
const LEAVES: usize = 800;

/// A tree of so many nodes, appended depth first.
fn grow(forest: &mut Forest, leaves: usize) {
    let at = forest.nodes.len();
    let (input, threshold) = ((at * 31 % (SURFACE_DIMS + DIMS)) as u16, 0.2 * noise(at));
    if leaves == 1 {
        let row = (forest.leaves.len() / MODELS) as u32;
        forest.leaves.extend((0..MODELS).map(|model| 0.001 * noise(at * MODELS + model)));
        forest.nodes.push(Node { input: LEAF, other: row, threshold: 0.0 });
        return;
    }
    forest.nodes.push(Node { input, other: 0, threshold });
    grow(forest, leaves / 2);
    forest.nodes[at].other = forest.nodes.len() as u32;
    grow(forest, leaves - leaves / 2);
}

/// An artifact of the usual size.
fn artifact(schema: SchemaHash) -> Artifact {
    let outputs = DIMS + MODELS;
    let cells: Vec<f32> = (0..PROJECTION_ROWS * outputs).map(noise).collect();
    let rows = Rows::new(&vec![1.5; PROJECTION_ROWS], outputs, &cells);
    let surface = [Spread { mean: 0.0, inverse_sd: 1.0 }; SURFACE_DIMS];
    let inputs = SURFACE_DIMS + DIMS;
    let mut forest = Forest::default();
    for _ in 0..TREES {
        forest.roots.push(forest.nodes.len() as u32);
        grow(&mut forest, LEAVES);
    }
    let quality =
        Quality { models: names(), means: vec![0.6; MODELS], forest, platt: vec![Platt::IDENTITY; MODELS] };
    let shape = Shape { dense: 1 + inputs, sparse: 0 };
    let head = LeanHead { weights: (0..shape.dense).map(|i| 0.01 * noise(i)).collect(), slope: 0.01 };
    let lean = ModelExpense { tokens_out: head.clone(), cost: head.clone(), latency: head };
    Artifact {
        kind: ArtifactKind::Hybrid,
        origin: Origin::default(),
        projection: Projection::new(schema, DIMS, surface, (rows, vec![0.0; outputs])).unwrap(),
        quality,
        expense: Expense { models: vec![lean; MODELS] },
        topics: Topics::default(),
        certainty: vec![0.0; MODELS * shape.triangle()],
    }
}

fn fitted(c: &mut Criterion) {
    let encoder = Encoder::new(7);
    let artifact = Arc::new(artifact(encoder.schema()));
    assert!(artifact.is_sound());
    let bandit = BanditSettings::fitted(artifact.shape().dense);
    let mut heads = Heads::new((bandit.prior, bandit.shared), bandit.shape, encoder.schema());
    for name in names() {
        heads.add(&name);
    }
    let policy = BanditPolicy::new(bandit.version(encoder.schema()), bandit, Arc::new(heads));
    let inputs = Inputs { dense: (0_u8..57).map(|i| f32::from(i) / 57.0 - 0.5).collect(), sparse: Vec::new() };
    c.bench_function("score/57", |b| b.iter(|| policy.heads().score(black_box(&inputs))));
    let (pool, request) = (pool(), request(1));
    let features = encoder.encode(&request);
    let projected = artifact.projection.project(&features);
    c.bench_function("project", |b| b.iter(|| artifact.projection.project(black_box(&features))));
    c.bench_function("qualities", |b| b.iter(|| artifact.quality.logits(black_box(&projected))));
    let names = names();
    c.bench_function("leans", |b| {
        b.iter(|| {
            names.iter().map(|name| artifact.leans(&projected, black_box(900), name.as_str()).cost).sum::<f64>()
        });
    });
    let snapshot = snapshot(HybridPolicy::new(Arc::clone(&artifact), policy));
    timed(c, "fitted", &request, (&pool, &snapshot));
}

criterion_group!(benches, whole, parts, fitted);
criterion_main!(benches);
