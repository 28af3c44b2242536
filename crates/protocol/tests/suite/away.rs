//! Mail for a client that is away, or that does not want it now; clients that send more than they may.

use core::time::Duration;

use tombola_mixing::Time;
use tombola_protocol::client::ClientEvent;
use tombola_protocol::drops::DropReason;
use tombola_protocol::durable::TagPlace;
use tombola_protocol::frame::Frame;
use tombola_protocol::gateway::{GatewayInput, GatewayOutput};
use tombola_protocol::opener::{Occupancy, Opened, Order};
use tombola_topology::{IdentityKey, NodeIndex};

use crate::common::{ByHand, Hop, Net, Place, Post, Setup, any_ticket, dropped, marks};

const CLIENT: Place = Place::Client(0);

/// Numbers of the messages that a client received, in order.
fn received(net: &Net, client: usize) -> Vec<u8> {
    net.inbox(client).iter().map(|got| got.body[0]).collect()
}

#[test]
fn mail_waits_for_a_client_that_is_away() {
    let mut net = Net::new(Setup::new(90));
    net.run_for(Duration::from_millis(100));
    net.disconnect(CLIENT);
    for n in 0..20 {
        net.send_message(1, 0, &[n]);
    }
    net.run_for(Duration::from_secs(15));
    assert_eq!(
        (received(&net, 0), net.clients[0].counts().loops),
        (vec![], net.clients[0].loop_stats().sent)
    );
    assert!(net.nodes[0].gateway().counts().mail.packets >= 20);
    net.connect(CLIENT);
    net.run_for(Duration::from_secs(2));
    let mut all = received(&net, 0);
    all.sort_unstable();
    assert_eq!(all, (0..20).collect::<Vec<_>>());
    assert!(net.inbox(0).iter().all(|got| got.held > Duration::from_secs(8)), "held says how long");
    // Its correspondent could not know that it was away, and has sent everything once more.
    assert!(
        dropped(net.clients[0].drops()).iter().all(|(reason, _)| *reason == DropReason::DuplicateFragment)
    );
    net.run_for(Duration::from_secs(5));
    assert_eq!(net.ended(1).len(), 20, "now it knows");
}

#[test]
fn a_client_that_only_sends_leaves_its_mail_at_the_gateway_until_it_collects() {
    let mut setup = Setup::new(91);
    setup.parameters.loop_timeout = Duration::from_secs(5);
    let mut net = Net::new(setup);
    net.run_for(Duration::from_millis(100));
    net.clients[0].handle_collect(false);
    net.run_for(Duration::from_secs(2));
    let before = net.clients[0].counts();
    net.send_message(1, 0, &[7]);
    net.send_message(0, 1, &[8]);
    net.run_for(Duration::from_secs(8));
    assert_eq!((received(&net, 0), received(&net, 1)), (vec![], vec![8]), "it still sends");
    assert_eq!(net.clients[0].counts().mail, before.mail, "not even its own loops come down");
    assert!(net.clients[0].counts().loops > before.loops + 4, "it still emits loops");
    assert_eq!(net.clients[0].loop_stats().lost, 0, "but does not take those for lost");
    // It stays so when the link breaks: the wish is the client's, and each session begins with it.
    net.disconnect(CLIENT);
    net.connect(CLIENT);
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.clients[0].counts().mail, before.mail);
    net.clients[0].handle_collect(true);
    net.run_for(Duration::from_secs(2));
    assert_eq!(received(&net, 0), [7]);
}

#[test]
fn while_its_link_is_down_a_client_emits_nothing_and_keeps_what_it_has_to_send() {
    let mut net = Net::new(Setup::new(92));
    net.run_for(Duration::from_millis(100));
    net.disconnect(CLIENT);
    for n in 0..10 {
        net.send_message(0, 1, &[n]);
    }
    let before = net.clients[0].counts();
    net.watch();
    net.run_for(Duration::from_secs(10));
    assert_eq!((net.on_link(CLIENT, Place::Node(0)).len(), net.clients[0].counts()), (0, before));
    net.connect(CLIENT);
    net.run_for(Duration::from_secs(6));
    let mut all = received(&net, 1);
    all.sort_unstable();
    assert_eq!(all, (0..10).collect::<Vec<_>>());
    let first_second = net
        .on_link(CLIENT, Place::Node(0))
        .iter()
        .filter(|seen| seen.sent < Time::ZERO + Duration::from_millis(11_100))
        .count();
    assert!((10..60).contains(&first_second), "what waited is not sent in a burst: {first_second}");
    assert!(net.events[0].iter().any(|event| matches!(event, ClientEvent::Emitted(emitted)
        if emitted.emitted - emitted.queued > Duration::from_secs(9))));
}

