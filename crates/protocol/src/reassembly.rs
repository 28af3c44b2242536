//! Puts messages together again, whatever order their fragments arrive in, and whichever of them.
//!
//! Bounded in messages, bytes and time. A sender who announces a huge message reserves nothing: memory is taken as
//! fragments arrive. When a bound is reached the message that has waited longest for its next fragment goes.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use tombola_mixing::Time;

use crate::erasure;
use crate::fragment::{MESSAGE_MAX, MessageId, Place, Shape};
use crate::payload::{Positions, REPORTED_MAX, Report};

/// Bounds of a [`Reassembler`].
#[derive(Clone, Copy, Debug)]
pub struct ReassemblyLimits {
    /// Most messages that are incomplete at one time.
    pub messages: usize,
    /// Most bytes of incomplete messages, all together.
    pub bytes: usize,
    /// An incomplete message goes when no fragment of it came for this long.
    pub patience: Duration,
}

impl ReassemblyLimits {
    /// Two of the longest messages, and as long as a gateway keeps mail: what is missing may still be there.
    pub fn with_patience(patience: Duration) -> Self {
        Self { messages: 1024, bytes: 2 * MESSAGE_MAX, patience }
    }
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Added {
    /// It was the last one missing: the whole message.
    Complete(Vec<u8>),
    /// More are to come.
    Partial {
        /// Data fragments that are here or can be computed.
        have: u32,
        /// Whether its segment is whole now.
        segment_whole: bool,
    },
    /// It was here before, or its segment is whole without it.
    Duplicate,
    /// It contradicts the fragments that came before (another length).
    Contradiction,
}

/// A segment of an incomplete message.
#[derive(Debug)]
enum Segment {
    Open(BTreeMap<u8, Box<[u8]>>),
    Whole(Vec<u8>),
}

#[derive(Debug)]
struct Partial {
    shape: Shape,
    segments: BTreeMap<u16, Segment>,
    whole: u16,
    have: u32,
    bytes: usize,
    touched: Time,
}

/// Collects fragments by message.
#[derive(Debug)]
pub struct Reassembler {
    limits: ReassemblyLimits,
    partial: BTreeMap<MessageId, Partial>,
    by_age: BTreeSet<(Time, MessageId)>,
    bytes: usize,
}

impl Reassembler {
    /// An empty one.
    pub fn new(limits: ReassemblyLimits) -> Self {
        Self { limits, partial: BTreeMap::new(), by_age: BTreeSet::new(), bytes: 0 }
    }

    /// Takes a parsed fragment in; `place` is one that `shape` has.
    pub fn add(&mut self, now: Time, message: MessageId, shape: Shape, place: Place, data: &[u8]) -> Added {
        let partial = self.begin(now, message, shape);
        if partial.shape != shape {
            return Added::Contradiction;
        }
        let segment = partial.segments.entry(place.segment).or_insert_with(|| Segment::Open(BTreeMap::new()));
        let Segment::Open(fragments) = segment else { return Added::Duplicate };
        if fragments.contains_key(&place.position) {
            return Added::Duplicate;
        }
        let before = fragments.len() * data.len();
        fragments.insert(place.position, data.into());
        partial.have += 1;
        let restored = erasure::restore(shape, place.segment, fragments);
        let segment_whole = restored.is_some();
        let after = match restored {
            Some(bytes) => {
                let length = bytes.len();
                *segment = Segment::Whole(bytes);
                partial.whole += 1;
                length
            }
            None => before + data.len(),
        };
        partial.bytes = partial.bytes - before + after;
        let (have, whole) = (partial.have, partial.whole == shape.segments());
        self.bytes = self.bytes - before + after;
        self.touch(now, message);
        if whole {
            return self.complete(message);
        }
        Added::Partial { have, segment_whole }
    }

    /// A segment that was whole before a restart.
    pub fn restore_segment(
        &mut self,
        now: Time,
        message: MessageId,
        shape: Shape,
        segment: u16,
        bytes: Vec<u8>,
    ) -> bool {
        let partial = self.begin(now, message, shape);
        let length = bytes.len();
        let right = partial.shape == shape
            && length == shape.bytes_of(segment).len()
            && !partial.segments.contains_key(&segment)
            && segment < shape.segments();
        if right {
            partial.have += u32::try_from(shape.data_in(segment)).unwrap_or(0);
            partial.whole += 1;
            partial.bytes += length;
            partial.segments.insert(segment, Segment::Whole(bytes));
            self.bytes += length;
        }
        right
    }

