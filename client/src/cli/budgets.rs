//! `budget`, `budgets`: what may be spent, by whom, what was, and whether the books are right.

use pointsman_client::v1;

use super::args::{AdjustArgs, BudgetsCommand, SetBudgetArgs, TransfersArgs};
use super::exit::Exit;
use super::session::Session;
use super::tables::{Look, NONE, or_none, percent, time, usd_of_micros, usd_of_nanos, word};

/// The daemon's own budget and what is left of it.
pub(crate) async fn budget(session: &Session) -> anyhow::Result<Exit> {
    show(session, String::new()).await
}

/// Budgets: list, show, set, remove, adjust, transfers, verify.
pub(crate) async fn budgets(session: &Session, command: BudgetsCommand) -> anyhow::Result<Exit> {
    let client = &session.client;
    match command {
        BudgetsCommand::List => {
            let response = session.call("reading", client.list_budgets(v1::ListBudgetsRequest {})).await?;
            session.reply(&response, list_text)?;
        }
        BudgetsCommand::Show { name } => return show(session, name.unwrap_or_default()).await,
        BudgetsCommand::Set(args) => {
            let name = args.name.clone();
            let response = session.call("setting", client.set_budget(to_set(args))).await?;
            session.reply(&response, |look, response| match &response.budget {
                Some(budget) => budget_text(look, budget),
                None => format!("{name} is set, each has an account once it is asked for\n"),
            })?;
        }
        BudgetsCommand::Remove { name } => {
            let request = v1::RemoveBudgetRequest { name: name.clone() };
            let response = session.call("removing", client.remove_budget(request)).await?;
            session.reply(&response, |_, _| format!("{name} is removed\n"))?;
        }
        BudgetsCommand::Adjust(args) => {
            let response = session.call("adjusting", client.adjust_budget(to_adjust(args))).await?;
            session.reply(&response, |look, response| {
                let said = if response.repeated { "this was booked before, nothing was changed\n" } else { "" };
                let budget = response.budget.as_ref().map(|budget| budget_text(look, budget));
                format!("{said}{}", budget.unwrap_or_default())
            })?;
        }
        BudgetsCommand::Transfers(args) => {
            let response = session.call("reading", client.list_transfers(to_list(args))).await?;
            session.reply(&response, |look, response| transfers_text(look, &response.transfers))?;
        }
        BudgetsCommand::Verify => {
            let call = client.verify_budgets(v1::VerifyBudgetsRequest {});
            let response = session.call("adding up", call).await?;
            session.reply(&response, |look, response| verify_text(look, &response.imbalances))?;
            return Ok(if response.imbalances.is_empty() { Exit::Ok } else { Exit::Internal });
        }
    }
    Ok(Exit::Ok)
}

async fn show(session: &Session, name: String) -> anyhow::Result<Exit> {
    let response = session.call("reading", session.client.get_budget(v1::GetBudgetRequest { name })).await?;
    session.reply(&response, |look, response| {
        response.budget.as_ref().map_or_else(
            || {
                "no budget is configured for the whole daemon; other budgets and requests limit spending\n"
                    .to_owned()
            },
            |budget| budget_text(look, budget),
        )
    })?;
    Ok(Exit::Ok)
}

fn to_set(args: SetBudgetArgs) -> v1::SetBudgetRequest {
    v1::SetBudgetRequest {
        name: args.name,
        scope: args.scope.unwrap_or_default(),
        amount_usd_micros: Some(args.amount_usd),
        window: args.window.map_or(v1::BudgetWindow::Unspecified, |window| window.wire()).into(),
        time_zone: args.time_zone.unwrap_or_default(),
        enforcement: match (args.soft, args.hard) {
            (true, _) => v1::Enforcement::Soft,
            (false, true) => v1::Enforcement::Hard,
            (false, false) => v1::Enforcement::Unspecified,
        }
        .into(),
        alert_at_percent: args.alert_at,
    }
}

fn to_adjust(args: AdjustArgs) -> v1::AdjustBudgetRequest {
    v1::AdjustBudgetRequest {
        name: args.name,
        window_started_at: args.window,
        unknown_usd_nanos: args.unknown_usd,
        settled_usd_nanos: args.settled_usd,
        key: args.key,
    }
}

fn to_list(args: TransfersArgs) -> v1::ListTransfersRequest {
    v1::ListTransfersRequest {
        name: args.name,
        window_started_at: args.window,
        unknown_only: args.unknown,
        limit: args.limit,
    }
}

fn list_text(look: &Look, response: &v1::ListBudgetsResponse) -> String {
    let rows = response.budgets.iter().map(|budget| {
        vec![
            budget.name.clone(),
            budget.scope.clone(),
            word(budget.window().as_str_name(), "BUDGET_WINDOW_"),
            word(budget.enforcement().as_str_name(), "ENFORCEMENT_"),
            usd_of_micros(budget.amount_usd_micros),
            usd_of_micros(budget.spent_usd_micros),
            usd_of_micros(budget.held_usd_micros),
            usd_of_micros(budget.unknown_usd_micros),
            usd_of_micros(budget.left_usd_micros),
            ends(budget),
            time(budget.resets_at.as_ref()),
        ]
    });
    let header = [
        "budget",
        "scope",
        "window",
        "kind",
        ">amount",
        ">spent",
        ">held",
        ">unknown",
        ">left",
        "money ends",
        "resets",
    ];
    let mut text = look.table(&header, rows.collect());
    for alert in &response.alerts {
        text.push_str(&format!(
            "{}: {} % of {} were spent at {}\n",
            alert.budget,
            alert.percent,
            usd_of_micros(alert.amount_usd_micros),
            time(alert.at.as_ref())
        ));
    }
    text
}

