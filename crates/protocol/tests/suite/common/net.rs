//! Links, time, and whose turn it is.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use tombola_mixing::Time;
use tombola_protocol::client::{Client, ClientEvent, Emitted, FinalState, Received, SendOptions};
use tombola_protocol::drops::DropCounters;
use tombola_protocol::fragment::MessageId;
use tombola_protocol::frame::{Frame, FrameKind, Parity};
use tombola_protocol::gateway::{Gateway, GatewayInput, GatewayOutput};
use tombola_protocol::opener::{Half, Inbound, Occupancy, Opener, Order};
use tombola_protocol::payment::Fact;
use tombola_protocol::relay::{NewViews, Relay, RelayInput, RelayOutput};
use tombola_protocol::view::{OpenViews, SendViews};
use tombola_sphinx::RelaySecrets;
use tombola_tickets::por::OwnSecret;
use tombola_tickets::{Address, WindowClaim};
use tombola_topology::{IdentityKey, NodeIndex, Phases, Role};

use super::disk::Disk;
use super::memory::Memory;
use super::paying::{Asked, Kept, Purse, guarantee, without_batches};
use super::world::{START, Setup, World, gateway_of};

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A node, on the links to its neighbours.
    Node(u32),
    /// A client, by number.
    Client(usize),
    /// An account of a mix node.
    Account(u32, usize),
}

/// What an observer inside all links sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) sent: Time,
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) frame: Frame,
}

impl Sighting {
    pub(crate) fn kind(&self) -> FrameKind {
        self.frame.kind().unwrap()
    }

    /// Names the packet on this link.
    pub(crate) fn alpha(&self) -> [u8; 32] {
        alpha(&self.frame)
    }
}

/// What only the node itself knows: which packet became which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage {
    pub(crate) node: u32,
    pub(crate) arrived: Time,
    pub(crate) order: Order,
    /// Of the packet that arrived.
    pub(crate) alpha_in: [u8; 32],
    /// Of the packet for the next hop.
    pub(crate) alpha_out: [u8; 32],
}

/// The state machine of a node.
pub(crate) enum Machine {
    Mix(Box<Relay>),
    Gateway(Box<Gateway>),
}

/// A node: what opens packets, and what is done with them.
pub(crate) struct NodeState {
    pub(crate) opener: Opener,
    pub(crate) machine: Machine,
    pub(crate) disk: Disk,
    pub(crate) occupancy: Occupancy,
    pub(crate) drops: Arc<DropCounters>,
    /// Its key slots, by parity: epochs, counted from 0.
    pub(crate) open: [Option<usize>; 2],
}

impl NodeState {
    pub(crate) fn relay(&self) -> &Relay {
        match &self.machine {
            Machine::Mix(relay) => relay,
            Machine::Gateway(_) => panic!("a gateway"),
        }
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        match &self.machine {
            Machine::Gateway(gateway) => gateway,
            Machine::Mix(_) => panic!("a mix node"),
        }
    }

    /// Packets that left for the next node so far.
    pub(crate) fn forwarded(&self) -> u64 {
        match &self.machine {
            Machine::Mix(relay) => relay.counts().forwarded,
            Machine::Gateway(gateway) => gateway.counts().forwarded,
        }
    }
}

