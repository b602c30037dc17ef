//! Reads one table of the configuration key by key and remembers what was wrong.
//!
//! A derived deserialiser stops at the first fault; a person who mends a configuration wants all of
//! them. So each section is asked for its keys one by one: a value of the wrong form becomes a fault
//! and is treated as absent, and [`Section::end`] reports every key that nobody asked for.

use std::time::Duration;

use pointsman_router::money::NanoUsd;
use toml::{Table, Value};

use super::fault::{FaultKind, Faults};
use super::values;
use crate::rates::Limit;

/// One table, and the keys it was asked for.
#[derive(Debug)]
pub(super) struct Section<'a> {
    path: String,
    table: Option<&'a Table>,
    asked: Vec<&'static str>,
    faults: &'a Faults,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(table: &'a Table, faults: &'a Faults) -> Self {
        Self { path: String::new(), table: Some(table), asked: Vec::new(), faults }
    }

    /// Whether the table is there at all.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The full path of a key of this table.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports a fault of one of this table's keys.
    pub(super) fn fault(&self, key: &str, kind: FaultKind) {
        self.faults.add(self.at(key), kind);
    }

    /// Reports that a key must be there.
    pub(super) fn missing(&self, key: &str, wanted: &'static str) {
        self.fault(key, FaultKind::Missing { wanted });
    }

    /// The table under a key; an absent one is empty.
    pub(super) fn table(&mut self, key: &'static str) -> Self {
        let path = self.at(key);
        let table = self.value(key).and_then(|value| {
            let table = value.as_table();
            if table.is_none() {
                self.wrong(key, "a table", value);
            }
            table
        });
        Self { path, table, asked: Vec::new(), faults: self.faults }
    }

    /// The array of tables under a key.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(entries) = value.as_array() else {
            self.wrong(key, "tables in double brackets", value);
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            let path = format!("{}[{i}]", self.at(key));
            match entry.as_table() {
                Some(table) => {
                    sections.push(Self { path, table: Some(table), asked: Vec::new(), faults: self.faults })
                }
                None => self.faults.add(path, FaultKind::WrongForm { wanted: "a table", found: found(entry) }),
            }
        }
        sections
    }

    /// The entries of a table whose keys are names of the operator's own; `read` makes a value of
    /// each and says what it wants where it cannot.
    pub(super) fn entries<T>(
        &mut self,
        key: &'static str,
        wanted: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Vec<(String, T)> {
        let inner = self.table(key);
        let mut entries = Vec::new();
        for (name, value) in inner.table.into_iter().flatten() {
            match read(value) {
                _ if !values::is_name(name) => {
                    inner.fault(name, FaultKind::OutOfRange { wanted: NAME_WANTED.to_owned() });
                }
                Some(read) => entries.push((name.clone(), read)),
                None => inner.wrong(name, wanted, value),
            }
        }
        entries
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.read(key, "a text in quotes", |value| value.as_str().map(str::to_owned))
    }

    /// A text that can name something.
    pub(super) fn name(&mut self, key: &'static str) -> Option<String> {
        let text = self.text(key)?;
        if values::is_name(&text) {
            return Some(text);
        }
        self.fault(key, FaultKind::OutOfRange { wanted: NAME_WANTED.to_owned() });
        None
    }

    /// A name that must be there.
    pub(super) fn name_needed(&mut self, key: &'static str, wanted: &'static str) -> Option<String> {
        if self.value(key).is_none() {
            self.missing(key, wanted);
        }
        self.name(key)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A whole number within limits.
    pub(super) fn whole(&mut self, key: &'static str, min: u64, max: u64) -> Option<u64> {
        let number = self.read(key, "a whole number", Value::as_integer)?;
        match u64::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            Ok(_) | Err(_) => {
                self.fault(key, FaultKind::OutOfRange { wanted: format!("from {min} to {max}") });
                None
            }
        }
    }

    /// The same, for what is counted in 32 bits.
    pub(super) fn count(&mut self, key: &'static str, min: u32, max: u32) -> Option<u32> {
        self.whole(key, u64::from(min), u64::from(max)).and_then(|n| u32::try_from(n).ok())
    }

    /// A number within limits.
    pub(super) fn number(&mut self, key: &'static str, min: f64, max: f64) -> Option<f64> {
        let number = self.read(key, "a number", |value| {
            value.as_float().or_else(|| value.as_integer().and_then(|n| i32::try_from(n).ok()).map(f64::from))
        })?;
        if (min..=max).contains(&number) {
            return Some(number);
        }
        self.fault(key, FaultKind::OutOfRange { wanted: format!("from {min} to {max}") });
        None
    }

    /// A span of time within limits.
    pub(super) fn span(&mut self, key: &'static str, min: Duration, max: Duration) -> Option<Duration> {
        let span = self.read(key, "a span such as \"250ms\", \"30s\", \"2m\" or \"1h\"", |value| {
            value.as_str().and_then(values::span)
        })?;
        if (min..=max).contains(&span) {
            return Some(span);
        }
        let wanted = format!("from {} ms to {} s", min.as_millis(), max.as_secs());
        self.fault(key, FaultKind::OutOfRange { wanted });
        None
    }

    /// An amount of dollars, not negative.
    pub(super) fn usd(&mut self, key: &'static str) -> Option<NanoUsd> {
        let wanted = "dollars as a decimal number with at most nine digits after the point, such as \"0.15\"";
        let amount = self.read(key, wanted, read_usd)?;
        if amount >= NanoUsd::ZERO {
            return Some(amount);
        }
        self.fault(key, FaultKind::OutOfRange { wanted: "zero or more".to_owned() });
        None
    }

    /// A list of names, none twice, at least one.
    pub(super) fn names(&mut self, key: &'static str) -> Option<Vec<String>> {
        let names = self.read(key, NAMES_WANTED, read_names)?;
        check_names(self.faults, &self.at(key), &names);
        Some(names)
    }

    /// A limit a minute.
    pub(super) fn limit(&mut self, key: &'static str) -> Option<Limit> {
        let number = self.read(key, "a whole number", Value::as_integer)?;
        let limit = u64::try_from(number).ok().and_then(|number| Limit::new(number).ok());
        if limit.is_none() {
            self.fault(key, FaultKind::OutOfRange { wanted: Limit::WANTED.to_owned() });
        }
        limit
    }

    /// A list of whole percents; that they are in range is for whoever asked to see.
    pub(super) fn percents(&mut self, key: &'static str) -> Option<Vec<u8>> {
        self.read(key, "a list of whole percents, such as [50, 80, 95]", |value| {
            let entries = value.as_array()?.iter();
            entries.map(|entry| entry.as_integer().and_then(|n| u8::try_from(n).ok())).collect()
        })
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let chosen = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if chosen.is_none() {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.fault(key, FaultKind::OutOfRange { wanted: format!("one of {}", known.join(", ")) });
        }
        chosen
    }

    /// Whether a key is there, whatever its value; does not count as asking for it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Reports every key that nobody asked for.
    pub(super) fn end(self) {
        for key in self.table.into_iter().flat_map(Table::keys) {
            if !self.asked.contains(&key.as_str()) {
                self.fault(key, FaultKind::Unknown { nearest: nearest(key, &self.asked) });
            }
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.table.and_then(|table| table.get(key))
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        wanted: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let read = read(value);
        if read.is_none() {
            self.wrong(key, wanted, value);
        }
        read
    }

    fn wrong(&self, key: &str, wanted: &'static str, value: &Value) {
        self.fault(key, FaultKind::WrongForm { wanted, found: found(value) });
    }
}

/// What a list of names must be.
pub(super) const NAMES_WANTED: &str = "a list of names, such as [\"a\", \"b\"]";
const NAME_WANTED: &str = "1 to 128 bytes without white space or control characters";

/// A list of texts.
pub(super) fn read_names(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Reports a list that is empty, holds a name twice or something that is no name.
pub(super) fn check_names(faults: &Faults, path: &str, names: &[String]) {
    if names.is_empty() {
        faults.add(path, FaultKind::Empty { wanted: "at least one name" });
    }
    for (i, name) in names.iter().enumerate() {
        if !values::is_name(name) {
            faults.add(format!("{path}[{i}]"), FaultKind::OutOfRange { wanted: NAME_WANTED.to_owned() });
        } else if names.iter().take(i).any(|earlier| earlier == name) {
            faults.add(format!("{path}[{i}]"), FaultKind::Duplicate { name: name.clone() });
        }
    }
}

fn read_usd(value: &Value) -> Option<NanoUsd> {
    match value {
        Value::String(text) => values::usd(text),
        Value::Integer(whole) => values::usd(&whole.to_string()),
        Value::Float(float) => values::usd(&float.to_string()),
        Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

/// What stands there, in a few words: a text in quotes, cut short, or its type.
fn found(value: &Value) -> String {
    const SHOWN_CHARS: usize = 40;
    match value {
        Value::String(text) => {
            format!("\"{}\"", text.chars().take(SHOWN_CHARS).collect::<String>().escape_debug())
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => value.to_string(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

/// The known key that a misspelt one most probably means: at most a third of it is different.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let closest = known.iter().map(|candidate| (distance(key, candidate), *candidate)).min()?;
    (closest.0 * 3 <= key.len()).then_some(closest.1)
}

/// Letters to insert, drop or change to make one word of the other (Levenshtein).
fn distance(one: &str, two: &str) -> usize {
    let mut row: Vec<usize> = (0..=two.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for ((b, above), corner) in two.chars().zip(row.iter().skip(1)).zip(row.iter()) {
            left = (corner + usize::from(a != b)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_its_neighbour() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(nearest("lisen", &["listen", "reflection"]), Some("listen"));
        assert_eq!(nearest("colour", &["listen", "reflection"]), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
