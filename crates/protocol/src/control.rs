//! The body of a control frame: what the two ends of a link owe each other, record after record.
//!
//! A record is a type, the parity of the key's epoch (each key epoch of a link has lists and batches of its own), and fields
//! of a fixed length, but for acknowledgements, which say how many there are. The first type 0 ends the records; what follows
//! is zero.
//!
//! | type | what | from | fields |
//! |---|---|---|---|
//! | 0 | end | | |
//! | 1 | account | issuer, a client | account 20, signature 64 |
//! | 2 | batch | issuer | header and signature, 182 |
//! | 3 | closed | issuer | window 4, batches 2 |
//! | 4 | resume | issuer | session 4, intact 1, count 8, hash 32, known 1, highest window 4 |
//! | 5 | acknowledgements | recipient | how many 1, count 8 and hash 32 of the list behind them, each: session 4, counter 4, ack 16 |
//! | 6 | commitment | recipient | window 4, commitment 32 |
//! | 7 | end of a window | recipient | window 4 |
//! | 8 | received | recipient | window 4, next batch 2 |
//! | 9 | resumed | recipient | session 4, void 1 |
//!
//! Integers are big-endian. Booleans are 0 or 1. What is not known is zero.

use thiserror::Error;
use tombola_sphinx::PACKET_LEN;
use tombola_tickets::por::Ack;
use tombola_tickets::{
    AccountProof, AckList, Address, Commitment, CompactSignature, IssuerMessage, ListHash, PacketAck,
    PacketId, RecipientMessage, SignedBatch, WindowNumber,
};

use crate::frame::{Frame, FrameKind, Parity};

/// Length of an acknowledgement.
const ACK_LEN: usize = 4 + 4 + Ack::LEN;
/// Length of what precedes them: type, parity, how many, count and hash of the list.
const ACKS_HEAD_LEN: usize = 2 + 1 + 8 + ListHash::LEN;
/// Length of the longest record, acknowledgements aside.
const LONGEST: usize = 2 + SignedBatch::LEN;
/// Acknowledgements that fit into an empty frame. More than the packets for which there is a control slot.
pub const ACKS_MAX: usize = (PACKET_LEN - ACKS_HEAD_LEN) / ACK_LEN;

const _: () = assert!(ACKS_MAX == 98 && ACKS_MAX <= u8::MAX as usize);

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Whoever is at the other end of a client's link pays from this account.
    Account(AccountProof),
    /// From the one who pays, about the packets of the epoch of that parity.
    Issuer(Parity, IssuerMessage),
    /// From the one who is paid.
    Recipient(Parity, RecipientMessage),
    /// From the one who is paid: what it takes, in its order, and its list behind that.
    Acks(Parity, Vec<PacketAck>, AckList),
}

/// What is wrong with a control frame. The peer is at fault; what came before stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// Not a control frame.
    #[error("not a control frame")]
    Kind,
    /// A type that this version does not know.
    #[error("unknown type {0} of a record")]
    Type(u8),
    /// A record has a field that no writer would write, or is cut off.
    #[error("a record of type {0} is damaged")]
    Damaged(u8),
}

/// Writes records into a frame, as long as there is room.
#[derive(Debug)]
pub struct ControlWriter {
    frame: Frame,
    at: usize,
}

impl ControlWriter {
    /// Makes a control frame of this buffer.
    pub fn new(mut frame: Frame) -> Self {
        frame.set_control();
        Self { frame, at: 0 }
    }

    /// Whether any record fits that is not acknowledgements.
    pub fn has_room(&self) -> bool {
        self.at + LONGEST <= PACKET_LEN
    }

    /// How many acknowledgements fit.
    pub fn room_for_acks(&self) -> usize {
        PACKET_LEN.saturating_sub(self.at + ACKS_HEAD_LEN) / ACK_LEN
    }

    /// The frame.
    pub fn finish(self) -> Frame {
        self.frame
    }

    /// Appends a record.
    ///
    /// # Panics
    /// If there is no room: ask before.
    pub fn push(&mut self, record: &Record) {
        match record {
            Record::Account(proof) => {
                self.put(&[&[1, 0], proof.account.as_slice(), proof.signature.as_bytes()]);
            }
            Record::Issuer(parity, message) => self.push_issuer(*parity, message),
            Record::Recipient(parity, message) => self.push_recipient(*parity, message),
            Record::Acks(parity, acks, list) => self.push_acks(*parity, acks, list),
        }
    }