/// A frame on a link. Frames that arrive at the same instant arrive in the order in which they were sent.
pub(super) struct InFlight {
    at: Time,
    number: u64,
    pub(super) from: Place,
    pub(super) to: Place,
    frame: Frame,
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for InFlight {}

/// Says which links lose everything.
type Cut = Box<dyn Fn(Place, Place) -> bool>;

/// The running network.
pub(crate) struct Net {
    pub(crate) world: World,
    pub(crate) now: Time,
    pub(crate) nodes: Vec<NodeState>,
    pub(crate) clients: Vec<Client>,
    /// What each client keeps.
    pub(crate) stores: Vec<Memory>,
    /// What each client told its application.
    pub(crate) events: Vec<Vec<ClientEvent>>,
    /// Everything that was put on a link, while [`Net::watch`] is on.
    pub(crate) seen: Vec<Sighting>,
    /// Every packet that a node opened, while [`Net::watch`] is on.
    pub(crate) passages: Vec<Passage>,
    /// Nobody finds the time to work ahead.
    pub(crate) lazy: bool,
    /// What the disks of gateways take to write and to read.
    pub(crate) disk_takes: Duration,
    /// What the disks have done, but not said yet.
    disk_answers: BTreeMap<(Time, u64), (usize, GatewayInput)>,
    watching: bool,
    cut: Option<Cut>,
    /// What the disks for payment take to write.
    pub(crate) purse_takes: Duration,
    pub(super) purse_answers: BTreeMap<(Time, u64), (usize, Purse, u64)>,
    /// The chain says nothing of its own accord of those who want to pay: they are only remembered, with whom they want to pay.
    pub(crate) chain_is_slow: bool,
    pub(crate) watched: Vec<(u32, Address)>,
    /// What the chain tells a node that has lost its purse.
    pub(super) past: Vec<Fact>,
    /// Packets whose tickets do not open.
    spoil: Option<Cut>,
    /// So many control frames for clients find the queue of their link full.
    pub(crate) full: usize,
    /// Control frames that get lost.
    pub(super) mute: Option<Cut>,
    cheat: Option<Cut>,
    identities: BTreeMap<Place, IdentityKey>,
    places: BTreeMap<IdentityKey, Place>,
    online: BTreeSet<Place>,
    pub(super) wire: BinaryHeap<Reverse<InFlight>>,
    pub(super) sent: u64,
    due: Vec<Time>,
    number: u128,
    /// What senders use: numbers of epochs.
    sending: (u64, Option<u64>),
    next_phase: Time,
    /// What is on the disks for payment, by account.
    pub(crate) purses: BTreeMap<Purse, Kept>,
    pub(super) purse_changes: BTreeMap<Purse, Asked>,
    /// What nodes wanted claimed, with who claims.
    pub(crate) claims: Vec<(u32, WindowClaim)>,
    /// Nodes that have nothing left to claim.
    pub(crate) settled: BTreeSet<u32>,
}

impl Net {
    /// A network at time zero with everybody in it online.
    pub(crate) fn new(setup: Setup) -> Self {
        let clients: Vec<_> = (0..setup.clients).map(Place::Client).collect();
        let mut net = Self::offline(setup);
        clients.into_iter().for_each(|client| net.connect(client));
        net
    }

    /// A network at time zero. Accounts of mix nodes are online, clients are not.
    pub(crate) fn offline(setup: Setup) -> Self {
        let mut world = setup.world();
        let mut identities = BTreeMap::new();
        let nodes: Vec<_> = (0..world.nodes())
            .map(|index| {
                let (occupancy, drops) = (Occupancy::new(setup.capacity), Arc::default());
                let opener = world.opener(index, &occupancy, &drops);
                let machine = match world.view.role(NodeIndex(index)).unwrap() {
                    Role::Gateway => Machine::Gateway(Box::new(world.gateway(index, &occupancy, &drops))),
                    Role::Mix { .. } => {
                        let (accounts, relay) = world.relay(index, &occupancy, &drops);
                        for (account, identity) in accounts.into_iter().enumerate() {
                            identities.insert(Place::Account(index, account), identity);
                        }
                        Machine::Mix(Box::new(relay))
                    }
                };
                let open = [0, 1].map(|parity| (world.view.parity().index() == parity).then_some(0));
                NodeState { opener, machine, disk: Disk::default(), occupancy, drops, open }
            })
            .collect();
        let accounts: Vec<_> = identities.keys().copied().collect();
        let clients: Vec<_> = (0..setup.clients)
            .map(|i| {
                let (identity, client) = world.client(gateway_of(i));
                identities.insert(Place::Client(i), identity);
                client
            })
            .collect();
        let mut net = Self {
            now: Time::ZERO,
            due: vec![Time::MAX; nodes.len() + clients.len()],
            events: clients.iter().map(|_| vec![]).collect(),
            stores: clients.iter().map(|_| Memory::default()).collect(),
            places: identities
                .iter()
                .map(|(place, identity)| (*identity, *place))
                .chain((0..).zip(&world.identities).map(|(node, identity)| (*identity, Place::Node(node))))
                .collect(),
            world,
            nodes,
            clients,
            seen: vec![],
            passages: vec![],
            lazy: false,
            disk_takes: Duration::ZERO,
            disk_answers: BTreeMap::new(),
            watching: false,
            purse_takes: Duration::ZERO,
            purse_answers: BTreeMap::new(),
            chain_is_slow: false,
            watched: vec![],
            past: vec![],
            cut: None,
            spoil: None,
            full: 0,
            mute: None,
            cheat: None,
            identities,
            online: BTreeSet::new(),
            wire: BinaryHeap::new(),
            sent: 0,
            number: 0,
            sending: (setup.epoch, None),
            next_phase: Time::ZERO,
            purses: BTreeMap::new(),
            purse_changes: BTreeMap::new(),
            claims: vec![],
            settled: BTreeSet::new(),
        };
        net.change_phases();
        (0..net.world.nodes()).for_each(|node| net.guard(node));
        net.link_nodes();
        accounts.into_iter().for_each(|account| net.connect(account));
        (0..net.due.len()).for_each(|machine| net.settle(machine));
        net
    }

