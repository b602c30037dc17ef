//! The gRPC services, one file each, and what they share: errors on the wire, deadlines, the count of
//! requests under way.
//!
//! A service holds only what it uses and decides nothing: it turns a message into the core's or a
//! store's own types, calls, and turns the result back. Errors become a [`status::Refusal`] first and
//! a status at the door, so every reason has one code.

pub mod admin;
mod audit;
pub mod budgets;
mod canary;
pub mod deadline;
pub(crate) mod decode;
pub mod door;
pub(crate) mod ending;
mod export;
pub mod feedback;
pub mod idempotency;
mod import;
mod keys;
pub mod permits;
pub mod policy;
mod promotion;
pub mod reading;
mod report;
pub mod router;
pub mod stats;
pub mod status;
mod stored;
mod tables;
pub mod traffic;
pub mod training;
pub mod watch;
