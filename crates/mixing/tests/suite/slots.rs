//! The pace of the downlink.

use core::time::Duration;

use tombola_mixing::{PacedSlots, Rng, Time};

use crate::common::{P_MIN, is_uniform, seed};

const INTERVAL: Duration = Duration::from_millis(20);

#[test]
fn slots_keep_their_pace_however_they_are_polled() {
    let start = Time::from_nanos(5_000_000_000);
    let mut rng = Rng::from_seed(seed(70));
    let mut slots = PacedSlots::new(start, INTERVAL, Rng::from_seed(seed(71)));
    let first = slots.poll_timeout();
    let mut now = start;
    let mut seen = 0;
    for _ in 0..10_000 {
        now += rng.exponential(Duration::from_millis(5));
        while let Some(slot) = slots.poll(now) {
            assert_eq!(slot, first + INTERVAL * seen);
            seen += 1;
        }
        assert!(slots.poll_timeout() > now);
    }
    assert!(seen > 2000);
    assert_eq!(slots.skipped(), 0);
}

#[test]
fn the_phase_is_uniform() {
    let mut rng = Rng::from_seed(seed(72));
    let mut counts = [0; 20];
    for _ in 0..20_000 {
        let phase = PacedSlots::new(Time::ZERO, INTERVAL, rng.fork()).poll_timeout();
        counts[usize::try_from(phase.as_nanos() / 1_000_000).unwrap()] += 1;
    }
    assert!(is_uniform(&counts) > P_MIN);
}

#[test]
fn a_stall_makes_a_bounded_burst_and_keeps_the_phase() {
    for stall in [Duration::from_millis(119), Duration::from_secs(3600), Duration::from_secs(1_000_000_000)] {
        let mut slots = PacedSlots::new(Time::ZERO, INTERVAL, Rng::from_seed(seed(73)));
        let first = slots.poll_timeout();
        let now = Time::ZERO + stall;
        let burst: Vec<Time> = core::iter::from_fn(|| slots.poll(now)).collect();
        assert_eq!(burst.len(), 5);
        let all = (now - first).as_nanos() / INTERVAL.as_nanos() + 1;
        assert_eq!(u128::from(slots.skipped()) + 5, all);
        assert!(burst.iter().all(|&slot| (slot - first).as_nanos().is_multiple_of(INTERVAL.as_nanos())));
        assert!(slots.poll_timeout() > now && slots.poll_timeout() <= now + INTERVAL);
    }
}

#[test]
fn extremes_end() {
    let rng = || Rng::from_seed(seed(74));
    let mut fast = PacedSlots::new(Time::ZERO, Duration::ZERO, rng());
    assert_eq!(core::iter::from_fn(|| fast.poll(Time::from_nanos(1 << 60))).count(), 5);
    let mut slow = PacedSlots::new(Time::ZERO, Duration::MAX, rng());
    assert!(core::iter::from_fn(|| slow.poll(Time::MAX)).count() <= 1);
    assert_eq!(slow.poll_timeout(), Time::MAX);
}
