//! What a hop refuses, and that nothing of it leaves a trace.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use std::convert::Infallible;

use aes::Aes128;
use common::{Free, Packet, Replay, Sample, Seen, bytes, open, rng, their_open};
use ctr::Ctr64BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::montgomery::MontgomeryPoint;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use rand_core::Rng;
use sha2::Sha256;
use sphinx_packet::SphinxPacketBuilder;
use sphinx_packet::constants::EXPANDED_SHARED_SECRET_HKDF_INFO;
use sphinx_packet::version::PAYLOAD_KEYS_SEEDS_VERSION;
use tombola_sphinx::{
    HEADER_LEN, PACKET_LEN, PayloadError, PointError, PublicKey, Routing, SecretKey, UnwrapError, payload_of,
    payload_of_mut, plaintext, verify, verify_batch,
};

/// A packet that ends at whoever shares `shared` with alpha: what anybody can make who knows the shared secret.
fn forge(alpha: [u8; 32], shared: &[u8; 32], flag: u8, version: [u8; 3]) -> Packet {
    let mut keys = [0; 32];
    Hkdf::<Sha256>::new(None, shared).expand(EXPANDED_SHARED_SECRET_HKDF_INFO, &mut keys).unwrap();
    let (stream_key, mac_key) = keys.split_at(16);
    let mut routing = [0; 300];
    routing[0] = flag;
    routing[1..4].copy_from_slice(&version);
    Ctr64BE::<Aes128>::new_from_slices(stream_key, &[0; 16]).unwrap().apply_keystream(&mut routing);
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(mac_key).unwrap();
    mac.update(&routing);
    let mut packet = Box::new([0; PACKET_LEN]);
    packet[..32].copy_from_slice(&alpha);
    packet[32..48].copy_from_slice(&mac.finalize().into_bytes()[..16]);
    packet[48..HEADER_LEN].copy_from_slice(&routing);
    packet
}

/// u = 0, 1, p - 1 and the two of order 8, from the curve library rather than from our table.
fn small_order_points() -> Vec<[u8; 32]> {
    let mut points: Vec<[u8; 32]> =
        EIGHT_TORSION.iter().map(|point| point.to_montgomery().to_bytes()).collect();
    // The neutral element and the point of order 2 share u = 0 in this library; p - 1 lies on the twist.
    points.push(plus_p(-1));
    points.sort_unstable();
    points.dedup();
    assert_eq!(points.len(), 5);
    points
}

/// p + n, for small n.
fn plus_p(n: i16) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = u8::try_from(0xed + n).unwrap();
    bytes[31] = 0x7f;
    bytes
}

fn with_top_bit(mut point: [u8; 32]) -> [u8; 32] {
    point[31] |= 0x80;
    point
}

/// Sends a packet through all steps.
fn treat(
    key: &SecretKey,
    packet: &mut [u8; PACKET_LEN],
    seen: &Seen,
) -> Result<Routing, Option<UnwrapError>> {
    let verified = verify(key, packet).map_err(Some)?;
    let admitted = verified.check_fresh(seen).map_err(|Replay| None)?.admit(&Free::default());
    let Ok(admitted) = admitted.map_err(|never: Infallible| match never {});
    Ok(admitted.unwrap().routing)
}

#[test]
fn alphas_of_small_order_are_refused_and_leave_no_tag() {
    let key = SecretKey::from_bytes([7; 32]);
    let seen = Seen::default();
    for alpha in small_order_points() {
        // The product is zero whatever the key: everybody can make this packet for everybody, and the oracle takes it.
        let mut packet = forge(alpha, &[0; 32], 2, [0, 1, 4]);
        assert!(their_open(&key, &packet).is_some());
        assert_eq!(treat(&key, &mut packet, &seen), Err(Some(UnwrapError::SmallOrderPoint)));
        let mut packet = forge(with_top_bit(alpha), &[0; 32], 2, [0, 1, 4]);
        assert!(their_open(&key, &packet).is_some());
        assert_eq!(treat(&key, &mut packet, &seen), Err(Some(UnwrapError::NonCanonicalPoint)));
    }
    assert!(seen.0.borrow().is_empty());
}

#[test]
fn alphas_in_non_canonical_encoding_are_refused_and_leave_no_tag() {
    let key = SecretKey::from_bytes([7; 32]);
    let seen = Seen::default();
    // p + n for every n that fits 255 bits: a second encoding of n.
    for n in 0..19 {
        let alpha = plus_p(n);
        let shared = MontgomeryPoint(alpha).mul_clamped([7; 32]).to_bytes();
        for alpha in [alpha, with_top_bit(alpha)] {
            let mut packet = forge(alpha, &shared, 2, [0, 1, 4]);
            assert!(their_open(&key, &packet).is_some());
            assert_eq!(treat(&key, &mut packet, &seen), Err(Some(UnwrapError::NonCanonicalPoint)));
        }
    }
    // An honest packet with the top bit of alpha set: the same packet to the oracle, since X25519 ignores the bit.
    let mut rng = rng(10);
    let sample = Sample::new(&mut rng, 5);
    let mut packet = sample.build();
    packet[31] |= 0x80;
    assert!(their_open(&sample.keys[0], &packet).is_some());
    assert_eq!(treat(&sample.keys[0], &mut packet, &seen), Err(Some(UnwrapError::NonCanonicalPoint)));
    assert!(seen.0.borrow().is_empty());
}

