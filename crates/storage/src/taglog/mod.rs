//! Logs of replay tags: a file for each key, to which the fingerprints of accepted packets are appended.
//!
//! # The file
//!
//! Numbers are little-endian. A page, then records back to back.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 16 | `tombola tag log\n` |
//! | 16 | 2 | version, 1 |
//! | 18 | 2 | zero |
//! | 20 | 32 | SHA-256 of the Sphinx public key |
//! | 52 | 8 | zero |
//! | 60 | 4 | CRC-32 of the 60 bytes before |
//! | 512 | 8 | mark A: number of fingerprints that are durable |
//! | 520 | 4 | CRC-32 of these 8 bytes |
//! | 1024 | 8 | mark B |
//! | 1032 | 4 | CRC-32 of these 8 bytes |
//! | 4096 | | records |
//!
//! A record:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | CRC-32 of the rest of the record, beginning with the CRC-32 of the key's SHA-256 |
//! | 4 | 4 | n, number of fingerprints, 1 to 8192 |
//! | 8 | 8 | number of fingerprints in the records before |
//! | 16 | 8 n | fingerprints |
//!
//! # What survives
//!
//! Everything up to the position that was reported as durable. A record that is not what was written ends the log. If fewer
//! fingerprints precede it than are marked as durable, that is damage, and an error: packets that were passed on could be
//! passed on again. If not, a crash tore what was being written. No packet left because of it, and it is cut off.
//!
//! The greater mark counts. It is written after a sync, and is made durable by the next one, so that it costs a write and no
//! sync of its own. So after a power cut the last group before it may be unmarked, and damage to that passes for a torn group;
//! to close this gap would take a second sync for each group. The marks are written in turn, each in a sector of its own, and
//! only when the one before is durable: a torn mark leaves the other.
//!
//! # When the disk fails
//!
//! What was not synced is kept in memory and written again in the same place, until that succeeds. Meanwhile nothing more is
//! taken ([`LogRefused::Failing`]).

mod format;
mod thread;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use format::{Scan, ScanError, encode, new_image, scan};
use tombola_protocol::taglog::{LogRefused, TagLog};

use self::thread::{Shared, State, Thread};
use crate::error::is_full;
use crate::files;
use crate::medium::{LockedFile, Medium};

/// Fingerprints that may wait to be durable: 2 MiB, or 26 seconds of ten thousand packets a second.
pub const BACKLOG: usize = 1 << 18;
/// At latest so long after it was appended a fingerprint is written and synced.
pub const LINGER: Duration = Duration::from_millis(250);

/// Why a log cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum TagLogError {
    /// Another process has it, or this one twice.
    #[error("{}: in use by another process: end that one first, two must not write to one log", .0.display())]
    Locked(PathBuf),
    /// It holds the tags of another key.
    #[error("{}: it belongs to another key; put the file of this key there, or move it away if this key has \
        never been used", .0.display())]
    OtherKey(PathBuf),
    /// Written by another version of the program.
    #[error("{}: version {found} of its format, and this program reads 1: use the program that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version that it has.
        found: u16,
    },
    /// It is not what was written.
    #[error("{}: damaged: {what}; packets that were accepted could be accepted again: restore the file from a \
        backup, or let this key end and begin with a new one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        what: String,
    },
    /// No room.
    #[error("{}: the disk is full: make room; packets are refused meanwhile ({source})", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system fails.
    #[error("{}: cannot {action}: {source}; check the disk and the permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl TagLogError {
    fn io(path: &Path, action: &'static str, source: io::Error) -> TagLogError {
        let path = path.to_owned();
        match source.kind() {
            _ if is_full(&source) => TagLogError::Full { path, source },
            io::ErrorKind::WouldBlock => TagLogError::Locked(path),
            io::ErrorKind::UnexpectedEof => TagLogError::Damaged { path, what: "it ends too early".into() },
            _ => TagLogError::Io { path, action, source },
        }
    }

    fn scan(path: &Path, error: ScanError) -> TagLogError {
        let path = path.to_owned();
        match error {
            ScanError::NoLog => TagLogError::Damaged { path, what: error.to_string() },
            ScanError::Version(found) => TagLogError::Version { path, found },
            ScanError::OtherKey => TagLogError::OtherKey(path),
            ScanError::Damaged(what) => TagLogError::Damaged { path, what },
            ScanError::Io(source) => TagLogError::io(&path, "read", source),
        }
    }
}

/// A log on a file, with a thread that writes it.
///
/// Positions count the fingerprints that were in it when it was opened.
#[derive(Debug)]
pub struct FileTagLog {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<(), TagLogError>>>>,
}

