//! What the builder promises beyond the format.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use std::collections::BTreeSet;

use common::{Sample, bytes, open, rng};
use tombola_sphinx::{
    BuildError, HEADER_LEN, MAX_HOPS, PACKET_LEN, PLAINTEXT_MAX, RelaySecrets, RouteSecrets, SecretKey, build,
};

#[test]
fn sender_and_hop_derive_the_same_relay_secrets_and_no_two_hops_do() {
    let mut rng = rng(30);
    let mut all = BTreeSet::new();
    for _ in 0..100 {
        let sample = Sample::new(&mut rng, 5);
        let secrets = sample.route_secrets();
        let mut packet = sample.build();
        for (hop, key) in sample.keys.iter().enumerate() {
            let (tag, unwrapped) = open(key, &mut packet).unwrap();
            let relay = secrets.relay_secrets(hop);
            assert_eq!(&unwrapped.relay, relay);
            let RelaySecrets { own, ack, chk } = relay;
            assert!([own, ack, chk].into_iter().all(|secret| all.insert(*secret)));
            // Nor is any of them part of what others may know.
            assert!(
                [own, ack, chk]
                    .into_iter()
                    .all(|secret| !tag.as_bytes().windows(16).any(|part| part == secret))
            );
        }
    }
}

/// What the last hop sees behind its own fields: padding, then what became of the filler. If any of it were constant
/// or skewed, the hop could read the length of the route off it (Kuhn et al. 2020).
#[test]
fn the_last_hop_sees_uniform_bytes_whatever_the_length_of_the_route() {
    const PACKETS: usize = 400;
    let mut rng = rng(31);
    for hops in 1..=MAX_HOPS {
        let mut counts = [0_u32; 256];
        let mut ones_at = [0_u32; HEADER_LEN - 40];
        for _ in 0..PACKETS {
            let sample = Sample::new(&mut rng, hops);
            let mut packet = sample.build();
            for key in &sample.keys {
                open(key, &mut packet).unwrap();
            }
            // Behind a final hop, what followed its fields lies where the next header would be.
            for (byte, ones) in packet[40..HEADER_LEN].iter().zip(&mut ones_at) {
                counts[usize::from(*byte)] += 1;
                *ones += byte.count_ones();
            }
        }
        // 255 degrees of freedom: mean 255, standard deviation 22.6; six of them.
        let expected = (PACKETS * ones_at.len()) as f64 / 256.0;
        let chi_square: f64 =
            counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
        assert!(chi_square < 391.0, "chi-square {chi_square} at {hops} hops");
        // Each position by itself: 3200 coins, mean 1600, standard deviation 28.3; six of them.
        for (at, ones) in ones_at.iter().enumerate() {
            assert!((1430..=1770).contains(ones), "{ones} ones at byte {at}, {hops} hops");
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_packet_and_another_padding_seed_another_header() {
    let mut sample = Sample::new(&mut rng(32), 3);
    let packet = sample.build();
    assert!(packet == sample.build());
    sample.padding_seed = [1; 32];
    let other = sample.build();
    assert_ne!(packet[..HEADER_LEN], other[..HEADER_LEN]);
    assert_eq!(packet[HEADER_LEN..], other[HEADER_LEN..]);
}

#[test]
fn mistakes_of_the_caller_are_errors() {
    let mut rng = rng(33);
    let sample = Sample::new(&mut rng, 5);
    let keys: Vec<_> = (0..6).map(|_| SecretKey::from_bytes(bytes(&mut rng)).public_key()).collect();
    let refused = |keys| RouteSecrets::derive([1; 32], keys).unwrap_err();
    assert_eq!(refused(&[]), BuildError::RouteLength(0));
    assert_eq!(refused(&keys), BuildError::RouteLength(6));
    let secrets = sample.route_secrets();
    let mut packet = Box::new([0; PACKET_LEN]);
    let mut refused = |fields: &[_], plaintext: &[u8]| {
        build(&secrets, fields, &sample.destination, [0; 32], plaintext, &mut packet).unwrap_err()
    };
    assert_eq!(refused(&sample.fields[1..], b""), BuildError::FieldCount { expected: 4, got: 3 });
    let five = [sample.fields[0]; 5];
    assert_eq!(refused(&five, b""), BuildError::FieldCount { expected: 4, got: 5 });
    let too_long = vec![0; PLAINTEXT_MAX + 1];
    assert_eq!(refused(&sample.fields, &too_long), BuildError::PlaintextLength(PLAINTEXT_MAX + 1));
}

#[test]
fn debug_shows_no_secret() {
    let sample = Sample::new(&mut rng(34), 2);
    let secrets = sample.route_secrets();
    let mut packet = sample.build();
    let verified = tombola_sphinx::verify(&sample.keys[0], &mut packet).unwrap();
    assert_eq!(format!("{:?}", sample.keys[0]), "SecretKey(..)");
    assert_eq!(format!("{:?}", secrets.relay_secrets(0)), "RelaySecrets(..)");
    assert_eq!(format!("{secrets:?}"), "RouteSecrets { hops: 2, .. }");
    assert_eq!(format!("{verified:?} {:?}", verified.replay_tag()), "Verified(..) ReplayTag(..)");
}
