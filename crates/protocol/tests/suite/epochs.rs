//! Epochs follow each other while packets are under way: none is lost, old keys are refused layer by layer, and the slot
//! of a parity is used again.

use core::time::Duration;

use tombola_mixing::{Rng, Time, Verdict};
use tombola_protocol::client::{Client, SendOptions};
use tombola_protocol::drops::{DropCounters, DropReason};
use tombola_protocol::fragment::MessageId;
use tombola_protocol::frame::{Frame, FrameKind, Parity};
use tombola_protocol::halfloops::Half;
use tombola_protocol::opener::Occupancy;
use tombola_protocol::relay::{NewViews, Relay, RelayInput, RelayOutput};
use tombola_protocol::view::{OLD_SHARE, SendViews};
use tombola_topology::{NodeIndex, Role};

use crate::common::{ByHand, Hop, Net, START, Setup, World, dropped};

/// M of 1.5 s, so 6 s for the retirement of a key; epochs of 12 s.
fn setup(seed: u64, epochs: u64) -> Setup {
    let mut setup = Setup::new(seed);
    setup.parameters.max_delay = Duration::from_millis(1500);
    setup.parameters.loop_timeout = Duration::from_secs(6);
    setup.epochs = epochs;
    setup.epoch_length = Duration::from_secs(12);
    setup
}

/// An instant of the wall clock.
fn at(clock: Duration) -> Time {
    Time::ZERO + (clock - Duration::from_secs(START))
}

/// What was dropped otherwise than because it ended where it should, or came again because its sender was impatient.
fn unexpected(drops: &DropCounters) -> Vec<(DropReason, u64)> {
    let expected = [DropReason::Discarded, DropReason::DuplicateFragment];
    dropped(drops).into_iter().filter(|(reason, _)| !expected.contains(reason)).collect()
}

#[test]
fn three_changes_of_epochs_in_the_middle_of_traffic_lose_nothing() {
    let mut setup = setup(170, 4);
    setup.accounts = 2;
    setup.parameters.main_interval = Duration::from_millis(150);
    let mut net = Net::new(setup);
    let mut sent = vec![];
    while net.now < Time::ZERO + Duration::from_secs(43) {
        for from in 0..2 {
            let body = format!("{} from {from}", sent.len());
            sent.push((1 - from, net.send_message(from, 1 - from, body.as_bytes())));
        }
        net.run_for(Duration::from_millis(400));
    }
    net.run_until(Time::ZERO + Duration::from_millis(47_990));
    for (number, (to, id)) in sent.iter().enumerate() {
        let arrived = net.inbox(*to).iter().any(|received| received.message == *id);
        assert!(arrived, "message {number} of {} is lost", sent.len());
    }
    let nodes = net.nodes.iter().map(|node| unexpected(&node.drops));
    let clients = net.clients.iter().map(|client| unexpected(client.drops()));
    for (place, drops) in nodes.chain(clients).enumerate() {
        // Mail for accounts that are gone, and the last frames of their links.
        let lost: Vec<_> =
            drops.iter().filter(|(reason, _)| *reason != DropReason::WrongDirection || place > 1).collect();
        assert!(lost.is_empty(), "{place}: {drops:?}");
    }
    assert!(net.clients.iter().all(|client| client.loop_stats().lost == 0));
    for node in 2..net.nodes.len() {
        let loops = net.nodes[node].relay().loops();
        assert_eq!(loops.first_account(), 6, "three times two accounts have gone");
        for half in [Half::Outbound, Half::Inbound] {
            for account in 0..2 {
                let stats = loops.stats(half, account);
                assert!(stats.sent > 0 && stats.lost == 0, "node {node}, {half:?}: {stats:?}");
                assert_ne!(loops.verdict(half, account), Verdict::Alarm);
            }
        }
    }
}

/// What becomes of a packet under a node's key of the first epoch that reaches it at that time.
fn fate(net: &mut Net, by_hand: &mut ByHand, node: u32, clock: Duration) -> Vec<(DropReason, u64)> {
    net.run_until(at(clock));
    let before = dropped(&net.nodes[node as usize].drops);
    let view = net.world.views[0].clone();
    let me = view.epoch().index_of(&net.world.identity(node)).unwrap();
    let from = view.epoch().predecessors(me)[0];
    let from = net.world.identities.iter().position(|i| *i == view.epoch().node(from).unwrap().identity);
    let packet = by_hand.packet(&[Hop::last(*view.key(me).unwrap())], b"");
    net.inject(from.unwrap() as u32, node, vec![packet]);
    dropped(&net.nodes[node as usize].drops).into_iter().filter(|now| !before.contains(now)).collect()
}

