//! Replay, on a world whose topics favour different models. Its figure on recorded outcomes of real
//! ones is checked by `scripts/test`, where they are at hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser;
use pointsman_daemon::backends::recorded_rows::{Rows, Selection};
use pointsman_daemon::backends::simulated::{World, write_workload};
use pointsman_daemon::replay::{ReplayArgs, ReplayError, Report, Whose, main, replay};

/// A command line of its own, so that flags are read as the program reads them.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: ReplayArgs,
}

fn with(outcomes: &Path, policy: Whose, flags: &[&str]) -> ReplayArgs {
    let outcomes = outcomes.to_str().unwrap();
    let line = ["replay", "--outcomes", outcomes, "--policy", policy.as_str(), "--seeds", "3", "--json"];
    Line::parse_from(line.iter().chain(flags)).args
}

fn args(outcomes: &Path, policy: Whose) -> ReplayArgs {
    with(outcomes, policy, &[])
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
    for flags in [
        ["--cost-weight=-1"].as_slice(),
        &["--drop", "nobody@1"],
        &["--degrade", "small-fast@10=0.1"],
        &["--flip-rate", "2"],
    ] {
        let error = replay(&with(&path, Whose::Bandit, flags)).unwrap_err();
        assert!(error.is::<ReplayError>(), "{flags:?}: {error}");
        assert!(error.to_string().contains(flags[0].split('=').next().unwrap()), "{error}");
    }
    assert!(replay(&args(&folder.path().join("none.jsonl"), Whose::Bandit)).is_err());
}

#[test]
fn rows_to_train_on_are_fed_and_the_rest_is_routed() {
    let folder = tempfile::tempdir().unwrap();
    let path = workload(folder.path(), 1_000);
    let cold = replay(&args(&path, Whose::Bandit)).unwrap();
    let trained = replay(&with(&path, Whose::Bandit, &["--train-fraction", "0.8"])).unwrap();
    assert_eq!((cold.rows, trained.rows), (1_000, 200));
    assert_eq!(trained.best_single.by, "train");
    assert!(trained.score_mean > cold.score_mean + 0.05, "{} after {}", trained.score_mean, cold.score_mean);
    // Yardsticks are over the same routed rows: what a run scored is what its own choice scored.
    let single = replay(&with(&path, Whose::BestSingle, &["--train-fraction", "0.8"])).unwrap();
    for run in &single.runs {
        assert!((run.score - run.single_score).abs() < 1e-9, "{run:?}");
    }
    let oracle = replay(&with(&path, Whose::Oracle, &["--train-fraction", "0.8"])).unwrap();
    assert!((oracle.score_mean - oracle.oracle_score).abs() < 1e-9);
    // Labels that are all turned over teach the contrary.
    let flipped = ["--train-fraction", "0.8", "--flip-rate", "1"];
    let misled = replay(&with(&path, Whose::Bandit, &flipped)).unwrap();
    assert!(misled.score_mean < trained.random_score, "{} of {}", misled.score_mean, trained.random_score);
}

#[test]
fn feedback_that_is_late_or_rare_costs_and_none_teaches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = workload(folder.path(), 1_500);
    let of = |flags: &[&str]| replay(&with(&path, Whose::Bandit, flags)).unwrap();
    let at_once = of(&[]);
    assert_eq!(of(&["--delay", "0", "--feedback-rate", "1", "--flip-rate", "0"]).runs, at_once.runs);
    let late = of(&["--delay", "500"]);
    assert!(late.score_mean < at_once.score_mean && late.score_mean > late.random_score + 0.02);
    let rare = of(&["--feedback-rate", "0.1"]);
    assert!(rare.score_mean < at_once.score_mean);
    for flags in [["--delay", "1500"], ["--feedback-rate", "0"]] {
        let none = of(&flags);
        assert!((none.score_mean - none.random_score).abs() < 0.03, "{}", none.score_mean);
        assert!((none.context_free_score - none.random_score).abs() < 0.03, "{}", none.context_free_score);
    }
}

#[test]
fn seeds_run_on_from_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = workload(folder.path(), 300);
    let all = replay(&args(&path, Whose::Bandit)).unwrap();
    assert_eq!(all.runs.iter().map(|run| run.seed).collect::<Vec<_>>(), [0, 1, 2]);
    let later = replay(&ReplayArgs { first_seed: 2, seeds: 1, ..args(&path, Whose::Bandit) }).unwrap();
    assert_eq!(later.runs[0], all.runs[2]);
}

