//! Multinomial naive Bayes of every model by itself on the hashed buckets, right against wrong.
//!
//! A text has 1,500 n-grams that know of each other, so the sum of what they say drowns what a model scores on average.
//! The kinder form divides the sum by how many they are, and then hardly anything is said against the mean.

use pointsman_router::features::{Features, TEXT_BUCKETS};

use crate::learners::Scorer;
use crate::split::Split;

/// What every bucket is counted beforehand.
const PRIOR_COUNT: f32 = 1.0;

/// Counts the buckets. The scores are log-odds: as probabilities nearly all would be 0 or 1.
pub(crate) fn fit(split: &Split, is_kind: bool) -> Scorer<'_> {
    let lanes = split.models.len();
    // Of each bucket and lane its weight in right and in wrong answers.
    let mut cells = vec![[PRIOR_COUNT; 2]; TEXT_BUCKETS * lanes];
    let mut all = vec![[PRIOR_COUNT * TEXT_BUCKETS as f32; 2]; lanes];
    for row in &split.train.rows {
        for (bucket, count) in counts(&row.features) {
            for (lane, label) in &row.labels {
                for (class, share) in [*label, 1.0 - label].into_iter().enumerate() {
                    cells[bucket * lanes + lane][class] += share * count;
                    all[*lane][class] += share * count;
                }
            }
        }
    }
    let odds = |[right, wrong]: [f32; 2]| (right / wrong).ln();
    let ratios: Vec<f32> =
        cells.iter().enumerate().map(|(at, cell)| odds(*cell) - odds(all[at % lanes])).collect();
    let of = move |at: usize| {
        let prior = |mean: &f32| odds([mean.max(0.001), (1.0 - mean).max(0.001)]);
        let mut scores: Vec<f32> = split.means.iter().map(prior).collect();
        let grams = || counts(&split.test.rows[at].features);
        let share = if is_kind { grams().map(|(_, count)| count).sum::<f32>().max(1.0).recip() } else { 1.0 };
        for (bucket, count) in grams() {
            let ratios = &ratios[bucket * lanes..(bucket + 1) * lanes];
            scores.iter_mut().zip(ratios).for_each(|(score, ratio)| *score += share * count * ratio);
        }
        scores
    };
    Box::new(of)
}

fn counts(features: &Features) -> impl Iterator<Item = (usize, f32)> {
    features.text.iter().map(|text| (usize::from(text.bucket), f32::from(text.count.unsigned_abs())))
}
