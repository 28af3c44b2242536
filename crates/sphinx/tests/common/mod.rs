//! What the tests of this crate share: seeded randomness, the simplest filter and admission, and the oracle
//! (`sphinx-packet`) behind functions of the same shape as ours.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, reason = "a failure must stop the test")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::convert::Infallible;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sphinx_packet::header::delays::Delay;
use sphinx_packet::payload::Payload;
use sphinx_packet::route::{
    Destination as TheirDestination, DestinationAddressBytes, Node, NodeAddressBytes,
};
use sphinx_packet::{ProcessedPacketData, SphinxPacket, SphinxPacketBuilder};
use tombola_sphinx::{
    Admission, Destination, HEADER_LEN, HopField, PACKET_LEN, PAYLOAD_LEN, PLAINTEXT_MAX, RelaySecrets,
    ReplayFilter, ReplayTag, RouteSecrets, Routing, SecretKey, UnwrapError, Unwrapped, build, verify,
};
use x25519_dalek::StaticSecret;

pub type Packet = Box<[u8; PACKET_LEN]>;

/// Remembers every tag.
#[derive(Default)]
pub struct Seen(pub RefCell<BTreeSet<ReplayTag>>);

#[derive(Debug, PartialEq, Eq)]
pub struct Replay;

impl ReplayFilter for Seen {
    type Rejected = Replay;
    fn check_and_insert(&self, tag: &ReplayTag) -> Result<(), Replay> {
        if self.0.borrow_mut().insert(*tag) { Ok(()) } else { Err(Replay) }
    }
}

/// Lets everything in, and counts.
#[derive(Default)]
pub struct Free(pub Cell<usize>);

impl Admission for Free {
    type Refused = Infallible;
    fn admit(&self, _: &RelaySecrets, _: &Routing) -> Result<(), Infallible> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

/// All steps of one hop, with a filter that has seen nothing.
pub fn open(key: &SecretKey, packet: &mut [u8; PACKET_LEN]) -> Result<(ReplayTag, Unwrapped), UnwrapError> {
    let verified = verify(key, packet)?;
    let tag = verified.replay_tag();
    let admitted = verified.check_fresh(&Seen::default()).unwrap().admit(&Free::default()).unwrap();
    Ok((tag, admitted.unwrap()))
}

/// Everything that one packet is made of.
pub struct Sample {
    pub secret: [u8; 32],
    pub keys: Vec<SecretKey>,
    pub fields: Vec<HopField>,
    pub destination: Destination,
    pub first_hop: [u8; 32],
    pub padding_seed: [u8; 32],
    pub plaintext: Vec<u8>,
}

pub fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub fn bytes<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

pub fn below(rng: &mut ChaCha20Rng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % bound as u64).unwrap()
}

impl Sample {
    pub fn new(rng: &mut ChaCha20Rng, hops: usize) -> Self {
        // All lengths, and the two ends more often than by chance.
        let len = match below(rng, 16) {
            0 => 0,
            1 => PLAINTEXT_MAX,
            _ => below(rng, PLAINTEXT_MAX + 1),
        };
        let mut plaintext = vec![0; len];
        rng.fill_bytes(&mut plaintext);
        Self {
            secret: bytes(rng),
            keys: (0..hops).map(|_| SecretKey::from_bytes(bytes(rng))).collect(),
            fields: (1..hops).map(|_| HopField { next: bytes(rng), delay_ns: rng.next_u64() }).collect(),
            destination: Destination { address: bytes(rng), identifier: bytes(rng) },
            first_hop: bytes(rng),
            padding_seed: bytes(rng),
            plaintext,
        }
    }

    /// Mostly the longest route.
    pub fn any_length(rng: &mut ChaCha20Rng) -> Self {
        let hops = 5_usize.saturating_sub([0, 0, 0, 0, 0, 0, 1, 2, 3, 4][below(rng, 10)]);
        Self::new(rng, hops)
    }

    pub fn route_secrets(&self) -> RouteSecrets {
        let keys: Vec<_> = self.keys.iter().map(SecretKey::public_key).collect();
        RouteSecrets::derive(self.secret, &keys).unwrap()
    }

    pub fn build(&self) -> Packet {
        let mut packet = Box::new([0; PACKET_LEN]);
        build(
            &self.route_secrets(),
            &self.fields,
            &self.destination,
            self.padding_seed,
            &self.plaintext,
            &mut packet,
        )
        .unwrap();
        packet
    }

