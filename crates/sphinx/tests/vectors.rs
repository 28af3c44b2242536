//! Test vectors for other implementations: `tests/vectors/sphinx/*.json` at the top of the repository.
//!
//! Every value is the SHA-256 of a text, `tombola/vectors/sphinx/<vector>/<field>`, cut to its length, so nobody has to
//! trust that it was not chosen. To write them anew after a change of the format:
//! `cargo test -p tombola-sphinx --test vectors -- --ignored`
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use std::path::PathBuf;

use common::{Packet, Sample, open, their_open, their_plaintext};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sphinx_packet::SurbReplyRecovery;
use sphinx_packet::payload::Payload;
use tombola_sphinx::{
    Destination, HopField, PACKET_LEN, PublicKey, ReplyKeys, Routing, SecretKey, Surb, build_surb,
    payload_of, payload_of_mut, plaintext,
};

#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
struct Vector {
    about: String,
    name: String,
    version: u16,
    /// The sender's secret scalar, before clamping.
    secret: Hex,
    /// Key of the ChaCha20 stream (nonce zero) that fills unused header space. Not part of the format: a sender may
    /// take its random bytes from where it likes.
    padding_seed: Hex,
    plaintext: Hex,
    destination_address: Hex,
    identifier: Hex,
    hops: Vec<Hop>,
    /// The payload behind the last hop.
    payload: Hex,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_block: Option<ReplyBlock>,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
struct Hop {
    secret_key: Hex,
    public_key: Hex,
    /// The packet as this hop receives it.
    packet: Hex,
    replay_tag: Hex,
    own: Hex,
    ack: Hex,
    chk: Hex,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ns: Option<u64>,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
struct ReplyBlock {
    first_hop: Hex,
    surb: Hex,
    reply_keys: Hex,
}

type Hex = String;

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/vectors/sphinx/{name}.json"))
}

const VECTORS: [(&str, usize, usize, bool); 4] = [
    ("five-hops", 5, 1000, false),
    ("three-hops", 3, 0, false),
    ("one-hop", 1, 2031, false),
    ("reply", 5, 500, true),
];

fn sample(name: &str, hops: usize, length: usize) -> Sample {
    let value =
        |field: &str| -> [u8; 32] { Sha256::digest(format!("tombola/vectors/sphinx/{name}/{field}")).into() };
    let short = |field: &str| *value(field).first_chunk::<16>().unwrap();
    Sample {
        secret: value("secret"),
        keys: (0..hops).map(|hop| SecretKey::from_bytes(value(&format!("hop-{hop}/secret-key")))).collect(),
        fields: (0..hops - 1)
            .map(|hop| HopField {
                next: value(&format!("hop-{hop}/next")),
                // The first four bytes, big-endian: up to 4.3 s, and exact in a JSON number.
                delay_ns: u64::from(u32::from_be_bytes(
                    *value(&format!("hop-{hop}/delay")).first_chunk().unwrap(),
                )),
            })
            .collect(),
        destination: Destination { address: value("destination-address"), identifier: short("identifier") },
        first_hop: value("first-hop"),
        padding_seed: value("padding-seed"),
        plaintext: (0..length.div_ceil(32))
            .flat_map(|block| value(&format!("plaintext/{block}")))
            .take(length)
            .collect(),
    }
}

fn make(name: &str, hops: usize, length: usize, reply: bool) -> Vector {
    let sample = sample(name, hops, length);
    let (mut packet, reply_block) = if reply {
        let secrets = sample.route_secrets();
        let (surb, keys) =
            build_surb(&secrets, &sample.fields, sample.first_hop, &sample.destination, sample.padding_seed)
                .unwrap();
        let block = ReplyBlock {
            first_hop: hex::encode(sample.first_hop),
            surb: hex::encode(*surb.to_bytes()),
            reply_keys: hex::encode(&*keys.to_bytes()),
        };
        let mut packet: Packet = Box::new([0; PACKET_LEN]);
        surb.reply(&sample.plaintext, &mut packet).unwrap();
        (packet, Some(block))
    } else {
        (sample.build(), None)
    };
    let hops = sample.keys.iter().enumerate().map(|(hop, key)| {
        let received = hex::encode(&packet[..]);
        let (tag, unwrapped) = open(key, &mut packet).unwrap();
        let field = sample.fields.get(hop);
        Hop {
            secret_key: hex::encode(*key.to_bytes()),
            public_key: hex::encode(key.public_key().to_bytes()),
            packet: received,
            replay_tag: hex::encode(tag.as_bytes()),
            own: hex::encode(unwrapped.relay.own),
            ack: hex::encode(unwrapped.relay.ack),
            chk: hex::encode(unwrapped.relay.chk),
            next: field.map(|field| hex::encode(field.next)),
            delay_ns: field.map(|field| field.delay_ns),
        }
    });
    let hops = hops.collect();
    Vector {
        about: "A Sphinx packet of version 260 at each of its hops. Each input is the SHA-256 of the text \
                `tombola/vectors/sphinx/<name>/<field>`, cut to its length; see crates/sphinx/tests/vectors.rs."
            .into(),
        name: name.into(),
        version: tombola_sphinx::VERSION,
        secret: hex::encode(sample.secret),
        padding_seed: hex::encode(sample.padding_seed),
        plaintext: hex::encode(&sample.plaintext),
        destination_address: hex::encode(sample.destination.address),
        identifier: hex::encode(sample.destination.identifier),
        hops,
        payload: hex::encode(payload_of(&packet)),
        reply_block,
    }
}

fn read(name: &str) -> Vector {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

#[test]
#[ignore = "writes the files"]
fn write() {
    for (name, hops, length, reply) in VECTORS {
        let text = serde_json::to_string_pretty(&make(name, hops, length, reply)).unwrap();
        std::fs::write(path(name), text + "\n").unwrap();
    }
}

#[test]
fn we_still_make_them() {
    for (name, hops, length, reply) in VECTORS {
        assert!(make(name, hops, length, reply) == read(name), "{name}");
    }
}

/// Nothing is taken from our builder here: the files say what goes in and what must come out.
#[test]
fn both_open_them() {
    for (name, ..) in VECTORS {
        let vector = read(name);
        for (at, hop) in vector.hops.iter().enumerate() {
            let key = SecretKey::from_bytes(bytes(&hop.secret_key));
            assert_eq!(key.public_key(), PublicKey::from_bytes(&bytes(&hop.public_key)).unwrap());
            let mut packet: Packet = Box::new(bytes(&hop.packet));
            let theirs = their_open(&key, &packet).unwrap();
            let (tag, ours) = open(&key, &mut packet).unwrap();
            assert_eq!(tag.as_bytes(), &bytes(&hop.replay_tag));
            assert_eq!(theirs.tag, bytes(&hop.replay_tag));
            let expected = match (&hop.next, hop.delay_ns) {
                (Some(next), Some(delay_ns)) => Routing::Forward { next: bytes(next), delay_ns },
                _ => Routing::Final(Destination {
                    address: bytes(&vector.destination_address),
                    identifier: bytes(&vector.identifier),
                }),
            };
            assert_eq!(ours.routing, expected);
            assert_eq!(theirs.routing, expected);
            assert_eq!(ours.relay.own, bytes(&hop.own));
            assert_eq!(ours.relay.ack, bytes(&hop.ack));
            assert_eq!(ours.relay.chk, bytes(&hop.chk));
            match vector.hops.get(at + 1) {
                Some(next) => {
                    assert_eq!(hex::encode(&packet[..]), next.packet);
                    assert_eq!(hex::encode(&theirs.next.unwrap()[..]), next.packet);
                }
                None => {
                    assert_eq!(hex::encode(payload_of(&packet)), vector.payload);
                    assert_eq!(hex::encode(theirs.payload), vector.payload);
                }
            }
        }
    }
}

#[test]
fn both_read_what_is_in_them() {
    for (name, ..) in VECTORS {
        let vector = read(name);
        let expected = hex::decode(&vector.plaintext).unwrap();
        let mut packet: Packet = Box::new([0; PACKET_LEN]);
        *payload_of_mut(&mut packet) = bytes(&vector.payload);
        let Some(block) = vector.reply_block else {
            assert_eq!(plaintext(payload_of(&packet)).unwrap(), expected);
            assert_eq!(their_plaintext(payload_of(&packet)).unwrap(), expected);
            continue;
        };
        let keys = hex::decode(&block.reply_keys).unwrap();
        let theirs = SurbReplyRecovery::from_bytes(&keys).unwrap();
        let sealed = Payload::from_bytes(payload_of(&packet)).unwrap();
        assert_eq!(theirs.recover_plaintext(sealed).unwrap(), expected);
        let ours = ReplyKeys::from_bytes(&keys).unwrap();
        assert_eq!(ours.open(payload_of_mut(&mut packet)).unwrap(), expected);
        let surb = Surb::from_bytes(&hex::decode(&block.surb).unwrap()).unwrap();
        assert_eq!(surb.reply(&expected, &mut packet).unwrap(), bytes(&block.first_hop));
        assert_eq!(hex::encode(&packet[..]), vector.hops[0].packet);
    }
}
