//! What waits to be sent: messages, cut into fragments as the emission clock asks for them.
//!
//! A message that has not begun goes before those that have, so that a short message does not wait behind a long
//! file; but every fourth turn belongs to those that have begun, in rotation, so that none of them starves.

use std::collections::VecDeque;

use thiserror::Error;
use tombola_mixing::Time;
use tombola_sphinx::PLAINTEXT_MAX;

use crate::fragment::{self, MESSAGE_MAX, MessageId};
use crate::view::Recipient;

/// One turn in this many belongs to a message that has begun, if there is one.
const TURN_OF_THE_BEGUN: u32 = 4;

/// Bounds of a [`SendQueue`].
#[derive(Clone, Copy, Debug)]
pub struct SendLimits {
    /// Most messages that wait at one time.
    pub messages: usize,
    /// Most bytes that wait at one time.
    pub bytes: usize,
}

impl Default for SendLimits {
    fn default() -> Self {
        Self { messages: 4096, bytes: 2 * MESSAGE_MAX }
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// Longer than a message may be.
    #[error(
        "a message of {len} bytes is longer than the {MESSAGE_MAX} bytes that a message may have; split it"
    )]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// The queue is full.
    #[error("the send queue is full; wait until messages have been sent")]
    QueueFull,
}

#[derive(Debug)]
struct Outgoing {
    id: MessageId,
    to: Recipient,
    body: Vec<u8>,
    next: u32,
    count: u32,
    queued: Time,
}

/// A fragment that was taken from the queue.
#[derive(Debug)]
pub struct NextFragment {
    /// Its message.
    pub message: MessageId,
    /// Its place.
    pub index: u32,
    /// Fragments of the message.
    pub count: u32,
    /// When the message was queued.
    pub queued: Time,
    /// Its recipient.
    pub to: Recipient,
    /// How many bytes of the caller's buffer it takes.
    pub len: usize,
}

/// The queue.
#[derive(Debug)]
pub struct SendQueue {
    limits: SendLimits,
    fresh: VecDeque<Outgoing>,
    begun: VecDeque<Outgoing>,
    bytes: usize,
    turn: u32,
}

impl SendQueue {
    /// An empty queue.
    pub fn new(limits: SendLimits) -> Self {
        Self { limits, fresh: VecDeque::new(), begun: VecDeque::new(), bytes: 0, turn: 0 }
    }

    /// Takes a message in.
    pub fn push(&mut self, now: Time, id: MessageId, to: Recipient, body: Vec<u8>) -> Result<(), SendError> {
        if body.len() > MESSAGE_MAX {
            return Err(SendError::TooLong { len: body.len() });
        }
        if self.len() >= self.limits.messages || self.bytes + body.len() > self.limits.bytes {
            return Err(SendError::QueueFull);
        }
        self.bytes += body.len();
        let count = fragment::count_for(body.len());
        self.fresh.push_back(Outgoing { id, to, body, next: 0, count, queued: now });
        Ok(())
    }

    /// Cuts the next fragment into `plaintext`.
    pub fn next_fragment(&mut self, plaintext: &mut [u8; PLAINTEXT_MAX]) -> Option<NextFragment> {
        self.turn = (self.turn + 1) % TURN_OF_THE_BEGUN;
        let begun_first = self.turn == 0;
        let mut message = if begun_first {
            self.begun.pop_front().or_else(|| self.fresh.pop_front())
        } else {
            self.fresh.pop_front().or_else(|| self.begun.pop_front())
        }?;
        let index = message.next;
        let len = fragment::write(message.id, &message.body, index, plaintext);
        let taken = NextFragment {
            message: message.id,
            index,
            count: message.count,
            queued: message.queued,
            to: message.to.clone(),
            len,
        };
        message.next += 1;
        if message.next < message.count {
            self.begun.push_back(message);
        } else {
            self.bytes -= message.body.len();
        }
        Some(taken)
    }

    /// Whether a message waits that has not begun.
    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Messages that wait, begun or not.
    pub fn len(&self) -> usize {
        self.fresh.len() + self.begun.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the messages that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
