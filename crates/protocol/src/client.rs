//! The client's state machine: one emission clock, cover, loops; messages out, messages in, acknowledged end to end.
//!
//! `handle_*` takes things in, `poll_*` hands things out, [`Client::poll_timeout`] says when it wants to be called
//! again. [`Client::work`] builds packets ahead of the clock, so that what is emitted at a tick is a finished buffer
//! whether it is real or cover, and building costs no time on the emission path.
//!
//! What must outlive the process leaves through [`Client::poll_store`]; what must not be seen before it is durable (an
//! acknowledgement, to the sender or to the gateway; a message, for the application) is held back until
//! [`Client::handle_durable`] says so.

mod delivery;
mod event;
mod paying;
mod receive;
mod send;
mod stored;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use thiserror::Error;
use tombola_mixing::{EmissionSchedule, LoopMonitor, LoopStats, LossTest, Rates, Rng, Time};
use tombola_sphinx::{PublicKey, ReplyKeys, SURB_LEN, SecretKey};
use tombola_topology::{ClientAddress, IdentityKey, MailboxId, NodeIndex, SphinxKey};

use crate::changes::Changes;
use crate::drops::{DropCounters, DropReason};
use crate::fragment::MessageId;
use crate::frame::{Frame, FrameKind};
use crate::inbox::Inbox;
use crate::outbox::{Outbox, Pace, Part, SendError, SendLimits, Target};
use crate::packet::{Identifier, PacketBuilder, Prepared};
use crate::payload::Report;
use crate::payment::Payments;
use crate::records::{self, Restore, tables};
use crate::replay::{TagFilter, capacity_for};
use crate::replyblocks::{Conversation, Conversations, Keyring, Pools};
use crate::store::StoreOp;
use crate::unix::WallClock;
use crate::view::{EpochView, Recipient, SendViews};

pub use crate::records::FinalState;
use delivery::Delivery;

pub use event::{ClientCounts, ClientEvent, Emitted, Received, SendOptions};

/// Loops that may be under way at one time.
const LOOPS_IN_FLIGHT: usize = 4096;
/// Fragments that are built ahead of the clock: the next one, and one more that overtakes it.
const PREPARED_AHEAD: usize = 2;
/// How often a fragment that is built is overtaken: one turn in four is for messages that have begun, as in the queue.
const OVERTAKEN_MOST: u32 = 3;
/// Reply blocks that are built ahead: as many as a packet takes, and one.
const BLOCKS_AHEAD: usize = 6;
/// Reports, requests and reply blocks that wait for the clock; beyond, the oldest go, and are asked for again.
const CONTROL_MAX: usize = 4096;
/// Pings under way.
const PINGS_MAX: usize = 64;
/// Replay tags are kept as long as a gateway may keep a packet, twice.
const TAG_LIVES: u32 = 2;

/// Probes that may wait for the main clock.
pub const PROBES_WAITING: usize = 16;

/// Who a client is.
pub struct ClientKeys {
    /// Its Sphinx key: the one in its address.
    pub sphinx: SecretKey,
    /// Its link identity, from which its mailbox follows.
    pub identity: IdentityKey,
    /// Its gateway's identity.
    pub gateway: IdentityKey,
}

/// Why a client could not be made.
#[derive(Debug, Error)]
pub enum NewClientError {
    /// Its gateway is not in the network.
    #[error("the client's gateway is not part of the network any more; make a new client")]
    NoGateway,
    /// What it had kept makes no sense.
    #[error("message {message} in the store: {problem}")]
    Stored {
        /// Which message.
        message: MessageId,
        /// What is wrong.
        problem: &'static str,
    },
}

/// What travels beside messages, on the same clock.
#[derive(Clone, Debug)]
enum Control {
    /// What there is of a message, through a block that came with it, or, of an answer, to whom it answers.
    Report { message: MessageId, via: Option<MessageId>, report: Report },
    /// More blocks to answer a message.
    Request { message: MessageId, count: u16 },
    /// Blocks for answers to an own message.
    Supply { message: MessageId, count: u16 },
    /// A ping.
    Ping { message: MessageId, to: Box<Recipient> },
}

