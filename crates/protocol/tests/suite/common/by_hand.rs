//! Packets that no honest sender would build.

use tombola_mixing::Rng;
use tombola_protocol::frame::{ClientMeta, Frame, LinkMeta, Parity};
use tombola_protocol::hop::NextHop;
use tombola_protocol::view::EpochView;
use tombola_sphinx::{Destination, HopField, PublicKey, RouteSecrets, build};
use tombola_topology::{MailboxId, NodeIndex};

/// A hop of a packet by hand: whose key opens it, and what its field says; the last hop's field is not used.
pub(crate) struct Hop {
    pub(crate) key: PublicKey,
    pub(crate) next: NextHop,
    pub(crate) delay_ns: u64,
}

impl Hop {
    /// Node `at`, which is told to forward to node `next`.
    pub(crate) fn forward(view: &EpochView, at: u32, next: u32, delay_ns: u64) -> Self {
        let next = NextHop::Node { index: NodeIndex(next), check: [1; 8], challenge: [2; 20] };
        Self { key: *view.key(NodeIndex(at)).unwrap(), next, delay_ns }
    }

    /// Node `at`, which is told to store.
    pub(crate) fn store(view: &EpochView, at: u32, mailbox: MailboxId) -> Self {
        let next = NextHop::Mailbox(mailbox);
        Self { key: *view.key(NodeIndex(at)).unwrap(), next, delay_ns: 0 }
    }

    /// The end.
    pub(crate) fn last(key: PublicKey) -> Self {
        Self { key, next: NextHop::Mailbox(MailboxId::from_bytes([0; 28])), delay_ns: 0 }
    }
}

/// Builds packets over arbitrary hops.
pub(crate) struct ByHand {
    pub(crate) rng: Rng,
    pub(crate) parity: Parity,
}

impl ByHand {
    pub(crate) fn new(view: &EpochView, seed: u8) -> Self {
        Self { rng: Rng::from_seed([seed; 32]), parity: view.parity() }
    }

    /// A frame between nodes.
    pub(crate) fn packet(&mut self, hops: &[Hop], plaintext: &[u8]) -> Frame {
        let keys: Vec<_> = hops.iter().map(|hop| hop.key).collect();
        let fields: Vec<_> = hops[..hops.len() - 1]
            .iter()
            .map(|hop| HopField { next: hop.next.to_bytes(), delay_ns: hop.delay_ns })
            .collect();
        let secrets = RouteSecrets::derive(self.rng.seed(), &keys).unwrap();
        let destination = Destination { address: self.rng.seed(), identifier: [7; 16] };
        let mut frame = Frame::zeroed();
        build(&secrets, &fields, &destination, self.rng.seed(), plaintext, frame.packet_mut()).unwrap();
        frame.set_link_packet(self.parity, &LinkMeta { challenge: [3; 20], ack_check: [0; 8] });
        frame
    }

    /// Makes it a client's frame that asks its gateway for a first hop.
    pub(crate) fn for_gateway(&self, mut frame: Frame, next: u32) -> Frame {
        let meta =
            ClientMeta { next: NodeIndex(next), ack_check: [4; 8], challenge: [5; 20], opener: [6; 16] };
        frame.set_client_packet(self.parity, &meta);
        frame
    }
}

/// A packet for a node of layer 3 that holds it that long before it goes to a gateway and ends there.
pub(crate) fn at_layer_3(
    by_hand: &mut ByHand,
    view: &EpochView,
    node: u32,
    gateway: u32,
    delay_ns: u64,
) -> Frame {
    let end = Hop::last(*view.key(NodeIndex(gateway)).unwrap());
    by_hand.packet(&[Hop::forward(view, node, gateway, delay_ns), end], &[0])
}
