//! What an observer of a link may learn: the instants at which frames of one length pass, and nothing from them.

use core::time::Duration;
use std::collections::BTreeSet;

use tombola_mixing::Time;
use tombola_protocol::durable::TagPlace;
use tombola_protocol::frame::{BODY_OFFSET, Frame, FrameKind, META_OFFSET};
use tombola_protocol::gateway::GatewayInput;
use tombola_protocol::opener::{Opened, Order};
use tombola_topology::MailboxId;

use crate::common::{Net, Place, Setup, any_ticket};

const CLIENT: Place = Place::Client(0);
const GATEWAY: Place = Place::Node(0);

fn instants(net: &Net, from: Place, to: Place) -> Vec<Time> {
    net.on_link(from, to).iter().map(|seen| seen.sent).collect()
}

/// A client and its correspondent for ten seconds. The client goes away for three seconds, in which both of them do
/// what `act` says; an observer watches from its return on.
fn observe(act: impl Fn(&mut Net)) -> Net {
    let mut net = Net::new(Setup::new(30));
    net.disconnect(CLIENT);
    act(&mut net);
    net.run_until(Time::ZERO + Duration::from_secs(3));
    net.watch();
    net.connect(CLIENT);
    net.run_until(Time::ZERO + Duration::from_secs(8));
    net
}

fn idle() -> Net {
    observe(|_| {})
}

#[test]
fn emission_instants_of_a_client_are_the_same_saturated_and_idle() {
    let idle = idle();
    let saturated = observe(|net| {
        net.send_message(0, 1, &vec![1; 1 << 20]);
        for n in 0..50 {
            net.send_message(0, 1, &[n]);
        }
    });
    assert_eq!(idle.clients[0].counts().real, 0);
    assert_eq!(saturated.clients[0].counts().cover, 0, "it never had nothing to send");
    assert!(saturated.clients[0].counts().real > 100);
    let emitted = instants(&idle, CLIENT, GATEWAY);
    assert!(emitted.len() > 100);
    assert_eq!(emitted, instants(&saturated, CLIENT, GATEWAY));
}

#[test]
fn neither_direction_of_a_clients_link_shows_whether_there_is_mail() {
    let empty = idle();
    let full = observe(|net| {
        net.send_message(1, 0, &vec![1; 100_000]);
    });
    assert_eq!((full.inbox(0).len(), empty.inbox(0).len()), (1, 0));
    assert!(full.clients[0].counts().mail > empty.clients[0].counts().mail + 40);
    assert_eq!(instants(&empty, CLIENT, GATEWAY), instants(&full, CLIENT, GATEWAY));
    let down = instants(&empty, GATEWAY, CLIENT);
    assert!(down.len() > 200);
    assert_eq!(down, instants(&full, GATEWAY, CLIENT));
    let interval = full.world.setup.parameters.downlink_interval;
    assert!(down.windows(2).all(|pair| pair[1] - pair[0] == interval), "paced");
}

#[test]
fn the_way_down_does_not_show_whether_a_client_wants_its_mail() {
    let hold = |net: &mut Net| {
        net.send_message(1, 0, &vec![1; 30_000]);
        net.clients[0].handle_collect(false);
    };
    let collecting = observe(|net| {
        net.send_message(1, 0, &vec![1; 30_000]);
    });
    let holding = observe(hold);
    let mail = |net: &Net| net.clients[0].counts().mail;
    assert!((mail(&holding), mail(&collecting) > 15) == (0, true));
    assert_eq!(instants(&holding, GATEWAY, CLIENT), instants(&collecting, GATEWAY, CLIENT));
    assert_eq!(instants(&holding, CLIENT, GATEWAY), instants(&collecting, CLIENT, GATEWAY));
}