/// What is held back until changes are durable.
#[derive(Debug)]
enum Gated {
    Event(ClientEvent),
    Control(Control),
    /// Everything up to this mail is safe.
    Collected(u64),
}

/// A finished packet.
#[derive(Debug)]
struct Built {
    prepared: Prepared,
    /// The epoch of the reply block that it goes through.
    through: Option<u64>,
}

/// What a prepared packet is.
#[derive(Debug)]
enum Content {
    Message { message: MessageId, part: Part, first: bool, attempt: u32 },
    Control(Control),
    Probe,
}

#[derive(Debug)]
struct Ready {
    built: Built,
    content: Content,
    /// How many have been put before it.
    overtaken: u32,
}

impl Ready {
    fn new(built: Built, content: Content) -> Self {
        Self { built, content, overtaken: 0 }
    }

    /// Whether the beginning of a message has to wait behind it.
    fn is_overtaken_no_more(&self) -> bool {
        self.overtaken >= OVERTAKEN_MOST || !matches!(self.content, Content::Message { first: false, .. })
    }
}

/// A probe that a mix node sends through an account of its own: the first half is the account's.
#[derive(Debug)]
pub struct Probe {
    /// Known to the mix node, which waits for it.
    pub identifier: Identifier,
    /// The epoch whose nodes it names.
    pub view: Arc<EpochView>,
    /// The layers before the mix node.
    pub mixes: tombola_topology::MixRoute,
    /// The mix node.
    pub end: NodeIndex,
}

/// A reply block that was built ahead.
struct AheadBlock {
    bytes: [u8; SURB_LEN],
    keys: ReplyKeys,
}

impl core::fmt::Debug for AheadBlock {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("AheadBlock(..)")
    }
}

/// The state machine.
pub struct Client {
    views: SendViews,
    keys: ClientKeys,
    mailbox: MailboxId,
    wall: WallClock,
    /// A mix node's account keeps nothing: it has no messages.
    keeps: bool,
    builder: PacketBuilder,
    schedule: EmissionSchedule,
    connected: bool,
    collects: bool,
    /// What the gateway knows of it.
    told: bool,
    /// Up to which mail everything has arrived.
    arrived: u64,
    /// Up to which mail everything is safe here.
    collected: u64,
    pace: Pace,
    outbox: Outbox,
    inbox: Inbox,
    keyring: Keyring,
    conversations: Conversations,
    pools: Pools,
    control: VecDeque<Control>,
    control_turn: bool,
    pings: BTreeMap<MessageId, Option<Time>>,
    pressed: bool,
    changes: Changes<Gated>,
    probes: VecDeque<Probe>,
    ready: VecDeque<Ready>,
    ready_cover: VecDeque<Prepared>,
    ready_loop: Option<(Identifier, Prepared)>,
    ready_drop: Option<Prepared>,
    ready_blocks: Vec<AheadBlock>,
    out: VecDeque<Frame>,
    loops: LoopMonitor<()>,
    delivery: Delivery,
    seen: TagFilter,
    events: VecDeque<ClientEvent>,
    counts: ClientCounts,
    drops: Arc<DropCounters>,
    payments: Option<Payments>,
    /// Ticks since the last control frame.
    since_control: u32,
    /// Nothing is emitted but what there is to say about payment.
    silent: bool,
}

impl Client {
    /// A client of gateway `keys.gateway`, with what it had kept before.
    ///
    /// # Errors
    /// There is no such gateway, or what was kept makes no sense.
    pub fn new(
        now: Time,
        wall: WallClock,
        views: impl Into<SendViews>,
        keys: ClientKeys,
        stored: Restore,
        seed: [u8; 32],
    ) -> Result<Self, NewClientError> {
        let mut client = Self::empty(now, wall, views.into(), keys, true, seed)?;
        client.restore(now, stored)?;
        Ok(client)
    }

