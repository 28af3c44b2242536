//! What goes wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

/// Why a store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it, or this one twice.
    #[error("{}: in use by another process: end that one first, two must not write to one store", .0.display())]
    Locked(PathBuf),
    /// Something else lies there.
    #[error("{}: not a store of \"{expected}\": {found}; name another file", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The format that was asked for.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Written by another version of the program.
    #[error("{}: version {found} of its format, and this program reads {supported}: use {}", path.display(),
        if found > supported { "a newer program" } else { "the program that wrote it, or an older release of this one" })]
    Version {
        /// The file.
        path: PathBuf,
        /// Version that it has.
        found: u16,
        /// Version that this program has.
        supported: u16,
    },
    /// It is not what was written.
    #[error("{}: damaged: {what}; the disk may be failing: restore the file from a backup, or move it away to begin \
        without what it held", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        what: String,
    },
    /// A record is not what was written, or its owner cannot use it.
    #[error("{}: table {table}: {reason}; the disk may be failing: restore the file from a backup, or move it away to \
        begin without what it held", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The table.
        table: u8,
        /// What is wrong.
        reason: String,
    },
    /// No room.
    #[error("{}: the disk is full: make room; nothing is lost meanwhile ({source})", path.display())]
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

/// Whether the medium has no room, or not for this user or file.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl StoreError {
    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: path.to_owned(), what: what.into() }
    }

    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> StoreError {
        let path = path.to_owned();
        match source.kind() {
            _ if is_full(&source) => StoreError::Full { path, source },
            io::ErrorKind::UnexpectedEof => StoreError::damaged(&path, "it ends too early"),
            _ => StoreError::Io { path, action, source },
        }
    }

    pub(crate) fn redb(path: &Path, action: &'static str, error: impl Into<redb::Error>) -> StoreError {
        match error.into() {
            redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
                StoreError::damaged(path, source.to_string())
            }
            redb::Error::Io(source) => StoreError::io(path, action, source),
            redb::Error::DatabaseAlreadyOpen => StoreError::Locked(path.to_owned()),
            // Our tables have one type; another one is damage.
            damage @ (redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }) => StoreError::damaged(path, damage.to_string()),
            other => StoreError::io(path, action, io::Error::other(other.to_string())),
        }
    }
}