fn budget_text(look: &Look, budget: &v1::Budget) -> String {
    let used = budget.amount_usd_micros - budget.left_usd_micros;
    let share = percent(share(used, budget.amount_usd_micros));
    let alerts: Vec<String> = budget.alert_at_percent.iter().map(|at| format!("{at} %")).collect();
    look.pairs(&[
        ("budget", budget.name.clone()),
        ("scope", budget.scope.clone()),
        ("window", format!("{} of {}", word(budget.window().as_str_name(), "BUDGET_WINDOW_"), budget.time_zone)),
        ("enforcement", word(budget.enforcement().as_str_name(), "ENFORCEMENT_")),
        ("amount", usd_of_micros(budget.amount_usd_micros)),
        ("spent", usd_of_micros(budget.spent_usd_micros)),
        ("held", usd_of_micros(budget.held_usd_micros)),
        ("unknown", usd_of_micros(budget.unknown_usd_micros)),
        ("overrun", usd_of_micros(budget.overrun_usd_micros)),
        ("lease", usd_of_micros(budget.lease_usd_micros)),
        ("left", format!("{} ({share} used)", usd_of_micros(budget.left_usd_micros))),
        ("money ends", ends(budget)),
        ("tells at", or_none(&alerts.join(", "))),
        ("began", time(budget.started_at.as_ref())),
        ("resets", time(budget.resets_at.as_ref())),
    ])
}

/// When the money ends, where that is before the window does.
fn ends(budget: &v1::Budget) -> String {
    budget.ends_at.as_ref().map_or_else(|| NONE.to_owned(), |at| time(Some(at)))
}

fn transfers_text(look: &Look, transfers: &[v1::Transfer]) -> String {
    let money = |nanos: i64| if nanos == 0 { NONE.to_owned() } else { usd_of_nanos(nanos) };
    let rows = transfers.iter().map(|transfer| {
        vec![
            transfer.sequence.to_string(),
            time(transfer.at.as_ref()),
            word(transfer.kind().as_str_name(), "TRANSFER_KIND_"),
            money(transfer.leased_usd_nanos),
            money(transfer.held_usd_nanos),
            money(transfer.settled_usd_nanos),
            money(transfer.released_usd_nanos),
            money(transfer.unknown_usd_nanos),
            money(transfer.overrun_usd_nanos),
            or_none(&transfer.key),
        ]
    });
    let header = [">", "at", "kind", ">leased", ">held", ">settled", ">released", ">unknown", ">overrun", "key"];
    look.table(&header, rows.collect())
}

fn verify_text(look: &Look, imbalances: &[v1::Imbalance]) -> String {
    if imbalances.is_empty() {
        return "every balance is the sum of its transfers\n".to_owned();
    }
    let rows = imbalances.iter().map(|found| {
        vec![
            found.account.clone(),
            time(found.window_started_at.as_ref()),
            found.balance.clone(),
            usd_of_nanos(found.kept_usd_nanos),
            usd_of_nanos(found.summed_usd_nanos),
        ]
    });
    look.table(&["budget", "window", "balance", ">kept", ">sum of transfers"], rows.collect())
}

/// A share for people; amounts of money beyond 2^53 micro-dollars may lose their last digit.
#[expect(clippy::cast_precision_loss, reason = "a share that is shown in whole percent")]
fn share(part: i64, whole: i64) -> f64 {
    if whole <= 0 {
        return 1.0;
    }
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parsed(line: &str) -> BudgetsCommand {
        let cli = Cli::try_parse_from(line.split_whitespace()).expect(line);
        let Command::Budgets { command } = cli.command else { panic!("{line} is about no budgets") };
        command
    }

    #[test]
    fn every_field_of_a_budget() {
        let line = "p budgets set search --scope tag:team=search --amount-usd 2.5 --window day --time-zone Europe/Berlin \
                    --soft --alert-at 50,90";
        let BudgetsCommand::Set(args) = parsed(line) else { panic!("{line} sets nothing") };
        let expected = v1::SetBudgetRequest {
            name: "search".to_owned(),
            scope: "tag:team=search".to_owned(),
            amount_usd_micros: Some(2_500_000),
            window: v1::BudgetWindow::Day.into(),
            time_zone: "Europe/Berlin".to_owned(),
            enforcement: v1::Enforcement::Soft.into(),
            alert_at_percent: vec![50, 90],
        };
        assert_eq!(to_set(args), expected);
        assert!(Cli::try_parse_from("p budgets set x --amount-usd -1".split_whitespace()).is_err());
        assert!(Cli::try_parse_from("p budgets set x --amount-usd 0.0000001".split_whitespace()).is_err());
    }

    #[test]
    fn every_field_of_an_adjustment() {
        let line = "p budgets adjust all --unknown-usd 0.2 --settled-usd 0.000000001 --key bill-7 --window 2026-03-01T08:00:00Z";
        let BudgetsCommand::Adjust(args) = parsed(line) else { panic!("{line} adjusts nothing") };
        let request = to_adjust(args);
        assert_eq!((request.unknown_usd_nanos, request.settled_usd_nanos), (200_000_000, 1));
        assert_eq!(request.window_started_at.map(|at| at.seconds), Some(1_772_352_000));
    }
}
