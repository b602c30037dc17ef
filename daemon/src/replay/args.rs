//! What the command line of a replay says, and what of it makes no sense.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::at::{At, AtValue};

/// Whose choices are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Whose {
    /// The pool in its given order: the first that can serve.
    Rules,
    /// Classifiers fitted on the rows that are fed first; nothing is learned on the way.
    Classifier,
    /// The same to begin with; a bandit goes on learning from there.
    Hybrid,
    /// The online bandit.
    Bandit,
    /// Thompson sampling that sees nothing of the request.
    ContextFree,
    /// The model that is best on all rows seen before routing, or in hindsight.
    BestSingle,
    /// The best mixture of two fixed models under --budget-per-request, in hindsight.
    Mix2,
    /// Any model with the same probability.
    Random,
    /// The best model of each row.
    Oracle,
}

impl Whose {
    /// The word on the command line and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Classifier => "classifier",
            Self::Hybrid => "hybrid",
            Self::Bandit => "bandit",
            Self::ContextFree => "context-free",
            Self::BestSingle => "best-single",
            Self::Mix2 => "mix2",
            Self::Random => "random",
            Self::Oracle => "oracle",
        }
    }

    /// Whether what it knows before the first row comes from the rows that are fed and from nothing else.
    pub(super) fn learns_from_rows_alone(self) -> bool {
        matches!(self, Self::Classifier | Self::Hybrid | Self::Bandit | Self::ContextFree)
    }
}

/// What is replayed.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Recorded outcomes, JSON Lines, gzipped where the name ends in .gz
    #[arg(long, value_name = "FILE")]
    pub outcomes: PathBuf,
    /// Recorded outcomes that are fed first, as logs in which every model was called
    #[arg(long, value_name = "FILE")]
    pub warm: Option<PathBuf>,
    /// Only these models, comma-separated; without it, all of the file. With exactly two, APGR, CPT and AIQ say how well
    /// the policy tells where the stronger is needed
    #[arg(long, value_name = "MODEL,…", value_delimiter = ',')]
    pub pool: Vec<String>,
    /// Whose choices to replay
    #[arg(long, value_enum)]
    pub policy: Whose,
    /// Models called per row, at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub calls: u32,
    /// Random orders to run, with consecutive seeds
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// The first of the seeds
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub first_seed: u64,
    /// Only the first rows of the file
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Tell the policy the true task of each row
    #[arg(long)]
    pub show_task: bool,
    /// Quality given up per dollar; zero: quality alone counts, ties to the cheaper
    #[arg(long, value_name = "W", default_value_t = 0.0)]
    pub cost_weight: f64,
    /// The most that a row may cost on average, in dollars
    #[arg(long, value_name = "USD")]
    pub budget_per_request: Option<f64>,
    /// The share of each order that is fed first, every model's outcome visible; the rest is routed
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub train_fraction: f64,
    /// Rows that are decided between a row and what it teaches
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub delay: usize,
    /// The share of routed rows that bring feedback
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub feedback_rate: f64,
    /// The share of labels that are turned over before they teach: x becomes 1 − x
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub flip_rate: f64,
    /// Takes a model out of the pool from a routed row on; rows count from zero; repeatable
    #[arg(long, value_name = "MODEL@ROW")]
    pub drop: Vec<At>,
    /// Keeps a model out of the pool until a routed row; repeatable
    #[arg(long, value_name = "MODEL@ROW")]
    pub add: Vec<At>,
    /// Lowers a model's scores by this much from a routed row on; the latest entry counts; repeatable
    #[arg(long, value_name = "MODEL@ROW=DELTA")]
    pub degrade: Vec<AtValue>,
    /// Multiplies what a model costs from a routed row on; the latest entry counts; repeatable
    #[arg(long, value_name = "MODEL@ROW=FACTOR")]
    pub reprice: Vec<AtValue>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Why there is nothing to replay, although the files can be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReplayError {
    /// A weight of money below zero.
    #[error("--cost-weight must be zero or more, it is {0}")]
    CostWeight(f64),
    /// A ceiling that nothing fits under.
    #[error("--budget-per-request must be above zero, it is {0}")]
    Budget(f64),
    /// A share that is none.
    #[error("{flag} must be from 0 to {}, it is {value}", if *.flag == TRAIN_FRACTION { "below 1" } else { "1" })]
    Share {
        /// The flag.
        flag: &'static str,
        /// What it says.
        value: f64,
    },
    /// A change by a value that cannot be applied.
    #[error("{flag} {model}: {value} is no {}", if *.flag == REPRICE { "factor, give zero or more" } else { "number" })]
    Value {
        /// The flag.
        flag: &'static str,
        /// The model.
        model: String,
        /// What it says.
        value: f64,
    },
    /// A change of a model that is not there.
    #[error("{flag} names `{model}`, which is not replayed; there are: {}", known.join(", "))]
    UnknownModel {
        /// The flag.
        flag: &'static str,
        /// The model.
        model: String,
        /// The models that are there.
        known: Vec<String>,
    },
    /// A change that would never come.
    #[error("{flag} {model}@{row} is beyond the end, {rows} rows are routed and count from 0")]
    BeyondEnd {
        /// The flag.
        flag: &'static str,
        /// The model.
        model: String,
        /// The row that it names.
        row: usize,
        /// How many rows are routed.
        rows: usize,
    },
    /// Changes that leave a row without any model.
    #[error("nobody is left to call on routed row {row} of seed {seed}, see --drop and --add")]
    Nobody {
        /// The row.
        row: usize,
        /// The seed of the order in which it is that row.
        seed: u64,
    },
}

