//! The gateway's state machine: clients' packets go to layer 1 at once, opened mail waits in mailboxes, and goes down
//! to each client at the network's pace, mail or padding alike.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tombola_mixing::{PacedSlots, Rng, Time};
use tombola_tickets::por::{AckCheck, Challenge};
use tombola_tickets::{Account, Address, WindowClaim};
use tombola_topology::{IdentityKey, MailboxId, Parameters};

use crate::drops::{DropCounters, DropReason};
use crate::durable::AwaitDurable;
use crate::frame::{Frame, FrameKind, LinkMeta};
use crate::mailbox::{Acknowledged, Fetch, MailSums, MailboxLimits, Mailboxes, Stored, StoredMail};
use crate::opener::{Occupancy, Opened, Order};
use crate::payment::{Fact, Owed, PaymentOutput, Payments};
use crate::store::StoreOp;
use crate::unix::WallClock;
use crate::view::OpenViews;

/// A client may send this many times the network's rate on average.
const RATE_SLACK: f64 = 2.0;
/// A client may send at once what the network's rate gives in this time, in seconds: what a suspended machine or a link
/// that stood still has let accumulate.
const BURST_S: f64 = 10.0;
/// One slot of a client's downlink in so many carries what there is to say about payment, in a network in which packets are
/// paid for. With the defaults that is room for more than twice the acknowledgements that a client can need.
const CONTROL_SLOT: u32 = 16;
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
    /// The link did not take this frame for a client. To be said at once, before anything else is handed out.
    Undelivered(IdentityKey, Frame),
    /// The epochs whose packets are taken have changed.
    Views(Box<OpenViews>),
    /// The first so many changes that [`Gateway::poll_store`] handed out are durable.
    Durable(u64),
    /// The disk fails, or no longer.
    StorageTrouble(bool),
    /// What a [`Fetch`] found; nothing, if the disk did not give it.
    Fetched {
        /// Whose mail it is.
        mailbox: MailboxId,
        /// By number.
        mails: Vec<StoredMail>,
    },
    /// The link to a mix node came up or went down.
    Link {
        /// Who.
        peer: IdentityKey,
        /// Up or down.
        up: bool,
    },
    /// A mix node sent a control frame.
    Control(IdentityKey, Frame),
    /// What the chain says.
    Fact(Fact),
    /// The first so many changes that payment asked for are durable.
    PaymentDurable(u64),
    /// It shall leave the network: what it has won is claimed.
    WindUp,
}

/// What a gateway's operator decides, and what its disk holds.
#[derive(Debug)]
pub struct GatewayMail {
    /// Packets that all mailboxes may hold together.
    pub packets: usize,
    /// Relates the machine's time to that of what is stored.
    pub clock: WallClock,
    /// What is stored.
    pub stored: Stored,
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
    /// Nothing is left to be claimed or paid after [`GatewayInput::WindUp`].
    Settled(Box<Account>),
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
    /// Packets deleted because their client has acknowledged them.
    pub acknowledged: u64,
    /// Acknowledgements of mail that was not sent.
    pub wrong_acknowledgements: u64,
    /// Mailboxes now, and what is in them.
    pub mail: MailSums,
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
    /// Slots since the last that carried what there is to say about payment.
    since_control: u32,
    /// A control frame that the link did not take. What is in it is said once: it goes into the next control slot.
    unsaid: Option<Frame>,
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
    clock: WallClock,
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
    payments: Option<Payments>,
}

impl Gateway {
    /// A gateway in these epochs.
    pub fn new(
        now: Time,
        parameters: &Parameters,
        views: OpenViews,
        mail: GatewayMail,
        occupancy: Occupancy,
        drops: Arc<DropCounters>,
        seed: [u8; 32],
    ) -> Self {
        let limits = MailboxLimits {
            mailboxes: parameters.clients_per_gateway as usize,
            packets_each: parameters.mailbox_packets as usize,
            packets_total: mail.packets,
            retention: parameters.mailbox_retention,
        };
        let mailboxes = Mailboxes::new(mail.clock.at(now), limits, mail.stored);
        let per_second = |interval: Duration| 1.0 / interval.as_secs_f64();
        let rate = per_second(parameters.main_interval)
            + per_second(parameters.loop_interval)
            + per_second(parameters.drop_interval);
        Self {
            downlink_interval: parameters.downlink_interval,
            undurable: AwaitDurable::default(),
            mailboxes,
            clock: mail.clock,
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
            payments: None,
        }
    }

    /// From now on packets are paid for.
    #[must_use]
    pub fn with_payments(mut self, now: Time, mut payments: Payments) -> Self {
        payments.handle_views(now, &self.views);
        self.payments = Some(payments);
        self
    }

