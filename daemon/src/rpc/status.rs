//! Errors on the wire: every reason a caller can be refused for, and the one gRPC code it has.
//!
//! A [`Refusal`] is what services return inside the daemon; it becomes a `tonic::Status` with
//! `google.rpc` details at the door: ErrorInfo always (reason, domain), BadRequest with every faulty
//! field, QuotaFailure with the budget that has no room, RetryInfo where waiting helps. The details
//! travel in a header, so messages, fields and metadata are cut to a size that every client takes.
//!
//! "No model can be chosen" is FAILED_PRECONDITION: the same request would be refused again until
//! the request or the registry changes. Models that were called and failed are UNAVAILABLE.

use std::collections::HashMap;
use std::time::Duration;

use pointsman_router::admit::AdmitError;
use pointsman_router::check::BadRequest;
use pointsman_router::decide::DecideError;
use pointsman_router::decision::Ineligible;
use pointsman_router::hold::{HoldError, NoMoney};
use pointsman_router::pipeline::RouteError;
use pointsman_router::trace::Trace;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::backends::CardError;
use crate::feedback::FeedbackError;
use crate::money::BudgetError;
use crate::rates::{Metered, TooFast};
use crate::registry::RegistryError;
use crate::reports::ReportError;
use crate::store::StoreError;

/// The domain of all reasons.
pub const DOMAIN: &str = "pointsman.v1";

/// Longest message, in characters.
const MESSAGE_CHARS_MAX: usize = 1_000;
/// Longest value of one detail, in characters.
const DETAIL_CHARS_MAX: usize = 200;
/// Most fields, or entries of metadata, in one refusal.
const DETAILS_MAX: usize = 24;
/// What an overloaded daemon asks its callers to wait.
const OVERLOAD_RETRY: Duration = Duration::from_millis(250);

/// Why a caller is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Something in the request is wrong.
    InvalidArgument,
    /// No decision has this id.
    UnknownDecision,
    /// The decision's trace was pruned.
    Pruned,
    /// No model has this name.
    UnknownModel,
    /// No policy has this version.
    UnknownPolicy,
    /// No budget has this name, or no window began then.
    UnknownBudget,
    /// A budget cannot be changed so.
    BudgetFixed,
    /// There are too few judged traces to learn or to estimate from.
    TooFewTraces,
    /// All judged answers are right, or all are wrong.
    OneClass,
    /// A training is under way.
    TrainingRunning,
    /// The policy runs already.
    AlreadyRunning,
    /// A canary of another policy is under way.
    CanaryRunning,
    /// There is no policy to return to.
    NoPredecessor,
    /// Nobody evaluated the policy against the running one.
    Unevaluated,
    /// The evaluation does not carry a promotion.
    GateFailed,
    /// An artifact needs features of another schema.
    ArtifactSchema,
    /// What was sent is no artifact, or a damaged one.
    ArtifactCorrupt,
    /// The file of an artifact is gone or damaged.
    ArtifactDamaged,
    /// What was sent is larger than an artifact may be.
    ArtifactTooLarge,
    /// A model of this name is registered.
    ModelExists,
    /// There is no room for another model.
    RegistryFull,
    /// No registered model can be chosen for this request.
    NoModel,
    /// A budget has no room.
    BudgetExhausted,
    /// The request's own cap has no room.
    RequestCap,
    /// The caller is faster than its limits.
    RateLimited,
    /// Every model called failed.
    ModelsFailed,
    /// Models replied, none with an answer of the kind asked for.
    NoUsableAnswer,
    /// The deadline ended.
    DeadlineExceeded,
    /// The daemon is behind.
    Overloaded,
    /// The daemon is shutting down.
    Draining,
    /// A store cannot be used.
    StoreDown,
    /// The idempotency key belongs to another request.
    KeyReused,
    /// The daemon stopped in the middle of the request with this idempotency key.
    KeyCrashed,
    /// No valid key came with the request.
    Unauthenticated,
    /// The key lacks the scope.
    ScopeMissing,
    /// No key has this id.
    UnknownKey,
    /// The key is revoked or expired.
    KeyInactive,
    /// There is no room for another key.
    KeysFull,
    /// A fault of the daemon.
    Internal,
}

