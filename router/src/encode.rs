//! Encode: from a request's text, tags and embedding to the numbers that a policy sees.
//!
//! The user messages, joined by a newline, become signed counts of hashed word 1-2-grams and
//! character 3-5-grams, and eight surface statistics. Of a text over 8 KiB only the first and the
//! last 4 KiB count, so the time spent here is bounded whatever arrives. The system text is a tag.
//!
//! Everything is a pure function of the request and the installation's secret, which permutes the
//! buckets: features of two installations cannot be joined, and a stolen trace cannot be matched
//! against a dictionary without it. Words are runs of alphanumeric characters, lower-cased; character
//! n-grams are taken over the UTF-8 bytes of the lower-cased text with runs of white space folded to
//! one space, so outside ASCII an n-gram covers fewer characters. This module must never keep text.
//!
//! Counting goes through a table per thread that is cleared by what was touched, never whole.

#![expect(clippy::indexing_slicing, reason = "tables of fixed size, indexed by integers that cannot exceed them")]
#![expect(clippy::cast_possible_truncation, reason = "hashes are cut to the bits that a bucket has")]

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::admit::Admitted;
use crate::decision::Task;
use crate::features::{
    FIRST_CHAR_BUCKET, Features, SKETCH_DIMS, SURFACE_DIMS, SchemaHash, TAG_BUCKETS, TEXT_BUCKETS, TextCount,
};
use crate::request::{Message, Request, Role};
use crate::task;

/// Changes whenever the same text gives other numbers.
const ENCODING_VERSION: &str = "pointsman features 1";
/// Bytes of text at each end that count.
const END_BYTES: usize = 4 << 10;

/// An admitted request with its features.
#[derive(Debug)]
pub struct Encoded {
    /// The admitted request.
    pub admitted: Admitted,
    /// Its features; the trace keeps the same.
    pub features: Arc<Features>,
    /// What the policy that it is pinned to made of them.
    pub projected: Vec<f32>,
    /// Its task type, given or inferred.
    pub task: Task,
}

/// Encodes an admitted request; its task type is inferred where the caller named none.
#[must_use]
pub fn encode(encoder: &Encoder, admitted: Admitted) -> Encoded {
    let features = Arc::new(encoder.encode(&admitted.request));
    let policy = &admitted.snapshot.policy;
    let projected = policy.project(&features);
    let task = match &admitted.request.task_type {
        Some(name) => Task { name: name.clone(), inferred: false },
        None => {
            let name = policy.infer_task(&projected).unwrap_or_else(|| task::infer(&features));
            Task { name, inferred: true }
        }
    };
    Encoded { admitted, features, projected, task }
}

/// Makes features; immutable, one per installation.
#[derive(Debug, Clone)]
pub struct Encoder {
    permutation: Permutation,
    tag_seed: u64,
    schema: SchemaHash,
}

impl Encoder {
    /// The encoder of an installation with this secret.
    #[must_use]
    pub fn new(secret: u64) -> Self {
        let mixed = xxh3_64_with_seed(b"buckets", secret);
        // The schema is public, so it is made of half of the secret's hash: the other half stays hidden.
        let shown = (xxh3_64_with_seed(b"schema", secret) >> 32) as u32;
        let sizes = [TEXT_BUCKETS, TAG_BUCKETS, SKETCH_DIMS, SURFACE_DIMS].map(|n| n.to_string()).join(" ");
        let schema = xxh3_64(format!("{ENCODING_VERSION} {sizes} {shown:08x}").as_bytes());
        Self {
            permutation: Permutation::new(mixed),
            tag_seed: xxh3_64_with_seed(b"tags", secret),
            schema: SchemaHash(schema),
        }
    }

    /// What the features mean; equal for equal secrets and versions alone.
    #[must_use]
    pub fn schema(&self) -> SchemaHash {
        self.schema
    }

    /// The features of a request.
    #[must_use]
    pub fn encode(&self, request: &Request) -> Features {
        let text = ends(&request.prompt.messages);
        Features {
            text: self.counts(&text),
            surface: surface(&text, bytes_sent(&request.prompt.messages)),
            tags: self.tags(&request.tags, &request.prompt.system),
            sketch: sketch(&request.embedding),
            prompt_bytes: u32::try_from(request.prompt.bytes()).unwrap_or(u32::MAX),
            schema: self.schema,
        }
    }

