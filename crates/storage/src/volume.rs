//! The file of a store: a page of our own, then redb's file.
//!
//! Numbers are little-endian. Everything between is zero.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 16 | `tombola store 1\n` |
//! | 16 | 32 | name of the format |
//! | 48 | 4 | CRC-32 of the 48 bytes before |
//! | 512 | | [marks](crate::mark): number of a group |
//! | 4096 | | redb |
//!
//! What a mark is for: redb keeps two roots, and goes back to the older one when the newest cannot be used. That is right for
//! a group that was cut off by a crash, and loses what was reported as durable if a root was damaged later, by a single bit in
//! the worst case. So groups are numbered, the number is in the group, and after a group has become durable its number is
//! marked here. A store that has fewer groups than its mark says is an error.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::Medium;
use crate::error::StoreError;
use crate::mark::{self, Marker};

/// Where redb's file begins.
pub(crate) const HEADER_LEN: u64 = mark::PAGE_LEN as u64;
const MAGIC: &[u8; 16] = b"tombola store 1\n";
const NAME: std::ops::Range<usize> = 16..48;

fn crc(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_le_bytes()
}

/// The first page of a new store.
pub(crate) fn header(name: &str) -> Result<Vec<u8>, io::Error> {
    if name.len() > NAME.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of a format has at most 32 bytes"));
    }
    let mut page = [0; mark::PAGE_LEN];
    page[..MAGIC.len()].copy_from_slice(MAGIC);
    page[NAME][..name.len()].copy_from_slice(name.as_bytes());
    let sum = crc(&page[..NAME.end]);
    page[NAME.end..NAME.end + 4].copy_from_slice(&sum);
    mark::initialise(&mut page);
    Ok(page.to_vec())
}

/// Checks the first page; returns its marks.
pub(crate) fn check(medium: &dyn Medium, path: &Path, expected: &'static str) -> Result<Marker, StoreError> {
    let other = |found: String| StoreError::OtherFormat { path: path.to_owned(), expected, found };
    let read = |error| StoreError::io(path, "read", error);
    let len = medium.len().map_err(read)?;
    let mut page = [0; mark::PAGE_LEN];
    let available = usize::try_from(len).unwrap_or(usize::MAX).min(page.len());
    medium.read_at(0, &mut page[..available]).map_err(read)?;
    if len == 0 {
        return Err(other("it is empty".into()));
    }
    if page.first_chunk() != Some(MAGIC) {
        return Err(other("it is no store".into()));
    }
    // A store is never created without both.
    if len <= HEADER_LEN {
        return Err(StoreError::damaged(path, "it ends too early"));
    }
    if page[NAME.end..NAME.end + 4] != crc(&page[..NAME.end]) {
        return Err(StoreError::damaged(path, "its first bytes are not what was written"));
    }
    let name = page[NAME].split(|byte| *byte == 0).next().unwrap_or_default();
    if name != expected.as_bytes() {
        return Err(other(format!("it is a store of \"{}\"", String::from_utf8_lossy(name))));
    }
    Marker::read(&page).ok_or_else(|| StoreError::damaged(path, "none of its marks is readable"))
}

/// The part of the medium that belongs to redb.
#[derive(Debug)]
pub(crate) struct Volume(pub(crate) Arc<dyn Medium>);

impl redb::StorageBackend for Volume {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len()?.saturating_sub(HEADER_LEN))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(shifted(offset)?, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(shifted(len)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(shifted(offset)?, data)
    }
}

/// Offsets come from redb's pages, which may be damaged.
fn shifted(offset: u64) -> io::Result<u64> {
    offset.checked_add(HEADER_LEN).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
