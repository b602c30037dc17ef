//! GetReport: what is being learned, put together from the teacher's figures and the audit log.

use pointsman_learner::drift::{Alert, Direction, Watched};
use pointsman_learner::evaluate::estimate::Estimate;
use pointsman_proto::v1;
use pointsman_router::clock::Timestamp;
use pointsman_router::ids::PolicyVersion;
use pointsman_router::money::NanoUsd;

use super::canary::canary_with_figures;
use super::policy::Policies;
use super::status::Refusal;
use crate::learning::{FallbackFigures, LiveFigures, ShadowFigures, SourceFigures};
use crate::store::ledger::{AuditEntry, PolicyAction};
use crate::wire::timestamp;

/// Entries of a history where the caller does not say, and at most.
const HISTORY: usize = 20;
const HISTORY_MAX: usize = 1_000;

impl Policies {
    /// The learning report.
    ///
    /// # Errors
    /// What the ledger met, and that the teacher is gone.
    pub(super) async fn report(&self, asked: v1::GetReportRequest) -> Result<v1::GetReportResponse, Refusal> {
        let report = self.learning.report().await?;
        let running = self.find(&report.roles.running, &report.roles).await?;
        let audit = self.ledger.audit_log(history(asked.audit_max)).await?;
        Ok(v1::GetReportResponse {
            running,
            live: Some(live(&report.live)),
            shadow: report.shadow.as_ref().map(shadow),
            canary: report.canary.as_ref().map(canary_with_figures),
            fallback: report.fallback.as_ref().map(fallback),
            drift_alerts: self.drift(&report.alerts, history(asked.drift_alerts_max)).await?,
            pacing: self.pacing().into_iter().collect(),
            retrain: Some(self.retraining.report().await?),
            audit: audit.into_iter().map(audit_entry).collect(),
            sources: report.sources.into_iter().map(source).collect(),
        })
    }

    /// The newest alerts with the times of the rows that rang them; a row that was pruned has none.
    async fn drift(&self, alerts: &[Alert], count: usize) -> Result<Vec<v1::DriftAlert>, Refusal> {
        let mut told = Vec::new();
        for found in alerts.iter().rev().take(count) {
            let at = match found.what {
                Watched::Quality => self.ledger.feedback_at(found.at_seq).await?,
                Watched::Cost | Watched::Latency => self.learning.seen_at(found.at_seq).await?,
            };
            told.push(alert(found, at));
        }
        Ok(told)
    }

    /// How the budget is paced; `None` where it is not.
    fn pacing(&self) -> Option<v1::PacingReport> {
        let paced = self.pacer.status()?;
        let budget = self.budget.status(self.clock.now());
        let window = paced.per_request.is_none();
        Some(v1::PacingReport {
            budget: budget.name,
            cost_weight_per_dollar: paced.cost_weight_per_usd,
            target_per_request_usd_nanos: paced.per_request.map(NanoUsd::nanos),
            window_budget_usd_nanos: budget.amount.filter(|_| window).map(NanoUsd::nanos),
            spent_usd_nanos: if window { budget.spent } else { paced.spent }.nanos(),
            requests: paced.requests,
            window_ends_at: budget.resets_at.filter(|_| window).map(timestamp),
        })
    }
}

fn alert(alert: &Alert, at: Option<Timestamp>) -> v1::DriftAlert {
    let quantity = match alert.what {
        Watched::Quality => v1::DriftQuantity::Quality,
        Watched::Cost => v1::DriftQuantity::Cost,
        Watched::Latency => v1::DriftQuantity::Latency,
    };
    let direction = match alert.direction {
        Direction::Up => v1::DriftDirection::Up,
        Direction::Down => v1::DriftDirection::Down,
    };
    v1::DriftAlert {
        model: alert.model.as_str().to_owned(),
        quantity: quantity.into(),
        direction: direction.into(),
        before: alert.before,
        after: alert.after,
        noticed_at: at.map(timestamp),
        heads_reset: false,
    }
}

fn fallback(figures: &FallbackFigures) -> v1::FallbackReport {
    v1::FallbackReport {
        active: figures.active,
        model: figures.model.as_ref().map(|model| model.as_str().to_owned()).unwrap_or_default(),
        difference: figures.difference.map(estimate),
        since: Some(timestamp(figures.since)),
    }
}

fn source(SourceFigures { source, labels, taught, departs }: SourceFigures) -> v1::SourceReport {
    v1::SourceReport { source, labels, taught, departs }
}

/// How many entries are asked for.
fn history(asked: u32) -> usize {
    match usize::try_from(asked) {
        Ok(0) => HISTORY,
        Ok(asked) => asked.min(HISTORY_MAX),
        Err(_) => HISTORY_MAX,
    }
}

fn live(figures: &LiveFigures) -> v1::LiveReport {
    v1::LiveReport {
        rows: figures.rows,
        judged_rows: figures.judged,
        value: figures.value.map(estimate),
        cost_usd_nanos: nanos(figures.cost_nanos),
        since: Some(timestamp(figures.since)),
    }
}

fn shadow(figures: &ShadowFigures) -> v1::ShadowReport {
    v1::ShadowReport {
        version: figures.trial.version.as_str().to_owned(),
        since: Some(timestamp(figures.trial.since)),
        rows: figures.rows,
        judged_rows: figures.judged,
        agreement_share: figures.agreement,
        effective_sample_size: figures.effective_sample_size,
        snips: figures.snips.map(estimate),
        doubly_robust: figures.doubly_robust.map(estimate),
        cost_usd_nanos: nanos(figures.cost_nanos),
    }
}

fn estimate(estimate: Estimate) -> v1::Estimate {
    let (lower, upper) = estimate.interval();
    let known = |end: f64| end.is_finite().then_some(end);
    v1::Estimate { value: estimate.value, lower: known(lower), upper: known(upper) }
}

#[expect(clippy::cast_possible_truncation, reason = "a mean of amounts that fit, rounded")]
fn nanos(mean: f64) -> i64 {
    mean.round() as i64
}

fn audit_entry(entry: AuditEntry) -> v1::PolicyAuditEntry {
    let action = match entry.action {
        PolicyAction::Trained => v1::PolicyAction::Trained,
        PolicyAction::Installed => v1::PolicyAction::Installed,
        PolicyAction::Promoted => v1::PolicyAction::Promoted,
        PolicyAction::CanaryStarted => v1::PolicyAction::CanaryStarted,
        PolicyAction::RolledBack => v1::PolicyAction::RolledBack,
        PolicyAction::ShadowSet => v1::PolicyAction::ShadowSet,
        PolicyAction::ShadowCleared => v1::PolicyAction::ShadowCleared,
        PolicyAction::FallbackBegan => v1::PolicyAction::FallbackBegan,
        PolicyAction::FallbackEnded => v1::PolicyAction::FallbackEnded,
        PolicyAction::Evaluated => v1::PolicyAction::Evaluated,
    };
    v1::PolicyAuditEntry {
        at: Some(timestamp(entry.at)),
        action: action.into(),
        actor: entry.actor,
        from_version: entry.from.map(|version| PolicyVersion::as_str(&version).to_owned()).unwrap_or_default(),
        to_version: entry.to.as_str().to_owned(),
        reason: entry.reason,
        forced: entry.forced,
        share: entry.share,
    }
}
