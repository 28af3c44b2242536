//! From links into a node: packets of neighbours to the workers, everything else to a driver.

use std::sync::Arc;

use crossbeam_channel::Sender;
use tombola_link::{FrameSink, Taken};
use tombola_protocol::drops::{DropCounters, DropReason};
use tombola_protocol::frame::Frame;
use tombola_protocol::opener::Inbound;
use tombola_protocol::view::EpochView;
use tombola_topology::IdentityKey;

use crate::clock::Clock;
use crate::workers::Submitter;

/// Gives every frame of a neighbour its time of arrival and hands it to the workers. When their queue is full the frame
/// is dropped and counted: load is shed before a header is processed, and neighbours are not slowed down by each other.
pub struct Ingress {
    clock: Clock,
    view: Arc<EpochView>,
    workers: Submitter<Inbound>,
    drops: Arc<DropCounters>,
    packets_in: ::metrics::Counter,
}

impl Ingress {
    /// An ingress that feeds `workers`.
    #[must_use]
    pub fn new(
        clock: Clock,
        view: Arc<EpochView>,
        workers: Submitter<Inbound>,
        drops: Arc<DropCounters>,
    ) -> Self {
        let packets_in = ::metrics::counter!(crate::metrics::PACKETS_IN_TOTAL);
        Self { clock, view, workers, drops, packets_in }
    }
}

impl FrameSink for Ingress {
    fn connected(&self, _: &IdentityKey) -> Taken {
        Taken::Yes
    }

    fn frames(&self, from: &IdentityKey, batch: &mut Vec<Frame>) {
        let arrived = self.clock.now();
        self.packets_in.increment(batch.len() as u64);
        let Some(from) = self.view.epoch().index_of(from) else {
            // Links accept neighbours only, and those are in the list.
            return batch.drain(..).for_each(|_| self.drops.count(DropReason::WrongDirection));
        };
        for frame in batch.drain(..) {
            if self.workers.try_submit(Inbound { arrived, from, frame }).is_err() {
                self.drops.count(DropReason::Overload);
            }
        }
    }

    fn disconnected(&self, _: &IdentityKey) -> Taken {
        Taken::Yes
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
    inputs: Sender<I>,
    input_of: F,
}

impl<I, F: Fn(LinkChange) -> I> InputSink<I, F> {
    /// A sink that turns link changes into inputs of a driver.
    pub fn new(inputs: Sender<I>, input_of: F) -> Self {
        Self { inputs, input_of }
    }

    /// Several links share the channel, so room may be gone between question and answer: then this waits for the driver's
    /// next look, some microseconds. A driver that has stopped takes nothing more, and nothing more matters.
    fn pass(&self, change: LinkChange) -> Taken {
        if self.inputs.is_full() {
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
        let room = self.inputs.capacity().map_or(batch.len(), |all| all - self.inputs.len().min(all));
        for frame in batch.drain(..room.min(batch.len())) {
            let _ = self.inputs.send((self.input_of)(LinkChange::Frame(*from, frame)));
        }
    }

    fn disconnected(&self, peer: &IdentityKey) -> Taken {
        self.pass(LinkChange::Disconnected(*peer))
    }
}
