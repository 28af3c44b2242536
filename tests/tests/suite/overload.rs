//! A mix node that gets more than it can do, and one that holds as much as it may.
//!
//! They take the whole machine and look at times: `cargo xtask test` runs them alone, behind all others.

use std::time::{Duration, Instant};

use tombola_node::metrics::{PACKETS_DROPPED_TOTAL, POOL_PACKETS};
use tombola_tests::load::measure::rss_mib;
use tombola_tests::load::stage::{Setting, Stage};

/// Packets a second that are nothing for any machine.
const CALM: f64 = 400.0;
/// Packets of a flood: what is built ahead for it takes 250 MB.
const FLOOD: u64 = 100_000;
/// A machine that does something else now and then is late with some packets. With what a flood leaves behind all would be.
const BACKLOG: f64 = 1e6;

#[test]
#[ignore = "takes the whole machine: `cargo xtask test` runs it alone"]
fn overload_is_shed_evenly_and_is_over_at_once() {
    let mut stage = Stage::start(&Setting { mean_delay: Duration::from_millis(100), ..Setting::default() });
    let before = stage.run(1_200, CALM);
    assert_eq!((before.lost, before.given_up), (0, 0), "nothing is lost without need");

    // Twice what it can do, and more if it could do more than it seemed to.
    let mut rate = 2.0 * stage.push(20_000).packets_per_s;
    let (flood, dropped) = loop {
        let dropped = stage.metrics().sum(PACKETS_DROPPED_TOTAL);
        let flood = stage.run(FLOOD, rate);
        if flood.given_up > 1_000 {
            break (flood, stage.metrics().sum(PACKETS_DROPPED_TOTAL) - dropped);
        }
        assert!(rate < 1e6, "no flood at {rate} packets a second");
        rate *= 2.0;
    };
    // It says what became of all of them, and served all neighbours alike.
    assert_eq!(flood.lost as f64, dropped, "nothing vanishes");
    for what in [0, 1] {
        let shares: Vec<u64> = flood.by_sender.values().map(|sender| sender[what]).collect();
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert_eq!(shares.len(), 4);
        assert!(*most as f64 <= 1.5 * *least as f64, "not evenly: {shares:?}");
    }

    // Everybody is served again from the first packet on.
    let after = stage.run(1_200, CALM);
    assert_eq!((after.lost, after.given_up), (0, 0));
    let mut first: Vec<f64> = after.added_over_time.iter().take(200).map(|(_, late)| *late).collect();
    first.sort_by(f64::total_cmp);
    assert!(first[first.len() / 2] < BACKLOG, "the first 200 packets are late: {first:?}");
}

#[test]
#[ignore = "takes the whole machine: `cargo xtask test` runs it alone"]
fn memory_is_flat_with_a_hundred_thousand_packets_in_the_pool() {
    const FULL: f64 = 100_000.0;
    /// As many packets are in the pool after this many more were sent.
    const PART: u64 = 20_000;
    let setting = Setting { mean_delay: Duration::from_secs(120), places: 160_000, ..Setting::default() };
    let mut stage = Stage::start(&setting);
    let pool = |stage: &Stage| stage.metrics().sum(POOL_PACKETS);
    // What is in the pool, and what that takes.
    let fill = |stage: &mut Stage| {
        let deadline = Instant::now() + Duration::from_secs(300);
        while pool(stage) < FULL {
            assert!(Instant::now() < deadline, "only {} packets are in the pool", pool(stage));
            stage.begin(PART, 10_000.0);
            stage.sent_all();
            // The node says once in a second how many there are.
            std::thread::sleep(Duration::from_secs(2));
        }
        (pool(stage), rss_mib(stage.pid()))
    };
    let empty = rss_mib(stage.pid());
    let (full, first) = fill(&mut stage);
    let each = (first - empty) * 1024.0 * 1024.0 / full;
    assert!(each < 4_096.0, "{each} bytes for each packet");
    // Many of them leave; as many come again.
    let deadline = Instant::now() + Duration::from_secs(600);
    while pool(&stage) > 0.6 * FULL {
        assert!(Instant::now() < deadline, "they do not leave");
        std::thread::sleep(Duration::from_millis(200));
    }
    let (again, second) = fill(&mut stage);
    let allowed = 1.1 * first * (again / full).max(1.0);
    assert!(second < allowed, "{first} MiB with {full} packets, {second} MiB with {again} of them later");
}
