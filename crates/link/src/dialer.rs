//! Whom to dial, where and when. Knows neither sockets nor a clock: time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use tokio::time::Instant;
use tombola_topology::IdentityKey;

use crate::address::Address;
use crate::backoff::Backoff;
use crate::config::Target;

/// A link that lived this long ended a run of failures: the next delay is the shortest again. Shorter lives count as
/// failures, so that a peer which accepts and hangs up is not dialled ten times a second.
const STABLE: Duration = Duration::from_secs(10);

/// Keeps one connection to every peer that is to be dialled, forever.
///
/// One attempt tries the peer's addresses one after the other, in the order of the list; when all have failed, or when a
/// connection ends, it waits (see [`Backoff`]) and starts with the first address again.
#[derive(Debug, Default)]
pub(crate) struct Dialer {
    peers: BTreeMap<IdentityKey, Entry>,
}

#[derive(Debug)]
struct Entry {
    addresses: Vec<Address>,
    backoff: Backoff,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting {
        until: Instant,
    },
    /// To be dialled at this address at once.
    Ready {
        address: usize,
    },
    Dialling {
        address: usize,
        connection: ConnectionId,
    },
    Connected {
        connection: ConnectionId,
        since: Instant,
    },
}

impl Dialer {
    /// Replaces the list. Peers that stay keep their connection or their place in the schedule.
    pub(crate) fn set_targets(&mut self, targets: &[Target]) {
        let mut before = std::mem::take(&mut self.peers);
        for target in targets.iter().filter(|target| target.dial) {
            let mut entry = before.remove(&target.identity).unwrap_or_else(|| Entry {
                addresses: Vec::new(),
                backoff: Backoff::default(),
                state: State::Ready { address: 0 },
            });
            if entry.addresses != target.addresses {
                entry.addresses.clone_from(&target.addresses);
                // What an attempt in progress has learnt was about the old addresses.
                if !matches!(entry.state, State::Connected { .. } | State::Dialling { .. }) {
                    entry.state = State::Ready { address: 0 };
                }
            }
            self.peers.insert(target.identity, entry);
        }
    }

