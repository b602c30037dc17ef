//! Budgets on the wire: amounts in micro-dollars, rounded against whoever would like to spend them.

use jiff::tz::TimeZone;
use pointsman_proto::v1;
use pointsman_router::check::{BadRequest, Fault, Problem};
use pointsman_router::money::NanoUsd;

use crate::config::{
    ALERT_AT_PERCENT, ALERTS_WANTED, BUDGET_NAME_WANTED, Budget, Enforcement, Pacing, Scope, Window, are_alerts,
    is_budget_name,
};
use crate::money::{Alert, BudgetStatus};
use crate::store::ledger::{Imbalance, Transfer, TransferKind};
use crate::wire::timestamp;

const WINDOWS: [(Window, v1::BudgetWindow); 6] = [
    (Window::Minute, v1::BudgetWindow::Minute),
    (Window::Hour, v1::BudgetWindow::Hour),
    (Window::Day, v1::BudgetWindow::Day),
    (Window::Week, v1::BudgetWindow::Week),
    (Window::Month, v1::BudgetWindow::Month),
    (Window::Total, v1::BudgetWindow::Total),
];

/// A budget as the wire shows it; nothing where none is configured.
#[must_use]
pub(super) fn to_wire(status: BudgetStatus) -> Option<v1::Budget> {
    let (amount, left) = (status.amount?, status.left?);
    let settled = status.spent.saturating_sub(status.unknown);
    let window = WINDOWS.iter().find(|(window, _)| *window == status.window).map(|(_, window)| *window);
    Some(v1::Budget {
        name: status.name,
        scope: status.scope.to_string(),
        enforcement: match status.enforcement {
            Enforcement::Hard => v1::Enforcement::Hard,
            Enforcement::Soft => v1::Enforcement::Soft,
        }
        .into(),
        window: window.unwrap_or_default().into(),
        time_zone: status.time_zone,
        amount_usd_micros: amount.micros_rounded_up(),
        spent_usd_micros: settled.micros_rounded_up(),
        held_usd_micros: status.held.micros_rounded_up(),
        unknown_usd_micros: status.unknown.micros_rounded_up(),
        overrun_usd_micros: status.overrun.micros_rounded_up(),
        lease_usd_micros: status.lease.micros_rounded_up(),
        left_usd_micros: rounded_down(left),
        started_at: Some(timestamp(status.started_at)),
        resets_at: status.resets_at.map(timestamp),
        ends_at: status.ends_at.map(timestamp),
        alert_at_percent: status.alert_at_percent.into_iter().map(u32::from).collect(),
    })
}

/// Micro-dollars towards less left.
fn rounded_down(amount: NanoUsd) -> i64 {
    amount.nanos().div_euclid(1_000)
}

/// A share that was reached.
#[must_use]
pub(super) fn alert_to_wire(alert: Alert) -> v1::BudgetAlert {
    v1::BudgetAlert {
        budget: alert.account,
        percent: alert.percent.into(),
        spent_usd_micros: alert.spent.micros_rounded_up(),
        amount_usd_micros: alert.amount.micros_rounded_up(),
        at: Some(timestamp(alert.at)),
    }
}

/// A movement.
#[must_use]
pub(super) fn transfer_to_wire(transfer: Transfer) -> v1::Transfer {
    v1::Transfer {
        sequence: transfer.seq,
        at: Some(timestamp(transfer.at)),
        kind: match transfer.kind {
            TransferKind::Opened => v1::TransferKind::Opened,
            TransferKind::Granted => v1::TransferKind::Granted,
            TransferKind::Returned => v1::TransferKind::Returned,
            TransferKind::Booked => v1::TransferKind::Booked,
            TransferKind::Lost => v1::TransferKind::Lost,
            TransferKind::Adjusted => v1::TransferKind::Adjusted,
        }
        .into(),
        key: transfer.key.unwrap_or_default(),
        leased_usd_nanos: transfer.leased.nanos(),
        held_usd_nanos: transfer.spend.held.nanos(),
        settled_usd_nanos: transfer.spend.settled.nanos(),
        released_usd_nanos: transfer.spend.released.nanos(),
        unknown_usd_nanos: transfer.spend.unknown.nanos(),
        overrun_usd_nanos: transfer.spend.overrun.nanos(),
    }
}

/// A balance that is not what it must be.
#[must_use]
pub(super) fn imbalance_to_wire(imbalance: Imbalance) -> v1::Imbalance {
    v1::Imbalance {
        account: imbalance.account,
        window_started_at: Some(timestamp(imbalance.start)),
        balance: imbalance.what.to_owned(),
        kept_usd_nanos: imbalance.kept.nanos(),
        summed_usd_nanos: imbalance.summed.nanos(),
    }
}

