//! From arguments to an exit code: parse, connect, dispatch, print, end.
//!
//! Every command is one function over a [`Session`]; a failure of any of them ends here, as one block on stderr and one
//! code. It must never print a failure to stdout, where scripts read the result.

mod admin;
mod args;
mod audit;
mod budgets;
mod exit;
mod feedback;
mod import;
mod input;
mod json;
mod keys;
mod learn;
mod page;
mod parse;
mod play;
mod policies;
mod progress;
mod route;
mod session;
mod show;
mod stats;
mod tables;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use pointsman_client::{ApiKey, Client, Target, Tls};

use self::args::{Cli, Command};
use self::exit::Exit;
use self::input::flag;
use self::session::Session;
use self::tables::Look;

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures; clap knows which stream each belongs to.
            let shown = error.print();
            let code = if error.use_stderr() || shown.is_err() { Exit::Usage } else { Exit::Ok };
            return code.into();
        }
    };
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")
        .and_then(|runtime| runtime.block_on(run(cli)));
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = Exit::of(&error);
            if exit != Exit::Ok {
                let mut stderr = std::io::stderr().lock();
                // Nowhere is left to tell that stderr is closed.
                drop(write!(stderr, "{}", exit::block(&error)));
            }
            exit.into()
        }
    }
}

/// What TLS needs, out of the files that were named.
fn tls(ca: Option<&Path>, identity: Option<&[PathBuf]>) -> anyhow::Result<Option<Tls>> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    let Some(ca) = ca else { return Ok(None) };
    let identity = match identity {
        Some([certificate, key]) => Some((read(certificate)?, read(key)?)),
        Some(_) | None => None,
    };
    Ok(Some(Tls { authorities: read(ca)?, identity }))
}

async fn run(cli: Cli) -> anyhow::Result<Exit> {
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "pointsman", &mut script);
        std::io::stdout().lock().write_all(&script)?;
        return Ok(Exit::Ok);
    }
    let mut target = Target::new(cli.address);
    target.connect_within = cli.connect_within;
    target.deadline = Some(cli.timeout);
    target.key = key(cli.key_file.as_deref())?;
    target.tls = tls(cli.ca.as_deref(), cli.identity.as_deref())?;
    let client = progress::patiently("connecting", Box::pin(Client::connect(target))).await?;
    let stdout_is_terminal = std::io::stdout().is_terminal();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let session = Session { client, json: cli.json, look: Look::new(stdout_is_terminal, no_color) };
    dispatch(&session, cli.command).await
}

/// The key of the file, else of the environment. Never of an argument, which every process on the machine could read.
fn key(file: Option<&str>) -> anyhow::Result<Option<ApiKey>> {
    let text = match file {
        Some(file) => {
            Some(String::from_utf8(input::bytes(file)?).map_err(|_| flag("--key-file", "holds no key"))?)
        }
        None => std::env::var("POINTSMAN_KEY").ok().filter(|text| !text.trim().is_empty()),
    };
    Ok(text.map(|text| ApiKey::new(&text)).transpose()?)
}

async fn dispatch(session: &Session, command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Route(args) => Box::pin(route::route(session, args)).await,
        Command::Decide(args) => Box::pin(route::decide(session, args)).await,
        Command::Report(args) => Box::pin(route::report(session, args)).await,
        Command::Feedback(args) => Box::pin(feedback::feedback(session, args)).await,
        Command::Play(args) => Box::pin(play::play(session, args)).await,
        Command::Stats(args) => Box::pin(stats::models(session, args)).await,
        Command::Traces { command } => Box::pin(stats::traces(session, command)).await,
        Command::Store => Box::pin(stats::store(session)).await,
        Command::Models { command } => Box::pin(admin::models(session, command)).await,
        Command::Train(args) => Box::pin(learn::train(session, args)).await,
        Command::Evaluate(args) => Box::pin(learn::evaluate(session, args)).await,
        Command::Promote(args) => Box::pin(learn::promote(session, args)).await,
        Command::Rollback { reason } => Box::pin(learn::rollback(session, reason)).await,
        Command::Shadow(args) => Box::pin(learn::shadow(session, args)).await,
        Command::Policies { command } => Box::pin(policies::policies(session, command)).await,
        Command::Budget => Box::pin(budgets::budget(session)).await,
        Command::Budgets { command } => Box::pin(budgets::budgets(session, command)).await,
        Command::Keys { command } => Box::pin(keys::keys(session, command)).await,
        Command::Audit { command } => Box::pin(audit::audit(session, command)).await,
        Command::Drain { grace } => Box::pin(admin::drain(session, grace)).await,
        Command::Health { service } => Box::pin(admin::health(session, &service)).await,
        // Written before the connection is opened; needs no daemon.
        Command::Completions { .. } => Ok(Exit::Ok),
    }
}