impl Reason {
    /// The one gRPC code of this reason.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::InvalidArgument | Self::ArtifactCorrupt | Self::ArtifactTooLarge => Code::InvalidArgument,
            Self::UnknownDecision
            | Self::Pruned
            | Self::UnknownModel
            | Self::UnknownPolicy
            | Self::UnknownBudget
            | Self::UnknownKey => Code::NotFound,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::ScopeMissing => Code::PermissionDenied,
            Self::ModelExists | Self::KeyReused => Code::AlreadyExists,
            Self::NoModel
            | Self::BudgetFixed
            | Self::RegistryFull
            | Self::TooFewTraces
            | Self::OneClass
            | Self::TrainingRunning
            | Self::AlreadyRunning
            | Self::CanaryRunning
            | Self::NoPredecessor
            | Self::Unevaluated
            | Self::GateFailed
            | Self::ArtifactSchema
            | Self::ArtifactDamaged
            | Self::KeyInactive
            | Self::KeysFull => Code::FailedPrecondition,
            Self::BudgetExhausted | Self::RequestCap | Self::RateLimited | Self::Overloaded => {
                Code::ResourceExhausted
            }
            Self::ModelsFailed | Self::NoUsableAnswer | Self::Draining | Self::StoreDown => Code::Unavailable,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::KeyCrashed => Code::Aborted,
            Self::Internal => Code::Internal,
        }
    }

    /// The reason as programs read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::UnknownDecision => "UNKNOWN_DECISION",
            Self::Pruned => "PRUNED",
            Self::UnknownModel => "UNKNOWN_MODEL",
            Self::UnknownPolicy => "UNKNOWN_POLICY",
            Self::UnknownBudget => "UNKNOWN_BUDGET",
            Self::BudgetFixed => "BUDGET_FIXED",
            Self::TooFewTraces => "TOO_FEW_TRACES",
            Self::OneClass => "ONE_CLASS",
            Self::TrainingRunning => "TRAINING_RUNNING",
            Self::AlreadyRunning => "ALREADY_RUNNING",
            Self::CanaryRunning => "CANARY_RUNNING",
            Self::NoPredecessor => "NO_PREDECESSOR",
            Self::Unevaluated => "UNEVALUATED",
            Self::GateFailed => "GATE_FAILED",
            Self::ArtifactSchema => "ARTIFACT_SCHEMA",
            Self::ArtifactCorrupt | Self::ArtifactDamaged => "ARTIFACT_CORRUPT",
            Self::ArtifactTooLarge => "ARTIFACT_TOO_LARGE",
            Self::ModelExists => "MODEL_EXISTS",
            Self::RegistryFull => "REGISTRY_FULL",
            Self::NoModel => "NO_MODEL",
            Self::BudgetExhausted => "BUDGET_EXHAUSTED",
            Self::RequestCap => "REQUEST_CAP",
            Self::RateLimited => "RATE_LIMITED",
            Self::ModelsFailed => "MODELS_FAILED",
            Self::NoUsableAnswer => "NO_USABLE_ANSWER",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Overloaded => "OVERLOADED",
            Self::Draining => "DRAINING",
            Self::StoreDown => "STORE_DOWN",
            Self::KeyReused => "IDEMPOTENCY_KEY_REUSED",
            Self::KeyCrashed => "IDEMPOTENCY_KEY_CRASHED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::ScopeMissing => "SCOPE_MISSING",
            Self::UnknownKey => "UNKNOWN_KEY",
            Self::KeyInactive => "KEY_INACTIVE",
            Self::KeysFull => "KEYS_FULL",
            Self::Internal => "INTERNAL",
        }
    }
}

/// A refusal with all that the caller may know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal(Box<Parts>);

#[derive(Debug, Clone, PartialEq)]
struct Parts {
    reason: Reason,
    message: String,
    fields: Vec<(String, String)>,
    quota: Option<(String, String)>,
    retry_after: Option<Duration>,
    metadata: Vec<(String, String)>,
}

