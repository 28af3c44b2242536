//! What has arrived: whole messages that the application has not taken, incomplete ones, the ids of those that it has
//! taken, and who is to be told what.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tombola_mixing::Time;

use crate::changes::Changes;
use crate::fragment::{FRAGMENT_DATA, MessageId, Place, Shape};
use crate::payload::Report;
use crate::reassembly::{Added, Reassembler, ReassemblyLimits};
use crate::records::{self, InboxRecord, tables};

/// Ids of messages that are remembered, so that a late copy is not delivered again. 3 MB.
const REMEMBERED: usize = 65_536;

/// How often whoever answers is told again what is missing.
const TELL_MOST: u32 = 8;

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The message is whole; its record is to be stored with [`Inbox::keep`].
    Whole(Vec<u8>),
    /// More is to come: data fragments here, of how many.
    Partial { have: u32, count: u32 },
    /// It was here before.
    Duplicate,
    /// Its message was here before.
    Known,
    /// It contradicts what came before.
    Contradiction,
}

/// The inbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    quiet: Duration,
    reassembler: Reassembler,
    /// Of incomplete messages: whose reply block they come through.
    via: BTreeMap<MessageId, Option<MessageId>>,
    /// Of incomplete messages of which somebody wants to know: when to tell.
    tell_at: BTreeMap<MessageId, Time>,
    timers: BTreeSet<(Time, MessageId)>,
    /// Of answers that are incomplete: how often that was told since something came.
    told: BTreeMap<MessageId, u32>,
    known: BTreeSet<MessageId>,
    order: VecDeque<MessageId>,
    waiting: BTreeSet<MessageId>,
}

impl Inbox {
    pub(crate) fn new(quiet: Duration, patience: Duration) -> Self {
        Self {
            quiet,
            reassembler: Reassembler::new(ReassemblyLimits::with_patience(patience)),
            via: BTreeMap::new(),
            tell_at: BTreeMap::new(),
            timers: BTreeSet::new(),
            told: BTreeMap::new(),
            known: BTreeSet::new(),
            order: VecDeque::new(),
            waiting: BTreeSet::new(),
        }
    }

    /// Whether a message is here whole, or was.
    pub(crate) fn knows(&self, message: &MessageId) -> bool {
        self.known.contains(message)
    }

    /// A whole message in one piece.
    pub(crate) fn short<G>(&mut self, message: MessageId, body: &[u8], changes: &mut Changes<G>) -> Taken {
        if self.knows(&message) {
            return Taken::Known;
        }
        // Else the two would share their records.
        if self.reassembler.knows(&message) {
            return Taken::Contradiction;
        }
        if !body.is_empty() {
            changes.put(tables::SEGMENTS, &records::segment_key(message, 0), body.to_vec());
        }
        Taken::Whole(body.to_vec())
    }

    /// A fragment, through a reply block of `via`'s or directly.
    #[expect(clippy::too_many_arguments, reason = "a parsed fragment and where it came from")]
    pub(crate) fn fragment<G>(
        &mut self,
        now: Time,
        message: MessageId,
        shape: Shape,
        place: Place,
        data: &[u8; FRAGMENT_DATA],
        via: Option<MessageId>,
        changes: &mut Changes<G>,
    ) -> Taken {
        if self.knows(&message) {
            return Taken::Known;
        }
        let begins = !self.reassembler.knows(&message);
        let added = self.reassembler.add(now, message, shape, place, data);
        if begins {
            self.via.insert(message, via);
            changes.put(tables::PARTIAL, &message.0, records::partial(shape, via));
        }
        // Whoever answers has few blocks to ask with; it is told unasked.
        if via.is_some() || self.tell_at.contains_key(&message) {
            self.tell_later(now, message);
        }
        let segment = records::segment_key(message, place.segment);
        match added {
            Added::Partial { have, segment_whole } => {
                if segment_whole {
                    changes.delete_all(tables::FRAGMENTS, &segment);
                    let bytes = self.reassembler.segment(&message, place.segment).unwrap_or_default();
                    changes.put(tables::SEGMENTS, &segment, bytes.to_vec());
                } else {
                    changes.put(tables::FRAGMENTS, &records::fragment_key(message, place), data.to_vec());
                }
                Taken::Partial { have: have.min(shape.fragments()), count: shape.fragments() }
            }
            Added::Complete(body) => {
                changes.delete_all(tables::FRAGMENTS, &message.0);
                let bytes = body.get(shape.bytes_of(place.segment)).unwrap_or_default();
                changes.put(tables::SEGMENTS, &segment, bytes.to_vec());
                changes.delete(tables::PARTIAL, &message.0);
                self.forget(&message);
                Taken::Whole(body)
            }
            Added::Duplicate => Taken::Duplicate,
            Added::Contradiction => Taken::Contradiction,
        }
    }

