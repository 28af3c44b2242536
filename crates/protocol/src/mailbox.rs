//! Mailboxes on disk: packets that wait for their client, within a quota, a total bound and a retention.
//!
//! Sans-IO like everything here: changes go out through [`Mailboxes::poll_store`] and are durable when
//! [`Mailboxes::handle_durable`] says so; packets that are not in memory are asked for through [`Mailboxes::poll_fetch`].
//! Records are laid out in [`record`]. A mail is deleted when its client has acknowledged it or its retention is over, and
//! for no other reason; what cannot be stored is refused.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tombola_topology::MailboxId;

use crate::drops::DropReason;
use crate::frame::Frame;
use crate::store::StoreOp;
use crate::unix::UnixNanos;

mod journal;
mod one;
pub mod record;
mod restore;
mod tally;

pub use record::StoredMail;
pub use restore::{Restore, Stored};
pub use tally::MailboxLimits;

use journal::{Entry, Journal, Mark};
use one::{Heard, Mailbox, Reading, Slot};
use record::{MAIL, MAILBOXES, encode_mail, mail_key};
use restore::StoredMailbox;
use tally::Tally;

/// Packets that may be in memory because they are not on disk yet: 10 MB.
pub const UNWRITTEN_MAX: usize = 4096;
/// How old the time of a client's last visit may be on disk, at most.
const SEEN_RECENTLY: Duration = Duration::from_secs(3600);

/// Mail to be read from disk: `limit` records of table [`MAIL`], by key, from one key to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Whose.
    pub mailbox: MailboxId,
    /// The first number.
    pub from: u64,
    /// The last number.
    pub to: u64,
    /// How many at most.
    pub limit: usize,
}

impl Fetch {
    /// The first key and the last.
    #[must_use]
    pub fn keys(&self) -> (Box<[u8]>, Box<[u8]>) {
        (mail_key(&self.mailbox, self.from), mail_key(&self.mailbox, self.to))
    }
}

/// A mail that leaves.
#[derive(Debug)]
pub struct Outgoing {
    /// Its packet.
    pub frame: Frame,
    /// How long it was here.
    pub held: Duration,
    /// Its number, as the client sees it.
    pub number: u64,
    /// That of the mail before it; 0 if nothing is.
    pub previous: u64,
}

/// What an acknowledgement has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// So many packets are deleted, or will be: none, if it says nothing new.
    Packets(usize),
    /// It names mail that was not sent. It is ignored.
    Wrong,
}

/// Sums over all mailboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailSums {
    /// Mailboxes.
    pub mailboxes: usize,
    /// Packets in them.
    pub packets: usize,
    /// Those that are not on disk yet.
    pub unwritten: usize,
    /// Packets in memory.
    pub in_memory: usize,
    /// Slots that carried padding because a packet had not been read yet.
    pub late: u64,
    /// Reads from disk.
    pub fetches: u64,
}

/// All mailboxes of a gateway.
#[derive(Debug)]
pub struct Mailboxes {
    limits: MailboxLimits,
    boxes: BTreeMap<MailboxId, Mailbox>,
    tally: Tally,
    /// Mailboxes with mail, by the time of the oldest.
    aging: BTreeSet<(UnixNanos, MailboxId)>,
    /// Mailboxes that are empty and whose clients are away, by when they left.
    left: BTreeSet<(UnixNanos, MailboxId)>,
    journal: Journal,
    fetches: VecDeque<MailboxId>,
    failed: Vec<MailboxId>,
    trouble: bool,
    closing: bool,
    /// When the clients that are here were last noted down.
    noted: UnixNanos,
    sums: MailSums,
}

/// What the sums and orders above say of one mailbox.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Share {
    packets: usize,
    unwritten: usize,
    in_memory: usize,
    oldest: Option<UnixNanos>,
    left: Option<UnixNanos>,
}

impl Share {
    fn of(mailbox: &Mailbox) -> Self {
        Self {
            packets: mailbox.len(),
            unwritten: mailbox.unwritten(),
            in_memory: mailbox.in_memory(),
            oldest: mailbox.oldest(),
            left: mailbox.is_left().then_some(mailbox.seen),
        }
    }
}

