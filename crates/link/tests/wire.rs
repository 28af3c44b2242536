//! What a peer that speaks libp2p but not our protocol, or only half of it, can do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use std::time::Duration;

use common::*;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::swarm::{Stream, StreamProtocol, SwarmEvent};
use libp2p::{Multiaddr, PeerId, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::{Control, IncomingStreams};
use tokio::sync::oneshot;
use tombola_link::{LinkEnd, NODE_PROTOCOL, Refusal};
use tombola_protocol::frame::{FRAME_LEN, Frame};

/// A node of another make: a swarm that opens and accepts streams as the test says.
struct Stranger {
    control: Control,
    incoming: IncomingStreams,
    other: PeerId,
    /// Dropped to hang up.
    stay: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Stranger {
    /// Has the key of node `n` and dials `node`.
    async fn dialling(n: u8, node: &Node) -> Self {
        let mut swarm = SwarmBuilder::with_existing_identity(Keypair::ed25519_from_bytes([n; 32]).unwrap())
            .with_tokio()
            .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_quic()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
            .build();
        let mut control = swarm.behaviour().new_control();
        let incoming = control.accept(StreamProtocol::new(NODE_PROTOCOL)).unwrap();
        let address: Multiaddr = node.links.listen_addresses()[0].parse().unwrap();
        swarm.dial(address).unwrap();
        let other = Keypair::ed25519_from_bytes([1; 32]).unwrap().public().to_peer_id();
        while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
        let (stay, mut gone) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => if let SwarmEvent::ConnectionClosed { .. } = event { return },
                    _ = &mut gone, if !gone.is_terminated() => drop(swarm.disconnect_peer_id(other)),
                }
            }
        });
        Self { control, incoming, other, stay, task }
    }

    /// Opens its stream. Kept open until dropped.
    async fn open(&mut self) -> Stream {
        let opened = self.control.open_stream(self.other, StreamProtocol::new(NODE_PROTOCOL));
        opened.await.unwrap()
    }

    /// Accepts the node's stream.
    async fn accept(&mut self) -> Stream {
        tokio::time::timeout(PATIENCE, self.incoming.next()).await.unwrap().unwrap().1
    }

    /// Closes the connection, with whatever streams there are.
    async fn leave(self) {
        drop(self.stay);
        self.task.await.unwrap();
    }
}

/// `n` whole frames and the first `rest` bytes of another.
fn bytes(n: u64, rest: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..n).flat_map(|number| *numbered(Frame::zeroed(), number).as_bytes()).collect();
    bytes.resize(bytes.len() + rest, 1);
    bytes
}

/// A node that listens, awaits 2 and 3, and is connected to 3.
async fn node_with_a_witness(listen: &str) -> (Node, Node) {
    let a = Node::listening(1, listen, &[2, 3]).await;
    let witness = Node::dialling(3, &a).await;
    a.connected_to(key(3)).await;
    witness.connected_to(key(1)).await;
    (a, witness)
}

async fn is_served(a: &Node, witness: &Node) {
    witness.send(key(1), 0..5).await;
    assert!(a.frames(key(3), 5).await.into_iter().eq(0..5));
    a.send(key(3), 0..5).await;
    assert!(witness.frames(key(1), 5).await.into_iter().eq(0..5));
}

