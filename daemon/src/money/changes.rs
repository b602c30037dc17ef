//! What an operator changes about budgets at run time: set, remove, adjust. Durable first, then in force.
//!
//! An amount, what happens at its end and the alerts of a budget may change while it runs, an amount even to
//! less than is spent: then everything is denied. Whose budget it is and how its windows are cut may not:
//! what was spent under one name would mean two things. Nothing here ever frees money by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_router::clock::Timestamp;
use pointsman_router::money::NanoUsd;
use serde_json::{Value, json};

use super::budgets::Budgets;
use super::{BudgetLedger, Configured, UNBUDGETED};
use crate::audit::{By, Entry};
use crate::config::Budget;
use crate::store::StoreError;
use crate::store::ledger::{AdjustOutcome, BudgetChange};

/// Why a budget was not changed. Nothing was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// There is none of this name.
    #[error("no budget is named `{name}`")]
    Unknown {
        /// The name.
        name: String,
    },
    /// It cannot be another while its name stays.
    #[error("the {field} of budget `{name}` cannot change, set one of another name and remove this one")]
    Fixed {
        /// The name.
        name: String,
        /// The field of it.
        field: &'static str,
    },
    /// The daemon's own is in the configuration.
    #[error("budget `{name}` is the daemon's own, take it out of the configuration")]
    Main {
        /// The name.
        name: String,
    },
    /// There is no such window.
    #[error("budget `{name}` had no window that began then")]
    NoWindow {
        /// The name.
        name: String,
    },
    /// More would be known than is unknown.
    #[error("{unknown} are to be known now, and {there} of this window of `{name}` are unknown")]
    TooMuch {
        /// The name.
        name: String,
        /// What was to be known.
        unknown: NanoUsd,
        /// What is unknown.
        there: NanoUsd,
    },
    /// The store could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is known now of money that counted as unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// The account.
    pub account: String,
    /// The start of its window.
    pub start: Timestamp,
    /// How much is unknown no longer.
    pub unknown: NanoUsd,
    /// How much of it was spent, or more than it.
    pub settled: NanoUsd,
    /// What makes it one, however often it is sent.
    pub key: String,
}

/// The configured budgets with what was changed at run time on top.
pub(super) fn changed(configured: Configured, changes: Vec<BudgetChange>) -> Budgets {
    let Configured { mut main, others } = configured;
    let mut others: BTreeMap<String, Budget> = others.into_iter().map(|b| (b.name.clone(), b)).collect();
    for (name, budget) in changes {
        match (budget, &mut main) {
            // The configuration may have cut its windows anew since; then that counts.
            (Some(budget), Some(main)) if main.name == name => {
                if fixed(main, &budget).is_none() {
                    *main = Budget { pacing: main.pacing, ..budget };
                }
            }
            (Some(budget), _) => drop(others.insert(name, budget)),
            (None, _) => drop(others.remove(&name)),
        }
    }
    Budgets::new(main, UNBUDGETED, others.into_values())
}

/// What the audit chain keeps of a budget.
fn details(budget: &Budget) -> Value {
    json!({
        "scope": budget.scope.to_string(),
        "amount": budget.amount.nanos(),
        "window": budget.window,
        "time_zone": budget.time_zone.iana_name(),
        "enforcement": budget.enforcement,
        "alert_at_percent": &budget.alert_at_percent,
    })
}

/// The first part of a budget that cannot change and would.
fn fixed(before: &Budget, after: &Budget) -> Option<&'static str> {
    if before.scope != after.scope {
        return Some("scope");
    }
    if before.window != after.window {
        return Some("window");
    }
    (before.time_zone.iana_name() != after.time_zone.iana_name()).then_some("time_zone")
}

