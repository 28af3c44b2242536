//! The folder in which a process keeps what has to survive it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::files;
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
    _lock: File,
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
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock);
        let file = open.map_err(|source| DataError::Io { path: lock.clone(), source })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataError::InUse(path.to_owned())),
            Err(errno) => Err(DataError::Io { path: lock, source: errno.into() }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
