//! Every path that the processor has, beside `sphinx-packet`, and beside two bare multiplications per packet: those of aws-lc, and
//! the limit, ladders in the lanes of the best path.
//!
//! One round after the other times each of them on the same packets, so that whatever else the machine does befalls all
//! alike; a figure is the median over the rounds, a ratio the median of the ratios of each round. Lines that begin with
//! `figure` are for `cargo xtask bench`. With `--instructions PATH BATCHES`, that path opens so many batches and nothing is
//! timed: two such runs under callgrind tell how many instructions a packet takes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the benchmark")]
#![allow(clippy::print_stdout, reason = "that is how figures are handed over")]
#![allow(clippy::disallowed_methods, reason = "a benchmark has a clock")]

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::agreement::{self, UnparsedPublicKey};
use sphinx_packet::header::delays::Delay;
use sphinx_packet::route::{
    Destination as TheirDestination, DestinationAddressBytes, Node, NodeAddressBytes,
};
use sphinx_packet::{ProcessedPacketData, SphinxPacket, SphinxPacketBuilder};
use tombola_lanes::sha256::{Expansion, hkdf, hmac};
use tombola_lanes::{BATCH, Multiples, blake2b, chacha20, x25519};
use tombola_sphinx::{
    Admission, Admitted, Destination, Draft, HopField, HopKey, KeptKey, PACKET_LEN, PAYLOAD_LEN, Path,
    PublicKey, RelaySecrets, ReplayFilter, ReplayTag, RouteSecrets, Routing, SecretKey, build_batch_on,
    unwrap_batch_on, verify_batch_on,
};
use x25519_dalek::StaticSecret;

const HOPS: usize = 5;
/// What a node opens together, at most.
const UNWRAP: usize = 32;
/// What a client builds together.
const BUILD: usize = 8;
/// Enough for a median that noise does not move.
const ROUNDS: usize = 200;
const MESSAGE: &[u8] = &[9; 1000];
const DESTINATION: Destination = Destination { address: [5; 32], identifier: [6; 16] };
const FIELDS: [HopField; HOPS - 1] = [HopField { next: [7; 32], delay_ns: 250_000_000 }; HOPS - 1];

type Packet = Box<[u8; PACKET_LEN]>;

/// Lets everything in: what is measured is this crate.
struct Open;

impl ReplayFilter for Open {
    type Rejected = std::convert::Infallible;
    fn check_and_insert(&self, _: &ReplayTag) -> Result<(), Self::Rejected> {
        Ok(())
    }
}

impl Admission for Open {
    type Refused = std::convert::Infallible;
    fn admit(&self, _: &RelaySecrets, _: &Routing) -> Result<(), Self::Refused> {
        Ok(())
    }
}

fn seed(number: usize) -> [u8; 32] {
    [u8::try_from(number).unwrap() + 1; 32]
}

fn keys() -> Vec<PublicKey> {
    (0..HOPS).map(|hop| SecretKey::from_bytes(seed(hop)).public_key()).collect()
}

fn build<K: HopKey>(path: Path, keys: &[K], packets: &mut [Packet]) {
    let seeds: Vec<_> = (0..packets.len()).map(|packet| seed(100 + packet)).collect();
    let routes = vec![keys; packets.len()];
    let mut secrets = Vec::with_capacity(packets.len());
    RouteSecrets::derive_batch_on(path, &seeds, &routes, |_, route| secrets.push(route.unwrap()));
    let drafts: Vec<_> = secrets
        .iter()
        .zip(seeds)
        .map(|(secrets, padding_seed)| Draft {
            secrets,
            fields: &FIELDS,
            destination: &DESTINATION,
            padding_seed,
            plaintext: MESSAGE,
        })
        .collect();
    build_batch_on(path, &drafts, packets, |_, built| built.unwrap());
}

