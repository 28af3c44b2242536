//! What is done for each packet allocates nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use allocation_counter::measure;
use std::hint::black_box;
use tombola_sphinx::RelaySecrets;
use tombola_tickets::{
    Ack, AckList, Digest, PacketId, Randomness, Secret, WinProbability, merkle, por, wins,
};

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

#[test]
fn the_machines_allocate_nothing_for_a_packet() {
    let mut link = common::Link::new(1);
    link.work(4 * 256);
    let packets: Vec<_> = (0..200).map(|_| common::packet(&mut link.rng)).collect();
    let now = link.now();
    let mut acks = Vec::with_capacity(32);
    let allocations = measure(|| {
        for (hop, next, challenge) in &packets {
            let packet = PacketId { session: link.session, counter: link.counter };
            link.counter += 1;
            link.issuer.send(now, &mut link.payer.books, packet, *challenge, None).unwrap();
            let secret = Secret::Own(por::OwnSecret::of(hop), common::NEXT);
            let (ack, books) = (Ack::of(hop), &mut link.payee.books);
            let ticket = link.recipient.accept(now, books, packet, *challenge, secret, ack).unwrap();
            link.recipient.opened(ticket, next, books, &mut link.openings).unwrap();
            acks.clear();
            let list = link.recipient.take_acks(32, &mut acks);
            link.issuer.acknowledged(now, &acks, &list).unwrap();
        }
    });
    assert_eq!(allocations.count_total, 0);
}
