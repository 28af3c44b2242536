//! Who may come in. Counts connections and knows keys; knows nothing of sockets and streams.
//!
//! An inbound connection passes twice: it *knocks* when its first bytes have arrived, before the encryption handshake, and
//! is *admitted* when the handshake has proved its key, before anything is allocated for it. What it occupies is given back
//! with [`Door::forget`], whatever became of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use libp2p::swarm::ConnectionId;
use tombola_topology::IdentityKey;

use crate::address::Origin;
use crate::config::{ClientLimits, Policy, Target};
use crate::stats::Refusal;

/// Connections of one key at one time, counting those that are being closed because a later one replaced them: closing can
/// take as long as TCP keeps trying. It bounds what one key can occupy.
const MAX_PER_KEY: usize = 4;

/// Every collection in it is bounded: by the number of handshakes, or by that of peers or clients times [`MAX_PER_KEY`].
#[derive(Debug)]
pub(crate) struct Door {
    policy: Policy,
    max_handshakes: usize,
    closed: bool,
    /// Peers, and whether we are the one who dials.
    peers: BTreeMap<IdentityKey, bool>,
    /// Inbound connections whose handshake is in progress.
    pending: HashMap<ConnectionId, Option<Origin>>,
    /// Admitted inbound connections.
    admitted: HashMap<ConnectionId, (IdentityKey, Option<Origin>)>,
    /// Pending and admitted connections by origin.
    origins: HashMap<Origin, usize>,
}

impl Door {
    pub(crate) fn new(policy: Policy, max_handshakes: usize) -> Self {
        Self {
            policy,
            max_handshakes,
            closed: false,
            peers: BTreeMap::new(),
            pending: HashMap::new(),
            admitted: HashMap::new(),
            origins: HashMap::new(),
        }
    }

    /// Replaces the list of peers.
    pub(crate) fn set_targets(&mut self, targets: &[Target]) {
        self.peers = targets.iter().map(|target| (target.identity, target.dial)).collect();
    }

    /// Refuses everybody from now on.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// A connection asks for a handshake.
    pub(crate) fn knock(&mut self, connection: ConnectionId, origin: Option<Origin>) -> Result<(), Refusal> {
        if self.closed {
            return Err(Refusal::ShuttingDown);
        }
        if self.pending.len() >= self.max_handshakes {
            return Err(Refusal::HandshakeLimit);
        }
        if let (Policy::Clients(ClientLimits { max_per_origin: Some(most), .. }), Some(origin)) =
            (&self.policy, &origin)
            && self.origins.get(origin).is_some_and(|n| n >= most)
        {
            return Err(Refusal::OriginLimit);
        }
        self.pending.insert(connection, origin);
        if let Some(origin) = origin {
            *self.origins.entry(origin).or_default() += 1;
        }
        Ok(())
    }

    /// A connection that knocked has proved its key; `None` if that is no ed25519 key.
    pub(crate) fn admit(
        &mut self,
        connection: ConnectionId,
        key: Option<IdentityKey>,
    ) -> Result<IdentityKey, Refusal> {
        let decision = self.decide(key);
        let origin = self.pending.remove(&connection).flatten();
        match decision {
            Ok(identity) => {
                self.admitted.insert(connection, (identity, origin));
            }
            Err(_) => self.release(origin),
        }
        decision
    }

    fn decide(&self, key: Option<IdentityKey>) -> Result<IdentityKey, Refusal> {
        if self.closed {
            return Err(Refusal::ShuttingDown);
        }
        let identity = key.ok_or(Refusal::ForeignKey)?;
        match &self.policy {
            Policy::DialOnly => Err(Refusal::Stranger),
            Policy::Neighbours => match self.peers.get(&identity) {
                None => Err(Refusal::Stranger),
                Some(true) => Err(Refusal::WrongDirection),
                Some(false) if self.connections_of(&identity) >= MAX_PER_KEY => Err(Refusal::KeyLimit),
                Some(false) => Ok(identity),
            },
            Policy::Clients(limits) => match self.connections_of(&identity) {
                // A known client replaces its own connection and needs no further place.
                1..MAX_PER_KEY => Ok(identity),
                MAX_PER_KEY.. => Err(Refusal::KeyLimit),
                0 if self.clients() >= limits.max_connections => Err(Refusal::ClientLimit),
                0 => Ok(identity),
            },
        }
    }

    fn connections_of(&self, identity: &IdentityKey) -> usize {
        self.admitted.values().filter(|(other, _)| other == identity).count()
    }

    /// Different keys among the admitted.
    fn clients(&self) -> usize {
        self.admitted.values().map(|(identity, _)| identity).collect::<BTreeSet<_>>().len()
    }

    /// A connection has failed or ended. Does nothing for one that is not counted (any more). Returns whether its handshake
    /// was in progress.
    pub(crate) fn forget(&mut self, connection: ConnectionId) -> bool {
        if let Some(origin) = self.pending.remove(&connection) {
            self.release(origin);
            return true;
        }
        if let Some((_, origin)) = self.admitted.remove(&connection) {
            self.release(origin);
        }
        false
    }

