//! The wiring: a checked configuration in, a running daemon out, and its orderly end.
//!
//! Order of the start: secret → stores → money → models → learned state → core → services → port.
//! Everything that a restart owes is done before the port opens: what was committed and not booked is
//! booked, what was not learned is learned. Order of the end: NOT_SERVING, nothing new is let in,
//! what runs is finished, or cut after the grace, then learned state, money and stores are closed, so
//! that a clean end leaves nothing unknown.
//!
//! This is the only module that starts tasks. It decides nothing.

mod jobs;
mod parts;
mod tls;
mod transport;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;

use crate::backends::Loaded;
use crate::booking;
use crate::config::{InstallationError, OverrideStoreError};
use crate::learning::{LearningError, Streams};
use crate::rpc::traffic::Traffic;
use crate::store::StoreError;
use crate::store::artifacts::ArtifactFileError;
use jobs::Books;
use parts::Parts;
pub use parts::artifact;
pub use tls::{Tls, TlsError};
use transport::Transport;

/// From NOT_SERVING to the refusal of requests: load balancers look away meanwhile.
const LOOK_AWAY: Duration = Duration::from_millis(100);
/// How long clients have to close their connections after the last request ended.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// How long what was cut has to settle.
const CUT_GRACE: Duration = Duration::from_secs(2);

/// Why the daemon could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The state folder cannot be used.
    #[error(transparent)]
    Installation(#[from] InstallationError),
    /// A store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The models that were registered at run time cannot be read.
    #[error(transparent)]
    Overrides(#[from] OverrideStoreError),
    /// The artifacts cannot be used.
    #[error(transparent)]
    Artifacts(#[from] ArtifactFileError),
    /// The learned state cannot be had.
    #[error(transparent)]
    Learning(#[from] LearningError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server broke down.
    #[error("the server broke down: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The services cannot be described.
    #[error("reflection cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A daemon whose stores are open and whose port is not.
#[derive(Debug)]
pub struct Daemon {
    parts: Parts,
    jobs: JoinSet<()>,
    stop: CancellationToken,
    transport: Transport,
    drain_timeout: Duration,
}

/// Runs the daemon until a signal or an administrator ends it. When it is ready it says so in one line
/// on stdout: `pointsmand listening on ADDRESS:PORT state FOLDER`.
///
/// # Errors
/// Whatever kept it from running; a clean end is no error.
pub async fn main(loaded: Loaded) -> anyhow::Result<()> {
    let (address, state_dir) = (loaded.config.server.listen, loaded.config.server.state_dir.clone());
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.with_context(|| format!("cannot listen on {address}, choose another with --listen"))?;
    let daemon = Daemon::open(loaded).await?;
    // Heard before the daemon says that it is ready: whoever ends it at once gets a drain, too.
    let mut signals = JoinSet::new();
    let heard = Signals::hear().context("signals cannot be heard")?;
    signals.spawn(heard.drain(daemon.traffic().clone()));
    say_ready(listener.local_addr()?, &state_dir)?;
    daemon.serve(listener).await?;
    Ok(())
}

fn say_ready(address: SocketAddr, state_dir: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "pointsmand listening on {address} state {}", state_dir.display())?;
    out.flush()
}

/// SIGTERM and SIGINT, heard from the moment on that this is made.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn hear() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// The first drains, the second cuts what still runs.
    async fn drain(mut self, traffic: Traffic) {
        self.next().await;
        traffic.drain(None);
        self.next().await;
        traffic.cut();
    }
}

impl Daemon {
    /// Opens everything but the port and starts the jobs.
    ///
    /// # Errors
    /// [`ServeError`]; nothing was started.
    pub async fn open(loaded: Loaded) -> Result<Self, ServeError> {
        let server = loaded.config.server.clone();
        let parts::Opened { parts, teacher, feedback, committed, booked } = parts::open(loaded).await?;
        let stop = CancellationToken::new();
        let (to_teacher, to_learn) = tokio::sync::mpsc::channel(parts::LESSONS_MAX);
        let books = Books {
            main: parts.budget.name(),
            clock: Arc::clone(&parts.clock),
            traces: parts.traces.clone(),
            ledger: parts.ledger.clone(),
            registry: Arc::clone(&parts.registry),
            booked,
        };
        let mut jobs = JoinSet::new();
        jobs.spawn(teacher.run(Streams { feedback, committed: to_learn }));
        jobs.spawn(books.keep(committed, to_teacher));
        jobs.spawn(jobs::expire_reports(parts.reports.clone(), parts.clock.clone(), stop.clone()));
        jobs.spawn(jobs::retain(parts.retention(), stop.clone()));
        jobs.spawn(jobs::retrain(parts.retraining.clone(), parts.learning.clone(), stop.clone()));
        let tls = server.tls.map(Tls::open).transpose()?.map(Arc::new);
        if let Some(tls) = &tls {
            jobs.spawn(jobs::reload(Arc::clone(tls), stop.clone()));
        }
        let transport =
            Transport { message_bytes_max: server.message_bytes_max, reflection: server.reflection, tls };
        Ok(Self { parts, jobs, stop, transport, drain_timeout: server.drain_timeout })
    }

    /// The requests under way, and the way to drain.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.parts.traffic
    }

    /// TLS, where it is configured.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.transport.tls.as_ref()
    }

    /// Serves on this port until the drain, then closes everything.
    ///
    /// # Errors
    /// [`ServeError`] when the server broke down or a store could not be closed.
    pub async fn serve(self, listener: TcpListener) -> Result<(), ServeError> {
        let traffic = self.parts.traffic.clone();
        let closing = self.stop.clone().cancelled_owned();
        let (server, health) = transport::serve(listener, self.parts.services(), self.transport.clone(), closing)?;
        health.tell(ServingStatus::Serving).await;
        let mut server = std::pin::pin!(server);
        tokio::select! {
            ended = &mut server => ended?,
            () = drained(&traffic, &health, self.drain_timeout) => {}
        }
        self.stop.cancel();
        if let Ok(ended) = tokio::time::timeout(CLOSE_GRACE, server).await {
            ended?;
        }
        self.close().await
    }

    /// Everything that is committed is booked and learned, then the files are closed.
    async fn close(mut self) -> Result<(), ServeError> {
        let Parts { traces, ledger, budget, learning, clock, trainer, .. } = &self.parts;
        trainer.stop();
        traces.flushed().await?;
        booking::catch_up(&budget.name(), traces, ledger, clock.now()).await?;
        learning.save().await?;
        self.jobs.shutdown().await;
        budget.close().await?;
        traces.close().await?;
        ledger.close().await?;
        tracing::info!("drained and closed");
        Ok(())
    }
}

/// Waits for the drain and for the requests under way; what outlives the grace is cut.
async fn drained(traffic: &Traffic, health: &transport::Health, drain_timeout: Duration) {
    traffic.draining().await;
    tracing::info!(under_way = traffic.len(), "draining");
    health.tell(ServingStatus::NotServing).await;
    tokio::time::sleep(LOOK_AWAY).await;
    let grace = traffic.grace().unwrap_or(drain_timeout);
    if tokio::time::timeout(grace, traffic.idle()).await.is_err() {
        tracing::warn!(under_way = traffic.len(), "the grace is over, requests are cut");
        traffic.cut();
        // What does not settle in time is accounted for by the next start.
        let _ = tokio::time::timeout(CUT_GRACE, traffic.idle()).await;
    }
}
