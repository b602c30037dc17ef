//! The operator's hand on the state folder while the daemon does not run: the first key has to come from
//! somewhere, and the last one may be lost.
//!
//! Whoever may write the folder may make keys; the audit chain calls that actor `operator`. The folder is
//! locked meanwhile, so nothing changes under a daemon that runs. The text of a new key goes to stdout, once,
//! and must never go anywhere else.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use pointsman_router::clock::{Clock as _, Timestamp};

use crate::audit::{By, OPERATOR};
use crate::clock::SystemClock;
use crate::config;
use crate::keyring::{Keyring, Wanted};
use crate::keys::{HashKey, KeyState, Limits, Scope};
use crate::store::ledger::LedgerStore;
use crate::store::lock::StateLock;

/// Keys on the state folder.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: KeysCommand,
    /// The configuration; without it POINTSMAN_CONFIG, else pointsman.toml where there is one
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder of everything that is kept
    #[arg(long, global = true, value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,
}

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Makes a key and prints its text, this once
    Create(CreateArgs),
    /// Every key
    List,
    /// Lets a key let nobody in any more
    Revoke {
        /// Its id
        id: String,
    },
}

/// A key to make.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Whose it is
    #[arg(long, value_name = "TENANT")]
    tenant: String,
    /// What people call it
    #[arg(long, value_name = "TEXT", default_value = "")]
    name: String,
    /// What it may do: route, feedback, read, train, admin; several times or divided by commas
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = scope)]
    scopes: Vec<Scope>,
    /// From when on it lets nobody in, for instance 2027-01-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    expires_at: Option<Timestamp>,
    /// Requests that it may make in a minute
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u64>,
    /// Tokens, in and out, that it may use in a minute
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u64>,
    /// Micro-dollars that it may spend in a minute
    #[arg(long, value_name = "N")]
    spend_usd_micros_per_minute: Option<u64>,
}

fn scope(word: &str) -> Result<Scope, String> {
    Scope::parse(word).ok_or_else(|| "give route, feedback, read, train or admin".to_owned())
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let read: Result<jiff::Timestamp, _> = text.parse();
    read.map(|time| Timestamp::from_micros(time.as_microsecond()))
        .map_err(|_| "give a time such as 2027-01-01T00:00:00Z".to_owned())
}

/// Makes, lists or revokes keys; a state folder is made where there is none.
///
/// # Errors
/// A folder that is in use or cannot be written, and what the keyring refuses.
pub async fn keys(state_dir: &Path, command: KeysCommand, out: &mut impl Write) -> anyhow::Result<()> {
    let hash_key = HashKey::new(&config::key_secret(state_dir)?);
    let _lock = StateLock::take(state_dir)?;
    let ledger = LedgerStore::open(&state_dir.join("ledger.db"), None).await?;
    let keyring = Keyring::open(ledger.clone(), hash_key).await?;
    let done = run(&keyring, command, out).await;
    ledger.close().await?;
    done
}

async fn run(keyring: &Keyring, command: KeysCommand, out: &mut impl Write) -> anyhow::Result<()> {
    let by = By::new(OPERATOR, SystemClock.now());
    match command {
        KeysCommand::Create(args) => {
            let fresh = keyring.create(wanted(args), &by).await?;
            writeln!(out, "{}", fresh.text.expose()).context("the key was made and could not be shown, revoke it")
        }
        KeysCommand::List => {
            for key in keyring.list(None) {
                let state = match key.state(by.at) {
                    KeyState::Active => "active",
                    KeyState::Expired => "expired",
                    KeyState::Revoked => "revoked",
                };
                writeln!(out, "{}\t{}\t{}\t{state}\t{}", key.id, key.tenant, key.scopes.words(), key.name)?;
            }
            Ok(())
        }
        KeysCommand::Revoke { id } => {
            let key = keyring.revoke(&id, &by).await?;
            Ok(writeln!(out, "{} is revoked", key.id)?)
        }
    }
}

fn wanted(args: CreateArgs) -> Wanted {
    let CreateArgs { tenant, name, scopes, expires_at, .. } = args;
    let limits = Limits {
        requests_per_minute: args.requests_per_minute,
        tokens_per_minute: args.tokens_per_minute,
        spend_usd_micros_per_minute: args.spend_usd_micros_per_minute,
    };
    Wanted { tenant, name, scopes: scopes.into_iter().collect(), expires_at, limits }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: KeysCommand,
    }

    async fn run(folder: &Path, line: &str) -> anyhow::Result<String> {
        let line = Line::try_parse_from(format!("keys {line}").split(' '))?;
        let mut out = Vec::new();
        keys(folder, line.command, &mut out).await?;
        Ok(String::from_utf8(out)?)
    }

    #[tokio::test]
    async fn the_first_key_is_made_listed_and_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let text = run(&state, "create --tenant acme --scope admin,read --name ops").await.unwrap();
        let keyring = async || {
            let ledger = LedgerStore::open(&state.join("ledger.db"), None).await.unwrap();
            Keyring::open(ledger, HashKey::new(&config::key_secret(&state).unwrap())).await.unwrap()
        };
        let now = SystemClock.now();
        let caller = keyring().await.admit(Some(text.trim()), now).unwrap();
        assert!(caller.may(Scope::Admin) && caller.tenant() == Some("acme"));
        let id = caller.key().unwrap().as_str().to_owned();
        assert_eq!(run(&state, "list").await.unwrap(), format!("{id}\tacme\tread,admin\tactive\tops\n"));
        run(&state, &format!("revoke {id}")).await.unwrap();
        assert!(keyring().await.admit(Some(text.trim()), now).is_none());
        for bad in [
            "create --tenant acme",
            "create --scope admin",
            "create --tenant acme --scope root",
            "create --tenant acme --scope read --expires-at soon",
            "create --tenant acme --scope read --expires-at 2001-01-01T00:00:00Z",
            "revoke nonsense",
        ] {
            assert!(run(&state, bad).await.is_err(), "{bad}");
        }
        let _held = StateLock::take(&state).unwrap();
        assert!(run(&state, "list").await.is_err());
    }
}
