//! Claims as honest recipients make them, of random windows.

use alloy_primitives::{Address, keccak256};
use tombola_mixing::Rng;
use tombola_tickets::{
    BatchClaim, BatchHeader, Challenge, ClassNumber, Domain, EscrowView, Opener, Randomness, Root, Salt,
    SignerKey, TicketCount, WindowClaim, WindowNumber, WinnerClaim, merkle, wins,
};

use crate::world::{Recipient, World};

/// Sizes of batches at which something in the tree changes.
const COUNTS: [u64; 14] = [1, 2, 3, 4, 5, 8, 9, 64, 65, 127, 128, 129, 255, 256];
/// Classes in which tickets win within the tries below.
const CLASSES: u64 = 5;
/// Salts that are tried, of which nearly always one makes one ticket of 128 win.
const TRIES: usize = 1500;

pub(crate) fn bytes<const N: usize>(rng: &mut Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill(&mut bytes);
    bytes
}

pub(crate) fn small(rng: &mut Rng, below: u64) -> usize {
    usize::try_from(rng.below(below)).unwrap()
}

pub(crate) fn pick<'a, T>(rng: &mut Rng, among: &'a [T]) -> &'a T {
    &among[small(rng, among.len() as u64)]
}

/// Who signs a batch, for whom, where.
pub(crate) struct Signing<'a> {
    pub(crate) domain: &'a Domain,
    pub(crate) recipient: Address,
    pub(crate) key: &'a SignerKey,
}

impl Signing<'_> {
    fn header(&self, window: &WindowClaim, batch: &BatchClaim, root: Root) -> BatchHeader {
        BatchHeader {
            issuer: window.issuer,
            recipient: self.recipient,
            class: window.class,
            window: window.window,
            number: batch.number,
            count: batch.count,
            commitment: window.randomness.commitment(),
            root,
            salt: batch.salt,
        }
    }

    /// Signs what a batch of a claim says, whatever that is, with a salt by which its first ticket wins, if one is found.
    pub(crate) fn sign(&self, world: &World, rng: &mut Rng, window: &mut WindowClaim, at: usize) {
        let mut batch = window.batches[at].clone();
        let winner = &batch.winners[0];
        let mut header = self.header(window, &batch, climb(winner));
        let class = world.state.class(window.class);
        for _ in 0..TRIES {
            header.salt = Salt::from_bytes(bytes(rng));
            let digest = header.digest(self.domain);
            let won = |class: tombola_tickets::PriceClass| {
                wins(&digest, winner.k, &winner.opener, &window.randomness, class.win_probability)
            };
            if class.is_none_or(won) {
                break;
            }
        }
        batch.salt = header.salt;
        batch.signature = header.sign(self.domain, self.key).signature;
        window.batches[at] = batch;
    }
}

/// Where a winner's path leads to, also if its batch has no such ticket.
fn climb(winner: &WinnerClaim) -> Root {
    let mut node = *winner.opener.challenge().as_bytes();
    for (height, sibling) in winner.siblings.iter().enumerate() {
        let children = match winner.k >> height & 1 {
            0 => [node, *sibling.as_bytes()],
            _ => [*sibling.as_bytes(), node],
        };
        node.copy_from_slice(&keccak256(children.concat())[..20]);
    }
    Root::from_bytes(node)
}

/// A batch with winners of which all or some are claimed.
fn batch(
    world: &World,
    rng: &mut Rng,
    window: &WindowClaim,
    number: u8,
    signing: &Signing<'_>,
) -> BatchClaim {
    let size = if rng.below(4) == 0 { 1 + rng.below(256) } else { *pick(rng, &COUNTS) };
    let openers: Vec<_> = (0..size).map(|_| Opener::from_bytes(bytes(rng))).collect();
    let leaves: Vec<Challenge> = openers.iter().map(Opener::challenge).collect();
    let probability = world.state.class(window.class).unwrap().win_probability;
    let mut header = BatchHeader {
        issuer: window.issuer,
        recipient: signing.recipient,
        class: window.class,
        window: window.window,
        number,
        count: TicketCount::new(leaves.len()).unwrap(),
        commitment: window.randomness.commitment(),
        root: merkle::root(&leaves).unwrap(),
        salt: Salt::from_bytes(bytes(rng)),
    };
    let winners = loop {
        header.salt = Salt::from_bytes(bytes(rng));
        let digest = header.digest(signing.domain);
        let won = |k: &u8| wins(&digest, *k, &openers[usize::from(*k)], &window.randomness, probability);
        let winners: Vec<u8> = (0..=header.count.less_one()).filter(won).collect();
        if !winners.is_empty() {
            break winners;
        }
    };
    // A recipient may leave out some.
    let leave_out =
        if winners.len() > 1 && rng.below(3) == 0 { small(rng, winners.len() as u64) } else { 256 };
    let claimed = winners.iter().enumerate().filter(|(at, _)| *at != leave_out);
    let tickets = claimed.map(|(_, k)| (*k, openers[usize::from(*k)].clone()));
    BatchClaim::of(&header.sign(signing.domain, signing.key), &leaves, tickets).unwrap()
}

fn window(world: &World, rng: &mut Rng, recipient: Recipient) -> WindowClaim {
    let issuer = pick(rng, &world.issuers);
    let mut window = WindowClaim {
        issuer: issuer.account,
        class: ClassNumber(u32::try_from(rng.below(CLASSES)).unwrap()),
        window: WindowNumber(u32::try_from(rng.below(3000)).unwrap()),
        randomness: Randomness::from_bytes(bytes(rng)),
        least: 0,
        batches: Vec::new(),
    };
    if rng.below(16) == 0 {
        window.window = WindowNumber(u32::MAX);
    }
    // Any key of the issuer signs each of the batches.
    let mut number = rng.below(200);
    for _ in 0..=rng.below(4) {
        let key = pick(rng, &issuer.keys);
        let signing = Signing { domain: &world.domain, recipient: recipient.account, key };
        let batch = batch(world, rng, &window, u8::try_from(number).unwrap(), &signing);
        window.batches.push(batch);
        number += 1 + rng.below(12);
    }
    window.least = u16::try_from(rng.below(u64::from(window.winners()) + 1)).unwrap();
    window
}

/// One to four windows.
pub(crate) fn windows(world: &World, rng: &mut Rng, recipient: Recipient) -> Vec<WindowClaim> {
    (0..=rng.below(4)).map(|_| window(world, rng, recipient)).collect()
}
