//! Changes of the roles: decided, written down, published, in this order and in one turn of the
//! teacher.
//!
//! Whoever joins is taken in first and its state is saved; it is then also its own base, for rows may
//! have gone while it did not learn. Whoever leaves is saved once more. Only then are the roles
//! written, in one transaction with the audit log, and only after that is anything published: whatever
//! cuts a change, the next start finds the old roles or the new ones, and a state for each.

use pointsman_learner::evaluate::canary::CanaryVerdict;
use pointsman_learner::evaluate::fallback::Turn;
use pointsman_router::ids::{ModelName, PolicyVersion};

use super::asks::{Change, ChangeError, What};
use super::roles::{self, Changed, Moment, Wish};
use super::student::Student;
use super::teacher::Teacher;
use crate::store::StoreError;
use crate::store::ledger::{AuditEntry, CanaryEnd, Lifecycle, StateRole};

impl Teacher {
    /// Changes the roles as asked.
    ///
    /// # Errors
    /// [`ChangeError`]; then everything is as it was.
    pub(super) async fn apply(&mut self, change: Change) -> Result<Lifecycle, ChangeError> {
        let joined = self.join(change.student).await?;
        let result = self.try_apply(&change.what, &change.wish, joined.as_ref()).await;
        // Whoever joined for nothing, or has no role any more, leaves.
        self.class.dismiss_all_but(&self.roles.named());
        result.map(|()| self.roles.clone())
    }

    async fn try_apply(
        &mut self,
        what: &What,
        wish: &Wish,
        joined: Option<&PolicyVersion>,
    ) -> Result<(), ChangeError> {
        let version = match what {
            What::Promote(promotion) => Some(&promotion.version),
            What::Shadow(version) => version.as_ref(),
            What::RollBack => None,
        };
        if let Some(version) = version.filter(|version| !self.class.has(version)) {
            return Err(ChangeError::Unknown { version: version.clone() });
        }
        let moment = self.moment().await?;
        let changed = match what {
            What::Promote(promotion) => roles::promote(&self.roles, promotion, wish, moment)?,
            What::RollBack => roles::roll_back(&self.roles, wish, moment.now, CanaryEnd::Stopped)?,
            What::Shadow(version) => roles::set_shadow(&self.roles, version.as_ref(), wish, moment)?,
        };
        Ok(self.take(changed, joined).await?)
    }

    /// Takes a student in, with all that the others know.
    async fn join(&mut self, student: Option<Box<Student>>) -> Result<Option<PolicyVersion>, StoreError> {
        let Some(mut student) = student else { return Ok(None) };
        let known = self.class.cold().online();
        let through = (known.feedback_mark(), known.trace_mark());
        student.catch_up(&self.traces, &self.ledger, through).await?;
        let version = student.version().clone();
        self.class.enrol(*student);
        Ok(Some(version))
    }

    /// Makes new roles durable, then lets requests feel them.
    ///
    /// # Errors
    /// What a store met; then the old roles stand.
    pub(super) async fn take(
        &mut self,
        changed: Changed,
        joined: Option<&PolicyVersion>,
    ) -> Result<(), StoreError> {
        let Changed { roles, entries } = changed;
        if entries.is_empty() {
            return Ok(());
        }
        self.traces.sync().await?;
        let now = self.clock.now();
        let mut states = self.class.states(StateRole::Latest, now);
        states.extend(joined.and_then(|version| self.class.state(version, StateRole::Base, now)));
        self.ledger.save_states(states).await?;
        let kinds = roles.named().into_iter().filter_map(|v| Some((v.clone(), self.class.kind(v)?))).collect();
        self.ledger.change_policies(roles.clone(), entries.clone(), kinds).await?;
        self.roles = roles;
        self.class.dismiss_all_but(&self.roles.named());
        self.trials.follow(&self.roles);
        self.publish();
        // The change stands; counts that are not saved now are saved with the next states.
        if let Err(error) = self.ledger.save_trials(self.trials.body()?).await {
            tracing::warn!(%error, "what was counted could not be saved");
        }
        entries.iter().for_each(log);
        Ok(())
    }

