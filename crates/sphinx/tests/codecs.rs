//! Whatever bytes come in: a value that gives the same bytes back, or an error; never a panic.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use common::{Sample, rng};
use proptest::collection::vec;
use proptest::prelude::*;
use tombola_sphinx::{
    PACKET_LEN, PointError, PublicKey, ReplyKeys, SURB_LEN, SecretKey, Surb, SurbError, build_surb, verify,
};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn reply_blocks(bytes in prop_oneof![vec(any::<u8>(), SURB_LEN), vec(any::<u8>(), 0..600)]) {
        match Surb::from_bytes(&bytes) {
            Ok(surb) => prop_assert_eq!(&surb.to_bytes()[..], &bytes),
            Err(SurbError::Length(len)) => {
                prop_assert_eq!(len, bytes.len());
                prop_assert_ne!(len, SURB_LEN);
            }
            Err(SurbError::Point(PointError::NonCanonical)) => prop_assert!(bytes[31] >= 0x7f),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn reply_keys(bytes in prop_oneof![(1..=5_usize).prop_flat_map(|n| vec(any::<u8>(), 16 + 16 * n)), vec(any::<u8>(), 0..140)]) {
        let sound = bytes.len() % 16 == 0 && (32..=96).contains(&bytes.len());
        match ReplyKeys::from_bytes(&bytes) {
            Ok(keys) => {
                prop_assert!(sound);
                prop_assert_eq!(&*keys.to_bytes(), &bytes);
            }
            Err(error) => {
                prop_assert!(!sound);
                prop_assert_eq!(error, SurbError::Length(bytes.len()));
            }
        }
    }

    #[test]
    fn public_keys(bytes in any::<[u8; 32]>()) {
        if let Ok(key) = PublicKey::from_bytes(&bytes) {
            prop_assert_eq!(key.to_bytes(), bytes);
        }
    }

    #[test]
    fn packets(bytes in vec(any::<u8>(), PACKET_LEN), key in any::<[u8; 32]>()) {
        let mut packet: Box<[u8; PACKET_LEN]> = bytes.clone().try_into().unwrap();
        prop_assert!(verify(&SecretKey::from_bytes(key), &mut packet).is_err());
        prop_assert_eq!(&packet[..], &bytes);
    }
}

#[test]
fn what_was_built_is_read_back() {
    for hops in 1..=5 {
        let sample = Sample::new(&mut rng(50), hops);
        let (surb, keys) =
            build_surb(&sample.route_secrets(), &sample.fields, [1; 32], &sample.destination, [0; 32])
                .unwrap();
        let read = Surb::from_bytes(&*surb.to_bytes()).unwrap();
        assert_eq!(read.to_bytes(), surb.to_bytes());
        assert_eq!(read.first_hop(), &[1; 32]);
        assert_eq!(ReplyKeys::from_bytes(&keys.to_bytes()).unwrap(), keys);
    }
}

#[test]
fn wrong_lengths_and_hopeless_headers_are_refused() {
    for len in [0, 1, 16, SURB_LEN - 1, SURB_LEN + 1, SURB_LEN + 16] {
        assert_eq!(Surb::from_bytes(&vec![1; len]).unwrap_err(), SurbError::Length(len));
    }
    for len in [0, 15, 16, 31, 33, 112] {
        assert_eq!(ReplyKeys::from_bytes(&vec![1; len]).unwrap_err(), SurbError::Length(len));
    }
    assert_eq!(ReplyKeys::from_bytes(&[0; 32]).unwrap_err(), SurbError::ZeroIdentifier);
    assert_eq!(Surb::from_bytes(&[0; SURB_LEN]).unwrap_err(), SurbError::Point(PointError::SmallOrder));
    assert_eq!(Surb::from_bytes(&[0xff; SURB_LEN]).unwrap_err(), SurbError::Point(PointError::NonCanonical));
}