impl Refusal {
    /// A refusal for this reason.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            reason,
            message: message.into(),
            fields: Vec::new(),
            quota: None,
            retry_after: None,
            metadata: Vec::new(),
        }))
    }

    /// A refusal for one faulty field.
    #[must_use]
    pub fn field(field: &str, problem: &str) -> Self {
        let refusal = Self::new(Reason::InvalidArgument, format!("{field}: {problem}"));
        refusal.and_field(field.to_owned(), problem.to_owned())
    }

    fn and_field(mut self, field: String, problem: String) -> Self {
        self.0.fields.push((field, problem));
        self
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.metadata.push((key.into(), value.into()));
        self
    }

    fn quota(mut self, subject: String, description: String) -> Self {
        self.0.quota = Some((subject, description));
        self
    }

    fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// What is wrong and what to change.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The first faulty field, where a field is at fault.
    #[must_use]
    pub fn first_field(&self) -> Option<&str> {
        self.0.fields.first().map(|(field, _)| field.as_str())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let Parts { reason, message, fields, quota, retry_after, metadata } = *refusal.0;
        let metadata: HashMap<String, String> = metadata
            .into_iter()
            .take(DETAILS_MAX)
            .map(|(key, value)| (key, cut(&value, DETAIL_CHARS_MAX)))
            .collect();
        let mut details = ErrorDetails::new();
        details.set_error_info(reason.name(), DOMAIN, metadata);
        for (field, problem) in fields.into_iter().take(DETAILS_MAX) {
            details.add_bad_request_violation(cut(&field, DETAIL_CHARS_MAX), cut(&problem, DETAIL_CHARS_MAX));
        }
        if let Some((subject, description)) = quota {
            details.add_quota_failure_violation(subject, cut(&description, MESSAGE_CHARS_MAX));
        }
        if let Some(wait) = retry_after {
            details.set_retry_info(Some(wait));
        }
        Self::with_error_details(reason.code(), cut(&message, MESSAGE_CHARS_MAX), details)
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

impl From<BadRequest> for Refusal {
    fn from(bad: BadRequest) -> Self {
        let refusal = Self::new(Reason::InvalidArgument, bad.to_string());
        let fields = bad.faults.into_iter().map(|fault| (fault.field.to_string(), fault.problem.to_string()));
        fields.fold(refusal, |refusal, (field, problem)| refusal.and_field(field, problem))
    }
}

impl From<NoMoney> for Refusal {
    fn from(no: NoMoney) -> Self {
        let message = no.to_string();
        Self::new(Reason::BudgetExhausted, message.clone())
            .quota(format!("budget:{}", no.budget), message)
            .with("budget", no.budget)
            .with("left_usd_nanos", no.left.nanos().to_string())
            .with("amount_usd_nanos", no.amount.nanos().to_string())
            .with("asked_usd_nanos", no.asked.nanos().to_string())
            .with("resets_at", no.resets_at_text)
    }
}

impl From<DecideError> for Refusal {
    fn from(error: DecideError) -> Self {
        let message = error.to_string();
        match error {
            DecideError::NoModel { reasons } => {
                let listed: Vec<String> = reasons
                    .iter()
                    .take(DETAILS_MAX)
                    .map(|(model, why)| format!("{model}: {}", words(*why)))
                    .collect();
                let refusal = Self::new(Reason::NoModel, format!("{message}: {}", listed.join("; ")));
                reasons
                    .into_iter()
                    .fold(refusal, |refusal, (model, why)| refusal.with(format!("model:{model}"), words(why)))
            }
            DecideError::RequestCap { cheapest, cap } => Self::new(Reason::RequestCap, message.clone())
                .quota("request:max_cost_usd_micros".to_owned(), message)
                .with("cheapest_usd_nanos", cheapest.nanos().to_string())
                .with("cap_usd_nanos", cap.nanos().to_string()),
            DecideError::Budget { cheapest, left } => Self::new(Reason::BudgetExhausted, message.clone())
                .quota("budget".to_owned(), message)
                .with("left_usd_nanos", left.nanos().to_string())
                .with("asked_usd_nanos", cheapest.nanos().to_string()),
        }
    }
}

/// Why a model could not be chosen, for people.
fn words(why: Ineligible) -> &'static str {
    match why {
        Ineligible::Disabled => "switched off",
        Ineligible::Unavailable => "its backend cannot be used",
        Ineligible::NotAllowed => "not allowed by the request",
        Ineligible::BreakerOpen => "held off after failures",
        Ineligible::TooDear => "too dear",
        Ineligible::TooSlow => "too slow for the deadline",
        Ineligible::TooLong => "the request does not fit its context",
        Ineligible::NotCovered => "no recorded row of it for this request",
        Ineligible::Paced => "dearer than what pacing has put by",
    }
}

