//! Does a mix node that is killed accept a packet twice?
//!
//! One real mix node of layer 1; the test plays the gateway before it and the mix node behind it, so that it decides what
//! comes and sees what leaves. The node is killed at some instant while packets flow; then everything that was ever sent to
//! it comes again. A packet that had left before must not leave again. One that had not, because it died with the process,
//! may: once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use tokio::runtime::Runtime;
use tombola_link::{ChannelSink, LinkConfig, LinkEvent, Links, NODE_PROTOCOL, Peer, Policy};
use tombola_mixing::Rng;
use tombola_protocol::frame::{Frame, FrameKind, LinkMeta, Parity};
use tombola_protocol::hop::NextHop;
use tombola_sphinx::{Destination, HopField, PublicKey, RouteSecrets, build};
use tombola_tickets::por::RouteTickets;
use tombola_topology::NodeIndex;

use crate::eventually;
use crate::hand::{HandNetwork, Spec};

/// The node under test.
const NODE: &str = "mix 1.1";
/// The node behind it, which the test plays.
const NEXT: &str = "mix 2.1";
/// Mean of the delays in the node.
const DELAY: Duration = Duration::from_millis(10);
/// Begins the challenges by which the test knows its packets again behind the node: the node has cover of its own.
const MARK: [u8; 16] = *b"tombola replays!";

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replays {
    /// Packets that were made.
    pub packets: u64,
    /// Frames that were sent again after a restart.
    pub repeated: u64,
    /// Of those, how many the node counted as replays.
    pub refused: u64,
    /// Of those, how many had not left before, and left now.
    pub late: u64,
    /// How often the node was killed.
    pub kills: u64,
}

/// A mix node between two ends that the test plays.
pub struct Bench {
    network: HandNetwork,
    rng: Rng,
    before: Links,
    behind: Links,
    events: Receiver<LinkEvent>,
    runtime: Runtime,
    /// Everything that was sent, and how often it has left the node.
    frames: Vec<Frame>,
    left: BTreeMap<u32, u32>,
    totals: Replays,
}

impl Bench {
    /// Starts the node and plays its neighbours. `seed` decides delays and instants.
    pub fn start(seed: u64) -> Self {
        tombola_client::install_crypto_provider();
        // A process that is killed is noticed at once over TCP, and after ten seconds of silence over QUIC.
        let mut network = HandNetwork::new(&Spec { tcp_only: true, ..Spec::new(3, 1, 1) }, |_, _| {});
        network.node_mut(NODE).start();
        network.node_mut(NODE).wait_listening();
        let (node, next, gateway) = (network.node(NODE), network.node(NEXT), network.node("gateway 1"));
        let runtime = Runtime::new().unwrap();
        let (before, behind, events) = runtime.block_on(async {
            let config = LinkConfig::new(gateway.link_secret(), Policy::DialOnly, NODE_PROTOCOL);
            let peer = Peer::dialled(node.identity, node.listen.clone());
            let (sink, _) = ChannelSink::new(1);
            let before = tombola_link::start(config, vec![peer], Arc::new(sink)).await.unwrap();
            let mut config = LinkConfig::new(next.link_secret(), Policy::Neighbours, NODE_PROTOCOL);
            config.listen = next.listen.clone();
            let (sink, events) = ChannelSink::new(4096);
            let peer = Peer::awaited(node.identity);
            (before, tombola_link::start(config, vec![peer], Arc::new(sink)).await.unwrap(), events)
        });
        let mut seeds = [0; 32];
        seeds[..8].copy_from_slice(&seed.to_be_bytes());
        let bench = Self {
            network,
            rng: Rng::from_seed(seeds),
            before,
            behind,
            events,
            runtime,
            frames: Vec::new(),
            left: BTreeMap::new(),
            totals: Replays::default(),
        };
        bench.wait_linked();
        bench
    }

