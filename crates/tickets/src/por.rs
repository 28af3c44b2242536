//! Proof of relay: what a hop must learn from the next one before its ticket is worth anything.
//!
//! | what | bytes | value |
//! |---|---|---|
//! | opener of hop i's ticket, `por_i` | 16 | `keccak(own_i \| ack_{i+1})[..16]` |
//! | opener of the last paid hop | 16 | `keccak(own_i \| "last")[..16]` |
//! | challenge `C_i` | 20 | `keccak(por_i)[..20]` |
//! | check of hop i | 8 | `keccak(chk_i \| C_i)[..8]` |
//! | ack check of the first link | 8 | `keccak(ack_1)[..8]` |
//!
//! `own`, `ack` and `chk` are the [`RelaySecrets`]; source: `docs/payment.md`, "Proof of relay". Nothing here allocates.

use subtle::ConstantTimeEq;
use thiserror::Error;
use tombola_sphinx::{MAX_HOPS, RelaySecrets, RouteSecrets};

use crate::bytes::{concat, keccak, methods, redacted, secret_bytes, tag_bytes};

/// What stands in for the acknowledgement of a next hop where there is none.
const LAST: &[u8] = b"last";

secret_bytes! {
    /// Opens a ticket: the preimage of its challenge. Secret until it is claimed.
    ///
    /// That of the first link's ticket is random and comes with the packet; all others are derived.
    Opener, 16
}

secret_bytes! {
    /// What a hop reveals to the one before it when it has accepted a packet.
    Ack, 16
}

secret_bytes! {
    /// A hop's half of the opener of its own ticket; the next hop's acknowledgement is the other one.
    OwnSecret, 16
}

/// Names a ticket to its issuer and its recipient, and commits to its opener. The leaf of a batch's tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Challenge([u8; 20]);
methods!(Challenge, 20);
redacted!(Challenge);

tag_bytes! {
    /// In a hop's header: shows that the challenge beside the packet is the one that the sender meant.
    Check, 8
}

tag_bytes! {
    /// On the first link: by which client, gateway and first mix node recognise the first acknowledgement.
    AckCheck, 8
}

/// Why a packet is dropped and nobody paid, or an acknowledgement ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PorError {
    /// The neighbour sent another challenge than the sender of the packet meant.
    #[error("the check does not belong to the challenge")]
    WrongCheck,
    /// The last paid hop computed another challenge.
    #[error("the challenge is not that of a last hop")]
    NotLast,
    /// The neighbour revealed something else than the first hop's acknowledgement, or named another one.
    #[error("the acknowledgement does not match its check")]
    WrongAck,
}

impl Opener {
    /// What the opener commits to.
    #[must_use]
    pub fn challenge(&self) -> Challenge {
        Challenge(keccak(&self.0))
    }

    /// Whether this opens the ticket, in constant time.
    #[must_use]
    pub fn opens(&self, challenge: &Challenge) -> bool {
        self.challenge().0.ct_eq(&challenge.0).into()
    }
}

impl Ack {
    /// The acknowledgement that a hop reveals.
    #[must_use]
    pub fn of(hop: &RelaySecrets) -> Self {
        Self(hop.ack)
    }

    /// What the first link is told of it.
    #[must_use]
    pub fn ack_check(&self) -> AckCheck {
        AckCheck(keccak(&self.0))
    }

    /// Compares with what the client said, in constant time.
    ///
    /// # Errors
    ///
    /// [`PorError::WrongAck`].
    pub fn verify(&self, expected: &AckCheck) -> Result<(), PorError> {
        if self.ack_check() == *expected { Ok(()) } else { Err(PorError::WrongAck) }
    }
}

impl OwnSecret {
    /// All that a hop keeps of its secrets while it waits for the next hop.
    #[must_use]
    pub fn of(hop: &RelaySecrets) -> Self {
        Self(hop.own)
    }

    /// See [`opener`].
    #[must_use]
    pub fn opener(&self, next: &Ack) -> Opener {
        Opener(keccak(&*concat::<32>(&[&self.0, &next.0])))
    }
}

/// Opener of the ticket of a hop, once the next hop has acknowledged.
#[must_use]
pub fn opener(hop: &RelaySecrets, next: &Ack) -> Opener {
    OwnSecret::of(hop).opener(next)
}

