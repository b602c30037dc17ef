//! `pointsmand`: the command line around the library. It parses, calls and turns errors into exit
//! codes; nothing is decided here.
//!
//! Exit codes: 0 done, 1 a fault while running, 64 a fault of usage or configuration, all of them
//! listed on stderr.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use pointsman_daemon::backends::{self, simulated};
use pointsman_daemon::config::{self, ConfigError, Environment, Flags};
use pointsman_daemon::operator::{self, KeysArgs};
use pointsman_daemon::training::offline;
use pointsman_daemon::verify::{self, Verified};
use pointsman_daemon::{audit, replay, serve, streams};

/// Routes each request to the models that are worth their money, and learns from feedback.
#[derive(Debug, Parser)]
#[command(name = "pointsmand", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves gRPC until it is told to drain (the default)
    Serve(ServeArgs),
    /// Checks the configuration and ends
    Check(ConfigArgs),
    /// Replays recorded outcomes through the pipeline and prints what a policy would have scored
    Replay(replay::ReplayArgs),
    /// Runs the learner alone on a binary stream of the peer benchmark and prints its regret
    Streams(streams::StreamsArgs),
    /// Proves that the learned state equals a rebuild from all rows, every balance the sum of its transfers, and that the
    /// audit log is what was written; the daemon must not be running
    Verify(ConfigArgs),
    /// Makes, lists and revokes keys on the state folder; the daemon must not be running
    Keys(KeysArgs),
    /// Fits a policy on exported traces or recorded outcomes; needs no daemon
    Train(offline::TrainArgs),
    /// Writes a simulated world's workload as recorded outcomes
    Workload(WorkloadArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Listen beyond the loopback although there is no TLS: keys and prompts travel in clear
    #[arg(long)]
    insecure: bool,
    /// How the log on stderr is written
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration; without it POINTSMAN_CONFIG, else pointsman.toml where there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of everything that is kept
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people
    Human,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Args)]
struct WorkloadArgs {
    /// The world's TOML file
    #[arg(long, value_name = "FILE")]
    world: PathBuf,
    /// Rows to write
    #[arg(long, value_name = "N", default_value_t = 3_000)]
    rows: u64,
    /// Where to write them; gzipped where the name ends in .gz
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl ConfigArgs {
    /// The state folder: that of the flag, else that of the configuration.
    fn state_dir(self, environment: &Environment) -> anyhow::Result<PathBuf> {
        match self.state_dir {
            Some(folder) => Ok(folder),
            None => Ok(backends::load(environment, &self.flags(None))?.config.server.state_dir),
        }
    }

    fn flags(self, listen: Option<String>) -> Flags {
        Flags { file: self.config, listen, state_dir: self.state_dir }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { ConfigError::EXIT_CODE } else { 0 };
            return if error.print().is_ok() { code.into() } else { ExitCode::FAILURE };
        }
    };
    match run(cli.command.unwrap_or(Command::Serve(cli.serve))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let said = writeln!(std::io::stderr().lock(), "pointsmand: {error:#}");
            let is_usage = error.is::<ConfigError>() || error.is::<replay::ReplayError>();
            let code = if is_usage { ConfigError::EXIT_CODE } else { 1 };
            if said.is_ok() { code.into() } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let environment = Environment::of_process();
    let mut out = std::io::stdout().lock();
    match command {
        Command::Serve(args) => {
            drop(out);
            log(args.log_format, environment.get("RUST_LOG").unwrap_or("info"));
            let loaded = backends::load(&environment, &args.config.flags(args.listen))?;
            config::transport(&loaded.config.server, args.insecure)?;
            runtime()?.block_on(serve::main(loaded))
        }
        Command::Check(args) => {
            let loaded = backends::load(&environment, &args.flags(None))?;
            writeln!(out, "the configuration is good: {} models", loaded.models.len())?;
            Ok(())
        }
        Command::Replay(args) => replay::main(&args, &mut out),
        Command::Streams(args) => streams::main(&args, &mut out),
        Command::Verify(args) => verify(&args.state_dir(&environment)?, &mut out),
        Command::Keys(KeysArgs { command, config, state_dir }) => {
            let state_dir = ConfigArgs { config, state_dir }.state_dir(&environment)?;
            runtime()?.block_on(operator::keys(&state_dir, command, &mut out))
        }
        Command::Train(args) => offline::main(&args, &mut out, &mut std::io::stderr().lock()),
        Command::Workload(args) => {
            let world = simulated::World::read(&args.world).context("the world cannot be used")?;
            Ok(simulated::write_workload(&world, args.rows, &args.out)?)
        }
    }
}

/// Says whether both ways to the learned state lead to the same bits, and whether the audit log is sound; an error where
/// not.
fn verify(state_dir: &Path, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    let folder = state_dir.display();
    anyhow::ensure!(
        state_dir.join("ledger.db").is_file(),
        "{folder} is no state folder, give one with --state-dir"
    );
    let artifact = serve::artifact(config::installation_secret(state_dir)?);
    for (version, verified) in runtime()?.block_on(verify::all(state_dir, artifact))? {
        let Verified { equal, feedback_mark, trace_mark, labels, from_base } = verified;
        let from = if from_base { "the base kept at the last pruning" } else { "all rows" };
        let verdict = if equal { "equal" } else { "DIFFERENT" };
        writeln!(
            out,
            "{verdict}: saved state of {version} and rebuild from {from}, {labels} labels, feedback {feedback_mark}, trace {trace_mark}"
        )?;
        anyhow::ensure!(equal, "the learned state is not what the rows say, please report this");
    }
    let imbalances = runtime()?.block_on(verify::money(state_dir))?;
    for imbalance in &imbalances {
        writeln!(out, "DIFFERENT: {imbalance}")?;
    }
    anyhow::ensure!(imbalances.is_empty(), "balances are not the sums of their transfers, please report this");
    writeln!(out, "equal: every balance and the sum of its transfers")?;
    let head = runtime()?.block_on(verify::audit(state_dir)).context("the audit log is not what was written")?;
    writeln!(out, "sound: audit log, head {}:{}", head.seq, audit::hex(&head.hash))?;
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime could be started")
}

/// The log goes to stderr: stdout carries the ready line and results alone.
fn log(format: LogFormat, filter: &str) {
    let filter = tracing_subscriber::EnvFilter::new(filter);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Human => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
