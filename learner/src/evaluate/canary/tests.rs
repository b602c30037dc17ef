use pointsman_router::clock::Draw;

use super::*;

fn settings() -> CanarySettings {
    CanarySettings { share: 0.1, expected: 0.7, judged_max: 6_000, ..CanarySettings::default() }
}

const CANDIDATE: Drawn = Drawn { candidate: 1.0, incumbent: 0.0 };
const INCUMBENT: Drawn = Drawn { candidate: 0.0, incumbent: 1.0 };

/// Runs two policies of these means that never draw the same set, to the verdict.
fn run(settings: CanarySettings, means: [f64; 2], seed: u64) -> CanaryVerdict {
    let mut draw = Draw::from_seed(seed);
    let mut canary = Canary::new(settings);
    loop {
        let (drawn, mean) =
            if draw.uniform() < settings.share { (CANDIDATE, means[0]) } else { (INCUMBENT, means[1]) };
        canary.observe(drawn, if draw.uniform() < mean { 1.0 } else { 0.0 });
        let verdict = canary.verdict();
        if !matches!(verdict, CanaryVerdict::Continue) {
            return verdict;
        }
    }
}

fn rollbacks(settings: CanarySettings, means: [f64; 2], runs: u64) -> usize {
    (0..runs).filter(|seed| matches!(run(settings, means, *seed), CanaryVerdict::RollBack { .. })).count()
}

#[test]
fn equal_policies_are_hardly_ever_rolled_back_and_a_bad_one_always() {
    // The bound is 2.5 % over all 6,000 looks.
    assert!(rollbacks(settings(), [0.7, 0.7], 200) <= 5);
    assert_eq!(rollbacks(settings(), [0.5, 0.7], 60), 60);
    assert_eq!(rollbacks(settings(), [0.8, 0.7], 60), 0);
}

#[test]
fn a_passed_canary_says_whether_it_was_proven() {
    let long = CanarySettings { judged_max: 1_000_000, ..settings() };
    assert!(matches!(
        run(long, [0.8, 0.7], 1),
        CanaryVerdict::Passed { is_proven: true, lower, judged, .. } if lower > -0.01 && judged < 20_000
    ));
    assert!(matches!(
        run(CanarySettings { judged_max: 200, ..settings() }, [0.7, 0.7], 1),
        CanaryVerdict::Passed { is_proven: false, judged: 200, .. }
    ));
}

#[test]
fn policies_that_agree_add_no_noise() {
    let mut canary = Canary::new(settings());
    let alike = Drawn { candidate: 0.4, incumbent: 0.4 };
    for i in 0..2_000 {
        canary.observe(alike, f64::from(i % 2));
    }
    assert_eq!(canary.state, CanaryState { judged: 2_000, sum: 0.0, squares: 0.0 });
    let (lower, upper) = canary.bounds();
    assert!(lower > -0.06 && upper < 0.06, "{lower} {upper}");
}

/// Of every draw under the mixture, weighted with its probability: the true difference.
#[test]
fn a_look_is_unbiased() {
    let candidate: [f64; 3] = [0.7, 0.3, 0.0];
    let incumbent = [0.1, 0.3, 0.6];
    let rewards = [0.9, 0.4, 0.2];
    let canary = Canary::new(settings());
    let (mut mean, mut truth) = (0.0, 0.0);
    for ((c, i), r) in candidate.into_iter().zip(incumbent).zip(rewards) {
        let drawn = Drawn { candidate: c, incumbent: i };
        mean += (0.1 * c + 0.9 * i) * canary.look(drawn, r).unwrap();
        truth += (c - i) * r;
    }
    assert!((mean - truth).abs() < 1e-12);
}

/// The bound is where the mixture of exponentials reaches 1/δ, found here by a fine scan.
#[test]
fn the_bounds_are_where_the_mixture_reaches_its_bar() {
    let mut canary = Canary::new(settings());
    canary.state = CanaryState { judged: 3_000, sum: -240.0, squares: 5_000.0 };
    let mixture = |sign: f64, mean: f64, c: f64| {
        let terms = (1..=12).map(|k| {
            let lambda = 0.5_f64.powi(k);
            let psi = -(1.0 - lambda).ln() - lambda;
            (lambda * sign * (-240.0 - 3_000.0 * mean) / c - psi * 5_000.0 / (c * c)).exp() / 12.0
        });
        terms.sum::<f64>()
    };
    let scan = |sign: f64, c: f64| {
        let means = (0..=200_000).map(|i| sign * (f64::from(i) / 100_000.0 - 1.0));
        means.take_while(|mean| mixture(sign, *mean, c) >= 40.0).last().unwrap()
    };
    let (lower, upper) = canary.bounds();
    assert!((lower - scan(1.0, 7.0)).abs() < 2e-5, "{lower} {}", scan(1.0, 7.0));
    assert!((upper - scan(-1.0, 3.0)).abs() < 2e-5, "{upper} {}", scan(-1.0, 3.0));
}

#[test]
fn a_correction_leaves_the_state_that_the_right_label_would_have_left() {
    let (mut mended, mut straight) = (Canary::new(settings()), Canary::new(settings()));
    mended.observe(CANDIDATE, 1.0);
    mended.observe(INCUMBENT, 1.0);
    mended.correct(CANDIDATE, 1.0, 0.0);
    straight.observe(INCUMBENT, 1.0);
    straight.observe(CANDIDATE, 0.0);
    let (one, other) = (mended.state, straight.state);
    assert_eq!(one.judged, other.judged);
    assert!((one.sum - other.sum).abs() < 1e-9 && (one.squares - other.squares).abs() < 1e-9);
}

#[test]
fn nonsense_is_left_out_and_nothing_seen_is_nothing_known() {
    let mut canary = Canary::new(settings());
    canary.observe(CANDIDATE, f64::NAN);
    canary.observe(Drawn { candidate: 0.0, incumbent: 0.0 }, 1.0);
    canary.observe(Drawn { candidate: -0.5, incumbent: 1.0 }, 1.0);
    assert_eq!(canary.state, CanaryState::default());
    assert_eq!(canary.verdict(), CanaryVerdict::Continue);
    let (lower, upper) = canary.bounds();
    assert!(lower < -0.99 && upper > 0.99);
    let odd = CanarySettings { share: f64::NAN, ..settings() };
    assert!(matches!(Canary::new(odd).verdict(), CanaryVerdict::Continue));
}
