//! The mix node's state machine: what was opened waits in the delay pool and leaves when it is due; loops
//! measure delivery.

use core::time::Duration;
use std::sync::Arc;

use tombola_mixing::{DelayPool, Rng, Time};
use tombola_topology::{IdentityKey, NodeIndex, Role};

use crate::client::{Client, ClientCounts};
use crate::drops::{DropCounters, DropReason};
use crate::frame::{Frame, LinkMeta};
use crate::halfloops::{Half, HalfLoops};
use crate::opener::{Occupancy, Opened, Order};
use crate::view::EpochView;

/// What a mix node takes in.
#[derive(Debug)]
pub enum RelayInput {
    /// A packet that was opened.
    Opened(Opened),
    /// One of its own accounts gained or lost the link to its gateway.
    AccountLink {
        /// Which account.
        account: usize,
        /// Up or down.
        connected: bool,
    },
    /// One of its own accounts got a frame from its gateway.
    AccountFrame {
        /// Which account.
        account: usize,
        /// The frame.
        frame: Frame,
    },
}

/// What a mix node hands out.
#[derive(Debug)]
pub enum RelayOutput {
    /// A packet for a node of the next layer, or a gateway.
    Forward {
        /// The neighbour.
        to: NodeIndex,
        /// The frame.
        frame: Frame,
    },
    /// A frame for an account's gateway.
    Account {
        /// Which account.
        account: usize,
        /// The frame.
        frame: Frame,
    },
}

/// A packet in the pool.
#[derive(Debug)]
struct Held {
    to: NodeIndex,
    frame: Frame,
}

/// What a mix node did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounts {
    /// Packets opened.
    pub opened: u64,
    /// Packets passed on, own loops included.
    pub forwarded: u64,
    /// Packets in the pool.
    pub pool: usize,
}

/// The state machine.
pub struct Relay {
    view: Arc<EpochView>,
    pool: DelayPool<Held>,
    occupancy: Occupancy,
    loops: HalfLoops,
    drops: Arc<DropCounters>,
    counts: RelayCounts,
}

impl Relay {
    /// A mix node `me` of `view`, with `accounts` at gateways for its loops (none: it sends no loops). `None` when
    /// `me` is no mix node of the view.
    pub fn new(
        now: Time,
        view: Arc<EpochView>,
        me: NodeIndex,
        accounts: Vec<Client>,
        occupancy: Occupancy,
        drops: Arc<DropCounters>,
        seed: [u8; 32],
    ) -> Option<Self> {
        let Some(Role::Mix { layer }) = view.role(me) else { return None };
        let mut rng = Rng::from_seed(seed);
        Some(Self {
            pool: DelayPool::new(occupancy.capacity(), view.parameters().max_delay, rng.fork()),
            loops: HalfLoops::new(now, &view, me, layer, accounts, rng.fork()),
            counts: RelayCounts::default(),
            view,
            occupancy,
            drops,
        })
    }

    /// Takes something in.
    pub fn handle(&mut self, now: Time, input: RelayInput) {
        match input {
            RelayInput::Opened(opened) => self.handle_opened(now, opened),
            RelayInput::AccountLink { account, connected } => self.loops.handle_link(account, connected),
            RelayInput::AccountFrame { account, frame } => self.loops.handle_frame(now, account, frame),
        }
    }

    fn handle_opened(&mut self, now: Time, opened: Opened) {
        self.counts.opened += 1;
        match opened.order {
            Order::Forward { next, delay_ns, challenge } => {
                let mut frame = opened.frame;
                // As the sender meant it. An empty field would tell the next hop which packets are this node's own.
                frame.set_link_packet(self.view.parity(), &LinkMeta { challenge, ack_check: [0; 8] });
                let delay = Duration::from_nanos(delay_ns);
                if self.pool.insert(opened.arrived, delay, Held { to: next, frame }).is_err() {
                    // The pool has as many places as the node: only reached if they were counted wrongly.
                    self.drops.count(DropReason::Overload);
                    self.occupancy.give_back();
                }
            }
            Order::End { identifier } => {
                self.occupancy.give_back();
                if !self.loops.returned(now, identifier) {
                    self.drops.count(DropReason::Discarded);
                }
            }
            Order::Store(_) => {
                self.occupancy.give_back();
                self.drops.count(DropReason::BadNextHop);
            }
        }
    }

    /// The next thing that is due.
    pub fn poll_output(&mut self, now: Time) -> Option<RelayOutput> {
        if let Some((_, Held { to, frame })) = self.pool.poll_release(now) {
            self.occupancy.give_back();
            self.counts.forwarded += 1;
            return Some(RelayOutput::Forward { to, frame });
        }
        let output = self.loops.poll_output(now)?;
        self.counts.forwarded += u64::from(matches!(output, RelayOutput::Forward { .. }));
        Some(output)
    }

    /// When [`poll_output`](Self::poll_output) has something again.
    pub fn poll_timeout(&self) -> Option<Time> {
        [self.pool.poll_timeout(), self.loops.poll_timeout()].into_iter().flatten().min()
    }

    /// One bounded unit of preparatory work.
    pub fn work(&mut self, now: Time) -> bool {
        self.loops.work(now)
    }

    /// Counts loops that are overdue. [`work`](Self::work) does it too, but may not be called under load.
    pub fn expire(&mut self, now: Time) {
        self.loops.expire(now);
    }

    /// What it did so far.
    pub fn counts(&self) -> RelayCounts {
        RelayCounts { pool: self.pool.len(), ..self.counts }
    }

    /// Delivery ratio of a half of its loops over all gateways; `None` until one was due.
    pub fn delivery_ratio(&self, half: Half) -> Option<f64> {
        self.loops.delivery_ratio(half)
    }

    /// Its half-loops, by gateway.
    pub fn loops(&self) -> &HalfLoops {
        &self.loops
    }

    /// What its accounts sent and received, summed.
    pub fn account_counts(&self) -> ClientCounts {
        self.loops.account_counts()
    }

    /// The gateways of its accounts.
    pub fn account_gateways(&self) -> Vec<IdentityKey> {
        self.loops.gateways()
    }

    /// The epoch that it works in.
    pub fn view(&self) -> &Arc<EpochView> {
        &self.view
    }
}

impl core::fmt::Debug for Relay {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Relay").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
