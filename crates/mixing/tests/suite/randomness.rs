//! The generator: right distributions, nothing quantised, the same values everywhere.

use core::time::Duration;

use tombola_mixing::Rng;

use crate::common::{P_DEFECT, P_MIN, is_exponential, is_uniform, seconds, seed};

const MEAN: Duration = Duration::from_millis(250);

#[test]
fn the_same_seed_gives_the_same_values_on_every_platform() {
    // The first test vector of ChaCha20 (RFC 8439, A.1).
    assert_eq!(Rng::from_seed([0; 32]).next_u64(), 0x903d_f1a0_ade0_b876);
    let mut rng = Rng::from_seed(seed(7));
    assert_eq!(rng.next_u64(), VECTOR_U64);
    assert_eq!(rng.below(1_000_000), VECTOR_BELOW);
    let delays: Vec<u128> = (0..4).map(|_| rng.exponential(MEAN).as_nanos()).collect();
    assert_eq!(delays, VECTOR_DELAYS);
    assert_eq!(rng.fork().next_u64(), VECTOR_FORK);
}

#[test]
fn streams_under_one_seed_are_reached_in_any_order_and_differ() {
    let draws = |rng: &mut Rng| (0..100).map(|_| rng.next_u64()).collect::<Vec<_>>();
    assert_eq!(draws(&mut Rng::stream(&seed(7), 0)), draws(&mut Rng::from_seed(seed(7))));
    let mut one = Rng::stream(&seed(7), 3);
    for stream in [u64::MAX, 1 << 32, 5, 0, 3] {
        // In the middle of a block, and of a word.
        one.fill(&mut [0; 13]);
        one.restart(stream);
        assert_eq!(draws(&mut one), draws(&mut Rng::stream(&seed(7), stream)), "{stream}");
    }
    let mut firsts: Vec<u64> = (0..1000).map(|stream| Rng::stream(&seed(7), stream).next_u64()).collect();
    firsts.extend((0..1000).map(|high| Rng::stream(&seed(7), high << 32 | 1 << 20).next_u64()));
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts.len(), 2000);
}

const VECTOR_U64: u64 = 4_753_173_749_397_848_308;
const VECTOR_BELOW: u64 = 439_357;
const VECTOR_DELAYS: [u128; 4] = [85_615_010, 33_799_659, 350_476_768, 182_443_499];
const VECTOR_FORK: u64 = 11_531_316_856_688_307_356;

#[test]
fn delays_are_exponential() {
    let mut rng = Rng::from_seed(seed(1));
    let sample: Vec<f64> = (0..200_000).map(|_| seconds(rng.exponential(MEAN))).collect();
    assert!(is_exponential(&sample, 0.25) > P_MIN);
    // The same numbers are told from a mean that is 2 % off, and from a mean of one of two uniforms.
    assert!(is_exponential(&sample, 0.255) < P_DEFECT);
}

#[test]
fn the_tail_has_the_right_weight() {
    let mut rng = Rng::from_seed(seed(2));
    let n = 4_000_000_u32;
    let mut beyond = [0_u32; 13];
    for _ in 0..n {
        let means = rng.exponential(MEAN).as_nanos() / MEAN.as_nanos();
        for count in beyond.iter_mut().take(usize::try_from(means).unwrap() + 1) {
            *count += 1;
        }
    }
    for (means, &count) in beyond.iter().enumerate() {
        let expected = f64::from(n) * (-(means as f64)).exp();
        // 4.5 standard deviations of a Poisson variable: p = 7e-6 each.
        assert!((f64::from(count) - expected).abs() <= 4.5 * expected.sqrt(), "{means}: {count}, {expected}");
    }
}

