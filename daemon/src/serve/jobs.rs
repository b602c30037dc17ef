//! What runs beside the requests: booking, retention, retraining, and reports whose time is over.
//!
//! Jobs are small steps, end when the daemon stops, and never take the place of a request. A step
//! that fails is logged and tried again; nothing is lost by it, since every job goes on from what is
//! committed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pointsman_router::clock::Clock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::tls::Tls;
use crate::booking;
use crate::learning::Learning;
use crate::registry::Registry;
use crate::reports::Reports;
use crate::retention::Retention;
use crate::store::ledger::LedgerStore;
use crate::store::traces::{Committed, TraceStore};
use crate::training::retrain::Retraining;

/// How often reports are looked at.
const REPORTS_EVERY: Duration = Duration::from_secs(1);
/// How often retention is looked at.
const RETENTION_EVERY: Duration = Duration::from_secs(60);
/// How often certificates are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether a candidate is due.
const RETRAIN_EVERY: Duration = Duration::from_secs(5);
/// Rows that are booked in one commit, at most.
const BOOKED_AT_ONCE: usize = 2_048;
/// The pause after a booking that failed.
const BOOKING_PAUSE: Duration = Duration::from_secs(1);

/// The books: what is committed is passed on to the teacher and booked.
#[derive(Debug)]
pub(super) struct Books {
    /// The account that everything is charged to.
    pub(super) main: Arc<str>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) traces: TraceStore,
    pub(super) ledger: LedgerStore,
    /// The models, whose price cards are held against what calls cost.
    pub(super) registry: Arc<Registry>,
    /// The place up to which everything is booked.
    pub(super) booked: u64,
}

impl Books {
    /// Books what is committed, in its order, until the store is gone.
    pub(super) async fn keep(
        mut self,
        mut committed: mpsc::UnboundedReceiver<Committed>,
        teacher: mpsc::Sender<Committed>,
    ) {
        let mut rows = Vec::with_capacity(BOOKED_AT_ONCE);
        while committed.recv_many(&mut rows, BOOKED_AT_ONCE).await > 0 {
            self.book(&rows).await;
            self.suspect(&rows).await;
            for row in rows.drain(..) {
                // A teacher that stopped has said why; the next start learns what it missed.
                let _ = teacher.send(row).await;
            }
        }
    }

    async fn book(&mut self, rows: &[Committed]) {
        let Some(through) = rows.last().map(Committed::seq) else { return };
        match booking::book(&self.main, &self.ledger, (self.booked, through), rows, self.clock.now()).await {
            Ok(mark) if mark == through => self.booked = mark,
            // Behind or ahead of what was thought: go on from what the stores say.
            Ok(_) => self.catch_up().await,
            Err(error) => {
                tracing::error!(%error, "spend could not be booked, it is tried again");
                tokio::time::sleep(BOOKING_PAUSE).await;
                self.catch_up().await;
            }
        }
    }

    /// Marks the models whose calls cost more than their price cards allow.
    async fn suspect(&self, rows: &[Committed]) {
        for (model, why) in rows.iter().flat_map(booking::above_their_cards) {
            match self.registry.suspect(&model, why.clone(), self.clock.now()).await {
                Ok(true) => {
                    tracing::error!(%model, %why, "the price card is suspect, mend it and enable the model")
                }
                Ok(false) => {}
                Err(error) => tracing::error!(%model, %error, "a suspect price card could not be marked"),
            }
        }
    }

    async fn catch_up(&mut self) {
        match booking::catch_up(&self.main, &self.traces, &self.ledger, self.clock.now()).await {
            Ok(mark) => self.booked = mark,
            Err(error) => tracing::error!(%error, "spend could not be booked, the next commit tries again"),
        }
    }
}

/// Gives up waiting for reports whose time is over, until the stop.
pub(super) async fn expire_reports(reports: Arc<Reports>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    every(REPORTS_EVERY, stop, || {
        reports.expire(clock.now());
        std::future::ready(())
    })
    .await;
}

/// Trains candidates when they are due, until the stop.
pub(super) async fn retrain(retraining: Retraining, learning: Learning, stop: CancellationToken) {
    every(RETRAIN_EVERY, stop, || async {
        let incumbent = learning.status().running;
        if let Err(error) = retraining.step(&incumbent).await {
            tracing::warn!(%error, "retraining could not be looked at, it is tried again");
        }
    })
    .await;
}

/// Reads the certificate again where its files changed, until the stop.
pub(super) async fn reload(tls: Arc<Tls>, stop: CancellationToken) {
    every(RELOAD_EVERY, stop, || {
        match tls.reload() {
            Ok(true) => tracing::info!("the certificate changed, new connections get the new one"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the certificate cannot be read, the earlier one stays"),
        }
        std::future::ready(())
    })
    .await;
}

/// Prunes traces that are too old or too many, until the stop.
pub(super) async fn retain(retention: Retention, stop: CancellationToken) {
    every(RETENTION_EVERY, stop, || async {
        if let Err(error) = retention.prune().await {
            tracing::warn!(%error, "traces could not be pruned, it is tried again");
        }
    })
    .await;
}

async fn every<F: Future<Output = ()>>(period: Duration, stop: CancellationToken, mut step: impl FnMut() -> F) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if stop.run_until_cancelled(step()).await.is_none() {
            return;
        }
    }
}
