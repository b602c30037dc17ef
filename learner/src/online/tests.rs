use std::collections::BTreeMap;

use pointsman_router::clock::Draw;
use pointsman_router::cooling::Cooling;
use pointsman_router::encode::Encoder;
use pointsman_router::forecast::Forecast;
use pointsman_router::heads::Prior;
use pointsman_router::ids::TaskType;
use pointsman_router::inputs::{DENSE_ROWS, triangle};
use pointsman_router::policy::{Ask, Contender, Objective};
use pointsman_router::request::{AnswerKind, Message, Prompt, Request, Role};
use proptest::prelude::*;

use super::*;
use crate::drift::Direction;

const SCHEMA: SchemaHash = SchemaHash(9);

fn request(text: &str) -> Request {
    Request {
        prompt: Arc::new(Prompt {
            system: String::new(),
            messages: vec![Message { role: Role::User, content: text.to_owned() }],
            temperature: None,
            stop: Vec::new(),
            schema: None,
            caller_ref: None,
        }),
        kind: AnswerKind::Text,
        answer_pattern: None,
        task_type: None,
        tags: BTreeMap::new(),
        embedding: Vec::new(),
        max_cost: None,
        answer_value: None,
        output_tokens_max: None,
        quality_threshold: None,
        calls_max: None,
        models_allowed: Vec::new(),
        models_denied: Vec::new(),
        key: None,
        deadline: None,
    }
}

fn features(text: &str) -> Features {
    Features { schema: SCHEMA, ..Encoder::new(3).encode(&request(text)) }
}

fn blank(surface: [f32; 8]) -> Features {
    Features { text: Vec::new(), surface, tags: Vec::new(), sketch: Vec::new(), prompt_bytes: 1, schema: SCHEMA }
}

fn online() -> Online {
    Online::new(BanditSettings::default(), SCHEMA)
}

/// Of models that have nothing in common.
fn apart() -> BanditSettings {
    let prior = Prior { bias: 4.0, surface: 0.25, projected: 4.0, sparse: 2.0 };
    BanditSettings { prior, shared: None, ..BanditSettings::default() }
}

fn alone() -> Online {
    Online::new(apart(), SCHEMA)
}

fn label(online: &mut Online, seq: u64, features: &Features, model: &str, labels: (Option<f64>, Option<f64>)) {
    let (old, new) = labels;
    online.teach(seq, &Lesson { features, model: &ModelName::new(model), old, new });
}

type Matrix = [[f64; DENSE_ROWS]; DENSE_ROWS];

fn covariance(online: &Online, lane: usize) -> Matrix {
    let block = &online.heads.blocks()[3][lane * online.heads.shape().triangle()..];
    std::array::from_fn(|i| std::array::from_fn(|j| f64::from(block[triangle(i.max(j), i.min(j))])))
}

/// The inverse by Gauss-Jordan elimination with pivots.
fn inverse(matrix: &Matrix) -> Matrix {
    let mut left = *matrix;
    let mut right: Matrix = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
    for column in 0..DENSE_ROWS {
        let pivot =
            (column..DENSE_ROWS).max_by(|a, b| left[*a][column].abs().total_cmp(&left[*b][column].abs())).unwrap();
        left.swap(column, pivot);
        right.swap(column, pivot);
        let divisor = left[column][column];
        for j in 0..DENSE_ROWS {
            left[column][j] /= divisor;
            right[column][j] /= divisor;
        }
        for row in (0..DENSE_ROWS).filter(|row| *row != column) {
            let factor = left[row][column];
            for j in 0..DENSE_ROWS {
                left[row][j] -= factor * left[column][j];
                right[row][j] -= factor * right[column][j];
            }
        }
    }
    right
}

