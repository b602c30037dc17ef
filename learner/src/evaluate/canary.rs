//! The canary: a candidate serves a share of the traffic and is watched at every judged decision.
//!
//! A request is given to the candidate with a fixed probability, its share s. Whoever got it, the set S
//! that was drawn had the probability ν = s·π_c(S) + (1 − s)·π_i(S) under the mixture of the two, so
//! z = (π_c − π_i)/ν · (r − b) is an unbiased look at how much better the candidate is, for any constant
//! b; the expected reward makes it small. Where both policies would draw the same, z is zero: rows
//! on which they agree add no noise.
//!
//! # The bound
//!
//! It holds at all looks together, so it may be read after every row and acted on at once. For |z| not
//! below −c, exp(λz/c − ψ(λ)z²/c²), ψ(λ) = −ln(1 − λ) − λ, has a conditional mean of at most
//! exp(λ·E z/c) (Fan, Grama & Liu 2015); so the mean over a grid of λ is a supermartingale whatever
//! the traffic does, and by Ville's inequality the true mean difference is below the point at which it
//! reaches 1/δ with probability at most δ, ever (Howard et al. 2021, empirical Bernstein by a discrete
//! mixture). What it bounds is the mean over the judged rows so far, also where it drifts.
//!
//! The state is three numbers, sums over rows; their order does not matter, and a corrected label is
//! taken out and put in. Rows without feedback are no rows; feedback must not be missing more often
//! for the one policy than for the other where their answers are alike.

use std::sync::LazyLock;

/// How a canary is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CanarySettings {
    /// The probability with which a request is given to the candidate, in (0, 1).
    pub share: f64,
    /// About what an answer scores, in [0, 1], known before the canary begins; the closer, the sooner
    /// the canary ends.
    pub expected: f64,
    /// The probability of ever rolling back a candidate that is not worse, and of passing one as proven
    /// that is worse than the margin.
    pub delta: f64,
    /// The loss that is no reason to doubt: it passes once its difference is surely above −margin.
    pub margin: f64,
    /// Judged decisions, of both policies together, after which a candidate that was not rolled back
    /// passes.
    pub judged_max: u64,
}

impl Default for CanarySettings {
    fn default() -> Self {
        Self { share: 0.1, expected: 0.5, delta: 0.025, margin: 0.01, judged_max: 50_000 }
    }
}

/// The probabilities of a drawn set under both policies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// Under the candidate.
    pub candidate: f64,
    /// Under the running policy.
    pub incumbent: f64,
}

/// Sums over the judged decisions.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CanaryState {
    /// Judged decisions.
    pub judged: u64,
    /// Σz.
    pub sum: f64,
    /// Σz².
    pub squares: f64,
}

/// What the canary says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CanaryVerdict {
    /// Nothing is certain yet; [`Canary::bounds`] says how far it is.
    Continue,
    /// The candidate is worse: the running policy takes all traffic back.
    RollBack {
        /// The estimated difference.
        difference: f64,
        /// It is below this, and this is below zero.
        upper: f64,
        /// Judged decisions that it took.
        judged: u64,
    },
    /// The candidate may take over.
    Passed {
        /// The estimated difference.
        difference: f64,
        /// It is above this.
        lower: f64,
        /// Judged decisions that it took.
        judged: u64,
        /// Whether it was shown to be no worse than the margin; else the canary just came to its end.
        is_proven: bool,
    },
}

/// A canary under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Canary {
    /// How it is run; must not change while it is under way.
    pub settings: CanarySettings,
    /// What was seen so far.
    pub state: CanaryState,
}

/// Points of the grid; they halve from a half on, so the last is right for ten million rows.
const GRID: usize = 12;
/// Each λ of the grid with its ψ(λ).
static LAMBDAS: LazyLock<[(f64, f64); GRID]> = LazyLock::new(|| {
    let mut lambda = 1.0;
    std::array::from_fn(|_| {
        lambda *= 0.5;
        (lambda, -libm::log1p(-lambda) - lambda)
    })
});
/// Halvings of the interval that a bound is in.
const HALVINGS: u32 = 48;
/// Shares are held this far from 0 and 1.
const SHARE_MIN: f64 = 1e-3;

impl Canary {
    /// A canary that has seen nothing.
    #[must_use]
    pub fn new(settings: CanarySettings) -> Self {
        Self { settings, state: CanaryState::default() }
    }

