//! A door in front of a server that a test can shut.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::hand::free_port;

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// They lead to the server.
    Open,
    /// They are closed at once, as if nobody listened.
    Refusing,
    /// They are taken, and nothing is ever answered.
    Silent,
}

const ENDED: u8 = 255;

/// Passes connections on to a TCP port while it is open. It ends when it is dropped.
#[derive(Debug)]
pub struct Gate {
    pub port: u16,
    state: Arc<AtomicU8>,
    /// Both ends of what passes through, and those that wait for an answer.
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Gate {
    pub fn new(upstream: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let state = Arc::new(AtomicU8::new(State::Open as u8));
        let streams = Arc::new(Mutex::new(Vec::new()));
        let (now, all) = (Arc::clone(&state), Arc::clone(&streams));
        std::thread::spawn(move || {
            while now.load(Ordering::SeqCst) != ENDED {
                let Ok((down, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                // Nobody slips in while the state changes.
                let mut all = all.lock().unwrap();
                match now.load(Ordering::SeqCst) {
                    state if state == State::Open as u8 => pass(down, upstream, &mut all),
                    state if state == State::Silent as u8 => all.push(down),
                    _ => {}
                }
            }
        });
        Self { port, state, streams }
    }

    /// How it is from now on. All connections that there are end.
    pub fn set(&self, state: State) {
        self.change(state as u8);
    }

    fn change(&self, state: u8) {
        let mut streams = self.streams.lock().unwrap();
        self.state.store(state, Ordering::SeqCst);
        for stream in streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.change(ENDED);
    }
}

fn pass(down: TcpStream, upstream: u16, all: &mut Vec<TcpStream>) {
    // Whoever dialled sees the connection closed.
    let Ok(up) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)) else { return };
    for stream in [&down, &up] {
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        all.push(stream.try_clone().unwrap());
    }
    for (source, sink) in [(&down, &up), (&up, &down)] {
        let (mut source, mut sink) = (source.try_clone().unwrap(), sink.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok(n @ 1..) = source.read(&mut buffer) {
                if sink.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            let _ = sink.shutdown(Shutdown::Write);
        });
    }
}
