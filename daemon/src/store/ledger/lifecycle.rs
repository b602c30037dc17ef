//! Who decides, who decided before and who is on trial; and the audit log of all that was done to
//! policies.
//!
//! The roles are one row that is written as one, together with the entry that says why, so whatever cuts
//! a change leaves the old roles or the new ones. `policies.state` says the same again, for lists. The
//! audit log is only ever added to: the file itself refuses everything else.

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::{ModelName, PolicyVersion};
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::chain::chain;
use super::{LedgerStore, PolicyRunState, kept};
use crate::audit::{By, Entry};
use crate::store::{StoreError, unreadable};

/// The roles of the policies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// What the configuration asked for when the roles were given.
    pub configured: String,
    /// Whether the running policy is the one that the configuration asks for, and none that was promoted.
    pub by_config: bool,
    /// The policy that decides.
    pub running: PolicyVersion,
    /// Since when.
    pub running_since: Timestamp,
    /// The policy that decided before, to which a rollback returns.
    pub predecessor: Option<PolicyVersion>,
    /// The policy that decides beside it.
    pub shadow: Option<Trial>,
    /// The canary that is under way, or the last one.
    pub canary: Option<CanaryLife>,
    /// The model that stands in for the running policy.
    #[serde(default)]
    pub stands_in: Option<StandIn>,
}

/// The best single model, where it stands in for the running policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StandIn {
    /// The model.
    pub model: ModelName,
    /// Since when.
    pub since: Timestamp,
}

/// Since when a policy is on trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The policy.
    pub version: PolicyVersion,
    /// When it began.
    pub since: Timestamp,
    /// Sequences of the last feedback and the last trace before it.
    pub marks: (u64, u64),
}

/// A canary, from its begin to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryLife {
    /// The candidate.
    pub trial: Trial,
    /// The policy that it is compared with.
    pub incumbent: PolicyVersion,
    /// The share of the requests that the candidate decides.
    pub share: f64,
    /// About what an answer scored before it began.
    pub expected: f64,
    /// When and how it ended; `None`: it is under way.
    pub ended: Option<(Timestamp, CanaryEnd)>,
}

/// How a canary ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryEnd {
    /// By itself, because the candidate is worse.
    RolledBack,
    /// The candidate took over.
    Promoted,
    /// A person, or the configuration, ended it.
    Stopped,
}

impl Lifecycle {
    /// The canary that is under way.
    #[must_use]
    pub fn open_canary(&self) -> Option<&CanaryLife> {
        self.canary.as_ref().filter(|canary| canary.ended.is_none())
    }

    /// Every policy that has a role, the running one first.
    #[must_use]
    pub fn named(&self) -> Vec<&PolicyVersion> {
        let shadow = self.shadow.as_ref().map(|trial| &trial.version);
        let canary = self.open_canary().map(|canary| &canary.trial.version);
        [Some(&self.running), self.predecessor.as_ref(), shadow, canary].into_iter().flatten().collect()
    }
}

/// What was done to a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyAction {
    /// Trained here.
    Trained,
    /// Trained elsewhere and taken in.
    Installed,
    /// Promoted for all requests.
    Promoted,
    /// Promoted for a share of the requests, or the share changed.
    CanaryStarted,
    /// Rolled back: the policy before runs again, or the canary has ended.
    RolledBack,
    /// Made the shadow.
    ShadowSet,
    /// No longer the shadow.
    ShadowCleared,
    /// The best single model stands in for it.
    FallbackBegan,
    /// It no longer does.
    FallbackEnded,
    /// Evaluated.
    Evaluated,
}

impl PolicyAction {
    const WORDS: [(Self, &'static str); 10] = [
        (Self::Trained, "trained"),
        (Self::Installed, "installed"),
        (Self::Promoted, "promoted"),
        (Self::CanaryStarted, "canary_started"),
        (Self::RolledBack, "rolled_back"),
        (Self::ShadowSet, "shadow_set"),
        (Self::ShadowCleared, "shadow_cleared"),
        (Self::FallbackBegan, "fallback_began"),
        (Self::FallbackEnded, "fallback_ended"),
        (Self::Evaluated, "evaluated"),
    ];

    /// The word for it in logs and in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(action, _)| *action == self).map_or("", |(_, word)| word)
    }

    fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(action, _)| *action)
    }
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// What was done.
    pub action: PolicyAction,
    /// Who did it: the id of a key, `keyless`, or the part of the daemon.
    pub actor: String,
    /// The policy that decided before; `None`: the action does not change who decides.
    pub from: Option<PolicyVersion>,
    /// The policy that it is about.
    pub to: PolicyVersion,
    /// The share of the requests.
    pub share: Option<f64>,
    /// Whether the gate was overridden.
    pub forced: bool,
    /// Why, for people.
    pub reason: String,
}

impl AuditEntry {
    /// Something was done to a policy that changes nobody's role.
    #[must_use]
    pub fn about(
        action: PolicyAction,
        version: &PolicyVersion,
        (actor, at): (&str, Timestamp),
        reason: String,
    ) -> Self {
        let (actor, to) = (actor.to_owned(), version.clone());
        Self { at, action, actor, from: None, to, share: None, forced: false, reason }
    }
}