/// Nobody honest makes such an alpha, and nobody gains by it: the maker of a packet knows the shared secret anyway. What
/// counts is that hop and oracle agree, and that the next alpha is sound again.
#[test]
fn alphas_outside_the_subgroup_are_opened_as_the_oracle_does() {
    let key = SecretKey::from_bytes([7; 32]);
    let mixed = EIGHT_TORSION[1..].iter().map(|torsion| ED25519_BASEPOINT_POINT + torsion);
    let mixed: Vec<_> = mixed.map(|point| point.to_montgomery().to_bytes()).collect();
    let twist: Vec<_> = (2..40)
        .map(|u| {
            let mut point = [0; 32];
            point[0] = u;
            point
        })
        .filter(|point| MontgomeryPoint(*point).to_edwards(0).is_none())
        .collect();
    assert!(mixed.len() == 7 && twist.len() > 10);
    for alpha in mixed.into_iter().chain(twist) {
        let shared = MontgomeryPoint(alpha).mul_clamped([7; 32]).to_bytes();
        let mut packet = forge(alpha, &shared, 1, [0, 1, 4]);
        let theirs = their_open(&key, &packet).unwrap();
        let (tag, ours) = open(&key, &mut packet).unwrap();
        assert_eq!(tag.as_bytes(), &theirs.tag);
        assert_eq!(ours.routing, theirs.routing);
        assert!(packet == theirs.next.unwrap());
        // It was no packet for a second hop, but it fails at the MAC only.
        assert_eq!(open(&key, &mut packet).unwrap_err(), UnwrapError::Mac);
    }
}

#[test]
fn a_forged_packet_is_otherwise_sound() {
    let (key, ephemeral) = (SecretKey::from_bytes([7; 32]), SecretKey::from_bytes([8; 32]));
    let alpha = ephemeral.public_key().to_bytes();
    let shared = MontgomeryPoint(alpha).mul_clamped([7; 32]).to_bytes();
    let seen = Seen::default();
    assert!(treat(&key, &mut forge(alpha, &shared, 2, [0, 1, 4]), &seen).is_ok());
    assert_eq!(treat(&key, &mut forge(alpha, &shared, 2, [0, 1, 4]), &seen), Err(None), "a replay");
    assert_eq!(seen.0.borrow().len(), 1);
    for flag in (0..=255).filter(|flag| ![1, 2].contains(flag)) {
        let refused = treat(&key, &mut forge(alpha, &shared, flag, [0, 1, 4]), &Seen::default());
        assert_eq!(refused, Err(Some(UnwrapError::Flag(flag))));
    }
    for (version, number) in [([0, 1, 3], 259), ([0, 1, 5], 261), ([1, 1, 4], 0x01_01_04), ([0, 0, 0], 0)] {
        let refused = treat(&key, &mut forge(alpha, &shared, 2, version), &Seen::default());
        assert_eq!(refused, Err(Some(UnwrapError::Version(number))));
    }
}

#[test]
fn packets_of_the_version_before_are_refused() {
    let sample = Sample::new(&mut rng(11), 5);
    let mut packet = sample.their_packet(SphinxPacketBuilder::new().with_version(PAYLOAD_KEYS_SEEDS_VERSION));
    assert_eq!(open(&sample.keys[0], &mut packet).unwrap_err(), UnwrapError::Version(259));
}

