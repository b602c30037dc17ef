//! What Pointsman learns: from feedback and traces to the numbers that its policies read.
//!
//! [`online`] holds the state of the bandit and mends it label by label; [`drift`] says when a model is
//! no longer what it was, [`sources`] whose feedback departs from the others'; [`streams`] runs it alone on the peer benchmark. Everything here is a pure
//! function of its input and the order in which it comes. This crate must never do I/O, read a clock,
//! or import tokio, tonic, rusqlite or the wire; the feature code it needs exists once, in
//! `pointsman_router`.

mod packed;
pub mod rows;
pub mod fit;
pub mod drift;
pub mod sources;
pub mod online;
pub mod basis;
pub mod evaluate;
pub mod train;
pub mod reference;
pub mod streams;
