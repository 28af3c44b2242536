//! The gateway's state machine: clients' packets go to layer 1 at once, opened mail waits in mailboxes, and goes down
//! to each client at the network's pace, mail or padding alike.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tombola_mixing::{PacedSlots, Rng, Time};
use tombola_topology::{IdentityKey, MailboxId, Parameters};

use crate::drops::{DropCounters, DropReason};
use crate::durable::AwaitDurable;
use crate::frame::{Frame, FrameKind, LinkMeta};
use crate::mailbox::{MailboxLimits, Mailboxes};
use crate::opener::{Occupancy, Opened, Order};
use crate::view::OpenViews;

/// A client may send this many times the network's rate on average.
const RATE_SLACK: f64 = 2.0;
/// A client may send at once what the network's rate gives in this time, in seconds: what a suspended machine or a link
/// that stood still has let accumulate.
const BURST_S: f64 = 10.0;
/// And at least so many frames, in a network where clients send next to nothing.
const BURST_LEAST: f64 = 64.0;

/// What a gateway takes in.
#[derive(Debug)]
pub enum GatewayInput {
    /// A packet that was opened.
    Opened(Opened),
    /// A client's link came up.
    ClientConnected(IdentityKey),
    /// A client's link went down.
    ClientDisconnected(IdentityKey),
    /// A frame from a client.
    ClientFrame(IdentityKey, Frame),
    /// The link did not take this frame for a client.
    Undelivered(IdentityKey, Frame),
    /// The epochs whose packets are taken have changed.
    Views(Box<OpenViews>),
}

/// What a gateway hands out.
#[derive(Debug)]
pub enum GatewayOutput {
    /// A packet for a node of layer 1.
    Forward {
        /// The neighbour.
        to: IdentityKey,
        /// The frame.
        frame: Frame,
    },
    /// Mail or padding for a client.
    Deliver {
        /// The client.
        to: IdentityKey,
        /// The frame.
        frame: Frame,
    },
}

/// What a gateway did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayCounts {
    /// Packets taken from clients and passed on.
    pub forwarded: u64,
    /// Packets opened.
    pub opened: u64,
    /// Packets stored in mailboxes.
    pub stored: u64,
    /// Packets handed to clients.
    pub delivered: u64,
    /// Padding frames handed to clients.
    pub padding: u64,
    /// Packets in mailboxes now.
    pub mail: usize,
    /// Mailboxes now.
    pub mailboxes: usize,
    /// Clients connected now.
    pub clients: usize,
    /// Sessions of clients for whom no mailbox was left.
    pub without_mailbox: u64,
}

/// A client that is connected.
#[derive(Debug)]
struct Session {
    mailbox: MailboxId,
    slots: PacedSlots,
    collects: bool,
    allowance: f64,
    refilled: Time,
}

/// The state machine.
pub struct Gateway {
    views: OpenViews,
    downlink_interval: Duration,
    /// Opened, and kept from their mailboxes until their tags are durable.
    undurable: AwaitDurable<Opened>,
    mailboxes: Mailboxes,
    sessions: BTreeMap<IdentityKey, Session>,
    slots: BTreeSet<(Time, IdentityKey)>,
    /// What is to leave at once, with the time since when.
    out: VecDeque<(Time, GatewayOutput)>,
    spare: Vec<Frame>,
    occupancy: Occupancy,
    rng: Rng,
    rate: f64,
    burst: f64,
    drops: Arc<DropCounters>,
    counts: GatewayCounts,
}

