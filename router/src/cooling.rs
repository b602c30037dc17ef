//! How boldly the bandit draws, by how long it has known a model.
//!
//! Thompson sampling goes on telling near-equals apart for as long as it runs, at a price that grows
//! with the logarithm of time and, over a dozen models, is more than the difference is worth. So the
//! draws begin wider than the belief, which keeps an unlucky start from deciding, and narrow as labels
//! come in. A model's own age counts, not that of the whole: one that is added later is tried as
//! boldly as the first ones were. The draws never narrow beyond a least width, so that exploring slows
//! down and does not end.

/// Labels after which the draws narrow, and how far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cooling {
    /// Multiplies the belief's standard deviation while a model is new.
    pub first: f64,
    /// The same at last.
    pub least: f64,
    /// After about so many labels, of whichever models, the draws are markedly narrower.
    pub labels: f64,
}

/// How fast: the width falls as (1 + age / labels)^−3/4.
const POWER: f64 = 0.75;

impl Cooling {
    /// The best of those tried on recorded outcomes.
    pub const COLD_START: Self = Self { first: 2.0, least: 0.1, labels: 200.0 };

    /// The age at which the draws of a head begin that stands on a fitted logit: as narrow as they get.
    pub const FITTED_AGE: f32 = 100_000.0;

    /// Draws of one width at every age; 1 is plain Thompson.
    #[must_use]
    pub const fn none(width: f64) -> Self {
        Self { first: width, least: width, labels: 1.0 }
    }

    /// What the standard deviation is multiplied by at this age, in labels.
    #[must_use]
    pub fn width(&self, age: f32) -> f64 {
        (self.first * libm::pow(1.0 + f64::from(age) / self.labels, -POWER)).max(self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cooling: Cooling, age: f32, expected: f64) {
        assert!((cooling.width(age) - expected).abs() < 1e-9, "{cooling:?} at {age}: {}", cooling.width(age));
    }

    #[test]
    fn draws_narrow_with_age_to_the_least_width() {
        let cooling = Cooling { first: 2.0, least: 0.1, labels: 100.0 };
        check(cooling, 0.0, 2.0);
        check(cooling, 1_500.0, 0.25);
        check(cooling, 1e9, 0.1);
        check(Cooling::none(0.5), 0.0, 0.5);
        check(Cooling::none(0.5), 1e9, 0.5);
    }
}
