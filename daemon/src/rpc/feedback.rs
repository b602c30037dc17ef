//! FeedbackService: what was right, acknowledged once it is durable.
//!
//! A stream is answered in the order of its items, with several of them on their way to the same
//! group commit; items about the same decision take turns, so the later one counts. A faulty item is answered with its fault and does not end the stream. A reader that
//! does not read holds up its own items and nobody else's. Draining does not refuse feedback: it is
//! never shed.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use pointsman_proto::v1;
use pointsman_proto::v1::feedback_service_server::FeedbackService;
use tokio::sync::Mutex;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};
use xxhash_rust::xxh3::xxh3_64;

use super::deadline::{deadline, within};
use super::decode;
use super::door::caller;
use super::status::Refusal;
use crate::feedback::FeedbackDesk;
use crate::keys::View;
use crate::store::ledger::{Ack, AckStatus, FeedbackRow};
use crate::wire::{self, timestamp};

/// Items of one stream that are on their way at once.
const ITEMS_MAX: usize = 256;
/// Turns that the items of one stream take, by decision.
const TURNS: usize = 64;

/// Takes feedback over gRPC.
#[derive(Debug, Clone)]
pub struct Verdicts {
    /// Holds it against its trace and keeps it.
    pub desk: FeedbackDesk,
}

impl Verdicts {
    async fn submit(&self, feedback: Option<v1::Feedback>, view: &View) -> Result<v1::FeedbackAck, Refusal> {
        Ok(ack_to_wire(self.desk.submit(wire::feedback::from_wire(feedback), view).await?))
    }
}

#[tonic::async_trait]
impl FeedbackService for Verdicts {
    type StreamFeedbackStream = Pin<Box<dyn Stream<Item = Result<v1::StreamFeedbackResponse, Status>> + Send>>;

    async fn submit_feedback(
        &self,
        request: Request<v1::SubmitFeedbackRequest>,
    ) -> Result<Response<v1::SubmitFeedbackResponse>, Status> {
        let (deadline, view) = (deadline(request.metadata())?, caller(&request)?.view());
        let ack = within(deadline, self.submit(request.into_inner().feedback, &view)).await?;
        Ok(Response::new(v1::SubmitFeedbackResponse { ack: Some(ack) }))
    }

    async fn stream_feedback(
        &self,
        request: Request<Streaming<v1::StreamFeedbackRequest>>,
    ) -> Result<Response<Self::StreamFeedbackStream>, Status> {
        let (this, view) = (self.clone(), Arc::new(caller(&request)?.view()));
        let turns: Arc<[Mutex<()>]> = (0..TURNS).map(|_| Mutex::new(())).collect();
        let items = request.into_inner().map_err(decode::item).enumerate();
        let replies = items.map(move |(item, request)| {
            let (this, turns, view) = (this.clone(), Arc::clone(&turns), Arc::clone(&view));
            async move {
                let feedback = request?.feedback;
                // Items begin in their order and the lock is fair, so they also end in it.
                let _turn = match turns.get(turn(feedback.as_ref())) {
                    Some(turn) => Some(turn.lock().await),
                    None => None,
                };
                let submitted = this.submit(feedback, &view).await;
                Ok(v1::StreamFeedbackResponse { item: item as u64, result: Some(result(submitted)) })
            }
        });
        Ok(Response::new(Box::pin(replies.buffered(ITEMS_MAX))))
    }
}

fn turn(feedback: Option<&v1::Feedback>) -> usize {
    let decision = feedback.map_or("", |feedback| feedback.decision_id.as_str());
    usize::try_from(xxh3_64(decision.as_bytes()) % TURNS as u64).unwrap_or(0)
}

fn result(submitted: Result<v1::FeedbackAck, Refusal>) -> v1::stream_feedback_response::Result {
    use v1::stream_feedback_response::Result as Wire;
    match submitted {
        Ok(ack) => Wire::Ack(ack),
        Err(refusal) => Wire::Error(v1::FeedbackError {
            code: refusal.reason().code().into(),
            reason: refusal.reason().name().to_owned(),
            field: refusal.first_field().unwrap_or_default().to_owned(),
            message: refusal.message().to_owned(),
        }),
    }
}

fn ack_to_wire(ack: Ack) -> v1::FeedbackAck {
    let status = match ack.status {
        AckStatus::Recorded => v1::FeedbackStatus::Recorded,
        AckStatus::Repeated => v1::FeedbackStatus::Repeated,
        AckStatus::Corrected => v1::FeedbackStatus::Corrected,
    };
    v1::FeedbackAck { status: status.into(), sequence: ack.seq, score: ack.score }
}

/// Stored feedback of one decision as the wire shows it, in ledger order.
pub(super) fn entries_to_wire(rows: &[FeedbackRow]) -> Vec<v1::FeedbackEntry> {
    let corrected_by = |seq: u64| rows.iter().find(|row| row.corrects == Some(seq)).map(|row| row.seq);
    rows.iter()
        .map(|row| v1::FeedbackEntry {
            sequence: row.seq,
            decision_id: row.feedback.decision.to_string(),
            model: row.feedback.model.as_ref().map(|model| model.as_str().to_owned()).unwrap_or_default(),
            given: Some(wire::feedback::verdict_to_wire(&row.feedback.verdict)),
            score: row.feedback.score,
            source: row.feedback.source.clone(),
            comment: row.feedback.comment.clone(),
            received_at: Some(timestamp(row.feedback.at)),
            corrects_sequence: row.corrects.unwrap_or_default(),
            corrected_by_sequence: corrected_by(row.seq).unwrap_or_default(),
        })
        .collect()
}
