//! Admit: the request is checked, gets its id and its seed, and pins the pool and the policy that it
//! will see to its end.
//!
//! Nothing has been spent here and nothing was reserved but a place for the trace, so everything that
//! is refused at this stage leaves no mark.

use std::sync::Arc;

use crate::check::{BadRequest, check};
use crate::clock::{Clock, Draw, Seeds, Timestamp};
use crate::ids::DecisionId;
use crate::model::{Pool, PoolSource};
use crate::policy::{PolicySource, Snapshot};
use crate::request::{Request, RouteRequest};
use crate::settings::Settings;
use crate::trace::{TracePlace, TraceSink, TracesFull};

/// Why a request was not admitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AdmitError {
    /// Something in the request is wrong; every fault is named.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// The trace store is behind.
    #[error(transparent)]
    TracesFull(#[from] TracesFull),
}

/// A request that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// The id of the decision to come.
    pub id: DecisionId,
    /// When it was admitted.
    pub at: Timestamp,
    /// The seed of all chance in this request.
    pub seed: u64,
    /// That chance, from which the id was drawn already.
    pub draw: Draw,
    /// The checked request.
    pub request: Request,
    /// The models of this moment.
    pub pool: Arc<Pool>,
    /// The policy of this moment.
    pub snapshot: Arc<Snapshot>,
    /// When the caller stops waiting.
    pub deadline: Option<Timestamp>,
    /// The place of the trace.
    pub place: TracePlace,
}

/// The ports that admission asks.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a> {
    /// The time.
    pub clock: &'a dyn Clock,
    /// The seeds.
    pub seeds: &'a dyn Seeds,
    /// The models.
    pub pools: &'a dyn PoolSource,
    /// The policy.
    pub policies: &'a dyn PolicySource,
    /// The traces.
    pub traces: &'a Arc<dyn TraceSink>,
}

/// Checks a request and lets it in.
///
/// # Errors
/// [`AdmitError`]; nothing was changed.
pub fn admit(raw: RouteRequest, settings: &Settings, gate: Gate<'_>) -> Result<Admitted, AdmitError> {
    let pool = gate.pools.pool();
    let request = check(raw, settings, &pool)?;
    let place = TracePlace::reserve(gate.traces)?;
    let at = gate.clock.now();
    let seed = gate.seeds.next_seed();
    let mut draw = Draw::from_seed(seed);
    Ok(Admitted {
        id: DecisionId::new(at, &mut draw),
        at,
        seed,
        draw,
        deadline: request.deadline.map(|left| at.plus(left)),
        request,
        pool,
        snapshot: gate.policies.current(seed),
        place,
    })
}