    /// What it pays and earns; `None` in a network without payment.
    pub fn payments(&mut self) -> Option<&mut Payments> {
        self.payments.as_mut()
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
                _ => self.handle_opened(now, opened),
            },
            GatewayInput::Views(views) => {
                self.views = *views;
                if let Some(payments) = &mut self.payments {
                    payments.handle_views(now, &self.views);
                }
            }
            GatewayInput::ClientConnected(client) => self.handle_connected(now, client),
            GatewayInput::ClientDisconnected(client) => self.handle_disconnected(now, client),
            GatewayInput::ClientFrame(client, frame) => {
                if let Err(reason) = self.handle_client_frame(now, client, frame) {
                    self.drops.count(reason);
                }
            }
            GatewayInput::Undelivered(client, frame) => self.handle_undelivered(client, frame),
            GatewayInput::Durable(count) => self.mailboxes.handle_durable(count),
            GatewayInput::StorageTrouble(trouble) => self.mailboxes.handle_trouble(trouble),
            GatewayInput::Fetched { mailbox, mails } => self.mailboxes.handle_fetched(mailbox, mails),
            input => {
                if let Some(payments) = &mut self.payments {
                    handle_payment(payments, now, input);
                }
            }
        }
    }

    fn handle_undelivered(&mut self, client: IdentityKey, frame: Frame) {
        match frame.kind() {
            Ok(FrameKind::Mail) => {
                let (mailbox, number) = (MailboxId::of(&client), frame.mail_number());
                let again = self.mailboxes.put_back(mailbox, number, frame);
                self.counts.delivered = self.counts.delivered.saturating_sub(again as u64);
            }
            Ok(FrameKind::Control) => {
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.unsaid = Some(frame);
                }
            }
            _ => {}
        }
    }

    fn take_durable(&mut self, now: Time) {
        self.undurable.look(now);
        while let Some((_, opened)) = self.undurable.pop() {
            self.handle_opened(now, opened);
        }
    }

    fn handle_opened(&mut self, now: Time, opened: Opened) {
        self.counts.opened += 1;
        self.occupancy.give_back();
        // It is the last that is paid, whatever becomes of the packet here.
        if let Some(payments) = &mut self.payments {
            let (parity, number) = (opened.frame.parity(), opened.frame.number());
            if payments.accept(now, &opened.from, parity, number, opened.ticket, None).is_err() {
                return self.refuse(DropReason::Unpaid, opened.frame);
            }
        }
        match opened.order {
            // Held counts from the packet's arrival: it includes the gateway's own processing.
            Order::Store(mailbox) => {
                match self.mailboxes.store(self.clock.at(opened.arrived), mailbox, opened.frame) {
                    Ok(()) => self.counts.stored += 1,
                    Err((reason, frame)) => self.refuse(reason, frame),
                }
            }
            Order::End { .. } => self.refuse(DropReason::Discarded, opened.frame),
            Order::Forward { .. } => self.refuse(DropReason::BadNextHop, opened.frame),
        }
    }

    fn handle_connected(&mut self, now: Time, client: IdentityKey) {
        let mailbox = MailboxId::of(&client);
        self.handle_disconnected(now, client);
        // Without a place it is served like everybody else, but nothing can be stored for it.
        self.counts.without_mailbox += u64::from(!self.mailboxes.enter(self.clock.at(now), mailbox));
        let slots = PacedSlots::new(now, self.downlink_interval, self.rng.fork());
        self.slots.insert((slots.poll_timeout(), client));
        let session =
            Session { mailbox, slots, since_control: 0, unsaid: None, allowance: self.burst, refilled: now };
        self.sessions.insert(client, session);
        if let Some(payments) = &mut self.payments {
            payments.open_client(now, client);
        }
    }

    fn handle_disconnected(&mut self, now: Time, client: IdentityKey) {
        if let Some(session) = self.sessions.remove(&client) {
            self.slots.remove(&(session.slots.poll_timeout(), client));
            self.mailboxes.leave(self.clock.at(now), session.mailbox);
            if let Some(payments) = &mut self.payments {
                payments.close_client(now, client);
            }
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
        let mailbox = session.mailbox;
        match frame.kind() {
            Ok(FrameKind::Packet) => {
                let acknowledged = self.mailboxes.hear_low(mailbox, frame.acknowledged());
                self.count_acknowledged(acknowledged);
            }
            Ok(kind @ (FrameKind::Collect | FrameKind::Hold)) => {
                let wants = kind == FrameKind::Collect;
                let acknowledged = self.mailboxes.hear(mailbox, wants, frame.collect_acknowledged());
                self.count_acknowledged(acknowledged);
                return Ok(());
            }
            Ok(FrameKind::Control) if self.payments.is_some() => {
                if let Some(payments) = &mut self.payments {
                    payments.handle_control(now, &client, frame).map_err(|_| DropReason::BadFrame)?;
                }
                return Ok(());
            }
            Ok(FrameKind::Mail | FrameKind::Padding | FrameKind::Displaced | FrameKind::Control) => {
                return Err(DropReason::WrongDirection);
            }
            Err(_) => return Err(DropReason::BadFrame),
        }
        let meta = frame.client_meta();
        let parity = frame.parity();
        let seat = self.views.get(parity).ok_or(DropReason::NoKey)?;
        let to = seat.successor(meta.next).ok_or(DropReason::BadNextHop)?;
        let mut owed = Owed::default();
        if let Some(payments) = &mut self.payments {
            let check = AckCheck::from_bytes(meta.ack_check);
            let (number, first) = (frame.number(), Challenge::from_bytes(meta.challenge));
            let accepted = payments.accept_first(now, &client, parity, number, check, &first);
            owed = accepted.map_err(|_| DropReason::Unpaid)?;
        }
        frame.set_link_packet(parity, &LinkMeta { challenge: meta.challenge, ack_check: meta.ack_check });
        self.counts.forwarded += 1;
        match &mut self.payments {
            Some(payments) => payments.forward(now, to, frame, owed),
            None => self.out.push_back((now, GatewayOutput::Forward { to, frame })),
        }
        Ok(())
    }

    /// The next thing that is due.
    pub fn poll_output(&mut self, now: Time) -> Option<GatewayOutput> {
        if let Some((_, output)) = self.out.pop_front() {
            return Some(output);
        }
        if let Some(output) = self.payments.as_mut().and_then(|payments| payments.poll_output(now)) {
            return Some(match output {
                PaymentOutput::Send { to, frame } => GatewayOutput::Forward { to, frame },
                PaymentOutput::Claim(claim) => GatewayOutput::Claim(Box::new(claim)),
                PaymentOutput::Watch { account, signer } => GatewayOutput::Watch { account, signer },
                PaymentOutput::Forget { account, signer } => GatewayOutput::Forget { account, signer },
                PaymentOutput::Settled(sum) => GatewayOutput::Settled(sum),
            });
        }
        self.take_durable(now);
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
        let payments = self.payments.as_ref().map(Payments::poll_timeout);
        let later = [self.undurable.poll_timeout(), self.slots.first().map(|(due, _)| *due), payments];
        at_once.or_else(|| later.into_iter().flatten().min())
    }

    /// The next change that is to be written down, in this order. [`GatewayInput::Durable`] says how far that is.
    pub fn poll_store(&mut self) -> Option<StoreOp> {
        self.mailboxes.poll_store()
    }

    /// The next mail that is to be read from disk. The answer is a [`GatewayInput::Fetched`], in every case.
    pub fn poll_fetch(&mut self) -> Option<Fetch> {
        self.mailboxes.poll_fetch()
    }

    /// Drops mail past its retention, and does what else is due now and then. Called about once a second.
    pub fn expire(&mut self, now: Time) {
        let expired = self.mailboxes.expire(self.clock.at(now));
        self.count_expired(expired);
    }

    /// The end: [`poll_store`](Self::poll_store) then hands out what has to be written for the next start.
    ///
    /// What is still kept from its mailbox, because its tag is not durable, is not taken any more.
    pub fn close(&mut self, now: Time) {
        self.take_durable(now);
        self.mailboxes.close(self.clock.at(now));
    }

    /// What it did so far.
    pub fn counts(&self) -> GatewayCounts {
        GatewayCounts { mail: self.mailboxes.sums(), clients: self.sessions.len(), ..self.counts }
    }

    fn next_for(&mut self, now: Time, client: IdentityKey) -> Option<Frame> {
        let session = self.sessions.get_mut(&client)?;
        let (mailbox, unix) = (session.mailbox, self.clock.at(now));
        if let Some(payments) = &mut self.payments {
            session.since_control += 1;
            if session.since_control >= CONTROL_SLOT || payments.wants_slot(&client) {
                session.since_control = 0;
                if let Some(frame) = session.unsaid.take() {
                    return Some(frame);
                }
                let frame = self.spare.pop().unwrap_or_else(Frame::zeroed);
                return Some(payments.take_control(now, &client, frame));
            }
        }
        let expired = self.mailboxes.expire_one(unix, mailbox);
        self.count_expired(expired);
        Some(match self.mailboxes.take(unix, mailbox) {
            Some(mail) => {
                self.counts.delivered += 1;
                let mut frame = mail.frame;
                frame.set_mail(frame.parity(), mail.held, mail.number);
                frame.set_mail_previous(mail.previous);
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

    fn count_acknowledged(&mut self, acknowledged: Acknowledged) {
        match acknowledged {
            Acknowledged::Packets(packets) => self.counts.acknowledged += packets as u64,
            Acknowledged::Wrong => self.counts.wrong_acknowledgements += 1,
        }
    }

    fn count_expired(&self, packets: u64) {
        for _ in 0..packets {
            self.drops.count(DropReason::MailExpired);
        }
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

/// What of a gateway's inputs is about payment; the others have been handled.
fn handle_payment(payments: &mut Payments, now: Time, input: GatewayInput) {
    match input {
        GatewayInput::Link { peer, up } => payments.handle_link(now, peer, up),
        // What is wrong in it is counted there.
        GatewayInput::Control(from, frame) => drop(payments.handle_control(now, &from, frame)),
        GatewayInput::Fact(fact) => payments.handle_fact(now, fact),
        GatewayInput::PaymentDurable(count) => payments.set_durable(count),
        GatewayInput::WindUp => payments.wind_up(now),
        _ => {}
    }
}

impl core::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Gateway").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
