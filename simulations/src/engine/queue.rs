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
    /// The earliest instant in each bucket but the first.
    earliest: [u64; BUCKETS],
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
        Self {
            buckets: [const { Vec::new() }; BUCKETS],
            earliest: [u64::MAX; BUCKETS],
            filled: 0,
            head: 0,
            last: 0,
            len: 0,
        }
    }
}

impl<T: Copy> EventQueue<T> {
    /// Puts an event in. An instant before that of the last event taken out counts as that instant.
    #[inline]
    pub fn push(&mut self, at: Time, event: T) {
        debug_assert!(at.as_nanos() >= self.last, "nothing happens in the past");
        let at = at.as_nanos().max(self.last);
        self.put(at, event);
        self.len += 1;
    }

    #[inline]
    fn put(&mut self, at: u64, event: T) {
        let bucket = bucket_of(at ^ self.last);
        self.buckets[bucket].push((at, event));
        if bucket > 0 {
            self.filled |= 1 << (bucket - 1);
            self.earliest[bucket] = self.earliest[bucket].min(at);
        }
    }

    /// When the next event is. Events may still be pushed before it.
    #[inline]
    #[must_use]
    pub fn next_instant(&self) -> Option<Time> {
        if self.head < self.buckets[0].len() {
            return Some(Time::from_nanos(self.last));
        }
        (self.filled != 0).then(|| Time::from_nanos(self.earliest[self.lowest()]))
    }

    /// The next event. From now on none may be pushed before it.
    pub fn first(&mut self) -> Option<T> {
        if self.head == self.buckets[0].len() {
            self.refill(|_| {});
        }
        self.buckets[0].get(self.head).map(|&(_, event)| event)
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
            if self.filled == 0 {
                return None;
            }
            if let [(at, event)] = self.buckets[self.lowest()][..] {
                let lowest = self.lowest();
                self.buckets[lowest].clear();
                self.forget(lowest);
                // What was taken out of the first one.
                self.buckets[0].clear();
                self.head = 0;
                self.last = at;
                self.len -= 1;
                return Some((Time::from_nanos(at), event));
            }
            self.refill(soon);
        }
        let (at, event) = self.buckets[0][self.head];
        self.head += 1;
        self.len -= 1;
        Some((Time::from_nanos(at), event))
    }

    /// The lowest bucket that has something in it, apart from the first. There must be one.
    #[inline]
    fn lowest(&self) -> usize {
        (self.filled.trailing_zeros() as usize + 1) % BUCKETS
    }

    /// The lowest bucket is not filled any more.
    #[inline]
    fn forget(&mut self, lowest: usize) {
        self.earliest[lowest] = u64::MAX;
        self.filled &= self.filled - 1;
    }

    /// Spreads the lowest bucket that has something in it over those below, if there is one.
    fn refill(&mut self, mut soon: impl FnMut(T)) {
        self.buckets[0].clear();
        self.head = 0;
        if self.filled == 0 {
            return;
        }
        let lowest = self.lowest();
        self.last = self.earliest[lowest];
        self.forget(lowest);
        let mut bucket = core::mem::take(&mut self.buckets[lowest]);
        if bucket.len() <= FEW {
            bucket.iter().for_each(|&(_, event)| soon(event));
        }
        for &(at, event) in &bucket {
            self.put(at, event);
        }
        // Nothing of it came back; its memory is used again.
        bucket.clear();
        self.buckets[lowest] = bucket;
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
                let next = oracle.heap.peek().map(|&Reverse((at, ..))| Time::from_nanos(at));
                prop_assert_eq!(queue.next_instant(), next);
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

    /// Each event is announced before it leaves, unless many are due at about the same time.
    #[test]
    fn events_are_announced_before_they_leave() {
        let mut rng = Rng::from_seed([6; 32]);
        let mut queue = EventQueue::default();
        let mut announced = std::collections::BTreeSet::new();
        let mut unannounced = 0;
        for event in 0..20_000_u32 {
            queue.push(Time::from_nanos(rng.next_u64() >> 20), event);
        }
        while let Some((_, event)) = queue.pop_and_announce(|event| {
            announced.insert(event);
        }) {
            unannounced += u32::from(!announced.remove(&event));
        }
        // A single one in its bucket leaves at once.
        assert!(unannounced < 10_000, "{unannounced}");
        assert!(announced.is_empty());
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
