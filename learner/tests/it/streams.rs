//! The deterministic policies of the peer benchmark on its stationary stream: the published regret is met to
//! the last digit only when every one of 50,000 choices is the same, so this proves that the update is right.
//!
//! The streams are made by a script that is not part of this repository; POINTSMAN_STREAMS names their folder.
//! Without it the tests say so and pass.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a reference of its own, outside any function that clippy takes for a test"
)]

use std::path::PathBuf;

use pointsman_learner::online::{InputLesson, Online};
use pointsman_learner::streams::{Stream, play};
use pointsman_router::bandit::BanditSettings;
use pointsman_router::features::SchemaHash;
use pointsman_router::heads::Prior;
use pointsman_router::ids::ModelName;
use pointsman_router::inputs::Inputs;

fn stream(name: &str) -> Option<Stream> {
    let path = std::env::var_os("POINTSMAN_STREAMS").map(|folder| PathBuf::from(folder).join(name));
    let bytes = path.and_then(|path| std::fs::read(path).ok());
    if bytes.is_none() {
        println!("SKIPPED: {name} is not there, POINTSMAN_STREAMS must name the folder of the streams");
    }
    bytes.map(|bytes| Stream::from_bytes(&bytes).unwrap())
}

/// The first index of the highest value, as numpy's argmax.
fn argmax(values: impl Iterator<Item = f64>) -> usize {
    values.enumerate().fold((0, f64::NEG_INFINITY), |best, (i, v)| if v > best.1 { (i, v) } else { best }).0
}

/// LogUCB: the product's own heads, read with σ(μ + √v) − λc.
fn log_ucb(stream: &Stream) -> f64 {
    let dense = 1 + stream.inputs();
    let prior = Prior { bias: 4.0, surface: 4.0, projected: 4.0, sparse: 0.0 };
    let settings = BanditSettings { prior, alarms: false, ..BanditSettings::dense(dense) };
    let mut learner = Online::new(settings, SchemaHash(0));
    let names: Vec<ModelName> = (0..stream.models()).map(|i| ModelName::from(format!("model-{i}"))).collect();
    let mut inputs = Inputs { dense: vec![1.0; dense], sparse: Vec::new() };
    let mut regret = 0.0;
    for (t, round) in stream.rounds().enumerate() {
        inputs.dense[1..].copy_from_slice(round.context);
        let heads = learner.heads();
        let scores = heads.score(&inputs);
        let prior = heads.prior_score(&inputs, &scores);
        let picked = argmax(names.iter().zip(round.costs).map(|(name, cost)| {
            let score = heads.lane(name.as_str()).map_or(prior, |lane| scores[lane]);
            let logit = f64::from(score.mean) + f64::from(score.variance).sqrt();
            1.0 / (1.0 + (-logit).exp()) - stream.cost_weight() * f64::from(*cost)
        }));
        regret += round.regret(picked, stream.cost_weight());
        let new = Some(f64::from(round.coins[picked]));
        learner.teach_inputs(
            t as u64,
            &InputLesson { inputs: &inputs, offset: 0.0, model: &names[picked], old: None, new },
        );
    }
    regret
}

/// `LinUCB` in f64 on full matrices, cost apart: θ·z + .8·√(zᵀA⁻¹z) − λc, ridge 1.
fn lin_ucb(stream: &Stream) -> f64 {
    struct Arm {
        inverse: Vec<f64>,
        theta: Vec<f64>,
    }
    let n = 1 + stream.inputs();
    let identity: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect();
    let mut arms: Vec<Arm> =
        (0..stream.models()).map(|_| Arm { inverse: identity.clone(), theta: vec![0.0; n] }).collect();
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let times =
        |arm: &Arm, z: &[f64]| -> Vec<f64> { arm.inverse.chunks_exact(n).map(|row| dot(row, z)).collect() };
    let mut regret = 0.0;
    for round in stream.rounds() {
        let z: Vec<f64> = round.context.iter().copied().map(f64::from).chain([1.0]).collect();
        let picked = argmax(arms.iter().zip(round.costs).map(|(arm, cost)| {
            let width = dot(&times(arm, &z), &z).sqrt();
            dot(&arm.theta, &z) + 0.8 * width - stream.cost_weight() * f64::from(*cost)
        }));
        regret += round.regret(picked, stream.cost_weight());
        let arm = &mut arms[picked];
        let gain = times(arm, &z);
        let scale = 1.0 + dot(&gain, &z);
        let error = f64::from(round.coins[picked]) - dot(&arm.theta, &z);
        for (theta, g) in arm.theta.iter_mut().zip(&gain) {
            *theta += g * error / scale;
        }
        for (row, gi) in arm.inverse.chunks_exact_mut(n).zip(&gain) {
            for (cell, gj) in row.iter_mut().zip(&gain) {
                *cell -= gi * gj / scale;
            }
        }
    }
    regret
}

#[test]
fn the_published_regrets_are_met() {
    let Some(stream) = stream("stream_stationary.bin") else { return };
    let (lin, log) = (lin_ucb(&stream), log_ucb(&stream));
    assert!((lin - 1_449.729_527).abs() < 1e-5, "{lin}");
    assert!((log - 1_143.431_517).abs() < 1e-5, "{log}");
}

#[test]
fn a_run_repeats_to_the_bit() {
    let Some(stream) = stream("stream_tune.bin") else { return };
    let settings = BanditSettings::dense(1 + stream.inputs());
    let regret = play(&stream, settings, 3, 10);
    assert_eq!(regret, play(&stream, settings, 3, 10));
    assert!(regret.first_half + regret.second_half < 850.0, "{regret:?}");
}
