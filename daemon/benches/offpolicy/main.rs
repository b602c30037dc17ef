//! Off-policy evaluation, the gate and the canary, validated on recorded outcomes: the truth is known.
//!
//! Logs of 50,000 decisions are drawn with replacement from recorded rows by a bandit-like policy, with
//! an even floor of 5 % and with 2 % of exploration aimed at a candidate. On each log candidates whose
//! true gain is known are evaluated exactly as in the daemon; counted is how often the interval covers
//! the true value over the recorded rows and how often the gate opens. Then canaries are run on
//! candidates that looked good and are not.
//!
//! `--runs N` (500), `--decisions N` (50000), `--set NAME` (all), `--json`. Recorded rows are looked for
//! in `$POINTSMAN_SHARED/data` (`../shared/data`); where they are absent the bench says so and ends well.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]
#![expect(clippy::indexing_slicing, reason = "a bench: matrices of rows times models")]
#![expect(clippy::cast_possible_truncation, reason = "a bench: rows and models are few")]

mod canaries;
mod features;
mod logs;
mod policies;
#[path = "../recorded/mod.rs"]
mod recorded;
mod show;
mod world;

use std::io::Write as _;
use std::time::Instant;

use anyhow::Context as _;

use self::logs::Tally;
use self::world::World;

/// What was asked for.
struct Options {
    runs: u64,
    decisions: usize,
    set: Option<String>,
    is_json: bool,
}

impl Options {
    fn read() -> anyhow::Result<Self> {
        let mut options = Self { runs: 500, decisions: 50_000, set: None, is_json: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--runs" => options.runs = value()?.parse()?,
                "--decisions" => options.decisions = value()?.parse()?,
                "--set" => options.set = Some(value()?),
                "--json" => options.is_json = true,
                // What cargo hands to every bench.
                "--bench" => {}
                other => {
                    anyhow::bail!("unknown argument {other}; --runs, --decisions, --set and --json are known")
                }
            }
        }
        anyhow::ensure!(options.runs > 0 && options.decisions > 1, "--runs and --decisions must be above zero");
        Ok(options)
    }
}

/// All that was measured on one set.
struct SetReport {
    world: World,
    /// Per way of logging: its name, what it explores, and one tally per candidate.
    logs: Vec<(&'static str, Vec<Tally>)>,
    canaries: Vec<canaries::CanaryReport>,
    seconds: f64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::read()?;
    let mut out = std::io::stdout().lock();
    let mut reports = Vec::new();
    for set in world::SETS {
        if options.set.as_ref().is_some_and(|wanted| wanted != set.name) {
            continue;
        }
        let Some(world) = World::read(set)? else {
            writeln!(std::io::stderr(), "skipped {}: there are no recorded rows of it", set.name)?;
            continue;
        };
        let report = measure(world, &options)?;
        if !options.is_json {
            writeln!(out, "{}", show::table(&report, &options))?;
        }
        reports.push(report);
    }
    if options.is_json {
        writeln!(out, "{}", show::json(&reports, &options))?;
    }
    Ok(())
}

fn measure(world: World, options: &Options) -> anyhow::Result<SetReport> {
    let begun = Instant::now();
    let logger = policies::logger(&world)?;
    let candidates = policies::candidates(&world, &logger);
    let even = logs::simulate(&world, &logger.picks, &candidates, logger.single, options)?;
    let aimed = policies::aimed(&world, &logger.picks, &candidates[0].choice);
    let towards = logs::simulate(&world, &aimed, &candidates, logger.single, options)?;
    let canaries = canaries::run(&world, &logger, &candidates, options)?;
    let logs = vec![("even floor of 5 %", even), ("and 2 % aimed at the first", towards)];
    Ok(SetReport { world, logs, canaries, seconds: begun.elapsed().as_secs_f64() })
}
