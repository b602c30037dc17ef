//! What the product keeps: its regression, its forest, and both as training makes them and serving reads them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use ndarray::Array2;
use pointsman_learner::fit::ridge::{Main, Problem, RidgeSettings, Solution};
use pointsman_learner::fit::trees::{self, Counts};
use pointsman_learner::rows::{InMemory, Seen, TrainingRow};
use pointsman_learner::train::{TrainSettings, train};
use pointsman_router::artifact::ArtifactKind;
use pointsman_router::money::NanoUsd;

use crate::learners::Scorer;
use crate::split::{Judged, Split};

/// The regression over all buckets, read as directions of the projection.
pub(crate) fn ridge(split: &Split) -> anyhow::Result<Scorer<'_>> {
    let (labels, vectors) = (split.labels(), split.encoder.vectors());
    let dims = vectors.ncols();
    let rows = (split.matrix.height(), 1);
    let images = split.matrix.times(&vectors.iter().copied().collect::<Vec<_>>(), dims, rows);
    // Every model was judged on every row, so the squares are the same for all.
    let mut squares = Array2::zeros((split.models.len(), dims));
    for image in images.chunks_exact(dims) {
        for (k, x) in image.iter().enumerate() {
            squares.column_mut(k).mapv_inplace(|sum: f64| sum + f64::from(x * x));
        }
    }
    let main = Main { vectors: vectors.view(), squares: &squares };
    let problem = Problem { matrix: &split.matrix, labels: &labels, means: &split.means };
    let solution = problem.solve(&RidgeSettings::default(), main, Solution::default());
    let projection = split.encoder.projection(&solution.weights(split.models.len()))?;
    let of = move |at: usize| {
        let projected = projection.project(&split.test.rows[at].features);
        split.means.iter().zip(&projected[projection.width()..]).map(|(mean, along)| mean + along).collect()
    };
    Ok(Box::new(of))
}

/// The forest.
pub(crate) fn forest(split: &Split) -> anyhow::Result<Scorer<'_>> {
    let labels = split.labels();
    let mut forest = trees::grow(split.train.inputs.view(), &labels, &split.means, split.seed);
    let mut counts = Counts::new(&forest, split.models.len());
    for (inputs, labels) in split.train.inputs.rows().into_iter().zip(&labels) {
        counts.add(&forest, &inputs.to_vec(), (labels, &split.means));
    }
    forest.leaves = counts.leaves();
    let of = move |at: usize| {
        let mut scores = split.means.clone();
        forest.add(&split.test.inputs.row(at).to_vec(), &mut scores);
        scores
    };
    Ok(Box::new(of))
}

/// The whole of it: what `train` makes, both learners and their calibration, as the classifier reads it.
pub(crate) fn served(split: &Split) -> anyhow::Result<Scorer<'_>> {
    let row = |(key, row): (u64, &Judged)| {
        let seen = row.labels.iter().map(|(lane, label)| Seen {
            model: split.models[*lane].clone(),
            label: Some(f64::from(*label)),
            tokens_out: 0,
            cost: NanoUsd::ZERO,
            latency: Duration::ZERO,
        });
        TrainingRow { key, features: Arc::clone(&row.features), task: None, seen: seen.collect(), logged: None }
    };
    let rows = InMemory { schema: None, rows: (0..).zip(&split.train.rows).map(row).collect() };
    let settings = TrainSettings { kind: ArtifactKind::Classifier, seed: split.seed, ..TrainSettings::default() };
    let artifact = train(&rows, &settings, &mut |_, _| ControlFlow::Continue(()))?.artifact;
    let place = |model| artifact.quality.models.iter().position(|name| name == model);
    let places: Vec<Option<usize>> = split.models.iter().map(place).collect();
    let of = move |at: usize| {
        let projected = artifact.projection.project(&split.test.rows[at].features);
        let logits = artifact.quality.logits(&projected);
        let probability = |logit: f32| 1.0 / (1.0 + (-logit).exp());
        places.iter().map(|place| place.map_or(0.0, |place| probability(logits[place]))).collect()
    };
    Ok(Box::new(of))
}