#[test]
fn without_sparse_inputs_the_information_adds_up() {
    // Independent of the update's own formula: Σ⁻¹ grows by w zzᵀ, and m moves by Σ_new z (y − p).
    let mut online = alone();
    let mut information: Matrix = std::array::from_fn(|i| {
        std::array::from_fn(|j| {
            if i != j {
                0.0
            } else if i == 0 {
                0.25
            } else {
                4.0
            }
        })
    });
    let mut mean = [0.0_f64; DENSE_ROWS];
    let mut draw = Draw::from_seed(1);
    for seq in 1..=200 {
        let surface: [f32; 8] = std::array::from_fn(|_| f32::from((draw.next_u64() >> 56) as u8) / 128.0 - 1.0);
        let y = f64::from(u8::from(draw.uniform() < 0.5 + 0.4 * f64::from(surface[0])));
        label(&mut online, seq, &blank(surface), "m", (None, Some(y)));
        let z: [f64; DENSE_ROWS] = std::array::from_fn(|i| if i == 0 { 1.0 } else { f64::from(surface[i - 1]) });
        let p = 1.0 / (1.0 + (-mean.iter().zip(&z).map(|(m, z)| m * z).sum::<f64>()).exp());
        for i in 0..DENSE_ROWS {
            for j in 0..DENSE_ROWS {
                information[i][j] += (p * (1.0 - p)).max(1e-4) * z[i] * z[j];
            }
        }
        let updated = inverse(&information);
        for i in 0..DENSE_ROWS {
            mean[i] += (0..DENSE_ROWS).map(|j| updated[i][j] * z[j]).sum::<f64>() * (y - p);
        }
    }
    let (expected, got) = (inverse(&information), covariance(&online, 0));
    for i in 0..DENSE_ROWS {
        assert!((f64::from(online.heads.blocks()[2][i]) - mean[i]).abs() < 1e-3);
        for j in 0..DENSE_ROWS {
            assert!((got[i][j] - expected[i][j]).abs() < 1e-4, "{i} {j}: {} {}", got[i][j], expected[i][j]);
        }
    }
}

#[test]
fn with_text_one_step_agrees_with_explicit_vectors() {
    let mut online = alone();
    let features = features("Which of these is a prime? 21, 23 or 25");
    let inputs = Inputs::of(&features);
    let mut rows: BTreeMap<usize, f64> = BTreeMap::new();
    for (row, x) in &inputs.sparse {
        *rows.entry(usize::from(*row)).or_default() += f64::from(*x);
    }
    label(&mut online, 1, &features, "m", (None, Some(1.0)));
    // Before: means zero, so p = ½ and w = ¼; variances 4, ¼ and 2.
    let prior = |i: usize| if i == 0 { 4.0 } else { 0.25 };
    let z: Vec<f64> = inputs.dense.iter().copied().map(f64::from).collect();
    let variance = z.iter().enumerate().map(|(i, z)| prior(i) * z * z).sum::<f64>()
        + rows.values().map(|x| 2.0 * x * x).sum::<f64>();
    let scale = 1.0 + 0.25 * variance;
    let (blocks, stride) = (online.heads.blocks(), online.heads.stride());
    for (row, x) in rows {
        let (mean, spread) = (f64::from(blocks[0][row * stride]), f64::from(blocks[1][row * stride]));
        assert!((mean - 2.0 * x * 0.5 / scale).abs() < 1e-6);
        assert!((spread - 2.0 / (1.0 + 10.0 * 0.25 * x * x * 2.0)).abs() < 1e-6);
    }
    for i in 0..DENSE_ROWS {
        assert!((f64::from(blocks[2][i]) - prior(i) * z[i] * 0.5 / scale).abs() < 1e-6);
    }
}