    /// Records what is on the links from now on.
    pub(crate) fn watch(&mut self) {
        self.watching = true;
    }

    /// From now on, links from one place to another lose everything if `cut` says so.
    pub(crate) fn cut(&mut self, cut: impl Fn(Place, Place) -> bool + 'static) {
        self.cut = Some(Box::new(cut));
    }

    /// From now on, links from one place to another lose their control frames if `mute` says so.
    pub(crate) fn mute(&mut self, mute: impl Fn(Place, Place) -> bool + 'static) {
        self.mute = Some(Box::new(mute));
    }

    /// From now on, who pays from one place to another keeps its batches and believes that they were received, if `cheat` says
    /// so: it goes on for as long as it is served.
    pub(crate) fn cheat(&mut self, cheat: impl Fn(Place, Place) -> bool + 'static) {
        self.cheat = Some(Box::new(cheat));
    }

    /// From now on, senders of packets that go from one place to another make them so that the ticket of whoever receives them
    /// there does not open, if `spoil` says so.
    pub(crate) fn spoil(&mut self, spoil: impl Fn(Place, Place) -> bool + 'static) {
        self.spoil = Some(Box::new(spoil));
    }

    /// The gateway of a client or an account.
    pub(crate) fn gateway_of(&self, who: Place) -> u32 {
        match who {
            Place::Client(i) | Place::Account(_, i) => gateway_of(i),
            Place::Node(_) => panic!("nodes have no gateway"),
        }
    }

    pub(crate) fn identity(&self, who: Place) -> IdentityKey {
        self.identities[&who]
    }

    /// A client's or account's link comes up, at both ends at once.
    pub(crate) fn connect(&mut self, who: Place) {
        self.link(who, true);
    }

    /// It goes down. What is on it is lost.
    pub(crate) fn disconnect(&mut self, who: Place) {
        self.link(who, false);
    }

    fn link(&mut self, who: Place, up: bool) {
        if up {
            self.online.insert(who);
        } else {
            self.online.remove(&who);
            self.wire.retain(|Reverse(flight)| flight.from != who && flight.to != who);
        }
        let (gateway, identity, now) = (self.gateway_of(who), self.identity(who), self.now);
        self.tell_gateway(
            gateway,
            match up {
                true => GatewayInput::ClientConnected(identity),
                false => GatewayInput::ClientDisconnected(identity),
            },
        );
        match who {
            Place::Client(i) => {
                self.clients[i].handle_link(now, up);
                self.settle(self.nodes.len() + i);
            }
            Place::Account(node, account) => {
                let Machine::Mix(relay) = &mut self.nodes[node as usize].machine else { return };
                relay.handle(now, RelayInput::AccountLink { account, connected: up });
                self.settle(node as usize);
            }
            Place::Node(_) => {}
        }
    }

    /// Everybody's link goes down, so that no client or account emits any more; then waits until the nodes are empty.
    pub(crate) fn silence(&mut self) {
        let online: Vec<_> = self.online.iter().copied().collect();
        online.into_iter().for_each(|who| self.disconnect(who));
        self.run_for(2 * self.world.setup.parameters.max_delay);
    }

