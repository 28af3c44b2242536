//! A priority queue whose nodes have eight children.

/// Least element first. A third as deep as a binary heap, and the children that are compared lie side by side: with thousands
/// of elements in each of many pools, most of the time goes into waiting for memory, once for each level.
pub(crate) struct Heap<T>(Vec<T>);

const CHILDREN: usize = 8;

/// What elements are ordered by.
pub(crate) trait Keyed {
    /// One number, so that the least of eight is found without a branch that a processor would mispredict.
    fn key(&self) -> u128;
}

impl<T: Keyed> Heap<T> {
    pub(crate) fn with_capacity(capacity: usize) -> Heap<T> {
        Heap(Vec::with_capacity(capacity))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    pub(crate) fn peek(&self) -> Option<&T> {
        self.0.first()
    }

    pub(crate) fn push(&mut self, element: T) {
        let mut at = self.0.len();
        let key = element.key();
        self.0.push(element);
        while at > 0 {
            let parent = (at - 1) / CHILDREN;
            if self.0[parent].key() <= key {
                break;
            }
            self.0.swap(parent, at);
            at = parent;
        }
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.0.is_empty() {
            return None;
        }
        let least = self.0.swap_remove(0);
        let elements = &mut self.0[..];
        let Some(key) = elements.first().map(Keyed::key) else { return Some(least) };
        let mut at = 0;
        loop {
            let first = CHILDREN * at + 1;
            let children = match elements.get(first..first + CHILDREN) {
                Some(all) => all,
                None => elements.get(first..).unwrap_or_default(),
            };
            let Some((eldest, others)) = children.split_first() else { break };
            let mut child = (eldest.key(), first);
            for (other, place) in others.iter().zip(first + 1..) {
                let other = (other.key(), place);
                child = if other.0 < child.0 { other } else { child };
            }
            if key <= child.0 {
                break;
            }
            elements.swap(at, child.1);
            at = child.1;
        }
        Some(least)
    }
}

#[cfg(test)]
mod tests {
    use core::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;
    use crate::Rng;

    impl Keyed for u64 {
        fn key(&self) -> u128 {
            (*self).into()
        }
    }

    #[test]
    fn it_agrees_with_the_binary_heap_of_the_standard_library() {
        let mut rng = Rng::from_seed([9; 32]);
        let (mut heap, mut oracle) = (Heap::with_capacity(0), BinaryHeap::new());
        // Growing, in balance, shrinking; few values, so that many are equal.
        for pushes in [7, 5, 3] {
            for _ in 0..4000 {
                if rng.below(10) < pushes {
                    let value = rng.below(500);
                    heap.push(value);
                    oracle.push(Reverse(value));
                } else {
                    assert_eq!(heap.pop(), oracle.pop().map(|Reverse(value)| value));
                }
                assert_eq!(heap.peek(), oracle.peek().map(|Reverse(value)| value));
                assert_eq!(heap.len(), oracle.len());
            }
        }
        while let Some(Reverse(value)) = oracle.pop() {
            assert_eq!(heap.pop(), Some(value));
        }
        assert_eq!(heap.pop(), None);
    }
}
