//! Delays stay memoryless through the pool, whatever its load; what leaves it is again Poisson.

use core::time::Duration;

use tombola_mixing::{DelayPool, PoissonClock, Rng, Time};

use crate::common::{P_DEFECT, P_MIN, is_exponential, is_poisson, seconds, seed};

const MEAN: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// A packet that carries what a test wants to know about it.
struct Packet {
    entry: Time,
    delay: Duration,
}

struct Observed {
    /// Delays that arriving packets ask for; of those that were let in.
    asked: Vec<f64>,
    /// From entry to exit, as the driver saw it.
    measured: Vec<f64>,
    exits: Vec<Time>,
    /// Packets in the pool, every five seconds.
    pending: Vec<u64>,
    refused: usize,
}

/// Poisson arrivals at `rate` per second go through a pool for `duration`. The driver looks at the pool whenever
/// something arrives or leaves (`tick` zero), or only once per `tick`.
fn run(rate: u64, capacity: usize, duration: Duration, tick: Duration, seed: [u8; 32]) -> Observed {
    let mut rng = Rng::from_seed(seed);
    let mut arrivals = PoissonClock::new(Time::ZERO, Duration::from_nanos(1_000_000_000 / rate), rng.fork())
        .with_max_lag(MAX_DELAY);
    let mut pool = DelayPool::new(capacity, MAX_DELAY, rng.fork());
    let mut seen = Observed { asked: vec![], measured: vec![], exits: vec![], pending: vec![], refused: 0 };
    let mut now = Time::ZERO;
    while now < Time::ZERO + duration {
        let before = now;
        now = if tick.is_zero() {
            arrivals.poll_timeout().min(pool.poll_timeout().unwrap_or(Time::MAX))
        } else {
            now + tick
        };
        while let Some((deadline, packet)) = pool.poll_release(now) {
            let Packet { entry, delay } = packet;
            assert_eq!(deadline, entry + delay);
            assert!(deadline <= now);
            seen.asked.push(seconds(delay));
            seen.measured.push(seconds(now - entry));
            seen.exits.push(now);
        }
        while let Some(entry) = arrivals.poll(now) {
            // A packet that arrives between two looks enters the pool at the second.
            let entry = if tick.is_zero() { entry } else { now };
            let delay = rng.exponential(MEAN);
            if pool.has_room() {
                pool.insert(entry, delay, Packet { entry, delay }).expect("there is room");
            } else {
                seen.refused += 1;
            }
        }
        if now.as_nanos() / 5_000_000_000 > before.as_nanos() / 5_000_000_000 {
            seen.pending.push(pool.len() as u64);
        }
    }
    seen
}

#[test]
fn delays_are_exponential_at_entry_and_exit() {
    let seen = run(100, 10_000, Duration::from_secs(1000), Duration::ZERO, seed(20));
    assert!(seen.exits.len() > 90_000);
    assert!(is_exponential(&seen.asked, 0.25) > P_MIN);
    assert!(is_exponential(&seen.measured, 0.25) > P_MIN);
}

#[test]
fn delays_are_exponential_under_load() {
    // 8000 packets per second, 2000 of them in the pool; a driver that looks every 100 us.
    let seen = run(8000, 80_000, Duration::from_secs(40), Duration::from_micros(100), seed(21));
    assert!(seen.exits.len() > 300_000);
    assert_eq!(seen.refused, 0);
    assert!(is_exponential(&seen.asked, 0.25) > P_MIN);
    assert!(is_exponential(&seen.measured, 0.25) > P_MIN);
}

#[test]
fn delays_are_exponential_when_most_packets_are_refused() {
    // What is let in must not be the short, nor the long.
    let seen = run(8000, 500, Duration::from_secs(100), Duration::ZERO, seed(22));
    assert!(seen.refused > seen.exits.len() * 2);
    assert!(is_exponential(&seen.asked, 0.25) > P_MIN);
    assert!(is_exponential(&seen.measured, 0.25) > P_MIN);
}

#[test]
fn a_coarse_driver_is_found_out() {
    let seen = run(1000, 10_000, Duration::from_secs(100), Duration::from_millis(20), seed(23));
    assert!(is_exponential(&seen.asked, 0.25) > P_MIN);
    assert!(is_exponential(&seen.measured, 0.25) < P_DEFECT);
}

#[test]
fn poisson_in_poisson_out() {
    // Burke's theorem, for infinitely many servers. 2 s of 250 ms delays are enough to forget an empty start.
    let seen = run(2000, 20_000, Duration::from_secs(300), Duration::ZERO, seed(24));
    let exits: Vec<Time> =
        seen.exits.into_iter().filter(|&exit| exit > Time::ZERO + Duration::from_secs(5)).collect();
    let gaps: Vec<f64> = exits.windows(2).map(|pair| seconds(pair[1] - pair[0])).collect();
    assert!(is_exponential(&gaps, 1.0 / 2000.0) > P_MIN);
    // Packets per 50 ms: 100 on average, no more nor less scattered than chance.
    let mut counts = vec![0; 5900];
    for exit in exits {
        if let Some(count) =
            counts.get_mut(usize::try_from((exit.as_nanos() - 5_000_000_000) / 50_000_000).unwrap())
        {
            *count += 1;
        }
    }
    assert!(is_poisson(&counts) > P_MIN);
    // rate x mean = 500 wait on average, Poisson as well; looks 20 means apart are as good as independent.
    assert!(is_poisson(&seen.pending[1..]) > P_MIN);
    let pending = seen.pending[1..].iter().sum::<u64>() as f64 / (seen.pending.len() - 1) as f64;
    assert!((pending - 500.0).abs() < 4.0 * (500.0_f64 / 59.0).sqrt(), "{pending}");
}

#[test]
fn a_long_delay_is_cut_to_the_bound() {
    let mut pool = DelayPool::new(1, MAX_DELAY, Rng::from_seed(seed(25)));
    let now = Time::from_nanos(17);
    assert_eq!(pool.insert(now, Duration::MAX, ()).unwrap(), now + MAX_DELAY);
}