    /// What there is of a message that is not whole.
    pub fn report(&self, message: &MessageId) -> Report {
        let Some(partial) = self.partial.get(message).filter(|partial| partial.have > 0) else {
            return Report::Nothing;
        };
        let mut open =
            (0..partial.shape.segments()).filter_map(|segment| match partial.segments.get(&segment) {
                Some(Segment::Whole(_)) => None,
                Some(Segment::Open(fragments)) => {
                    let mut positions = Positions::default();
                    fragments.keys().for_each(|&position| positions.insert(position));
                    Some((segment, positions))
                }
                None => Some((segment, Positions::default())),
            });
        let listed = open.by_ref().take(REPORTED_MAX).collect();
        Report::Partial { open: listed, more: open.next().is_some() }
    }

    /// The bytes of a segment, if it is whole.
    pub fn segment(&self, message: &MessageId, segment: u16) -> Option<&[u8]> {
        match self.partial.get(message)?.segments.get(&segment)? {
            Segment::Whole(bytes) => Some(bytes),
            Segment::Open(_) => None,
        }
    }

    /// Into what an incomplete message is cut.
    pub fn shape(&self, message: &MessageId) -> Option<Shape> {
        self.partial.get(message).map(|partial| partial.shape)
    }

    /// Whether something of a message is here.
    pub fn knows(&self, message: &MessageId) -> bool {
        self.partial.contains_key(message)
    }

    /// The next message that has waited too long, or has to go for room. Call until `None`.
    pub fn evict(&mut self, now: Time) -> Option<MessageId> {
        let &(touched, message) = self.by_age.first()?;
        let full = self.partial.len() > self.limits.messages || self.bytes > self.limits.bytes;
        if !full && now - touched < self.limits.patience {
            return None;
        }
        self.by_age.pop_first();
        if let Some(partial) = self.partial.remove(&message) {
            self.bytes -= partial.bytes;
        }
        Some(message)
    }

    /// Messages that are incomplete.
    pub fn pending(&self) -> usize {
        self.partial.len()
    }

    fn begin(&mut self, now: Time, message: MessageId, shape: Shape) -> &mut Partial {
        self.partial.entry(message).or_insert_with(|| {
            self.by_age.insert((now, message));
            Partial { shape, segments: BTreeMap::new(), whole: 0, have: 0, bytes: 0, touched: now }
        })
    }

    fn touch(&mut self, now: Time, message: MessageId) {
        if let Some(partial) = self.partial.get_mut(&message) {
            self.by_age.remove(&(partial.touched, message));
            partial.touched = now;
            self.by_age.insert((now, message));
        }
    }

