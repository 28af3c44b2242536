//! What a payload's plaintext is, byte for byte.
//!
//! | type | layout |
//! |---|---|
//! | 0 cover | random rest |
//! | 1 fragment | message id 16, length 4 of the message, segment 2, position 1, zero 1, data [`FRAGMENT_DATA`] |
//! | 2 probe | random rest (half of a mix node's loop; its identifier is in the header) |
//! | 3 short message | message id 16, flags 1, epoch 8, count 1, reply blocks count × [`SURB_LEN`], the message |
//! | 4 reply blocks | message id 16, length 4 of the message, flags 1, epoch 8, count 1, reply blocks count × [`SURB_LEN`] |
//! | 5 report | message id 16, status 1, for each segment: its number 2, the positions that have arrived, a bit each, 24 |
//! | 6 request | message id 16, how many reply blocks are wanted 2 |
//!
//! The type is the first byte. Flags: 1, the blocks may be used for an answer of the application's; 2, a report on the
//! message is asked for; 4, a ping (of which the recipient's application learns nothing). The epoch is that of the keys of
//! all blocks. Status of a report: 0, the whole message is here; 1, segments that are not listed are here; 2, not all could be
//! listed; 3, nothing of it is here. The first bit of a set of positions is the lowest of its first byte. Integers are
//! big-endian.

use thiserror::Error;
use tombola_sphinx::{PLAINTEXT_MAX, SURB_LEN};

use crate::fragment::{FRAGMENT_DATA, FRAGMENT_HEADER, MessageId, Place, SEGMENT_MAX, Shape};
use crate::frame::array;

/// Most reply blocks in one packet.
pub const BLOCKS_MAX: usize = (PLAINTEXT_MAX - BLOCKS_HEADER) / SURB_LEN;

const SHORT_HEADER: usize = 1 + 16 + 1 + 8 + 1;
const BLOCKS_HEADER: usize = 1 + 16 + 4 + 1 + 8 + 1;
const REPORT_HEADER: usize = 1 + 16 + 1;
const REQUEST_LEN: usize = 1 + 16 + 2;
/// Bytes of a set of positions.
const POSITIONS_LEN: usize = SEGMENT_MAX / 8;
const REPORT_ENTRY: usize = 2 + POSITIONS_LEN;
/// Most segments that a report lists.
pub const REPORTED_MAX: usize = (PLAINTEXT_MAX - REPORT_HEADER) / REPORT_ENTRY;

const _: () = assert!(BLOCKS_MAX == 5 && REPORTED_MAX == 77 && POSITIONS_LEN == 24);

/// Longest message that fits a packet with that many reply blocks.
pub const fn short_max(blocks: usize) -> usize {
    (PLAINTEXT_MAX - SHORT_HEADER).saturating_sub(blocks * SURB_LEN)
}

/// First byte of a payload's plaintext.
pub mod payload_type {
    /// Cover traffic.
    pub const COVER: u8 = 0;
    /// A fragment of a message.
    pub const FRAGMENT: u8 = 1;
    /// Half of a mix node's loop.
    pub const PROBE: u8 = 2;
    /// A whole message.
    pub const SHORT: u8 = 3;
    /// Reply blocks.
    pub const BLOCKS: u8 = 4;
    /// What has arrived of a message.
    pub const REPORT: u8 = 5;
    /// More reply blocks, please.
    pub const REQUEST: u8 = 6;
}

/// What the sender of a message says beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// The blocks may be used for an answer of the application's.
    pub const REPLIES: Self = Self(1);
    /// A report on the message is asked for; in a short answer, reply blocks are.
    pub const ASKS: Self = Self(2);
    /// A ping.
    pub const PING: Self = Self(4);

    /// Both.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is said.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Reply blocks of one epoch, as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks<'a> {
    /// The epoch whose keys they use.
    pub epoch: u64,
    bytes: &'a [[u8; SURB_LEN]],
}

impl<'a> Blocks<'a> {
    /// Blocks that were made in one epoch.
    pub fn new(epoch: u64, bytes: &'a [[u8; SURB_LEN]]) -> Self {
        Self { epoch, bytes }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8; SURB_LEN]> + use<'a> {
        self.bytes.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Positions of a segment, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions([u8; POSITIONS_LEN]);

impl Positions {
    /// Adds a position; one that no segment has changes nothing.
    pub fn insert(&mut self, position: u8) {
        if let Some(byte) = self.0.get_mut(usize::from(position) / 8) {
            *byte |= 1 << (position % 8);
        }
    }

