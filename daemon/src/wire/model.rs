//! Models on the wire: cards as an administrator sends them, listings as the daemon shows them.
//!
//! Nothing is checked here but what the registration cannot hold; the registry checks the rest. On
//! the wire zero means "not given", as the messages say.

use std::time::Duration;

use pointsman_proto::v1;
use pointsman_router::breaker::BreakerState;
use pointsman_router::check::{BadRequest, Fault, Problem};
use pointsman_router::clock::Timestamp;
use pointsman_router::model::{Availability, Model, ModelCard, Pricing};
use pointsman_router::money::{NanoUsd, Price};

use super::{duration, span};
use crate::config::Registration;

/// A card as the registry takes it in.
///
/// # Errors
/// [`BadRequest`] when it is missing or holds what a registration cannot.
pub fn from_wire(card: Option<v1::ModelCard>) -> Result<Registration, BadRequest> {
    let card = card.ok_or_else(|| BadRequest::of("card", Problem::Missing))?;
    let mut faults = Vec::new();
    if card.name.is_empty() {
        faults.push(Fault::new("card.name", Problem::Missing));
    }
    if card.backend.is_empty() {
        faults.push(Fault::new("card.backend", Problem::Missing));
    }
    if card.metered_max_per_call_usd_nanos.is_some() {
        let wanted = Problem::malformed("is known by the backend itself, leave it out");
        faults.push(Fault::new("card.metered_max_per_call_usd_nanos", wanted));
    }
    for (field, nanos) in card.price.iter().flat_map(amounts).filter(|(_, nanos)| *nanos < 0) {
        let problem = Problem::out_of_range(format!("zero or more, not {nanos}"));
        faults.push(Fault::new(format!("card.price.{field}"), problem));
    }
    let timeout = card.timeout.map(|timeout| duration(&timeout).unwrap_or_default());
    if timeout.is_some_and(|timeout| timeout < Duration::from_millis(1)) {
        faults.push(Fault::new("card.timeout", Problem::out_of_range("at least a millisecond")));
    }
    if !faults.is_empty() {
        return Err(BadRequest { faults });
    }
    Ok(Registration {
        name: card.name.into(),
        backend: card.backend,
        upstream: card.upstream,
        price: card.price.map(|price| price_from_wire(&price)),
        context_tokens_max: given(card.context_tokens_max),
        output_tokens_max: given(card.output_tokens_max),
        timeout_ms: timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        family: Some(card.family).filter(|family| !family.is_empty()),
    })
}

fn given(count: u32) -> Option<u32> {
    (count > 0).then_some(count)
}

fn amounts(price: &v1::Price) -> [(&'static str, i64); 3] {
    [
        ("input_usd_nanos_per_million_tokens", price.input_usd_nanos_per_million_tokens),
        ("output_usd_nanos_per_million_tokens", price.output_usd_nanos_per_million_tokens),
        ("per_call_usd_nanos", price.per_call_usd_nanos),
    ]
}

fn price_from_wire(price: &v1::Price) -> Price {
    Price {
        input_per_million_tokens: NanoUsd::new(price.input_usd_nanos_per_million_tokens),
        output_per_million_tokens: NanoUsd::new(price.output_usd_nanos_per_million_tokens),
        per_call: NanoUsd::new(price.per_call_usd_nanos),
    }
}

/// A model and its state at a moment.
#[must_use]
pub fn to_wire(model: &Model, origin: v1::ModelOrigin, now: Timestamp) -> v1::ModelListing {
    let (available, unavailable_reason) = match &model.availability {
        Availability::Available => (true, String::new()),
        Availability::Disabled => (true, String::new()),
        Availability::Unavailable { reason } => (false, reason.clone()),
    };
    v1::ModelListing {
        card: Some(card_to_wire(&model.card)),
        enabled: model.availability != Availability::Disabled,
        available,
        unavailable_reason,
        origin: origin.into(),
        breaker: breaker_to_wire(model.breaker.state(now)).into(),
        price_suspect_reason: String::new(),
    }
}

fn card_to_wire(card: &ModelCard) -> v1::ModelCard {
    let (price, metered) = match &card.pricing {
        Pricing::PerToken(price) => (Some(price), None),
        Pricing::Metered { max_per_call } => (None, Some(max_per_call.nanos())),
    };
    v1::ModelCard {
        name: card.name.as_str().to_owned(),
        backend: card.backend.to_string(),
        upstream: card.upstream.to_string(),
        price: price.map(|price| v1::Price {
            input_usd_nanos_per_million_tokens: price.input_per_million_tokens.nanos(),
            output_usd_nanos_per_million_tokens: price.output_per_million_tokens.nanos(),
            per_call_usd_nanos: price.per_call.nanos(),
        }),
        context_tokens_max: card.context_tokens_max,
        output_tokens_max: card.output_tokens_max,
        timeout: Some(span(card.timeout)),
        family: card.family.clone().unwrap_or_default(),
        metered_max_per_call_usd_nanos: metered,
    }
}

/// A breaker's state as the wire names it; one that only waits out a throttle is open.
#[must_use]
pub fn breaker_to_wire(state: BreakerState) -> v1::BreakerState {
    match state {
        BreakerState::Closed => v1::BreakerState::Closed,
        BreakerState::Open { .. } | BreakerState::Throttled { .. } => v1::BreakerState::Open,
        BreakerState::HalfOpen => v1::BreakerState::Probing,
    }
}
