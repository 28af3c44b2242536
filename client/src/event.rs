//! What an application hears of its client.

use std::time::Duration;

use tombola_protocol::client::FinalState;
use tombola_protocol::fragment::MessageId;
use tombola_topology::ClientAddress;

use crate::content::{Content, ContentError};

/// What happens, as it happens. Times are nanoseconds since 1970 on this machine's clock.
#[derive(Debug)]
pub enum Event {
    /// The link to the gateway is up.
    Connected,
    /// The link to the gateway is down. The client connects again by itself; the outbox is kept.
    Disconnected,
    /// A packet of a message has left on the emission clock. Left out when the application does not keep up.
    Emitted(EmittedAt),
    /// Everything of a message has left for the first time.
    Sent(MessageId),
    /// A message is acknowledged, expired or cancelled. Comes again after a restart until the application has taken it.
    Ended(MessageId, FinalState),
    /// Some more of a long message arrived. Left out when the application does not keep up.
    Progress {
        /// Its message.
        message: MessageId,
        /// Packets here.
        have: u32,
        /// Packets of the message.
        count: u32,
    },
    /// A message arrived. Comes again after a restart until the application has taken it.
    Received(Received),
    /// A message arrived whole, but is no content of this version, or its signature does not hold.
    Unreadable(MessageId, ContentError),
    /// A ping was answered, that long after it left.
    Pong(MessageId, Duration),
    /// The outbox is getting full (`true`): soon [`send`](crate::Client::send) waits. Or it has room again.
    Backpressure(bool),
    /// What has to be kept could not be written to disk, for this reason; `None`: it is written again. Meanwhile nothing is
    /// lost: mail stays at the gateway, and messages are not taken as queued.
    Storage(Option<String>),
    /// The network document was refused, for this reason; the one before stays in force.
    DocumentRefused(String),
}

/// A packet that has left.
#[derive(Clone, Copy, Debug)]
pub struct EmittedAt {
    /// Its message.
    pub message: MessageId,
    /// Its place in it; parity comes after all data.
    pub index: u32,
    /// Packets of the message, without parity.
    pub count: u32,
    /// How often the message was sent before, in part or whole.
    pub attempt: u32,
    /// When the message was queued.
    pub queued_ns: u64,
    /// The tick on which the packet left.
    pub emitted_ns: u64,
    /// Sum of the delays that were drawn for it; zero for an answer, whose recipient has drawn them.
    pub delays: Duration,
}

/// A message that arrived.
#[derive(Debug)]
pub struct Received {
    /// Its id: the sender's [`Client::send`](crate::Client::send) returned the same.
    pub message: MessageId,
    /// What it says.
    pub content: Content,
    /// Packets that it needed.
    pub packets: u32,
    /// When it was complete.
    pub received_ns: u64,
    /// How long the gateway had held its last packet.
    pub held: Duration,
    /// Who sent it, if they signed it.
    pub sender: Option<ClientAddress>,
    /// The own message that it answers.
    pub reply_to: Option<MessageId>,
    /// Whether [`Client::reply`](crate::Client::reply) can answer it.
    pub answerable: bool,
    /// It was handed out by a process before this one that ended before it was taken.
    pub again: bool,
}