#[test]
fn changes_on_the_way_show_in_their_phases() {
    let folder = tempfile::tempdir().unwrap();
    let path = workload(folder.path(), 900);
    let plain = replay(&args(&path, Whose::BestSingle)).unwrap();
    assert!(plain.phases.is_empty() && plain.budget_utilisation.is_none());
    let best = plain.best_single.name.as_str();
    let at = |row: usize, value: &str| format!("{best}@{row}{value}");
    let budget = format!("{}", plain.cost_mean_usd * 2.0);

    let changes = ["--degrade", &at(300, "=1"), "--degrade", &at(600, "=0"), "--reprice", &at(600, "=10")];
    let flags = [["--budget-per-request", budget.as_str()].as_slice(), &changes].concat();
    // The rows of hindsight would choose another: the yardstick is held to the one that was best.
    let warm = ReplayArgs { warm: Some(path.clone()), ..with(&path, Whose::BestSingle, &flags) };
    let report = replay(&warm).unwrap();
    assert_eq!(report.best_single.name, best);
    let rows: Vec<_> = report.phases.iter().map(|phase| (phase.from_row, phase.rows)).collect();
    assert_eq!(rows, [(0, 300), (300, 300), (600, 300)]);
    assert!(report.phases[1].score_mean < 1e-9, "{:?}", report.phases);
    assert!((report.phases[0].score_mean - report.phases[2].score_mean).abs() < 0.2, "{:?}", report.phases);
    let used: Vec<f64> = report.phases.iter().map(|phase| phase.budget_utilisation.unwrap()).collect();
    // Ten times dearer, it would use five times the ceiling: pacing keeps it within, and most of what the
    // phases before had saved is let go.
    assert!(
        (used[0] - 0.5).abs() < 0.1 && (used[1] - 0.5).abs() < 0.1 && (0.4..1.02).contains(&used[2]),
        "{used:?}"
    );
    assert!((0.45..1.005).contains(&report.budget_utilisation.unwrap()), "{used:?}");
    assert!((report.budget_utilisation.unwrap() - used.iter().sum::<f64>() / 3.0).abs() < 1e-9);
    assert!(report.budget_utilisation_max.unwrap() >= report.budget_utilisation.unwrap());

    // Who is gone is not called, from the very row on; who comes is called from it on.
    let share = |policy, flags: &[&str]| {
        let warm = ReplayArgs { warm: Some(path.clone()), ..with(&path, policy, flags) };
        replay(&warm).unwrap().share_by_model.get(best).copied().unwrap_or(0.0)
    };
    let back = ["--drop", &at(300, ""), "--add", &at(450, "")];
    for (flags, expected) in [(&back[..2], 1.0 / 3.0), (&back[2..], 0.5), (&back, 5.0 / 6.0)] {
        assert!((share(Whose::BestSingle, flags) - expected).abs() < 1e-9, "{flags:?}");
    }
    assert!(share(Whose::Bandit, &["--drop", &at(0, "")]) < 1e-9);
    let oracle = replay(&with(&path, Whose::Oracle, &[&back[..], &changes].concat())).unwrap();
    assert!((oracle.score_mean - oracle.oracle_score).abs() < 1e-9);
}

#[test]
fn a_mixture_meets_the_ceiling_and_beats_no_oracle() {
    let folder = tempfile::tempdir().unwrap();
    let path = workload(folder.path(), 600);
    let single = replay(&args(&path, Whose::BestSingle)).unwrap();
    let free = replay(&args(&path, Whose::Mix2)).unwrap();
    assert!((free.score_mean - single.score_mean).abs() < 1e-9, "without a ceiling it is the best single model");
    assert!((free.cost_mean_usd - single.cost_mean_usd).abs() < 1e-12);
    let half = format!("{}", single.cost_mean_usd / 2.0);
    let mixed = replay(&with(&path, Whose::Mix2, &["--budget-per-request", &half])).unwrap();
    assert!(mixed.score_mean < free.score_mean && mixed.score_mean < mixed.oracle_score);
    let used = mixed.budget_utilisation.unwrap();
    assert!(used <= 1.0 + 1e-9, "{used}");
    assert!(mixed.share_by_model.len() <= 2 && (mixed.calls_mean - 1.0).abs() < 1e-9);
}

#[test]
fn two_models_are_told_apart_by_what_was_thought_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = workload(folder.path(), 1_200);
    let all = replay(&args(&path, Whose::Bandit)).unwrap();
    assert!(all.two_models.is_none());
    let pool: Vec<String> = all.share_by_model.keys().take(2).cloned().collect();
    let flags = ["--train-fraction", "0.7"];
    let two = replay(&ReplayArgs { pool, ..with(&path, Whose::Bandit, &flags) }).unwrap();
    let curve = two.two_models.unwrap();
    let (weak, strong) = (&curve.points[0], &curve.points[20]);
    assert!(weak.score <= strong.score && (strong.score - two.best_single.score).abs() < 0.2);
    let middle = curve.points[10].score;
    assert!(middle > (weak.score + strong.score) / 2.0 + 0.02, "{curve:?}");
    // One half is blind; the ranking recovers more, and so needs a smaller share.
    let (apgr, cpt50, cpt80) = (curve.apgr.unwrap(), curve.cpt50.unwrap(), curve.cpt80.unwrap());
    assert!(apgr > 0.52 && cpt50 < 0.5 && cpt50 < cpt80, "{apgr} {cpt50} {cpt80}");
    if strong.cost_usd > weak.cost_usd {
        assert!(curve.aiq.unwrap() > (weak.score + strong.score) / 2.0, "{curve:?}");
    }
}
