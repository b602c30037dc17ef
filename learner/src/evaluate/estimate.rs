//! The value of a policy from the log of another: inverse propensity, self-normalised, direct and
//! doubly robust, each with its standard error (Dudík 2011; Swaminathan & Joachims 2015).
//!
//! With w = π(S)/μ(S) of the logged set S, reward r and its model q̂:
//!
//! - IPS = mean w·r, and SNIPS = Σwr/Σw
//! - direct = mean Σ_S π(S)q̂(S); its error knows nothing of how wrong q̂ is, so it promotes nobody
//! - doubly robust = mean [Σ_S π(S)q̂(S) + w(r − q̂(S))], unbiased whatever q̂ is, if q̂ was fitted on
//!   other rows ([`super::reward_model`]) and the propensities are exact. Cost is estimated alike.
//!
//! [`gain`] is the difference of two policies on the same rows. Where they agree a row adds nothing to
//! it, not even noise, so it is much sharper than two values beside each other.
//!
//! # What is estimated
//!
//! The value over the traffic that the log is a sample of. Rows are independent unless they share a
//! cluster; the rows of one cluster count as one draw (a sandwich over their sums). A caller whose
//! prompts repeat by chance gives each decision a cluster of its own; one whose prompts come in bursts
//! (the same job again and again) gives them one.
//!
//! A decision without feedback is no row: missing is not wrong. That is right as it stands when
//! feedback is missing whatever the answer was like; where it is known how the chance of feedback
//! depends on the decision, `weight` is the inverse of that chance ([`super::missing`]).
//!
//! # Bounds
//!
//! Mean ± Student's quantile · standard error. The degrees of freedom are not the number of rows: where
//! a few heavy weights make up the variance, the variance is as uncertain as if it had been told from
//! those few. They are those of the χ² with the variance and kurtosis of the terms (Satterthwaite).
//! A policy that would choose what the log could not draw is unsupported there and no weight shows
//! it; [`Estimates::unsupported`] is that share, which the gate charges at its worst.

use super::quantile;

/// What was seen of a decision and what a model of it says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// What was seen.
    pub seen: f64,
    /// What the model, fitted without this row, says of the logged set.
    pub modelled: f64,
}

/// One logged decision whose answer was judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// Rows of equal clusters count as one draw.
    pub cluster: u64,
    /// The probability with which the log drew exactly this set.
    pub propensity: f64,
    /// How much the row counts; one, or the inverse of the chance that it was judged.
    pub weight: f64,
    /// How good the answer was, in [0, 1].
    pub reward: Observed,
    /// What the decision cost, in any unit of money.
    pub cost: Observed,
}

/// What a policy would have done at one logged decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// The probability with which it would have drawn the logged set.
    pub propensity: f64,
    /// The modelled reward of its sets, Σ_S π(S)q̂(S).
    pub reward: f64,
    /// The modelled cost of its sets.
    pub cost: f64,
    /// The probability with which it would have drawn a set that the log could not have drawn.
    pub unsupported: f64,
}

/// A mean with what is known of its error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Its standard error; infinite where there is but one draw.
    pub standard_error: f64,
    /// How well the standard error is known.
    pub degrees: f64,
}

impl Estimate {
    /// The bound that the true value is below with probability `delta`.
    #[must_use]
    pub fn lower(&self, delta: f64) -> f64 {
        self.value - self.reach(delta)
    }

    /// The bound that the true value is above with probability `delta`.
    #[must_use]
    pub fn upper(&self, delta: f64) -> f64 {
        self.value + self.reach(delta)
    }

    /// The two-sided 95 % interval.
    #[must_use]
    pub fn interval(&self) -> (f64, f64) {
        (self.lower(0.025), self.upper(0.025))
    }

    fn reach(&self, delta: f64) -> f64 {
        let reach = quantile::student(1.0 - delta, self.degrees) * self.standard_error;
        if reach.is_nan() { f64::INFINITY } else { reach }
    }
}