impl From<RouteError> for Refusal {
    fn from(error: RouteError) -> Self {
        let message = error.to_string();
        match error {
            RouteError::Admit(AdmitError::BadRequest(bad)) => bad.into(),
            RouteError::Admit(AdmitError::TracesFull(full)) => {
                Self::new(Reason::Overloaded, full.to_string()).retry_after(OVERLOAD_RETRY)
            }
            RouteError::Decide(error) => error.into(),
            RouteError::Hold(HoldError::NoMoney(no)) => no.into(),
            RouteError::Hold(HoldError::Ledger { .. }) => Self::new(Reason::StoreDown, message),
            RouteError::Hold(HoldError::TooFast { retry_after, .. }) => {
                rate_limited(message, "spend", retry_after)
            }
            RouteError::AllFailed { trace } => of_trace(Reason::ModelsFailed, message, &trace),
            RouteError::NoUsableAnswer { trace } => of_trace(Reason::NoUsableAnswer, message, &trace),
            RouteError::DeadlineExceeded { trace } => of_trace(Reason::DeadlineExceeded, message, &trace),
        }
    }
}

/// The daemon has more to do than it can; the same may pass shortly.
pub(super) fn overloaded(message: &str) -> Refusal {
    Refusal::new(Reason::Overloaded, message).retry_after(OVERLOAD_RETRY)
}

/// A caller that is faster than its limit on this; without a wait no wait would help.
fn rate_limited(message: String, what: &str, retry_after: Option<Duration>) -> Refusal {
    let refusal = Refusal::new(Reason::RateLimited, message.clone()).quota(format!("rate:{what}"), message);
    match retry_after {
        Some(wait) => refusal.retry_after(wait),
        None => refusal,
    }
}

impl From<TooFast> for Refusal {
    fn from(error: TooFast) -> Self {
        let message = error.to_string();
        match error {
            TooFast::Wait { metered: Metered::Requests, retry_after, .. } => {
                rate_limited(message, "requests", Some(retry_after))
            }
            TooFast::Wait { metered: Metered::Tokens, retry_after, .. } => {
                rate_limited(message, "tokens", Some(retry_after))
            }
            TooFast::Never { .. } => rate_limited(message, "tokens", None),
        }
    }
}

/// A refusal after models were called: which decision it was, what it cost and why each one failed.
fn of_trace(reason: Reason, message: String, trace: &Trace) -> Refusal {
    let refusal = Refusal::new(reason, message)
        .with("decision_id", trace.decision.id.to_string())
        .with("cost_usd_nanos", trace.bill.settled.nanos().to_string());
    trace.attempts.iter().fold(refusal, |refusal, attempt| {
        refusal.with(format!("model:{}:{}", attempt.model, attempt.try_number), attempt.status.to_string())
    })
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let refusal = Self::new(store_reason(&error), error.to_string());
        if error == StoreError::Busy { refusal.retry_after(OVERLOAD_RETRY) } else { refusal }
    }
}

