//! Thompson sampling with exact probabilities: who would have the highest draw, and how often.
//!
//! Each contender's utility is a Gaussian. A Thompson sampler draws once from each and picks the
//! highest; here the probability of that is computed instead,
//! P(a) = ∫ φ_a(u) Π_{j≠a} Φ_j(u) du (Chapelle & Li 2011), and the pick is drawn from it. So the
//! logged propensity is exact by construction: it is the one that the draw used.
//!
//! One grid serves all contenders. Its cells follow the narrowest Gaussian that changes there, so a
//! well-known contender beside an unknown one is resolved too; within a cell both Φ_a and the
//! product of the others are parabolas through three points (Simpson's rule against dΦ_a). The tests
//! compare with a dense integral. Contenders that cannot win (4.5 standard deviations under the
//! best's lower end) have probability zero.
//!
//! Draws may also lie above the mean alone, mean + sd·|ε|: an optimistic sampler, which explores as much
//! and gives up less, because no good model is ever drawn down (May et al. 2012, whose draws are the
//! higher of mean and draw, measured the same). Its distribution is 2Φ − 1 above the mean and zero below,
//! and the same grid serves it.

#![expect(
    clippy::indexing_slicing,
    reason = "slices of one length, the number of contenders, and a table with a clamped index"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a clamped, positive number becomes an index"
)]

use std::sync::LazyLock;

/// The utility of one contender, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Utility {
    /// Its mean.
    pub mean: f64,
    /// Its standard deviation; zero when it is certain.
    pub sd: f64,
}

/// Standard deviations that a Gaussian reaches to each side.
const REACH: f64 = 4.5;
/// Standard deviations that a cell is wide.
const CELL: f64 = 0.5;
/// More cells than this are never made; the last one then takes the rest.
const CELLS_MAX: usize = 192;
/// Certain contenders are treated as this wide, relative to the largest utility.
const SD_RELATIVE_MIN: f64 = 1e-9;

/// Where a contender's draws lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scatter {
    /// Around the mean, normally: plain Thompson sampling.
    Around,
    /// Above the mean, by the size of a normal deviation.
    Above,
}

impl Scatter {
    /// The word for it in settings and versions.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Around => "around",
            Self::Above => "above",
        }
    }
}

/// The probability of each contender to have the highest draw around its mean; see [`picks`].
#[must_use]
pub fn thompson(utilities: &[Utility]) -> Vec<f64> {
    picks(utilities, Scatter::Around)
}

/// The probability of each contender to have the highest draw; they sum to one. Contenders whose
/// mean is not finite have none, unless all are so: then all are alike.
#[must_use]
pub fn picks(utilities: &[Utility], scatter: Scatter) -> Vec<f64> {
    let mut picks = vec![0.0; utilities.len()];
    let largest = utilities.iter().map(|u| u.mean.abs()).filter(|m| m.is_finite()).fold(1.0, f64::max);
    let floored = |u: &Utility| Gaussian {
        mean: u.mean,
        sd: if u.sd.is_finite() { u.sd.max(SD_RELATIVE_MIN * largest) } else { largest },
        scatter,
    };
    let finite = || utilities.iter().enumerate().filter(|(_, u)| u.mean.is_finite());
    let low = finite().map(|(_, u)| floored(u).low()).fold(f64::NEG_INFINITY, f64::max);
    let (at, able): (Vec<usize>, Vec<Gaussian>) =
        finite().map(|(i, u)| (i, floored(u))).filter(|(_, g)| g.high() > low).unzip();
    match at.as_slice() {
        [] => picks.fill(1.0 / utilities.len().max(1) as f64),
        [only] => picks[*only] = 1.0,
        _ => {
            let shares = integrate(&able, low);
            let total: f64 = shares.iter().sum();
            // Utilities near the end of f64's range overflow; they tell nobody apart.
            let even = 1.0 / at.len() as f64;
            for (i, share) in at.iter().zip(&shares) {
                picks[*i] = if total > 0.0 && total.is_finite() { share / total } else { even };
            }
        }
    }
    picks
}

