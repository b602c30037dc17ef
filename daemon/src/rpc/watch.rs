//! What the reader of a RouteStream sees: the request's events through a bounded channel.
//!
//! The pipeline never waits for a reader: an event that finds the channel full is dropped. A request
//! has at most a handful of events per call, so only a reader that does not read at all loses any,
//! and the end of the stream is sent with waiting. Progress never falls.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use pointsman_proto::v1;
use pointsman_router::clock::Clock;
use pointsman_router::progress::{Event, Progress};
use tokio::sync::mpsc;
use tonic::Status;

use crate::wire::response;

/// Events that wait for a slow reader: more than the largest set with all its retries has.
pub const EVENTS_MAX: usize = 64;
/// Progress once the request was admitted.
const ADMITTED: f64 = 0.05;
/// Progress once the models were chosen; the calls fill what is between this and [`CALLED`].
const DECIDED: f64 = 0.1;
/// Progress once every call ended.
const CALLED: f64 = 0.95;

/// What goes through the channel.
pub type Item = Result<v1::RouteStreamResponse, Status>;

/// Tells a request's events to one reader.
pub struct Watch {
    reader: mpsc::Sender<Item>,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    chosen: usize,
    ended: usize,
    progress: f64,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Watch {
    /// Tells this reader.
    #[must_use]
    pub fn new(reader: mpsc::Sender<Item>, clock: Arc<dyn Clock>) -> Self {
        Self { reader, clock, seen: Mutex::default() }
    }

    fn progress(&self, event: &Event) -> f64 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = match event {
            Event::Admitted(_) => ADMITTED,
            Event::Decided(decision) => {
                seen.chosen = decision.set.len();
                DECIDED
            }
            Event::AttemptStarted { .. } | Event::Provisional { .. } => seen.progress,
            Event::AttemptFinished(_) => {
                seen.ended += 1;
                let share = seen.ended.min(seen.chosen) as f64 / seen.chosen.max(1) as f64;
                DECIDED + (CALLED - DECIDED) * share
            }
        };
        seen.progress = seen.progress.max(reached);
        seen.progress
    }
}

impl Progress for Watch {
    fn tell(&self, event: Event) {
        let progress = self.progress(&event);
        let event = response::event(event, self.clock.now());
        // Full or gone: the reader's loss, never the request's.
        let _ = self.reader.try_send(Ok(v1::RouteStreamResponse { progress, event: Some(event) }));
    }
}

/// The last event.
#[must_use]
pub fn last(response: v1::RouteResponse) -> v1::RouteStreamResponse {
    let last = v1::RouteFinal { response: Some(response) };
    v1::RouteStreamResponse { progress: 1.0, event: Some(v1::route_stream_response::Event::Final(last)) }
}
