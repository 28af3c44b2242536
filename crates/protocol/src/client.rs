//! The client's state machine: one emission clock, cover, loops; fragments out, messages in.
//!
//! `handle_*` takes things in, `poll_*` hands things out, [`Client::poll_timeout`] says when it wants to be called
//! again. [`Client::work`] builds packets ahead of the clock, so that what is emitted at a tick is a finished buffer
//! whether it is real or cover, and building costs no time on the emission path.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use tombola_mixing::{EmissionSchedule, LoopMonitor, LoopStats, LossTest, Rates, Rng, Stream, Time};
use tombola_sphinx::{PLAINTEXT_MAX, PublicKey, Routing, SecretKey, payload_of, plaintext, verify};
use tombola_topology::{ClientAddress, IdentityKey, MailboxId, NodeIndex, SphinxKey};

use crate::drops::{DropCounters, DropReason};
use crate::fragment::{self, MessageId, Payload, payload_type};
use crate::frame::{Frame, FrameKind};
use crate::opener::unpaid;
use crate::packet::{End, FirstLink, Identifier, PacketBuilder, Prepared};
use crate::reassembly::{Added, Reassembler, ReassemblyLimits};
use crate::replay::{TagFilter, capacity_for};
use crate::sendqueue::{SendError, SendLimits, SendQueue};
use crate::view::{EpochView, Recipient, SendViews};

/// Loops that may be under way at one time.
const LOOPS_IN_FLIGHT: usize = 4096;
/// Fragments that are built ahead of the clock: the next one, and one more that overtakes it.
const PREPARED_AHEAD: usize = 2;
/// How often a fragment that is built is overtaken: one turn in four is for messages that have begun, as in the queue.
const OVERTAKEN_MOST: u32 = 3;

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

/// What happened, for the application.
#[derive(Debug)]
pub enum ClientEvent {
    /// A fragment left on the emission clock.
    Emitted(Emitted),
    /// A whole message arrived.
    Received(Received),
    /// Some more of a long message arrived.
    Progress {
        /// Its message.
        message: MessageId,
        /// Fragments here.
        have: u32,
        /// Fragments of the message.
        count: u32,
    },
    /// A mix node's half-loop ended here (its account's mailbox).
    Probe(Identifier),
    /// Another process connects with this client's identity: the gateway serves that one now.
    Displaced,
}

/// A fragment that left.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// Its message.
    pub message: MessageId,
    /// Its place.
    pub index: u32,
    /// Fragments of the message.
    pub count: u32,
    /// When the message was queued.
    pub queued: Time,
    /// The tick of the emission clock that it left on.
    pub emitted: Time,
    /// Sum of the delays that were drawn for it.
    pub delays: Duration,
}

/// A message that arrived.
#[derive(Debug)]
pub struct Received {
    /// Its id, as the sender chose it.
    pub message: MessageId,
    /// Its content.
    pub body: Vec<u8>,
    /// When its last fragment arrived.
    pub received: Time,
    /// How long the gateway held that fragment until it had a slot on the downlink.
    pub held: Duration,
    /// How many fragments it came in.
    pub fragments: u32,
}

/// What a client sent and received so far, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounts {
    /// Fragments of messages.
    pub real: u64,
    /// Cover on the main clock, because nothing waited.
    pub cover: u64,
    /// Loops.
    pub loops: u64,
    /// Drops.
    pub drops: u64,
    /// Probes for a mix node, on the main clock.
    pub probes: u64,
    /// Mail frames that came down.
    pub mail: u64,
    /// Padding frames that came down.
    pub padding: u64,
}

impl ClientCounts {
    /// The sum of two.
    pub fn plus(self, other: Self) -> Self {
        Self {
            real: self.real + other.real,
            cover: self.cover + other.cover,
            loops: self.loops + other.loops,
            drops: self.drops + other.drops,
            probes: self.probes + other.probes,
            mail: self.mail + other.mail,
            padding: self.padding + other.padding,
        }
    }
}

/// What a prepared packet is.
#[derive(Debug)]
enum Content {
    Fragment { message: MessageId, index: u32, count: u32, queued: Time },
    Probe,
}

#[derive(Debug)]
struct Ready {
    prepared: Prepared,
    content: Content,
    /// How many have been put before it.
    overtaken: u32,
}

impl Ready {
    fn new(prepared: Prepared, content: Content) -> Self {
        Self { prepared, content, overtaken: 0 }
    }

    /// Whether the beginning of a message has to wait behind it.
    fn is_overtaken_no_more(&self) -> bool {
        self.overtaken >= OVERTAKEN_MOST
            || matches!(self.content, Content::Probe | Content::Fragment { index: 0, .. })
    }
}

