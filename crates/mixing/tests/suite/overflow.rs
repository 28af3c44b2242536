//! A full pool favours nobody.

use core::time::Duration;

use tombola_mixing::{DelayPool, PoissonClock, Rng, Time};

use crate::common::{P_DEFECT, P_MIN, is_homogeneous, seed};

const MEAN: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(10);

struct Outcome {
    /// [let in, dropped], of packets from honest senders and from the squatter.
    honest: [u64; 2],
    squatter: [u64; 2],
    /// The honest ones again, by quarters of their delays.
    by_delay: [[u64; 2]; 4],
}

/// 1000 honest packets per second against 3000 that stay as long as they may, in a pool for 3000. A defective node
/// looks at the delay first and lets a packet in more readily if it will soon be gone.
fn squat(defective: bool, seed: [u8; 32]) -> Outcome {
    let mut rng = Rng::from_seed(seed);
    let mut arrivals = PoissonClock::new(Time::ZERO, Duration::from_micros(250), rng.fork());
    let mut pool = DelayPool::new(3000, MAX_DELAY, rng.fork());
    let mut outcome = Outcome { honest: [0; 2], squatter: [0; 2], by_delay: [[0; 2]; 4] };
    for _ in 0..400_000 {
        let now = arrivals.poll_timeout();
        arrivals.poll(now).expect("a tick is due");
        while pool.poll_release(now).is_some() {}
        let honest = rng.below(4) == 0;
        let delay = if honest { rng.exponential(MEAN) } else { MAX_DELAY };
        let room =
            if defective { pool.room() > 10 || (pool.has_room() && delay < MEAN) } else { pool.has_room() };
        let fate = usize::from(!room);
        if room {
            pool.insert(now, delay, ()).expect("there is room");
        }
        assert!(pool.len() <= 3000);
        if !honest {
            outcome.squatter[fate] += 1;
            continue;
        }
        outcome.honest[fate] += 1;
        // Quantiles of the exponential distribution.
        let quarters = [4.0_f64 / 3.0, 2.0, 4.0].map(|odds| MEAN.mul_f64(odds.ln()));
        outcome.by_delay[quarters.iter().filter(|&&quarter| delay > quarter).count()][fate] += 1;
    }
    outcome
}

#[test]
fn loss_is_proportional_to_the_share_of_arrivals() {
    let seen = squat(false, seed(40));
    assert!(seen.honest[1] > 50_000, "the pool did not overflow");
    assert!(is_homogeneous(&[seen.honest, seen.squatter]) > P_MIN);
    assert!(is_homogeneous(&seen.by_delay) > P_MIN);
}

#[test]
fn a_node_that_looks_at_the_delay_first_is_found_out() {
    let seen = squat(true, seed(41));
    assert!(is_homogeneous(&[seen.honest, seen.squatter]) < P_DEFECT);
    assert!(is_homogeneous(&seen.by_delay) < P_DEFECT);
}

#[test]
fn a_pool_for_rate_times_longest_delay_never_overflows() {
    let mut rng = Rng::from_seed(seed(42));
    // At most 2000 packets per second, as a node's admission allows: here exactly one every 500 us.
    let mut pool = DelayPool::new(20_000, MAX_DELAY, rng.fork());
    for packet in 0..100_000_u64 {
        let now = Time::from_nanos(packet * 500_000);
        while pool.poll_release(now).is_some() {}
        let delay = if rng.below(10) == 0 { rng.exponential(MEAN) } else { MAX_DELAY };
        pool.insert(now, delay, packet).unwrap();
    }
}

#[test]
fn a_full_pool_hands_the_item_back_unprinted() {
    let mut pool = DelayPool::new(1, MAX_DELAY, Rng::from_seed(seed(43)));
    pool.insert(Time::ZERO, MEAN, "first").unwrap();
    let full = pool.insert(Time::ZERO, MEAN, "second").unwrap_err();
    assert_eq!(
        format!("{full:?} {full} {pool:?}"),
        "PoolFull(..) the delay pool is full DelayPool { len: 1, capacity: 1, .. }"
    );
    assert_eq!(full.0, "second");
    assert_eq!(pool.poll_release(Time::ZERO + MEAN).map(|(_, item)| item), Some("first"));
}
