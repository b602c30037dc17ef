use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::Duration;

use pointsman_router::clock::Draw;
use pointsman_router::features::{SchemaHash, TextCount};
use pointsman_router::ids::PolicyVersion;
use pointsman_router::model::{ModelCard, Pricing};
use pointsman_router::money::NanoUsd;

use super::*;
use crate::online::{Call, Online};
use crate::rows::{InMemory, Seen, TrainingRow};

/// Requests of two topics, told by their words; `left` is good at the one, `right` at the other, and
/// `rare` is hardly ever seen.
pub(crate) fn world(rows: usize, seed: u64) -> InMemory {
    let mut draw = Draw::from_seed(seed);
    let rows = (0..rows).map(|i| {
        let topic = usize::from(draw.uniform() < 0.5);
        let text = (0..30).map(|_| {
            // Most words belong to the topic, some to both.
            let word = if draw.uniform() < 0.7 { 1_000 * topic } else { 4_000 } + (draw.next_u64() % 60) as usize;
            let place = if draw.uniform() < 0.5 { word } else { word + 40_000 };
            TextCount { bucket: u16::try_from(place).unwrap(), count: if draw.uniform() < 0.5 { 1 } else { 2 } }
        });
        let mut text: Vec<TextCount> = text.collect();
        text.sort_by_key(|c| c.bucket);
        text.dedup_by_key(|c| c.bucket);
        let features = Features {
            text,
            surface: [0.0; 8],
            tags: Vec::new(),
            sketch: Vec::new(),
            prompt_bytes: 100,
            schema: SchemaHash(5),
        };
        let mut seen = |model: &str, p: f64| Seen {
            model: model.into(),
            label: Some(if draw.uniform() < p { 1.0 } else { 0.0 }),
            tokens_out: 10,
            cost: NanoUsd::new(100),
            latency: Duration::from_millis(1),
        };
        let (good, bad) = if topic == 0 { ("left", "right") } else { ("right", "left") };
        let mut all = vec![seen(good, 0.85), seen(bad, 0.35)];
        if i % 100 == 0 {
            all.push(seen("rare", 0.5));
        }
        TrainingRow { key: i as u64, features: Arc::new(features), task: None, seen: all, logged: None }
    });
    InMemory { schema: None, rows: rows.collect() }
}

/// The same, in which requests of the one topic cost a tenth of a thousandth and of the other four times that, by
/// either model, give or take a fifth; tokens and times are not known.
fn dear_world(rows: usize, seed: u64) -> InMemory {
    let (mut world, mut draw) = (world(rows, seed), Draw::from_seed(seed + 100));
    for row in &mut world.rows {
        let nanos = if row.seen[0].model.as_str() == "left" { 100_000.0 } else { 400_000.0 };
        for seen in &mut row.seen {
            #[expect(clippy::cast_possible_truncation, reason = "a test")]
            let cost = NanoUsd::new((nanos * (0.8 + 0.4 * draw.uniform())) as i64);
            *seen = Seen { cost, tokens_out: 0, latency: Duration::ZERO, ..seen.clone() };
        }
    }
    world
}

fn quick() -> TrainSettings {
    TrainSettings {
        encoder: EncoderSettings { dims: 8, ..EncoderSettings::default() },
        ..TrainSettings::default()
    }
}

fn trained(rows: &InMemory, settings: &TrainSettings) -> Result<Trained, TrainError<Infallible>> {
    let mut last = 0.0;
    train(rows, settings, &mut |_, share| {
        assert!(share >= last && share <= 1.0, "progress never falls: {last} {share}");
        last = share;
        ControlFlow::Continue(())
    })
}

