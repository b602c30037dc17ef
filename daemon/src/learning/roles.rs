//! The roles of the policies, and what changes them: pure, so that every change is known before
//! anything of it is written.

use std::borrow::Cow;

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::{ModelName, PolicyVersion};

use crate::store::ledger::{AuditEntry, CanaryEnd, CanaryLife, Lifecycle, PolicyAction, StandIn, Trial};

/// Why the roles stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The policy is the running one.
    #[error("`{version}` is the running policy already")]
    AlreadyRunning {
        /// The policy.
        version: PolicyVersion,
    },
    /// A canary of another policy is under way.
    #[error("a canary of `{version}` is under way, promote it or roll it back first")]
    CanaryRunning {
        /// Its candidate.
        version: PolicyVersion,
    },
    /// There is nothing to return to.
    #[error("no canary is under way and no policy ran before `{running}`, so there is nothing to return to")]
    NoPredecessor {
        /// The running policy.
        running: PolicyVersion,
    },
    /// Nobody knows what the candidate is worth.
    #[error(
        "`{version}` has no evaluation against the running policy `{running}`, evaluate it first or use force"
    )]
    Unevaluated {
        /// The candidate.
        version: PolicyVersion,
        /// The running policy.
        running: PolicyVersion,
    },
    /// The evaluation does not carry the promotion.
    #[error(
        "`{version}` does not pass the gate ({}): begin a canary with a share, evaluate it on more feedback, or use force",
        failed.join(", ")
    )]
    GateFailed {
        /// The candidate.
        version: PolicyVersion,
        /// The conditions that do not hold.
        failed: Vec<String>,
    },
}

/// What is known of a candidate's worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The policy that it was compared with.
    pub incumbent: PolicyVersion,
    /// The conditions of the gate that do not hold; none: it passes.
    pub failed: Vec<String>,
}

/// Who wants a change and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The id of the caller's key, or the part of the daemon.
    pub actor: Cow<'static, str>,
    /// Why, for people.
    pub reason: String,
    /// Whether a person takes the responsibility for what the gate does not carry.
    pub forced: bool,
}

/// What a promotion asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Promotion {
    /// The candidate.
    pub version: PolicyVersion,
    /// The share of the requests, in (0, 1].
    pub share: f64,
    /// What is known of its worth.
    pub standing: Option<Standing>,
}

/// The moment of a change, as far as the roles keep it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moment {
    /// The time.
    pub(super) now: Timestamp,
    /// Sequences of the last feedback and the last trace.
    pub(super) marks: (u64, u64),
    /// About what an answer scores.
    pub(super) expected: f64,
    /// Whether the canary under way has shown, or was watched long enough, that it may take over.
    pub(super) canary_passed: bool,
}

/// New roles, and why.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Changed {
    pub(super) roles: Lifecycle,
    pub(super) entries: Vec<AuditEntry>,
}

/// The policy that the configuration asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configured {
    /// What the configuration says, as long as it says the same.
    pub(super) key: String,
    /// What that comes to.
    pub(super) version: PolicyVersion,
}

/// The roles at a start. What was promoted stays until the configuration asks for something else than
/// it did then. `None`: the roles stay as they were.
pub(super) fn begin(roles: Option<&Lifecycle>, configured: &Configured, now: Timestamp) -> Option<Changed> {
    let is_kept = |roles: &&Lifecycle| {
        roles.configured == configured.key && (!roles.by_config || roles.running == configured.version)
    };
    if roles.filter(is_kept).is_some() {
        return None;
    }
    let from = roles.map(|roles| roles.running.clone());
    let running = configured.version.clone();
    let mut canary = roles.and_then(|roles| roles.canary.clone());
    end(&mut canary, now, CanaryEnd::Stopped);
    let entry = AuditEntry {
        at: now,
        action: PolicyAction::Promoted,
        actor: "config".to_owned(),
        from: from.clone(),
        to: running.clone(),
        share: None,
        forced: false,
        reason: "the configuration asks for it".to_owned(),
    };
    let roles = Lifecycle {
        configured: configured.key.clone(),
        by_config: true,
        predecessor: from.filter(|version| *version != running),
        shadow: roles.and_then(|roles| roles.shadow.clone()).filter(|shadow| shadow.version != running),
        running,
        running_since: now,
        canary,
        stands_in: None,
    };
    Some(Changed { roles, entries: vec![entry] })
}

