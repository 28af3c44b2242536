//! The same world with real Sphinx packets: built by the deployed packet builder, opened and delayed by the deployed relay.
//!
//! Everything else stays as it is: who sends when, which route a packet takes, what is measured. Delays are those that the
//! packets carry. Each departure is compared with the delay in the header, each packet's end with what its sender meant.

use core::time::Duration;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use thiserror::Error;
use tombola_mixing::Time;
use tombola_protocol::drops::{DropCounters, DropReason};
use tombola_protocol::frame::{CHALLENGE_LEN, ClientMeta, Frame, LinkMeta};
use tombola_protocol::opener::{Inbound, NodeKey, Occupancy, Opener, Order};
use tombola_protocol::packet::{End, FirstLink, Identifier, PacketBuilder};
use tombola_protocol::payload::payload_type;
use tombola_protocol::relay::{Relay, RelayInput, RelayOutput};
use tombola_protocol::replay::TagFilter;
use tombola_protocol::view::{EpochView, Seat, ViewError};
use tombola_sphinx::{PublicKey, SecretKey};
use tombola_topology::{
    AuthoritySecret, DocumentError, Draft, EpochDraft, EpochNumber, IdentityKey, MAX_LAYERS, MailboxId, Node,
    NodeIndex, Parameters, Role, SphinxKey, UnixTime,
};

use crate::engine::{Purpose, Seeds};
use crate::mixes::{Deployed, Mix, PacketId};
use crate::scenario::{Scenario, Topology};
use crate::world::{Kind, Packets, Routes};

/// Why a scenario cannot be run with real packets.
#[derive(Debug, Error)]
pub enum WireError {
    /// Another topology, or too many layers.
    #[error(
        "real packets need a stratified network of at most {MAX_LAYERS} layers: change `network`, or leave out `--fidelity packets`"
    )]
    Topology,
    /// Other mixes than the deployed ones.
    #[error(
        "real packets need `mix.kind = \"poisson\"` with an exponential delay: change it, or leave out `--fidelity packets`"
    )]
    Mix,
    /// The network document that follows from the scenario breaks a rule.
    #[error("the deployed network refuses these parameters: {0}")]
    Document(#[from] DocumentError),
    /// A key of that document is unusable.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// What became of real packets. Everything but `built` and `arrived` is zero unless something is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCounts {
    /// Packets built.
    pub built: u64,
    /// Packets whose end opened them, and found what their sender had meant.
    pub arrived: u64,
    /// Packets that a relay dropped though it had room.
    pub dropped: u64,
    /// Packets that left a relay at another time, or for another node, than their header says.
    pub astray: u64,
    /// Packets that their end could not open, or that asked for something else there.
    pub wrong_end: u64,
}

/// The network's keys, its packets, and its ends.
pub struct Wire {
    seeds: Seeds,
    net: Rc<Net>,
    post: Rc<RefCell<Post>>,
    clients: Vec<PublicKey>,
}

/// What does not change.
struct Net {
    view: Arc<EpochView>,
    nodes: Vec<(IdentityKey, SecretKey)>,
    parameters: Parameters,
    gateways: u32,
    /// Places in a relay.
    capacity: usize,
}

/// Packets between two nodes.
#[derive(Default)]
struct Post {
    under_way: BTreeMap<PacketId, Carried>,
    ends: BTreeMap<PacketId, Meant>,
    counts: WireCounts,
}

struct Carried {
    frame: Frame,
    from: IdentityKey,
    to: IdentityKey,
}

enum Meant {
    Mailbox { gateway: u32, mailbox: MailboxId },
    Node { node: u32, identifier: Identifier },
}

const DAY: Duration = Duration::from_secs(86_400);

