//! Joins the parts to libp2p's swarm: asks the door, follows the dialer, keeps one connection per peer.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, DialFailure, ListenFailure};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, ListenError, NetworkBehaviour,
    StreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::time::{Instant, Sleep, sleep_until};
use tombola_topology::IdentityKey;

use crate::address::{Address, Origin, Transport};
use crate::config::{Policy, Target};
use crate::connection::Connection;
use crate::dialer::Dialer;
use crate::door::Door;
use crate::handler::{Finished, Handler};
use crate::identity::{identity_of, peer_id_of};
use crate::shared::Shared;
use crate::stats::Refusal;

/// See the module.
pub(crate) struct Behaviour {
    shared: Arc<Shared>,
    protocol: StreamProtocol,
    door: Door,
    dialer: Dialer,
    /// A port for clients keeps a peer only as long as it is connected.
    transient: bool,
    /// Established connections. Bounded by the door and by the number of peers that are dialled.
    established: HashMap<ConnectionId, Established>,
    /// The one connection of each peer that counts.
    current: HashMap<IdentityKey, ConnectionId>,
    /// Connections to close: no more than there are established.
    closing: VecDeque<(PeerId, ConnectionId)>,
    /// Set for the dialer's next timeout.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whoever polled last, to be woken when something is decided outside of `poll`.
    waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy)]
struct Established {
    peer: PeerId,
    identity: IdentityKey,
}

/// Why a connection was refused, as libp2p hands it around.
#[derive(Debug, thiserror::Error)]
#[error("refused: {0}")]
struct Denied(Refusal);

impl Behaviour {
    pub(crate) fn new(
        shared: Arc<Shared>,
        protocol: StreamProtocol,
        policy: Policy,
        max_handshakes: usize,
    ) -> Self {
        Self {
            shared,
            protocol,
            transient: matches!(policy, Policy::Clients(_)),
            door: Door::new(policy, max_handshakes),
            dialer: Dialer::default(),
            established: HashMap::new(),
            current: HashMap::new(),
            closing: VecDeque::new(),
            timer: None,
            waker: None,
        }
    }

    /// Replaces the list of peers. Connections to those that are gone are closed.
    pub(crate) fn set_targets(&mut self, targets: &[Target]) {
        self.door.set_targets(targets);
        self.dialer.set_targets(targets);
        let gone = |identity: &IdentityKey| {
            targets.binary_search_by_key(identity, |target| target.identity).is_err()
        };
        let gone: Vec<_> = self.current.keys().filter(|identity| gone(identity)).copied().collect();
        for identity in gone {
            self.close_current(&identity);
        }
        self.wake();
    }

    /// Refuses and dials nobody any more. Links that are up stay until they are drained.
    pub(crate) fn begin_shutdown(&mut self) {
        self.door.close();
        self.dialer.set_targets(&[]);
        self.wake();
    }

    /// Closes all connections.
    pub(crate) fn close_all(&mut self) {
        self.closing.extend(self.established.iter().map(|(id, established)| (established.peer, *id)));
        self.wake();
    }

    /// Whether no connection is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.established.is_empty()
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn close_current(&mut self, identity: &IdentityKey) {
        if let Some(id) = self.current.remove(identity)
            && let Some(established) = self.established.get(&id)
        {
            self.closing.push_back((established.peer, id));
        }
    }

    /// Makes a connection the one of its peer and closes the one that it replaces.
    ///
    /// The newest wins: its handshake has just proved the peer's key, while the older one may be what is left of a peer
    /// that crashed or changed its network, and of which the transport learns only by a timeout. Nobody but the peer itself
    /// can replace its connection.
    ///
    /// # Errors
    /// The peer has been taken off the list, of which the door and the dialer have yet to hear.
    fn establish(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        identity: IdentityKey,
    ) -> Result<Handler, Refusal> {
        let link = match self.shared.peer(&identity) {
            Some(link) => link,
            None if self.transient => self.shared.peer_or_new(identity),
            None => return Err(Refusal::NotOpened),
        };
        // One that is told why it ends does so itself, when the new one is open.
        if self.shared.parting.is_none() {
            self.close_current(&identity);
        }
        self.current.insert(identity, id);
        self.established.insert(id, Established { peer, identity });
        let generation = self.shared.next_generation();
        link.admit(generation);
        tracing::debug!(peer = %identity, connection = %id, "connection established");
        let connection = Connection::new(Arc::clone(&self.shared), link, generation);
        Ok(Handler::new(connection, self.protocol.clone()))
    }

