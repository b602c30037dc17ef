//! Who says what: which sources of feedback depart from the others, and how much those may still teach.
//!
//! # What tells poison apart
//!
//! One label says nothing of whoever gave it, and how often a source says "right" says as much of its
//! prompts as of its honesty. So each source is weighed by its residuals, label minus what was predicted
//! before anybody learned it, in cells of one model and one half of the predictions. A wrong prediction is
//! wrong for all: only the difference to the others counts, and it is the others' *median*, where a source
//! weighs as much as the root of its recent labels: neither one loud voice nor a crowd of faint ones is the
//! truth. Of a source at least [`LABELS_MIN`] labels, after [`GRACE`] in which the heads learn what is
//! peculiar to its prompts, the squared departure beyond chance is
//! `D² = Σ n (d² − s²) / Σ n`, with d the difference in a cell of n labels and s² the variance of it; it
//! departs while D² exceeds [`DEPARTURE`]² by two standard deviations of what chance makes of it.
//!
//! # What becomes of it
//!
//! When one is first found out, the heads are loosened: what it has taught gives way to what the others say.
//! A source that departs has a bucket of tokens, filled by what the others teach at share / (1 − share) a
//! label: it teaches while there are any, in part where only a part is left, so its share of the
//! information stays within the share. Nobody else is limited at all. Where nobody can be told from anybody,
//! with one source, or two of about the same weight, nobody departs. Sources in their grace share one
//! account, so that a new name for every lie gains nothing.
//!
//! It all depends on the labels and their order alone, and is a part of the online state, so a rebuild
//! comes to the same. Sources, cells and what is remembered of them have bounds.

mod bytes;

use std::collections::BTreeMap;

/// Sources with an account of their own, at most: the newest takes the place of the one that said least.
pub const SOURCES_MAX: usize = 256;
/// First labels of a source that are not held against it.
pub const GRACE: u64 = 48;
/// Recent labels before a source is judged; those in their grace are judged together after four times as many.
pub const LABELS_MIN: f64 = 40.0;
/// Labels of a source in a cell before it says anything.
const CELL_MIN: f64 = 8.0;
/// How far a source is from the others on the mean before it departs, in probabilities of being right.
pub const DEPARTURE: f64 = 0.2;
/// By how much others must outweigh a source to judge it.
const MAJORITY: f64 = 1.5;
/// Labels of everybody after which each recent one counts by half.
const WINDOW: f64 = 4_096.0;
/// Labels of everybody after which sources are judged anew.
const JUDGE_EVERY: u64 = 32;
/// Labels that a departing source may teach at once.
const BURST: f64 = 8.0;
/// The share that a departing source gets, at most: half of all information.
const SHARE_MAX: f64 = 0.5;

/// Who says it, and how much of all information it may be while it departs from the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Witness<'a> {
    /// The source.
    pub source: &'a str,
    /// A share in [0, ½]; from 1 on nobody is limited.
    pub share_max: f64,
}

/// A label beside what had been predicted of a lane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heard {
    /// The lane of the model.
    pub lane: usize,
    /// The label.
    pub label: f64,
    /// The quality that a policy would have reckoned with.
    pub predicted: f64,
}

/// Recent residuals in one cell.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Cell {
    pub(crate) labels: f64,
    pub(crate) sum: f64,
    pub(crate) squares: f64,
}

impl Cell {
    fn mean(&self) -> f64 {
        self.sum / self.labels.max(1.0)
    }

    /// The variance of the mean; a few equal labels are not certainty.
    fn variance(&self) -> f64 {
        let mean = self.mean();
        (self.squares / self.labels.max(1.0) - mean * mean).max(VARIANCE_MIN) / self.labels.max(1.0)
    }
}

/// No label tells more than one of a model that is right nineteen times in twenty.
const VARIANCE_MIN: f64 = 0.05;

/// What is remembered of one source.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Account {
    /// Labels that it ever gave.
    pub labels: u64,
    /// What of them was taught, in labels.
    pub taught: f64,
    /// Whether it departs from the others.
    pub departs: bool,
    /// Whether it ever did.
    pub(crate) departed: bool,
    pub(crate) tokens: f64,
    /// What everybody had been taught when tokens were counted last.
    pub(crate) counted_at: f64,
    /// By twice the lane, plus one where the prediction was above a half.
    pub(crate) cells: BTreeMap<u32, Cell>,
}

impl Account {
    fn recent(&self) -> f64 {
        self.cells.values().map(|cell| cell.labels).sum()
    }

    fn note(&mut self, heard: &Heard) {
        let half = u32::from(heard.predicted >= 0.5);
        let at = u32::try_from(heard.lane).unwrap_or(u32::MAX / 2).saturating_mul(2).saturating_add(half);
        let cell = self.cells.entry(at).or_default();
        let residual = heard.label - heard.predicted;
        cell.labels += 1.0;
        cell.sum += residual;
        cell.squares += residual * residual;
    }

    fn fade(&mut self) {
        for cell in self.cells.values_mut() {
            *cell = Cell { labels: cell.labels / 2.0, sum: cell.sum / 2.0, squares: cell.squares / 2.0 };
        }
        self.cells.retain(|_, cell| cell.labels >= 0.5);
    }

    /// How much of a label it may teach now, which it then has taught.
    fn draw(&mut self, share_max: f64, taught: f64) -> f64 {
        let filled = std::mem::replace(&mut self.counted_at, taught);
        if !self.departs || share_max >= 1.0 {
            self.tokens = 0.0;
            return 1.0;
        }
        let share = share_max.clamp(0.0, SHARE_MAX);
        self.tokens = (self.tokens + (taught - filled) * share / (1.0 - share)).min(BURST);
        let weight = self.tokens.min(1.0);
        self.tokens -= weight;
        // What it teaches itself fills nothing.
        self.counted_at += weight;
        weight
    }
}