    /// Sends new packets, kills the node at some instant meanwhile or shortly after, starts it again, sends everything
    /// that was ever sent, and checks what became of it.
    ///
    /// # Panics
    /// A packet has left twice, or one that had left before was not counted as a replay.
    pub fn round(&mut self, packets: u32) {
        let spacing = Duration::from_millis(1);
        let kill_after = self.rng.below(u64::from(packets) * 5 / 4) as u32;
        for n in 0..packets.max(kill_after) {
            if n == kill_after {
                break;
            }
            if n < packets {
                self.send_new();
            }
            std::thread::sleep(spacing);
        }
        self.network.node_mut(NODE).kill();
        self.totals.kills += 1;
        // At both ends: what is sent into a link that is dead is lost.
        eventually("the end of the node is noticed", || {
            (self.before.stats().links == 0 && self.behind.stats().links == 0).then_some(())
        });
        // Whatever it had sent is here now: the link is read to its end before that is reported.
        self.take_arrivals();
        let had_left = self.left.len() as u64;

        self.network.node_mut(NODE).start();
        self.network.node_mut(NODE).wait_listening();
        self.wait_linked();
        for frame in self.frames.clone() {
            self.send(frame);
        }
        let all = self.frames.len() as u64;
        let mut refused = 0;
        eventually("everything that came again is accounted for", || {
            self.take_arrivals();
            let metrics = self.network.node(NODE).metrics();
            refused = metrics.with("tombola_packets_dropped_total", "reason", "replay") as u64;
            let late = self.left.len() as u64 - had_left;
            assert!(refused + late <= all, "{refused} replays and {late} new packets of {all}");
            (refused + late == all).then_some(())
        });
        assert!(refused >= had_left, "{had_left} packets had left, and only {refused} of all were refused");
        self.totals.repeated += all;
        self.totals.refused += refused;
        self.totals.late += self.left.len() as u64 - had_left;
    }

    /// Ends everything in order; what came of it.
    pub fn finish(mut self) -> Replays {
        self.network.stop();
        self.runtime.block_on(async {
            self.before.shutdown().await;
            self.behind.shutdown().await;
        });
        self.totals
    }

    fn wait_linked(&self) {
        eventually("both neighbours are linked", || {
            (self.before.stats().links == 1 && self.behind.stats().links == 1).then_some(())
        });
    }

    /// A packet that nobody has seen before, through the node to the one behind it.
    fn send_new(&mut self) {
        let number = self.frames.len() as u32;
        let epoch = &self.network.draft.epochs[0];
        let keys = [NODE, NEXT].map(|name| {
            let place = self.network.nodes.iter().position(|node| node.name == name).unwrap();
            PublicKey::from_bytes(epoch.nodes[place].sphinx_key.as_bytes()).unwrap()
        });
        let next = self.network.nodes.iter().position(|node| node.name == NEXT).unwrap();
        let mut challenge = [0; 20];
        challenge[..16].copy_from_slice(&MARK);
        challenge[16..].copy_from_slice(&number.to_be_bytes());
        let secrets = RouteSecrets::derive(self.rng.seed(), &keys).unwrap();
        let tickets = RouteTickets::of(&secrets, 2);
        // The node looks at its own challenge only.
        let check = *tickets.check(0).as_bytes();
        let hop = NextHop::Node { index: NodeIndex(next as u32), check, challenge };
        let delay_ns = self.rng.exponential(DELAY).as_nanos() as u64;
        let field = HopField { next: hop.to_bytes(), delay_ns };
        let destination = Destination { address: self.rng.seed(), identifier: [1; 16] };
        let mut frame = Frame::zeroed();
        build(&secrets, &[field], &destination, self.rng.seed(), b"again?", frame.packet_mut()).unwrap();
        let meta = LinkMeta {
            challenge: *tickets.challenge(0).as_bytes(),
            ack_check: *tickets.first_ack().as_bytes(),
        };
        frame.set_link_packet(Parity::of(epoch.number.0), &meta);
        self.frames.push(frame.clone());
        self.totals.packets += 1;
        self.send(frame);
    }

    fn send(&self, mut frame: Frame) {
        let to = self.network.node(NODE).identity;
        loop {
            match self.before.send(&to, frame) {
                Ok(()) => return,
                Err(refused) => frame = refused.into_frame(),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn take_arrivals(&mut self) {
        for event in self.events.try_iter() {
            let LinkEvent::Frames(_, frames) = event else { continue };
            for frame in frames {
                let challenge = frame.link_meta().challenge;
                if frame.kind() == Ok(FrameKind::Packet) && challenge[..16] == MARK {
                    let number = u32::from_be_bytes(challenge[16..].try_into().unwrap());
                    let times = self.left.entry(number).or_default();
                    *times += 1;
                    assert_eq!(*times, 1, "packet {number} has left the node twice");
                }
            }
        }
    }
}