/// Opener of the ticket of the last paid hop, which needs nobody else.
#[must_use]
pub fn last_opener(hop: &RelaySecrets) -> Opener {
    Opener(keccak(&*concat::<20>(&[&hop.own, LAST])))
}

/// What the sender writes into the hop's header.
#[must_use]
pub fn check(hop: &RelaySecrets, challenge: &Challenge) -> Check {
    Check(keccak(&*concat::<36>(&[&hop.chk, &challenge.0])))
}

/// Before a hop forwards anything: whether the challenge that came with the packet is the one that the sender meant.
/// In constant time.
///
/// # Errors
///
/// [`PorError::WrongCheck`].
pub fn verify_check(hop: &RelaySecrets, challenge: &Challenge, received: &Check) -> Result<(), PorError> {
    if check(hop, challenge) == *received { Ok(()) } else { Err(PorError::WrongCheck) }
}

/// At the last paid hop: the opener of its ticket, if the challenge that came with the packet is its own. In constant
/// time.
///
/// # Errors
///
/// [`PorError::NotLast`].
pub fn verify_last(hop: &RelaySecrets, challenge: &Challenge) -> Result<Opener, PorError> {
    let opener = last_opener(hop);
    if opener.opens(challenge) { Ok(opener) } else { Err(PorError::NotLast) }
}

/// The opener of the ticket that a client owes its gateway for a packet, from the challenge of the first hop and the packet's
/// number on their link. The two know it alike and at once: what the gateway waits for is the first hop's acknowledgement.
/// It is another one for each packet, and none of the two can choose it after the other.
#[must_use]
pub fn first_link_opener(first: &Challenge, number: u64) -> Opener {
    Opener(keccak(&*concat::<28>(&[&first.0, &number.to_be_bytes()])))
}

/// What a sender puts beside and into a packet for the hops that are paid: those from the first on, all but a recipient who is
/// a client.
#[derive(Clone, Debug)]
pub struct RouteTickets {
    challenges: [Challenge; MAX_HOPS],
    checks: [Check; MAX_HOPS],
    first_ack: AckCheck,
    paid: usize,
}

impl RouteTickets {
    /// The tickets of the first `paid` hops of a route.
    ///
    /// # Panics
    ///
    /// If `paid` is 0 or the route has fewer hops.
    #[must_use]
    pub fn of(route: &RouteSecrets, paid: usize) -> Self {
        assert!((1..=route.hops()).contains(&paid), "a route of {} hops pays 1 to all of them", route.hops());
        let mut tickets = Self {
            challenges: [Challenge([0; 20]); MAX_HOPS],
            checks: [Check([0; 8]); MAX_HOPS],
            first_ack: Ack::of(route.relay_secrets(0)).ack_check(),
            paid,
        };
        for at in 0..paid {
            let hop = route.relay_secrets(at);
            let opener = if at + 1 < paid {
                opener(hop, &Ack::of(route.relay_secrets(at + 1)))
            } else {
                last_opener(hop)
            };
            tickets.challenges[at] = opener.challenge();
            tickets.checks[at] = check(hop, &tickets.challenges[at]);
        }
        tickets
    }

    /// The challenge of hop `hop`, counted from 0.
    ///
    /// # Panics
    ///
    /// If that hop is not paid.
    #[must_use]
    pub fn challenge(&self, hop: usize) -> Challenge {
        self.challenges[..self.paid][hop]
    }

    /// The check of that challenge, for the hop's header.
    ///
    /// # Panics
    ///
    /// As [`challenge`](Self::challenge).
    #[must_use]
    pub fn check(&self, hop: usize) -> Check {
        self.checks[..self.paid][hop]
    }

