//! The estimates of [`super::estimate`] as running sums: for a policy that is watched while rows come in,
//! of which none can be kept.
//!
//! The sums do not depend on the order of the rows but for rounding, and a corrected reward is taken out
//! and put in. With every row its own draw they come to the same values and the same standard errors; the
//! degrees of freedom are those of the effective sample size, since the fourth moments are not kept.

use serde::{Deserialize, Serialize};

use super::estimate::Estimate;
use super::quantile;

/// What is known of one decision before its reward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// The probability of the logged set under the policy, over that under the log.
    pub weight: f64,
    /// The modelled reward of the policy's own sets.
    pub direct: f64,
    /// The modelled reward of the logged set.
    pub modelled: f64,
}

impl Look {
    fn is_sound(&self, reward: f64) -> bool {
        let numbers = [self.weight, self.direct, self.modelled, reward];
        numbers.iter().all(|x| x.is_finite()) && self.weight >= 0.0
    }

    /// The doubly robust term of this reward.
    fn term(&self, reward: f64) -> f64 {
        self.direct + self.weight * (reward - self.modelled)
    }
}

/// Sums over judged decisions.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Sums {
    rows: u64,
    weight: f64,
    weight_squares: f64,
    weighted: f64,
    /// Σw²r and Σw²r².
    weighted_squares: [f64; 2],
    terms: f64,
    term_squares: f64,
}

impl Sums {
    /// Judged decisions.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes in a judged decision; what is no number is left out. Whether it counts.
    pub fn observe(&mut self, look: &Look, reward: f64) -> bool {
        if !look.is_sound(reward) {
            return false;
        }
        self.rows += 1;
        self.add(look, reward, 1.0);
        true
    }

    /// Takes out a judged decision that was taken in.
    pub fn withdraw(&mut self, look: &Look, reward: f64) {
        if !look.is_sound(reward) {
            return;
        }
        self.rows = self.rows.saturating_sub(1);
        self.add(look, reward, -1.0);
        if self.rows == 0 {
            *self = Self::default();
        }
    }

    fn add(&mut self, look: &Look, reward: f64, sign: f64) {
        let (w, term) = (look.weight, look.term(reward));
        self.weight += sign * w;
        self.weight_squares += sign * w * w;
        self.weighted += sign * w * reward;
        for (sum, power) in self.weighted_squares.iter_mut().zip([reward, reward * reward]) {
            *sum += sign * w * w * power;
        }
        self.terms += sign * term;
        self.term_squares += sign * term * term;
    }

    /// As how many rows of the policy's own the log counts.
    #[must_use]
    pub fn effective_sample_size(&self) -> f64 {
        if self.weight_squares > 0.0 { self.weight * self.weight / self.weight_squares } else { 0.0 }
    }

    /// The value by self-normalised inverse propensity; `None` where the policy would have done nothing
    /// that was done.
    #[must_use]
    pub fn snips(&self) -> Option<Estimate> {
        if self.weight <= 0.0 {
            return None;
        }
        let value = self.weighted / self.weight;
        let [linear, square] = self.weighted_squares;
        let squares = square - 2.0 * value * linear + value * value * self.weight_squares;
        // Linearised: the terms are w(r − value)·n/Σw, whose mean is zero.
        Some(self.estimate(value, squares * self.of_one() / (self.weight * self.weight)))
    }

    /// The value by the doubly robust estimate; `None` where nothing was judged.
    #[must_use]
    pub fn doubly_robust(&self) -> Option<Estimate> {
        if self.rows == 0 {
            return None;
        }
        let n = self.rows as f64;
        let value = self.terms / n;
        let squares = self.term_squares - n * value * value;
        Some(self.estimate(value, squares * self.of_one() / (n * n)))
    }

    /// n/(n − 1).
    fn of_one(&self) -> f64 {
        let n = self.rows as f64;
        if n > 1.0 { n / (n - 1.0) } else { f64::INFINITY }
    }

    fn estimate(&self, value: f64, variance: f64) -> Estimate {
        let standard_error = if self.rows < 2 { f64::INFINITY } else { variance.max(0.0).sqrt() };
        let degrees = (self.effective_sample_size() - 1.0).max(quantile::DEGREES_MIN);
        Estimate { value, standard_error, degrees }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::evaluate::estimate::{Judged, Observed, Plan, estimate};

    fn rows() -> impl Strategy<Value = Vec<(f64, f64, f64, f64, f64)>> {
        let unit = || 0.0..1.0_f64;
        prop::collection::vec((0.05..1.0_f64, unit(), unit(), unit(), unit()), 3..40)
    }

    proptest! {
        #[test]
        fn the_sums_come_to_what_the_rows_come_to(rows in rows()) {
            let (mut sums, mut judged, mut plans) = (Sums::default(), Vec::new(), Vec::new());
            for (at, (logged, own, direct, modelled, seen)) in rows.iter().copied().enumerate() {
                let look = Look { weight: own / logged, direct, modelled };
                // One that is corrected, and one that is withdrawn, leave nothing behind.
                sums.observe(&look, 0.3);
                sums.withdraw(&look, 0.3);
                sums.observe(&look, seen);
                judged.push(Judged {
                    cluster: at as u64,
                    propensity: logged,
                    weight: 1.0,
                    reward: Observed { seen, modelled },
                    cost: Observed { seen: 0.0, modelled: 0.0 },
                });
                plans.push(Plan { propensity: own, reward: direct, cost: 0.0, unsupported: 0.0 });
            }
            let expected = estimate(&judged, &plans).unwrap();
            let close = |got: f64, wanted: f64| (got - wanted).abs() < 1e-6 * (1.0 + wanted.abs());
            let (snips, robust) = (sums.snips().unwrap(), sums.doubly_robust().unwrap());
            prop_assert!(close(snips.value, expected.snips.value) && close(robust.value, expected.doubly_robust.value));
            prop_assert!(close(snips.standard_error, expected.snips.standard_error), "{:?} {:?}", snips, expected.snips);
            prop_assert!(close(robust.standard_error, expected.doubly_robust.standard_error));
            prop_assert!(close(sums.effective_sample_size(), expected.effective_sample_size));
        }
    }

    #[test]
    fn nothing_is_known_of_nothing() {
        let mut sums = Sums::default();
        assert_eq!((sums.snips(), sums.doubly_robust()), (None, None));
        let look = Look { weight: 1.0, direct: 0.5, modelled: 0.5 };
        assert!(!sums.observe(&Look { weight: f64::NAN, ..look }, 1.0) && sums.rows() == 0);
        sums.observe(&look, 1.0);
        assert!(sums.doubly_robust().unwrap().standard_error.is_infinite());
        sums.withdraw(&look, 1.0);
        assert_eq!(sums, Sums::default());
    }
}
