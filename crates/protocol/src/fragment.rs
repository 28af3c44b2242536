//! How a message is cut into payloads.
//!
//! A payload's plaintext begins with one byte that says what it is:
//!
//! | type | layout |
//! |---|---|
//! | 0 cover | type 1, random rest |
//! | 1 fragment | type 1, message id 16, index 4, count 4, data 0 to [`FRAGMENT_DATA`] |
//! | 2 probe | type 1, random rest (half of a mix node's loop; its identifier is in the header) |
//!
//! Every fragment of a message but the last is full. Integers are big-endian.

use core::fmt;

use thiserror::Error;
use tombola_sphinx::PLAINTEXT_MAX;

use crate::frame::array;

/// Length of a fragment's own header.
pub const FRAGMENT_HEADER: usize = 1 + 16 + 4 + 4;
/// Bytes of a message that one fragment carries.
pub const FRAGMENT_DATA: usize = PLAINTEXT_MAX - FRAGMENT_HEADER;
/// Longest message, in bytes.
pub const MESSAGE_MAX: usize = 64 << 20;
/// Most fragments of one message.
pub const FRAGMENTS_MAX: u32 = MESSAGE_MAX.div_ceil(FRAGMENT_DATA) as u32;

/// First byte of a payload's plaintext.
pub mod payload_type {
    /// Cover traffic.
    pub const COVER: u8 = 0;
    /// A fragment of a message.
    pub const FRAGMENT: u8 = 1;
    /// Half of a mix node's loop.
    pub const PROBE: u8 = 2;
}

/// Names a message towards its recipient; random, so it says nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// A fragment's place in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Which message.
    pub message: MessageId,
    /// Which fragment of it, from 0.
    pub index: u32,
    /// Of how many, at least 1.
    pub count: u32,
}

/// A payload that is whole but makes no sense. Its sender is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FragmentError {
    /// The plaintext is empty or of a type that this version does not know.
    #[error("unknown payload type {0:?}")]
    Type(Option<u8>),
    /// Shorter than its header.
    #[error("a fragment of {0} bytes is shorter than its header of {FRAGMENT_HEADER}")]
    Short(usize),
    /// Index or count out of range.
    #[error("fragment {index} of {count} does not exist (at most {FRAGMENTS_MAX})")]
    Index {
        /// As read.
        index: u32,
        /// As read.
        count: u32,
    },
    /// A fragment before the last that is not full.
    #[error("fragment {index} carries {len} bytes where {FRAGMENT_DATA} are due")]
    Partial {
        /// As read.
        index: u32,
        /// Bytes of data.
        len: usize,
    },
}

/// What a payload's plaintext is.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Cover traffic: nothing to keep.
    Cover,
    /// A fragment of a message.
    Fragment(FragmentHeader, &'a [u8]),
    /// Half of a mix node's loop.
    Probe,
}

/// Reads a payload's plaintext.
pub fn parse(plaintext: &[u8]) -> Result<Payload<'_>, FragmentError> {
    match plaintext.first() {
        Some(&payload_type::COVER) => Ok(Payload::Cover),
        Some(&payload_type::PROBE) => Ok(Payload::Probe),
        Some(&payload_type::FRAGMENT) => {
            let Some((head, data)) = plaintext.split_at_checked(FRAGMENT_HEADER) else {
                return Err(FragmentError::Short(plaintext.len()));
            };
            let header = FragmentHeader {
                message: MessageId(array(&head[1..17])),
                index: u32::from_be_bytes(array(&head[17..21])),
                count: u32::from_be_bytes(array(&head[21..25])),
            };
            let FragmentHeader { index, count, .. } = header;
            if index >= count || count > FRAGMENTS_MAX {
                return Err(FragmentError::Index { index, count });
            }
            if index + 1 < count && data.len() != FRAGMENT_DATA {
                return Err(FragmentError::Partial { index, len: data.len() });
            }
            Ok(Payload::Fragment(header, data))
        }
        other => Err(FragmentError::Type(other.copied())),
    }
}

/// How many fragments a message of `len` bytes takes; an empty message takes one.
pub fn count_for(len: usize) -> u32 {
    u32::try_from(len.div_ceil(FRAGMENT_DATA).max(1)).unwrap_or(u32::MAX)
}

/// Writes fragment `index` of `body` into `plaintext` and returns how many bytes it takes.
///
/// # Panics
/// When `index` is not below [`count_for`] the body.
pub fn write(message: MessageId, body: &[u8], index: u32, plaintext: &mut [u8; PLAINTEXT_MAX]) -> usize {
    let count = count_for(body.len());
    assert!(index < count, "the message has {count} fragments");
    let start = index as usize * FRAGMENT_DATA;
    let data = &body[start..body.len().min(start + FRAGMENT_DATA)];
    plaintext[0] = payload_type::FRAGMENT;
    plaintext[1..17].copy_from_slice(&message.0);
    plaintext[17..21].copy_from_slice(&index.to_be_bytes());
    plaintext[21..25].copy_from_slice(&count.to_be_bytes());
    plaintext[FRAGMENT_HEADER..FRAGMENT_HEADER + data.len()].copy_from_slice(data);
    FRAGMENT_HEADER + data.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_a_fragment_is_named() {
        assert_eq!(parse(&[]), Err(FragmentError::Type(None)));
        assert_eq!(parse(&[9, 9]), Err(FragmentError::Type(Some(9))));
        assert_eq!(parse(&[1; 10]), Err(FragmentError::Short(10)));
        assert_eq!(parse(&[0]), Ok(Payload::Cover));
        assert_eq!(parse(&[2, 5]), Ok(Payload::Probe));
        let mut plaintext = [0; PLAINTEXT_MAX];
        let len = write(MessageId([1; 16]), b"hello", 0, &mut plaintext);
        plaintext[17..21].copy_from_slice(&1u32.to_be_bytes());
        assert_eq!(parse(&plaintext[..len]), Err(FragmentError::Index { index: 1, count: 1 }));
        plaintext[21..25].copy_from_slice(&3u32.to_be_bytes());
        assert_eq!(parse(&plaintext[..len]), Err(FragmentError::Partial { index: 1, len: 5 }));
        plaintext[21..25].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(parse(&plaintext[..len]), Err(FragmentError::Index { .. })));
    }

    proptest! {
        #[test]
        fn a_message_comes_back_from_its_fragments(body in proptest::collection::vec(any::<u8>(), 0..6 * FRAGMENT_DATA)) {
            let id = MessageId([7; 16]);
            let count = count_for(body.len());
            let mut joined = Vec::new();
            for index in 0..count {
                let mut plaintext = [0; PLAINTEXT_MAX];
                let len = write(id, &body, index, &mut plaintext);
                let Ok(Payload::Fragment(header, data)) = parse(&plaintext[..len]) else { panic!("not a fragment") };
                prop_assert_eq!(header, FragmentHeader { message: id, index, count });
                joined.extend_from_slice(data);
            }
            prop_assert_eq!(joined, body);
        }

        #[test]
        fn no_plaintext_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }
    }
}
