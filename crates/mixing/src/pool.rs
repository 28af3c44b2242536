//! Where packets wait out their delays.

use core::fmt;
use core::time::Duration;

use crate::far::{Far, Timed};
use crate::heap::Keyed;
use crate::near::Near;
use crate::{Rng, Time};

/// Holds each item until its own deadline: a continuous ("stop-and-go") mix.
///
/// **Order.** Items leave in the order of their deadlines, to the nanosecond. Items with the same deadline leave in
/// uniformly random order: the tie-break is a random number that is drawn when the item arrives, so neither the
/// order of arrival nor the place in memory shows.
///
/// **Bound.** The pool never holds more than `capacity` items. Load is shed before a packet costs anything and
/// before its delay is known: ask [`DelayPool::room`] first, and drop the packet unopened if there is none. So the
/// chance of being dropped is the same for every packet that arrives at an instant, whoever sent it and however
/// long it wants to stay; nobody is evicted. [`DelayPool::insert`] refuses only as a last resort, and hands the
/// item back. A capacity of admitted rate times `max_delay` is never reached at the admitted rate, not even by
/// traffic that asks for the longest delay throughout.
///
/// **Memory.** Allocated once, by [`DelayPool::new`]: `capacity` times ([`DelayPool::SLOT_BYTES`] plus what an
/// item owns), and 25 kB. With boxed packets that is 48 bytes a slot, 1 MB for 20 000 packets, plus the packets. Items
/// are moved while they are put in order: let `T` be a box or an index, not a buffer.
///
/// **Work.** What leaves next is sorted, what leaves later hardly: it is sorted bit by bit, as its time comes. So a packet
/// costs the same in a pool of a hundred and of a hundred thousand, on average: one in and one out took 84, 92, 96 and 103 ns
/// with 1000, 20 000, 100 000 and 1 000 000 waiting, and 79, 105, 139 and 500 ns with a binary heap (`cargo bench -p
/// tombola-mixing`). At times all that waits is moved once.
///
/// **Time.** The pool knows no time but the `now` of each call. If `now` steps back, nothing becomes due until it
/// has caught up (every delay grows by the step). If it steps forward by an hour, everything that was due within
/// that hour is released at once, in order of deadlines, and what was mixed over that time is not mixed any more.
/// So `now` has to come from a monotonic clock that ignores changes of the wall clock.
pub struct DelayPool<T> {
    /// What leaves next; empty only if all is.
    near: Near<Waiting<T>>,
    /// All that leaves later.
    far: Far<Waiting<T>>,
    capacity: usize,
    max_delay: Duration,
    rng: Rng,
}

impl<T> DelayPool<T> {
    /// Bytes that one slot takes, apart from what an item owns.
    pub const SLOT_BYTES: usize = size_of::<Waiting<T>>() + size_of::<Option<Waiting<T>>>();

    /// An empty pool for at most `capacity` items; delays above `max_delay` are cut to it. `rng` orders items with
    /// equal deadlines.
    #[must_use]
    pub fn new(capacity: usize, max_delay: Duration, rng: Rng) -> DelayPool<T> {
        DelayPool {
            near: Near::with_capacity(capacity),
            far: Far::with_capacity(capacity),
            capacity,
            max_delay,
            rng,
        }
    }

    /// Whether at least one more item may be inserted.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// How many more items may be inserted: the size of the batch that may be opened next.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity - self.len()
    }

    /// Items that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.near.len() + self.far.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.near.is_empty()
    }

    /// The bound on [`DelayPool::len`].
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes `item`, to be released `delay` (or `max_delay`, if that is shorter) after `now`; says when that is.
    ///
    /// # Errors
    ///
    /// [`PoolFull`] if [`DelayPool::has_room`] is false; it contains the item, and the pool is unchanged.
    pub fn insert(&mut self, now: Time, delay: Duration, item: T) -> Result<Time, PoolFull<T>> {
        if !self.has_room() {
            return Err(PoolFull(item));
        }
        let deadline = now + delay.min(self.max_delay);
        if self.is_empty() {
            self.far.restart(deadline.as_nanos());
        }
        let waiting = Waiting { deadline, tie: (self.rng.next_u64() >> 32) as u32, item };
        if let Err(waiting) = self.far.push(waiting) {
            self.near.push(waiting);
        }
        Ok(deadline)
    }

    /// The next item whose deadline is not after `now`, with that deadline. Call until `None`.
    pub fn poll_release(&mut self, now: Time) -> Option<(Time, T)> {
        if self.poll_timeout()? > now {
            return None;
        }
        let Waiting { deadline, item, .. } = self.near.pop()?;
        if self.near.is_empty() {
            self.far.take_first(|waiting| self.near.push(waiting));
        }
        Some((deadline, item))
    }

    /// The item that is released next if nothing comes before it.
    #[must_use]
    pub fn peek(&self) -> Option<&T> {
        self.near.peek().map(|waiting| &waiting.item)
    }

    /// When [`DelayPool::poll_release`] wants to be called again: the earliest deadline.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.near.peek().map(|waiting| waiting.deadline)
    }
}