impl Mailboxes {
    /// With what was stored.
    pub fn new(now: UnixNanos, limits: MailboxLimits, stored: Stored) -> Self {
        let mut mailboxes = Self {
            tally: Tally::new(&limits),
            limits,
            boxes: BTreeMap::new(),
            aging: BTreeSet::new(),
            left: BTreeSet::new(),
            journal: Journal::default(),
            fetches: VecDeque::new(),
            failed: Vec::new(),
            trouble: false,
            closing: false,
            noted: now,
            sums: MailSums::default(),
        };
        for StoredMailbox { id, mut record, mut mails } in stored.0 {
            // A wall clock that was ahead must not keep anything for ever.
            record.seen = record.seen.min(now);
            mails.iter_mut().for_each(|(_, stored)| *stored = (*stored).min(now));
            mailboxes.insert(id, Mailbox::restore(record, mails));
        }
        mailboxes
    }

    /// A client is here. Makes sure that it has a mailbox, and returns whether it has one. When all places are taken, the
    /// place of the client that has been away longest is given away, if that is longer than the retention and its mailbox is
    /// empty; else the newcomer gets none.
    pub fn enter(&mut self, now: UnixNanos, id: MailboxId) -> bool {
        if !self.boxes.contains_key(&id) {
            if self.boxes.len() >= self.limits.mailboxes {
                let oldest = self.left.first().copied();
                let Some(oldest) = oldest.filter(|(left, _)| now.since(*left) > self.limits.retention) else {
                    return false;
                };
                self.remove(oldest.1);
            }
            self.insert(id, Mailbox::new(now));
        }
        self.change(id, |mailbox, _| mailbox.enter(now));
        true
    }

    /// It is gone.
    pub fn leave(&mut self, now: UnixNanos, id: MailboxId) {
        self.change(id, |mailbox, _| mailbox.leave(now));
    }

    /// It says whether it wants its mail, and which is safe there.
    pub fn hear(&mut self, id: MailboxId, wants: bool, acknowledged: u64) -> Acknowledged {
        self.acknowledge(id, |mailbox| mailbox.hear(wants, acknowledged))
    }

    /// It says which mail is safe there: the low 16 bits of a number.
    pub fn hear_low(&mut self, id: MailboxId, low: u16) -> Acknowledged {
        self.acknowledge(id, |mailbox| mailbox.hear_low(low))
    }

    /// Puts a packet into a mailbox; gives the frame back with the reason when it cannot.
    pub fn store(
        &mut self,
        stored: UnixNanos,
        id: MailboxId,
        frame: Frame,
    ) -> Result<(), (DropReason, Frame)> {
        match self.has_room(id) {
            Ok(()) => {
                self.change(id, |mailbox, journal| {
                    let number = mailbox.store(stored, frame);
                    mailbox.ties += 1;
                    journal.put_mail(id, number);
                });
                Ok(())
            }
            Err(reason) => Err((reason, frame)),
        }
    }

    /// The next mail for a client that is here and collects.
    pub fn take(&mut self, now: UnixNanos, id: MailboxId) -> Option<Outgoing> {
        match self.change(id, |mailbox, _| mailbox.take())? {
            Slot::Mail(mail) => Some(Outgoing {
                frame: mail.frame,
                held: now.since(mail.stored),
                number: mail.number,
                previous: mail.previous,
            }),
            Slot::Late => {
                self.sums.late += 1;
                None
            }
            Slot::Nothing => None,
        }
    }

    /// Puts a mail back that the link did not take: it is the next one to leave again. Returns how many mails will be sent
    /// again: this one, unless it is gone or nobody is here, and those that were taken after it.
    pub fn put_back(&mut self, id: MailboxId, number: u64, frame: Frame) -> usize {
        self.change(id, |mailbox, _| mailbox.put_back(number, frame)).unwrap_or(0)
    }

    /// Drops everything past its retention, notes who is here, and tries again to read what could not be read; returns how
    /// many packets were dropped. Called about once a second.
    pub fn expire(&mut self, now: UnixNanos) -> u64 {
        for id in core::mem::take(&mut self.failed) {
            self.change(id, |mailbox, _| mailbox.reading = Reading::Idle);
        }
        if now.since(self.noted) > self.seen_recently() {
            self.noted = now;
            let here = self.boxes.iter().filter(|(_, mailbox)| mailbox.is_visited());
            for id in here.map(|(id, _)| *id).collect::<Vec<_>>() {
                self.change(id, |mailbox, _| mailbox.stay(now));
            }
        }
        let mut expired = 0;
        while let Some(&(_, id)) = self.aging.first() {
            match self.expire_one(now, id) {
                0 => break,
                packets => expired += packets,
            }
        }
        expired
    }