/// A probe that a mix node sends through an account of its own: the first half is the account's.
#[derive(Debug)]
pub struct Probe {
    /// Known to the mix node, which waits for it.
    pub identifier: Identifier,
    /// The epoch that it uses.
    pub view: Arc<EpochView>,
    /// The layers before the mix node.
    pub mixes: tombola_topology::MixRoute,
    /// The mix node.
    pub end: NodeIndex,
}

/// The state machine.
pub struct Client {
    view: Arc<EpochView>,
    keys: ClientKeys,
    gateway: NodeIndex,
    mailbox: MailboxId,
    builder: PacketBuilder,
    schedule: EmissionSchedule,
    connected: bool,
    collects: bool,
    /// What the gateway knows of it.
    told: bool,
    /// The number up to which mail is here.
    acknowledged: u64,
    queue: SendQueue,
    probes: VecDeque<Probe>,
    ready: VecDeque<Ready>,
    ready_cover: VecDeque<Prepared>,
    ready_loop: Option<(Identifier, Prepared)>,
    ready_drop: Option<Prepared>,
    out: VecDeque<Frame>,
    loops: LoopMonitor<()>,
    seen: TagFilter,
    reassembler: Reassembler,
    /// How many of the messages that it gave up are in `drops`.
    evicted: u64,
    events: VecDeque<ClientEvent>,
    counts: ClientCounts,
    drops: Arc<DropCounters>,
}

impl Client {
    /// A client of gateway `keys.gateway`; `None` when the view has no such gateway.
    pub fn new(now: Time, view: Arc<EpochView>, keys: ClientKeys, seed: [u8; 32]) -> Option<Self> {
        let gateway = view.gateway(&keys.gateway)?;
        let mut rng = Rng::from_seed(seed);
        let parameters = view.parameters();
        let rates = Rates {
            main: parameters.main_interval,
            loops: parameters.loop_interval,
            drops: parameters.drop_interval,
        };
        let admitted = per_second(parameters.downlink_interval);
        let seen = TagFilter::new(capacity_for(admitted, view.life()), rng.next_u64());
        Some(Self {
            gateway,
            mailbox: MailboxId::of(&keys.identity),
            builder: PacketBuilder::new(rng.fork()),
            schedule: EmissionSchedule::new(now, rates, rng.fork()),
            connected: false,
            collects: true,
            told: true,
            acknowledged: 0,
            queue: SendQueue::new(SendLimits::default()),
            probes: VecDeque::new(),
            ready: VecDeque::new(),
            ready_cover: VecDeque::new(),
            ready_loop: None,
            ready_drop: None,
            out: VecDeque::new(),
            loops: LoopMonitor::new(parameters.loop_timeout, LOOPS_IN_FLIGHT, LossTest::standard()),
            seen,
            reassembler: Reassembler::new(ReassemblyLimits::default()),
            evicted: 0,
            events: VecDeque::new(),
            counts: ClientCounts::default(),
            drops: Arc::default(),
            view,
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

    /// Its gateway's place in the node list.
    pub fn gateway(&self) -> NodeIndex {
        self.gateway
    }

    /// Its Sphinx key, as packets to it use it.
    pub fn public_key(&self) -> PublicKey {
        self.keys.sphinx.public_key()
    }

    /// The epoch that it works in.
    pub fn view(&self) -> &Arc<EpochView> {
        &self.view
    }

    /// The epochs have changed. What was built ahead for others is built anew; a gateway that is not in the current epoch
    /// leaves the client in the one that it was in.
    pub fn handle_views(&mut self, views: SendViews) {
        let Some(gateway) = views.current.gateway(&self.keys.gateway) else { return };
        (self.gateway, self.view) = (gateway, views.current);
        self.ready_cover.clear();
        self.ready_loop = None;
        self.ready_drop = None;
    }

    /// The gateway's link came up or went down. While it is down nothing is emitted: ticks pass, messages wait.
    pub fn handle_link(&mut self, connected: bool) {
        self.connected = connected;
        self.out.clear();
        if connected {
            self.out.push_back(Frame::collect(self.collects, self.acknowledged));
            self.told = self.collects;
        }
    }

    /// Whether mail is wanted; without it the gateway keeps everything. Wanted from the start.
    ///
    /// The gateway learns it when the link comes up, else at the next tick of the main clock, in the place of a packet:
    /// one more frame would show an observer of the link when this client changes its mind.
    pub fn handle_collect(&mut self, wanted: bool) {
        self.collects = wanted;
    }

    /// Queues a message.
    pub fn handle_send(
        &mut self,
        now: Time,
        id: MessageId,
        to: Recipient,
        body: Vec<u8>,
    ) -> Result<(), SendError> {
        self.queue.push(now, id, to, body)
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
                if frame.mail_previous() <= self.acknowledged {
                    self.acknowledged = self.acknowledged.max(frame.mail_number());
                }
                let held = frame.mail_held();
                if let Err(reason) = self.open_mail(now, &mut frame, held) {
                    self.drops.count(reason);
                }
            }
            Ok(FrameKind::Padding) => self.counts.padding += 1,
            Ok(FrameKind::Displaced) => self.events.push_back(ClientEvent::Displaced),
            Ok(FrameKind::Packet | FrameKind::Collect | FrameKind::Hold) => {
                self.drops.count(DropReason::WrongDirection);
            }
            Err(_) => self.drops.count(DropReason::BadFrame),
        }
    }

    /// The next frame for the gateway, if one is due.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Frame> {
        while let Some((due, stream)) = self.schedule.poll(now) {
            if self.connected {
                let mut frame = self.emit(due, stream);
                if frame.kind() == Ok(FrameKind::Packet) {
                    frame.set_acknowledged(self.acknowledged as u16);
                }
                self.out.push_back(frame);
            }
        }
        self.out.pop_front()
    }