#[test]
fn any_changed_bit_of_the_header_is_refused_and_leaves_no_tag() {
    let mut rng = rng(12);
    let sample = Sample::new(&mut rng, 5);
    let mut packet = sample.build();
    let seen = Seen::default();
    for bit in 0..HEADER_LEN * 8 {
        packet[bit / 8] ^= 1 << (bit % 8);
        let before = packet.clone();
        let refused = treat(&sample.keys[0], &mut packet, &seen).unwrap_err();
        let expected = if bit == 255 { UnwrapError::NonCanonicalPoint } else { UnwrapError::Mac };
        assert_eq!(refused, Some(expected), "bit {bit}");
        assert!(packet == before, "a refused packet is not changed");
        packet[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(seen.0.borrow().is_empty());
    treat(&sample.keys[0], &mut packet, &seen).unwrap();
}

/// The attacker changes one bit of each byte in turn, before each hop in turn.
#[test]
fn a_changed_bit_of_the_payload_becomes_noise_and_is_noticed_at_the_end_only() {
    let mut rng = rng(13);
    let sample = Sample::new(&mut rng, 5);
    let mut untouched = sample.build();
    for (hop, key) in sample.keys.iter().enumerate() {
        let before = untouched.clone();
        let (_, expected) = open(key, &mut untouched).unwrap();
        // At each hop another third of the bytes, so that the test stays short; the first hop gets them all.
        let step = if hop == 0 { 1 } else { 3 };
        for at in (hop % step..2048).step_by(step) {
            let mut tagged = before.clone();
            tagged[HEADER_LEN + at] ^= 1 << (rng.next_u32() % 8);
            let (_, unwrapped) = open(key, &mut tagged).unwrap();
            assert_eq!(unwrapped.routing, expected.routing);
            assert!(tagged[..HEADER_LEN] == untouched[..HEADER_LEN], "the header shows nothing");
            // 16384 coins: mean 8192, standard deviation 64; six of them either side.
            let changed: u32 = tagged.iter().zip(untouched.iter()).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert!((7808..=8576).contains(&changed), "{changed} bits changed at hop {hop}, byte {at}");
            for key in &sample.keys[hop + 1..] {
                open(key, &mut tagged).unwrap();
            }
            assert_eq!(plaintext(payload_of(&tagged)), Err(PayloadError::Changed));
        }
    }
    assert_eq!(plaintext(payload_of(&untouched)).unwrap(), sample.plaintext);
}

#[test]
fn badly_made_payloads_are_errors() {
    let mut packet = Box::new([0; PACKET_LEN]);
    let payload = payload_of_mut(&mut packet);
    assert_eq!(plaintext(payload), Err(PayloadError::Padding), "no mark");
    payload[16] = 1;
    assert_eq!(plaintext(payload), Ok(&[][..]));
    payload[2047] = 2;
    assert_eq!(plaintext(payload), Err(PayloadError::Padding), "not zeros behind the mark");
    payload[2047] = 1;
    assert_eq!(plaintext(payload).unwrap().len(), tombola_sphinx::PLAINTEXT_MAX);
    for at in 0..16 {
        payload[at] = 128;
        assert_eq!(plaintext(payload), Err(PayloadError::Changed));
        payload[at] = 0;
    }
}

/// A batch of every kind of packet, with three keys, not a multiple of the lanes: each result is what `verify` says.
#[test]
fn a_batch_says_of_each_packet_what_it_would_say_alone() {
    let mut rng = rng(14);
    let samples: Vec<_> = (0..3).map(|_| Sample::new(&mut rng, 3)).collect();
    let mut packets: Vec<Packet> = (0..29)
        .map(|at| {
            let mut packet = samples[at % 3].build();
            match at % 7 {
                1 => packet[31] |= 0x80,
                2 => packet[..32].copy_from_slice(&small_order_points()[at % 5]),
                3 => packet[40] ^= 1,
                4 => packet[..48].copy_from_slice(&bytes::<48>(&mut rng)),
                _ => {}
            }
            packet
        })
        .collect();
    let key_of = |at: usize| &samples[at % 3].keys[0];
    let mut alone = packets.clone();
    let mut next = 0;
    verify_batch(&mut packets, key_of, |at, result| {
        assert_eq!(at, next, "in order");
        next += 1;
        match (result, verify(key_of(at), &mut alone[at])) {
            (Ok(batched), Ok(single)) => {
                assert_eq!(batched.replay_tag(), single.replay_tag());
                assert_eq!(batched.routing(), single.routing());
                assert_eq!(batched.relay_secrets(), single.relay_secrets());
            }
            (Err(batched), Err(single)) => assert_eq!(batched, single),
            (batched, single) => panic!("{batched:?} in the batch, {single:?} alone"),
        }
    });
    assert_eq!(next, 29);
}

#[test]
fn public_keys_are_canonical_and_of_prime_order() {
    for point in small_order_points() {
        assert_eq!(PublicKey::from_bytes(&point), Err(PointError::SmallOrder));
    }
    for n in 0..19 {
        assert_eq!(PublicKey::from_bytes(&plus_p(n)), Err(PointError::NonCanonical));
    }
    let sound = SecretKey::from_bytes([3; 32]).public_key();
    assert_eq!(PublicKey::from_bytes(&sound.to_bytes()), Ok(sound));
    assert_eq!(PublicKey::from_bytes(&with_top_bit(sound.to_bytes())), Err(PointError::NonCanonical));
    // The base point plus each point of small order: on the curve, but X25519 and arithmetic modulo l disagree there.
    for torsion in &EIGHT_TORSION[1..] {
        let mixed = (ED25519_BASEPOINT_POINT + torsion).to_montgomery().to_bytes();
        assert_eq!(PublicKey::from_bytes(&mixed), Err(PointError::WrongGroup));
    }
    // Half of all numbers are on the twist, and there the order is another.
    let mut twist = 0;
    for u in 2..=255 {
        let mut point = [0; 32];
        point[0] = u;
        if MontgomeryPoint(point).to_edwards(0).is_none() {
            twist += 1;
            assert_eq!(PublicKey::from_bytes(&point), Err(PointError::WrongGroup));
        }
    }
    assert!(twist > 100);
}
