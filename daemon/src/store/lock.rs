//! One process at a time owns a state folder: two writers would give one sequence twice.
//!
//! The lock is the operating system's on an open file, so it ends with the process, however that ends.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::StoreError;

/// Holds a state folder until it is dropped.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes the folder.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it, [`StoreError::Io`] when it cannot be locked.
    pub fn take(state_dir: &Path) -> Result<Self, StoreError> {
        let io = |error: std::io::Error| StoreError::Io { detail: error.to_string() };
        let path = state_dir.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: state_dir.display().to_string() }),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateLock::take(folder.path()).unwrap();
        assert!(matches!(StateLock::take(folder.path()), Err(StoreError::InUse { .. })));
        drop(first);
        assert!(StateLock::take(folder.path()).is_ok());
    }
}