/// Takes every role from a policy that can decide no more.
pub(super) fn lose(roles: &Lifecycle, lost: &PolicyVersion, configured: &Configured, now: Timestamp) -> Changed {
    let wish = Wish { actor: "start".into(), reason: "it cannot be loaded".to_owned(), forced: false };
    let mut next = roles.clone();
    let mut entries = Vec::new();
    if roles.shadow.as_ref().is_some_and(|shadow| shadow.version == *lost) {
        next.shadow = None;
        entries.push(entry(&wish, now, PolicyAction::ShadowCleared, (None, lost), None));
    }
    let canary = roles.open_canary().filter(|canary| canary.trial.version == *lost || roles.running == *lost);
    if let Some(canary) = canary {
        let arms = (Some(&canary.trial.version), &roles.running);
        entries.push(entry(&wish, now, PolicyAction::RolledBack, arms, Some(canary.share)));
        end(&mut next.canary, now, CanaryEnd::Stopped);
    }
    if roles.running == *lost {
        next.running = configured.version.clone();
        next.running_since = now;
        next.by_config = true;
        next.stands_in = None;
        entries.push(entry(&wish, now, PolicyAction::RolledBack, (Some(lost), &configured.version), None));
    }
    next.predecessor = next.predecessor.filter(|version| *version != *lost && *version != next.running);
    next.shadow = next.shadow.filter(|shadow| shadow.version != next.running);
    Changed { roles: next, entries }
}

/// Lets a candidate decide, for all requests or for a share of them.
pub(super) fn promote(
    roles: &Lifecycle,
    asked: &Promotion,
    wish: &Wish,
    moment: Moment,
) -> Result<Changed, Refused> {
    let Promotion { version, share, standing } = asked;
    let version = version.clone();
    if version == roles.running {
        return Err(Refused::AlreadyRunning { version });
    }
    let open = roles.open_canary();
    if let Some(other) = open.filter(|canary| canary.trial.version != version) {
        return Err(Refused::CanaryRunning { version: other.trial.version.clone() });
    }
    let has_passed = open.is_some() && moment.canary_passed;
    if !wish.forced && !has_passed {
        let standing = standing.as_ref().filter(|standing| standing.incumbent == roles.running);
        let Some(standing) = standing else {
            return Err(Refused::Unevaluated { version, running: roles.running.clone() });
        };
        if *share >= 1.0 && !standing.failed.is_empty() {
            return Err(Refused::GateFailed { version, failed: standing.failed.clone() });
        }
    }
    let mut next = roles.clone();
    next.shadow = next.shadow.filter(|shadow| shadow.version != version);
    if *share < 1.0 {
        let entry = entry(wish, moment.now, PolicyAction::CanaryStarted, (None, &version), Some(*share));
        let trial = Trial { version, since: moment.now, marks: moment.marks };
        let (incumbent, expected) = (roles.running.clone(), moment.expected);
        next.canary = Some(CanaryLife { trial, incumbent, share: *share, expected, ended: None });
        return Ok(Changed { roles: next, entries: vec![entry] });
    }
    let entry = entry(wish, moment.now, PolicyAction::Promoted, (Some(&roles.running), &version), Some(1.0));
    end(&mut next.canary, moment.now, CanaryEnd::Promoted);
    next.predecessor = Some(std::mem::replace(&mut next.running, version));
    next.running_since = moment.now;
    next.stands_in = None;
    next.by_config = false;
    Ok(Changed { roles: next, entries: vec![entry] })
}

/// Ends the canary in this way, or lets the predecessor decide again.
pub(super) fn roll_back(
    roles: &Lifecycle,
    wish: &Wish,
    now: Timestamp,
    canary_end: CanaryEnd,
) -> Result<Changed, Refused> {
    let mut next = roles.clone();
    let action = PolicyAction::RolledBack;
    if let Some(canary) = roles.open_canary() {
        let entry = entry(wish, now, action, (Some(&canary.trial.version), &roles.running), Some(canary.share));
        end(&mut next.canary, now, canary_end);
        return Ok(Changed { roles: next, entries: vec![entry] });
    }
    let Some(predecessor) = next.predecessor.take() else {
        return Err(Refused::NoPredecessor { running: roles.running.clone() });
    };
    let entry = entry(wish, now, action, (Some(&roles.running), &predecessor), None);
    next.shadow = next.shadow.filter(|shadow| shadow.version != predecessor);
    next.running = predecessor;
    next.running_since = now;
    next.stands_in = None;
    // Whatever the configuration asks for: a person said that this one decides.
    next.by_config = false;
    Ok(Changed { roles: next, entries: vec![entry] })
}

