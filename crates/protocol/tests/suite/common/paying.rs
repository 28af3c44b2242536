//! What payment needs of a network: links between nodes that come and go, journals on disk, the chain's word.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tombola_protocol::control::{ControlWriter, Record, records};
use tombola_protocol::frame::Frame;
use tombola_protocol::gateway::GatewayInput;
use tombola_protocol::opener::Occupancy;
use tombola_protocol::payment::{Fact, Payments};
use tombola_protocol::relay::RelayInput;
use tombola_tickets::{Address, Change, IssuerMessage, RecipientMessage};
use tombola_topology::NodeIndex;

use super::net::{Machine, Net, NodeState, Place};
use super::world::PLENTY;

impl Net {
    /// Links between nodes are up.
    pub(super) fn link_nodes(&mut self) {
        for node in 0..self.world.nodes() {
            for other in 0..self.world.nodes() {
                if self.world.view.epoch().is_neighbour(NodeIndex(node), NodeIndex(other)) {
                    self.link_node(node, other, true);
                }
            }
        }
    }

    /// One end of a link between nodes comes up or goes down.
    pub(crate) fn link_node(&mut self, node: u32, other: u32, up: bool) {
        let (now, peer) = (self.now, self.world.identity(other));
        match &mut self.nodes[node as usize].machine {
            Machine::Mix(relay) => relay.handle(now, RelayInput::Link { peer, up }),
            Machine::Gateway(gateway) => gateway.handle(now, GatewayInput::Link { peer, up }),
        }
        self.settle(node as usize);
    }

    pub(super) fn tell_control(&mut self, from: u32, to: u32, frame: Frame) {
        let (now, from) = (self.now, self.world.identity(from));
        match &mut self.nodes[to as usize].machine {
            Machine::Mix(relay) => relay.handle(now, RelayInput::Control(from, frame)),
            Machine::Gateway(gateway) => gateway.handle(now, GatewayInput::Control(from, frame)),
        }
        self.settle(to as usize);
    }

    /// A mix node's process ends at once and begins again, with what payment had on disk, and with its key and filter.
    pub(crate) fn crash_node(&mut self, node: u32) {
        let others: Vec<_> = (0..self.world.nodes())
            .filter(|other| self.world.view.epoch().is_neighbour(NodeIndex(node), NodeIndex(*other)))
            .collect();
        self.wire.retain(|Reverse(flight)| ![flight.from, flight.to].contains(&Place::Node(node)));
        for other in &others {
            self.link_node(*other, node, false);
        }
        self.restart_node(node, others);
    }

    /// The same, and what payment had on disk is lost. The chain knows what was claimed: `past`.
    pub(crate) fn lose_purse(&mut self, node: u32, past: Vec<Fact>) {
        self.purses.remove(&Purse::Node(node));
        self.past = past;
        self.crash_node(node);
    }

    fn restart_node(&mut self, node: u32, others: Vec<u32>) {
        let mut kept = tombola_tickets::Restore::default();
        for ((table, key), value) in self.purses.get(&Purse::Node(node)).into_iter().flatten() {
            kept.feed(tombola_tickets::Table(*table), key, value).unwrap();
        }
        // What was not on the disk is gone.
        self.purse_changes.remove(&Purse::Node(node));
        self.purse_answers.retain(|_, (_, purse, _)| *purse != Purse::Node(node));
        let (occupancy, drops) = (Occupancy::new(self.world.setup.capacity), Arc::default());
        let mut relay = self.world.restarted_relay(self.now, node, &occupancy, &drops, &kept);
        if kept.is_empty()
            && let Some(payments) = relay.payments()
        {
            payments.begin_after_loss(core::mem::take(&mut self.past));
        }
        let state = &mut self.nodes[node as usize];
        state.machine = Machine::Mix(Box::new(relay));
        (state.occupancy, state.drops) = (occupancy.clone(), Arc::clone(&drops));
        state.opener = self.world.opener(node, &occupancy, &drops);
        self.guard(node);
        for other in others {
            self.link_node(node, other, true);
            self.link_node(other, node, true);
        }
    }

    /// A node's payment says who is let in.
    pub(super) fn guard(&mut self, node: u32) {
        let NodeState { machine, opener, .. } = &mut self.nodes[node as usize];
        let payments = match machine {
            Machine::Mix(relay) => relay.payments(),
            Machine::Gateway(gateway) => gateway.payments(),
        };
        if let Some(payments) = payments {
            opener.guard(payments.gate());
        }
    }

    /// A node shall leave the network.
    pub(crate) fn wind_up(&mut self, node: u32) {
        let now = self.now;
        match &mut self.nodes[node as usize].machine {
            Machine::Mix(relay) => relay.handle(now, RelayInput::WindUp),
            Machine::Gateway(gateway) => gateway.handle(now, GatewayInput::WindUp),
        }
        self.settle(node as usize);
    }

