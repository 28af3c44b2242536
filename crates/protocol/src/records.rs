//! What a client keeps over a restart, byte for byte.
//!
//! Every value of the tables below but those that are plain bytes begins with its version, 1. Integers are big-endian. A
//! *via* is 0, or 1 and the id of the message whose reply block something came through; zeros fill it up to 17 bytes.
//!
//! | table | key | value |
//! |---|---|---|
//! | 1 outbox | message id 16 | kind 1 (0 address, 1 reply), address 92 or message id 16, length 4, replies 2, queued 8, expires 8 (Unix seconds), sent 1, cursor 4, extra 4 (parity sent unasked; of a short message the times that it was sent) |
//! | 2 bodies | message id 16, segment 2 | plain bytes |
//! | 3 final states | message id 16 | state 1 (0 acknowledged, 1 expired, 2 cancelled) |
//! | 4 reply keys | identifier 16 | message id 16, epoch 8, keys 32 to 96 |
//! | 5 conversations | message id 16 | address 92, blocks that are left 2, spare blocks 2, looks 1, next look 8 (Unix seconds) |
//! | 6 reply blocks | message id 16, number 8 | epoch 8, block 396 |
//! | 7 incomplete messages | message id 16 | length 4, via 17 |
//! | 8 fragments | message id 16, segment 2, position 1 | plain bytes |
//! | 9 segments | message id 16, segment 2 | plain bytes |
//! | 10 inbox | message id 16 | length 4, via 17, answerable 1, received 8 (Unix nanoseconds), held 8, packets 4 |
//! | 11 done | message id 16 | Unix seconds 8 |
//! | 12 tags | Unix day 4, fingerprint 8 | nothing |

use core::time::Duration;
use std::collections::BTreeMap;

use thiserror::Error;
use tombola_sphinx::{ReplyKeys, SURB_LEN};
use tombola_topology::{ClientAddress, IdentityKey, MailboxId, SphinxKey};

use crate::fragment::{MessageId, Place, Shape};
use crate::packet::Identifier;
use crate::store::Table;

/// Tables of a client's store.
pub mod tables {
    use super::Table;

    /// Messages that are not acknowledged.
    pub const OUTBOX: Table = Table(1);
    /// Their bytes.
    pub const BODIES: Table = Table(2);
    /// What became of messages, until the application has heard of it.
    pub const FINAL: Table = Table(3);
    /// Keys of own reply blocks.
    pub const KEYS: Table = Table(4);
    /// Messages that may be answered.
    pub const CONVERSATIONS: Table = Table(5);
    /// Others' reply blocks.
    pub const BLOCKS: Table = Table(6);
    /// Messages that have arrived in part.
    pub const PARTIAL: Table = Table(7);
    /// Fragments of their open segments.
    pub const FRAGMENTS: Table = Table(8);
    /// Whole segments of messages in the inbox or on their way there.
    pub const SEGMENTS: Table = Table(9);
    /// Messages that the application has not taken.
    pub const INBOX: Table = Table(10);
    /// Messages that it has taken.
    pub const DONE: Table = Table(11);
    /// Replay tags.
    pub const TAGS: Table = Table(12);
    /// All of them.
    pub const ALL: [Table; 12] =
        [OUTBOX, BODIES, FINAL, KEYS, CONVERSATIONS, BLOCKS, PARTIAL, FRAGMENTS, SEGMENTS, INBOX, DONE, TAGS];
}

const VERSION: u8 = 1;