#[test]
fn a_correction_moves_the_mean_by_its_formula_and_leaves_the_variance() {
    let features = features("the capital of Peru");
    let mut one = alone();
    label(&mut one, 1, &features, "m", (None, Some(1.0)));
    let before = one.clone();
    let inputs = Inputs::of(&features);
    let reading = update::read(&before.heads, 0, (&inputs, 0.0));
    label(&mut one, 2, &features, "m", (Some(1.0), Some(0.25)));
    assert_eq!(one.heads.blocks()[1], before.heads.blocks()[1]);
    assert_eq!(one.heads.blocks()[3], before.heads.blocks()[3]);
    let policy = |o: &Online| o.heads.score(&Inputs::of(&features))[0];
    let (p, now) = (reading.probability(), policy(&one));
    // The logit falls by v(y_old − y_new)/(1 + wv), with the v that includes the text.
    let w = p * (1.0 - p);
    let text: f64 = {
        let mut rows: BTreeMap<u16, f64> = BTreeMap::new();
        inputs.sparse.iter().for_each(|(row, x)| *rows.entry(*row).or_default() += f64::from(*x));
        let stride = before.heads.stride();
        rows.iter().map(|(row, x)| f64::from(before.heads.blocks()[1][usize::from(*row) * stride]) * x * x).sum()
    };
    let v = f64::from(policy(&before).variance) + text;
    let fall = v * 0.75 / (1.0 + w * v);
    assert!((f64::from(policy(&before).mean - now.mean) - fall).abs() < 1e-4);
}

#[test]
fn a_withdrawn_label_moves_back_and_unusable_lessons_move_only_the_mark() {
    let features = features("the capital of Peru");
    let mut one = alone();
    label(&mut one, 1, &features, "m", (None, Some(1.0)));
    let mean = |o: &Online| o.heads.score(&Inputs::of(&features))[0].mean;
    let taught = mean(&one);
    label(&mut one, 2, &features, "m", (Some(1.0), None));
    assert!(mean(&one) < taught && mean(&one) > 0.0);
    let mut same = one.clone();
    label(&mut same, 3, &features, "m", (None, None));
    label(&mut same, 4, &features, "m", (None, Some(f64::NAN)));
    label(&mut same, 5, &Features { schema: SchemaHash(1), ..features.clone() }, "x", (None, Some(1.0)));
    assert_eq!(same.heads, one.heads);
    assert_eq!((same.feedback_mark(), one.feedback_mark()), (5, 2));
}

#[test]
fn another_model_leaves_the_bits_of_the_first() {
    let features = features("the capital of Peru");
    let mut one = alone();
    label(&mut one, 1, &features, "a", (None, Some(1.0)));
    let inputs = Inputs::of(&features);
    let before = one.heads.score(&inputs)[0];
    for seq in 2..20 {
        label(&mut one, seq, &features, &format!("b{seq}"), (None, Some(0.0)));
    }
    let after = one.heads.score(&inputs)[0];
    assert_eq!(
        (before.mean.to_bits(), before.variance.to_bits()),
        (after.mean.to_bits(), after.variance.to_bits())
    );
}

#[test]
fn one_label_teaches_the_own_and_the_shared_head_as_one_joint_step() {
    let mut one = online();
    let features = features("the capital of Peru");
    let inputs = Inputs::of(&features);
    label(&mut one, 1, &features, "a", (None, Some(1.0)));
    // Before: means zero, so p = ½ and w = ¼; the variance of the logit is that of both heads.
    let (own, shared) = (Prior::OWN, Prior::SHARED);
    let mut rows: BTreeMap<usize, f64> = BTreeMap::new();
    inputs.sparse.iter().for_each(|(row, x)| *rows.entry(usize::from(*row)).or_default() += f64::from(*x));
    let text: f64 = rows.values().map(|x| x * x).sum();
    let surface: f64 = features.surface.iter().map(|s| f64::from(*s * *s)).sum();
    let of =
        |prior: Prior| f64::from(prior.bias) + f64::from(prior.surface) * surface + f64::from(prior.sparse) * text;
    let step = 0.5 / (1.0 + 0.25 * (of(own) + of(shared)));
    let scores = one.heads.score(&inputs);
    let lane = |name: &str| one.heads.lane(name).unwrap();
    assert_eq!((lane(""), one.heads.shared(), lane("a")), (0, Some(0), 1));
    assert!((f64::from(scores[0].mean) - of(shared) * step).abs() < 1e-5);
    assert!((f64::from(scores[1].mean) - (of(own) + of(shared)) * step).abs() < 1e-5);
    // Who was never seen begins with what was learned of all.
    assert!((one.heads.prior_score(&inputs, &scores).mean - scores[0].mean).abs() < 1e-9);
    let stride = one.heads.stride();
    for (at, prior) in [(0, shared), (one.heads.shape().triangle(), own)] {
        let bias = f64::from(prior.bias);
        let expected = bias - 0.25 * bias * bias / (1.0 + 0.25 * (of(own) + of(shared)));
        assert!((f64::from(one.heads.blocks()[3][at]) - expected).abs() < 1e-5);
    }
    let (row, x) = rows.iter().next().unwrap();
    for (at, prior) in [(0, shared), (1, own)] {
        let spread = f64::from(prior.sparse);
        let expected = spread / (1.0 + 10.0 * 0.25 * x * x * spread);
        assert!((f64::from(one.heads.blocks()[1][row * stride + at]) - expected).abs() < 1e-6);
    }
}

