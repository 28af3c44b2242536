//! Packets leave in the order of their deadlines, never early, none lost; equal deadlines in random order.

use core::time::Duration;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use tombola_mixing::{DelayPool, Rng, Time};

use crate::common::{P_DEFECT, P_MIN, is_uniform, seed};
use crate::randomness::rank;

const MAX_DELAY: Duration = Duration::from_secs(10);

/// Releases everything and numbers the order in which items 0 to 3 left; others are ignored.
fn order_of_release(pool: &mut DelayPool<usize>, now: Time) -> usize {
    let mut order = [0; 4];
    let mut left = 0;
    while let Some((_, item)) = pool.poll_release(now) {
        if item < 4 {
            order[left] = item;
            left += 1;
        }
    }
    assert_eq!(left, 4);
    rank(order)
}

#[test]
fn equal_deadlines_leave_in_uniformly_random_order() {
    let mut pool = DelayPool::new(100, MAX_DELAY, Rng::from_seed(seed(30)));
    let mut counts = [0; 24];
    for _ in 0..48_000 {
        for item in 0..4 {
            pool.insert(Time::ZERO, Duration::from_millis(1), item).unwrap();
        }
        counts[order_of_release(&mut pool, Time::from_nanos(1_000_000))] += 1;
    }
    assert!(is_uniform(&counts) > P_MIN);
}

#[test]
fn equal_deadlines_hide_the_order_of_arrival_in_a_busy_pool() {
    let mut rng = Rng::from_seed(seed(31));
    let mut pool = DelayPool::new(100, MAX_DELAY, rng.fork());
    let mut counts = [0; 24];
    for _ in 0..48_000 {
        // Four packets arrive one after another, among others, and are due at the same nanosecond.
        for item in 0..4 {
            let now = Time::from_nanos(item as u64 * 100);
            for _ in 0..rng.below(6) {
                pool.insert(now, Duration::from_nanos(rng.below(2000)), 4).unwrap();
            }
            pool.insert(now, Duration::from_nanos(1000) - (now - Time::ZERO), item).unwrap();
        }
        counts[order_of_release(&mut pool, Time::from_nanos(5000))] += 1;
    }
    assert!(is_uniform(&counts) > P_MIN);
}

#[test]
fn delays_above_the_bound_leave_in_random_order_too() {
    let mut pool = DelayPool::new(100, MAX_DELAY, Rng::from_seed(seed(32)));
    let mut counts = [0; 24];
    for _ in 0..48_000 {
        for item in 0..4 {
            pool.insert(Time::ZERO, MAX_DELAY + Duration::from_secs(item as u64), item).unwrap();
        }
        counts[order_of_release(&mut pool, Time::ZERO + MAX_DELAY)] += 1;
    }
    assert!(is_uniform(&counts) > P_MIN);
}

#[test]
fn one_nanosecond_decides() {
    // The counterpart of the tests above: where deadlines differ at all, there is one order.
    let mut pool = DelayPool::new(100, MAX_DELAY, Rng::from_seed(seed(33)));
    let mut counts = [0; 24];
    for _ in 0..1000 {
        for item in 0..4 {
            pool.insert(Time::ZERO, Duration::from_nanos(item as u64), item).unwrap();
        }
        counts[order_of_release(&mut pool, Time::from_nanos(3))] += 1;
    }
    assert_eq!(counts[0], 1000);
    assert!(is_uniform(&counts) < P_DEFECT);
}

#[derive(Clone, Debug)]
enum Step {
    /// A packet that asks for a delay.
    Insert(u64),
    /// The driver's clock moves (back, if it is broken), and the driver releases what is due.
    Advance(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..50_u64).prop_map(Step::Insert),
        1 => any::<u64>().prop_map(Step::Insert),
        2 => (-5..30_i64).prop_map(Step::Advance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn never_early_never_lost_always_in_order(steps in vec(step(), 0..200), capacity in 0..20_usize) {
        let max_delay = Duration::from_nanos(40);
        let mut pool = DelayPool::new(capacity, max_delay, Rng::from_seed(seed(34)));
        let mut model: BTreeMap<usize, Time> = BTreeMap::new();
        let mut now = Time::from_nanos(1000);
        for (item, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(delay) => {
                    let delay = Duration::from_nanos(delay);
                    match pool.insert(now, delay, item) {
                        Ok(deadline) => {
                            prop_assert_eq!(deadline, now + delay.min(max_delay));
                            model.insert(item, deadline);
                        }
                        Err(refused) => {
                            prop_assert_eq!(refused.0, item);
                            prop_assert_eq!(model.len(), capacity);
                        }
                    }
                }
                Step::Advance(by) => {
                    now = Time::from_nanos(now.as_nanos().saturating_add_signed(by));
                    let mut latest = Time::ZERO;
                    while let Some((deadline, item)) = pool.poll_release(now) {
                        prop_assert!(deadline <= now, "early");
                        prop_assert!(deadline >= latest, "out of order");
                        latest = deadline;
                        prop_assert_eq!(model.remove(&item), Some(deadline), "not the item that went in");
                    }
                    prop_assert!(model.values().all(|&deadline| deadline > now), "kept too long");
                }
            }
            prop_assert_eq!(pool.len(), model.len());
            prop_assert_eq!(pool.is_empty(), model.is_empty());
            prop_assert_eq!(pool.room(), capacity - model.len());
            prop_assert_eq!(pool.has_room(), model.len() < capacity);
            prop_assert_eq!(pool.poll_timeout(), model.values().min().copied());
        }
    }
}
