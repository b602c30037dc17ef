//! Recorded rows, encoded once, and their splits: what is fitted on, what is routed.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use ndarray::Array2;
use pointsman_daemon::backends::recorded_rows::Rows;
use pointsman_learner::fit::encoder::{Encoder, EncoderSettings};
use pointsman_learner::fit::ridge::Labels;
use pointsman_learner::fit::sparse::Sparse;
use pointsman_router::check::check;
use pointsman_router::clock::Draw;
use pointsman_router::encode;
use pointsman_router::features::Features;
use pointsman_router::ids::ModelName;
use pointsman_router::model::Pool;
use pointsman_router::request::{KindName, RouteRequest};
use pointsman_router::settings::Settings;

use crate::recorded::{self, POOL_12};

/// A set of recorded rows and the pool that is routed over.
pub(crate) struct Set {
    pub(crate) name: &'static str,
    file: &'static str,
    pool: &'static [&'static str],
}

/// The sets; an empty pool is all models of the file.
pub(crate) const SETS: &[Set] = &[
    Set { name: "mmlu_pro_12", file: "mmlu_pro.jsonl.gz", pool: &POOL_12 },
    Set { name: "mmlu_pro_10", file: "mmlu_pro.jsonl.gz", pool: POOL_12.split_at(2).1 },
    Set { name: "llmrouter_11tasks", file: "llmrouter_11tasks.jsonl.gz", pool: &[] },
    Set { name: "paretobandit_k4", file: "paretobandit_k4.jsonl.gz", pool: &[] },
];

/// The rows of a set.
pub(crate) struct World {
    pub(crate) models: Vec<ModelName>,
    pub(crate) rows: Vec<Judged>,
}

/// One row: every model was judged on it.
#[derive(Clone)]
pub(crate) struct Judged {
    pub(crate) features: Arc<Features>,
    /// The true task.
    pub(crate) task: String,
    pub(crate) labels: Labels,
}

impl World {
    /// Reads a set; `None` where its file is absent.
    pub(crate) fn read(set: &Set) -> anyhow::Result<Option<Self>> {
        recorded::read(set.file, set.pool)?.map(Self::of).transpose()
    }

    fn of(read: Rows) -> anyhow::Result<Self> {
        let settings = Settings::default();
        let encoder = encode::Encoder::new(settings.secret);
        let judged = |row: pointsman_daemon::backends::recorded_rows::Row| {
            let request = RouteRequest { prompt: row.prompt, kind: KindName::Text, ..RouteRequest::default() };
            let request = check(request, &settings, &Pool::default())
                .with_context(|| format!("row {} is no request", row.id))?;
            let scores = row.outcomes.iter().flatten().map(|outcome| outcome.score as f32);
            Ok(Judged {
                features: Arc::new(encoder.encode(&request)),
                task: row.task,
                labels: scores.enumerate().collect(),
            })
        };
        let rows = read.rows.into_iter().map(judged).collect::<anyhow::Result<_>>()?;
        Ok(Self { models: read.models.iter().map(|name| ModelName::new(name)).collect(), rows })
    }
}

/// Rows with their dense inputs, the constant left out.
pub(crate) struct Part {
    pub(crate) rows: Vec<Judged>,
    pub(crate) inputs: Array2<f32>,
}

/// One split, with what all learners start from.
pub(crate) struct Split {
    pub(crate) seed: u64,
    pub(crate) models: Vec<ModelName>,
    /// Mean score of each model on the rows that are fitted on.
    pub(crate) means: Vec<f32>,
    pub(crate) train: Part,
    pub(crate) test: Part,
    pub(crate) encoder: Encoder,
    /// The weighted buckets of the rows that are fitted on.
    pub(crate) matrix: Sparse,
    pub(crate) encoder_seconds: f64,
}

impl Split {
    /// The split of a seed.
    pub(crate) fn new(world: &World, seed: u64) -> anyhow::Result<Self> {
        let mut train = shuffled(&world.rows, seed);
        let test = train.split_off(train.len() * 4 / 5);
        let features: Vec<Arc<Features>> = train.iter().map(|row| Arc::clone(&row.features)).collect();
        let schema = features.first().context("there are no rows")?.schema;
        let begun = Instant::now();
        let (encoder, matrix) = Encoder::fit(&features, schema, &EncoderSettings::default(), seed);
        let encoder_seconds = begun.elapsed().as_secs_f64();
        let projection = encoder.projection(&[])?;
        let part = |rows: Vec<Judged>| {
            let width = projection.width() - 1;
            let cells = rows.iter().flat_map(|row| projection.project(&row.features).into_iter().skip(1));
            let inputs = Array2::from_shape_vec((rows.len(), width), cells.collect());
            anyhow::Ok(Part { inputs: inputs?, rows })
        };
        let (train, test) = (part(train)?, part(test)?);
        let models = world.models.clone();
        let means = mean_labels(models.len(), train.rows.iter());
        Ok(Self { seed, models, means, train, test, encoder, matrix, encoder_seconds })
    }

    /// The labels that are fitted on.
    pub(crate) fn labels(&self) -> Vec<Labels> {
        self.train.rows.iter().map(|row| row.labels.clone()).collect()
    }
}

/// The rows in the order in which a replay of this seed takes them.
fn shuffled(rows: &[Judged], seed: u64) -> Vec<Judged> {
    let mut rows = rows.to_vec();
    let mut draw = Draw::from_seed(seed ^ 0x0DDB_A110);
    for i in (1..rows.len()).rev() {
        rows.swap(i, ((u128::from(draw.next_u64()) * (i as u128 + 1)) >> 64) as usize);
    }
    rows
}

/// The mean label of each lane.
fn mean_labels<'a>(lanes: usize, rows: impl Iterator<Item = &'a Judged>) -> Vec<f32> {
    let mut told = Told::new(lanes);
    rows.for_each(|row| told.add(row));
    told.means(&vec![0.0; lanes], 0.0)
}

/// What some rows say of every model.
#[derive(Clone)]
pub(crate) struct Told {
    sums: Vec<f64>,
    rows: f64,
}

impl Told {
    pub(crate) fn new(lanes: usize) -> Self {
        Self { sums: vec![0.0; lanes], rows: 0.0 }
    }

    pub(crate) fn add(&mut self, row: &Judged) {
        self.sums.iter_mut().zip(&row.labels).for_each(|(sum, (_, label))| *sum += f64::from(*label));
        self.rows += 1.0;
    }

    /// The mean scores, shrunk towards these by the weight of so many rows.
    pub(crate) fn means(&self, towards: &[f32], prior_rows: f64) -> Vec<f32> {
        let mean = |(sum, towards): (&f64, &f32)| {
            ((sum + prior_rows * f64::from(*towards)) / (self.rows + prior_rows).max(1.0)) as f32
        };
        self.sums.iter().zip(towards).map(mean).collect()
    }
}