impl Gateway {
    /// A gateway in these epochs. `memory_packets` bounds what all mailboxes hold together.
    pub fn new(
        parameters: &Parameters,
        views: OpenViews,
        memory_packets: usize,
        occupancy: Occupancy,
        drops: Arc<DropCounters>,
        seed: [u8; 32],
    ) -> Self {
        let mailboxes = Mailboxes::new(MailboxLimits {
            mailboxes: parameters.clients_per_gateway as usize,
            packets_each: parameters.mailbox_packets as usize,
            packets_total: memory_packets,
            retention: parameters.mailbox_retention,
        });
        let per_second = |interval: Duration| 1.0 / interval.as_secs_f64();
        let rate = per_second(parameters.main_interval)
            + per_second(parameters.loop_interval)
            + per_second(parameters.drop_interval);
        Self {
            downlink_interval: parameters.downlink_interval,
            undurable: AwaitDurable::default(),
            mailboxes,
            sessions: BTreeMap::new(),
            slots: BTreeSet::new(),
            out: VecDeque::new(),
            spare: Vec::new(),
            occupancy,
            rng: Rng::from_seed(seed),
            rate: rate * RATE_SLACK,
            burst: (rate * BURST_S).max(BURST_LEAST),
            drops,
            counts: GatewayCounts::default(),
            views,
        }
    }

    /// Takes something in.
    pub fn handle(&mut self, now: Time, input: GatewayInput) {
        match input {
            GatewayInput::Opened(opened) => match opened.order {
                // Mail is there for its client once it cannot come a second time. It waits for a slot anyway.
                Order::Store(_) if !opened.tag.is_durable() => {
                    let (within, tag) = (self.downlink_interval, opened.tag.clone());
                    self.undurable.insert(now, opened.arrived, within, tag, opened);
                }
                _ => self.handle_opened(opened),
            },
            GatewayInput::Views(views) => self.views = *views,
            GatewayInput::ClientConnected(client) => self.handle_connected(now, client),
            GatewayInput::ClientDisconnected(client) => self.handle_disconnected(client),
            GatewayInput::ClientFrame(client, frame) => {
                if let Err(reason) = self.handle_client_frame(now, client, frame) {
                    self.drops.count(reason);
                }
            }
            GatewayInput::Undelivered(client, frame) => {
                if frame.kind() == Ok(FrameKind::Mail) {
                    // Mail that no longer fits waits for its client's next visit.
                    let held = frame.mail_held();
                    let stored = now - held;
                    self.counts.delivered = self.counts.delivered.saturating_sub(1);
                    self.mailboxes.put_back(MailboxId::of(&client), frame, stored);
                }
            }
        }
    }

    fn handle_opened(&mut self, opened: Opened) {
        self.counts.opened += 1;
        self.occupancy.give_back();
        match opened.order {
            // Held counts from the packet's arrival: it includes the gateway's own processing.
            Order::Store(mailbox) => match self.mailboxes.store(opened.arrived, mailbox, opened.frame) {
                Ok(()) => self.counts.stored += 1,
                Err((reason, frame)) => self.refuse(reason, frame),
            },
            Order::End { .. } => self.refuse(DropReason::Discarded, opened.frame),
            Order::Forward { .. } => self.refuse(DropReason::BadNextHop, opened.frame),
        }
    }

    fn handle_connected(&mut self, now: Time, client: IdentityKey) {
        let mailbox = MailboxId::of(&client);
        // Without a place it is served like everybody else, but nothing can be stored for it.
        self.counts.without_mailbox += u64::from(!self.mailboxes.open(now, mailbox));
        self.handle_disconnected(client);
        let slots = PacedSlots::new(now, self.downlink_interval, self.rng.fork());
        self.slots.insert((slots.poll_timeout(), client));
        let session = Session { mailbox, slots, collects: false, allowance: self.burst, refilled: now };
        self.sessions.insert(client, session);
    }

    fn handle_disconnected(&mut self, client: IdentityKey) {
        if let Some(session) = self.sessions.remove(&client) {
            self.slots.remove(&(session.slots.poll_timeout(), client));
        }
    }