#[test]
fn a_gateway_wants_to_be_called_since_a_packet_came_and_not_since_the_beginning() {
    let mut post = Post::new(Setup::new(101));
    post.wait(Duration::from_secs(7));
    let by_hand = ByHand::new(&post.world.view, 1);
    let slot = post.gateway.poll_timeout();
    assert!(slot > Some(post.now));
    post.handle(GatewayInput::ClientFrame(post.client, by_hand.for_gateway(Frame::zeroed(), 2)));
    assert_eq!(post.gateway.poll_timeout(), Some(post.now), "whoever measures lateness measures from here");
    assert!(matches!(post.gateway.poll_output(post.now), Some(GatewayOutput::Forward { .. })));
    assert_eq!(post.gateway.poll_timeout(), slot);
}

const MOMENT: Duration = Duration::from_secs(1);

#[test]
fn what_the_link_does_not_take_goes_down_later_in_its_order() {
    let mut post = Post::new(Setup::new(93));
    (0..10).for_each(|mark| post.mail(post.client, mark));
    // The link takes two frames, then none.
    let mut taken = post.wait(Duration::from_millis(119));
    let refused = taken.split_off(2);
    assert_eq!((marks(&taken), marks(&refused)), (vec![0, 1], vec![2, 3, 4, 5]));
    for (client, frame) in refused {
        post.handle(GatewayInput::Undelivered(client, frame));
    }
    assert_eq!(post.gateway.counts().delivered, 2);
    post.mail(post.client, 10);
    assert_eq!(post.marks(MOMENT), (2..=10).collect::<Vec<_>>());
    // One by one, as a link that is full all the time refuses them.
    post.mail(post.client, 11);
    post.mail(post.client, 12);
    for _ in 0..5 {
        let refused = post.wait(Duration::from_millis(20));
        assert_eq!(marks(&refused), [11]);
        refused.into_iter().for_each(|(to, frame)| post.handle(GatewayInput::Undelivered(to, frame)));
    }
    assert_eq!(post.marks(MOMENT), [11, 12]);
    let counts = post.gateway.counts();
    assert_eq!((counts.mail.packets, counts.delivered, dropped(&post.drops)), (13, 13, vec![]));
}

#[test]
fn how_long_mail_was_held_survives_a_link_that_did_not_take_it() {
    let mut post = Post::new(Setup::new(94));
    post.handle(GatewayInput::ClientDisconnected(post.client));
    post.mail(post.client, 1);
    post.wait(Duration::from_secs(100));
    post.visit(post.client);
    let refused = post.wait(Duration::from_millis(20));
    refused.into_iter().for_each(|(to, frame)| post.handle(GatewayInput::Undelivered(to, frame)));
    let down = post.wait(Duration::from_millis(20));
    let [(_, mail)] = &down[..] else { panic!("one slot") };
    let held = mail.mail_held();
    assert!(held > Duration::from_secs(100) && held <= Duration::from_millis(100_040), "{held:?}");
}

#[test]
fn a_mailbox_is_not_given_away_while_its_client_is_here() {
    let mut setup = Setup::new(95);
    setup.parameters.clients_per_gateway = 1;
    setup.parameters.mailbox_retention = Duration::from_secs(5);
    let newcomer = IdentityKey::of_seed(&[2; 32]);
    for collects in [true, false] {
        let mut post = Post::new(setup.clone());
        if !collects {
            post.handle(GatewayInput::ClientFrame(post.client, Frame::collect(false, 0)));
        }
        post.wait(Duration::from_secs(20));
        post.visit(newcomer);
        assert_eq!(post.gateway.counts().without_mailbox, 1, "the only place is taken");
        post.mail(post.client, 1);
        assert_eq!(dropped(&post.drops), []);
        post.handle(GatewayInput::ClientFrame(post.client, Frame::collect(true, 0)));
        assert_eq!(post.marks(MOMENT), [1]);
        // Once it has been away for longer than its mail would be kept, its place is free.
        post.acknowledge(post.client, 1);
        post.handle(GatewayInput::ClientDisconnected(post.client));
        post.wait(Duration::from_secs(6));
        post.visit(newcomer);
        post.mail(newcomer, 2);
        assert_eq!(post.marks(MOMENT), [2]);
    }
}