#[test]
fn delays_are_not_quantised() {
    let mut rng = Rng::from_seed(seed(3));
    // The last three digits of nanoseconds, of microseconds, and the last bits.
    let (mut nanos, mut micros, mut bits) = ([0; 1000], [0; 1000], [0; 256]);
    let mut defect = [0; 1000];
    for _ in 0..500_000 {
        let delay = usize::try_from(rng.exponential(MEAN).as_nanos()).unwrap();
        nanos[delay % 1000] += 1;
        micros[delay / 1000 % 1000] += 1;
        bits[delay % 256] += 1;
        // A clock that counts in units of 64 ns.
        defect[delay / 64 * 64 % 1000] += 1;
    }
    assert!(is_uniform(&nanos) > P_MIN);
    assert!(is_uniform(&micros) > P_MIN);
    assert!(is_uniform(&bits) > P_MIN);
    assert!(is_uniform(&defect) < P_DEFECT);
}

#[test]
fn extreme_means_saturate() {
    let mut rng = Rng::from_seed(seed(4));
    for _ in 0..1000 {
        assert_eq!(rng.exponential(Duration::ZERO), Duration::ZERO);
        assert!(rng.exponential(Duration::MAX) <= Duration::from_nanos(u64::MAX));
        assert!(rng.exponential(Duration::from_nanos(1)) < Duration::from_nanos(30));
    }
}

#[test]
fn below_is_unbiased() {
    let mut rng = Rng::from_seed(seed(5));
    assert_eq!(rng.below(0), 0);
    assert_eq!(rng.below(1), 0);
    // A bound of 3/4 of the range: scaling or reducing without refusing some numbers would favour a third of the
    // results, those divisible by three or the lowest.
    let bound = 3 << 62;
    let (mut scaled, mut lowest, mut small) = ([0; 3], [0; 3], [0; 7]);
    let (mut scaled_defect, mut lowest_defect) = ([0; 3], [0; 3]);
    let index = |value: u64| usize::try_from(value).unwrap();
    for _ in 0..100_000 {
        let value = rng.below(bound);
        assert!(value < bound);
        scaled[index(value % 3)] += 1;
        lowest[index(value >> 62)] += 1;
        small[index(rng.below(7))] += 1;
        let number = rng.next_u64();
        scaled_defect[index(u64::try_from((u128::from(number) * u128::from(bound)) >> 64).unwrap() % 3)] += 1;
        lowest_defect[index((number % bound) >> 62)] += 1;
    }
    for counts in [&scaled[..], &lowest, &small] {
        assert!(is_uniform(counts) > P_MIN);
    }
    assert!(is_uniform(&scaled_defect) < P_DEFECT);
    assert!(is_uniform(&lowest_defect) < P_DEFECT);
}

#[test]
fn uniform_durations_stay_below_their_bound() {
    let mut rng = Rng::from_seed(seed(6));
    let mut tenths = [0; 10];
    for _ in 0..100_000 {
        let phase = rng.uniform(Duration::from_millis(10));
        tenths[usize::try_from(phase.as_millis()).unwrap()] += 1;
    }
    assert!(is_uniform(&tenths) > P_MIN);
    assert_eq!(rng.uniform(Duration::ZERO), Duration::ZERO);
}

#[test]
fn shuffles_are_uniform() {
    let mut rng = Rng::from_seed(seed(8));
    let mut counts = [0; 24];
    for _ in 0..48_000 {
        let mut items = [0, 1, 2, 3];
        rng.shuffle(&mut items);
        counts[rank(items)] += 1;
    }
    assert!(is_uniform(&counts) > P_MIN);
    rng.shuffle::<u8>(&mut []);
}

#[test]
fn forks_differ_from_each_other_and_from_their_origin() {
    let mut rng = Rng::from_seed(seed(9));
    let mut firsts = vec![rng.fork().next_u64(), rng.fork().next_u64(), rng.next_u64(), rng.next_u64()];
    firsts.dedup();
    assert_eq!(firsts.len(), 4);
}

#[test]
fn the_state_is_never_printed() {
    assert_eq!(format!("{:?}", Rng::from_seed(seed(10))), "Rng(..)");
}

/// Numbers the 24 orders of four items.
pub(crate) fn rank(items: [usize; 4]) -> usize {
    let smaller_after = |i: usize| items[i + 1..].iter().filter(|&&other| other < items[i]).count();
    smaller_after(0) * 6 + smaller_after(1) * 2 + smaller_after(2)
}
