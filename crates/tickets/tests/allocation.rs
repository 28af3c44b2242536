//! What is done for each packet allocates nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

use allocation_counter::measure;
use std::hint::black_box;
use tombola_sphinx::RelaySecrets;
use tombola_tickets::{Ack, AckList, Digest, Randomness, WinProbability, merkle, por, wins};

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(black_box(vec![0_u8; 100]))).count_total, 1);
}

#[test]
fn a_packet_is_paid_without_allocation() {
    let hop = RelaySecrets { own: [1; 16], ack: [2; 16], chk: [3; 16] };
    let next = Ack::from_bytes([4; 16]);
    let challenge = por::opener(&hop, &next).challenge();
    let check = por::check(&hop, &challenge);
    let leaves = vec![challenge; 256];
    let digest = Digest::from_bytes([5; 32]);
    let randomness = Randomness::from_bytes([6; 16]);
    let mut list = AckList::new();
    let allocations = measure(|| {
        por::verify_check(&hop, &challenge, &check).unwrap();
        let opener = por::opener(&hop, &next);
        assert!(opener.opens(&challenge));
        assert!(por::verify_last(&hop, &challenge).is_err());
        assert!(next.verify(&next.ack_check()).is_ok());
        list.push(&challenge);
        black_box(wins(&digest, 0, &opener, &randomness, WinProbability::MAX));
        // And once per batch:
        let root = merkle::root(&leaves).unwrap();
        let path = merkle::path(&leaves, 77).unwrap();
        let count = merkle::TicketCount::MAX;
        assert_eq!(merkle::root_of_path(&opener, 77, &path, count), Ok(root));
    });
    assert_eq!(allocations.count_total, 0);
}