    fn push_issuer(&mut self, parity: Parity, message: &IssuerMessage) {
        let parity = byte_of(parity);
        match message {
            IssuerMessage::Batch(batch) => self.put(&[&[2, parity], &batch.to_bytes()]),
            IssuerMessage::Closed { window, batches } => {
                self.put(&[&[3, parity], &window.0.to_be_bytes(), &batches.to_be_bytes()]);
            }
            IssuerMessage::Resume { session, intact, list, highest } => self.put(&[
                &[4, parity],
                &short(*session),
                &[u8::from(*intact)],
                &list.count().to_be_bytes(),
                list.hash().as_bytes(),
                &[u8::from(highest.is_some())],
                &highest.map_or(0, |highest| highest.0).to_be_bytes(),
            ]),
        }
    }

    fn push_recipient(&mut self, parity: Parity, message: &RecipientMessage) {
        let parity = byte_of(parity);
        match message {
            RecipientMessage::Commitment { window, commitment } => {
                self.put(&[&[6, parity], &window.0.to_be_bytes(), commitment.as_bytes()]);
            }
            RecipientMessage::End { window } => self.put(&[&[7, parity], &window.0.to_be_bytes()]),
            RecipientMessage::Received { window, next } => {
                self.put(&[&[8, parity], &window.0.to_be_bytes(), &next.to_be_bytes()]);
            }
            RecipientMessage::Resumed { session, void } => {
                self.put(&[&[9, parity], &short(*session), &[u8::from(*void)]]);
            }
        }
    }

    fn push_acks(&mut self, parity: Parity, acks: &[PacketAck], list: &AckList) {
        let count = u8::try_from(acks.len()).expect("as many as fit a frame");
        self.put(&[&[5, byte_of(parity), count], &list.count().to_be_bytes(), list.hash().as_bytes()]);
        for ack in acks {
            self.put(&[&short(ack.packet.session), &short(ack.packet.counter), ack.ack.as_bytes()]);
        }
    }

    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.frame.packet_mut()[self.at..self.at + part.len()].copy_from_slice(part);
            self.at += part.len();
        }
    }
}

/// Sessions and counters are counted in 32 bits by whoever numbers them.
fn short(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes()
}

fn byte_of(parity: Parity) -> u8 {
    u8::from(parity.index() == 1)
}

/// Reads a control frame record by record; after an error there are no more.
pub fn records(frame: &Frame) -> impl Iterator<Item = Result<Record, ControlError>> + '_ {
    let mut reader = if frame.kind() == Ok(FrameKind::Control) {
        Ok(Reader(frame.packet()))
    } else {
        Err(ControlError::Kind)
    };
    core::iter::from_fn(move || match &mut reader {
        Ok(rest) => {
            let record = read(rest).transpose()?;
            if record.is_err() {
                reader = Ok(Reader(&[]));
            }
            Some(record)
        }
        Err(error) => {
            let error = *error;
            reader = Ok(Reader(&[]));
            Some(Err(error))
        }
    })
}

fn read(reader: &mut Reader<'_>) -> Result<Option<Record>, ControlError> {
    let Some([kind]) = reader.array::<1>() else { return Ok(None) };
    match kind {
        0 => Ok(None),
        1..=9 => fields(kind, reader).map(Some).ok_or(ControlError::Damaged(kind)),
        other => Err(ControlError::Type(other)),
    }
}

