//! What one set of links is told when it starts.

use std::time::Duration;

use libp2p::swarm::StreamProtocol;
use tombola_protocol::frame::Frame;
use tombola_topology::IdentityKey;

use crate::address::{Address, AddressError};
use crate::identity::{LinkSecret, peer_id_of};

/// Protocol name between nodes.
pub const NODE_PROTOCOL: &str = "/tombola/link/3";
/// Protocol name between a client and its gateway.
pub const CLIENT_PROTOCOL: &str = "/tombola/client/3";

/// Whose connections are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// A node's port: nobody but the peers that were given with `dial: false`.
    Neighbours,
    /// A gateway's port for clients: everybody who has an ed25519 key, within limits. No peers can be given.
    Clients(ClientLimits),
    /// A client: nobody. Nothing can be listened on.
    DialOnly,
}

/// Limits of a port that accepts everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimits {
    /// Clients at one time. A known client's second connection replaces its first and does not count.
    pub max_connections: usize,
    /// Connections and pending handshakes at one time from one IPv4 address or one IPv6 /64; `None` for no limit.
    pub max_per_origin: Option<usize>,
    /// A client from which no whole frame comes for this long is disconnected. A client emits all the time.
    pub idle_timeout: Duration,
}

impl Default for ClientLimits {
    /// 1024 clients, 64 per origin, two minutes.
    fn default() -> Self {
        Self { max_connections: 1024, max_per_origin: Some(64), idle_timeout: Duration::from_secs(120) }
    }
}

/// How one set of links behaves. [`LinkConfig::new`] gives every field but three its default.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Own identity.
    pub secret: LinkSecret,
    /// Protocol name; a peer with another one is refused. Begins with `/`.
    pub protocol: String,
    /// Addresses to listen on, as text: `/ip4/<address>/udp/<port>/quic-v1` or `/ip4/<address>/tcp/<port>`, or with `ip6`.
    /// Port 0 takes any free one.
    pub listen: Vec<String>,
    /// Whose connections are accepted.
    pub policy: Policy,
    /// Frames that may wait for one peer, connected or not; at least 1. Default 1024 (2.5 MB).
    pub outbound_queue: usize,
    /// Frame buffers that are kept for reuse by all links together. Default 1024 (2.5 MB).
    pub pool: usize,
    /// Inbound handshakes in progress at one time. Default 128.
    pub max_handshakes: usize,
    /// Time for one attempt on one address, and again for opening the two streams. Default 5 s.
    pub handshake_timeout: Duration,
    /// A peer of which nothing has been heard for this long is gone; each end asks three times within it. Over QUIC a peer that
    /// crashed is noticed by this and nothing else: the QUIC library does not send resets for connections of an earlier
    /// process. Over TCP its kernel sends them; only where that is silent, too, this is needed. The kernel asks and answers there:
    /// it counts in whole seconds, 2 s at least, and anew from what was first sent in vain; and who stands still is gone so long after
    /// its kernel's buffer is full, or after `stall_timeout`. What was sent in vain counts on Linux only. Default 10 s.
    pub silence_timeout: Duration,
    /// A peer that takes nothing for this long while frames wait for it is disconnected. Default 60 s.
    pub stall_timeout: Duration,
    /// Time that [`Links::shutdown`](crate::Links::shutdown) gives peers to take what is queued. Default 2 s.
    pub linger: Duration,
    /// What a connection is told before it ends because a newer one of the same peer replaces it. Default: nothing, it is cut.
    pub parting: Option<Frame>,
}

impl LinkConfig {
    /// A configuration that listens nowhere yet.
    #[must_use]
    pub fn new(secret: LinkSecret, policy: Policy, protocol: &str) -> Self {
        Self {
            secret,
            protocol: protocol.to_owned(),
            listen: Vec::new(),
            policy,
            outbound_queue: 1024,
            pool: 1024,
            max_handshakes: 128,
            handshake_timeout: Duration::from_secs(5),
            silence_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            linger: Duration::from_secs(2),
            parting: None,
        }
    }

    /// Adds an address to listen on.
    #[must_use]
    pub fn listen_on(mut self, address: impl Into<String>) -> Self {
        self.listen.push(address.into());
        self
    }
}

/// A peer that links are kept with.
///
/// Of two neighbours exactly one dials, so that there is one connection between them: the upstream node, or the one with
/// the smaller key if each is upstream of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The key by which it is recognised.
    pub identity: IdentityKey,
    /// Where to reach it, best first: they are tried in this order, whatever their transports.
    pub addresses: Vec<String>,
    /// `true`: we connect to it, again and again. `false`: it connects to us.
    pub dial: bool,
}

impl Peer {
    /// A peer that is dialled at `addresses`.
    #[must_use]
    pub fn dialled(identity: IdentityKey, addresses: Vec<String>) -> Self {
        Self { identity, addresses, dial: true }
    }

    /// A peer that dials us.
    #[must_use]
    pub fn awaited(identity: IdentityKey) -> Self {
        Self { identity, addresses: Vec::new(), dial: false }
    }
}

