//! The learning report, as text for people.

use pointsman_client::v1;

use crate::cli::tables::{
    Look, NONE, difference, estimate, latency, or_none, percent, score, score_or_none, time, usd_of_nanos, word,
    yes,
};

/// The whole report; what there is nothing of is left out.
pub(crate) fn text(look: &Look, report: &v1::GetReportResponse) -> String {
    let mut text = running(look, report);
    if report.shadow.is_some() || report.live.is_some() {
        text += &values(look, report);
    }
    if let Some(found) = &report.canary {
        text += &format!("\nCanary\n{}", canary(look, found));
    }
    if let Some(found) = &report.fallback {
        text += &format!("\nBest single model\n{}", fallback(look, found));
    }
    if !report.pacing.is_empty() {
        text += &format!("\nPacing\n{}", pacing(look, &report.pacing));
    }
    if let Some(found) = &report.retrain {
        text += &format!("\nRetraining\n{}", retrain(look, found));
    }
    if report.sources.len() > 1 {
        text += &format!("\nSources of feedback\n{}", sources(look, &report.sources));
    }
    if !report.drift_alerts.is_empty() {
        text += &format!("\nDrift\n{}", drift(look, &report.drift_alerts));
    }
    if !report.audit.is_empty() {
        text += &format!("\nWhat was done to the policies\n{}", audit(look, &report.audit));
    }
    text
}

fn running(look: &Look, report: &v1::GetReportResponse) -> String {
    let policy = report.running.clone().unwrap_or_default();
    look.pairs(&[
        ("running", or_none(&policy.version)),
        ("kind", word(policy.kind().as_str_name(), "POLICY_KIND_")),
        ("before it", policy.predecessor.clone()),
        ("updates", policy.updates.to_string()),
    ])
}

/// The running policy and the shadow, side by side.
fn values(look: &Look, report: &v1::GetReportResponse) -> String {
    let version = report.running.as_ref().map_or(NONE, |policy| &policy.version);
    let live = report.live.iter().map(|live| {
        vec![
            version.to_owned(),
            "live".to_owned(),
            live.rows.to_string(),
            live.judged_rows.to_string(),
            estimate(live.value.as_ref()),
            NONE.to_owned(),
            usd_of_nanos(live.cost_usd_nanos),
            NONE.to_owned(),
            NONE.to_owned(),
            time(live.since.as_ref()),
        ]
    });
    let shadow = report.shadow.iter().map(|shadow| {
        vec![
            shadow.version.clone(),
            "shadow".to_owned(),
            shadow.rows.to_string(),
            shadow.judged_rows.to_string(),
            estimate(shadow.doubly_robust.as_ref()),
            estimate(shadow.snips.as_ref()),
            usd_of_nanos(shadow.cost_usd_nanos),
            percent(shadow.agreement_share),
            format!("{:.0}", shadow.effective_sample_size),
            time(shadow.since.as_ref()),
        ]
    });
    let titles = [
        "policy",
        "",
        ">decisions",
        ">judged",
        ">value",
        ">by SNIPS",
        ">cost a request",
        ">agrees",
        ">rows alike",
        "since",
    ];
    look.table(&titles, live.chain(shadow).collect())
}

fn canary(look: &Look, found: &v1::Canary) -> String {
    look.pairs(&[
        ("candidate", format!("{}, for {} of the requests", found.version, percent(found.share))),
        ("incumbent", found.incumbent_version.clone()),
        ("verdict", word(found.verdict().as_str_name(), "CANARY_VERDICT_")),
        ("candidate's mean", format!("{} of {}", score_or_none(found.candidate_mean), found.candidate_rows)),
        ("incumbent's mean", format!("{} of {}", score_or_none(found.incumbent_mean), found.incumbent_rows)),
        ("difference", difference(found.difference.as_ref())),
        ("looks", found.looks.to_string()),
        ("began", time(found.started_at.as_ref())),
        ("ended", found.ended_at.as_ref().map(|at| time(Some(at))).unwrap_or_default()),
    ])
}

fn fallback(look: &Look, found: &v1::FallbackReport) -> String {
    look.pairs(&[
        ("stands in", yes(found.active)),
        ("model", or_none(&found.model)),
        ("the policy's gain on it", difference(found.difference.as_ref())),
        ("since", found.since.as_ref().map(|at| time(Some(at))).unwrap_or_default()),
    ])
}

