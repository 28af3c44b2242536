//! What stores and logs are written to: a file, or whatever a test puts in its place.

use std::fmt::Debug;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::files::Lock;

/// Bytes that survive, once synced.
///
/// What is assumed of it: after [`sync`](Self::sync) has returned without an error, everything written before is there after a
/// crash. Without it any part of what was written may be there, in any order and torn anywhere. A write changes nothing
/// outside of its range. After a sync that failed it is unknown what is there, and what was not synced has to be written again.
pub trait Medium: Debug + Send + Sync + 'static {
    /// Number of bytes.
    ///
    /// # Errors
    /// The medium failed.
    fn len(&self) -> io::Result<u64>;

    /// Whether there is nothing at all.
    ///
    /// # Errors
    /// The medium failed.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] beyond the end; or the medium failed.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all the bytes; beyond the end it grows.
    ///
    /// # Errors
    /// The medium failed or is full. A part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the end off, or adds zeros.
    ///
    /// # Errors
    /// The medium failed or is full.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns when everything written is durable.
    ///
    /// # Errors
    /// The medium failed or is full.
    fn sync(&self) -> io::Result<()>;
}

/// A file that is locked for as long as this lives: no other process can open it, nor this one again.
#[derive(Debug)]
pub struct LockedFile(Lock);

impl LockedFile {
    /// Opens an existing file.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if it is locked, [`io::ErrorKind::NotFound`], or opening failed.
    pub fn open(path: &Path) -> io::Result<LockedFile> {
        Lock::open(path).map(LockedFile)
    }
}

impl Medium for LockedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.file().metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.file().read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.file().write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.file().set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.file().sync_data()
    }
}

/// A medium in memory: for tests, and to make a new store before it gets its file.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Vec<u8>>);

impl Memory {
    /// A medium with this content.
    #[must_use]
    pub fn new(content: Vec<u8>) -> Memory {
        Memory(Mutex::new(content))
    }

    /// A copy of its content.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        self.bytes().clone()
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

impl Medium for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = index(offset)?;
        let end = start.checked_add(buffer.len());
        let bytes = self.bytes();
        let range = end.and_then(|end| bytes.get(start..end)).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(range);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = index(offset)?;
        let end = start.checked_add(data.len()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut bytes = self.bytes();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes().resize(index(len)?, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