    /// What the chain says to a node.
    pub(crate) fn tell_fact(&mut self, node: u32, fact: Fact) {
        let now = self.now;
        self.payments_of(node).handle_fact(now, fact);
        self.settle(node as usize);
    }

    /// What a node pays and earns.
    pub(crate) fn payments_of(&mut self, node: u32) -> &mut Payments {
        match &mut self.nodes[node as usize].machine {
            Machine::Mix(relay) => relay.payments(),
            Machine::Gateway(gateway) => gateway.payments(),
        }
        .expect("the network is paid")
    }

    /// A disk has written so much for payment.
    pub(super) fn written(&mut self, machine: usize, purse: Purse, count: u64) {
        let disk = self.purses.entry(purse).or_default();
        self.purse_changes.entry(purse).or_default().write_down(count, disk);
        match purse {
            Purse::Node(node) => self.payments_of(node).set_durable(count),
            Purse::Client(client) => {
                self.clients[client].payments().into_iter().for_each(|own| own.set_durable(count));
            }
        }
        self.settle(machine);
    }

    /// Writes down what a machine's payment asks for; it is durable at once.
    pub(super) fn keep_purses(&mut self, machine: usize) {
        let mut all: Vec<(Purse, &mut Payments)> = vec![];
        if let Some(client) = machine.checked_sub(self.nodes.len()) {
            all.extend(self.clients[client].payments().map(|payments| (Purse::Client(client), payments)));
        } else {
            let node = u32::try_from(machine).unwrap();
            match &mut self.nodes[machine].machine {
                Machine::Gateway(gateway) => {
                    all.extend(gateway.payments().map(|payments| (Purse::Node(node), payments)));
                }
                Machine::Mix(relay) => {
                    all.extend(relay.payments().map(|payments| (Purse::Node(node), payments)));
                }
            }
        }
        for (purse, payments) in all {
            let asked = self.purse_changes.entry(purse).or_default();
            let before = asked.count;
            while let Some(change) = payments.poll_change() {
                asked.count += 1;
                asked.pending.push_back(change);
            }
            if self.purse_takes == Duration::ZERO {
                asked.write_down(asked.count, self.purses.entry(purse).or_default());
                payments.set_durable(asked.count);
            } else if asked.count > before {
                self.sent += 1;
                let at = (self.now + self.purse_takes, self.sent);
                self.purse_answers.insert(at, (machine, purse, asked.count));
            }
        }
        let Some(Machine::Mix(relay)) = self.nodes.get_mut(machine).map(|node| &mut node.machine) else {
            return;
        };
        for payments in relay.account_payments().flatten() {
            while payments.poll_change().is_some() {}
            payments.set_durable(u64::MAX);
        }
    }
}

/// What the chain of these tests says of whoever wants to pay: it has a large reserve.
pub(crate) fn guarantee(account: Address) -> GatewayInput {
    GatewayInput::Fact(Fact::Guarantee { issuer: account, amount: PLENTY })
}

/// What a journal has written down, by table and key.
pub(crate) type Kept = BTreeMap<(u8, Box<[u8]>), Box<[u8]>>;

/// What a journal has asked for.
#[derive(Default)]
pub(crate) struct Asked {
    count: u64,
    /// Not on the disk yet.
    pending: VecDeque<Change>,
}

impl Asked {
    /// The first `durable` changes are on the disk.
    fn write_down(&mut self, durable: u64, disk: &mut Kept) {
        while self.count - (self.pending.len() as u64) < durable
            && let Some(change) = self.pending.pop_front()
        {
            match change {
                Change::Put { table, key, value } => drop(disk.insert((table.0, key), value)),
                Change::Delete { table, key } => drop(disk.remove(&(table.0, key))),
            }
        }
    }
}

/// Whose journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purse {
    Node(u32),
    Client(usize),
}

/// A control frame without its batches, and what their recipient would have answered.
pub(super) fn without_batches(frame: &Frame) -> (Frame, Option<Frame>) {
    let mut rest = ControlWriter::new(Frame::zeroed());
    let mut answer = ControlWriter::new(Frame::zeroed());
    let mut any = false;
    for record in records(frame) {
        match record.unwrap() {
            Record::Issuer(parity, IssuerMessage::Batch(batch)) => {
                let next = u16::from(batch.header.number) + 1;
                let received = RecipientMessage::Received { window: batch.header.window, next };
                answer.push(&Record::Recipient(parity, received));
                any = true;
            }
            record => rest.push(&record),
        }
    }
    (rest.finish(), any.then(|| answer.finish()))
}
