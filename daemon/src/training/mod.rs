//! Training: from what is stored to a candidate, and what it would have been worth.
//!
//! Everything here runs beside the requests: rows are read through connections of their own, batch by
//! batch, and fitting runs on a thread of low priority. What is fitted, and how a candidate is judged,
//! is the learner's; this module reads, keeps and tells.

pub mod log;
pub mod rows;
pub mod known;
pub mod foreign;
pub mod lines;
pub mod import;
pub mod offline;
pub mod trainer;
pub mod evaluate;
pub mod retrain;
