//! How a message is cut into pieces that fit packets.
//!
//! A message of `length` bytes has `length / `[`FRAGMENT_DATA`] *data fragments*, rounded up (an empty one has one), the
//! last one filled up with zeros. They are grouped into *segments* of [`SEGMENT_DATA`]; the last segment has the rest.
//! Half as many *parity fragments*, rounded up, belong to each segment: Reed-Solomon code words, so that any as many
//! fragments of a segment as it has data fragments give it back. A fragment's [`Place`] is its segment and its position
//! there, data before parity.

use core::fmt;
use core::ops::Range;

use tombola_sphinx::PLAINTEXT_MAX;

/// Length of a fragment's own header, see [`payload`](crate::payload).
pub const FRAGMENT_HEADER: usize = 1 + 16 + 4 + 2 + 1 + 1;
/// Bytes of a message that one fragment carries. Even, as the erasure code demands.
pub const FRAGMENT_DATA: usize = PLAINTEXT_MAX - FRAGMENT_HEADER;
/// Longest message, in bytes.
pub const MESSAGE_MAX: usize = 64 << 20;
/// Data fragments of a full segment: 257 kB. Long enough that a tenth of parity corrects a tenth of loss, short enough
/// that a segment is coded in well under a millisecond.
pub const SEGMENT_DATA: u32 = 128;
/// Most fragments of a segment, parity included.
pub const SEGMENT_MAX: usize = SEGMENT_DATA as usize + SEGMENT_DATA as usize / 2;

const _: () = assert!(FRAGMENT_DATA == 2006 && FRAGMENT_DATA.is_multiple_of(2));

/// Names a message towards its recipient; random, so it says nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message id has 32 hexadecimal digits")]
pub struct MessageIdError;

impl core::str::FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let digits: &[u8; 32] = text.as_bytes().try_into().map_err(|_| MessageIdError)?;
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.as_chunks::<2>().0) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(MessageIdError);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).map_err(|_| MessageIdError)?;
        }
        Ok(Self(id))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// A fragment's place in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which segment, from 0.
    pub segment: u16,
    /// Which fragment of it, data before parity.
    pub position: u8,
}

/// Into what a message of one length is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    length: u32,
}

impl Shape {
    /// The shape of a message of `length` bytes; `None` if that is more than [`MESSAGE_MAX`].
    pub fn of(length: usize) -> Option<Self> {
        let length = u32::try_from(length).ok()?;
        (length as usize <= MESSAGE_MAX).then_some(Self { length })
    }

    /// Length of the message.
    pub fn length(self) -> usize {
        self.length as usize
    }

    /// Data fragments, at least one.
    pub fn fragments(self) -> u32 {
        u32::try_from(self.length().div_ceil(FRAGMENT_DATA).max(1))
            .expect("64 MiB have some 33 000 fragments")
    }

    /// Segments, at least one.
    pub fn segments(self) -> u16 {
        u16::try_from(self.fragments().div_ceil(SEGMENT_DATA)).expect("64 MiB have some 260 segments")
    }

    /// Data fragments of a segment; 0 if there is no such segment.
    pub fn data_in(self, segment: u16) -> usize {
        let before = u32::from(segment) * SEGMENT_DATA;
        self.fragments().saturating_sub(before).min(SEGMENT_DATA) as usize
    }

    /// Parity fragments of a segment.
    pub fn parity_in(self, segment: u16) -> usize {
        self.data_in(segment).div_ceil(2)
    }

    /// Whether there is such a fragment.
    pub fn contains(self, place: Place) -> bool {
        usize::from(place.position) < self.data_in(place.segment) + self.parity_in(place.segment)
    }

    /// The place of a data fragment that is counted through the whole message.
    pub fn place_of(self, index: u32) -> Place {
        let segment = u16::try_from(index / SEGMENT_DATA).unwrap_or(u16::MAX);
        let position = u8::try_from(index % SEGMENT_DATA).expect("a segment has fewer than 256 fragments");
        Place { segment, position }
    }

    /// The bytes of a segment.
    pub fn bytes_of(self, segment: u16) -> Range<usize> {
        let full = SEGMENT_DATA as usize * FRAGMENT_DATA;
        let start = (usize::from(segment) * full).min(self.length());
        start..(start + full).min(self.length())
    }

    /// The bytes of a data fragment: fewer than [`FRAGMENT_DATA`] in the last one.
    pub fn bytes_at(self, place: Place) -> Range<usize> {
        let segment = self.bytes_of(place.segment);
        let start = (segment.start + usize::from(place.position) * FRAGMENT_DATA).min(segment.end);
        start..(start + FRAGMENT_DATA).min(segment.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_read_as_it_is_shown() {
        let id = MessageId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 254, 255, 128]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "00", &"g".repeat(32), &"ä".repeat(16), &"0".repeat(33)] {
            assert_eq!(wrong.parse::<MessageId>(), Err(MessageIdError));
        }
    }

    #[test]
    fn lengths_at_every_edge_have_the_right_shape() {
        let segment = SEGMENT_DATA as usize * FRAGMENT_DATA;
        for (length, fragments, segments) in [
            (0, 1, 1),
            (1, 1, 1),
            (FRAGMENT_DATA, 1, 1),
            (FRAGMENT_DATA + 1, 2, 1),
            (segment, 128, 1),
            (segment + 1, 129, 2),
            (MESSAGE_MAX, 33_455, 262),
        ] {
            let shape = Shape::of(length).unwrap();
            assert_eq!((shape.fragments(), shape.segments()), (fragments, segments), "{length}");
        }
        assert_eq!(Shape::of(MESSAGE_MAX + 1), None);
    }

    proptest! {
        #[test]
        fn data_fragments_tile_the_message(length in 0..=MESSAGE_MAX) {
            let shape = Shape::of(length).unwrap();
            let mut at = 0;
            for index in [0, 1, 127, 128, shape.fragments() - 1] {
                if index >= shape.fragments() { continue }
                let place = shape.place_of(index);
                prop_assert!(shape.contains(place));
                let bytes = shape.bytes_at(place);
                prop_assert_eq!(bytes.start, index as usize * FRAGMENT_DATA);
                at = bytes.end;
            }
            prop_assert_eq!(at, length);
            let all: usize = (0..shape.segments()).map(|s| shape.data_in(s)).sum();
            prop_assert_eq!(all, shape.fragments() as usize);
        }
    }
}
