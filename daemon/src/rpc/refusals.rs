//! Every error of the daemon as a [`Refusal`]: which reason it is, and which facts a caller gets.
//!
//! One place for all of them, so that a kind of error is told alike by every service. What a refusal is made of and
//! how it goes over the wire stands in [`super::status`].

use crate::backends::CardError;
use crate::feedback::FeedbackError;
use crate::money::BudgetError;
use crate::rates::{Metered, TooFast};
use crate::registry::RegistryError;
use crate::reports::ReportError;
use crate::store::StoreError;
use pointsman_router::admit::AdmitError;
use pointsman_router::check::BadRequest;
use pointsman_router::decide::DecideError;
use pointsman_router::decision::Ineligible;
use pointsman_router::hold::{HoldError, NoMoney};
use pointsman_router::pipeline::RouteError;
use pointsman_router::trace::Trace;
use std::time::Duration;

use super::status::{DETAILS_MAX, Reason, Refusal};

/// What an overloaded daemon asks its callers to wait.
const OVERLOAD_RETRY: Duration = Duration::from_millis(250);

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
