//! Loopback ports for processes that are started later.
//!
//! The system gives the source ports of connections out of a range of its own, in which it also chooses for whoever binds port
//! 0. A port from there may be somebody's connection by the time that its process starts, or starts again. So these are chosen
//! below that range.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;

/// Below are ports of well-known services.
const FIRST: u16 = 10_000;
/// Where the range of source ports begins on Linux, unless somebody has changed it; elsewhere it begins higher.
const USUAL_START: u16 = 32_768;
const TRIES: u64 = 200;

/// Binds a random port with `bind`, which is called with one after the other until it succeeds; in the end with 0, which is for
/// one of the system's choice.
///
/// # Errors
/// The last error of `bind`.
pub(super) fn bind_any<T>(bind: impl Fn(u16) -> io::Result<T>) -> io::Result<T> {
    let (random, end) = (RandomState::new(), start_of_source_ports());
    let choices = u64::from(end.saturating_sub(FIRST));
    let chosen = (0..TRIES).filter_map(|attempt| random.hash_one(attempt).checked_rem(choices));
    let chosen = chosen.filter_map(|above| u16::try_from(above).ok()).map(|above| FIRST + above);
    for port in chosen.chain((0..TRIES).map(|_| 0)) {
        if let Ok(bound) = bind(port) {
            return Ok(bound);
        }
    }
    bind(0)
}

fn start_of_source_ports() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|start| start.parse().ok()).unwrap_or(USUAL_START)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_port_that_is_bound_is_none_of_a_connection() {
        let listener = bind_any(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port))).unwrap();
        let port = listener.local_addr().unwrap().port();
        // Where somebody has given all ports away, it is one of those.
        assert!(
            start_of_source_ports() <= FIRST || (FIRST..start_of_source_ports()).contains(&port),
            "{port}"
        );
    }

    #[test]
    fn what_cannot_be_bound_is_given_up_for_another_and_in_the_end_said() {
        let tried = RefCell::new(Vec::new());
        let refuse = |port| {
            tried.borrow_mut().push(port);
            Err::<(), _>(io::Error::from(io::ErrorKind::AddrInUse))
        };
        assert_eq!(bind_any(refuse).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let tried = tried.take();
        assert_eq!(tried.last(), Some(&0), "one of the system's choice");
    }
}