    /// Queues a message and returns its id.
    pub(crate) fn send_message(&mut self, from: usize, to: usize, body: &[u8]) -> MessageId {
        self.send_with(from, to, body, SendOptions::default())
    }

    /// Queues a message and returns its id.
    pub(crate) fn send_with(
        &mut self,
        from: usize,
        to: usize,
        body: &[u8],
        options: SendOptions,
    ) -> MessageId {
        let id = self.fresh_id();
        let to = self.world.view.recipient(&self.clients[to].address()).unwrap();
        self.clients[from].handle_send(self.now, id, to, body.to_vec(), options).unwrap();
        self.settle(self.nodes.len() + from);
        id
    }

    /// Queues an answer and returns its id.
    pub(crate) fn reply(&mut self, from: usize, to: MessageId, body: &[u8]) -> MessageId {
        let id = self.fresh_id();
        self.clients[from].handle_reply(self.now, id, to, body.to_vec(), SendOptions::default()).unwrap();
        self.settle(self.nodes.len() + from);
        id
    }

    pub(crate) fn fresh_id(&mut self) -> MessageId {
        self.number += 1;
        MessageId(self.number.to_be_bytes())
    }

    /// A client's process ends at once and begins again, offline: only what was durable is there.
    pub(crate) fn crash(&mut self, client: usize) {
        if self.online.contains(&Place::Client(client)) {
            self.disconnect(Place::Client(client));
        }
        let stored = self.stores[client].crash();
        self.clients[client] = self.world.restarted(client, self.now, stored);
        self.settle(self.nodes.len() + client);
    }

    /// When a message arrived.
    pub(crate) fn received_at(&self, got: &Received) -> Time {
        Time::ZERO + Duration::from_nanos(got.received_ns - START * 1_000_000_000)
    }

    /// What became of the messages that a client sent.
    pub(crate) fn ended(&self, client: usize) -> Vec<(MessageId, FinalState)> {
        self.events[client]
            .iter()
            .filter_map(|event| match event {
                ClientEvent::Ended(id, state) => Some((*id, *state)),
                _ => None,
            })
            .collect()
    }

    /// The messages that a client received, in order.
    pub(crate) fn inbox(&self, client: usize) -> Vec<&Received> {
        self.events[client]
            .iter()
            .filter_map(|event| match event {
                ClientEvent::Received(received) => Some(received),
                _ => None,
            })
            .collect()
    }

    /// The fragments that a client emitted, in order.
    pub(crate) fn emitted(&self, client: usize) -> Vec<&Emitted> {
        self.events[client]
            .iter()
            .filter_map(|event| match event {
                ClientEvent::Emitted(emitted) => Some(emitted),
                _ => None,
            })
            .collect()
    }

