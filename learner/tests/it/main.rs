//! Tests of the learner from outside.

#![allow(missing_docs, reason = "tests")]

mod poison;
mod streams;