/// A record that no version up to this one has written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}: {problem}")]
pub struct RecordError {
    what: &'static str,
    problem: String,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetRecord {
    Address(ClientAddress),
    Reply(MessageId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutboxRecord {
    pub(crate) target: TargetRecord,
    pub(crate) length: u32,
    pub(crate) replies: u16,
    pub(crate) queued: u64,
    pub(crate) expires: u64,
    pub(crate) sent: bool,
    pub(crate) cursor: u32,
    pub(crate) extra: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InboxRecord {
    pub(crate) length: u32,
    pub(crate) via: Option<MessageId>,
    pub(crate) answerable: bool,
    pub(crate) received_ns: u64,
    pub(crate) held: Duration,
    pub(crate) packets: u32,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalState {
    /// Its recipient has it.
    Acknowledged,
    /// Nobody acknowledged it in time. It may have arrived all the same.
    Expired,
    /// It was called back. It may have arrived all the same.
    Cancelled,
}

/// Everything that a client had kept, read record by record.
#[derive(Default)]
pub struct Restore {
    pub(crate) outbox: BTreeMap<MessageId, OutboxRecord>,
    pub(crate) bodies: BTreeMap<MessageId, BTreeMap<u16, Vec<u8>>>,
    pub(crate) finals: BTreeMap<MessageId, FinalState>,
    pub(crate) keys: Vec<(MessageId, u64, ReplyKeys)>,
    pub(crate) conversations: BTreeMap<MessageId, ConversationRecord>,
    pub(crate) blocks: BTreeMap<MessageId, BTreeMap<u64, (u64, [u8; SURB_LEN])>>,
    pub(crate) partial: BTreeMap<MessageId, (Shape, Option<MessageId>)>,
    pub(crate) fragments: BTreeMap<MessageId, BTreeMap<Place, Vec<u8>>>,
    pub(crate) segments: BTreeMap<MessageId, BTreeMap<u16, Vec<u8>>>,
    pub(crate) inbox: BTreeMap<MessageId, InboxRecord>,
    pub(crate) done: BTreeMap<MessageId, u64>,
    pub(crate) tags: Vec<(u32, u64)>,
}

impl core::fmt::Debug for Restore {
    /// Shows no content.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Restore({} in the outbox, {} in the inbox)", self.outbox.len(), self.inbox.len())
    }
}

/// A message that waits in the outbox of a client that does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxMessage {
    /// Its id.
    pub id: MessageId,
    /// Its length, encoded.
    pub bytes: usize,
    /// Whether everything of it has left once.
    pub sent: bool,
}

impl Restore {
    /// The messages that are not acknowledged.
    pub fn outbox(&self) -> Vec<OutboxMessage> {
        let message = |(id, record): (&MessageId, &OutboxRecord)| OutboxMessage {
            id: *id,
            bytes: record.length as usize,
            sent: record.sent,
        };
        self.outbox.iter().map(message).collect()
    }

    /// Takes one record in.
    ///
    /// # Errors
    /// It is of a newer version, or nothing that this program writes.
    pub fn feed(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        match table {
            tables::OUTBOX => {
                let (id, mut value) = record("a message of the outbox", key, value)?;
                self.outbox.insert(id, OutboxRecord::read(&mut value)?);
                value.end()
            }
            tables::BODIES => {
                let (id, segment) = part_key("a part of a message of the outbox", key)?;
                self.bodies.entry(id).or_default().insert(segment, value.to_vec());
                Ok(())
            }
            tables::FINAL => {
                let (id, mut value) = record("the final state of a message", key, value)?;
                let state = match value.u8()? {
                    0 => FinalState::Acknowledged,
                    1 => FinalState::Expired,
                    2 => FinalState::Cancelled,
                    other => return Err(value.wrong(format!("unknown state {other}"))),
                };
                self.finals.insert(id, state);
                value.end()
            }
            tables::KEYS => {
                let (identifier, mut value) = record("the keys of a reply block", key, value)?;
                let (message, epoch) = (MessageId(value.array()?), value.u64()?);
                let keys =
                    ReplyKeys::from_bytes(value.rest()).map_err(|error| value.wrong(error.to_string()))?;
                if *keys.identifier() != identifier.0 {
                    return Err(value.wrong("they are another block's".to_owned()));
                }
                self.keys.push((message, epoch, keys));
                Ok(())
            }
            tables::CONVERSATIONS => {
                let (id, mut value) = record("a message that may be answered", key, value)?;
                let record = ConversationRecord {
                    with: value.address()?,
                    left: value.u16()?,
                    spare: value.u16()?,
                    looked: value.u8()?,
                    look_at: value.u64()?,
                };
                self.conversations.insert(id, record);
                value.end()
            }
            tables::BLOCKS => {
                let mut key = Reader::new("a reply block", key);
                let (id, number) = (MessageId(key.array()?), key.u64()?);
                key.end()?;
                let mut value = Reader::versioned("a reply block", value)?;
                let block = (value.u64()?, value.array()?);
                self.blocks.entry(id).or_default().insert(number, block);
                value.end()
            }
            tables::PARTIAL => {
                let (id, mut value) = record("an incomplete message", key, value)?;
                self.partial.insert(id, (value.shape()?, value.via()?));
                value.end()
            }
            tables::FRAGMENTS => {
                let mut key = Reader::new("a fragment", key);
                let id = MessageId(key.array()?);
                let place = Place { segment: key.u16()?, position: key.u8()? };
                key.end()?;
                self.fragments.entry(id).or_default().insert(place, value.to_vec());
                Ok(())
            }
            tables::SEGMENTS => {
                let (id, segment) = part_key("a part of a message of the inbox", key)?;
                self.segments.entry(id).or_default().insert(segment, value.to_vec());
                Ok(())
            }
            tables::INBOX => {
                let (id, mut value) = record("a message of the inbox", key, value)?;
                self.inbox.insert(id, InboxRecord::read(&mut value)?);
                value.end()
            }
            tables::DONE => {
                let (id, mut value) = record("the id of a message that was taken", key, value)?;
                self.done.insert(id, value.u64()?);
                value.end()
            }
            tables::TAGS => {
                let mut key = Reader::new("a replay tag", key);
                self.tags.push((key.u32()?, key.u64()?));
                key.end()
            }
            Table(other) => {
                let problem = format!("table {other} is unknown; was it written by a newer version?");
                Err(RecordError { what: "a record", problem })
            }
        }
    }
}

impl OutboxRecord {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match &self.target {
            TargetRecord::Address(address) => {
                out.push(0);
                push_address(&mut out, address);
            }
            TargetRecord::Reply(message) => {
                out.push(1);
                out.extend_from_slice(&message.0);
            }
        }
        out.extend_from_slice(&self.length.to_be_bytes());
        out.extend_from_slice(&self.replies.to_be_bytes());
        out.extend_from_slice(&self.queued.to_be_bytes());
        out.extend_from_slice(&self.expires.to_be_bytes());
        out.push(u8::from(self.sent));
        out.extend_from_slice(&self.cursor.to_be_bytes());
        out.extend_from_slice(&self.extra.to_be_bytes());
        out
    }

    fn read(value: &mut Reader<'_>) -> Result<Self, RecordError> {
        let target = match value.u8()? {
            0 => TargetRecord::Address(value.address()?),
            1 => TargetRecord::Reply(MessageId(value.array()?)),
            other => return Err(value.wrong(format!("unknown kind {other}"))),
        };
        Ok(Self {
            target,
            length: value.u32()?,
            replies: value.u16()?,
            queued: value.u64()?,
            expires: value.u64()?,
            sent: value.bool()?,
            cursor: value.u32()?,
            extra: value.u32()?,
        })
    }
}

impl InboxRecord {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.length.to_be_bytes());
        push_via(&mut out, self.via);
        out.push(u8::from(self.answerable));
        out.extend_from_slice(&self.received_ns.to_be_bytes());
        out.extend_from_slice(&u64::try_from(self.held.as_nanos()).unwrap_or(u64::MAX).to_be_bytes());
        out.extend_from_slice(&self.packets.to_be_bytes());
        out
    }

