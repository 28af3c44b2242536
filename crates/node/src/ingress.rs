//! From links into a node: packets of neighbours to whoever opens them, everything else to a driver.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::TrySendError;
use tombola_link::{FrameSink, Taken};
use tombola_protocol::drops::{DropCounters, DropReason};
use tombola_protocol::frame::{Frame, FrameKind};
use tombola_protocol::opener::Inbound;
use tombola_topology::IdentityKey;

use crate::clock::Clock;
use crate::driver::Inputs;
use crate::opening::ToOpeners;

/// Gives every frame of a neighbour its time of arrival and has it opened. When the workers' queue is full the frame is
/// dropped and counted: load is shed before a header is processed, and neighbours are not slowed down by each other. Without
/// workers what the driver has no room for stays with the link.
pub struct Ingress {
    clock: Clock,
    openers: ToOpeners,
    drops: Arc<DropCounters>,
    packets_in: ::metrics::Counter,
    payment: Option<Arc<dyn Pass>>,
}

/// Where a neighbour's control frames go, and what happens to its link.
trait Pass: Send + Sync {
    fn room(&self) -> usize;
    fn pass(&self, change: LinkChange) -> Taken;
    /// It is not lost: nobody sends it again.
    fn send(&self, change: LinkChange);
}

impl<I, F> Pass for InputSink<I, F>
where
    I: Send + 'static,
    F: Fn(LinkChange) -> I + Send + Sync + 'static,
{
    fn room(&self) -> usize {
        InputSink::room(self)
    }

    fn pass(&self, change: LinkChange) -> Taken {
        InputSink::pass(self, change)
    }

    fn send(&self, change: LinkChange) {
        InputSink::send(self, change);
    }
}

impl Ingress {
    /// An ingress that feeds `openers`.
    #[must_use]
    pub fn new(clock: Clock, openers: ToOpeners, drops: Arc<DropCounters>) -> Self {
        let packets_in = ::metrics::counter!(crate::metrics::PACKETS_IN_TOTAL);
        Self { clock, openers, drops, packets_in, payment: None }
    }

    /// Passes control frames, and links that come and go, to a driver: packets are paid for.
    #[must_use]
    pub fn with_payment<I, F>(mut self, sink: InputSink<I, F>) -> Self
    where
        I: Send + 'static,
        F: Fn(LinkChange) -> I + Send + Sync + 'static,
    {
        self.payment = Some(Arc::new(sink));
        self
    }

    fn tell(&self, change: LinkChange) -> Taken {
        self.payment.as_ref().map_or(Taken::Yes, |payment| payment.pass(change))
    }

    /// How many frames there is room for, whatever they are: packets and control frames may end in the same queue.
    fn room(&self) -> usize {
        self.payment.as_ref().map_or(usize::MAX, |payment| payment.room()).min(self.openers.room())
    }

    fn is_control(&self, frame: &Frame) -> bool {
        self.payment.is_some() && frame.kind() == Ok(FrameKind::Control)
    }
}

impl FrameSink for Ingress {
    fn connected(&self, peer: &IdentityKey) -> Taken {
        self.tell(LinkChange::Connected(*peer))
    }

    fn frames(&self, from: &IdentityKey, batch: &mut Vec<Frame>) {
        let arrived = self.clock.now();
        let room = self.room().min(batch.len());
        let mut packets = 0;
        let inbound = batch.drain(..room).filter_map(|frame| {
            if let (true, Some(payment)) = (self.is_control(&frame), &self.payment) {
                payment.send(LinkChange::Frame(*from, frame));
                return None;
            }
            packets += 1;
            Some(Inbound { arrived, from: *from, frame })
        });
        self.openers.open(inbound, |_| self.drops.count(DropReason::Overload));
        self.packets_in.increment(packets);
    }

    fn disconnected(&self, peer: &IdentityKey) -> Taken {
        self.tell(LinkChange::Disconnected(*peer))
    }
}

/// What happened on a link.
#[derive(Debug)]
pub enum LinkChange {
    /// It is up.
    Connected(IdentityKey),
    /// A frame came.
    Frame(IdentityKey, Frame),
    /// It is down.
    Disconnected(IdentityKey),
}

/// Passes everything that happens on some links to a driver, as its inputs. A driver that does not keep up stops the
/// links' readers.
pub struct InputSink<I, F> {
    inputs: Inputs<I>,
    input_of: F,
    takes_padding: bool,
    /// What the driver had no room for any more when it was to be handed in. It goes before everything else; until then nothing
    /// more is taken, so that there are no more of these than a batch of each link.
    late: Mutex<VecDeque<I>>,
}