/// Lets a policy, or nobody, decide beside the running one. One that does already goes on.
pub(super) fn set_shadow(
    roles: &Lifecycle,
    version: Option<&PolicyVersion>,
    wish: &Wish,
    moment: Moment,
) -> Result<Changed, Refused> {
    if version == Some(&roles.running) {
        return Err(Refused::AlreadyRunning { version: roles.running.clone() });
    }
    let before = roles.shadow.as_ref().map(|trial| &trial.version);
    if before == version {
        return Ok(Changed { roles: roles.clone(), entries: Vec::new() });
    }
    let cleared = before.map(|before| entry(wish, moment.now, PolicyAction::ShadowCleared, (None, before), None));
    let set = version.map(|version| entry(wish, moment.now, PolicyAction::ShadowSet, (None, version), None));
    let trial =
        |version: &PolicyVersion| Trial { version: version.clone(), since: moment.now, marks: moment.marks };
    let roles = Lifecycle { shadow: version.map(trial), ..roles.clone() };
    Ok(Changed { roles, entries: [cleared, set].into_iter().flatten().collect() })
}

/// Lets this model, or nobody, stand in for the running policy.
pub(super) fn stand_in(roles: &Lifecycle, model: Option<ModelName>, wish: &Wish, now: Timestamp) -> Changed {
    let action = if model.is_some() { PolicyAction::FallbackBegan } else { PolicyAction::FallbackEnded };
    let entry = entry(wish, now, action, (None, &roles.running), None);
    let roles = Lifecycle { stands_in: model.map(|model| StandIn { model, since: now }), ..roles.clone() };
    Changed { roles, entries: vec![entry] }
}

fn end(canary: &mut Option<CanaryLife>, now: Timestamp, how: CanaryEnd) {
    if let Some(canary) = canary.as_mut().filter(|canary| canary.ended.is_none()) {
        canary.ended = Some((now, how));
    }
}