    fn read(value: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            length: value.u32()?,
            via: value.via()?,
            answerable: value.bool()?,
            received_ns: value.u64()?,
            held: Duration::from_nanos(value.u64()?),
            packets: value.u32()?,
        })
    }
}

impl FinalState {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let state = match self {
            Self::Acknowledged => 0,
            Self::Expired => 1,
            Self::Cancelled => 2,
        };
        vec![VERSION, state]
    }
}

pub(crate) fn reply_keys(message: MessageId, epoch: u64, keys: &ReplyKeys) -> (Identifier, Vec<u8>) {
    let mut out = vec![VERSION];
    out.extend_from_slice(&message.0);
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(&keys.to_bytes());
    (*keys.identifier(), out)
}

/// A message that may be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConversationRecord {
    /// To whom it went.
    pub(crate) with: ClientAddress,
    /// Blocks that its recipient may still get.
    pub(crate) left: u16,
    /// Those that it may get because some were lost.
    pub(crate) spare: u16,
    /// How often it was looked whether some were.
    pub(crate) looked: u8,
    /// When it is looked next, Unix seconds.
    pub(crate) look_at: u64,
}

impl ConversationRecord {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        push_address(&mut out, &self.with);
        out.extend_from_slice(&self.left.to_be_bytes());
        out.extend_from_slice(&self.spare.to_be_bytes());
        out.push(self.looked);
        out.extend_from_slice(&self.look_at.to_be_bytes());
        out
    }
}