    /// Drops what one mailbox holds past its retention; returns how many packets that were.
    pub fn expire_one(&mut self, now: UnixNanos, id: MailboxId) -> u64 {
        let limit = UnixNanos(now.0.saturating_sub(nanos(self.limits.retention)));
        let is_over = |mailbox: &Mailbox| mailbox.oldest().is_some_and(|oldest| oldest < limit);
        if !self.boxes.get(&id).is_some_and(is_over) {
            return 0;
        }
        let removed = self.change(id, |mailbox, journal| {
            mailbox.last_before(limit).map_or(0, |last| delete(mailbox, journal, id, last))
        });
        removed.unwrap_or(0) as u64
    }

    /// The next change that is to be written down. In order; see [`store`](crate::store).
    pub fn poll_store(&mut self) -> Option<StoreOp> {
        while let Some(entry) = self.journal.next_put() {
            let op = match entry {
                Entry::Mailbox(id) => Some(self.write_mailbox(id)),
                Entry::Mail(id, number) => self.write_mail(id, number),
            };
            if op.is_some() {
                return op;
            }
        }
        let (id, to) = self.journal.next_deletion()?;
        self.journal.hand_out(None);
        self.untie(id);
        Some(StoreOp::DeleteRange { table: MAIL, from: mail_key(&id, 0), to: mail_key(&id, to) })
    }

    /// The first `count` changes that [`poll_store`](Self::poll_store) ever returned are durable.
    pub fn handle_durable(&mut self, count: u64) {
        while let Some(mark) = self.journal.durable(count) {
            self.change(mark.mailbox(), |mailbox, _| {
                mailbox.ties -= 1;
                match mark {
                    Mark::Mailbox(_, record) => mailbox.grant(&record),
                    Mark::Mail(_, number) => mailbox.written(number),
                }
            });
        }
    }

    /// The disk fails, or no longer. While it does, only mail that needs no disk is taken: what goes down at once.
    pub fn handle_trouble(&mut self, trouble: bool) {
        self.trouble = trouble;
    }

    /// The next thing that is to be read from disk. What is found is handed to [`handle_fetched`](Self::handle_fetched), in
    /// every case, even if it is nothing.
    pub fn poll_fetch(&mut self) -> Option<Fetch> {
        while let Some(id) = self.fetches.pop_front() {
            let range = self.change(id, |mailbox, _| {
                let range = mailbox.to_read();
                mailbox.reading = range.map_or(Reading::Idle, |(from, ..)| Reading::Asked(from));
                range
            });
            if let Some((from, to, limit)) = range.flatten() {
                self.sums.fetches += 1;
                return Some(Fetch { mailbox: id, from, to, limit });
            }
        }
        None
    }

    /// What was read from disk for a mailbox. If that is not what was asked for, it is tried again later.
    pub fn handle_fetched(&mut self, id: MailboxId, mails: Vec<StoredMail>) {
        if self.change(id, |mailbox, _| mailbox.read(mails)) == Some(false) {
            self.failed.push(id);
        }
    }

    /// The end: has everything recorded as it is, so that the next start continues with the next number.
    pub fn close(&mut self, now: UnixNanos) {
        self.closing = true;
        for id in self.boxes.keys().copied().collect::<Vec<_>>() {
            self.change(id, |mailbox, _| {
                if mailbox.is_visited() {
                    mailbox.leave(now);
                }
                mailbox.close();
            });
        }
    }

    /// Sums over all mailboxes.
    pub fn sums(&self) -> MailSums {
        MailSums { mailboxes: self.boxes.len(), packets: self.tally.packets(), ..self.sums }
    }

    fn has_room(&self, id: MailboxId) -> Result<(), DropReason> {
        let mailbox = self.boxes.get(&id).ok_or(DropReason::UnknownMailbox)?;
        if !self.tally.has_room(mailbox.len()) || mailbox.is_exhausted() {
            return Err(DropReason::MailboxFull);
        }
        let behind = self.sums.unwritten >= UNWRITTEN_MAX || self.journal.is_full();
        if behind || (self.trouble && !mailbox.flows()) {
            return Err(DropReason::Storage);
        }
        Ok(())
    }

