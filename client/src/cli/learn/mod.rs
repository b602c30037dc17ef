//! `train`, `evaluate`, `promote`, `rollback`, `shadow`, and the learning report: how one policy takes the place of
//! another.
//!
//! Each command is one call; whether a candidate is good enough is the daemon's to say. `training`, `evaluation` and
//! `learning` are the texts for people.

pub(crate) mod evaluation;
mod learning;
pub(crate) mod training;

use std::fs;

use anyhow::Context as _;
use pointsman_client::v1;

use super::args::{EvaluateArgs, PromoteArgs, ShadowArgs, TrainArgs};
use super::exit::Exit;
use super::input::file_fault;
use super::progress::Bar;
use super::session::Session;
use super::tables::{percent, span, word};
use super::{json, page, policies};

/// Fits a candidate; a bar shows the stage and the daemon's estimate of the time left.
pub(crate) async fn train(session: &Session, args: TrainArgs) -> anyhow::Result<Exit> {
    let request = v1::TrainRequest {
        kind: args.kind.wire().into(),
        seed: args.seed,
        rows_max: args.rows_max.unwrap_or_default(),
    };
    let mut replies = session.call("asking", session.client.train(request)).await?;
    let mut bar = Bar::of_share("training");
    let mut made = None;
    while let Some(response) = replies.next().await? {
        bar.say(word(response.stage().as_str_name(), "TRAINING_STAGE_"), beside(&response));
        bar.set_share(response.progress);
        if session.json {
            let line = json::text(&response)?;
            bar.aside(|| session.line(&line))?;
        }
        made = response.policy.or(made);
    }
    bar.finish();
    let made = made.context("the training ended without a policy")?;
    if !session.json {
        session.print(&policies::text(&session.look, &made))?;
    }
    Ok(Exit::Ok)
}

/// What stands beside the bar of a training.
fn beside(response: &v1::TrainResponse) -> String {
    let left = response.time_left.as_ref().map(|left| format!(", {} left", span(left)));
    format!(", {} rows{}", response.rows, left.unwrap_or_default())
}

/// Estimates what candidates are worth, and writes a page of it where one is asked for.
pub(crate) async fn evaluate(session: &Session, args: EvaluateArgs) -> anyhow::Result<Exit> {
    let request =
        v1::EvaluateRequest { versions: args.versions, held_out_fraction: args.held_out, delta: args.delta };
    let response = session.call("evaluating", session.client.evaluate(request)).await?;
    if let Some(path) = &args.html {
        let page = page::of(&response.evaluations)?;
        fs::write(path, page).map_err(|source| file_fault(path, source))?;
    }
    session.reply(&response, |look, response| {
        let mut text = evaluation::text(look, &response.evaluations);
        if let Some(path) = &args.html {
            text += &format!("\nA page with plots is in {path}\n");
        }
        text
    })?;
    Ok(Exit::Ok)
}

/// Lets a candidate choose.
pub(crate) async fn promote(session: &Session, args: PromoteArgs) -> anyhow::Result<Exit> {
    let request =
        v1::PromoteRequest { version: args.version, share: args.share, force: args.force, reason: args.reason };
    let response = session.call("promoting", session.client.promote(request)).await?;
    session.reply(&response, |_, response| {
        let version = response.policy.clone().unwrap_or_default().version;
        match &response.canary {
            None => format!("{version} chooses for all requests from now on; `pointsman rollback` returns\n"),
            Some(canary) => format!(
                "{version} chooses for {} of the requests from now on, beside {}; `pointsman report` shows how it does\n",
                percent(canary.share),
                canary.incumbent_version
            ),
        }
    })?;
    Ok(Exit::Ok)
}

/// Returns to the policy before, or ends the canary.
pub(crate) async fn rollback(session: &Session, reason: String) -> anyhow::Result<Exit> {
    let call = session.client.rollback(v1::RollbackRequest { reason });
    let response = session.call("rolling back", call).await?;
    session.reply(&response, |_, response| {
        let version = |policy: &Option<v1::Policy>| policy.clone().unwrap_or_default().version;
        let (now, back) = (version(&response.policy), version(&response.rolled_back));
        format!("{now} chooses from now on, {back} is rolled back\n")
    })?;
    Ok(Exit::Ok)
}

/// Sets the shadow, or none.
pub(crate) async fn shadow(session: &Session, args: ShadowArgs) -> anyhow::Result<Exit> {
    let request = v1::SetShadowRequest { version: args.version.unwrap_or_default() };
    let response = session.call("setting", session.client.set_shadow(request)).await?;
    session.reply(&response, |_, response| match &response.policy {
        None => "no policy decides beside the running one\n".to_owned(),
        Some(policy) => {
            format!("{} decides beside the running policy from now on and calls nobody\n", policy.version)
        }
    })?;
    Ok(Exit::Ok)
}

/// The learning report.
pub(crate) async fn report(session: &Session, alerts: u32, audit: u32) -> anyhow::Result<Exit> {
    let request = v1::GetReportRequest { drift_alerts_max: alerts, audit_max: audit };
    let response = session.call("reading", session.client.get_report(request)).await?;
    session.reply(&response, learning::text)?;
    Ok(Exit::Ok)
}
