//! The daemon as its callers meet it: in process, on a free port, over gRPC, with a simulated world.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test that panics has failed, and tests start their own tasks"
)]

mod bad_input;
mod canary;
mod budgets;
mod ends;
mod harness;
mod keys;
mod lifecycle;
mod models;
mod money;
mod promotion;
mod replay;
mod permits;
mod stream;
mod tenants;
mod tls;
mod traffic;
mod training;
