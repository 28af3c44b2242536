//! The protocol on one connection: open one stream, accept one stream, then move frames.

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
};
use tokio::time::{Sleep, sleep};

use crate::connection::{Connection, run};
use crate::stats::{LinkEnd, Refusal};

/// Streams beyond the one that a peer has a right to: so many are refused, the next one ends the connection.
const EXTRA_STREAMS: u32 = 8;

/// Tells the behaviour to close the connection: it did not become a link, or it no longer is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finished;

/// Each side writes to the stream that it opened and reads from the one that it accepted; the other halves stay unused.
pub(crate) struct Handler {
    connection: Connection,
    protocol: StreamProtocol,
    phase: Phase,
    extra_streams: u32,
}

enum Phase {
    Opening(Box<Opening>),
    Open(BoxFuture<'static, ()>),
    /// The behaviour has yet to be told.
    Ended,
    Done,
}

struct Opening {
    requested: bool,
    outbound: Option<Stream>,
    inbound: Option<Stream>,
    deadline: Pin<Box<Sleep>>,
}

impl Handler {
    pub(crate) fn new(connection: Connection, protocol: StreamProtocol) -> Self {
        let deadline = Box::pin(sleep(connection.shared.timeouts.open));
        let opening = Opening { requested: false, outbound: None, inbound: None, deadline };
        Self { connection, protocol, phase: Phase::Opening(Box::new(opening)), extra_streams: 0 }
    }

    fn refuse(&mut self, reason: Refusal) {
        if matches!(self.phase, Phase::Opening(_)) {
            self.connection.shared.counters.refused.count(reason);
            self.phase = Phase::Ended;
        }
    }

    fn accept(&mut self, stream: Stream) {
        match &mut self.phase {
            Phase::Opening(opening) if opening.inbound.is_none() => opening.inbound = Some(stream),
            Phase::Opening(_) | Phase::Open(_) => {
                // Dropping the stream resets it.
                self.connection.shared.counters.refused_streams.fetch_add(1, Relaxed);
                self.extra_streams += 1;
                if self.extra_streams > EXTRA_STREAMS {
                    self.give_up();
                }
            }
            Phase::Ended | Phase::Done => {}
        }
    }

    fn give_up(&mut self) {
        if matches!(self.phase, Phase::Open(_)) {
            self.connection.conclude(LinkEnd::ExtraStreams);
            self.phase = Phase::Ended;
        } else {
            self.refuse(Refusal::Protocol);
        }
    }

    fn opened(&mut self, stream: Stream) {
        if let Phase::Opening(opening) = &mut self.phase {
            opening.outbound = Some(stream);
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = std::convert::Infallible;
    type ToBehaviour = Finished;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
            .with_timeout(self.connection.shared.timeouts.open)
    }

    fn connection_keep_alive(&self) -> bool {
        // A link without traffic is still a link; the behaviour closes what is no longer one.
        true
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        loop {
            match &mut self.phase {
                Phase::Opening(opening) => {
                    if !opening.requested {
                        opening.requested = true;
                        let protocol = self.listen_protocol();
                        return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                    }
                    match (opening.inbound.take(), opening.outbound.take()) {
                        (Some(inbound), Some(outbound)) => {
                            self.phase = Phase::Open(run(self.connection.clone(), inbound, outbound).boxed());
                        }
                        (inbound, outbound) => {
                            (opening.inbound, opening.outbound) = (inbound, outbound);
                            ready!(opening.deadline.poll_unpin(cx));
                            self.refuse(Refusal::OpenTimeout);
                        }
                    }
                }
                Phase::Open(link) => {
                    ready!(link.poll_unpin(cx));
                    self.phase = Phase::Ended;
                }
                Phase::Ended => {
                    self.phase = Phase::Done;
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Finished));
                }
                Phase::Done => return Poll::Pending,
            }
        }
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.accept(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream, ..
            }) => {
                self.opened(stream);
            }
            ConnectionEvent::DialUpgradeError(error) => self.refuse(match error.error {
                StreamUpgradeError::NegotiationFailed => Refusal::Protocol,
                StreamUpgradeError::Timeout => Refusal::OpenTimeout,
                StreamUpgradeError::Io(_) => Refusal::NotOpened,
                StreamUpgradeError::Apply(never) => match never {},
            }),
            // Inbound streams that fail to negotiate are the peer's to repeat, until the deadline.
            _ => {}
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // The connection ended before its streams were open.
        self.refuse(Refusal::NotOpened);
    }
}
