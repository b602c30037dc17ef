//! The start of the teacher: who has which role, what they have learned, and what was counted.

use std::sync::Arc;

use pointsman_router::clock::{Clock, Timestamp};
use pointsman_router::policy::Policy as _;
use pointsman_router::rules::RulesPolicy;
use tokio::sync::{mpsc, watch};

use super::candidates::{Candidates, NoCandidates};
use super::class::Class;
use super::handle::Learning;
use super::published::Published;
use super::roles::{self, Changed, Configured, Wish};
use super::student::{Artifact, LearningError};
use super::teacher::{AIMED, Teacher, arms, bench, status_of};
use super::trials::Trials;
use crate::store::StoreError;
use crate::store::ledger::{LedgerStore, StateRole};
use crate::store::traces::TraceStore;

/// Requests to the teacher that wait, at most.
const ASKS_MAX: usize = 16;

/// What a teacher begins with.
#[derive(Debug)]
pub struct Opening {
    /// The bandit that begins from nothing.
    pub cold: Artifact,
    /// The rules, where there are any.
    pub rules: Option<RulesPolicy>,
    /// Whether the configuration asks for the rules to decide, and not for the bandit.
    pub rules_decide: bool,
    /// Policies that were trained or installed.
    pub candidates: Arc<dyn Candidates>,
    /// The share of the picks that the running policy gives to exploration.
    pub exploration: f64,
    /// Whether the best single model may stand in for a running policy that it beats.
    pub may_fall_back: bool,
}

impl Opening {
    /// The bandit that begins from nothing, and nobody else.
    #[must_use]
    pub fn of(cold: Artifact) -> Self {
        Self {
            cold,
            rules: None,
            rules_decide: false,
            candidates: Arc::new(NoCandidates),
            exploration: 0.0,
            may_fall_back: true,
        }
    }

    fn configured(&self) -> Configured {
        match self.rules.as_ref().filter(|_| self.rules_decide) {
            // Other rules are another wish.
            Some(rules) => Configured { key: rules.version().to_string(), version: rules.version().clone() },
            // The bandit is the bandit, whatever version of it this program has.
            None => Configured { key: "bandit".to_owned(), version: self.cold.version() },
        }
    }
}

impl Teacher {
    /// Loads what was saved, gives everybody the roles of before, learns what was committed since, and
    /// publishes it.
    ///
    /// # Errors
    /// [`LearningError`] when the saved state or a store cannot be read.
    pub async fn open(
        opening: Opening,
        (traces, ledger): (TraceStore, LedgerStore),
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Learning), LearningError> {
        let configured = opening.configured();
        let Opening { cold, rules, candidates, exploration, may_fall_back, .. } = opening;
        let mut class = Class::new(cold.student(&ledger, StateRole::Latest).await?, rules);
        let before = ledger.lifecycle().await?;
        let begun = roles::begin(before.as_ref(), &configured, clock.now());
        let changed = match (begun, before) {
            (Some(changed), _) => changed,
            (None, Some(roles)) => Changed { roles, entries: Vec::new() },
            (None, None) => return Err(StoreError::Corrupt { detail: "no policy has a role".to_owned() }.into()),
        };
        let changed = seat((&mut class, changed), &*candidates, (&configured, &ledger, &*clock)).await?;
        let changed = stand_down(changed, may_fall_back, clock.now());
        let roles = changed.roles.clone();
        let through = (ledger.feedback_through().await?, traces.last_seq().await?);
        let mut trials = Trials::load(&ledger, &roles, (clock.now(), through), exploration * AIMED).await?;
        // Trials are told of a row before anybody learns from it, here as later.
        let before = bench(&class, &roles, exploration, trials.aim());
        trials.catch_up((&traces, &ledger), &before, through).await?;
        class.catch_up((&traces, &ledger), through).await?;

        let bench = bench(&class, &roles, exploration, trials.aim());
        let published = Arc::new(Published::new(arms(&bench, &roles)));
        let (status, watched) = watch::channel(status_of(&class, &published));
        let (to_teacher, asks) = mpsc::channel(ASKS_MAX);
        let learning = Learning {
            published: Arc::clone(&published),
            status: watched,
            asks: to_teacher,
            candidates,
            traces: traces.clone(),
            ledger: ledger.clone(),
        };
        let online = class.online(&roles.running);
        let alerts_told = (online.version().clone(), online.alerts_total());
        let mut teacher = Self {
            class,
            roles,
            trials,
            bench,
            exploration,
            may_fall_back,
            published,
            status,
            asks,
            traces,
            ledger,
            clock,
            unsaved: true,
            alerts_told,
        };
        teacher.take(changed, None).await?;
        Ok((teacher, learning))
    }
}

/// Where the configuration wants no model to stand in, none does.
fn stand_down(changed: Changed, may_fall_back: bool, now: Timestamp) -> Changed {
    if may_fall_back || changed.roles.stands_in.is_none() {
        return changed;
    }
    let wish = Wish { actor: "config".into(), reason: "the configuration asks for it".to_owned(), forced: false };
    let ended = roles::stand_in(&changed.roles, None, &wish, now);
    Changed { roles: ended.roles, entries: [changed.entries, ended.entries].concat() }
}

/// Takes everybody in who has a role. Who cannot be loaded loses it, and somebody still decides.
async fn seat(
    (class, mut changed): (&mut Class, Changed),
    candidates: &dyn Candidates,
    (configured, ledger, clock): (&Configured, &LedgerStore, &dyn Clock),
) -> Result<Changed, LearningError> {
    let schema = class.cold().schema();
    for version in changed.roles.named().into_iter().cloned().collect::<Vec<_>>() {
        if class.has(&version) {
            continue;
        }
        match candidates.load(version.clone()).await {
            Ok(Some(artifact)) if artifact.basis.schema() == schema => {
                class.enrol(artifact.student(ledger, StateRole::Latest).await?);
                continue;
            }
            Ok(_) => tracing::error!(%version, "the artifact is gone or reads other features"),
            Err(error) => tracing::error!(%version, %error, "the artifact cannot be loaded"),
        }
        let lost = roles::lose(&changed.roles, &version, configured, clock.now());
        changed = Changed { roles: lost.roles, entries: [changed.entries, lost.entries].concat() };
    }
    Ok(changed)
}
