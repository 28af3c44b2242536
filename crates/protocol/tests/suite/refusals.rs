//! Frames and packets that nobody should send: each is dropped for the reason that is counted, and nothing else happens.

use core::time::Duration;

use tombola_protocol::drops::DropReason;
use tombola_protocol::frame::{Frame, FrameKind, META_OFFSET};
use tombola_protocol::gateway::GatewayInput;
use tombola_protocol::hop::NextHop;
use tombola_sphinx::PublicKey;
use tombola_topology::{IdentityKey, MailboxId, NodeIndex};

use crate::common::{ByHand, Hop, Net, Place, Setup, dropped};

// Gateways 0 and 1, layer 1: 2 and 3, layer 2: 4 and 5, layer 3: 6 and 7. There is no node 8.
const LAYER_1: u32 = 2;
const LAYER_2: u32 = 4;
const LAYER_3: u32 = 6;
const NOBODY: u32 = 8;

/// A network in which nobody sends anything; client 0 has a mailbox.
fn quiet() -> (Net, ByHand) {
    let mut net = Net::offline(Setup::new(50));
    net.connect(Place::Client(0));
    net.disconnect(Place::Client(0));
    net.watch();
    let by_hand = ByHand::new(&net.world.view, 50);
    (net, by_hand)
}

fn all_drops(net: &Net) -> Vec<Vec<(DropReason, u64)>> {
    let nodes = net.nodes.iter().map(|node| dropped(&node.drops));
    nodes.chain(net.clients.iter().map(|client| dropped(client.drops()))).collect()
}

/// Asserts that `act` makes `machine` (a node, or after them a client) count `count` drops for `reason`, and that
/// nobody does anything else.
fn only(net: &mut Net, machine: usize, reason: DropReason, count: u64, act: impl FnOnce(&mut Net)) {
    let drops = if machine < net.nodes.len() {
        net.nodes[machine].drops.clone()
    } else {
        net.clients[machine - net.nodes.len()].drops().clone()
    };
    let (before, reason_before) = (all_drops(net), drops.get(reason));
    let mailed = net.nodes[0].gateway().counts().mail.packets;
    net.seen.clear();
    act(net);
    net.run_for(Duration::from_secs(30));
    assert_eq!(drops.get(reason), reason_before + count, "{reason:?}: {:?}", all_drops(net));
    let mut after = all_drops(net);
    after[machine].retain(|(other, _)| *other != reason);
    let mut expected = before;
    expected[machine].retain(|(other, _)| *other != reason);
    assert_eq!(after, expected, "no other drop");
    let on_links = net.seen.iter().filter(|seen| seen.kind() != FrameKind::Padding).count();
    assert_eq!(on_links, 0, "nothing leaves any node");
    assert!(net.nodes.iter().all(|node| node.occupancy.taken() == 0), "every place is given back");
    assert_eq!(net.nodes[0].gateway().counts().mail.packets, mailed, "nothing is stored");
    assert!(net.events.iter().all(Vec::is_empty), "no application hears of it");
}

#[test]
fn a_node_takes_packets_from_its_predecessors_only() {
    let (mut net, mut by_hand) = quiet();
    for from in [0, 1, LAYER_2, LAYER_2 + 1, LAYER_3, NOBODY, u32::MAX] {
        let view = net.world.view.clone();
        let valid = by_hand.packet(
            &[Hop::forward(&view, LAYER_2, LAYER_3, 0), Hop::last(*view.key(NodeIndex(LAYER_3)).unwrap())],
            b"",
        );
        only(&mut net, LAYER_2 as usize, DropReason::WrongDirection, 1, |net| {
            net.inject(from, LAYER_2, vec![valid]);
        });
    }
}