#[test]
fn the_way_down_is_the_same_with_a_full_and_with_an_empty_mailbox_also_while_the_disk_is_read() {
    let run = |mails: u32, disk_takes: u64| {
        let mut net = Net::new(Setup::new(33));
        net.disconnect(CLIENT);
        net.disk_takes = Duration::from_millis(disk_takes);
        for _ in 0..mails {
            let order = Order::Store(MailboxId::of(&net.identity(CLIENT)));
            let (frame, tag, ticket) = (Frame::zeroed(), TagPlace::default(), any_ticket());
            let from = net.identity(Place::Client(0));
            let opened = Opened { arrived: net.now, from, frame, order, tag, ticket };
            net.tell_gateway(0, GatewayInput::Opened(opened));
        }
        net.run_until(Time::ZERO + Duration::from_secs(3));
        assert_eq!(net.nodes[0].gateway().counts().mail.in_memory, 0);
        net.watch();
        net.connect(CLIENT);
        net.run_until(Time::ZERO + Duration::from_secs(13));
        let seen: Vec<_> = net.seen.iter().filter(|seen| [seen.from, seen.to].contains(&CLIENT)).collect();
        let trace: Vec<_> =
            seen.iter().map(|seen| (seen.sent, seen.from, seen.frame.as_bytes().len())).collect();
        let kinds = seen.iter().filter(|seen| seen.to == CLIENT).map(|seen| seen.kind()).collect::<Vec<_>>();
        let reads = net.nodes[0].gateway().counts().mail.fetches;
        (trace, kinds, reads)
    };
    let (empty, padding, reads) = run(0, 30);
    let loops = padding.iter().filter(|kind| **kind == FrameKind::Mail).count();
    assert!(empty.len() > 700 && loops < 20 && reads <= 1, "{loops} of its own loops, {reads} reads");
    let (full, mails, reads) = run(300, 30);
    assert_eq!(empty, full);
    let mail = |kinds: &[FrameKind]| kinds.iter().position(|kind| *kind == FrameKind::Mail).unwrap();
    assert!(reads >= 5 && mails.iter().filter(|kind| **kind == FrameKind::Mail).count() >= 300);
    // The first slots come before the disk has answered; from then on it is ahead.
    let first = mail(&mails);
    assert!((1..=3).contains(&first), "{first}");
    assert!(mails[first..first + 300].iter().all(|kind| *kind == FrameKind::Mail), "no slot without mail");
    // A disk that needs longer than the window lasts costs slots, and still shows nothing.
    let (slow, mails, reads) = run(300, 1_500);
    assert_eq!(empty, slow);
    assert!(reads >= 3 && mails[mail(&mails)..].iter().take(200).any(|kind| *kind == FrameKind::Padding));
}

#[test]
fn a_client_that_changes_its_mind_about_its_mail_sends_no_frame_more() {
    let run = |changes: bool| {
        let mut net = Net::new(Setup::new(32));
        net.watch();
        net.send_message(0, 1, &[1; 20_000]);
        for round in 0..20 {
            net.run_for(Duration::from_millis(170));
            if changes {
                net.clients[0].handle_collect(round % 2 == 1);
            }
        }
        net.run_for(Duration::from_secs(5));
        net
    };
    let (constant, changing) = (run(false), run(true));
    assert_eq!(instants(&constant, CLIENT, GATEWAY), instants(&changing, CLIENT, GATEWAY));
    let kinds: Vec<_> = changing.on_link(CLIENT, GATEWAY).iter().map(|seen| seen.kind()).collect();
    let count = |kind| kinds.iter().filter(|other| **other == kind).count();
    assert!(count(FrameKind::Hold) > 5 && count(FrameKind::Collect).abs_diff(count(FrameKind::Hold)) <= 1);
    assert_eq!(changing.inbox(1).len(), 1, "what had to wait for a tick was sent after it");
}

#[test]
fn each_link_carries_the_kinds_of_frames_that_it_may_and_nothing_beside_the_packet() {
    let mut setup = Setup::new(31);
    setup.accounts = 2;
    let mut net = Net::offline(setup);
    net.watch();
    net.connect(CLIENT);
    net.connect(Place::Client(1));
    net.send_message(0, 1, &vec![1; 20_000]);
    net.run_for(Duration::from_secs(3));
    let parity = net.world.view.parity();
    let (mut between_nodes, mut begun) = (0, BTreeSet::new());
    for seen in &net.seen {
        let bytes = seen.frame.as_bytes();
        let meta = &bytes[META_OFFSET..BODY_OFFSET];
        match (seen.from, seen.to) {
            (Place::Node(from), Place::Node(_)) => {
                assert_eq!(seen.kind(), FrameKind::Packet);
                assert_eq!(seen.frame.parity(), parity);
                // Challenges are random, whoever made the packet; the rest is there on the first link only.
                assert!(meta[..20].iter().filter(|byte| **byte == 0).count() < 5, "a challenge of {meta:?}");
                assert_eq!(meta[20..28] != [0; 8], from < 2, "an ack check on the links into layer 1");
                assert_eq!(meta[28..], [0; 20]);
                between_nodes += 1;
            }
            (Place::Node(_), _) => {
                assert!(matches!(seen.kind(), FrameKind::Mail | FrameKind::Padding));
                assert_eq!(meta[24..], [0; 24]);
                if seen.kind() == FrameKind::Padding {
                    assert!(
                        bytes[META_OFFSET..].iter().all(|byte| *byte == 0),
                        "padding is nothing but padding"
                    );
                }
            }
            (client, Place::Node(_)) => {
                // Accounts were connected before.
                let first = matches!(client, Place::Client(_)) && begun.insert(client);
                assert_eq!(seen.kind(), if first { FrameKind::Collect } else { FrameKind::Packet });
            }
            other => panic!("no such link: {other:?}"),
        }
    }
    assert!(between_nodes > 1000);
}