fn pacing(look: &Look, found: &[v1::PacingReport]) -> String {
    let rows = found.iter().map(|budget| {
        let money = |nanos: Option<i64>| nanos.map_or_else(|| NONE.to_owned(), usd_of_nanos);
        vec![
            budget.budget.clone(),
            format!("{:.4}", budget.cost_weight_per_dollar),
            money(budget.target_per_request_usd_nanos),
            money(mean(budget)),
            money(budget.window_budget_usd_nanos),
            usd_of_nanos(budget.spent_usd_nanos),
            budget.requests.to_string(),
            time(budget.window_ends_at.as_ref()),
        ]
    });
    let titles = [
        "budget",
        ">price of $1",
        ">target a request",
        ">spent a request",
        ">window",
        ">spent",
        ">requests",
        "ends",
    ];
    look.table(&titles, rows.collect())
}

fn mean(budget: &v1::PacingReport) -> Option<i64> {
    let requests = i64::try_from(budget.requests).ok()?;
    budget.spent_usd_nanos.checked_div(requests)
}

fn retrain(look: &Look, found: &v1::RetrainReport) -> String {
    let due = match found.feedback_due {
        0 => found.feedback_since.to_string(),
        due => format!("{} of {due}", found.feedback_since),
    };
    look.pairs(&[
        ("switched on", yes(found.enabled)),
        ("under way", yes(found.running)),
        ("last run", time(found.last_run_at.as_ref())),
        ("made", found.last_version.clone()),
        ("failed", found.last_error.clone()),
        ("due", found.due_at.as_ref().map(|at| time(Some(at))).unwrap_or_default()),
        ("feedback since", due),
    ])
}

fn drift(look: &Look, found: &[v1::DriftAlert]) -> String {
    let rows = found.iter().map(|alert| {
        vec![
            time(alert.noticed_at.as_ref()),
            alert.model.clone(),
            word(alert.quantity().as_str_name(), "DRIFT_QUANTITY_"),
            word(alert.direction().as_str_name(), "DRIFT_DIRECTION_"),
            quantity(alert.quantity(), alert.before),
            quantity(alert.quantity(), alert.after),
            yes(alert.heads_reset),
        ]
    });
    look.table(&["noticed", "model", "what", "went", ">before", ">after", "learned anew"], rows.collect())
}

fn sources(look: &Look, found: &[v1::SourceReport]) -> String {
    let rows = found.iter().map(|source| {
        vec![
            or_none(&source.source),
            source.labels.to_string(),
            format!("{:.0}", source.taught),
            yes(source.departs),
        ]
    });
    look.table(&["source", ">labels", ">taught", "departs from the others"], rows.collect())
}

/// A mean in the unit of its quantity.
#[expect(clippy::cast_possible_truncation, reason = "saturates; nano-dollars and microseconds are shown whole")]
fn quantity(what: v1::DriftQuantity, mean: f64) -> String {
    match what {
        v1::DriftQuantity::Quality | v1::DriftQuantity::Unspecified => score(mean),
        v1::DriftQuantity::Cost => usd_of_nanos(mean.round() as i64),
        v1::DriftQuantity::Latency => latency(mean.round() as i64),
    }
}

fn audit(look: &Look, found: &[v1::PolicyAuditEntry]) -> String {
    let rows = found.iter().map(|entry| {
        let mut action = word(entry.action().as_str_name(), "POLICY_ACTION_");
        if let Some(share) = entry.share.filter(|share| *share < 1.0) {
            action += &format!(", {}", percent(share));
        }
        if entry.forced {
            action += ", forced";
        }
        vec![
            time(entry.at.as_ref()),
            action,
            or_none(&entry.from_version),
            or_none(&entry.to_version),
            or_none(&entry.actor),
            entry.reason.clone(),
        ]
    });
    look.table(&["when", "what", "from", "to", "by", "why"], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_have_the_unit_of_their_quantity() {
        let check = |what, mean, expected: &str| assert_eq!(quantity(what, mean), expected);
        check(v1::DriftQuantity::Quality, 0.8, "0.800");
        check(v1::DriftQuantity::Cost, 83_000.4, "$0.000083");
        check(v1::DriftQuantity::Latency, 12_345.0, "12.3 ms");
    }

    #[test]
    fn nothing_known_is_said_as_such() {
        let text = text(&Look::new(false, false), &v1::GetReportResponse::default());
        assert!(text.starts_with("running    -\n"), "{text}");
    }
}
