//! The Poisson clock: exponential intervals, instants that nothing but the seed decides, bounded bursts.

use core::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use tombola_mixing::{MAX_LAG, PoissonClock, Rng, Time};

use crate::common::{P_MIN, is_exponential, is_poisson, is_uniform, seconds, seed};

const MEAN: Duration = Duration::from_millis(40);
/// Longer than several of the eras into which a clock cuts time.
const LONG: usize = 40_000;

fn clock(n: u8) -> PoissonClock {
    PoissonClock::new(Time::from_nanos(123), MEAN, Rng::from_seed(seed(n)))
}

/// The first `n` instants, each polled when it is due.
fn instants(mut clock: PoissonClock, n: usize) -> Vec<Time> {
    (0..n)
        .map(|_| {
            let due = clock.poll_timeout();
            assert_eq!(clock.poll(due - Duration::from_nanos(1)), None);
            clock.poll(due).expect("it is due")
        })
        .collect()
}

#[test]
fn it_is_a_poisson_process() {
    let ticks = instants(clock(50), 200_000);
    let gaps: Vec<f64> = ticks.windows(2).map(|pair| seconds(pair[1] - pair[0])).collect();
    assert!(is_exponential(&gaps, 0.04) > P_MIN);
    // Counts per second, over eras and their borders.
    let mut counts = vec![0; 7900];
    let mut micros = [0; 1000];
    for tick in ticks {
        if let Some(count) = counts.get_mut(usize::try_from(tick.as_nanos() / 1_000_000_000).unwrap()) {
            *count += 1;
        }
        micros[usize::try_from(tick.as_nanos() / 1000 % 1000).unwrap()] += 1;
    }
    assert!(is_poisson(&counts) > P_MIN);
    assert!(is_uniform(&micros) > P_MIN);
}

#[test]
fn era_borders_leave_no_trace() {
    // The gap across a border, and what lies on either side of it, in many clocks with short eras.
    let border = MEAN * 4096;
    let (mut before, mut after) = (vec![], vec![]);
    let mut rng = Rng::from_seed(seed(51));
    for _ in 0..4000 {
        let mut clock = PoissonClock::new(Time::ZERO, MEAN, rng.fork()).with_max_lag(MEAN * 100);
        let mut last = Time::ZERO;
        // Jump to shortly before the border; the lag lets 100 mean intervals of ticks through.
        while let Some(tick) = clock.poll(Time::ZERO + border - Duration::from_nanos(1)) {
            last = tick;
        }
        before.push(seconds(Time::ZERO + border - last));
        after.push(seconds(clock.poll_timeout() - (Time::ZERO + border)));
    }
    // Both the age and the rest of an exponential interval are exponential.
    assert!(is_exponential(&before, 0.04) > P_MIN);
    assert!(is_exponential(&after, 0.04) > P_MIN);
    let gaps: Vec<f64> = before.iter().zip(&after).map(|(age, rest)| age * rest).collect();
    // Independent of each other: the mean of the product is the product of the means (sd of a product: sqrt 3).
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64 / 0.04 / 0.04;
    assert!((mean - 1.0).abs() < 4.0 * (3.0 / gaps.len() as f64).sqrt(), "{mean}");
}

#[test]
fn instants_are_the_same_on_every_platform() {
    let ticks: Vec<u64> = instants(clock(52), 5000).into_iter().map(Time::as_nanos).collect();
    assert_eq!([ticks[0], ticks[1], ticks[4999]], VECTOR);
}

const VECTOR: [u64; 3] = [9_299_395, 89_514_944, 197_955_029_194];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn instants_do_not_depend_on_polling(steps in vec(0..900_u64, 1..300), from in 0..LONG) {
        let all = instants(clock(53), LONG + 20_000);
        let mut clock = clock(53);
        // Arrive anywhere, by one jump; then poll as seldom as the lag allows.
        let mut now = all[from];
        let mut ticks: Vec<Time> = core::iter::from_fn(|| clock.poll(now)).collect();
        for step in steps {
            now += Duration::from_millis(step);
            ticks.extend(core::iter::from_fn(|| clock.poll(now)));
        }
        let expected: Vec<Time> =
            all.iter().copied().filter(|&tick| tick >= all[from] - MAX_LAG && tick <= now).collect();
        prop_assert_eq!(ticks, expected);
        prop_assert_eq!(clock.poll_timeout(), *all.iter().find(|&&tick| tick > now).expect("there are more"));
    }
}

#[test]
fn a_stall_makes_a_bounded_burst() {
    for stall in [2, 60, 3600, 8 * 3600, 365 * 24 * 3600, 300 * 365 * 24 * 3600] {
        let mut clock = clock(54);
        let now = Time::ZERO + Duration::from_secs(stall);
        let burst: Vec<Time> = core::iter::from_fn(|| clock.poll(now)).collect();
        // 25 on average; 60 has a probability of 1e-9.
        assert!((1..60).contains(&burst.len()), "{}", burst.len());
        assert!(burst.iter().all(|&tick| now - tick <= MAX_LAG));
        assert!(clock.poll_timeout() > now);
        let expected = seconds(Duration::from_secs(stall) - MAX_LAG) / 0.04;
        assert!((clock.skipped() as f64 - expected).abs() < 5.0 * expected.sqrt(), "{stall}");
    }
}

#[test]
fn skipped_ticks_are_counted_exactly_within_an_era() {
    let all = instants(clock(55), 4000);
    let mut clock = clock(55);
    let now = all[3000];
    let burst = core::iter::from_fn(|| clock.poll(now)).count();
    assert_eq!(clock.skipped() as usize + burst, 3001);
}

#[test]
fn a_step_back_hands_nothing_out_twice() {
    let all = instants(clock(56), 100);
    let mut clock = clock(56);
    let mut ticks = vec![];
    for now in [all[20], all[3], all[25], Time::ZERO, all[40]] {
        ticks.extend(core::iter::from_fn(|| clock.poll(now)));
    }
    assert_eq!(ticks, all[..=40]);
}

#[test]
fn extreme_means_and_times_end() {
    let rng = || Rng::from_seed(seed(57));
    let mut off = PoissonClock::new(Time::ZERO, Duration::MAX, rng());
    assert_eq!((off.poll_timeout(), off.poll(Time::MAX)), (Time::MAX, None));
    // A mean of zero counts as one nanosecond, and a lag of one microsecond is a thousand of them.
    let mut fast =
        PoissonClock::new(Time::ZERO, Duration::ZERO, rng()).with_max_lag(Duration::from_micros(1));
    let burst = core::iter::from_fn(|| fast.poll(Time::from_nanos(u64::MAX / 2))).count();
    assert!((800..2200).contains(&burst), "{burst}");
    // At the end of time.
    let late = Time::MAX - Duration::from_secs(1);
    let mut last = PoissonClock::new(late, MEAN, rng());
    assert!(core::iter::from_fn(|| last.poll(Time::MAX)).count() < 60);
    assert_eq!(last.poll_timeout(), Time::MAX);
    let mut slow = PoissonClock::new(Time::ZERO, Duration::from_nanos(u64::MAX - 1), rng());
    let _ = slow.poll(Time::MAX);
    assert!(slow.poll_timeout() > Time::ZERO);
}
