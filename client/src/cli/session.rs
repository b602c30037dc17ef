//! What every command needs: the connection, and how to print.

use std::future::Future;
use std::io::Write as _;

use pointsman_client::{Client, ClientError};
use prost::Message;

use super::json::{self, Named};
use super::progress;
use super::tables::Look;

/// The connection, and how to print.
pub(crate) struct Session {
    /// The connection.
    pub(crate) client: Client,
    /// Whether JSON is printed instead of tables.
    pub(crate) json: bool,
    /// How tables look.
    pub(crate) look: Look,
}

impl Session {
    /// Awaits a call; a spinner shows on a terminal when it takes longer than a second.
    pub(crate) async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        progress::patiently(what, Box::pin(call)).await
    }

    /// Prints a reply: as one line of JSON, or as text for people.
    pub(crate) fn reply<M: Message + Named>(
        &self,
        message: &M,
        text: impl FnOnce(&Look, &M) -> String,
    ) -> anyhow::Result<()> {
        if self.json { self.line(&json::text(message)?) } else { self.print(&text(&self.look, message)) }
    }

    /// Prints text as it is.
    pub(crate) fn print(&self, text: &str) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        Ok(())
    }

    /// Prints a line.
    pub(crate) fn line(&self, text: &str) -> anyhow::Result<()> {
        self.print(&format!("{text}\n"))
    }
}