async fn truncated(listen: &str) {
    let (a, witness) = node_with_a_witness(listen).await;
    let mut stranger = Stranger::dialling(2, &a).await;
    let mut stream = stranger.open().await;
    let _accepted = stranger.accept().await;
    stream.write_all(&bytes(3, FRAME_LEN / 2)).await.unwrap();
    stream.close().await.unwrap();

    // The whole ones count, the half one is counted, the link is gone, and the others are served.
    a.connected_to(key(2)).await;
    assert!(a.frames(key(2), 3).await.into_iter().eq(0..3));
    a.disconnected_from(key(2)).await;
    is_served(&a, &witness).await;
    let stats = a.stats();
    assert_eq!((stats.bad_frames, stats.links, stats.ended[&LinkEnd::Truncated]), (1, 1, 1));
    assert_eq!(stats.received_lengths[&(FRAME_LEN / 2)], 1);
    assert_eq!(stats.received_lengths[&FRAME_LEN], 3 + 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_frame_is_counted_and_ends_the_link_over_quic() {
    truncated(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_frame_is_counted_and_ends_the_link_over_tcp() {
    truncated(TCP).await;
}

async fn cut_in_a_frame(listen: &str) {
    let (a, witness) = node_with_a_witness(listen).await;
    let mut stranger = Stranger::dialling(2, &a).await;
    let mut stream = stranger.open().await;
    let _accepted = stranger.accept().await;
    a.connected_to(key(2)).await;
    stream.write_all(&bytes(1, 7)).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(a.frames(key(2), 1).await, [0]);
    // The connection goes, not the stream: a machine that lost its network has sent no bad frame.
    stranger.leave().await;
    a.disconnected_from(key(2)).await;
    assert_eq!((a.stats().bad_frames, a.stats().ended[&LinkEnd::Broken]), (0, 1));
    is_served(&a, &witness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_inside_a_frame_is_no_bad_frame_over_quic() {
    cut_in_a_frame(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_inside_a_frame_is_no_bad_frame_over_tcp() {
    cut_in_a_frame(TCP).await;
}

async fn more_streams(listen: &str) {
    let (a, witness) = node_with_a_witness(listen).await;
    let mut stranger = Stranger::dialling(2, &a).await;
    let mut stream = stranger.open().await;
    let _accepted = stranger.accept().await;
    a.connected_to(key(2)).await;
    let mut extra = stranger.open().await;
    a.until("the refusal", |stats| stats.refused_streams == 1).await;
    // What is sent on it goes nowhere; the first stream goes on.
    let _ = extra.write_all(&bytes(1, 0)).await;
    let _ = extra.flush().await;
    assert!(matches!(extra.read(&mut [0]).await, Ok(0) | Err(_)));
    drop(extra);
    stream.write_all(&bytes(2, 0)).await.unwrap();
    stream.flush().await.unwrap();
    assert!(a.frames(key(2), 2).await.into_iter().eq(0..2));

    // Who goes on like this is thrown out.
    while a.stats().links == 2 {
        let opened = stranger.control.open_stream(stranger.other, StreamProtocol::new(NODE_PROTOCOL));
        if opened.await.is_err() {
            break;
        }
    }
    a.disconnected_from(key(2)).await;
    assert_eq!(a.stats().ended[&LinkEnd::ExtraStreams], 1);
    is_served(&a, &witness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_stream_is_refused_over_quic() {
    more_streams(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_stream_is_refused_over_tcp() {
    more_streams(TCP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_opens_no_stream_is_not_waited_for() {
    for listen in BOTH {
        let (a, witness) = node_with_a_witness(listen).await;
        let mut stranger = Stranger::dialling(2, &a).await;
        let _accepted = stranger.accept().await;
        a.until("a refusal", |stats| stats.refused.contains_key(&Refusal::OpenTimeout)).await;
        is_served(&a, &witness).await;
        assert!(a.events.is_empty());
        stranger.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_speaks_another_protocol_is_refused() {
    for listen in BOTH {
        let (a, _witness) = node_with_a_witness(listen).await;
        let mut stranger = Stranger::dialling(2, &a).await;
        // Its streams are refused one by one; ours it accepts.
        let opened = stranger.control.open_stream(stranger.other, StreamProtocol::new("/other/1")).await;
        assert!(opened.is_err());
        a.until("a refusal", |stats| stats.refused.contains_key(&Refusal::OpenTimeout)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_nothing_is_given_up() {
    for listen in BOTH {
        let mut config = node_config(1, tombola_link::Policy::Neighbours).listen_on(listen);
        config.stall_timeout = Duration::from_millis(300);
        let a = Node::start(config, vec![tombola_link::Peer::awaited(key(2))]).await;
        let mut stranger = Stranger::dialling(2, &a).await;
        let _stream = stranger.open().await;
        let _accepted = stranger.accept().await;
        a.connected_to(key(2)).await;
        // More than the windows of the stranger's transport hold (10 MB, 256 kB).
        let mut number = 0;
        while a.stats().links == 1 {
            if a.links.send(&key(2), numbered(Frame::zeroed(), number)).is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            number += 1;
        }
        a.disconnected_from(key(2)).await;
        assert_eq!(a.stats().ended[&LinkEnd::Stalled], 1);
    }
}
