//! Training: from logged rows to an artifact and a report on it.
//!
//! The first reading keeps up to [`TrainSettings::rows_max`] judged rows, all of them or an even sample
//! by the hash of their keys, and adds up what every row says of the models' means. The encoder, the
//! regression over all buckets and the shapes of the other learners are fitted on those. Where there
//! are more rows, a second reading fills what the shapes hold from every row (`tally`); no reading
//! keeps a row. The last fifth of the kept rows (they are in time order) is first held out to calibrate
//! and to report on, then fitted on as well. Equal rows, settings and seed give the same artifact to the
//! byte, on any number of cores.
//!
//! A model with too few judged rows is left out of the artifact and goes on as a new one; a log in
//! which all were right, or all wrong, teaches nothing and is refused.

mod dense;
mod report;
mod sample;
mod tally;

use std::ops::ControlFlow;
use std::sync::Arc;

use ndarray::{Array2, Axis};
use pointsman_router::artifact::{Artifact, ArtifactKind, Origin};
use pointsman_router::expense::Expense;
use pointsman_router::features::{Features, SURFACE_DIMS};
use pointsman_router::ids::TaskType;
use pointsman_router::projection::{Projection, ProjectionShape};
use pointsman_router::quality::{Platt, Quality};
use pointsman_router::topic::Topics;

use self::dense::Dense;
pub use self::report::{ModelReport, RoutingReport, TrainingReport};
use self::sample::{Sample, Sum};
use self::tally::{Shapes, Told};
use crate::fit::encoder::{Encoder, EncoderSettings};
use crate::fit::expense::{self, Explained, SpentRows};
use crate::fit::ridge::{Labels, Main, Problem, RidgeSettings, Solution};
use crate::fit::sparse::{PARTS, Sparse, side_by_side};
use crate::fit::trees::{self, Counts};
use crate::fit::{calibrate, topics};
use crate::online::certainty;
use crate::rows::Rows;

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainSettings {
    /// Whether the policy is to go on learning.
    pub kind: ArtifactKind,
    /// What every draw is made from.
    pub seed: u64,
    /// Judged rows that are kept, at most.
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
    go_on(tell(Stage::FittingFeatures, 0.25))?;
    let features: Vec<Arc<Features>> = sample.rows.iter().map(|row| Arc::clone(&row.features)).collect();
    let (encoder, matrix) = Encoder::fit(&features, rows.schema(), &settings.encoder, settings.seed);
    let work = Work::new(&sample, &features, (&encoder, &matrix), settings)?;
    go_on(tell(Stage::FittingModels, 0.4))?;
    let kept = features.len() - features.len() / HELD_OUT;
    let (first, shapes) = work.shapes(kept, Solution::default());
    let first = work.fitted(first, &shapes, &work.tally(kept, &shapes))?;
    go_on(tell(Stage::Calibrating, 0.55))?;
    let scores = work.scores(&first, kept);
    let platt = calibrate::platt(&work.held_out(&scores, kept));
    let (expense, explained) = work.expense(kept);
    let report = report::report(&sample, &first.quality, &platt, (kept, &scores), &explained);
    go_on(tell(Stage::FittingModels, 0.6))?;
    let (last, shapes) = work.shapes(features.len(), first.solution);
    let counts = if sample.is_whole() {
        work.tally(features.len(), &shapes)
    } else {
        let told = Told { tell, from: 0.75, to: 0.95, rows: sample.read };
        tally::of_all(rows, &work.dense, &shapes, (&sample.models, told))?
    };
    let mut last = work.fitted(last, &shapes, &counts)?;
    go_on(tell(Stage::FittingModels, 0.95))?;
    last.quality.platt = platt;
    let origin = Origin { rows: sample.read, labels: sample.labels_read(), seed: settings.seed };
    let Fitted { projection, quality, solution } = last;
    let (kind, topics) = (settings.kind, work.topics());
    let mut artifact = Artifact { kind, origin, projection, quality, expense, topics, certainty: Vec::new() };
    artifact.certainty = work.certainty(&artifact, &solution);
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
    encoder: &'a Encoder,
    /// The weighted buckets of the rows.
    matrix: &'a Sparse,
    settings: &'a TrainSettings,
    labels: Vec<Labels>,
    /// What makes dense inputs, and those of the rows.
    dense: Dense<'a>,
    inputs: Array2<f32>,
}

/// What one fit made.
struct Fitted {
    projection: Projection,
    quality: Quality,
    solution: Solution,
}

impl<'a> Work<'a> {
    fn new(
        sample: &'a Sample,
        features: &'a [Arc<Features>],
        (encoder, matrix): (&'a Encoder, &'a Sparse),
        settings: &'a TrainSettings,
    ) -> Result<Self, ProjectionShape> {
        let dense = Dense::new(encoder)?;
        let cells = dense.of_matrix(features, matrix);
        let inputs = Array2::from_shape_vec((features.len(), dense.inputs()), cells);
        let inputs = inputs.unwrap_or_else(|_| Array2::zeros((0, dense.inputs())));
        let labels = sample.rows.iter().map(|row| row.labels.clone()).collect();
        Ok(Self { sample, encoder, matrix, settings, labels, dense, inputs })
    }

    /// The task types.
    fn topics(&self) -> Topics {
        let tasks: Vec<Option<TaskType>> = self.sample.rows.iter().map(|row| row.task.clone()).collect();
        topics::topics(self.inputs.view(), &tasks)
    }

    /// How costs and times lean, with the first `kept` rows fitted and the rest judging that; and what it explains.
    fn expense(&self, kept: usize) -> (Expense, Vec<Explained>) {
        let rows = SpentRows { inputs: self.inputs.view(), calls: &self.sample.spent(), kept };
        expense::expense(&rows, self.lanes())
    }