/// The accounts of all sources.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sources {
    pub(crate) accounts: BTreeMap<String, Account>,
    /// Of all in their grace.
    pub(crate) newcomers: Account,
    /// Labels there ever were.
    pub(crate) labels: u64,
    /// Labels since all was last halved.
    pub(crate) since_fade: f64,
    /// What was taught, in labels.
    pub(crate) taught: f64,
}

impl Sources {
    /// What is remembered of each source, by name.
    pub fn accounts(&self) -> impl ExactSizeIterator<Item = (&str, &Account)> {
        self.accounts.iter().map(|(source, account)| (source.as_str(), account))
    }

    /// Takes in a first label and says what it weighs, from 0 to 1, and whether a source has just been found
    /// to depart that never did before.
    pub(crate) fn hear(&mut self, from: Witness<'_>, heard: &Heard) -> (f64, bool) {
        self.labels += 1;
        self.since_fade += 1.0;
        if self.since_fade > WINDOW {
            self.since_fade /= 2.0;
            self.accounts.values_mut().for_each(Account::fade);
            self.newcomers.fade();
        }
        let account = entry(&mut self.accounts, from.source);
        account.labels += 1;
        if account.labels > GRACE {
            account.note(heard);
        } else {
            self.newcomers.labels += 1;
            if self.newcomers.labels > GRACE {
                self.newcomers.note(heard);
            }
        }
        let found = self.labels.is_multiple_of(JUDGE_EVERY) && self.judge();
        (self.weigh(from), found && from.share_max < 1.0)
    }

    /// What a label weighs that is not the first of its decision and model.
    pub(crate) fn weigh(&mut self, from: Witness<'_>) -> f64 {
        let account = entry(&mut self.accounts, from.source);
        let standing = if account.labels > GRACE { &mut *account } else { &mut self.newcomers };
        let weight = standing.draw(from.share_max, self.taught);
        account.taught += weight;
        self.taught += weight;
        weight
    }

    /// Says anew of everybody whether they depart; true where one does that never did.
    fn judge(&mut self) -> bool {
        let everybody: Vec<&Account> = self.accounts.values().chain([&self.newcomers]).collect();
        let enough = |i: usize| if i + 1 == everybody.len() { 4.0 * LABELS_MIN } else { LABELS_MIN };
        let weights: Vec<f64> = everybody
            .iter()
            .enumerate()
            .map(|(i, account)| Some(account.recent()).filter(|n| *n >= enough(i)).map_or(0.0, f64::sqrt))
            .collect();
        let mut found = vec![Departure::default(); everybody.len()];
        let mut cells: BTreeMap<u32, Vec<Voice>> = BTreeMap::new();
        for (who, (account, weight)) in everybody.iter().zip(&weights).enumerate() {
            for (at, cell) in account.cells.iter().filter(|(_, cell)| *weight > 0.0 && cell.labels >= CELL_MIN) {
                cells.entry(*at).or_default().push(Voice { who, weight: *weight, cell: *cell });
            }
        }
        cells.into_values().for_each(|voices| compare(voices, &mut found));
        let accounts = self.accounts.values_mut().chain([&mut self.newcomers]);
        let mut is_new = false;
        for (account, found) in accounts.zip(found) {
            account.departs = found.is_beyond_chance();
            is_new |= account.departs && !account.departed;
            account.departed |= account.departs;
        }
        is_new
    }
}

/// The account of a source; a new one takes the place of the one that said least.
fn entry<'a>(accounts: &'a mut BTreeMap<String, Account>, source: &str) -> &'a mut Account {
    if !accounts.contains_key(source) && accounts.len() >= SOURCES_MAX {
        let least = accounts.iter().min_by_key(|(_, account)| account.labels).map(|(name, _)| name.clone());
        if let Some(least) = least {
            accounts.remove(&least);
        }
    }
    accounts.entry(source.to_owned()).or_default()
}

/// What one source says in a cell.
struct Voice {
    who: usize,
    weight: f64,
    cell: Cell,
}

/// How far a source is from the others, summed over cells.
#[derive(Debug, Clone, Copy, Default)]
struct Departure {
    labels: f64,
    squares: f64,
    /// Of `squares`, as far as chance makes it.
    variance: f64,
}

impl Departure {
    fn is_beyond_chance(&self) -> bool {
        self.labels >= LABELS_MIN
            && self.squares - 2.0 * self.variance.sqrt() > DEPARTURE * DEPARTURE * self.labels
    }
}

/// Holds everybody who is outweighed by the others against the median of all.
fn compare(mut voices: Vec<Voice>, found: &mut [Departure]) {
    let total: f64 = voices.iter().map(|voice| voice.weight).sum();
    voices.sort_by(|a, b| a.cell.mean().total_cmp(&b.cell.mean()).then(a.who.cmp(&b.who)));
    let mut below = 0.0;
    let median = voices.iter().find(|voice| {
        below += voice.weight;
        below >= total / 2.0
    });
    let Some((who, cell)) = median.map(|voice| (voice.who, voice.cell)) else { return };
    for voice in voices.iter().filter(|voice| total - voice.weight >= MAJORITY * voice.weight) {
        let Some(found) = found.get_mut(voice.who) else { continue };
        let n = voice.cell.labels;
        found.labels += n;
        if voice.who != who {
            let (difference, chance) = (voice.cell.mean() - cell.mean(), voice.cell.variance() + cell.variance());
            found.squares += n * (difference * difference - chance);
            found.variance += 2.0 * (n * chance) * (n * chance);
        }
    }
}

#[cfg(test)]
mod tests;