impl FileTagLog {
    /// Opens the log of the key whose public key has this SHA-256, or creates it with mode 0600. Hands what is in it to
    /// `load`, in chunks. `notify` is called from the log's thread with each new durable position; it must not wait.
    ///
    /// # Errors
    /// [`TagLogError`]. What is there is never replaced; what `load` got does not count then.
    pub fn open(
        path: &Path,
        key_id: [u8; 32],
        load: impl FnMut(&[u64]),
        notify: impl Fn(u64) + Send + 'static,
    ) -> Result<FileTagLog, TagLogError> {
        let medium = match LockedFile::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path, &key_id).map_err(|error| TagLogError::io(path, "create", error))?;
                LockedFile::open(path)
            }
            result => result,
        };
        let medium = medium.map_err(|error| TagLogError::io(path, "open", error))?;
        FileTagLog::on(Arc::new(medium), path, key_id, load, notify)
    }

    /// A log on any medium that holds one; `path` is what errors call it. For tests, which begin with [`new_image`].
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn on(
        medium: Arc<dyn Medium>,
        path: &Path,
        key_id: [u8; 32],
        load: impl FnMut(&[u64]),
        notify: impl Fn(u64) + Send + 'static,
    ) -> Result<FileTagLog, TagLogError> {
        let found = scan(&*medium, &key_id, load).map_err(|error| TagLogError::scan(path, error))?;
        let failed = |error| TagLogError::io(path, "write", error);
        if found.torn > 0 {
            medium.set_len(found.end).map_err(failed)?;
            tracing::warn!(
                path = %path.display(), bytes = found.torn,
                "cut off the end of the tag log, which was being written when the node ended"
            );
        }
        // What was read may have been in the kernel's memory only.
        medium.sync().map_err(failed)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                appended: found.fingerprints,
                taken: found.fingerprints,
                ..State::default()
            }),
            wake: Condvar::new(),
            durable: AtomicU64::new(found.fingerprints),
        });
        let thread = Thread::new(medium, path, key_id, found, shared.clone(), notify);
        let thread = std::thread::Builder::new()
            .name("tag log".into())
            .spawn(move || thread.run())
            .map_err(|error| TagLogError::io(path, "start a thread for it", error))?;
        Ok(FileTagLog { path: path.to_owned(), shared, thread: Mutex::new(Some(thread)) })
    }

    /// Why the last attempt to write failed, if it did.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.state().trouble.clone()
    }

    /// Number of fingerprints that are not durable yet, of [`BACKLOG`].
    #[must_use]
    pub fn backlog(&self) -> u64 {
        let appended = self.shared.state().appended;
        appended.saturating_sub(self.durable())
    }

    /// Makes everything durable and ends the thread. Nothing is taken any more.
    ///
    /// # Errors
    /// Something could not be written.
    pub fn close(&self) -> Result<(), TagLogError> {
        self.shared.close();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |reason: String| TagLogError::io(&self.path, "write", io::Error::other(reason));
        match thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(failed("the thread that writes panicked".into())),
            None => self.trouble().map_or(Ok(()), |trouble| Err(failed(trouble))),
        }
    }
}

impl TagLog for FileTagLog {
    fn append(&self, fingerprints: &[u64]) -> Result<u64, LogRefused> {
        let mut state = self.shared.state();
        if state.closing || state.ended {
            return Err(LogRefused::Closed);
        }
        if state.trouble.is_some() {
            return Err(LogRefused::Failing);
        }
        let unsynced = state.appended.saturating_sub(self.durable());
        if unsynced.saturating_add(fingerprints.len() as u64) > BACKLOG as u64 {
            return Err(LogRefused::Full);
        }
        if fingerprints.is_empty() {
            return Ok(state.appended);
        }
        state.waiting.extend_from_slice(fingerprints);
        state.appended += fingerprints.len() as u64;
        if state.bring_forward(Instant::now() + LINGER) {
            self.shared.wake.notify_all();
        }
        Ok(state.appended)
    }

    fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    fn need(&self, position: u64, within: Duration) {
        let mut state = self.shared.state();
        // What the thread has taken it is making durable already.
        if position > state.taken && state.bring_forward(Instant::now() + within.min(LINGER)) {
            self.shared.wake.notify_all();
        }
    }
}

impl Drop for FileTagLog {
    fn drop(&mut self) {
        // The lock on the file has to be gone when this is.
        let _ = self.close();
    }
}

/// Deletes the log of a key, so that it stays deleted. The key has to be gone before: without its log it would accept its
/// packets again.
///
/// # Errors
/// [`TagLogError::Io`]; a log that is not there is no error.
pub fn erase(path: &Path) -> Result<(), TagLogError> {
    match files::delete(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|error| TagLogError::io(path, "delete", error)),
    }
}

/// Makes the file, complete or not at all.
fn create(path: &Path, key_id: &[u8; 32]) -> io::Result<()> {
    files::create_directory(files::directory_of(path))?;
    match files::create_new(path, &new_image(key_id), 0o600) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}
