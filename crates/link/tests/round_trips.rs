//! What lies between two ends of a TCP connection: silence, and distance. Silence is made with a filter that only Linux has.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use socket2::{SockFilter, SockRef};
use tombola_link::{LinkEnd, Peer, Policy};
use tombola_protocol::frame::Frame;

/// Bytes that yamux lets be on their way at first.
const AT_FIRST: usize = 256 << 10;
/// And at most, between nodes.
const AT_MOST: usize = 1 << 20;
/// What Noise, Yamux and the other stream add to that, generously.
const BESIDES: usize = AT_MOST / 16;

/// Passes one connection on, each byte after a while.
struct Relay {
    ends: [TcpStream; 2],
    /// Bytes on their way from the end that dialled to the one that listens, at most.
    most: Arc<AtomicUsize>,
}

impl Relay {
    /// Between `listener`, on this port, and a node that `dial` starts, which is given an address to dial.
    async fn between<N, F: Future<Output = N>>(
        port: u16,
        delay: Duration,
        dial: impl FnOnce(String) -> F,
    ) -> (Self, N) {
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = format!("/ip4/127.0.0.1/tcp/{}", door.local_addr().unwrap().port());
        let waits = thread::spawn(move || {
            let dialled = accept(&door);
            [dialled, TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()]
        });
        let node = dial(address).await;
        let ends = waits.join().unwrap();
        let most = Arc::new(AtomicUsize::new(0));
        let [dialled, listening] = ends.each_ref();
        pass_on(dialled, listening, delay, Arc::clone(&most));
        pass_on(listening, dialled, delay, Arc::default());
        (Self { ends, most }, node)
    }

    /// From now on nothing that either end sends is even acknowledged, as when a cable is cut.
    fn fall_silent(&self) {
        const NOTHING: SockFilter = SockFilter::new(6, 0, 0, 0);
        for end in &self.ends {
            SockRef::from(end).attach_filter(&[NOTHING]).unwrap();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn accept(door: &TcpListener) -> TcpStream {
    door.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match door.accept() {
            Ok((stream, _)) => return stream,
            Err(error) => {
                assert!(error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline, "{error}");
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Until one of the two ends does.
fn pass_on(from: &TcpStream, to: &TcpStream, delay: Duration, most: Arc<AtomicUsize>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    from.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    thread::spawn(move || {
        let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => waiting.push_back((Instant::now() + delay, buffer[..length].to_vec())),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
            most.fetch_max(waiting.iter().map(|(_, bytes)| bytes.len()).sum(), Ordering::Relaxed);
            while let Some((_, bytes)) = waiting.pop_front_if(|(due, _)| *due <= Instant::now()) {
                if to.write_all(&bytes).is_err() {
                    return;
                }
            }
        }
    });
}

fn port_of(node: &Node) -> u16 {
    node.links.listen_addresses()[0].rsplit('/').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_machine_is_gone_is_noticed_over_tcp() {
    let config = || {
        let mut config = node_config(1, Policy::Neighbours);
        config.silence_timeout = Duration::from_secs(3);
        config
    };
    let idle = Node::start(config().listen_on(TCP), vec![Peer::awaited(key(2))]).await;
    let (relay, sends) = Relay::between(port_of(&idle), Duration::ZERO, |address| {
        let mut config = config();
        config.secret = secret(2);
        Node::start(config, vec![Peer::dialled(key(1), vec![address])])
    })
    .await;
    idle.connected_to(key(2)).await;
    sends.connected_to(key(1)).await;

    relay.fall_silent();
    // One end waits, the other one has sent something.
    sends.links.send(&key(1), numbered(Frame::zeroed(), 1)).unwrap();
    sends.disconnected_from(key(1)).await;
    idle.disconnected_from(key(2)).await;
    for node in [&idle, &sends] {
        assert_eq!(node.stats().ended[&LinkEnd::Broken], 1, "{:#?}", node.stats());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_way_takes_more_at_a_time_over_tcp_but_not_without_bound() {
    let far = Node::listening(1, TCP, &[2]).await;
    let (relay, near) = Relay::between(port_of(&far), Duration::from_millis(100), |address| {
        Node::start(node_config(2, Policy::Neighbours), vec![Peer::dialled(key(1), vec![address])])
    })
    .await;
    far.connected_to(key(2)).await;
    near.connected_to(key(1)).await;

    const MANY: u64 = 4000;
    let deadline = Instant::now() + PATIENCE;
    let mut number = 0;
    while relay.most.load(Ordering::Relaxed) < AT_FIRST + BESIDES {
        assert!(Instant::now() < deadline, "at most {:?} bytes were on their way", relay.most);
        let some = number..number + MANY;
        let ((), came) = tokio::join!(near.send(key(1), some.clone()), far.frames(key(2), MANY as usize));
        assert!(came.into_iter().eq(some));
        number += MANY;
    }
    assert!(
        relay.most.load(Ordering::Relaxed) <= AT_MOST + BESIDES,
        "{:?} bytes were on their way",
        relay.most
    );
}