impl Wire {
    /// A network document, keys and clients for a scenario.
    ///
    /// # Errors
    /// No relays can run it.
    pub fn new(scenario: &Scenario, routes: &Routes, seeds: &Seeds) -> Result<Self, WireError> {
        let layers = match &scenario.topology {
            Topology::Stratified(widths) if widths.len() <= usize::from(MAX_LAYERS) => widths.len() as u8,
            _ => return Err(WireError::Topology),
        };
        let deployed = scenario.mix.deployed(scenario.most_arrivals_per_mix()).ok_or(WireError::Mix)?;
        let Deployed { mean_delay, max_delay, capacity } = deployed;
        let parameters = Parameters {
            layers,
            mean_delay,
            max_delay: max_delay.min((40 * mean_delay).max(Duration::from_secs(1))).min(DAY),
            loop_timeout: (20 * mean_delay).max(scenario.measures.loop_timeout).min(DAY),
            admitted_rate: 10_000_000,
            ..Parameters::default()
        };
        let gateways = scenario.gateways as u32;
        let roles = (0..gateways)
            .map(|_| Role::Gateway)
            .chain((0..routes.mixes()).map(|mix| Role::Mix { layer: routes.layer_of(mix) as u8 }));
        let mut nodes = Vec::new();
        let mut secrets = Vec::new();
        for (node, role) in (0..).zip(roles) {
            let mut rng = seeds.stream(Purpose::Keys, node);
            let identity = IdentityKey::of_seed(&rng.seed());
            let secret = SecretKey::from_bytes(rng.seed());
            let address = || vec!["/ip4/127.0.0.1/udp/1/quic-v1".to_owned()];
            nodes.push(Node {
                role,
                identity,
                sphinx_key: SphinxKey::from_bytes(secret.public_key().to_bytes()),
                addresses: address(),
                client_addresses: if role == Role::Gateway { address() } else { Vec::new() },
                account: None,
            });
            secrets.push((identity, secret));
        }
        let epoch = EpochDraft {
            number: EpochNumber(0),
            valid_from: UnixTime(0),
            valid_until: UnixTime(365 * DAY.as_secs()),
            payment: None,
            nodes,
        };
        let draft = Draft {
            name: "simulated".into(),
            serial: 1,
            parameters: parameters.clone(),
            epochs: vec![epoch],
        };
        let network = draft.sign(&AuthoritySecret::from_seed(seeds.seed(Purpose::Keys, u64::MAX)))?;
        let view = EpochView::at(&network, UnixTime(0))?;
        // Mixes have mailboxes for their loops, too.
        let clients = (0..(scenario.clients.count + routes.mixes()) as u64)
            .map(|client| SecretKey::from_bytes(seeds.seed(Purpose::Keys, (1 << 32) + client)).public_key())
            .collect();
        let net = Rc::new(Net { view, nodes: secrets, parameters, gateways, capacity });
        Ok(Self { seeds: seeds.clone(), net, post: Rc::default(), clients })
    }

    /// The deployed relay in the place of a mix.
    #[must_use]
    pub fn relay(&self, mix: usize) -> Box<dyn Mix> {
        let node = self.net.gateways + mix as u32;
        let (identity, secret) = &self.net.nodes[node as usize];
        let occupancy = Occupancy::new(self.net.capacity);
        let drops = Arc::new(DropCounters::default());
        let relay = Relay::new(
            Time::ZERO,
            Arc::clone(&self.net.view),
            *identity,
            Vec::new(),
            occupancy.clone(),
            Arc::clone(&drops),
            self.seeds.seed(Purpose::Mixes, mix as u64),
        );
        Box::new(RelayMix {
            me: *identity,
            opener: self.net.opener(node, secret, occupancy, Arc::clone(&drops)),
            relay,
            drops,
            inside: BTreeMap::new(),
            post: Rc::clone(&self.post),
        })
    }

    /// Builds the packet.
    pub fn build(&mut self, id: PacketId, packets: &Packets) {
        let packet = packets.get(id);
        let net = &self.net;
        let stream = u64::from(packet.sender) << 32 | u64::from(packet.number);
        let mut builder = PacketBuilder::new(self.seeds.stream(Purpose::Sphinx, stream));
        let identifier = builder.identifier();
        let clients = (self.clients.len() + net.gateways as usize - net.nodes.len()) as u32;
        let client_end = |client: u32| {
            let gateway = client % net.gateways;
            let mut mailbox = [0; MailboxId::LEN];
            mailbox[..4].copy_from_slice(&client.to_be_bytes());
            let mailbox = MailboxId::from_bytes(mailbox);
            let key = self.clients[client as usize];
            let end = End::Client { gateway: NodeIndex(gateway), mailbox, key };
            (end, Meant::Mailbox { gateway, mailbox })
        };
        let (end, meant) = match packet.kind {
            Kind::Real | Kind::Loop => client_end(packet.receiver),
            // Its account: the mailbox behind those of all clients.
            Kind::MixOut => client_end(packet.sender),
            Kind::Cover | Kind::Drop | Kind::MixIn => {
                // Behind the clients come gateways and mixes, in the order of the node list.
                let node = packet.receiver - clients;
                (End::Node(NodeIndex(node)), Meant::Node { node, identifier })
            }
        };
        let mixes: Vec<_> = packets.route(id).map(|hop| NodeIndex(net.gateways + hop.mix)).collect();
        let filler = builder.filler(payload_type::COVER);
        let (link, from) = match packet.kind {
            Kind::MixOut => (FirstLink::FromNode, net.gateways + packet.sender - clients),
            _ => (FirstLink::FromClient, packet.sender % net.gateways),
        };
        let prepared = builder.build(&net.view, link, &mixes, &end, identifier, &filler);
        let mut frame = prepared.frame;
        if link == FirstLink::FromClient {
            // The gateway leaves out what is meant for itself.
            let ClientMeta { challenge, ack_check, .. } = frame.client_meta();
            frame.set_link_packet(net.view.parity(), &LinkMeta { challenge, ack_check });
        }
        let carried =
            Carried { frame, from: net.nodes[from as usize].0, to: net.nodes[prepared.first.as_usize()].0 };
        let mut post = self.post.borrow_mut();
        post.counts.built += 1;
        post.under_way.insert(id, carried);
        post.ends.insert(id, meant);
    }