#[test]
fn each_layer_takes_the_old_key_until_its_instant_and_not_a_nanosecond_longer() {
    let tick = Duration::from_nanos(1);
    // With a third epoch the slot is taken by its key at that moment.
    for (epochs, afterwards) in [(2, DropReason::NoKey), (3, DropReason::BadMac)] {
        let mut net = Net::offline(setup(171, epochs));
        let mut by_hand = ByHand::new(&net.world.views[0], 171);
        let end = Duration::from_secs(START + 24);
        for (node, early) in [(2, 4500), (4, 3000), (6, 1500), (0, 0)] {
            let retired = end - Duration::from_millis(early);
            let last = fate(&mut net, &mut by_hand, node, retired - tick);
            assert!(matches!(last[..], [(DropReason::Discarded, _)]), "node {node}: {last:?}");
            if epochs == 2 && node == 0 {
                // The document ends with that epoch.
                continue;
            }
            let refused = fate(&mut net, &mut by_hand, node, retired);
            assert!(
                matches!(refused[..], [(reason, _)] if reason == afterwards),
                "node {node}, {epochs} epochs: {refused:?}"
            );
        }
    }
}

/// A packet of the first epoch over a route by hand, each hop of which holds it for the longest time.
fn slowest(world: &World, by_hand: &mut ByHand) -> Frame {
    let view = &world.views[0];
    let delay = world.setup.parameters.max_delay.as_nanos() as u64;
    let end = Hop::last(*view.key(NodeIndex(0)).unwrap());
    let hops = [
        Hop::forward(view, 2, 4, delay),
        Hop::forward(view, 4, 6, delay),
        Hop::forward(view, 6, 0, delay),
        end,
    ];
    by_hand.packet(&hops, b"")
}

#[test]
fn a_late_reply_that_is_sent_at_the_last_moment_arrives_however_long_each_hop_holds_it() {
    let setup = setup(172, 3);
    let latency = setup.latency;
    let mut net = Net::offline(setup);
    let mut by_hand = ByHand::new(&net.world.views[0], 172);
    // The last moment for senders is 6 s before the end of the second epoch.
    let last = at(Duration::from_secs(START + 18)) - Duration::from_nanos(1);
    net.run_until(last + 2 * latency);
    let packet = slowest(&net.world, &mut by_hand);
    net.inject(0, 2, vec![packet]);
    net.run_for(Duration::from_millis(4600));
    for (place, node) in net.nodes.iter().enumerate() {
        let expected = if place == 0 { vec![(DropReason::Discarded, 1)] } else { vec![] };
        assert_eq!(dropped(&node.drops), expected, "node {place}: it ends at its gateway");
    }
    // Layers 1 and 2 have given the slot to the third epoch meanwhile, layer 1 with the packet in its pool.
    assert_eq!([2, 4].map(|node: usize| net.nodes[node].open), [[Some(1), Some(2)]; 2]);
}

/// The parities of the packets that a mix node itself sends, in one epoch with an old one beside it.
fn outbound(world: &mut World, views: SendViews, count: usize) -> Vec<Parity> {
    let (occupancy, drops) = (Occupancy::new(8), Default::default());
    let (_, mut relay): (_, Relay) = world.relay(2, &occupancy, &drops);
    relay.handle(Time::ZERO, RelayInput::Views(Box::new(NewViews { views, accounts: None })));
    for account in 0..2 {
        // Its mailbox is there; it emits nothing itself.
        for connected in [true, false] {
            relay.handle(Time::ZERO, RelayInput::AccountLink { account, connected });
        }
    }
    let mut parities = vec![];
    let mut now = Time::ZERO;
    while parities.len() < count {
        now = relay.poll_timeout().unwrap().max(now);
        while let Some(output) = relay.poll_output(now) {
            if let RelayOutput::Forward { to, frame } = output {
                let parity = frame.parity();
                let epoch = world.views.iter().position(|view| view.parity() == parity).unwrap();
                // The neighbour is one in the list of that epoch.
                assert!(world.seat(epoch, 2).view().epoch().index_of(&to).is_some_and(|to| {
                    world.seat(epoch, 2).view().role(to) == Some(Role::Mix { layer: 2 })
                }));
                parities.push(parity);
            }
        }
    }
    parities
}