/// The flags that errors name.
pub(super) const TRAIN_FRACTION: &str = "--train-fraction";
pub(super) const DROP: &str = "--drop";
pub(super) const ADD: &str = "--add";
pub(super) const DEGRADE: &str = "--degrade";
pub(super) const REPRICE: &str = "--reprice";

impl ReplayArgs {
    /// Whether the numbers make sense; what needs the rows is checked against them.
    ///
    /// # Errors
    /// [`ReplayError`], naming the flag.
    pub(super) fn check(&self) -> Result<(), ReplayError> {
        let at_least_zero = |x: f64| x.is_finite() && x >= 0.0;
        if !at_least_zero(self.cost_weight) {
            return Err(ReplayError::CostWeight(self.cost_weight));
        }
        if let Some(usd) = self.budget_per_request.filter(|usd| !at_least_zero(*usd) || *usd == 0.0) {
            return Err(ReplayError::Budget(usd));
        }
        if !(0.0..1.0).contains(&self.train_fraction) {
            return Err(ReplayError::Share { flag: TRAIN_FRACTION, value: self.train_fraction });
        }
        for (flag, value) in [("--feedback-rate", self.feedback_rate), ("--flip-rate", self.flip_rate)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(ReplayError::Share { flag, value });
            }
        }
        let bad = |flag, of: &AtValue| ReplayError::Value { flag, model: of.at.model.clone(), value: of.value };
        if let Some(of) = self.degrade.iter().find(|of| !of.value.is_finite()) {
            return Err(bad(DEGRADE, of));
        }
        match self.reprice.iter().find(|of| !at_least_zero(of.value)) {
            Some(of) => Err(bad(REPRICE, of)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ReplayArgs,
    }

    fn args(more: &[&str]) -> Result<ReplayArgs, clap::Error> {
        let line = ["replay", "--outcomes", "f", "--policy", "bandit"].iter().chain(more);
        Line::try_parse_from(line).map(|line| line.args)
    }

    #[test]
    fn changes_are_read_and_faults_name_their_flag() {
        let read =
            args(&["--drop", "a@3", "--degrade", "a@b@0=0.5", "--degrade", "m@9=-0.5", "--reprice", "m@1=10"]);
        let read = read.unwrap();
        assert_eq!((read.drop[0].model.as_str(), read.drop[0].row), ("a", 3));
        assert_eq!((read.degrade[0].at.model.as_str(), read.degrade[0].at.row), ("a@b", 0));
        assert_eq!((read.degrade[1].value, read.reprice[0].value), (-0.5, 10.0));
        for (flag, text) in [
            ("--drop", "a"),
            ("--add", "@3"),
            ("--degrade", "a@1"),
            ("--reprice", "a@x=1"),
            ("--reprice", "a@1=x"),
        ] {
            let said = args(&[flag, text]).unwrap_err().to_string();
            assert!(said.contains(flag) && said.contains("MODEL@ROW"), "{said}");
        }
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let check = |more: &[&str]| args(more).unwrap().check();
        assert_eq!(check(&["--train-fraction", "0.8", "--feedback-rate", "0.3", "--flip-rate", "1"]), Ok(()));
        assert!(matches!(check(&["--cost-weight=-1"]), Err(ReplayError::CostWeight(_))));
        for usd in ["0", "-1", "inf", "NaN"] {
            assert!(matches!(check(&[&format!("--budget-per-request={usd}")]), Err(ReplayError::Budget(_))));
        }
        for (flag, value) in [(TRAIN_FRACTION, "1"), ("--feedback-rate", "1.1"), ("--flip-rate", "NaN")] {
            let fault = check(&[flag, value]);
            assert!(matches!(fault, Err(ReplayError::Share { flag: f, .. }) if f == flag), "{fault:?}");
        }
        for (flag, value) in [(DEGRADE, "m@1=inf"), (REPRICE, "m@1=-2")] {
            let fault = check(&[flag, value]);
            assert!(matches!(fault, Err(ReplayError::Value { flag: f, .. }) if f == flag), "{fault:?}");
        }
    }
}
