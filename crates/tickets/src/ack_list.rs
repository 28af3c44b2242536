//! The running hash over acknowledged challenges, which issuer and recipient both keep. It goes on over batches and
//! windows, so that acknowledgements on their way mean the same whichever batch was signed meanwhile; only when a list is
//! void does it begin anew.
//!
//! `h_0` is 32 zero bytes, `h_{n+1} = keccak(h_n | C)`. Source: `docs/payment.md`, "Tickets and batches".

use crate::bytes::{concat, keccak, public_bytes};
use crate::por::Challenge;

public_bytes! {
    /// The hash of a list of challenges, in order.
    ListHash, 32
}

/// Count and hash of a list of acknowledged challenges. Takes 40 bytes, however long the list is, and never allocates.
///
/// Two lists with the same count and hash are the same list.
///
/// ```
/// use tombola_tickets::{AckList, Opener};
/// let challenges = [1, 2].map(|at| Opener::from_bytes([at; 16]).challenge());
/// let (mut ours, mut theirs) = (AckList::new(), AckList::new());
/// challenges.iter().for_each(|challenge| ours.push(challenge));
/// challenges.iter().rev().for_each(|challenge| theirs.push(challenge));
/// assert_eq!(ours.count(), theirs.count());
/// assert_ne!(ours, theirs, "another order is another list");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckList {
    count: u64,
    hash: ListHash,
}

impl AckList {
    /// The empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { count: 0, hash: ListHash::from_bytes([0; 32]) }
    }

    /// A list that was kept.
    #[must_use]
    pub const fn restore(count: u64, hash: ListHash) -> Self {
        Self { count, hash }
    }

    /// Appends a challenge.
    pub fn push(&mut self, challenge: &Challenge) {
        self.hash =
            ListHash::from_bytes(keccak(&*concat::<52>(&[self.hash.as_bytes(), challenge.as_bytes()])));
        self.count += 1;
    }

    /// How many challenges it has.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their hash.
    #[must_use]
    pub const fn hash(&self) -> ListHash {
        self.hash
    }
}

impl Default for AckList {
    fn default() -> Self {
        Self::new()
    }
}

impl<'c> Extend<&'c Challenge> for AckList {
    fn extend<I: IntoIterator<Item = &'c Challenge>>(&mut self, challenges: I) {
        challenges.into_iter().for_each(|challenge| self.push(challenge));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::por::Opener;

    #[test]
    fn the_hash_runs_from_zero() {
        let challenges = [1, 2].map(|at| Opener::from_bytes([at; 16]).challenge());
        let mut list = AckList::default();
        assert_eq!((list.count(), list.hash().as_bytes()), (0, &[0; 32]));
        list.extend(&challenges);
        let first = alloy_primitives::keccak256([&[0; 32][..], challenges[0].as_bytes()].concat());
        let second = alloy_primitives::keccak256([&first[..], challenges[1].as_bytes()].concat());
        assert_eq!((list.count(), list.hash().as_bytes()), (2, &second.0));
        assert_eq!(AckList::restore(2, list.hash()), list);
    }
}
