//! Proof of relay in packets: each hop finds the ticket that the sender meant, and the next hop's acknowledgement opens it.

use std::sync::Arc;

use tombola_mixing::{Rng, Time};
use tombola_protocol::drops::{DropCounters, DropReason};
use tombola_protocol::frame::{Frame, LinkMeta};
use tombola_protocol::opener::{Half, Inbound, Occupancy, Opened, Order, Ticket};
use tombola_protocol::packet::{End, FirstLink, PacketBuilder};
use tombola_sphinx::SecretKey;
use tombola_tickets::por::{AckCheck, Opener as TicketOpener};
use tombola_topology::{IdentityKey, MailboxId, NodeIndex};

use crate::common::{Setup, World, dropped};

// Gateways 0 and 1, layer 1: 2 and 3, layer 2: 4 and 5, layer 3: 6 and 7.
const ROUTE: [u32; 4] = [2, 4, 6, 0];

/// What one node makes of a frame.
fn open(world: &World, from: u32, at: u32, frame: Frame) -> Result<Opened, Vec<(DropReason, u64)>> {
    let drops = Arc::<DropCounters>::default();
    let opener = world.opener(at, &Occupancy::new(8), &drops);
    let (mut out, mut spare) = (vec![], vec![]);
    opener.open_batch(
        &mut vec![Inbound { arrived: Time::ZERO, from: world.identity(from), frame }],
        &mut out,
        &mut spare,
    );
    out.pop().ok_or_else(|| dropped(&drops))
}

/// Carries a frame along nodes, each of which passes on what it read, and collects the tickets.
fn carry(world: &World, mut from: u32, route: &[u32], mut frame: Frame) -> Vec<Ticket> {
    let mut tickets = vec![];
    for at in route {
        let opened = open(world, from, *at, frame).unwrap();
        frame = opened.frame;
        if let Order::Forward { challenge, .. } = opened.order {
            frame.set_link_packet(frame.parity(), &LinkMeta { challenge, ack_check: [0; 8] });
        }
        tickets.push(opened.ticket);
        from = *at;
    }
    tickets
}

/// Each ticket opens with the acknowledgement of the next hop, the last one by itself, and none in another way.
fn assert_open(tickets: &[Ticket]) {
    for (at, ticket) in tickets.iter().enumerate() {
        let last = at + 1 == tickets.len();
        match &ticket.half {
            Half::Whole(opener) => assert!(last && opener.opens(&ticket.challenge)),
            Half::Own(own) => {
                for (other, next) in tickets.iter().enumerate() {
                    assert_eq!(own.opener(&next.ack).opens(&ticket.challenge), other == at + 1);
                }
                assert!(!last);
            }
        }
    }
}

fn builder() -> PacketBuilder {
    PacketBuilder::new(Rng::from_seed([7; 32]))
}

fn to_client(world: &World) -> End {
    let mailbox = MailboxId::of(&IdentityKey::of_seed(&[1; 32]));
    let key = SecretKey::from_bytes([2; 32]).public_key();
    let gateway = world.view.gateway(&world.identity(ROUTE[3])).unwrap();
    End::Client { gateway, mailbox, key }
}

fn mixes() -> [NodeIndex; 3] {
    [ROUTE[0], ROUTE[1], ROUTE[2]].map(NodeIndex)
}

/// A gateway turns a client's frame into one for layer 1.
fn through_the_gateway(mut frame: Frame) -> (Frame, AckCheck) {
    let meta = frame.client_meta();
    let (challenge, ack_check) = (meta.challenge, meta.ack_check);
    frame.set_link_packet(frame.parity(), &LinkMeta { challenge, ack_check });
    (frame, AckCheck::from_bytes(ack_check))
}

#[test]
fn every_hop_of_a_message_is_paid_when_the_next_one_acknowledges() {
    let world = Setup::new(60).world();
    let prepared =
        builder().build(&world.view, FirstLink::FromClient, &mixes(), &to_client(&world), [1; 16], b"");
    let (frame, check) = through_the_gateway(prepared.frame);
    let tickets = carry(&world, 1, &ROUTE, frame);
    assert_eq!(tickets.len(), 4);
    assert_open(&tickets);
    assert_eq!(
        tickets[0].ack.verify(&check),
        Ok(()),
        "client and gateway recognise the first acknowledgement"
    );
    assert!(tickets[1].ack.verify(&check).is_err());
}