#[test]
fn mail_ends_with_the_retention_and_the_quota_and_each_is_counted() {
    let mut setup = Setup::new(96);
    setup.parameters.mailbox_packets = 3;
    setup.parameters.mailbox_retention = Duration::from_secs(5);
    let mut post = Post::new(setup);
    let other = IdentityKey::of_seed(&[2; 32]);
    post.visit(other);
    post.handle(GatewayInput::ClientDisconnected(post.client));
    for mark in 0..5 {
        post.mail(post.client, mark);
    }
    post.mail(other, 9);
    assert_eq!(dropped(&post.drops), [(DropReason::MailboxFull, 2)]);
    assert_eq!(post.marks(MOMENT), [9], "a full mailbox is nobody else's");
    post.acknowledge(other, 1);
    post.wait(Duration::from_secs(3));
    post.mail(post.client, 7);
    assert_eq!(post.drops.get(DropReason::MailboxFull), 3, "the oldest are kept");
    post.wait(Duration::from_secs(2));
    post.gateway.expire(post.now);
    assert_eq!(post.drops.get(DropReason::MailExpired), 3);
    post.mail(post.client, 8);
    post.visit(post.client);
    assert_eq!(post.marks(MOMENT), [8]);
    assert_eq!(post.occupancy.taken(), 0);
}

#[test]
fn who_lets_a_mailbox_fill_up_keeps_nobody_elses_mail_out() {
    let mut setup = Setup::new(102);
    setup.memory = 400;
    setup.parameters.clients_per_gateway = 10;
    let mut post = Post::new(setup);
    let squatter = IdentityKey::of_seed(&[2; 32]);
    post.visit(squatter);
    post.handle(GatewayInput::ClientDisconnected(squatter));
    for _ in 0..1000 {
        post.mail(squatter, 0);
    }
    assert_eq!(post.gateway.counts().mail.packets, 220, "half of all places and its own twenty");
    (1..=20).for_each(|mark| post.mail(post.client, mark));
    assert_eq!(dropped(&post.drops), [(DropReason::MailboxFull, 780)]);
    assert_eq!(post.marks(MOMENT), (1..=20).collect::<Vec<_>>());
}

#[test]
fn padding_shows_one_client_nothing_of_what_was_meant_for_another() {
    let mut setup = Setup::new(97);
    setup.parameters.mailbox_packets = 1;
    let mut post = Post::new(setup);
    let other = IdentityKey::of_seed(&[2; 32]);
    post.handle(GatewayInput::ClientDisconnected(post.client));
    post.visit(other);
    // What does not fit, what nobody expects, and what nobody has asked for.
    for mark in 1..5 {
        post.mail(post.client, mark);
        post.mail(IdentityKey::of_seed(&[3; 32]), mark);
        let mut frame = Frame::zeroed();
        frame.as_bytes_mut().fill(0xff);
        assert!(post.occupancy.take());
        let order = Order::End { identifier: [0xff; 16] };
        post.handle(GatewayInput::Opened(Opened {
            arrived: post.now,
            frame,
            order,
            tag: TagPlace::default(),
            ticket: any_ticket(),
            from: other,
        }));
    }
    let down = post.wait(MOMENT);
    assert!(down.len() > 40);
    let mut padding = Frame::zeroed();
    padding.set_padding();
    assert!(down.iter().all(|(to, frame)| *to == other && *frame == padding));
}

