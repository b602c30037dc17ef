//! The normal form of an answer: what two models must share to have said the same.
//!
//! Votes, feedback by `expected` and traces all compare answers by this one equality. What a trace
//! keeps of a long or free answer is a keyed hash, so a stolen store tells no text; labels and numbers
//! up to 64 bytes stay in clear. The hash is a checksum with a secret seed and no cryptographic code:
//! it keeps text out of a store, it does not stop somebody who has the secret from guessing.
//!
//! What is done to an answer, in this order:
//!
//! 1. The `answer_pattern`, where there is one, extracts its group from the first place that matches.
//! 2. NFKC, upper and lower case made equal, white space folded to single spaces.
//! 3. What surrounds the whole is peeled off, layer by layer: full stops at the end; a pair of
//!    quotes, brackets or Markdown marks (`*`, `_`, `` ` ``, `~`) that encloses all of it; a single
//!    bracket without its counterpart, as in `B)`. `(a) or (b)` and `f(x)` are enclosed by nothing.
//! 4. Labels: a leading `answer:` or `the answer is` is dropped, itself in Markdown or not. So `B`,
//!    `(b)`, `B.`, `Answer: B` and `**Answer:** B` are one; `B, because ...` and `option B` are not.
//! 5. Numbers: one leading `=`, a sign, a currency sign on either side and one percent sign are
//!    dropped (`50 %` is fifty), groups of three digits joined. Anything else around it, a decimal
//!    comma included, makes it no number: no vote is better than a misread one.
//!
//! JSON takes none of these steps but the pattern: it is parsed, out of a code fence if it stands in
//! one, and written with sorted keys, one spelling of numbers and no spaces. Its strings stay as they
//! are. An answer that comes out empty, and the JSON value null, have no normal form.

use regex::Regex;
use serde_json::{Number, Value};
use unicode_normalization::UnicodeNormalization as _;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::request::{AnswerKind, KindName};

/// The normal form of one answer.
#[derive(Debug, Clone, PartialEq)]
pub enum NormalForm {
    /// A normalised label or text, or the canonical form of a JSON document.
    Clear(String),
    /// A number; equal to another within a relative tolerance.
    Number(f64),
    /// The keyed hash of a clear form.
    Hashed(u128),
}

/// The longest label that a store keeps in clear, in bytes.
pub const CLEAR_BYTES_MAX: usize = 64;
/// The longest text that is tried as a number, in bytes: more than any f64 written out.
const NUMBER_BYTES_MAX: usize = 1_024;
/// How many layers of quotes, brackets and marks are peeled off: bounds the work on hostile text.
const LAYERS_MAX: usize = 64;
/// How many lead-ins in a row are dropped, for the same reason.
const LEAD_INS_MAX: usize = 8;
/// How often NFKC and case are repeated until neither changes anything; twice is enough for all of
/// Unicode known today.
const FOLDS_MAX: usize = 4;

const MARKS: [char; 4] = ['*', '_', '`', '~'];
const FULL_STOPS: [char; 2] = ['.', '。'];
const BRACKETS: [(char, char); 3] = [('(', ')'), ('[', ']'), ('{', '}')];
const QUOTES: [(char, char); 8] =
    [('"', '"'), ('\'', '\''), ('“', '”'), ('‘', '’'), ('„', '“'), ('«', '»'), ('‹', '›'), ('「', '」')];

impl NormalForm {
    /// This form as its keyed hash; a hash stays what it is.
    #[must_use]
    pub fn hashed(&self, secret: u64) -> Self {
        match self {
            Self::Clear(text) => Self::Hashed(keyed_hash(b"clear\0", text.as_bytes(), secret)),
            Self::Number(x) => Self::Hashed(keyed_hash(b"number\0", &x.to_bits().to_le_bytes(), secret)),
            Self::Hashed(hash) => Self::Hashed(*hash),
        }
    }

    /// This form as a store keeps it: numbers, and labels up to [`CLEAR_BYTES_MAX`], in clear, all
    /// else hashed.
    #[must_use]
    pub fn stored(&self, kind: KindName, secret: u64) -> Self {
        match (self, kind) {
            (Self::Number(_) | Self::Hashed(_), _) => self.clone(),
            (Self::Clear(text), KindName::Label) if text.len() <= CLEAR_BYTES_MAX => self.clone(),
            (Self::Clear(_), _) => self.hashed(secret),
        }
    }
}

/// Whether two answers are the same: numbers within the relative `tolerance` of the larger, hashes
/// against clear forms under the installation's secret.
#[must_use]
pub fn same(a: &NormalForm, b: &NormalForm, tolerance: f64, secret: u64) -> bool {
    match (a, b) {
        (NormalForm::Number(x), NormalForm::Number(y)) => numbers_same(*x, *y, tolerance),
        (NormalForm::Clear(x), NormalForm::Clear(y)) => x == y,
        (NormalForm::Hashed(_), _) | (_, NormalForm::Hashed(_)) => a.hashed(secret) == b.hashed(secret),
        (NormalForm::Clear(_), NormalForm::Number(_)) | (NormalForm::Number(_), NormalForm::Clear(_)) => false,
    }
}

