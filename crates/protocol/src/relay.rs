//! The mix node's state machine: what was opened waits in the delay pool and leaves when it is due; loops
//! measure delivery.

use core::time::Duration;
use std::sync::Arc;

use tombola_mixing::{DelayPool, Rng, Time};
use tombola_tickets::{Account, Address, WindowClaim};
use tombola_topology::IdentityKey;

use crate::client::{Client, ClientCounts};
use crate::drops::{DropCounters, DropReason};
use crate::durable::{AwaitDurable, TagPlace};
use crate::frame::{Frame, LinkMeta};
use crate::halfloops::{Half, HalfLoops};
use crate::opener::{Occupancy, Opened, Order};
use crate::payment::{Fact, Owed, PaymentOutput, Payments};
use crate::view::{EpochView, OpenViews, SendViews};

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
    /// The epochs that senders use have changed.
    Views(Box<NewViews>),
    /// The epochs whose packets are taken have changed, and what is paid in them.
    Open(Box<OpenViews>),
    /// The link to a neighbour came up or went down.
    Link {
        /// Who.
        peer: IdentityKey,
        /// Up or down.
        up: bool,
    },
    /// A neighbour sent a control frame.
    Control(IdentityKey, Frame),
    /// What the chain says.
    Fact(Fact),
    /// What the chain says of one of its accounts.
    AccountFact {
        /// Which account.
        account: usize,
        /// What it says.
        fact: Fact,
    },
    /// The first so many changes that payment asked for are durable.
    Durable(u64),
    /// It shall leave the network: no loops any more, and what it has won is claimed.
    WindUp,
}

/// What changes for a mix node with the epochs that senders use.
#[derive(Debug)]
pub struct NewViews {
    /// The epochs from now on.
    pub views: SendViews,
    /// The accounts of a new epoch, in the place of all that were: their numbers go on where those of the old ones ended.
    /// `None`: the accounts stay.
    pub accounts: Option<Vec<Client>>,
}

/// What a mix node hands out.
#[derive(Debug)]
pub enum RelayOutput {
    /// A packet for a node of the next layer, or a gateway.
    Forward {
        /// The neighbour.
        to: IdentityKey,
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
    /// Winners to be claimed.
    Claim(Box<WindowClaim>),
    /// What the chain says of this account, and of this key of it, is wanted.
    Watch {
        /// The account.
        account: Address,
        /// The key.
        signer: Address,
    },
    /// And is not any more.
    Forget {
        /// The account.
        account: Address,
        /// The key.
        signer: Address,
    },
    /// Nothing is left to be claimed or paid after [`RelayInput::WindUp`].
    Settled(Box<Account>),
}

/// A packet in the pool.
#[derive(Debug)]
struct Held {
    to: IdentityKey,
    tag: TagPlace,
    frame: Frame,
    owed: Owed,
}

/// What a mix node did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounts {
    /// Packets opened.
    pub opened: u64,
    /// Packets passed on, own loops included.
    pub forwarded: u64,
    /// Packets in the pool, those included whose delay is over and whose tag is not durable.
    pub pool: usize,
    /// Packets among those whose delay was over before their tag was durable, so far.
    pub late_tags: u64,
}

/// The state machine.
pub struct Relay {
    /// Boxed, so that what is moved when the pool is put in order is a pointer.
    pool: DelayPool<Box<Held>>,
    undurable: AwaitDurable<Box<Held>>,
    occupancy: Occupancy,
    loops: HalfLoops,
    drops: Arc<DropCounters>,
    counts: RelayCounts,
    payments: Option<Payments>,
}

impl Relay {
    /// The mix node with this identity, with `accounts` at gateways for its loops (none: it sends no loops). In epochs that
    /// do not list it as a mix node it sends no loops either.
    pub fn new(
        now: Time,
        views: impl Into<SendViews>,
        identity: IdentityKey,
        accounts: Vec<Client>,
        occupancy: Occupancy,
        drops: Arc<DropCounters>,
        seed: [u8; 32],
    ) -> Self {
        let views = views.into();
        let mut rng = Rng::from_seed(seed);
        let max_delay = views.current.parameters().max_delay;
        Self {
            pool: DelayPool::new(occupancy.capacity(), max_delay, rng.fork()),
            undurable: AwaitDurable::default(),
            loops: HalfLoops::new(now, views, identity, accounts, rng.fork()),
            counts: RelayCounts::default(),
            occupancy,
            drops,
            payments: None,
        }
    }

    /// From now on packets are paid for; `views` are the epochs whose packets are taken.
    #[must_use]
    pub fn with_payments(mut self, now: Time, mut payments: Payments, views: &OpenViews) -> Self {
        payments.handle_views(now, views);
        self.payments = Some(payments);
        self
    }

    /// What its accounts pay at their gateways, by account; `None` in a network without payment.
    pub fn account_payments(&mut self) -> impl Iterator<Item = Option<&mut Payments>> {
        self.loops.payments()
    }

    /// What it pays and earns; `None` in a network without payment.
    pub fn payments(&mut self) -> Option<&mut Payments> {
        self.payments.as_mut()
    }