    /// A whole message waits for the application from now on.
    pub(crate) fn keep<G>(&mut self, message: MessageId, record: &InboxRecord, changes: &mut Changes<G>) {
        changes.put(tables::INBOX, &message.0, record.to_bytes());
        self.remember(message, changes);
        self.waiting.insert(message);
    }

    /// The application has taken a message. Returns whether there was such a one.
    pub(crate) fn accept<G>(&mut self, message: MessageId, unix: u64, changes: &mut Changes<G>) -> bool {
        let waited = self.waiting.remove(&message);
        if waited {
            changes.delete(tables::INBOX, &message.0);
            changes.delete_all(tables::SEGMENTS, &message.0);
            changes.put(tables::DONE, &message.0, records::done(unix));
        }
        waited
    }

    /// From the store: a message that waits for the application.
    pub(crate) fn restore_waiting(&mut self, message: MessageId) {
        self.known.insert(message);
        self.order.push_back(message);
        self.waiting.insert(message);
    }

    /// From the store: a message that the application has taken.
    pub(crate) fn restore_done(&mut self, message: MessageId) {
        self.known.insert(message);
        self.order.push_back(message);
    }

    /// From the store: a whole segment of an incomplete message.
    pub(crate) fn restore_segment(
        &mut self,
        now: Time,
        message: MessageId,
        shape: Shape,
        via: Option<MessageId>,
        segment: u16,
        bytes: Vec<u8>,
    ) -> bool {
        self.via.insert(message, via);
        self.reassembler.restore_segment(now, message, shape, segment, bytes)
    }

    /// Somebody wants to know what there is of a message. It is told when no more fragments come.
    pub(crate) fn asked(&mut self, now: Time, message: MessageId, via: Option<MessageId>) {
        if self.tell_at.len() < 4096 || self.tell_at.contains_key(&message) {
            self.via.entry(message).or_insert(via);
            self.tell_later(now, message);
        }
    }

    /// The next message of which somebody is to be told: through whose block it comes, and what there is of it.
    pub(crate) fn poll_report(&mut self, now: Time) -> Option<(MessageId, Option<MessageId>, Report)> {
        let &(at, message) = self.timers.first()?;
        if at > now {
            return None;
        }
        self.timers.pop_first();
        self.tell_at.remove(&message);
        self.tell_again(now, message);
        let report = if self.knows(&message) { Report::Whole } else { self.reassembler.report(&message) };
        let via = self.via.get(&message).copied().flatten();
        if !self.reassembler.knows(&message) {
            self.via.remove(&message);
        }
        Some((message, via, report))
    }

    /// Into what an incomplete message is cut.
    pub(crate) fn shape(&self, message: &MessageId) -> Option<Shape> {
        self.reassembler.shape(message)
    }

    /// When [`poll_report`](Self::poll_report) has something.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Gives up what has waited too long, or what there is no room for; returns how many messages that were.
    pub(crate) fn expire<G>(&mut self, now: Time, changes: &mut Changes<G>) -> u64 {
        let mut gone = 0;
        while let Some(message) = self.reassembler.evict(now) {
            changes.delete(tables::PARTIAL, &message.0);
            changes.delete_all(tables::FRAGMENTS, &message.0);
            changes.delete_all(tables::SEGMENTS, &message.0);
            self.forget(&message);
            gone += 1;
        }
        gone
    }

    /// Whoever answers may be out of blocks to ask with, and what it was told and given may be lost: it is told again, each
    /// time after a longer while.
    fn tell_again(&mut self, now: Time, message: MessageId) {
        let answers = self.via.get(&message).is_some_and(Option::is_some) && self.reassembler.knows(&message);
        let times = self.told.entry(message).or_insert(0);
        *times += 1;
        if !answers || *times > TELL_MOST {
            self.told.remove(&message);
            return;
        }
        let at = now + self.quiet * 3u32.saturating_pow(*times);
        self.tell_at.insert(message, at);
        self.timers.insert((at, message));
    }