fn unwrap(path: Path, key: &SecretKey, packets: &mut [Packet]) {
    let mut admitted: [Option<Admitted<'_>>; UNWRAP] = [const { None }; UNWRAP];
    verify_batch_on(
        path,
        packets,
        |_| key,
        |at, verified| {
            admitted[at] = Some(verified.unwrap().check_fresh(&Open).unwrap().admit(&Open).unwrap());
        },
    );
    unwrap_batch_on(path, admitted.into_iter().flatten(), |_, unwrapped| {
        black_box(unwrapped);
    });
}

/// Bytes in, bytes out, as a node has to do it, and the replay tag looked at, from one expansion.
fn their_unwrap(key: &StaticSecret, packet: &[u8; PACKET_LEN]) {
    let packet = SphinxPacket::from_bytes(packet).unwrap();
    let expanded = packet.header.compute_expanded_shared_secret(key);
    black_box(expanded.replay_tag());
    let processed = packet.process_with_expanded_secret(&expanded).unwrap();
    let ProcessedPacketData::ForwardHop { next_hop_packet, .. } = processed.data else {
        unreachable!("the first of five hops forwards")
    };
    black_box(next_hop_packet.to_bytes());
}

fn their_build(route: &[Node]) {
    let secret = StaticSecret::from(black_box([42; 32]));
    let destination = TheirDestination::new(DestinationAddressBytes::from_bytes([5; 32]), [6; 16]);
    let packet = SphinxPacketBuilder::new()
        .with_payload_size(PAYLOAD_LEN)
        .with_initial_secret(&secret)
        .build_packet(MESSAGE, route, &destination, &[Delay::new_from_nanos(250_000_000); HOPS])
        .unwrap();
    black_box(packet.to_bytes());
}

/// What a hop would pay for its two multiplications, with the key of the second at hand.
fn their_multiplications(key: &agreement::PrivateKey, point: &[u8; 32]) {
    for _ in 0..2 {
        let point = UnparsedPublicKey::new(&agreement::X25519, black_box(point));
        agreement::agree(key, point, (), |secret| {
            black_box(secret);
            Ok(())
        })
        .unwrap();
    }
}

/// Nanoseconds for each of so many.
fn time(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / count as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn figure(key: &str, value: f64) {
    println!("figure {key} {value:.2}");
}

fn ratios(peer: &[f64], ours: &[f64]) -> f64 {
    median(peer.iter().zip(ours).map(|(peer, ours)| peer / ours).collect())
}

/// The parts of an unwrap, each by itself, per packet: what the curve, the hashes and the payload take of it.
#[derive(Default)]
struct Parts {
    table: Vec<f64>,
    products: Vec<f64>,
    secrets: Vec<f64>,
    payload_keys: Vec<f64>,
    payload_hash: Vec<f64>,
    payload_stream: Vec<f64>,
}

impl Parts {
    fn time(&mut self, path: Path, points: &[&[u8; 32]]) {
        let mut multiples = Multiples::new(path);
        let points = &points[..BATCH];
        self.table.push(time(BATCH, || multiples.set(points)));
        let scalar = seed(0);
        let mut keys = [[0; 32]; BATCH];
        self.products.push(time(BATCH, || {
            for _ in 0..2 {
                multiples.multiply(&[&scalar; BATCH], &mut keys);
            }
        }));
        let (label, short) = ([1; 97], [1; 13]);
        let expansions = [
            Expansion { info: &label, range: 0..288 },
            Expansion { info: &short, range: 288..304 },
            Expansion { info: &short, range: 304..320 },
            Expansion { info: &short, range: 320..336 },
        ];
        let (mut expanded, mut macs) = ([[0; 336]; BATCH], [[0; 16]; BATCH]);
        self.secrets.push(time(BATCH, || {
            hkdf(path, b"", &keys, &expansions, &mut expanded);
            hmac(path, &[[1; 16]; BATCH], &[&[2; 300]; BATCH], &mut macs);
        }));
        let mut payload_keys = [[0; 192]; BATCH];
        let whole = Expansion { info: &label[..44], range: 0..192 };
        self.payload_keys.push(time(BATCH, || hkdf(path, &label[..44], &macs, &[whole], &mut payload_keys)));
        let mut payloads = vec![[3; PAYLOAD_LEN - 32]; BATCH];
        self.payload_hash.push(time(BATCH, || {
            for _ in 0..2 {
                let messages: [&[u8]; BATCH] = std::array::from_fn(|at| &payloads[at][..]);
                blake2b::keyed_256(path, &[&[4; 64]; BATCH], &messages, &mut keys);
            }
        }));
        self.payload_stream.push(time(BATCH, || {
            for _ in 0..2 {
                keys.iter().zip(&mut payloads).for_each(|(key, payload)| chacha20::apply(path, key, payload));
            }
        }));
        black_box((keys, expanded, macs, payload_keys, payloads));
    }

    fn report(self, path: Path, aws_lc: &[f64]) {
        let shared: Vec<_> =
            self.table.iter().zip(&self.products).map(|(table, products)| table + products).collect();
        figure(&format!("x25519.two_of_a_point.{}.ratio_vs_aws_lc", path.name()), ratios(aws_lc, &shared));
        figure(&format!("x25519.two_of_a_point.{}.ns", path.name()), median(shared));
        let parts = [
            ("table", self.table),
            ("two_products", self.products),
            ("secrets_and_mac", self.secrets),
            ("payload_keys", self.payload_keys),
            ("payload_hash", self.payload_hash),
            ("payload_stream", self.payload_stream),
        ];
        for (part, times) in parts {
            figure(&format!("sphinx.unwrap.{}.parts.{part}_ns", path.name()), median(times));
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let keys = keys();
    let fresh = {
        let mut packets = vec![Box::new([0; PACKET_LEN]); UNWRAP];
        build(Path::best(), &keys, &mut packets);
        packets
    };
    let kept: Vec<_> = keys.iter().map(|key| KeptKey::new(*key)).collect();
    let key = SecretKey::from_bytes(seed(0));
    if let [flag, name, batches] = &arguments[..]
        && flag == "--instructions"
    {
        let path = Path::all().find(|path| path.name() == name).unwrap();
        for _ in 0..batches.parse().unwrap() {
            unwrap(path, &key, &mut fresh.clone());
        }
        return;
    }
    let rounds = if arguments.iter().any(|argument| argument == "--test") { 1 } else { ROUNDS };

    let paths: Vec<Path> = Path::all().collect();
    let their_key = StaticSecret::from(seed(0));
    let aws_lc_key = agreement::PrivateKey::from_private_key(&agreement::X25519, &seed(0)).unwrap();
    let route: Vec<_> = (0..HOPS)
        .map(|hop| Node::new(NodeAddressBytes::from_bytes([7; 32]), (&StaticSecret::from(seed(hop))).into()))
        .collect();
    let points: Vec<[u8; 32]> = fresh.iter().map(|packet| *packet.first_chunk().unwrap()).collect();
    let points: Vec<_> = points.iter().collect();
    let scalar = seed(0);
    let scalars = vec![&scalar; UNWRAP];

    let (mut unwraps, mut their_unwraps) = (vec![Vec::new(); paths.len()], Vec::new());
    let [mut builds, mut tableless, mut their_builds, mut limits, mut aws_lc]: [Vec<f64>; 5] =
        Default::default();
    let mut parts: Vec<Parts> = paths.iter().map(|_| Parts::default()).collect();
    for _ in 0..rounds {
        paths.iter().zip(&mut parts).for_each(|(path, parts)| parts.time(*path, &points));
        for (path, times) in paths.iter().zip(&mut unwraps) {
            let mut packets = fresh.clone();
            times.push(time(UNWRAP, || unwrap(*path, &key, &mut packets)));
        }
        their_unwraps.push(time(8, || fresh[..8].iter().for_each(|packet| their_unwrap(&their_key, packet))));
        aws_lc
            .push(time(8, || points[..8].iter().for_each(|point| their_multiplications(&aws_lc_key, point))));
        let mut products = [[0; 32]; UNWRAP];
        limits.push(time(UNWRAP, || {
            for _ in 0..2 {
                x25519(paths[0], &points, &scalars, &mut products);
                black_box(&products);
            }
        }));
        let mut packets = vec![Box::new([0; PACKET_LEN]); BUILD];
        builds.push(time(BUILD, || build(paths[0], &kept, &mut packets)));
        tableless.push(time(BUILD, || build(paths[0], &keys, &mut packets)));
        their_builds.push(time(1, || their_build(&route)));
    }
    for (path, times) in paths.iter().zip(&unwraps) {
        let name = path.name();
        figure(&format!("sphinx.unwrap.{name}.ns"), median(times.clone()));
        figure(&format!("sphinx.unwrap.{name}.ratio_vs_sphinx_packet"), ratios(&their_unwraps, times));
        figure(&format!("sphinx.unwrap.{name}.ratio_vs_limit"), ratios(&limits, times));
    }
    paths.iter().zip(parts).for_each(|(path, parts)| parts.report(*path, &aws_lc));
    figure("x25519.aws_lc.two_ns", median(aws_lc));
    figure("sphinx.unwrap.sphinx_packet.ns", median(their_unwraps));
    figure("sphinx.build.ns", median(builds.clone()));
    figure("sphinx.build.ratio_vs_sphinx_packet", ratios(&their_builds, &builds));
    figure("sphinx.build.without_kept_tables_ns", median(tableless));
    figure("sphinx.build.sphinx_packet_ns", median(their_builds));
    figure("x25519.limit_ns", median(limits));
}
