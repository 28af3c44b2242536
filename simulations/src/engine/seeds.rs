//! Where randomness comes from: one seed, and for everybody a generator of their own.

use tombola_mixing::Rng;

/// What a generator is for. Each purpose has 2^64 streams, one for each entity or one for each of an entity's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// By sender and the packet's number: whether it is a target, recipient, route, delays.
    Packets,
    /// By sender: when it emits.
    Emission,
    /// By client and the event's number: when its user writes.
    Users,
    /// By mix: what it draws itself (ties in the pool, which packets a pool mix keeps).
    Mixes,
    /// By mix: when it sends loops.
    MixLoops,
    /// By packet and link: how long links take, and what they lose.
    Links,
    /// By mix: which ones are corrupt.
    World,
    /// By node: keys of Sphinx packets.
    Keys,
    /// By sender and the packet's number: what a real Sphinx packet consists of.
    Sphinx,
}

impl Purpose {
    const COUNT: usize = Self::Sphinx as usize + 1;
}

/// The seeds of one replication: ChaCha20 keyed by seed, replication and purpose; streams by entity and counter.
///
/// An entity's values depend on nothing but this: not on what others draw, not on the order of events, not on threads.
/// So two scenarios under one seed share what their common entities draw (common random numbers), and a client's 17th
/// packet takes the same route in both.
#[derive(Clone)]
pub struct Seeds([[u8; 32]; Purpose::COUNT]);

impl Seeds {
    /// The seeds of a replication of the experiment with this seed.
    #[must_use]
    pub fn new(seed: u64, replication: u32) -> Self {
        let mut master = [0; 32];
        master[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::stream(&master, replication.into());
        Self(core::array::from_fn(|_| rng.seed()))
    }

    /// The generator of an entity, or of one of an entity's packets.
    #[must_use]
    pub fn stream(&self, purpose: Purpose, entity: u64) -> Rng {
        Rng::stream(&self.0[purpose as usize], entity)
    }

    /// 32 bytes for whoever takes a seed.
    #[must_use]
    pub fn seed(&self, purpose: Purpose, entity: u64) -> [u8; 32] {
        self.stream(purpose, entity).seed()
    }
}

impl core::fmt::Debug for Seeds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Seeds(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replications_purposes_and_entities_have_their_own_values() {
        let mut values = Vec::new();
        for (seed, replication) in [(1, 0), (1, 1), (2, 0)] {
            let seeds = Seeds::new(seed, replication);
            for purpose in [Purpose::Packets, Purpose::Emission, Purpose::Sphinx] {
                values.extend((0..100).map(|entity| seeds.stream(purpose, entity).next_u64()));
            }
        }
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), 900);
        assert_eq!(Seeds::new(1, 1).seed(Purpose::Keys, 7), Seeds::new(1, 1).seed(Purpose::Keys, 7));
    }
}
