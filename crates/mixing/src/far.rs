//! What is due later, hardly sorted.

/// Elements by instant, the later ones unsorted, in memory that is allocated once.
///
/// The later part of a monotone radix heap (Ahuja, Mehlhorn, Orlin and Tarjan, "Faster algorithms for the shortest path
/// problem", 1990). All elements are later than a *limit*; each lies in the bucket of the highest bit in which its instant
/// differs from the limit. So all of a bucket comes before all of the next one; and what is in the lowest bucket goes to
/// still lower ones once it has been given a limit of its own. An element is moved a few times, at most once for each bit,
/// and what is moved lies side by side. A heap has to wait for memory at each of its levels instead, whenever an element
/// leaves.
///
/// Buckets are chains of blocks, so that all of them together need hardly more memory than their elements.
pub(crate) struct Far<T> {
    places: Vec<Option<T>>,
    /// For each block the last place of the next one in its chain, or [`NONE`].
    next: Vec<usize>,
    /// For each bucket the place that was taken last; its block is the only one of the chain that may not be full.
    last: [usize; BUCKETS],
    /// Where the chain of free blocks begins.
    free: usize,
    /// Bit `b` says that bucket `b` has something in it.
    filled: u64,
    limit: u64,
    len: usize,
}

/// What an element has.
pub(crate) trait Timed {
    /// In nanoseconds.
    fn instant(&self) -> u64;
}

const BUCKETS: usize = u64::BITS as usize;
/// Places in a block.
const BLOCK: usize = 16;
const NONE: usize = usize::MAX;
/// As many elements are taken out together, if there are: fewer than a processor's cache holds for each of many pools.
const SOME: usize = 8;

impl<T: Timed> Far<T> {
    pub(crate) fn with_capacity(capacity: usize) -> Far<T> {
        // In each bucket there is one block that is not full, and while one is emptied, its last block is not free yet.
        let blocks = (capacity / BLOCK).saturating_add(BUCKETS + 1);
        Far {
            places: Vec::with_capacity(blocks.saturating_mul(BLOCK)),
            next: Vec::with_capacity(blocks),
            last: [NONE; BUCKETS],
            free: NONE,
            filled: 0,
            limit: 0,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> (usize, usize) {
        (self.places.capacity(), self.next.capacity())
    }

    /// Sets the limit. There must be no elements.
    pub(crate) fn restart(&mut self, limit: u64) {
        debug_assert_eq!(self.len, 0);
        self.limit = limit;
    }

    /// Takes an element, or hands it back if it is not later than the limit.
    pub(crate) fn push(&mut self, element: T) -> Result<(), T> {
        if element.instant() <= self.limit {
            return Err(element);
        }
        self.len += 1;
        self.put(element);
        Ok(())
    }

    fn put(&mut self, element: T) {
        let bucket = (element.instant() ^ self.limit).ilog2() as usize;
        self.filled |= 1 << bucket;
        let last = self.last[bucket];
        let place = if last == NONE || last % BLOCK == BLOCK - 1 {
            let block = self.take_block();
            self.next[block] = last;
            block * BLOCK
        } else {
            last + 1
        };
        self.last[bucket] = place;
        self.places[place] = Some(element);
    }

    fn take_block(&mut self) -> usize {
        let block = self.free;
        if block == NONE {
            self.places.extend((0..BLOCK).map(|_| None));
            self.next.push(NONE);
            return self.next.len() - 1;
        }
        self.free = self.next[block];
        block
    }

    /// Hands out the elements that come first, all up to a new limit: at least one, if there are any.
    pub(crate) fn take_first(&mut self, mut out: impl FnMut(T)) {
        let before = self.len;
        while self.filled != 0 && before - self.len < SOME {
            let bucket = self.filled.trailing_zeros() as usize;
            self.filled &= self.filled - 1;
            let last = core::mem::replace(&mut self.last[bucket], NONE);
            let is_small = self.next[last / BLOCK] == NONE;
            let mut instants = (self.limit, u64::MAX);
            self.chain(last, |element| {
                instants = (instants.0.max(element.instant()), instants.1.min(element.instant()));
            });
            // A few go out at once. Of many only the first, and what is as early: the others are distributed again.
            self.limit = if is_small { instants.0 } else { instants.1 };
            self.empty(last, &mut out);
        }
    }

    /// All elements of a chain.
    fn chain(&self, mut last: usize, mut each: impl FnMut(&T)) {
        while last != NONE {
            let block = last / BLOCK;
            self.places[block * BLOCK..=last].iter().flatten().for_each(&mut each);
            last = self.next[block];
        }
    }

    /// Distributes a chain; what is not later than the limit goes out.
    fn empty(&mut self, mut last: usize, out: &mut impl FnMut(T)) {
        while last != NONE {
            let block = last / BLOCK;
            for place in block * BLOCK..=last {
                match self.places[place].take() {
                    Some(element) if element.instant() > self.limit => self.put(element),
                    Some(element) => {
                        self.len -= 1;
                        out(element);
                    }
                    None => {}
                }
            }
            last = core::mem::replace(&mut self.next[block], self.free);
            self.free = block;
        }
    }
}
