//! Policies that were trained or installed: what their artifact is, what its training made, and how
//! it was evaluated. The artifact itself is a file ([`crate::store::artifacts`]); it is there before
//! its row is.
//!
//! Report and evaluation are JSON that this store does not look into.

use pointsman_router::clock::Timestamp;
use pointsman_router::features::SchemaHash;
use pointsman_router::ids::PolicyVersion;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::lifecycle::append;
use super::state::{POLICY_COLUMNS, policy_row};
use super::{AuditEntry, LedgerStore, PolicyRow, PolicyRunState, kept, number};
use crate::store::StoreError;

/// What a fitted policy is made of and what is known of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FittedFacts {
    /// Bytes of its artifact; zero: it has none.
    pub artifact_bytes: u64,
    /// What its features mean.
    pub schema: Option<SchemaHash>,
    /// Rows that its artifact was trained on.
    pub trained_rows: u64,
    /// Sequence of the last feedback that it was trained on; zero: none, or trained elsewhere.
    pub trained_through: u64,
    /// What its training made, as JSON; `None`: it was not trained here.
    pub report: Option<String>,
    /// Its last evaluation, as JSON; `None`: it was never evaluated.
    pub evaluation: Option<String>,
    /// The policy that chose before it and to which a rollback returns.
    pub predecessor: Option<PolicyVersion>,
}

/// A policy with all that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPolicy {
    /// Version, kind, state and settings.
    pub row: PolicyRow,
    /// What it was fitted on.
    pub fitted: FittedFacts,
}

/// A policy that was trained or installed just now.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCandidate {
    /// Its version.
    pub version: PolicyVersion,
    /// Its kind.
    pub kind: String,
    /// When its artifact was made or came.
    pub created_at: Timestamp,
    /// What it was made of, as JSON.
    pub settings: String,
    /// What it was fitted on.
    pub fitted: FittedFacts,
}

impl LedgerStore {
    /// Keeps a policy as a candidate and writes down how it came; one that is known already stays as it is, and
    /// nothing is written down. Whether it is new.
    ///
    /// # Errors
    /// What the store met: then nothing changed.
    pub async fn insert_candidate(&self, candidate: NewCandidate, entry: AuditEntry) -> Result<bool, StoreError> {
        self.writer
            .run(move |tx| {
                let NewCandidate { version, kind, created_at, settings, fitted } = candidate;
                let inserted = tx
                    .prepare_cached(
                        "INSERT INTO policies (version, kind, state, created_at_micros, settings, artifact_bytes,
                             schema_hash, trained_rows, trained_through, report, evaluation, predecessor)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                         ON CONFLICT (version) DO NOTHING",
                    )?
                    .execute(params![
                        version.as_str(),
                        kind,
                        PolicyRunState::Candidate.as_str(),
                        created_at.micros(),
                        settings,
                        kept(fitted.artifact_bytes),
                        // The same bits in SQLite's signed integer.
                        fitted.schema.map(|schema| schema.0.cast_signed()),
                        kept(fitted.trained_rows),
                        kept(fitted.trained_through),
                        fitted.report,
                        fitted.evaluation,
                        fitted.predecessor.as_ref().map(PolicyVersion::as_str),
                    ])?;
                if inserted > 0 {
                    append(tx, &entry)?;
                }
                Ok(inserted > 0)
            })
            .await
    }

    /// Keeps the evaluation of a policy, in place of an earlier one, and writes down that there is one. Whether the
    /// policy is known.
    ///
    /// # Errors
    /// What the store met: then the earlier one stays.
    pub async fn set_evaluation(
        &self,
        version: PolicyVersion,
        evaluation: String,
        entry: AuditEntry,
    ) -> Result<bool, StoreError> {
        self.writer
            .run(move |tx| {
                let known = tx
                    .prepare_cached("UPDATE policies SET evaluation = ?2 WHERE version = ?1")?
                    .execute(params![version.as_str(), evaluation])?
                    > 0;
                if known {
                    append(tx, &entry)?;
                }
                Ok(known)
            })
            .await
    }

    /// A policy, where it is known.
    ///
    /// # Errors
    /// What the store met.
    pub async fn policy(&self, version: PolicyVersion) -> Result<Option<StoredPolicy>, StoreError> {
        self.readers
            .read(move |conn| {
                conn.prepare_cached(&select("WHERE version = ?1"))?
                    .query_row([version.as_str()], stored_policy)
                    .optional()
            })
            .await
    }

    /// All policies with all that is known of them, the newest first.
    ///
    /// # Errors
    /// What the store met.
    pub async fn stored_policies(&self) -> Result<Vec<StoredPolicy>, StoreError> {
        self.readers.read(stored_policies).await
    }
}

