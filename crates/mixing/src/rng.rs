//! The one source of randomness of this crate: ChaCha20 under a seed that the caller provides.

use core::fmt;
use core::time::Duration;

use chacha20::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng};
use zeroize::Zeroizing;

use crate::time::nanos;

/// A cryptographically strong, reproducible generator: the same seed gives the same values on every platform (no
/// floating point is involved anywhere).
///
/// Not `Clone`: two generators that yield the same values are nearly always a mistake, so a second one is made by
/// [`Rng::fork`]. The state is erased on drop and never printed.
pub struct Rng(ChaCha20Rng);

impl Rng {
    /// A generator that is determined by `seed`, which must be uniformly random and used for nothing else.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Rng {
        let seed = Zeroizing::new(seed);
        Rng(ChaCha20Rng::from_seed(*seed))
    }

    /// One of 2^64 independent generators under one seed, reachable without computing the others. Stream 0 is that of
    /// [`Rng::from_seed`]; a seed whose streams are used is used for nothing else.
    #[must_use]
    pub fn stream(seed: &[u8; 32], stream: u64) -> Rng {
        let mut inner = ChaCha20Rng::from_seed(*seed);
        inner.set_stream(stream);
        Rng(inner)
    }

    /// Goes to the beginning of another stream under the same seed: as [`Rng::stream`], without setting up the key.
    pub fn restart(&mut self, stream: u64) {
        self.0.set_stream(stream);
    }

    /// An independent generator, seeded from this one.
    #[must_use]
    pub fn fork(&mut self) -> Rng {
        Rng::from_seed(self.seed())
    }

    /// 32 random bytes, for whoever takes a seed.
    #[must_use]
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        seed
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// A uniformly random 64-bit number.
    #[must_use]
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniformly random number below `n`, without bias; zero if `n` is zero (there is nothing to choose from).
    ///
    /// Lemire, "Fast random integer generation in an interval" (2019), algorithm 5.
    #[must_use]
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if low(product) < n {
            // The 2^64 mod n smallest low halves belong to values that occur once too often.
            let surplus = n.wrapping_neg() % n;
            while low(product) < surplus {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        high(product)
    }

    /// A duration that is uniformly random below `bound` (zero if `bound` is zero), to the nanosecond.
    #[must_use]
    pub fn uniform(&mut self, bound: Duration) -> Duration {
        Duration::from_nanos(self.below(nanos(bound)))
    }

    /// An exponentially distributed duration with the given mean, to the nanosecond (rounded down, so it is a
    /// geometric number of nanoseconds: memoryless as well).
    ///
    /// Von Neumann's method ("Various techniques used in connection with random digits", 1951; analysed by Karney,
    /// ACM TOMS 42, 2016): it only compares uniform numbers. There is no logarithm, hence no rounding that differs
    /// between platforms; the fraction has 64 random bits, so nothing is quantised for means up to 2^64 ns; and
    /// the tail does not end (`-ln(u)` of a 64-bit `u` stops at 44.4 means). It takes 4.3 numbers on average. The
    /// distance to the exact distribution is below 2^-60, from 64-bit numbers that happen to be equal.
    #[must_use]
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        Duration::from_nanos(self.exponential_ns(nanos(mean)))
    }

    /// As [`Rng::exponential`], in nanoseconds; saturates.
    pub(crate) fn exponential_ns(&mut self, mean: u64) -> u64 {
        let mut whole: u64 = 0;
        loop {
            let fraction = self.next_u64();
            // For x in [0, 1), a run of further numbers x > u1 > u2 > ... has at least n members with probability
            // x^n / n!, so its length is even with probability e^-x: accepting on "even" turns the uniform density
            // of x into e^-x. A refusal, of probability 1/e, moves on to the next unit interval.
            let mut last = fraction;
            let mut even = true;
            loop {
                let next = self.next_u64();
                if next >= last {
                    break;
                }
                last = next;
                even = !even;
            }
            if even {
                let part = high(u128::from(mean) * u128::from(fraction));
                return whole.saturating_mul(mean).saturating_add(part);
            }
            whole += 1;
        }
    }

    /// Puts `items` into a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or(last);
            items.swap(last, other);
        }
    }
}

fn high(product: u128) -> u64 {
    (product >> 64) as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
fn low(product: u128) -> u64 {
    product as u64
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng(..)")
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    #[test]
    fn state_is_erased_on_drop() {
        fn erases_itself<T: ZeroizeOnDrop>(_: &T) {}
        erases_itself(&Rng::from_seed([0; 32]).0);
    }
}
