//! House rules of the wire, checked on the descriptor set that the crate ships.

mod wire;
