//! What is due next, sorted.

use crate::heap::{Heap, Keyed};

/// Least element first, for few elements: a sorted array. Those that find no room in it wait in a heap beside it, so that no
/// number of them makes it slow.
pub(crate) struct Near<T> {
    /// The least is the last.
    sorted: Vec<T>,
    beside: Heap<T>,
}

/// Elements in the array: some lines of a processor's cache.
const FEW: usize = 32;

impl<T: Keyed> Near<T> {
    pub(crate) fn with_capacity(capacity: usize) -> Near<T> {
        Near { sorted: Vec::with_capacity(FEW.min(capacity)), beside: Heap::with_capacity(capacity) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty() && self.beside.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.sorted.len() + self.beside.len()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> (usize, usize) {
        (self.sorted.capacity(), self.beside.capacity())
    }

    pub(crate) fn push(&mut self, element: T) {
        if self.sorted.len() >= FEW {
            return self.beside.push(element);
        }
        let key = element.key();
        let place = self.sorted.iter().rposition(|other| other.key() > key).map_or(0, |greater| greater + 1);
        self.sorted.insert(place, element);
    }

    pub(crate) fn peek(&self) -> Option<&T> {
        let Some(beside) = self.beside.peek() else { return self.sorted.last() };
        Some(self.sorted.last().filter(|least| least.key() <= beside.key()).unwrap_or(beside))
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        if let Some(beside) = self.beside.peek()
            && self.sorted.last().is_none_or(|least| beside.key() < least.key())
        {
            return self.beside.pop();
        }
        self.sorted.pop()
    }
}
