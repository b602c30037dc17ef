//! Replay, on a world whose topics favour different models. Its figure on recorded outcomes of real
//! ones is checked by `scripts/test`, where they are at hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pointsman_daemon::backends::recorded_rows::{Rows, Selection};
use pointsman_daemon::backends::simulated::{World, write_workload};
use pointsman_daemon::replay::{ReplayArgs, Report, Whose, main, replay};

fn args(outcomes: &Path, policy: Whose) -> ReplayArgs {
    ReplayArgs {
        outcomes: outcomes.to_owned(),
        warm: None,
        pool: Vec::new(),
        policy,
        calls: 1,
        seeds: 3,
        limit: None,
        show_task: false,
        cost_weight: 0.0,
        json: true,
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A workload of the demo's world.
fn workload(folder: &Path, rows: u64) -> PathBuf {
    let world = World::read(&root().join("data/demo/world.toml")).unwrap();
    let path = folder.join("workload.jsonl.gz");
    write_workload(&world, rows, &path).unwrap();
    path
}

/// The mean score of a router that is told the topic: each topic's best model.
fn told_the_topic(path: &Path) -> f64 {
    let rows = Rows::read(path, &Selection::default()).unwrap();
    let mut sums: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for row in &rows.rows {
        let of_topic = sums.entry(&row.task).or_insert_with(|| vec![0.0; rows.models.len()]);
        for (sum, outcome) in of_topic.iter_mut().zip(&row.outcomes) {
            *sum += outcome.as_ref().map_or(0.0, |o| o.score);
        }
    }
    let best = sums.values().map(|models| models.iter().copied().fold(0.0, f64::max));
    best.sum::<f64>() / rows.rows.len() as f64
}

#[test]
fn the_bandit_closes_half_of_the_gap_that_context_free_sampling_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let path = workload(folder.path(), 6_000);
    let told = told_the_topic(&path);
    // Ten orders: single ones differ by a tenth of the gap and more.
    let report = replay(&ReplayArgs { seeds: 10, ..args(&path, Whose::Bandit) }).unwrap();
    let best = report.best_single.score;
    let closed = (report.score_mean - best) / (told - best);
    println!(
        "best single {best:.3}, told the topic {told:.3}, bandit {:.3}: {closed:.2} closed",
        report.score_mean
    );
    assert!(told > best + 0.1, "the world gives no reason to route");
    assert!(report.context_free_score <= best + 0.002, "context-free {:.3}", report.context_free_score);
    assert!(closed >= 0.5, "only {closed:.2} of the gap is closed");
}

#[test]
fn references_score_what_the_rows_themselves_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = workload(folder.path(), 800);
    let of = |policy| -> Report { replay(&args(&path, policy)).unwrap() };
    let (best, oracle, random) = (of(Whose::BestSingle), of(Whose::Oracle), of(Whose::Random));
    assert!((best.score_mean - best.best_single.score).abs() < 1e-9);
    assert_eq!(best.share_by_model.len(), 1);
    assert!((oracle.score_mean - oracle.oracle_score).abs() < 1e-9);
    assert!((random.score_mean - random.random_score).abs() < 0.03, "{}", random.score_mean);
    assert_eq!(best.best_single.by, "hindsight");
    assert!((best.calls_mean - 1.0).abs() < 1e-9);
}

#[test]
fn a_warm_start_is_worth_its_rows_and_chooses_best_single_on_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = workload(folder.path(), 1_000);
    let cold = replay(&args(&path, Whose::Bandit)).unwrap();
    let warm = replay(&ReplayArgs { warm: Some(path.clone()), ..args(&path, Whose::Bandit) }).unwrap();
    assert!(warm.score_mean > cold.score_mean + 0.05, "{} after {}", warm.score_mean, cold.score_mean);
    assert_eq!(warm.best_single.by, "warm");
}

#[test]
fn more_calls_are_a_maximum_and_all_are_paid() {
    let folder = tempfile::tempdir().unwrap();
    let path = workload(folder.path(), 600);
    let one = replay(&args(&path, Whose::Bandit)).unwrap();
    let three = replay(&ReplayArgs { calls: 3, ..args(&path, Whose::Bandit) }).unwrap();
    assert!(three.calls_mean > 1.0 && three.calls_mean <= 3.0);
    assert!(three.cost_mean_usd > one.cost_mean_usd);
    let dear = replay(&ReplayArgs { cost_weight: 1e4, ..args(&path, Whose::Bandit) }).unwrap();
    assert!(dear.cost_mean_usd < one.cost_mean_usd / 2.0, "{} against {}", dear.cost_mean_usd, one.cost_mean_usd);
}

#[test]
fn equal_seeds_give_equal_choices_and_the_json_has_every_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = workload(folder.path(), 300);
    let run = || {
        let mut out = Vec::new();
        main(&args(&path, Whose::Bandit), &mut out).unwrap();
        serde_json::from_slice::<serde_json::Value>(&out).unwrap()
    };
    let (one, two) = (run(), run());
    for key in [
        "policy",
        "rows",
        "seeds",
        "score_mean",
        "score_ci95",
        "score_last20pct",
        "cost_mean_usd",
        "best_single",
        "context_free_score",
        "random_score",
        "oracle_score",
        "share_by_model",
        "calls_mean",
    ] {
        assert_eq!(one[key], two[key], "{key}");
        assert!(!one[key].is_null(), "{key}");
    }
    for key in ["decide_p50_us", "decide_p99_us", "rounds_per_s"] {
        assert!(one[key].is_number(), "{key}");
    }
}

#[test]
fn what_cannot_be_replayed_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = workload(folder.path(), 10);
    let unknown = ReplayArgs { pool: vec!["nobody".to_owned()], ..args(&path, Whose::Bandit) };
    assert!(format!("{:#}", replay(&unknown).unwrap_err()).contains("nobody"));
    assert!(replay(&ReplayArgs { cost_weight: -1.0, ..args(&path, Whose::Bandit) }).is_err());
    assert!(replay(&args(&folder.path().join("none.jsonl"), Whose::Bandit)).is_err());
}
