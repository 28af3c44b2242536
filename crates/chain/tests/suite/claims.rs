//! Windows with winners, as honest recipients claim them.

use alloy_primitives::Address;
use tombola_mixing::Rng;
use tombola_tickets::{
    BatchClaim, BatchHeader, Challenge, ClassNumber, Domain, Opener, Randomness, Salt, SignerKey,
    TicketCount, WinProbability, WindowClaim, WindowNumber, merkle, wins,
};

fn bytes<const N: usize>(rng: &mut Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill(&mut bytes);
    bytes
}

/// Who pays whom, signed by which key.
pub(crate) struct Link<'a> {
    pub(crate) domain: Domain,
    pub(crate) issuer: Address,
    pub(crate) key: &'a SignerKey,
    pub(crate) recipient: Address,
    pub(crate) class: ClassNumber,
}

impl Link<'_> {
    /// A window of some batches, each with at least one winner.
    pub(crate) fn window(&self, rng: &mut Rng, number: u32, batches: u8) -> WindowClaim {
        let randomness = Randomness::from_bytes(bytes(rng));
        let window = WindowNumber(number);
        let batches: Vec<_> = (0..batches).map(|at| self.batch(rng, &randomness, window, at)).collect();
        let mut claim =
            WindowClaim { issuer: self.issuer, class: self.class, window, randomness, least: 0, batches };
        claim.least = u16::try_from(claim.winners()).unwrap();
        claim
    }

    fn batch(&self, rng: &mut Rng, randomness: &Randomness, window: WindowNumber, number: u8) -> BatchClaim {
        let openers: Vec<_> = (0..40).map(|_| Opener::from_bytes(bytes(rng))).collect();
        let leaves: Vec<Challenge> = openers.iter().map(Opener::challenge).collect();
        let mut header = BatchHeader {
            issuer: self.issuer,
            recipient: self.recipient,
            class: self.class,
            window,
            number,
            count: TicketCount::new(leaves.len()).unwrap(),
            commitment: randomness.commitment(),
            root: merkle::root(&leaves).unwrap(),
            salt: Salt::from_bytes(bytes(rng)),
        };
        loop {
            let digest = header.digest(&self.domain);
            let won = |k: &u8| wins(&digest, *k, &openers[usize::from(*k)], randomness, WinProbability::MAX);
            let winners: Vec<u8> = (0..40).filter(won).collect();
            if !winners.is_empty() {
                let tickets = winners.iter().map(|k| (*k, openers[usize::from(*k)].clone()));
                return BatchClaim::of(&header.sign(&self.domain, self.key), &leaves, tickets).unwrap();
            }
            header.salt = Salt::from_bytes(bytes(rng));
        }
    }
}
