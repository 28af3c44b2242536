//! The folder in which a process keeps what has to survive it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files::{self, Lock};
use crate::keys::{KeyError, check_mode};

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
