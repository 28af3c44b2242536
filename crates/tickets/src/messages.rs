//! What issuer and recipient tell each other. The link puts it into control frames.

use crate::ack_list::AckList;
use crate::batch::SignedBatch;
use crate::bytes::{concat, keccak};
use crate::lottery::{Commitment, WindowNumber};
use crate::por::Ack;

const LABEL: &[u8; 17] = b"tombola/session/1";

/// How far ahead of the Unix time sessions with a neighbour are numbered: `keccak("tombola/session/1" | secret | neighbour)[..4]`, of
/// which 28 bits count, eight years. It is always the same for a neighbour, so that sessions grow over restarts, and another one for each,
/// so that links which come up in the same second have no number in common.
#[must_use]
pub fn session_offset(secret: &[u8; 32], neighbour: &[u8; 32]) -> u32 {
    let hash = keccak::<4>(&*concat::<81>(&[LABEL, secret, neighbour]));
    u32::from_be_bytes([hash[0] & 0x0f, hash[1], hash[2], hash[3]])
}

/// Names a packet between two neighbours: the link's session, and the packet's number in it. Both grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId {
    /// The link's session, numbered by the issuer; grows with each reconnect and restart.
    pub session: u64,
    /// The packet in it.
    pub counter: u64,
}

/// An acknowledgement, as ack frames carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketAck {
    /// Which packet.
    pub packet: PacketId,
    /// What its hop reveals.
    pub ack: Ack,
}

/// From the one who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerMessage {
    /// A batch, byte for byte the same whenever it comes.
    Batch(SignedBatch),
    /// No batch of this number or a higher one will be signed in this window.
    Closed {
        /// The window.
        window: WindowNumber,
        /// Batches signed in it.
        batches: u16,
    },
    /// After a reconnect, behind the batches that were not received: what of the list we have.
    Resume {
        /// The session that begins.
        session: u64,
        /// Whether the unsigned list is still there.
        intact: bool,
        /// The list.
        list: AckList,
        /// The highest window for which the recipient sent a commitment, on any link.
        highest: Option<WindowNumber>,
    },
}

/// From the one who is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipientMessage {
    /// Opens a window, and asks for the end of the one before.
    Commitment {
        /// The window.
        window: WindowNumber,
        /// To its randomness.
        commitment: Commitment,
    },
    /// Asks for the end of a window after which none comes.
    End {
        /// The window.
        window: WindowNumber,
    },
    /// All batches of the window before this one are here.
    Received {
        /// The window.
        window: WindowNumber,
        /// The number that comes next.
        next: u16,
    },
    /// Answers [`IssuerMessage::Resume`].
    Resumed {
        /// The session that it named.
        session: u64,
        /// The unsigned list is void for both: one side lost it, or they differ. Both begin a new one. Else acknowledgements
        /// that did not arrive are repeated.
        void: bool,
    },
}