    fn complete(&mut self, message: MessageId) -> Added {
        let Some(partial) = self.partial.remove(&message) else { return Added::Duplicate };
        self.by_age.remove(&(partial.touched, message));
        self.bytes -= partial.bytes;
        let mut body = Vec::with_capacity(partial.bytes);
        for segment in partial.segments.into_values() {
            if let Segment::Whole(bytes) = segment {
                body.extend_from_slice(&bytes);
            }
        }
        Added::Complete(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erasure::{Parity, data_fragment};
    use crate::fragment::FRAGMENT_DATA;
    use proptest::prelude::*;

    fn limits() -> ReassemblyLimits {
        ReassemblyLimits::with_patience(Duration::from_secs(60))
    }

    fn feed(re: &mut Reassembler, now: u64, id: u8, body: &[u8], place: Place) -> Added {
        let shape = Shape::of(body.len()).unwrap();
        let data = shape.data_in(place.segment);
        let (now, id) = (Time::from_nanos(now), MessageId([id; 16]));
        match usize::from(place.position).checked_sub(data) {
            None => re.add(now, id, shape, place, &data_fragment(shape, place, body)),
            Some(n) => re.add(now, id, shape, place, Parity::of(shape, place.segment, body).get(n).unwrap()),
        }
    }

    fn at(position: u8) -> Place {
        Place { segment: 0, position }
    }

    #[test]
    fn a_fragment_counts_once_and_parity_stands_in_for_any_other() {
        let mut re = Reassembler::new(limits());
        assert_eq!(feed(&mut re, 1, 1, b"hi", at(0)), Added::Complete(b"hi".to_vec()));
        let long = vec![5; 3 * FRAGMENT_DATA + 1];
        assert_eq!(feed(&mut re, 3, 2, &long, at(1)), Added::Partial { have: 1, segment_whole: false });
        assert_eq!(feed(&mut re, 4, 2, &long, at(1)), Added::Duplicate);
        feed(&mut re, 5, 2, &long, at(5));
        feed(&mut re, 6, 2, &long, at(3));
        assert_eq!(feed(&mut re, 7, 2, &long, at(4)), Added::Complete(long));
        assert_eq!((re.pending(), re.bytes), (0, 0));
    }

    #[test]
    fn another_length_is_a_contradiction() {
        let mut re = Reassembler::new(limits());
        feed(&mut re, 1, 1, &vec![0; 3 * FRAGMENT_DATA], at(0));
        assert_eq!(feed(&mut re, 2, 1, &vec![0; 2 * FRAGMENT_DATA], at(1)), Added::Contradiction);
        assert_eq!(re.pending(), 1);
    }

    #[test]
    fn a_report_says_what_there_is() {
        let mut re = Reassembler::new(limits());
        let id = MessageId([1; 16]);
        assert_eq!(re.report(&id), Report::Nothing);
        let body = vec![1; 200 * FRAGMENT_DATA];
        feed(&mut re, 1, 1, &body, at(3));
        for position in 0..72 {
            feed(&mut re, 2, 1, &body, Place { segment: 1, position });
        }
        let mut positions = Positions::default();
        positions.insert(3);
        assert_eq!(re.report(&id), Report::Partial { open: vec![(0, positions)], more: false });
        assert_eq!(re.segment(&id, 1), Some(&body[128 * FRAGMENT_DATA..]));
        assert_eq!(re.segment(&id, 0), None);
    }

    #[test]
    fn what_was_whole_before_a_restart_is_whole_after_it() {
        let mut re = Reassembler::new(limits());
        let id = MessageId([1; 16]);
        let body: Vec<u8> = (0..130 * FRAGMENT_DATA).map(|n| n as u8).collect();
        let shape = Shape::of(body.len()).unwrap();
        assert!(re.restore_segment(Time::ZERO, id, shape, 0, body[shape.bytes_of(0)].to_vec()));
        assert!(!re.restore_segment(Time::ZERO, id, shape, 0, body[shape.bytes_of(0)].to_vec()), "twice");
        assert!(!re.restore_segment(Time::ZERO, id, shape, 1, vec![1]), "of another length");
        assert!(!re.restore_segment(Time::ZERO, id, shape, 2, Vec::new()), "there is no such segment");
        feed(&mut re, 1, 1, &body, Place { segment: 1, position: 2 });
        assert_eq!(feed(&mut re, 1, 1, &body, Place { segment: 1, position: 1 }), Added::Complete(body));
    }

    #[test]
    fn floods_of_incomplete_messages_stay_within_the_bounds() {
        let limits = ReassemblyLimits { messages: 4, bytes: 6 * FRAGMENT_DATA, ..limits() };
        let mut re = Reassembler::new(limits);
        let body = vec![1; 3 * FRAGMENT_DATA];
        let mut evicted = 0;
        for id in 0..100u8 {
            for position in 0..2 {
                feed(&mut re, u64::from(id) * 2 + u64::from(position), id, &body, at(position));
                while re.evict(Time::from_nanos(u64::from(id) * 2)).is_some() {
                    evicted += 1;
                }
                assert!(re.pending() <= 4 && re.bytes <= limits.bytes);
            }
        }
        assert_eq!(evicted, 97);
        assert_eq!(
            feed(&mut re, 1000, 99, &body, at(2)),
            Added::Complete(body),
            "the newest survives a flood"
        );
    }

    #[test]
    fn patience_ends() {
        let limits = ReassemblyLimits { patience: Duration::from_nanos(10), ..limits() };
        let mut re = Reassembler::new(limits);
        feed(&mut re, 0, 1, &vec![1; 2 * FRAGMENT_DATA], at(0));
        assert_eq!(re.evict(Time::from_nanos(9)), None);
        assert_eq!(re.evict(Time::from_nanos(10)), Some(MessageId([1; 16])));
        assert_eq!((re.pending(), re.bytes), (0, 0));
    }

    proptest! {
        #[test]
        fn any_order_gives_the_message(len in 0..5 * FRAGMENT_DATA, seed: u64) {
            let body: Vec<u8> = (0..len).map(|i| (i as u64 ^ seed) as u8).collect();
            let shape = Shape::of(len).unwrap();
            let count = shape.data_in(0) + shape.parity_in(0);
            let mut order: Vec<u8> = (0..count as u8).collect();
            let shift = seed as usize % order.len();
            order.rotate_left(shift);
            if seed & 1 == 1 { order.reverse(); }
            let mut re = Reassembler::new(limits());
            let mut whole = None;
            for (now, &position) in order.iter().enumerate() {
                if let Added::Complete(got) = feed(&mut re, now as u64, 3, &body, at(position)) { whole = Some(got); break }
            }
            prop_assert_eq!(whole, Some(body));
            prop_assert_eq!((re.pending(), re.bytes), (0, 0));
        }
    }
}
