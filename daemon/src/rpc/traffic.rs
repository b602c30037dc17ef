//! The requests that are under way: how many there are, when no more are let in, and when those that
//! remain are cut off.
//!
//! Draining has two steps. [`Traffic::drain`] lets nothing new in; [`Traffic::cut`] ends what still
//! runs after the grace: its futures are dropped, and dropping one settles and traces it as
//! cancelled. Tasks that outlive their caller run here too, so a drain waits for them.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::status::{Reason, Refusal, overloaded};

/// A cheap handle to the count of requests under way.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Requests that may be under way at once.
    most: usize,
    under_way: TaskTracker,
    tasks: TaskTracker,
    draining: CancellationToken,
    cut: CancellationToken,
    grace: Arc<Mutex<Option<Duration>>>,
}

impl Traffic {
    /// Nothing is under way, and at most so many requests ever are at once.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            under_way: TaskTracker::default(),
            tasks: TaskTracker::default(),
            draining: CancellationToken::default(),
            cut: CancellationToken::default(),
            grace: Arc::default(),
        }
    }

    /// Lets a request in; it is under way until the token is dropped.
    ///
    /// # Errors
    /// [`Reason::Draining`] once a drain began, [`Reason::Overloaded`] where too many are under way.
    pub fn enter(&self) -> Result<TaskTrackerToken, Refusal> {
        let token = self.under_way.token();
        if self.draining.is_cancelled() {
            return Err(draining());
        }
        // The token itself counts.
        if self.under_way.len() > self.most {
            return Err(overloaded("too many requests are under way, try again shortly"));
        }
        Ok(token)
    }

    /// Lets nothing new in from now on. The first call's grace counts; absent: the configured one.
    pub fn drain(&self, grace: Option<Duration>) {
        let mut kept = self.grace.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.draining.is_cancelled() {
            *kept = grace;
            self.draining.cancel();
        }
    }

    /// Waits until somebody asks for a drain.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// The grace that came with the drain.
    #[must_use]
    pub fn grace(&self) -> Option<Duration> {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Waits until nothing is under way; something may come again unless a drain began.
    pub async fn idle(&self) {
        for tracker in [&self.under_way, &self.tasks] {
            tracker.close();
            tracker.wait().await;
        }
    }

    /// Ends everything that is still under way.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Runs a request's work to its end, or drops it at the cut.
    ///
    /// # Errors
    /// The work's own, or [`Reason::Draining`].
    pub async fn bounded<T>(&self, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        self.cut.run_until_cancelled(work).await.unwrap_or_else(|| Err(draining()))
    }

    /// Starts a task that a drain waits for.
    pub fn start<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.tasks.spawn(work)
    }
}

fn draining() -> Refusal {
    Refusal::new(Reason::Draining, "the daemon is shutting down, send the request to another one or retry later")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_lets_nothing_in_and_waits_for_what_runs() {
        let traffic = Traffic::new(2);
        let token = traffic.enter().unwrap();
        traffic.drain(Some(Duration::from_secs(3)));
        traffic.drain(None);
        assert_eq!(traffic.grace(), Some(Duration::from_secs(3)));
        assert_eq!(traffic.enter().unwrap_err().reason(), Reason::Draining);
        assert!(tokio::time::timeout(Duration::from_secs(60), traffic.idle()).await.is_err());
        drop(token);
        traffic.idle().await;
    }

    #[test]
    fn what_is_too_many_is_refused_until_one_ends() {
        let traffic = Traffic::new(2);
        let held = [traffic.enter().unwrap(), traffic.enter().unwrap()];
        assert_eq!(traffic.enter().unwrap_err().reason(), Reason::Overloaded);
        assert_eq!(traffic.len(), 2);
        drop(held);
        assert!(traffic.enter().is_ok());
    }

    #[tokio::test]
    async fn the_cut_ends_what_still_runs() {
        let traffic = Traffic::new(2);
        traffic.cut();
        let never = traffic.bounded(std::future::pending::<Result<(), Refusal>>()).await;
        assert_eq!(never.unwrap_err().reason(), Reason::Draining);
    }
}
