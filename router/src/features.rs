//! The numbers that a policy sees of a request.
//!
//! They are integers wherever that is possible: the text enters as signed counts of hashed n-grams,
//! so that a trace keeps them without loss and learning from the trace equals learning from the
//! request to the bit. What a policy makes of the counts (logarithm, norm, projection) is its own.
//! [`crate::encode`] makes them; this module must never hold text.

use serde::{Deserialize, Serialize};

/// Buckets that words and characters are hashed into.
pub const TEXT_BUCKETS: usize = 1 << 16;
/// The first bucket of character n-grams; those of words are all below. Kept apart because a text has
/// ten times as many of the former, and each kind is to weigh the same.
pub const FIRST_CHAR_BUCKET: u16 = 1 << 15;
/// Buckets that tags are hashed into, apart from the text.
pub const TAG_BUCKETS: usize = 1 << 10;
/// Dimensions that a caller's embedding is sketched to.
pub const SKETCH_DIMS: usize = 256;
/// Surface statistics per request.
pub const SURFACE_DIMS: usize = 8;

/// The hash of everything that decides what a feature means; artifacts of another hash are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SchemaHash(pub u64);

/// One bucket of hashed text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextCount {
    /// The bucket: of words below [`FIRST_CHAR_BUCKET`], of characters from there on.
    pub bucket: u16,
    /// How often its n-grams occur, each with the sign of its hash; never zero.
    pub count: i16,
}

/// The features of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Hashed word 1-2-grams and character 3-5-grams, ascending by bucket, each bucket once.
    pub text: Vec<TextCount>,
    /// Surface statistics, each squashed to about [-1, 1].
    pub surface: [f32; SURFACE_DIMS],
    /// Hashed `key=value` tags and the hash of the system text, ascending, below [`TAG_BUCKETS`].
    pub tags: Vec<u16>,
    /// The caller's embedding, sketched to [`SKETCH_DIMS`] and scaled to length one; empty for none.
    pub sketch: Vec<f32>,
    /// UTF-8 bytes that are sent to a model.
    pub prompt_bytes: u32,
    /// What the numbers mean.
    pub schema: SchemaHash,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Features with something of every kind.
    pub(crate) fn features() -> Features {
        let count = |bucket, count| TextCount { bucket, count };
        Features {
            text: vec![count(3, 1), count(700, -2), count(40_000, 5), count(65_535, -90)],
            surface: [0.1, -0.2, 0.3, 0.0, 0.5, -0.6, 0.7, 1.0],
            tags: vec![5, 1_023],
            sketch: (0..SKETCH_DIMS).map(|i| if i == 9 { 1.0 } else { 0.0 }).collect(),
            prompt_bytes: 10,
            schema: SchemaHash(1),
        }
    }
}
