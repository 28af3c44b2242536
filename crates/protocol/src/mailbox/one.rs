//! One mailbox: what is in it, how far its client is, and which packets are in memory.
//!
//! Mail is numbered as it comes. The numbers of the store count from 1 and grow; a client sees them with `shift` added,
//! which is settled when the client first names an acknowledgement (see [`Mailbox::hear`]).
//!
//! In memory are
//!
//! - of each mail its number and when it was stored;
//! - the packets of mail that is not on disk yet: always the latest mail, because the disk writes in order;
//! - while the client collects, a run of up to [`WINDOW`] packets from the cursor on.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::record::{MailboxRecord, NUMBER_MAX, StoredMail};
use crate::frame::Frame;
use crate::unix::UnixNanos;

/// Packets of one mailbox that are kept in memory beside those that are not on disk yet.
pub(super) const WINDOW: usize = 64;
/// More is fetched when no more than this is left of the window: at the default pace of the downlink, 1.3 s.
const FETCH_AT: usize = WINDOW / 2;
/// Mail that may be on its way without having been acknowledged: the client's 16 bits must tell it apart many times over.
pub(super) const IN_FLIGHT: usize = 1024;
/// How far ahead of the mail that goes down it is recorded that it may have. A gateway that is killed leaves a gap of this
/// length, which must not be so long that a client's 16 bits become ambiguous; while the disk fails, as much can go down.
const AHEAD: u64 = 16_384;
/// It is recorded anew when no more than this is left.
const AHEAD_LEAST: u64 = AHEAD / 2;

/// A mail, wherever its packet is.
#[derive(Clone, Copy, Debug)]
struct Mail {
    number: u64,
    stored: UnixNanos,
}

/// The client is here.
#[derive(Debug)]
struct Visit {
    /// It has said what it has.
    begun: bool,
    collects: bool,
    /// The next mail to go down has at least this number.
    cursor: u64,
    /// The packets of all mail from the cursor up to this number, itself excluded, are in memory.
    loaded: u64,
    /// The highest number that went down in this session.
    sent: u64,
    /// What it has acknowledged, as it sees numbers.
    heard: u64,
    /// What its last frame said, right or wrong: the low 16 bits.
    low: u16,
}

/// Where reading from disk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Idle,
    /// It will be asked for.
    Queued,
    /// It was asked for, from this number on.
    Asked(u64),
    /// It gave nothing; it is tried again later.
    Failed,
}

/// Mail that leaves.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) frame: Frame,
    pub(super) stored: UnixNanos,
    /// Its number, as the client sees it.
    pub(super) number: u64,
    /// That of the mail before it; 0 if nothing is.
    pub(super) previous: u64,
}

/// What came of a slot on the way down.
#[derive(Debug)]
pub(super) enum Slot {
    Mail(Leaving),
    /// There is nothing to send.
    Nothing,
    /// There is, but its packet has not been read yet.
    Late,
}

/// What came of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing new.
    Nothing,
    /// Mail up to this number of the store is to be deleted.
    Delete(u64),
    /// It names mail that was not sent.
    Wrong,
}

#[derive(Debug)]
pub(super) struct Mailbox {
    /// When its client was last here.
    pub(super) seen: UnixNanos,
    /// The number of the next mail.
    next: u64,
    /// The highest number that may ever have gone down.
    sent: u64,
    /// On disk, or on its way there: numbers up to this one may have gone down.
    bound: u64,
    /// On disk: mail up to this number may go down.
    granted: u64,
    shift: u64,
    settled: bool,
    mails: VecDeque<Mail>,
    /// Mail up to this number is on disk, as far as it was not deleted before.
    durable: u64,
    packets: BTreeMap<u64, Frame>,
    visit: Option<Visit>,
    pub(super) reading: Reading,
    /// Changes that concern it and are under way.
    pub(super) ties: u32,
    /// Its record as it was last handed out.
    pub(super) recorded: Option<MailboxRecord>,
}

impl Mailbox {
    /// Of a client that was never here.
    pub(super) fn new(seen: UnixNanos) -> Self {
        let record = MailboxRecord { seen, next: 1, ..MailboxRecord::default() };
        Self { recorded: None, ..Self::restore(record, VecDeque::new()) }
    }