impl LedgerStore {
    /// The roles of the policies; `None` before they were ever given.
    ///
    /// # Errors
    /// What the store met.
    pub async fn lifecycle(&self) -> Result<Option<Lifecycle>, StoreError> {
        self.readers
            .read(|conn| {
                let read = |row: &Row<'_>| {
                    serde_json::from_str(row.get_ref(0)?.as_str()?).map_err(|error| unreadable(0, error))
                };
                conn.query_row("SELECT body FROM lifecycle", (), read).optional()
            })
            .await
    }

    /// Gives the policies these roles and writes down why, all or nothing. `kinds` names the kind of each
    /// policy that may not be known yet.
    ///
    /// # Errors
    /// What the store met: then all is as it was.
    pub async fn change_policies(
        &self,
        roles: Lifecycle,
        entries: Vec<AuditEntry>,
        kinds: Vec<(PolicyVersion, &'static str)>,
    ) -> Result<(), StoreError> {
        let body = serde_json::to_string(&roles).map_err(|error| StoreError::Io { detail: error.to_string() })?;
        self.writer
            .run(move |tx| {
                entries.iter().try_for_each(|entry| append(tx, entry))?;
                tx.execute("INSERT OR REPLACE INTO lifecycle (one, body) VALUES (1, ?1)", [body])?;
                let now = roles.running_since.micros();
                for (version, kind) in kinds {
                    tx.execute(
                        "INSERT INTO policies (version, kind, state, created_at_micros, settings)
                         VALUES (?1, ?2, 'candidate', ?3, '{}') ON CONFLICT (version) DO NOTHING",
                        params![version.as_str(), kind, now],
                    )?;
                }
                mark(tx, &roles)
            })
            .await
    }

    /// Adds an entry to the audit log.
    ///
    /// # Errors
    /// What the store met: then it was not added.
    pub async fn audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.writer.run(move |tx| append(tx, &entry)).await
    }

    /// The newest entries of the audit log, newest first.
    ///
    /// # Errors
    /// What the store met.
    pub async fn audit_log(&self, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.readers
            .read(move |conn| {
                conn.prepare_cached(
                    "SELECT at_micros, action, actor, from_version, to_version, share, forced, reason FROM audit
                     ORDER BY seq DESC LIMIT ?1",
                )?
                .query_map([kept(limit as u64)], audit_entry)?
                .collect()
            })
            .await
    }

    /// Keeps what trials have counted, in place of what was kept before.
    ///
    /// # Errors
    /// What the store met: then what was kept before stays.
    pub async fn save_trials(&self, body: String) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO trials (one, body) VALUES (1, ?1)";
        self.writer.run(move |tx| tx.execute(sql, [body]).map(|_| ())).await
    }

    /// What trials have counted, where something was kept.
    ///
    /// # Errors
    /// What the store met.
    pub async fn load_trials(&self) -> Result<Option<String>, StoreError> {
        let sql = "SELECT body FROM trials";
        self.readers.read(move |conn| conn.query_row(sql, (), |row| row.get(0)).optional()).await
    }
}

/// Says in `policies.state` what the roles say.
fn mark(tx: &Transaction<'_>, roles: &Lifecycle) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE policies SET state = CASE WHEN state = 'running' OR EXISTS
             (SELECT 1 FROM audit WHERE to_version = policies.version AND action = 'promoted')
         THEN 'retired' ELSE 'candidate' END WHERE state IN ('running', 'shadow', 'canary')",
        (),
    )?;
    let mut set = tx.prepare_cached("UPDATE policies SET state = ?2 WHERE version = ?1")?;
    let shadow = roles.shadow.as_ref().map(|trial| (&trial.version, PolicyRunState::Shadow));
    let canary = roles.open_canary().map(|canary| (&canary.trial.version, PolicyRunState::Canary));
    let running = Some((&roles.running, PolicyRunState::Running));
    for (version, state) in [shadow, canary, running].into_iter().flatten() {
        set.execute([version.as_str(), state.as_str()])?;
    }
    Ok(())
}

pub(super) fn append(tx: &Transaction<'_>, entry: &AuditEntry) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO audit (at_micros, action, actor, from_version, to_version, share, forced, reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        entry.at.micros(),
        entry.action.as_str(),
        entry.actor,
        entry.from.as_ref().map(PolicyVersion::as_str),
        entry.to.as_str(),
        entry.share,
        entry.forced,
        entry.reason,
    ])?;
    chain(tx, &chained(entry)).map(|_| ())
}

/// The same in the chain of all that is done to the daemon.
fn chained(entry: &AuditEntry) -> Entry {
    let AuditEntry { at, action, actor, from, to, share, forced, reason } = entry;
    let from = from.as_ref().map(PolicyVersion::as_str);
    let details = json!({"from": from, "share": share, "forced": forced, "reason": reason});
    let by = By::new(actor.as_str(), *at);
    Entry::new(&by, format!("policy.{}", action.as_str()), to.as_str(), details)
}

fn audit_entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    let word: String = row.get(1)?;
    let action = PolicyAction::parse(&word)
        .ok_or_else(|| unreadable(1, format!("`{word}` is nothing that is done to a policy")))?;
    Ok(AuditEntry {
        at: Timestamp::from_micros(row.get(0)?),
        action,
        actor: row.get(2)?,
        from: row.get::<_, Option<String>>(3)?.map(PolicyVersion::from),
        to: PolicyVersion::from(row.get::<_, String>(4)?),
        share: row.get(5)?,
        forced: row.get(6)?,
        reason: row.get(7)?,
    })
}
