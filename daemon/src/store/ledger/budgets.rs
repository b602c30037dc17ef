//! Budgets that were set or removed at run time: one JSON document per name, on top of the configuration.

use jiff::tz::TimeZone;
use pointsman_router::money::NanoUsd;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::LedgerStore;
use super::chain::chain;
use crate::audit::Entry;
use crate::config::{Budget, Enforcement, Pacing, Scope, Window};
use crate::store::{StoreError, unreadable};

/// A budget as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    scope: String,
    amount_usd_nanos: i64,
    window: Window,
    time_zone: String,
    enforcement: Enforcement,
    alert_at_percent: Vec<u8>,
}

/// What was changed of the budget of a name: what it is now, or that it is gone.
pub type BudgetChange = (String, Option<Budget>);

impl LedgerStore {
    /// Every change that is kept, by name.
    ///
    /// # Errors
    /// What the store met.
    pub async fn budget_changes(&self) -> Result<Vec<BudgetChange>, StoreError> {
        self.writer
            .run(|tx| {
                tx.prepare("SELECT name, body FROM budgets ORDER BY name")?
                    .query_map((), |row| {
                        let (name, body): (String, Option<String>) = (row.get(0)?, row.get(1)?);
                        let budget = body.map(|body| read(&name, &body)).transpose();
                        Ok((name, budget.map_err(|detail| unreadable(1, detail))?))
                    })?
                    .collect()
            })
            .await
    }

    /// Keeps a change, with the entry that says who made it; the newest of a name counts.
    ///
    /// # Errors
    /// What the store met: then the earlier one counts.
    pub async fn save_budget(&self, (name, budget): BudgetChange, entry: Entry) -> Result<(), StoreError> {
        let kept = budget.map(|budget| Kept {
            scope: budget.scope.to_string(),
            amount_usd_nanos: budget.amount.nanos(),
            window: budget.window,
            time_zone: budget.time_zone.iana_name().unwrap_or("UTC").to_owned(),
            enforcement: budget.enforcement,
            alert_at_percent: budget.alert_at_percent,
        });
        let body = kept.map(|kept| serde_json::to_string(&kept)).transpose();
        let body = body.map_err(|error| StoreError::Corrupt { detail: error.to_string() })?;
        self.writer
            .run(move |tx| {
                tx.execute("INSERT OR REPLACE INTO budgets (name, body) VALUES (?1, ?2)", params![name, body])?;
                chain(tx, &entry).map(|_| ())
            })
            .await
    }
}

fn read(name: &str, body: &str) -> Result<Budget, String> {
    let kept: Kept = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let scope = Scope::read(&kept.scope).ok_or_else(|| format!("`{}` is no scope", kept.scope))?;
    let time_zone = TimeZone::get(&kept.time_zone).map_err(|error| error.to_string())?;
    Ok(Budget {
        name: name.to_owned(),
        scope,
        amount: NanoUsd::new(kept.amount_usd_nanos),
        window: kept.window,
        time_zone,
        enforcement: kept.enforcement,
        alert_at_percent: kept.alert_at_percent,
        pacing: Pacing::Off,
    })
}
