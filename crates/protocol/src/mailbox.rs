//! Mailboxes in memory: packets that wait for their client, within a quota, a total bound and a retention.
//!
//! Half of the total bound is divided: every mailbox has its share to itself. The other half is for whoever needs more.
//! So a few clients who let their mailboxes fill up can take that half, but nobody else's share.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use tombola_mixing::Time;
use tombola_topology::MailboxId;

use crate::drops::DropReason;
use crate::frame::Frame;

/// Bounds of [`Mailboxes`].
#[derive(Clone, Copy, Debug)]
pub struct MailboxLimits {
    /// Most mailboxes.
    pub mailboxes: usize,
    /// Most packets in one mailbox.
    pub packets_each: usize,
    /// Most packets in all of them together.
    pub packets_total: usize,
    /// How long a packet is kept.
    pub retention: Duration,
}

impl MailboxLimits {
    /// Places that every mailbox has to itself.
    fn own_places(&self) -> usize {
        self.packets_total / 2 / self.mailboxes.max(1)
    }

    /// Places for whoever needs more than that.
    fn common_places(&self) -> usize {
        self.packets_total - self.own_places() * self.mailboxes
    }
}

/// Packets in all mailboxes.
#[derive(Debug)]
struct Tally {
    own_places: usize,
    packets: usize,
    /// Those among them that are beyond their mailbox's own places.
    in_common: usize,
}

impl Tally {
    /// A mailbox that held `before` packets gets one more.
    fn add(&mut self, before: usize) {
        self.packets += 1;
        self.in_common += usize::from(before >= self.own_places);
    }

    /// A mailbox that held `before` packets loses one.
    fn remove(&mut self, before: usize) {
        self.packets -= 1;
        self.in_common -= usize::from(before > self.own_places);
    }
}

#[derive(Debug)]
struct Mail {
    stored: Time,
    frame: Frame,
}

#[derive(Debug)]
struct Mailbox {
    /// When its client was last here.
    seen: Time,
    mails: VecDeque<Mail>,
    /// How many of them, from the front, were put back.
    put_back: usize,
}

/// All mailboxes of a gateway.
#[derive(Debug)]
pub struct Mailboxes {
    limits: MailboxLimits,
    boxes: BTreeMap<MailboxId, Mailbox>,
    tally: Tally,
}

impl Mailboxes {
    /// None yet.
    pub fn new(limits: MailboxLimits) -> Self {
        let tally = Tally { own_places: limits.own_places(), packets: 0, in_common: 0 };
        Self { limits, boxes: BTreeMap::new(), tally }
    }

    /// Makes sure that a client that is here has a mailbox. Returns whether it has one. When all places are taken,
    /// the place of a client that was not here for the retention is given away, if its mailbox is empty; else the
    /// newcomer gets none.
    pub fn open(&mut self, now: Time, mailbox: MailboxId) -> bool {
        if let Some(known) = self.boxes.get_mut(&mailbox) {
            known.seen = now;
            return true;
        }
        if self.boxes.len() >= self.limits.mailboxes {
            let retention = self.limits.retention;
            let left = self.boxes.iter().find(|(_, b)| b.mails.is_empty() && now - b.seen > retention);
            let Some(left) = left.map(|(id, _)| *id) else { return false };
            self.boxes.remove(&left);
        }
        self.boxes.insert(mailbox, Mailbox { seen: now, mails: VecDeque::new(), put_back: 0 });
        true
    }

    /// Its client is here, but does not want its mail.
    pub fn visit(&mut self, now: Time, mailbox: MailboxId) {
        if let Some(known) = self.boxes.get_mut(&mailbox) {
            known.seen = now;
        }
    }

    /// Puts a packet into a mailbox; gives the frame back with the reason when it cannot.
    pub fn store(&mut self, now: Time, mailbox: MailboxId, frame: Frame) -> Result<(), (DropReason, Frame)> {
        let Some(Mailbox { mails, .. }) = self.boxes.get_mut(&mailbox) else {
            return Err((DropReason::UnknownMailbox, frame));
        };
        let own = mails.len() < self.tally.own_places;
        let room = own || self.tally.in_common < self.limits.common_places();
        if mails.len() >= self.limits.packets_each || !room {
            return Err((DropReason::MailboxFull, frame));
        }
        self.tally.add(mails.len());
        mails.push_back(Mail { stored: now, frame });
        Ok(())
    }

    /// The oldest packet of a mailbox, whose client is here, and how long it was held; `expired` counts those past their
    /// retention.
    pub fn take(&mut self, now: Time, mailbox: MailboxId, expired: &mut u64) -> Option<(Frame, Duration)> {
        let Mailbox { seen, mails, put_back } = self.boxes.get_mut(&mailbox)?;
        *seen = now;
        while let Some(Mail { stored, frame }) = mails.pop_front() {
            self.tally.remove(mails.len() + 1);
            *put_back = put_back.saturating_sub(1);
            let held = now - stored;
            if held <= self.limits.retention {
                return Some((frame, held));
            }
            *expired += 1;
        }
        None
    }

    /// Puts a packet back that the link did not take, before all others but those that were put back before it: packets
    /// that are put back in the order in which they were taken leave in that order again.
    pub fn put_back(&mut self, mailbox: MailboxId, frame: Frame, stored: Time) {
        if let Some(Mailbox { mails, put_back, .. }) = self.boxes.get_mut(&mailbox) {
            self.tally.add(mails.len());
            mails.insert(*put_back, Mail { stored, frame });
            *put_back += 1;
        }
    }

