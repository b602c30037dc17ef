//! Tests of the demo's own world: what it promises, and that all who compute it agree.

use std::path::Path;
use std::time::Duration;

use pointsman_router::money::NanoUsd;

use super::super::recorded_rows::{Rows, Selection};
use super::super::testing::call;
use super::*;

const DEMO: &str = include_str!("../../../../data/demo/world.toml");

fn demo() -> Arc<World> {
    Arc::new(World::parse(DEMO).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_daemon_and_a_workload_file_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("workload.jsonl.gz");
    let world = demo();
    write_workload(&world, 60, &path).unwrap();
    let rows = Rows::read(&path, &Selection::default()).unwrap();
    assert_eq!(rows.rows.len(), 60);
    let backend = SimulatedBackend::new(Arc::clone(&world), 0.0);
    for row in &rows.rows {
        for model in world.models() {
            let recorded = rows.outcome(&row.id, model).unwrap();
            let reply = backend.generate(call_uncapped(model, &row.prompt, Some(&row.id))).await;
            let Ok(reply) = reply else {
                assert_eq!((recorded.answer.as_ref(), recorded.cost), (None, Some(NanoUsd::ZERO)));
                continue;
            };
            assert_eq!(reply.text, recorded.answer);
            assert_eq!(reply.tokens_out, recorded.tokens_out);
            let cost =
                world.price(model).unwrap().cost(reply.tokens_in.unwrap(), reply.tokens_out.unwrap()).unwrap();
            // A float in the file may be off by the last nano-dollar.
            assert!((cost.nanos() - recorded.cost.unwrap().nanos()).abs() <= 1);
            assert_eq!(reply.text == row.gold, recorded.score > 0.5);
        }
    }
}

fn call_uncapped(model: &str, text: &str, row: Option<&str>) -> Call {
    Call { output_tokens_max: 100_000, ..call(model, text, row) }
}

/// The share of rows that a choice of model by topic gets right.
fn accuracy<'w>(world: &'w World, rows: u64, choose: impl Fn(&str) -> &'w str) -> f64 {
    let is_right = |n: &u64| {
        let row = world.row(*n);
        world.says(choose(&row.topic), &row.key, 100).unwrap().label == Some(row.gold)
    };
    (0..rows).filter(is_right).count() as f64 / rows as f64
}

#[test]
fn in_the_demo_routing_by_topic_pays() {
    let world = demo();
    let single = world.models().map(|model| accuracy(&world, 4_000, |_| model)).fold(0.0, f64::max);
    let skilled = |topic: &str| {
        world
            .models()
            .max_by(|a, b| world.skill(a, topic).unwrap().total_cmp(&world.skill(b, topic).unwrap()))
            .unwrap()
    };
    let told = accuracy(&world, 4_000, skilled);
    assert!((0.72..0.78).contains(&single), "best single {single}");
    assert!((0.87..0.93).contains(&told), "told the topic {told}");
}

#[test]
fn the_wrong_agree_as_often_as_set() {
    let world = demo();
    let models: Vec<&str> = world.models().take(2).collect();
    let mut both_wrong = 0;
    let mut alike = 0;
    for n in 0..20_000 {
        let row = world.row(n);
        let said: Vec<_> = models.iter().map(|model| world.says(model, &row.key, 100).unwrap().label).collect();
        let (Some(one), Some(two)) = (&said[0], &said[1]) else { continue };
        if *one != row.gold && *two != row.gold {
            both_wrong += 1;
            alike += u32::from(one == two);
        }
    }
    // Shared with probability c each; among the other labels by chance: c² + (1 − c²)/3 with four labels.
    let c: f64 = 0.5;
    let expected = c * c + (1.0 - c * c) / 3.0;
    let share = f64::from(alike) / f64::from(both_wrong);
    assert!((share - expected).abs() < 0.04, "{share} of {both_wrong}, expected {expected}");
}

#[tokio::test]
async fn a_foreign_prompt_is_answered_by_its_words() {
    let world = demo();
    let backend = SimulatedBackend::new(Arc::clone(&world), 0.0);
    let model = world.models().next().unwrap().to_owned();
    let one = backend.generate(call(&model, "What of the contract?", None)).await;
    assert_eq!(one, backend.generate(call(&model, "What of the contract?", Some("mine/7"))).await);
    for n in 0..50 {
        let row = world.row(n);
        let foreign = world.key(&call(&model, &row.prompt, None).prompt);
        let topic = world.key(&call(&model, "", Some(&row.id)).prompt);
        // A label of another key may differ; the skill that decides it is that of the same topic.
        assert_eq!(
            format!("{foreign:?}").split(", ").nth(1),
            format!("{topic:?}").split(", ").nth(1),
            "{}",
            row.prompt
        );
    }
    assert!(matches!(backend.generate(call("nobody", "hi", None)).await, Err(CallError::Refused { .. })));
}

#[tokio::test(start_paused = true)]
async fn latency_is_slept_by_scale_and_too_slow_is_a_timeout() {
    let world = demo();
    let model = world.models().next().unwrap().to_owned();
    let started = tokio::time::Instant::now();
    let reply =
        SimulatedBackend::new(Arc::clone(&world), 0.5).generate(call(&model, "", Some("world/1"))).await.unwrap();
    let slept = started.elapsed();
    let wanted = reply.latency.unwrap().mul_f64(0.5);
    assert!(slept >= wanted && slept < wanted + Duration::from_millis(2), "{slept:?} {wanted:?}");
    let hasty = Call { timeout: Duration::from_millis(1), ..call(&model, "", Some("world/1")) };
    let late = SimulatedBackend::new(world, 0.0).generate(hasty).await;
    assert!(matches!(late, Err(CallError::TimedOut { .. })));
}

#[test]
fn a_world_that_cannot_be_is_refused() {
    let check = |from: &str, to: &str, is: fn(&WorldError) -> bool| {
        assert!(DEMO.contains(from), "{from}");
        let error = World::parse(&DEMO.replacen(from, to, 1)).unwrap_err();
        assert!(is(&error), "{from} -> {to}: {error}");
    };
    check("seed = ", "sede = ", |error| matches!(error, WorldError::Form(_)));
    check("labels = [\"A\", \"B\", \"C\", \"D\"]", "labels = [\"A\"]", |error| {
        matches!(error, WorldError::TooFew { .. })
    });
    check("distractor_correlation = 0.5", "distractor_correlation = nan", |error| {
        matches!(error, WorldError::OutOfRange { .. })
    });
    check("law = 0.", "lore = 0.", |error| matches!(error, WorldError::Skills { .. }));
    check("input_usd_per_million_tokens = \"", "input_usd_per_million_tokens = \"-", |error| {
        matches!(error, WorldError::Price { .. })
    });
    check("labels = [\"A\", \"B\"", "labels = [\"A\", \"A\"", |error| matches!(error, WorldError::BadName { .. }));
    assert!(matches!(World::read(Path::new("no/such/world.toml")), Err(WorldError::Io { .. })));
}
