//! The replay filter: every accepted packet's tag, once.
//!
//! A set of 64-bit fingerprints in open addressing, in [`SHARDS`] independently locked shards. A tag is 32 bytes of
//! HKDF output that only the hop and the packet's sender know, so its first 8 bytes are a fingerprint: an honest
//! packet meets one of `n` others with probability `n / 2^64` (5e-10 at 10^10 packets), and nobody can aim at a tag
//! that they do not know. The place in the table is keyed, so that ground tags cannot pile up.
//!
//! | tags | memory (load between 3/8 and 3/4) |
//! |---|---|
//! | 1 million | 11 to 21 MB |
//! | 100 million | 1.1 to 2.1 GB |
//!
//! The capacity follows from the network's admitted rate and the life of the key ([`capacity_for`]). A full filter
//! refuses; it never clears itself while its key lives.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::{Mutex, PoisonError};

use thiserror::Error;
use tombola_sphinx::{ReplayFilter, ReplayTag};

use crate::frame::array;

/// Shards, each with its own lock, so that workers rarely wait for each other.
pub const SHARDS: usize = 64;

/// Slots that a shard begins with.
const INITIAL_SLOTS: usize = 64;

/// An odd multiplier (2^64 over the golden ratio) that spreads fingerprints over the table.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads 64 bits over 64 bits: the two halves of the product with [`MIX`], folded.
fn mix(bits: u64) -> u64 {
    let product = u128::from(bits) * u128::from(MIX);
    let [low, high] = [product, product >> 64].map(|half| half as u64);
    low ^ high
}

/// Why a tag was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// The tag is in the filter.
    #[error("the packet was seen before")]
    Seen,
    /// The filter holds as many tags as it may.
    #[error("the replay filter is full")]
    Full,
}

/// What is remembered of a tag.
pub fn fingerprint(tag: &ReplayTag) -> u64 {
    // 0 marks an empty slot; one more fingerprint in 2^64 coincides.
    u64::from_le_bytes(array(&tag.as_bytes()[..8])).max(1)
}

/// How many tags a key's filter must hold: the admitted rate over the key's life, a second more than full.
pub fn capacity_for(packets_per_second: u64, life: Duration) -> u64 {
    packets_per_second.saturating_mul(life.as_secs().saturating_add(1))
}

/// The filter of one key.
pub struct TagFilter {
    shards: Box<[Mutex<Shard>]>,
    /// Tags that each shard may hold.
    per_shard: AtomicUsize,
    key: u64,
}

impl TagFilter {
    /// A filter for at most `capacity` tags (rounded up to a multiple of [`SHARDS`]); `key` is random and secret.
    pub fn new(capacity: u64, key: u64) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new())).collect();
        Self { shards, per_shard: AtomicUsize::new(per_shard(capacity)), key }
    }

    /// Lets the filter hold `capacity` tags if that is more: its key lives longer than was known.
    pub fn raise_capacity(&self, capacity: u64) {
        self.per_shard.fetch_max(per_shard(capacity), Ordering::Relaxed);
    }

    /// Puts a fingerprint in that was there before a restart, whatever the capacity; one that is there stays.
    pub fn restore(&self, fingerprint: u64) {
        let _seen = self.insert_up_to(usize::MAX, fingerprint.max(1));
    }

    fn insert_up_to(&self, capacity: usize, fingerprint: u64) -> Result<(), ReplayError> {
        // Keyed like the slot, so that ground tags cannot fill one shard; the halves are exchanged, so that the tags of
        // a shard do not crowd in its table.
        let shard = mix(fingerprint ^ self.key.rotate_left(32)) >> (u64::BITS - SHARDS.ilog2());
        let shard = usize::try_from(shard).expect("a few bits");
        lock(&self.shards[shard]).check_and_insert(fingerprint, self.key, capacity)
    }

    /// Tags in the filter.
    pub fn len(&self) -> u64 {
        self.shards.iter().map(|shard| lock(shard).len as u64).sum()
    }

    /// Whether no tag was accepted yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ReplayFilter for TagFilter {
    type Rejected = ReplayError;

    fn check_and_insert(&self, tag: &ReplayTag) -> Result<(), ReplayError> {
        self.insert_up_to(self.per_shard.load(Ordering::Relaxed), fingerprint(tag))
    }
}

