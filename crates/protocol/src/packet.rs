//! Builds the packets that clients and mix nodes send: one function for real traffic, cover and loops alike.

use core::time::Duration;

use tombola_mixing::Rng;
use tombola_sphinx::{
    Destination, HopField, IDENTIFIER_LEN, MAX_HOPS, PLAINTEXT_MAX, PublicKey, RouteSecrets, build,
};
use tombola_topology::{MailboxId, NodeIndex};

use crate::fragment::payload_type;
use crate::frame::{ClientMeta, Frame, LinkMeta};
use crate::hop::NextHop;
use crate::view::{EpochView, Recipient};

/// The identifier in a final hop's header: the non-zero id of a loop, else random.
pub type Identifier = [u8; IDENTIFIER_LEN];

/// Where a packet ends.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack while one packet is built")]
pub enum End {
    /// At a client, through its gateway's mailbox.
    Client {
        /// The client's gateway.
        gateway: NodeIndex,
        /// The client's mailbox there.
        mailbox: MailboxId,
        /// The client's Sphinx key.
        key: PublicKey,
    },
    /// At a node: drop cover at a gateway, or a loop at the mix node that sent it.
    Node(NodeIndex),
}

impl From<&Recipient> for End {
    fn from(to: &Recipient) -> Self {
        Self::Client { gateway: to.gateway, mailbox: to.address.mailbox, key: to.key }
    }
}

/// A packet that is ready to be sent.
#[derive(Debug)]
pub struct Prepared {
    /// The whole frame, with its packet.
    pub frame: Frame,
    /// The first hop.
    pub first: NodeIndex,
    /// Sum of the delays that were drawn for it.
    pub delays: Duration,
}

/// Who puts the packet on its first link; decides the frame's meta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstLink {
    /// A client, towards its gateway.
    FromClient,
    /// A mix node, towards the next layer.
    FromNode,
}

/// Builds packets for one sender.
pub struct PacketBuilder {
    rng: Rng,
}

impl PacketBuilder {
    /// A builder with its own randomness.
    pub fn new(rng: Rng) -> Self {
        Self { rng }
    }

    /// A fresh identifier, never zero.
    pub fn identifier(&mut self) -> Identifier {
        let mut identifier = [0; IDENTIFIER_LEN];
        while identifier == [0; IDENTIFIER_LEN] {
            self.rng.fill(&mut identifier);
        }
        identifier
    }

    /// A cover or probe payload: the type, then random bytes.
    pub fn filler(&mut self, kind: u8) -> [u8; PLAINTEXT_MAX] {
        debug_assert!(kind != payload_type::FRAGMENT, "a fragment has a header");
        let mut plaintext = [0; PLAINTEXT_MAX];
        self.rng.fill(&mut plaintext);
        plaintext[0] = kind;
        plaintext
    }

    /// The randomness that routes are drawn from.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Builds a packet through `mixes` to `end`. Each mix node's delay is exponential with the network's mean,
    /// clamped to its bound; the gateway's is zero.
    ///
    /// # Panics
    /// When `mixes` and `end` make no route of one to [`MAX_HOPS`] hops through nodes of `view`, or the plaintext
    /// is longer than [`PLAINTEXT_MAX`]: callers draw routes from the same view.
    pub fn build(
        &mut self,
        view: &EpochView,
        link: FirstLink,
        mixes: &[NodeIndex],
        end: &End,
        identifier: Identifier,
        plaintext: &[u8],
    ) -> Prepared {
        let mut nodes = [NodeIndex(0); MAX_HOPS];
        let mut count = 0;
        let tail = match end {
            End::Client { gateway, .. } => *gateway,
            End::Node(node) => *node,
        };
        for &node in mixes.iter().chain([&tail]) {
            nodes[count] = node;
            count += 1;
        }
        let nodes = &nodes[..count];

        let key_of = |node| *view.key(node).expect("the route was drawn from this view");
        let mut keys = [key_of(nodes[0]); MAX_HOPS];
        for (slot, node) in keys.iter_mut().zip(nodes) {
            *slot = key_of(*node);
        }
        let mut hops = count;
        if let End::Client { key, .. } = end {
            keys[count] = *key;
            hops += 1;
        }

        let mut delays = Duration::ZERO;
        let mut fields = [HopField { next: [0; 32], delay_ns: 0 }; MAX_HOPS];
        for (field, next) in fields.iter_mut().zip(&nodes[1..]) {
            let delay = self.rng.exponential(view.parameters().mean_delay).min(view.parameters().max_delay);
            delays += delay;
            field.delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
            field.next = self.next_hop(*next).to_bytes();
        }
        if let End::Client { mailbox, .. } = end {
            fields[hops - 2].next = NextHop::Mailbox(*mailbox).to_bytes();
        }

        let secrets =
            RouteSecrets::derive(self.rng.seed(), &keys[..hops]).expect("one to MAX_HOPS checked keys");
        let destination = Destination { address: self.rng.seed(), identifier };
        let mut frame = Frame::zeroed();
        build(&secrets, &fields[..hops - 1], &destination, self.rng.seed(), plaintext, frame.packet_mut())
            .expect("as many fields as hops less one, and a plaintext that fits");
        self.set_meta(&mut frame, view, link, nodes[0]);
        Prepared { frame, first: nodes[0], delays }
    }

    fn next_hop(&mut self, index: NodeIndex) -> NextHop {
        let mut check = [0; 8];
        let mut challenge = [0; 20];
        self.rng.fill(&mut check);
        self.rng.fill(&mut challenge);
        NextHop::Node { index, check, challenge }
    }

    fn set_meta(&mut self, frame: &mut Frame, view: &EpochView, link: FirstLink, next: NodeIndex) {
        let mut challenge = [0; 20];
        self.rng.fill(&mut challenge);
        match link {
            FirstLink::FromNode => {
                frame.set_link_packet(view.parity(), &LinkMeta { challenge, ack_check: [0; 8] });
            }
            FirstLink::FromClient => {
                let mut ack_check = [0; 8];
                let mut opener = [0; 16];
                self.rng.fill(&mut ack_check);
                self.rng.fill(&mut opener);
                frame.set_client_packet(view.parity(), &ClientMeta { next, ack_check, challenge, opener });
            }
        }
    }
}

impl core::fmt::Debug for PacketBuilder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("PacketBuilder(..)")
    }
}