/// The budget that is to be set, over the one of this name that there is.
///
/// # Errors
/// Every field that is wrong, by its name.
pub(super) fn from_wire(request: v1::SetBudgetRequest, known: Option<&Budget>) -> Result<Budget, BadRequest> {
    let mut faults = Vec::new();
    let (window, enforcement) = (window(&request, known), enforcement(&request, known));
    if !is_budget_name(&request.name) {
        faults.push(("name", Problem::out_of_range(BUDGET_NAME_WANTED)));
    }
    let scope = match (request.scope.as_str(), known) {
        ("", Some(known)) => Some(known.scope.clone()),
        (text, _) => Scope::read(text),
    };
    if scope.is_none() {
        faults.push(("scope", Problem::out_of_range(Scope::WANTED)));
    }
    let amount = request.amount_usd_micros.filter(|micros| *micros >= 0).and_then(NanoUsd::from_micros);
    if amount.is_none() {
        faults.push(("amount_usd_micros", Problem::out_of_range("micro-dollars from 0 to nine billion dollars")));
    }
    if window.is_none() {
        faults.push(("window", Problem::out_of_range("minute, hour, day, week, month or total")));
    }
    if enforcement.is_none() {
        faults.push(("enforcement", Problem::out_of_range("hard or soft")));
    }
    let time_zone = match (request.time_zone.as_str(), known) {
        ("", Some(known)) => Some(known.time_zone.clone()),
        ("", None) => Some(TimeZone::UTC),
        (name, _) => TimeZone::get(name).ok(),
    };
    if time_zone.is_none() {
        faults.push(("time_zone", Problem::out_of_range("an IANA time zone such as Europe/Berlin")));
    }
    let alerts = alerts(&request, known);
    if alerts.is_none() {
        faults.push(("alert_at_percent", Problem::out_of_range(ALERTS_WANTED)));
    }
    match (scope, amount, window, time_zone, enforcement, alerts) {
        (Some(scope), Some(amount), Some(window), Some(time_zone), Some(enforcement), Some(alert_at_percent))
            if faults.is_empty() =>
        {
            let name = request.name;
            Ok(Budget {
                name,
                scope,
                amount,
                window,
                time_zone,
                enforcement,
                alert_at_percent,
                pacing: Pacing::Off,
            })
        }
        _ => Err(BadRequest {
            faults: faults.into_iter().map(|(field, problem)| Fault::new(field, problem)).collect(),
        }),
    }
}

fn window(request: &v1::SetBudgetRequest, known: Option<&Budget>) -> Option<Window> {
    match (v1::BudgetWindow::try_from(request.window).ok()?, known) {
        (v1::BudgetWindow::Unspecified, known) => known.map(|known| known.window),
        (given, _) => WINDOWS.iter().find(|(_, window)| *window == given).map(|(window, _)| *window),
    }
}

fn enforcement(request: &v1::SetBudgetRequest, known: Option<&Budget>) -> Option<Enforcement> {
    match v1::Enforcement::try_from(request.enforcement).ok()? {
        v1::Enforcement::Unspecified => Some(known.map_or(Enforcement::Hard, |known| known.enforcement)),
        v1::Enforcement::Hard => Some(Enforcement::Hard),
        v1::Enforcement::Soft => Some(Enforcement::Soft),
    }
}

fn alerts(request: &v1::SetBudgetRequest, known: Option<&Budget>) -> Option<Vec<u8>> {
    if request.alert_at_percent.is_empty() {
        return Some(known.map_or_else(|| ALERT_AT_PERCENT.to_vec(), |known| known.alert_at_percent.clone()));
    }
    let percents: Option<Vec<u8>> = request.alert_at_percent.iter().map(|p| u8::try_from(*p).ok()).collect();
    percents.filter(|percents| are_alerts(percents))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::SetBudgetRequest {
        v1::SetBudgetRequest {
            name: "search".to_owned(),
            scope: "tag:team=search".to_owned(),
            amount_usd_micros: Some(2_500_000),
            window: v1::BudgetWindow::Day.into(),
            time_zone: "Europe/Berlin".to_owned(),
            enforcement: v1::Enforcement::Soft.into(),
            alert_at_percent: vec![90],
        }
    }

    #[test]
    fn what_is_left_out_stays_as_it_is() {
        let set = from_wire(request(), None).unwrap();
        assert_eq!(
            (set.amount.nanos(), set.enforcement, set.window),
            (2_500_000_000, Enforcement::Soft, Window::Day)
        );
        let bare = v1::SetBudgetRequest {
            name: "search".to_owned(),
            amount_usd_micros: Some(1),
            ..v1::SetBudgetRequest::default()
        };
        let again = from_wire(bare.clone(), Some(&set)).unwrap();
        assert_eq!(again, Budget { amount: NanoUsd::new(1_000), ..set });
        let fields: Vec<String> =
            from_wire(bare, None).unwrap_err().faults.iter().map(|f| f.field.to_string()).collect();
        assert_eq!(fields, ["scope", "window"]);
    }

    #[test]
    fn every_field_that_is_wrong_is_named() {
        let wrong = v1::SetBudgetRequest {
            name: "a/b".to_owned(),
            scope: "team".to_owned(),
            amount_usd_micros: Some(-1),
            window: 99,
            time_zone: "Mars/Olympus".to_owned(),
            enforcement: 7,
            alert_at_percent: vec![300],
        };
        let fields: Vec<String> =
            from_wire(wrong, None).unwrap_err().faults.iter().map(|fault| fault.field.to_string()).collect();
        let expected =
            ["name", "scope", "amount_usd_micros", "window", "enforcement", "time_zone", "alert_at_percent"];
        assert_eq!(fields, expected);
        for amount in [None, Some(i64::MAX)] {
            assert!(from_wire(v1::SetBudgetRequest { amount_usd_micros: amount, ..request() }, None).is_err());
        }
    }
}
