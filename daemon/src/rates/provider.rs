//! A provider's own limits, kept on our side: calls wait for their turn instead of being throttled.
//!
//! A wait is inside the caller's deadline: the pipeline bounds it, and does not choose a model at all whose
//! provider has no turn before the deadline. While a call waits nothing is sent, so nothing is charged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pointsman_router::backend::{Backend, Call, CallError, Place, Reply};

use super::limiter::{Burst, Keyed, Limit, MINUTE, Refused};
use super::{REQUEST_BURST, tokens};

/// A backend whose provider has limits.
#[derive(Debug)]
pub struct Governed {
    inner: Arc<dyn Backend>,
    requests: Option<(Limit, Keyed)>,
    tokens: Option<(Limit, Keyed)>,
    /// Calls that wait for their turn.
    queued: AtomicUsize,
}

/// One that waits; no longer when it is dropped.
struct Queued<'a>(&'a AtomicUsize);

impl<'a> Queued<'a> {
    fn behind(queue: &'a AtomicUsize) -> Self {
        queue.fetch_add(1, Ordering::Relaxed);
        Self(queue)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Governed {
    /// This backend with these limits a minute; the backend itself where there are none.
    #[must_use]
    pub fn of(inner: Arc<dyn Backend>, requests: Option<Limit>, tokens: Option<Limit>) -> Arc<dyn Backend> {
        if requests.is_none() && tokens.is_none() {
            return inner;
        }
        Arc::new(Self {
            inner,
            requests: requests.map(|limit| (limit, Keyed::new(REQUEST_BURST))),
            tokens: tokens.map(|limit| (limit, Keyed::new(Burst::Minute))),
            queued: AtomicUsize::new(0),
        })
    }
}

/// Waits until so many may go; `Err` where they never may.
async fn turn((limit, keyed): &(Limit, Keyed), many: u64) -> Result<(), CallError> {
    loop {
        match keyed.check("", *limit, many) {
            Ok(()) => return Ok(()),
            Err(Refused::Wait(wait)) => tokio::time::sleep(wait).await,
            Err(Refused::Never) => {
                let limit = limit.per_minute();
                let detail = format!("the call may take {many} tokens, the provider's limit is {limit} a minute");
                return Err(CallError::Refused { detail });
            }
        }
    }
}

impl Backend for Governed {
    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Reply, CallError>> {
        async move {
            if let Some(limit) = &self.tokens {
                turn(limit, tokens(call.prompt.bytes(), Some(call.output_tokens_max))).await?;
            }
            self.inner.generate(call).await
        }
        .boxed()
    }

    fn place(&self) -> BoxFuture<'_, Place> {
        async move {
            if let Some(limit) = &self.requests {
                let _queued = Queued::behind(&self.queued);
                // One request always fits a limit.
                let _ = turn(limit, 1).await;
            }
            self.inner.place().await
        }
        .boxed()
    }

    fn wait(&self) -> Duration {
        let queued = u32::try_from(self.queued.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let own = self.requests.as_ref().map_or(Duration::ZERO, |(limit, _)| MINUTE / limit.per_minute() * queued);
        own.max(self.inner.wait())
    }

    fn covers(&self, upstream: &str, caller_ref: Option<&str>) -> bool {
        self.inner.covers(upstream, caller_ref)
    }
}
