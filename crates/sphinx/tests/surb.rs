//! Reply blocks, ours and theirs in every combination.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use common::{Packet, Sample, open, open_with_both, rng};
use sphinx_packet::payload::Payload;
use sphinx_packet::payload::key::derive_payload_key;
use sphinx_packet::version::CURRENT_VERSION;
use sphinx_packet::{SURB, SURBMaterial, SurbReplyRecovery};
use tombola_sphinx::{
    BuildError, HEADER_LEN, PACKET_LEN, PAYLOAD_LEN, PLAINTEXT_MAX, PayloadError, ReplyKeys, Surb,
    build_surb, payload_of, payload_of_mut,
};
use x25519_dalek::StaticSecret;

fn ours(sample: &Sample) -> (Surb, ReplyKeys) {
    build_surb(
        &sample.route_secrets(),
        &sample.fields,
        sample.first_hop,
        &sample.destination,
        sample.padding_seed,
    )
    .unwrap()
}

fn theirs(sample: &Sample) -> (SURB, SurbReplyRecovery) {
    let material = SURBMaterial::new(
        sample.their_route(),
        sample.their_delays(),
        sample.their_destination(),
        CURRENT_VERSION,
    );
    SURB::new_recoverable(StaticSecret::from(sample.secret), material).unwrap()
}

/// The answer travels, both open it alike at every hop, and both recover it with either's keys.
fn travels(sample: &Sample, mut packet: Packet, first_hop: [u8; 32], keys: &[u8]) {
    assert_eq!(first_hop, sample.first_hop);
    open_with_both(sample, &mut packet);
    let their_keys = SurbReplyRecovery::from_bytes(keys).unwrap();
    let their_payload = Payload::from_bytes(payload_of(&packet)).unwrap();
    assert_eq!(their_keys.recover_plaintext(their_payload).unwrap(), sample.plaintext);
    let our_keys = ReplyKeys::from_bytes(keys).unwrap();
    assert_eq!(our_keys.identifier(), &sample.destination.identifier);
    assert_eq!(our_keys.open(payload_of_mut(&mut packet)).unwrap(), sample.plaintext);
}

fn our_reply(surb: Surb, plaintext: &[u8]) -> (Packet, [u8; 32]) {
    let mut packet = Box::new([0; PACKET_LEN]);
    let first_hop = surb.reply(plaintext, &mut packet).unwrap();
    (packet, first_hop)
}

fn their_reply(surb: SURB, plaintext: &[u8]) -> (Packet, [u8; 32]) {
    let (packet, first_hop) = surb.use_surb(plaintext, PAYLOAD_LEN).unwrap();
    (packet.to_bytes().try_into().unwrap(), first_hop.to_bytes())
}

#[test]
fn either_uses_the_reply_blocks_of_either_and_either_recovers() {
    let mut rng = rng(20);
    for _ in 0..250 {
        let sample = Sample::any_length(&mut rng);
        let plaintext = &sample.plaintext;
        let (surb, keys) = ours(&sample);
        let bytes = surb.to_bytes();
        let (packet, first_hop) = our_reply(surb, plaintext);
        travels(&sample, packet, first_hop, &keys.to_bytes());
        let (packet, first_hop) = their_reply(SURB::from_bytes(&*bytes).unwrap(), plaintext);
        travels(&sample, packet, first_hop, &keys.to_bytes());

        let (surb, keys) = theirs(&sample);
        let bytes = surb.to_bytes();
        let (packet, first_hop) = their_reply(surb, plaintext);
        travels(&sample, packet, first_hop, &keys.to_bytes());
        let (packet, first_hop) = our_reply(Surb::from_bytes(&bytes).unwrap(), plaintext);
        travels(&sample, packet, first_hop, &keys.to_bytes());
    }
}

#[test]
fn both_keep_the_same_keys() {
    let mut rng = rng(21);
    for hops in 1..=5 {
        let sample = Sample::new(&mut rng, hops);
        let (our_surb, our_keys) = ours(&sample);
        let (their_surb, their_keys) = theirs(&sample);
        assert_eq!(*our_keys.to_bytes(), their_keys.to_bytes());
        // Behind the headers, which differ in their random padding.
        assert_eq!(our_surb.to_bytes()[HEADER_LEN..], their_surb.to_bytes()[HEADER_LEN..]);
    }
}

/// The replier knows its packet and the seed of the last hop. With these it cannot tell which of the packets that an
/// inner hop sees is its own: no layer that it can add or remove gives the payload there.
#[test]
fn a_replier_learns_the_seed_of_the_last_hop_only() {
    let sample = Sample::new(&mut rng(22), 5);
    let (surb, keys) = ours(&sample);
    let surb_bytes = surb.to_bytes();
    let keys = keys.to_bytes();
    let seeds: Vec<&[u8]> = keys[16..].chunks(16).collect();
    assert_eq!(&surb_bytes[HEADER_LEN + 32..], seeds[4]);
    for seed in &seeds[..4] {
        assert!(surb_bytes.windows(16).all(|window| window != *seed));
    }

    let known = derive_payload_key(seeds[4].try_into().unwrap());
    let (mut packet, _) = our_reply(surb, &sample.plaintext);
    let mut computable = vec![payload_of(&packet).to_vec()];
    let (mut added, mut removed) = (computable[0].clone(), computable[0].clone());
    for _ in 0..5 {
        added = Payload::from_bytes(&added).unwrap().add_encryption_layer(known).unwrap().into_bytes();
        removed = Payload::from_bytes(&removed).unwrap().unwrap(known).unwrap().into_bytes();
        computable.extend([added.clone(), removed.clone()]);
    }
    for key in &sample.keys {
        open(key, &mut packet).unwrap();
        assert!(computable.iter().all(|payload| payload[..] != payload_of(&packet)[..]));
    }
}

#[test]
fn a_changed_answer_is_noticed() {
    let sample = Sample::new(&mut rng(23), 5);
    let (surb, keys) = ours(&sample);
    let (packet, _) = our_reply(surb, &sample.plaintext);
    for changed_before in 0..5 {
        let mut packet = packet.clone();
        for (hop, key) in sample.keys.iter().enumerate() {
            if hop == changed_before {
                packet[HEADER_LEN + 1000] ^= 1;
            }
            open(key, &mut packet).unwrap();
        }
        assert_eq!(keys.open(payload_of_mut(&mut packet)), Err(PayloadError::Changed));
    }
}

#[test]
fn mistakes_of_the_caller_are_errors() {
    let mut sample = Sample::new(&mut rng(24), 5);
    let (surb, _) = ours(&sample);
    let mut packet = Box::new([0; PACKET_LEN]);
    let too_long = vec![0; PLAINTEXT_MAX + 1];
    assert_eq!(surb.reply(&too_long, &mut packet), Err(BuildError::PlaintextLength(PLAINTEXT_MAX + 1)));
    let secrets = sample.route_secrets();
    let build = |sample: &Sample, fields: usize| {
        build_surb(&secrets, &sample.fields[..fields], sample.first_hop, &sample.destination, [0; 32])
            .unwrap_err()
    };
    assert_eq!(build(&sample, 3), BuildError::FieldCount { expected: 4, got: 3 });
    sample.destination.identifier = [0; 16];
    assert_eq!(build(&sample, 4), BuildError::ZeroIdentifier);
}
