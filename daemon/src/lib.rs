//! Everything of Pointsman that touches the world: configuration, gRPC services, stores, backends,
//! jobs and telemetry, wired around the decision core in `pointsman-router`.
//!
//! This crate must never hold decision logic: what is chosen, how answers are merged and what
//! feedback teaches is decided in `router` and `learner`. Modules import downwards only, in the
//! order of this list.

pub mod clock;
pub mod rates;
pub mod audit;
pub mod config;
pub mod keys;
pub mod wire;
pub mod store;
pub mod keyring;
pub mod money;
pub mod pacing;
pub mod backends;
pub mod registry;
pub mod booking;
pub mod reports;
pub mod feedback;
pub mod learning;
pub mod retention;
pub mod training;
pub mod verify;
pub mod operator;
pub mod rpc;
pub mod serve;
pub mod replay;
pub mod streams;
