//! Every path that this processor has, against `sphinx-packet` and against one packet at a time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use common::{Free, Packet, Sample, Seen, below, bytes, open, rng, their_open};
use rand_chacha::ChaCha20Rng;
use sphinx_packet::SphinxPacketBuilder;
use tombola_sphinx::{
    Admitted, BuildError, Draft, HopKey, KeptKey, PACKET_LEN, Path, PublicKey, RouteSecrets, SecretKey,
    UnwrapError, Unwrapped, build_batch_on, unwrap_batch_on, verify_batch_on,
};

/// A packet before a hop: whose it is, and which hop is to open it.
struct Arrival<'s> {
    sample: &'s Sample,
    hop: usize,
    packet: Packet,
}

impl Arrival<'_> {
    fn key(&self) -> &SecretKey {
        &self.sample.keys[self.hop]
    }

    fn damage(&mut self, rng: &mut ChaCha20Rng) {
        match below(rng, 16) {
            0 => self.packet[31] |= 0x80,
            1 => self.packet[..32].fill(0),
            2 => self.packet[40] ^= 1,
            // On the twist half of the time.
            3 => {
                self.packet[..32].copy_from_slice(&bytes::<32>(rng));
                self.packet[31] &= 0x3f;
            }
            _ => {}
        }
    }
}

/// Opens a batch: each packet must come out as it does alone, or be refused as it would be alone.
fn open_a_batch(path: Path, arrivals: &[Arrival<'_>], alone: &[(Result<Unwrapped, UnwrapError>, Packet)]) {
    let mut packets: Vec<Packet> = arrivals.iter().map(|arrival| arrival.packet.clone()).collect();
    let filter = Seen::default();
    let admission = Free::default();
    let mut refused = vec![None; arrivals.len()];
    let mut admitted: Vec<(usize, Admitted<'_>)> = Vec::new();
    let mut verified = 0;
    verify_batch_on(
        path,
        &mut packets,
        |at| arrivals[at].key(),
        |at, result| {
            assert_eq!(at, verified, "in order");
            verified += 1;
            match result {
                Ok(verified) => {
                    let fresh = verified.check_fresh(&filter).unwrap();
                    admitted.push((at, fresh.admit(&admission).unwrap()));
                }
                Err(error) => refused[at] = Some(error),
            }
        },
    );
    let positions: Vec<_> = admitted.iter().map(|(at, _)| *at).collect();
    let mut unwrapped = Vec::new();
    unwrap_batch_on(path, admitted.into_iter().map(|(_, packet)| packet), |at, packet| {
        assert_eq!(at, unwrapped.len(), "in order");
        unwrapped.push(packet);
    });
    let mut unwrapped = positions.iter().zip(unwrapped);
    for (at, ((result, expected), packet)) in alone.iter().zip(&packets).enumerate() {
        let place = format!("{}: packet {at} of {}", path.name(), arrivals.len());
        match result {
            Err(error) => assert_eq!(refused[at], Some(*error), "{place}"),
            Ok(expected) => {
                let (position, ours) = unwrapped.next().unwrap();
                assert_eq!(*position, at, "{place}");
                assert_eq!((ours.routing, &ours.relay), (expected.routing, &expected.relay), "{place}");
            }
        }
        assert!(packet == expected, "{place}");
    }
}

/// Packets of both implementations, for hops of several keys, on their whole way: in batches of any size, in which some are
/// damaged on the way, on every path and alone, and by the oracle if it takes them.
fn open_batches(seed: u8, count: usize) {
    let mut rng = rng(seed);
    let mut done = 0;
    while done < count {
        let samples: Vec<_> = (0..1 + below(&mut rng, 40)).map(|_| Sample::any_length(&mut rng)).collect();
        let mut arrivals: Vec<_> = samples
            .iter()
            .map(|sample| {
                let packet = match below(&mut rng, 2) {
                    0 => sample.build(),
                    _ => sample.their_packet(SphinxPacketBuilder::new()),
                };
                Arrival { sample, hop: 0, packet }
            })
            .collect();
        while !arrivals.is_empty() {
            arrivals.iter_mut().for_each(|arrival| arrival.damage(&mut rng));
            let alone: Vec<_> = arrivals
                .iter()
                .map(|arrival| {
                    let mut packet = arrival.packet.clone();
                    let result = open(arrival.key(), &mut packet).map(|(_, unwrapped)| unwrapped);
                    if let Ok(ours) = &result {
                        let theirs = their_open(arrival.key(), &arrival.packet).unwrap();
                        assert_eq!(ours.routing, theirs.routing);
                        match theirs.next {
                            Some(next) => assert!(next == packet),
                            None => assert_eq!(theirs.payload, tombola_sphinx::payload_of(&packet)),
                        }
                    }
                    (result, packet)
                })
                .collect();
            for path in Path::all() {
                open_a_batch(path, &arrivals, &alone);
            }
            done += arrivals.len();
            arrivals = arrivals
                .into_iter()
                .zip(alone)
                .filter(|(arrival, (result, _))| {
                    result.is_ok() && arrival.hop + 1 < arrival.sample.keys.len()
                })
                .map(|(Arrival { sample, hop, .. }, (_, packet))| Arrival { sample, hop: hop + 1, packet })
                .collect();
        }
    }
}

/// The same inputs on any number of cores.
fn open_batches_on_all_cores(pieces: u8, count: usize) {
    let next = AtomicU8::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let piece = next.fetch_add(1, Ordering::Relaxed);
                    if piece >= pieces {
                        break;
                    }
                    open_batches(100 + piece, count / usize::from(pieces));
                }
            });
        }
    });
}

#[test]
fn batches_are_opened_alike_on_every_path() {
    open_batches_on_all_cores(10, 10_000);
}

#[test]
#[ignore = "some minutes: part of `cargo xtask soak`"]
fn a_million_packets_are_opened_alike() {
    open_batches_on_all_cores(100, 1_000_000);
}

enum MaybeKept {
    Plain(PublicKey),
    Kept(KeptKey),
}

impl HopKey for MaybeKept {
    fn key(&self) -> &PublicKey {
        match self {
            Self::Plain(key) => key,
            Self::Kept(key) => key.key(),
        }
    }

    fn kept(&self) -> Option<&KeptKey> {
        match self {
            Self::Plain(_) => None,
            Self::Kept(key) => Some(key),
        }
    }
}

#[test]
fn routes_and_packets_of_a_batch_are_those_that_are_built_alone() {
    let mut rng = rng(52);
    for path in Path::all() {
        for count in 0..=35 {
            let samples: Vec<_> = (0..count).map(|_| Sample::any_length(&mut rng)).collect();
            // Without tables, all with tables, some with.
            let mut key = |key: &SecretKey| match count % 3 + below(&mut rng, 2) {
                0 | 1 => MaybeKept::Plain(key.public_key()),
                _ => MaybeKept::Kept(KeptKey::new(key.public_key())),
            };
            let keys: Vec<Vec<MaybeKept>> =
                samples.iter().map(|sample| sample.keys.iter().map(&mut key).collect()).collect();
            let seeds: Vec<_> = samples.iter().map(|sample| sample.secret).collect();
            let routes: Vec<&[MaybeKept]> = keys.iter().map(Vec::as_slice).collect();
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
