//! What a gateway keeps on disk, byte for byte. Integers are big-endian.
//!
//! Table 1, `mailboxes`: who has a mailbox.
//!
//! | key | length | what |
//! |---|---|---|
//! | 0 | 28 | mailbox id |
//!
//! | value | length | what |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 8 | when its client was last here: nanoseconds since 1970 |
//! | 9 | 8 | next number, as it was when this was written; the mail itself may be further |
//! | 17 | 8 | sent: numbers up to this one may have gone down to the client, and are used up |
//! | 25 | 8 | shift: what is added to a number of the store to get the number that the client sees |
//! | 33 | 1 | 1 if the shift is settled: its client has named an acknowledgement; else 0 |
//!
//! Table 2, `mail`: the packets.
//!
//! | key | length | what |
//! |---|---|---|
//! | 0 | 28 | mailbox id |
//! | 28 | 8 | number, from 1 |
//!
//! | value | length | what |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | parity (0 or 1) of the epoch whose key opens the packet |
//! | 2 | 8 | when it was stored: nanoseconds since 1970 |
//! | 10 | 2396 | packet |
//!
//! The store adds a checksum of its own to each record; what is checked here is that the record makes sense.

use thiserror::Error;
use tombola_sphinx::PACKET_LEN;
use tombola_topology::MailboxId;

use crate::frame::{Frame, LinkMeta, Parity, array};
use crate::store::Table;
use crate::unix::UnixNanos;

/// Who has a mailbox.
pub const MAILBOXES: Table = Table(1);
/// The packets.
pub const MAIL: Table = Table(2);

const ID_LEN: usize = 28;
/// Length of a key of [`MAIL`].
pub const MAIL_KEY_LEN: usize = ID_LEN + 8;
const MAILBOX_LEN: usize = 34;
const PACKET_OFFSET: usize = 10;
/// Length of a value of [`MAIL`].
pub const MAIL_LEN: usize = PACKET_OFFSET + PACKET_LEN;
const VERSION: u8 = 1;

/// The highest number that a mail may have, and the highest that a client may acknowledge: no sum of two overflows.
pub const NUMBER_MAX: u64 = 1 << 62;

/// A record that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a record of table {} ({}) cannot be used: {reason}", table.0, name_of(*table))]
pub struct RecordError {
    /// Where it is.
    pub table: Table,
    /// What is wrong with it.
    pub reason: RecordFault,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// A gateway has no such table.
    #[error("a gateway has no such table")]
    Table,
    /// The key has another length than the keys of its table.
    #[error("its key has {0} bytes")]
    KeyLength(usize),
    /// The value has another length than the values of its table.
    #[error("it has {0} bytes")]
    Length(usize),
    /// A later version wrote it, or nobody.
    #[error("its version is {0}, and this program knows {VERSION}")]
    Version(u8),
    /// A field that is 0 or 1 is neither.
    #[error("a field that is 0 or 1 is {0}")]
    Flag(u8),
    /// A number that no mail can have.
    #[error("it has the number {0}")]
    Number(u64),
    /// Two records with one key.
    #[error("it is there twice")]
    Twice,
    /// Mail of a mailbox that nobody has.
    #[error("it belongs to a mailbox that is not in the table of mailboxes")]
    NoMailbox,
}

fn name_of(table: Table) -> &'static str {
    match table {
        MAILBOXES => "mailboxes",
        MAIL => "mail",
        _ => "unknown",
    }
}

/// What is kept of a mailbox beside its mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MailboxRecord {
    pub(super) seen: UnixNanos,
    pub(super) next: u64,
    pub(super) sent: u64,
    pub(super) shift: u64,
    pub(super) settled: bool,
}

