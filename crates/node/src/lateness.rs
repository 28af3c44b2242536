//! How late timeouts are served: a histogram that one thread writes and any thread reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets per power of two: a quantile is reported at most 1/8 too high.
const STEPS: u64 = 8;
/// Exact buckets for 0 to 7 us, then 8 steps for each power of two up to 2^27 us, a little over two minutes.
const BUCKETS: usize = 200;

/// A log-linear histogram of durations in whole microseconds, of fixed size (1.6 kB). Recording is three relaxed atomic
/// operations.
#[derive(Debug)]
pub struct Lateness {
    counts: [AtomicU64; BUCKETS],
    max_us: AtomicU64,
    sum_us: AtomicU64,
}

/// A reading of a [`Lateness`]. Quantiles are upper edges of a bucket, at most 1/8 above the true value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatenessReport {
    /// How many timeouts were served.
    pub count: u64,
    /// Mean lateness.
    pub mean: Duration,
    /// Half of the timeouts were at most this late.
    pub p50: Duration,
    /// 99 of 100 timeouts were at most this late.
    pub p99: Duration,
    /// The latest of all.
    pub max: Duration,
}

impl Default for Lateness {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            max_us: AtomicU64::new(0),
            sum_us: AtomicU64::new(0),
        }
    }
}

impl Lateness {
    /// Counts one timeout that was served `late` after it was due.
    pub fn record(&self, late: Duration) {
        let us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(us)].fetch_add(1, Relaxed);
        self.max_us.fetch_max(us, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// What has been recorded so far. A recording that happens meanwhile may be counted or not.
    #[must_use]
    pub fn report(&self) -> LatenessReport {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        if count == 0 {
            return LatenessReport::default();
        }
        let max = self.max_us.load(Relaxed);
        let quantile = |percent: u64| {
            let rank = (count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let index = counts.iter().position(|&here| {
                seen += here;
                seen >= rank
            });
            Duration::from_micros(index.map_or(max, upper_edge).min(max))
        };
        LatenessReport {
            count,
            mean: Duration::from_micros(self.sum_us.load(Relaxed) / count),
            p50: quantile(50),
            p99: quantile(99),
            max: Duration::from_micros(max),
        }
    }
}

/// The bucket of a value in microseconds; the last one takes everything that is larger.
fn bucket(us: u64) -> usize {
    if us < STEPS {
        return index(us);
    }
    let power = u64::from(us.ilog2());
    let step = (us >> (power - 3)) - STEPS;
    index((power - 2) * STEPS + step)
}

fn index(bucket: u64) -> usize {
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// The largest value of a bucket, in microseconds.
fn upper_edge(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let step = STEPS + bucket % STEPS;
    ((step + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_its_bucket() {
        for us in (0..100_000).chain([1 << 20, (1 << 26) + 12_345]) {
            let bucket = bucket(us);
            assert!(us <= upper_edge(bucket), "{us}");
            assert!(bucket == 0 || us > upper_edge(bucket - 1), "{us}");
            assert!(upper_edge(bucket) - us <= us / 8, "{us}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_a_known_sequence() {
        let lateness = Lateness::default();
        assert_eq!(lateness.report(), LatenessReport::default());
        for us in 1..=1000 {
            lateness.record(Duration::from_micros(us));
        }
        let report = lateness.report();
        assert_eq!(report.count, 1000);
        assert_eq!(report.mean, Duration::from_micros(500));
        assert_eq!(report.max, Duration::from_micros(1000));
        assert!((500..=563).contains(&report.p50.as_micros()), "{report:?}");
        assert!((990..=1000).contains(&report.p99.as_micros()), "{report:?}");
    }

    #[test]
    fn a_single_outlier_is_the_maximum_and_not_the_median() {
        let lateness = Lateness::default();
        for _ in 0..99 {
            lateness.record(Duration::from_micros(5));
        }
        lateness.record(Duration::from_secs(3600));
        let report = lateness.report();
        assert_eq!(report.p50, Duration::from_micros(5));
        assert_eq!(report.p99, Duration::from_micros(5));
        assert_eq!(report.max, Duration::from_secs(3600));
    }
}
