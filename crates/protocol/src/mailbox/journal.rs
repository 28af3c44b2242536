//! What is still to be written, in order, and what of it is durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tombola_topology::MailboxId;

use super::record::MailboxRecord;

/// Changes that may be under way. Beyond it mail is refused until the disk has caught up.
pub(super) const UNDER_WAY_MAX: usize = 16_384;

/// Something to be written. What exactly is looked up when it is handed out: by then it may be gone, or newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The record of a mailbox; its removal if there is no such mailbox any more.
    Mailbox(MailboxId),
    /// A mail.
    Mail(MailboxId, u64),
}

/// What has been handed out to be written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    /// A mailbox's record.
    Mailbox(MailboxId, MailboxRecord),
    /// A mail.
    Mail(MailboxId, u64),
}

impl Mark {
    pub(super) fn mailbox(&self) -> MailboxId {
        match self {
            Self::Mailbox(id, _) | Self::Mail(id, _) => *id,
        }
    }
}

/// See the module.
///
/// Order: what is put goes first, in the order in which it came; deletions follow when nothing is left to put. So a deletion
/// never overtakes the mail that it deletes, and while the disk is behind, one deletion per mailbox is enough, however often
/// its client acknowledges.
#[derive(Debug, Default)]
pub(super) struct Journal {
    queue: VecDeque<Entry>,
    /// The mailboxes whose record is in the queue.
    records: BTreeSet<MailboxId>,
    /// Up to which number mail is to be deleted.
    deletions: BTreeMap<MailboxId, u64>,
    /// How many changes have been handed out.
    handed_out: u64,
    /// Those that are not durable yet, by their number among all.
    marks: VecDeque<(u64, Mark)>,
}

impl Journal {
    /// Asks for a mailbox's record to be written, once.
    pub(super) fn put_mailbox(&mut self, id: MailboxId) {
        if self.records.insert(id) {
            self.queue.push_back(Entry::Mailbox(id));
        }
    }

    pub(super) fn put_mail(&mut self, id: MailboxId, number: u64) {
        self.queue.push_back(Entry::Mail(id, number));
    }

    /// Asks for mail to be deleted up to that number. Returns whether nothing was to be deleted of this mailbox already.
    pub(super) fn delete_mail(&mut self, id: MailboxId, to: u64) -> bool {
        let known = self.deletions.get(&id).copied();
        self.deletions.insert(id, known.unwrap_or(0).max(to));
        known.is_none()
    }

    /// The next thing to put.
    pub(super) fn next_put(&mut self) -> Option<Entry> {
        let entry = self.queue.pop_front()?;
        if let Entry::Mailbox(id) = &entry {
            self.records.remove(id);
        }
        Some(entry)
    }

    /// The next deletion. Only when there is nothing to put.
    pub(super) fn next_deletion(&mut self) -> Option<(MailboxId, u64)> {
        self.deletions.pop_first()
    }

    /// A change is handed out; `mark` comes back from [`durable`](Self::durable) when it is on disk.
    pub(super) fn hand_out(&mut self, mark: Option<Mark>) {
        self.handed_out += 1;
        self.marks.extend(mark.map(|mark| (self.handed_out, mark)));
    }

    /// The next mark among the first `count` changes.
    pub(super) fn durable(&mut self, count: u64) -> Option<Mark> {
        let (_, mark) = self.marks.pop_front_if(|(at, _)| *at <= count)?;
        Some(mark)
    }

    /// Whether the disk is too far behind for more.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() + self.marks.len() >= UNDER_WAY_MAX
    }
}