#[test]
fn cover_that_ends_at_a_gateway_and_loops_of_mix_nodes_pay_alike() {
    let world = Setup::new(61).world();
    let (mut builder, view) = (builder(), &world.view);
    let end = End::Node(NodeIndex(ROUTE[3]));
    let drop = builder.build(view, FirstLink::FromClient, &mixes(), &end, [1; 16], b"");
    let (frame, _) = through_the_gateway(drop.frame);
    assert_open(&carry(&world, 1, &ROUTE, frame));

    // Out of layer 1, and back into layer 2.
    let out = builder.build(view, FirstLink::FromNode, &mixes()[1..], &to_client(&world), [1; 16], b"");
    let tickets = carry(&world, ROUTE[0], &ROUTE[1..], out.frame);
    assert_open(&tickets);
    let end = End::Node(NodeIndex(ROUTE[1]));
    let back = builder.build(view, FirstLink::FromClient, &mixes()[..1], &end, [1; 16], b"");
    let (frame, _) = through_the_gateway(back.frame);
    let tickets = carry(&world, 1, &ROUTE[..2], frame);
    assert_open(&tickets);
    assert_eq!(tickets.len(), 2);
}

#[test]
fn an_answer_pays_with_what_its_block_says() {
    let world = Setup::new(62).world();
    let mut builder = builder();
    let (block, _) = builder.build_block(&world.view, &mixes(), &to_client(&world));
    let answer = builder.build_reply(&world.view, &block, b"hello").unwrap();
    let (frame, check) = through_the_gateway(answer.frame);
    let tickets = carry(&world, 1, &ROUTE, frame);
    assert_open(&tickets);
    assert_eq!(tickets[0].ack.verify(&check), Ok(()));
}

#[test]
fn a_packet_with_another_ticket_than_its_sender_meant_is_not_worked_for() {
    let world = Setup::new(63).world();
    let mut builder = builder();
    let [one, other] = [(); 2].map(|()| {
        let end = to_client(&world);
        through_the_gateway(
            builder.build(&world.view, FirstLink::FromClient, &mixes(), &end, [1; 16], b"").frame,
        )
    });
    // In layer 1: another packet's challenge, a challenge that is off by a bit, another ack check.
    let refused = |from, at, mut frame: Frame, change: &dyn Fn(&mut LinkMeta)| {
        let mut meta = frame.link_meta();
        change(&mut meta);
        frame.set_link_packet(frame.parity(), &meta);
        assert_eq!(open(&world, from, at, frame).unwrap_err(), [(DropReason::BadTicket, 1)]);
    };
    let others = other.0.link_meta();
    refused(1, ROUTE[0], one.0.clone(), &|meta| meta.challenge = others.challenge);
    refused(1, ROUTE[0], one.0.clone(), &|meta| meta.challenge[19] ^= 1);
    refused(1, ROUTE[0], one.0.clone(), &|meta| meta.ack_check = others.ack_check);
    refused(1, ROUTE[0], one.0.clone(), &|meta| meta.ack_check[7] ^= 0x80);
    // Behind it, at each hop; and a hop that changes the next one's challenge costs nobody but itself.
    let mut frame = one.0;
    for (at, node) in ROUTE.iter().enumerate() {
        let from = if at == 0 { 1 } else { ROUTE[at - 1] };
        refused(from, *node, frame.clone(), &|meta| meta.challenge[0] ^= 1);
        let opened = open(&world, from, *node, frame).unwrap();
        frame = opened.frame;
        if let Order::Forward { challenge, .. } = opened.order {
            frame.set_link_packet(frame.parity(), &LinkMeta { challenge, ack_check: [0; 8] });
        }
    }
}

#[test]
fn what_two_neighbours_of_a_hop_see_of_its_packets_has_nothing_in_common() {
    let world = Setup::new(64).world();
    let mut builder = builder();
    for _ in 0..16 {
        let prepared =
            builder.build(&world.view, FirstLink::FromClient, &mixes(), &to_client(&world), [1; 16], b"");
        let (frame, _) = through_the_gateway(prepared.frame);
        let before = frame.link_meta().challenge;
        let opened = open(&world, 1, ROUTE[0], frame).unwrap();
        let Order::Forward { challenge: after, .. } = opened.order else { panic!("a mix node forwards") };
        // The hop before knows the challenge and the acknowledgement, the hop behind the other challenge and its own
        // acknowledgement: neither follows from the other without the hop's own half.
        assert_ne!(before, after);
        let opener = TicketOpener::from_bytes(*opened.ticket.ack.as_bytes());
        assert!(!opener.opens(&opened.ticket.challenge), "an acknowledgement alone opens nothing");
    }
}
