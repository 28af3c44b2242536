//! Against `sphinx-packet`: what either builds, both open alike at every hop.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use common::{Sample, open, open_with_both, rng, their_open, their_plaintext};
use sphinx_packet::SphinxPacketBuilder;
use tombola_sphinx::{ALPHA_LEN, HEADER_LEN, payload_of, plaintext};

/// Per direction.
const PACKETS: usize = 5_000;

#[test]
fn both_open_what_we_build() {
    let mut rng = rng(1);
    for _ in 0..PACKETS {
        let sample = Sample::any_length(&mut rng);
        let mut packet = sample.build();
        open_with_both(&sample, &mut packet);
        assert_eq!(plaintext(payload_of(&packet)).unwrap(), sample.plaintext);
        assert_eq!(their_plaintext(payload_of(&packet)).unwrap(), sample.plaintext);
    }
}

#[test]
fn both_open_what_they_build() {
    let mut rng = rng(2);
    for _ in 0..PACKETS {
        let sample = Sample::any_length(&mut rng);
        let mut packet = sample.their_packet(SphinxPacketBuilder::new());
        open_with_both(&sample, &mut packet);
        assert_eq!(plaintext(payload_of(&packet)).unwrap(), sample.plaintext);
        assert_eq!(their_plaintext(payload_of(&packet)).unwrap(), sample.plaintext);
    }
}

/// The two differ only in the random padding, which the last hop sees; everything else is the same bytes.
#[test]
fn both_build_the_same_packet() {
    let mut rng = rng(3);
    for hops in 1..=5 {
        let sample = Sample::new(&mut rng, hops);
        let (mut ours, mut theirs) = (sample.build(), sample.their_packet(SphinxPacketBuilder::new()));
        assert_eq!(ours[..ALPHA_LEN], theirs[..ALPHA_LEN]);
        assert_eq!(ours[HEADER_LEN..], theirs[HEADER_LEN..]);
        for key in &sample.keys {
            open(key, &mut ours).unwrap();
            open(key, &mut theirs).unwrap();
        }
        // What lies behind a final hop's fields: up to 248 bytes of padding, then the filler, then the key stream.
        let padding = 300 - 60 * (hops - 1) - 52;
        let behind = |packet: &[u8]| packet[40..HEADER_LEN].to_vec();
        assert_ne!(behind(&*ours)[..padding], behind(&*theirs)[..padding]);
        assert_eq!(behind(&*ours)[padding..], behind(&*theirs)[padding..]);
    }
}

#[test]
fn a_packet_for_another_key_is_refused_by_both() {
    let mut rng = rng(4);
    let sample = Sample::new(&mut rng, 5);
    let mut packet = sample.build();
    for key in &sample.keys[1..] {
        assert!(their_open(key, &packet).is_none());
        assert!(open(key, &mut packet).is_err());
    }
}
