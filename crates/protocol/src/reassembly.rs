//! Puts messages together again, whatever order their fragments arrive in.
//!
//! Bounded in messages, bytes and time. A sender who announces a huge message reserves nothing: memory is taken as
//! fragments arrive. When a bound is reached the message that has waited longest for its next fragment goes.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tombola_mixing::Time;

use crate::fragment::{FragmentHeader, MESSAGE_MAX, MessageId};

/// Bounds of a [`Reassembler`].
#[derive(Clone, Copy, Debug)]
pub struct ReassemblyLimits {
    /// Most messages that are incomplete at one time.
    pub messages: usize,
    /// Most bytes of incomplete messages, all together.
    pub bytes: usize,
    /// An incomplete message goes when no fragment of it came for this long.
    pub patience: Duration,
    /// How many completed messages are remembered, so that a late duplicate does not begin them anew.
    pub remembered: usize,
}

impl Default for ReassemblyLimits {
    fn default() -> Self {
        Self {
            messages: 256,
            bytes: 2 * MESSAGE_MAX,
            patience: Duration::from_secs(15 * 60),
            remembered: 65_536,
        }
    }
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Added {
    /// It was the last one missing: the whole message.
    Complete(Vec<u8>),
    /// More are to come: how many of how many are here.
    Partial {
        /// Fragments here.
        have: u32,
        /// Fragments of the message.
        count: u32,
    },
    /// It, or its whole message, was here before.
    Duplicate,
    /// It contradicts the fragments that came before (another count).
    Contradiction,
}

#[derive(Debug)]
struct Partial {
    count: u32,
    bytes: usize,
    fragments: BTreeMap<u32, Box<[u8]>>,
    touched: Time,
}

/// Collects fragments by message.
#[derive(Debug)]
pub struct Reassembler {
    limits: ReassemblyLimits,
    partial: BTreeMap<MessageId, Partial>,
    by_age: BTreeSet<(Time, MessageId)>,
    bytes: usize,
    completed: BTreeSet<MessageId>,
    completed_order: VecDeque<MessageId>,
    evicted: u64,
}

impl Reassembler {
    /// An empty one.
    pub fn new(limits: ReassemblyLimits) -> Self {
        Self {
            limits,
            partial: BTreeMap::new(),
            by_age: BTreeSet::new(),
            bytes: 0,
            completed: BTreeSet::new(),
            completed_order: VecDeque::new(),
            evicted: 0,
        }
    }

    /// Takes a parsed fragment in.
    pub fn add(&mut self, now: Time, header: FragmentHeader, data: &[u8]) -> Added {
        let FragmentHeader { message, index, count } = header;
        if self.completed.contains(&message) {
            return Added::Duplicate;
        }
        self.expire(now);
        let partial = self.partial.entry(message).or_insert_with(|| Partial {
            count,
            bytes: 0,
            fragments: BTreeMap::new(),
            touched: now,
        });
        if partial.count != count {
            return Added::Contradiction;
        }
        if partial.fragments.contains_key(&index) {
            return Added::Duplicate;
        }
        partial.fragments.insert(index, data.into());
        partial.bytes += data.len();
        self.bytes += data.len();
        self.by_age.remove(&(partial.touched, message));
        partial.touched = now;
        let have = u32::try_from(partial.fragments.len()).unwrap_or(u32::MAX);
        if have == count {
            return self.complete(message);
        }
        self.by_age.insert((now, message));
        self.evict_beyond_bounds();
        Added::Partial { have, count }
    }

    /// Drops what has waited too long.
    pub fn expire(&mut self, now: Time) {
        while let Some(&(touched, message)) = self.by_age.first() {
            if now - touched < self.limits.patience {
                break;
            }
            self.evict(touched, message);
        }
    }

    /// Messages that are incomplete.
    pub fn pending(&self) -> usize {
        self.partial.len()
    }

    /// How many incomplete messages went for age or room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn complete(&mut self, message: MessageId) -> Added {
        let Some(partial) = self.partial.remove(&message) else { return Added::Duplicate };
        self.bytes -= partial.bytes;
        let mut body = Vec::with_capacity(partial.bytes);
        for fragment in partial.fragments.values() {
            body.extend_from_slice(fragment);
        }
        self.completed.insert(message);
        self.completed_order.push_back(message);
        if self.completed_order.len() > self.limits.remembered
            && let Some(oldest) = self.completed_order.pop_front()
        {
            self.completed.remove(&oldest);
        }
        Added::Complete(body)
    }

