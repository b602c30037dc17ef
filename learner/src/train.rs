//! Training: from logged rows to an artifact and a report on it.
//!
//! Two readings at most. Up to [`TrainSettings::rows_max`] judged rows are kept, all of them or an
//! even sample by the hash of their keys; everything is fitted on those: the encoder, then the
//! learners of `router::quality`. The last fifth of the rows (they are in time order) is first held
//! out to calibrate and to report on, then fitted on as well. Equal rows, settings and seed give the
//! same artifact to the byte.
//!
//! A model with too few judged rows is left out of the artifact and goes on as a new one; a log in
//! which all were right, or all wrong, teaches nothing and is refused.

mod report;
mod sample;

use std::ops::ControlFlow;
use std::sync::Arc;

use ndarray::{Array2, Axis};
use pointsman_router::artifact::{Artifact, ArtifactKind, Origin};
use pointsman_router::features::{Features, SURFACE_DIMS};
use pointsman_router::ids::TaskType;
use pointsman_router::projection::{PROJECTION_ROWS, Projection, ProjectionShape};
use pointsman_router::quality::{Platt, Quality, SURFACE_WEIGHT, kernel_inputs, to_cluster_inputs};
use pointsman_router::topic::Topics;

pub use self::report::{ModelReport, RoutingReport, TrainingReport};
use self::sample::Sample;
use crate::fit::encoder::{Encoder, EncoderSettings};
use crate::fit::ridge::{Labels, Problem, RidgeSettings};
use crate::fit::svd::SparseRow;
use crate::fit::{calibrate, kernels, topics};
use crate::online::certainty;
use crate::rows::Rows;

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainSettings {
    /// Whether the policy is to go on learning.
    pub kind: ArtifactKind,
    /// What every draw is made from.
    pub seed: u64,
    /// Judged rows that are fitted on, at most.
    pub rows_max: usize,
    /// The encoder's.
    pub encoder: EncoderSettings,
    /// The regression's.
    pub ridge: RidgeSettings,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            kind: ArtifactKind::Hybrid,
            seed: 0,
            rows_max: 40_000,
            encoder: EncoderSettings::default(),
            ridge: RidgeSettings::default(),
        }
    }
}

/// How far training has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The rows are read.
    Reading,
    /// The encoder is fitted.
    FittingFeatures,
    /// The models' qualities are fitted.
    FittingModels,
    /// Calibration is fitted on what was held out.
    Calibrating,
}

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
pub enum TrainError<E> {
    /// The rows cannot be read.
    #[error(transparent)]
    Rows(E),
    /// There is not enough to learn from.
    #[error("{found} judged rows are too few, training needs {needed}: route more requests and send feedback")]
    TooFew {
        /// Judged rows that there are.
        found: usize,
        /// Judged rows that are needed.
        needed: usize,
    },
    /// There are rows, but of too many models.
    #[error(
        "of {judged} judged rows {found} are of models that were judged often enough, training needs {needed}: route more \
         requests and send feedback"
    )]
    Thin {
        /// Judged rows that there are.
        judged: usize,
        /// Those on models that can be fitted.
        found: usize,
        /// How many of those are needed.
        needed: usize,
    },
    /// Whoever was told how far it is wanted no more of it.
    #[error("the training was given up")]
    GivenUp,
    /// Nothing tells right from wrong.
    #[error("every judged answer has the score {score}, training needs right and wrong ones")]
    OneClass {
        /// The score of them all.
        score: f32,
    },
    /// A row's features mean something else than the others'.
    #[error("rows were made with features {found:016x} and {expected:016x}, train on rows of one installation")]
    MixedSchemas {
        /// The schema of the row.
        found: u64,
        /// The schema of the source.
        expected: u64,
    },
    /// More dimensions are asked for than there can be.
    #[error(transparent)]
    Shape(#[from] ProjectionShape),
}

/// Judged rows without which nothing is fitted.
pub const ROWS_MIN: usize = 100;

/// An artifact and what is to be said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The artifact.
    pub artifact: Artifact,
    /// The report.
    pub report: TrainingReport,
}

/// Trains on these rows; tells how far it is, with a share from 0 to 1 of the whole, and ends where whoever is told
/// wants no more of it.
///
/// # Errors
/// [`TrainError`]; nothing was made.
pub fn train<R: Rows>(
    rows: &R,
    settings: &TrainSettings,
    tell: &mut dyn FnMut(Stage, f64) -> ControlFlow<()>,
) -> Result<Trained, TrainError<R::Error>> {
    go_on(tell(Stage::Reading, 0.0))?;
    let sample = Sample::read(rows, settings.rows_max, settings.seed, tell)?;
    go_on(tell(Stage::FittingFeatures, 0.3))?;
    let features: Vec<Arc<Features>> = sample.rows.iter().map(|row| Arc::clone(&row.features)).collect();
    let encoder = Encoder::fit(&features, rows.schema(), &settings.encoder, settings.seed);
    let work = Work::new(&sample, &features, &encoder, settings)?;
    go_on(tell(Stage::FittingModels, 0.5))?;
    let kept = features.len() - features.len() / HELD_OUT;
    let first = work.fit(kept, Vec::new())?;
    go_on(tell(Stage::Calibrating, 0.75))?;
    let held_out = work.held_out(&first, kept);
    let platt = calibrate::platt(&held_out);
    let report = report::report(&sample, &first.quality, &platt, (kept, &work.scores(&first, kept)));
    go_on(tell(Stage::FittingModels, 0.8))?;
    let mut last = work.fit(features.len(), first.directions)?;
    last.quality.platt = platt;
    let origin = Origin { rows: sample.read, labels: sample.labels(), seed: settings.seed };
    let Fitted { projection, quality, .. } = last;
    let (kind, topics) = (settings.kind, work.topics());
    let mut artifact = Artifact { kind, origin, projection, quality, topics, certainty: Vec::new() };
    artifact.certainty = certainty(&artifact, sample.judged());
    Ok(Trained { artifact, report })
}

