//! The decision core of Pointsman: everything between a caller's request and its settled trace,
//! except I/O.
//!
//! A request goes one way, and the modules below stand in the order in which it meets them:
//! admit → encode → decide → hold → execute → merge → settle → trace. [`pipeline`] calls the
//! stages and is the file to read first.
//!
//! This crate must never import tonic, prost, rusqlite or linfa, read a clock or read the
//! environment: time, chance, money, policies, models and traces come through the ports
//! [`clock::Clock`], [`clock::Seeds`], [`hold::Ledger`], [`policy::PolicySource`],
//! [`backend::Backend`] and [`trace::TraceSink`]. A module imports only modules that stand above
//! it in this list; a test of the daemon (`tidy`) fails where one does not.

pub mod clock;
pub mod ids;
pub mod money;
pub mod settings;
pub mod request;
pub mod backend;
pub mod breaker;
pub mod model;
pub mod features;
pub mod projection;
pub mod forest;
pub mod quality;
pub mod topic;
pub mod forecast;
pub mod pacing;
pub mod policy;
pub mod selection;
pub mod inputs;
pub mod heads;
pub mod expense;
pub mod cooling;
pub mod bandit;
pub mod artifact;
pub mod classifier;
pub mod hybrid;
pub mod rules;
pub mod explore;
pub mod subset;
pub mod decision;
pub mod hold;
pub mod outcome;
pub mod normal;
pub mod check;
pub mod answer;
pub mod trace;
pub mod admit;
pub mod task;
pub mod encode;
pub mod decide;
pub mod hindsight;
pub mod progress;
pub mod execute;
pub mod merge;
pub mod settle;
pub mod feedback;
pub mod pipeline;
