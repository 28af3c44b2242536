//! Sums from which means and quantiles follow.

use core::time::Duration;

/// Number, mean and variance of what was observed (Welford, "Note on a method for calculating corrected sums of squares and
/// products", 1962).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Takes one more value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let step = value - self.mean;
        self.mean += step / self.count as f64;
        self.squares += step * (value - self.mean);
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; `None` if there are none.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// Their variance, unbiased; `None` if there are fewer than two.
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squares / (self.count - 1) as f64)
    }
}

impl FromIterator<f64> for Moments {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut moments = Self::default();
        values.into_iter().for_each(|value| moments.add(value));
        moments
    }
}

/// Buckets of a [`Histogram`] in each octave.
const PER_OCTAVE: u64 = 32;

/// How often durations occurred, in buckets 3 % wide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram(Vec<u64>);

impl Histogram {
    /// Takes one more.
    #[inline]
    pub fn add(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        let bucket = bucket_of(nanos);
        if bucket >= self.0.len() {
            self.0.resize(bucket + 1, 0);
        }
        self.0[bucket] += 1;
    }

    /// Takes all of another.
    pub fn merge(&mut self, other: &Self) {
        if other.0.len() > self.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(sum, more)| *sum += more);
    }

    /// What this share stays below, in seconds; `None` if it is empty.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total: u64 = self.0.iter().sum();
        let wanted = share * total as f64;
        let mut below = 0.0;
        for (bucket, &count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            if below + count as f64 >= wanted {
                let [from, to] = [bucket, bucket + 1].map(|bucket| start_of(bucket) as f64 * 1e-9);
                return Some(from + (to - from) * ((wanted - below) / count as f64).clamp(0.0, 1.0));
            }
            below += count as f64;
        }
        None
    }

    /// Buckets that are not empty: from and to, in seconds, and how many.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, f64, u64)> + '_ {
        let seconds = |bucket| start_of(bucket) as f64 * 1e-9;
        let filled = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(move |(bucket, &count)| (seconds(bucket), seconds(bucket + 1), count))
    }
}

/// Exact below [`PER_OCTAVE`]; above, the highest bit and the five bits behind it.
fn bucket_of(nanos: u64) -> usize {
    if nanos < PER_OCTAVE {
        return nanos as usize;
    }
    let octave = nanos.ilog2() - PER_OCTAVE.ilog2();
    (u64::from(octave) * PER_OCTAVE + (nanos >> octave)) as usize
}

fn start_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * PER_OCTAVE {
        return bucket;
    }
    let octave = bucket / PER_OCTAVE - 1;
    let mantissa = bucket - octave * PER_OCTAVE;
    mantissa.checked_shl(octave as u32).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_definition() {
        let values = [1e9 + 1.0, 1e9 + 2.0, 1e9 + 4.0];
        let moments: Moments = values.into_iter().collect();
        assert_eq!(moments.count(), 3);
        assert!((moments.mean().unwrap() - (1e9 + 7.0 / 3.0)).abs() < 1e-6);
        assert!((moments.variance().unwrap() - 7.0 / 3.0).abs() < 1e-6);
        assert_eq!((Moments::default().mean(), Moments::default().variance()), (None, None));
    }

    #[test]
    fn every_duration_lies_in_its_bucket() {
        for nanos in (0..2000).chain((10..63).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 12345]))
        {
            let bucket = bucket_of(nanos);
            assert!(start_of(bucket) <= nanos && nanos < start_of(bucket + 1), "{nanos}: {bucket}");
            assert!(start_of(bucket + 1) - start_of(bucket) <= 1.max(nanos / 31), "{nanos}");
        }
    }

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|milliseconds| histogram.add(Duration::from_millis(milliseconds)));
        for share in [0.01, 0.5, 0.99, 1.0] {
            let found = histogram.quantile(share).unwrap();
            assert!((found / share - 1.0).abs() < 0.04, "{share}: {found}");
        }
        assert_eq!(histogram.buckets().map(|(.., count)| count).sum::<u64>(), 1000);
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
