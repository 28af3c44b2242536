//! Packets that no honest sender would build.

use tombola_mixing::Rng;
use tombola_protocol::frame::{ClientMeta, Frame, LinkMeta, Parity};
use tombola_protocol::hop::NextHop;
use tombola_protocol::opener::{Half, Ticket};
use tombola_protocol::view::EpochView;
use tombola_sphinx::{Destination, HopField, PublicKey, RouteSecrets, build};
use tombola_tickets::por::{Ack, Opener, RouteTickets};
use tombola_topology::{MailboxId, NodeIndex};

/// A hop of a packet by hand: whose key opens it, and what its field says; the last hop's field is not used.
pub(crate) struct Hop {
    pub(crate) key: PublicKey,
    pub(crate) next: NextHop,
    pub(crate) delay_ns: u64,
}

impl Hop {
    /// Node `at`, which is told to forward to node `next`. Its check, and the next one's challenge, are filled in later.
    pub(crate) fn forward(view: &EpochView, at: u32, next: u32, delay_ns: u64) -> Self {
        let next = NextHop::Node { index: NodeIndex(next), check: [0; 8], challenge: [0; 20] };
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

/// What a hop would know of its ticket.
pub(crate) fn any_ticket() -> Ticket {
    let opener = Opener::from_bytes([0; 16]);
    Ticket { challenge: opener.challenge(), ack: Ack::from_bytes([0; 16]), half: Half::Whole(opener) }
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
        let secrets = RouteSecrets::derive(self.rng.seed(), &keys).unwrap();
        let (_, before) = hops.split_last().unwrap();
        let is_client = matches!(before.last(), Some(Hop { next: NextHop::Mailbox(_), .. }));
        let tickets = RouteTickets::of(&secrets, hops.len() - usize::from(is_client));
        let field = |(at, hop): (usize, &Hop)| {
            let mut next = hop.next;
            if let NextHop::Node { check, challenge, .. } = &mut next {
                *check = *tickets.check(at).as_bytes();
                *challenge = *tickets.challenge(at + 1).as_bytes();
            }
            HopField { next: next.to_bytes(), delay_ns: hop.delay_ns }
        };
        let fields: Vec<_> = before.iter().enumerate().map(field).collect();
        let destination = Destination { address: self.rng.seed(), identifier: [7; 16] };
        let mut frame = Frame::zeroed();
        build(&secrets, &fields, &destination, self.rng.seed(), plaintext, frame.packet_mut()).unwrap();
        let (challenge, ack_check) = (*tickets.challenge(0).as_bytes(), *tickets.first_ack().as_bytes());
        frame.set_link_packet(self.parity, &LinkMeta { challenge, ack_check });
        frame
    }

    /// Makes it a client's frame that asks its gateway for a first hop.
    pub(crate) fn for_gateway(&self, mut frame: Frame, next: u32) -> Frame {
        let LinkMeta { challenge, ack_check } = frame.link_meta();
        let meta = ClientMeta { next: NodeIndex(next), ack_check, challenge };
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
