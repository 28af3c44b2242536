//! Processes are killed in the middle of their work, and nothing that was accepted is lost, doubled or replayed.

use std::time::{Duration, Instant};

use tombola_tests::hand::Spec;
use tombola_tests::kills::{self, Plan, World};
use tombola_tests::replays;

/// On a machine with time to spare each of these takes a fraction of it.
const BOUND: Duration = Duration::from_secs(900);

#[test]
fn twenty_kills_lose_and_double_nothing() {
    let plan = Plan {
        pause: Duration::from_secs(1),
        file_every: 20,
        file_len: 50_000,
        settle: BOUND,
        ..Plan::new(20, 7)
    };
    let mut said = Vec::new();
    let outcome = kills::run(&plan, &mut |line| said.push(line.to_owned()));
    assert_eq!(outcome.kills.values().sum::<u32>(), 20, "{said:#?}");
    // Messages were under way, some of them answers, and kills have cost packets.
    let totals = outcome.totals;
    assert!(totals.messages > 20 && totals.replies > 0 && totals.retransmissions > 0, "{totals:?}");
}

#[test]
fn twenty_kills_of_whoever_earns_or_pays_lose_no_winner_and_pay_none_twice() {
    let plan = Plan {
        pause: Duration::from_secs(1),
        file_every: 20,
        file_len: 50_000,
        settle: BOUND,
        ..Plan::new(20, 11)
    };
    let mut said = Vec::new();
    let outcome = kills::run_paid(&plan, &mut |line| {
        println!("{line}");
        said.push(line.to_owned());
    });
    assert_eq!(outcome.kills.values().sum::<u32>(), 20, "{said:#?}");
    // All kinds were among them, and had something to lose.
    assert_eq!(outcome.kills.len(), 3, "{said:#?}");
    let tickets = outcome.tickets.unwrap();
    assert!(tickets.won >= 20 && tickets.redeemed == tickets.won, "{tickets:#?}");
    println!(
        "{} kills, {} s under fire, {} s until all had arrived; {} tickets opened, {} won",
        said.len(),
        outcome.under_fire.as_secs(),
        outcome.settling.as_secs(),
        tickets.opened,
        tickets.won
    );
}

#[test]
fn with_a_dead_node_in_each_layer_every_message_still_arrives_once() {
    let mut spec = Spec::new(3, 2, 2);
    // What has to be noticed is noticed soon.
    spec.parameters.loop_timeout = Duration::from_secs(2);
    let mut world = World::start(&spec, &["gateway 1", "gateway 2"]);
    let send = |world: &mut World, count: usize| {
        for n in 0..count {
            world.send_text(n % 2, 1 - n % 2, 0);
            world.look();
        }
    };
    send(&mut world, 4);
    world.look_until("the first arrives", |world| world.book.arrived() > 0);
    // On their way when the nodes die, and after.
    send(&mut world, 4);
    for dead in ["mix 1.2", "mix 2.2", "mix 3.2"] {
        world.network.node_mut(dead).kill();
    }
    send(&mut world, 4);
    let deadline = Instant::now() + BOUND;
    while world.book.arrived() < 12 {
        assert!(Instant::now() < deadline, "{} have not arrived", world.book.missing());
        world.look();
    }
    // Copies that are still under way do not show.
    let totals = world.finish();
    assert_eq!((totals.messages, totals.again), (12, 0), "{totals:?}");
    assert!(totals.retransmissions > 0, "{totals:?}");
}

#[test]
fn a_large_file_survives_the_gateway_that_keeps_it_for_somebody_who_is_away() {
    const LEN: usize = 2 << 20;
    // At least so many packets, whatever a packet's own header takes.
    const PACKETS: f64 = LEN as f64 / 2031.0;
    // A process that is killed is noticed at once over TCP, and after ten seconds of silence over QUIC.
    let mut spec = Spec { tcp_only: true, ..Spec::new(3, 1, 2) };
    spec.parameters.main_interval = Duration::from_millis(6);
    spec.parameters.downlink_interval = Duration::from_millis(4);
    let mut world = World::start(&spec, &["gateway 1", "gateway 2"]);
    world.stop_client(1);
    let bytes: Vec<u8> =
        (0..LEN as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    world.send_file(0, 1, &bytes);

    // Gateways publish once a second.
    let (mut most, mut now, mut read) = (0.0_f64, 0.0, None::<Instant>);
    let mut stored = |world: &World| {
        if read.is_none_or(|read| read.elapsed() > Duration::from_millis(200)) {
            now = world.network.node("gateway 2").metrics().sum("tombola_mail_packets");
            (most, read) = (most.max(now), Some(Instant::now()));
        }
        now
    };
    world.look_until("a third of it is stored", |world| stored(world) > PACKETS / 3.0);
    let gateway = world.network.node_mut("gateway 2");
    gateway.kill();
    gateway.start();
    gateway.wait_listening();
    world.look_until("what was stored is there again", |world| stored(world) > PACKETS / 4.0);
    let deadline = Instant::now() + BOUND;
    while !world.book.all_sent() {
        assert!(Instant::now() < deadline, "the file has not left");
        world.look();
        stored(&world);
    }
    // Whoever is not answered asks again: not so often that it fills the mailbox.
    let waited = Instant::now();
    while waited.elapsed() < Duration::from_secs(5) {
        world.look();
        stored(&world);
    }
    world.start_client(1);
    let deadline = Instant::now() + BOUND;
    while !world.book.open().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", world.book.open());
        world.look();
        stored(&world);
    }
    assert_eq!(world.book.verdict(), Vec::<String>::new());
    // Some are sent again because their sender or its gateway waited for a processor.
    assert!(most < 3.0 * PACKETS, "{most} packets were stored for a file of {PACKETS}");
    assert_eq!(world.finish().files, 1);
}

#[test]
fn no_packet_leaves_a_mix_node_twice_however_often_it_is_killed() {
    let mut bench = replays::Bench::start(1);
    for _ in 0..5 {
        bench.round(100);
    }
    let replays = bench.finish();
    // Something was tried: packets had left before the node was killed.
    assert!(replays.packets > 100 && replays.refused > 100, "{replays:?}");
}