fn stored_policies(conn: &Connection) -> rusqlite::Result<Vec<StoredPolicy>> {
    conn.prepare_cached(&select("ORDER BY created_at_micros DESC, version"))?
        .query_map((), stored_policy)?
        .collect()
}

fn select(rest: &str) -> String {
    format!(
        "SELECT {POLICY_COLUMNS}, artifact_bytes, schema_hash, trained_rows, trained_through, report, evaluation,
             predecessor FROM policies {rest}"
    )
}

fn stored_policy(row: &Row<'_>) -> rusqlite::Result<StoredPolicy> {
    Ok(StoredPolicy {
        row: policy_row(row)?,
        fitted: FittedFacts {
            artifact_bytes: number(row, 5)?,
            schema: row.get::<_, Option<i64>>(6)?.map(|bits| SchemaHash(bits.cast_unsigned())),
            trained_rows: number(row, 7)?,
            trained_through: number(row, 8)?,
            report: row.get(9)?,
            evaluation: row.get(10)?,
            predecessor: row.get::<_, Option<String>>(11)?.map(PolicyVersion::from),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ledger::PolicyAction;
    use crate::store::ledger::tests::{at, reopen, store};

    fn candidate(version: &str) -> NewCandidate {
        NewCandidate {
            version: PolicyVersion::new(version),
            kind: "hybrid".to_owned(),
            created_at: at(5),
            settings: "{}".to_owned(),
            fitted: FittedFacts {
                artifact_bytes: 9,
                schema: Some(SchemaHash(u64::MAX - 1)),
                trained_rows: 1_000,
                trained_through: 7,
                report: Some("{\"rows\":1}".to_owned()),
                evaluation: None,
                predecessor: None,
            },
        }
    }

    fn entry(action: PolicyAction) -> AuditEntry {
        AuditEntry::about(action, &PolicyVersion::new("hybrid-1"), ("caller", at(3)), String::new())
    }

    #[tokio::test]
    async fn a_candidate_is_kept_once_with_its_evaluation() {
        let (folder, store) = store().await;
        let version = PolicyVersion::new("hybrid-1");
        assert_eq!(store.insert_candidate(candidate("hybrid-1"), entry(PolicyAction::Trained)).await, Ok(true));
        let again = NewCandidate { kind: "other".to_owned(), ..candidate("hybrid-1") };
        assert_eq!(store.insert_candidate(again, entry(PolicyAction::Installed)).await, Ok(false));
        let evaluated = |version: &PolicyVersion| {
            store.set_evaluation(version.clone(), "{}".to_owned(), entry(PolicyAction::Evaluated))
        };
        assert_eq!(evaluated(&version).await, Ok(true));
        assert_eq!(evaluated(&PolicyVersion::new("none")).await, Ok(false));
        let log = store.audit_log(9).await.unwrap();
        let actions: Vec<PolicyAction> = log.iter().map(|entry| entry.action).collect();
        assert_eq!(actions, [PolicyAction::Evaluated, PolicyAction::Trained]);
        drop(store);

        let store = reopen(&folder).await;
        let found = store.policy(version.clone()).await.unwrap().unwrap();
        let wanted = candidate("hybrid-1");
        assert_eq!((found.row.state, found.row.kind.as_str()), (PolicyRunState::Candidate, "hybrid"));
        assert_eq!(found.fitted, FittedFacts { evaluation: Some("{}".to_owned()), ..wanted.fitted });
        assert_eq!(store.policy(PolicyVersion::new("none")).await, Ok(None));
        assert_eq!(store.stored_policies().await.unwrap(), [found]);
    }

    #[tokio::test]
    async fn a_policy_without_an_artifact_has_nothing_fitted() {
        let (_folder, store) = store().await;
        let version = PolicyVersion::new("rules-1");
        store.describe_policy(version.clone(), "rules".to_owned(), "{}".to_owned(), at(1)).await.unwrap();
        assert_eq!(store.policy(version).await.unwrap().unwrap().fitted, FittedFacts::default());
    }
}