impl core::fmt::Debug for TagFilter {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TagFilter").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The same for each, rounded up.
fn per_shard(capacity: u64) -> usize {
    usize::try_from(capacity.div_ceil(SHARDS as u64)).unwrap_or(usize::MAX).max(1)
}

struct Shard {
    slots: Box<[u64]>,
    len: usize,
}

impl Shard {
    fn new() -> Self {
        Self { slots: vec![0; INITIAL_SLOTS].into(), len: 0 }
    }

    fn check_and_insert(&mut self, fingerprint: u64, key: u64, capacity: usize) -> Result<(), ReplayError> {
        let slot = self.find(fingerprint, key);
        if self.slots[slot] == fingerprint {
            return Err(ReplayError::Seen);
        }
        if self.len >= capacity {
            return Err(ReplayError::Full);
        }
        self.slots[slot] = fingerprint;
        self.len += 1;
        if self.len * 4 > self.slots.len() * 3 {
            self.grow(key);
        }
        Ok(())
    }

    /// The slot that holds the fingerprint, or the empty one where it belongs. There always is an empty slot, since
    /// the load stays below 3/4.
    fn find(&self, fingerprint: u64, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = usize::try_from(mix(fingerprint ^ key)).unwrap_or(usize::MAX) & mask;
        while self.slots[slot] != 0 && self.slots[slot] != fingerprint {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self, key: u64) {
        let old = core::mem::take(&mut self.slots);
        self.slots = vec![0; old.len() * 2].into();
        for fingerprint in old.iter().copied().filter(|&f| f != 0) {
            let slot = self.find(fingerprint, key);
            self.slots[slot] = fingerprint;
        }
    }
}

/// A shard is a plain set of integers: a panic elsewhere cannot leave it half changed.
fn lock(shard: &Mutex<Shard>) -> std::sync::MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombola_mixing::Rng;

    fn tag(n: u64) -> ReplayTag {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&n.to_le_bytes());
        ReplayTag::from_bytes(Rng::from_seed(seed).seed())
    }

    #[test]
    fn a_tag_passes_once() {
        let filter = TagFilter::new(100_000, 7);
        for n in 0..50_000 {
            assert_eq!(filter.check_and_insert(&tag(n)), Ok(()));
        }
        for n in 0..50_000 {
            assert_eq!(filter.check_and_insert(&tag(n)), Err(ReplayError::Seen));
        }
        assert_eq!(filter.len(), 50_000);
    }

    #[test]
    fn a_full_filter_refuses_and_still_knows_what_it_saw() {
        let filter = TagFilter::new(SHARDS as u64, 7);
        let mut accepted = Vec::new();
        let mut refused = 0;
        for n in 0..10_000 {
            match filter.check_and_insert(&tag(n)) {
                Ok(()) => accepted.push(n),
                Err(ReplayError::Full) => refused += 1,
                Err(ReplayError::Seen) => panic!("never seen"),
            }
        }
        assert_eq!((accepted.len(), refused), (SHARDS, 10_000 - SHARDS));
        assert!(accepted.iter().all(|&n| filter.check_and_insert(&tag(n)) == Err(ReplayError::Seen)));
    }

    #[test]
    fn what_is_restored_is_known_and_a_raised_capacity_holds() {
        let filter = TagFilter::new(1, 7);
        for n in 0..1000 {
            filter.restore(fingerprint(&tag(n)));
            filter.restore(fingerprint(&tag(n)));
        }
        assert_eq!(filter.check_and_insert(&tag(1000)), Err(ReplayError::Full));
        filter.raise_capacity(100_000);
        filter.raise_capacity(10);
        assert_eq!(filter.len(), 1000);
        assert!((0..1000).all(|n| filter.check_and_insert(&tag(n)) == Err(ReplayError::Seen)));
        assert!((1000..2000).all(|n| filter.check_and_insert(&tag(n)).is_ok()), "the capacity stays");
        // A fingerprint of zero would be an empty slot.
        filter.restore(0);
        assert_eq!(filter.len(), 2001);
    }

    #[test]
    fn of_64_threads_with_one_packet_exactly_one_passes() {
        let filter = TagFilter::new(1000, 7);
        let passed = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..64).map(|_| scope.spawn(|| filter.check_and_insert(&tag(1)).is_ok())).collect();
            threads.into_iter().map(|t| t.join().unwrap()).filter(|&ok| ok).count()
        });
        assert_eq!(passed, 1);
    }

    #[test]
    fn capacity_covers_the_admitted_rate_over_the_key_s_life() {
        assert_eq!(capacity_for(2000, Duration::from_secs(3600)), 7_202_000);
        assert_eq!(capacity_for(u64::MAX, Duration::from_secs(3600)), u64::MAX);
    }
}