impl MailboxRecord {
    pub(super) fn encode(&self) -> Box<[u8]> {
        let mut value = Vec::with_capacity(MAILBOX_LEN);
        value.push(VERSION);
        for number in [self.seen.0, self.next, self.sent, self.shift] {
            value.extend_from_slice(&number.to_be_bytes());
        }
        value.push(u8::from(self.settled));
        value.into()
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<(MailboxId, Self), RecordError> {
        let fault = |reason| RecordError { table: MAILBOXES, reason };
        let id: [u8; ID_LEN] = key.try_into().map_err(|_| fault(RecordFault::KeyLength(key.len())))?;
        check(value, MAILBOX_LEN).map_err(fault)?;
        let number = |at: usize| u64::from_be_bytes(array(&value[at..at + 8]));
        let settled = flag(value[33]).map_err(fault)?;
        let seen = UnixNanos(number(1));
        let record = Self { seen, next: number(9), sent: number(17), shift: number(25), settled };
        for (number, allowed) in
            [(record.next, 1..=NUMBER_MAX), (record.sent, 0..=NUMBER_MAX - 1), (record.shift, 0..=NUMBER_MAX)]
        {
            if !allowed.contains(&number) {
                return Err(fault(RecordFault::Number(number)));
            }
        }
        Ok((MailboxId::from_bytes(id), record))
    }
}

/// Mail as it is on disk.
#[derive(Debug, PartialEq, Eq)]
pub struct StoredMail {
    /// Whose it is.
    pub mailbox: MailboxId,
    /// Its number in the store.
    pub number: u64,
    /// When it was stored.
    pub stored: UnixNanos,
    /// The packet; of the rest only the parity counts.
    pub frame: Frame,
}

impl StoredMail {
    /// Reads a record of [`MAIL`].
    ///
    /// # Errors
    /// It is none.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, RecordError> {
        let (mailbox, number) = decode_mail_key(key)?;
        let (parity, stored) = decode_mail_head(value)?;
        let mut frame = Frame::zeroed();
        frame.packet_mut().copy_from_slice(&value[PACKET_OFFSET..]);
        frame.set_link_packet(parity, &LinkMeta { challenge: [0; 20], ack_check: [0; 8] });
        Ok(Self { mailbox, number, stored, frame })
    }
}

/// What the index needs of a record of [`MAIL`], which is checked all the same.
pub(super) fn decode_mail(key: &[u8], value: &[u8]) -> Result<(MailboxId, u64, UnixNanos), RecordError> {
    let (mailbox, number) = decode_mail_key(key)?;
    let (_, stored) = decode_mail_head(value)?;
    Ok((mailbox, number, stored))
}

pub(super) fn encode_mail(stored: UnixNanos, frame: &Frame) -> Box<[u8]> {
    let mut value = Vec::with_capacity(MAIL_LEN);
    value.push(VERSION);
    value.push(u8::from(frame.parity().index() == 1));
    value.extend_from_slice(&stored.0.to_be_bytes());
    value.extend_from_slice(frame.packet());
    value.into()
}

