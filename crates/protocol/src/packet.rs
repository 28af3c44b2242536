//! Builds the packets that clients and mix nodes send: one function for real traffic, cover and loops alike.

use core::time::Duration;

use tombola_mixing::Rng;
use tombola_sphinx::{
    Destination, HopField, IDENTIFIER_LEN, MAX_HOPS, NEXT_HOP_LEN, PLAINTEXT_MAX, PublicKey, ReplyKeys,
    RouteSecrets, SURB_LEN, Surb, build, build_surb,
};
use tombola_tickets::por::RouteTickets;
use tombola_topology::{MailboxId, NodeIndex, Role};

use crate::frame::{ClientMeta, Frame, LinkMeta, array};
use crate::hop::NextHop;
use crate::payload::payload_type;
use crate::view::EpochView;

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
        debug_assert!(
            matches!(kind, payload_type::COVER | payload_type::PROBE),
            "everything else has a header"
        );
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
        let route = self.route(view, mixes, end);
        let destination = Destination { address: self.rng.seed(), identifier };
        let mut frame = Frame::zeroed();
        build(&route.secrets, route.fields(), &destination, self.rng.seed(), plaintext, frame.packet_mut())
            .expect("as many fields as hops less one, and a plaintext that fits");
        self.set_meta(&mut frame, view, link, &route);
        Prepared { frame, first: route.first, delays: route.delays }
    }

    /// Builds a reply block: `end` is a client, its maker.
    ///
    /// # Panics
    /// As [`build`](Self::build).
    pub fn build_block(
        &mut self,
        view: &EpochView,
        mixes: &[NodeIndex],
        end: &End,
    ) -> ([u8; SURB_LEN], ReplyKeys) {
        let route = self.route(view, mixes, end);
        let destination = Destination { address: self.rng.seed(), identifier: self.identifier() };
        let first = route.first_hop();
        let (surb, keys) = build_surb(&route.secrets, route.fields(), first, &destination, self.rng.seed())
            .expect("as many fields as hops less one, and an identifier that is not zero");
        (*surb.to_bytes(), keys)
    }

    /// Builds an answer through a reply block that was made in the epoch of `view`; `None` if the block is no good.
    ///
    /// # Panics
    /// When the plaintext is longer than [`PLAINTEXT_MAX`].
    pub fn build_reply(
        &mut self,
        view: &EpochView,
        block: &[u8; SURB_LEN],
        plaintext: &[u8],
    ) -> Option<Prepared> {
        let surb = Surb::from_bytes(block).ok()?;
        let (next, rest) = surb.first_hop().split_first_chunk()?;
        let first = NodeIndex(u32::from_be_bytes(*next));
        let (ack_check, challenge) = (array(&rest[..8]), array(&rest[8..]));
        // Whoever else it names, our gateway would drop it.
        if view.role(first) != Some(Role::Mix { layer: 1 }) {
            return None;
        }
        let mut frame = Frame::zeroed();
        surb.reply(plaintext, frame.packet_mut()).expect("callers' plaintexts fit");
        frame.set_client_packet(view.parity(), &ClientMeta { next: first, ack_check, challenge });
        // Whoever made the block knows the delays.
        Some(Prepared { frame, first, delays: Duration::ZERO })
    }

    /// Draws everything that leads along `mixes` to `end`.
    fn route(&mut self, view: &EpochView, mixes: &[NodeIndex], end: &End) -> Route {
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
        let secrets =
            RouteSecrets::derive(self.rng.seed(), &keys[..hops]).expect("one to MAX_HOPS checked keys");
        // Every node is paid, a client is not.
        let tickets = RouteTickets::of(&secrets, count);
        for ((field, next), at) in fields.iter_mut().zip(&nodes[1..]).zip(0..) {
            let delay = self.rng.exponential(view.parameters().mean_delay).min(view.parameters().max_delay);
            delays += delay;
            field.delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
            let (check, challenge) = (*tickets.check(at).as_bytes(), *tickets.challenge(at + 1).as_bytes());
            field.next = NextHop::Node { index: *next, check, challenge }.to_bytes();
        }
        if let End::Client { mailbox, .. } = end {
            fields[hops - 2].next = NextHop::Mailbox(*mailbox).to_bytes();
        }
        Route { secrets, tickets, fields, hops, first: nodes[0], delays }
    }

    fn set_meta(&mut self, frame: &mut Frame, view: &EpochView, link: FirstLink, route: &Route) {
        let challenge = *route.tickets.challenge(0).as_bytes();
        match link {
            FirstLink::FromNode => {
                frame.set_link_packet(view.parity(), &LinkMeta { challenge, ack_check: [0; 8] });
            }
            FirstLink::FromClient => {
                let (next, ack_check) = (route.first, *route.tickets.first_ack().as_bytes());
                frame.set_client_packet(view.parity(), &ClientMeta { next, ack_check, challenge });
            }
        }
    }
}

/// A route with all that was drawn for it.
struct Route {
    secrets: RouteSecrets,
    tickets: RouteTickets,
    fields: [HopField; MAX_HOPS],
    hops: usize,
    first: NodeIndex,
    delays: Duration,
}

impl Route {
    fn fields(&self) -> &[HopField] {
        &self.fields[..self.hops - 1]
    }

    /// The first-hop field of a reply block: next hop 4 | ack check 8 | challenge 20, as in a client's frame.
    fn first_hop(&self) -> [u8; NEXT_HOP_LEN] {
        let (check, challenge) =
            (*self.tickets.first_ack().as_bytes(), *self.tickets.challenge(0).as_bytes());
        NextHop::Node { index: self.first, check, challenge }.to_bytes()
    }
}

impl core::fmt::Debug for PacketBuilder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("PacketBuilder(..)")
    }
}