#[test]
fn what_is_hard_for_some_is_expected_to_be_hard_for_who_was_never_asked() {
    let mut one = online();
    let (easy, hard) = (features("spell the word cat"), features("prove the lemma on lattices"));
    for (seq, model) in (0..60).zip(["a", "b", "c"].into_iter().cycle()) {
        let (features, y) = if seq % 2 == 0 { (&easy, 1.0) } else { (&hard, 0.0) };
        label(&mut one, seq, features, model, (None, Some(y)));
    }
    let unseen = |features: &Features| {
        let inputs = Inputs::of(features);
        one.heads.prior_score(&inputs, &one.heads.score(&inputs)).mean
    };
    assert!(unseen(&easy) > 0.5 && unseen(&hard) < -0.5, "{} {}", unseen(&easy), unseen(&hard));
}

#[test]
fn first_labels_age_every_lane_from_its_birth() {
    let mut one = online();
    let features = features("the capital of Peru");
    let age = |o: &Online, name: &str| o.heads.age(o.heads.lane(name).unwrap());
    for seq in 0..5 {
        label(&mut one, seq, &features, "a", (None, Some(1.0)));
    }
    label(&mut one, 5, &features, "b", (None, Some(1.0)));
    label(&mut one, 6, &features, "a", (Some(1.0), Some(0.0)));
    label(&mut one, 7, &features, "a", (Some(0.0), None));
    assert_eq!((age(&one, ""), age(&one, "a"), age(&one, "b")), (6.0, 6.0, 1.0));
}

/// Some lessons and calls in a fixed order.
fn lived(count: u64) -> Online {
    let mut online = online();
    let mut draw = Draw::from_seed(5);
    for seq in 1..=count {
        let length = u32::try_from(seq).unwrap();
        let model = ModelName::from(format!("m{}", draw.next_u64() % 10));
        let y = draw.uniform();
        label(
            &mut online,
            seq,
            &features(&format!("question {} of {y}", seq % 7)),
            model.as_str(),
            (None, Some(y)),
        );
        let call = Call {
            model: &model,
            prompt_bytes: 100 + length,
            projected: &[],
            tokens_out: draw.next_u64() % 300,
            cost: NanoUsd::new((draw.next_u64() % 9_000) as i64),
            latency: Duration::from_micros(draw.next_u64() % 800_000),
        };
        online.observe(seq + 3, &call);
    }
    online
}

#[test]
fn a_state_survives_as_bytes_and_a_rebuild_equals_it() {
    let one = lived(60);
    let read = Online::from_bytes(&one.to_bytes(), BanditSettings::default(), SCHEMA).unwrap();
    assert_eq!(read.to_bytes(), one.to_bytes());
    assert_eq!((read.feedback_mark(), read.trace_mark()), (60, 63));
    assert!(lived(60) == one);
    assert!(lived(59) != one);
    // It goes on learning as the first would have.
    let (mut one, mut read) = (one, read);
    for state in [&mut one, &mut read] {
        label(state, 61, &features("more"), "new", (None, Some(0.5)));
    }
    assert!(one == read);
    assert!(Online::from_bytes(&online().to_bytes(), BanditSettings::default(), SCHEMA).unwrap() == online());
}