    fn evict_beyond_bounds(&mut self) {
        while self.partial.len() > self.limits.messages || self.bytes > self.limits.bytes {
            let Some(&(touched, message)) = self.by_age.first() else { break };
            self.evict(touched, message);
        }
    }

    fn evict(&mut self, touched: Time, message: MessageId) {
        self.by_age.remove(&(touched, message));
        if let Some(partial) = self.partial.remove(&message) {
            self.bytes -= partial.bytes;
            self.evicted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragment::{self, FRAGMENT_DATA, Payload};
    use proptest::prelude::*;
    use tombola_sphinx::PLAINTEXT_MAX;

    fn feed(re: &mut Reassembler, now: u64, id: u8, body: &[u8], index: u32) -> Added {
        let mut plaintext = [0; PLAINTEXT_MAX];
        let len = fragment::write(MessageId([id; 16]), body, index, &mut plaintext);
        let Ok(Payload::Fragment(header, data)) = fragment::parse(&plaintext[..len]) else {
            panic!("fragment")
        };
        re.add(Time::from_nanos(now), header, data)
    }

    #[test]
    fn a_duplicate_is_never_delivered_twice() {
        let mut re = Reassembler::new(ReassemblyLimits::default());
        assert_eq!(feed(&mut re, 1, 1, b"hi", 0), Added::Complete(b"hi".to_vec()));
        assert_eq!(feed(&mut re, 2, 1, b"hi", 0), Added::Duplicate);
        let long = vec![5; FRAGMENT_DATA + 1];
        assert_eq!(feed(&mut re, 3, 2, &long, 1), Added::Partial { have: 1, count: 2 });
        assert_eq!(feed(&mut re, 4, 2, &long, 1), Added::Duplicate);
        assert_eq!(feed(&mut re, 5, 2, &long, 0), Added::Complete(long));
    }

    #[test]
    fn another_count_is_a_contradiction() {
        let mut re = Reassembler::new(ReassemblyLimits::default());
        feed(&mut re, 1, 1, &vec![0; 3 * FRAGMENT_DATA], 0);
        assert_eq!(feed(&mut re, 2, 1, &vec![0; 2 * FRAGMENT_DATA], 1), Added::Contradiction);
        assert_eq!(re.pending(), 1);
    }

    #[test]
    fn floods_of_incomplete_messages_stay_within_the_bounds() {
        let limits = ReassemblyLimits { messages: 4, bytes: 6 * FRAGMENT_DATA, ..Default::default() };
        let mut re = Reassembler::new(limits);
        let body = vec![1; 3 * FRAGMENT_DATA];
        for id in 0..100u8 {
            feed(&mut re, u64::from(id) * 2, id, &body, 0);
            feed(&mut re, u64::from(id) * 2 + 1, id, &body, 1);
            assert!(re.pending() <= 4 && re.bytes <= limits.bytes);
        }
        assert_eq!(re.evicted(), 97);
        assert_eq!(feed(&mut re, 1000, 99, &body, 2), Added::Complete(body), "the newest survives a flood");
    }

    #[test]
    fn patience_ends() {
        let limits = ReassemblyLimits { patience: Duration::from_nanos(10), ..Default::default() };
        let mut re = Reassembler::new(limits);
        let body = vec![1; 2 * FRAGMENT_DATA];
        feed(&mut re, 0, 1, &body, 0);
        re.expire(Time::from_nanos(9));
        assert_eq!(re.pending(), 1);
        re.expire(Time::from_nanos(10));
        assert_eq!((re.pending(), re.bytes), (0, 0));
    }

    proptest! {
        #[test]
        fn any_order_gives_the_message(len in 0..5 * FRAGMENT_DATA, seed: u64) {
            let body: Vec<u8> = (0..len).map(|i| (i as u64 ^ seed) as u8).collect();
            let mut order: Vec<u32> = (0..fragment::count_for(len)).collect();
            let shift = seed as usize % order.len();
            order.rotate_left(shift);
            if seed & 1 == 1 { order.reverse(); }
            let mut re = Reassembler::new(ReassemblyLimits::default());
            let mut whole = None;
            for (now, &index) in order.iter().enumerate() {
                if let Added::Complete(got) = feed(&mut re, now as u64, 3, &body, index) { whole = Some(got); }
            }
            prop_assert_eq!(whole, Some(body));
            prop_assert_eq!((re.pending(), re.bytes), (0, 0));
        }
    }
}