    /// Whether a position is in it.
    pub fn contains(&self, position: u8) -> bool {
        self.0.get(usize::from(position) / 8).is_some_and(|byte| byte & (1 << (position % 8)) != 0)
    }

    /// How many positions are in it.
    pub fn len(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What has arrived of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// All of it.
    Whole,
    /// Some of it.
    Partial {
        /// The segments that are not whole, and what there is of them.
        open: Vec<(u16, Positions)>,
        /// Whether there are more that are not listed.
        more: bool,
    },
    /// Nothing.
    Nothing,
}

/// A payload that is whole but makes no sense. Its sender is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// The plaintext is empty or of a type that this version does not know.
    #[error("unknown payload type {0:?}")]
    Type(Option<u8>),
    /// Shorter or longer than its type demands.
    #[error("a payload of type {kind} cannot have {len} bytes")]
    Length {
        /// Its type.
        kind: u8,
        /// Bytes of the plaintext.
        len: usize,
    },
    /// Longer than a message may be.
    #[error("a message of {0} bytes is longer than allowed")]
    TooLong(u32),
    /// A fragment that a message of that length does not have.
    #[error("a message of {length} bytes has no fragment {position} of segment {segment}")]
    Place {
        /// Length of the message.
        length: usize,
        /// As read.
        segment: u16,
        /// As read.
        position: u8,
    },
    /// Flags, status or a reserved byte that this version does not know.
    #[error("a field of the payload has the unknown value {0}")]
    Value(u8),
}

/// What a payload's plaintext is.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Cover traffic: nothing to keep.
    Cover,
    /// A fragment of a message.
    Fragment {
        /// Which message.
        message: MessageId,
        /// Into what the message is cut.
        shape: Shape,
        /// Where the fragment belongs.
        place: Place,
        /// Its bytes.
        data: &'a [u8; FRAGMENT_DATA],
    },
    /// Half of a mix node's loop.
    Probe,
    /// A whole message.
    Short {
        /// Its id.
        message: MessageId,
        /// What its sender says beside it.
        flags: Flags,
        /// For its acknowledgement, and for answers.
        blocks: Blocks<'a>,
        /// The message.
        body: &'a [u8],
    },
    /// Reply blocks for a message.
    Blocks {
        /// Its id.
        message: MessageId,
        /// Into what it is cut.
        shape: Shape,
        /// What its sender says.
        flags: Flags,
        /// For its acknowledgement, and for answers.
        blocks: Blocks<'a>,
    },
    /// What the recipient has of a message.
    Report {
        /// Its id.
        message: MessageId,
        /// What there is of it.
        report: Report,
    },
    /// More reply blocks are wanted to answer a message.
    Request {
        /// Its id.
        message: MessageId,
        /// How many.
        count: u16,
    },
}

/// Reads a payload's plaintext.
pub fn parse(plaintext: &[u8]) -> Result<Payload<'_>, PayloadError> {
    let Some(&kind) = plaintext.first() else { return Err(PayloadError::Type(None)) };
    let wrong_length = PayloadError::Length { kind, len: plaintext.len() };
    match kind {
        payload_type::COVER => Ok(Payload::Cover),
        payload_type::PROBE => Ok(Payload::Probe),
        payload_type::FRAGMENT => {
            let (head, data) = plaintext.split_first_chunk::<FRAGMENT_HEADER>().ok_or(wrong_length)?;
            let data = data.try_into().map_err(|_| wrong_length)?;
            let shape = shape_of(&head[17..21])?;
            let place = Place { segment: u16::from_be_bytes(array(&head[21..23])), position: head[23] };
            if head[24] != 0 {
                return Err(PayloadError::Value(head[24]));
            }
            if !shape.contains(place) {
                let Place { segment, position } = place;
                return Err(PayloadError::Place { length: shape.length(), segment, position });
            }
            Ok(Payload::Fragment { message: id(head), shape, place, data })
        }
        payload_type::SHORT => {
            let (head, rest) = plaintext.split_first_chunk::<SHORT_HEADER>().ok_or(wrong_length)?;
            let flags = flags_of(head[17])?;
            let (blocks, body) = split_blocks(array(&head[18..26]), head[26], rest).ok_or(wrong_length)?;
            Ok(Payload::Short { message: id(head), flags, blocks, body })
        }
        payload_type::BLOCKS => {
            let (head, rest) = plaintext.split_first_chunk::<BLOCKS_HEADER>().ok_or(wrong_length)?;
            let (shape, flags) = (shape_of(&head[17..21])?, flags_of(head[21])?);
            let (blocks, rest) = split_blocks(array(&head[22..30]), head[30], rest).ok_or(wrong_length)?;
            if !rest.is_empty() {
                return Err(wrong_length);
            }
            Ok(Payload::Blocks { message: id(head), shape, flags, blocks })
        }
        payload_type::REPORT => {
            let (head, rest) = plaintext.split_first_chunk::<REPORT_HEADER>().ok_or(wrong_length)?;
            let (entries, cut) = rest.as_chunks::<REPORT_ENTRY>();
            if !cut.is_empty() || (entries.is_empty() == (1..=2).contains(&head[17])) {
                return Err(wrong_length);
            }
            let open = || {
                let entry = |entry: &[u8; REPORT_ENTRY]| {
                    (u16::from_be_bytes(array(&entry[..2])), Positions(array(&entry[2..])))
                };
                entries.iter().map(entry).collect()
            };
            let report = match head[17] {
                0 => Report::Whole,
                1 => Report::Partial { open: open(), more: false },
                2 => Report::Partial { open: open(), more: true },
                3 => Report::Nothing,
                other => return Err(PayloadError::Value(other)),
            };
            Ok(Payload::Report { message: id(head), report })
        }
        payload_type::REQUEST => {
            let request: &[u8; REQUEST_LEN] = plaintext.try_into().map_err(|_| wrong_length)?;
            Ok(Payload::Request { message: id(request), count: u16::from_be_bytes(array(&request[17..])) })
        }
        other => Err(PayloadError::Type(Some(other))),
    }
}

