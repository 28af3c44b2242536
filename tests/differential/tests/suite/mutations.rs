//! What can be wrong with a claim: in its bytes, in what it repeats or leaves out, in what was signed.

use alloy_primitives::{U256, uint};
use tombola_mixing::Rng;
use tombola_tickets::{
    ClassNumber, Domain, Node, Opener, Randomness, TicketCount, WindowClaim, WindowNumber, encode,
    encoded_len, merkle,
};

use crate::claims::{Signing, bytes, pick, small};
use crate::world::{Recipient, World};

/// Order of secp256k1.
const ORDER: U256 = uint!(0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256);

/// A claim and who claims it.
pub(crate) struct Claim {
    pub(crate) windows: Vec<WindowClaim>,
    pub(crate) recipient: Recipient,
}

type Mutation = fn(&World, &mut Rng, &mut Claim) -> Option<Vec<u8>>;

/// Each changes the claim, or makes bytes of it. Those that sign are signed by a key that may, unless they say otherwise.
pub(crate) const MUTATIONS: [(&str, Mutation); 31] = [
    ("flip a bit", |_, rng, claim| {
        edit(claim, |bytes| {
            let at = small(rng, bytes.len() as u64);
            bytes[at] ^= 1 << rng.below(8);
        })
    }),
    ("truncate", |_, rng, claim| edit(claim, |bytes| bytes.truncate(small(rng, bytes.len() as u64)))),
    ("truncate by one", |_, _, claim| edit(claim, |bytes| bytes.truncate(bytes.len() - 1))),
    ("append", |_, rng, claim| {
        edit(claim, |tail| {
            let more = bytes::<64>(rng);
            tail.extend_from_slice(&more[..=small(rng, 64)]);
        })
    }),
    ("append zeros", |_, rng, claim| edit(claim, |bytes| bytes.resize(bytes.len() + 1 + small(rng, 200), 0))),
    ("leave out bytes", |_, rng, claim| {
        edit(claim, |bytes| {
            let (from, to) = (small(rng, bytes.len() as u64), small(rng, bytes.len() as u64));
            bytes.drain(from.min(to)..from.max(to));
        })
    }),
    ("nothing is claimed", |_, _, _| Some(Vec::new())),
    ("no batch", |_, rng, claim| edit_window(rng, claim, |_, window| window[46] = 0)),
    ("no winner", |_, rng, claim| edit_batch(rng, claim, |_, batch| batch[82] = 0)),
    ("another count of winners", |_, rng, claim| edit_batch(rng, claim, |rng, batch| batch[82] = byte(rng))),
    ("another count of batches", |_, rng, claim| {
        edit_window(rng, claim, |rng, window| window[46] = byte(rng))
    }),
    ("another issuer, class, window, r", |_, rng, claim| {
        edit_window(rng, claim, |rng, window| {
            window[small(rng, 44)] = byte(rng);
        })
    }),
    ("another number, count, salt", |_, rng, claim| {
        edit_batch(rng, claim, |rng, batch| {
            batch[small(rng, 18)] = byte(rng);
        })
    }),
    ("another k", |_, rng, claim| edit_batch(rng, claim, |rng, batch| batch[83] = byte(rng))),
    ("high s", |_, rng, claim| {
        edit_batch(rng, claim, |_, batch| {
            let signed = U256::from_be_slice(&batch[50..82]);
            let s: U256 = ORDER - (signed & (U256::MAX >> 1));
            // Whether s has its highest bit is decided by the parity, which the other s turns.
            let turned = if signed.bit(255) { s } else { s | U256::ONE << 255 };
            batch[50..82].copy_from_slice(&turned.to_be_bytes::<32>());
        })
    }),
    ("the other parity", |_, rng, claim| edit_batch(rng, claim, |_, batch| batch[50] ^= 0x80)),
    ("no signature", |_, rng, claim| {
        edit_batch(rng, claim, |rng, batch| {
            let (from, to) = *pick(rng, &[(18, 82), (18, 50), (50, 82)]);
            batch[from..to].fill(0);
        })
    }),
    ("r out of range or of no key", |_, rng, claim| {
        edit_batch(rng, claim, |rng, batch| {
            let r = *pick(rng, &[ORDER, U256::MAX, ORDER + U256::ONE, U256::from(5), ORDER - U256::ONE]);
            batch[18..50].copy_from_slice(&r.to_be_bytes::<32>());
        })
    }),
    ("another least", |_, rng, claim| {
        let window = any_window(rng, claim);
        let winners = u16::try_from(window.winners()).unwrap();
        window.least = *pick(rng, &[0, winners, winners + 1, winners - 1, u16::MAX]);
        None
    }),
    ("repeat a window", |_, rng, claim| {
        let window = any_window(rng, claim).clone();
        claim.windows.insert(small(rng, claim.windows.len() as u64 + 1), window);
        None
    }),
    ("repeat a batch", |_, rng, claim| {
        let batches = &mut any_window(rng, claim).batches;
        let batch = pick(rng, batches).clone();
        batches.insert(small(rng, batches.len() as u64 + 1), batch);
        None
    }),
    ("another order of batches", |_, rng, claim| {
        any_window(rng, claim).batches.reverse();
        None
    }),
    ("leave out a batch", |_, rng, claim| {
        let batches = &mut any_window(rng, claim).batches;
        if batches.len() > 1 {
            batches.remove(small(rng, batches.len() as u64));
        }
        None
    }),
    ("repeat a winner", |_, rng, claim| {
        let batches = &mut any_window(rng, claim).batches;
        let winners = &mut batches[0].winners;
        let winner = pick(rng, winners).clone();
        winners.insert(small(rng, winners.len() as u64 + 1), winner);
        None
    }),
    ("another order of winners", |_, rng, claim| {
        any_window(rng, claim).batches.iter_mut().for_each(|batch| batch.winners.reverse());
        None
    }),
    ("another tree", |_, rng, claim| {
        let window = any_window(rng, claim);
        let batch = window.batches.iter_mut().max_by_key(|batch| batch.winners.len())?;
        let last = batch.winners.len() - 1;
        batch.winners[last].opener = Opener::from_bytes(bytes(rng));
        None
    }),
    // In the smaller tree that has one: nothing opens it.
    ("an inner node as a leaf", |_, rng, claim| {
        let batch = &mut any_window(rng, claim).batches[0];
        batch.winners.truncate(1);
        batch.count = TicketCount::from_less_one(batch.count.less_one() / 2);
        let winner = &mut batch.winners[0];
        let inner = winner.siblings.first().map_or([0; 20], |sibling| *sibling.as_bytes());
        winner.k /= 2;
        winner.siblings = winner.siblings.iter().skip(1).copied().collect();
        winner.opener = Opener::from_bytes(*inner.first_chunk().unwrap());
        None
    }),
    ("signed with any k and count", |world, rng, claim| {
        signed(world, rng, claim, |rng, window| {
            let batch = &mut window.batches[0];
            batch.winners.truncate(1);
            match rng.below(3) {
                0 => batch.winners[0].k = byte(rng),
                // Just beyond the last.
                1 => batch.winners[0].k = batch.count.less_one().wrapping_add(1),
                _ => batch.count = TicketCount::from_less_one(byte(rng)),
            }
            let filler = Node::from_bytes(bytes(rng));
            batch.winners[0].siblings.resize(merkle::depth(batch.count), filler);
        })
    }),
    ("signed with any class, number, window, r", |world, rng, claim| {
        signed(world, rng, claim, |rng, window| {
            match rng.below(4) {
                0 => window.class = ClassNumber(u32::try_from(rng.below(9)).unwrap()),
                1 => window.batches[0].number = byte(rng),
                2 => window.window = WindowNumber(u32::try_from(rng.below(600)).unwrap()),
                _ => window.randomness = Randomness::from_bytes(bytes(rng)),
            }
            window.batches.truncate(1);
            window.batches[0].winners.truncate(1);
        })
    }),
    ("signed by anybody, for anywhere", |world, rng, claim| {
        let elsewhere = [
            Domain::new(1, world.escrow),
            Domain::new(world.domain.chain_id(), claim.recipient.account),
            world.domain,
        ];
        let keys: Vec<_> =
            world.issuers.iter().flat_map(|issuer| &issuer.keys).chain([&world.stranger]).collect();
        let recipient = pick(rng, &world.recipients).account;
        let key = keys[small(rng, keys.len() as u64)];
        let signing = Signing { domain: pick(rng, &elsewhere), recipient, key };
        let window = any_window(rng, claim);
        window.batches[0].winners.truncate(1);
        window.least = 0;
        signing.sign(world, rng, window, 0);
        None
    }),
    ("for another recipient", |world, rng, claim| {
        claim.recipient = *pick(rng, &world.recipients);
        None
    }),
];

