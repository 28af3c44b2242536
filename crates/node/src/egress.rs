//! From a driver to links: a frame for a neighbour.

use std::sync::Arc;

use tombola_link::Links;
use tombola_protocol::drops::{DropCounters, DropReason};
use tombola_protocol::frame::Frame;
use tombola_topology::IdentityKey;

/// Sends frames to neighbours.
pub struct Egress {
    links: Links,
    drops: Arc<DropCounters>,
    packets_out: ::metrics::Counter,
}

impl Egress {
    /// An egress over `links`, which know the neighbours of all epochs in use.
    #[must_use]
    pub fn new(links: Links, drops: Arc<DropCounters>) -> Self {
        let packets_out = ::metrics::counter!(crate::metrics::PACKETS_OUT_TOTAL);
        Self { links, drops, packets_out }
    }

    /// Hands a packet to the link. A queue that is full, or a node that is no neighbour, costs the packet; it is counted.
    pub fn send(&self, to: &IdentityKey, frame: Frame) {
        match self.links.send(to, frame) {
            Ok(()) => self.packets_out.increment(1),
            Err(_) => self.drops.count(DropReason::LinkFull),
        }
    }
}
