//! How far the chain was read, and how to find back when it changes.

use alloy_primitives::B256;
use thiserror::Error;

use crate::ledger::Block;

/// Places that are remembered, at most.
const MOST_PLACES: usize = 64;
/// First byte of the encoding.
const VERSION: u8 = 1;
/// Bytes of a place: number and hash.
const PLACE_LEN: usize = 8 + 32;

/// A block that was final when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
}

impl From<Block> for Place {
    fn from(block: Block) -> Self {
        Self { number: block.number, hash: block.hash }
    }
}

/// How far the chain was read. Kept by whoever uses the facts, after they were used: what comes again is idempotent.
///
/// Besides the last place it has earlier ones, the farther back the fewer: if the chain has changed, the last common one is
/// where reading goes on.
///
/// ```text
/// cursor := version 1 | place *          place := number 8 | hash 32          oldest first
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    places: Vec<Place>,
}

/// Why bytes are no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CursorError {
    /// A later version wrote them.
    #[error("a cursor of version {0}, which is not known here")]
    Version(u8),
    /// Not as long as places are, or out of order.
    #[error("no cursor: its places are cut off or out of order")]
    Places,
}

impl Cursor {
    /// Where reading goes on.
    #[must_use]
    pub fn last(&self) -> Option<Place> {
        self.places.last().copied()
    }

    /// The newest place that is not beyond a block.
    pub(super) fn newest_until(&self, number: u64) -> Option<Place> {
        self.places.iter().rev().find(|place| place.number <= number).copied()
    }

    /// Everything until there was read.
    pub(super) fn advance(&mut self, place: Place) {
        if self.last().is_some_and(|last| last.number >= place.number) {
            return;
        }
        self.places.push(place);
        if self.places.len() > MOST_PLACES {
            // Every second one of the older half goes: with time they are spread the wider the older they are.
            let mut at = 0;
            self.places.retain(|_| {
                at += 1;
                at > MOST_PLACES / 2 || at % 2 == 1
            });
        }
    }

    /// Forgets what is later than a block.
    pub(super) fn rewind(&mut self, number: u64) {
        self.places.retain(|place| place.number <= number);
    }

    /// To be kept.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for place in &self.places {
            bytes.extend_from_slice(&place.number.to_be_bytes());
            bytes.extend_from_slice(place.hash.as_slice());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    ///
    /// See [`CursorError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CursorError> {
        let (version, rest) = bytes.split_first().ok_or(CursorError::Places)?;
        if *version != VERSION {
            return Err(CursorError::Version(*version));
        }
        if rest.len() % PLACE_LEN != 0 || rest.len() > (MOST_PLACES + 1) * PLACE_LEN {
            return Err(CursorError::Places);
        }
        let place = |bytes: &[u8]| {
            let (number, hash) = bytes.split_first_chunk::<8>()?;
            Some(Place { number: u64::from_be_bytes(*number), hash: B256::try_from(hash).ok()? })
        };
        let places: Option<Vec<_>> = rest.chunks_exact(PLACE_LEN).map(place).collect();
        let places = places.ok_or(CursorError::Places)?;
        if !places.is_sorted_by(|a, b| a.number < b.number) {
            return Err(CursorError::Places);
        }
        Ok(Self { places })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> Place {
        Place { number, hash: B256::with_last_byte(u8::try_from(number % 251).unwrap()) }
    }

    #[test]
    fn places_thin_out_with_age() {
        let mut cursor = Cursor::default();
        (0..10_000).for_each(|number| cursor.advance(place(number)));
        assert!(cursor.places.len() <= MOST_PLACES);
        assert_eq!(cursor.last(), Some(place(9999)));
        let dense = (9968..10_000).all(|number| cursor.places.contains(&place(number)));
        assert!(dense, "a short reorganisation is found to the block");
        assert!(cursor.places[0].number < 5000, "and a long one at all");
    }

    #[test]
    fn bytes_are_read_back() {
        let mut cursor = Cursor::default();
        (0..200).for_each(|number| cursor.advance(place(3 * number)));
        let bytes = cursor.to_bytes();
        assert_eq!(Cursor::from_bytes(&bytes), Ok(cursor));
        assert_eq!(Cursor::from_bytes(&bytes[..bytes.len() - 1]), Err(CursorError::Places));
        assert_eq!(Cursor::from_bytes(&[2]), Err(CursorError::Version(2)));
        assert_eq!(Cursor::from_bytes(&[]), Err(CursorError::Places));
        let twice = [&bytes[..41], &bytes[1..41]].concat();
        assert_eq!(Cursor::from_bytes(&twice), Err(CursorError::Places));
        assert_eq!(Cursor::from_bytes(&Cursor::default().to_bytes()), Ok(Cursor::default()));
    }
}
