//! What a client takes from its application, and tells it.

use core::time::Duration;

use tombola_mixing::Time;

use super::FinalState;
use crate::fragment::MessageId;
use crate::packet::Identifier;
use crate::records::InboxRecord;

/// How a message is sent.
#[derive(Clone, Copy, Debug)]
pub struct SendOptions {
    /// How many packets its recipient may answer with.
    pub replies: u16,
    /// How long it is tried.
    pub lifetime: Duration,
}

impl Default for SendOptions {
    /// No answers; two weeks.
    fn default() -> Self {
        Self { replies: 0, lifetime: Duration::from_secs(14 * 24 * 3600) }
    }
}

/// What happened, for the application.
#[derive(Debug)]
pub enum ClientEvent {
    /// A message is in the outbox, durably.
    Queued(MessageId),
    /// A packet of a message left on the emission clock.
    Emitted(Emitted),
    /// Everything of a message has left for the first time.
    Sent(MessageId),
    /// A message is acknowledged, expired or cancelled. Comes again after a restart until [`Client::handle_noted`](super::Client::handle_noted).
    Ended(MessageId, FinalState),
    /// A whole message arrived. Comes again after a restart until [`Client::handle_accept`](super::Client::handle_accept).
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
    /// A ping was answered.
    Pong {
        /// Its id.
        message: MessageId,
        /// From the tick on which it left to the answer.
        took: Duration,
    },
    /// The outbox is getting full, or has room again.
    Backpressure(bool),
    /// A mix node's half-loop ended here (its account's mailbox).
    Probe(Identifier),
    /// Another process connects with this client's identity: the gateway serves that one now.
    Displaced,
}

/// A packet of a message that left.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// Its message.
    pub message: MessageId,
    /// Its place, counted through the whole message; parity is behind all data.
    pub index: u32,
    /// Data fragments of the message.
    pub count: u32,
    /// How often the message was sent before, in part or whole.
    pub attempt: u32,
    /// When the message was queued.
    pub queued: Time,
    /// The tick of the emission clock that it left on.
    pub emitted: Time,
    /// Sum of the delays that were drawn for it; zero for an answer, of which its recipient knows them.
    pub delays: Duration,
}

/// A message that arrived.
pub struct Received {
    /// Its id, as the sender chose it.
    pub message: MessageId,
    /// Its content.
    pub body: Vec<u8>,
    /// When its last fragment arrived, nanoseconds since 1970.
    pub received_ns: u64,
    /// How long the gateway held that fragment until it had a slot on the downlink.
    pub held: Duration,
    /// How many packets it needed.
    pub packets: u32,
    /// The own message that it answers.
    pub reply_to: Option<MessageId>,
    /// Whether it can be answered.
    pub answerable: bool,
    /// It was handed out before a restart already, and was not accepted.
    pub again: bool,
}

impl Received {
    pub(super) fn new(message: MessageId, record: &InboxRecord, body: Vec<u8>, again: bool) -> Self {
        Self {
            message,
            body,
            received_ns: record.received_ns,
            held: record.held,
            packets: record.packets,
            reply_to: record.via,
            answerable: record.answerable,
            again,
        }
    }
}

impl core::fmt::Debug for Received {
    /// Shows no content.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Received({} bytes)", self.body.len())
    }
}

/// What a client sent and received so far, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounts {
    /// Packets of messages.
    pub real: u64,
    /// Those among them that repeat or repair something.
    pub retransmitted: u64,
    /// Reports, requests, reply blocks and pings, on the main clock.
    pub control: u64,
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
            retransmitted: self.retransmitted + other.retransmitted,
            control: self.control + other.control,
            cover: self.cover + other.cover,
            loops: self.loops + other.loops,
            drops: self.drops + other.drops,
            probes: self.probes + other.probes,
            mail: self.mail + other.mail,
            padding: self.padding + other.padding,
        }
    }
}
