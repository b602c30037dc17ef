//! The real `pointsmand` as a process of its own, for tests that need one to kill or to talk to from another language.
//!
//! It listens on a free port, so tests run side by side, and is killed (`kill -9`) when dropped.

use std::io::{BufRead as _, BufReader, Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A daemon that is up.
pub(crate) struct Daemon {
    /// Where it listens, `127.0.0.1:PORT`.
    pub(crate) address: String,
    /// The process.
    pub(crate) child: Child,
    // Held open, so that a write of the daemon to its stdout does not fail.
    _stdout: BufReader<ChildStdout>,
}

impl Daemon {
    /// Starts it and waits for its ready line. Its log goes to this test's stderr.
    pub(crate) fn start(config: &Path, state: &Path) -> Result<Self, Error> {
        let mut child = pointsmand()
            .arg("serve")
            .arg("--config")
            .arg(config)
            .args(["--listen", "127.0.0.1:0", "--state-dir"])
            .arg(state)
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or(ErrorKind::BrokenPipe)?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address =
            line.strip_prefix("pointsmand listening on ").and_then(|rest| rest.split_whitespace().next());
        match address.map(str::to_owned) {
            Some(address) => Ok(Self { address, child, _stdout: stdout }),
            None => {
                drop(child.kill());
                let ended = child.wait()?;
                Err(Error::other(format!("no ready line but {line:?}; the daemon ended with {ended}")))
            }
        }
    }
}

/// SIGKILL where it is still up: nothing is flushed, nothing is said.
impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The binary, without any setting from this process's environment.
pub(crate) fn pointsmand() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsmand"));
    let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("POINTSMAN_"));
    for (name, _) in ours {
        command.env_remove(name);
    }
    command
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}
