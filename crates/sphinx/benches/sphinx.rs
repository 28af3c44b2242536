//! Ours beside `sphinx-packet`, in one run, on packets of the same length: the ratios are what counts.
//!
//! `cargo bench -p tombola-sphinx`
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the benchmark")]

use divan::{Bencher, black_box};
use sphinx_packet::header::delays::Delay;
use sphinx_packet::route::{
    Destination as TheirDestination, DestinationAddressBytes, Node, NodeAddressBytes,
};
use sphinx_packet::version::CURRENT_VERSION;
use sphinx_packet::{SURB, SURBMaterial, SphinxPacket, SphinxPacketBuilder};
use tombola_sphinx::{
    Admission, Admitted, Destination, HopField, PACKET_LEN, PAYLOAD_LEN, PublicKey, RelaySecrets,
    ReplayFilter, ReplayTag, RouteSecrets, Routing, SecretKey, build, build_surb, unwrap_batch, verify,
    verify_batch,
};
use x25519_dalek::StaticSecret;

fn main() {
    divan::main();
}

const HOPS: usize = 5;
const BATCH: usize = 32;
const MESSAGE: &[u8] = &[9; 1000];

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

fn seed(hop: usize) -> [u8; 32] {
    [u8::try_from(hop).unwrap() + 1; 32]
}

fn our_keys() -> Vec<PublicKey> {
    (0..HOPS).map(|hop| SecretKey::from_bytes(seed(hop)).public_key()).collect()
}

fn fields() -> [HopField; HOPS - 1] {
    [HopField { next: [7; 32], delay_ns: 250_000_000 }; HOPS - 1]
}

const DESTINATION: Destination = Destination { address: [5; 32], identifier: [6; 16] };

fn packet() -> Box<[u8; PACKET_LEN]> {
    let secrets = RouteSecrets::derive([42; 32], &our_keys()).unwrap();
    let mut packet = Box::new([0; PACKET_LEN]);
    build(&secrets, &fields(), &DESTINATION, [43; 32], MESSAGE, &mut packet).unwrap();
    packet
}

fn their_route() -> Vec<Node> {
    (0..HOPS)
        .map(|hop| Node::new(NodeAddressBytes::from_bytes([7; 32]), (&StaticSecret::from(seed(hop))).into()))
        .collect()
}

fn their_destination() -> TheirDestination {
    TheirDestination::new(DestinationAddressBytes::from_bytes([5; 32]), [6; 16])
}

fn their_delays() -> Vec<Delay> {
    vec![Delay::new_from_nanos(250_000_000); HOPS]
}

mod one_hop {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let key = SecretKey::from_bytes(seed(0));
        let fresh = packet();
        bencher.with_inputs(|| fresh.clone()).bench_local_refs(|packet| {
            let admitted = verify(&key, packet).unwrap().check_fresh(&Open).unwrap().admit(&Open).unwrap();
            black_box(admitted.unwrap());
        });
    }

    /// Bytes in, bytes out, as a node has to do it, and the replay tag looked at, from one expansion.
    #[divan::bench]
    fn sphinx_packet(bencher: Bencher) {
        let key = StaticSecret::from(seed(0));
        let fresh = packet();
        bencher.with_inputs(|| fresh.clone()).bench_local_refs(|packet| {
            let packet = SphinxPacket::from_bytes(&packet[..]).unwrap();
            let expanded = packet.header.compute_expanded_shared_secret(&key);
            black_box(expanded.replay_tag());
            let processed = packet.process_with_expanded_secret(&expanded).unwrap();
            let sphinx_packet::ProcessedPacketData::ForwardHop { next_hop_packet, .. } = processed.data
            else {
                unreachable!("the first of five hops forwards")
            };
            black_box(next_hop_packet.to_bytes());
        });
    }

    /// The header only: what a replay costs.
    #[divan::bench]
    fn ours_verify(bencher: Bencher) {
        let key = SecretKey::from_bytes(seed(0));
        let mut packet = packet();
        bencher.bench_local(|| black_box(verify(&key, &mut packet).unwrap().replay_tag()));
    }
}

mod batch_of_32 {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let key = SecretKey::from_bytes(seed(0));
        let fresh = vec![packet(); BATCH];
        bencher.counter(BATCH).with_inputs(|| fresh.clone()).bench_local_refs(|packets| {
            let mut admitted: [Option<Admitted<'_>>; BATCH] = [const { None }; BATCH];
            verify_batch(
                packets,
                |_| &key,
                |at, verified| {
                    admitted[at] = Some(verified.unwrap().check_fresh(&Open).unwrap().admit(&Open).unwrap());
                },
            );
            unwrap_batch(admitted.into_iter().flatten(), |_, unwrapped| {
                black_box(unwrapped);
            });
        });
    }
}

mod build_5_hops {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let keys = our_keys();
        let mut packet = [0; PACKET_LEN];
        bencher.bench_local(|| {
            let secrets = RouteSecrets::derive(black_box([42; 32]), &keys).unwrap();
            build(&secrets, &fields(), &DESTINATION, [43; 32], MESSAGE, &mut packet).unwrap();
            black_box(packet[0])
        });
    }

    #[divan::bench]
    fn sphinx_packet(bencher: Bencher) {
        let (route, destination, delays) = (their_route(), their_destination(), their_delays());
        bencher.bench_local(|| {
            let secret = StaticSecret::from(black_box([42; 32]));
            let packet = SphinxPacketBuilder::new()
                .with_payload_size(PAYLOAD_LEN)
                .with_initial_secret(&secret)
                .build_packet(MESSAGE, &route, &destination, &delays)
                .unwrap();
            black_box(packet.to_bytes())
        });
    }
}

mod surb_make_and_use {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let keys = our_keys();
        let mut packet = [0; PACKET_LEN];
        bencher.bench_local(|| {
            let secrets = RouteSecrets::derive(black_box([42; 32]), &keys).unwrap();
            let (surb, reply_keys) =
                build_surb(&secrets, &fields(), [1; 32], &DESTINATION, [43; 32]).unwrap();
            black_box(reply_keys);
            surb.reply(MESSAGE, &mut packet).unwrap()
        });
    }

    #[divan::bench]
    fn sphinx_packet(bencher: Bencher) {
        bencher.bench_local(|| {
            let material =
                SURBMaterial::new(their_route(), their_delays(), their_destination(), CURRENT_VERSION);
            let (surb, recovery) =
                SURB::new_recoverable(StaticSecret::from(black_box([42; 32])), material).unwrap();
            black_box(recovery);
            let (packet, first_hop) = surb.use_surb(MESSAGE, PAYLOAD_LEN).unwrap();
            black_box(packet.to_bytes());
            first_hop
        });
    }
}