/// A plaintext under construction, in a buffer of its own.
pub struct Plaintext {
    bytes: [u8; PLAINTEXT_MAX],
    len: usize,
}

impl Plaintext {
    /// A fragment of a message.
    pub fn fragment(message: MessageId, shape: Shape, place: Place, data: &[u8]) -> Self {
        let mut text = Self::begin(payload_type::FRAGMENT, message);
        text.shape(shape);
        text.push(&place.segment.to_be_bytes());
        text.push(&[place.position, 0]);
        text.push(data);
        text
    }

    /// A whole message, which must fit: see [`short_max`].
    pub fn short(message: MessageId, flags: Flags, blocks: Blocks<'_>, body: &[u8]) -> Self {
        let mut text = Self::begin(payload_type::SHORT, message);
        text.push(&[flags.0]);
        text.blocks_of(blocks);
        text.push(body);
        text
    }

    /// Reply blocks, at most [`BLOCKS_MAX`].
    pub fn blocks(message: MessageId, shape: Shape, flags: Flags, blocks: Blocks<'_>) -> Self {
        let mut text = Self::begin(payload_type::BLOCKS, message);
        text.shape(shape);
        text.push(&[flags.0]);
        text.blocks_of(blocks);
        text
    }

    /// A report, with at most [`REPORTED_MAX`] open segments.
    pub fn report(message: MessageId, report: &Report) -> Self {
        let mut text = Self::begin(payload_type::REPORT, message);
        match report {
            Report::Whole => text.push(&[0]),
            Report::Nothing => text.push(&[3]),
            Report::Partial { open, more } => {
                text.push(&[1 + u8::from(*more)]);
                for (segment, positions) in open {
                    text.push(&segment.to_be_bytes());
                    text.push(&positions.0);
                }
            }
        }
        text
    }

    /// A request for reply blocks.
    pub fn request(message: MessageId, count: u16) -> Self {
        let mut text = Self::begin(payload_type::REQUEST, message);
        text.push(&count.to_be_bytes());
        text
    }

    /// The plaintext.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn begin(kind: u8, message: MessageId) -> Self {
        let mut text = Self { bytes: [0; PLAINTEXT_MAX], len: 0 };
        text.push(&[kind]);
        text.push(&message.0);
        text
    }

    fn shape(&mut self, shape: Shape) {
        let length = u32::try_from(shape.length()).expect("a message is at most 64 MiB long");
        self.push(&length.to_be_bytes());
    }

    fn blocks_of(&mut self, blocks: Blocks<'_>) {
        self.push(&blocks.epoch.to_be_bytes());
        self.push(&[u8::try_from(blocks.len()).expect("at most five blocks fit a packet")]);
        blocks.iter().for_each(|block| self.push(block));
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }
}

impl core::fmt::Debug for Plaintext {
    /// Shows no content.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Plaintext({} bytes)", self.len)
    }
}

fn id(head: &[u8]) -> MessageId {
    MessageId(array(&head[1..17]))
}

fn shape_of(length: &[u8]) -> Result<Shape, PayloadError> {
    let length = u32::from_be_bytes(array(length));
    usize::try_from(length).ok().and_then(Shape::of).ok_or(PayloadError::TooLong(length))
}

