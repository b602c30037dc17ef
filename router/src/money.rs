//! Money as integers: nano-dollars in 64 bits, checked at every step.
//!
//! Money is never a float here. A call's cost is computed exactly in 128 bits and rounded up once;
//! sums are shown to people in micro-dollars, rounded up from the sum (rounding each cheap call to
//! a micro-dollar would inflate it by over a percent). An overflow is an answer (`None`), never a
//! wrap and never a panic.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount of money in nano-dollars (1e-9 USD). Negative amounts are balances that overran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct NanoUsd(i64);

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount, nine billion dollars.
    pub const MAX: Self = Self(i64::MAX);

    /// From nano-dollars.
    #[must_use]
    pub const fn new(nanos: i64) -> Self {
        Self(nanos)
    }

    /// The amount in nano-dollars.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// From micro-dollars; `None` beyond nine billion dollars.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Option<Self> {
        match micros.checked_mul(1_000) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// From dollars as a person or a recorded file writes them, rounded up to a nano-dollar; `None`
    /// when the figure is not finite or out of range.
    #[must_use]
    pub fn from_usd(usd: f64) -> Option<Self> {
        let nanos = (usd * 1e9).ceil();
        // 2^63 is exact in f64; anything below it fits.
        #[expect(clippy::cast_possible_truncation, reason = "the range was checked on this line")]
        (nanos.is_finite() && nanos.abs() < 9_223_372_036_854_775_808.0).then_some(Self(nanos as i64))
    }

    /// The amount in dollars, for display and for estimates, never for accounting.
    #[must_use]
    pub fn usd(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Micro-dollars, rounded up (towards more spent).
    #[must_use]
    pub const fn micros_rounded_up(self) -> i64 {
        self.0.div_euclid(1_000) + if self.0.rem_euclid(1_000) > 0 { 1 } else { 0 }
    }

    /// The sum, or `None` on overflow.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, or `None` on overflow.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Self(difference)),
            None => None,
        }
    }

    /// The sum, held at the ends of the range: for worst cases, where more than everything is denied
    /// like everything.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, held at the ends of the range.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// This amount `times` over, held at the end of the range.
    #[must_use]
    pub const fn saturating_mul(self, times: u32) -> Self {
        Self(self.0.saturating_mul(times as i64))
    }
}

impl std::iter::Sum for NanoUsd {
    /// Adds up, held at the ends of the range.
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        write!(f, "{sign}${}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
    }
}

/// What a provider charges: per million tokens in and out, and per call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Price {
    /// Nano-dollars per million input tokens.
    pub input_per_million_tokens: NanoUsd,
    /// Nano-dollars per million output tokens.
    pub output_per_million_tokens: NanoUsd,
    /// Nano-dollars for each call, whatever it holds.
    pub per_call: NanoUsd,
}

impl Price {
    /// The cost of one call, rounded up once to a nano-dollar; `None` when it does not fit.
    #[must_use]
    pub fn cost(&self, tokens_in: u64, tokens_out: u64) -> Option<NanoUsd> {
        const MILLION: i128 = 1_000_000;
        let tokens = i128::from(tokens_in)
            .checked_mul(i128::from(self.input_per_million_tokens.0))?
            .checked_add(i128::from(tokens_out).checked_mul(i128::from(self.output_per_million_tokens.0))?)?;
        let rounded_up = tokens.div_euclid(MILLION) + i128::from(tokens.rem_euclid(MILLION) > 0);
        i64::try_from(rounded_up.checked_add(i128::from(self.per_call.0))?).ok().map(NanoUsd)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cost_is_exact_and_rounded_up_once() {
        let price = Price {
            input_per_million_tokens: NanoUsd::new(37_500_000),
            output_per_million_tokens: NanoUsd::new(150_000_000),
            per_call: NanoUsd::ZERO,
        };
        // 3 · 37.5 + 1 · 150 = 262.5 nano-dollars
        assert_eq!(price.cost(3, 1), Some(NanoUsd::new(263)));
        assert_eq!(price.cost(0, 0), Some(NanoUsd::ZERO));
        assert_eq!(price.cost(u64::MAX, u64::MAX), None);
    }

    #[test]
    fn micros_are_rounded_towards_more_spent() {
        for (nanos, micros) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (-1, 0), (-1_000, -1), (-1_001, -1)] {
            assert_eq!(NanoUsd::new(nanos).micros_rounded_up(), micros, "{nanos}");
        }
        assert_eq!(NanoUsd::new(-1_500_000_000).to_string(), "-$1.500000000");
        assert_eq!(NanoUsd::from_usd(f64::NAN), None);
        assert_eq!(NanoUsd::from_usd(1e10), None);
        assert_eq!(NanoUsd::from_usd(2.5), Some(NanoUsd::new(2_500_000_000)));
    }

    /// A million price cards and token counts of every size, held against 256-bit products put together by hand.
    #[test]
    fn a_million_costs_are_exact_or_do_not_fit() {
        let mut draw = crate::clock::Draw::from_seed(1);
        let (mut fit, mut spilled) = (0_u32, 0_u32);
        for _ in 0..1_000_000 {
            let mut of_any_size = || draw.next_u64() >> (draw.next_u64() % 64);
            let (tokens_in, tokens_out) = (of_any_size(), of_any_size());
            let mut nanos = || i64::try_from(of_any_size() >> 1).unwrap();
            let price = Price {
                input_per_million_tokens: NanoUsd::new(nanos()),
                output_per_million_tokens: NanoUsd::new(nanos()),
                per_call: NanoUsd::new(nanos()),
            };
            // Millionths of nano-dollars in halves of 64 bits: high, low.
            let times =
                |tokens: u64, price: NanoUsd| u128::from(tokens) * u128::from(price.nanos().unsigned_abs());
            let (input, output) = (
                times(tokens_in, price.input_per_million_tokens),
                times(tokens_out, price.output_per_million_tokens),
            );
            let (quotient, rest) =
                (input / 1_000_000 + output / 1_000_000, input % 1_000_000 + output % 1_000_000);
            let exact = quotient + rest.div_ceil(1_000_000) + u128::from(price.per_call.nanos().unsigned_abs());
            match (price.cost(tokens_in, tokens_out), i64::try_from(exact)) {
                (Some(cost), Ok(exact)) => {
                    assert_eq!(cost, NanoUsd::new(exact));
                    fit += 1;
                }
                // What the intermediate sum cannot hold is refused, though it might have fitted: never undercharged.
                (None, _) => spilled += 1,
                (cost, exact) => panic!("{price:?}, {tokens_in} in, {tokens_out} out: {cost:?}, {exact:?}"),
            }
        }
        assert!(fit > 300_000 && spilled > 100_000, "{fit} {spilled}");
    }

    proptest! {
        #[test]
        fn a_cost_is_never_under_the_exact_one_and_at_most_a_nano_above(
            tokens_in in 0_u64..2_000_000, tokens_out in 0_u64..200_000,
            input in 0_i64..1_000_000_000_000, output in 0_i64..1_000_000_000_000,
        ) {
            let price = Price {
                input_per_million_tokens: NanoUsd::new(input),
                output_per_million_tokens: NanoUsd::new(output),
                per_call: NanoUsd::ZERO,
            };
            let exact_millionths = u128::from(tokens_in) * input.unsigned_abs() as u128
                + u128::from(tokens_out) * output.unsigned_abs() as u128;
            let charged = u128::try_from(price.cost(tokens_in, tokens_out).unwrap().nanos()).unwrap() * 1_000_000;
            prop_assert!(charged >= exact_millionths);
            prop_assert!(charged - exact_millionths < 1_000_000);
        }
    }
}
