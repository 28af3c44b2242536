//! What was on disk at the start, record by record.

use std::collections::{BTreeMap, VecDeque};

use tombola_topology::MailboxId;

use super::record::{MAIL, MAILBOXES, MailboxRecord, RecordError, RecordFault, decode_mail};
use crate::store::Table;
use crate::unix::UnixNanos;

/// Takes the records of a gateway's store, in any order.
#[derive(Debug, Default)]
pub struct Restore {
    boxes: BTreeMap<MailboxId, MailboxRecord>,
    mails: BTreeMap<MailboxId, Vec<(u64, UnixNanos)>>,
}

/// A gateway's store, read and found whole. The default is an empty one.
#[derive(Debug, Default)]
pub struct Stored(pub(super) Vec<StoredMailbox>);

#[derive(Debug)]
pub(super) struct StoredMailbox {
    pub(super) id: MailboxId,
    pub(super) record: MailboxRecord,
    /// Number and time of each mail, by number.
    pub(super) mails: VecDeque<(u64, UnixNanos)>,
}

impl Restore {
    /// The tables that are to be read.
    pub const TABLES: [Table; 2] = [MAILBOXES, MAIL];

    /// Takes a record.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn record(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        match table {
            MAILBOXES => {
                let (id, record) = MailboxRecord::decode(key, value)?;
                match self.boxes.insert(id, record) {
                    None => Ok(()),
                    Some(_) => Err(RecordError { table, reason: RecordFault::Twice }),
                }
            }
            MAIL => {
                let (id, number, stored) = decode_mail(key, value)?;
                self.mails.entry(id).or_default().push((number, stored));
                Ok(())
            }
            _ => Err(RecordError { table, reason: RecordFault::Table }),
        }
    }

    /// Puts the records together.
    ///
    /// # Errors
    /// They do not belong together.
    pub fn finish(mut self) -> Result<Stored, RecordError> {
        let mut stored = Vec::with_capacity(self.boxes.len());
        for (id, record) in self.boxes {
            let mut mails = self.mails.remove(&id).unwrap_or_default();
            mails.sort_unstable();
            if mails.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return Err(RecordError { table: MAIL, reason: RecordFault::Twice });
            }
            stored.push(StoredMailbox { id, record, mails: mails.into() });
        }
        match self.mails.is_empty() {
            true => Ok(Stored(stored)),
            false => Err(RecordError { table: MAIL, reason: RecordFault::NoMailbox }),
        }
    }
}