/// Mixes the probabilities with the uniform ones: each is then at least ε/K.
pub fn floor(picks: &mut [f64], epsilon: f64) {
    let even = epsilon / picks.len().max(1) as f64;
    for pick in picks {
        *pick = (1.0 - epsilon) * *pick + even;
    }
}

/// Aims exploration: raises every probability to at least `share` of what another policy, `towards`,
/// gives, and takes it from the rest in proportion. Returns what was moved, the total variation
/// between before and after.
///
/// A candidate's weight on a decision of this log is then at most 1/`share`, however little the
/// running policy thought of its choice. Among all ways to bound the weights this one moves least,
/// and where probabilities are moved at all, Σ towards²/p, the noise of the candidate's off-policy
/// value, falls most: nothing is spent where the two agree or where the running policy would have
/// explored by itself (RECIPES: a uniform floor starves the gate). No probability falls below
/// 1 − `share` of what it was, and what is moved is at most `share` times the distance of the two.
///
/// Both slices are distributions over the same contenders, which may as well be whole sets; a `share`
/// outside [0, 1] is held to it.
pub fn aim(picks: &mut [f64], towards: &[f64], share: f64) -> f64 {
    let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    let mut lifted = vec![false; picks.len()];
    let mut scale = 1.0;
    // Scaling the rest may take another one below its share; each round lifts at least one more.
    for _ in 0..=picks.len() {
        let (mut given, mut kept) = (1.0, 0.0);
        let mut is_done = true;
        for ((pick, to), is_lifted) in picks.iter().zip(towards).zip(&mut lifted) {
            if !*is_lifted && scale * pick < share * to {
                *is_lifted = true;
                is_done = false;
            }
            if *is_lifted { given -= share * to } else { kept += pick }
        }
        if is_done {
            break;
        }
        scale = if kept > 0.0 { (given / kept).clamp(0.0, 1.0) } else { 0.0 };
    }
    let mut moved = 0.0;
    for ((pick, to), is_lifted) in picks.iter_mut().zip(towards).zip(lifted) {
        let aimed = if is_lifted { share * to } else { scale * *pick };
        moved += (aimed - *pick).max(0.0);
        *pick = aimed;
    }
    moved
}

#[derive(Debug, Clone, Copy)]
struct Gaussian {
    mean: f64,
    sd: f64,
    scatter: Scatter,
}

impl Gaussian {
    fn low(self) -> f64 {
        match self.scatter {
            Scatter::Around => self.mean - REACH * self.sd,
            Scatter::Above => self.mean,
        }
    }

    fn high(self) -> f64 {
        self.mean + REACH * self.sd
    }

    /// The probability of a draw below u.
    fn below(self, u: f64, inverse_sd: f64) -> f64 {
        let phi = normal_cdf((u - self.mean) * inverse_sd);
        match self.scatter {
            Scatter::Around => phi,
            Scatter::Above => (2.0 * phi - 1.0).max(0.0),
        }
    }
}

/// At one point: each contender's Φ, and the product of the others'.
#[derive(Clone)]
struct Node {
    below: Vec<f64>,
    others: Vec<f64>,
}

impl Node {
    fn new(contenders: usize) -> Self {
        Self { below: vec![0.0; contenders], others: vec![0.0; contenders] }
    }

    fn fill(&mut self, able: &[Gaussian], inverse_sds: &[f64], u: f64) {
        let mut product = 1.0;
        for (((below, other), g), inverse) in
            self.below.iter_mut().zip(&mut self.others).zip(able).zip(inverse_sds)
        {
            *below = g.below(u, *inverse);
            *other = product;
            product *= *below;
        }
        product = 1.0;
        for (below, other) in self.below.iter().zip(&mut self.others).rev() {
            *other *= product;
            product *= below;
        }
    }
}