    /// Rolls a canary back that is shown to be worse.
    pub(super) async fn watch_canary(&mut self) {
        let Some(CanaryVerdict::RollBack { difference, upper, judged }) = self.trials.verdict(&self.roles) else {
            return;
        };
        let reason = format!(
            "it is worse by {:.4}, by at least {:.4} at every look, after {judged} judged decisions",
            -difference, -upper
        );
        tracing::warn!(difference, upper, judged, "the canary is worse, it is rolled back");
        let wish = Wish { actor: "canary".into(), reason, forced: false };
        let Ok(changed) = roles::roll_back(&self.roles, &wish, self.clock.now(), CanaryEnd::RolledBack) else {
            return;
        };
        // The canary goes on until the ledger takes the change: the next verdict tries again.
        if let Err(error) = self.take(changed, None).await {
            tracing::error!(%error, "the canary could not be rolled back, the next feedback tries again");
        }
    }

    /// Lets the best single model stand in for the running policy, or the policy decide again.
    pub(super) async fn watch_fallback(&mut self) {
        let stands_in = self.roles.stands_in.as_ref().map(|stands_in| stands_in.model.clone());
        let tally = self.trials.tallies().fallback.as_ref();
        let tally = tally.filter(|_| self.may_fall_back);
        let Some((tally, turn)) = tally.and_then(|tally| Some((tally, tally.sums.turn(stands_in.as_ref())?)))
        else {
            return;
        };
        let model = match turn {
            Turn::Begin(model) => Some(model),
            Turn::End => None,
        };
        let about = model.as_ref().or(stands_in.as_ref());
        let difference = about.and_then(|model| Some((model, tally.sums.difference(model)?.value)));
        let say =
            |(model, gain): (&ModelName, f64)| format!("the policy is worth {gain:+.4} beside `{model}` alone");
        let reason = difference.map(say).unwrap_or_default();
        let wish = Wish { actor: "fallback".into(), reason, forced: false };
        let changed = roles::stand_in(&self.roles, model, &wish, self.clock.now());
        // It stays as it is until the ledger takes the change: the next feedback tries again.
        if let Err(error) = self.take(changed, None).await {
            tracing::error!(%error, "whether a model stands in could not be written, the next feedback tries again");
        }
    }

    /// The moment, as far as roles keep it.
    async fn moment(&self) -> Result<Moment, StoreError> {
        let known = self.class.cold().online();
        let stats = self.ledger.feedback_stats().await?;
        let merged = stats.iter().filter(|stat| stat.model.is_none());
        let (judged, sum) = merged.fold((0, 0.0), |(n, sum), stat| (n + stat.judged, sum + stat.score_sum));
        Ok(Moment {
            now: self.clock.now(),
            marks: (known.feedback_mark(), known.trace_mark()),
            expected: if judged > 0 { (sum / judged as f64).clamp(0.0, 1.0) } else { UNKNOWN_SCORE },
            canary_passed: matches!(self.trials.verdict(&self.roles), Some(CanaryVerdict::Passed { .. })),
        })
    }
}

/// About what an answer scores where nothing was judged yet.
const UNKNOWN_SCORE: f64 = 0.5;

/// One line of the log for each entry of the audit log.
pub(super) fn log(entry: &AuditEntry) {
    let AuditEntry { action, actor, from, to, share, forced, reason, .. } = entry;
    let from = from.as_ref().map_or("", PolicyVersion::as_str);
    tracing::info!(
        action = action.as_str(),
        actor,
        from,
        to = to.as_str(),
        share,
        forced,
        reason,
        "policy changed"
    );
}

#[cfg(test)]
pub(super) mod tests;
