//! Nothing that was accepted is lost: acknowledgements, repetition, parity, and what a process keeps over its end.

use core::time::Duration;

use tombola_mixing::{Rng, Time};
use tombola_protocol::client::{ClientEvent, FinalState, SendOptions};
use tombola_protocol::drops::DropReason;
use tombola_protocol::fragment::FRAGMENT_DATA;
use tombola_protocol::frame::FrameKind;
use tombola_protocol::outbox::SendError;
use tombola_protocol::records::tables;

use crate::common::{Net, Place, Setup, Sighting, dropped};

const MINUTE: Duration = Duration::from_secs(60);

fn body(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::from_seed([seed as u8; 32]);
    let mut body = vec![0; len];
    rng.fill(&mut body);
    body
}

/// A network whose links between nodes lose this share of packets.
fn lossy(setup: Setup, percent: u64) -> Net {
    let mut net = Net::new(setup);
    lose(&mut net, percent);
    net
}

fn lose(net: &mut Net, percent: u64) {
    let rng = core::cell::RefCell::new(Rng::from_seed([99; 32]));
    net.cut(move |from, to| {
        matches!((from, to), (Place::Node(_), Place::Node(_))) && rng.borrow_mut().below(100) < percent
    });
}

/// Every message of `from` arrived at `to` once, and `from` knows it.
fn all_arrived(net: &Net, from: usize, to: usize, bodies: &[Vec<u8>]) {
    let mut got: Vec<_> = net.inbox(to).iter().map(|got| got.body.clone()).collect();
    let mut sent = bodies.to_vec();
    got.sort_unstable();
    sent.sort_unstable();
    assert!(got == sent, "{} of {} messages arrived", got.len(), sent.len());
    let ended = net.ended(from);
    assert_eq!(ended.len(), bodies.len());
    assert!(ended.iter().all(|(_, state)| *state == FinalState::Acknowledged));
    assert_eq!(net.clients[from].outbox().count(), 0);
}

