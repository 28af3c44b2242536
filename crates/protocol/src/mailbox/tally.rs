//! How much mail there may be, and whose share is used up.

use core::time::Duration;

/// Bounds of [`Mailboxes`](super::Mailboxes).
#[derive(Clone, Copy, Debug)]
pub struct MailboxLimits {
    /// Most mailboxes.
    pub mailboxes: usize,
    /// Most packets in one mailbox.
    pub packets_each: usize,
    /// Most packets in all of them together.
    pub packets_total: usize,
    /// How long a packet is kept.
    pub retention: Duration,
}

/// Packets in all mailboxes, against the bounds.
///
/// Half of the total bound is divided: every mailbox has its share to itself. The other half is for whoever needs more.
/// So a few clients who let their mailboxes fill up can take that half, but nobody else's share.
#[derive(Debug)]
pub(super) struct Tally {
    each: usize,
    /// Places that every mailbox has to itself.
    own: usize,
    /// Places for whoever needs more than that.
    common: usize,
    packets: usize,
    /// Those among them that are beyond their mailbox's own places.
    in_common: usize,
}

impl Tally {
    pub(super) fn new(limits: &MailboxLimits) -> Self {
        let own = limits.packets_total / 2 / limits.mailboxes.max(1);
        let common = limits.packets_total - own * limits.mailboxes;
        Self { each: limits.packets_each, own, common, packets: 0, in_common: 0 }
    }

    /// Whether a mailbox that holds `packets` may get one more. What is on disk since the bounds were wider stays.
    pub(super) fn has_room(&self, packets: usize) -> bool {
        packets < self.each && (packets < self.own || self.in_common < self.common)
    }

    /// A mailbox that held `before` packets holds `after`.
    pub(super) fn change(&mut self, before: usize, after: usize) {
        self.packets = self.packets - before + after;
        let beyond = |packets: usize| packets.saturating_sub(self.own);
        self.in_common = self.in_common - beyond(before) + beyond(after);
    }

    pub(super) fn packets(&self) -> usize {
        self.packets
    }
}