impl From<BudgetError> for Refusal {
    fn from(error: BudgetError) -> Self {
        let message = error.to_string();
        match error {
            BudgetError::Unknown { .. } | BudgetError::NoWindow { .. } => {
                Self::new(Reason::UnknownBudget, message)
            }
            BudgetError::Fixed { field, .. } => {
                Self::new(Reason::BudgetFixed, message).and_field(field.to_owned(), "stays as it is".to_owned())
            }
            BudgetError::Main { .. } => Self::new(Reason::BudgetFixed, message),
            BudgetError::TooMuch { there, .. } => Self::new(Reason::InvalidArgument, message).and_field(
                "unknown_usd_nanos".to_owned(),
                format!("is more than the {} that are unknown", there.nanos()),
            ),
            BudgetError::Store(error) => error.into(),
        }
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        let field = match &error {
            RegistryError::BadName(_) => "card.name",
            RegistryError::NegativePrice | RegistryError::Card(CardError::NoPrice) => "card.price",
            RegistryError::Card(CardError::NoSuchBackend { .. }) => "card.backend",
            RegistryError::Card(CardError::NoSuchUpstream { .. }) => "card.upstream",
            RegistryError::Card(CardError::Limits) => "card.output_tokens_max",
            RegistryError::Duplicate(_) => return Self::new(Reason::ModelExists, message),
            RegistryError::NotFound(_) => return Self::new(Reason::UnknownModel, message),
            RegistryError::Full => return Self::new(Reason::RegistryFull, message),
            RegistryError::Store(_) => return Self::new(Reason::StoreDown, message),
        };
        Self::field(field, &message)
    }
}

impl From<ReportError> for Refusal {
    fn from(error: ReportError) -> Self {
        let message = error.to_string();
        match error {
            ReportError::BadRequest(bad) => bad.into(),
            ReportError::Unknown { .. } => Self::new(Reason::UnknownDecision, message),
            ReportError::Pruned { .. } => Self::new(Reason::Pruned, message),
            ReportError::NotDecideOnly { .. } => Self::field("decision_id", &message),
            ReportError::Store(error) => error.into(),
            ReportError::Wire(_) => Self::new(Reason::Internal, message),
        }
    }
}

impl From<FeedbackError> for Refusal {
    fn from(error: FeedbackError) -> Self {
        let message = error.to_string();
        match error {
            FeedbackError::BadRequest(bad) => bad.into(),
            FeedbackError::Unknown { .. } => Self::new(Reason::UnknownDecision, message),
            FeedbackError::Pruned { .. } => Self::new(Reason::Pruned, message),
            FeedbackError::Store(error) => error.into(),
            FeedbackError::Report(error) => error.into(),
        }
    }
}

fn store_reason(error: &StoreError) -> Reason {
    match error {
        StoreError::Busy => Reason::Overloaded,
        StoreError::Closed => Reason::Draining,
        StoreError::NewerSchema { .. } | StoreError::InUse { .. } | StoreError::Full | StoreError::Io { .. } => {
            Reason::StoreDown
        }
        StoreError::Corrupt { .. } | StoreError::Sql { .. } => Reason::Internal,
    }
}

#[cfg(test)]
mod tests {
    use pointsman_router::money::NanoUsd;

    use super::*;

    #[test]
    fn a_budget_without_room_names_itself_and_its_end() {
        let status = Status::from(Refusal::from(NoMoney {
            budget: "global".into(),
            amount: NanoUsd::new(10),
            left: NanoUsd::new(1),
            asked: NanoUsd::new(2),
            resets_at: None,
            resets_at_text: "never".into(),
        }));
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(details.quota_failure().unwrap().violations[0].subject, "budget:global");
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("BUDGET_EXHAUSTED", DOMAIN));
        assert_eq!(info.metadata["resets_at"], "never");
    }

    #[test]
    fn details_stay_small_enough_for_a_header() {
        let mut refusal = Refusal::new(Reason::ModelsFailed, "x".repeat(100_000));
        for model in 0..256 {
            refusal = refusal.with(format!("model:{model}"), "y".repeat(5_000));
        }
        let status = Status::from(refusal);
        assert!(status.details().len() + status.message().len() < 12 << 10, "{}", status.details().len());
    }
}
