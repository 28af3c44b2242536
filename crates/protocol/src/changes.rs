//! Changes that a state machine has asked for, and what waits until they are durable.

use std::collections::VecDeque;

use crate::store::{StoreOp, Table};

/// Numbers changes, and holds back `G` until the changes that were asked for before it are durable.
#[derive(Debug)]
pub(crate) struct Changes<G> {
    ops: VecDeque<StoreOp>,
    asked: u64,
    durable: u64,
    gated: VecDeque<(u64, G)>,
}

impl<G> Default for Changes<G> {
    fn default() -> Self {
        Self { ops: VecDeque::new(), asked: 0, durable: 0, gated: VecDeque::new() }
    }
}

impl<G> Changes<G> {
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.ask(StoreOp::Put { table, key: key.into(), value: value.into() });
    }

    pub(crate) fn delete(&mut self, table: Table, key: &[u8]) {
        self.ask(StoreOp::Delete { table, key: key.into() });
    }

    /// Removes everything whose key begins with `prefix`; keys of that table have at most `prefix.len() + 8` bytes.
    pub(crate) fn delete_all(&mut self, table: Table, prefix: &[u8]) {
        let to = [prefix, &[0xff; 8]].concat().into();
        self.ask(StoreOp::DeleteRange { table, from: prefix.into(), to });
    }

    pub(crate) fn ask(&mut self, op: StoreOp) {
        self.ops.push_back(op);
        self.asked += 1;
    }

    /// Holds something back until everything that was asked for so far is durable.
    pub(crate) fn gate(&mut self, what: G) {
        self.gated.push_back((self.asked, what));
    }

    pub(crate) fn poll_op(&mut self) -> Option<StoreOp> {
        self.ops.pop_front()
    }

    /// The first `count` changes are durable.
    pub(crate) fn set_durable(&mut self, count: u64) {
        self.durable = self.durable.max(count.min(self.asked));
    }

    /// The next thing that need not be held back any longer.
    pub(crate) fn poll_gated(&mut self) -> Option<G> {
        let (after, _) = self.gated.front()?;
        if *after > self.durable {
            return None;
        }
        self.gated.pop_front().map(|(_, what)| what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_comes_out_in_order_when_everything_before_it_is_durable() {
        let mut changes = Changes::default();
        changes.gate("at once");
        changes.put(Table(1), b"a", vec![1]);
        changes.gate("after one");
        changes.delete(Table(1), b"a");
        changes.delete_all(Table(2), b"b");
        changes.gate("after three");
        assert_eq!(changes.poll_gated(), Some("at once"));
        assert_eq!(changes.poll_gated(), None);
        changes.set_durable(2);
        assert_eq!(changes.poll_gated(), Some("after one"));
        assert_eq!(changes.poll_gated(), None);
        changes.set_durable(99);
        assert_eq!(changes.poll_gated(), Some("after three"));
        assert_eq!(core::iter::from_fn(|| changes.poll_op()).count(), 3);
    }
}