    /// The next event for the application.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// When [`poll_transmit`](Self::poll_transmit) has something again, if no input comes before.
    pub fn poll_timeout(&self) -> Time {
        self.schedule.poll_timeout()
    }

    /// Counts loops that are overdue and drops messages that were never completed. [`work`](Self::work) does it too, but
    /// may not be called under load.
    pub fn expire(&mut self, now: Time) {
        while self.loops.poll_expired(now).is_some() {}
        self.reassembler.expire(now);
        self.count_evicted();
    }

    /// Builds one packet ahead, if one is missing. Returns whether it did.
    pub fn work(&mut self, now: Time) -> bool {
        self.expire(now);
        if !self.connected {
            return false;
        }
        if self.wants_ready() && self.prepare_waiting() {
            return true;
        }
        if self.ready_cover.len() < PREPARED_AHEAD {
            let cover = self.build_drop();
            self.ready_cover.push_back(cover);
        } else if self.ready_loop.is_none() {
            self.ready_loop = Some(self.build_loop());
        } else if self.ready_drop.is_none() {
            self.ready_drop = Some(self.build_drop());
        } else {
            return false;
        }
        true
    }

    /// Messages that wait for the clock, those that are built ahead included.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.ready.len()
    }

    /// Bytes of the messages that wait for the clock.
    pub fn waiting_bytes(&self) -> usize {
        self.queue.bytes()
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

    fn emit(&mut self, due: Time, stream: Stream) -> Frame {
        match stream {
            Stream::Main if self.told != self.collects => {
                self.told = self.collects;
                Frame::collect(self.collects, self.acknowledged)
            }
            Stream::Main => {
                if self.ready.is_empty() {
                    self.prepare_waiting();
                }
                match self.ready.pop_front() {
                    Some(ready) => self.emit_ready(due, ready),
                    None => {
                        self.counts.cover += 1;
                        self.ready_cover.pop_front().unwrap_or_else(|| self.build_drop()).frame
                    }
                }
            }
            Stream::Loop => {
                self.counts.loops += 1;
                let (identifier, prepared) = self.ready_loop.take().unwrap_or_else(|| self.build_loop());
                // One that the gateway is asked to keep says nothing about the network. And a full monitor means that
                // thousands are under way: the loop goes out as cover, uncounted.
                if self.told {
                    let _ = self.loops.sent(due, identifier, ());
                }
                prepared.frame
            }
            Stream::Drop => {
                self.counts.drops += 1;
                self.ready_drop.take().unwrap_or_else(|| self.build_drop()).frame
            }
        }
    }

    fn emit_ready(&mut self, due: Time, ready: Ready) -> Frame {
        match ready.content {
            Content::Fragment { message, index, count, queued } => {
                self.counts.real += 1;
                self.events.push_back(ClientEvent::Emitted(Emitted {
                    message,
                    index,
                    count,
                    queued,
                    emitted: due,
                    delays: ready.prepared.delays,
                }));
            }
            Content::Probe => self.counts.probes += 1,
        }
        ready.prepared.frame
    }

    /// Whether one more real packet may be built ahead: the first, or one that overtakes a long message's.
    fn wants_ready(&self) -> bool {
        self.ready.is_empty() || (self.ready.len() < PREPARED_AHEAD && self.queue.has_fresh())
    }

    /// Builds the next thing that waits, if anything does.
    fn prepare_waiting(&mut self) -> bool {
        if let Some(probe) = self.probes.pop_front() {
            let filler = self.builder.filler(payload_type::PROBE);
            let prepared = self.builder.build(
                &probe.view,
                FirstLink::FromClient,
                &probe.mixes,
                &End::Node(probe.end),
                probe.identifier,
                &filler,
            );
            self.ready.push_back(Ready::new(prepared, Content::Probe));
            return true;
        }
        let mut text = [0; PLAINTEXT_MAX];
        let Some(next) = self.queue.next_fragment(&mut text) else { return false };
        let mixes = self.view.draw_route(self.builder.rng());
        let identifier = self.builder.identifier();
        // Its place in the node list may have changed since the message was queued.
        let gateway = self.view.gateway(&next.to.address.gateway).unwrap_or(next.to.gateway);
        let end = End::Client { gateway, mailbox: next.to.address.mailbox, key: next.to.key };
        let prepared = self.builder.build(
            &self.view,
            FirstLink::FromClient,
            &mixes,
            &end,
            identifier,
            &text[..next.len],
        );
        let content = Content::Fragment {
            message: next.message,
            index: next.index,
            count: next.count,
            queued: next.queued,
        };
        // The beginning of a message overtakes the middle of another, but no other beginning.
        let place = match self.ready.iter().rposition(Ready::is_overtaken_no_more) {
            _ if next.index > 0 => self.ready.len(),
            Some(last) => last + 1,
            None => 0,
        };
        self.ready.range_mut(place..).for_each(|later| later.overtaken += 1);
        self.ready.insert(place, Ready::new(prepared, content));
        true
    }

    /// Cover that ends at a random gateway.
    fn build_drop(&mut self) -> Prepared {
        let mixes = self.view.draw_route(self.builder.rng());
        let gateway = self.view.draw_gateway(self.builder.rng());
        self.build_filler(&mixes, &End::Node(gateway)).1
    }

    /// Cover that comes back to this client.
    fn build_loop(&mut self) -> (Identifier, Prepared) {
        let mixes = self.view.draw_route(self.builder.rng());
        let end =
            End::Client { gateway: self.gateway, mailbox: self.mailbox, key: self.keys.sphinx.public_key() };
        self.build_filler(&mixes, &end)
    }

    fn build_filler(&mut self, mixes: &[NodeIndex], end: &End) -> (Identifier, Prepared) {
        let identifier = self.builder.identifier();
        let filler = self.builder.filler(payload_type::COVER);
        let prepared = self.builder.build(&self.view, FirstLink::FromClient, mixes, end, identifier, &filler);
        (identifier, prepared)
    }

    fn open_mail(&mut self, now: Time, frame: &mut Frame, held: Duration) -> Result<(), DropReason> {
        let routing = unpaid(verify(&self.keys.sphinx, frame.packet_mut()), &self.seen)?;
        let Routing::Final(destination) = routing else { return Err(DropReason::BadNextHop) };
        let text = plaintext(payload_of(frame.packet())).map_err(|_| DropReason::BadPayload)?;
        match fragment::parse(text) {
            Ok(Payload::Cover) => {
                self.loops.returned(now, destination.identifier);
                Ok(())
            }
            Ok(Payload::Probe) => {
                self.events.push_back(ClientEvent::Probe(destination.identifier));
                Ok(())
            }
            Ok(Payload::Fragment(header, data)) => {
                let message = header.message;
                let added = self.reassembler.add(now, header, data);
                self.count_evicted();
                match added {
                    Added::Complete(body) => self.events.push_back(ClientEvent::Received(Received {
                        message,
                        body,
                        received: now,
                        held,
                        fragments: header.count,
                    })),
                    Added::Partial { have, count } => {
                        self.events.push_back(ClientEvent::Progress { message, have, count });
                    }
                    Added::Duplicate => return Err(DropReason::DuplicateFragment),
                    Added::Contradiction => return Err(DropReason::BadFragment),
                }
                Ok(())
            }
            Err(_) => Err(DropReason::BadFragment),
        }
    }

    /// Counts the incomplete messages that had to go since the last call.
    fn count_evicted(&mut self) {
        for _ in self.evicted..self.reassembler.evicted() {
            self.drops.count(DropReason::ReassemblyFull);
        }
        self.evicted = self.reassembler.evicted();
    }
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