    /// Takes in a judged decision. Rewards are held to [0, 1]; what is no number, or was drawn by
    /// neither policy, is left out.
    pub fn observe(&mut self, drawn: Drawn, reward: f64) {
        if let Some(z) = self.look(drawn, reward) {
            self.state.judged += 1;
            self.state.sum += z;
            self.state.squares += z * z;
        }
    }

    /// Puts a corrected reward in the place of one that was taken in.
    pub fn correct(&mut self, drawn: Drawn, old: f64, new: f64) {
        if let (Some(old), Some(new)) = (self.look(drawn, old), self.look(drawn, new)) {
            self.state.sum += new - old;
            self.state.squares = (self.state.squares + new * new - old * old).max(0.0);
        }
    }

    /// The bounds that the difference, candidate less incumbent, is within at all looks together; each
    /// fails with probability delta at most.
    #[must_use]
    pub fn bounds(&self) -> (f64, f64) {
        (self.gains().lower_bound(), -self.losses().lower_bound())
    }

    /// What to do now. Cheap enough for every judged decision: the bounds are only searched for when
    /// the canary ends.
    #[must_use]
    pub fn verdict(&self) -> CanaryVerdict {
        let judged = self.state.judged;
        let difference = if judged > 0 { self.state.sum / judged as f64 } else { 0.0 };
        if self.losses().are_above(0.0) {
            return CanaryVerdict::RollBack { difference, upper: self.bounds().1, judged };
        }
        let is_proven = self.gains().are_above(-self.settings.margin);
        if is_proven || judged >= self.settings.judged_max {
            CanaryVerdict::Passed { difference, lower: self.bounds().0, judged, is_proven }
        } else {
            CanaryVerdict::Continue
        }
    }

    /// z, and how far below zero it may be.
    fn gains(&self) -> Mixture {
        let (share, expected) = (self.share(), self.expected());
        let below = f64::max(expected / share, (1.0 - expected) / (1.0 - share));
        Mixture::new(&self.state, self.state.sum, below, self.settings.delta)
    }

    /// −z, and how far below zero it may be.
    fn losses(&self) -> Mixture {
        let (share, expected) = (self.share(), self.expected());
        let above = f64::max((1.0 - expected) / share, expected / (1.0 - share));
        Mixture::new(&self.state, -self.state.sum, above, self.settings.delta)
    }

    fn share(&self) -> f64 {
        self.settings.share.clamp(SHARE_MIN, 1.0 - SHARE_MIN)
    }

    fn expected(&self) -> f64 {
        self.settings.expected.clamp(0.0, 1.0)
    }

    /// z of one row.
    fn look(&self, drawn: Drawn, reward: f64) -> Option<f64> {
        let Drawn { candidate, incumbent } = drawn;
        let mixture = self.share() * candidate + (1.0 - self.share()) * incumbent;
        let is_good = candidate >= 0.0 && incumbent >= 0.0 && mixture > 0.0 && mixture.is_finite();
        let z = (candidate - incumbent) / mixture * (reward.clamp(0.0, 1.0) - self.expected());
        (is_good && z.is_finite()).then_some(z)
    }
}

/// The mixture over the grid, as a function of the mean that is doubted.
struct Mixture {
    judged: f64,
    /// The sum of the terms, in units of how far below zero one may be.
    sum: f64,
    /// The sum of their squares, in the square of that unit.
    squares: f64,
    unit: f64,
    /// ln(1/δ).
    log_bar: f64,
}

impl Mixture {
    fn new(state: &CanaryState, sum: f64, unit: f64, delta: f64) -> Self {
        Self {
            judged: state.judged as f64,
            sum: sum / unit,
            squares: state.squares / (unit * unit),
            unit,
            log_bar: -libm::log(delta.clamp(1e-12, 1.0)),
        }
    }

    /// Whether the mean of the terms is above this one, for sure enough.
    fn are_above(&self, mean: f64) -> bool {
        let rest = self.sum - self.judged * mean / self.unit;
        let exponents = LAMBDAS.map(|(lambda, psi)| lambda * rest - psi * self.squares);
        let largest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // The mean of exponentials is below the largest of them.
        if largest < self.log_bar {
            return false;
        }
        let total: f64 = exponents.iter().map(|x| libm::exp(x - largest)).sum();
        largest + libm::log(total / GRID as f64) >= self.log_bar
    }

    /// The greatest mean that they are surely above; −1 at least, as rewards are in [0, 1].
    fn lower_bound(&self) -> f64 {
        let (mut low, mut high) = (-1.0, 1.0);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if self.are_above(middle) { low = middle } else { high = middle }
        }
        low
    }
}

#[cfg(test)]
mod tests;
