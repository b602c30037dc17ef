//! Which budgets a request falls under, and so which accounts it is charged to.
//!
//! The first is the daemon's own, or a plain count where none is configured: every request is charged
//! to it. A budget that is kept for each tenant, key or tag value has an account for each, named
//! `budget/value`; no matter how many values callers think of, there are at most [`ACCOUNTS_MAX`], and all
//! further ones share `budget/*`. Nothing here moves money.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pointsman_router::hold::Payer;

use crate::config::{Budget, Scope};

/// Accounts that are kept by themselves.
pub(super) const ACCOUNTS_MAX: usize = 1 << 16;
/// What all further ones share.
const OTHERS: &str = "*";

/// An account: its name, and the budget that it is kept for.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) account: Arc<str>,
    /// `None`: it only counts.
    pub(super) budget: Option<Arc<Budget>>,
}

/// All budgets, found by whom they are for.
#[derive(Debug)]
pub(super) struct Budgets {
    main: Named,
    all: BTreeMap<String, Arc<Budget>>,
    /// Those that are not for one tenant, key or tag.
    wide: Vec<Arc<Budget>>,
    /// The others, by their scope as it is written.
    narrow: HashMap<String, Vec<Arc<Budget>>>,
}

impl Budgets {
    /// The main one, or the name under which spend is counted without one, and those beside it.
    pub(super) fn new(main: Option<Budget>, counted_as: &str, others: impl IntoIterator<Item = Budget>) -> Self {
        let main = main.map(Arc::new);
        let named = Named {
            account: main.as_ref().map_or(counted_as, |budget| &budget.name).into(),
            budget: main.clone(),
        };
        let mut budgets = Self { main: named, all: BTreeMap::new(), wide: Vec::new(), narrow: HashMap::new() };
        for budget in others.into_iter().map(Arc::new) {
            budgets.all.insert(budget.name.clone(), budget);
        }
        for budget in budgets.all.values() {
            if budget.scope == Scope::Global || !budget.scope.of_one() {
                budgets.wide.push(Arc::clone(budget));
            } else {
                budgets.narrow.entry(budget.scope.to_string()).or_default().push(Arc::clone(budget));
            }
        }
        if let Some(main) = main {
            budgets.all.insert(main.name.clone(), main);
        }
        budgets
    }

    pub(super) fn main(&self) -> &Named {
        &self.main
    }

    /// Every budget, by name.
    pub(super) fn all(&self) -> &BTreeMap<String, Arc<Budget>> {
        &self.all
    }

    /// The accounts of a payer, the main one first; `has_room` says whether an account of this name, which is
    /// kept for one value among many, may be kept by itself.
    pub(super) fn of(&self, payer: Payer<'_>, has_room: impl Fn(&str) -> bool) -> Vec<Named> {
        let mut named = vec![self.main.clone()];
        let mut add = |budget: &Arc<Budget>| {
            let Some(of) = budget.scope.of(payer) else { return };
            let account = match of {
                "" => budget.name.clone(),
                of => Some(format!("{}/{of}", budget.name))
                    .filter(|account| has_room(account))
                    .unwrap_or_else(|| format!("{}/{OTHERS}", budget.name)),
            };
            named.push(Named { account: account.into(), budget: Some(Arc::clone(budget)) });
        };
        self.wide.iter().for_each(&mut add);
        if self.narrow.is_empty() {
            return named;
        }
        let tenant = payer.tenant().map(|tenant| format!("tenant:{tenant}"));
        let key = payer.key.map(|key| format!("key:{key}"));
        let tags = payer.tags.iter().map(|(key, value)| format!("tag:{key}={value}"));
        for scope in tenant.into_iter().chain(key).chain(tags) {
            self.narrow.get(&scope).into_iter().flatten().for_each(&mut add);
        }
        named
    }

    /// The budget that an account of this name is kept for.
    pub(super) fn of_account(&self, account: &str) -> Option<&Arc<Budget>> {
        self.all.get(account).or_else(|| self.all.get(account.split_once('/')?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Window;

    fn budget(name: &str, scope: &str) -> Budget {
        Budget::of(name, scope, 1, Window::Day)
    }

    #[test]
    fn a_payer_is_charged_to_every_account_that_it_falls_under() {
        let others = [
            budget("acme", "tenant:acme"),
            budget("each", "tenant:*"),
            budget("search", "tag:team=search"),
            budget("ads", "tag:team=ads"),
            budget("keys", "key:*"),
        ];
        let budgets = Budgets::new(None, "counted", others);
        let tags = [("tenant", "acme"), ("team", "search")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let names = |payer: Payer<'_>, room: bool| -> Vec<String> {
            budgets.of(payer, |_| room).iter().map(|named| named.account.to_string()).collect()
        };
        let payer = Payer { key: None, tags: &tags };
        assert_eq!(names(payer, true), ["counted", "each/acme", "acme", "search"]);
        let key = "k1".into();
        assert_eq!(
            names(Payer { key: Some(&key), ..payer }, true),
            ["counted", "each/acme", "keys/k1", "acme", "search"]
        );
        assert_eq!(names(payer, false)[1], "each/*", "a full house shares");
        assert_eq!(budgets.of_account("each/acme").unwrap().name, "each");
        assert!(budgets.of_account("nobody/acme").is_none());
    }
}
