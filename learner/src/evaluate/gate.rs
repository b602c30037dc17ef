//! The gate: whether a candidate may take over, and what is missing if it may not.
//!
//! A candidate passes when all of this holds on decisions that it was not trained on:
//!
//! 1. the lower bound (δ = .025) of its doubly robust gain over the running policy, row by row, is above
//!    zero, what the log could not have drawn being charged at its worst: a whole answer each;
//! 2. the log counts as at least 100 decisions of its own (effective sample size), because below that
//!    the bound itself is not to be trusted (RECIPES, off-policy evaluation);
//! 3. its expected cost is within the budget per request or, without one, not above that of the
//!    running policy, each with a tolerance of 2 % for the noise of an estimate;
//! 4. it is not below the best single model by more than one standard error of that difference.
//!
//! The bound holds for one look at one candidate. Whoever tries many candidates on the same log picks
//! the luckiest; the canary ([`super::canary`]) is there for that, and for traffic that changed.

use std::fmt::{self, Write as _};

use super::estimate::{Estimate, Gain};

/// How strict the gate is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateSettings {
    /// The probability of promoting a candidate that is not better.
    pub delta: f64,
    /// The least effective sample size.
    pub effective_sample_size_min: f64,
    /// How far above its ceiling the estimated cost may be, relative to it.
    pub cost_tolerance: f64,
    /// By how many standard errors it may be below the best single model.
    pub single_tolerance: f64,
}

impl Default for GateSettings {
    fn default() -> Self {
        Self { delta: 0.025, effective_sample_size_min: 100.0, cost_tolerance: 0.02, single_tolerance: 1.0 }
    }
}

/// What is known of a candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// Judged decisions that it was evaluated on.
    pub rows: usize,
    /// As how many decisions of its own they count.
    pub effective_sample_size: f64,
    /// The share of its choices that the log could not have drawn.
    pub unsupported: f64,
    /// Its gain over the running policy on the same rows.
    pub gain: Gain,
    /// Its expected cost of a request, in USD.
    pub cost_usd: f64,
    /// What a request may cost: the budget, or what the running policy spends, in USD.
    pub ceiling_usd: f64,
    /// Its gain in reward over the best single model on the same rows; `None` where there is but one.
    pub over_single: Option<Estimate>,
}

/// What keeps a candidate out, in words that say what to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reason {
    /// It is not better as far as can be told.
    NotBetter {
        /// The estimated gain, not above zero.
        gain: f64,
    },
    /// It seems better, but that may be chance.
    NotShownBetter {
        /// The estimated gain.
        gain: f64,
        /// Its lower bound.
        lower: f64,
        /// Judged decisions that would show it if the gain is what it seems, all together.
        rows_wanted: f64,
    },
    /// It seems better, but where it differs the log could not have drawn its choices.
    Unsupported {
        /// The share of its choices.
        share: f64,
        /// The lower bound of the gain before that share was charged.
        lower: f64,
    },
    /// Too few logged decisions are like its own.
    TooFewAlike {
        /// The effective sample size.
        found: f64,
        /// The one that is wanted.
        wanted: f64,
        /// Judged decisions that would give it, all together; infinite if none is alike.
        rows_wanted: f64,
    },
    /// It spends too much.
    TooDear {
        /// Its expected cost of a request, in USD.
        cost_usd: f64,
        /// What a request may cost, in USD.
        ceiling_usd: f64,
    },
    /// It is worse than always asking the best single model.
    BelowSingle {
        /// The estimated difference.
        difference: f64,
        /// Its standard error.
        standard_error: f64,
    },
    /// Something of the evidence is no number.
    NotANumber,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBetter { gain } => {
                write!(f, "it is not better than the running policy (gain {gain:+.4}); train it on more feedback")
            }
            Self::NotShownBetter { gain, lower, rows_wanted } => write!(
                f,
                "its gain of {gain:+.4} may be chance (lower bound {lower:+.4}); evaluate again with about {} \
                 judged decisions, or aim exploration at it",
                grouped(*rows_wanted)
            ),
            Self::Unsupported { share, lower } => write!(
                f,
                "the log could never have drawn {:.1} % of its choices, and without them its gain (lower bound \
                 {lower:+.4}) is not shown; aim exploration at it and evaluate again",
                100.0 * share
            ),
            Self::TooFewAlike { found, wanted, rows_wanted } => {
                write!(
                    f,
                    "the log counts as {found:.0} decisions of its own and {wanted:.0} are needed; aim exploration at it"
                )?;
                if rows_wanted.is_finite() {
                    write!(f, ", or evaluate again with about {} judged decisions", grouped(*rows_wanted))?;
                }
                Ok(())
            }
            Self::TooDear { cost_usd, ceiling_usd } => write!(
                f,
                "a request would cost ${cost_usd:.3e} and may cost ${ceiling_usd:.3e}; raise the budget or the price of \
                 money it was trained with"
            ),
            Self::BelowSingle { difference, standard_error } => write!(
                f,
                "it is worse than the best single model ({difference:+.4}, standard error {standard_error:.4}); train it \
                 on more feedback"
            ),
            Self::NotANumber => {
                f.write_str("its estimates are no numbers; evaluate it on decisions with feedback")
            }
        }
    }
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What is missing; nothing when the candidate passes.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Whether the candidate may be promoted.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// Judges the evidence; all that is missing is said at once.
#[must_use]
pub fn judge(evidence: &Evidence, settings: &GateSettings) -> Verdict {
    let Evidence { rows, effective_sample_size: found, unsupported, gain, cost_usd, ceiling_usd, over_single } =
        *evidence;
    let lower = gain.reward.lower(settings.delta);
    let numbers = [found, unsupported, gain.reward.value, cost_usd, ceiling_usd];
    if numbers.iter().any(|x| !x.is_finite()) || lower.is_nan() {
        return Verdict { reasons: vec![Reason::NotANumber] };
    }
    let mut reasons = Vec::new();
    reasons.extend(not_better(&gain.reward, lower, unsupported, rows));
    let wanted = settings.effective_sample_size_min;
    if found < wanted {
        reasons.push(Reason::TooFewAlike { found, wanted, rows_wanted: rows as f64 * wanted / found });
    }
    if cost_usd > ceiling_usd * (1.0 + settings.cost_tolerance) {
        reasons.push(Reason::TooDear { cost_usd, ceiling_usd });
    }
    if let Some(Estimate { value: difference, standard_error, .. }) = over_single
        && difference < -settings.single_tolerance * standard_error
    {
        reasons.push(Reason::BelowSingle { difference, standard_error });
    }
    Verdict { reasons }
}