    fn acknowledge(&mut self, id: MailboxId, hear: impl FnOnce(&mut Mailbox) -> Heard) -> Acknowledged {
        let acknowledged = self.change(id, |mailbox, journal| match hear(mailbox) {
            Heard::Nothing => Acknowledged::Packets(0),
            Heard::Delete(to) => Acknowledged::Packets(delete(mailbox, journal, id, to)),
            Heard::Wrong => Acknowledged::Wrong,
        });
        acknowledged.unwrap_or(Acknowledged::Packets(0))
    }

    fn write_mailbox(&mut self, id: MailboxId) -> StoreOp {
        let (exact, recent) = (self.closing, self.seen_recently());
        let written = self.change(id, |mailbox, journal| {
            let record = mailbox.record(exact, recent);
            mailbox.recorded = Some(record);
            mailbox.ties += 1;
            journal.hand_out(Some(Mark::Mailbox(id, record)));
            record.encode()
        });
        match written {
            Some(value) => StoreOp::Put { table: MAILBOXES, key: id.as_bytes().as_slice().into(), value },
            None => {
                self.journal.hand_out(None);
                StoreOp::Delete { table: MAILBOXES, key: id.as_bytes().as_slice().into() }
            }
        }
    }

    fn write_mail(&mut self, id: MailboxId, number: u64) -> Option<StoreOp> {
        let value = self.boxes.get(&id).and_then(|mailbox| {
            let (stored, frame) = mailbox.to_write(number)?;
            Some(encode_mail(stored, frame))
        });
        match value {
            Some(value) => {
                self.journal.hand_out(Some(Mark::Mail(id, number)));
                Some(StoreOp::Put { table: MAIL, key: mail_key(&id, number), value })
            }
            None => {
                self.untie(id);
                None
            }
        }
    }

    fn untie(&mut self, id: MailboxId) {
        self.change(id, |mailbox, _| mailbox.ties -= 1);
    }

    fn insert(&mut self, id: MailboxId, mailbox: Mailbox) {
        self.account(id, Share::default(), Share::of(&mailbox));
        self.boxes.insert(id, mailbox);
        self.change(id, |_, _| ());
    }

    fn remove(&mut self, id: MailboxId) {
        if let Some(mailbox) = self.boxes.remove(&id) {
            self.account(id, Share::of(&mailbox), Share::default());
            self.journal.put_mailbox(id);
        }
    }

    /// Changes a mailbox, and everything that follows from the change: sums, orders, its record, what is to be read.
    fn change<R>(
        &mut self,
        id: MailboxId,
        change: impl FnOnce(&mut Mailbox, &mut Journal) -> R,
    ) -> Option<R> {
        let (exact, recent) = (self.closing, self.seen_recently());
        let mailbox = self.boxes.get_mut(&id)?;
        let before = Share::of(mailbox);
        let result = change(mailbox, &mut self.journal);
        if mailbox.recorded != Some(mailbox.record(exact, recent)) {
            self.journal.put_mailbox(id);
        }
        if mailbox.reading == Reading::Idle && mailbox.to_read().is_some() {
            mailbox.reading = Reading::Queued;
            self.fetches.push_back(id);
        }
        let after = Share::of(mailbox);
        self.account(id, before, after);
        Some(result)
    }

    fn account(&mut self, id: MailboxId, before: Share, after: Share) {
        if before == after {
            return;
        }
        self.tally.change(before.packets, after.packets);
        self.sums.unwritten = self.sums.unwritten - before.unwritten + after.unwritten;
        self.sums.in_memory = self.sums.in_memory - before.in_memory + after.in_memory;
        refile(&mut self.aging, id, before.oldest, after.oldest);
        refile(&mut self.left, id, before.left, after.left);
    }

    fn seen_recently(&self) -> Duration {
        SEEN_RECENTLY.min(self.limits.retention / 8)
    }
}

fn refile(
    order: &mut BTreeSet<(UnixNanos, MailboxId)>,
    id: MailboxId,
    before: Option<UnixNanos>,
    after: Option<UnixNanos>,
) {
    if before != after {
        before.map(|time| order.remove(&(time, id)));
        after.map(|time| order.insert((time, id)));
    }
}

/// Removes mail up to a number and has it deleted; returns how many packets that were.
fn delete(mailbox: &mut Mailbox, journal: &mut Journal, id: MailboxId, to: u64) -> usize {
    let removed = mailbox.remove(to);
    if removed > 0 && journal.delete_mail(id, to) {
        mailbox.ties += 1;
    }
    removed
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