    fn count_refusal(&self, reason: Refusal) -> ConnectionDenied {
        self.shared.counters.refused.count(reason);
        tracing::debug!(%reason, "connection refused");
        ConnectionDenied::new(Denied(reason))
    }

    fn on_closed(&mut self, id: ConnectionId) {
        self.door.forget(id);
        self.dialer.disconnected(Instant::now(), id, random());
        let Some(Established { identity, .. }) = self.established.remove(&id) else { return };
        tracing::debug!(peer = %identity, connection = %id, "connection closed");
        if self.current.get(&identity) == Some(&id) {
            self.current.remove(&identity);
            if self.transient {
                self.shared.remove_peer(&identity);
            }
        }
    }

    fn on_dial_failure(&mut self, id: ConnectionId, error: &dyn std::fmt::Display) {
        self.shared.counters.failed_dials.fetch_add(1, Relaxed);
        tracing::debug!(connection = %id, %error, "connection attempt failed");
        self.dialer.failed(Instant::now(), id, random());
    }

    fn on_listen_failure(&mut self, id: ConnectionId, error: &ListenError) {
        self.door.forget(id);
        // What we refused ourselves is counted already.
        if !matches!(error, ListenError::Denied { .. }) {
            self.shared.counters.refused.count(Refusal::HandshakeFailed);
        }
    }

    fn dial(&mut self, identity: IdentityKey, address: Address) -> DialOpts {
        let peer =
            peer_id_of(&identity).expect("the list of peers was checked: every key is a point of the curve");
        let options = DialOpts::peer_id(peer).condition(PeerCondition::Always);
        let options = match address.transport {
            // All QUIC connections share the socket that is listened on, or one socket.
            Transport::Quic => options,
            // From the port that is listened on, a second connection to the same address could not be opened until the
            // kernel has forgotten the first.
            Transport::Tcp => options.allocate_new_port(),
        };
        let options = options.addresses(vec![address.to_multiaddr()]).build();
        self.dialer.dialling(&identity, options.connection_id());
        self.shared.counters.dials.fetch_add(1, Relaxed);
        options
    }

    /// Waits for the dialer's next timeout; ready when it has passed.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.dialer.poll_timeout() else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.poll_unpin(cx)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.door.knock(id, Origin::of(remote)).map_err(|reason| self.count_refusal(reason))
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // Refused after all, libp2p reports a failure, and the door forgets the connection.
        let admitted = self.door.admit(id, identity_of(&peer));
        let established = admitted.and_then(|identity| self.establish(id, peer, identity));
        established.map_err(|reason| self.count_refusal(reason))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // libp2p has checked that it is the peer that we wanted; it may have been taken off the list meanwhile.
        let established = match identity_of(&peer) {
            Some(identity) if self.dialer.connected(Instant::now(), id) => self.establish(id, peer, identity),
            _ => Err(Refusal::NotOpened),
        };
        established.map_err(|reason| self.count_refusal(reason))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.on_closed(connection_id);
            }
            FromSwarm::DialFailure(DialFailure { connection_id, error, .. }) => {
                self.on_dial_failure(connection_id, error);
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, error, .. }) => {
                self.on_listen_failure(connection_id, error);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        let Finished = event;
        self.closing.push_back((peer, id));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, id)) = self.closing.pop_front() {
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) });
        }
        loop {
            if let Some((identity, address)) = self.dialer.poll(Instant::now()) {
                return Poll::Ready(ToSwarm::Dial { opts: self.dial(identity, address) });
            }
            if self.poll_timer(cx).is_pending() {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            self.timer = None;
        }
    }
}

/// For the jitter of reconnections only; a system without randomness could not have made a key.
fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}