/// Whether two numbers differ by no more than `tolerance` times the larger of them.
#[must_use]
pub fn numbers_same(x: f64, y: f64, tolerance: f64) -> bool {
    (x - y).abs() <= tolerance * x.abs().max(y.abs())
}

/// What the pattern extracts from a text; the whole text without one, `None` where it does not match.
#[must_use]
pub fn extract<'t>(text: &'t str, pattern: Option<&Regex>) -> Option<&'t str> {
    match pattern {
        None => Some(text),
        Some(pattern) => pattern.captures(text)?.get(1).map(|group| group.as_str()),
    }
}

/// The normal form of a model's text; `None` for an answer that casts no vote.
#[must_use]
pub fn normalise(text: &str, kind: &AnswerKind, pattern: Option<&Regex>) -> Option<NormalForm> {
    let text = extract(text, pattern)?;
    match kind {
        AnswerKind::Label { allowed } => {
            let label = label_form(text)?;
            let known = allowed.is_empty() || allowed.iter().any(|a| label_form(a).as_ref() == Some(&label));
            known.then_some(NormalForm::Clear(label))
        }
        AnswerKind::Number { .. } => number(text).map(NormalForm::Number),
        AnswerKind::Json { .. } => canonical_json(text).map(NormalForm::Clear),
        AnswerKind::Text => {
            let folded = fold(text);
            let bare = bare(&folded);
            (!bare.is_empty()).then(|| NormalForm::Clear(bare.to_owned()))
        }
    }
}

/// The normal form of a label; `None` when nothing of it is left.
#[must_use]
pub fn label_form(text: &str) -> Option<String> {
    let folded = fold(text);
    let mut label = bare(&folded);
    for _ in 0..LEAD_INS_MAX {
        let shorter = bare(without_lead_in(label));
        if shorter.len() == label.len() {
            break;
        }
        label = shorter;
    }
    (!label.is_empty()).then(|| label.to_owned())
}

fn keyed_hash(domain: &[u8], bytes: &[u8], secret: u64) -> u128 {
    // The secret also permutes feature buckets: each use derives a seed of its own.
    let mut hash = Xxh3::with_seed(xxh3_64_with_seed(b"pointsman normal form", secret));
    hash.update(domain);
    hash.update(bytes);
    hash.digest128()
}

/// NFKC, one case, single spaces, no invisible spaces.
fn fold(text: &str) -> String {
    let mut folded = spaced(text);
    if folded.is_ascii() {
        folded.make_ascii_lowercase();
        return folded;
    }
    for _ in 0..FOLDS_MAX {
        // By way of upper case, so that `ß` meets `ss` and both forms of sigma meet.
        let cased: String =
            folded.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect();
        let next = spaced(&cased);
        if next == folded {
            break;
        }
        folded = next;
    }
    folded
}

fn spaced(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace() || c == '\u{200b}' || c == '\u{feff}') {
        if !word.is_empty() {
            if !spaced.is_empty() {
                spaced.push(' ');
            }
            spaced.push_str(word);
        }
    }
    spaced
}

/// Peels off what surrounds a folded text.
fn bare(mut text: &str) -> &str {
    for _ in 0..LAYERS_MAX {
        let stopped = text.trim().trim_end_matches(FULL_STOPS).trim_end();
        let inner = peeled(stopped).unwrap_or(stopped);
        if inner.len() == text.len() {
            break;
        }
        text = inner;
    }
    text
}

/// The text without one layer around it; `None` where there is none.
fn peeled(text: &str) -> Option<&str> {
    let mark = text.chars().next()?;
    if MARKS.contains(&mark) {
        return unmarked(text, mark);
    }
    QUOTES
        .iter()
        .find_map(|(open, close)| {
            let inner = text.strip_prefix(*open)?.strip_suffix(*close)?;
            (!inner.contains([*open, *close])).then_some(inner)
        })
        .or_else(|| BRACKETS.iter().find_map(|(open, close)| unbracketed(text, *open, *close)))
}

/// `**x**` without its marks. `*x* or *y*` is not one marked text.
fn unmarked(text: &str, mark: char) -> Option<&str> {
    let inner = text.trim_matches(mark);
    if inner.is_empty() {
        return Some("");
    }
    let before = text.len() - text.trim_start_matches(mark).len();
    let after = text.len() - text.trim_end_matches(mark).len();
    let run = before.min(after);
    let marks = text.get(..run)?;
    let inner = text.get(run..text.len() - run)?;
    (run > 0 && !inner.contains(marks)).then_some(inner)
}

/// `(x)` without its brackets, or `x)` and `(x` without the one that stands alone.
fn unbracketed(text: &str, open: char, close: char) -> Option<&str> {
    match (text.strip_prefix(open), text.strip_suffix(close)) {
        (Some(rest), Some(_)) => rest.strip_suffix(close).filter(|inner| is_balanced(inner, open, close)),
        (Some(rest), None) => (!rest.contains(close)).then_some(rest),
        (None, Some(rest)) => (!rest.contains(open)).then_some(rest),
        (None, None) => None,
    }
}