impl BudgetLedger {
    /// Sets a budget, from the next hold on.
    ///
    /// # Errors
    /// [`BudgetError`]; nothing was changed.
    pub async fn set(&self, budget: Budget, by: &By) -> Result<(), BudgetError> {
        let _turn = self.changing.lock().await;
        let before = self.budgets.load_full();
        // One that was removed goes on where it is set again.
        let removed = self.lock().budget_named(&budget.name);
        let known = before.all().get(&budget.name).or(removed.as_ref());
        if let Some(field) = known.and_then(|known| fixed(known, &budget)) {
            return Err(BudgetError::Fixed { name: budget.name, field });
        }
        if budget.name == UNBUDGETED {
            return Err(BudgetError::Fixed { name: budget.name, field: "name" });
        }
        let pacing = known.map_or(budget.pacing, |known| known.pacing);
        let budget = Budget { pacing, ..budget };
        let entry = Entry::new(by, "budget.set", &budget.name, details(&budget));
        self.store.save_budget((budget.name.clone(), Some(budget.clone())), entry).await?;
        self.replace(&before, &budget.name, Some(&budget));
        let uncovered = {
            let mut accounts = self.lock();
            accounts.set_budget(&Arc::new(budget));
            accounts.uncovered()
        };
        // A budget that becomes hard has holds that no lease covers: a crash must not lose sight of them.
        if !uncovered.is_empty() {
            self.store.grant(uncovered.clone(), self.clock.now()).await?;
            self.lock().set_leased(&uncovered);
        }
        Ok(())
    }

    /// Removes a budget: nothing is charged to it from the next hold on. What was spent stays known.
    ///
    /// # Errors
    /// [`BudgetError`]; nothing was changed.
    pub async fn remove(&self, name: &str, by: &By) -> Result<(), BudgetError> {
        let _turn = self.changing.lock().await;
        let before = self.budgets.load_full();
        if !before.all().contains_key(name) {
            return Err(BudgetError::Unknown { name: name.to_owned() });
        }
        if &*before.main().account == name {
            return Err(BudgetError::Main { name: name.to_owned() });
        }
        let entry = Entry::new(by, "budget.removed", name, json!({}));
        self.store.save_budget((name.to_owned(), None), entry).await?;
        self.replace(&before, name, None);
        Ok(())
    }

    fn replace(&self, before: &Budgets, name: &str, budget: Option<&Budget>) {
        let main_name = Arc::clone(&before.main().account);
        let (mut main, mut others) = (None, BTreeMap::new());
        let kept = before.all().values().map(|kept| (**kept).clone()).filter(|kept| kept.name != name);
        for budget in kept.chain(budget.cloned()) {
            if *budget.name == *main_name {
                main = Some(budget);
            } else {
                others.insert(budget.name.clone(), budget);
            }
        }
        self.budgets.store(Arc::new(Budgets::new(main, UNBUDGETED, others.into_values())));
    }

    /// Books what is known now of money that counted as unknown; `false` where the same was booked before.
    /// Amounts are at least zero.
    ///
    /// # Errors
    /// [`BudgetError`]; nothing was changed.
    pub async fn adjust(&self, adjustment: Adjustment, by: &By) -> Result<bool, BudgetError> {
        let Adjustment { account, start, unknown, settled, key } = adjustment;
        // What may still be reported is held in memory, and unknown in the file alone: it has to expire first.
        let known = self.lock().unknown_in(&account, start);
        let name: Arc<str> = account.as_str().into();
        let details = json!({ "window": start.micros(), "key": &key, "unknown": unknown.nanos(), "settled": settled.nanos() });
        let entry = Entry::new(by, "budget.adjusted", &account, details);
        let what = (key, unknown, settled);
        match self.store.adjust((name, start), what, known, entry).await? {
            AdjustOutcome::Booked => {
                self.lock().adjust((&account, start), unknown, settled);
                Ok(true)
            }
            AdjustOutcome::Repeated => Ok(false),
            AdjustOutcome::NoWindow => Err(BudgetError::NoWindow { name: account }),
            AdjustOutcome::TooMuch { there } => Err(BudgetError::TooMuch { name: account, unknown, there }),
        }
    }
}
