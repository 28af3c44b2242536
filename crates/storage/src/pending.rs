//! Changes that wait to be written, reduced to what they come to.

use std::collections::BTreeMap;
use std::ops::Bound;

use tombola_protocol::store::{StoreOp, Table};

type Key = Box<[u8]>;

/// What an entry costs besides its bytes, roughly.
const OVERHEAD: usize = 64;

/// What a sequence of operations comes to: first these ranges are removed, then these keys get a value or lose it.
///
/// Whatever is overtaken within the sequence is not in here: mail that is collected before it was written down never
/// touches the disk.
#[derive(Default)]
pub(crate) struct Pending {
    /// No two of them overlap.
    ranges: BTreeMap<(Table, Key), Key>,
    keys: BTreeMap<(Table, Key), Option<Key>>,
    operations: u64,
    bytes: usize,
}

impl Pending {
    /// Adds what comes after everything that is here.
    pub(crate) fn extend(&mut self, operations: impl IntoIterator<Item = StoreOp>) {
        for operation in operations {
            self.operations += 1;
            match operation {
                StoreOp::Put { table, key, value } => self.set(table, key, Some(value)),
                StoreOp::Delete { table, key } => self.set(table, key, None),
                StoreOp::DeleteRange { table, from, to } => self.remove_range(table, from, to),
            }
        }
    }

    /// Adds what comes after everything that is here.
    pub(crate) fn append(&mut self, later: Pending) {
        let operations = self.operations + later.operations;
        for ((table, from), to) in later.ranges {
            self.remove_range(table, from, to);
        }
        for ((table, key), value) in later.keys {
            self.set(table, key, value);
        }
        self.operations = operations;
    }

    /// How many operations went in.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// Memory that it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.keys.is_empty()
    }

    /// Ranges to remove, both ends included.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Table, &[u8], &[u8])> {
        self.ranges.iter().map(|((table, from), to)| (*table, &**from, &**to))
    }

    /// Values to put (`Some`) or to remove (`None`) after that, table by table.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        self.keys.iter().map(|((table, key), value)| (*table, &**key, value.as_deref()))
    }

    fn set(&mut self, table: Table, key: Key, value: Option<Key>) {
        let size = cost(&key, value.as_deref());
        let replaced_size = key.len();
        if let Some(replaced) = self.keys.insert((table, key), value) {
            self.bytes -= replaced_size + replaced.map_or(0, |value| value.len()) + OVERHEAD;
        }
        self.bytes += size;
    }

    fn remove_range(&mut self, table: Table, mut from: Key, mut to: Key) {
        if from > to {
            return;
        }
        // Keys in the range are overtaken by it.
        let bounds = (Bound::Included((table, from.clone())), Bound::Included((table, to.clone())));
        let overtaken: Vec<_> = self.keys.range(bounds).map(|(at, _)| at.clone()).collect();
        for at in overtaken {
            if let Some(value) = self.keys.remove(&at) {
                self.bytes -= cost(&at.1, value.as_deref());
            }
        }
        // Ranges that it overlaps become one with it: the last that begins before it, and all that begin inside.
        let before = self.ranges.range(..=(table, from.clone())).next_back();
        if let Some(((other, start), end)) = before
            && *other == table
            && *end >= from
        {
            from = start.clone();
        }
        let bounds = (Bound::Included((table, from.clone())), Bound::Included((table, to.clone())));
        let merged: Vec<_> = self.ranges.range(bounds).map(|(at, _)| at.clone()).collect();
        for at in merged {
            if let Some(end) = self.ranges.remove(&at) {
                self.bytes -= cost(&at.1, Some(&end));
                to = to.max(end);
            }
        }
        self.bytes += cost(&from, Some(&to));
        self.ranges.insert((table, from), to);
    }
}

/// Memory that an operation takes at most.
pub(crate) fn size(operation: &StoreOp) -> usize {
    match operation {
        StoreOp::Put { key, value, .. } => cost(key, Some(value)),
        StoreOp::Delete { key, .. } => cost(key, None),
        StoreOp::DeleteRange { from, to, .. } => cost(from, Some(to)),
    }
}

