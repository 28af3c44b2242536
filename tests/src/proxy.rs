//! An eavesdropper: passes everything on and writes down what an observer of the wire sees.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::hand::free_port;

/// How soon the proxy's threads notice that they are to end.
const TICK: Duration = Duration::from_millis(100);

/// Who sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The end that has dialled.
    Dialler,
    /// The end that was dialled.
    Listener,
}

/// A datagram, or what one read of a TCP connection gave.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    /// Connections are numbered in the order in which they appear.
    pub flow: usize,
    pub from: From,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Notes {
    seen: Mutex<Vec<Seen>>,
    flows: Mutex<usize>,
    stop: AtomicBool,
}

impl Notes {
    fn write(&self, flow: usize, from: From, bytes: &[u8]) {
        // The time first: waiting for the lock is not the sender's doing.
        let at = Instant::now();
        self.seen.lock().unwrap().push(Seen { at, flow, from, bytes: bytes.to_vec() });
    }

    fn new_flow(&self) -> usize {
        let mut flows = self.flows.lock().unwrap();
        *flows += 1;
        *flows - 1
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A proxy on a port of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens, for the network document.
    pub address: String,
    notes: Arc<Notes>,
}

impl Proxy {
    /// Passes datagrams on to a QUIC port.
    pub fn udp(upstream: u16) -> Self {
        Self::udp_at(free_port(), upstream)
    }

    /// As [`udp`](Self::udp), on a port that is known.
    pub fn udp_at(port: u16, upstream: u16) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        front.set_read_timeout(Some(TICK)).unwrap();
        let notes = Arc::new(Notes::default());
        let thread_notes = Arc::clone(&notes);
        std::thread::spawn(move || pass_datagrams(&front, upstream, &thread_notes));
        Self { address: format!("/ip4/127.0.0.1/udp/{port}/quic-v1"), notes }
    }

    /// Passes connections on to a TCP port.
    pub fn tcp(upstream: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let notes = Arc::new(Notes::default());
        let thread_notes = Arc::clone(&notes);
        std::thread::spawn(move || {
            while !thread_notes.stopped() {
                match listener.accept() {
                    Ok((down, _)) => pass_connection(down, upstream, &thread_notes),
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self { address: format!("/ip4/127.0.0.1/tcp/{port}"), notes }
    }

    /// Connections so far: the number of the next.
    pub fn flows(&self) -> usize {
        *self.notes.flows.lock().unwrap()
    }

    /// Everything so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.notes.seen.lock().unwrap().clone()
    }

    /// All bytes of one connection in one direction.
    pub fn stream(&self, flow: usize, from: From) -> Vec<u8> {
        let seen = self.notes.seen.lock().unwrap();
        seen.iter()
            .filter(|s| s.flow == flow && s.from == from)
            .flat_map(|s| s.bytes.iter().copied())
            .collect()
    }

    /// Whether these bytes appear anywhere in what one end sent in one connection.
    pub fn shows(&self, needle: &[u8]) -> bool {
        (0..self.flows()).any(|flow| {
            [From::Dialler, From::Listener]
                .into_iter()
                .any(|from| self.stream(flow, from).windows(needle.len()).any(|window| window == needle))
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.notes.stop.store(true, Ordering::Relaxed);
    }
}

fn pass_datagrams(front: &UdpSocket, upstream: u16, notes: &Arc<Notes>) {
    let mut backs: BTreeMap<SocketAddr, (usize, UdpSocket)> = BTreeMap::new();
    let mut buffer = [0; 65_536];
    while !notes.stopped() {
        let Ok((n, dialler)) = front.recv_from(&mut buffer) else { continue };
        let (flow, back) = backs.entry(dialler).or_insert_with(|| {
            let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            back.connect((Ipv4Addr::LOCALHOST, upstream)).unwrap();
            back.set_read_timeout(Some(TICK)).unwrap();
            let flow = notes.new_flow();
            let (front, receive, notes) =
                (front.try_clone().unwrap(), back.try_clone().unwrap(), Arc::clone(notes));
            std::thread::spawn(move || {
                let mut buffer = [0; 65_536];
                while !notes.stopped() {
                    let Ok(n) = receive.recv(&mut buffer) else { continue };
                    notes.write(flow, From::Listener, &buffer[..n]);
                    let _ = front.send_to(&buffer[..n], dialler);
                }
            });
            (flow, back)
        });
        notes.write(*flow, From::Dialler, &buffer[..n]);
        let _ = back.send(&buffer[..n]);
    }
}

fn pass_connection(down: TcpStream, upstream: u16, notes: &Arc<Notes>) {
    // Whoever dialled sees the connection closed.
    let Ok(up) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)) else { return };
    let flow = notes.new_flow();
    for stream in [&down, &up] {
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TICK)).unwrap();
    }
    let ends = [(&down, &up, From::Dialler), (&up, &down, From::Listener)];
    for (source, sink, from) in ends {
        let (mut source, mut sink) = (source.try_clone().unwrap(), sink.try_clone().unwrap());
        let notes = Arc::clone(notes);
        std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while !notes.stopped() {
                match source.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => {
                        notes.write(flow, from, &buffer[..n]);
                        if sink.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
            let _ = sink.shutdown(Shutdown::Write);
        });
    }
}