fn fields(kind: u8, reader: &mut Reader<'_>) -> Option<Record> {
    let parity = Parity::of(u64::from(reader.boolean()?));
    Some(match kind {
        1 => Record::Account(AccountProof {
            account: Address::from(reader.array()?),
            signature: CompactSignature::from_bytes(reader.array()?).ok()?,
        }),
        2 => {
            let batch = SignedBatch::from_bytes(&reader.array::<{ SignedBatch::LEN }>()?).ok()?;
            Record::Issuer(parity, IssuerMessage::Batch(batch))
        }
        3 => {
            Record::Issuer(parity, IssuerMessage::Closed { window: reader.window()?, batches: reader.u16()? })
        }
        4 => {
            let (session, intact) = (u64::from(reader.u32()?), reader.boolean()?);
            let (list, known, highest) = (reader.list()?, reader.boolean()?, reader.window()?);
            if !known && highest.0 != 0 {
                return None;
            }
            let highest = known.then_some(highest);
            Record::Issuer(parity, IssuerMessage::Resume { session, intact, list, highest })
        }
        5 => {
            let [count] = reader.array()?;
            let list = reader.list()?;
            let mut acks = Vec::with_capacity(count.into());
            for _ in 0..count {
                let packet = PacketId { session: reader.u32()?.into(), counter: reader.u32()?.into() };
                acks.push(PacketAck { packet, ack: Ack::from_bytes(reader.array()?) });
            }
            Record::Acks(parity, acks, list)
        }
        6 => {
            let (window, commitment) = (reader.window()?, Commitment::from_bytes(reader.array()?));
            Record::Recipient(parity, RecipientMessage::Commitment { window, commitment })
        }
        7 => Record::Recipient(parity, RecipientMessage::End { window: reader.window()? }),
        8 => Record::Recipient(
            parity,
            RecipientMessage::Received { window: reader.window()?, next: reader.u16()? },
        ),
        _ => {
            let (session, void) = (reader.u32()?.into(), reader.boolean()?);
            Record::Recipient(parity, RecipientMessage::Resumed { session, void })
        }
    })
}

