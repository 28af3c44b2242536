//! The handle: start, send, replace peers, shut down.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libp2p::Swarm;
use libp2p::swarm;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tombola_protocol::frame::Frame;
use tombola_topology::IdentityKey;

use crate::address::Address;
use crate::behaviour::Behaviour;
use crate::config::{LinkConfig, Peer, PeersError, Policy, Target, check_peers, stream_protocol};
use crate::driver::{Driver, Wishes};
use crate::listen::ListenError;
use crate::pool::FramePool;
use crate::queue::Refused;
use crate::shared::{Shared, Timeouts};
use crate::sink::FrameSink;
use crate::stats::{DropReason, LinkStats};
use crate::transport;

/// Inbound streams that may be negotiated at one time on one connection: the one, and one that is being refused.
const NEGOTIATING_STREAMS: usize = 2;
/// A link without traffic stays up; this is far beyond the life of a process.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Why links could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The list of peers is wrong.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// The protocol name is wrong.
    #[error("{name:?} is not a protocol name: it must begin with a slash")]
    Protocol {
        /// The name.
        name: String,
    },
    /// A client that only dials was told to listen.
    #[error("{address:?} was given to listen on, but this end only dials; leave it out")]
    DialOnly {
        /// The first such address.
        address: String,
    },
    /// A queue of no frames could never send one.
    #[error("the outbound queue must have room for at least 1 frame")]
    NoQueue,
    /// The identity could not be made ready for the Noise handshake.
    #[error("the identity cannot be used with Noise: {reason}")]
    Noise {
        /// What the library said.
        reason: String,
    },
}

/// Why a frame was not queued. It is given back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No such peer, or, on a port for clients, it is not connected.
    #[error("there is no such peer")]
    Unknown(Frame),
    /// The peer's queue is full.
    #[error("the peer's queue is full")]
    Full(Frame),
    /// [`Links::shutdown`] was called.
    #[error("the links are shut down")]
    ShutDown(Frame),
}

impl SendError {
    /// The frame.
    #[must_use]
    pub fn into_frame(self) -> Frame {
        match self {
            Self::Unknown(frame) | Self::Full(frame) | Self::ShutDown(frame) => frame,
        }
    }
}

/// A set of links behind one identity. Clones are handles to the same links.
///
/// When the last clone is dropped without [`Links::shutdown`], all connections are cut and what is queued is lost.
#[derive(Clone)]
pub struct Links {
    inner: Arc<Inner>,
}

struct Inner {
    identity: IdentityKey,
    policy: Policy,
    shared: Arc<Shared>,
    wishes: Mutex<watch::Sender<Wishes>>,
    /// Closes when the task has ended.
    ended: watch::Receiver<()>,
}

/// Starts to listen and to dial. Must be called within a tokio runtime, whose threads then call `sink`.
///
/// When this returns, every address is being listened on; no peer need be connected yet.
///
/// # Errors
/// See [`StartError`]. Nothing is left running then.
pub async fn start(
    config: LinkConfig,
    peers: Vec<Peer>,
    sink: Arc<dyn FrameSink>,
) -> Result<Links, StartError> {
    let identity = config.secret.identity();
    let targets = check_peers(&identity, &config.policy, &peers)?;
    let addresses = check(&config)?;
    let Some(protocol) = stream_protocol(&config.protocol) else {
        return Err(StartError::Protocol { name: config.protocol });
    };
    let timeouts = Timeouts {
        open: config.handshake_timeout,
        stall: config.stall_timeout,
        idle: match &config.policy {
            Policy::Clients(limits) => Some(limits.idle_timeout),
            Policy::Neighbours | Policy::DialOnly => None,
        },
    };
    let mut shared = Shared::new(sink, config.pool, config.outbound_queue, timeouts, Handle::current());
    shared.parting.clone_from(&config.parting);
    shared.sessions = !matches!(config.policy, Policy::Neighbours);
    let shared = Arc::new(shared);

    let keypair = config.secret.keypair();
    let transport = transport::build(&keypair, &config)
        .map_err(|error| StartError::Noise { reason: error.to_string() })?;
    let behaviour =
        Behaviour::new(Arc::clone(&shared), protocol, config.policy.clone(), config.max_handshakes);
    let swarm_config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(NEVER)
        .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS);
    let swarm = Swarm::new(transport, behaviour, keypair.public().to_peer_id(), swarm_config);
    let mut driver = Driver { swarm, shared: Arc::clone(&shared), linger: config.linger };

    // Before anybody can come in.
    let targets: Arc<[Target]> = targets.into();
    for target in targets.iter() {
        shared.peer_or_new(target.identity);
    }
    driver.swarm.behaviour_mut().set_targets(&targets);
    driver.listen(&addresses).await?;

    let (wishes, wanted) = watch::channel(Wishes { targets, shut_down: false });
    let (ends, ended) = watch::channel(());
    tokio::spawn(async move {
        driver.run(wanted).await;
        drop(ends);
    });
    Ok(Links {
        inner: Arc::new(Inner { identity, policy: config.policy, shared, wishes: Mutex::new(wishes), ended }),
    })
}