impl<I, F: Fn(LinkChange) -> I> InputSink<I, F> {
    /// A sink that turns link changes into inputs of a driver.
    pub fn new(inputs: Inputs<I>, input_of: F) -> Self {
        Self { inputs, input_of, takes_padding: true, late: Mutex::default() }
    }

    /// Ends padding here: a client's driver need not be woken for what says nothing. The links have counted it.
    #[must_use]
    pub fn without_padding(self) -> Self {
        Self { takes_padding: false, ..self }
    }

    fn pass(&self, change: LinkChange) -> Taken {
        // Not kept here: whoever passes it does so again, also when nothing else comes any more.
        if !self.flush().is_empty() {
            return Taken::NotNow;
        }
        match self.inputs.try_send((self.input_of)(change)) {
            Err(TrySendError::Full(_)) => Taken::NotNow,
            Ok(()) | Err(TrySendError::Disconnected(_)) => Taken::Yes,
        }
    }

    fn room(&self) -> usize {
        if self.flush().is_empty() { self.inputs.room() } else { 0 }
    }

    /// Links and others share the channel, so room may be gone between question and answer. To wait for the driver is not
    /// possible, because it may run on this thread; so this waits for its turn. A driver that has stopped takes nothing more,
    /// and nothing more matters.
    fn send(&self, change: LinkChange) {
        let mut late = self.flush();
        late.push_back((self.input_of)(change));
        self.hand_in(&mut late);
    }

    fn flush(&self) -> MutexGuard<'_, VecDeque<I>> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        self.hand_in(&mut late);
        late
    }

    fn hand_in(&self, late: &mut VecDeque<I>) {
        while let Some(input) = late.pop_front() {
            if let Err(TrySendError::Full(input)) = self.inputs.try_send(input) {
                late.push_front(input);
                return;
            }
        }
    }
}

impl<I, F> FrameSink for InputSink<I, F>
where
    I: Send + 'static,
    F: Fn(LinkChange) -> I + Send + Sync + 'static,
{
    fn connected(&self, peer: &IdentityKey) -> Taken {
        self.pass(LinkChange::Connected(*peer))
    }

    fn frames(&self, from: &IdentityKey, batch: &mut Vec<Frame>) {
        if !self.takes_padding {
            batch.retain(|frame| frame.kind() != Ok(FrameKind::Padding));
        }
        let room = self.room().min(batch.len());
        for frame in batch.drain(..room) {
            self.send(LinkChange::Frame(*from, frame));
        }
    }

    fn disconnected(&self, peer: &IdentityKey) -> Taken {
        self.pass(LinkChange::Disconnected(*peer))
    }
}

#[cfg(test)]
mod tests {
    use tombola_protocol::opener::{Occupancy, Opener};
    use tombola_topology::Parameters;

    use super::*;
    use crate::driver;
    use crate::opening::Openers;
    use crate::shutdown::Shutdown;

    const PEER: IdentityKey = IdentityKey::from_bytes([1; 32]);

    fn control(number: u8) -> Frame {
        let mut frame = Frame::zeroed();
        frame.as_bytes_mut()[0] = FrameKind::Control as u8;
        frame.as_bytes_mut()[100] = number;
        frame
    }

    #[test]
    fn a_control_frame_is_not_lost_though_somebody_else_takes_the_room() {
        let (inputs, received) = driver::inputs::<u8>(1);
        let drops = Arc::<DropCounters>::default();
        let opener = Opener::new(&Parameters::default(), Occupancy::new(1), Arc::clone(&drops));
        let stop = Shutdown::new();
        let openers = Openers::start(Arc::new(opener), 1, &inputs, |_| 0, stop.clone()).unwrap();
        // Just when the frame is to be handed in, the disk says that something is durable.
        let other = inputs.clone();
        let sink = InputSink::new(inputs, move |change| {
            let LinkChange::Frame(_, frame) = change else { return 0 };
            let number = frame.as_bytes()[100];
            if number == 1 {
                other.try_send(100).unwrap();
            }
            number
        });
        let ingress = Ingress::new(Clock::start(), openers.way(), drops).with_payment(sink);
        let mut batch = vec![control(1), control(2)];
        let mut seen = vec![];
        for _ in 0..4 {
            ingress.frames(&PEER, &mut batch);
            seen.extend(received.try_take());
        }
        assert_eq!(seen, [100, 1, 2], "in the order in which they came");
        assert!(batch.is_empty());
        stop.trigger(crate::shutdown::Cause::Requested("the test is over"));
        drop(ingress);
        openers.join().unwrap();
    }
}