    /// A mix node's account: cover and probes, no messages, nothing to be kept. `None` if there is no such gateway.
    pub fn account(now: Time, views: impl Into<SendViews>, keys: ClientKeys, seed: [u8; 32]) -> Option<Self> {
        Self::empty(now, WallClock::default(), views.into(), keys, false, seed).ok()
    }

    fn empty(
        now: Time,
        wall: WallClock,
        views: SendViews,
        keys: ClientKeys,
        keeps: bool,
        seed: [u8; 32],
    ) -> Result<Self, NewClientError> {
        let view = &views.current;
        view.gateway(&keys.gateway).ok_or(NewClientError::NoGateway)?;
        let mut rng = Rng::from_seed(seed);
        let parameters = view.parameters();
        let rates = Rates {
            main: parameters.main_interval,
            loops: parameters.loop_interval,
            drops: parameters.drop_interval,
        };
        let admitted = per_second(parameters.downlink_interval);
        let seen =
            TagFilter::new(capacity_for(admitted, parameters.mailbox_retention * TAG_LIVES), rng.next_u64());
        let pace = Pace::of(parameters);
        Ok(Self {
            mailbox: MailboxId::of(&keys.identity),
            wall,
            keeps,
            builder: PacketBuilder::new(rng.fork()),
            schedule: EmissionSchedule::new(now, rates, rng.fork()),
            connected: false,
            collects: true,
            told: true,
            arrived: 0,
            collected: 0,
            outbox: Outbox::new(SendLimits::default(), pace),
            inbox: Inbox::new(pace.quiet, parameters.mailbox_retention),
            pace,
            keyring: Keyring::default(),
            conversations: Conversations::default(),
            pools: Pools::default(),
            control: VecDeque::new(),
            control_turn: false,
            pings: BTreeMap::new(),
            pressed: false,
            changes: Changes::default(),
            probes: VecDeque::new(),
            ready: VecDeque::new(),
            ready_cover: VecDeque::new(),
            ready_loop: None,
            ready_drop: None,
            ready_blocks: Vec::new(),
            out: VecDeque::new(),
            loops: LoopMonitor::new(parameters.loop_timeout, LOOPS_IN_FLIGHT, LossTest::standard()),
            delivery: Delivery::new(now, parameters.loop_timeout),
            seen,
            events: VecDeque::new(),
            counts: ClientCounts::default(),
            drops: Arc::default(),
            payments: None,
            since_control: 0,
            silent: false,
            views,
            keys,
        })
    }

    /// Where others send to.
    pub fn address(&self) -> ClientAddress {
        ClientAddress {
            sphinx_key: SphinxKey::from_bytes(self.keys.sphinx.public_key().to_bytes()),
            gateway: self.keys.gateway,
            mailbox: self.mailbox,
        }
    }

    /// Its link identity.
    pub fn identity(&self) -> IdentityKey {
        self.keys.identity
    }

    /// Its Sphinx key, as packets to it use it.
    pub fn public_key(&self) -> PublicKey {
        self.keys.sphinx.public_key()
    }

    /// The epochs that it works in.
    pub fn views(&self) -> &SendViews {
        &self.views
    }

    /// From now on these epochs are used. Returns whether its gateway is still part of the network.
    ///
    /// What was built ahead for others is built again; reply blocks whose keys are dead are forgotten.
    pub fn handle_views(&mut self, now: Time, views: impl Into<SendViews>) -> bool {
        self.views = views.into();
        for ready in core::mem::take(&mut self.ready).into_iter().rev() {
            match ready.content {
                // The block is used up, and good for as long as its epoch is.
                _ if ready.built.through.is_some_and(|epoch| self.views.by_number(epoch).is_some()) => {
                    self.ready.push_front(ready);
                }
                Content::Message { message, part, .. } => self.outbox.withdrawn(message, part),
                Content::Control(control) => self.control.push_front(control),
                // Whose it is has counted it, and it leaves within some ticks: the old keys live longer.
                Content::Probe => self.ready.push_front(ready),
            }
        }
        self.ready_cover.clear();
        self.ready_loop = None;
        self.ready_drop = None;
        self.ready_blocks.clear();
        self.forget_blocks();
        self.agree_on_terms(now);
        self.views.current.gateway(&self.keys.gateway).is_some()
    }

