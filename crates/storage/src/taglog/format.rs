//! The bytes of a tag log: written, and read without believing them.

use std::io;

use crate::mark::{self, Marker, PAGE_LEN};
use crate::medium::Medium;

const MAGIC: &[u8; 16] = b"tombola tag log\n";
const VERSION: u16 = 1;
const VERSION_AT: usize = 16;
const KEY_AT: usize = 20;
const CHECKSUM_AT: usize = 60;
/// Where records begin.
pub(super) const RECORDS_AT: u64 = PAGE_LEN as u64;
const RECORD_HEADER_LEN: usize = 16;
/// Fingerprints in one record; what reading it takes is bounded by that.
const RECORD_FINGERPRINTS: usize = 8192;

/// What is wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// It is no tag log.
    #[error("it is no tag log")]
    NoLog,
    /// Of another version.
    #[error("version {0} of its format, and this program reads 1")]
    Version(u16),
    /// Of another key.
    #[error("it belongs to another key")]
    OtherKey,
    /// Not what was written.
    #[error("{0}")]
    Damaged(String),
    /// The medium failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is in a log.
#[derive(Debug, PartialEq, Eq)]
pub struct Scan {
    /// Number of fingerprints.
    pub fingerprints: u64,
    /// Where the last whole record ends.
    pub end: u64,
    /// Bytes after it, which a crash left.
    pub torn: u64,
    pub(super) marker: Marker,
}

/// The file of a new log of the key with this id.
#[must_use]
pub fn new_image(key_id: &[u8; 32]) -> Vec<u8> {
    let mut page = [0; PAGE_LEN];
    page[..MAGIC.len()].copy_from_slice(MAGIC);
    page[VERSION_AT..VERSION_AT + 2].copy_from_slice(&VERSION.to_le_bytes());
    page[KEY_AT..KEY_AT + 32].copy_from_slice(key_id);
    let sum = crc32fast::hash(&page[..CHECKSUM_AT]).to_le_bytes();
    page[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum);
    mark::initialise(&mut page);
    page.to_vec()
}

/// Reads a log, and hands over its fingerprints in order and in chunks of up to 8192, each once. What was handed over counts
/// only if there is no error.
///
/// # Errors
/// [`ScanError`].
pub fn scan(medium: &dyn Medium, key_id: &[u8; 32], mut load: impl FnMut(&[u64])) -> Result<Scan, ScanError> {
    let len = medium.len()?;
    let marker = read_first_page(medium, len, key_id)?;
    let mut reader = Reader { medium, len, seed: seed(key_id), at: RECORDS_AT, position: 0 };
    let mut fingerprints = Vec::with_capacity(RECORD_FINGERPRINTS);
    while reader.next(&mut fingerprints)? {
        load(&fingerprints);
    }
    let known = marker.number();
    if reader.position < known {
        return Err(ScanError::Damaged(format!(
            "at byte {} of {len}: {} tags are readable, and {known} had been written",
            reader.at, reader.position
        )));
    }
    Ok(Scan { fingerprints: reader.position, end: reader.at, torn: len - reader.at, marker })
}

/// Returns how many fingerprints are known to have been durable.
fn read_first_page(medium: &dyn Medium, len: u64, key_id: &[u8; 32]) -> Result<Marker, ScanError> {
    let mut page = [0; PAGE_LEN];
    let available = usize::try_from(len).unwrap_or(usize::MAX).min(PAGE_LEN);
    medium.read_at(0, &mut page[..available])?;
    if page.first_chunk() != Some(MAGIC) {
        return Err(ScanError::NoLog);
    }
    let damaged = |what: &str| ScanError::Damaged(what.into());
    // A log is never created without its first page.
    if available < PAGE_LEN {
        return Err(damaged("it ends in its first page"));
    }
    if page[CHECKSUM_AT..CHECKSUM_AT + 4] != crc32fast::hash(&page[..CHECKSUM_AT]).to_le_bytes() {
        return Err(damaged("its first bytes are not what was written"));
    }
    let version = u16::from_le_bytes([page[VERSION_AT], page[VERSION_AT + 1]]);
    if version != VERSION {
        return Err(ScanError::Version(version));
    }
    if page[KEY_AT..KEY_AT + 32] != *key_id {
        return Err(ScanError::OtherKey);
    }
    Marker::read(&page).ok_or_else(|| damaged("none of its marks is readable"))
}

/// Records of one log are none of another's.
fn seed(key_id: &[u8; 32]) -> u32 {
    crc32fast::hash(key_id)
}

/// Appends records with `fingerprints` to `out`; `position` is the number of fingerprints in the records before.
pub fn encode(key_id: &[u8; 32], mut position: u64, fingerprints: &[u64], out: &mut Vec<u8>) {
    for chunk in fingerprints.chunks(RECORD_FINGERPRINTS) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        // Not more than RECORD_FINGERPRINTS.
        out.extend_from_slice(&u32::try_from(chunk.len()).unwrap_or_default().to_le_bytes());
        out.extend_from_slice(&position.to_le_bytes());
        for fingerprint in chunk {
            out.extend_from_slice(&fingerprint.to_le_bytes());
        }
        let sum = checksum(seed(key_id), &out[start + 4..]);
        out[start..start + 4].copy_from_slice(&sum);
        position += chunk.len() as u64;
    }
}

fn checksum(seed: u32, bytes: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize().to_le_bytes()
}

struct Reader<'a> {
    medium: &'a dyn Medium,
    len: u64,
    seed: u32,
    /// Where the next record begins.
    at: u64,
    /// Fingerprints before it.
    position: u64,
}

impl Reader<'_> {
    /// Whether there is another record, whose fingerprints are then in `fingerprints`.
    fn next(&mut self, fingerprints: &mut Vec<u64>) -> io::Result<bool> {
        let rest = self.len - self.at;
        let mut header = [0; RECORD_HEADER_LEN];
        if rest < header.len() as u64 {
            return Ok(false);
        }
        self.medium.read_at(self.at, &mut header)?;
        let [a, b, c, d, n0, n1, n2, n3, position @ ..] = header;
        let count = u32::from_le_bytes([n0, n1, n2, n3]) as usize;
        let record_len = (RECORD_HEADER_LEN + 8 * count.min(RECORD_FINGERPRINTS)) as u64;
        if count == 0
            || count > RECORD_FINGERPRINTS
            || u64::from_le_bytes(position) != self.position
            || rest < record_len
        {
            return Ok(false);
        }
        let mut bytes = vec![0; 8 * count];
        self.medium.read_at(self.at + RECORD_HEADER_LEN as u64, &mut bytes)?;
        let mut hasher = crc32fast::Hasher::new_with_initial(self.seed);
        hasher.update(&header[4..]);
        hasher.update(&bytes);
        if hasher.finalize().to_le_bytes() != [a, b, c, d] {
            return Ok(false);
        }
        fingerprints.clear();
        fingerprints.extend(bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)));
        self.at += record_len;
        self.position += count as u64;
        Ok(true)
    }
}