#[test]
fn a_client_that_floods_is_cut_to_its_rate_and_nobody_else_notices() {
    let run = |flood: bool| {
        let mut setup = Setup::new(98);
        setup.clients = 3;
        let mut net = Net::new(setup);
        let flooder = IdentityKey::of_seed(&[1; 32]);
        net.tell_gateway(0, GatewayInput::ClientConnected(flooder));
        for n in 0..10 {
            net.send_message(2, 1, &[n]);
            net.send_message(1, 2, &[n]);
        }
        let by_hand = ByHand::new(&net.world.view, 98);
        let before = net.nodes[0].gateway().counts().forwarded;
        net.watch();
        for _ in 0..if flood { 3000 } else { 0 } {
            let frame = by_hand.for_gateway(Frame::zeroed(), 2);
            net.tell_gateway(0, GatewayInput::ClientFrame(flooder, frame));
            net.run_for(Duration::from_millis(1));
        }
        net.run_until(Time::ZERO + Duration::from_secs(6));
        assert_eq!((received(&net, 1).len(), received(&net, 2).len()), (10, 10));
        let dropped = net.nodes[0].drops.get(DropReason::RateLimited);
        let honest: Vec<_> = net
            .seen
            .iter()
            .filter(|seen| !matches!(seen.to, Place::Node(_)))
            .map(|seen| (seen.sent, seen.to))
            .collect();
        (dropped, net.nodes[0].gateway().counts().forwarded - before, honest)
    };
    let (refused, forwarded, flooded) = run(true);
    let (none, usual, quiet) = run(false);
    assert_eq!(none, 0, "nobody is refused who keeps to the rate");
    // 3000 frames in three seconds, at twice the network's 27 per second and with some seconds' worth of them at once.
    let passed = 3000 - refused;
    assert_eq!(forwarded - usual, passed);
    assert!((2 * 3 * 27..3 * 200).contains(&passed), "{passed} passed");
    assert_eq!(flooded, quiet, "clients get the same frames at the same instants");
}

#[test]
fn a_client_that_wakes_up_is_not_taken_for_a_flood_at_any_rate_of_the_network() {
    for main_interval in [1000, 40, 1].map(Duration::from_millis) {
        let mut setup = Setup::new(99);
        setup.parameters.main_interval = main_interval;
        let mut world = setup.world();
        let (occupancy, drops) = (Occupancy::new(1), Default::default());
        let mut gateway = world.gateway(0, &occupancy, &drops);
        let (identity, mut client) = world.client(0);
        gateway.handle(Time::ZERO, GatewayInput::ClientConnected(identity));
        client.handle_link(Time::ZERO, true);
        // Its machine was suspended for a minute; what is due then all leaves at once.
        let now = Time::ZERO + Duration::from_secs(60);
        let mut frames = 0;
        while let Some(frame) = client.poll_transmit(now) {
            gateway.handle(now, GatewayInput::ClientFrame(identity, frame));
            frames += 1;
        }
        assert_eq!(dropped(&drops), [], "of {frames} at {main_interval:?}");
        assert_eq!(gateway.counts().forwarded + 1, frames, "all but the first, which collects");
    }
}

#[test]
fn mail_of_a_stranger_without_mailbox_is_refused_but_served_alike() {
    let mut setup = Setup::new(100);
    setup.parameters.clients_per_gateway = 1;
    let mut post = Post::new(setup);
    let late = IdentityKey::of_seed(&[2; 32]);
    post.visit(late);
    post.mail(late, 1);
    assert_eq!(dropped(&post.drops), [(DropReason::UnknownMailbox, 1)]);
    let down = post.wait(MOMENT);
    let count = |client| down.iter().filter(|(to, _)| *to == client).count();
    assert_eq!((count(late), count(post.client)), (50, 50));
    // It can still send.
    let mut by_hand = ByHand::new(&post.world.view, 1);
    let view = post.world.view.clone();
    let packet = by_hand.packet(&[Hop::last(*view.key(NodeIndex(2)).unwrap())], b"");
    post.handle(GatewayInput::ClientFrame(late, by_hand.for_gateway(packet, 2)));
    let forward = post.gateway.poll_output(post.now);
    let layer_1 = post.world.identity(2);
    assert!(matches!(forward, Some(GatewayOutput::Forward { to, .. }) if to == layer_1));
}