    /// By which the first link recognises the first hop's acknowledgement.
    #[must_use]
    pub fn first_ack(&self) -> AckCheck {
        self.first_ack
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombola_sphinx::SecretKey;

    fn hop(at: u8) -> RelaySecrets {
        RelaySecrets { own: [at; 16], ack: [at + 1; 16], chk: [at + 2; 16] }
    }

    fn first<const N: usize>(input: &[u8]) -> [u8; N] {
        *alloy_primitives::keccak256(input).first_chunk().unwrap()
    }

    #[test]
    fn values_are_those_of_the_specification() {
        let (this, next) = (hop(1), hop(10));
        let por = opener(&this, &Ack::of(&next));
        let input: Vec<u8> = [[1; 16], [11; 16]].concat();
        assert_eq!(por.as_bytes(), &first::<16>(&input));
        let challenge = por.challenge();
        assert_eq!(challenge.as_bytes(), &first::<20>(por.as_bytes()));
        let input = [&[3; 16][..], challenge.as_bytes()].concat();
        assert_eq!(check(&this, &challenge).as_bytes(), &first::<8>(&input));
        assert_eq!(last_opener(&this).as_bytes(), &first::<16>(&[&[1; 16][..], b"last"].concat()));
        assert_eq!(Ack::of(&this).ack_check().as_bytes(), &first::<8>(&[2; 16]));
    }

    #[test]
    fn a_hop_accepts_its_challenge_only() {
        let this = hop(1);
        let challenge = opener(&this, &Ack::of(&hop(10))).challenge();
        let sent = check(&this, &challenge);
        assert_eq!(verify_check(&this, &challenge, &sent), Ok(()));
        for bit in 0..64 {
            let mut bytes = *sent.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let wrong = Check::from_bytes(bytes);
            assert_eq!(verify_check(&this, &challenge, &wrong), Err(PorError::WrongCheck), "bit {bit}");
        }
        let other = opener(&this, &Ack::of(&hop(20))).challenge();
        assert_eq!(verify_check(&this, &other, &sent), Err(PorError::WrongCheck));
        assert_eq!(verify_check(&hop(2), &challenge, &sent), Err(PorError::WrongCheck));
    }

    #[test]
    fn a_ticket_opens_with_the_ack_of_the_next_hop_and_no_other() {
        let this = hop(1);
        let challenge = opener(&this, &Ack::of(&hop(10))).challenge();
        assert!(opener(&this, &Ack::from_bytes([11; 16])).opens(&challenge));
        assert!(!opener(&this, &Ack::from_bytes([12; 16])).opens(&challenge));
        assert!(!last_opener(&this).opens(&challenge));
    }

    #[test]
    fn the_last_hop_opens_its_ticket_itself() {
        let last = hop(1);
        let challenge = last_opener(&last).challenge();
        assert_eq!(verify_last(&last, &challenge), Ok(last_opener(&last)));
        assert_eq!(verify_last(&hop(2), &challenge), Err(PorError::NotLast));
    }

    #[test]
    fn the_first_ack_is_recognised() {
        let ack = Ack::of(&hop(1));
        assert_eq!(ack.verify(&ack.ack_check()), Ok(()));
        assert_eq!(Ack::of(&hop(2)).verify(&ack.ack_check()), Err(PorError::WrongAck));
    }

    #[test]
    fn each_hop_of_a_route_finds_its_own_ticket_and_no_other() {
        let keys: Vec<_> = (1..=4).map(|at| SecretKey::from_bytes([at; 32]).public_key()).collect();
        let route = RouteSecrets::derive([9; 32], &keys).unwrap();
        let tickets = RouteTickets::of(&route, 3);
        assert_eq!(Ack::of(route.relay_secrets(0)).verify(&tickets.first_ack()), Ok(()));
        for at in 0..3 {
            let (this, challenge) = (route.relay_secrets(at), tickets.challenge(at));
            assert_eq!(verify_check(this, &challenge, &tickets.check(at)), Ok(()));
            let by_the_next = opener(this, &Ack::of(route.relay_secrets(at + 1))).opens(&challenge);
            assert_eq!(by_the_next, at < 2, "hop {at}");
            assert_eq!(verify_last(this, &challenge).is_ok(), at == 2, "hop {at}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let por = last_opener(&hop(1));
        let text = format!(
            "{por:?} {:?} {:?} {:?}",
            por.challenge(),
            Ack::of(&hop(1)),
            check(&hop(1), &por.challenge())
        );
        assert_eq!(text, "Opener(..) Challenge(..) Ack(..) Check(..)");
    }
}
