//! What a fitted artifact says of a request's cost and time beyond what its size says.
//!
//! The online forecast knows a model's price card, its drift and the length of a prompt, but not what
//! is asked: a proof is answered at length and a multiple choice in a letter. So each fitted model has
//! three small regressions over the dense inputs, of ln(tokens out), ln(cost) and ln(latency). They
//! never replace the forecast; they tell how far a request *leans* from others of its size, and the
//! forecast goes on from there with what it learns online.
//!
//! A lean is w·z less its line over ln(prompt bytes), so it is zero on average at every size and the
//! online line means the same with it and without. The share of the variance that it leaves is told
//! beside it: a mean and a quantile of a log-normal both need it. (A factor on the finished forecast,
//! which leaves the variance as it was, was wrong by half of the variance that the lean explains.)
//! Fitting is the learner's; this module only reads.
//!
//! It must never touch a worst case: what is held, and what a cap or a budget keeps out, is the price
//! card's alone.

use serde::{Deserialize, Serialize};

use crate::forecast::{Lean, Leans, log_bytes};
use crate::heads::dot;
use crate::ids::ModelName;

/// One regression; without weights it says nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LeanHead {
    /// One weight a dense input, the constant first; none where nothing is known.
    pub weights: Vec<f32>,
    /// What is taken off for each unit of ln(prompt bytes).
    pub slope: f32,
    /// The share of the variance that it leaves, in [0, 1].
    pub spread: f32,
}

impl LeanHead {
    /// How far a request with these dense inputs leans.
    #[must_use]
    pub fn lean(&self, dense: &[f32], log_bytes: f64) -> Lean {
        if self.weights.is_empty() {
            return Lean::NONE;
        }
        let shift = f64::from(dot(&self.weights, dense)) - f64::from(self.slope) * log_bytes;
        Lean { shift, spread: f64::from(self.spread) }
    }

    fn is_sound(&self, width: usize) -> bool {
        (self.weights.is_empty() || self.weights.len() == width)
            && self.weights.iter().all(|weight| weight.is_finite())
            && self.slope.is_finite()
            && (0.0..=1.0).contains(&self.spread)
    }
}

/// What is known of one model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ModelExpense {
    /// Of output tokens.
    pub tokens_out: LeanHead,
    /// Of what a call costs.
    pub cost: LeanHead,
    /// Of how long it takes.
    pub latency: LeanHead,
}

/// All fitted models, in the order of [`crate::quality::Quality::models`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Expense {
    /// One each.
    pub models: Vec<ModelExpense>,
}

impl Expense {
    /// Whether there is one for each of so many models, with weights for inputs of this width, and every
    /// number is one.
    #[must_use]
    pub fn is_sound(&self, width: usize, models: usize) -> bool {
        let sound = |of: &ModelExpense| [&of.tokens_out, &of.cost, &of.latency].iter().all(|h| h.is_sound(width));
        self.models.len() == models && self.models.iter().all(sound)
    }

    /// How far calls of `model` lean on a request with these dense inputs; `names` are the fitted models.
    #[must_use]
    pub fn leans(&self, names: &[ModelName], (dense, prompt_bytes): (&[f32], u32), model: &str) -> Leans {
        let at = names.iter().position(|name| name.as_str() == model);
        let Some(of) = at.and_then(|at| self.models.get(at)) else { return Leans::NONE };
        let size = log_bytes(prompt_bytes);
        Leans {
            tokens_out: of.tokens_out.lean(dense, size),
            cost: of.cost.lean(dense, size),
            latency: of.latency.lean(dense, size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> LeanHead {
        LeanHead { weights: vec![0.5, -1.0, 2.0], slope: 0.25, spread: 0.6 }
    }

    fn expense() -> Expense {
        Expense { models: vec![ModelExpense { cost: head(), ..ModelExpense::default() }, ModelExpense::default()] }
    }

    #[test]
    fn a_lean_is_what_the_inputs_say_less_what_the_size_says() {
        let names = ["a".into(), "b".into()];
        let of = |model| expense().leans(&names, (&[1.0, 0.5, 0.25], 1_000), model);
        let wanted = 0.5 - 0.5 + 0.5 - 0.25 * 1_000_f64.ln();
        let found = of("a");
        assert!((found.cost.shift - wanted).abs() < 1e-6 && (found.cost.spread - 0.6).abs() < 1e-6, "{found:?}");
        assert_eq!((found.tokens_out, found.latency), (Lean::NONE, Lean::NONE));
        assert_eq!((of("b"), of("unfitted")), (Leans::NONE, Leans::NONE));
    }

    #[test]
    fn what_does_not_fit_is_unsound() {
        assert!(expense().is_sound(3, 2) && !expense().is_sound(4, 2) && !expense().is_sound(3, 1));
        let check = |spoil: fn(&mut LeanHead)| {
            let mut spoilt = expense();
            spoil(&mut spoilt.models[1].latency);
            assert!(!spoilt.is_sound(3, 2), "{spoilt:?}");
        };
        check(|h| h.weights = vec![f32::NAN; 3]);
        check(|h| h.weights = vec![0.0; 2]);
        check(|h| h.slope = f32::INFINITY);
        check(|h| h.spread = 1.5);
        check(|h| h.spread = f32::NAN);
    }
}
