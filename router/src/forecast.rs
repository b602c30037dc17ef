//! What a call of a model is going to cost and how long it is going to take.
//!
//! Kept apart from quality, so that a price change is known at once and a slow day does not look
//! like a wrong answer. `learner::online` updates the heads in trace order; here they are read. Where a
//! fitted policy knows more of a request than its size, it says how far the request leans
//! ([`crate::expense`]), and the line is moved by that; the line of such a policy learns from calls
//! that were freed of their lean.
//!
//! A forecast is an expectation and must never be taken for a limit: money is held by the price card.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::ModelName;
use crate::model::{ModelCard, Pricing};
use crate::money::NanoUsd;

/// The expectation for one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Expected cost of one successful attempt.
    pub cost: NanoUsd,
    /// 95th percentile of the latency; `None` before any call was seen.
    pub latency_p95: Option<Duration>,
}

/// A running line log(y) ≈ a + b·log(prompt bytes) with a normal residual: ridge regression on two
/// coefficients, kept as its sufficient statistics so that the order of equal sums is the order of
/// the traces.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LogLine {
    /// Observations.
    pub n: f64,
    /// Σ x, Σ x², Σ y, Σ xy, Σ y² of the logarithms.
    pub sums: [f64; 5],
}

/// Ridge weight of the slope: a handful of calls does not make a line.
const SLOPE_RIDGE: f64 = 8.0;
/// Residual variance assumed before it is known, as four observations of a factor of two.
const PRIOR_VARIANCE: f64 = 0.48;
/// How many observations the assumed variance weighs.
const PRIOR_WEIGHT: f64 = 4.0;

impl LogLine {
    /// Takes in one observation; values that have no logarithm are left out.
    pub fn observe(&mut self, prompt_bytes: u32, y: f64) {
        if y > 0.0 && y.is_finite() {
            let (x, y) = (log_bytes(prompt_bytes), libm::log(y));
            self.n += 1.0;
            for (sum, term) in self.sums.iter_mut().zip([x, x * x, y, x * y, y * y]) {
                *sum += term;
            }
        }
    }

    /// Mean and variance of log(y) at this prompt length; `None` before any observation.
    #[must_use]
    pub fn predict(&self, prompt_bytes: u32) -> Option<(f64, f64)> {
        if self.n < 1.0 {
            return None;
        }
        let [sx, sxx, sy, sxy, syy] = self.sums;
        let (mx, my) = (sx / self.n, sy / self.n);
        let (cxx, cxy, cyy) = (sxx - self.n * mx * mx, sxy - self.n * mx * my, syy - self.n * my * my);
        let slope = cxy / (cxx + SLOPE_RIDGE);
        let residual = (cyy - 2.0 * slope * cxy + slope * slope * cxx).max(0.0);
        let variance = (PRIOR_WEIGHT * PRIOR_VARIANCE + residual) / (PRIOR_WEIGHT + self.n);
        Some((my + slope * (log_bytes(prompt_bytes) - mx), variance))
    }
}

/// ln(prompt bytes), the x of every line.
#[must_use]
pub fn log_bytes(prompt_bytes: u32) -> f64 {
    libm::log(f64::from(prompt_bytes.max(1)))
}

/// How far calls of a model depart, on a request, from those on others of its size: what is added to the
/// mean of each logarithm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Leans {
    /// Of output tokens.
    pub tokens_out: f64,
    /// Of the cost, for models that are metered.
    pub cost: f64,
    /// Of the latency.
    pub latency: f64,
}

/// No lean counts for more than a factor of four: beyond, there was nothing to fit on.
const LEAN_MAX: f64 = 2.0 * std::f64::consts::LN_2;

impl Leans {
    /// Nothing is known beyond the size.
    pub const NONE: Self = Self { tokens_out: 0.0, cost: 0.0, latency: 0.0 };

    /// The leans as they count: bounded, and nothing where one is no number.
    #[must_use]
    pub fn held(self) -> Self {
        let held = |lean: f64| if lean.is_nan() { 0.0 } else { lean.clamp(-LEAN_MAX, LEAN_MAX) };
        Self { tokens_out: held(self.tokens_out), cost: held(self.cost), latency: held(self.latency) }
    }
}

/// A request, as far as a forecast goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Foreseen {
    /// UTF-8 bytes that are sent.
    pub prompt_bytes: u32,
    /// What the caller allows.
    pub output_tokens_max: Option<u32>,
    /// What is known of it beyond its size.
    pub leans: Leans,
}

