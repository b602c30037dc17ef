//! Client and program against a small daemon of their own: real gRPC over a real socket, no models, no learning.

#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_learning;
#[cfg(test)]
mod learning;
#[cfg(test)]
mod library;
#[cfg(test)]
mod program;
