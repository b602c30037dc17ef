//! The dense features that rewards are modelled on.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_router::encode::Encoder;
use pointsman_router::features::Features;
use pointsman_router::request::{AnswerKind, Message, Prompt, Request, Role};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Numbers that the hashed text is sketched to: one per bit of a hash.
const SKETCH: usize = 64;
/// Scale of the sketch beside the surface statistics; the regressions do not mind.
const SECRET: u64 = 11;

/// Numbers per row.
pub(crate) const DIMS: usize = SKETCH + pointsman_router::features::SURFACE_DIMS;

/// The features of prompts, row after row: the surface statistics and a random projection of the hashed
/// counts. A fitted projection is put in by replacing [`dense`].
pub(crate) fn of_prompts<'a>(prompts: impl Iterator<Item = &'a str>) -> Vec<f32> {
    let encoder = Encoder::new(SECRET);
    prompts.flat_map(|prompt| dense(&encoder.encode(&request(prompt)))).collect()
}

fn dense(features: &Features) -> Vec<f32> {
    let mut sketch = [0.0_f32; SKETCH];
    let mut squares = 0.0;
    for count in &features.text {
        let size = f32::from(count.count.unsigned_abs()).ln_1p().copysign(f32::from(count.count));
        squares += size * size;
        let signs = xxh3_64_with_seed(&count.bucket.to_le_bytes(), SECRET);
        for (bit, sum) in sketch.iter_mut().enumerate() {
            *sum += if signs >> bit & 1 == 1 { size } else { -size };
        }
    }
    let scale = squares.max(f32::MIN_POSITIVE).sqrt();
    features.surface.iter().copied().chain(sketch.into_iter().map(|sum| sum / scale)).collect()
}

fn request(prompt: &str) -> Request {
    let message = Message { role: Role::User, content: prompt.to_owned() };
    Request {
        prompt: Arc::new(Prompt {
            system: String::new(),
            messages: vec![message],
            temperature: None,
            stop: Vec::new(),
            schema: None,
            caller_ref: None,
        }),
        kind: AnswerKind::Text,
        answer_pattern: None,
        task_type: None,
        tags: BTreeMap::new(),
        embedding: Vec::new(),
        max_cost: None,
        answer_value: None,
        output_tokens_max: None,
        quality_threshold: None,
        calls_max: None,
        models_allowed: Vec::new(),
        models_denied: Vec::new(),
        key: None,
        deadline: None,
    }
}
