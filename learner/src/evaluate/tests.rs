//! The whole of it on a closed-form world: forty prompts, three models, known chances of being right.

#![expect(clippy::cast_possible_truncation, reason = "a test: the numbers are small")]

use pointsman_router::clock::Draw;
use pointsman_router::selection::{aim, floor};

use super::canary::{Canary, CanarySettings, CanaryVerdict, Drawn};
use super::estimate::{self, Judged, Observed, Plan};
use super::exploration::share_within;
use super::gate::{Evidence, GateSettings, judge};
use super::plan::{Chance, Known, plan};
use super::reward_model::{Design, Label, RewardModel, Ridge, fold_of};

const PROMPTS: usize = 40;
const MODELS: usize = 3;
const RUNS: u64 = 60;
const DECISIONS: usize = 2_500;
const COSTS_USD: [f64; MODELS] = [3e-5, 2e-5, 1e-5];

type Picks = [f64; MODELS];

/// Of each prompt: its features, and each model's chance of being right.
struct World {
    features: Vec<f32>,
    right: Vec<Picks>,
}

/// The first model is best on average, but each prompt has one that knows it.
fn world() -> World {
    let mut draw = Draw::from_seed(41);
    let right: Vec<Picks> = (0..PROMPTS)
        .map(|prompt| std::array::from_fn(|m| [0.6, 0.5, 0.4][m] + if prompt % MODELS == m { 0.3 } else { 0.0 }))
        .collect();
    let features =
        (0..PROMPTS).flat_map(|prompt| [(prompt % MODELS) as f32, draw.uniform() as f32, prompt as f32]).collect();
    World { features, right }
}

fn value(world: &World, policy: &[Picks]) -> f64 {
    let rows = world.right.iter().zip(policy);
    rows.map(|(right, picks)| right.iter().zip(picks).map(|(r, p)| r * p).sum::<f64>()).sum::<f64>()
        / PROMPTS as f64
}

/// Mostly the first model, with a floor.
fn incumbent() -> Vec<Picks> {
    vec![
        {
            let mut picks = [0.9, 0.08, 0.02];
            floor(&mut picks, 0.05);
            picks
        };
        PROMPTS
    ]
}

/// The model that knows the prompt on the first `good` prompts, the one that knows it least on the
/// next `bad`, and the first model elsewhere.
fn candidate(good: usize, bad: usize) -> Vec<Picks> {
    let pick = |prompt: usize| match prompt {
        p if p < good => p % MODELS,
        p if p < good + bad => 2 - usize::from(p % MODELS == 2),
        _ => 0,
    };
    (0..PROMPTS).map(|prompt| std::array::from_fn(|m| if m == pick(prompt) { 1.0 } else { 0.0 })).collect()
}

struct Row<'a>(&'a [f64]);

impl Known for Row<'_> {
    fn reward(&self, set: &[usize]) -> f64 {
        set.iter().map(|m| self.0[*m]).sum()
    }

    fn cost(&self, set: &[usize]) -> f64 {
        set.iter().map(|m| COSTS_USD[*m]).sum()
    }

    fn was_possible(&self, _: &[usize]) -> bool {
        true
    }
}

/// One log of the policy `log`, and on it the evidence for each of the policies, `log` being the incumbent.
fn evidence(
    world: &World,
    log: &[Picks],
    policies: &[Vec<Picks>],
    seed: u64,
) -> Vec<(estimate::Estimates, Evidence)> {
    let mut draw = Draw::from_seed(seed);
    let (mut features, mut folds, mut labels, mut drawn) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in 0..DECISIONS {
        let prompt = (draw.next_u64() % PROMPTS as u64) as usize;
        let model = draw.index(log[prompt].iter().copied()).unwrap();
        let score = if draw.uniform() < world.right[prompt][model] { 1.0 } else { 0.0 };
        features.extend_from_slice(&world.features[3 * prompt..3 * prompt + 3]);
        folds.push(fold_of(prompt as u64, 1, 5));
        labels.push(Label { row: row as u32, model: model as u16, score, weight: 1.0 });
        drawn.push((prompt, model, f64::from(score)));
    }
    let design = Design { features: &features, dims: 3, folds: &folds };
    let modelled = RewardModel::fit(&design, MODELS, &labels, &Ridge::default()).unwrap().predict_all(&design);
    let known = |row: usize| Row(&modelled[row * MODELS..(row + 1) * MODELS]);
    let rows: Vec<Judged> = (0..)
        .zip(&drawn)
        .map(|(row, (prompt, model, score))| Judged {
            cluster: row as u64,
            propensity: log[*prompt][*model],
            weight: 1.0,
            reward: Observed { seen: *score, modelled: known(row).0[*model] },
            cost: Observed { seen: COSTS_USD[*model], modelled: COSTS_USD[*model] },
        })
        .collect();
    let plans = |policy: &[Picks]| -> Vec<Plan> {
        let plan_of = |(row, (prompt, model, _)): (usize, &(usize, usize, f64))| {
            let chances: Vec<Chance> =
                (0..MODELS).map(|m| Chance { set: vec![m], probability: policy[*prompt][m] }).collect();
            plan(&chances, &[*model], &known(row))
        };
        drawn.iter().enumerate().map(plan_of).collect()
    };
    let running = plans(log);
    let ceiling_usd = estimate::estimate(&rows, &running).unwrap().cost.value;
    let single = plans(&candidate(0, 0));
    let judge_one = |policy: &Vec<Picks>| {
        let own = plans(policy);
        let found = estimate::estimate(&rows, &own).unwrap();
        let evidence = Evidence {
            rows: rows.len(),
            effective_sample_size: found.effective_sample_size,
            unsupported: found.unsupported,
            gain: estimate::gain(&rows, &own, &running).unwrap(),
            cost_usd: found.cost.value,
            ceiling_usd,
            over_single: Some(estimate::gain(&rows, &own, &single).unwrap().reward),
        };
        (found, evidence)
    };
    policies.iter().map(judge_one).collect()
}

