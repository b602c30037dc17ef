//! Canonical protobuf JSON of the messages of the wire, by their descriptors.
//!
//! Names are in lowerCamelCase, 64-bit integers are strings, enums are names, times are RFC 3339. Fields that hold
//! their default are printed too, so that a script need not tell "absent" from "0"; fields that can be absent are left
//! out when they are.

use std::sync::OnceLock;

use anyhow::Context as _;
use pointsman_client::v1;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

/// A message that knows its name on the wire.
pub(crate) trait Named {
    /// Full name, for instance `pointsman.v1.RouteResponse`.
    const NAME: &'static str;
}

macro_rules! named {
    ($($message:ident),* $(,)?) => {
        $(impl Named for v1::$message {
            const NAME: &'static str = concat!("pointsman.v1.", stringify!($message));
        })*
    };
}

named!(
    RouteResponse,
    RouteStreamResponse,
    DecideResponse,
    ReportedOutcome,
    ReportOutcomesResponse,
    Feedback,
    FeedbackAck,
    StreamFeedbackResponse,
    ListModelStatsResponse,
    Trace,
    ListTracesResponse,
    DeleteTracesResponse,
    GetStoreInfoResponse,
    ListPoliciesResponse,
    Policy,
    ListModelsResponse,
    ModelListing,
    RemoveModelResponse,
    DrainResponse,
    GetBudgetResponse,
    ListBudgetsResponse,
    SetBudgetResponse,
    RemoveBudgetResponse,
    AdjustBudgetResponse,
    ListTransfersResponse,
    VerifyBudgetsResponse,
    TrainResponse,
    EvaluateResponse,
    PromoteResponse,
    RollbackResponse,
    SetShadowResponse,
    InstallPolicyResponse,
    ImportTracesResponse,
    GetReportResponse,
    CreateKeyResponse,
    ListKeysResponse,
    RevokeKeyResponse,
    RotateKeyResponse,
    ListAuditResponse,
    VerifyAuditResponse,
);

/// The message as one line of JSON.
pub(crate) fn text<M: Message + Named>(message: &M) -> anyhow::Result<String> {
    Ok(value(message)?.to_string())
}

/// The message as a JSON value.
pub(crate) fn value<M: Message + Named>(message: &M) -> anyhow::Result<serde_json::Value> {
    let bytes = message.encode_to_vec();
    let dynamic = DynamicMessage::decode(descriptor(M::NAME)?, bytes.as_slice())?;
    let options = SerializeOptions::new().skip_default_fields(false);
    Ok(dynamic.serialize_with_options(serde_json::value::Serializer, &options)?)
}

/// A message out of JSON. Unknown fields are refused.
pub(crate) fn read<M: Message + Named + Default>(json: &str) -> anyhow::Result<M> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let dynamic = DynamicMessage::deserialize(descriptor(M::NAME)?, &mut deserializer)?;
    deserializer.end()?;
    Ok(dynamic.transcode_to()?)
}

fn descriptor(name: &str) -> anyhow::Result<MessageDescriptor> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(pointsman_proto::FILE_DESCRIPTOR_SET).ok());
    pool.as_ref()
        .context("the descriptor set of the wire cannot be read")?
        .get_message_by_name(name)
        .with_context(|| format!("the wire has no message {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_canonical() {
        let response = v1::RouteResponse {
            decision_id: "d-1".to_owned(),
            answer: Some(v1::Answer {
                value: "F".to_owned(),
                kind: v1::AnswerKind::Label.into(),
                confidence: 0.75,
                ..v1::Answer::default()
            }),
            cost_usd_nanos: 1_500,
            ..v1::RouteResponse::default()
        };
        let found = value(&response).expect("prints");
        assert_eq!(found["decisionId"], "d-1");
        assert_eq!(found["answer"]["kind"], "ANSWER_KIND_LABEL");
        assert_eq!(found["answer"]["confidence"], 0.75);
        assert_eq!(found["answer"]["belowThreshold"], false);
        assert_eq!(found["costUsdNanos"], "1500");
        assert!(found.get("decision").is_none());
        assert!(!text(&response).expect("prints").contains('\n'));
    }

    #[test]
    fn what_is_printed_can_be_read() {
        let outcome = v1::ReportedOutcome {
            model: "a".to_owned(),
            status: v1::AttemptStatus::Ok.into(),
            cost_usd_nanos: Some(7),
            ..v1::ReportedOutcome::default()
        };
        let back: v1::ReportedOutcome = read(&text(&outcome).expect("prints")).expect("reads");
        assert_eq!(back, outcome);
        assert!(read::<v1::ReportedOutcome>(r#"{"modle": "a"}"#).is_err());
    }
}