#[test]
fn a_sixteenth_of_the_loops_of_a_mix_node_uses_the_old_epoch_and_none_after_its_end() {
    let mut setup = setup(173, 2);
    setup.accounts = 2;
    let mut world = setup.world();
    let [old, new] = [0, 1].map(|epoch| world.views[epoch].clone());
    let count = 3200;
    let both = SendViews { current: new.clone(), old: Some(old.clone()) };
    let parities = outbound(&mut world, both, count);
    let share = parities.iter().filter(|parity| **parity == old.parity()).count();
    // Binomial: mean 200, deviation 13.7.
    assert_eq!(count as u64 / OLD_SHARE, 200);
    assert!((130..=270).contains(&share), "{share} of {count}");
    let parities = outbound(&mut world, new.clone().into(), 200);
    assert!(parities.iter().all(|parity| *parity == new.parity()));
}

/// The parities of the packets that a client sends whose clocks for everything else stand still.
fn emitted(
    streams: [Duration; 3],
    prepare: impl FnOnce(&World, &mut Client),
    count: usize,
) -> (usize, Client) {
    let mut setup = setup(175, 2);
    [setup.parameters.main_interval, setup.parameters.loop_interval, setup.parameters.drop_interval] =
        streams;
    let mut world = setup.world();
    let (_, mut client) = world.client(0);
    let [old, new] = [0, 1].map(|epoch| world.views[epoch].clone());
    client.handle_views(Time::ZERO, SendViews { current: new, old: Some(old.clone()) });
    client.handle_link(Time::ZERO, true);
    assert!(client.poll_transmit(Time::ZERO).is_some(), "what it wants of its gateway");
    prepare(&world, &mut client);
    let (mut now, mut sent, mut share, mut stored) = (Time::ZERO, 0, 0, 0);
    while sent < count {
        now = client.poll_timeout().max(now);
        while let Some(frame) = client.poll_transmit(now) {
            assert_eq!(frame.kind(), Ok(FrameKind::Packet));
            sent += 1;
            share += usize::from(frame.parity() == old.parity());
        }
        // What it would have stored is stored.
        while client.poll_store().is_some() {
            stored += 1;
        }
        client.handle_durable(stored);
    }
    (share, client)
}

#[test]
fn a_sixteenth_of_every_kind_of_packet_of_a_client_uses_the_old_epoch() {
    const COUNT: usize = 1600;
    let (often, never) = (Duration::from_millis(100), Duration::from_secs(86_400));
    let message = |world: &World, client: &mut Client| {
        let to = world.view.recipient(&client.address()).unwrap();
        let body = vec![1; 4_000_000];
        client.handle_send(Time::ZERO, MessageId([1; 16]), to, body, SendOptions::default()).unwrap();
    };
    let nothing = |_: &World, _: &mut Client| {};
    let cases: [(&str, (usize, Client)); 4] = [
        ("cover", emitted([often, never, never], nothing, COUNT)),
        ("loops", emitted([never, often, never], nothing, COUNT)),
        ("drops", emitted([never, never, often], nothing, COUNT)),
        ("messages", emitted([often, never, never], message, COUNT)),
    ];
    for (kind, (share, client)) in cases {
        // Binomial: mean 100, deviation 9.7.
        assert!((60..=140).contains(&share), "{kind}: {share} of {COUNT}");
        let counts = client.counts();
        let counted = match kind {
            "cover" => counts.cover,
            "loops" => counts.loops,
            "drops" => counts.drops,
            _ => counts.real,
        };
        assert!(counted as usize > COUNT * 9 / 10, "{kind}: {counts:?}");
    }
}

#[test]
fn the_draw_is_a_sixteenth_whatever_comes_before_it() {
    let setup = setup(174, 2);
    let world = setup.world();
    let views = SendViews { current: world.views[1].clone(), old: Some(world.views[0].clone()) };
    let mut rng = Rng::from_seed([174; 32]);
    let draws: Vec<bool> = (0..32_000).map(|_| views.draw(&mut rng).number() == 3).collect();
    let old = draws.iter().filter(|old| **old).count();
    // Binomial: mean 2000, deviation 43.
    assert!((1800..=2200).contains(&old), "{old}");
    let twice = draws.windows(2).filter(|pair| pair[0] && pair[1]).count();
    assert!((60..=190).contains(&twice), "mean 125: {twice}");
}
