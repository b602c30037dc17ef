//! Canonical protobuf JSON of messages, by their descriptors: exported traces come in this form, and
//! what a ledger keeps as text is in it.
//!
//! Names are in lowerCamelCase, 64-bit integers are strings, enums are names, times are RFC 3339; the
//! names of the `.proto` files are read too. A field that this build does not know is refused: what it
//! means would be lost.

use std::sync::OnceLock;

use pointsman_proto::v1;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

/// A text that is not the message that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no {message}: {detail}")]
pub struct JsonFault {
    /// The message's name.
    pub message: &'static str,
    /// What is wrong, for people.
    pub detail: String,
}

/// A message that knows its name on the wire.
pub trait Named: Message + Default {
    /// Full name, for instance `pointsman.v1.Trace`.
    const NAME: &'static str;
}

macro_rules! named {
    ($($message:ident),* $(,)?) => {
        $(impl Named for v1::$message {
            const NAME: &'static str = concat!("pointsman.v1.", stringify!($message));
        })*
    };
}

named!(Trace, Evaluation, TrainingReport);

/// The message as one line of JSON.
///
/// # Errors
/// [`JsonFault`] when the descriptors of this build do not fit it.
pub fn write<M: Named>(message: &M) -> Result<String, JsonFault> {
    let fault = |detail: String| JsonFault { message: M::NAME, detail };
    let bytes = message.encode_to_vec();
    let dynamic =
        DynamicMessage::decode(descriptor::<M>()?, bytes.as_slice()).map_err(|error| fault(error.to_string()))?;
    serde_json::to_string(&dynamic).map_err(|error| fault(error.to_string()))
}

/// A message out of JSON.
///
/// # Errors
/// [`JsonFault`] when the text is another message, or none.
pub fn read<M: Named>(text: &[u8]) -> Result<M, JsonFault> {
    let fault = |detail: String| JsonFault { message: M::NAME, detail };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let dynamic = DynamicMessage::deserialize(descriptor::<M>()?, &mut deserializer)
        .map_err(|error| fault(error.to_string()))?;
    deserializer.end().map_err(|error| fault(error.to_string()))?;
    dynamic.transcode_to().map_err(|error| fault(error.to_string()))
}

fn descriptor<M: Named>() -> Result<MessageDescriptor, JsonFault> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(pointsman_proto::FILE_DESCRIPTOR_SET).ok());
    let found = pool.as_ref().and_then(|pool| pool.get_message_by_name(M::NAME));
    found.ok_or_else(|| JsonFault { message: M::NAME, detail: "this build cannot describe it".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_from_its_json_to_the_bit() {
        let features = v1::Features {
            schema_hash: u64::MAX,
            index_deltas: vec![3, 70_000],
            counts: vec![-1, 2],
            surface: vec![0.1, -0.3, f32::MIN_POSITIVE, 1.0 / 3.0],
            ..v1::Features::default()
        };
        let trace = v1::Trace {
            format: 1,
            sequence: u64::MAX,
            features: Some(features),
            admitted_at: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 123_456_000 }),
            number_tolerance: Some(0.1 + 0.2),
            tags: [("a\n".to_owned(), "ü".to_owned())].into(),
            ..v1::Trace::default()
        };
        let text = write(&trace).unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(read::<v1::Trace>(text.as_bytes()), Ok(trace));
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for text in ["", "{", "[]", "{\"format\":1}x", "{\"colour\":1}", "{\"format\":\"many\"}"] {
            assert!(read::<v1::Trace>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
