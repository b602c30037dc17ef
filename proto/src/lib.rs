//! The wire of Pointsman: messages, clients and servers of `package pointsman.v1`, and their descriptor set.
//!
//! Why it is a crate of its own: daemon and clients must agree on the wire and on nothing else. Everything here is
//! generated at build time from `pointsman/v1/*.proto` by protox and tonic-prost-build, so no protoc is needed; the
//! `.proto` files are the reference and carry the documentation of every field.
//!
//! What it must never do: hold logic. No conversion, no default, no check lives here; the daemon turns messages into
//! checked types and back. [`v1::Trace`] is also the stored form of a trace, so its fields are for ever.
//!
//! Edge cases: maps are `BTreeMap`s, so equal messages encode to equal bytes. An enum is an `i32` in a message; a value
//! that this build does not know is kept as it came, and the accessor of the field returns `Unspecified` for it.

/// Messages, clients and servers of `package pointsman.v1`.
pub mod v1 {
    #![allow(
        clippy::all,
        clippy::pedantic,
        clippy::restriction,
        missing_docs,
        missing_debug_implementations,
        unreachable_pub,
        rustdoc::all,
        reason = "generated"
    )]
    tonic::include_proto!("pointsman.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of `package pointsman.v1` with all imports and comments. Reflection
/// serves it.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pointsman.v1.bin"));
