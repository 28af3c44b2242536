//! Frames arrive: all, once, in order, over both transports, across restarts and past a blocked one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use tombola_link::{
    ChannelSink, DropReason, FrameSink, LinkConfig, LinkEnd, LinkEvent, Peer, Policy, SendError, Taken, start,
};
use tombola_protocol::frame::{FRAME_LEN, Frame};
use tombola_topology::IdentityKey;

const MANY: u64 = 10_000;

async fn exchange(listen: &str) {
    let (a, b) = pair(listen).await;
    let (_, _, from_b, from_a) = tokio::join!(
        a.send(key(2), 0..MANY),
        b.send(key(1), 0..MANY),
        a.frames(key(2), MANY as usize),
        b.frames(key(1), MANY as usize),
    );
    assert!(from_a.into_iter().eq(0..MANY));
    assert!(from_b.into_iter().eq(0..MANY));
    for node in [&a, &b] {
        node.until("all frames to be counted", |stats| stats.frames_out == MANY).await;
        let stats = node.stats();
        assert_eq!((stats.links, stats.frames_in, stats.bad_frames), (1, MANY, 0));
        assert!(stats.received_lengths.into_iter().eq([(FRAME_LEN, MANY)]));
        assert!(stats.refused.is_empty() && stats.ended.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_frames_each_way_over_quic() {
    exchange(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_frames_each_way_over_tcp() {
    exchange(TCP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_one_transport_is_blocked_the_other_is_used() {
    // Sockets that take everything and never answer: what a firewall looks like.
    let (udp, tcp) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let [udp_port, tcp_port] = [udp.local_addr(), tcp.local_addr()].map(|address| address.unwrap().port());
    let no_quic = format!("/ip4/127.0.0.1/udp/{udp_port}/quic-v1");
    let no_tcp = format!("/ip4/127.0.0.1/tcp/{tcp_port}");
    for (blocked, open) in [(no_quic, TCP), (no_tcp, QUIC)] {
        let a = Node::listening(1, open, &[2]).await;
        let mut peer = a.as_peer();
        peer.addresses.insert(0, blocked);
        let b = Node::start(node_config(2, Policy::Neighbours), vec![peer]).await;
        b.connected_to(key(1)).await;
        let stats = b.stats();
        assert_eq!((stats.dials, stats.failed_dials), (2, 1), "the first address was not tried first");
        b.send(key(1), 0..10).await;
        a.connected_to(key(2)).await;
        assert!(a.frames(key(2), 10).await.into_iter().eq(0..10));
    }
}

async fn restart(listen: &str) {
    let (a, b) = pair(listen).await;
    let address = a.links.listen_addresses().remove(0);
    a.links.shutdown().await;
    b.disconnected_from(key(1)).await;
    assert_eq!(b.stats().ended[&LinkEnd::PeerLeft], 1);

    // What is queued while the peer is away waits for it.
    b.send(key(1), 0..100).await;
    assert_eq!(b.stats().queued, 100);

    let deadline = Instant::now() + PATIENCE;
    let a = loop {
        // Within one process the old socket lives until the transport has forgotten its last connection.
        let (sink, events) = ChannelSink::new(64);
        let config = node_config(1, Policy::Neighbours).listen_on(&address);
        match start(config, vec![Peer::awaited(key(2))], Arc::new(sink)).await {
            Ok(links) => break Node { links, events },
            Err(error) => {
                assert!(error.to_string().contains(&address), "{error}");
                assert!(Instant::now() < deadline, "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    a.connected_to(key(2)).await;
    assert!(a.frames(key(2), 100).await.into_iter().eq(0..100));
    b.connected_to(key(1)).await;
    assert_eq!(b.stats().queued, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_restarts_gets_what_waited_over_quic() {
    restart(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_restarts_gets_what_waited_over_tcp() {
    restart(TCP).await;
}

/// A node in a runtime of its own, which can be torn away with all its sockets: what is left of a process after `kill -9`.
struct Process {
    runtime: tokio::runtime::Runtime,
    node: Node,
}

impl Process {
    /// Node 1, awaiting node 2. Retries while the kernel still holds the port of an earlier one.
    fn start(listen: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (sink, events) = ChannelSink::new(1024);
            let config = node_config(1, Policy::Neighbours).listen_on(listen);
            match runtime.block_on(start(config, vec![Peer::awaited(key(2))], Arc::new(sink))) {
                Ok(links) => return Self { runtime, node: Node { links, events } },
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn crash(self) {
        self.runtime.shutdown_timeout(PATIENCE);
    }
}

fn crash(listen: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let a = Process::start(listen);
    let address = a.node.links.listen_addresses().remove(0);
    let mut config = node_config(2, Policy::Neighbours);
    config.silence_timeout = Duration::from_secs(2);
    let b = runtime.block_on(Node::start(config, vec![a.node.as_peer()]));
    runtime.block_on(b.connected_to(key(1)));
    a.crash();
    let a = Process::start(&address);

    // The other end does not know yet: over TCP it learns it from the kernel as soon as it sends, over QUIC from silence.
    let deadline = Instant::now() + PATIENCE;
    let mut number = 0;
    let mut received = Vec::new();
    while received.is_empty() {
        assert!(Instant::now() < deadline, "{:#?}", b.stats());
        if b.links.send(&key(1), numbered(Frame::zeroed(), number)).is_ok() {
            number += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
        for event in a.node.events.try_iter() {
            if let LinkEvent::Frames(_, frames) = event {
                received.extend(frames.iter().map(number_of));
            }
        }
    }
    assert_eq!(b.stats().ended[&LinkEnd::Broken], 1);
    // What was sent into the void is lost; from then on everything arrives.
    received.extend(
        runtime.block_on(a.node.frames(key(2), number as usize - received[0] as usize - received.len())),
    );
    assert!(received.iter().copied().eq(received[0]..number));
}

#[test]
fn a_peer_that_crashes_is_found_again_over_quic() {
    crash(QUIC);
}

#[test]
fn a_peer_that_crashes_is_found_again_over_tcp() {
    crash(TCP);
}

async fn orderly_end(listen: &str) {
    const QUEUED: u64 = 1000;
    // Once the end that has dialled leaves, once the end that listens.
    for dialler_leaves in [true, false] {
        let (a, b) = pair(listen).await;
        let (stays, leaves) = if dialler_leaves { (a, b) } else { (b, a) };
        let (key_stays, key_leaves) = (stays.links.identity(), leaves.links.identity());
        leaves.send(key_stays, 0..QUEUED).await;
        leaves.links.shutdown().await;
        assert!(stays.frames(key_leaves, QUEUED as usize).await.into_iter().eq(0..QUEUED));
        stays.disconnected_from(key_leaves).await;
        assert_eq!(stays.stats().ended[&LinkEnd::PeerLeft], 1);

        let stats = leaves.stats();
        assert_eq!((stats.links, stats.frames_out, stats.ended[&LinkEnd::ShutDown]), (0, QUEUED, 1));
        leaves.disconnected_from(key_stays).await;
        assert!(matches!(leaves.links.send(&key_stays, Frame::zeroed()), Err(SendError::ShutDown(_))));
        leaves.links.shutdown().await;
        stays.links.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_queued_at_shutdown_still_arrives_over_quic() {
    orderly_end(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_queued_at_shutdown_still_arrives_over_tcp() {
    orderly_end(TCP).await;
}

/// Takes nothing until it is told to.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    numbers: Mutex<Vec<u64>>,
}

impl FrameSink for Gate {
    fn connected(&self, _: &IdentityKey) -> Taken {
        Taken::Yes
    }

    fn frames(&self, _: &IdentityKey, batch: &mut Vec<Frame>) {
        if self.open.load(Ordering::SeqCst) {
            self.numbers.lock().unwrap().extend(batch.drain(..).map(|frame| number_of(&frame)));
        }
    }

    fn disconnected(&self, _: &IdentityKey) -> Taken {
        Taken::Yes
    }
}

/// Sends until the queue stays full. Returns how many frames were accepted.
async fn fill(node: &Node, to: IdentityKey, from: u64) -> u64 {
    let (mut number, mut full_for) = (from, 0);
    while full_for < 300 {
        assert!(number - from < 20_000, "nothing stops the sender");
        match node.links.send(&to, numbered(Frame::zeroed(), number)) {
            Ok(()) => (number, full_for) = (number + 1, 0),
            Err(SendError::Full(_)) => {
                full_for += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    number
}

async fn slow_reader(listen: &str) {
    let gate = Arc::new(Gate::default());
    // A slow reader is not a silent one.
    const SILENCE: Duration = Duration::from_secs(2);
    let config = |n| LinkConfig { silence_timeout: SILENCE, ..node_config(n, Policy::Neighbours) };
    let awaited = vec![Peer::awaited(key(2))];
    let a =
        start(config(1).listen_on(listen), awaited, Arc::clone(&gate) as Arc<dyn FrameSink>).await.unwrap();
    let b = Node::start(config(2), vec![Peer::dialled(key(1), a.listen_addresses())]).await;
    b.connected_to(key(1)).await;

    // What is accepted is bounded by the queue (1024), the receive window (at most 428 frames), the batches at both ends
    // and what the kernel holds for TCP. Ten times as many are offered.
    let accepted = fill(&b, key(1), 0).await;
    assert!((1024..4000).contains(&accepted), "{accepted}");
    let stats = b.stats();
    assert_eq!(stats.queued, 1024);
    assert!(stats.dropped[&DropReason::QueueFull] >= 300);
    // It stays like this: nothing grows while the reader is slow.
    let still_accepted = fill(&b, key(1), accepted).await;
    assert!(still_accepted < accepted + 64, "{accepted} {still_accepted}");
    tokio::time::sleep(4 * SILENCE).await;
    assert!(b.stats().ended.is_empty() && a.stats().ended.is_empty(), "{:#?}", b.stats());

    gate.open.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + PATIENCE;
    while (gate.numbers.lock().unwrap().len() as u64) < still_accepted {
        pause(deadline, "the frames that were held up").await;
    }
    assert!(gate.numbers.lock().unwrap().iter().copied().eq(0..still_accepted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_fills_the_senders_queue_and_nothing_else_over_quic() {
    slow_reader(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_fills_the_senders_queue_and_nothing_else_over_tcp() {
    slow_reader(TCP).await;
}
