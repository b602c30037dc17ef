//! The report: who has which role and how those on trial do, as figures.

use pointsman_learner::drift::Alert;
use pointsman_learner::evaluate::canary::CanaryVerdict;
use pointsman_learner::evaluate::estimate::Estimate;
use pointsman_learner::online::Online;
use pointsman_learner::sources::Account;
use pointsman_router::clock::Timestamp;
use pointsman_router::ids::ModelName;

use super::standing_in::FallbackTally;
use super::tally::{CanaryTally, LiveTally, ShadowTally};
use super::trials::Tallies;
use crate::store::ledger::{CanaryLife, Lifecycle, Trial};

/// Who has which role, and how those on trial do.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The roles.
    pub roles: Lifecycle,
    /// What the running policy earns.
    pub live: LiveFigures,
    /// What the shadow would earn.
    pub shadow: Option<ShadowFigures>,
    /// The canary under way, or the last one.
    pub canary: Option<CanaryFigures>,
    /// How the running policy does against the best single model, where that may stand in.
    pub fallback: Option<FallbackFigures>,
    /// Models that changed, as the running policy's state noticed, oldest first.
    pub alerts: Vec<Alert>,
    /// Who gave labels that the running policy's state has heard, by name.
    pub sources: Vec<SourceFigures>,
}

/// How the running policy does against the best single model.
#[derive(Debug, Clone, PartialEq)]
pub struct FallbackFigures {
    /// Whether that model stands in.
    pub active: bool,
    /// The model that stands in, or the best of the moment.
    pub model: Option<ModelName>,
    /// The policy's utility less the model's.
    pub difference: Option<Estimate>,
    /// Since when it is as it is.
    pub since: Timestamp,
}

/// What one source of feedback said.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceFigures {
    /// The source.
    pub source: String,
    /// Its labels.
    pub labels: u64,
    /// What of them was taught.
    pub taught: f64,
    /// Whether it departs from the others.
    pub departs: bool,
}

/// What the running policy earns.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveFigures {
    /// Since when is counted.
    pub since: Timestamp,
    /// Its decisions.
    pub rows: u64,
    /// Those that were judged.
    pub judged: u64,
    /// Their mean score.
    pub value: Option<Estimate>,
    /// The mean cost of a decision, in nano-dollars.
    pub cost_nanos: f64,
}

/// What the shadow would earn.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowFigures {
    /// Which policy, since when.
    pub trial: Trial,
    /// Decisions that it made beside the running policy.
    pub rows: u64,
    /// Those that were judged.
    pub judged: u64,
    /// The share of the decisions whose first model it would have picked first.
    pub agreement: f64,
    /// As how many of its own the judged ones count.
    pub effective_sample_size: f64,
    /// Its value, self-normalised.
    pub snips: Option<Estimate>,
    /// Its value, doubly robust.
    pub doubly_robust: Option<Estimate>,
    /// Its expected cost of a decision, in nano-dollars.
    pub cost_nanos: f64,
}

/// How a canary does or did.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryFigures {
    /// The canary.
    pub life: CanaryLife,
    /// Judged decisions of the candidate, and their mean score.
    pub candidate: (u64, Option<f64>),
    /// Judged decisions of the incumbent, and their mean score.
    pub incumbent: (u64, Option<f64>),
    /// How much better the candidate is, with bounds that hold at every look.
    pub difference: Option<(f64, f64, f64)>,
    /// How often it was looked at.
    pub looks: u64,
    /// Whether it may be promoted.
    pub passed: bool,
}

impl Report {
    pub(super) fn of(roles: &Lifecycle, tallies: &Tallies, online: &Online, may_fall_back: bool) -> Self {
        let canary = roles.canary.as_ref().zip(tallies.canary.as_ref());
        Self {
            roles: roles.clone(),
            live: live(&tallies.live),
            shadow: tallies.shadow.as_ref().map(shadow),
            canary: canary.map(|(life, tally)| figures(life, tally)),
            fallback: tallies.fallback.as_ref().filter(|_| may_fall_back).map(|tally| fallback(roles, tally)),
            alerts: online.alerts().cloned().collect(),
            sources: online.sources().accounts().map(source).collect(),
        }
    }
}

fn fallback(roles: &Lifecycle, tally: &FallbackTally) -> FallbackFigures {
    let active = roles.stands_in.as_ref();
    let model = active.map(|stands_in| &stands_in.model).or_else(|| tally.sums.best()).cloned();
    FallbackFigures {
        active: active.is_some(),
        difference: model.as_ref().and_then(|model| tally.sums.difference(model)),
        model,
        since: tally.since,
    }
}

fn source((source, account): (&str, &Account)) -> SourceFigures {
    let Account { labels, taught, departs, .. } = *account;
    SourceFigures { source: source.to_owned(), labels, taught, departs }
}

fn live(tally: &LiveTally) -> LiveFigures {
    LiveFigures {
        since: tally.since,
        rows: tally.rows,
        judged: tally.scores.rows,
        value: tally.scores.estimate(),
        cost_nanos: tally.cost_nanos / tally.rows.max(1) as f64,
    }
}

fn shadow(tally: &ShadowTally) -> ShadowFigures {
    let rows = tally.rows.max(1) as f64;
    ShadowFigures {
        trial: tally.trial.clone(),
        rows: tally.rows,
        judged: tally.sums.rows(),
        agreement: (tally.agreed / rows).clamp(0.0, 1.0),
        effective_sample_size: tally.sums.effective_sample_size(),
        snips: tally.sums.snips(),
        doubly_robust: tally.sums.doubly_robust(),
        cost_nanos: tally.cost_nanos / rows,
    }
}

fn figures(life: &CanaryLife, tally: &CanaryTally) -> CanaryFigures {
    CanaryFigures {
        life: life.clone(),
        candidate: (tally.candidate_scores.rows, tally.candidate_scores.value()),
        incumbent: (tally.incumbent_scores.rows, tally.incumbent_scores.value()),
        difference: tally.difference(),
        looks: tally.looks,
        passed: matches!(tally.verdict(), CanaryVerdict::Passed { .. }),
    }
}