/// Why a list of peers was refused. Nothing has been changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeersError {
    /// An address cannot be used.
    #[error("an address of peer {identity}: {source}")]
    Address {
        /// Whose address.
        identity: IdentityKey,
        /// Which one, and why.
        source: AddressError,
    },
    /// A peer is to be dialled and has no address.
    #[error("peer {identity} is to be dialled but has no address")]
    NoAddress {
        /// Which peer.
        identity: IdentityKey,
    },
    /// A key is not a point of the curve: nobody can have it.
    #[error("{identity} is not an ed25519 public key")]
    NotAKey {
        /// The bytes.
        identity: IdentityKey,
    },
    /// A key is listed twice.
    #[error("peer {identity} is listed twice")]
    Duplicate {
        /// The key.
        identity: IdentityKey,
    },
    /// The own key is listed.
    #[error("{identity} is the own identity: a node is not its own peer")]
    Oneself {
        /// The key.
        identity: IdentityKey,
    },
    /// A port for clients has no peers.
    #[error("a port for clients accepts everybody: it takes no list of peers")]
    ClientPort,
    /// [`Links::shutdown`](crate::Links::shutdown) was called.
    #[error("the links are shut down")]
    ShutDown,
}

/// A [`Peer`] that has been checked. Addresses are in the order in which they are tried; empty for a peer that dials us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) identity: IdentityKey,
    pub(crate) addresses: Vec<Address>,
    pub(crate) dial: bool,
}

/// Checks a list of peers; sorted by identity.
pub(crate) fn check_peers(
    own: &IdentityKey,
    policy: &Policy,
    peers: &[Peer],
) -> Result<Vec<Target>, PeersError> {
    if matches!(policy, Policy::Clients(_)) && !peers.is_empty() {
        return Err(PeersError::ClientPort);
    }
    let mut targets = peers.iter().map(|peer| check_peer(own, peer)).collect::<Result<Vec<_>, _>>()?;
    targets.sort_by_key(|target| target.identity);
    if let Some(twice) = targets.windows(2).find(|pair| pair[0].identity == pair[1].identity) {
        return Err(PeersError::Duplicate { identity: twice[0].identity });
    }
    Ok(targets)
}

fn check_peer(own: &IdentityKey, peer: &Peer) -> Result<Target, PeersError> {
    let identity = peer.identity;
    if identity == *own {
        return Err(PeersError::Oneself { identity });
    }
    if peer_id_of(&identity).is_none() {
        return Err(PeersError::NotAKey { identity });
    }
    if !peer.dial {
        return Ok(Target { identity, addresses: Vec::new(), dial: false });
    }
    let addresses = peer
        .addresses
        .iter()
        .map(|text| Address::to_dial(text).map_err(|source| PeersError::Address { identity, source }))
        .collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() {
        return Err(PeersError::NoAddress { identity });
    }
    Ok(Target { identity, addresses, dial: true })
}

/// Checks a protocol name.
pub(crate) fn stream_protocol(name: &str) -> Option<StreamProtocol> {
    StreamProtocol::try_from_owned(name.to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> IdentityKey {
        LinkSecret::from_seed([byte; 32]).identity()
    }

    fn check(peers: &[Peer]) -> Result<Vec<Target>, PeersError> {
        check_peers(&key(0), &Policy::Neighbours, peers)
    }

    #[test]
    fn addresses_keep_their_order() {
        let texts = [
            "/ip4/127.0.0.1/tcp/4",
            "/ip4/127.0.0.1/udp/2/quic-v1",
            "/ip4/127.0.0.1/tcp/3",
            "/ip4/127.0.0.1/udp/1/quic-v1",
        ];
        let targets = check(&[Peer::dialled(key(1), texts.map(String::from).to_vec())]).unwrap();
        let ports: Vec<u16> = targets[0].addresses.iter().map(|a| a.socket.port()).collect();
        assert_eq!(ports, [4, 2, 3, 1]);
    }

    #[test]
    fn each_wrong_list_is_refused_for_its_own_reason() {
        let dialled = |address: &str| Peer::dialled(key(1), vec![address.to_owned()]);
        assert!(
            matches!(check(&[dialled("nonsense")]), Err(PeersError::Address { identity, .. }) if identity == key(1))
        );
        assert_eq!(check(&[Peer::dialled(key(1), vec![])]), Err(PeersError::NoAddress { identity: key(1) }));
        assert_eq!(check(&[Peer::awaited(key(0))]), Err(PeersError::Oneself { identity: key(0) }));
        assert_eq!(
            check(&[Peer::awaited(key(2)), Peer::awaited(key(1)), Peer::awaited(key(2))]),
            Err(PeersError::Duplicate { identity: key(2) })
        );
        let no_point =
            (0..=255).map(|b| IdentityKey::from_bytes([b; 32])).find(|k| peer_id_of(k).is_none()).unwrap();
        assert_eq!(check(&[Peer::awaited(no_point)]), Err(PeersError::NotAKey { identity: no_point }));
        let clients = Policy::Clients(ClientLimits::default());
        assert_eq!(check_peers(&key(0), &clients, &[Peer::awaited(key(1))]), Err(PeersError::ClientPort));
        assert_eq!(check_peers(&key(0), &clients, &[]), Ok(vec![]));
    }
}