/// Whether no bracket in the text closes one that was opened before it.
fn is_balanced(text: &str, open: char, close: char) -> bool {
    let mut depth = 0_usize;
    for c in text.chars() {
        if c == open {
            depth += 1;
        } else if c == close {
            let Some(less) = depth.checked_sub(1) else { return false };
            depth = less;
        }
    }
    depth == 0
}

/// A folded text without a leading `answer:` or `the answer is`, each in Markdown marks or not.
fn without_lead_in(text: &str) -> &str {
    let lead = text.trim_start_matches(MARKS);
    let marks = text.strip_suffix(lead).unwrap_or_default();
    let closed = |rest| str::strip_prefix(rest, marks).unwrap_or(rest);
    if let Some(rest) = lead.strip_prefix("answer") {
        return closed(rest).trim_start().strip_prefix(':').map_or(text, closed);
    }
    match lead.strip_prefix("the answer is").map(closed) {
        Some(rest) if rest.starts_with([' ', ':']) => {
            let rest = rest.trim_start();
            closed(rest.strip_prefix(':').unwrap_or(rest))
        }
        Some(_) | None => text,
    }
}

/// The number that a text is and holds nothing beside.
fn number(text: &str) -> Option<f64> {
    // NFKC would make 102 of 10².
    if text.chars().any(|c| matches!(c, '²' | '³' | '¹' | '\u{2070}'..='\u{209c}')) {
        return None;
    }
    let folded = fold(text);
    if folded.len() > NUMBER_BYTES_MAX {
        return None;
    }
    let text = bare(&folded);
    let text = bare(text.strip_prefix('=').unwrap_or(text));
    let (negative, text) = unsigned(text);
    let text = text.strip_prefix(is_currency).unwrap_or(text).trim_start();
    let (also_negative, text) = if negative.is_none() { unsigned(text) } else { (None, text) };
    let text = text.strip_suffix(|c| c == '%' || is_currency(c)).unwrap_or(text).trim_end();
    let magnitude = ungrouped(text)?;
    let x: f64 = magnitude.parse().ok()?;
    let sign = if negative.or(also_negative) == Some(true) { -1.0 } else { 1.0 };
    // Adding zero makes 0 of -0.
    x.is_finite().then_some(sign * x + 0.0)
}

/// Whether there is a sign and whether it is minus, and the rest.
fn unsigned(text: &str) -> (Option<bool>, &str) {
    if let Some(rest) = text.strip_prefix(['-', '\u{2212}']) {
        (Some(true), rest.trim_start())
    } else if let Some(rest) = text.strip_prefix('+') {
        (Some(false), rest.trim_start())
    } else {
        (None, text)
    }
}

fn is_currency(c: char) -> bool {
    matches!(c, '$' | '¢' | '£' | '¤' | '¥' | '\u{20a0}'..='\u{20cf}')
}

/// A decimal number without its thousands separators; `None` when it is none or they stand wrong.
fn ungrouped(text: &str) -> Option<String> {
    let (mantissa, exponent) = text.split_once('e').map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, ""), |(w, f)| (w, f));
    let separator = whole.chars().find(|c| !c.is_ascii_digit());
    let whole = match separator {
        None => whole.to_owned(),
        Some(mark @ (',' | ' ' | '_' | '\'' | '’')) => {
            let mut groups = whole.split(mark);
            let first = groups.next()?;
            let all_threes = groups.all(|group| group.len() == 3 && is_digits(group));
            (all_threes && (1..=3).contains(&first.len())).then(|| whole.replace(mark, ""))?
        }
        Some(_) => return None,
    };
    if !is_digits(&whole) || !is_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let exponent = match exponent {
        None => String::new(),
        Some(exponent) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            (!digits.is_empty() && is_digits(digits)).then(|| format!("e{exponent}"))?
        }
    };
    Some(format!("{whole}.{fraction}{exponent}"))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn canonical_json(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(unfenced(text)).ok()?;
    if value.is_null() {
        return None;
    }
    let mut canonical = String::with_capacity(text.len());
    write_json(&value, &mut canonical);
    Some(canonical)
}

/// The inside of a code fence that encloses the whole text, else the text.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let inside = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inside.map_or(text, |inside| {
        let language = inside.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
        // A number or a word is no language when no line ends after it.
        if language.starts_with(['\n', '\r']) { language } else { inside }
    })
}

/// Recursion is bounded by the parser, which refuses documents deeper than 128.
fn write_json(value: &Value, out: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
        Value::Number(number) => out.push_str(&one_spelling(number)),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (i, (key, item)) in fields.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json(&Value::from(key.as_str()), out);
                out.push(':');
                write_json(item, out);
            }
            out.push('}');
        }
    }
}

/// Whole numbers without a point or exponent up to 21 digits, as JavaScript writes them.
#[expect(clippy::cast_possible_truncation, reason = "below 1e21 and without a fraction: exact in i128")]
fn one_spelling(number: &Number) -> String {
    match number.as_f64() {
        Some(x) if number.is_f64() && x.fract() == 0.0 && x.abs() < 1e21 => (x as i128).to_string(),
        Some(_) | None => number.to_string(),
    }
}

#[cfg(test)]
mod tests;
