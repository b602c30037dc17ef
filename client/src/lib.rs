#![doc = include_str!("../README.md")]
//!
//! # The parts
//!
//! [`Target`] says where and how and with which [`ApiKey`], [`Client`] has one thin method for every rpc of the wire, [`Replies`] reads the
//! streams, [`ClientError`] says by gRPC code what went wrong. The command line stands beside the library in
//! `src/cli` and uses nothing else of it.
//!
//! What this crate must never do: decide, merge or judge. It imports the wire and no other crate of Pointsman.

mod calls;
mod connect;
mod error;
mod key;
mod stream;

pub use calls::Client;
pub use connect::{Target, Tls};
pub use error::{ClientError, Fault, FieldFault, QuotaFault, UNREACHABLE};
pub use key::ApiKey;
pub use pointsman_proto::v1;
pub use stream::Replies;