    /// What was put on a link in one direction.
    pub(crate) fn on_link(&self, from: Place, to: Place) -> Vec<&Sighting> {
        self.seen.iter().filter(|sighting| (sighting.from, sighting.to) == (from, to)).collect()
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// Lets time pass, from one thing that happens to the next.
    pub(crate) fn run_until(&mut self, end: Time) {
        loop {
            let arrival = self.wire.peek().map_or(Time::MAX, |Reverse(flight)| flight.at);
            let timeout = self.due.iter().copied().min().unwrap_or(Time::MAX);
            let answer = self.disk_answers.keys().next().map_or(Time::MAX, |(at, _)| *at);
            let written = self.purse_answers.keys().next().map_or(Time::MAX, |(at, _)| *at);
            let next = arrival.min(timeout).min(answer).min(written).min(self.next_phase);
            if next > end {
                break;
            }
            // Nothing that a machine wants done was missed: its timeout is never in the past.
            assert!(next >= self.now, "time stands still");
            self.now = next;
            while let Some(answer) = self.disk_answers.first_entry().filter(|entry| entry.key().0 <= next) {
                let (gateway, input) = answer.remove();
                self.tell_gateway(u32::try_from(gateway).unwrap(), input);
            }
            while let Some(written) = self.purse_answers.first_entry().filter(|entry| entry.key().0 <= next) {
                let (machine, purse, count) = written.remove();
                self.written(machine, purse, count);
            }
            if self.next_phase <= self.now {
                self.change_phases();
            }
            for machine in 0..self.due.len() {
                if self.due[machine] <= self.now {
                    self.settle(machine);
                    assert!(self.due[machine] > self.now, "a timeout that was served is in the future");
                }
            }
            while self.wire.peek().is_some_and(|Reverse(flight)| flight.at <= self.now) {
                let Some(Reverse(flight)) = self.wire.pop() else { break };
                self.arrive(flight.from, flight.to, flight.frame);
            }
        }
        self.now = end;
    }

    /// Puts a frame on a link.
    pub(crate) fn send(&mut self, from: Place, to: Place, frame: Frame) {
        if self.watching {
            self.seen.push(Sighting { sent: self.now, from, to, frame: frame.clone() });
        }
        if self.cut.as_ref().is_some_and(|cut| cut(from, to)) {
            return;
        }
        let is_control = frame.kind() == Ok(FrameKind::Control);
        if is_control && self.mute.as_ref().is_some_and(|mute| mute(from, to)) {
            return;
        }
        if is_control && self.cheat.as_ref().is_some_and(|cheat| cheat(from, to)) {
            let (rest, received) = without_batches(&frame);
            self.fly(from, to, rest);
            received.into_iter().for_each(|frame| self.fly(to, from, frame));
            return;
        }
        self.fly(from, to, frame);
    }

    fn fly(&mut self, from: Place, to: Place, frame: Frame) {
        self.sent += 1;
        let at = self.now + self.world.setup.latency;
        self.wire.push(Reverse(InFlight { at, number: self.sent, from, to, frame }));
    }

    /// Hands frames to a node at once, as one batch from a neighbour.
    pub(crate) fn inject(&mut self, from: u32, to: u32, frames: Vec<Frame>) {
        let spoilt = self.spoil.as_ref().is_some_and(|spoil| spoil(Place::Node(from), Place::Node(to)));
        let from = self.world.identity(from);
        let (now, node) = (self.now, &mut self.nodes[to as usize]);
        let mut before: Vec<_> = frames.iter().map(alpha).collect();
        let mut batch: Vec<_> =
            frames.into_iter().map(|frame| Inbound { arrived: now, from, frame }).collect();
        let count = batch.len();
        let (mut opened, mut spare) = (vec![], vec![]);
        node.opener.open_batch(&mut batch, &mut opened, &mut spare);
        assert_eq!((batch.len(), opened.len() + spare.len()), (0, count), "no frame disappears");
        if !spare.is_empty() {
            // Which of a larger batch were dropped is not known here.
            before.clear();
        }
        for (at, mut opened) in opened.into_iter().enumerate() {
            if let (true, Half::Own(own)) = (spoilt, &mut opened.ticket.half) {
                // All that a hop can check is as it must be; its half is another one than the challenge was made of.
                *own = OwnSecret::of(&RelaySecrets { own: [1; 16], ack: [2; 16], chk: [3; 16] });
            }
            if let (true, Some(alpha_in)) = (self.watching, before.get(at)) {
                self.passages.push(Passage {
                    node: to,
                    arrived: now,
                    order: opened.order,
                    alpha_in: *alpha_in,
                    alpha_out: alpha(&opened.frame),
                });
            }
            match &mut node.machine {
                Machine::Mix(relay) => relay.handle(now, RelayInput::Opened(opened)),
                Machine::Gateway(gateway) => gateway.handle(now, GatewayInput::Opened(opened)),
            }
        }
        self.settle(to as usize);
    }

    /// Hands something to a gateway.
    pub(crate) fn tell_gateway(&mut self, gateway: u32, input: GatewayInput) {
        let Machine::Gateway(machine) = &mut self.nodes[gateway as usize].machine else {
            panic!("a mix node")
        };
        machine.handle(self.now, input);
        self.settle(gateway as usize);
    }

    /// A frame reaches the end of its link.
    fn arrive(&mut self, from: Place, to: Place, frame: Frame) {
        match (from, to) {
            (Place::Node(from), Place::Node(to)) if frame.kind() == Ok(FrameKind::Control) => {
                self.tell_control(from, to, frame);
            }
            (Place::Node(from), Place::Node(to)) => self.inject(from, to, vec![frame]),
            (client, Place::Node(gateway)) => {
                let input = GatewayInput::ClientFrame(self.identity(client), frame);
                self.tell_gateway(gateway, input);
            }
            (_, Place::Client(client)) => {
                self.clients[client].handle_frame(self.now, frame);
                self.settle(self.nodes.len() + client);
            }
            (_, Place::Account(node, account)) => {
                let Machine::Mix(relay) = &mut self.nodes[node as usize].machine else { return };
                relay.handle(self.now, RelayInput::AccountFrame { account, frame });
                self.settle(node as usize);
            }
        }
    }

    /// Takes everything out of a machine that is due, then lets it work ahead.
    pub(super) fn settle(&mut self, machine: usize) {
        let now = self.now;
        self.due[machine] = if let Some(client) = machine.checked_sub(self.nodes.len()) {
            let gateway = Place::Node(self.gateway_of(Place::Client(client)));
            while let Some(frame) = self.clients[client].poll_transmit(now) {
                self.send(Place::Client(client), gateway, frame);
            }
            while !self.lazy && self.clients[client].work(now) {}
            while let Some(op) = self.clients[client].poll_store() {
                self.stores[client].take(op);
            }
            self.keep_purses(machine);
            let durable = self.stores[client].commit();
            self.clients[client].handle_durable(durable);
            while let Some(event) = self.clients[client].poll_event() {
                self.events[client].push(event);
            }
            self.clients[client].poll_timeout()
        } else {
            let me = Place::Node(u32::try_from(machine).unwrap());
            while let Some((from, to, frame)) = self.poll_node(me, machine) {
                self.send(from, to, frame);
            }
            self.serve_disk(machine);
            self.keep_purses(machine);
            match &mut self.nodes[machine].machine {
                Machine::Mix(relay) => {
                    while !self.lazy && relay.work(now) {}
                    relay.poll_timeout().unwrap_or(Time::MAX)
                }
                Machine::Gateway(gateway) => gateway.poll_timeout().unwrap_or(Time::MAX),
            }
        };
    }

    /// Passes on what a gateway wants of its disk.
    fn serve_disk(&mut self, node: usize) {
        loop {
            let NodeState { machine: Machine::Gateway(gateway), disk, .. } = &mut self.nodes[node] else {
                return;
            };
            if self.disk_takes == Duration::ZERO {
                return disk.serve(self.now, gateway);
            }
            let mut answers = vec![];
            while let Some(op) = gateway.poll_store() {
                disk.submit(op);
            }
            if disk.pending() > 0 {
                answers.push(GatewayInput::Durable(disk.commit(usize::MAX)));
            }
            while let Some(fetch) = gateway.poll_fetch() {
                answers.push(GatewayInput::Fetched { mailbox: fetch.mailbox, mails: disk.read(&fetch) });
            }
            if answers.is_empty() {
                return;
            }
            for answer in answers {
                self.sent += 1;
                self.disk_answers.insert((self.now + self.disk_takes, self.sent), (node, answer));
            }
        }
    }

    /// Does what the runtime of each participant does when the wall clock reaches a change.
    fn change_phases(&mut self) {
        let clock = Duration::from_secs(START) + (self.now - Time::ZERO);
        let network = self.world.network.clone();
        let next = network.next_change(clock).filter(|_| self.world.setup.epochs > 1);
        self.next_phase = next.map_or(Time::MAX, |next| self.now + (next - clock));
        for node in 0..self.world.nodes() {
            let mut open = [None; 2];
            for (epoch, view) in self.world.views.iter().enumerate() {
                let role = self.world.seat(epoch, node).role();
                let window = network.key_window(view.epoch().number(), role).unwrap();
                if window.contains(&clock) {
                    open[view.parity().index()] = Some(epoch);
                }
            }
            self.set_open(node, open);
        }
        // When the document expires, the tests do.
        let Ok(phases) = Phases::at(&network, clock) else { return };
        let sending = (phases.current.number().0, phases.old.map(|old| old.number().0));
        let before = core::mem::replace(&mut self.sending, sending);
        if before != sending {
            let view = |number: u64| {
                let index = usize::try_from(number - self.world.setup.epoch).unwrap();
                Arc::clone(&self.world.views[index])
            };
            let views = SendViews { current: view(sending.0), old: sending.1.map(view) };
            self.set_views(&views, before.0 != sending.0);
        }
    }

    fn set_open(&mut self, node: u32, open: [Option<usize>; 2]) {
        let state = &mut self.nodes[node as usize];
        for parity in (0..2).filter(|parity| state.open[*parity] != open[*parity]) {
            match open[parity] {
                Some(epoch) => {
                    state.opener.open(self.world.seat(epoch, node), self.world.key(epoch, node, None));
                }
                None => state.opener.close(Parity::of(parity as u64)),
            }
        }
        if state.open != open
            && let Machine::Gateway(gateway) = &mut state.machine
        {
            let seats = open.into_iter().flatten().map(|epoch| self.world.seat(epoch, node));
            let views = seats.fold(OpenViews::default(), OpenViews::with);
            gateway.handle(self.now, GatewayInput::Views(Box::new(views)));
        }
        state.open = open;
    }

    fn set_views(&mut self, views: &SendViews, anew: bool) {
        for client in &mut self.clients {
            client.handle_views(self.now, views.clone());
        }
        let mut connecting = Vec::new();
        for node in 0..self.nodes.len() {
            let Machine::Mix(relay) = &mut self.nodes[node].machine else { continue };
            let index = u32::try_from(node).unwrap();
            let old = relay.loops().first_account();
            let count = relay.account_gateways().len();
            let accounts = anew.then(|| self.world.accounts(self.now, &views.current));
            let (identities, accounts) = accounts.unzip();
            let views = NewViews { views: views.clone(), accounts };
            relay.handle(self.now, RelayInput::Views(Box::new(views)));
            for (account, identity) in identities.into_iter().flatten().enumerate() {
                let place = Place::Account(index, old + count + account);
                self.identities.insert(place, identity);
                self.places.insert(identity, place);
                connecting.push((Place::Account(index, old + account), place));
            }
        }
        for (before, after) in connecting {
            if self.online.contains(&before) {
                self.disconnect(before);
                self.connect(after);
            }
        }
        (0..self.due.len()).for_each(|machine| self.settle(machine));
    }

    fn poll_node(&mut self, me: Place, node: usize) -> Option<(Place, Place, Frame)> {
        let index = u32::try_from(node).unwrap();
        match &mut self.nodes[node].machine {
            Machine::Mix(relay) => Some(match relay.poll_output(self.now)? {
                RelayOutput::Forward { to, frame } => (me, self.places[&to], frame),
                RelayOutput::Account { account, frame } => {
                    (Place::Account(index, account), Place::Node(gateway_of(account)), frame)
                }
                RelayOutput::Claim(claim) => {
                    self.claims.push((index, *claim));
                    return self.poll_node(me, node);
                }
                RelayOutput::Watch { .. } | RelayOutput::Forget { .. } => return self.poll_node(me, node),
                RelayOutput::Settled(_) => {
                    self.settled.insert(index);
                    return self.poll_node(me, node);
                }
            }),
            Machine::Gateway(gateway) => loop {
                match gateway.poll_output(self.now)? {
                    GatewayOutput::Forward { to, frame } => return Some((me, self.places[&to], frame)),
                    GatewayOutput::Claim(claim) => self.claims.push((index, *claim)),
                    GatewayOutput::Watch { account, .. } if self.chain_is_slow => {
                        self.watched.push((index, account));
                    }
                    GatewayOutput::Forget { .. } => {}
                    GatewayOutput::Watch { account, .. } => gateway.handle(self.now, guarantee(account)),
                    GatewayOutput::Settled(_) => drop(self.settled.insert(index)),
                    GatewayOutput::Deliver { to, frame }
                        if self.full > 0 && frame.kind() == Ok(FrameKind::Control) =>
                    {
                        self.full -= 1;
                        gateway.handle(self.now, GatewayInput::Undelivered(to, frame));
                    }
                    GatewayOutput::Deliver { to, frame } => match self.places.get(&to) {
                        Some(client) if self.online.contains(client) => return Some((me, *client, frame)),
                        _ => gateway.handle(self.now, GatewayInput::Undelivered(to, frame)),
                    },
                }
            },
        }
    }
}

fn alpha(frame: &Frame) -> [u8; 32] {
    *frame.packet().first_chunk().unwrap()
}