fn byte(rng: &mut Rng) -> u8 {
    bytes::<1>(rng)[0]
}

fn edit(claim: &Claim, change: impl FnOnce(&mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut bytes = encode(&claim.windows).unwrap();
    change(&mut bytes);
    Some(bytes)
}

/// Changes bytes from the beginning of a window on.
fn edit_window(rng: &mut Rng, claim: &Claim, change: fn(&mut Rng, &mut [u8])) -> Option<Vec<u8>> {
    let at = small(rng, claim.windows.len() as u64);
    let offset = encoded_len(&claim.windows[..at]);
    edit(claim, |bytes| change(rng, &mut bytes[offset..]))
}

/// Changes bytes from the beginning of a batch on.
fn edit_batch(rng: &mut Rng, claim: &Claim, change: fn(&mut Rng, &mut [u8])) -> Option<Vec<u8>> {
    let at = small(rng, claim.windows.len() as u64);
    let mut before = claim.windows[..=at].to_vec();
    before[at].batches.truncate(small(rng, claim.windows[at].batches.len() as u64));
    let offset = encoded_len(&before);
    edit(claim, |bytes| change(rng, &mut bytes[offset..]))
}

fn any_window<'a>(rng: &mut Rng, claim: &'a mut Claim) -> &'a mut WindowClaim {
    let at = small(rng, claim.windows.len() as u64);
    &mut claim.windows[at]
}

/// Changes a window, and signs its first batch for what it says then.
fn signed(
    world: &World,
    rng: &mut Rng,
    claim: &mut Claim,
    change: fn(&mut Rng, &mut WindowClaim),
) -> Option<Vec<u8>> {
    let recipient = claim.recipient.account;
    let window = any_window(rng, claim);
    let issuer = world.issuers.iter().find(|issuer| issuer.account == window.issuer).unwrap();
    window.least = 0;
    change(rng, window);
    Signing { domain: &world.domain, recipient, key: pick(rng, &issuer.keys) }.sign(world, rng, window, 0);
    None
}
