//! From a driver to links: a frame for a node of the list, by its index.

use std::sync::Arc;

use tombola_link::Links;
use tombola_protocol::drops::{DropCounters, DropReason};
use tombola_protocol::frame::Frame;
use tombola_protocol::view::EpochView;
use tombola_topology::{IdentityKey, NodeIndex};

/// Sends frames to neighbours.
pub struct Egress {
    links: Links,
    identities: Vec<IdentityKey>,
    drops: Arc<DropCounters>,
    packets_out: ::metrics::Counter,
}

impl Egress {
    /// An egress over `links`, which know the nodes of `view` as their peers.
    #[must_use]
    pub fn new(links: Links, view: &EpochView, drops: Arc<DropCounters>) -> Self {
        let identities = view.epoch().nodes().iter().map(|node| node.identity).collect();
        let packets_out = ::metrics::counter!(crate::metrics::PACKETS_OUT_TOTAL);
        Self { links, identities, drops, packets_out }
    }

    /// Hands a packet to the link. A queue that is full, or a node that is no neighbour, costs the packet; it is counted.
    pub fn send(&self, to: NodeIndex, frame: Frame) {
        let sent = self.identities.get(to.0 as usize).map(|peer| self.links.send(peer, frame));
        match sent {
            Some(Ok(())) => self.packets_out.increment(1),
            _ => self.drops.count(DropReason::LinkFull),
        }
    }
}
