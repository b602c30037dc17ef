//! `models`, `drain`, `health`: running the daemon.

use std::time::Duration;

use pointsman_client::{ClientError, v1};

use super::args::{ModelsCommand, RegisterArgs};
use super::exit::Exit;
use super::input::{InputFault, flag};
use super::parse;
use super::session::Session;
use super::tables::{Look, NONE, or_none, usd_of_nanos, word, yes};

/// Models: list, register, enable, disable, remove.
pub(crate) async fn models(session: &Session, command: ModelsCommand) -> anyhow::Result<Exit> {
    let client = &session.client;
    let changed = match command {
        ModelsCommand::List => {
            let request = v1::ListModelsRequest {};
            let response = session.call("reading", client.list_models(request)).await?;
            session.reply(&response, |look, response| models_text(look, &response.models))?;
            return Ok(Exit::Ok);
        }
        ModelsCommand::Remove { name } => {
            let request = v1::RemoveModelRequest { name: name.clone() };
            let response = session.call("removing", client.remove_model(request)).await?;
            session.reply(&response, |_, _| format!("{name} is removed\n"))?;
            return Ok(Exit::Ok);
        }
        ModelsCommand::Register(args) => {
            let request = v1::RegisterModelRequest { card: Some(card(args)?) };
            let call = client.register_model(request);
            session.call("registering", call).await?.model
        }
        ModelsCommand::Enable { name } => {
            let call = client.enable_model(v1::EnableModelRequest { name });
            session.call("enabling", call).await?.model
        }
        ModelsCommand::Disable { name } => {
            let call = client.disable_model(v1::DisableModelRequest { name });
            session.call("disabling", call).await?.model
        }
    };
    session.reply(&changed.unwrap_or_default(), |look, model| models_text(look, std::slice::from_ref(model)))?;
    Ok(Exit::Ok)
}

fn card(args: RegisterArgs) -> Result<v1::ModelCard, InputFault> {
    let prices = [args.input_usd_per_million_tokens, args.output_usd_per_million_tokens, args.usd_per_call];
    // Without any price flag the price is unknown, which is not the same as free.
    let price = (args.free || prices.iter().any(Option::is_some)).then(|| v1::Price {
        input_usd_nanos_per_million_tokens: args.input_usd_per_million_tokens.unwrap_or(0),
        output_usd_nanos_per_million_tokens: args.output_usd_per_million_tokens.unwrap_or(0),
        per_call_usd_nanos: args.usd_per_call.unwrap_or(0),
    });
    let timeout = args.call_timeout.map(parse::wire_duration).transpose();
    Ok(v1::ModelCard {
        name: args.name,
        backend: args.backend,
        upstream: args.upstream.unwrap_or_default(),
        price,
        context_tokens_max: args.context_tokens_max.unwrap_or(0),
        output_tokens_max: args.output_tokens_max.unwrap_or(0),
        timeout: timeout.map_err(|why| flag("--call-timeout", why))?,
        family: args.family.unwrap_or_default(),
        metered_max_per_call_usd_nanos: args.metered_max_usd_per_call,
    })
}

/// Begins the graceful end.
pub(crate) async fn drain(session: &Session, grace: Option<Duration>) -> anyhow::Result<Exit> {
    let grace = grace.map(parse::wire_duration).transpose();
    let request = v1::DrainRequest { grace: grace.map_err(|why| flag("--grace", why))? };
    let response = session.call("draining", session.client.drain(request)).await?;
    session.reply(&response, |_, response| format!("draining, {} requests under way\n", response.in_flight))?;
    Ok(Exit::Ok)
}

/// Whether the daemon serves.
pub(crate) async fn health(session: &Session, service: &str) -> anyhow::Result<Exit> {
    let serves = match session.call("asking", session.client.serves(service)).await {
        Ok(serves) => serves,
        // A daemon that ends between the connection and the call does not serve either.
        Err(error @ ClientError::Unavailable(_)) => {
            session.line(&health_line(session.json, false))?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    session.line(&health_line(session.json, serves))?;
    Ok(if serves { Exit::Ok } else { Exit::Unavailable })
}

fn health_line(json: bool, serves: bool) -> String {
    let status = if serves { "SERVING" } else { "NOT_SERVING" };
    if json { serde_json::json!({ "status": status }).to_string() } else { status.to_owned() }
}

fn models_text(look: &Look, models: &[v1::ModelListing]) -> String {
    let rows = models.iter().map(|model| {
        let card = model.card.clone().unwrap_or_default();
        let price = card.price.as_ref();
        let money = |nanos: Option<i64>| nanos.map_or_else(|| NONE.to_owned(), usd_of_nanos);
        let timeout = card.timeout.as_ref();
        vec![
            card.name.clone(),
            yes(model.enabled),
            match (model.available, model.price_suspect_reason.is_empty()) {
                (true, true) => "yes".to_owned(),
                (true, false) => format!("yes, but its price card is suspect: {}", model.price_suspect_reason),
                (false, _) => format!("no: {}", model.unavailable_reason),
            },
            card.backend.clone(),
            money(price.map(|price| price.input_usd_nanos_per_million_tokens)),
            money(price.map(|price| price.output_usd_nanos_per_million_tokens)),
            money(price.map(|price| price.per_call_usd_nanos)),
            card.output_tokens_max.to_string(),
            timeout.map_or_else(|| NONE.to_owned(), ToString::to_string),
            or_none(&card.family),
            word(model.origin().as_str_name(), "MODEL_ORIGIN_"),
            word(model.breaker().as_str_name(), "BREAKER_STATE_"),
        ]
    });
    look.table(
        &[
            "model",
            "enabled",
            "available",
            "backend",
            ">in / M tokens",
            ">out / M tokens",
            ">per call",
            ">output tokens",
            ">timeout",
            "family",
            "origin",
            "breaker",
        ],
        rows.collect(),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn check(flags: &str, expected: v1::ModelCard) {
        let line = format!("p models register m --backend b {flags}");
        let cli = Cli::try_parse_from(line.split_whitespace()).expect(flags);
        let Command::Models { command: ModelsCommand::Register(args) } = cli.command else {
            panic!("{line} does not register")
        };
        let expected = v1::ModelCard { name: "m".to_owned(), backend: "b".to_owned(), ..expected };
        assert_eq!(card(args).expect(flags), expected);
    }

    #[test]
    fn every_field_of_a_card() {
        check("", v1::ModelCard::default());
        check("--free", v1::ModelCard { price: Some(v1::Price::default()), ..v1::ModelCard::default() });
        check(
            "--upstream u --input-usd-per-million-tokens 0.15 --output-usd-per-million-tokens 0.6 \
             --usd-per-call 0.000001 --context-tokens-max 8192 --output-tokens-max 64 --call-timeout 20s \
             --family f --metered-max-usd-per-call 0.02",
            v1::ModelCard {
                upstream: "u".to_owned(),
                price: Some(v1::Price {
                    input_usd_nanos_per_million_tokens: 150_000_000,
                    output_usd_nanos_per_million_tokens: 600_000_000,
                    per_call_usd_nanos: 1_000,
                }),
                context_tokens_max: 8_192,
                output_tokens_max: 64,
                timeout: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
                family: "f".to_owned(),
                metered_max_per_call_usd_nanos: Some(20_000_000),
                ..v1::ModelCard::default()
            },
        );
    }
}