/// What a log says of one policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimates {
    /// Reward by inverse propensity.
    pub ips: Estimate,
    /// Reward by self-normalised inverse propensity.
    pub snips: Estimate,
    /// Reward by the model alone.
    pub direct: Estimate,
    /// Reward, doubly robust: the one to go by.
    pub doubly_robust: Estimate,
    /// Cost, doubly robust.
    pub cost: Estimate,
    /// As how many rows of the policy's own the log counts, (Σw)²/Σw².
    pub effective_sample_size: f64,
    /// How many rows there were.
    pub rows: usize,
    /// The largest weight.
    pub weight_max: f64,
    /// The mean weight; about one where propensities are what they say.
    pub weight_mean: f64,
    /// The share of the policy's choices that the log could not have drawn.
    pub unsupported: f64,
}

/// How much better one policy is than another on the same rows, doubly robust.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    /// Reward of the one less that of the other.
    pub reward: Estimate,
    /// Cost of the one less that of the other.
    pub cost: Estimate,
}

/// Why nothing can be estimated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EstimateError {
    /// There is no row.
    #[error("no decision has feedback, submit some first")]
    Empty,
    /// Rows and plans differ in number.
    #[error("there are {rows} rows and {plans} plans, give one plan per row")]
    Lengths {
        /// Rows.
        rows: usize,
        /// Plans.
        plans: usize,
    },
    /// A probability is none, or a logged set is said to have been impossible.
    #[error("row {row} has a propensity outside its range, a logged set has a probability in (0, 1]")]
    Propensity {
        /// The row, from 0.
        row: usize,
    },
    /// A reward, cost, weight or model value is no number.
    #[error("row {row} holds what is no number")]
    NotANumber {
        /// The row, from 0.
        row: usize,
    },
}

/// Estimates the value of the policy whose plans these are.
///
/// # Errors
/// [`EstimateError`] where rows are missing or make no sense.
pub fn estimate(rows: &[Judged], plans: &[Plan]) -> Result<Estimates, EstimateError> {
    check(rows, plans)?;
    let pairs = || rows.iter().zip(plans);
    let ratio = |(row, plan): (&Judged, &Plan)| plan.propensity / row.propensity;
    let sum = |term: &dyn Fn(&Judged, &Plan) -> f64| -> f64 { pairs().map(|(row, plan)| term(row, plan)).sum() };
    let total = sum(&|row, _| row.weight);
    let weighted = sum(&|row, plan| row.weight * ratio((row, plan)));
    let squares = sum(&|row, plan| (row.weight * ratio((row, plan))).powi(2));
    let weight_mean = weighted / total;
    let snips = if weighted > 0.0 {
        sum(&|row, plan| row.weight * ratio((row, plan)) * row.reward.seen) / weighted
    } else {
        f64::NAN
    };
    let mean_of = |term: &dyn Fn(&Judged, &Plan) -> f64| mean(rows, pairs().map(|(row, plan)| term(row, plan)));
    Ok(Estimates {
        ips: mean_of(&|row, plan| ratio((row, plan)) * row.reward.seen),
        // Linearised: the value is exact, the error is that of the ratio.
        snips: mean_of(&|row, plan| snips + ratio((row, plan)) * (row.reward.seen - snips) / weight_mean),
        direct: mean_of(&|_, plan| plan.reward),
        doubly_robust: mean_of(&reward_term),
        cost: mean_of(&cost_term),
        effective_sample_size: if squares > 0.0 { weighted * weighted / squares } else { 0.0 },
        rows: rows.len(),
        weight_max: pairs().map(ratio).fold(0.0, f64::max),
        weight_mean,
        unsupported: sum(&|row, plan| row.weight * plan.unsupported) / total,
    })
}