/// Of many logs: how often the interval covers the truth, and how often the gate opens.
fn simulate(world: &World, log: &[Picks], policies: &[Vec<Picks>]) -> Vec<(f64, f64)> {
    let mut counts = vec![(0.0, 0.0); policies.len()];
    for seed in 0..RUNS {
        let all = evidence(world, log, policies, seed);
        for ((count, policy), (found, evidence)) in counts.iter_mut().zip(policies).zip(all) {
            let (lower, upper) = found.doubly_robust.interval();
            count.0 += f64::from(u8::from((lower..=upper).contains(&value(world, policy)))) / RUNS as f64;
            let verdict = judge(&evidence, &GateSettings::default());
            count.1 += f64::from(u8::from(verdict.passes())) / RUNS as f64;
        }
    }
    counts
}

#[test]
fn intervals_cover_the_gate_opens_for_the_better_and_aiming_opens_it_wider() {
    let world = world();
    let log = incumbent();
    let policies = [candidate(24, 0), candidate(0, 4), candidate(3, 2)];
    let gains: Vec<f64> = policies.iter().map(|policy| value(&world, policy) - value(&world, &log)).collect();
    assert!(gains[0] > 0.07 && gains[1] < -0.005 && gains[2].abs() < 0.02, "{gains:?}");
    let even = simulate(&world, &log, &policies);
    let mut aimed = log.clone();
    let pairs: Vec<(Vec<f64>, Vec<f64>)> =
        log.iter().zip(&policies[0]).map(|(p, c)| (p.to_vec(), c.to_vec())).collect();
    let share = share_within(0.02, &pairs);
    let moved: f64 = aimed.iter_mut().zip(&policies[0]).map(|(picks, to)| aim(picks, to, share)).sum();
    assert!((moved / PROMPTS as f64 - 0.02).abs() < 1e-6);
    let better = simulate(&world, &aimed, &policies[..1]);
    for (covered, _) in even.iter().chain(&better) {
        assert!(*covered >= 0.88, "even {even:?}, aimed {better:?}");
    }
    assert!(even[0].1 >= 0.5 && even[1].1 <= 0.03, "{even:?}");
    assert!(better[0].1 >= even[0].1, "even {even:?}, aimed {better:?}");
}

/// What the candidate learned stops being true after it was promoted: the canary takes it back.
#[test]
fn a_canary_takes_back_what_the_log_could_not_know() {
    let mut world = world();
    let (log, policy) = (incumbent(), candidate(24, 0));
    let found = evidence(&world, &log, std::slice::from_ref(&policy), 3);
    assert!(judge(&found[0].1, &GateSettings::default()).passes());
    let run = |world: &World, seed| {
        let settings = CanarySettings { share: 0.2, expected: value(world, &log), ..CanarySettings::default() };
        let mut canary = Canary::new(settings);
        let mut draw = Draw::from_seed(seed);
        loop {
            let prompt = (draw.next_u64() % PROMPTS as u64) as usize;
            let serving = if draw.uniform() < settings.share { &policy } else { &log };
            let model = draw.index(serving[prompt].iter().copied()).unwrap();
            let drawn = Drawn { candidate: policy[prompt][model], incumbent: log[prompt][model] };
            canary.observe(drawn, if draw.uniform() < world.right[prompt][model] { 1.0 } else { 0.0 });
            match canary.verdict() {
                CanaryVerdict::Continue => {}
                verdict @ (CanaryVerdict::RollBack { .. } | CanaryVerdict::Passed { .. }) => return verdict,
            }
        }
    };
    for seed in 0..10 {
        let verdict = run(&world, seed);
        assert!(matches!(verdict, CanaryVerdict::Passed { is_proven: true, .. }), "{verdict:?}");
    }
    for right in &mut world.right {
        right[1] -= 0.4;
        right[2] -= 0.4;
    }
    assert!(value(&world, &policy) < value(&world, &log) - 0.02);
    for seed in 0..10 {
        let verdict = run(&world, seed);
        assert!(matches!(verdict, CanaryVerdict::RollBack { judged, .. } if judged < 20_000), "{verdict:?}");
    }
}
