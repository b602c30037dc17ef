//! When the best single model is to stand in for the running policy: a policy that learns is never to be worth
//! less than always beginning with the same model.
//!
//! Each judged decision gives every model on offer a doubly robust term of its utility, as if it had always been
//! picked first, and the policy one of its own; what counts is their difference, of which the noise that both share
//! is gone. Sums fade by 1 − 1/[`HORIZON`] a decision, for a policy that learns is another one later. The rules
//! stick to what is, so that chance does not switch to and fro:
//!
//! | now | then | when |
//! |---|---|---|
//! | the policy | a model stands in | [`BEGIN_ROWS`] judged decisions, and the best of those models whose effective sample size is at least [`EFFECTIVE_MIN`] is better by [`BEGIN_ERRORS`] standard errors and [`MARGIN`] |
//! | a model | the policy again | [`END_ROWS`] judged decisions since, the policy's own effective sample size is at least [`EFFECTIVE_MIN`], and it is better than that model by [`END_ERRORS`] standard errors |
//!
//! It takes much to begin, for several models are looked at many times; it takes less to end, for the policy has
//! learned since. Sums begin anew at each change.

use std::collections::BTreeMap;

use pointsman_router::ids::ModelName;
use serde::{Deserialize, Serialize};

use super::estimate::Estimate;
use super::quantile::DEGREES_MIN;
use super::running::Look;

/// About how many judged decisions count.
pub const HORIZON: f64 = 1_000.0;
/// Judged decisions before anybody stands in.
pub const BEGIN_ROWS: u64 = 2_000;
/// By how much a model must be better: less is not worth a change.
pub const MARGIN: f64 = 0.005;
/// Judged decisions before the policy may be back.
pub const END_ROWS: u64 = 500;
/// By how many standard errors a model must be better.
pub const BEGIN_ERRORS: f64 = 3.0;
/// By how many standard errors the policy must be better to be back.
pub const END_ERRORS: f64 = 1.0;
/// As how many of their own the judged decisions must count.
pub const EFFECTIVE_MIN: f64 = 50.0;
/// Models that are counted, at most.
const RIVALS_MAX: usize = 1_024;

/// Fading sums of weights.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Weights {
    sum: f64,
    squares: f64,
}

impl Weights {
    fn fade(&mut self) {
        self.sum *= KEEP;
        self.squares *= KEEP;
    }

    fn add(&mut self, weight: f64) {
        self.sum += weight;
        self.squares += weight * weight;
    }

    fn effective(&self) -> f64 {
        if self.squares > 0.0 { self.sum * self.sum / self.squares } else { 0.0 }
    }
}

const KEEP: f64 = 1.0 - 1.0 / HORIZON;

/// One model against the policy.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Rival {
    /// Σ1, and Σ1² where each fades twice.
    rows: f64,
    rows_squared: f64,
    /// Of the model's term less the policy's.
    sum: f64,
    squares: f64,
    weights: Weights,
}

impl Rival {
    fn fade(&mut self) {
        self.rows *= KEEP;
        self.rows_squared *= KEEP * KEEP;
        self.sum *= KEEP;
        self.squares *= KEEP;
        self.weights.fade();
    }

    fn mean(&self) -> f64 {
        self.sum / self.rows
    }

    fn standard_error(&self) -> f64 {
        let mean = self.mean();
        ((self.squares / self.rows - mean * mean).max(0.0) * self.rows_squared).sqrt() / self.rows
    }
}

/// What judged decisions say of the policy and of each model alone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Fallback {
    judged: u64,
    own: Weights,
    rivals: BTreeMap<ModelName, Rival>,
}

/// What is to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// This model is to stand in.
    Begin(ModelName),
    /// The policy is to decide again.
    End,
}

impl Fallback {
    /// Takes in a judged decision, or puts one score in the place of another: what the policy would have done
    /// there, and what each model on offer would have, `direct` as a utility. Looks that are no numbers are left out.
    pub fn observe(&mut self, own: &Look, rivals: &[(ModelName, Look)], scores: (Option<f64>, Option<f64>)) {
        let (before, Some(after)) = scores else { return };
        let difference = |look: &Look, score: f64| {
            look.direct - own.direct + look.weight * (score - look.modelled) - own.weight * (score - own.modelled)
        };
        let is_sound = |look: &Look| difference(look, after).is_finite() && look.weight >= 0.0;
        if before.is_none() {
            self.judged += 1;
            self.own.fade();
            self.rivals.values_mut().for_each(Rival::fade);
            if own.weight.is_finite() {
                self.own.add(own.weight);
            }
        }
        for (model, look) in rivals.iter().filter(|(_, look)| is_sound(look)) {
            if self.rivals.len() >= RIVALS_MAX && !self.rivals.contains_key(model) {
                continue;
            }
            let rival = self.rivals.entry(model.clone()).or_default();
            let now = difference(look, after);
            rival.sum += now;
            rival.squares += now * now;
            match before.map(|before| difference(look, before)) {
                Some(then) => {
                    rival.sum -= then;
                    rival.squares -= then * then;
                }
                None => {
                    rival.rows += 1.0;
                    rival.rows_squared += 1.0;
                    rival.weights.add(look.weight);
                }
            }
        }
    }

    /// The best model of the moment, among those of which enough is known.
    #[must_use]
    pub fn best(&self) -> Option<&ModelName> {
        let known = self.rivals.iter().filter(|(_, rival)| rival.weights.effective() >= EFFECTIVE_MIN);
        known.max_by(|(_, a), (_, b)| a.mean().total_cmp(&b.mean())).map(|(model, _)| model)
    }