    /// Drops everything past its retention; returns how many packets that were.
    pub fn expire(&mut self, now: Time) -> u64 {
        let mut expired = 0;
        for Mailbox { mails, put_back, .. } in self.boxes.values_mut() {
            while mails.front().is_some_and(|mail| now - mail.stored > self.limits.retention) {
                self.tally.remove(mails.len());
                mails.pop_front();
                *put_back = put_back.saturating_sub(1);
                expired += 1;
            }
        }
        expired
    }

    /// Mailboxes.
    pub fn len(&self) -> usize {
        self.boxes.len()
    }

    /// Whether there is no mailbox.
    pub fn is_empty(&self) -> bool {
        self.boxes.is_empty()
    }

    /// Packets in all mailboxes.
    pub fn packets(&self) -> usize {
        self.tally.packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MailboxLimits =
        MailboxLimits { mailboxes: 2, packets_each: 3, packets_total: 4, retention: Duration::from_secs(10) };

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn id(n: u8) -> MailboxId {
        MailboxId::from_bytes([n; 28])
    }

    fn refused(result: Result<(), (DropReason, Frame)>) -> Option<DropReason> {
        result.err().map(|(reason, _)| reason)
    }

    #[test]
    fn every_bound_is_kept_and_named() {
        let mut boxes = Mailboxes::new(LIMITS);
        assert_eq!(refused(boxes.store(at(0), id(1), Frame::zeroed())), Some(DropReason::UnknownMailbox));
        assert!(boxes.open(at(0), id(1)) && boxes.open(at(0), id(2)));
        assert!(!boxes.open(at(0), id(3)), "all places are taken");
        for _ in 0..3 {
            assert_eq!(refused(boxes.store(at(0), id(1), Frame::zeroed())), None);
        }
        assert_eq!(refused(boxes.store(at(0), id(1), Frame::zeroed())), Some(DropReason::MailboxFull));
        assert_eq!(refused(boxes.store(at(0), id(2), Frame::zeroed())), None);
        assert_eq!(refused(boxes.store(at(0), id(2), Frame::zeroed())), Some(DropReason::MailboxFull));
        assert_eq!(boxes.packets(), 4);
    }

    #[test]
    fn whoever_fills_what_is_common_takes_no_mailbox_its_own_places() {
        // 100 places, 12 of them for each mailbox, 52 in common.
        let limits = MailboxLimits { mailboxes: 4, packets_each: 1000, packets_total: 100, ..LIMITS };
        let mut boxes = Mailboxes::new(limits);
        (1..=4).for_each(|n| assert!(boxes.open(at(0), id(n))));
        let fill = |boxes: &mut Mailboxes, n| {
            (0..1000).take_while(|_| boxes.store(at(0), id(n), Frame::zeroed()).is_ok()).count()
        };
        assert_eq!([1, 2, 3, 4].map(|n| fill(&mut boxes, n)), [64, 12, 12, 12]);
        assert_eq!(boxes.packets(), 100, "never more than the bound");
        // What the first takes out is common again; what the second takes out is its own.
        (0..10).for_each(|_| assert!(boxes.take(at(0), id(1), &mut 0).is_some()));
        (0..3).for_each(|_| assert!(boxes.take(at(0), id(2), &mut 0).is_some()));
        assert_eq!([3, 1, 2, 4].map(|n| fill(&mut boxes, n)), [10, 0, 3, 0]);
        boxes.expire(at(11));
        assert_eq!((boxes.packets(), fill(&mut boxes, 4)), (0, 64));
    }

    #[test]
    fn mail_leaves_in_order_with_the_time_that_it_was_held() {
        let mut boxes = Mailboxes::new(LIMITS);
        boxes.open(at(0), id(1));
        for n in 0..2u8 {
            let mut frame = Frame::zeroed();
            frame.packet_mut()[0] = n;
            boxes.store(at(u64::from(n)), id(1), frame).unwrap();
        }
        let (first, held) = boxes.take(at(3), id(1), &mut 0).unwrap();
        assert_eq!((first.packet()[0], held), (0, Duration::from_secs(3)));
        boxes.put_back(id(1), first, at(0));
        assert_eq!(boxes.take(at(3), id(1), &mut 0).unwrap().0.packet()[0], 0);
        assert_eq!(boxes.take(at(3), id(1), &mut 0).unwrap().0.packet()[0], 1);
        assert!(boxes.take(at(3), id(1), &mut 0).is_none());
    }

    #[test]
    fn retention_ends_and_frees_the_place_of_a_client_that_left() {
        let mut boxes = Mailboxes::new(LIMITS);
        boxes.open(at(0), id(1));
        boxes.open(at(0), id(2));
        boxes.store(at(0), id(1), Frame::zeroed()).unwrap();
        assert_eq!(boxes.expire(at(10)), 0);
        assert!(!boxes.open(at(10), id(3)));
        assert_eq!(boxes.expire(at(11)), 1);
        assert_eq!(boxes.packets(), 0);
        boxes.open(at(11), id(2));
        assert!(boxes.open(at(11), id(3)), "client 1 was not here for longer than the retention");
        assert_eq!(refused(boxes.store(at(11), id(1), Frame::zeroed())), Some(DropReason::UnknownMailbox));
    }

    #[test]
    fn mail_past_its_retention_is_never_handed_over() {
        let mut boxes = Mailboxes::new(LIMITS);
        boxes.open(at(0), id(1));
        boxes.store(at(0), id(1), Frame::zeroed()).unwrap();
        let mut expired = 0;
        assert!(boxes.take(at(11), id(1), &mut expired).is_none());
        assert_eq!((expired, boxes.packets()), (1, 0));
    }
}