    fn release(&mut self, origin: Option<Origin>) {
        let Some(origin) = origin else { return };
        if let Some(n) = self.origins.get_mut(&origin) {
            *n -= 1;
            if *n == 0 {
                self.origins.remove(&origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    fn key(byte: u8) -> IdentityKey {
        IdentityKey::from_bytes([byte; 32])
    }

    fn origin(byte: u8) -> Option<Origin> {
        Origin::of(&format!("/ip4/10.0.0.{byte}/tcp/1").parse().unwrap())
    }

    fn clients(max_connections: usize, max_per_origin: Option<usize>) -> Door {
        let limits = ClientLimits { max_connections, max_per_origin, ..ClientLimits::default() };
        Door::new(Policy::Clients(limits), 100)
    }

    fn enter(
        door: &mut Door,
        connection: usize,
        origin: Option<Origin>,
        who: u8,
    ) -> Result<IdentityKey, Refusal> {
        door.knock(id(connection), origin)?;
        door.admit(id(connection), Some(key(who)))
    }

    fn is_empty(door: &Door) -> bool {
        door.pending.is_empty() && door.admitted.is_empty() && door.origins.is_empty()
    }

    #[test]
    fn a_node_lets_in_the_neighbours_that_dial_it_and_nobody_else() {
        let mut door = Door::new(Policy::Neighbours, 100);
        let target = |byte, dial| Target { identity: key(byte), addresses: vec![], dial };
        door.set_targets(&[target(1, false), target(2, true)]);
        assert_eq!(enter(&mut door, 1, origin(1), 1), Ok(key(1)));
        assert_eq!(enter(&mut door, 2, origin(1), 2), Err(Refusal::WrongDirection));
        assert_eq!(enter(&mut door, 3, origin(1), 3), Err(Refusal::Stranger));
        door.knock(id(4), origin(1)).unwrap();
        assert_eq!(door.admit(id(4), None), Err(Refusal::ForeignKey));
        assert_eq!(door.origins[&origin(1).unwrap()], 1);
        door.forget(id(1));
        assert!(is_empty(&door));
    }

    #[test]
    fn handshakes_are_limited() {
        let mut door = Door::new(Policy::Neighbours, 2);
        door.knock(id(1), None).unwrap();
        door.knock(id(2), None).unwrap();
        assert_eq!(door.knock(id(3), None), Err(Refusal::HandshakeLimit));
        assert!(door.forget(id(1)));
        door.knock(id(4), None).unwrap();
    }

    #[test]
    fn clients_are_limited_but_may_come_back() {
        let mut door = clients(2, None);
        assert_eq!(enter(&mut door, 1, None, 1), Ok(key(1)));
        assert_eq!(enter(&mut door, 2, None, 2), Ok(key(2)));
        assert_eq!(enter(&mut door, 3, None, 3), Err(Refusal::ClientLimit));
        assert_eq!(enter(&mut door, 4, None, 1), Ok(key(1)));
        assert_eq!(enter(&mut door, 5, None, 3), Err(Refusal::ClientLimit));
        assert!(!door.forget(id(1)));
        assert_eq!(enter(&mut door, 6, None, 3), Err(Refusal::ClientLimit));
        door.forget(id(4));
        assert_eq!(enter(&mut door, 7, None, 3), Ok(key(3)));
    }

    #[test]
    fn one_key_cannot_pile_up_connections() {
        let mut door = clients(2, None);
        for n in 0..4 {
            assert_eq!(enter(&mut door, n, None, 1), Ok(key(1)));
        }
        assert_eq!(enter(&mut door, 4, None, 1), Err(Refusal::KeyLimit));
        assert_eq!(enter(&mut door, 5, None, 2), Ok(key(2)));
        door.forget(id(0));
        assert_eq!(enter(&mut door, 6, None, 1), Ok(key(1)));
    }

    #[test]
    fn one_origin_cannot_take_all_places() {
        let mut door = clients(100, Some(2));
        assert_eq!(enter(&mut door, 1, origin(1), 1), Ok(key(1)));
        door.knock(id(2), origin(1)).unwrap();
        assert_eq!(door.knock(id(3), origin(1)), Err(Refusal::OriginLimit));
        assert_eq!(enter(&mut door, 4, origin(2), 4), Ok(key(4)));
        door.forget(id(2));
        door.knock(id(5), origin(1)).unwrap();
    }

    #[test]
    fn a_closed_door_and_a_client_admit_nobody() {
        let mut door = clients(9, None);
        door.knock(id(1), origin(1)).unwrap();
        door.close();
        assert_eq!(door.admit(id(1), Some(key(1))), Err(Refusal::ShuttingDown));
        assert_eq!(door.knock(id(2), None), Err(Refusal::ShuttingDown));
        assert!(is_empty(&door));
        let mut door = Door::new(Policy::DialOnly, 9);
        assert_eq!(enter(&mut door, 1, None, 1), Err(Refusal::Stranger));
    }

    #[test]
    fn everything_is_given_back_whatever_happens() {
        // A deterministic walk over all operations; at the end everything is forgotten.
        let mut door = clients(5, Some(4));
        let mut x = 1u32;
        for step in 0..10_000usize {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let byte = (x >> 24) as u8;
            match byte % 4 {
                0 => drop(door.knock(id(step), origin(byte % 7))),
                1 => drop(enter(&mut door, step, origin(byte % 7), byte % 11)),
                _ => {
                    door.forget(id(step.saturating_sub(usize::from(byte % 16))));
                }
            }
            assert!(door.pending.len() <= 100 && door.admitted.len() <= 5 * MAX_PER_KEY);
            let counted: usize = door.origins.values().sum();
            assert_eq!(counted, door.pending.len() + door.admitted.len());
        }
        for n in 0..10_000 {
            door.forget(id(n));
        }
        assert!(is_empty(&door));
    }
}
