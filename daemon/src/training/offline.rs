//! `pointsmand train`: fits a policy on a file of logs, without a daemon.
//!
//! What comes out is the artifact that `InstallPolicy` takes in. It serves on the installation whose
//! secret encoded its rows: exported traces carry that already, recorded prompts are encoded with the
//! secret of the state folder that is named, else with none, which is what `pointsmand replay` uses.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use pointsman_learner::train::{ModelReport, TrainSettings, Trained, TrainingReport, train};
use pointsman_router::artifact::ArtifactKind;
use serde::Serialize;

use super::lines::{FileRows, Reader};
use crate::config;
use crate::store::artifacts::write_whole;

/// Broken lines that are named one by one; beyond it they are only counted.
const NAMED_MAX: usize = 100;

/// What kind of policy to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Decides by what was fitted and learns nothing more
    Classifier,
    /// Begins from what was fitted and goes on learning
    Hybrid,
}

/// What to train, and where to put it.
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// Exported traces or recorded outcomes, JSON Lines, gzipped where the name ends in .gz
    #[arg(long, value_name = "FILE")]
    pub traces: PathBuf,
    /// Where to write the policy's artifact
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What kind of policy to fit
    #[arg(long, value_enum, default_value_t = Kind::Hybrid)]
    pub kind: Kind,
    /// Seed of everything that is drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// The state folder of the installation that the policy is for
    #[arg(long, value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Made {
    /// The version, made of the artifact's bytes.
    pub version: String,
    /// `classifier` or `hybrid`.
    pub kind: &'static str,
    /// Bytes of the artifact.
    pub artifact_bytes: u64,
    /// The seed.
    pub seed: u64,
    /// What its features mean.
    pub schema: String,
    /// Lines that were passed over because they are broken.
    pub broken_lines: u64,
    /// The report.
    pub report: TrainingReport,
}

/// Trains, writes the artifact and prints the report; broken lines are named on `err`.
///
/// # Errors
/// A file that cannot be read or written, `pointsman_learner::train::TrainError`; then nothing was written.
pub fn main(args: &TrainArgs, out: &mut impl Write, err: &mut impl Write) -> anyhow::Result<()> {
    let made = run(args, err)?;
    if args.json {
        serde_json::to_writer(&mut *out, &made)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", made.summary())?;
        writeln!(out, "{}", made.table())?;
        writeln!(out, "{} written to {}", made.version, args.out.display())?;
    }
    Ok(())
}

fn run(args: &TrainArgs, err: &mut impl Write) -> anyhow::Result<Made> {
    let reader = Reader::new(args.state_dir.as_deref().map_or(Ok(0), secret)?);
    let schema = args.state_dir.is_some().then(|| reader.schema());
    let rows = FileRows::open(&args.traces, reader, schema)?;
    let kind = match args.kind {
        Kind::Classifier => ArtifactKind::Classifier,
        Kind::Hybrid => ArtifactKind::Hybrid,
    };
    let settings = TrainSettings { kind, seed: args.seed, ..TrainSettings::default() };
    let trained = train(&rows, &settings, &mut |_, _| ControlFlow::Continue(()));
    let broken = rows.broken();
    for (line, fault) in broken.iter().take(NAMED_MAX) {
        writeln!(err, "pointsmand: {} line {line} {fault}", args.traces.display())?;
    }
    if !broken.is_empty() {
        writeln!(err, "pointsmand: {} broken lines were passed over, the rest counts", broken.len())?;
    }
    let Trained { artifact, report } = trained?;
    let (bytes, version) = artifact.to_bytes()?;
    write_whole(&args.out, &bytes).with_context(|| format!("cannot write {}", args.out.display()))?;
    Ok(Made {
        version: version.as_str().to_owned(),
        kind: kind.as_str(),
        artifact_bytes: bytes.len() as u64,
        seed: args.seed,
        schema: format!("{:016x}", artifact.projection.schema().0),
        broken_lines: broken.len() as u64,
        report,
    })
}

/// The secret of a state folder that is there already; none is made.
fn secret(state_dir: &Path) -> anyhow::Result<u64> {
    let there = state_dir.join("secret").is_file();
    anyhow::ensure!(there, "{} is no state folder, give the one that the daemon uses", state_dir.display());
    Ok(config::installation_secret(state_dir)?)
}

impl Made {
    fn summary(&self) -> String {
        let TrainingReport { rows, judged_rows, labels, routing, .. } = &self.report;
        let mut text = format!("{rows} rows, {judged_rows} of them judged, {labels} labels");
        if let Some(routing) = routing {
            let routed = format!(
                "; on {} rows held out, routing scores {:.4} and the best single model ({}) {:.4}",
                routing.rows, routing.score, routing.best_single, routing.best_single_score
            );
            text.push_str(&routed);
        }
        text
    }

    /// Each model, on the rows that were held out.
    fn table(&self) -> Table {
        let mut table = Table::new();
        let header = [
            "model",
            "rows",
            "mean",
            "log loss",
            "AUC",
            "Brier",
            "ECE before",
            "ECE after",
            "cost R²",
            "latency R²",
        ];
        table.load_style(presets::NOTHING).set_header(header);
        for of in &self.report.models {
            let ModelReport { model, rows, base_rate, log_loss, auc, brier, calibration_error, explained } = of;
            let figure = |x: f64| format!("{x:.4}");
            let known = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), figure);
            table.add_row([
                model.as_str().to_owned(),
                rows.to_string(),
                figure(*base_rate),
                figure(*log_loss),
                known(*auc),
                figure(brier[1]),
                figure(calibration_error[0]),
                figure(calibration_error[1]),
                known(explained.tokens_out.or(explained.cost)),
                known(explained.latency),
            ]);
        }
        table
    }
}