#[test]
fn a_mix_node_forwards_to_its_successors_only() {
    let (mut net, mut by_hand) = quiet();
    let view = net.world.view.clone();
    let cases = [
        (LAYER_1, LAYER_2, [0, LAYER_1, LAYER_2, LAYER_2 + 1, NOBODY]),
        (LAYER_2, LAYER_3, [LAYER_1, LAYER_2, LAYER_3, NOBODY, u32::MAX - 1]),
        (0, LAYER_1, [0, 1, LAYER_1, LAYER_3, NOBODY]),
    ];
    for (from, at, wrong) in cases {
        for next in wrong {
            let packet = by_hand.packet(
                &[Hop::forward(&view, at, next, 0), Hop::last(*view.key(NodeIndex(at)).unwrap())],
                b"",
            );
            only(&mut net, at as usize, DropReason::BadNextHop, 1, |net| net.inject(from, at, vec![packet]));
        }
    }
}

#[test]
fn mailboxes_are_at_gateways_and_gateways_do_not_mix() {
    let (mut net, mut by_hand) = quiet();
    let view = net.world.view.clone();
    let mine = MailboxId::of(&net.identity(Place::Client(0)));
    let client = net.clients[0].public_key();

    let packet = by_hand.packet(&[Hop::store(&view, LAYER_2, mine), Hop::last(client)], b"");
    only(&mut net, LAYER_2 as usize, DropReason::BadNextHop, 1, |net| {
        net.inject(LAYER_1, LAYER_2, vec![packet]);
    });
    for next in [1, LAYER_1, NOBODY] {
        let packet = by_hand.packet(&[Hop::forward(&view, 0, next, 0), Hop::last(client)], b"");
        only(&mut net, 0, DropReason::BadNextHop, 1, |net| net.inject(LAYER_3, 0, vec![packet]));
    }
    for mailbox in [MailboxId::from_bytes([0; 28]), MailboxId::of(&net.identity(Place::Client(1)))] {
        let packet = by_hand.packet(&[Hop::store(&view, 0, mailbox), Hop::last(client)], b"");
        only(&mut net, 0, DropReason::UnknownMailbox, 1, |net| net.inject(LAYER_3, 0, vec![packet]));
    }
    for (from, at) in [(LAYER_1, LAYER_2), (LAYER_3, 0)] {
        let packet = by_hand.packet(&[Hop::last(*view.key(NodeIndex(at)).unwrap())], b"");
        only(&mut net, at as usize, DropReason::Discarded, 1, |net| net.inject(from, at, vec![packet]));
    }
}

#[test]
fn a_packet_under_another_key_or_of_no_sound_point_is_refused() {
    let (mut net, mut by_hand) = quiet();
    let view = net.world.view.clone();
    let others: [PublicKey; 2] = [LAYER_2 + 1, LAYER_3].map(|node| *view.key(NodeIndex(node)).unwrap());
    for key in others {
        let packet = by_hand.packet(&[Hop::last(key)], b"");
        only(&mut net, LAYER_2 as usize, DropReason::BadMac, 1, |net| {
            net.inject(LAYER_1, LAYER_2, vec![packet]);
        });
    }
    let sound = by_hand.packet(&[Hop::last(*view.key(NodeIndex(LAYER_2)).unwrap())], b"");
    let with_alpha = |alpha: [u8; 32]| {
        let mut frame = sound.clone();
        frame.packet_mut()[..32].copy_from_slice(&alpha);
        frame
    };
    let mut second_encoding = *sound.packet().first_chunk::<32>().unwrap();
    second_encoding[31] |= 0x80;
    let batch = vec![with_alpha([0; 32]), with_alpha([0xff; 32]), with_alpha(second_encoding)];
    only(&mut net, LAYER_2 as usize, DropReason::BadPoint, 3, |net| net.inject(LAYER_1, LAYER_2, batch));
    // None of this has spent the packet's one passage.
    only(&mut net, LAYER_2 as usize, DropReason::Discarded, 1, |net| {
        net.inject(LAYER_1, LAYER_2, vec![sound]);
    });
}

