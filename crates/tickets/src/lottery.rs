//! Which tickets win: nobody can know or choose it before the packet has been relayed.
//!
//! The recipient commits to `r` before the window's first batch; the issuer's salt is in the digest; the opener comes from
//! the next hop. Source: `docs/payment.md`, "Windows and the lottery".

use alloy_primitives::Address;

use crate::batch::{Digest, Domain};
use crate::bytes::{TOGETHER, concat, keccak, keccak_each, public_bytes, secret_bytes};
use crate::class::WinProbability;
use crate::por::Opener;
use zeroize::Zeroizing;

/// Number of a window between one issuer and one recipient; the series goes on over epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowNumber(pub u32);

secret_bytes! {
    /// The recipient's randomness of one window, `r`. Secret until the window is claimed.
    Randomness, 16
}

public_bytes! {
    /// What the recipient sends of its randomness before the window's first batch.
    Commitment, 32
}

impl Randomness {
    /// `keccak(secret 32 | chain id 8 | escrow 20 | issuer 20 | window 4)[..16]`: the same after a crash, and another
    /// one for every contract, issuer and window.
    ///
    /// `secret` is the recipient's, uniformly random and used for nothing else.
    #[must_use]
    pub fn derive(secret: &[u8; 32], domain: &Domain, issuer: &Address, window: WindowNumber) -> Self {
        let input = concat::<84>(&[
            secret,
            &domain.chain_id().to_be_bytes(),
            domain.escrow().as_slice(),
            issuer.as_slice(),
            &window.0.to_be_bytes(),
        ]);
        Self(keccak(&*input))
    }

    /// `keccak(r | "tombola window")`.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        Commitment(keccak(&*concat::<30>(&[&self.0, b"tombola window"])))
    }
}

/// Whether ticket `k`, from 0, of the batch with this digest wins: if the first 8 bytes of
/// `keccak(digest | k 1 | por | r)`, as an integer, are less than the class's win probability.
#[must_use]
pub fn wins(
    digest: &Digest,
    k: u8,
    opener: &Opener,
    randomness: &Randomness,
    win_probability: WinProbability,
) -> bool {
    Draw(keccak(&*draw_input(digest, k, opener, randomness))).wins(win_probability)
}

/// What is drawn for a ticket.
#[derive(Clone, Copy)]
pub(crate) struct Draw([u8; 8]);

impl Draw {
    pub(crate) fn wins(self, win_probability: WinProbability) -> bool {
        u64::from_be_bytes(self.0) < win_probability.get()
    }
}

/// Draws for tickets of a batch, as [`wins`] does for one, several at a time.
pub(crate) fn draw_each<'a>(
    digest: &Digest,
    mut tickets: impl Iterator<Item = (u8, &'a Opener)>,
    randomness: &Randomness,
    mut take: impl FnMut(u8, Draw),
) {
    let (mut inputs, mut places) = (Zeroizing::new([[0; DRAW_INPUT]; TOGETHER]), [0; TOGETHER]);
    loop {
        let mut count = 0;
        for (k, opener) in tickets.by_ref().take(TOGETHER) {
            inputs[count] = *draw_input(digest, k, opener, randomness);
            places[count] = k;
            count += 1;
        }
        if count == 0 {
            return;
        }
        keccak_each(&inputs[..count], |at, hash| take(places[at], Draw(hash)));
    }
}

const DRAW_INPUT: usize = 65;

fn draw_input(
    digest: &Digest,
    k: u8,
    opener: &Opener,
    randomness: &Randomness,
) -> Zeroizing<[u8; DRAW_INPUT]> {
    concat(&[digest.as_bytes(), &[k], opener.as_bytes(), &randomness.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_together_are_those_of_each() {
        let (digest, randomness) = (
            Digest::from_bytes([7; 32]),
            Randomness::derive(&[1; 32], &domain(), &Address::ZERO, WindowNumber(2)),
        );
        for count in 0..=33_u8 {
            let openers: Vec<_> = (0..count).map(|at| (at * 3, Opener::from_bytes([at; 16]))).collect();
            let mut found = Vec::new();
            draw_each(&digest, openers.iter().map(|(k, opener)| (*k, opener)), &randomness, |k, draw| {
                found.push((k, draw.0));
            });
            let expected = openers
                .iter()
                .map(|(k, opener)| (*k, keccak(&*draw_input(&digest, *k, opener, &randomness))));
            assert!(found.into_iter().eq(expected), "{count}");
        }
    }

    fn domain() -> Domain {
        Domain::new(31337, Address::repeat_byte(0xe5))
    }

    fn derived(domain: &Domain, issuer: u8, window: u32) -> Randomness {
        Randomness::derive(&[1; 32], domain, &Address::repeat_byte(issuer), WindowNumber(window))
    }

    #[test]
    fn randomness_and_commitment_are_those_of_the_specification() {
        let mut input = vec![1; 32];
        input.extend([0, 0, 0, 0, 0, 0, 0x7a, 0x69]);
        input.extend([0xe5; 20]);
        input.extend([2; 20]);
        input.extend([0, 0, 0, 3]);
        let r = derived(&domain(), 2, 3);
        assert_eq!(r.as_bytes()[..], alloy_primitives::keccak256(&input)[..16]);
        let commitment = alloy_primitives::keccak256([r.as_bytes(), &b"tombola window"[..]].concat());
        assert_eq!(r.commitment().as_bytes(), &commitment.0);
    }

    #[test]
    fn everything_that_names_a_window_changes_its_randomness() {
        let (r, other) = (derived(&domain(), 2, 3), Domain::new(1, Address::repeat_byte(0xe5)));
        let elsewhere = Domain::new(31337, Address::repeat_byte(0xe6));
        let others = [
            derived(&domain(), 2, 4),
            derived(&domain(), 3, 3),
            derived(&other, 2, 3),
            derived(&elsewhere, 2, 3),
            Randomness::derive(&[2; 32], &domain(), &Address::repeat_byte(2), WindowNumber(3)),
        ];
        assert!(others.iter().all(|other| *other != r));
        assert_eq!(format!("{r:?}"), "Randomness(..)");
    }

    #[test]
    fn a_number_below_the_probability_wins() {
        let (digest, opener) = (Digest::from_bytes([1; 32]), Opener::from_bytes([2; 16]));
        let r = Randomness::from_bytes([3; 16]);
        // One in 64 wins: the first that does, and its number.
        let number = |k: u8| {
            let input = [&[1; 32][..], &[k], &[2; 16], &[3; 16]].concat();
            u64::from_be_bytes(*alloy_primitives::keccak256(input).first_chunk().unwrap())
        };
        let k = (0..=255).find(|k| number(*k) < WinProbability::MAX.get()).expect("256 tickets");
        let wins = |p| wins(&digest, k, &opener, &r, WinProbability::new(p).unwrap());
        assert!(wins(WinProbability::MAX.get()) && wins(number(k) + 1));
        assert!(!wins(number(k)) && !wins(0));
    }

    #[test]
    fn as_many_win_as_the_class_says() {
        let opener = Opener::from_bytes([2; 16]);
        let r = Randomness::from_bytes([3; 16]);
        let won = (0..20_000_u32)
            .filter(|at| {
                let digest = Digest::from_bytes(keccak(&at.to_be_bytes()));
                wins(&digest, at.to_be_bytes()[3], &opener, &r, WinProbability::MAX)
            })
            .count();
        // 312.5 on average, with a deviation of 17.5; the inputs are fixed.
        assert!((242..383).contains(&won), "{won}");
    }
}
