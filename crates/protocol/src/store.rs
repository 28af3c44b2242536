//! What a state machine asks to be kept, without knowing of any disk.
//!
//! Changes are numbered in the order in which they were asked for. Whoever drives the machine writes them down in that
//! order, as many at a time as it likes, each group wholly or not at all, and says up to which they are durable. What must
//! not be seen before it is durable (an acknowledgement, a message for the application) the machine holds back until then.

use tombola_tickets::Change;

/// A table of a store; each state machine names its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

/// One change.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreOp {
    /// Puts a value, in place of the one that was there.
    Put {
        /// Where.
        table: Table,
        /// Compared byte by byte, so that big-endian numbers keep their order.
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
    /// Removes all values from one key to another, both included.
    DeleteRange {
        /// Where.
        table: Table,
        /// The first key.
        from: Box<[u8]>,
        /// The last key.
        to: Box<[u8]>,
    },
}

/// What payment asks for, in tables of its own store.
impl From<Change> for StoreOp {
    fn from(change: Change) -> Self {
        match change {
            Change::Put { table, key, value } => Self::Put { table: Table(table.0), key, value },
            Change::Delete { table, key } => Self::Delete { table: Table(table.0), key },
        }
    }
}

impl core::fmt::Debug for StoreOp {
    /// Shows no content.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (name, table) = match self {
            Self::Put { table, .. } => ("Put", table),
            Self::Delete { table, .. } => ("Delete", table),
            Self::DeleteRange { table, .. } => ("DeleteRange", table),
        };
        write!(f, "{name}(table {})", table.0)
    }
}