pub(crate) fn block_key(message: MessageId, number: u64) -> Vec<u8> {
    [&message.0[..], &number.to_be_bytes()].concat()
}

pub(crate) fn block(epoch: u64, block: &[u8; SURB_LEN]) -> Vec<u8> {
    [&[VERSION][..], &epoch.to_be_bytes(), block].concat()
}

pub(crate) fn partial(shape: Shape, via: Option<MessageId>) -> Vec<u8> {
    let mut out = vec![VERSION];
    let length = u32::try_from(shape.length()).expect("a message is at most 64 MiB long");
    out.extend_from_slice(&length.to_be_bytes());
    push_via(&mut out, via);
    out
}

pub(crate) fn fragment_key(message: MessageId, place: Place) -> Vec<u8> {
    [&segment_key(message, place.segment)[..], &[place.position]].concat()
}

pub(crate) fn segment_key(message: MessageId, segment: u16) -> Vec<u8> {
    [&message.0[..], &segment.to_be_bytes()].concat()
}

pub(crate) fn done(unix: u64) -> Vec<u8> {
    [&[VERSION][..], &unix.to_be_bytes()].concat()
}

pub(crate) fn tag_key(day: u32, fingerprint: u64) -> Vec<u8> {
    [&day.to_be_bytes()[..], &fingerprint.to_be_bytes()].concat()
}

fn push_address(out: &mut Vec<u8>, address: &ClientAddress) {
    out.extend_from_slice(address.sphinx_key.as_bytes());
    out.extend_from_slice(address.gateway.as_bytes());
    out.extend_from_slice(address.mailbox.as_bytes());
}

fn push_via(out: &mut Vec<u8>, via: Option<MessageId>) {
    out.push(u8::from(via.is_some()));
    out.extend_from_slice(&via.unwrap_or(MessageId([0; 16])).0);
}

fn record<'a>(
    what: &'static str,
    key: &[u8],
    value: &'a [u8],
) -> Result<(MessageId, Reader<'a>), RecordError> {
    let mut key = Reader::new(what, key);
    let id = MessageId(key.array()?);
    key.end()?;
    Ok((id, Reader::versioned(what, value)?))
}

fn part_key(what: &'static str, key: &[u8]) -> Result<(MessageId, u16), RecordError> {
    let mut key = Reader::new(what, key);
    let part = (MessageId(key.array()?), key.u16()?);
    key.end()?;
    Ok(part)
}

