//! The teacher: the one owner of the learned states of this daemon.
//!
//! Committed feedback teaches in ledger sequence, committed outcomes in trace sequence; nothing else
//! teaches, so each state after a restart equals a rebuild from all rows, bit for bit
//! ([`crate::verify`] proves it). Requests never wait for it: they read the last published snapshot
//! behind an atomic pointer. A row whose trace is gone moves the mark and teaches nothing.
//!
//! Every policy that may have to decide has a state of its own (`student`): the one that runs, the
//! one before it, so that a rollback is one step and current, and whoever is on trial. The bandit that
//! begins from nothing always learns: it needs no artifact, so there is always one that can run.
//! `class` is all of them, `teacher` the loop that feeds them, `published` what requests read,
//! `handle` how the rest of the daemon asks. Who runs is a `roles` matter: `changes` makes a change
//! durable, then publishes it, in one turn of the loop, so no lesson falls between the two. `standing_in` watches
//! whether the running policy is worth more than its best single model.
//!
//! States are saved together with their marks. Before one is saved the trace file is synced, so a
//! power cut cannot take a trace that a saved state has learned from. A state is kept as its own base
//! when its policy stops learning: rows that go meanwhile are missing on both ways to it.

mod asks;
mod candidates;
mod changes;
mod class;
mod handle;
mod opening;
mod published;
mod report;
mod roles;
mod standing_in;
mod student;
mod tally;
mod teacher;
mod trials;

pub use asks::ChangeError;
pub use candidates::{ArtifactFault, Candidates, NoCandidates};
pub use handle::Learning;
pub use opening::Opening;
pub use published::{Learned, LearningStatus, Published};
pub use report::{CanaryFigures, FallbackFigures, LiveFigures, Report, ShadowFigures, SourceFigures};
pub use roles::{Promotion, Refused, Standing, Wish};
pub use student::{Artifact, LearningError, Student};
pub use teacher::{Streams, Teacher};

#[cfg(test)]
pub(crate) mod tests;
