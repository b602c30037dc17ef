//! The learners by name, and what one split says of each.

use std::time::Instant;

use crate::split::{Judged, Split};
use crate::{bayes, linear, near, product, tree};

/// The scores of all models on a row of those that are routed.
pub(crate) type Scorer<'a> = Box<dyn Fn(usize) -> Vec<f32> + 'a>;

/// How a learner is fitted.
type Fit = for<'a> fn(&'a Split) -> anyhow::Result<Scorer<'a>>;

const TOLD_TASK: &str = "told the task";
const NEIGHBOURS: &str = "100 nearest neighbours";
const CLUSTERS: [&str; 3] = ["16 clusters", "32 clusters", "64 clusters"];
const TREE: &str = "one tree";
const LOGISTIC: &str = "logistic regression";
const RIDGE: &str = "ridge over all buckets";
const FOREST: &str = "forest";
/// The name of what the others are held against.
pub(crate) const PRODUCT: &str = "product, as it serves";

const LEARNERS: [(&str, Fit); 12] = [
    (TOLD_TASK, told_task),
    ("naive Bayes", |split| Ok(bayes::fit(split, false))),
    ("naive Bayes, of a mean n-gram", |split| Ok(bayes::fit(split, true))),
    (NEIGHBOURS, near::neighbours),
    (CLUSTERS[0], |split| Ok(near::clusters(split, 16))),
    (CLUSTERS[1], |split| Ok(near::clusters(split, 32))),
    (CLUSTERS[2], |split| Ok(near::clusters(split, 64))),
    (TREE, tree::fit),
    (LOGISTIC, linear::logistic),
    (RIDGE, product::ridge),
    (FOREST, product::forest),
    (PRODUCT, product::served),
];

const ALL_CLUSTERS: [(&str, f32); 3] = [(CLUSTERS[0], 1.0), (CLUSTERS[1], 1.0), (CLUSTERS[2], 1.0)];
/// Means of what was fitted: a name, and parts with their weights. That of ridge and forest weighs them as the product
/// does (`router::quality`).
const MEANS: [(&str, &[(&str, f32)]); 6] = [
    ("clusters of all three sizes", &ALL_CLUSTERS),
    ("ridge and forest, uncalibrated", &[(RIDGE, 0.25), (FOREST, 0.75)]),
    ("product and neighbours", &[(PRODUCT, 0.75), (NEIGHBOURS, 0.25)]),
    (
        "product and clusters",
        &[(PRODUCT, 0.75), (CLUSTERS[0], 0.25 / 3.0), (CLUSTERS[1], 0.25 / 3.0), (CLUSTERS[2], 0.25 / 3.0)],
    ),
    ("product and one tree", &[(PRODUCT, 0.75), (TREE, 0.25)]),
    ("product and logistic", &[(PRODUCT, 0.75), (LOGISTIC, 0.25)]),
];

/// What one split says of a learner.
pub(crate) struct Tally {
    pub(crate) name: &'static str,
    /// Over the best single model of the rows that were fitted on.
    pub(crate) gain: f64,
    /// Seconds to fit and to score a request; not of what is only a mean of others.
    pub(crate) seconds: Option<[f64; 2]>,
}

/// What one split says.
pub(crate) struct Tallies {
    pub(crate) best_single: f64,
    pub(crate) oracle: f64,
    pub(crate) encoder_seconds: f64,
    pub(crate) learners: Vec<Tally>,
}

/// Fits all learners on a split and lets them route.
pub(crate) fn compare(split: &Split) -> anyhow::Result<Tallies> {
    let rows = &split.test.rows;
    let best_single = value(rows, |_| &split.means);
    let oracle = rows.iter().map(|row| row.labels.iter().map(|(_, label)| *label).fold(0.0, f32::max));
    let oracle = oracle.map(f64::from).sum::<f64>() / rows.len() as f64;
    let mut known: Vec<(&str, Vec<Vec<f32>>)> = Vec::new();
    let mut learners = Vec::new();
    for (name, fit) in LEARNERS {
        let begun = Instant::now();
        let scorer = fit(split)?;
        let fitted = Instant::now();
        let scores: Vec<Vec<f32>> = (0..rows.len()).map(&scorer).collect();
        let seconds = [(fitted - begun).as_secs_f64(), fitted.elapsed().as_secs_f64() / rows.len() as f64];
        learners.push(Tally { name, gain: value(rows, |at| &scores[at]) - best_single, seconds: Some(seconds) });
        known.push((name, scores));
    }
    for (name, parts) in MEANS {
        let mixed = mixed(&known, parts, (rows.len(), split.models.len()));
        learners.push(Tally { name, gain: value(rows, |at| &mixed[at]) - best_single, seconds: None });
    }
    Ok(Tallies { best_single, oracle, encoder_seconds: split.encoder_seconds, learners })
}

/// The mean score of the models that these scores choose.
fn value<'a>(rows: &[Judged], scores: impl Fn(usize) -> &'a Vec<f32>) -> f64 {
    let chosen = |(at, row): (usize, &Judged)| {
        let scores = scores(at);
        let best = (0..scores.len()).reduce(|a, b| if scores[b] > scores[a] { b } else { a });
        best.map_or(0.0, |best| f64::from(row.labels[best].1))
    };
    rows.iter().enumerate().map(chosen).sum::<f64>() / rows.len() as f64
}

fn mixed(known: &[(&str, Vec<Vec<f32>>)], parts: &[(&str, f32)], (rows, models): (usize, usize)) -> Vec<Vec<f32>> {
    let mut mixed = vec![vec![0.0; models]; rows];
    for (name, weight) in parts {
        for (_, scores) in known.iter().filter(|(known, _)| known == name) {
            for (sums, scores) in mixed.iter_mut().zip(scores) {
                sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += weight * score);
            }
        }
    }
    mixed
}

/// The mean scores within the true task: what no router is told, a yardstick.
fn told_task(split: &Split) -> anyhow::Result<Scorer<'_>> {
    let lanes = split.models.len();
    let mut tasks = std::collections::BTreeMap::new();
    for row in &split.train.rows {
        tasks.entry(&row.task).or_insert_with(|| crate::split::Told::new(lanes)).add(row);
    }
    let of = move |at: usize| match tasks.get(&split.test.rows[at].task) {
        Some(told) => told.means(&split.means, near::PRIOR_ROWS),
        None => split.means.clone(),
    };
    Ok(Box::new(of))
}