    fn counts(&self, text: &str) -> Vec<TextCount> {
        TABLE.with_borrow_mut(|table| {
            let mut words = Words::new();
            let mut folded = std::mem::take(&mut table.folded);
            let mut add = |hash| table.add(hash, 0, self.permutation);
            if text.is_ascii() {
                fold_ascii(text.as_bytes(), &mut folded, &mut words, &mut add);
            } else {
                fold_unicode(text, &mut folded, &mut words, &mut add);
            }
            char_grams(&folded, &mut |hash| table.add(hash, FIRST_CHAR_BUCKET, self.permutation));
            table.folded = folded;
            table.drain()
        })
    }

    fn tags(&self, tags: &BTreeMap<String, String>, system: &str) -> Vec<u16> {
        let bucket = |bytes: &[u8]| (xxh3_64_with_seed(bytes, self.tag_seed) % TAG_BUCKETS as u64) as u16;
        let mut buckets: Vec<u16> =
            tags.iter().map(|(key, value)| bucket(format!("{key}={value}").as_bytes())).collect();
        if !system.is_empty() {
            // No key is empty, so no tag can pass for a system text.
            buckets.push(bucket(format!("={system}").as_bytes()));
        }
        buckets.sort_unstable();
        buckets.dedup();
        buckets
    }
}

/// A bijection of the 32,768 buckets of words, and of those of characters.
#[derive(Debug, Clone, Copy)]
struct Permutation {
    keys: [u16; 4],
}

/// The lower 15 bits of a bucket; the upper one says word or character.
const WITHIN: u16 = FIRST_CHAR_BUCKET - 1;

impl Permutation {
    fn new(mixed: u64) -> Self {
        let [a, b, c, d] = [0, 16, 32, 48].map(|shift| (mixed >> shift) as u16);
        Self { keys: [a & WITHIN, b | 1, c | 1, d] }
    }

    /// Each step (xor, odd multiple, xor with a shift of itself, sum) can be undone, so the whole can.
    fn apply(self, within: u16) -> u16 {
        let [a, b, c, d] = self.keys;
        let mut x = (within ^ a).wrapping_mul(b) & WITHIN;
        x ^= x >> 7;
        x = x.wrapping_mul(c) & WITHIN;
        x ^= x >> 8;
        x.wrapping_add(d) & WITHIN
    }
}

/// The counts of one text: a table, and one bit per bucket that was touched.
struct Table {
    counts: Box<[i16; TEXT_BUCKETS]>,
    touched: Box<[u64; TEXT_BUCKETS / 64]>,
    folded: Vec<u8>,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::new(Table {
        counts: Box::new([0; TEXT_BUCKETS]),
        touched: Box::new([0; TEXT_BUCKETS / 64]),
        folded: Vec::new(),
    });
}

impl Table {
    /// The upper 15 bits of the hash are the bucket within its kind, a lower one is the sign.
    #[inline]
    fn add(&mut self, hash: u64, first: u16, permutation: Permutation) {
        let bucket = usize::from(first | permutation.apply((hash >> 49) as u16));
        let sign = 1 - 2 * ((hash >> 47) & 1) as i16;
        self.counts[bucket] = self.counts[bucket].saturating_add(sign);
        self.touched[bucket / 64] |= 1 << (bucket % 64);
    }

    /// All counts that are not zero, ascending by bucket; leaves the table empty.
    fn drain(&mut self) -> Vec<TextCount> {
        let touched: u32 = self.touched.iter().map(|word| word.count_ones()).sum();
        let mut counts = Vec::with_capacity(touched as usize);
        for (at, word) in self.touched.iter_mut().enumerate() {
            let mut bits = std::mem::take(word);
            while bits != 0 {
                let bucket = at * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let count = std::mem::take(&mut self.counts[bucket]);
                if count != 0 {
                    counts.push(TextCount { bucket: bucket as u16, count });
                }
            }
        }
        counts
    }
}

