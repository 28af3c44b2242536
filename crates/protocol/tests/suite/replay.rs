//! Whoever records frames and sends them again achieves nothing.

use core::time::Duration;

use tombola_protocol::drops::DropReason;
use tombola_protocol::frame::FrameKind;

use crate::common::{Net, Place, Setup, dropped};

/// A network in which people talked, and what passed its links. It is silent now.
fn recorded() -> Net {
    let mut net = Net::new(Setup::new(40));
    net.watch();
    net.send_message(0, 1, &vec![1; 30_000]);
    net.send_message(1, 0, &vec![2; 30_000]);
    net.run_for(Duration::from_secs(4));
    net.silence();
    net
}

#[test]
fn a_node_refuses_every_packet_that_it_opened_before() {
    let mut net = recorded();
    for node in 0..net.world.nodes() {
        let before = &net.nodes[node as usize];
        let (drops, forwarded) = (dropped(&before.drops), before.forwarded());
        let recorded: Vec<_> = net
            .seen
            .iter()
            .filter(|seen| seen.to == Place::Node(node))
            .filter_map(|seen| match seen.from {
                Place::Node(from) => Some((from, seen.frame.clone())),
                _ => None,
            })
            .collect();
        assert!(recorded.len() > 50);
        for sender in recorded.iter().map(|(from, _)| *from).collect::<std::collections::BTreeSet<_>>() {
            let frames = recorded.iter().filter(|(from, _)| *from == sender);
            net.inject(sender, node, frames.map(|(_, frame)| frame.clone()).collect());
        }
        net.run_for(Duration::from_secs(20));
        let after = &net.nodes[node as usize];
        let refused = after.drops.get(DropReason::Replay);
        assert_eq!(refused, recorded.len() as u64, "each is refused and counted");
        let others: Vec<_> =
            dropped(&after.drops).into_iter().filter(|(reason, _)| *reason != DropReason::Replay).collect();
        assert_eq!(others, drops, "for no other reason");
        assert_eq!((after.forwarded(), after.occupancy.taken()), (forwarded, 0), "nothing is forwarded");
    }
}

#[test]
fn a_client_takes_no_mail_twice() {
    let mut net = recorded();
    let mails: Vec<_> = net
        .on_link(Place::Node(0), Place::Client(0))
        .into_iter()
        .filter(|seen| seen.kind() == FrameKind::Mail)
        .map(|seen| seen.frame.clone())
        .collect();
    let (inbox, loops) = (net.inbox(0).len(), net.clients[0].loop_stats().returned);
    assert!((inbox, mails.len()) == (1, net.clients[0].counts().mail as usize) && loops > 0);
    let events = net.events[0].len();
    for mail in &mails {
        net.clients[0].handle_frame(net.now, mail.clone());
    }
    net.run_for(Duration::from_millis(1));
    assert_eq!(dropped(net.clients[0].drops()), [(DropReason::Replay, mails.len() as u64)]);
    assert_eq!((net.events[0].len(), net.clients[0].loop_stats().returned), (events, loops));
}

#[test]
fn a_gateway_that_sends_clients_frames_again_is_stopped_by_layer_1() {
    let mut net = recorded();
    let frames = |net: &Net, node| -> Vec<_> {
        net.on_link(Place::Client(0), Place::Node(node)).iter().map(|seen| seen.frame.clone()).collect()
    };
    let recorded: Vec<_> =
        frames(&net, 0).into_iter().filter(|frame| frame.kind() == Ok(FrameKind::Packet)).collect();
    net.connect(Place::Client(0));
    let before = net.seen.len();
    for frame in &recorded {
        // No faster than the gateway lets a client send.
        net.send(Place::Client(0), Place::Node(0), frame.clone());
        net.run_for(Duration::from_millis(50));
    }
    net.disconnect(Place::Client(0));
    net.run_for(Duration::from_secs(20));
    let layer_1 = [2, 3].map(|node: usize| net.nodes[node].drops.get(DropReason::Replay));
    assert_eq!(layer_1.iter().sum::<u64>(), recorded.len() as u64);
    let old: std::collections::BTreeSet<_> = net.passages.iter().map(|passage| passage.alpha_out).collect();
    assert_eq!(old.len(), net.passages.len(), "no packet went through any node twice");
    assert!(net.seen.len() > before);
}
