//! What must be on disk, and what may be seen only when it is.
//!
//! All machines of a process ask for their changes in one [`Journal`], so that there is one order. Whoever drives them
//! writes the changes down in that order, as many at a time as it likes, each group wholly or not at all, and says up to
//! which they are durable. A crash then leaves a beginning of the journal, and every beginning can be restored.

use std::collections::VecDeque;

/// A table of the store; see [`records`](crate::records).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

/// One change of the store.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// Puts a value, in place of the one that was there.
    Put {
        /// Where.
        table: Table,
        /// Compared byte by byte.
        key: Box<[u8]>,
        /// What.
        value: Box<[u8]>,
    },
    /// Removes a value, if there is one.
    Delete {
        /// Where.
        table: Table,
        /// Its key.
        key: Box<[u8]>,
    },
}

impl core::fmt::Debug for Change {
    /// Shows no content: openers are among it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Put { table, .. } => write!(f, "Put(table {})", table.0),
            Self::Delete { table, .. } => write!(f, "Delete(table {})", table.0),
        }
    }
}

/// The changes that were asked for, in order, and how many of them are durable.
///
/// **Bound.** A few changes for each batch and winner; whoever drives the machines takes them out.
#[derive(Debug, Default)]
pub struct Journal {
    changes: VecDeque<Change>,
    asked: u64,
    durable: u64,
    urgent: bool,
}

impl Journal {
    /// The next change to write down.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// How many changes were asked for so far.
    #[must_use]
    pub const fn asked(&self) -> u64 {
        self.asked
    }

    /// The first `count` changes are durable.
    pub fn set_durable(&mut self, count: u64) {
        self.durable = self.durable.max(count.min(self.asked));
    }

    /// Whether what was asked for last keeps packets waiting that others want to send; once. A link that is so busy that it
    /// fills whole batches may send as much as its credit ahead of the disks at both ends, and then stands still.
    pub fn take_urgent(&mut self) -> bool {
        core::mem::take(&mut self.urgent)
    }

    pub(crate) fn hurry(&mut self) {
        self.urgent = true;
    }

    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.changes.push_back(Change::Put { table, key: key.into(), value: value.into() });
        self.asked += 1;
    }

    pub(crate) fn delete(&mut self, table: Table, key: &[u8]) {
        self.changes.push_back(Change::Delete { table, key: key.into() });
        self.asked += 1;
    }
}

/// Things that are held back until everything that was asked for before them is durable. They come out in order.
#[derive(Debug)]
pub(crate) struct Gated<T>(VecDeque<(u64, T)>);

impl<T> Default for Gated<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Gated<T> {
    pub(crate) fn push(&mut self, journal: &Journal, thing: T) {
        self.0.push_back((journal.asked, thing));
    }

    pub(crate) fn pop(&mut self, journal: &Journal) -> Option<T> {
        self.0.pop_front_if(|(after, _)| *after <= journal.durable).map(|(_, thing)| thing)
    }

    /// What did not come out yet.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, thing)| thing)
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.0.retain(|(_, thing)| keep(thing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_comes_out_in_order_when_everything_before_it_is_durable() {
        let mut journal = Journal::default();
        let mut gated = Gated::default();
        gated.push(&journal, "at once");
        journal.put(Table(1), b"a", vec![1]);
        gated.push(&journal, "after one");
        journal.delete(Table(1), b"a");
        gated.push(&journal, "after two");
        assert_eq!(gated.pop(&journal), Some("at once"));
        assert_eq!(gated.pop(&journal), None);
        journal.set_durable(1);
        assert_eq!(gated.pop(&journal), Some("after one"));
        assert_eq!(gated.pop(&journal), None);
        journal.set_durable(99);
        assert_eq!(gated.pop(&journal), Some("after two"));
        assert_eq!(core::iter::from_fn(|| journal.poll_change()).count(), 2);
    }

    #[test]
    fn a_change_shows_no_content() {
        let change = Change::Put { table: Table(3), key: [1].into(), value: [77].into() };
        assert_eq!(format!("{change:?}"), "Put(table 3)");
    }
}
