//! Requests that may be sent twice and are routed once.
//!
//! A request with a key runs as a task of its own: its caller may go away and come back with the same
//! key, and joins. The key is durable before anything is called; the reply is durable before it is
//! sent and is given again for a day. A request that failed is forgotten, so the same key may try
//! again: what it had called is settled by then. A daemon that stopped in between cannot know what
//! was spent, so that key answers ABORTED and nothing is called again.
//!
//! Requests without a key never come here and pay for none of this.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use pointsman_proto::v1;
use pointsman_router::clock::Clock;
use pointsman_router::ids::DecisionId;
use pointsman_router::request::TENANT_TAG;
use prost::Message as _;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::status::{Reason, Refusal};
use super::traffic::Traffic;
use crate::store::ledger::{Begin, LedgerStore};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;

/// The end of a request.
pub type Reply = Result<v1::RouteResponse, Refusal>;

/// What makes two requests the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    key: u128,
    body: u128,
}

/// One request under way: what it is, and where its end will be told.
#[derive(Debug)]
struct UnderWay {
    body: u128,
    end: watch::Receiver<Option<Reply>>,
}

type Map = Arc<Mutex<HashMap<u128, UnderWay>>>;

/// A cheap handle to the keys under way and those that are kept.
#[derive(Clone)]
pub struct Idempotency {
    store: LedgerStore,
    clock: Arc<dyn Clock>,
    traffic: Traffic,
    secret: u64,
    under_way: Map,
}

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency").finish_non_exhaustive()
    }
}

impl Idempotency {
    /// Keys kept in this store, hashed with the installation's secret.
    #[must_use]
    pub fn new(store: LedgerStore, clock: Arc<dyn Clock>, traffic: Traffic, secret: u64) -> Self {
        Self { store, clock, traffic, secret, under_way: Map::default() }
    }

    /// What a request claims: its key, apart for each tenant, and its content.
    #[must_use]
    pub fn claim(&self, spec: &v1::RequestSpec, key: &str, explain: bool) -> Claim {
        let tenant = spec.tags.get(TENANT_TAG).map_or("", String::as_str);
        let mut body = spec.encode_to_vec();
        body.push(u8::from(explain));
        let scoped = [tenant.as_bytes(), &[0xff], key.as_bytes()].concat();
        Claim { key: xxh3_128_with_seed(&scoped, self.secret), body: xxh3_128_with_seed(&body, self.secret) }
    }

    /// Runs the work once for its claim, or gives the reply of the run that was or is.
    ///
    /// # Errors
    /// The work's own, [`Reason::KeyReused`], [`Reason::KeyCrashed`], or what the store met.
    pub async fn once(&self, claim: Claim, work: BoxFuture<'static, Reply>) -> Reply {
        let (mut end, joined) = self.join_or_start(claim, work)?;
        let reply = match end.wait_for(Option::is_some).await {
            Ok(reply) => reply.clone(),
            Err(_) => None,
        };
        let mut reply = reply.unwrap_or_else(|| Err(crashed()))?;
        reply.replayed |= joined;
        Ok(reply)
    }

    fn join_or_start(
        &self,
        claim: Claim,
        work: BoxFuture<'static, Reply>,
    ) -> Result<(watch::Receiver<Option<Reply>>, bool), Refusal> {
        let mut under_way = lock(&self.under_way);
        match under_way.entry(claim.key) {
            Entry::Occupied(entry) if entry.get().body == claim.body => Ok((entry.get().end.clone(), true)),
            Entry::Occupied(_) => Err(reused()),
            Entry::Vacant(entry) => {
                let (tell, end) = watch::channel(None);
                entry.insert(UnderWay { body: claim.body, end: end.clone() });
                let run = Run { map: Arc::clone(&self.under_way), key: claim.key, tell };
                let this = self.clone();
                // Whoever waits holds a receiver; nobody needs the task's handle.
                drop(self.traffic.start(async move {
                    let reply = this.run(claim, work).await;
                    run.tell.send_replace(Some(reply));
                    drop(run);
                }));
                Ok((end, false))
            }
        }
    }

    async fn run(&self, claim: Claim, work: BoxFuture<'static, Reply>) -> Reply {
        match self.store.begin_key(claim.key, claim.body, self.clock.now()).await? {
            Begin::Fresh => self.work(claim, work).await,
            Begin::Done(bytes) => {
                let unreadable = |_| Refusal::new(Reason::Internal, "the kept reply cannot be read");
                let reply = v1::RouteResponse::decode(bytes.as_slice()).map_err(unreadable)?;
                Ok(v1::RouteResponse { replayed: true, ..reply })
            }
            Begin::OtherBody => Err(reused()),
            // Open without being under way: its reply could not be kept.
            Begin::Open | Begin::Crashed => Err(crashed()),
        }
    }

    async fn work(&self, claim: Claim, work: BoxFuture<'static, Reply>) -> Reply {
        let reply = self.traffic.bounded(work).await;
        let kept = match &reply {
            Ok(reply) => {
                let decision = DecisionId::parse(&reply.decision_id).ok();
                self.store.finish_key(claim.key, decision, reply.encode_to_vec()).await
            }
            Err(_) => self.store.forget_key(claim.key).await,
        };
        if let Err(error) = kept {
            // The money is spent and the reply is here: it goes out, and the key answers ABORTED from now on.
            tracing::error!(%error, "the end of a request with an idempotency key could not be kept");
        }
        reply
    }
}

/// Takes its key off the map when it ends, however it ends.
struct Run {
    map: Map,
    key: u128,
    tell: watch::Sender<Option<Reply>>,
}

impl Drop for Run {
    fn drop(&mut self) {
        lock(&self.map).remove(&self.key);
    }
}

fn lock(map: &Map) -> MutexGuard<'_, HashMap<u128, UnderWay>> {
    // A panic between two operations of the map leaves it whole.
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reused() -> Refusal {
    Refusal::new(Reason::KeyReused, "this idempotency_key was used for another request, give each request its own")
}

fn crashed() -> Refusal {
    let message = "the daemon stopped in the middle of this request and cannot say what it spent, send it with a new idempotency_key";
    Refusal::new(Reason::KeyCrashed, message)
}

#[cfg(test)]
mod tests;
