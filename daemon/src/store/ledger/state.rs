//! What policies have learned, and which policies there are.
//!
//! A learned state is bytes with two marks: every piece of feedback and every trace up to them is in
//! it. The latest one is where a restart goes on from; the base is where a check that rebuilds the
//! state begins once the rows before it are pruned.

use pointsman_router::clock::Timestamp;
use pointsman_router::ids::PolicyVersion;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::{LedgerStore, kept, number};
use crate::store::{StoreError, unreadable};

/// What a learned state is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateRole {
    /// A restart goes on from it.
    Latest,
    /// A rebuild begins from it.
    Base,
}

impl StateRole {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Base => "base",
        }
    }
}

/// What a policy has learned up to two marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyState {
    /// The policy.
    pub version: PolicyVersion,
    /// What the state is kept for.
    pub role: StateRole,
    /// The format of the bytes.
    pub kind: String,
    /// When it was taken.
    pub created_at: Timestamp,
    /// The sequence of the last feedback in it.
    pub feedback_mark: u64,
    /// The sequence of the last trace in it.
    pub trace_mark: u64,
    /// How many updates it has seen.
    pub updates: u64,
    /// The state itself.
    pub bytes: Vec<u8>,
}

/// What a policy is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyRunState {
    /// It decides.
    Running,
    /// It did once.
    Retired,
    /// It was trained or installed, and waits to be promoted.
    Candidate,
    /// It decides beside the one that serves; nobody is called on its word.
    Shadow,
    /// It decides for a share of the requests.
    Canary,
}

impl PolicyRunState {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Retired => "retired",
            Self::Candidate => "candidate",
            Self::Shadow => "shadow",
            Self::Canary => "canary",
        }
    }
}

/// A policy that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRow {
    /// Its version.
    pub version: PolicyVersion,
    /// Its kind.
    pub kind: String,
    /// What it is used for.
    pub state: PolicyRunState,
    /// When it was first known.
    pub created_at: Timestamp,
    /// What it was made of, as JSON.
    pub settings: String,
}

impl LedgerStore {
    /// Keeps learned states, all or none, each in place of an earlier one of the same policy and role.
    ///
    /// # Errors
    /// What the store met: then the earlier ones stay.
    pub async fn save_states(&self, states: Vec<PolicyState>) -> Result<(), StoreError> {
        self.writer.run(move |tx| states.iter().try_for_each(|state| save(tx, state))).await
    }

    /// The sequence of the last trace that is in any learned state; zero where there is none.
    ///
    /// # Errors
    /// What the store met.
    pub async fn learned_through(&self) -> Result<u64, StoreError> {
        let sql = "SELECT ifnull(max(trace_mark), 0) FROM policy_state";
        self.readers.read(move |conn| conn.query_row(sql, (), |row| number(row, 0))).await
    }

    /// The learned state of a policy, where one was kept.
    ///
    /// # Errors
    /// What the store met.
    pub async fn load_state(
        &self,
        version: PolicyVersion,
        role: StateRole,
    ) -> Result<Option<PolicyState>, StoreError> {
        self.readers
            .read(move |conn| {
                conn.prepare_cached(
                    "SELECT kind, created_at_micros, feedback_mark, trace_mark, updates, bytes
                     FROM policy_state WHERE version = ?1 AND role = ?2",
                )?
                .query_row(params![version.as_str(), role.as_str()], |row| {
                    Ok(PolicyState {
                        version: version.clone(),
                        role,
                        kind: row.get(0)?,
                        created_at: Timestamp::from_micros(row.get(1)?),
                        feedback_mark: number(row, 2)?,
                        trace_mark: number(row, 3)?,
                        updates: number(row, 4)?,
                        bytes: row.get(5)?,
                    })
                })
                .optional()
            })
            .await
    }

    /// Notes what a policy is made of; one that was known keeps its first date and its state.
    ///
    /// # Errors
    /// What the store met: then nothing changed.
    pub async fn describe_policy(
        &self,
        version: PolicyVersion,
        kind: String,
        settings: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.writer
            .run(move |tx| {
                tx.execute(
                    "INSERT INTO policies (version, kind, state, created_at_micros, settings) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (version) DO UPDATE SET kind = excluded.kind, settings = excluded.settings",
                    params![version.as_str(), kind, PolicyRunState::Candidate.as_str(), now.micros(), settings],
                )
                .map(|_| ())
            })
            .await
    }

    /// All policies, the newest first.
    ///
    /// # Errors
    /// What the store met.
    pub async fn policies(&self) -> Result<Vec<PolicyRow>, StoreError> {
        self.readers
            .read(|conn| {
                conn.prepare_cached(&format!(
                    "SELECT {POLICY_COLUMNS} FROM policies ORDER BY created_at_micros DESC, version"
                ))?
                .query_map((), policy_row)?
                .collect()
            })
            .await
    }
}

fn save(tx: &Transaction<'_>, state: &PolicyState) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO policy_state
         (version, role, kind, created_at_micros, feedback_mark, trace_mark, updates, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        state.version.as_str(),
        state.role.as_str(),
        state.kind,
        state.created_at.micros(),
        kept(state.feedback_mark),
        kept(state.trace_mark),
        kept(state.updates),
        state.bytes,
    ])
    .map(|_| ())
}

/// What [`policy_row`] reads, from the first column on.
pub(super) const POLICY_COLUMNS: &str = "version, kind, state, created_at_micros, settings";

pub(super) fn policy_row(row: &Row<'_>) -> rusqlite::Result<PolicyRow> {
    let state = match row.get_ref(2)?.as_str()? {
        "running" => PolicyRunState::Running,
        "retired" => PolicyRunState::Retired,
        "candidate" => PolicyRunState::Candidate,
        "shadow" => PolicyRunState::Shadow,
        "canary" => PolicyRunState::Canary,
        other => return Err(unreadable(2, format!("`{other}` is no state of a policy"))),
    };
    Ok(PolicyRow {
        version: PolicyVersion::from(row.get::<_, String>(0)?),
        kind: row.get(1)?,
        state,
        created_at: Timestamp::from_micros(row.get(3)?),
        settings: row.get(4)?,
    })
}
