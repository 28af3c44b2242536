//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// Upper end of the first delay.
const FIRST: Duration = Duration::from_millis(200);
/// Upper end of every delay.
const LONGEST: Duration = Duration::from_secs(30);

/// Exponential delays with jitter: the upper end doubles from 200 ms to 30 s; the delay is uniform between half of it and
/// all of it. So the first lies in 100 to 200 ms, and from the ninth failure on all lie in 15 to 30 s.
///
/// The jitter keeps the neighbours of a node that restarts from knocking in step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after one more failure; `random` is uniform over all `u64`.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let upper = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let half = upper / 2;
        // The upper 32 bits as a fraction of 2^32.
        let nanos = (half.as_nanos() * u128::from(random >> 32)) >> 32;
        half + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_half_a_minute() {
        let (mut low, mut high) = (Backoff::default(), Backoff::default());
        let mut upper = Duration::from_millis(200);
        for _ in 0..40 {
            assert_eq!(low.next(0), upper / 2);
            let greatest = high.next(u64::MAX);
            assert!(greatest <= upper && greatest + Duration::from_micros(1) > upper, "{greatest:?}");
            upper = (2 * upper).min(Duration::from_secs(30));
        }
    }
}