fn entry(
    wish: &Wish,
    at: Timestamp,
    action: PolicyAction,
    (from, to): (Option<&PolicyVersion>, &PolicyVersion),
    share: Option<f64>,
) -> AuditEntry {
    let Wish { actor, reason, forced } = wish;
    let (actor, reason) = (actor.clone().into_owned(), reason.clone());
    AuditEntry { at, action, actor, from: from.cloned(), to: to.clone(), share, forced: *forced, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn moment(micros: i64) -> Moment {
        Moment { now: at(micros), marks: (3, 4), expected: 0.5, canary_passed: false }
    }

    fn wish(forced: bool) -> Wish {
        Wish { actor: "caller".into(), reason: String::new(), forced }
    }

    fn configured(key: &str, version: &str) -> Configured {
        Configured { key: key.to_owned(), version: version.into() }
    }

    fn roles() -> Lifecycle {
        begin(None, &configured("bandit", "a"), at(1)).unwrap().roles
    }

    fn asked(version: &str, share: f64, standing: Option<(&str, &[&str])>) -> Promotion {
        let standing = standing.map(|(incumbent, failed)| Standing {
            incumbent: incumbent.into(),
            failed: failed.iter().map(|name| (*name).to_owned()).collect(),
        });
        Promotion { version: version.into(), share, standing }
    }

    #[test]
    fn the_gate_wants_an_evaluation_against_the_running_policy_that_passes() {
        let roles = roles();
        let refused = |asked: &Promotion| promote(&roles, asked, &wish(false), moment(2)).unwrap_err();
        let none = Refused::Unevaluated { version: "b".into(), running: "a".into() };
        assert_eq!(refused(&asked("b", 1.0, None)), none);
        assert_eq!(refused(&asked("b", 0.1, None)), none);
        assert_eq!(refused(&asked("b", 1.0, Some(("other", &[])))), none);
        let failed = Refused::GateFailed { version: "b".into(), failed: vec!["SUPPORTED".to_owned()] };
        assert_eq!(refused(&asked("b", 1.0, Some(("a", &["SUPPORTED"])))), failed);
        assert_eq!(refused(&asked("a", 1.0, None)), Refused::AlreadyRunning { version: "a".into() });
        // A canary makes the figures that the gate lacks; a person may take the responsibility.
        for (asked, forced) in [
            (asked("b", 0.1, Some(("a", &["SUPPORTED"]))), false),
            (asked("b", 1.0, Some(("a", &[]))), false),
            (asked("b", 1.0, None), true),
        ] {
            assert!(promote(&roles, &asked, &wish(forced), moment(2)).is_ok(), "{asked:?}");
        }
    }

    #[test]
    fn promoted_rolled_back_and_back_again() {
        let one = promote(&roles(), &asked("b", 1.0, Some(("a", &[]))), &wish(false), moment(2)).unwrap();
        assert_eq!((one.roles.running.as_str(), one.roles.predecessor.as_ref()), ("b", Some(&"a".into())));
        assert_eq!((one.entries[0].from.clone(), one.entries[0].share), (Some("a".into()), Some(1.0)));
        let back = roll_back(&one.roles, &wish(false), at(3), CanaryEnd::Stopped).unwrap();
        assert_eq!((back.roles.running.as_str(), back.roles.predecessor), ("a", None));
        let refused = roll_back(&roles(), &wish(false), at(3), CanaryEnd::Stopped);
        assert_eq!(refused, Err(Refused::NoPredecessor { running: "a".into() }));
    }

    #[test]
    fn a_canary_changes_its_share_ends_in_success_or_ends_first() {
        let begun =
            promote(&roles(), &asked("b", 0.1, Some(("a", &["X"]))), &wish(false), moment(2)).unwrap().roles;
        assert_eq!((begun.running.as_str(), begun.open_canary().unwrap().share), ("a", 0.1));
        let other = promote(&begun, &asked("c", 1.0, Some(("a", &[]))), &wish(true), moment(3));
        assert_eq!(other, Err(Refused::CanaryRunning { version: "b".into() }));
        let wider = promote(&begun, &asked("b", 0.3, Some(("a", &[]))), &wish(false), moment(3)).unwrap().roles;
        assert_eq!(wider.open_canary().unwrap().share.to_bits(), 0.3_f64.to_bits());
        let passed = Moment { canary_passed: true, ..moment(4) };
        let done = promote(&begun, &asked("b", 1.0, None), &wish(false), passed).unwrap().roles;
        assert_eq!((done.running.as_str(), done.canary.unwrap().ended), ("b", Some((at(4), CanaryEnd::Promoted))));
        let back = roll_back(&begun, &wish(false), at(5), CanaryEnd::RolledBack).unwrap().roles;
        assert_eq!((back.running.as_str(), back.open_canary()), ("a", None));
        assert_eq!(back.named(), [&PolicyVersion::new("a")]);
    }

    #[test]
    fn there_is_at_most_one_shadow_and_it_is_never_the_running_policy() {
        let b = PolicyVersion::new("b");
        let set = set_shadow(&roles(), Some(&b), &wish(false), moment(2)).unwrap().roles;
        assert_eq!(set.named(), [&PolicyVersion::new("a"), &b]);
        let again = set_shadow(&set, Some(&b), &wish(false), moment(3)).unwrap();
        assert_eq!((again.roles.shadow.as_ref().unwrap().since, again.entries.len()), (at(2), 0));
        let other = set_shadow(&set, Some(&"c".into()), &wish(false), moment(3)).unwrap();
        let done: Vec<_> = other.entries.iter().map(|e| (e.action, e.to.as_str())).collect();
        assert_eq!(done, [(PolicyAction::ShadowCleared, "b"), (PolicyAction::ShadowSet, "c")]);
        let refused = set_shadow(&set, Some(&"a".into()), &wish(false), moment(3));
        assert_eq!(refused, Err(Refused::AlreadyRunning { version: "a".into() }));
        let promoted = promote(&set, &asked("b", 1.0, None), &wish(true), moment(4)).unwrap().roles;
        assert_eq!(promoted.shadow, None);
    }

    #[test]
    fn who_cannot_be_loaded_loses_every_role_and_somebody_still_runs() {
        let b = promote(&roles(), &asked("b", 1.0, None), &wish(true), moment(2)).unwrap().roles;
        let b = promote(&b, &asked("c", 0.5, None), &wish(true), moment(3)).unwrap().roles;
        let configured = configured("bandit", "a");
        let lost = lose(&b, &"b".into(), &configured, at(4));
        assert_eq!((lost.roles.named(), lost.roles.by_config), (vec![&PolicyVersion::new("a")], true));
        assert_eq!(lost.entries.len(), 2);
        let lost = lose(&b, &"c".into(), &configured, at(4)).roles;
        assert_eq!(lost.named(), [&PolicyVersion::new("b"), &PolicyVersion::new("a")]);
        let lost = lose(&b, &"a".into(), &configured, at(4));
        assert_eq!((lost.roles.predecessor, lost.entries.len()), (None, 0));
    }

    #[test]
    fn what_was_promoted_stays_until_the_configuration_asks_for_something_else() {
        let b = promote(&roles(), &asked("b", 1.0, None), &wish(true), moment(2)).unwrap().roles;
        assert_eq!(begin(Some(&b), &configured("bandit", "a"), at(3)), None);
        // A daemon whose bandit has another version begins with that one only where nothing was promoted.
        assert_eq!(begin(Some(&b), &configured("bandit", "a2"), at(3)), None);
        assert_eq!(
            begin(Some(&roles()), &configured("bandit", "a2"), at(3)).unwrap().roles.running.as_str(),
            "a2"
        );
        let rules = begin(Some(&b), &configured("rules-1", "rules-1"), at(3)).unwrap();
        assert_eq!((rules.roles.running.as_str(), rules.roles.predecessor), ("rules-1", Some("b".into())));
        assert_eq!(rules.entries[0].actor, "config");
    }
}