fn not_better(gain: &Estimate, lower: f64, unsupported: f64, rows: usize) -> Option<Reason> {
    if lower - unsupported > 0.0 {
        None
    } else if lower > 0.0 {
        Some(Reason::Unsupported { share: unsupported, lower })
    } else if gain.value > 0.0 {
        // The bound comes closer with the root of the rows.
        let rows_wanted = rows as f64 * ((gain.value - lower) / gain.value).powi(2);
        Some(Reason::NotShownBetter { gain: gain.value, lower, rows_wanted })
    } else {
        Some(Reason::NotBetter { gain: gain.value })
    }
}

/// A number of decisions, rounded up to two figures, with its thousands apart.
fn grouped(rows: f64) -> String {
    if !rows.is_finite() {
        return "many more".to_owned();
    }
    let step = 10_f64.powf((libm::log10(rows.max(1.0)).floor() - 1.0).max(0.0));
    let digits = format!("{:.0}", (rows / step).ceil() * step);
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        // Writing to a string cannot fail.
        let _ = text.write_char(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(value: f64, standard_error: f64) -> Estimate {
        Estimate { value, standard_error, degrees: f64::INFINITY }
    }

    fn good() -> Evidence {
        Evidence {
            rows: 1_000,
            effective_sample_size: 400.0,
            unsupported: 0.0,
            gain: Gain { reward: estimate(0.05, 0.01), cost: estimate(0.0, 0.0) },
            cost_usd: 1e-4,
            ceiling_usd: 1e-4,
            over_single: Some(estimate(0.01, 0.01)),
        }
    }

    fn check(evidence: &Evidence, expected: impl Fn(&[Reason]) -> bool) {
        let verdict = judge(evidence, &GateSettings::default());
        assert!(expected(&verdict.reasons), "{verdict:?}");
        assert_eq!(verdict.passes(), verdict.reasons.is_empty());
        for reason in &verdict.reasons {
            let words = reason.to_string();
            assert!(words.len() > 40 && !words.ends_with('.'), "{words}");
        }
    }

    #[test]
    fn a_good_candidate_passes() {
        check(&good(), <[Reason]>::is_empty);
        check(&Evidence { cost_usd: 1.019e-4, over_single: None, ..good() }, <[Reason]>::is_empty);
        check(&Evidence { over_single: Some(estimate(-0.01, 0.011)), ..good() }, <[Reason]>::is_empty);
    }

    #[test]
    fn each_fault_is_said_and_all_at_once() {
        let gain = |value, standard_error| Gain { reward: estimate(value, standard_error), ..good().gain };
        check(&Evidence { gain: gain(-0.01, 0.1), ..good() }, |r| matches!(r, [Reason::NotBetter { .. }]));
        check(
            &Evidence { gain: gain(0.01, 0.01), ..good() },
            // 1.96² times the rows bring the bound to zero.
            |r| matches!(r, [Reason::NotShownBetter { rows_wanted, .. }] if (rows_wanted - 3_841.46).abs() < 0.1),
        );
        check(&Evidence { unsupported: 0.04, ..good() }, |r| matches!(r, [Reason::Unsupported { .. }]));
        check(
            &Evidence { effective_sample_size: 50.0, ..good() },
            |r| matches!(r, [Reason::TooFewAlike { rows_wanted, .. }] if (rows_wanted - 2_000.0).abs() < 1e-9),
        );
        check(&Evidence { cost_usd: 1.03e-4, ..good() }, |r| matches!(r, [Reason::TooDear { .. }]));
        check(&Evidence { over_single: Some(estimate(-0.02, 0.01)), ..good() }, |r| {
            matches!(r, [Reason::BelowSingle { .. }])
        });
        let bad = Evidence {
            effective_sample_size: 0.0,
            cost_usd: 1.0,
            gain: gain(0.0, f64::INFINITY),
            over_single: Some(estimate(-1.0, 0.1)),
            ..good()
        };
        check(&bad, |r| r.len() == 4);
        check(&Evidence { cost_usd: f64::NAN, ..good() }, |r| r == [Reason::NotANumber]);
    }

    #[test]
    fn numbers_of_decisions_are_readable() {
        let shown = [1.0, 99.0, 3_841.46, 1_234_567.0, f64::INFINITY].map(grouped);
        assert_eq!(shown, ["1", "99", "3,900", "1,300,000", "many more"]);
    }
}