    fn tell_later(&mut self, now: Time, message: MessageId) {
        self.told.remove(&message);
        let at = now + self.quiet;
        if let Some(before) = self.tell_at.insert(message, at) {
            self.timers.remove(&(before, message));
        }
        self.timers.insert((at, message));
    }

    fn forget(&mut self, message: &MessageId) {
        self.told.remove(message);
        self.via.remove(message);
        if let Some(at) = self.tell_at.remove(message) {
            self.timers.remove(&(at, *message));
        }
    }

    fn remember<G>(&mut self, message: MessageId, changes: &mut Changes<G>) {
        self.known.insert(message);
        self.order.push_back(message);
        // One that still waits for the application is not forgotten.
        for _ in 0..self.order.len().saturating_sub(REMEMBERED) {
            let Some(oldest) = self.order.pop_front() else { break };
            if self.waiting.contains(&oldest) {
                self.order.push_back(oldest);
            } else {
                self.known.remove(&oldest);
                changes.delete(tables::DONE, &oldest.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MessageId = MessageId([1; 16]);
    const QUIET: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn whoever_asks_is_told_when_it_is_quiet() {
        let mut changes = Changes::<()>::default();
        let mut inbox = Inbox::new(QUIET, Duration::from_secs(1000));
        let shape = Shape::of(3 * FRAGMENT_DATA).unwrap();
        let mut feed = |inbox: &mut Inbox, now, position| {
            let place = Place { segment: 0, position };
            inbox.fragment(now, A, shape, place, &[0; FRAGMENT_DATA], None, &mut changes)
        };
        feed(&mut inbox, at(0), 0);
        assert_eq!(inbox.poll_timeout(), None, "nobody asks");
        inbox.asked(at(1), A, None);
        feed(&mut inbox, at(4), 1);
        assert_eq!(inbox.poll_report(at(8)), None, "a fragment came since");
        let Some((A, None, Report::Partial { open, more: false })) = inbox.poll_report(at(9)) else {
            panic!("a report is due")
        };
        assert_eq!((open.len(), open[0].1.len()), (1, 2));
        assert_eq!(inbox.poll_timeout(), None, "once");
        inbox.asked(at(10), A, None);
        assert!(matches!(feed(&mut inbox, at(10), 2), Taken::Whole(_)));
        assert_eq!(inbox.poll_timeout(), None, "it is whole");
        inbox.asked(at(11), MessageId([9; 16]), None);
        assert_eq!(inbox.poll_report(at(16)), Some((MessageId([9; 16]), None, Report::Nothing)));
    }

    #[test]
    fn a_short_message_cannot_take_the_place_of_one_that_is_incomplete() {
        let mut changes = Changes::<()>::default();
        let mut inbox = Inbox::new(QUIET, Duration::from_secs(1000));
        let (shape, place) = (Shape::of(3 * FRAGMENT_DATA).unwrap(), Place { segment: 0, position: 0 });
        inbox.fragment(at(0), A, shape, place, &[0; FRAGMENT_DATA], None, &mut changes);
        assert_eq!(inbox.short(A, b"x", &mut changes), Taken::Contradiction);
    }

    #[test]
    fn a_message_is_taken_once() {
        let mut changes = Changes::<()>::default();
        let mut inbox = Inbox::new(QUIET, Duration::from_secs(1000));
        assert_eq!(inbox.short(A, b"x", &mut changes), Taken::Whole(b"x".to_vec()));
        let record = InboxRecord {
            length: 1,
            via: None,
            answerable: false,
            received_ns: 0,
            held: Duration::ZERO,
            packets: 1,
        };
        inbox.keep(A, &record, &mut changes);
        assert_eq!(inbox.short(A, b"x", &mut changes), Taken::Known);
        assert!(inbox.accept(A, 1, &mut changes));
        assert!(!inbox.accept(A, 1, &mut changes));
        assert_eq!(inbox.short(A, b"x", &mut changes), Taken::Known);
    }
}