fn check(config: &LinkConfig) -> Result<Vec<Address>, StartError> {
    if config.outbound_queue == 0 {
        return Err(StartError::NoQueue);
    }
    if let (Policy::DialOnly, Some(address)) = (&config.policy, config.listen.first()) {
        return Err(StartError::DialOnly { address: address.clone() });
    }
    let parsed = config.listen.iter().map(|text| text.parse::<Address>());
    Ok(parsed.collect::<Result<_, _>>().map_err(ListenError::from)?)
}

impl Links {
    /// Own identity.
    #[must_use]
    pub fn identity(&self) -> IdentityKey {
        self.inner.identity
    }

    /// Queues a frame. Never blocks, and may be called from any thread and from a [`FrameSink`].
    ///
    /// A frame is delivered at most once: what was being written when a connection breaks is lost. While a peer that is on
    /// the list is not connected its frames wait.
    ///
    /// # Errors
    /// The frame was not queued; see [`SendError`]. It is counted as dropped.
    pub fn send(&self, to: &IdentityKey, frame: Frame) -> Result<(), SendError> {
        let shared = &self.inner.shared;
        let (reason, error) = match shared.peer(to) {
            Some(peer) => match peer.queue.push(frame) {
                Ok(()) => return Ok(()),
                Err(Refused::Full(frame)) => (DropReason::QueueFull, SendError::Full(frame)),
                // The queue of a peer that is being removed is closed, too.
                Err(Refused::Closed(frame)) if peer.is_retired() => {
                    (DropReason::UnknownPeer, SendError::Unknown(frame))
                }
                Err(Refused::Closed(frame)) => (DropReason::ShutDown, SendError::ShutDown(frame)),
            },
            None => (DropReason::UnknownPeer, SendError::Unknown(frame)),
        };
        shared.counters.dropped.count(reason);
        Err(error)
    }

    /// Replaces the list of peers.
    ///
    /// When this returns, new peers can be sent to (they are dialled, or let in, a moment later), and those that are not on
    /// the list any more deliver nothing more. Peers that stay keep their connections and queues. Must not be called from
    /// a [`FrameSink`].
    ///
    /// # Errors
    /// Something is wrong with the list; nothing has been changed.
    pub fn set_peers(&self, peers: &[Peer]) -> Result<(), PeersError> {
        let targets: Arc<[Target]> = check_peers(&self.inner.identity, &self.inner.policy, peers)?.into();
        // Held until the task has been told, so that two callers cannot tell it in another order.
        let wishes = self.wishes();
        let shared = &self.inner.shared;
        if shared.is_shut_down() {
            return Err(PeersError::ShutDown);
        }
        if matches!(self.inner.policy, Policy::Clients(_)) {
            return Ok(());
        }
        let before = Arc::clone(&wishes.borrow().targets);
        for target in before.iter() {
            if targets.binary_search_by_key(&target.identity, |target| target.identity).is_err() {
                shared.remove_peer(&target.identity);
            }
        }
        for target in targets.iter() {
            shared.peer_or_new(target.identity);
        }
        wishes.send_modify(|wishes| wishes.targets = targets);
        Ok(())
    }

    /// The addresses that are listened on, with their actual ports, and one per interface where all were asked for.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<String> {
        self.inner.shared.listening().clone()
    }

    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        self.inner.shared.stats()
    }

    /// The frame buffers of these links. Whoever consumes frames gives them back here, whoever makes some takes them here.
    #[must_use]
    pub fn pool(&self) -> &FramePool {
        &self.inner.shared.pool
    }

    /// Gives a frame buffer back: see [`FramePool::recycle`].
    pub fn recycle(&self, frame: Frame) {
        self.pool().recycle(frame);
    }

    /// Ends the links in order; returns when everything is closed.
    ///
    /// At once, nothing can be queued and nobody can connect. Peers that are connected are then given
    /// [`LinkConfig::linger`] to take what is queued for them and to hang up; after that, all is cut. May be called again.
    pub async fn shutdown(&self) {
        {
            let wishes = self.wishes();
            self.inner.shared.begin_shutdown();
            wishes.send_modify(|wishes| wishes.shut_down = true);
        }
        self.closed().await;
    }

    /// Returns when the links have ended: after [`Links::shutdown`], whoever called it, or because their task has panicked,
    /// which is a defect and leaves every frame undelivered.
    pub async fn closed(&self) {
        let mut ended = self.inner.ended.clone();
        // An error says that the other end was dropped, which is what is waited for.
        while ended.changed().await.is_ok() {}
    }

    fn wishes(&self) -> std::sync::MutexGuard<'_, watch::Sender<Wishes>> {
        self.inner.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}