/// Two multiplications and a shift spread every input bit over the upper half, where buckets are
/// taken from.
#[inline]
fn mix(x: u64) -> u64 {
    let x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

const WORD_SEED: u64 = 0xa076_1d64_78bd_642f;
const PAIR_SEED: u64 = 0xe703_7ed1_a0b4_28db;
const CHAR_SEEDS: [u64; 3] = [0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3, 0x1d8e_4e27_c47d_124f];

/// Hashes words byte by byte as they come.
struct Words {
    word: u64,
    inside: bool,
    previous: Option<u64>,
}

impl Words {
    fn new() -> Self {
        Self { word: WORD_SEED, inside: false, previous: None }
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.word = (self.word ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        self.inside = true;
    }

    #[inline]
    fn end(&mut self, add: &mut impl FnMut(u64)) {
        if self.inside {
            let word = std::mem::replace(&mut self.word, WORD_SEED);
            add(mix(word));
            if let Some(previous) = self.previous.replace(word) {
                add(mix(mix(previous ^ PAIR_SEED) ^ word));
            }
            self.inside = false;
        }
    }
}

/// Appends the lower-cased text between two spaces, white space folded, and hashes its words.
fn fold_ascii(text: &[u8], folded: &mut Vec<u8>, words: &mut Words, add: &mut impl FnMut(u64)) {
    folded.clear();
    folded.push(b' ');
    for byte in text {
        let lower = byte.to_ascii_lowercase();
        if lower.is_ascii_alphanumeric() {
            words.byte(lower);
            folded.push(lower);
        } else {
            words.end(add);
            if !matches!(lower, b'\t'..=b'\r' | b' ') {
                folded.push(lower);
            } else if folded.last() != Some(&b' ') {
                folded.push(b' ');
            }
        }
    }
    close(folded, words, add);
}

/// The same for any text; of ASCII text it makes the same.
fn fold_unicode(text: &str, folded: &mut Vec<u8>, words: &mut Words, add: &mut impl FnMut(u64)) {
    folded.clear();
    folded.push(b' ');
    for c in text.chars() {
        let in_word = c.is_alphanumeric();
        if !in_word {
            words.end(add);
        }
        if c.is_whitespace() {
            if folded.last() != Some(&b' ') {
                folded.push(b' ');
            }
            continue;
        }
        for lower in c.to_lowercase() {
            for byte in lower.encode_utf8(&mut [0; 4]).bytes() {
                if in_word {
                    words.byte(byte);
                }
                folded.push(byte);
            }
        }
    }
    close(folded, words, add);
}

fn close(folded: &mut Vec<u8>, words: &mut Words, add: &mut impl FnMut(u64)) {
    words.end(add);
    if folded.last() != Some(&b' ') {
        folded.push(b' ');
    }
}

/// Hashes every run of three, four and five bytes; the last five stand in one integer.
fn char_grams(folded: &[u8], add: &mut impl FnMut(u64)) {
    let mut window = 0_u64;
    for (at, byte) in folded.iter().enumerate() {
        window = (window << 8 | u64::from(*byte)) & 0xff_ffff_ffff;
        for (length, seed) in [3, 4, 5].into_iter().zip(CHAR_SEEDS) {
            if at + 1 >= length {
                add(mix((window & ((1 << (8 * length)) - 1)) ^ seed));
            }
        }
    }
}

fn user_texts(messages: &[Message]) -> impl DoubleEndedIterator<Item = &str> {
    messages.iter().filter(|m| m.role == Role::User).map(|m| m.content.as_str())
}

/// The text that counts: all of it, or its two ends, cut where characters begin.
fn ends(messages: &[Message]) -> Cow<'_, str> {
    let bytes: usize = user_texts(messages).map(|text| text.len() + 1).sum();
    if bytes <= 2 * END_BYTES + 1 {
        let mut texts = user_texts(messages);
        return match (texts.next(), texts.next()) {
            (Some(only), None) => Cow::Borrowed(only),
            _ => Cow::Owned(user_texts(messages).collect::<Vec<_>>().join("\n")),
        };
    }
    let mut head = String::with_capacity(2 * END_BYTES + 1);
    for text in user_texts(messages) {
        let left = END_BYTES - head.len();
        head.push_str(text.get(..text.floor_char_boundary(left)).unwrap_or_default());
        if text.len() >= left {
            break;
        }
        head.push('\n');
    }
    let mut tail = Vec::new();
    let mut left = END_BYTES;
    for text in user_texts(messages).rev() {
        let cut = text.get(text.ceil_char_boundary(text.len().saturating_sub(left))..).unwrap_or_default();
        tail.push(cut);
        left = left.saturating_sub(text.len() + 1);
        if left == 0 {
            break;
        }
    }
    for text in tail.into_iter().rev() {
        head.push('\n');
        head.push_str(text);
    }
    Cow::Owned(head)
}

/// Bytes of all user messages: the length that the first statistic tells, also of a text that was cut.
fn bytes_sent(messages: &[Message]) -> usize {
    user_texts(messages).map(str::len).sum()
}

/// The eight surface statistics, squashed by tanh so that no text is far from the others.
///
/// | at | statistic | formula |
/// |---|---|---|
/// | 0 | length n in bytes | tanh((ln(1 + n) − 6) / 1.5) |
/// | 1 | share of digits | tanh(8 · digits / n) |
/// | 2 | share of code symbols | tanh(8 · symbols / n) |
/// | 3 | share of upper case among letters | tanh(8 · upper / letters) |
/// | 4 | lines | tanh(ln(lines) / 2 − 0.5) |
/// | 5 | mean length of a word | tanh((letters / words − 4.5) / 1.5) |
/// | 6 | questions and choices ("A." or "B)" at a line's start) | tanh(questions / 4 + choices / 12) |
/// | 7 | share of non-ASCII characters | tanh(8 · others / characters) |
///
/// Lengths and shares are those of the text that counts; only the first is of all that was sent. libm
/// makes them the same on every machine.
fn surface(text: &str, sent: usize) -> [f32; SURFACE_DIMS] {
    let count = |wanted: fn(u8) -> bool| text.bytes().map(|byte| u32::from(wanted(byte))).sum::<u32>() as f32;
    let n = text.len().max(1) as f32;
    let digits = count(|b| b.is_ascii_digit());
    let symbols = count(is_code_symbol);
    let lines = 1.0 + count(|b| b == b'\n');
    let questions = count(|b| b == b'?');
    let (mut upper, mut letters) = (count(|b| b.is_ascii_uppercase()), count(|b| b.is_ascii_alphabetic()));
    // A space ends a word; so does the end of the text.
    let words =
        1.0 + text.as_bytes().windows(2).map(|w| u32::from(is_space(w[0]) && !is_space(w[1]))).sum::<u32>() as f32;
    let (mut others, mut characters) = (0.0, n);
    if !text.is_ascii() {
        characters = text.chars().count() as f32;
        for c in text.chars().filter(|c| !c.is_ascii()) {
            others += 1.0;
            upper += f32::from(u8::from(c.is_uppercase()));
            letters += f32::from(u8::from(c.is_alphabetic()));
        }
    }
    [
        (log(1.0 + sent as f32) - 6.0) / 1.5,
        8.0 * digits / n,
        8.0 * symbols / n,
        8.0 * upper / letters.max(1.0),
        log(lines) / 2.0 - 0.5,
        (letters / words - 4.5) / 1.5,
        questions / 4.0 + choices(text) / 12.0,
        8.0 * others / characters,
    ]
    .map(libm::tanhf)
}

fn log(x: f32) -> f32 {
    libm::logf(x)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

fn is_code_symbol(byte: u8) -> bool {
    matches!(
        byte,
        b'{' | b'}'
            | b'['
            | b']'
            | b'('
            | b')'
            | b'<'
            | b'>'
            | b'='
            | b';'
            | b'_'
            | b'/'
            | b'\\'
            | b'+'
            | b'*'
            | b'^'
            | b'$'
            | b'|'
            | b'`'
            | b'~'
            | b'#'
            | b'%'
            | b'&'
    )
}

/// Lines that begin with one capital letter and a full stop, colon or bracket.
fn choices(text: &str) -> f32 {
    let choice = |line: &str| matches!(line.trim_start().as_bytes(), [b'A'..=b'Z', b'.' | b')' | b':', ..]);
    text.lines().map(|line| u32::from(choice(line))).sum::<u32>() as f32
}

/// Each dimension goes with a sign of its own into one of [`SKETCH_DIMS`]; scaled to length one. An
/// embedding of nothing but zeros tells nothing and gives none.
fn sketch(embedding: &[f32]) -> Vec<f32> {
    let mut sums = [0.0_f64; SKETCH_DIMS];
    for (at, value) in embedding.iter().enumerate() {
        let hash = mix(at as u64 ^ PAIR_SEED);
        let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
        sums[(hash >> 48) as usize % SKETCH_DIMS] += sign * f64::from(*value);
    }
    let length = sums.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length > 0.0 && length.is_finite() {
        sums.iter().map(|x| (x / length) as f32).collect()
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
