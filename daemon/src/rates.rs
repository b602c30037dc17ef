//! Rates: how many requests, how many tokens and how much money may go out in a minute, for each key and to
//! each provider.
//!
//! A rate is a brake and no budget: it evens out, it forgets, and after a pause it lets a burst through. What must not
//! be passed is a budget's, in [`crate::money`]. State is in memory, one entry for each key that was seen lately;
//! idle ones are let go, and there is a bound on their number.
//!
//! The arithmetic is that of the `governor` crate (GCRA), of which only what it can represent is asked: a limit is
//! refused where its interval of whole nanoseconds would be off by more than a percent.

mod braked;
mod limiter;
mod provider;

use std::time::Duration;

use pointsman_router::ids::KeyId;

pub use self::braked::{Braked, LimitSource};
pub use self::limiter::{Limit, LimitError};
pub use self::provider::Governed;
use limiter::{Burst, Keyed, Refused};

/// Requests in a row that a limit of this many a minute lets through at once, as a share of a minute's.
const REQUEST_BURST: Burst = Burst::SixthOfAMinute;

/// What a caller may do in a minute; `None`: as much as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Requests.
    pub requests: Option<Limit>,
    /// Tokens, by estimate: a quarter of the prompt's bytes and the cap on the output.
    pub tokens: Option<Limit>,
    /// Micro-dollars that may be held, less what was given back.
    pub spend_micros: Option<Limit>,
}

impl Limits {
    /// These, and the others where these say nothing.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            requests: self.requests.or(others.requests),
            tokens: self.tokens.or(others.tokens),
            spend_micros: self.spend_micros.or(others.spend_micros),
        }
    }
}

/// What was asked for too fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metered {
    /// Requests.
    Requests,
    /// Tokens.
    Tokens,
}

/// A caller that is too fast. Nothing was done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooFast {
    /// It may come again after a while.
    #[error("the key's limit of {limit} {what} a minute is reached", what = word(*metered))]
    Wait {
        /// Of what.
        metered: Metered,
        /// How many a minute.
        limit: u32,
        /// After this long.
        retry_after: Duration,
    },
    /// No wait would help: it asks for more at once than a minute's.
    #[error("the request may take {asked} tokens, and the key's limit is {limit} a minute: ask for less output")]
    Never {
        /// What it asks for.
        asked: u64,
        /// How many a minute.
        limit: u32,
    },
}

fn word(metered: Metered) -> &'static str {
    match metered {
        Metered::Requests => "requests",
        Metered::Tokens => "tokens",
    }
}

/// Meters callers by their key; those without one share an account.
#[derive(Debug)]
pub struct Callers {
    requests: Keyed,
    tokens: Keyed,
}

impl Default for Callers {
    fn default() -> Self {
        Self::new()
    }
}

impl Callers {
    /// Nobody was seen so far.
    #[must_use]
    pub fn new() -> Self {
        Self { requests: Keyed::new(REQUEST_BURST), tokens: Keyed::new(Burst::Minute) }
    }

    /// Lets a request in that may take so many tokens.
    ///
    /// # Errors
    /// [`TooFast`], with what to do.
    pub fn admit(&self, key: Option<&KeyId>, limits: &Limits, tokens: u64) -> Result<(), TooFast> {
        let key = key.map_or("", |key| key.as_str());
        let wait = |metered, limit: Limit| {
            move |refused| match refused {
                Refused::Wait(retry_after) => TooFast::Wait { metered, limit: limit.per_minute(), retry_after },
                Refused::Never => TooFast::Never { asked: tokens, limit: limit.per_minute() },
            }
        };
        if let Some(limit) = limits.requests {
            self.requests.check(key, limit, 1).map_err(wait(Metered::Requests, limit))?;
        }
        if let Some(limit) = limits.tokens {
            self.tokens.check(key, limit, tokens).map_err(wait(Metered::Tokens, limit))?;
        }
        Ok(())
    }
}

/// Tokens that a call may take, by estimate: a quarter of the prompt's bytes, and the cap on the output.
#[must_use]
pub fn tokens(prompt_bytes: usize, output_tokens_max: Option<u32>) -> u64 {
    (prompt_bytes as u64).div_ceil(4).saturating_add(u64::from(output_tokens_max.unwrap_or(0)))
}

#[cfg(test)]
mod tests;