    /// The gateway's link came up or went down. While it is down nothing is emitted: ticks pass, messages wait.
    pub fn handle_link(&mut self, now: Time, connected: bool) {
        self.connected = connected;
        self.out.clear();
        if connected {
            self.out.push_back(Frame::collect(self.collects, self.collected));
            self.told = self.collects;
        }
        self.handle_payment_link(now, connected);
    }

    /// Whether mail is wanted; without it the gateway keeps everything. Wanted from the start.
    ///
    /// The gateway learns it when the link comes up, else at the next tick of the main clock, in the place of a packet:
    /// one more frame would show an observer of the link when this client changes its mind.
    pub fn handle_collect(&mut self, wanted: bool) {
        self.collects = wanted;
    }

    /// Puts a message into the outbox. [`ClientEvent::Queued`] says when it is there durably.
    ///
    /// # Errors
    /// It is too long, or the outbox is full.
    pub fn handle_send(
        &mut self,
        now: Time,
        id: MessageId,
        to: Recipient,
        body: Vec<u8>,
        options: SendOptions,
    ) -> Result<(), SendError> {
        self.push(now, id, Target::Address(Box::new(to)), body, options)
    }

    /// Puts an answer to a received message into the outbox.
    ///
    /// # Errors
    /// As [`handle_send`](Self::handle_send), or the message cannot be answered.
    pub fn handle_reply(
        &mut self,
        now: Time,
        id: MessageId,
        to: MessageId,
        body: Vec<u8>,
        options: SendOptions,
    ) -> Result<(), SendError> {
        if !self.pools.is_answerable(&to) {
            return Err(SendError::NotAnswerable);
        }
        self.push(now, id, Target::Reply(to), body, SendOptions { replies: 0, ..options })?;
        // The answer says that the message is here.
        let told = |control: &Control| matches!(control, Control::Report { message, via: None, .. } if *message == to);
        self.control.retain(|control| !told(control));
        Ok(())
    }

    fn push(
        &mut self,
        now: Time,
        id: MessageId,
        target: Target,
        body: Vec<u8>,
        options: SendOptions,
    ) -> Result<(), SendError> {
        if !self.keeps {
            return Err(SendError::KeepsNothing);
        }
        let shape = self.outbox.check(body.len())?;
        for segment in 0..shape.segments() {
            let bytes = body.get(shape.bytes_of(segment)).unwrap_or_default();
            if !bytes.is_empty() {
                self.changes.put(tables::BODIES, &records::segment_key(id, segment), bytes.to_vec());
            }
        }
        if let (Target::Address(with), 1..) = (&target, options.replies) {
            let with = Recipient::clone(with);
            let conversation = Conversation::new(now, with, options.replies, self.pace.round_trip);
            if let Some(gone) = self.conversations.insert(id, conversation) {
                self.changes.delete(tables::CONVERSATIONS, &gone.0);
            }
            self.put_conversation(id);
        }
        // Whoever has a message forgets its id in twice the time that mail is kept.
        let lifetime = options.lifetime.min(self.views.current.parameters().mailbox_retention);
        self.outbox.push(now, id, target, body, options.replies, now + lifetime)?;
        self.put_outgoing(id);
        self.changes.gate(Gated::Event(ClientEvent::Queued(id)));
        self.release();
        self.tell_pressure();
        Ok(())
    }

    /// Calls a message back: nothing more of it is sent. Returns whether it was in the outbox.
    pub fn handle_cancel(&mut self, id: MessageId) -> bool {
        let there = self.outbox.get(&id).is_some();
        if there {
            self.end(id, FinalState::Cancelled);
        }
        there
    }

    /// The application has taken a message: it does not come again. Returns whether it waited.
    pub fn handle_accept(&mut self, now: Time, id: MessageId) -> bool {
        let unix = self.wall.seconds(now);
        self.inbox.accept(id, unix, &mut self.changes)
    }

