//! What a call can end with: one variant for each thing a caller can do about it.
//!
//! Every variant carries the same [`Fault`]: the gRPC code, the message and whatever google.rpc details the daemon sent
//! along (which fields are wrong, which budget is empty, when to try again, the reason for programs). A caller matches
//! the variant and reads the details; nobody has to parse a message.
//!
//! Edge cases: details that cannot be decoded are dropped, the code and the message stay. A deadline that runs out on
//! the client's side is told as CANCELLED by the transport; it is a deadline all the same.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use thiserror::Error;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

/// The reason of a [`ClientError::Unavailable`] that this client found out by itself: nothing answers at the address.
pub const UNREACHABLE: &str = "UNREACHABLE";

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    /// The request is wrong as it stands (INVALID_ARGUMENT, OUT_OF_RANGE); `violations` names the fields.
    #[error("{}", .0.message)]
    Invalid(Box<Fault>),
    /// The request does not fit what the daemon already has (ALREADY_EXISTS, FAILED_PRECONDITION, ABORTED).
    #[error("{}", .0.message)]
    Conflict(Box<Fault>),
    /// What the request names is not there (NOT_FOUND); reason `PRUNED` when it was there once.
    #[error("{}", .0.message)]
    NotFound(Box<Fault>),
    /// The daemon cannot be reached, is draining, or all models failed (UNAVAILABLE).
    #[error("{}", .0.message)]
    Unavailable(Box<Fault>),
    /// Not even the cheapest call fits the money, or another limit is reached (RESOURCE_EXHAUSTED).
    #[error("{}", .0.message)]
    Exhausted(Box<Fault>),
    /// The deadline passed, or the call was given up (DEADLINE_EXCEEDED, CANCELLED).
    #[error("{}", .0.message)]
    Deadline(Box<Fault>),
    /// The daemon does not let this caller do it (PERMISSION_DENIED, UNAUTHENTICATED).
    #[error("{}", .0.message)]
    Denied(Box<Fault>),
    /// A fault of the daemon or of this client (all other codes).
    #[error("{}", .0.message)]
    Internal(Box<Fault>),
}

/// What is known of a failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The gRPC code.
    pub code: Code,
    /// What went wrong, for people.
    pub message: String,
    /// The reason for programs, from `google.rpc.ErrorInfo`. Empty: none was sent.
    pub reason: String,
    /// Further facts by name, from `google.rpc.ErrorInfo`.
    pub metadata: BTreeMap<String, String>,
    /// The faulty fields, from `google.rpc.BadRequest`.
    pub violations: Vec<FieldFault>,
    /// The limits that are reached, from `google.rpc.QuotaFailure`.
    pub quota: Vec<QuotaFault>,
    /// Time after which a repeat makes sense, from `google.rpc.RetryInfo`.
    pub retry_after: Option<Duration>,
}

/// One faulty field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// Path of the field, for instance `request.prompt`.
    pub field: String,
    /// What is wrong with it and what to change.
    pub description: String,
}

/// One limit that is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaFault {
    /// Name of the budget or limit.
    pub subject: String,
    /// How far it is used.
    pub description: String,
}

impl ClientError {
    /// The details, whatever the variant.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        match self {
            Self::Invalid(fault)
            | Self::Conflict(fault)
            | Self::NotFound(fault)
            | Self::Unavailable(fault)
            | Self::Exhausted(fault)
            | Self::Deadline(fault)
            | Self::Denied(fault)
            | Self::Internal(fault) => fault,
        }
    }

    /// The id of the decision that failed, if one was made and the daemon named it.
    #[must_use]
    pub fn decision_id(&self) -> Option<&str> {
        self.fault().metadata.get("decision_id").map(String::as_str)
    }

    /// Whether the same call may succeed later without any change.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Exhausted(_) | Self::Deadline(_) => true,
            Self::Invalid(_) | Self::Conflict(_) | Self::NotFound(_) | Self::Denied(_) | Self::Internal(_) => {
                false
            }
        }
    }

    pub(crate) fn address(address: &str, why: &str) -> Self {
        let mut fault = Fault::new(Code::InvalidArgument, format!("`{address}` is not an address"));
        fault.violations.push(FieldFault { field: "address".to_owned(), description: why.to_owned() });
        Self::Invalid(Box::new(fault))
    }

    pub(crate) fn key(why: &str) -> Self {
        let mut fault = Fault::new(Code::InvalidArgument, "the key cannot be used".to_owned());
        fault.violations.push(FieldFault { field: "key".to_owned(), description: why.to_owned() });
        Self::Invalid(Box::new(fault))
    }

    pub(crate) fn unreachable(address: &str, why: &str) -> Self {
        let mut fault = Fault::new(Code::Unavailable, format!("no daemon answers at {address}: {why}"));
        UNREACHABLE.clone_into(&mut fault.reason);
        Self::Unavailable(Box::new(fault))
    }

    pub(crate) fn deadline() -> Self {
        Self::Deadline(Box::new(Fault::new(
            Code::DeadlineExceeded,
            "the deadline passed before the call ended".to_owned(),
        )))
    }

    /// A reply that lacks what the wire says it must have.
    pub(crate) fn incomplete(what: &str) -> Self {
        Self::Internal(Box::new(Fault::new(Code::Internal, format!("the reply has no {what}"))))
    }
}