#[test]
fn frames_of_unknown_layout_are_refused_everywhere() {
    let (mut net, mut by_hand) = quiet();
    let view = net.world.view.clone();
    let sound = by_hand.packet(&[Hop::last(*view.key(NodeIndex(LAYER_2)).unwrap())], b"");
    let with = |at: usize, value: u8| {
        let mut frame = sound.clone();
        frame.as_bytes_mut()[at] = value;
        frame
    };
    let bad = || -> Vec<Frame> {
        [(0, 0), (0, 9), (0, 8), (0, 255), (1, 2), (1, 255)].map(|(at, value)| with(at, value)).into()
    };
    let count = bad().len() as u64;
    // Between nodes, nobody acknowledges any mail.
    let with_number = [(2, 1), (3, 128)].map(|(at, value)| with(at, value));
    let worse = bad().into_iter().chain(with_number).collect();
    only(&mut net, LAYER_2 as usize, DropReason::BadFrame, count + 2, |net| {
        net.inject(LAYER_1, LAYER_2, worse);
    });
    // The key of the other parity does not exist.
    let parity = 1 - u8::try_from(view.parity().index()).unwrap();
    only(&mut net, LAYER_2 as usize, DropReason::NoKey, 1, |net| {
        net.inject(LAYER_1, LAYER_2, vec![with(1, parity)]);
    });
    // On a client's link a packet's two bytes are its acknowledgement; those of other kinds are still reserved.
    let bad = || -> Vec<Frame> {
        let with = |at: usize, value: u8| {
            let mut frame = Frame::collect(true, 0);
            frame.as_bytes_mut()[at] = value;
            frame
        };
        [(0, 0), (0, 9), (0, 8), (0, 255), (1, 2), (1, 255), (2, 1), (3, 128)]
            .map(|(at, value)| with(at, value))
            .into()
    };
    let count = bad().len() as u64;
    let stranger = IdentityKey::of_seed(&[1; 32]);
    only(&mut net, 0, DropReason::BadFrame, count, |net| {
        net.tell_gateway(0, GatewayInput::ClientConnected(stranger));
        bad().into_iter().for_each(|frame| net.tell_gateway(0, GatewayInput::ClientFrame(stranger, frame)));
    });
    let client = net.nodes.len();
    only(&mut net, client, DropReason::BadFrame, count, |net| {
        bad().into_iter().for_each(|frame| net.clients[0].handle_frame(net.now, frame));
    });
}

#[test]
fn frames_of_known_kinds_are_refused_where_they_do_not_belong() {
    let (mut net, _) = quiet();
    let parity = net.world.view.parity();
    let (mut mail, mut padding) = (Frame::zeroed(), Frame::zeroed());
    mail.set_mail(parity, Duration::ZERO, 1);
    padding.set_padding();
    let (collect, hold) = (Frame::collect(true, 0), Frame::collect(false, 0));
    for (from, at) in [(LAYER_1, LAYER_2), (LAYER_3, 0)] {
        let wrong = vec![mail.clone(), padding.clone(), collect.clone(), hold.clone(), Frame::displaced()];
        only(&mut net, at as usize, DropReason::WrongDirection, 5, |net| net.inject(from, at, wrong));
    }
    let stranger = IdentityKey::of_seed(&[1; 32]);
    only(&mut net, 0, DropReason::WrongDirection, 3, |net| {
        net.tell_gateway(0, GatewayInput::ClientConnected(stranger));
        for wrong in [mail.clone(), padding.clone(), Frame::displaced()] {
            net.tell_gateway(0, GatewayInput::ClientFrame(stranger, wrong));
        }
    });
    let client = net.nodes.len();
    only(&mut net, client, DropReason::WrongDirection, 3, |net| {
        let mut packet = Frame::zeroed();
        packet.as_bytes_mut()[0] = FrameKind::Packet as u8;
        for wrong in [packet, collect.clone(), hold.clone()] {
            net.clients[0].handle_frame(net.now, wrong);
        }
    });
}

