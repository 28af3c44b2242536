//! Why a packet ended here: every drop is a value with a reason, counted, never logged one by one.

use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// Why a packet or frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// All reasons, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The metric's label value.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// The frame's kind, parity or reserved bytes are unknown. The peer is at fault.
    BadFrame => "bad_frame",
    /// A frame of a known kind that this peer must not send here. The peer is at fault.
    WrongDirection => "wrong_direction",
    /// No key of that parity is valid now.
    NoKey => "no_key",
    /// The group element is small-order or not canonical.
    BadPoint => "bad_point",
    /// The header's MAC does not hold.
    BadMac => "bad_mac",
    /// Version or flag of the header is unknown.
    BadHeader => "bad_header",
    /// The packet was seen before.
    Replay => "replay",
    /// The replay filter is full: nothing more is accepted under this key.
    FilterFull => "filter_full",
    /// The header names a next hop that this role does not have.
    BadNextHop => "bad_next_hop",
    /// The challenge beside the packet is not the one that its sender meant: no ticket, no work. The peer is at fault, or the
    /// sender.
    BadTicket => "bad_ticket",
    /// Whoever sent it does not pay for it: nothing is agreed, its credit is used up, or its guarantee is.
    Unpaid => "unpaid",
    /// Too many tickets of this neighbour's packets do not open: a share of its packets is let in.
    Slowed => "slowed",
    /// The next hop could not be paid for so long that the packet was given up: its link is down, or our deposit is used up.
    CannotPay => "cannot_pay",
    /// A final-hop packet that nobody here expects: drop cover, or somebody's mistake.
    Discarded => "discarded",
    /// The node is full; shed before its header was processed.
    Overload => "overload",
    /// The node is about to end and takes nothing new.
    Draining => "draining",
    /// The disk does not take what must not be lost: a tag, or mail.
    Storage => "storage",
    /// The link's queue towards the next hop is full or gone.
    LinkFull => "link_full",
    /// A client, or all neighbours of a node together, send faster than the network's rate.
    RateLimited => "rate_limited",
    /// Nobody has registered this mailbox.
    UnknownMailbox => "unknown_mailbox",
    /// The mailbox, or all of them together, is full.
    MailboxFull => "mailbox_full",
    /// The mail is older than the network's retention.
    MailExpired => "mail_expired",
    /// A payload that was changed on its way, or a reply that nobody here can open.
    BadPayload => "bad_payload",
    /// A payload that is whole but no fragment of this version.
    BadFragment => "bad_fragment",
    /// A fragment that came before.
    DuplicateFragment => "duplicate_fragment",
    /// The reassembly buffer was full, or the message was never completed in time.
    ReassemblyFull => "reassembly_full",
}

const COUNT: usize = DropReason::ALL.len();

/// One counter per reason. Shared by reference; increments are relaxed, readers get a recent value.
#[derive(Debug, Default)]
pub struct DropCounters([AtomicU64; COUNT]);

impl DropCounters {
    /// Counts one drop.
    pub fn count(&self, reason: DropReason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were dropped for this reason so far.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// All reasons with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self.get(reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_label() {
        let counters = DropCounters::default();
        counters.count(DropReason::Replay);
        counters.count(DropReason::Replay);
        counters.count(DropReason::ReassemblyFull);
        let counted: Vec<_> = counters.iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [(DropReason::Replay, 2), (DropReason::ReassemblyFull, 1)]);
        let mut labels: Vec<_> = DropReason::ALL.iter().map(|r| r.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DropReason::ALL.len());
    }

    #[test]
    fn the_specification_lists_them_in_this_order() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (_, section) = document.split_once("## Drop reasons").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let listed: Vec<&str> = rows.map(|(label, _)| label).collect();
        let labels: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(listed, labels);
    }
}
