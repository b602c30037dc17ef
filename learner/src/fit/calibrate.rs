//! Platt scaling on scores of rows that were held out: σ(slope·logit(score) + intercept).
//!
//! Labels may be soft. Each model's slope is drawn towards that of all models together, with the weight
//! of some rows, so that a model is not bent by a few. The intercept then mostly keeps the mean of the
//! scores, because the level of a model is known from every row and the held-out fifth would blur it;
//! only very many held-out rows move it. (Measured on recorded outcomes: intercepts from the held-out
//! labels alone cost a tenth of the routing gain; isotonic steps cost half of it.)

use pointsman_router::quality::{Platt, logit};

/// A held-out score and its label.
pub type Pair = (f32, f32);

/// Weight of the common pair, in rows.
const PRIOR_ROWS: f64 = 1_000.0;
/// The same for a model's level, which more rows than the held-out ones have told already.
const LEVEL_ROWS: f64 = 10_000.0;
const STEPS_MAX: usize = 30;

/// One pair a model.
#[must_use]
pub fn platt(held_out: &[Vec<Pair>]) -> Vec<Platt> {
    let all: Vec<Pair> = held_out.iter().flatten().copied().collect();
    let common = fit(&all, (1.0, 0.0), 1.0);
    let of = |pairs: &Vec<Pair>| narrow(levelled(pairs, fit(pairs, common, PRIOR_ROWS)));
    held_out.iter().map(of).collect()
}

/// The pair of this slope whose mean probability is the mean score, moved towards the mean label as far as the rows
/// are many; by Newton's method.
fn levelled(pairs: &[Pair], (slope, intercept): (f64, f64)) -> (f64, f64) {
    let share = pairs.len() as f64 / (pairs.len() as f64 + LEVEL_ROWS);
    let level: f64 = pairs.iter().map(|(s, label)| f64::from(*s) + share * f64::from(label - s)).sum();
    let mut found = intercept;
    for _ in 0..STEPS_MAX {
        let (mut apart, mut steep) = (-level, 0.0);
        for (score, _) in pairs {
            let p = 1.0 / (1.0 + libm::exp(-(slope * f64::from(logit(*score)) + found)));
            (apart, steep) = (apart + p, steep + (p * (1.0 - p)).max(1e-6));
        }
        let step = if steep > 0.0 { apart / steep } else { 0.0 };
        found -= step;
        if step.abs() < 1e-9 {
            break;
        }
    }
    (slope, if found.is_finite() { found } else { intercept })
}

/// Newton's method on the cross-entropy plus ½·weight/4·((slope − s₀)² + (intercept − i₀)²); a quarter is
/// the information of one row at probability ½.
fn fit(pairs: &[Pair], prior: (f64, f64), weight: f64) -> (f64, f64) {
    let (mut slope, mut intercept) = prior;
    let pull = weight / 4.0;
    for _ in 0..STEPS_MAX {
        let (mut g, mut h) = ([pull * (slope - prior.0), pull * (intercept - prior.1)], [pull, 0.0, pull]);
        for (score, label) in pairs {
            let x = f64::from(logit(*score));
            let p = 1.0 / (1.0 + libm::exp(-(slope * x + intercept)));
            let (error, w) = (p - f64::from(*label), (p * (1.0 - p)).max(1e-6));
            g = [g[0] + error * x, g[1] + error];
            h = [h[0] + w * x * x, h[1] + w * x, h[2] + w];
        }
        let determinant = h[0] * h[2] - h[1] * h[1];
        if determinant <= 0.0 || !determinant.is_finite() {
            return prior;
        }
        let step = ((h[2] * g[0] - h[1] * g[1]) / determinant, (h[0] * g[1] - h[1] * g[0]) / determinant);
        (slope, intercept) = (slope - step.0, intercept - step.1);
        if step.0.abs() + step.1.abs() < 1e-9 {
            break;
        }
    }
    // A slope below zero would say that worse is better.
    if slope > 0.0 && intercept.is_finite() { (slope, intercept) } else { prior }
}

#[expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]
fn narrow((slope, intercept): (f64, f64)) -> Platt {
    Platt { slope: slope as f32, intercept: intercept as f32 }
}

#[cfg(test)]
mod tests {
    use pointsman_router::clock::Draw;

    use super::*;

    fn drawn(slope: f64, intercept: f64, n: usize, seed: u64) -> Vec<Pair> {
        let mut draw = Draw::from_seed(seed);
        (0..n)
            .map(|_| {
                #[expect(clippy::cast_possible_truncation, reason = "a test")]
                let score = (0.05 + 0.9 * draw.uniform()) as f32;
                let p = 1.0 / (1.0 + (-(slope * f64::from(logit(score)) + intercept)).exp());
                (score, if draw.uniform() < p { 1.0 } else { 0.0 })
            })
            .collect()
    }

    #[test]
    fn the_pair_that_made_the_labels_is_found() {
        let found = platt(&[drawn(0.6, 0.3, 200_000, 1), drawn(1.4, -0.2, 200_000, 2)]);
        let near = |p: Platt, slope: f32, intercept: f32| {
            assert!((p.slope - slope).abs() < 0.06 && (p.intercept - intercept).abs() < 0.06, "{p:?}");
        };
        near(found[0], 0.6, 0.3);
        near(found[1], 1.4, -0.2);
    }

    #[test]
    fn soft_labels_are_met() {
        let soft: Vec<Pair> = (1..20).map(|i| (i as f32 / 20.0, 0.3)).collect();
        let found = platt(&[soft.repeat(20_000)]);
        let p = 1.0 / (1.0 + (-found[0].logit(0.5)).exp());
        assert!((p - 0.3).abs() < 0.01, "{found:?} {p}");
    }

    #[test]
    fn the_level_of_a_few_rows_stays() {
        let few = drawn(1.0, 0.4, 500, 4);
        let mean = |of: &dyn Fn(&Pair) -> f32| few.iter().map(of).sum::<f32>() / 500.0;
        let found = platt(std::slice::from_ref(&few))[0];
        let told = mean(&|(score, _)| 1.0 / (1.0 + (-found.logit(*score)).exp()));
        let (scored, judged) = (mean(&|pair| pair.0), mean(&|pair| pair.1));
        assert!((told - scored).abs() < 0.1 * (judged - scored), "{scored} {told} {judged}");
    }

    #[test]
    fn few_rows_change_little() {
        let found = platt(&[drawn(1.0, 0.0, 5_000, 3), vec![(0.9, 0.0), (0.1, 1.0)], Vec::new()]);
        assert!((found[1].slope - found[2].slope).abs() < 0.25, "{found:?}");
        assert!((found[2].slope - 1.0).abs() < 0.1);
        assert_eq!(platt(&[Vec::new()]), [Platt::IDENTITY]);
    }
}
