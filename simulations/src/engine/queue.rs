//! A queue of events that only moves forward.

use tombola_mixing::Time;

/// What is to happen, in the order of time; what is to happen at the same instant, in the order in which it was pushed.
///
/// A monotone radix heap (Ahuja, Mehlhorn, Orlin and Tarjan, "Faster algorithms for the shortest path problem", 1990): an
/// event lies in the bucket of the highest bit in which its instant differs from that of the last event taken out. As
/// nothing is pushed into the past, an event only ever moves to lower buckets, at most 64 times and at most once per
/// bit; moving reads and writes memory in order, which is why it beats a binary heap once millions of events wait.
///
/// Events of one instant are always in the same bucket, which bit it is follows from the two instants alone, and buckets
/// keep their order: so ties leave in the order of arrival, without a number that says so.
#[derive(Debug)]
pub struct EventQueue<T> {
    /// `buckets[0]`: events at `last`. `buckets[b]`: bit `b - 1` is the highest that differs from `last`.
    buckets: [Vec<(u64, T)>; BUCKETS],
    /// Bit `b` says that `buckets[b + 1]` has something in it.
    filled: u64,
    /// Taken out of `buckets[0]` already.
    head: usize,
    last: u64,
    len: usize,
}

const BUCKETS: usize = u64::BITS as usize + 1;

/// Events that are announced together: as many as a processor waits for at a time, and some.
const FEW: usize = 48;

impl<T: Copy> Default for EventQueue<T> {
    fn default() -> Self {
        Self { buckets: [const { Vec::new() }; BUCKETS], filled: 0, head: 0, last: 0, len: 0 }
    }
}

impl<T: Copy> EventQueue<T> {
    /// Puts an event in. An instant before that of the last event taken out counts as that instant.
    #[inline]
    pub fn push(&mut self, at: Time, event: T) {
        debug_assert!(at.as_nanos() >= self.last, "nothing happens in the past");
        let at = at.as_nanos().max(self.last);
        let bucket = bucket_of(at ^ self.last);
        self.buckets[bucket].push((at, event));
        if bucket > 0 {
            self.filled |= 1 << (bucket - 1);
        }
        self.len += 1;
    }

    /// The next event, and its instant.
    #[inline]
    pub fn pop(&mut self) -> Option<(Time, T)> {
        self.pop_and_announce(|_| {})
    }

    /// As [`EventQueue::pop`]; `soon` hears of events that are going to be among the next few, some of them more than once:
    /// whoever reads from memory then what they need does not have to wait for it later.
    #[inline]
    pub fn pop_and_announce(&mut self, soon: impl FnMut(T)) -> Option<(Time, T)> {
        if self.head == self.buckets[0].len() {
            self.buckets[0].clear();
            self.head = 0;
            if let Some(event) = self.refill(soon)? {
                return Some(event);
            }
        }
        let (at, event) = self.buckets[0][self.head];
        self.head += 1;
        self.len -= 1;
        Some((Time::from_nanos(at), event))
    }

    /// Spreads the lowest bucket that has something in it over those below. One event alone is handed out at once.
    /// `None` if the queue is empty.
    fn refill(&mut self, mut soon: impl FnMut(T)) -> Option<Option<(Time, T)>> {
        if self.filled == 0 {
            return None;
        }
        let lowest = self.filled.trailing_zeros() as usize + 1;
        self.filled &= self.filled - 1;
        let (below, rest) = self.buckets.split_at_mut(lowest);
        let bucket = &mut rest[0];
        if let [(at, event)] = bucket[..] {
            bucket.clear();
            self.last = at;
            self.len -= 1;
            return Some(Some((Time::from_nanos(at), event)));
        }
        let earliest = bucket.iter().map(|&(at, _)| at).min()?;
        self.last = earliest;
        if bucket.len() <= FEW {
            bucket.iter().for_each(|&(_, event)| soon(event));
        }
        for &(at, event) in bucket.iter() {
            let to = bucket_of(at ^ earliest);
            below[to].push((at, event));
            if to > 0 {
                self.filled |= 1 << (to - 1);
            }
        }
        bucket.clear();
        Some(None)
    }

    /// Events that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[inline]
fn bucket_of(difference: u64) -> usize {
    (u64::BITS - difference.leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use core::cmp::Reverse;
    use std::collections::BinaryHeap;

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use tombola_mixing::Rng;

    use super::*;

    /// The same by a binary heap whose ties are numbered.
    #[derive(Default)]
    struct Oracle {
        heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
        pushed: u64,
    }

    impl Oracle {
        fn push(&mut self, at: u64, event: u32) {
            self.heap.push(Reverse((at, self.pushed, event)));
            self.pushed += 1;
        }

        fn pop(&mut self) -> Option<(Time, u32)> {
            self.heap.pop().map(|Reverse((at, _, event))| (Time::from_nanos(at), event))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn it_agrees_with_a_heap(
            steps in proptest::collection::vec((0_u32..64, 0_u64..=u64::MAX, 0_usize..4), 1..400)
        ) {
            let (mut queue, mut oracle) = (EventQueue::default(), Oracle::default());
            let mut now = 0_u64;
            for (event, (bits, raw, pops)) in (0..).zip(steps) {
                // Distances of every magnitude, zero often.
                let at = now.saturating_add(raw.checked_shr(bits + 1).unwrap_or(0));
                queue.push(Time::from_nanos(at), event);
                oracle.push(at, event);
                prop_assert_eq!(queue.len(), oracle.heap.len());
                for _ in 0..pops {
                    let expected = oracle.pop();
                    prop_assert_eq!(queue.pop(), expected);
                    now = expected.map_or(now, |(at, _)| at.as_nanos());
                }
            }
            while let Some(expected) = oracle.pop() {
                prop_assert_eq!(queue.pop(), Some(expected));
            }
            prop_assert_eq!(queue.pop(), None);
            prop_assert!(queue.is_empty());
        }
    }

    #[test]
    fn it_agrees_with_a_heap_at_a_hundred_thousand_pending() {
        let mut rng = Rng::from_seed([5; 32]);
        let (mut queue, mut oracle) = (EventQueue::default(), Oracle::default());
        let mut now = 0;
        for event in 0..300_000 {
            // Few distinct instants, so that many events share one.
            let at = now + rng.below(5_000);
            queue.push(Time::from_nanos(at), event);
            oracle.push(at, event);
            if event > 100_000 {
                let expected = oracle.pop();
                assert_eq!(queue.pop(), expected);
                now = expected.map_or(now, |(at, _)| at.as_nanos());
            }
        }
    }
}
