//! Budgets: whose money they are, how much, for how long, and what happens at their end.
//!
//! `[budget]` is the daemon's own, which every request is charged to; `[[budgets]]` are kept beside it
//! for a tenant, a key or a tag. Nothing here moves money.

use std::collections::BTreeSet;
use std::fmt;

use jiff::tz::TimeZone;
use pointsman_router::hold::Payer;
use pointsman_router::money::NanoUsd;
use serde::{Deserialize, Serialize};

use super::fault::FaultKind;
use super::section::Section;
use super::values;
use super::window::Window;

/// A budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// Its name in errors and reports; no slash in it.
    pub name: String,
    /// Whose spend it limits.
    pub scope: Scope,
    /// What may be spent in one window.
    pub amount: NanoUsd,
    /// How long a window is.
    pub window: Window,
    /// Whose calendar cuts the windows.
    pub time_zone: TimeZone,
    /// What happens where it has no room.
    pub enforcement: Enforcement,
    /// Shares of the amount, in percent and rising, at which somebody is told.
    pub alert_at_percent: Vec<u8>,
    /// How the price of money is raised so that it lasts; only of the daemon's own.
    pub pacing: Pacing,
}

#[cfg(test)]
impl Budget {
    /// A hard budget of UTC that tells nobody.
    pub(crate) fn of(name: &str, scope: &str, nanos: i64, window: Window) -> Self {
        Self {
            name: name.to_owned(),
            scope: Scope::read(scope).unwrap_or(Scope::Global),
            amount: NanoUsd::new(nanos),
            window,
            time_zone: TimeZone::UTC,
            enforcement: Enforcement::Hard,
            alert_at_percent: Vec::new(),
            pacing: Pacing::Off,
        }
    }
}

/// Whose spend a budget limits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everybody's.
    Global,
    /// A tenant's, or each one's by itself.
    Tenant(Whose),
    /// A key's.
    Key(Whose),
    /// That of requests with this tag.
    Tag(String, Whose),
}

/// One, or each of them by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// This one.
    One(String),
    /// Each one has an amount of its own.
    Each,
}

impl Whose {
    fn read(text: &str) -> Option<Self> {
        match text {
            "*" => Some(Self::Each),
            name if values::is_name(name) => Some(Self::One(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(name) => f.write_str(name),
            Self::Each => f.write_str("*"),
        }
    }
}

impl Scope {
    /// What a scope must be.
    pub const WANTED: &'static str = "\"global\", \"tenant:NAME\", \"key:ID\" or \"tag:KEY=VALUE\"; * in place of the last word for each by itself";

    /// Reads the form in which people write it.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if text == "global" {
            return Some(Self::Global);
        }
        match text.split_once(':')? {
            ("tenant", name) => Whose::read(name).map(Self::Tenant),
            ("key", id) => Whose::read(id).map(Self::Key),
            ("tag", pair) => {
                let (key, value) = pair.split_once('=')?;
                values::is_name(key).then(|| Whose::read(value).map(|whose| Self::Tag(key.to_owned(), whose)))?
            }
            _ => None,
        }
    }

    /// Whether all of it is one account.
    #[must_use]
    pub fn of_one(&self) -> bool {
        match self {
            Self::Global => true,
            Self::Tenant(whose) | Self::Key(whose) | Self::Tag(_, whose) => *whose != Whose::Each,
        }
    }

    /// What of the payer falls into it: nothing of its own where one is meant, the name where each is kept by
    /// itself; `None` where the payer does not.
    #[must_use]
    pub fn of<'a>(&self, payer: Payer<'a>) -> Option<&'a str> {
        let (whose, found) = match self {
            Self::Global => return Some(""),
            Self::Tenant(whose) => (whose, payer.tenant()),
            Self::Key(whose) => (whose, payer.key.map(|key| key.as_str())),
            Self::Tag(key, whose) => (whose, payer.tags.get(key).map(String::as_str)),
        };
        match (whose, found?) {
            (Whose::Each, name) => Some(name),
            (Whose::One(one), name) => (one == name).then_some(""),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Tenant(whose) => write!(f, "tenant:{whose}"),
            Self::Key(whose) => write!(f, "key:{whose}"),
            Self::Tag(key, whose) => write!(f, "tag:{key}={whose}"),
        }
    }
}

/// What happens where a budget has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// Requests are denied.
    Hard,
    /// Somebody is told, and requests pass.
    Soft,
}

