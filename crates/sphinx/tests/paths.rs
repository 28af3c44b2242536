//! Every path that this processor has, against `sphinx-packet` and against one packet at a time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use common::{Free, Packet, Sample, Seen, below, bytes, open, rng, their_open};
use rand_chacha::ChaCha20Rng;
use sphinx_packet::SphinxPacketBuilder;
use tombola_sphinx::{
    Admitted, BuildError, Draft, PACKET_LEN, Path, PublicKey, RouteSecrets, SecretKey, UnwrapError,
    build_batch_on, unwrap_batch_on, verify_batch_on,
};

/// Opens a batch of any size, in which some packets are damaged and some are for hops of several keys: each must come out
/// as the oracle leaves it, or be refused as it would be alone.
fn open_a_batch(path: Path, rng: &mut ChaCha20Rng) -> usize {
    let count = 1 + below(rng, 40);
    let samples: Vec<_> = (0..count).map(|_| Sample::any_length(rng)).collect();
    let mut packets: Vec<Packet> = samples
        .iter()
        .map(|sample| {
            let mut packet = match below(rng, 2) {
                0 => sample.build(),
                _ => sample.their_packet(SphinxPacketBuilder::new()),
            };
            match below(rng, 16) {
                0 => packet[31] |= 0x80,
                1 => packet[..32].fill(0),
                2 => packet[40] ^= 1,
                // On the twist half of the time.
                3 => {
                    packet[..32].copy_from_slice(&bytes::<32>(rng));
                    packet[31] &= 0x3f;
                }
                _ => {}
            }
            packet
        })
        .collect();
    let before = packets.clone();
    let filter = Seen::default();
    let admission = Free::default();
    let mut results: Vec<Option<UnwrapError>> = Vec::new();
    let mut admitted: Vec<(usize, Admitted<'_>)> = Vec::new();
    verify_batch_on(
        path,
        &mut packets,
        |at| &samples[at].keys[0],
        |at, verified| {
            assert_eq!(at, results.len(), "in order");
            results.push(match verified {
                Ok(verified) => {
                    let fresh = verified.check_fresh(&filter).unwrap();
                    admitted.push((at, fresh.admit(&admission).unwrap()));
                    None
                }
                Err(error) => Some(error),
            });
        },
    );
    let positions: Vec<_> = admitted.iter().map(|(at, _)| *at).collect();
    let mut unwrapped = Vec::new();
    unwrap_batch_on(path, admitted.into_iter().map(|(_, packet)| packet), |at, packet| {
        assert_eq!(at, unwrapped.len(), "in order");
        unwrapped.push(packet);
    });
    let mut unwrapped = positions.iter().zip(unwrapped);
    for (at, (result, packet)) in results.iter().zip(&packets).enumerate() {
        let mut alone = before[at].clone();
        match (result, open(&samples[at].keys[0], &mut alone)) {
            (Some(error), Err(expected)) => assert_eq!(error, &expected),
            (None, Ok((_, expected))) => {
                let (position, ours) = unwrapped.next().unwrap();
                assert_eq!(*position, at);
                assert_eq!((ours.routing, &ours.relay), (expected.routing, &expected.relay));
                assert!(*packet == alone, "{}: packet {at} of {count}", path.name());
                let theirs = their_open(&samples[at].keys[0], &before[at]).unwrap();
                assert_eq!(ours.routing, theirs.routing);
                match theirs.next {
                    Some(next) => assert!(next == *packet, "{}: packet {at} of {count}", path.name()),
                    None => assert_eq!(theirs.payload, tombola_sphinx::payload_of(packet)),
                }
            }
            (result, alone) => panic!("{}: {result:?} in the batch, {alone:?} alone", path.name()),
        }
    }
    count
}

fn open_batches(seed: u8, packets: usize) {
    let mut rng = rng(seed);
    for path in Path::all() {
        let mut done = 0;
        while done < packets {
            done += open_a_batch(path, &mut rng);
        }
    }
}

#[test]
fn batches_are_opened_alike_on_every_path() {
    open_batches(50, 1_000);
}

#[test]
#[ignore = "half an hour or more: part of `cargo xtask soak`"]
fn a_million_packets_are_opened_alike() {
    open_batches(51, 1_000_000_usize.div_ceil(Path::all().count()));
}

#[test]
fn routes_and_packets_of_a_batch_are_those_that_are_built_alone() {
    let mut rng = rng(52);
    for path in Path::all() {
        for count in 0..=35 {
            let samples: Vec<_> = (0..count).map(|_| Sample::any_length(&mut rng)).collect();
            let keys: Vec<Vec<PublicKey>> = samples
                .iter()
                .map(|sample| sample.keys.iter().map(SecretKey::public_key).collect())
                .collect();
            let seeds: Vec<_> = samples.iter().map(|sample| sample.secret).collect();
            let routes: Vec<&[PublicKey]> = keys.iter().map(Vec::as_slice).collect();
            let mut secrets = Vec::new();
            RouteSecrets::derive_batch_on(path, &seeds, &routes, |at, route| {
                assert_eq!(at, secrets.len(), "in order");
                secrets.push(route.unwrap());
            });
            let drafts: Vec<_> = samples
                .iter()
                .zip(&secrets)
                .map(|(sample, secrets)| Draft {
                    secrets,
                    fields: &sample.fields,
                    destination: &sample.destination,
                    padding_seed: sample.padding_seed,
                    plaintext: &sample.plaintext,
                })
                .collect();
            let mut packets: Vec<Packet> = vec![Box::new([0; PACKET_LEN]); count];
            let mut results = 0;
            build_batch_on(path, &drafts, &mut packets, |at, built| {
                assert_eq!(at, results, "in order");
                built.unwrap();
                results += 1;
            });
            assert_eq!(results, count);
            for ((sample, secrets), packet) in samples.iter().zip(&secrets).zip(&packets) {
                let alone = sample.route_secrets();
                for hop in 0..alone.hops() {
                    assert_eq!(secrets.relay_secrets(hop), alone.relay_secrets(hop), "{}", path.name());
                }
                assert!(*packet == sample.build(), "{}: one of {count}", path.name());
            }
        }
    }
}

/// A mistake in one draft is that one's alone.
#[test]
fn mistakes_in_a_batch_stay_where_they_are() {
    let mut rng = rng(53);
    let sample = Sample::new(&mut rng, 5);
    let good: Vec<_> = sample.keys.iter().map(SecretKey::public_key).collect();
    let long: Vec<_> = good.iter().chain(&good).copied().collect();
    let routes: [&[PublicKey]; 4] = [&good, &[], &long, &good];
    for path in Path::all() {
        let mut secrets = Vec::new();
        RouteSecrets::derive_batch_on(path, &[sample.secret; 4], &routes, |_, route| secrets.push(route));
        assert_eq!(secrets[1].as_ref().unwrap_err(), &BuildError::RouteLength(0));
        assert_eq!(secrets[2].as_ref().unwrap_err(), &BuildError::RouteLength(10));
        let (first, last) = (secrets[0].as_ref().unwrap(), secrets[3].as_ref().unwrap());
        let draft = |secrets, fields| Draft {
            secrets,
            fields,
            destination: &sample.destination,
            padding_seed: sample.padding_seed,
            plaintext: &sample.plaintext,
        };
        let drafts = [draft(first, &sample.fields[1..]), draft(last, &sample.fields)];
        let mut packets: Vec<Packet> = vec![Box::new([0; PACKET_LEN]); 2];
        let mut results = Vec::new();
        build_batch_on(path, &drafts, &mut packets, |_, built| results.push(built));
        assert_eq!(results, [Err(BuildError::FieldCount { expected: 4, got: 3 }), Ok(())]);
        assert!(packets[1] == sample.build(), "{}", path.name());
    }
}
