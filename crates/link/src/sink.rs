//! Where received frames go.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tombola_protocol::frame::Frame;
use tombola_topology::IdentityKey;

/// Whether a [`FrameSink`] has taken what it was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// It has, or it never will and wants no more of it.
    Yes,
    /// It has no room: the link offers it again, some 2 ms later.
    NotNow,
}

/// Takes in what links receive. The consumer supplies it to [`start`](crate::start).
///
/// # Contract
///
/// For one peer the calls never overlap and come in this order, again and again: `connected` until it is taken; `frames`
/// any number of times; `disconnected` until it is taken. Frames come in the order in which the peer sent them. Calls for
/// different peers come from different threads at the same time.
///
/// The calls come from tasks of the runtime that move bytes: they must return quickly and never block. A sink may call
/// [`Links::send`](crate::Links::send) and give buffers back, but not replace peers or shut down.
///
/// # Backpressure
///
/// A sink bounds itself: it leaves in the batch what it has no room for. The link then reads nothing more from that peer,
/// offers the rest again every 2 ms, and lets the transport's flow control stop the sender, whose own bounded queue fills
/// and refuses. Per peer, no more than one batch ([`BATCH`](crate::BATCH) frames) and the transport's receive window wait
/// on this side.
pub trait FrameSink: Send + Sync + 'static {
    /// A link to `peer` is up: both streams are open. [`Links::send`](crate::Links::send) reaches it now.
    fn connected(&self, peer: &IdentityKey) -> Taken;

    /// Takes frames from the front of `batch`, which holds 1 to [`BATCH`](crate::BATCH) of them. What it leaves is offered
    /// again. A sink that takes all can take the whole vector with [`std::mem::take`].
    fn frames(&self, from: &IdentityKey, batch: &mut Vec<Frame>);

    /// The link to `peer` is down. Each `connected` that was taken is followed by one of these.
    fn disconnected(&self, peer: &IdentityKey) -> Taken;
}

/// What a [`ChannelSink`] passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// See [`FrameSink::connected`].
    Connected(IdentityKey),
    /// See [`FrameSink::frames`]. Never empty.
    Frames(IdentityKey, Vec<Frame>),
    /// See [`FrameSink::disconnected`].
    Disconnected(IdentityKey),
}

/// The simplest sink: one bounded channel for all peers, for a thread to read.
#[derive(Debug)]
pub struct ChannelSink(Sender<LinkEvent>);

impl ChannelSink {
    /// A sink and its other end. At most `events` wait in between, each of up to [`BATCH`](crate::BATCH) frames.
    #[must_use]
    pub fn new(events: usize) -> (Self, Receiver<LinkEvent>) {
        let (sender, receiver) = bounded(events);
        (Self(sender), receiver)
    }

    /// A consumer that has hung up wants nothing more: everything counts as taken.
    fn offer(&self, event: LinkEvent) -> Result<(), LinkEvent> {
        match self.0.try_send(event) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(event)) => Err(event),
        }
    }
}

impl FrameSink for ChannelSink {
    fn connected(&self, peer: &IdentityKey) -> Taken {
        self.offer(LinkEvent::Connected(*peer)).map_or(Taken::NotNow, |()| Taken::Yes)
    }

    fn frames(&self, from: &IdentityKey, batch: &mut Vec<Frame>) {
        if let Err(LinkEvent::Frames(_, refused)) =
            self.offer(LinkEvent::Frames(*from, std::mem::take(batch)))
        {
            *batch = refused;
        }
    }

    fn disconnected(&self, peer: &IdentityKey) -> Taken {
        self.offer(LinkEvent::Disconnected(*peer)).map_or(Taken::NotNow, |()| Taken::Yes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IdentityKey = IdentityKey::from_bytes([1; 32]);

    #[test]
    fn a_full_channel_leaves_the_batch_where_it_was() {
        let (sink, events) = ChannelSink::new(1);
        assert_eq!(sink.connected(&PEER), Taken::Yes);
        let mut batch = vec![Frame::zeroed(), Frame::zeroed()];
        sink.frames(&PEER, &mut batch);
        assert_eq!(batch.len(), 2);
        assert_eq!(sink.disconnected(&PEER), Taken::NotNow);
        assert_eq!(events.recv(), Ok(LinkEvent::Connected(PEER)));
        sink.frames(&PEER, &mut batch);
        assert!(batch.is_empty());
        assert_eq!(events.recv(), Ok(LinkEvent::Frames(PEER, vec![Frame::zeroed(), Frame::zeroed()])));
    }

    #[test]
    fn a_consumer_that_is_gone_stops_nobody() {
        let (sink, events) = ChannelSink::new(1);
        drop(events);
        let mut batch = vec![Frame::zeroed()];
        for _ in 0..3 {
            sink.frames(&PEER, &mut batch);
            assert!(batch.is_empty());
            assert_eq!(sink.disconnected(&PEER), Taken::Yes);
        }
    }
}