    /// The application has noted what became of a message.
    pub fn handle_noted(&mut self, id: MessageId) {
        self.changes.delete(tables::FINAL, &id.0);
    }

    /// Sends a ping; [`ClientEvent::Pong`] if it comes back. `false` if too many are under way.
    pub fn handle_ping(&mut self, id: MessageId, to: Recipient) -> bool {
        while self.pings.len() >= PINGS_MAX {
            // The one that has waited longest: those that have not left wait for us.
            let oldest = self.pings.iter().filter_map(|(id, left)| left.map(|left| (left, *id))).min();
            let Some((_, oldest)) = oldest else { return false };
            self.pings.remove(&oldest);
        }
        self.pings.insert(id, None);
        self.push_control(Control::Ping { message: id, to: Box::new(to) });
        true
    }

    /// The first `count` changes that were ever handed out are durable.
    pub fn handle_durable(&mut self, count: u64) {
        self.changes.set_durable(count);
        self.release();
    }

    /// Queues a probe; it leaves on the main clock like a fragment. While [`PROBES_WAITING`] wait, or the link is
    /// down, it is not taken: it would only measure this client's own queue.
    pub fn handle_probe(&mut self, probe: Probe) -> bool {
        let taken = self.connected && self.probes.len() < PROBES_WAITING;
        if taken {
            self.probes.push_back(probe);
        }
        taken
    }

    /// Takes a frame from the gateway in.
    pub fn handle_frame(&mut self, now: Time, mut frame: Frame) {
        match frame.kind() {
            Ok(FrameKind::Mail) => {
                self.counts.mail += 1;
                let (held, number, previous) =
                    (frame.mail_held(), frame.mail_number(), frame.mail_previous());
                let opened = self.open_mail(now, &mut frame, held);
                if let Err(reason) = opened {
                    self.drops.count(reason);
                }
                // What there is no room for stays at the gateway.
                if opened == Err(DropReason::FilterFull) {
                    return;
                }
                // What is missing before it comes again, and it with that.
                if previous <= self.arrived {
                    self.arrived = self.arrived.max(number);
                    self.changes.gate(Gated::Collected(self.arrived));
                }
                self.release();
            }
            Ok(FrameKind::Padding) => self.counts.padding += 1,
            Ok(FrameKind::Displaced) => self.events.push_back(ClientEvent::Displaced),
            Ok(FrameKind::Control) if self.payments.is_some() => self.handle_control(now, frame),
            Ok(FrameKind::Packet | FrameKind::Control | FrameKind::Collect | FrameKind::Hold) => {
                self.drops.count(DropReason::WrongDirection);
            }
            Err(_) => self.drops.count(DropReason::BadFrame),
        }
    }