/// What was seen of one model's calls.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ModelForecast {
    /// Output tokens per call.
    pub tokens_out: LogLine,
    /// Nano-dollars per call, for models that are metered.
    pub cost_nanos: LogLine,
    /// Microseconds per call.
    pub latency_us: LogLine,
}

/// Output tokens expected of a model that was never called.
const TOKENS_OUT_UNSEEN: f64 = 256.0;
/// Bytes of English text and code per token, by the common rule of thumb.
const BYTES_PER_TOKEN: f64 = 4.0;
/// The 95th percentile of the standard normal distribution.
const Z95: f64 = 1.645;

/// The heads of all models.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Forecasts {
    /// By model; a model that is missing was never called.
    pub models: BTreeMap<ModelName, ModelForecast>,
}

impl Forecasts {
    /// The expectation for one call with this request. Never above what the price card allows.
    #[must_use]
    pub fn forecast(&self, card: &ModelCard, request: &Foreseen) -> Forecast {
        let seen = self.models.get(&card.name).copied().unwrap_or_default();
        let Foreseen { prompt_bytes, output_tokens_max, leans } = *request;
        let leans = leans.held();
        let predict =
            |line: &LogLine, lean: f64| line.predict(prompt_bytes).map(|(mean, variance)| (mean + lean, variance));
        let cost = match &card.pricing {
            Pricing::PerToken(price) => {
                let cap = f64::from(card.output_cap(output_tokens_max));
                let tokens_out =
                    predict(&seen.tokens_out, leans.tokens_out).map_or(TOKENS_OUT_UNSEEN, log_normal_mean);
                let tokens_in = f64::from(prompt_bytes) / BYTES_PER_TOKEN;
                price.cost(whole(tokens_in), whole(tokens_out.min(cap))).unwrap_or(NanoUsd::MAX)
            }
            Pricing::Metered { max_per_call } => {
                predict(&seen.cost_nanos, leans.cost).map_or(*max_per_call, |line| {
                    let nanos = i64::try_from(whole(log_normal_mean(line))).unwrap_or(i64::MAX);
                    NanoUsd::new(nanos).min(*max_per_call)
                })
            }
        };
        let latency_p95 = predict(&seen.latency_us, leans.latency)
            .map(|(mean, variance)| Duration::from_micros(whole(libm::exp(mean + Z95 * variance.sqrt()))));
        Forecast { cost, latency_p95 }
    }
}

/// The mean of a log-normal variable, its variance held at one so that a few wild calls do not
/// explode the expectation.
fn log_normal_mean((mean, variance): (f64, f64)) -> f64 {
    libm::exp(mean + 0.5 * variance.min(1.0))
}

/// The next whole number; casts from float saturate.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float to integer casts saturate")]
fn whole(x: f64) -> u64 {
    x.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_finds_the_slope_of_its_data() {
        let mut line = LogLine::default();
        for bytes in (1..4_000).map(|i| i * 3) {
            line.observe(bytes, 2.0 * f64::from(bytes));
        }
        let (mean, variance) = line.predict(600).unwrap();
        assert!((mean - 1_200_f64.ln()).abs() < 0.02, "{}", mean.exp());
        assert!(variance < 0.01);
        line.observe(10, 0.0);
        line.observe(10, f64::NAN);
        assert!((line.n - 3_999.0).abs() < f64::EPSILON);
    }

    #[test]
    fn an_unseen_model_is_forecast_from_its_card() {
        let card = ModelCard {
            name: "m".into(),
            backend: "b".into(),
            upstream: "m".into(),
            pricing: Pricing::Metered { max_per_call: NanoUsd::new(70) },
            context_tokens_max: 8_000,
            output_tokens_max: 100,
            timeout: Duration::from_secs(1),
            family: None,
        };
        let request = Foreseen { prompt_bytes: 400, output_tokens_max: None, leans: Leans::NONE };
        let forecast = Forecasts::default().forecast(&card, &request);
        assert_eq!(forecast, Forecast { cost: NanoUsd::new(70), latency_p95: None });
    }

    #[test]
    fn a_lean_is_bounded() {
        let check = |lean: f64, wanted: f64| {
            let held = Leans { tokens_out: lean, cost: 0.0, latency: lean }.held();
            assert!((held.tokens_out - wanted).abs() < 1e-12 && (held.latency - wanted).abs() < 1e-12, "{held:?}");
            assert_eq!(Leans { cost: held.cost, ..Leans::NONE }, Leans::NONE);
        };
        check(-0.5, -0.5);
        check(9.0, 4_f64.ln());
        check(f64::NEG_INFINITY, -4_f64.ln());
        check(f64::NAN, 0.0);
    }
}
