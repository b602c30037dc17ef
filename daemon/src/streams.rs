//! `pointsmand streams`: the learner alone on a binary stream of the peer benchmark.
//!
//! What a stream is, how it is checked and what a run does stands in `pointsman_learner::streams`; this
//! module reads the file, holds the clock and prints. The file's length is held against its header before
//! the rest is read.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use comfy_table::{Table, presets};
use pointsman_learner::streams::{HEADER_BYTES, Header, Regret, Stream, play};
use pointsman_router::bandit::BanditSettings;
use pointsman_router::clock::Clock as _;
use serde::Serialize;

use crate::clock::SystemClock;

/// What is run.
#[derive(Debug, Clone, Args)]
pub struct StreamsArgs {
    /// The stream
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Runs, with the policy's seeds 0 to N−1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// Further rounds that are decided before the feedback on a round arrives
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub delay: u32,
    /// Probability that is spread evenly over all models
    #[arg(long, value_name = "EPSILON", default_value_t = 0.0)]
    pub floor: f64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What the runs came to: means over them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Pseudo-regret of the whole stream.
    pub regret: f64,
    /// Of its first half.
    pub regret_first_half: f64,
    /// Of its second half.
    pub regret_second_half: f64,
    /// Standard deviation of the whole over the runs; zero for a single one.
    pub regret_std: f64,
    /// Rounds decided and learned per second, on one thread.
    pub rounds_per_s: f64,
}

/// Runs and prints.
///
/// # Errors
/// A file that cannot be read or is no stream, a floor that is no probability.
pub fn main(args: &StreamsArgs, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    let report = run(args)?;
    if args.json {
        serde_json::to_writer(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", table(&report))?;
    }
    Ok(())
}

/// Runs.
///
/// # Errors
/// As [`main`].
pub fn run(args: &StreamsArgs) -> anyhow::Result<Report> {
    anyhow::ensure!((0.0..=1.0).contains(&args.floor), "--floor must be from 0 to 1, it is {}", args.floor);
    let stream = read(&args.file).with_context(|| format!("cannot run {}", args.file.display()))?;
    let settings = BanditSettings { floor: args.floor, ..BanditSettings::dense(1 + stream.inputs()) };
    let delay = usize::try_from(args.delay).unwrap_or(usize::MAX).min(stream.rounds().len());
    let start = SystemClock.now();
    let runs: Vec<Regret> = (0..args.seeds).map(|seed| play(&stream, settings, seed, delay)).collect();
    let seconds = SystemClock.now().since(start).as_secs_f64();
    Ok(report(&runs, stream.rounds().len(), seconds))
}

fn read(path: &Path) -> anyhow::Result<Stream> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    let header = Header::read(&bytes, length)?;
    file.take(header.bytes() - HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(Stream::from_bytes(&bytes)?)
}

fn report(runs: &[Regret], rounds: usize, seconds: f64) -> Report {
    let n = runs.len().max(1) as f64;
    let mean = |part: fn(&Regret) -> f64| runs.iter().map(part).sum::<f64>() / n;
    let whole = |run: &Regret| run.first_half + run.second_half;
    let regret = mean(|run| run.first_half + run.second_half);
    let squares: f64 = runs.iter().map(|run| (whole(run) - regret) * (whole(run) - regret)).sum();
    Report {
        regret,
        regret_first_half: mean(|run| run.first_half),
        regret_second_half: mean(|run| run.second_half),
        regret_std: (squares / (n - 1.0).max(1.0)).sqrt(),
        rounds_per_s: rounds as f64 * n / seconds.max(1e-9),
    }
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (what, value) in [
        ("regret", report.regret),
        ("first half", report.regret_first_half),
        ("second half", report.regret_second_half),
        ("standard deviation", report.regret_std),
    ] {
        table.add_row([what.to_owned(), format!("{value:.1}")]);
    }
    table.add_row(["rounds per second".to_owned(), format!("{:.0}", report.rounds_per_s)]);
    table
}
