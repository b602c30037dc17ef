//! ImportTraces: a stream of traces from elsewhere, stored batch by batch.
//!
//! A trace that cannot be taken in is refused by its line and the rest goes on; the reply counts them
//! all and names the first. A stream that breaks off leaves what was stored: sending it again is safe.

use pointsman_proto::v1;
use tonic::{Status, Streaming};

use super::status::Refusal;
use crate::keys::View;
use crate::training::foreign::{self, Foreign, ForeignFault, Whose};
use crate::training::import::{BATCH, Importer};
use pointsman_router::request::TENANT_TAG;

/// Refused traces that are named one by one.
const REFUSALS_MAX: usize = 100;

/// Takes all traces of a stream in. Whoever sees one tenant alone brings them in as that tenant's.
pub(super) async fn import(
    importer: &Importer,
    mut traces: Streaming<v1::ImportTracesRequest>,
    view: &View,
) -> Result<v1::ImportTracesResponse, Status> {
    let mut told = v1::ImportTracesResponse::default();
    let mut batch = Vec::with_capacity(BATCH);
    let mut place = 0;
    while let Some(v1::ImportTracesRequest { trace, line }) = traces.message().await? {
        place += 1;
        match read(importer, trace, view) {
            Ok(foreign) => batch.push(foreign),
            Err(fault) => {
                told.refused += 1;
                if told.refusals.len() < REFUSALS_MAX {
                    told.refusals.push(refusal(&fault, if line == 0 { place } else { line }));
                }
            }
        }
        if batch.len() >= BATCH {
            store(importer, std::mem::take(&mut batch), view, &mut told).await?;
        }
    }
    store(importer, batch, view, &mut told).await?;
    Ok(told)
}

fn read(importer: &Importer, trace: Option<v1::Trace>, view: &View) -> Result<Foreign, ForeignFault> {
    let mut trace = trace.ok_or(ForeignFault::Missing { field: "trace" })?;
    if let View::Tenant(tenant) = view {
        trace.tags.insert(TENANT_TAG.to_owned(), tenant.to_string());
        // A key of another daemon must not be taken for one of ours.
        trace.key_id.clear();
    }
    foreign::read(trace, importer.encoder(), Whose::Ours)
}

async fn store(
    importer: &Importer,
    batch: Vec<Foreign>,
    view: &View,
    told: &mut v1::ImportTracesResponse,
) -> Result<(), Refusal> {
    if batch.is_empty() {
        return Ok(());
    }
    let stored = importer.import(batch, view).await?;
    told.imported += stored.new;
    told.repeated_traces += stored.repeated;
    told.feedback += stored.feedback;
    Ok(())
}

fn refusal(fault: &ForeignFault, line: u64) -> v1::ImportRefusal {
    let (reason, field) = match fault {
        ForeignFault::Missing { field } => ("INVALID_ARGUMENT", *field),
        ForeignFault::Format { .. } => ("UNKNOWN_FORMAT", "trace.format"),
        ForeignFault::Schema { .. } => ("FEATURE_SCHEMA", "trace.features.schema_hash"),
        ForeignFault::Request { .. } => ("INVALID_ARGUMENT", "trace.content.request"),
        ForeignFault::Wire(_) => ("INVALID_ARGUMENT", ""),
    };
    v1::ImportRefusal { line, reason: reason.to_owned(), field: field.to_owned(), message: fault.to_string() }
}