#[test]
fn a_client_reaches_layer_1_only_and_only_while_it_is_connected() {
    let (mut net, mut by_hand) = quiet();
    let view = net.world.view.clone();
    let packet = by_hand.packet(&[Hop::last(*view.key(NodeIndex(LAYER_1)).unwrap())], b"");
    let stranger = IdentityKey::of_seed(&[1; 32]);
    only(&mut net, 0, DropReason::WrongDirection, 1, |net| {
        let frame = by_hand.for_gateway(packet.clone(), LAYER_1);
        net.tell_gateway(0, GatewayInput::ClientFrame(stranger, frame));
    });
    only(&mut net, 0, DropReason::BadNextHop, 6, |net| {
        net.tell_gateway(0, GatewayInput::ClientConnected(stranger));
        for next in [0, 1, LAYER_2, LAYER_3, NOBODY, u32::MAX] {
            let frame = by_hand.for_gateway(packet.clone(), next);
            net.tell_gateway(0, GatewayInput::ClientFrame(stranger, frame));
        }
    });
    only(&mut net, 0, DropReason::WrongDirection, 1, |net| {
        net.tell_gateway(0, GatewayInput::ClientDisconnected(stranger));
        let frame = by_hand.for_gateway(packet.clone(), LAYER_1);
        net.tell_gateway(0, GatewayInput::ClientFrame(stranger, frame));
    });
}

#[test]
fn mail_that_is_no_message_for_this_client_is_refused() {
    let (mut net, mut by_hand) = quiet();
    let parity = net.world.view.parity();
    let (mine, other) = (net.clients[0].public_key(), net.clients[1].public_key());
    let client = net.nodes.len();
    let mail = |mut frame: Frame| {
        frame.set_mail(parity, Duration::ZERO, 1);
        frame
    };
    let elsewhere = NextHop::Mailbox(MailboxId::from_bytes([1; 28]));
    let forward = by_hand.packet(&[Hop { key: mine, next: elsewhere, delay_ns: 1 }, Hop::last(other)], b"");
    let cases = [
        (mail(by_hand.packet(&[Hop::last(other)], b"")), DropReason::BadMac),
        (mail(forward), DropReason::BadNextHop),
        (mail(by_hand.packet(&[Hop::last(mine)], b"")), DropReason::BadFragment),
        (mail(by_hand.packet(&[Hop::last(mine)], &[3, 4, 5])), DropReason::BadFragment),
        (mail(by_hand.packet(&[Hop::last(mine)], &[1; 24])), DropReason::BadFragment),
        (mail(by_hand.packet(&[Hop::last(mine)], &[1; 25])), DropReason::BadFragment),
        (mail(by_hand.packet(&[Hop::last(mine)], &[1; 2031])), DropReason::BadFragment),
    ];
    for (frame, reason) in cases {
        only(&mut net, client, reason, 1, |net| net.clients[0].handle_frame(net.now, frame));
    }
}

#[test]
fn a_delay_beyond_the_bound_is_cut_to_it() {
    let (mut net, mut by_hand) = quiet();
    let view = net.world.view.clone();
    let bound = view.parameters().max_delay;
    for asked in [u64::MAX, 1 << 63, u64::try_from(bound.as_nanos()).unwrap() + 1] {
        let hops = [Hop::forward(&view, LAYER_3, 0, asked), Hop::last(*view.key(NodeIndex(0)).unwrap())];
        let packet = by_hand.packet(&hops, b"");
        let arrived = net.now;
        net.seen.clear();
        net.inject(LAYER_2, LAYER_3, vec![packet]);
        net.run_for(2 * bound);
        assert_eq!(net.seen.iter().map(|seen| seen.sent - arrived).collect::<Vec<_>>(), [bound]);
        assert_eq!(net.seen[0].frame.as_bytes()[..META_OFFSET], [1, view.parity().index() as u8, 0, 0]);
    }
}