    /// The packet is lost.
    pub fn forget(&mut self, id: PacketId) {
        let mut post = self.post.borrow_mut();
        post.under_way.remove(&id);
        post.ends.remove(&id);
    }

    /// The packet is where it ends: opens it there, and compares what it says with what its sender meant.
    pub fn end(&mut self, now: Time, id: PacketId) {
        let mut post = self.post.borrow_mut();
        let (Some(Carried { frame, from, to }), Some(meant)) =
            (post.under_way.remove(&id), post.ends.remove(&id))
        else {
            post.counts.wrong_end += 1;
            return;
        };
        let node = match &meant {
            Meant::Mailbox { gateway, .. } => *gateway,
            Meant::Node { node, .. } => *node,
        };
        let (identity, secret) = &self.net.nodes[node as usize];
        let opener = self.net.opener(node, secret, Occupancy::new(1), Arc::default());
        let (mut batch, mut opened) = (vec![Inbound { arrived: now, from, frame }], Vec::new());
        opener.open_batch(&mut batch, &mut opened, &mut Vec::new());
        let right = match (opened.first().map(|opened| opened.order), meant) {
            (Some(Order::Store(found)), Meant::Mailbox { mailbox, .. }) => found == mailbox,
            (Some(Order::End { identifier: found }), Meant::Node { identifier, .. }) => found == identifier,
            _ => false,
        };
        if right && to == *identity {
            post.counts.arrived += 1;
        } else {
            post.counts.wrong_end += 1;
        }
    }

    /// What became of the packets so far.
    #[must_use]
    pub fn counts(&self) -> WireCounts {
        self.post.borrow().counts
    }
}

impl Net {
    fn opener(
        &self,
        node: u32,
        secret: &SecretKey,
        occupancy: Occupancy,
        drops: Arc<DropCounters>,
    ) -> Opener {
        let opener = Opener::new(&self.parameters, occupancy, drops);
        if let Some(seat) = Seat::new(Arc::clone(&self.view), NodeIndex(node)) {
            let filter = TagFilter::new(u64::MAX, node.into());
            opener.open(seat, Arc::new(NodeKey::new(secret.clone(), filter, None)));
        }
        opener
    }
}

/// The deployed relay as a mix.
struct RelayMix {
    me: IdentityKey,
    opener: Opener,
    relay: Relay,
    drops: Arc<DropCounters>,
    /// The challenge that a packet carries to the next hop is all that it has in common inside and outside; and when it
    /// should leave.
    inside: BTreeMap<[u8; CHALLENGE_LEN], (PacketId, Time)>,
    post: Rc<RefCell<Post>>,
}

impl Mix for RelayMix {
    fn arrive(&mut self, now: Time, packet: PacketId, _delay: Duration) -> bool {
        let mut post = self.post.borrow_mut();
        let Some(Carried { frame, from, to }) = post.under_way.remove(&packet) else {
            post.counts.dropped += 1;
            return false;
        };
        post.counts.astray += u64::from(to != self.me);
        let (mut batch, mut opened) = (vec![Inbound { arrived: now, from, frame }], Vec::new());
        let shed = self.drops.get(DropReason::Overload);
        self.opener.open_batch(&mut batch, &mut opened, &mut Vec::new());
        let Some(opened) = opened.pop() else {
            // For want of room is what the scenario asks for.
            post.counts.dropped += u64::from(self.drops.get(DropReason::Overload) == shed);
            return false;
        };
        let Order::Forward { delay_ns, challenge, .. } = opened.order else {
            post.counts.astray += 1;
            return false;
        };
        self.inside.insert(challenge, (packet, now + Duration::from_nanos(delay_ns)));
        self.relay.handle(now, RelayInput::Opened(opened));
        true
    }

    fn poll(&mut self, now: Time) -> Option<PacketId> {
        let RelayOutput::Forward { to, frame } = self.relay.poll_output(now)? else { return None };
        let (packet, due) = self.inside.remove(&frame.link_meta().challenge)?;
        let mut post = self.post.borrow_mut();
        post.counts.astray += u64::from(due != now);
        post.under_way.insert(packet, Carried { frame, from: self.me, to });
        Some(packet)
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.relay.poll_timeout()
    }
}
