//! The configuration: `pointsman.toml`, the environment and the flags, made into one checked
//! [`Config`].
//!
//! Default < file < environment < flag. Every fault is found before any is told: unknown keys,
//! negative prices, duplicate names, empty pools and the rest come back together in one
//! [`ConfigError`], with which the binary ends with exit code 64.
//!
//! This is the only module of the daemon that reads the environment, and secrets leave it only as
//! [`Secret`], which prints nothing. Recorded and simulated backends bring models of their own, which
//! can be known only once their files are open: so [`read`] hands out a [`Draft`], and
//! `crate::backends::load` opens the files and ends the check.

mod auth;
mod budget;
mod check;
mod check_models;
mod checked;
mod fault;
mod installation;
mod layers;
mod learning;
mod overrides;
mod secret;
mod section;
#[cfg(test)]
mod tests;
mod values;
mod window;

pub use auth::{Auth, Keys, transport};
pub use budget::{
    ALERT_AT_PERCENT, ALERTS_WANTED, BUDGET_NAME_WANTED, Budget, Enforcement, Pacing, Scope, Whose, are_alerts,
    is_budget_name,
};
pub use check::check_rules;
pub use checked::{
    BackendConfig, BackendKind, Config, OpenaiConfig, OutputCapField, PolicyChoice, PolicyConfig, RecordedConfig,
    Registration, Server, SimulatedConfig, Store, TlsFiles,
};
pub use fault::{ConfigError, Fault, FaultKind, Faults};
pub use installation::{InstallationError, key_secret, secret as installation_secret};
pub use layers::{Environment, Flags, LOSE_ACKNOWLEDGED_ROWS, LOSE_THEM};
pub use learning::LearningConfig;
pub use overrides::{Override, OverrideStore, OverrideStoreError};
pub use secret::{Key, Secret};
pub use values::{NAME_BYTES_MAX, is_name, usd};
pub use window::{Window, bounds};

/// A configuration that was read and not yet checked to its end.
#[derive(Debug)]
pub struct Draft {
    /// What was read; must not be used while there are faults.
    pub config: Config,
    /// What is wrong so far.
    pub faults: Faults,
}

/// Reads the file, lays the environment and the flags over it, and checks all that can be checked
/// without opening a backend's files.
///
/// # Errors
/// [`ConfigError`] when the file cannot be read or is no TOML; all other faults are in the draft.
pub fn read(environment: &Environment, flags: &Flags) -> Result<Draft, ConfigError> {
    let layered = layers::layer(environment, flags)?;
    let config = check::check(&layered, environment);
    Ok(Draft { config, faults: layered.faults })
}