    /// The regression on the first `rows` rows, begun from `begin`, and the shapes of the other learners.
    fn shapes(&self, rows: usize, begin: Solution) -> (Solution, Shapes) {
        let labels = self.labels.get(..rows).unwrap_or_default();
        let means = if rows == self.labels.len() { self.sample.means() } else { means(labels, self.lanes()) };
        let squares = self.squares(labels);
        let main = Main { vectors: self.encoder.vectors().view(), squares: &squares };
        let problem = Problem { matrix: self.matrix, labels, means: &means };
        let solution = problem.solve(&self.settings.ridge, main, begin);
        let (dense, seed) = (self.inputs.slice_axis(Axis(0), (..rows).into()), self.settings.seed);
        let forest = trees::grow(dense, labels, &means, seed);
        (solution, Shapes { means, forest })
    }

    /// Σ (x·v)² along each direction of the encoder, by lane.
    fn squares(&self, labels: &[Labels]) -> Array2<f64> {
        let spreads = self.encoder.spreads();
        let mut squares = Array2::zeros((self.lanes(), spreads.len()));
        for (row, labels) in self.inputs.rows().into_iter().zip(labels) {
            let image = row.iter().skip(SURFACE_DIMS).zip(spreads).map(|(x, (mean, scale))| x / scale + mean);
            let image: Vec<f64> = image.map(|x| f64::from(x * x)).collect();
            for (lane, _) in labels {
                squares.row_mut(*lane).iter_mut().zip(&image).for_each(|(sum, x)| *sum += x);
            }
        }
        squares
    }

    /// What the first `rows` rows fill the shapes with.
    fn tally(&self, rows: usize, shapes: &Shapes) -> Counts {
        let labels = self.labels.get(..rows).unwrap_or_default();
        let part = |first: usize| {
            let mut counts = shapes.counts();
            for (dense, labels) in self.inputs.rows().into_iter().zip(labels).skip(first).step_by(PARTS) {
                shapes.count(&mut counts, &dense.to_vec(), labels);
            }
            counts
        };
        tally::merged(side_by_side(part), shapes)
    }

    /// The learners, filled.
    fn fitted(&self, solution: Solution, shapes: &Shapes, counts: &Counts) -> Result<Fitted, ProjectionShape> {
        let projection = self.encoder.projection(&solution.weights(self.lanes()))?;
        let forest = shapes.filled(counts);
        let means = shapes.means.clone();
        let (models, platt) = (self.sample.models.clone(), vec![Platt::IDENTITY; means.len()]);
        Ok(Fitted { projection, quality: Quality { models, means, forest, platt }, solution })
    }

    fn lanes(&self) -> usize {
        self.sample.models.len()
    }

    /// The scores of all models on each row from `kept` on.
    fn scores(&self, fitted: &Fitted, kept: usize) -> Vec<Vec<f32>> {
        let images = fitted.solution.images(self.matrix);
        let rows: Vec<(usize, &Vec<f32>)> = images.iter().enumerate().skip(kept).collect();
        each(&rows, |row| fitted.quality.scores(&self.projected(*row)))
    }

    /// What the projection makes of a row, from the regression's images of it.
    fn projected(&self, (at, images): (usize, &Vec<f32>)) -> Vec<f32> {
        let mut projected = vec![1.0];
        projected.extend(self.inputs.row(at));
        projected.extend_from_slice(images.get(..self.lanes()).unwrap_or_default());
        projected
    }

    /// How certain the heads on the artifact begin; lanes know nothing of each other and go side by side.
    fn certainty(&self, artifact: &Artifact, solution: &Solution) -> Vec<f32> {
        let images = solution.images(self.matrix);
        let of = |part: usize| {
            let mine = |labels: &Labels| {
                labels.iter().map(|(lane, _)| *lane).filter(|lane| lane % PARTS == part).collect()
            };
            let rows = images.iter().enumerate().zip(&self.labels);
            certainty(artifact, rows.map(|(row, labels)| (self.projected(row), mine(labels))))
        };
        let parts = side_by_side(of);
        let cells = artifact.shape().triangle();
        let lane = |lane: usize| parts.get(lane % PARTS)?.chunks_exact(cells).nth(lane);
        (0..self.lanes()).filter_map(lane).flatten().copied().collect()
    }

    /// Held-out scores with their labels, by model.
    fn held_out(&self, scores: &[Vec<f32>], kept: usize) -> Vec<Vec<calibrate::Pair>> {
        let mut pairs = vec![Vec::new(); self.lanes()];
        for (scores, labels) in scores.iter().zip(self.labels.get(kept..).unwrap_or_default()) {
            for (lane, label) in labels {
                if let (Some(score), Some(pairs)) = (scores.get(*lane), pairs.get_mut(*lane)) {
                    pairs.push((*score, *label));
                }
            }
        }
        pairs
    }
}

/// What each of these makes, made side by side, in their order.
fn each<T: Sync, M: Send>(of: &[T], make: impl Fn(&T) -> M + Sync) -> Vec<M> {
    let part = of.len().div_ceil(PARTS).max(1);
    let made = side_by_side(|first| of.iter().skip(first * part).take(part).map(&make).collect::<Vec<_>>());
    made.into_iter().flatten().collect()
}

/// Mean label of each lane.
fn means(labels: &[Labels], lanes: usize) -> Vec<f32> {
    let mut sums = vec![Sum::default(); lanes];
    for (lane, label) in labels.iter().flatten() {
        if let Some(sum) = sums.get_mut(*lane) {
            sum.add(*label);
        }
    }
    sample::means(&sums)
}

#[cfg(test)]
mod tests;