#[test]
fn bytes_that_are_no_state_are_told_apart() {
    let bytes = lived(3).to_bytes();
    let read = |bytes: &[u8]| Online::from_bytes(bytes, BanditSettings::default(), SCHEMA).map(|_| ());
    assert_eq!(read(b"PK\x03\x04 and so on"), Err(StateError::Foreign));
    assert_eq!(read(&bytes[..7]), Err(StateError::Truncated));
    assert_eq!(read(&bytes[..bytes.len() - 1]), Err(StateError::Damaged));
    let mut other = bytes.clone();
    other[8] = 1;
    assert_eq!(read(&other), Err(StateError::Format { found: 1 }));
    let bold = BanditSettings { cooling: Cooling::none(1.0), ..BanditSettings::default() };
    assert!(matches!(Online::from_bytes(&bytes, bold, SCHEMA), Err(StateError::OtherArtifact { .. })));
    assert!(matches!(
        Online::from_bytes(&bytes, BanditSettings::default(), SchemaHash(1)),
        Err(StateError::OtherArtifact { .. })
    ));
}

/// Two models that are right nine times in ten, until the first is right once in five.
fn until_the_alarm() -> (Online, u64) {
    let mut online = alone();
    let mut draw = Draw::from_seed(6);
    let features = blank([0.2; 8]);
    let mut teach = |online: &mut Online, seq: u64, model: &str, p: f64| {
        let y = f64::from(u8::from(draw.uniform() < p));
        label(online, seq, &features, model, (None, Some(y)));
    };
    for seq in 1..=1_200 {
        teach(&mut online, seq, if seq % 2 == 0 { "a" } else { "b" }, 0.9);
    }
    assert_eq!((online.resets("a"), online.resets("b"), online.alerts_total()), (0, 0, 0));
    let mut seq = 1_200;
    while online.resets("a") == 0 {
        seq += 1;
        teach(&mut online, seq, "a", 0.2);
    }
    (online, seq)
}

#[test]
fn a_model_that_changed_is_loosened_alone_and_told_of() {
    let (mut online, seq) = until_the_alarm();
    assert!(seq < 1_300, "{seq}");
    let inputs = Inputs::of(&blank([0.2; 8]));
    let scores = |o: &Online| (o.heads.score(&inputs)[0], o.heads.score(&inputs)[1]);
    let lane = |o: &Online, model: &str| o.heads.lane(model).unwrap();
    assert_eq!((lane(&online, "b"), lane(&online, "a")), (0, 1));
    let (b, a) = scores(&online);
    assert!(
        a.variance > 5.0 * b.variance && a.variance < online.heads.prior_score(&inputs, &[]).variance,
        "{a:?} {b:?}"
    );
    assert_eq!((online.resets("b"), online.alerts_total()), (0, online.alerts().len() as u64));
    let alert = online.alerts().next().unwrap().clone();
    assert_eq!((alert.model.as_str(), alert.what, alert.direction), ("a", Watched::Quality, Direction::Down));
    assert!(alert.at_seq > 1_200 && alert.at_seq <= seq);
    assert!(alert.before > 0.6 && alert.after < 0.5, "{alert:?}");
    // It is nearly new, so a handful of labels says more than the six hundred before.
    for more in 1..=30 {
        label(&mut online, seq + more, &blank([0.2; 8]), "a", (None, Some(0.0)));
    }
    let (same, low) = scores(&online);
    assert!(low.mean < -1.0, "{low:?}");
    assert_eq!((same.mean.to_bits(), same.variance.to_bits()), (b.mean.to_bits(), b.variance.to_bits()));
    assert!(Online::from_bytes(&online.to_bytes(), apart(), SCHEMA).unwrap() == online);
}

#[test]
fn a_loosened_head_grows_less_certain_while_others_are_asked_and_for_a_while_alone() {
    let (mut online, mut seq) = until_the_alarm();
    let features = blank([0.2; 8]);
    let inputs = Inputs::of(&features);
    let mut draw = Draw::from_seed(9);
    for _ in 0..60 {
        seq += 1;
        label(&mut online, seq, &features, "a", (None, Some(0.0)));
    }
    let variance = |o: &Online| o.heads.score(&inputs)[1].variance;
    let mut others = |online: &mut Online, labels: u64| {
        for _ in 0..labels {
            seq += 1;
            let y = f64::from(u8::from(draw.uniform() < 0.9));
            label(online, seq, &features, "b", (None, Some(y)));
        }
        variance(online)
    };
    let known = variance(&online);
    let later = others(&mut online, 100);
    let grown = f64::from(later - known);
    assert!((grown - 100.0 * f64::from(online.settings.regrow)).abs() < 0.01, "{known} {later}");
    let most = others(&mut online, 900);
    assert!(most < known + online.settings.prior.bias, "{most}");
    assert_eq!(others(&mut online, 300).to_bits(), most.to_bits(), "for a while only");
}

