//! Artifacts of policies: files `policies/<version>` in the state folder.
//!
//! A file appears whole or not at all: it is written under another name, synced, renamed, and then the
//! folder is synced. What a crash left half written is removed at the next start. The version is
//! made of the bytes, so a file that is there already is never written again, and one that was changed
//! since is found out when it is read: its checksum, and the version that it makes, must agree.
//!
//! Everything here blocks; callers on the runtime use its blocking threads.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pointsman_router::artifact::{ARTIFACT_BYTES_MAX, Artifact, ArtifactError};
use pointsman_router::features::SchemaHash;
use pointsman_router::ids::PolicyVersion;

/// The folder inside the state folder.
pub const FOLDER: &str = "policies";
/// The end of the name of what is not whole yet.
const PARTIAL: &str = ".partial";
/// The longest version that can name a file.
const NAME_BYTES_MAX: usize = 128;

/// Tells files under way apart within this process.
static NEXT_PARTIAL: AtomicU64 = AtomicU64::new(0);

/// Why an artifact cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactFileError {
    /// The folder or a file in it cannot be used.
    #[error("{} cannot be used: {source}; check the folder and its rights", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such file.
    #[error("the artifact of `{version}` is not here, train or install it again")]
    Missing {
        /// The version that was asked for.
        version: PolicyVersion,
    },
    /// The file is not what it was when it was written, or needs other features.
    #[error("`{version}`: {cause}")]
    Unusable {
        /// The version that was asked for.
        version: PolicyVersion,
        /// What is wrong with it.
        cause: ArtifactError,
    },
}

/// The artifacts of one state folder.
#[derive(Debug, Clone)]
pub struct ArtifactStore {
    folder: PathBuf,
}

impl ArtifactStore {
    /// Opens the folder, makes it where there is none, and clears what a crash left half written.
    ///
    /// # Errors
    /// [`ArtifactFileError::Io`].
    pub fn open(state_dir: &Path) -> Result<Self, ArtifactFileError> {
        let folder = state_dir.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_at(&folder))?;
        // A new folder is durable, with all in it, once the one that it stands in is synced.
        File::open(state_dir).and_then(|state| state.sync_all()).map_err(io_at(state_dir))?;
        for entry in fs::read_dir(&folder).map_err(io_at(&folder))? {
            let path = entry.map_err(io_at(&folder))?.path();
            if path.to_string_lossy().ends_with(PARTIAL) {
                fs::remove_file(&path).map_err(io_at(&path))?;
            }
        }
        Ok(Self { folder })
    }

    /// Keeps the bytes of a version for good; one that is here and whole already is left as it is.
    /// Whether it is new.
    ///
    /// # Errors
    /// [`ArtifactFileError`]; then nothing is kept.
    pub fn put(&self, version: &PolicyVersion, bytes: &[u8]) -> Result<bool, ArtifactFileError> {
        let path = self.path(version)?;
        match fs::read(&path) {
            Ok(there) if there == bytes => return Ok(false),
            // A damaged file is mended by the whole one.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ArtifactFileError::Io { path, source }),
        }
        write_whole(&path, bytes).map_err(io_at(&path))?;
        Ok(true)
    }

    /// The bytes of a version.
    ///
    /// # Errors
    /// [`ArtifactFileError`] when they cannot be had.
    pub fn read(&self, version: &PolicyVersion) -> Result<Vec<u8>, ArtifactFileError> {
        let path = self.path(version)?;
        let mut bytes = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(ARTIFACT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() > ARTIFACT_BYTES_MAX => {
                Err(ArtifactFileError::Unusable { version: version.clone(), cause: ArtifactError::Damaged })
            }
            Ok(_) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ArtifactFileError::Missing { version: version.clone() })
            }
            Err(source) => Err(ArtifactFileError::Io { path, source }),
        }
    }

    /// The artifact of a version, for features of this schema.
    ///
    /// # Errors
    /// [`ArtifactFileError`] when it cannot be had or used.
    pub fn load(&self, version: &PolicyVersion, schema: SchemaHash) -> Result<Artifact, ArtifactFileError> {
        let unusable = |cause| ArtifactFileError::Unusable { version: version.clone(), cause };
        let (artifact, found) = Artifact::from_bytes(&self.read(version)?, schema).map_err(unusable)?;
        if found == *version { Ok(artifact) } else { Err(unusable(ArtifactError::Damaged)) }
    }

    /// The file of a version; a text that can name none of ours names nothing that is here.
    fn path(&self, version: &PolicyVersion) -> Result<PathBuf, ArtifactFileError> {
        let name = version.as_str();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if plain && !name.is_empty() && name.len() <= NAME_BYTES_MAX {
            return Ok(self.folder.join(name));
        }
        Err(ArtifactFileError::Missing { version: version.clone() })
    }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> ArtifactFileError + '_ {
    move |source| ArtifactFileError::Io { path: path.to_path_buf(), source }
}

/// Writes a file so that it is there whole, and durable, or not at all.
///
/// # Errors
/// What the system met; a file that was there before stays as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let number = NEXT_PARTIAL.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.{number}{PARTIAL}", std::process::id()));
    let partial = path.with_file_name(name);
    let written = write(&partial, bytes).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // What cannot be removed now lies beside, under a name that says so.
        let _ = fs::remove_file(&partial);
    }
    written?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> PolicyVersion {
        PolicyVersion::new(text)
    }

    #[test]
    fn a_file_is_written_once_and_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        assert!(store.put(&version("hybrid-1"), b"abc").unwrap());
        assert!(!store.put(&version("hybrid-1"), b"abc").unwrap());
        assert_eq!(store.read(&version("hybrid-1")).unwrap(), b"abc");
        let names: Vec<_> = fs::read_dir(folder.path().join(FOLDER)).unwrap().collect();
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn what_is_no_version_of_ours_is_missing_and_touches_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        for text in ["", "../secret", "a/b", "hybrid-2", "a.b"] {
            let read = store.read(&version(text));
            assert!(matches!(read, Err(ArtifactFileError::Missing { .. })), "{text}: {read:?}");
        }
        assert!(matches!(store.put(&version("../x"), b"x"), Err(ArtifactFileError::Missing { .. })));
    }

    #[test]
    fn what_a_crash_left_half_written_is_cleared_and_damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join(FOLDER).join(format!("hybrid-1.9.0{PARTIAL}"));
        let store = ArtifactStore::open(folder.path()).unwrap();
        fs::write(&partial, b"half").unwrap();
        store.put(&version("hybrid-1"), b"pmpolicy and so on").unwrap();
        ArtifactStore::open(folder.path()).unwrap();
        assert!(!partial.exists());
        let load = |text: &str| store.load(&version(text), SchemaHash(7));
        assert!(matches!(
            load("hybrid-1"),
            Err(ArtifactFileError::Unusable { cause: ArtifactError::Format { .. } | ArtifactError::Damaged, .. })
        ));
        fs::write(folder.path().join(FOLDER).join("hybrid-1"), b"changed").unwrap();
        assert!(store.put(&version("hybrid-1"), b"pmpolicy and so on").unwrap());
        assert_eq!(store.read(&version("hybrid-1")).unwrap(), b"pmpolicy and so on");
    }
}