impl Fault {
    fn new(code: Code, message: String) -> Self {
        Self {
            code,
            message,
            reason: String::new(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            quota: Vec::new(),
            retry_after: None,
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        if ran_out_here(&status) {
            return Self::deadline();
        }
        let fault = Box::new(read(&status));
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Self::Invalid(fault),
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Self::Conflict(fault),
            Code::NotFound => Self::NotFound(fault),
            Code::Unavailable => Self::Unavailable(fault),
            Code::ResourceExhausted => Self::Exhausted(fault),
            Code::DeadlineExceeded | Code::Cancelled => Self::Deadline(fault),
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied(fault),
            Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
                Self::Internal(fault)
            }
        }
    }
}

fn read(status: &Status) -> Fault {
    let mut fault = Fault::new(status.code(), status.message().to_owned());
    if fault.message.is_empty() {
        status.code().description().clone_into(&mut fault.message);
    }
    let details = status.get_error_details();
    if let Some(info) = details.error_info() {
        fault.reason.clone_from(&info.reason);
        fault.metadata = info.metadata.clone().into_iter().collect();
    }
    if let Some(bad) = details.bad_request() {
        let violations = bad.field_violations.iter();
        fault.violations = violations
            .map(|violation| FieldFault {
                field: violation.field.clone(),
                description: violation.description.clone(),
            })
            .collect();
    }
    if let Some(quota) = details.quota_failure() {
        let violations = quota.violations.iter();
        fault.quota = violations
            .map(|violation| QuotaFault {
                subject: violation.subject.clone(),
                description: violation.description.clone(),
            })
            .collect();
    }
    fault.retry_after = details.retry_info().and_then(|info| info.retry_delay);
    fault
}

fn ran_out_here(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn check(code: Code, is_it: fn(&ClientError) -> bool) {
        let error = ClientError::from(Status::new(code, "x"));
        assert!(is_it(&error), "{code:?} became {error:?}");
        assert_eq!(error.fault().code, code);
    }

    #[test]
    fn each_code_has_its_variant() {
        check(Code::InvalidArgument, |e| matches!(e, ClientError::Invalid(_)));
        check(Code::AlreadyExists, |e| matches!(e, ClientError::Conflict(_)));
        check(Code::NotFound, |e| matches!(e, ClientError::NotFound(_)));
        check(Code::Unavailable, |e| matches!(e, ClientError::Unavailable(_)));
        check(Code::ResourceExhausted, |e| matches!(e, ClientError::Exhausted(_)));
        check(Code::DeadlineExceeded, |e| matches!(e, ClientError::Deadline(_)));
        check(Code::Unauthenticated, |e| matches!(e, ClientError::Denied(_)));
        check(Code::Unimplemented, |e| matches!(e, ClientError::Internal(_)));
    }

    #[test]
    fn details_are_decoded() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("ALL_MODELS_FAILED", "pointsman", [("decision_id".to_owned(), "d-1".to_owned())])
            .add_bad_request_violation("request.prompt", "is empty; give a prompt")
            .add_quota_failure_violation("budget/day", "4 of 4 USD are spent")
            .set_retry_info(Some(Duration::from_secs(3)));
        let status = Status::with_error_details(Code::ResourceExhausted, "no money left", details);
        let error = ClientError::from(status);
        assert_eq!(error.decision_id(), Some("d-1"));
        assert!(error.is_temporary());
        let fault = error.fault();
        assert_eq!(fault.reason, "ALL_MODELS_FAILED");
        assert_eq!(fault.violations[0].field, "request.prompt");
        assert_eq!(fault.quota[0].subject, "budget/day");
        assert_eq!(fault.retry_after, Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_deadline_that_runs_out_here_is_a_deadline() {
        let error = ClientError::from(Status::from_error(Box::new(TimeoutExpired(()))));
        assert!(matches!(error, ClientError::Deadline(_)));
    }
}