/// Estimates how much better the candidate is than the baseline, row by row.
///
/// # Errors
/// As [`estimate`].
pub fn gain(rows: &[Judged], candidate: &[Plan], baseline: &[Plan]) -> Result<Gain, EstimateError> {
    check(rows, candidate)?;
    check(rows, baseline)?;
    let difference = |term: fn(&Judged, &Plan) -> f64| {
        let plans = candidate.iter().zip(baseline);
        mean(rows, rows.iter().zip(plans).map(|(row, (one, other))| term(row, one) - term(row, other)))
    };
    Ok(Gain { reward: difference(reward_term), cost: difference(cost_term) })
}

fn reward_term(row: &Judged, plan: &Plan) -> f64 {
    plan.reward + plan.propensity / row.propensity * (row.reward.seen - row.reward.modelled)
}

fn cost_term(row: &Judged, plan: &Plan) -> f64 {
    plan.cost + plan.propensity / row.propensity * (row.cost.seen - row.cost.modelled)
}

fn check(rows: &[Judged], plans: &[Plan]) -> Result<(), EstimateError> {
    if rows.len() != plans.len() {
        return Err(EstimateError::Lengths { rows: rows.len(), plans: plans.len() });
    }
    if rows.is_empty() {
        return Err(EstimateError::Empty);
    }
    let is_chance = |p: f64| (0.0..=1.0 + 1e-9).contains(&p);
    for (at, (row, plan)) in rows.iter().zip(plans).enumerate() {
        let is_possible = is_chance(row.propensity) && row.propensity > 0.0;
        if !is_possible || !is_chance(plan.propensity) || !is_chance(plan.unsupported) {
            return Err(EstimateError::Propensity { row: at });
        }
        let Observed { seen, modelled } = row.reward;
        let numbers = [seen, modelled, row.cost.seen, row.cost.modelled, plan.reward, plan.cost];
        if numbers.iter().any(|x| !x.is_finite()) || !(row.weight.is_finite() && row.weight > 0.0) {
            return Err(EstimateError::NotANumber { row: at });
        }
    }
    Ok(())
}

/// The weighted mean of one term per row, with the error that follows from the sums of its clusters.
fn mean(rows: &[Judged], terms: impl Iterator<Item = f64>) -> Estimate {
    let terms: Vec<f64> = terms.collect();
    let total: f64 = rows.iter().map(|row| row.weight).sum();
    let value = rows.iter().zip(&terms).map(|(row, term)| row.weight * term).sum::<f64>() / total;
    let deviations = || rows.iter().zip(&terms).map(|(row, term)| row.weight * (term - value));
    let (mut count, mut squares, mut fourths) = (0.0, 0.0, 0.0);
    let mut add = |sum: f64| {
        let square = sum * sum;
        count += 1.0;
        squares += square;
        fourths += square * square;
    };
    if rows.is_sorted_by(|a, b| a.cluster < b.cluster) {
        deviations().for_each(&mut add);
    } else {
        cluster_sums(rows.iter().map(|row| row.cluster).zip(deviations()).collect())
            .into_iter()
            .for_each(&mut add);
    }
    if count < 2.0 {
        return Estimate { value, standard_error: f64::INFINITY, degrees: quantile::DEGREES_MIN };
    }
    let standard_error = (squares * count / (count - 1.0)).sqrt() / total;
    // n draws with variance s² and fourth moment m: Var(s²) = (m − s⁴)/n, as of a χ² with 2s⁴n/(m − s⁴).
    let spread = fourths / (squares * squares) - 1.0 / count;
    let degrees = if spread > 0.0 { (2.0 / spread).min(count - 1.0) } else { count - 1.0 };
    Estimate { value, standard_error, degrees: degrees.max(quantile::DEGREES_MIN) }
}

/// The sums of the values of equal clusters, in the order of their keys.
fn cluster_sums(mut keyed: Vec<(u64, f64)>) -> Vec<f64> {
    // Stable, so that equal rows in equal order add up to equal bits.
    keyed.sort_by_key(|(cluster, _)| *cluster);
    keyed.chunk_by(|(a, _), (b, _)| a == b).map(|rows| rows.iter().map(|(_, x)| x).sum()).collect()
}

#[cfg(test)]
mod tests;