/// The end of a training that nobody wants any more.
fn go_on<E>(told: ControlFlow<()>) -> Result<(), TrainError<E>> {
    if told.is_break() { Err(TrainError::GivenUp) } else { Ok(()) }
}

/// One part of so many is held out.
const HELD_OUT: usize = 5;

/// What all fits of one training share.
struct Work<'a> {
    sample: &'a Sample,
    features: &'a [Arc<Features>],
    encoder: &'a Encoder,
    settings: &'a TrainSettings,
    labels: Vec<Labels>,
    kernel: Array2<f32>,
    cluster: Array2<f32>,
}

/// What one fit made.
struct Fitted {
    projection: Projection,
    quality: Quality,
    directions: Vec<f32>,
}

impl<'a> Work<'a> {
    fn new(
        sample: &'a Sample,
        features: &'a [Arc<Features>],
        encoder: &'a Encoder,
        settings: &'a TrainSettings,
    ) -> Result<Self, ProjectionShape> {
        let bare = encoder.projection(&[])?;
        let inputs = bare.width() - 1;
        let (mut kernel, mut cluster) =
            (Vec::with_capacity(inputs * features.len()), Vec::with_capacity(inputs * features.len()));
        for features in features {
            let mut row = kernel_inputs(&bare.project(features));
            kernel.extend_from_slice(&row);
            to_cluster_inputs(&mut row);
            cluster.extend_from_slice(&row);
        }
        let array = |cells: Vec<f32>| {
            Array2::from_shape_vec((features.len(), inputs), cells).unwrap_or_else(|_| Array2::zeros((0, inputs)))
        };
        let labels = sample.rows.iter().map(|row| row.labels.clone()).collect();
        Ok(Self { sample, features, encoder, settings, labels, kernel: array(kernel), cluster: array(cluster) })
    }

    /// The task types, on the dense inputs as the projection makes them.
    fn topics(&self) -> Topics {
        let tasks: Vec<Option<TaskType>> = self.sample.rows.iter().map(|row| row.task.clone()).collect();
        let mut dense = self.kernel.clone();
        dense
            .columns_mut()
            .into_iter()
            .take(SURFACE_DIMS)
            .for_each(|mut s| s.mapv_inplace(|x| x / SURFACE_WEIGHT));
        topics::topics(dense.view(), &tasks)
    }

    /// Fits on the first `rows` rows; the regression begins from `begin`.
    fn fit(&self, rows: usize, begin: Vec<f32>) -> Result<Fitted, ProjectionShape> {
        let labels = self.labels.get(..rows).unwrap_or_default();
        let means = means(labels, self.sample.models.len());
        let row = |at: usize, row: &mut SparseRow| {
            row.clear();
            if let Some(features) = self.features.get(at) {
                self.encoder.row(features, row);
            }
        };
        let problem = Problem { width: PROJECTION_ROWS, row: &row, labels, means: &means };
        let directions = problem.solve(&self.settings.ridge, begin);
        let projection = self.encoder.projection(&directions)?;
        let seed = self.settings.seed;
        let (kernel, cluster) =
            (self.kernel.slice_axis(Axis(0), (..rows).into()), self.cluster.slice_axis(Axis(0), (..rows).into()));
        let quality = Quality {
            models: self.sample.models.clone(),
            landmarks: kernels::landmarks(kernel, labels, &means, seed),
            clusters: kernels::clusters(cluster, labels, &means, seed),
            platt: vec![Platt::IDENTITY; means.len()],
            means,
        };
        Ok(Fitted { projection, quality, directions })
    }

    /// The scores of all models on each row from `kept` on.
    fn scores(&self, fitted: &Fitted, kept: usize) -> Vec<Vec<f32>> {
        let later = self.features.get(kept..).unwrap_or_default();
        later.iter().map(|features| fitted.quality.scores(&fitted.projection.project(features))).collect()
    }

    /// Held-out scores with their labels, by model.
    fn held_out(&self, fitted: &Fitted, kept: usize) -> Vec<Vec<calibrate::Pair>> {
        let mut pairs = vec![Vec::new(); self.sample.models.len()];
        for (scores, labels) in self.scores(fitted, kept).iter().zip(self.labels.get(kept..).unwrap_or_default()) {
            for (lane, label) in labels {
                if let (Some(score), Some(pairs)) = (scores.get(*lane), pairs.get_mut(*lane)) {
                    pairs.push((*score, *label));
                }
            }
        }
        pairs
    }
}

/// Mean label of each lane, shrunk a little towards the mean of all.
fn means(labels: &[Labels], lanes: usize) -> Vec<f32> {
    let (mut sums, mut counts) = (vec![0.0_f64; lanes], vec![0.0_f64; lanes]);
    for (lane, label) in labels.iter().flatten() {
        if let (Some(sum), Some(count)) = (sums.get_mut(*lane), counts.get_mut(*lane)) {
            *sum += f64::from(*label);
            *count += 1.0;
        }
    }
    let all = sums.iter().sum::<f64>() / counts.iter().sum::<f64>().max(1.0);
    #[expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]
    let mean = |(sum, count): (&f64, &f64)| ((sum + all) / (count + 1.0)) as f32;
    sums.iter().zip(&counts).map(mean).collect()
}

#[cfg(test)]
mod tests;