/// Takes a record apart.
struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes }
    }

    fn versioned(what: &'static str, bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut reader = Self::new(what, bytes);
        match reader.u8()? {
            VERSION => Ok(reader),
            other => {
                Err(reader.wrong(format!("version {other} is unknown; was it written by a newer version?")))
            }
        }
    }

    fn wrong(&self, problem: String) -> RecordError {
        RecordError { what: self.what, problem }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) =
            self.bytes.split_first_chunk().ok_or_else(|| self.wrong("it is cut short".to_owned()))?;
        self.bytes = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, RecordError> {
        self.array().map(|[byte]| byte)
    }

    fn bool(&mut self) -> Result<bool, RecordError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(format!("{other} is neither yes nor no"))),
        }
    }

    fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_be_bytes)
    }

    fn address(&mut self) -> Result<ClientAddress, RecordError> {
        Ok(ClientAddress {
            sphinx_key: SphinxKey::from_bytes(self.array()?),
            gateway: IdentityKey::from_bytes(self.array()?),
            mailbox: MailboxId::from_bytes(self.array()?),
        })
    }

    fn via(&mut self) -> Result<Option<MessageId>, RecordError> {
        let (some, id) = (self.bool()?, MessageId(self.array()?));
        Ok(some.then_some(id))
    }

    fn shape(&mut self) -> Result<Shape, RecordError> {
        let length = self.u32()?;
        Shape::of(length as usize)
            .ok_or_else(|| self.wrong(format!("{length} bytes are more than a message has")))
    }

    fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.bytes)
    }

    fn end(&self) -> Result<(), RecordError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.wrong("it is too long".to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> ClientAddress {
        ClientAddress {
            sphinx_key: SphinxKey::from_bytes([1; 32]),
            gateway: IdentityKey::from_bytes([2; 32]),
            mailbox: MailboxId::from_bytes([3; 28]),
        }
    }

    #[test]
    fn records_come_back_and_cut_or_newer_ones_are_named() {
        let outbox = OutboxRecord {
            target: TargetRecord::Address(address()),
            length: 5,
            replies: 6,
            queued: 7,
            expires: 8,
            sent: true,
            cursor: 9,
            extra: 10,
        };
        let reply = OutboxRecord { target: TargetRecord::Reply(MessageId([4; 16])), ..outbox.clone() };
        let inbox = InboxRecord {
            length: 1,
            via: Some(MessageId([9; 16])),
            answerable: true,
            received_ns: 2,
            held: Duration::from_nanos(3),
            packets: 4,
        };
        let (one, two) = (MessageId([1; 16]), MessageId([2; 16]));
        let mut restore = Restore::default();
        restore.feed(tables::OUTBOX, &one.0, &outbox.to_bytes()).unwrap();
        restore.feed(tables::OUTBOX, &two.0, &reply.to_bytes()).unwrap();
        restore.feed(tables::INBOX, &one.0, &inbox.to_bytes()).unwrap();
        restore.feed(tables::FINAL, &one.0, &FinalState::Expired.to_bytes()).unwrap();
        let talk =
            ConversationRecord { with: address(), left: 3, spare: 16, looked: 1, look_at: 1_700_000_000 };
        restore.feed(tables::CONVERSATIONS, &one.0, &talk.to_bytes()).unwrap();
        restore.feed(tables::BLOCKS, &block_key(one, 5), &block(7, &[8; SURB_LEN])).unwrap();
        restore.feed(tables::PARTIAL, &one.0, &partial(Shape::of(9).unwrap(), None)).unwrap();
        restore.feed(tables::TAGS, &tag_key(3, 4), &[]).unwrap();
        restore.feed(tables::DONE, &one.0, &done(11)).unwrap();
        let place = Place { segment: 1, position: 2 };
        restore.feed(tables::FRAGMENTS, &fragment_key(one, place), b"x").unwrap();
        assert_eq!((&restore.outbox[&one], &restore.outbox[&two]), (&outbox, &reply));
        assert_eq!(restore.inbox[&one], inbox);
        assert_eq!(restore.finals[&one], FinalState::Expired);
        assert_eq!(restore.conversations[&one], talk);
        assert_eq!(restore.blocks[&one][&5], (7, [8; SURB_LEN]));
        assert_eq!(restore.partial[&one], (Shape::of(9).unwrap(), None));
        assert_eq!((&restore.tags[..], restore.done[&one]), (&[(3, 4)][..], 11));
        assert_eq!(restore.fragments[&one][&place], b"x");

        let bytes = outbox.to_bytes();
        for cut in 0..bytes.len() {
            assert!(restore.feed(tables::OUTBOX, &one.0, &bytes[..cut]).is_err(), "{cut}");
        }
        let mut newer = bytes.clone();
        newer[0] = 2;
        let error = restore.feed(tables::OUTBOX, &one.0, &newer).unwrap_err().to_string();
        assert_eq!(
            error,
            "a message of the outbox: version 2 is unknown; was it written by a newer version?"
        );
        assert!(restore.feed(Table(99), &[], &[]).is_err());
    }

    proptest! {
        #[test]
        fn no_record_makes_the_reader_panic(
            table in 0u8..14,
            key in proptest::collection::vec(any::<u8>(), 0..30),
            value in proptest::collection::vec(0u8..3, 0..420),
        ) {
            let _ = Restore::default().feed(Table(table), &key, &value);
        }
    }
}