fn flags_of(byte: u8) -> Result<Flags, PayloadError> {
    if byte > 7 { Err(PayloadError::Value(byte)) } else { Ok(Flags(byte)) }
}

fn split_blocks(epoch: [u8; 8], count: u8, rest: &[u8]) -> Option<(Blocks<'_>, &[u8])> {
    let (blocks, rest) = rest.split_at_checked(usize::from(count) * SURB_LEN)?;
    let (bytes, _) = blocks.as_chunks();
    Some((Blocks { epoch: u64::from_be_bytes(epoch), bytes }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: MessageId = MessageId([7; 16]);

    #[test]
    fn what_makes_no_sense_is_named() {
        let shape = Shape::of(5000).unwrap();
        assert_eq!(parse(&[]), Err(PayloadError::Type(None)));
        assert_eq!(parse(&[9, 9]), Err(PayloadError::Type(Some(9))));
        assert_eq!(parse(&[0]), Ok(Payload::Cover));
        assert_eq!(parse(&[2, 5]), Ok(Payload::Probe));
        for kind in [1, 3, 4, 5, 6] {
            assert_eq!(parse(&[kind; 10]), Err(PayloadError::Length { kind, len: 10 }));
        }
        let place = Place { segment: 0, position: 4 };
        let good = Plaintext::fragment(ID, shape, place, &[3; FRAGMENT_DATA]);
        let mut wrong = good.as_bytes().to_vec();
        wrong[23] = 5;
        assert_eq!(
            parse(&wrong),
            Err(PayloadError::Place { length: 5000, segment: 0, position: 5 }),
            "three data and two parity fragments"
        );
        wrong[24] = 1;
        assert_eq!(parse(&wrong), Err(PayloadError::Value(1)));
        wrong[17] = 0xff;
        assert!(matches!(parse(&wrong), Err(PayloadError::TooLong(_))));
        let mut report = Plaintext::report(ID, &Report::Whole).as_bytes().to_vec();
        report[17] = 4;
        assert_eq!(parse(&report), Err(PayloadError::Value(4)));
        report[17] = 1;
        assert!(
            matches!(parse(&report), Err(PayloadError::Length { .. })),
            "a partial report lists something"
        );
    }

    #[test]
    fn every_type_comes_back() {
        let blocks = [[1; SURB_LEN], [2; SURB_LEN]];
        let flags = Flags::REPLIES.with(Flags::ASKS);
        let shape = Shape::of(100_000).unwrap();
        let text = Plaintext::short(ID, flags, Blocks::new(9, &blocks), b"hello");
        let Ok(Payload::Short { message, flags: read, blocks: got, body }) = parse(text.as_bytes()) else {
            panic!("short")
        };
        assert_eq!((message, read, got.epoch, got.len(), body), (ID, flags, 9, 2, &b"hello"[..]));
        assert!(got.iter().eq(&blocks));
        let text = Plaintext::blocks(ID, shape, flags, Blocks::new(9, &blocks));
        assert_eq!(
            parse(text.as_bytes()),
            Ok(Payload::Blocks { message: ID, shape, flags, blocks: Blocks::new(9, &blocks) })
        );
        let mut positions = Positions::default();
        for position in [0, 7, 8, 191] {
            positions.insert(position);
        }
        assert_eq!(positions.len(), 4);
        assert!(positions.contains(191) && !positions.contains(190) && !positions.contains(200));
        for report in [
            Report::Whole,
            Report::Nothing,
            Report::Partial { open: vec![(0, positions), (261, Positions::default())], more: true },
            Report::Partial { open: vec![(5, positions); REPORTED_MAX], more: false },
        ] {
            let text = Plaintext::report(ID, &report);
            assert_eq!(parse(text.as_bytes()), Ok(Payload::Report { message: ID, report }));
        }
        let text = Plaintext::request(ID, 300);
        assert_eq!(parse(text.as_bytes()), Ok(Payload::Request { message: ID, count: 300 }));
    }

    #[test]
    fn the_longest_short_messages_fit() {
        for blocks in 0..=BLOCKS_MAX {
            let surbs = vec![[1; SURB_LEN]; blocks];
            let body = vec![2; short_max(blocks)];
            let text = Plaintext::short(ID, Flags::default(), Blocks::new(1, &surbs), &body);
            assert_eq!(text.as_bytes().len(), PLAINTEXT_MAX);
            assert!(matches!(parse(text.as_bytes()), Ok(Payload::Short { body: got, .. }) if got == body));
        }
    }

    proptest! {
        #[test]
        fn no_plaintext_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..900), kind in 0u8..8) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() { *first = kind; }
            let _ = parse(&bytes);
        }
    }
}
