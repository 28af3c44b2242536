//! Price classes: what a ticket is worth, and when.

use alloy_primitives::U256;
use thiserror::Error;

/// Number of a price class; it never stands for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassNumber(pub u32);

/// A time of the chain, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub u32);

/// How likely a ticket wins, as a fraction of 2^64: at most 2^58, so that 256 tickets win four times on average at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WinProbability(u64);

/// No class has such a win probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a win probability is at least 0 and at most 1/64")]
pub struct ProbabilityError;

impl WinProbability {
    /// One of 64 tickets.
    pub const MAX: Self = Self(1 << 58);

    /// From the fraction of 2^64, as classes carry it.
    ///
    /// # Errors
    ///
    /// More than 2^58.
    pub const fn new(of_2_64: u64) -> Result<Self, ProbabilityError> {
        if of_2_64 <= Self::MAX.0 { Ok(Self(of_2_64)) } else { Err(ProbabilityError) }
    }

    /// `wins` of `tickets`, rounded down.
    ///
    /// # Errors
    ///
    /// More than one of 64, or of none.
    pub fn from_ratio(wins: u32, tickets: u32) -> Result<Self, ProbabilityError> {
        let scaled = (u128::from(wins) << 64).checked_div(tickets.into()).ok_or(ProbabilityError)?;
        u64::try_from(scaled).map_err(|_| ProbabilityError).and_then(Self::new)
    }

    /// The nearest to `probability`, for configuration and simulations.
    ///
    /// # Errors
    ///
    /// Less than 0, more than 1/64, or no number.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2^58, as was checked")]
    pub fn from_f64(probability: f64) -> Result<Self, ProbabilityError> {
        if !(0.0..=1.0 / 64.0).contains(&probability) {
            return Err(ProbabilityError);
        }
        Self::new((probability * 2_f64.powi(64)).round() as u64)
    }

    /// The fraction of 2^64: a ticket wins if the number drawn for it is less.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// As a number from 0 to 1/64.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a relative error of 2^-53 decides nothing")]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 2_f64.powi(64)
    }

    /// How many of so many tickets win on average.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a relative error of 2^-53 decides nothing")]
    pub fn expected_wins(self, tickets: u64) -> f64 {
        self.as_f64() * tickets as f64
    }
}

/// What a ticket is worth, and when. Immutable once registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceClass {
    /// What a winning ticket pays, in the smallest unit of the token.
    pub face_value: u128,
    /// How likely a ticket wins.
    pub win_probability: WinProbability,
    /// From when on tickets of the class are issued.
    pub valid_from: UnixSeconds,
    /// Until when they can be claimed.
    pub expiry: UnixSeconds,
    /// The epoch of the registry.
    pub epoch: u32,
}

impl PriceClass {
    /// What so many tickets are worth on average, in the smallest unit of the token, rounded up; `u128::MAX` if it is
    /// more.
    #[must_use]
    pub fn expected_value(&self, tickets: u64) -> u128 {
        // 128 + 59 + 64 bits at most, which fit into 256.
        let scaled = U256::from(self.face_value) * U256::from(self.win_probability.0) * U256::from(tickets);
        let whole = scaled.div_ceil(U256::from(1) << 64);
        whole.try_into().unwrap_or(u128::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_one_in_64() {
        assert_eq!(WinProbability::new(1 << 58), Ok(WinProbability::MAX));
        assert_eq!(WinProbability::new((1 << 58) + 1), Err(ProbabilityError));
        assert_eq!(WinProbability::from_ratio(1, 64), Ok(WinProbability::MAX));
        assert_eq!(WinProbability::from_ratio(1, 63), Err(ProbabilityError));
        assert_eq!(WinProbability::from_ratio(5, 3), Err(ProbabilityError));
        assert_eq!(WinProbability::from_ratio(1, 0), Err(ProbabilityError));
        assert_eq!(WinProbability::from_f64(0.015_625), Ok(WinProbability::MAX));
        for wrong in [0.016, -0.001, f64::NAN, f64::INFINITY] {
            assert_eq!(WinProbability::from_f64(wrong), Err(ProbabilityError), "{wrong}");
        }
        assert!((WinProbability::MAX.expected_wins(256) - 4.0).abs() < 1e-12);
    }

    #[test]
    fn ratios_round_down() {
        assert_eq!(WinProbability::from_ratio(1, 1000).unwrap().get(), 18_446_744_073_709_551);
        assert_eq!(WinProbability::from_ratio(0, 5).unwrap().get(), 0);
        assert!((WinProbability::from_f64(0.001).unwrap().as_f64() - 0.001).abs() < 1e-18);
    }

    #[test]
    fn expected_values_round_up_and_never_wrap() {
        let mut class = PriceClass {
            face_value: 1000,
            win_probability: WinProbability::from_ratio(1, 128).unwrap(),
            valid_from: UnixSeconds(0),
            expiry: UnixSeconds(10),
            epoch: 1,
        };
        assert_eq!(class.expected_value(128), 1000);
        assert_eq!(class.expected_value(1), 8);
        assert_eq!(class.expected_value(0), 0);
        class.face_value = u128::MAX;
        assert_eq!(class.expected_value(64), u128::MAX / 2 + 1);
        assert_eq!(class.expected_value(u64::MAX), u128::MAX);
    }
}