fn integrate(able: &[Gaussian], low: f64) -> Vec<f64> {
    let inverse_sds: Vec<f64> = able.iter().map(|g| g.sd.recip()).collect();
    let high = able.iter().map(|g| g.high()).fold(low, f64::max);
    let mut shares = vec![0.0; able.len()];
    let (mut left, mut middle, mut right) = (Node::new(able.len()), Node::new(able.len()), Node::new(able.len()));
    let mut u = low;
    left.fill(able, &inverse_sds, u);
    for cell in 1..=CELLS_MAX {
        let end = if cell == CELLS_MAX { high } else { cell_end(able, u).min(high) };
        middle.fill(able, &inverse_sds, 0.5 * (u + end));
        right.fill(able, &inverse_sds, end);
        for (a, share) in shares.iter_mut().enumerate() {
            let rise = 0.5 * (right.below[a] - left.below[a]);
            let bend = 0.5 * (left.below[a] + right.below[a]) - middle.below[a];
            let slope = 0.5 * (right.others[a] - left.others[a]);
            // ∫ g dF over the cell for parabolas g and F through the three points; 2/6 and 4/3 are theirs.
            let simpson = (left.others[a] + 4.0 * middle.others[a] + right.others[a]) / 3.0;
            *share += (rise * simpson + 4.0 / 3.0 * slope * bend).max(0.0);
        }
        if end >= high {
            break;
        }
        std::mem::swap(&mut left, &mut right);
        u = end;
    }
    shares
}

/// The end of the cell that begins at u: a fraction of the narrowest Gaussian that changes at u, and
/// not beyond the beginning of one that changes later.
fn cell_end(able: &[Gaussian], u: f64) -> f64 {
    able.iter().filter(|g| g.high() > u).map(|g| (u + CELL * g.sd).max(g.low())).fold(f64::INFINITY, f64::min)
}

const TABLE_STEPS_PER_SD: usize = 128;
const TABLE_REACH: f64 = 6.0;
const TABLE_SIZE: usize = 12 * TABLE_STEPS_PER_SD;

/// Φ and its rise to the next entry.
static TABLE: LazyLock<Vec<(f64, f64)>> = LazyLock::new(|| {
    let exact = |i: usize| {
        let z = i as f64 / TABLE_STEPS_PER_SD as f64 - TABLE_REACH;
        0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2)
    };
    (0..=TABLE_SIZE).map(|i| (exact(i), exact(i + 1) - exact(i))).collect()
});