    /// Takes something in.
    pub fn handle(&mut self, now: Time, input: RelayInput) {
        match input {
            RelayInput::Opened(opened) => self.handle_opened(now, opened),
            RelayInput::AccountLink { account, connected } => self.loops.handle_link(now, account, connected),
            RelayInput::AccountFrame { account, frame } => self.loops.handle_frame(now, account, frame),
            RelayInput::AccountFact { account, fact } => self.loops.handle_fact(now, account, fact),
            RelayInput::Views(new) => self.loops.handle_views(now, new.views, new.accounts),
            RelayInput::WindUp => {
                self.loops.fall_silent();
                if let Some(payments) = &mut self.payments {
                    payments.wind_up(now);
                }
            }
            input => {
                if let Some(payments) = &mut self.payments {
                    handle_payment(payments, now, input);
                }
            }
        }
    }

    fn handle_opened(&mut self, now: Time, opened: Opened) {
        self.counts.opened += 1;
        let next = match &opened.order {
            Order::Forward { next, .. } => Some(*next),
            Order::Store(_) | Order::End { .. } => None,
        };
        let mut owed = Owed::default();
        if let Some(payments) = &mut self.payments {
            let (parity, number) = (opened.frame.parity(), opened.frame.number());
            match payments.accept(now, &opened.from, parity, number, opened.ticket, next.as_ref()) {
                Ok(accepted) => owed = accepted,
                Err(_) => {
                    self.drops.count(DropReason::Unpaid);
                    return self.occupancy.give_back();
                }
            }
        }
        match opened.order {
            Order::Forward { next, delay_ns, challenge } => {
                let mut frame = opened.frame;
                // As the sender meant it. An empty field would tell the next hop which packets are this node's own. The
                // parity stays: the next hop is of the same epoch.
                frame.set_link_packet(frame.parity(), &LinkMeta { challenge, ack_check: [0; 8] });
                let delay = Duration::from_nanos(delay_ns);
                opened.tag.need(opened.arrived + delay - now);
                let held = Box::new(Held { to: next, tag: opened.tag, frame, owed });
                if self.pool.insert(opened.arrived, delay, held).is_err() {
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
        loop {
            if let Some(output) = self.payments.as_mut().and_then(|payments| payments.poll_output(now)) {
                return Some(match output {
                    PaymentOutput::Send { to, frame } => RelayOutput::Forward { to, frame },
                    PaymentOutput::Claim(claim) => RelayOutput::Claim(Box::new(claim)),
                    PaymentOutput::Watch { account, signer } => RelayOutput::Watch { account, signer },
                    PaymentOutput::Forget { account, signer } => RelayOutput::Forget { account, signer },
                    PaymentOutput::Settled(sum) => RelayOutput::Settled(sum),
                });
            }
            let (to, frame, owed) = match self.release(now) {
                Some(held) => {
                    self.occupancy.give_back();
                    (held.to, held.frame, held.owed)
                }
                None => match self.loops.poll_output(now)? {
                    RelayOutput::Forward { to, frame } => (to, frame, Owed::default()),
                    other => return Some(other),
                },
            };
            self.counts.forwarded += 1;
            match &mut self.payments {
                Some(payments) => payments.forward(now, to, frame, owed),
                None => return Some(RelayOutput::Forward { to, frame }),
            }
        }
    }

    /// When [`poll_output`](Self::poll_output) has something again.
    pub fn poll_timeout(&self) -> Option<Time> {
        let payments = self.payments.as_ref().map(Payments::poll_timeout);
        let timeouts =
            [self.pool.poll_timeout(), self.undurable.poll_timeout(), self.loops.poll_timeout(), payments];
        timeouts.into_iter().flatten().min()
    }

    /// The next packet whose delay is over and whose tag is durable. One that has to wait for the disk holds up no other.
    fn release(&mut self, now: Time) -> Option<Box<Held>> {
        self.undurable.look(now);
        loop {
            let due = self.pool.poll_timeout().filter(|due| *due <= now);
            let ready = self.undurable.first_ready();
            if ready.is_some_and(|ready| due.is_none_or(|due| ready <= due)) {
                return self.undurable.pop().map(|(_, held)| held);
            }
            let (deadline, held) = self.pool.poll_release(now)?;
            if held.tag.is_durable() {
                return Some(held);
            }
            self.counts.late_tags += 1;
            let tag = held.tag.clone();
            self.undurable.insert(now, deadline, Duration::ZERO, tag, held);
        }
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
        RelayCounts { pool: self.pool.len() + self.undurable.len(), ..self.counts }
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

    /// The epoch that nearly all of its own packets use.
    pub fn view(&self) -> &Arc<EpochView> {
        self.loops.view()
    }
}

/// What of a node's inputs is about payment; the others have been handled.
fn handle_payment(payments: &mut Payments, now: Time, input: RelayInput) {
    match input {
        RelayInput::Open(views) => payments.handle_views(now, &views),
        RelayInput::Link { peer, up } => payments.handle_link(now, peer, up),
        // What is wrong in it is counted there.
        RelayInput::Control(from, frame) => drop(payments.handle_control(now, &from, frame)),
        RelayInput::Fact(fact) => payments.handle_fact(now, fact),
        RelayInput::Durable(count) => payments.set_durable(count),
        _ => {}
    }
}

impl core::fmt::Debug for Relay {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Relay").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
