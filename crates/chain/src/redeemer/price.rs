//! Whether a redemption pays.

use alloy_primitives::U256;

use crate::ledger::Fees;

/// What the token is worth in the chain's own money: `wei` for `units` of its smallest unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenPrice {
    /// Wei.
    pub wei: u128,
    /// Smallest units of the token; 0 counts as 1.
    pub units: u128,
}

impl TokenPrice {
    /// Redeem always, whatever it costs: for tokens without a price.
    pub const ANY: Self = Self { wei: 0, units: 1 };

    /// Whether a price is configured.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.wei > 0
    }

    /// What so much of the token is worth, in wei.
    #[must_use]
    pub fn wei_of(&self, amount: U256) -> U256 {
        // 128 bits each, but for sums of a few thousand face values.
        amount.saturating_mul(U256::from(self.wei)) / U256::from(self.units.max(1))
    }
}

/// The least raise that servers take for a transaction that replaces another: 12.5 %, rounded up.
#[must_use]
pub const fn raised(fee: u128) -> u128 {
    fee.saturating_add(fee.div_ceil(8)).saturating_add(1)
}

/// What a transaction offers for each gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// At most, in wei.
    pub max_fee: u128,
    /// Of that, beyond the base fee, at most.
    pub max_tip: u128,
}

impl Offer {
    /// For blocks soon: the base fee may double meanwhile.
    #[must_use]
    pub const fn of(fees: Fees) -> Self {
        Self { max_fee: fees.base.saturating_mul(2).saturating_add(fees.tip), max_tip: fees.tip }
    }

    /// That replaces one that waits: at least what is usual now, and at least 12.5 % more of both.
    #[must_use]
    pub const fn above(self, before: Self) -> Self {
        let (fee, tip) = (raised(before.max_fee), raised(before.max_tip));
        Self {
            max_fee: if fee > self.max_fee { fee } else { self.max_fee },
            max_tip: if tip > self.max_tip { tip } else { self.max_tip },
        }
    }

    /// What it will pay for this gas, as fees are now, in wei.
    #[must_use]
    pub fn cost(&self, gas: u64, fees: Fees) -> U256 {
        let price = fees.base.saturating_add(self.max_tip).min(self.max_fee);
        U256::from(price).saturating_mul(U256::from(gas))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_pays_an_eighth_more() {
        for fee in [0, 1, 7, 8, 1_000_000_007] {
            assert!(raised(fee) * 8 >= fee * 9, "{fee}");
            assert!(raised(fee) > fee, "{fee}");
        }
        let before = Offer { max_fee: 100, max_tip: 10 };
        let calm = Offer::of(Fees { base: 1, tip: 1 }).above(before);
        assert_eq!(calm, Offer { max_fee: 114, max_tip: 13 });
        let rush = Offer::of(Fees { base: 1000, tip: 50 }).above(before);
        assert_eq!(rush, Offer { max_fee: 2050, max_tip: 50 });
    }

    #[test]
    fn a_unit_may_be_worth_less_than_a_wei() {
        let price = TokenPrice { wei: 3, units: 1000 };
        assert_eq!(price.wei_of(U256::from(5000)), U256::from(15));
        assert_eq!(
            price.wei_of(U256::from(u128::MAX)),
            U256::from(u128::MAX) * U256::from(3) / U256::from(1000)
        );
        assert_eq!(TokenPrice::ANY.wei_of(U256::MAX), U256::ZERO);
    }
}