impl Enforcement {
    /// Each by its word.
    pub const WORDS: [(&'static str, Self); 2] = [("hard", Self::Hard), ("soft", Self::Soft)];
}

/// How spend is paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pacing {
    /// Not at all: the budget is a hard stop and nothing else.
    Off,
    /// So that the window's money lasts to its end.
    Window,
    /// To a mean cost of a request.
    PerRequest(NanoUsd),
}

/// Where somebody is told, unless the budget says otherwise.
pub const ALERT_AT_PERCENT: [u8; 3] = [50, 80, 95];
/// Shares at which somebody is told, at most.
const ALERTS_MAX: usize = 16;

/// Whether alerts can be these: from 1 to 100 percent, rising, a few.
#[must_use]
pub fn are_alerts(percents: &[u8]) -> bool {
    percents.len() <= ALERTS_MAX
        && percents.iter().all(|percent| (1..=100).contains(percent))
        && percents.windows(2).all(|pair| matches!(pair, [a, b] if a < b))
}

/// What alerts must be.
pub const ALERTS_WANTED: &str = "at most 16 whole percents from 1 to 100, rising, such as [50, 80, 95]";

/// Whether a text can name a budget: a name without a slash, which parts it from what it is kept for.
#[must_use]
pub fn is_budget_name(text: &str) -> bool {
    values::is_name(text) && !text.contains('/')
}

/// What a budget's name must be.
pub const BUDGET_NAME_WANTED: &str = "1 to 128 bytes without white space, control characters or a slash";

/// The daemon's own budget.
pub(super) fn main(mut section: Section<'_>) -> Option<Budget> {
    if !section.is_present() {
        return None;
    }
    let budget = read(&mut section, Some("global"));
    let pacing = pacing(&mut section, budget.as_ref().map(|budget| budget.window));
    section.end();
    Some(Budget { pacing, ..budget? })
}

/// The budgets beside it; none may have the name of another.
pub(super) fn others(sections: Vec<Section<'_>>, main: Option<&Budget>) -> Vec<Budget> {
    let mut names: BTreeSet<String> = main.iter().map(|budget| budget.name.clone()).collect();
    let mut budgets = Vec::new();
    for mut section in sections {
        if let Some(budget) = read(&mut section, None) {
            if !names.insert(budget.name.clone()) {
                section.fault("name", FaultKind::Duplicate { name: budget.name.clone() });
            }
            budgets.push(budget);
        }
        section.end();
    }
    budgets
}

/// What all budgets have; the daemon's own has a default name and no scope.
fn read(section: &mut Section<'_>, default_name: Option<&str>) -> Option<Budget> {
    let needed = [("amount_usd", "what may be spent per window"), ("window", "how long the window is")];
    let named = [("name", "its name in errors and reports"), ("scope", "whose spend it limits")];
    for (key, wanted) in needed.into_iter().chain(named.into_iter().filter(|_| default_name.is_none())) {
        if !section.has(key) {
            section.missing(key, wanted);
        }
    }
    let name = section.name("name").or(default_name.map(str::to_owned));
    let name = name.filter(|name| {
        let good = is_budget_name(name);
        if !good {
            section.fault("name", FaultKind::OutOfRange { wanted: BUDGET_NAME_WANTED.to_owned() });
        }
        good
    });
    let scope = if default_name.is_some() { Some(Scope::Global) } else { scope(section) };
    let amount = section.usd("amount_usd");
    let window = section.word("window", &Window::WORDS);
    let zone_name = section.text("time_zone").unwrap_or_else(|| "UTC".to_owned());
    let time_zone = TimeZone::get(&zone_name).unwrap_or_else(|_| {
        let wanted = "an IANA time zone such as Europe/Berlin".to_owned();
        section.fault("time_zone", FaultKind::OutOfRange { wanted });
        TimeZone::UTC
    });
    let enforcement = section.word("enforcement", &Enforcement::WORDS).unwrap_or(Enforcement::Hard);
    let alert_at_percent = section.percents("alert_at_percent").unwrap_or_else(|| ALERT_AT_PERCENT.to_vec());
    if !are_alerts(&alert_at_percent) {
        section.fault("alert_at_percent", FaultKind::OutOfRange { wanted: ALERTS_WANTED.to_owned() });
    }
    Some(Budget {
        name: name?,
        scope: scope?,
        amount: amount?,
        window: window?,
        time_zone,
        enforcement,
        alert_at_percent,
        pacing: Pacing::Off,
    })
}

fn scope(section: &mut Section<'_>) -> Option<Scope> {
    let text = section.text("scope")?;
    let scope = Scope::read(&text);
    if scope.is_none() {
        section.fault("scope", FaultKind::OutOfRange { wanted: Scope::WANTED.to_owned() });
    }
    scope
}

fn pacing(section: &mut Section<'_>, window: Option<Window>) -> Pacing {
    let lasts = section.flag("pace").unwrap_or(false);
    match section.usd("per_request_usd") {
        Some(target) if target > NanoUsd::ZERO => Pacing::PerRequest(target),
        Some(_) => {
            section.fault("per_request_usd", FaultKind::OutOfRange { wanted: "above zero".to_owned() });
            Pacing::Off
        }
        // A total has no end to last to.
        None if lasts && window == Some(Window::Total) => {
            let wanted = "false where the window is \"total\": set per_request_usd instead".to_owned();
            section.fault("pace", FaultKind::OutOfRange { wanted });
            Pacing::Off
        }
        None if lasts => Pacing::Window,
        None => Pacing::Off,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for text in ["global", "tenant:acme", "tenant:*", "key:0f3a", "key:*", "tag:team=search", "tag:team=*"] {
            assert_eq!(Scope::read(text).unwrap().to_string(), text);
        }
        for text in ["", "Global", "tenant", "tenant:", "tenant:a b", "tag:team", "tag:=x", "model:x", "tag:a="] {
            assert_eq!(Scope::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_payer_falls_into_the_scopes_that_name_it() {
        let tags = [("tenant", "acme"), ("team", "search")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let key = "k1".into();
        let payer = Payer { key: Some(&key), tags: &tags };
        let of = |text: &str| Scope::read(text).unwrap().of(payer);
        assert_eq!(["global", "tenant:acme", "key:k1", "tag:team=search"].map(of), [Some(""); 4]);
        assert_eq!(["tenant:*", "key:*", "tag:team=*"].map(of), [Some("acme"), Some("k1"), Some("search")]);
        assert_eq!(["tenant:other", "key:k2", "tag:team=ads", "tag:region=*"].map(of), [None; 4]);
    }

    #[test]
    fn alerts_rise() {
        assert!(are_alerts(&[]) && are_alerts(&[50, 80, 95]) && are_alerts(&[100]));
        assert!(!are_alerts(&[0]) && !are_alerts(&[101]) && !are_alerts(&[80, 80]) && !are_alerts(&[80, 50]));
    }
}
