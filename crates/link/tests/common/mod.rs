//! Nodes on 127.0.0.1 with real sockets.
#![allow(clippy::cast_possible_truncation, reason = "a byte of a number is meant")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use tombola_link::{
    ChannelSink, LinkConfig, LinkEvent, LinkSecret, LinkStats, Links, NODE_PROTOCOL, Peer, Policy, SendError,
    start,
};
use tombola_protocol::frame::Frame;
use tombola_topology::IdentityKey;

/// Everything that a test waits for must happen within this time; on an idle machine it takes far less.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How long a handshake may take: those that never end are waited for, and those of a busy machine must.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);

pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(crate) const BOTH: [&str; 2] = [QUIC, TCP];

pub(crate) fn secret(n: u8) -> LinkSecret {
    LinkSecret::from_seed([n; 32])
}

pub(crate) fn key(n: u8) -> IdentityKey {
    secret(n).identity()
}

/// A node's configuration: short times for what is to fail, long ones for what is to succeed on a busy machine.
pub(crate) fn node_config(n: u8, policy: Policy) -> LinkConfig {
    let mut config = LinkConfig::new(secret(n), policy, NODE_PROTOCOL);
    config.handshake_timeout = HANDSHAKE;
    config.linger = Duration::from_secs(30);
    config
}

pub(crate) struct Node {
    pub(crate) links: Links,
    pub(crate) events: Receiver<LinkEvent>,
}

impl Node {
    pub(crate) async fn start(config: LinkConfig, peers: Vec<Peer>) -> Self {
        let (sink, events) = ChannelSink::new(1024);
        let links = start(config, peers, Arc::new(sink)).await.unwrap();
        Self { links, events }
    }

    /// Listens on `listen` and waits for the given peers to dial.
    pub(crate) async fn listening(n: u8, listen: &str, awaited: &[u8]) -> Self {
        let peers = awaited.iter().map(|&n| Peer::awaited(key(n))).collect();
        Self::start(node_config(n, Policy::Neighbours).listen_on(listen), peers).await
    }

    /// Dials `other` at the addresses that it listens on.
    pub(crate) async fn dialling(n: u8, other: &Self) -> Self {
        Self::start(node_config(n, Policy::Neighbours), vec![other.as_peer()]).await
    }

    /// Itself as somebody to dial.
    pub(crate) fn as_peer(&self) -> Peer {
        Peer::dialled(self.links.identity(), self.links.listen_addresses())
    }

    pub(crate) fn stats(&self) -> LinkStats {
        self.links.stats()
    }

    /// The next event.
    pub(crate) async fn event(&self) -> LinkEvent {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.events.try_recv() {
                Ok(event) => return event,
                Err(TryRecvError::Empty) => pause(deadline, "an event").await,
                Err(TryRecvError::Disconnected) => panic!("the sink is gone"),
            }
        }
    }

    pub(crate) async fn connected_to(&self, peer: IdentityKey) {
        assert_eq!(self.event().await, LinkEvent::Connected(peer));
    }

    pub(crate) async fn disconnected_from(&self, peer: IdentityKey) {
        assert_eq!(self.event().await, LinkEvent::Disconnected(peer));
    }

    /// The numbers of the next `n` frames, which must all come from `peer`.
    pub(crate) async fn frames(&self, peer: IdentityKey, n: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < n {
            match self.event().await {
                LinkEvent::Frames(from, frames) if from == peer => {
                    numbers.extend(frames.iter().map(number_of));
                    frames.into_iter().for_each(|frame| self.links.recycle(frame));
                }
                other => panic!("{} frames of {n}, then {other:?}", numbers.len()),
            }
        }
        numbers
    }

    /// Queues frames with these numbers, waiting while the queue is full.
    pub(crate) async fn send(&self, to: IdentityKey, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let mut frame = numbered(self.links.pool().take(), number);
            while let Err(error) = self.links.send(&to, frame) {
                let SendError::Full(refused) = error else { panic!("{error}") };
                frame = refused;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Waits until the counters satisfy the condition.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&LinkStats) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.stats()) {
            assert!(Instant::now() < deadline, "waited in vain for {what}: {:#?}", self.stats());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub(crate) async fn pause(deadline: Instant, what: &str) {
    assert!(Instant::now() < deadline, "waited in vain for {what}");
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// A frame that carries a number and whose other bytes follow from it.
pub(crate) fn numbered(mut frame: Frame, number: u64) -> Frame {
    frame.as_bytes_mut().fill(number as u8);
    frame.as_bytes_mut()[..8].copy_from_slice(&number.to_be_bytes());
    frame
}

/// The number of a frame, whose every byte is checked.
pub(crate) fn number_of(frame: &Frame) -> u64 {
    let bytes = frame.as_bytes();
    let number = u64::from_be_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes[8..].iter().all(|&byte| byte == number as u8));
    number
}

/// Two nodes that are connected; the second has dialled the first.
pub(crate) async fn pair(listen: &str) -> (Node, Node) {
    let a = Node::listening(1, listen, &[2]).await;
    let b = Node::dialling(2, &a).await;
    a.connected_to(key(2)).await;
    b.connected_to(key(1)).await;
    (a, b)
}