    fn handle_client_frame(
        &mut self,
        now: Time,
        client: IdentityKey,
        mut frame: Frame,
    ) -> Result<(), DropReason> {
        // A frame that was read before its link went down.
        let Some(session) = self.sessions.get_mut(&client) else { return Err(DropReason::WrongDirection) };
        session.admit(now, self.rate, self.burst)?;
        match frame.kind() {
            Ok(FrameKind::Packet) => {}
            Ok(kind @ (FrameKind::Collect | FrameKind::Hold)) => {
                session.collects = kind == FrameKind::Collect;
                return Ok(());
            }
            Ok(FrameKind::Mail | FrameKind::Padding) => return Err(DropReason::WrongDirection),
            Err(_) => return Err(DropReason::BadFrame),
        }
        let meta = frame.client_meta();
        let parity = frame.parity();
        let seat = self.views.get(parity).ok_or(DropReason::NoKey)?;
        let to = seat.successor(meta.next).ok_or(DropReason::BadNextHop)?;
        frame.set_link_packet(parity, &LinkMeta { challenge: meta.challenge, ack_check: meta.ack_check });
        self.counts.forwarded += 1;
        self.out.push_back((now, GatewayOutput::Forward { to, frame }));
        Ok(())
    }

    /// The next thing that is due.
    pub fn poll_output(&mut self, now: Time) -> Option<GatewayOutput> {
        if let Some((_, output)) = self.out.pop_front() {
            return Some(output);
        }
        self.undurable.look(now);
        while let Some((_, opened)) = self.undurable.pop() {
            self.handle_opened(opened);
        }
        while let Some(&(due, client)) = self.slots.first() {
            if due > now {
                break;
            }
            self.slots.pop_first();
            let Some(session) = self.sessions.get_mut(&client) else { continue };
            let slot = session.slots.poll(now);
            self.slots.insert((session.slots.poll_timeout(), client));
            if slot.is_some() {
                let frame = self.next_for(now, client)?;
                return Some(GatewayOutput::Deliver { to: client, frame });
            }
        }
        None
    }

    /// When [`poll_output`](Self::poll_output) has something again.
    pub fn poll_timeout(&self) -> Option<Time> {
        let at_once = self.out.front().map(|(since, _)| *since);
        let later = [self.undurable.poll_timeout(), self.slots.first().map(|(due, _)| *due)];
        at_once.or_else(|| later.into_iter().flatten().min())
    }

    /// Drops mail past its retention. Called about once a second.
    pub fn expire(&mut self, now: Time) {
        for _ in 0..self.mailboxes.expire(now) {
            self.drops.count(DropReason::MailExpired);
        }
    }

    /// What it did so far.
    pub fn counts(&self) -> GatewayCounts {
        GatewayCounts {
            mail: self.mailboxes.packets(),
            mailboxes: self.mailboxes.len(),
            clients: self.sessions.len(),
            ..self.counts
        }
    }

    fn next_for(&mut self, now: Time, client: IdentityKey) -> Option<Frame> {
        let session = self.sessions.get(&client)?;
        let mut expired = 0;
        let mail = if session.collects {
            self.mailboxes.take(now, session.mailbox, &mut expired)
        } else {
            self.mailboxes.visit(now, session.mailbox);
            None
        };
        for _ in 0..expired {
            self.drops.count(DropReason::MailExpired);
        }
        Some(match mail {
            Some((mut frame, held)) => {
                self.counts.delivered += 1;
                frame.set_mail(frame.parity(), held, 1);
                frame
            }
            None => {
                self.counts.padding += 1;
                let mut frame = self.spare.pop().unwrap_or_else(Frame::zeroed);
                frame.set_padding();
                frame
            }
        })
    }

    fn refuse(&mut self, reason: DropReason, frame: Frame) {
        self.drops.count(reason);
        if self.spare.len() < 64 {
            self.spare.push(frame);
        }
    }
}

impl Session {
    /// A token bucket: the network's rate with slack, and a burst.
    fn admit(&mut self, now: Time, rate: f64, burst: f64) -> Result<(), DropReason> {
        let elapsed = (now - self.refilled).as_secs_f64();
        self.refilled = now;
        self.allowance = (self.allowance + elapsed * rate).min(burst);
        if self.allowance < 1.0 {
            return Err(DropReason::RateLimited);
        }
        self.allowance -= 1.0;
        Ok(())
    }
}

impl core::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Gateway").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