    pub fn routing(&self, hop: usize) -> Routing {
        match self.fields.get(hop) {
            Some(field) => Routing::Forward { next: field.next, delay_ns: field.delay_ns },
            None => Routing::Final(self.destination),
        }
    }

    pub fn their_route(&self) -> Vec<Node> {
        let addresses = std::iter::once(self.first_hop).chain(self.fields.iter().map(|field| field.next));
        self.keys
            .iter()
            .zip(addresses)
            .map(|(key, address)| Node::new(NodeAddressBytes::from_bytes(address), (&their_key(key)).into()))
            .collect()
    }

    /// One per hop; theirs wants one for the last hop too, and ignores it.
    pub fn their_delays(&self) -> Vec<Delay> {
        let delays = self.fields.iter().map(|field| field.delay_ns).chain([0]);
        delays.map(Delay::new_from_nanos).collect()
    }

    pub fn their_destination(&self) -> TheirDestination {
        TheirDestination::new(
            DestinationAddressBytes::from_bytes(self.destination.address),
            self.destination.identifier,
        )
    }

    pub fn their_packet(&self, builder: SphinxPacketBuilder<'_>) -> Packet {
        let secret = StaticSecret::from(self.secret);
        let packet = builder
            .with_payload_size(PAYLOAD_LEN)
            .with_initial_secret(&secret)
            .build_packet(
                &self.plaintext,
                &self.their_route(),
                &self.their_destination(),
                &self.their_delays(),
            )
            .unwrap();
        packet.to_bytes().try_into().unwrap()
    }
}

pub fn their_key(key: &SecretKey) -> StaticSecret {
    StaticSecret::from(*key.to_bytes())
}

/// One hop as the oracle does it.
pub struct TheirHop {
    pub tag: [u8; 32],
    pub routing: Routing,
    /// The packet for the next hop, if there is one.
    pub next: Option<Packet>,
    pub payload: Vec<u8>,
}

pub fn their_open(key: &SecretKey, packet: &[u8; PACKET_LEN]) -> Option<TheirHop> {
    let packet = SphinxPacket::from_bytes(packet).ok()?;
    let expanded = packet.header.compute_expanded_shared_secret(&their_key(key));
    let tag = *expanded.replay_tag();
    Some(match packet.process_with_expanded_secret(&expanded).ok()?.data {
        ProcessedPacketData::ForwardHop { next_hop_packet, next_hop_address, delay } => TheirHop {
            tag,
            routing: Routing::Forward { next: next_hop_address.to_bytes(), delay_ns: delay.to_nanos() },
            payload: next_hop_packet.to_bytes().split_off(HEADER_LEN),
            next: Some(next_hop_packet.to_bytes().try_into().unwrap()),
        },
        ProcessedPacketData::FinalHop { destination, identifier, payload } => TheirHop {
            tag,
            routing: Routing::Final(Destination { address: destination.as_bytes(), identifier }),
            payload: payload.into_bytes(),
            next: None,
        },
    })
}

pub fn their_plaintext(payload: &[u8]) -> Option<Vec<u8>> {
    Payload::from_bytes(payload).ok()?.recover_plaintext().ok()
}

/// Lets both open the packet at every hop of its route, and demands that they agree on all that a hop learns and sends
/// on. Leaves the packet as it is behind the last hop.
pub fn open_with_both(sample: &Sample, packet: &mut [u8; PACKET_LEN]) {
    for (hop, key) in sample.keys.iter().enumerate() {
        let theirs = their_open(key, packet).expect("the oracle opens it");
        let (tag, ours) = open(key, packet).expect("we open it");
        assert_eq!(tag.as_bytes(), &theirs.tag, "replay tag at hop {hop}");
        assert_eq!(ours.routing, theirs.routing, "routing at hop {hop}");
        assert_eq!(ours.routing, sample.routing(hop), "routing that was meant at hop {hop}");
        match theirs.next {
            Some(next) => assert!(*next == *packet, "the packet for hop {}", hop + 1),
            None => assert_eq!(hop, sample.keys.len() - 1, "only the last hop is final"),
        }
        assert!(theirs.payload == packet[HEADER_LEN..], "payload behind hop {hop}");
    }
}