struct Reader<'f>(&'f [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn boolean(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn window(&mut self) -> Option<WindowNumber> {
        self.u32().map(WindowNumber)
    }

    fn list(&mut self) -> Option<AckList> {
        let count = u64::from_be_bytes(self.array()?);
        Some(AckList::restore(count, ListHash::from_bytes(self.array()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tombola_tickets::{BatchHeader, ClassNumber, Domain, Root, Salt, SignerKey, TicketCount};

    fn signed(number: u8) -> SignedBatch {
        let header = BatchHeader {
            issuer: Address::repeat_byte(1),
            recipient: Address::repeat_byte(2),
            class: ClassNumber(3),
            window: WindowNumber(4),
            number,
            count: TicketCount::new(7).unwrap(),
            commitment: Commitment::from_bytes([5; 32]),
            root: Root::from_bytes([6; 20]),
            salt: Salt::from_bytes([7; 16]),
        };
        header.sign(&Domain::new(1, Address::ZERO), &SignerKey::from_bytes(&[9; 32]).unwrap())
    }

    fn every_kind() -> Vec<Record> {
        let list = AckList::restore(1 << 40, ListHash::from_bytes([8; 32]));
        let odd = Parity::of(1);
        let packet = PacketId { session: 9, counter: u64::from(u32::MAX) };
        let proof = AccountProof { account: Address::repeat_byte(3), signature: signed(0).signature };
        let resume = |highest| IssuerMessage::Resume { session: 7, intact: true, list, highest };
        vec![
            Record::Account(proof),
            Record::Issuer(odd, IssuerMessage::Batch(signed(255))),
            Record::Issuer(odd, IssuerMessage::Closed { window: WindowNumber(1), batches: 256 }),
            Record::Issuer(odd, resume(None)),
            Record::Issuer(Parity::of(2), resume(Some(WindowNumber(0)))),
            Record::Acks(odd, vec![PacketAck { packet, ack: Ack::from_bytes([1; 16]) }; 3], list),
            Record::Acks(odd, vec![], list),
            Record::Recipient(
                odd,
                RecipientMessage::Commitment {
                    window: WindowNumber(u32::MAX),
                    commitment: Commitment::from_bytes([2; 32]),
                },
            ),
            Record::Recipient(odd, RecipientMessage::End { window: WindowNumber(5) }),
            Record::Recipient(odd, RecipientMessage::Received { window: WindowNumber(6), next: 3 }),
            Record::Recipient(odd, RecipientMessage::Resumed { session: 7, void: true }),
        ]
    }

    fn read_all(frame: &Frame) -> Result<Vec<Record>, ControlError> {
        records(frame).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut writer = ControlWriter::new(Frame::zeroed());
        let written = every_kind();
        written.iter().for_each(|record| {
            assert!(writer.has_room());
            writer.push(record);
        });
        assert_eq!(read_all(&writer.finish()), Ok(written));
    }

    #[test]
    fn a_frame_that_says_nothing_is_all_zero_but_for_its_kind() {
        let mut used = Frame::zeroed();
        used.as_bytes_mut().fill(0xff);
        let frame = ControlWriter::new(used).finish();
        assert_eq!(read_all(&frame), Ok(vec![]));
        assert!(frame.as_bytes()[1..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_frame_is_full_when_it_says_so() {
        let mut writer = ControlWriter::new(Frame::zeroed());
        let ack = PacketAck { packet: PacketId { session: 1, counter: 2 }, ack: Ack::from_bytes([1; 16]) };
        assert_eq!(writer.room_for_acks(), ACKS_MAX);
        let full = Record::Acks(Parity::of(0), vec![ack; ACKS_MAX], AckList::new());
        writer.push(&full);
        assert!(writer.room_for_acks() == 0 && !writer.has_room());
        assert_eq!(read_all(&writer.finish()), Ok(vec![full]));

        let mut writer = ControlWriter::new(Frame::zeroed());
        let mut count = 0;
        while writer.has_room() {
            writer.push(&Record::Issuer(Parity::of(0), IssuerMessage::Batch(signed(count))));
            count += 1;
        }
        assert_eq!(read_all(&writer.finish()).unwrap().len(), usize::from(count));
        assert_eq!(count, 13);
    }

    #[test]
    fn what_nobody_would_write_is_refused_and_what_came_before_stands() {
        let with = |records: &[Record], bytes: &[u8]| {
            let mut writer = ControlWriter::new(Frame::zeroed());
            records.iter().for_each(|record| writer.push(record));
            let at = writer.at;
            let mut frame = writer.finish();
            frame.packet_mut()[at..at + bytes.len()].copy_from_slice(bytes);
            frame
        };
        let end = Record::Recipient(Parity::of(0), RecipientMessage::End { window: WindowNumber(5) });
        let frame = with(std::slice::from_ref(&end), &[10, 0]);
        let read: Vec<_> = records(&frame).collect();
        assert_eq!(read, [Ok(end), Err(ControlError::Type(10))]);
        for (bytes, kind) in [
            (&[7, 2, 0, 0, 0, 0][..], 7),
            (&[9, 0, 0, 0, 0, 1, 2], 9),
            (&[4, 0, 0, 0, 0, 1, 2], 4),
            (&[1, 0], 1),
            (&[2, 0, 1], 2),
        ] {
            assert_eq!(read_all(&with(&[], bytes)), Err(ControlError::Damaged(kind)), "{bytes:?}");
        }
        // An unknown window has a number all the same.
        let mut frame = with(&[Record::Issuer(Parity::of(0), every_resume())], &[]);
        frame.packet_mut()[2 + 4 + 1 + 8 + 32] = 0;
        assert_eq!(read_all(&frame), Err(ControlError::Damaged(4)));
        // Cut off at the end.
        let mut frame = Frame::zeroed();
        frame.set_control();
        frame.packet_mut().fill(0);
        frame.packet_mut()[0] = 5;
        frame.packet_mut()[2] = 255;
        assert_eq!(read_all(&frame), Err(ControlError::Damaged(5)));
        assert_eq!(read_all(&Frame::displaced()), Err(ControlError::Kind));
    }

    fn every_resume() -> IssuerMessage {
        let highest = Some(WindowNumber(4));
        IssuerMessage::Resume { session: 7, intact: true, list: AckList::new(), highest }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic_and_written_back(
            bytes in proptest::collection::vec(prop_oneof![3 => 0u8..12, 1 => any::<u8>()], 0..400)
        ) {
            let mut frame = Frame::zeroed();
            frame.set_control();
            frame.packet_mut()[..bytes.len()].copy_from_slice(&bytes);
            let read: Vec<_> = records(&frame).map_while(Result::ok).collect();
            let mut writer = ControlWriter::new(Frame::zeroed());
            read.iter().for_each(|record| writer.push(record));
            let at = writer.at;
            // Of an account's record the parity says nothing.
            if !read.iter().any(|record| matches!(record, Record::Account(_))) {
                let again = writer.finish();
                prop_assert_eq!(&again.packet()[..at], &frame.packet()[..at]);
            }
        }
    }
}
