//! Fitting: from many rows to the parts of an artifact.

pub mod calibrate;
pub mod encoder;
pub mod expense;
pub mod ridge;
pub mod sparse;
pub mod svd;
pub mod topics;
pub mod trees;
