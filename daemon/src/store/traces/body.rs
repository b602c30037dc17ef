//! The bytes of a stored trace: the encoded proto message `Trace`, with its place in the sequence.

use pointsman_proto::v1;
use pointsman_router::trace::Trace;
use prost::Message as _;

use crate::store::StoreError;
use crate::wire::WireError;
use crate::wire::trace::{Kept, from_wire, to_wire};

/// A stored trace, still as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTrace {
    /// Its place among all traces and reports.
    pub seq: u64,
    /// The encoded proto message `Trace`.
    pub body: Vec<u8>,
}

impl StoredTrace {
    /// The bytes that are kept of a trace.
    #[must_use]
    pub fn of(seq: u64, trace: &Trace, kept: Kept) -> Self {
        let mut message = to_wire(trace, kept);
        message.sequence = seq;
        Self { seq, body: message.encode_to_vec() }
    }

    /// The message as the wire shows it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the bytes are no trace.
    pub fn message(&self) -> Result<v1::Trace, StoreError> {
        v1::Trace::decode(self.body.as_slice())
            .map_err(|error| self.corrupt(&WireError::Bytes { detail: error.to_string() }))
    }

    /// The trace as the core knows it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the bytes are no trace, or one that a newer daemon wrote.
    pub fn trace(&self) -> Result<Trace, StoreError> {
        from_wire(self.message()?).map_err(|error| self.corrupt(&error))
    }

    fn corrupt(&self, error: &WireError) -> StoreError {
        StoreError::Corrupt { detail: format!("trace {}: {error}", self.seq) }
    }
}