impl<T> fmt::Debug for DelayPool<T> {
    /// Neither items nor deadlines: together they would link an arrival to a departure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayPool")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// The pool has no room; here is the item again.
#[derive(thiserror::Error)]
#[error("the delay pool is full")]
pub struct PoolFull<T>(pub T);

impl<T> fmt::Debug for PoolFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolFull(..)")
    }
}

struct Waiting<T> {
    deadline: Time,
    /// So short that an index beside it takes no more than 16 bytes.
    tie: u32,
    item: T,
}

impl<T> Keyed for Waiting<T> {
    fn key(&self) -> u128 {
        u128::from(self.deadline.as_nanos()) << 32 | u128::from(self.tie)
    }
}

impl<T> Timed for Waiting<T> {
    fn instant(&self) -> u64 {
        self.deadline.as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use core::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    #[test]
    fn memory_is_allocated_once() {
        let mut pool = DelayPool::new(1000, Duration::from_secs(10), Rng::from_seed([0; 32]));
        let allocated = (pool.near.capacity(), pool.far.capacity());
        for round in 0..10_000_u64 {
            let now = Time::from_nanos(round);
            while pool.insert(now, Duration::from_nanos(round % 7), Box::new(round)).is_ok() {}
            assert_eq!(pool.len(), 1000);
            while pool.poll_release(now).is_some() {}
            assert_eq!((pool.near.capacity(), pool.far.capacity()), allocated);
        }
        // Deadlines of every magnitude, and pools that are all of one.
        for round in 0..1000_u64 {
            let now = Time::from_nanos(10_000 + round * 1000);
            let mut item = 0;
            let delay =
                |item: u64| Duration::from_nanos((item % 997) + (1 << ((item * (round % 3) + round) % 34)));
            while pool.insert(now, delay(item), Box::new(item)).is_ok() {
                item += 1;
            }
            assert_eq!(pool.len(), 1000);
            (0..500).for_each(|_| drop(pool.poll_release(Time::MAX)));
            assert_eq!((pool.near.capacity(), pool.far.capacity()), allocated);
        }
    }

    #[test]
    fn a_slot_for_a_boxed_packet_takes_48_bytes_and_for_an_index_that_is_not_zero_32() {
        assert_eq!(DelayPool::<Box<[u8; 2448]>>::SLOT_BYTES, 48);
        assert_eq!(DelayPool::<core::num::NonZeroU32>::SLOT_BYTES, 32);
    }

    /// Growing, in balance, shrinking; `delay` after a `now` that steps back at times.
    fn agrees_with_the_binary_heap(mut delay: impl FnMut(&mut Rng) -> u64) {
        let mut rng = Rng::from_seed([9; 32]);
        let mut pool = DelayPool::new(100_000, Duration::MAX, rng.fork());
        let mut oracle = BinaryHeap::new();
        let mut now = 0_u64;
        for pushes in [8, 5, 3] {
            for _ in 0..10_000 {
                if rng.below(10) < pushes {
                    let delay = delay(&mut rng);
                    let at = Time::from_nanos(now.saturating_sub(rng.below(2) * rng.below(2_000)));
                    let delay = Duration::from_nanos(delay);
                    // Each item knows when it is due.
                    let deadline = pool.insert(at, delay, at + delay).unwrap();
                    oracle.push(Reverse(deadline));
                } else if let Some(Reverse(deadline)) = oracle.pop() {
                    assert_eq!(pool.poll_timeout(), Some(deadline));
                    assert_eq!(pool.peek(), Some(&deadline));
                    assert_eq!(pool.poll_release(deadline), Some((deadline, deadline)));
                    now = now.max(deadline.as_nanos());
                }
                assert_eq!(pool.len(), oracle.len());
                assert_eq!(pool.poll_timeout(), oracle.peek().map(|&Reverse(deadline)| deadline));
            }
        }
        while let Some(Reverse(deadline)) = oracle.pop() {
            assert_eq!(pool.poll_release(deadline), Some((deadline, deadline)));
        }
        assert!(pool.is_empty() && pool.poll_release(Time::MAX).is_none());
    }

    #[test]
    fn items_leave_in_the_order_of_their_deadlines() {
        agrees_with_the_binary_heap(|rng| rng.exponential(Duration::from_micros(50)).as_nanos() as u64);
        agrees_with_the_binary_heap(|rng| rng.below(3) * 1000);
        agrees_with_the_binary_heap(|rng| 1 << rng.below(40));
        agrees_with_the_binary_heap(|rng| u64::MAX >> rng.below(64));
        agrees_with_the_binary_heap(|_| u64::MAX);
    }

    #[test]
    fn items_with_one_deadline_leave_by_their_ties() {
        let mut pool = DelayPool::new(1000, Duration::MAX, Rng::from_seed([3; 32]));
        let mut ties = Rng::from_seed([3; 32]);
        let mut expected: Vec<_> = (0..1000).map(|item| ((ties.next_u64() >> 32) as u32, item)).collect();
        expected.sort_unstable();
        for item in 0..1000 {
            // Some are there already when the deadline comes near, some come later.
            pool.insert(Time::from_nanos(item), Duration::from_nanos(5000 - item), item).unwrap();
        }
        let left = core::iter::from_fn(|| pool.poll_release(Time::from_nanos(5000)));
        assert!(left.map(|(_, item)| item).eq(expected.into_iter().map(|(_, item)| item)));
    }
}