    /// An attempt that is due, if any. The caller reports with [`Self::dialling`] what it made of it.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(IdentityKey, Address)> {
        self.peers.iter_mut().find_map(|(identity, entry)| {
            if matches!(entry.state, State::Waiting { until } if until <= now) {
                entry.state = State::Ready { address: 0 };
            }
            match entry.state {
                // The list may have become shorter meanwhile; it is never empty.
                State::Ready { address } => {
                    entry.addresses.get(address).or(entry.addresses.first()).map(|a| (*identity, *a))
                }
                _ => None,
            }
        })
    }

    /// When [`Self::poll`] will have something to do; `None` if that depends on what happens.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.peers.values().filter_map(|entry| match entry.state {
            State::Waiting { until } => Some(until),
            _ => None,
        });
        waits.min()
    }

    /// An attempt has begun.
    pub(crate) fn dialling(&mut self, identity: &IdentityKey, connection: ConnectionId) {
        if let Some(entry) = self.peers.get_mut(identity)
            && let State::Ready { address } = entry.state
        {
            entry.state = State::Dialling { address, connection };
        }
    }

    /// An attempt has failed: the next address, or a pause.
    pub(crate) fn failed(&mut self, now: Instant, connection: ConnectionId, random: u64) {
        let Some(entry) = self.entry_of(connection) else { return };
        entry.state = match entry.state {
            State::Dialling { address, .. } if address + 1 < entry.addresses.len() => {
                State::Ready { address: address + 1 }
            }
            // Also when the connection was refused after it had succeeded.
            _ => State::Waiting { until: now + entry.backoff.next(random) },
        };
    }

    /// An attempt has succeeded. Returns false if the peer is no longer to be dialled.
    pub(crate) fn connected(&mut self, now: Instant, connection: ConnectionId) -> bool {
        let Some(entry) = self.entry_of(connection) else { return false };
        entry.state = State::Connected { connection, since: now };
        true
    }

    /// A connection has ended: a pause.
    pub(crate) fn disconnected(&mut self, now: Instant, connection: ConnectionId, random: u64) {
        let Some(entry) = self.entry_of(connection) else { return };
        if let State::Connected { since, .. } = entry.state {
            if now.duration_since(since) >= STABLE {
                entry.backoff = Backoff::default();
            }
            entry.state = State::Waiting { until: now + entry.backoff.next(random) };
        }
    }

    fn entry_of(&mut self, id: ConnectionId) -> Option<&mut Entry> {
        self.peers.values_mut().find(|entry| match entry.state {
            State::Dialling { connection, .. } | State::Connected { connection, .. } => connection == id,
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IdentityKey = IdentityKey::from_bytes([1; 32]);

    fn target(identity: IdentityKey, ports: &[u16]) -> Target {
        let address = |port: &u16| format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
        Target { identity, addresses: ports.iter().map(address).collect(), dial: true }
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    fn port(due: Option<(IdentityKey, Address)>) -> Option<u16> {
        due.map(|(_, address)| address.socket.port())
    }

    #[test]
    fn addresses_are_tried_in_order_and_then_after_a_pause_again() {
        let now = Instant::now();
        let mut dialer = Dialer::default();
        dialer.set_targets(&[target(PEER, &[1, 2])]);
        for (round, pause_ms) in [(0, 100), (1, 200), (2, 400)] {
            let now = now + Duration::from_secs(round);
            for (n, expected) in [(0, 1), (1, 2)] {
                assert_eq!(port(dialer.poll(now)), Some(expected));
                dialer.dialling(&PEER, id(n));
                assert_eq!(dialer.poll(now), None);
                dialer.failed(now, id(n), 0);
            }
            assert_eq!(dialer.poll(now), None);
            assert_eq!(dialer.poll_timeout(), Some(now + Duration::from_millis(pause_ms)));
        }
    }

    #[test]
    fn a_short_life_counts_as_a_failure_and_a_long_one_does_not() {
        let now = Instant::now();
        let mut dialer = Dialer::default();
        dialer.set_targets(&[target(PEER, &[1, 2])]);
        let mut live = |now: Instant, n: usize, life: Duration| {
            assert_eq!(port(dialer.poll(now)), Some(1));
            dialer.dialling(&PEER, id(n));
            assert!(dialer.connected(now, id(n)));
            assert_eq!((dialer.poll(now), dialer.poll_timeout()), (None, None));
            dialer.disconnected(now + life, id(n), 0);
            dialer.poll_timeout().unwrap() - (now + life)
        };
        assert_eq!(live(now, 1, Duration::from_secs(1)), Duration::from_millis(100));
        assert_eq!(live(now + Duration::from_secs(2), 2, Duration::from_secs(1)), Duration::from_millis(200));
        assert_eq!(
            live(now + Duration::from_secs(9), 3, Duration::from_secs(10)),
            Duration::from_millis(100)
        );
    }

    #[test]
    fn a_removed_peer_is_forgotten() {
        let now = Instant::now();
        let mut dialer = Dialer::default();
        dialer.set_targets(&[target(PEER, &[1])]);
        dialer.dialling(&PEER, id(1));
        dialer.set_targets(&[]);
        assert!(!dialer.connected(now, id(1)));
        dialer.failed(now, id(1), 0);
        assert_eq!((dialer.poll(now), dialer.poll_timeout()), (None, None));
    }

    #[test]
    fn a_peer_that_stays_keeps_its_connection_and_new_addresses_end_a_pause() {
        let now = Instant::now();
        let mut dialer = Dialer::default();
        dialer.set_targets(&[target(PEER, &[1])]);
        dialer.dialling(&PEER, id(1));
        assert!(dialer.connected(now, id(1)));
        dialer.set_targets(&[target(PEER, &[7]), target(IdentityKey::from_bytes([2; 32]), &[5])]);
        assert_eq!(port(dialer.poll(now)), Some(5));
        dialer.dialling(&IdentityKey::from_bytes([2; 32]), id(2));
        assert_eq!(dialer.poll(now), None);
        dialer.disconnected(now, id(1), 0);
        assert_eq!(dialer.poll(now), None);
        dialer.set_targets(&[target(PEER, &[8])]);
        assert_eq!(port(dialer.poll(now)), Some(8));
    }
}
