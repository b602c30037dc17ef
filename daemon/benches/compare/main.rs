//! The comparison of learners that the product's choice stands on: which of them routes better than the best single
//! model on recorded outcomes, and by how much.
//!
//! Rows on which all models were recorded are split 80/20 by a seed, as `pointsmand replay` splits them; every learner is
//! fitted on the larger part and picks the model of highest score for each row of the smaller. Its gain is over the model
//! that was best on the larger part. All start from what the product's encoder makes of a prompt: dense inputs, or the
//! hashed buckets; the true task is told to one yardstick alone. `behind` is what the product as it serves gains more, on
//! the same rows of the same seeds: far less moved by the seed than a gain is. Errors are standard errors over the seeds,
//! whose rows overlap: on other rows of the same kind they would be somewhat larger.
//!
//! Settings of what the product has not were looked for on these very sets, which favours the others. Times to fit are
//! without the encoder's, but for the product's, which is all of a training; those of a request are with the reading of
//! its buckets for the ridge regression, naive Bayes and the product, without it for the others.
//!
//! `--seeds N` (10), `--quick` (2 seeds), `--set NAME` (all). Where recorded rows are absent the bench says so and ends
//! well.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]
#![expect(clippy::indexing_slicing, reason = "a bench: matrices of rows times models")]
#![expect(clippy::cast_possible_truncation, reason = "a bench: reckoned in f64, stored as f32")]

mod bayes;
mod learners;
mod linear;
mod near;
mod product;
#[path = "../recorded/mod.rs"]
mod recorded;
mod show;
mod split;
mod tree;

use std::io::Write as _;

use anyhow::Context as _;

use self::split::{SETS, Split, World};

/// What was asked for.
struct Options {
    seeds: u64,
    set: Option<String>,
}

impl Options {
    fn read() -> anyhow::Result<Self> {
        let mut options = Self { seeds: 10, set: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--seeds" => options.seeds = value()?.parse()?,
                "--quick" => options.seeds = 2,
                "--set" => options.set = Some(value()?),
                // What cargo hands to every bench.
                "--bench" => {}
                other => anyhow::bail!("unknown argument {other}; --seeds, --quick and --set are known"),
            }
        }
        anyhow::ensure!(options.seeds > 1, "--seeds must be above one: there is an error to tell");
        Ok(options)
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::read()?;
    for set in SETS {
        if options.set.as_ref().is_some_and(|wanted| wanted != set.name) {
            continue;
        }
        let Some(world) = World::read(set)? else {
            writeln!(std::io::stderr(), "skipped {}: there are no recorded rows of it", set.name)?;
            continue;
        };
        let mut tallies = Vec::new();
        for seed in 0..options.seeds {
            let split = Split::new(&world, seed)?;
            tallies.push(learners::compare(&split)?);
        }
        writeln!(std::io::stdout().lock(), "{}", show::table(set.name, &world, &tallies))?;
    }
    Ok(())
}