#[test]
fn a_message_is_queued_sent_and_acknowledged_and_leaves_nothing_behind() {
    let mut net = Net::new(Setup::new(200));
    let id = net.send_message(0, 1, b"hello");
    net.run_for(Duration::from_secs(10));
    let told: Vec<_> = net.events[0]
        .iter()
        .map(|event| match event {
            ClientEvent::Queued(of) => ("queued", *of),
            ClientEvent::Emitted(emitted) => ("emitted", emitted.message),
            ClientEvent::Sent(of) => ("sent", *of),
            ClientEvent::Ended(of, FinalState::Acknowledged) => ("acknowledged", *of),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [("queued", id), ("emitted", id), ("sent", id), ("acknowledged", id)]);
    net.clients[0].handle_noted(id);
    net.clients[1].handle_accept(net.now, id);
    net.run_for(Duration::from_secs(1));
    let left = |client: usize| net.stores[client].records.keys().map(|(table, _)| *table).collect::<Vec<_>>();
    assert_eq!(left(0), [tables::TAGS], "of the acknowledgement");
    assert_eq!(left(1), [tables::DONE, tables::TAGS], "what it needs to know it again");
    assert_eq!(net.clients[0].counts().retransmitted, 0);
}

#[test]
fn a_tenth_of_loss_on_every_link_loses_no_message_short_or_long() {
    let mut net = lossy(Setup::new(201), 10);
    let mut bodies: Vec<_> = (0..40).map(|n| body(20 + n, n as u64)).collect();
    bodies.push(body(300 * FRAGMENT_DATA + 7, 41));
    bodies.push(body(3 * FRAGMENT_DATA, 42));
    for body in &bodies {
        net.send_message(0, 1, body);
        net.run_for(Duration::from_millis(70));
    }
    for _ in 0..40 {
        if net.ended(0).len() < bodies.len() {
            net.run_for(MINUTE);
        }
    }
    all_arrived(&net, 0, 1, &bodies);
    let again = net.clients[0].counts().retransmitted;
    println!("{again} packets again for {} of messages", net.clients[0].counts().real - again);
    assert!(again > 40 && again < 900);
}

#[test]
fn with_half_of_every_layer_dead_all_messages_arrive_once() {
    let mut net = Net::new(Setup::new(202));
    net.run_for(Duration::from_secs(5));
    // One mix node of each layer of two: one packet in eight gets through, and one acknowledgement in eight.
    net.cut(|from, to| [from, to].iter().any(|end| matches!(end, Place::Node(n) if *n >= 2 && n % 2 == 0)));
    let bodies: Vec<_> = (0..20).map(|n| body(100, n)).collect();
    for body in &bodies {
        net.send_message(0, 1, body);
    }
    let mut minutes = 0;
    while net.ended(0).len() < bodies.len() && minutes < 60 {
        net.run_for(MINUTE);
        minutes += 1;
    }
    println!("all acknowledged after {minutes} minutes");
    all_arrived(&net, 0, 1, &bodies);
}

#[test]
fn a_recipient_who_is_away_for_days_finds_at_most_half_as_much_again() {
    let mut setup = Setup::new(203);
    // A slower clock, or these days would have a hundred million ticks.
    setup.parameters.main_interval = Duration::from_secs(5);
    setup.parameters.downlink_interval = Duration::from_secs(1);
    setup.parameters.loop_interval = Duration::from_secs(60);
    setup.parameters.drop_interval = Duration::from_secs(60);
    setup.parameters.loop_timeout = Duration::from_secs(60);
    let mut net = Net::new(setup);
    net.run_for(Duration::from_secs(1));
    net.disconnect(Place::Client(1));
    let long = body(200 * FRAGMENT_DATA, 1);
    let id = net.send_message(0, 1, &long);
    net.run_for(2 * 24 * 60 * MINUTE);
    // The own loops of the one who is away are over after the first minute.
    let stored = net.nodes[1].gateway().counts().mail.packets;
    let size = stored as f64 * 2396.0 / long.len() as f64;
    println!("{stored} packets wait, {size:.2} times the message");
    assert!(stored >= 200 + 40 && size < 1.5, "{stored}");
    net.connect(Place::Client(1));
    net.run_for(20 * MINUTE);
    assert_eq!(net.inbox(1).len(), 1);
    assert!(net.inbox(1)[0].body == long);
    assert_eq!(net.ended(0), [(id, FinalState::Acknowledged)]);
}

#[test]
fn what_was_lost_while_nobody_was_there_is_repaired_without_the_sender() {
    let mut net = lossy(Setup::new(204), 2);
    net.disconnect(Place::Client(1));
    let long = body(256 * FRAGMENT_DATA, 1);
    net.send_message(0, 1, &long);
    net.run_for(3 * MINUTE);
    // The sender leaves for good.
    net.disconnect(Place::Client(0));
    net.run_for(MINUTE);
    net.connect(Place::Client(1));
    net.run_for(MINUTE);
    assert_eq!(net.inbox(1).len(), 1, "parity made up for what was lost");
    assert!(net.inbox(1)[0].body == long);
}

#[test]
fn a_process_that_ends_at_any_moment_loses_no_message_and_delivers_none_twice() {
    let mut rng = Rng::from_seed([5; 32]);
    let mut net = Net::new(Setup::new(205));
    let mut bodies = vec![];
    for round in 0..30 {
        for _ in 0..3 {
            let len = if rng.below(4) == 0 { 5 * FRAGMENT_DATA } else { 50 };
            bodies.push(body(len + bodies.len(), bodies.len() as u64));
            net.send_message(0, 1, &bodies[bodies.len() - 1]);
        }
        net.run_for(Duration::from_millis(rng.below(4000)));
        let who = round % 2;
        // What the disk has taken up to now is all that there is.
        net.stores[who].stuck = rng.below(2) == 0;
        net.run_for(Duration::from_millis(rng.below(300)));
        let queued_durably =
            |net: &Net| net.events[0].iter().filter(|event| matches!(event, ClientEvent::Queued(_))).count();
        assert_eq!(queued_durably(&net), bodies.len());
        net.stores[who].stuck = false;
        net.crash(who);
        net.run_for(Duration::from_millis(rng.below(500)));
        net.connect(Place::Client(who));
    }
    net.run_for(5 * MINUTE);
    let mut got: Vec<_> = net.inbox(1).iter().filter(|got| !got.again).map(|got| got.body.clone()).collect();
    got.sort_unstable();
    bodies.sort_unstable();
    assert_eq!(got.len(), bodies.len());
    assert!(got == bodies);
    assert_eq!(net.clients[0].outbox().count(), 0, "the sender knows it of each");
}

#[test]
fn nothing_is_acknowledged_or_shown_before_it_is_safe() {
    let mut net = Net::new(Setup::new(206));
    net.stores[1].stuck = true;
    net.watch();
    net.send_message(0, 1, b"text");
    net.run_for(8 * Duration::from_secs(1));
    assert!(net.inbox(1).is_empty() && net.ended(0).is_empty());
    let before = net.clients[1].counts();
    assert_eq!(before.control, 0);
    let up = |net: &Net| {
        let up: Vec<_> = net.on_link(Place::Client(1), Place::Node(1)).into_iter().cloned().collect();
        up.last().map(|seen: &Sighting| seen.frame.acknowledged())
    };
    let told = up(&net).unwrap();
    net.crash(1);
    net.stores[1].stuck = false;
    net.connect(Place::Client(1));
    net.run_for(MINUTE);
    assert_eq!(net.inbox(1).iter().map(|got| got.body.len()).collect::<Vec<_>>(), [4]);
    assert_eq!(net.ended(0).len(), 1);
    println!("acknowledged {told} before, {:?} after", up(&net));
}

#[test]
fn an_application_gets_what_it_has_not_taken_again_and_nothing_that_it_has() {
    let mut net = Net::new(Setup::new(207));
    let [first, second] = [0, 1].map(|n| net.send_message(0, 1, &body(3000, n)));
    net.run_for(Duration::from_secs(20));
    assert_eq!(net.inbox(1).len(), 2);
    assert!(net.clients[1].handle_accept(net.now, first));
    net.run_for(Duration::from_millis(100));
    net.events[1].clear();
    net.crash(1);
    let again = net.inbox(1);
    assert_eq!(again.len(), 1);
    assert!(again[0].message == second && again[0].again && again[0].body == body(3000, 1));
    // What became of them the sender's application has not noted either.
    net.clients[0].handle_noted(first);
    net.run_for(Duration::from_millis(100));
    net.events[0].clear();
    net.crash(0);
    assert_eq!(net.ended(0), [(second, FinalState::Acknowledged)]);
}

#[test]
fn a_message_expires_and_one_can_be_called_back() {
    let mut net = Net::new(Setup::new(208));
    net.disconnect(Place::Client(1));
    let options = SendOptions { lifetime: MINUTE, ..SendOptions::default() };
    let expires = net.send_with(0, 1, b"soon", options);
    let back = net.send_message(0, 1, &body(500_000, 1));
    net.run_for(Duration::from_secs(2));
    assert!(net.clients[0].handle_cancel(back));
    assert!(!net.clients[0].handle_cancel(back));
    net.run_for(Duration::from_secs(1));
    let sent = net.emitted(0).len();
    net.run_for(2 * MINUTE);
    assert_eq!(net.ended(0), [(back, FinalState::Cancelled), (expires, FinalState::Expired)]);
    assert!(net.emitted(0).len() - sent < 6, "nothing more of it leaves");
    assert_eq!(net.stores[0].count(tables::OUTBOX) + net.stores[0].count(tables::BODIES), 0);
}

#[test]
fn the_outbox_is_bounded_and_says_when_it_fills_up() {
    let mut net = Net::offline(Setup::new(209));
    let mut refused = 0;
    for n in 0..5000u32 {
        let id = net.fresh_id();
        let to = net.world.view.recipient(&net.clients[1].address()).unwrap();
        let body = n.to_be_bytes().to_vec();
        match net.clients[0].handle_send(net.now, id, to, body, SendOptions::default()) {
            Ok(()) => {}
            Err(SendError::Full) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(refused, 5000 - 4096);
    net.run_for(Duration::from_secs(1));
    let pressure = |net: &Net| {
        let events = net.events[0].iter().filter_map(|event| match event {
            ClientEvent::Backpressure(on) => Some(*on),
            _ => None,
        });
        events.collect::<Vec<_>>()
    };
    assert_eq!(pressure(&net), [true]);
    let all: Vec<_> = net.clients[0].outbox().collect();
    for id in all {
        net.clients[0].handle_cancel(id);
    }
    net.run_for(Duration::from_secs(1));
    assert_eq!(pressure(&net), [true, false]);
}

#[test]
fn sending_again_does_not_show_in_when_a_client_sends() {
    // The gateway of the recipient blocks everything for it, or nothing.
    let trace = |blocks: bool| {
        let mut net = Net::new(Setup::new(210));
        net.watch();
        if blocks {
            net.cut(|from, to| from == Place::Node(1) && to == Place::Client(1));
        }
        for n in 0..20 {
            net.send_message(0, 1, &body(3000, n));
        }
        net.run_for(2 * MINUTE);
        let again = net.clients[0].counts().retransmitted;
        let up = net.on_link(Place::Client(0), Place::Node(0));
        (again, up.iter().map(|seen| (seen.sent, seen.kind())).collect::<Vec<_>>())
    };
    let (open, blocked) = (trace(false), trace(true));
    assert_eq!(open.0, 0);
    assert!(blocked.0 > 20, "it does send again: {}", blocked.0);
    assert!(open.1 == blocked.1, "at the same instants");
}

#[test]
fn pings_are_answered_without_the_application() {
    let mut net = Net::new(Setup::new(211));
    let id = net.fresh_id();
    let to = net.world.view.recipient(&net.clients[1].address()).unwrap();
    assert!(net.clients[0].handle_ping(id, to));
    net.run_for(Duration::from_secs(15));
    let pongs: Vec<_> = net.events[0]
        .iter()
        .filter_map(|event| match event {
            ClientEvent::Pong { message, took } => Some((*message, *took)),
            _ => None,
        })
        .collect();
    assert_eq!(pongs.len(), 1);
    assert!(pongs[0].0 == id && pongs[0].1 > Duration::from_millis(50));
    assert!(net.events[1].is_empty());
    // Many of them are as many as may be under way.
    for _ in 0..1000 {
        let (id, to) = (net.fresh_id(), net.world.view.recipient(&net.clients[1].address()).unwrap());
        net.clients[0].handle_ping(id, to);
    }
    net.run_for(Duration::from_secs(60));
    assert!(net.events[0].len() <= 65, "{}", net.events[0].len());
}

#[test]
fn a_copied_frame_is_refused_after_a_restart_too() {
    let mut net = Net::new(Setup::new(212));
    net.watch();
    let id = net.send_message(0, 1, b"once");
    net.run_for(Duration::from_secs(10));
    assert_eq!(net.inbox(1).len(), 1);
    let mail: Vec<_> = net
        .on_link(Place::Node(1), Place::Client(1))
        .into_iter()
        .filter(|seen| seen.kind() == FrameKind::Mail)
        .map(|seen| seen.frame.clone())
        .collect();
    net.clients[1].handle_accept(net.now, id);
    net.run_for(Duration::from_millis(100));
    net.crash(1);
    let before = dropped(net.clients[1].drops());
    assert_eq!(before, []);
    for frame in mail {
        net.clients[1].handle_frame(net.now, frame);
    }
    net.run_for(Time::from_nanos(1) - Time::ZERO);
    // Loops of the process before are not replays, but nothing that this one waits for.
    assert_eq!(dropped(net.clients[1].drops()), [(DropReason::Replay, 1)]);
    assert_eq!(net.inbox(1).iter().filter(|got| got.again).count(), 0);
}
