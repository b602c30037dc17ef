//! Plays the rows: a bounded number of them at once, feedback right after each reply, all over one channel.
//!
//! A row that fails is counted and goes on, since a daemon under test may refuse some; but when the first
//! [`HOPELESS`] ended rows all failed, the run ends with the first failure, which is then worth more than a table.
//! Results stand in the order of the rows, whatever order they ended in.

use std::io::Write as _;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use pointsman_client::{Client, ClientError, v1};
use tokio::time::Instant;

use super::judge;
use super::reference::{Mean, usd};
use super::workload::Row;
use crate::cli::args::PlayArgs;
use crate::cli::progress::Bar;

/// Rows that may fail from the start before the run is given up.
const HOPELESS: usize = 50;

/// What became of one row.
#[derive(Debug, Clone)]
pub(crate) struct Played {
    /// Its place in the order.
    pub(crate) index: usize,
    /// The models that were called, heaviest first.
    pub(crate) called: Vec<String>,
    /// How right the reply was, 0 to 1; 0 for a failed row. Absent: nothing is known to judge it by.
    pub(crate) score: Option<f64>,
    /// What it cost, in nano-dollars. Absent: it failed, and nobody says what it cost.
    pub(crate) cost_usd_nanos: Option<i64>,
    /// Why there is no reply.
    pub(crate) failure: Option<ClientError>,
    /// Why a feedback was not acknowledged.
    pub(crate) feedback_failure: Option<ClientError>,
}

/// All rows that were played.
#[derive(Debug)]
pub(crate) struct Run {
    /// In the order of the rows.
    pub(crate) played: Vec<Played>,
    /// The reply to the last row that has one, and the place of that row. The others are not kept: they are large.
    pub(crate) last: Option<(usize, v1::RouteResponse)>,
    /// From the first request to the last acknowledgement.
    pub(crate) took: Duration,
}

/// Plays all rows.
pub(crate) async fn run(client: &Client, rows: &[Row], args: &PlayArgs) -> Result<Run, ClientError> {
    let started = Instant::now();
    let mut bar = Bar::new("playing", u64::try_from(rows.len()).unwrap_or(u64::MAX));
    let mut recent = Recent::new(args.report_every, rows.len());
    let mut played: Vec<Played> = Vec::with_capacity(rows.len());
    let mut last: Option<(usize, v1::RouteResponse)> = None;
    let mut ends = stream::iter(rows.iter().enumerate())
        .map(|(index, row)| one(client, index, row, args))
        .buffer_unordered(args.concurrency.get());
    while let Some((one, response)) = ends.next().await {
        bar.set(u64::try_from(played.len()).unwrap_or(u64::MAX) + 1);
        if let Some(line) = recent.take(&one) {
            // A line that cannot be written must not end the run.
            bar.aside(|| drop(writeln!(std::io::stderr(), "{line}")));
        }
        if let Some(response) = response
            && last.as_ref().is_none_or(|(index, _)| *index < one.index)
        {
            last = Some((one.index, response));
        }
        played.push(one);
        if last.is_none() && played.len() >= HOPELESS {
            break;
        }
    }
    drop(ends);
    bar.finish();
    let took = started.elapsed();
    played.sort_by_key(|one| one.index);
    let first_failure = played.iter().find_map(|one| one.failure.clone());
    match first_failure {
        Some(error) if last.is_none() => Err(error),
        Some(_) | None => Ok(Run { played, last, took }),
    }
}

/// The request of a row.
pub(crate) fn request(row: &Row, args: &PlayArgs) -> v1::RouteRequest {
    let task_type = (args.show_task && !row.task.is_empty()).then(|| row.task.clone());
    v1::RouteRequest {
        request: Some(v1::RequestSpec {
            prompt: row.prompt.clone(),
            answer_kind: args.kind.wire().into(),
            task_type,
            answer_value_usd_micros: args.answer_value_usd_micros,
            calls_max: args.calls_max.map(std::num::NonZeroU32::get),
            caller_ref: row.id.clone(),
            ..v1::RequestSpec::default()
        }),
        ..v1::RouteRequest::default()
    }
}

async fn one(client: &Client, index: usize, row: &Row, args: &PlayArgs) -> (Played, Option<v1::RouteResponse>) {
    match Box::pin(client.route(request(row, args))).await {
        Ok(response) => {
            let told = tell(client, judge::feedback(row, &response)).await;
            let played = Played {
                index,
                called: judge::called(&response),
                score: judge::score(row, &response),
                cost_usd_nanos: Some(response.cost_usd_nanos),
                failure: None,
                feedback_failure: told.err(),
            };
            (played, Some(response))
        }
        Err(error) => (Box::pin(failed(client, index, row, error)).await, None),
    }
}

/// A row without an answer: its trace, if the daemon names the decision, says who was called and what it cost.
async fn failed(client: &Client, index: usize, row: &Row, error: ClientError) -> Played {
    let decision_id = error.decision_id().map(str::to_owned);
    let mut played = Played {
        index,
        called: Vec::new(),
        score: Some(0.0),
        cost_usd_nanos: None,
        failure: Some(error),
        feedback_failure: None,
    };
    let Some(decision_id) = decision_id else {
        return played;
    };
    let request = v1::GetTraceRequest { decision_id };
    if let Ok(v1::GetTraceResponse { trace: Some(trace) }) = client.get_trace(request).await {
        let models = trace.outcomes.iter().map(|outcome| outcome.model.clone());
        played.called = models.collect();
        played.cost_usd_nanos = Some(trace.cost_usd_nanos);
        let told = tell(client, judge::feedback_of_failed(row, &trace)).await;
        played.feedback_failure = told.err();
    }
    played
}

async fn tell(client: &Client, feedback: Vec<v1::Feedback>) -> Result<(), ClientError> {
    for one in feedback {
        client.feedback(one).await?;
    }
    Ok(())
}

/// Accuracy and cost since the last line that was printed.
struct Recent {
    every: usize,
    total: usize,
    ended: usize,
    score: Mean,
    cost_usd: Mean,
}

impl Recent {
    fn new(every: usize, total: usize) -> Self {
        Self { every, total, ended: 0, score: Mean::default(), cost_usd: Mean::default() }
    }

    /// Takes a row in; a line when it is time for one.
    fn take(&mut self, one: &Played) -> Option<String> {
        self.ended += 1;
        if let Some(score) = one.score {
            self.score.add(score);
        }
        if let Some(nanos) = one.cost_usd_nanos {
            self.cost_usd.add(usd(nanos));
        }
        if self.every == 0 || !self.ended.is_multiple_of(self.every) {
            return None;
        }
        let line = format!(
            "{} of {} requests; the last {}: accuracy {}, {} a request",
            self.ended,
            self.total,
            self.every,
            crate::cli::tables::score_or_none(self.score.get()),
            crate::cli::tables::usd_mean(self.cost_usd.get()),
        );
        self.score = Mean::default();
        self.cost_usd = Mean::default();
        Some(line)
    }
}