    /// The policy's utility less that of always beginning with this model.
    #[must_use]
    pub fn difference(&self, model: &ModelName) -> Option<Estimate> {
        let rival = self.rivals.get(model).filter(|rival| rival.rows > 1.0)?;
        let effective = rival.rows * rival.rows / rival.rows_squared;
        let degrees = (effective - 1.0).max(DEGREES_MIN);
        Some(Estimate { value: -rival.mean(), standard_error: rival.standard_error(), degrees })
    }

    /// What is to change while this model, or nobody, stands in.
    #[must_use]
    pub fn turn(&self, stands_in: Option<&ModelName>) -> Option<Turn> {
        match stands_in {
            None => {
                let best = self.best().filter(|_| self.judged >= BEGIN_ROWS)?;
                let rival = self.rivals.get(best)?;
                let is_better = rival.mean() > MARGIN.max(BEGIN_ERRORS * rival.standard_error());
                is_better.then(|| Turn::Begin(best.clone()))
            }
            Some(model) => {
                let is_known = self.judged >= END_ROWS && self.own.effective() >= EFFECTIVE_MIN;
                let rival = self.rivals.get(model).filter(|_| is_known)?;
                (rival.mean() < -END_ERRORS * rival.standard_error()).then_some(Turn::End)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pointsman_router::clock::Draw;

    use super::*;

    /// Judged decisions between two models that are right with these probabilities: the policy picks the second
    /// with `own`, and what is logged is drawn with `logged`; both believe that either is right half the time.
    fn after(rows: u64, qualities: (f64, f64), own: f64, logged: f64) -> Fallback {
        let mut fallback = Fallback::default();
        let mut draw = Draw::from_seed(4);
        for _ in 0..rows {
            let second = draw.uniform() < logged;
            let right = draw.uniform() < if second { qualities.1 } else { qualities.0 };
            let drawn = if second { logged } else { 1.0 - logged };
            let of = |picks_second: f64| Look {
                weight: if second { picks_second } else { 1.0 - picks_second } / drawn,
                direct: 0.5,
                modelled: 0.5,
            };
            let rivals = [("first", 0.0), ("second", 1.0)].map(|(name, picks)| (ModelName::new(name), of(picks)));
            fallback.observe(&of(own), &rivals, (None, Some(f64::from(u8::from(right)))));
        }
        fallback
    }

    fn first() -> ModelName {
        "first".into()
    }

    #[test]
    fn a_model_stands_in_when_the_policy_is_worse_and_not_before_that_is_known() {
        let worse = after(BEGIN_ROWS, (0.8, 0.5), 0.5, 0.5);
        assert_eq!(worse.turn(None), Some(Turn::Begin(first())));
        let difference = worse.difference(&first()).unwrap();
        assert!((difference.value + 0.15).abs() < 0.04 && difference.standard_error < 0.03, "{difference:?}");
        assert_eq!(after(BEGIN_ROWS - 1, (0.8, 0.5), 0.5, 0.5).turn(None), None);
        // The policy picks the better one, or there is no better one.
        assert_eq!(after(3_000, (0.8, 0.5), 0.0, 0.1).turn(None), None);
        assert_eq!(after(3_000, (0.6, 0.6), 0.5, 0.5).turn(None), None);
        // What was hardly ever tried is not known.
        let untried = after(BEGIN_ROWS, (0.5, 0.9), 0.003, 0.003);
        assert_eq!((untried.best(), untried.turn(None)), (Some(&first()), None));
    }

    #[test]
    fn the_policy_is_back_when_it_is_better_and_not_when_it_is_as_good() {
        // It has learned to pick the second, which is better now; a tenth of what is logged is its own.
        assert_eq!(after(1_500, (0.6, 0.9), 0.95, 0.095).turn(Some(&first())), Some(Turn::End));
        assert_eq!(after(END_ROWS - 1, (0.6, 0.9), 0.95, 0.095).turn(Some(&first())), None);
        assert_eq!(after(1_500, (0.8, 0.5), 0.5, 0.05).turn(Some(&first())), None);
        assert_eq!(after(1_500, (0.8, 0.5), 0.0, 0.0).turn(Some(&first())), None);
    }

    #[test]
    fn what_is_right_most_of_the_time_never_turns() {
        let turns = (0..40).filter(|seed| {
            let mut fallback = Fallback::default();
            let mut draw = Draw::from_seed(*seed);
            (0..6_000).any(|_| {
                let second = draw.uniform() < 0.5;
                let right = f64::from(u8::from(draw.uniform() < 0.7));
                let of = |weight: f64| Look { weight, direct: 0.7, modelled: 0.7 };
                let rivals = [("first", !second), ("second", second)]
                    .map(|(name, hit)| (ModelName::new(name), of(2.0 * f64::from(u8::from(hit)))));
                fallback.observe(&of(1.0), &rivals, (None, Some(right)));
                fallback.turn(None).is_some()
            })
        });
        let turns = turns.count();
        // Looked at 4,000 times each.
        assert!(turns <= 2, "{turns} of 40");
    }

    #[test]
    fn a_corrected_score_takes_the_place_of_the_one_before() {
        let look = |weight: f64| Look { weight, direct: 0.5, modelled: 0.5 };
        let rivals = [(first(), look(2.0))];
        let (mut corrected, mut at_once) = (Fallback::default(), Fallback::default());
        corrected.observe(&look(1.0), &rivals, (None, Some(0.0)));
        corrected.observe(&look(1.0), &rivals, (Some(0.0), Some(1.0)));
        at_once.observe(&look(1.0), &rivals, (None, Some(1.0)));
        assert_eq!(corrected, at_once);
        corrected.observe(&look(f64::NAN), &rivals, (None, Some(1.0)));
        corrected.observe(&look(1.0), &rivals, (Some(1.0), None));
        assert!(corrected.difference(&first()).is_none_or(|d| d.value.is_finite()));
    }
}