#[test]
fn it_ends_at_any_stage_when_nobody_wants_it() {
    let rows = world(600, 1);
    let mut told = 0;
    let all = train(&rows, &quick(), &mut |_, _| {
        told += 1;
        ControlFlow::Continue(())
    });
    assert!(all.is_ok() && told >= 5);
    for stop in 1..=told {
        let mut count = 0;
        let ended = train(&rows, &quick(), &mut |_, _| {
            count += 1;
            if count == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(ended, Err(TrainError::GivenUp)) && count == stop, "{stop} {ended:?}");
    }
}

#[test]
fn rows_of_models_that_were_hardly_judged_are_counted_as_rows() {
    let mut rows = world(200, 1);
    for (at, row) in rows.rows.iter_mut().enumerate() {
        for seen in &mut row.seen {
            seen.model = format!("model-{}", at % 20).as_str().into();
        }
    }
    let thin = trained(&rows, &quick());
    assert!(matches!(thin, Err(TrainError::Thin { judged: 200, found: 0, needed: ROWS_MIN })), "{thin:?}");
}

#[test]
fn it_learns_who_is_good_at_what() {
    let Trained { artifact, report } = trained(&world(1_500, 1), &quick()).unwrap();
    assert!(artifact.is_sound());
    let names: Vec<&str> = artifact.quality.models.iter().map(|m| m.as_str()).collect();
    assert_eq!(names, ["left", "right"], "a model with fifteen rows is not fitted");
    let routing = report.routing.clone().unwrap();
    assert!(routing.score > 0.78 && routing.best_single_score < 0.68, "{routing:?}");
    for model in &report.models {
        assert!(model.auc.unwrap() > 0.7 && model.calibration_error[1] < 0.1, "{model:?}");
        assert!(model.brier[1] <= model.brier[0] + 0.01, "{model:?}");
    }
    let (mut right, fresh) = (0, world(500, 2));
    for row in &fresh.rows {
        let logits = artifact.quality.logits(&artifact.projection.project(&row.features));
        let (good, at) = (row.seen[0].model.as_str(), usize::from(logits[1] > logits[0]));
        right += usize::from(names[at] == good);
    }
    assert!(right > 460, "{right} of 500 topics are told");
}

/// Calls of the cheap topic alone must not make a model look cheap at the dear one.
#[test]
fn it_learns_what_is_dear_and_keeps_to_it_whatever_is_called() {
    let Trained { artifact, report } = trained(&dear_world(1_500, 1), &quick()).unwrap();
    for model in &report.models {
        let explained = model.explained;
        assert!(explained.cost.unwrap() > 0.8, "{model:?}");
        assert_eq!((explained.tokens_out, explained.latency), (None, None));
    }
    let mut online = Online::fitted(Arc::new(artifact), PolicyVersion::from("fitted".to_owned()));
    let card = ModelCard {
        name: "left".into(),
        backend: "b".into(),
        upstream: "left".into(),
        pricing: Pricing::Metered { max_per_call: NanoUsd::new(3_000_000) },
        context_tokens_max: 8_000,
        output_tokens_max: 100,
        timeout: Duration::from_secs(1),
        family: None,
    };
    let fresh = dear_world(600, 2);
    let (cheap, dear): (Vec<_>, Vec<_>) = fresh.rows.iter().partition(|row| row.seen[0].model.as_str() == "left");
    // Prices doubled since; the line follows.
    for (seq, row) in (1..).zip(&cheap) {
        let (projected, cost) = (online.project(&row.features), row.seen[0].cost.saturating_mul(2));
        let (model, prompt_bytes, latency) = (&card.name, row.features.prompt_bytes, Duration::ZERO);
        online.observe(seq, &Call { model, prompt_bytes, projected: &projected, tokens_out: 0, cost, latency });
    }
    let mean = |rows: &[&TrainingRow]| {
        let (snapshot, mut sum) = (online.snapshot(), 0.0);
        for row in rows {
            let projected = online.project(&row.features);
            sum += snapshot.forecast(&card, (&row.features, &projected), None).cost.nanos() as f64;
        }
        sum / rows.len() as f64
    };
    let (cheap, dear) = (mean(&cheap), mean(&dear));
    assert!((cheap / 200_000.0 - 1.0).abs() < 0.1 && (dear / 800_000.0 - 1.0).abs() < 0.15, "{cheap} {dear}");
}

#[test]
fn equal_rows_and_seeds_give_equal_bytes() {
    let rows = dear_world(400, 3);
    let bytes = |settings: &TrainSettings| trained(&rows, settings).unwrap().artifact.to_bytes().unwrap();
    assert_eq!(bytes(&quick()), bytes(&quick()));
    assert_ne!(bytes(&quick()).1, bytes(&TrainSettings { seed: 9, ..quick() }).1);
}

#[test]
fn a_sample_is_even_and_bounded() {
    let rows = world(3_000, 4);
    let few = trained(&rows, &TrainSettings { rows_max: 600, ..quick() }).unwrap();
    assert!((500..=600).contains(&few.report.judged_rows), "{}", few.report.judged_rows);
    assert_eq!(few.report.rows, 3_000);
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let few = trained(&world(50, 5), &quick());
    assert!(matches!(few, Err(TrainError::TooFew { found: 50, needed: ROWS_MIN })), "{few:?}");
    let mut right = world(300, 6);
    right.rows.iter_mut().flat_map(|row| &mut row.seen).for_each(|seen| seen.label = Some(1.0));
    assert!(matches!(trained(&right, &quick()), Err(TrainError::OneClass { .. })));
    let mut unjudged = world(300, 7);
    unjudged.rows.iter_mut().flat_map(|row| &mut row.seen).for_each(|seen| seen.label = None);
    assert!(matches!(trained(&unjudged, &quick()), Err(TrainError::TooFew { found: 0, .. })));
    let mut mixed = world(300, 8);
    let other = Features { schema: SchemaHash(6), ..Features::clone(&mixed.rows[9].features) };
    mixed.rows[9].features = Arc::new(other);
    assert!(matches!(trained(&mixed, &quick()), Err(TrainError::MixedSchemas { found: 6, expected: 5 })));
}
