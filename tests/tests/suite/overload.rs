//! A mix node that gets more than it can do, and one that holds as much as it may.

use std::time::{Duration, Instant};

use tombola_node::metrics::{PACKETS_DROPPED_TOTAL, POOL_PACKETS};
use tombola_tests::load::measure::rss_mib;
use tombola_tests::load::stage::{Run, Setting, Stage};

const CALM: f64 = 400.0;

#[test]
fn overload_is_shed_evenly_and_is_over_at_once() {
    let mut stage = Stage::start(&Setting { mean_delay: Duration::from_millis(100), ..Setting::default() });
    let before = stage.run(1_200, CALM);
    assert_eq!((before.lost, before.given_up), (0, 0), "nothing is lost without need");

    // Twice what it can do, for some seconds.
    let most = stage.push(20_000).packets_per_s;
    let shed = stage.metrics().sum(PACKETS_DROPPED_TOTAL);
    let flood = stage.run((8.0 * most) as u64, 2.0 * most);
    assert!(flood.given_up > 1_000, "no flood: {}", flood.given_up);
    // It says what became of all of them, and served all neighbours alike.
    assert_eq!(flood.lost as f64, stage.metrics().sum(PACKETS_DROPPED_TOTAL) - shed, "nothing vanishes");
    for what in [0, 1] {
        let shares: Vec<u64> = flood.by_sender.values().map(|sender| sender[what]).collect();
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert_eq!(shares.len(), 4);
        assert!(*most as f64 <= 1.3 * *least as f64, "not evenly: {shares:?}");
    }

    // Everybody is served again from the first packet on.
    let after = stage.run(1_200, CALM);
    assert_eq!((after.lost, after.given_up), (0, 0));
    let median = |run: &Run| run.added_latency_us(0.5);
    let allowed = 5.0 * median(&before) + 20_000.0;
    let first: Vec<f64> = after.added_over_time.iter().take(200).map(|(_, late)| *late).collect();
    let late = first.iter().filter(|late| **late > allowed).count();
    assert!(late < 20, "{late} of the first 200 packets are late: {first:?}");
    assert!(median(&after) <= allowed, "{} and {} us", median(&before), median(&after));
}

#[test]
fn memory_is_flat_with_a_hundred_thousand_packets_in_the_pool() {
    const FULL: f64 = 100_000.0;
    let setting = Setting { mean_delay: Duration::from_secs(60), places: 130_000, ..Setting::default() };
    let mut stage = Stage::start(&setting);
    let pool = |stage: &Stage| stage.metrics().sum(POOL_PACKETS);
    // What is in the pool when all have left, and what that takes.
    let fill = |packets: u64, stage: &mut Stage| {
        stage.begin(packets, 10_000.0);
        stage.sent_all();
        // The node says once in a second how many there are.
        std::thread::sleep(Duration::from_secs(2));
        let full = pool(stage);
        assert!(full >= FULL, "only {full} packets are in the pool");
        (full, rss_mib(stage.pid()))
    };
    let empty = rss_mib(stage.pid());
    let (full, first) = fill(125_000, &mut stage);
    let each = (first - empty) * 1024.0 * 1024.0 / full;
    assert!(each < 4_096.0, "{each} bytes for each packet");
    // Half of them leave; as many come again.
    let deadline = Instant::now() + Duration::from_secs(600);
    while pool(&stage) > FULL / 2.0 {
        assert!(Instant::now() < deadline, "they do not leave");
        std::thread::sleep(Duration::from_millis(200));
    }
    let (again, second) = fill(80_000, &mut stage);
    let allowed = 1.1 * first * (again / full).max(1.0);
    assert!(
        second < allowed,
        "{first} MiB with {full} packets, and {second} with {again} when it is as full again"
    );
}
