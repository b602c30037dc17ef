//! A trace together with what its caller reported of it.

use std::sync::Arc;

use pointsman_router::hold::Bill;
use pointsman_router::ids::DecisionId;
use pointsman_router::money::NanoUsd;
use pointsman_router::trace::{Trace, TraceStatus};

use super::ReportError;
use crate::store::traces::{Report, TraceStore};
use crate::wire::report::{ModelReport, ReportEnd};
use crate::wire::{self, WireError};

/// A trace with what its caller reported so far: its outcomes, attempts and, once it is final, its
/// answer, bill and status.
///
/// # Errors
/// What the store met, and [`WireError`] for a row that cannot be read back.
pub async fn with_reports(traces: &TraceStore, trace: Arc<Trace>) -> Result<Arc<Trace>, ReportError> {
    if trace.status != TraceStatus::Decided {
        return Ok(trace);
    }
    let reports = traces.reports(trace.decision.id).await?;
    Ok(Arc::new(joined(Trace::clone(&trace), &reports)?))
}

/// The same, where the reports are at hand.
///
/// # Errors
/// [`WireError`] for a row that cannot be read back.
pub fn joined(mut trace: Trace, reports: &[Report]) -> Result<Trace, WireError> {
    let (parts, end) = parts(trace.decision.id, reports)?;
    if let Some(end) = end {
        trace.bill = Bill { settled: end.cost, unknown: NanoUsd::ZERO };
        trace.answer = end.answer.map(|answer| wire::answer::from_stored(answer, None)).transpose()?;
        trace.status = if trace.answer.is_some() { TraceStatus::Answered } else { TraceStatus::Failed };
    }
    for part in parts {
        trace.outcomes.push(part.outcome);
        trace.attempts.push(part.attempt);
    }
    Ok(trace)
}

/// What was reported of a decision, and the end of it.
pub(super) async fn read(
    traces: &TraceStore,
    id: DecisionId,
) -> Result<(Vec<ModelReport>, Option<ReportEnd>), ReportError> {
    Ok(parts(id, &traces.reports(id).await?)?)
}

fn parts(id: DecisionId, reports: &[Report]) -> Result<(Vec<ModelReport>, Option<ReportEnd>), WireError> {
    let (mut parts, mut end) = (Vec::new(), None);
    for Report { model, body, .. } in reports {
        match model {
            Some(_) => parts.push(ModelReport::from_bytes(body)?),
            None => end = Some(ReportEnd::from_bytes(id, body)?),
        }
    }
    Ok((parts, end))
}
