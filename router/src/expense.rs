//! What a fitted artifact says of a request's cost and time beyond what its size says.
//!
//! The online forecast knows a model's price card, its drift and the length of a prompt, but not what
//! is asked: a proof is answered at length and a multiple choice in a letter. So each fitted model has
//! three small regressions over the dense inputs, of ln(tokens out), ln(cost) and ln(latency). They
//! never replace the forecast; they tell how far a request *leans* from others of its size, and the
//! forecast goes on from there with what it learns online.
//!
//! A lean is w·z less its line over ln(prompt bytes), so it is zero on average at every size. It moves the
//! forecast's logarithm by at most ln 4 either way: a factor, on which price cards and drift still act.
//! The policy's own lines learn online from calls that were freed of their lean, so they are narrower,
//! which a quantile needs, and a model that is called only where it is cheap does not look cheap
//! everywhere. (Lines of calls as they came, narrowed by a fitted share, were tried on paretobandit under
//! ceilings of .083 and .23 thousandths of a dollar: they scored .826 and .883 and spent .4 % too much;
//! freed of their lean .830 and .886, within the ceiling.) Fitting is the learner's; this module only reads.
//!
//! It must never touch a worst case: what is held, and what a cap or a budget keeps out, is the price
//! card's alone.

use serde::{Deserialize, Serialize};

use crate::forecast::{Leans, log_bytes};
use crate::heads::dot;
use crate::ids::ModelName;

/// One regression; without weights it says nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LeanHead {
    /// One weight a dense input, the constant first; none where nothing is known.
    pub weights: Vec<f32>,
    /// What is taken off for each unit of ln(prompt bytes).
    pub slope: f32,
}

impl LeanHead {
    /// How far a request with these dense inputs leans; other inputs than it was fitted on say nothing.
    #[must_use]
    pub fn lean(&self, dense: &[f32], log_bytes: f64) -> f64 {
        if self.weights.is_empty() || self.weights.len() != dense.len() {
            return 0.0;
        }
        f64::from(dot(&self.weights, dense)) - f64::from(self.slope) * log_bytes
    }

    fn is_sound(&self, width: usize) -> bool {
        (self.weights.is_empty() || self.weights.len() == width)
            && self.weights.iter().all(|weight| weight.is_finite())
            && self.slope.is_finite()
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
        let [tokens_out, cost, latency] =
            [&of.tokens_out, &of.cost, &of.latency].map(|head| head.lean(dense, size));
        Leans { tokens_out, cost, latency }.held()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> LeanHead {
        LeanHead { weights: vec![0.5, -1.0, 2.0], slope: 0.25 }
    }

    fn expense() -> Expense {
        Expense { models: vec![ModelExpense { cost: head(), ..ModelExpense::default() }, ModelExpense::default()] }
    }

    #[test]
    fn a_lean_is_what_the_inputs_say_less_what_the_size_says() {
        let names = ["a".into(), "b".into()];
        let of = |dense: &[f32], bytes, model| expense().leans(&names, (dense, bytes), model);
        let found = of(&[1.0, 0.5, 0.25], 10, "a");
        assert!((found.cost - (0.5 - 0.5 + 0.5 - 0.25 * 10_f64.ln())).abs() < 1e-6, "{found:?}");
        assert_eq!(Leans { cost: 0.0, ..found }, Leans::NONE);
        assert!((of(&[1.0, 0.5, 0.25], u32::MAX, "a").cost + 4_f64.ln()).abs() < 1e-9, "it is bounded");
        for (dense, model) in [(&[1.0, 0.5, 0.25][..], "b"), (&[1.0, 0.5, 0.25], "unfitted"), (&[], "a")] {
            assert_eq!(of(dense, 10, model), Leans::NONE);
        }
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
    }
}