    /// As it was on disk. `mails` are number and time of each mail, by number.
    pub(super) fn restore(record: MailboxRecord, mails: VecDeque<(u64, UnixNanos)>) -> Self {
        let last = mails.back().map_or(0, |(number, _)| *number);
        Self {
            seen: record.seen,
            // Mail that went down need not have been on disk: its number is used up all the same.
            next: record.next.max(last + 1).max(record.sent + 1),
            sent: record.sent,
            bound: record.sent,
            granted: if record.settled { record.sent } else { 0 },
            shift: record.shift,
            settled: record.settled,
            mails: mails.into_iter().map(|(number, stored)| Mail { number, stored }).collect(),
            durable: last,
            packets: BTreeMap::new(),
            visit: None,
            reading: Reading::Idle,
            ties: 0,
            recorded: Some(record),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.mails.len()
    }

    pub(super) fn in_memory(&self) -> usize {
        self.packets.len()
    }

    /// Mail that is not on disk yet.
    pub(super) fn unwritten(&self) -> usize {
        self.mails.len() - self.place_of(self.durable + 1)
    }

    /// When the oldest mail was stored.
    pub(super) fn oldest(&self) -> Option<UnixNanos> {
        self.mails.front().map(|mail| mail.stored)
    }

    pub(super) fn is_visited(&self) -> bool {
        self.visit.is_some()
    }

    /// Whether nothing would be missed if it were not there any more.
    pub(super) fn is_left(&self) -> bool {
        !self.is_visited() && self.mails.is_empty() && self.ties == 0 && self.reading == Reading::Idle
    }

    /// Whether mail that comes now goes down as soon as there are slots for it, without the disk.
    pub(super) fn flows(&self) -> bool {
        self.visit.as_ref().is_some_and(|visit| {
            let cursor = self.place_of(visit.cursor);
            visit.collects && self.mails.len() - cursor < WINDOW && cursor < IN_FLIGHT
        })
    }

    /// The client is still here.
    pub(super) fn stay(&mut self, now: UnixNanos) {
        self.seen = now;
    }

    /// What is to be on disk. Unless it has to be `exact`, what changes all the time is left as it was recorded: the next
    /// number, which follows from the mail, and when the client was here, if that is recent.
    pub(super) fn record(&self, exact: bool, recent: Duration) -> MailboxRecord {
        let now = MailboxRecord {
            seen: self.seen,
            next: self.next,
            sent: self.bound,
            shift: self.shift,
            settled: self.settled,
        };
        match self.recorded.filter(|_| !exact) {
            Some(recorded) if self.seen.since(recorded.seen) <= recent => {
                MailboxRecord { seen: recorded.seen, next: recorded.next, ..now }
            }
            Some(recorded) => MailboxRecord { next: recorded.next, ..now },
            None => now,
        }
    }

    /// Nothing goes down any more: what is recorded from now on is what went down.
    pub(super) fn close(&mut self) {
        self.bound = self.sent;
        self.granted = 0;
    }

    /// Whether all numbers are used up.
    pub(super) fn is_exhausted(&self) -> bool {
        self.next >= NUMBER_MAX
    }

    /// Adds a packet and returns its number.
    pub(super) fn store(&mut self, stored: UnixNanos, frame: Frame) -> u64 {
        let number = self.next;
        self.next += 1;
        self.mails.push_back(Mail { number, stored });
        self.packets.insert(number, frame);
        number
    }

    /// The packet of a mail that is to be written, and when it was stored; `None` if it was deleted meanwhile.
    pub(super) fn to_write(&self, number: u64) -> Option<(UnixNanos, &Frame)> {
        let mail = self.mails.get(self.place_of(number)).filter(|mail| mail.number == number)?;
        Some((mail.stored, self.packets.get(&number)?))
    }

    /// Mail up to this number is on disk. Its packet stays in memory only where it continues the window.
    pub(super) fn written(&mut self, number: u64) {
        self.durable = self.durable.max(number);
        if !self.continues_window(number) {
            self.packets.remove(&number);
        }
    }

    /// This record is on disk.
    pub(super) fn grant(&mut self, record: &MailboxRecord) {
        // One from before the last change of numbers grants nothing.
        if record.settled && self.settled && record.shift == self.shift {
            self.granted = record.sent.min(self.bound);
        }
    }

    /// The client comes.
    pub(super) fn enter(&mut self, now: UnixNanos) {
        self.seen = now;
        let first = self.first();
        self.visit = Some(Visit {
            begun: false,
            collects: false,
            cursor: first,
            loaded: first,
            sent: first - 1,
            heard: first + self.shift - 1,
            low: 0,
        });
        self.reach(first);
        self.forget_window();
    }

    /// The client goes.
    pub(super) fn leave(&mut self, now: UnixNanos) {
        self.seen = now;
        self.visit = None;
        self.forget_window();
    }

    /// A collect or hold frame: whether mail is wanted, and which is safe at the client.
    ///
    /// In the first one of a session the client may name any number that ever went down; that much is deleted. A number
    /// beyond that says that this gateway does not know its own numbers any more: it has lost its disk, or given the mailbox
    /// away in between. Then what it has, which the client cannot have seen, gets the numbers from the next one on. The same
    /// holds for a mailbox that is new: before its client has spoken nobody knows which numbers were used.
    pub(super) fn hear(&mut self, wants: bool, acknowledged: u64) -> Heard {
        let (first, sent, shift) = (self.first(), self.sent, self.shift);
        let Some(visit) = &mut self.visit else { return Heard::Nothing };
        let heard = if acknowledged >= NUMBER_MAX {
            self.settled = true;
            Heard::Wrong
        } else if visit.begun {
            visit.acknowledge(acknowledged, shift)
        } else if self.settled && acknowledged.saturating_sub(shift) <= sent {
            visit.heard = visit.heard.max(acknowledged);
            match acknowledged.saturating_sub(shift) {
                number if number >= first => Heard::Delete(number),
                _ => Heard::Nothing,
            }
        } else {
            self.settled = true;
            self.shift = (acknowledged + 1).saturating_sub(first).max(shift);
            // With another shift these numbers are others, and nothing went down under them.
            (self.granted, self.sent) = (0, first - 1);
            visit.heard = first + self.shift - 1;
            Heard::Nothing
        };
        visit.begun = true;
        visit.low = acknowledged as u16;
        visit.collects = wants;
        visit.cursor = first;
        visit.loaded = first;
        self.forget_window();
        heard
    }

    /// The low 16 bits of an acknowledgement, from a packet frame. Whoever repeats itself says nothing.
    pub(super) fn hear_low(&mut self, low: u16) -> Heard {
        let (base, shift) = (self.first() + self.shift - 1, self.shift);
        match &mut self.visit {
            Some(visit) if visit.begun && visit.low != low => {
                visit.low = low;
                let base = visit.heard.max(base);
                let ahead = low.wrapping_sub(base as u16);
                visit.acknowledge(base + u64::from(ahead), shift)
            }
            _ => Heard::Nothing,
        }
    }

    /// The next mail that is to go down, if there is one.
    pub(super) fn take(&mut self) -> Slot {
        let Some(visit) = self.visit.as_ref().filter(|visit| visit.collects) else { return Slot::Nothing };
        let at = self.place_of(visit.cursor);
        let Some(&Mail { number, stored }) = self.mails.get(at).filter(|_| at < IN_FLIGHT) else {
            return Slot::Nothing;
        };
        self.reach(number);
        if number > self.granted {
            return Slot::Late;
        }
        // What is not on disk could not be read again.
        let frame = match number <= self.durable {
            true => self.packets.remove(&number),
            false => self.packets.get(&number).cloned(),
        };
        let Some(frame) = frame else { return Slot::Late };
        let previous =
            at.checked_sub(1).and_then(|at| self.mails.get(at)).map(|mail| mail.number + self.shift);
        if let Some(visit) = &mut self.visit {
            visit.cursor = number + 1;
            visit.loaded = visit.loaded.max(visit.cursor);
            visit.sent = visit.sent.max(number);
        }
        self.sent = self.sent.max(number);
        Slot::Mail(Leaving { frame, stored, number: number + self.shift, previous: previous.unwrap_or(0) })
    }

    /// A mail that was taken did not leave: it is the next one again, and what was taken after it comes after it. `number`
    /// is as the client sees it. Returns how many mails will be sent again.
    pub(super) fn put_back(&mut self, number: u64, frame: Frame) -> usize {
        let Some(number) = number.checked_sub(self.shift) else { return 0 };
        let first = self.first();
        let Some(visit) = self.visit.as_ref().filter(|visit| (first..visit.cursor).contains(&number)) else {
            return 0;
        };
        let again = self.place_of(visit.cursor) - self.place_of(number);
        if let Some(visit) = &mut self.visit {
            if again > 1 {
                // The packets of those after it have left memory.
                visit.loaded = number + 1;
            }
            visit.cursor = number;
            visit.sent = number - 1;
        }
        if again > 1 {
            self.forget_window();
        }
        self.packets.insert(number, frame);
        again
    }

    /// Removes mail up to this number; returns how many that were.
    pub(super) fn remove(&mut self, to: u64) -> usize {
        let count = self.place_of(to + 1);
        self.mails.drain(..count);
        self.packets = self.packets.split_off(&(to + 1));
        if let Some(visit) = &mut self.visit {
            visit.cursor = visit.cursor.max(to + 1);
            visit.loaded = visit.loaded.max(to + 1);
        }
        count
    }

    /// The number of the last mail that was stored before `before`, if the oldest was.
    pub(super) fn last_before(&self, before: UnixNanos) -> Option<u64> {
        // A wall clock that was set back leaves times out of order: what stands behind a younger one waits for it.
        self.mails.iter().take_while(|mail| mail.stored < before).last().map(|mail| mail.number)
    }

    /// What should be read from disk: first and last number, and how many at most.
    pub(super) fn to_read(&self) -> Option<(u64, u64, usize)> {
        let visit = self.visit.as_ref().filter(|visit| visit.collects)?;
        let (cursor, loaded) = (self.place_of(visit.cursor), self.place_of(visit.loaded));
        let missing = self.mails.get(loaded).filter(|mail| mail.number <= self.durable)?;
        (loaded - cursor <= FETCH_AT && loaded < IN_FLIGHT).then(|| {
            let count = (WINDOW - (loaded - cursor)).min(IN_FLIGHT - loaded);
            (missing.number, self.durable, count)
        })
    }

    /// What was read from disk continues the window, as far as it does. Returns whether what was asked for was there, or
    /// is wanted no more.
    pub(super) fn read(&mut self, mails: Vec<StoredMail>) -> bool {
        for mail in mails {
            if mail.number <= self.durable && self.continues_window(mail.number) {
                self.packets.insert(mail.number, mail.frame);
            }
        }
        let wanted = self.to_read().map(|(from, ..)| Reading::Asked(from));
        let failed = wanted == Some(self.reading);
        self.reading = if failed { Reading::Failed } else { Reading::Idle };
        !failed
    }

    /// Whether a packet belongs into the window, which then reaches up to it.
    fn continues_window(&mut self, number: u64) -> bool {
        let Some(visit) = self.visit.as_ref().filter(|visit| visit.collects) else { return false };
        if number < visit.loaded {
            return number >= visit.cursor;
        }
        let (cursor, loaded) = (self.place_of(visit.cursor), self.place_of(visit.loaded));
        let continues =
            loaded - cursor < WINDOW && self.mails.get(loaded).is_some_and(|mail| mail.number == number);
        if let Some(visit) = self.visit.as_mut().filter(|_| continues) {
            visit.loaded = number + 1;
        }
        continues
    }

    /// Drops the packets that could be read again.
    fn forget_window(&mut self) {
        self.packets = self.packets.split_off(&(self.durable + 1));
    }

    /// Mail with this number is about to go down: records ahead of it that it may have.
    fn reach(&mut self, number: u64) {
        if number + AHEAD_LEAST > self.bound {
            self.bound = (number + AHEAD).min(NUMBER_MAX - 1);
        }
    }

    /// The number of the oldest mail, or of the next.
    fn first(&self) -> u64 {
        self.mails.front().map_or(self.next, |mail| mail.number)
    }

    /// How many mails have a smaller number.
    fn place_of(&self, number: u64) -> usize {
        self.mails.partition_point(|mail| mail.number < number)
    }
}

impl Visit {
    /// An acknowledgement that may name what went down in this session, and nothing else.
    fn acknowledge(&mut self, acknowledged: u64, shift: u64) -> Heard {
        match acknowledged.checked_sub(shift) {
            _ if acknowledged <= self.heard => Heard::Nothing,
            Some(number) if number <= self.sent => {
                self.heard = acknowledged;
                Heard::Delete(number)
            }
            _ => Heard::Wrong,
        }
    }
}
