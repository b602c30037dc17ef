//! ExportTraces: a stream over the store, batch by batch, oldest first.
//!
//! The end is fixed when the export begins, so traces that come in meanwhile do not make it endless.
//! A batch is read when the reader wants it: a slow reader holds no connection and no snapshot.

use std::collections::VecDeque;

use futures_util::stream;
use pointsman_proto::v1;
use tokio_stream::Stream;
use tonic::Status;

use super::reading::{TraceReader, Wanted};
use super::status::Refusal;
use crate::store::traces::StoredTrace;

/// Traces that are read at once.
const BATCH: usize = 256;

/// An export under way.
#[derive(Debug)]
pub(super) struct Export {
    from: TraceReader,
    wanted: Wanted,
    /// The place of the last trace that was read, and of the last that will be.
    after: u64,
    through: u64,
    left: u64,
    batch: VecDeque<StoredTrace>,
    ended: bool,
}

impl Export {
    /// An export of up to `limit` matching traces up to a place.
    pub(super) fn new(from: TraceReader, wanted: Wanted, through: u64, limit: u64) -> Self {
        Self { from, wanted, after: 0, through, left: limit, batch: VecDeque::new(), ended: false }
    }

    async fn next(&mut self) -> Result<Option<v1::ExportTracesResponse>, Refusal> {
        while self.left > 0 {
            let Some(stored) = self.batch.pop_front() else {
                if self.ended {
                    break;
                }
                let filter = self.wanted.filter.clone();
                let batch = self.from.traces.export(filter, self.after, self.through, BATCH).await?;
                self.ended = batch.len() < BATCH;
                self.batch = batch.into();
                continue;
            };
            self.after = stored.seq;
            if let Some(mut trace) = self.from.wanted(&self.wanted, &stored).await? {
                // A row of its own beside the trace must not get lost on the way.
                if trace.status() == v1::RequestStatus::Decided {
                    self.from.add_reports(&stored, &mut trace).await?;
                }
                self.left -= 1;
                let progress = self.after as f64 / self.through.max(1) as f64;
                return Ok(Some(v1::ExportTracesResponse { trace: Some(trace), progress }));
            }
        }
        Ok(None)
    }
}

/// The export as a stream; a fault of the store ends it.
pub(super) fn stream(export: Export) -> impl Stream<Item = Result<v1::ExportTracesResponse, Status>> {
    stream::try_unfold(export, |mut export| async move {
        let next = export.next().await?;
        Ok(next.map(|response| (response, export)))
    })
}
