//! A canary as the wire has it, with and without its figures.

use pointsman_proto::v1;

use crate::learning::CanaryFigures;
use crate::store::ledger::{CanaryEnd, CanaryLife};
use crate::wire::timestamp;

/// A canary as the wire has it, without its figures.
pub(super) fn canary_to_wire(canary: &CanaryLife) -> v1::Canary {
    let verdict = match canary.ended {
        None => v1::CanaryVerdict::Undecided,
        Some((_, CanaryEnd::RolledBack)) => v1::CanaryVerdict::RolledBack,
        Some((_, CanaryEnd::Promoted)) => v1::CanaryVerdict::Promoted,
        Some((_, CanaryEnd::Stopped)) => v1::CanaryVerdict::Stopped,
    };
    v1::Canary {
        version: canary.trial.version.as_str().to_owned(),
        incumbent_version: canary.incumbent.as_str().to_owned(),
        share: canary.share,
        started_at: Some(timestamp(canary.trial.since)),
        ended_at: canary.ended.map(|(at, _)| timestamp(at)),
        verdict: verdict.into(),
        ..v1::Canary::default()
    }
}

/// A canary with its figures.
pub(super) fn canary_with_figures(figures: &CanaryFigures) -> v1::Canary {
    let mut wire = canary_to_wire(&figures.life);
    (wire.candidate_rows, wire.candidate_mean) = figures.candidate;
    (wire.incumbent_rows, wire.incumbent_mean) = figures.incumbent;
    wire.looks = figures.looks;
    wire.difference = figures.difference.map(|(value, lower, upper)| v1::Estimate {
        value,
        lower: Some(lower),
        upper: Some(upper),
    });
    if figures.life.ended.is_none() && figures.passed {
        wire.verdict = v1::CanaryVerdict::Passed.into();
    }
    wire
}