pub(super) fn mail_key(mailbox: &MailboxId, number: u64) -> Box<[u8]> {
    let mut key = Vec::with_capacity(MAIL_KEY_LEN);
    key.extend_from_slice(mailbox.as_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}

fn decode_mail_key(key: &[u8]) -> Result<(MailboxId, u64), RecordError> {
    let fault = |reason| RecordError { table: MAIL, reason };
    if key.len() != MAIL_KEY_LEN {
        return Err(fault(RecordFault::KeyLength(key.len())));
    }
    let (id, number) = key.split_at(ID_LEN);
    let number = u64::from_be_bytes(array(number));
    if !(1..NUMBER_MAX).contains(&number) {
        return Err(fault(RecordFault::Number(number)));
    }
    Ok((MailboxId::from_bytes(array(id)), number))
}

fn decode_mail_head(value: &[u8]) -> Result<(Parity, UnixNanos), RecordError> {
    let fault = |reason| RecordError { table: MAIL, reason };
    check(value, MAIL_LEN).map_err(fault)?;
    let parity = Parity::of(u64::from(flag(value[1]).map_err(fault)?));
    Ok((parity, UnixNanos(u64::from_be_bytes(array(&value[2..10])))))
}

fn check(value: &[u8], len: usize) -> Result<(), RecordFault> {
    // The version first: another one may well have another length.
    match value.first() {
        Some(&VERSION) if value.len() == len => Ok(()),
        Some(&VERSION) | None => Err(RecordFault::Length(value.len())),
        Some(&version) => Err(RecordFault::Version(version)),
    }
}

fn flag(byte: u8) -> Result<bool, RecordFault> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(RecordFault::Flag(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MailboxId = MailboxId::from_bytes([7; 28]);

    #[test]
    fn records_come_back_as_they_were_written() {
        let record = MailboxRecord { seen: UnixNanos(3), next: 500, sent: 400, shift: 9, settled: true };
        assert_eq!(MailboxRecord::decode(ID.as_bytes(), &record.encode()), Ok((ID, record)));
        let mut frame = Frame::zeroed();
        frame.packet_mut().fill(5);
        frame.set_link_packet(Parity::of(1), &LinkMeta { challenge: [0; 20], ack_check: [0; 8] });
        let (key, value) = (mail_key(&ID, 70_000), encode_mail(UnixNanos(11), &frame));
        let mail = StoredMail { mailbox: ID, number: 70_000, stored: UnixNanos(11), frame };
        assert_eq!(StoredMail::decode(&key, &value), Ok(mail));
        assert_eq!(decode_mail(&key, &value), Ok((ID, 70_000, UnixNanos(11))));
    }

    #[test]
    fn numbers_keep_their_order_as_keys() {
        let numbers = [1, 255, 256, 65_536, NUMBER_MAX - 1];
        assert!(numbers.map(|number| mail_key(&ID, number)).is_sorted());
    }

    #[test]
    fn whatever_makes_no_sense_is_refused_with_its_table_and_the_reason() {
        let mailbox = MailboxRecord { next: 1, ..MailboxRecord::default() }.encode();
        let change = |at: usize, byte: u8| {
            let mut value = mailbox.clone();
            value[at] = byte;
            MailboxRecord::decode(ID.as_bytes(), &value).unwrap_err().reason
        };
        assert_eq!(change(0, 2), RecordFault::Version(2));
        assert_eq!(change(9, 0x80), RecordFault::Number((1 << 63) + 1));
        assert_eq!(change(16, 0), RecordFault::Number(0));
        assert_eq!(change(17, 0x40), RecordFault::Number(1 << 62));
        assert_eq!(change(25, 0x80), RecordFault::Number(1 << 63));
        assert_eq!(change(33, 2), RecordFault::Flag(2));
        let short = MailboxRecord::decode(ID.as_bytes(), &mailbox[..33]).unwrap_err();
        assert_eq!(short.to_string(), "a record of table 1 (mailboxes) cannot be used: it has 33 bytes");
        assert_eq!(MailboxRecord::decode(b"", &mailbox).unwrap_err().reason, RecordFault::KeyLength(0));

        let (key, value) = (mail_key(&ID, 1), encode_mail(UnixNanos(0), &Frame::zeroed()));
        let reason = |key: &[u8], value: &[u8]| StoredMail::decode(key, value).unwrap_err().reason;
        assert_eq!(reason(&key[1..], &value), RecordFault::KeyLength(35));
        assert_eq!(reason(&mail_key(&ID, 0), &value), RecordFault::Number(0));
        assert_eq!(reason(&mail_key(&ID, NUMBER_MAX), &value), RecordFault::Number(NUMBER_MAX));
        assert_eq!(reason(&key, &value[1..]), RecordFault::Version(0));
        assert_eq!(reason(&key, &[]), RecordFault::Length(0));
        assert_eq!(reason(&key, &[&value[..], &[0]].concat()), RecordFault::Length(MAIL_LEN + 1));
        let mut wrong = value.clone();
        wrong[1] = 2;
        assert_eq!(reason(&key, &wrong), RecordFault::Flag(2));
    }
}
