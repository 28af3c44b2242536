//! A store in memory that forgets what was not durable.

use std::collections::{BTreeMap, VecDeque};

use tombola_protocol::records::Restore;
use tombola_protocol::store::{StoreOp, Table};

/// A record's table and key.
pub(crate) type Key = (Table, Box<[u8]>);

/// What a machine asked for, in order: the first `durable` changes survive its end.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) records: BTreeMap<Key, Box<[u8]>>,
    pending: VecDeque<StoreOp>,
    durable: u64,
    /// Nothing becomes durable while it is set.
    pub(crate) stuck: bool,
}

impl Memory {
    pub(crate) fn take(&mut self, op: StoreOp) {
        self.pending.push_back(op);
    }

    /// Makes everything durable, unless it is stuck; how many changes are.
    pub(crate) fn commit(&mut self) -> u64 {
        while let Some(op) = (!self.stuck).then(|| self.pending.pop_front()).flatten() {
            self.durable += 1;
            match op {
                StoreOp::Put { table, key, value } => drop(self.records.insert((table, key), value)),
                StoreOp::Delete { table, key } => drop(self.records.remove(&(table, key))),
                StoreOp::DeleteRange { table, from, to } => {
                    self.records.retain(|(of, key), _| *of != table || *key < from || *key > to);
                }
            }
        }
        self.durable
    }

    /// The process ends: what was not durable is gone. What a client finds afterwards.
    pub(crate) fn crash(&mut self) -> Restore {
        self.pending.clear();
        self.durable = 0;
        let mut restore = Restore::default();
        for ((table, key), value) in &self.records {
            restore.feed(*table, key, value).unwrap();
        }
        restore
    }

    /// Records in a table.
    pub(crate) fn count(&self, table: Table) -> usize {
        self.records.keys().filter(|(of, _)| *of == table).count()
    }
}
