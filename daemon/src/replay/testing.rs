//! Small worlds for the tests of the replay.

use clap::Parser;
use pointsman_router::money::NanoUsd;

use super::ReplayArgs;
use crate::backends::recorded_rows::{Recorded, Row, Rows};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: ReplayArgs,
}

/// The arguments of a replay of the bandit with these flags.
pub(super) fn args(flags: &[&str]) -> ReplayArgs {
    let line = ["replay", "--outcomes", "f", "--policy", "bandit"].iter().chain(flags);
    Line::parse_from(line).args
}

/// An outcome without an answer.
pub(super) fn recorded(score: f64, cost_nanos: i64) -> Recorded {
    Recorded { score, cost: Some(NanoUsd::new(cost_nanos)), tokens_out: None, answer: None }
}

/// A row of these outcomes.
pub(super) fn row(id: &str, outcomes: Vec<Option<Recorded>>) -> Row {
    Row { id: id.to_owned(), task: String::new(), prompt: format!("question {id}"), gold: None, outcomes }
}

/// Rows of these scores, each call for a nano-dollar.
pub(super) fn rows<const N: usize>(models: &[&str; N], scores: &[[f64; N]]) -> Rows {
    let of = |(at, scores): (usize, &[f64; N])| {
        row(&at.to_string(), scores.iter().map(|score| Some(recorded(*score, 1))).collect())
    };
    Rows::of(models.map(str::to_owned).to_vec(), scores.iter().enumerate().map(of).collect())
}