    /// The next frame for the gateway, if one is due.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Frame> {
        let timeouts =
            [self.outbox.poll_timeout(), self.inbox.poll_timeout(), self.conversations.poll_timeout()];
        let due = timeouts.into_iter().flatten().min();
        if due.is_some_and(|due| due <= now) {
            self.tend(now);
        }
        self.tend_payments(now);
        while let Some((due, stream)) = self.schedule.poll(now) {
            if self.connected {
                self.tick(now, due, stream);
            }
        }
        self.out.pop_front()
    }

    /// The next event for the application.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// The next change to be stored.
    pub fn poll_store(&mut self) -> Option<StoreOp> {
        self.changes.poll_op()
    }

    /// When [`poll_transmit`](Self::poll_transmit) has something again, if no input comes before.
    pub fn poll_timeout(&self) -> Time {
        self.schedule.poll_timeout()
    }

    /// Does what is due: counts overdue loops, sends again, gives up what has waited too long.
    /// [`work`](Self::work) does it too, but may not be called under load.
    pub fn expire(&mut self, now: Time) {
        while self.loops.poll_expired(now).is_some() {
            self.delivery.lost(now);
        }
        for _ in 0..self.inbox.expire(now, &mut self.changes) {
            self.drops.count(DropReason::ReassemblyFull);
        }
        self.tend(now);
    }

    /// Messages of which something waits for the clock for the first time, built ahead or not.
    pub fn waiting(&self) -> usize {
        self.outbox.unsent()
    }

    /// Messages that are not acknowledged.
    pub fn outbox(&self) -> impl Iterator<Item = MessageId> + '_ {
        self.outbox.iter().map(|(id, _)| *id)
    }

    /// What was sent and received.
    pub fn counts(&self) -> ClientCounts {
        self.counts
    }

    /// What was dropped, by reason.
    pub fn drops(&self) -> &Arc<DropCounters> {
        &self.drops
    }

    /// What became of its own loops.
    pub fn loop_stats(&self) -> LoopStats {
        self.loops.stats(&())
    }

    /// Forgets others' blocks whose keys are dead, and keys of own ones to which no answer can wait in the mailbox any more.
    fn forget_blocks(&mut self) {
        let view = &self.views.current;
        let kept = view.parameters().mailbox_retention.as_secs() / view.life().as_secs().max(1) + 2;
        for identifier in self.keyring.expire(view.number().saturating_sub(kept)) {
            self.changes.delete(tables::KEYS, &identifier);
        }
        for (message, number) in self.pools.expire(view.number().saturating_sub(1)) {
            self.changes.delete(tables::BLOCKS, &records::block_key(message, number));
        }
    }

    /// Hands out what need not be held back any longer.
    fn release(&mut self) {
        if !self.keeps {
            // Nobody stores what an account asks for, and nothing waits for it.
            while self.changes.poll_op().is_some() {}
            self.changes.set_durable(u64::MAX);
        }
        while let Some(gated) = self.changes.poll_gated() {
            match gated {
                Gated::Event(event) => self.events.push_back(event),
                Gated::Control(control) => self.push_control(control),
                Gated::Collected(number) => self.collected = number,
            }
        }
    }

    fn push_control(&mut self, control: Control) {
        if self.control.len() >= CONTROL_MAX {
            let gone = self.control.pop_front();
            self.drops.count(DropReason::Overload);
            self.forget_ping(gone.as_ref());
        }
        self.control.push_back(control);
    }

    /// A ping that cannot leave is under way no more.
    fn forget_ping(&mut self, control: Option<&Control>) {
        if let Some(Control::Ping { message, .. }) = control {
            self.pings.remove(message);
        }
    }

    /// A message has ended.
    fn end(&mut self, id: MessageId, state: FinalState) {
        if self.outbox.remove(&id).is_none() {
            return;
        }
        self.ready
            .retain(|ready| !matches!(ready.content, Content::Message { message, .. } if message == id));
        self.changes.delete(tables::OUTBOX, &id.0);
        self.changes.delete_all(tables::BODIES, &id.0);
        self.changes.put(tables::FINAL, &id.0, state.to_bytes());
        self.changes.gate(Gated::Event(ClientEvent::Ended(id, state)));
        self.release();
        self.tell_pressure();
    }

    fn tell_pressure(&mut self) {
        let pressed = if self.pressed { !self.outbox.is_relaxed() } else { self.outbox.is_pressed() };
        if pressed != self.pressed {
            self.pressed = pressed;
            self.events.push_back(ClientEvent::Backpressure(pressed));
        }
    }

    /// Days for which replay tags and ids of messages are kept.
    fn tag_days(&self) -> u32 {
        let life = self.views.current.parameters().mailbox_retention * TAG_LIVES;
        u32::try_from(life.as_secs().div_ceil(86_400)).unwrap_or(u32::MAX).max(1)
    }
}

fn day_of(unix: u64) -> u32 {
    u32::try_from(unix / 86_400).unwrap_or(u32::MAX)
}

/// How many fit into a second, rounded up.
fn per_second(interval: Duration) -> u64 {
    let nanos = interval.as_nanos().max(1);
    u64::try_from(1_000_000_000u128.div_ceil(nanos)).unwrap_or(u64::MAX)
}

impl core::fmt::Debug for Client {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client").field("connected", &self.connected).finish_non_exhaustive()
    }
}