#[test]
fn corrections_and_withdrawals_do_not_ring() {
    let (mut online, seq) = until_the_alarm();
    let (resets, alerts) = (online.resets("b"), online.alerts_total());
    for more in 1..600 {
        let labels = if more % 2 == 0 { (Some(1.0), Some(0.0)) } else { (Some(1.0), None) };
        label(&mut online, seq + more, &blank([0.2; 8]), "b", labels);
    }
    assert_eq!((online.resets("b"), online.alerts_total()), (resets, alerts));
    let quiet = BanditSettings { alarms: false, ..BanditSettings::default() };
    let mut quiet = Online::new(quiet, SCHEMA);
    for seq in 1..2_000 {
        let y = f64::from(u8::from(seq < 1_000));
        label(&mut quiet, seq, &blank([0.2; 8]), "a", (None, Some(y)));
    }
    assert_eq!(quiet.resets("a"), 0, "without alarms nothing is loosened");
    assert!(quiet.alerts_total() > 0, "but people are told");
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]
fn a_price_that_jumps_is_told_of_and_forecast_anew() {
    let mut online = online();
    let mut draw = Draw::from_seed(3);
    let model = ModelName::new("m");
    let mut call = |online: &mut Online, seq: u64, nanos: f64| {
        let noise = 0.8 + 0.4 * draw.uniform();
        let call = Call {
            model: &model,
            prompt_bytes: 400,
            projected: &[],
            tokens_out: 100,
            cost: NanoUsd::new((nanos * noise) as i64),
            latency: Duration::from_micros((90_000.0 * noise) as u64),
        };
        online.observe(seq, &call);
    };
    (1..=400).for_each(|seq| call(&mut online, seq, 30_000.0));
    assert_eq!(online.alerts_total(), 0);
    (401..=420).for_each(|seq| call(&mut online, seq, 300_000.0));
    let alerts: Vec<_> = online.alerts().collect();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!((alerts[0].what, alerts[0].direction), (Watched::Cost, Direction::Up));
    assert!(alerts[0].at_seq <= 412, "{alerts:?}");
    assert!(alerts[0].after > 2.0 * alerts[0].before, "{alerts:?}");
    let (mean, _) = online.forecasts().models[&model].cost_nanos.predict(400).unwrap();
    assert!((mean.exp() / 300_000.0 - 1.0).abs() < 0.2, "{}", mean.exp());
    assert!(Online::from_bytes(&online.to_bytes(), BanditSettings::default(), SCHEMA).unwrap() == online);
}

