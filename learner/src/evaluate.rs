//! What a policy would have been worth, told from the log of another: estimates with their bounds, the
//! gate that promotes on them, and the canary that watches afterwards.
//!
//! The parts stand in the order in which a candidate meets them. A log is a list of judged decisions,
//! each with the probability that its set had ([`estimate::Judged`]); [`missing`] weighs them where not all
//! decisions are judged. [`reward_model`] fits what each
//! model would have scored, on other folds than it is used for; [`plan`] says of each logged decision
//! what a policy would have done there; [`estimate`] weighs the two into a value with a confidence
//! interval; [`gate`] decides whether the candidate may run, and says what is missing if not;
//! [`canary`] compares it on-policy once it does. [`exploration`] finds how much of the traffic the
//! running policy may spend on telling the two apart; [`fallback`] says when the best single model is to stand
//! in for it. [`calibration`] and [`frontier`] are the
//! figures of a report.
//!
//! Everything is pure and deterministic: equal rows in equal order give equal bits.

pub mod quantile;
pub mod estimate;
pub mod missing;
pub mod reward_model;
pub mod plan;
pub mod running;
pub mod exploration;
pub mod gate;
pub mod canary;
pub mod fallback;
pub mod calibration;
pub mod frontier;

#[cfg(test)]
mod tests;
