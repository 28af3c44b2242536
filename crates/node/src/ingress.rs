//! From links into a node: packets of neighbours to whoever opens them, everything else to a driver.

use std::sync::Arc;

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
}

impl<I, F> Pass for InputSink<I, F>
where
    I: Send + 'static,
    F: Fn(LinkChange) -> I + Send + Sync + 'static,
{
    fn room(&self) -> usize {
        self.inputs.room()
    }

    fn pass(&self, change: LinkChange) -> Taken {
        InputSink::pass(self, change)
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
            if self.is_control(&frame) {
                let _ = self.tell(LinkChange::Frame(*from, frame));
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
}

impl<I, F: Fn(LinkChange) -> I> InputSink<I, F> {
    /// A sink that turns link changes into inputs of a driver.
    pub fn new(inputs: Inputs<I>, input_of: F) -> Self {
        Self { inputs, input_of, takes_padding: true }
    }

    /// Ends padding here: a client's driver need not be woken for what says nothing. The links have counted it.
    #[must_use]
    pub fn without_padding(self) -> Self {
        Self { takes_padding: false, ..self }
    }

    /// Several links share the channel, so room may be gone between question and answer: then this waits for the driver's
    /// next look, some microseconds. A driver that has stopped takes nothing more, and nothing more matters.
    fn pass(&self, change: LinkChange) -> Taken {
        if self.inputs.room() == 0 {
            return Taken::NotNow;
        }
        let _ = self.inputs.send((self.input_of)(change));
        Taken::Yes
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
        let room = self.inputs.room().min(batch.len());
        for frame in batch.drain(..room) {
            let _ = self.inputs.send((self.input_of)(LinkChange::Frame(*from, frame)));
        }
    }

    fn disconnected(&self, peer: &IdentityKey) -> Taken {
        self.pass(LinkChange::Disconnected(*peer))
    }
}
