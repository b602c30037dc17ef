//! The installation's secrets, made once by chance and kept in the state folder: 64 bits in `secret`, and
//! 256 bits in `key_secret`.
//!
//! The first permutes feature buckets and keys the hashes of answers, so a stolen store tells no text; the
//! second keys the hashes of callers' keys, so a stolen store lets nobody in. Both must stay the same as
//! long as the stores do: another secret makes old traces useless, and old keys, so a file that cannot be
//! read is an error and never replaced. Two daemons that start at once on one folder get the same secrets,
//! since a file appears whole or not at all.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const FILE: &str = "secret";
const KEY_FILE: &str = "key_secret";

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// The state folder or the file in it cannot be written or read.
    #[error("{} cannot be used: {source}; give a folder that the daemon may write", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not hold a secret.
    #[error("{} does not hold {digits} hexadecimal digits; restore it from a backup, or remove the whole state folder", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How many digits it should hold.
        digits: usize,
    },
    /// The system gave no random bits.
    #[error("the system gave no random bits: {0}")]
    NoChance(getrandom::Error),
}

/// Makes the state folder (for its owner alone) where there is none, and reads the secret in it, or
/// makes one.
///
/// # Errors
/// [`InstallationError`]; an existing file is never replaced.
pub fn secret(state_dir: &Path) -> Result<u64, InstallationError> {
    made_once(state_dir, FILE).map(u64::from_be_bytes)
}

/// The key of the hashes of callers' keys, in the same way.
///
/// # Errors
/// [`InstallationError`]; an existing file is never replaced.
pub fn key_secret(state_dir: &Path) -> Result<[u8; 32], InstallationError> {
    made_once(state_dir, KEY_FILE)
}

fn made_once<const N: usize>(state_dir: &Path, name: &str) -> Result<[u8; N], InstallationError> {
    let io_at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| InstallationError::Io { path, source }
    };
    make_folder(state_dir).map_err(io_at(state_dir))?;
    let path = state_dir.join(name);
    let damaged = |path| InstallationError::Damaged { path, digits: 2 * N };
    match fs::read_to_string(&path) {
        Ok(text) => return parse(&text).ok_or_else(|| damaged(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_at(&path)(error)),
    }
    let mut fresh = [0; N];
    getrandom::fill(&mut fresh).map_err(InstallationError::NoChance)?;
    // Written beside and then linked into place: the link fails when another daemon was faster.
    let beside = state_dir.join(format!("{name}.{}", std::process::id()));
    let written = write(&beside, &fresh).and_then(|()| match fs::hard_link(&beside, &path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => fs::File::open(state_dir)?.sync_all(),
    });
    let removed = fs::remove_file(&beside);
    written.and(removed).map_err(io_at(&path))?;
    let text = fs::read_to_string(&path).map_err(io_at(&path))?;
    parse(&text).ok_or_else(|| damaged(path))
}

/// Makes a folder and those above it, where there are none, so that a power cut does not take them with all that is
/// written into them later: a name is durable once the folder that it stands in is synced.
fn make_folder(folder: &Path) -> io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let made: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    for parent in made.iter().filter_map(|made| made.parent()) {
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn write(path: &Path, secret: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(file, "{digits}")?;
    file.sync_all()
}

fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.trim_end().as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut secret = [0; N];
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_made_once_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("deep/state");
        let first = secret(&state).unwrap();
        assert_eq!(secret(&state).unwrap(), first);
        assert_ne!(secret(folder.path()).unwrap(), first);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
        let key = key_secret(&state).unwrap();
        assert_eq!((key_secret(&state).unwrap(), mode(&state.join(KEY_FILE))), (key, 0o600));
        assert_ne!(key_secret(folder.path()).unwrap(), key);
    }

    #[test]
    fn what_an_earlier_daemon_wrote_is_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "0123456789abcdef\n").unwrap();
        assert_eq!(secret(folder.path()).unwrap(), 0x0123_4567_89ab_cdef);
    }

    #[test]
    fn a_damaged_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["", "12", "+123456789abcdef", "0123456789abcdef0"] {
            fs::write(folder.path().join(FILE), bad).unwrap();
            assert!(matches!(secret(folder.path()), Err(InstallationError::Damaged { .. })), "{bad}");
            assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), bad);
        }
    }
}
