//! Fitting: from many rows to the parts of an artifact.

pub mod encoder;
pub mod svd;