fn cost(key: &[u8], value: Option<&[u8]>) -> usize {
    key.len() + value.map_or(0, <[u8]>::len) + OVERHEAD
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<(Table, Key), Key>;

    fn apply_one(model: &mut Model, operation: StoreOp) {
        match operation {
            StoreOp::Put { table, key, value } => drop(model.insert((table, key), value)),
            StoreOp::Delete { table, key } => drop(model.remove(&(table, key))),
            StoreOp::DeleteRange { table, from, to } => {
                model.retain(|(other, key), _| !(*other == table && *key >= from && *key <= to));
            }
        }
    }

    fn apply(model: &mut Model, pending: &Pending) {
        for (table, from, to) in pending.ranges() {
            apply_one(model, StoreOp::DeleteRange { table, from: from.into(), to: to.into() });
        }
        for (table, key, value) in pending.keys() {
            match value {
                Some(value) => drop(model.insert((table, key.into()), value.into())),
                None => drop(model.remove(&(table, key.into()))),
            }
        }
    }

    fn key() -> impl Strategy<Value = Key> {
        prop::collection::vec(0_u8..4, 0..3).prop_map(Into::into)
    }

    fn operation() -> impl Strategy<Value = StoreOp> {
        let table = (0_u8..2).prop_map(Table);
        prop_oneof![
            3 => (table.clone(), key(), any::<[u8; 2]>())
                .prop_map(|(table, key, value)| StoreOp::Put { table, key, value: value.into() }),
            1 => (table.clone(), key()).prop_map(|(table, key)| StoreOp::Delete { table, key }),
            1 => (table, key(), key()).prop_map(|(table, from, to)| StoreOp::DeleteRange { table, from, to }),
        ]
    }

    fn operations() -> impl Strategy<Value = Vec<StoreOp>> {
        prop::collection::vec(operation(), 0..40)
    }

    proptest! {
        #[test]
        fn comes_to_the_same_as_one_after_the_other(
            before in operations(), first in operations(), second in operations(),
        ) {
            let mut expected = Model::new();
            for operation in before.iter().chain(&first).chain(&second) {
                apply_one(&mut expected, operation.clone());
            }

            let mut start = Model::new();
            for operation in before {
                apply_one(&mut start, operation);
            }
            let count = first.len() + second.len();
            let (mut all, mut later) = (Pending::default(), Pending::default());
            all.extend(first.clone());
            all.extend(second.clone());
            let mut model = start.clone();
            apply(&mut model, &all);
            prop_assert_eq!(&model, &expected);
            prop_assert_eq!(all.operations(), count as u64);

            let mut appended = Pending::default();
            appended.extend(first);
            later.extend(second);
            appended.append(later);
            let mut model = start;
            apply(&mut model, &appended);
            prop_assert_eq!(&model, &expected);
            prop_assert_eq!(appended.operations(), count as u64);
            prop_assert_eq!(appended.bytes(), all.bytes());

            let counted: usize = appended.keys().map(|(_, key, value)| cost(key, value)).sum::<usize>()
                + appended.ranges().map(|(_, from, to)| cost(from, Some(to))).sum::<usize>();
            prop_assert_eq!(appended.bytes(), counted);
        }
    }

    #[test]
    fn what_is_overtaken_takes_no_room() {
        let mut pending = Pending::default();
        let put =
            |number: u8| StoreOp::Put { table: Table(1), key: [number].into(), value: vec![0; 1000].into() };
        pending.extend((0..100).map(put));
        assert!(pending.bytes() > 100_000);
        pending.extend([StoreOp::DeleteRange { table: Table(1), from: [0].into(), to: [99].into() }]);
        assert_eq!(pending.bytes(), OVERHEAD + 2);
        assert_eq!(pending.operations(), 101);
        assert_eq!(pending.keys().count(), 0);
    }
}
