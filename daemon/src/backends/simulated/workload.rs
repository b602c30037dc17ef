//! Writes rows of a world as recorded outcomes, with what every model says of each.
//!
//! The daemon's simulated backend says the same of the same rows, so whoever drives the daemon with
//! this file can tell what the best single model, a random choice and an oracle would have reached. A
//! model that fails on a row has score nought, cost nought and no answer there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use pointsman_router::money::NanoUsd;
use serde::Serialize;

use super::world::World;

/// The workload could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written: {source}", path.display())]
pub struct WorkloadError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    task: &'a str,
    prompt: &'a str,
    gold: &'a str,
    outcomes: BTreeMap<&'a str, LineOutcome>,
}

#[derive(Serialize)]
struct LineOutcome {
    score: f64,
    cost: f64,
    tokens_out: u64,
    answer: Option<String>,
}

/// Writes the first `rows` rows; a file whose name ends in `.gz` is packed.
///
/// # Errors
/// [`WorkloadError`] when the file cannot be written.
pub fn write_workload(world: &World, rows: u64, path: &Path) -> Result<(), WorkloadError> {
    let write = || -> io::Result<()> {
        let file = BufWriter::new(File::create(path)?);
        if path.extension().is_some_and(|extension| extension == "gz") {
            let mut packer = GzEncoder::new(file, Compression::default());
            write_lines(world, rows, &mut packer)?;
            packer.finish()?.flush()
        } else {
            let mut file = file;
            write_lines(world, rows, &mut file)?;
            file.flush()
        }
    };
    write().map_err(|source| WorkloadError { path: path.to_path_buf(), source })
}

fn write_lines(world: &World, rows: u64, out: &mut impl Write) -> io::Result<()> {
    for n in 0..rows {
        let row = world.row(n);
        let outcomes = world.models().filter_map(|model| {
            let said = world.says(model, &row.key, row.prompt.len())?;
            let price = world.price(model)?;
            let is_right = said.label.as_ref() == Some(&row.gold);
            let billed = price.cost(said.tokens_in, said.tokens_out).filter(|_| said.label.is_some());
            let outcome = LineOutcome {
                score: f64::from(u8::from(is_right)),
                cost: billed.unwrap_or(NanoUsd::ZERO).usd(),
                tokens_out: if said.label.is_some() { said.tokens_out } else { 0 },
                answer: said.label,
            };
            Some((model, outcome))
        });
        let outcomes = outcomes.collect();
        let line = Line { id: &row.id, task: &row.topic, prompt: &row.prompt, gold: &row.gold, outcomes };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
