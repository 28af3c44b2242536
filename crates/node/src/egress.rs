//! From a driver to links: a frame for a neighbour. A packet may be lost on the way, what there is to say about payment not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tombola_link::{Links, SendError};
use tombola_protocol::drops::{DropCounters, DropReason};
use tombola_protocol::frame::{Frame, FrameKind};
use tombola_topology::IdentityKey;

/// Control frames that wait for a link whose queue is full: more than a link takes before it counts as stalled, and then both
/// sides say anew what they agree on.
const HELD_MAX: usize = 4096;

/// The end of a link's queue. Control frames that the queue has no room for wait here, and leave before everything that comes
/// later: nothing sends them again, and whoever misses one pays no more or is not believed any more.
#[derive(Debug, Default)]
pub struct Outlet {
    held: VecDeque<Frame>,
}

impl Outlet {
    /// Sends a frame to `to`, behind those that wait.
    ///
    /// # Errors
    /// The frame is lost: it is a packet and the queue is full, or there is no such link.
    pub fn send(&mut self, links: &Links, to: &IdentityKey, frame: Frame) -> Result<(), SendError> {
        self.push(frame, |frame| links.send(to, frame))
    }

    /// What waits belongs to a connection that is gone.
    pub fn clear(&mut self) {
        self.held.clear();
    }

    fn push(
        &mut self,
        frame: Frame,
        mut send: impl FnMut(Frame) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        while let Some(earlier) = self.held.pop_front() {
            match send(earlier) {
                Ok(()) => {}
                Err(SendError::Full(earlier)) => {
                    self.held.push_front(earlier);
                    return self.hold(frame);
                }
                Err(_) => self.held.clear(),
            }
        }
        match send(frame) {
            Err(SendError::Full(frame)) => self.hold(frame),
            sent => sent,
        }
    }

    fn hold(&mut self, frame: Frame) -> Result<(), SendError> {
        if frame.kind() == Ok(FrameKind::Control) && self.held.len() < HELD_MAX {
            self.held.push_back(frame);
            return Ok(());
        }
        Err(SendError::Full(frame))
    }
}

/// Sends frames to neighbours.
pub struct Egress {
    links: Links,
    drops: Arc<DropCounters>,
    packets_out: ::metrics::Counter,
    outlets: BTreeMap<IdentityKey, Outlet>,
}

impl Egress {
    /// An egress over `links`, which know the neighbours of all epochs in use.
    #[must_use]
    pub fn new(links: Links, drops: Arc<DropCounters>) -> Self {
        let packets_out = ::metrics::counter!(crate::metrics::PACKETS_OUT_TOTAL);
        Self { links, drops, packets_out, outlets: BTreeMap::new() }
    }

    /// Hands a frame to the link. A queue that is full, or a node that is no neighbour, costs the packet; it is counted. A
    /// control frame waits until there is room.
    pub fn send(&mut self, to: &IdentityKey, frame: Frame) {
        let is_packet = frame.kind() == Ok(FrameKind::Packet);
        match self.outlets.entry(*to).or_default().send(&self.links, to, frame) {
            Ok(()) if is_packet => self.packets_out.increment(1),
            Ok(()) => {}
            Err(SendError::Unknown(_)) => {
                // It has left the network.
                self.outlets.remove(to);
                self.drops.count(DropReason::LinkFull);
            }
            Err(_) => self.drops.count(DropReason::LinkFull),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: FrameKind, number: u8) -> Frame {
        let mut frame = Frame::zeroed();
        frame.as_bytes_mut()[0] = kind as u8;
        frame.as_bytes_mut()[100] = number;
        frame
    }

    /// Sends to a queue of two.
    fn send(outlet: &mut Outlet, queue: &mut VecDeque<u8>, frame: Frame) -> bool {
        let sent = outlet.push(frame, |frame| {
            if queue.len() >= 2 {
                return Err(SendError::Full(frame));
            }
            queue.push_back(frame.as_bytes()[100]);
            Ok(())
        });
        sent.is_ok()
    }

    #[test]
    fn a_full_queue_costs_packets_and_no_control_frame() {
        let (mut outlet, mut queue) = (Outlet::default(), VecDeque::new());
        let mut lost = vec![];
        for number in 0..8 {
            let kind = if number % 2 == 1 { FrameKind::Control } else { FrameKind::Packet };
            if !send(&mut outlet, &mut queue, frame(kind, number)) {
                lost.push(number);
            }
        }
        assert_eq!(lost, [2, 4, 6]);
        assert_eq!(queue, [0, 1]);
        queue.clear();
        assert!(send(&mut outlet, &mut queue, frame(FrameKind::Control, 9)), "it waits behind the others");
        assert_eq!(queue, [3, 5]);
        queue.clear();
        assert!(!send(&mut outlet, &mut queue, frame(FrameKind::Packet, 10)), "two wait, and fill the queue");
        assert_eq!(queue, [7, 9]);
        queue.clear();
        assert!(send(&mut outlet, &mut queue, frame(FrameKind::Packet, 11)));
        assert_eq!(queue, [11], "in the order in which they were sent");
    }

    #[test]
    fn what_waits_ends_with_its_connection_and_is_bounded() {
        let (mut outlet, mut queue) = (Outlet::default(), VecDeque::from([0, 0]));
        let control = || frame(FrameKind::Control, 1);
        assert!((0..HELD_MAX).all(|_| send(&mut outlet, &mut queue, control())));
        assert!(!send(&mut outlet, &mut queue, control()));
        outlet.clear();
        queue.clear();
        assert!(send(&mut outlet, &mut queue, frame(FrameKind::Packet, 2)));
        assert_eq!(queue, [2]);
    }
}