/// Φ(z) by linear interpolation, within 2e-6.
fn normal_cdf(z: f64) -> f64 {
    let at = ((z + TABLE_REACH) * TABLE_STEPS_PER_SD as f64).clamp(0.0, TABLE_SIZE as f64);
    let whole = at as usize;
    let (value, rise) = TABLE[whole];
    value + rise * (at - whole as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Draw;

    fn utilities(pairs: &[(f64, f64)]) -> Vec<Utility> {
        pairs.iter().map(|(mean, sd)| Utility { mean: *mean, sd: *sd }).collect()
    }

    /// The integral on a grid of the narrowest Gaussian's scale, with the exact Φ and φ.
    fn dense(pairs: &[(f64, f64)], scatter: Scatter) -> Vec<f64> {
        let cdf = |z: f64| {
            let phi = 0.5 * libm::erfc(-z / 2_f64.sqrt());
            if scatter == Scatter::Above { (2.0 * phi - 1.0).max(0.0) } else { phi }
        };
        let density = |z: f64| (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (from, density_scale) = if scatter == Scatter::Above { (0.0, 2.0) } else { (-8.0, 1.0) };
        pairs
            .iter()
            .enumerate()
            .map(|(a, (mean, sd))| {
                let narrowest = pairs.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
                let step = narrowest / 40.0;
                let steps = ((8.0 - from) * sd / step).ceil() as usize;
                (0..steps)
                    .map(|i| {
                        let u = mean + from * sd + (i as f64 + 0.5) * step;
                        let others: f64 = pairs
                            .iter()
                            .enumerate()
                            .filter(|(j, _)| *j != a)
                            .map(|(_, (m, s))| cdf((u - m) / s))
                            .product();
                        density_scale * density((u - mean) / sd) / sd * others * step
                    })
                    .sum()
            })
            .collect()
    }

    fn check(pairs: &[(f64, f64)]) {
        for scatter in [Scatter::Around, Scatter::Above] {
            let (got, expected) = (picks(&utilities(pairs), scatter), dense(pairs, scatter));
            for (g, e) in got.iter().zip(&expected) {
                assert!((g - e).abs() < 1e-4, "{pairs:?}\ngot      {got:?}\nexpected {expected:?}");
            }
            assert!((got.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn it_agrees_with_draws() {
        let pairs = [(0.55, 0.1), (0.5, 0.2), (0.62, 0.02), (0.3, 0.05)];
        let mut draw = Draw::from_seed(4);
        let mut normal =
            || (-2.0 * (1.0 - draw.uniform()).ln()).sqrt() * (2.0 * std::f64::consts::PI * draw.uniform()).cos();
        let mut wins = [0_u32; 4];
        for _ in 0..400_000 {
            let draws = pairs.map(|(mean, sd)| mean + sd * f64::abs(normal()));
            wins[(0..4).max_by(|a, b| draws[*a].total_cmp(&draws[*b])).unwrap()] += 1;
        }
        for (pick, wins) in picks(&utilities(&pairs), Scatter::Above).iter().zip(wins) {
            assert!((pick - f64::from(wins) / 400_000.0).abs() < 3e-3, "{pick} {wins}");
        }
    }

    #[test]
    fn it_agrees_with_the_dense_integral() {
        check(&[(0.5, 0.1), (0.6, 0.1)]);
        check(&[(0.5, 0.3), (0.505, 0.002), (0.5, 0.002)]);
        check(&[(0.7, 0.01), (0.4, 0.2), (0.69, 0.02), (0.1, 0.3)]);
        check(&[(0.0, 1.0), (0.0, 0.02), (0.05, 0.02), (1.0, 0.2), (-3.0, 0.1)]);
        let spread: Vec<_> =
            (0..12).map(|i| (0.4 + 0.03 * f64::from(i), 0.02 + 0.01 * f64::from((i * 5) % 12))).collect();
        check(&spread);
    }

    #[test]
    fn alike_is_alike_and_certain_is_certain() {
        for k in [1_usize, 2, 5, 12, 256] {
            for (sd, scatter) in
                [(0.0, Scatter::Around), (0.1, Scatter::Around), (0.0, Scatter::Above), (0.1, Scatter::Above)]
            {
                let picks = picks(&utilities(&vec![(0.3, sd); k]), scatter);
                assert!(picks.iter().all(|p| (p - 1.0 / k as f64).abs() < 1e-9), "{k} {sd} {picks:?}");
            }
        }
        assert_eq!(thompson(&utilities(&[(0.3, 0.0), (0.300_001, 0.0), (0.1, 0.0)])), [0.0, 1.0, 0.0]);
        assert_eq!(thompson(&utilities(&[(f64::NAN, 0.1), (-5.0, 0.1)])), [0.0, 1.0]);
        assert_eq!(thompson(&utilities(&[(f64::NAN, 0.1); 2])), [0.5, 0.5]);
        assert_eq!(thompson(&utilities(&[(0.0, 1e308), (1.0, 1e308)])), [0.5, 0.5]);
        assert!(thompson(&[]).is_empty());
    }

    #[test]
    fn the_floor_leaves_a_distribution() {
        let mut picks = vec![1.0, 0.0, 0.0, 0.0];
        floor(&mut picks, 0.04);
        assert!((picks[0] - 0.97).abs() < 1e-12 && (picks[3] - 0.01).abs() < 1e-12);
        assert!((picks.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    fn check_aim(picks: &[f64], towards: &[f64], share: f64, expected: &[f64], moved: f64) {
        let mut got = picks.to_vec();
        let spent = aim(&mut got, towards, share);
        assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-12), "{got:?} {expected:?}");
        assert!((spent - moved).abs() < 1e-12, "{spent} {moved}");
    }

    #[test]
    fn aiming_spends_only_where_the_other_policy_would_go() {
        check_aim(&[0.9, 0.1, 0.0], &[0.0, 0.0, 1.0], 0.1, &[0.81, 0.09, 0.1], 0.1);
        // The other's choice is explored enough, or is the same.
        check_aim(&[0.9, 0.1], &[0.0, 1.0], 0.1, &[0.9, 0.1], 0.0);
        check_aim(&[0.7, 0.3], &[0.7, 0.3], 0.5, &[0.7, 0.3], 0.0);
        // Scaling takes the second below its share, so it is lifted too.
        check_aim(&[0.79, 0.21, 0.0], &[0.0, 0.4, 0.6], 0.5, &[0.5, 0.2, 0.3], 0.3);
        check_aim(&[1.0, 0.0], &[0.0, 1.0], 1.0, &[0.0, 1.0], 1.0);
        check_aim(&[1.0, 0.0], &[0.0, 1.0], f64::NAN, &[1.0, 0.0], 0.0);
        assert!(aim(&mut [], &[], 0.5).abs() < 1e-12);
    }

    /// Two distributions over the same few contenders, some of them without any probability.
    fn two_distributions() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
        let pair = (prop_oneof![Just(0.0), 0.0..1.0_f64], prop_oneof![Just(0.0), 0.0..1.0_f64]);
        prop::collection::vec(pair, 1..14).prop_map(|pairs| {
            let (mut p, mut c): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            for side in [&mut p, &mut c] {
                side[0] += 1e-3;
                let total: f64 = side.iter().sum();
                side.iter_mut().for_each(|x| *x /= total);
            }
            (p, c)
        })
    }

    proptest! {
        #[test]
        fn aimed_picks_are_a_distribution_within_their_bounds((p, c) in two_distributions(), share in 0.0..=1.0_f64) {
            let mut aimed = p.clone();
            let moved = aim(&mut aimed, &c, share);
            let distance = |q: &[f64]| 0.5 * p.iter().zip(q).map(|(a, b)| (a - b).abs()).sum::<f64>();
            prop_assert!((aimed.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{:?}", aimed);
            prop_assert!((moved - distance(&aimed)).abs() < 1e-9);
            prop_assert!(moved <= share * distance(&c) + 1e-9);
            for ((a, before), to) in aimed.iter().zip(&p).zip(&c) {
                prop_assert!(*a >= share * to - 1e-9, "the weight is bounded");
                prop_assert!(*a >= (1.0 - share) * before - 1e-9, "nobody is starved");
            }
            let least: f64 = p.iter().zip(&c).map(|(a, to)| (share * to - a).max(0.0)).sum();
            // Nobody gets more than its share of the other policy, so nothing smaller would do.
            prop_assert!(moved <= least + 1e-9, "{} {}", moved, least);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_few_agree_with_the_dense_integral(pairs in prop::collection::vec((0.0..1.0_f64, 0.01..0.4_f64), 2..6)) {
            check(&pairs);
        }

        #[test]
        fn any_are_a_distribution(pairs in prop::collection::vec((-1e6..1e6_f64, 0.0..1e5_f64), 1..40)) {
            for scatter in [Scatter::Around, Scatter::Above] {
                let picks = picks(&utilities(&pairs), scatter);
                prop_assert!(picks.iter().all(|p| (0.0..=1.0 + 1e-12).contains(p)));
                prop_assert!((picks.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            }
        }
    }
}