#[test]
fn the_last_alerts_are_kept_and_no_more() {
    let mut online = online();
    let model = ModelName::new("m");
    for seq in 1..=20_000_u64 {
        // It changes its price tenfold every hundred calls.
        let cost = if seq / 100 % 2 == 0 { 1_000 } else { 10_000 };
        let latency = Duration::from_micros(500);
        online.observe(
            seq,
            &Call {
                model: &model,
                prompt_bytes: 9,
                projected: &[],
                tokens_out: 5,
                cost: NanoUsd::new(cost),
                latency,
            },
        );
    }
    assert_eq!(online.alerts().len(), ALERTS_MAX);
    assert!(online.alerts_total() > 100);
    assert!(online.alerts().is_sorted_by_key(|alert| alert.at_seq));
    assert!(Online::from_bytes(&online.to_bytes(), BanditSettings::default(), SCHEMA).unwrap() == online);
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]
fn a_dense_shape_lives_through_the_same_bytes() {
    let settings = BanditSettings::dense(40);
    let mut online = Online::new(settings, SCHEMA);
    let mut draw = Draw::from_seed(9);
    let (one, two) = (ModelName::new("one"), ModelName::new("two"));
    for seq in 1..300 {
        let dense = (0..40).map(|i| if i == 0 { 1.0 } else { draw.uniform() as f32 - 0.5 }).collect();
        let inputs = Inputs { dense, sparse: Vec::new() };
        let new = Some(f64::from(u8::from(draw.uniform() < 0.6)));
        let model = if seq % 3 == 0 { &one } else { &two };
        online.teach_inputs(seq, &InputLesson { inputs: &inputs, offset: 0.0, model, old: None, new });
        let other = Inputs { dense: vec![1.0; 9], sparse: vec![(3, 1.0)] };
        let before = online.heads.clone();
        online.teach_inputs(seq, &InputLesson { inputs: &other, offset: 0.0, model, old: None, new });
        assert_eq!(before, online.heads, "inputs of another shape teach nothing");
    }
    assert!(Online::from_bytes(&online.to_bytes(), settings, SCHEMA).unwrap() == online);
    let cold = Online::from_bytes(&online.to_bytes(), BanditSettings::default(), SCHEMA);
    assert!(matches!(cold, Err(StateError::OtherArtifact { .. })));
}

/// Four topics with words of their own; each model is good at one of them.
fn topic_world(context: bool) -> f64 {
    const WORDS: [&str; 4] = [
        "tort plaintiff clause verdict statute appeal",
        "enzyme membrane protein cell genome tissue",
        "integral matrix theorem prime vector proof",
        "treaty empire revolt dynasty harvest siege",
    ];
    const ROUNDS: u32 = 1_200;
    let mut draw = Draw::from_seed(2);
    let mut online = online();
    let names: Vec<ModelName> = (0..4).map(|i| ModelName::from(format!("m{i}"))).collect();
    let forecast = Forecast { cost: NanoUsd::ZERO, latency_p95: None };
    let contenders: Vec<Contender> =
        names.iter().map(|name| Contender { name: name.clone(), forecast, barred: false }).collect();
    let mut expected = 0.0;
    for round in 0..ROUNDS {
        let topic = (draw.next_u64() % 4) as usize;
        let own: Vec<&str> = WORDS[topic].split(' ').collect();
        let text: Vec<&str> = (0..12)
            .map(|i| if i % 2 == 0 { "the question of a" } else { own[(draw.next_u64() % 6) as usize] })
            .collect();
        let features = if context { features(&text.join(" ")) } else { blank([0.0; 8]) };
        let ask = Ask {
            projected: &[],
            features: &features,
            task: &TaskType::new("t"),
            objective: Objective { cost_weight_per_usd: 0.0 },
            caller_ref: None,
            contenders: &contenders,
        };
        let picks = online.policy().score(&ask).estimates;
        let picked = draw.index(picks.iter().map(|e| e.pick)).unwrap();
        let skill = if picked == topic { 0.9 } else { 0.5 };
        if round >= ROUNDS / 2 {
            expected += skill / f64::from(ROUNDS / 2);
        }
        let y = f64::from(u8::from(draw.uniform() < skill));
        label(&mut online, u64::from(round), &features, names[picked].as_str(), (None, Some(y)));
    }
    expected
}

#[test]
fn where_topics_favour_different_models_context_pays() {
    let (with, without) = (topic_world(true), topic_world(false));
    // Best single and context-free: .6; told the topic: .9.
    assert!(without < 0.66, "{without}");
    assert!(with > 0.8, "{with}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_panic_the_reader(mut bytes in prop::collection::vec(any::<u8>(), 0..400), keep in 0_usize..200, sum in any::<bool>()) {
        let mut state = online().to_bytes();
        state.truncate(keep);
        state.append(&mut bytes);
        if sum {
            let checksum = xxhash_rust::xxh3::xxh3_64(&state);
            state.extend_from_slice(&checksum.to_le_bytes());
        }
        let _ = Online::from_bytes(&state, BanditSettings::default(), SCHEMA);
    }
}
