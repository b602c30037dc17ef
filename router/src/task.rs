//! The task type of a request whose caller named none, from a documented table.
//!
//! | in the surface statistics | task type |
//! |---|---|
//! | many code symbols (brackets, braces, operators: over about 5 % of the text) and at least six lines, or over 10 % digits | `data_validation` |
//! | long (over about 500 bytes), or choices and questions beyond one, or many code symbols on few lines | `complex_reasoning` |
//! | anything else | `simple_query` |
//!
//! Rows are tried from the top. The type decides how many models may be called by default and which
//! rule applies; it is marked as inferred wherever it is shown. Callers who know better name it.

use crate::features::Features;
use crate::ids::TaskType;

/// A short question.
pub const SIMPLE_QUERY: &str = "simple_query";
/// Something to be worked out.
pub const COMPLEX_REASONING: &str = "complex_reasoning";
/// Records or figures to be checked.
pub const DATA_VALIDATION: &str = "data_validation";

/// tanh(8 · 5 %).
const MANY_SYMBOLS: f32 = 0.38;
/// tanh(8 · 10 %).
const MANY_DIGITS: f32 = 0.664;
/// tanh(ln(6) / 2 − 0.5), six lines.
const MANY_LINES: f32 = 0.376;
/// tanh((ln(501) − 6) / 1.5), 500 bytes.
const LONG: f32 = 0.143;
/// Above tanh(1 / 4), one question.
const CHOICES: f32 = 0.27;

/// The task type that the table gives.
#[must_use]
pub fn infer(features: &Features) -> TaskType {
    let [length, digits, symbols, _, lines, _, choices, _] = features.surface;
    let name = if digits > MANY_DIGITS || (symbols > MANY_SYMBOLS && lines > MANY_LINES) {
        DATA_VALIDATION
    } else if length > LONG || choices > CHOICES || symbols > MANY_SYMBOLS {
        COMPLEX_REASONING
    } else {
        SIMPLE_QUERY
    };
    TaskType::new(name)
}
