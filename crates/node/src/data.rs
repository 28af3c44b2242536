//! The folder in which a process keeps what has to survive it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::files::{self, Lock};
use crate::keys::{KeyError, check_mode};

/// Who only asks whether the folder is in use has it for an instant: so many instants are waited for before it counts as in use.
const TRIES: u32 = 10;
const INSTANT: Duration = Duration::from_millis(20);

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Another process uses it.
    #[error(
        "{}: in use by another process: two nodes must not share what they keep; end the other one, or give each its own \
         \"data\" folder",
        .0.display()
    )]
    InUse(PathBuf),
    /// Others have access to it.
    #[error(transparent)]
    Mode(#[from] KeyError),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder or a file in it.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// A folder that this process alone uses, for as long as this lives.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: Lock,
}

impl DataFolder {
    /// Takes the folder, and makes it (with mode 0700) if it is not there.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        for _ in 1..TRIES {
            match Self::try_open(path) {
                Err(DataError::InUse(_)) => thread::sleep(INSTANT),
                opened => return opened,
            }
        }
        Self::try_open(path)
    }

    /// Whether a process has the folder.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn is_in_use(path: &Path) -> Result<bool, DataError> {
        match Self::try_open(path) {
            Ok(_) => Ok(false),
            Err(DataError::InUse(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn try_open(path: &Path) -> Result<Self, DataError> {
        let at = |source| DataError::Io { path: path.to_owned(), source };
        files::create_directory(path).map_err(at)?;
        check_mode(path, &fs::metadata(path).map_err(at)?, "700")?;
        let lock = path.join("lock");
        match Lock::create(&lock) {
            Ok(lock) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(DataError::InUse(path.to_owned())),
            Err(source) => Err(DataError::Io { path: lock, source }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_whether_it_is_in_use_keeps_nobody_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let asked = DataFolder::try_open(&path).unwrap();
        let asking = thread::spawn(move || {
            thread::sleep(INSTANT * 2);
            drop(asked);
        });
        let opened = DataFolder::open(&path);
        asking.join().unwrap();
        let node = opened.unwrap();
        assert!(DataFolder::is_in_use(&path).unwrap());
        assert!(matches!(DataFolder::open(&path), Err(DataError::InUse(_))));
        drop(node);
        assert!(!DataFolder::is_in_use(&path).unwrap());
    }
}
