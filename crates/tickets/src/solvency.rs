//! Whether an issuer can pay what it signs.
//!
//! An issuer stops before the 1 - 10^-9 quantile of all that it signed, neither claimed nor expired, exceeds its deposit:
//! bad luck must not burn stake.
//!
//! **The bound.** The payments are independent, each at most `F`, the greatest face value, and `m` on average together.
//! Then (Chernoff; Hoeffding 1963, theorem 1, for variables between 0 and 1) they come to `x > m` or more with a
//! probability of at most `exp(-(u ln(u / l) - u + l))`, where `u = x / F` and `l = m / F`. It is the Poisson tail bound, and
//! holds for binomial numbers and for mixtures of classes too. The root of `u ln(u / l) - u + l = ln 10^9` is found by
//! Newton's method from Bernstein's bound, which is above it; the function is convex, so each step stays above it.

use alloy_primitives::Address;
use std::collections::BTreeMap;

use crate::class::{ClassNumber, PriceClass, UnixSeconds};
use crate::lottery::WindowNumber;

/// `ln(10^9)`.
const RISK: f64 = 20.723_265_836_946_41;

/// The deposit of one issuer, and what it may have to pay from it; all its links share one.
#[derive(Debug, Default)]
pub struct Solvency {
    deposit: u128,
    windows: BTreeMap<(Address, WindowNumber), (ClassNumber, u64)>,
    classes: BTreeMap<ClassNumber, Load>,
}

#[derive(Debug)]
struct Load {
    price: PriceClass,
    /// Signed, neither claimed nor expired.
    signed: u64,
    /// Promised to links, which sign them later.
    reserved: u64,
}

#[expect(clippy::cast_precision_loss, reason = "a relative error of 2^-52 against a margin of 10^-9")]
const fn float(number: u128) -> f64 {
    number as f64
}

/// What payments of at most 1, which come to `mean` on average, exceed with a probability of less than 10^-9 (Bernstein): a little
/// more than what an issuer stops at.
#[must_use]
pub fn rough_quantile(mean: f64) -> f64 {
    let third = RISK / 3.0;
    mean + third + (third * third + 2.0 * mean * RISK).sqrt()
}

/// What `mean` on average, in payments of at most `face`, exceeds with a probability of 10^-9 at most.
fn quantile(mean: f64, face: f64) -> f64 {
    if mean <= 0.0 {
        return 0.0;
    }
    let l = mean / face;
    let mut u = rough_quantile(l);
    for _ in 0..8 {
        let slope = (u / l).ln();
        u -= (u * slope - u + l - RISK) / slope;
    }
    // Rounding may have taken the last step below the root.
    u * face * (1.0 + 1e-9)
}

impl Solvency {
    /// With what the chain says of the deposit.
    #[must_use]
    pub fn new(deposit: u128) -> Self {
        Self { deposit, ..Self::default() }
    }

    /// The chain says something else of the deposit. What is under notice does not count.
    pub const fn set_deposit(&mut self, deposit: u128) {
        self.deposit = deposit;
    }

    /// What is signed or promised may cost no more than this, but for one case in 10^9. In the smallest unit of the
    /// token.
    #[must_use]
    pub fn at_risk(&self) -> f64 {
        self.at_risk_with(None)
    }

    fn at_risk_with(&self, more: Option<(&PriceClass, u64)>) -> f64 {
        let (mut mean, mut face, mut most) = (0.0, 0_u128, 0.0);
        let loads = self.classes.values().map(|load| (&load.price, load.signed + load.reserved));
        for (price, tickets) in loads.chain(more).filter(|(_, tickets)| *tickets > 0) {
            mean += float(price.face_value) * price.win_probability.expected_wins(tickets);
            most += float(price.face_value) * float(tickets.into());
            face = face.max(price.face_value);
        }
        quantile(mean, float(face)).min(most)
    }

    /// Promises so many tickets more to a link, if the deposit is worth them.
    pub(crate) fn reserve(&mut self, class: ClassNumber, price: &PriceClass, tickets: u64) -> bool {
        if self.at_risk_with(Some((price, tickets))) > float(self.deposit) {
            return false;
        }
        self.load(class, price).reserved += tickets;
        true
    }

    /// Takes back what was promised and not signed.
    pub(crate) fn release(&mut self, class: ClassNumber, tickets: u64) {
        if let Some(load) = self.classes.get_mut(&class) {
            load.reserved = load.reserved.saturating_sub(tickets);
        }
    }

    /// Tickets were signed: of the promised ones, or restored.
    pub(crate) fn signed(
        &mut self,
        recipient: Address,
        window: WindowNumber,
        class: ClassNumber,
        price: &PriceClass,
        tickets: u64,
    ) {
        self.load(class, price).signed += tickets;
        self.windows.entry((recipient, window)).or_insert((class, 0)).1 += tickets;
    }

    /// A window was claimed: what it pays has left the deposit.
    pub(crate) fn claimed(&mut self, recipient: Address, window: WindowNumber) {
        if let Some((class, tickets)) = self.windows.remove(&(recipient, window))
            && let Some(load) = self.classes.get_mut(&class)
        {
            load.signed = load.signed.saturating_sub(tickets);
        }
    }

    /// Forgets what nobody can claim any more. A claim at the expiry itself is valid.
    pub fn expire(&mut self, now: UnixSeconds) {
        let classes = &mut self.classes;
        classes.retain(|_, load| load.price.expiry >= now);
        self.windows.retain(|_, (class, _)| classes.contains_key(class));
    }

    fn load(&mut self, class: ClassNumber, price: &PriceClass) -> &mut Load {
        self.classes.entry(class).or_insert(Load { price: *price, signed: 0, reserved: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::WinProbability;

    fn price(face_value: u128, one_in: u32) -> PriceClass {
        PriceClass {
            face_value,
            win_probability: WinProbability::from_ratio(1, one_in).unwrap(),
            valid_from: UnixSeconds(0),
            expiry: UnixSeconds(100),
            epoch: 1,
        }
    }

    /// The probability that a Poisson number of this mean is `least` or more.
    fn poisson_tail(mean: f64, least: u32) -> f64 {
        let mut term = (-mean).exp();
        for k in 1..=least {
            term *= mean / f64::from(k);
        }
        let mut tail = 0.0;
        for k in least + 1..least + 400 {
            tail += term;
            term *= mean / f64::from(k);
        }
        tail
    }

    #[test]
    fn the_bound_holds_and_is_not_far_off() {
        for mean in [0.001, 0.256, 4.0, 65.0, 500.0] {
            let bound = quantile(mean, 1.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
            let least = bound.ceil() as u32;
            assert!(poisson_tail(mean, least) <= 1e-9, "{mean}: {bound}");
            assert!(
                bound < rough_quantile(mean) && rough_quantile(mean) < bound + 2.0 * bound.sqrt() + 9.0,
                "{mean}"
            );
            // Six standard deviations are 10^-9 for a normal number; a Poisson number has a longer tail.
            assert!(bound < mean + 7.5 * mean.sqrt() + 12.0, "{mean}: {bound}");
        }
        assert!(quantile(0.0, 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_mixture_is_bounded_by_the_greatest_face_value() {
        let (small, large) = (price(1, 64), price(1000, 1000));
        let mut solvency = Solvency::new(u128::MAX);
        assert!(solvency.reserve(ClassNumber(1), &small, 6400));
        let before = solvency.at_risk();
        assert!(before > 100.0 && before < 190.0, "{before}");
        assert!(solvency.reserve(ClassNumber(2), &large, 1));
        assert!(solvency.at_risk() > 1000.0);
    }

    #[test]
    fn a_few_tickets_cost_no_more_than_if_all_won() {
        let mut solvency = Solvency::new(2000);
        let price = price(1000, 1000);
        assert!(solvency.reserve(ClassNumber(1), &price, 2));
        assert!(!solvency.reserve(ClassNumber(1), &price, 1), "three could win");
        solvency.release(ClassNumber(1), 1);
        assert!(solvency.reserve(ClassNumber(1), &price, 1));
    }

    #[test]
    fn what_is_claimed_or_expired_makes_room() {
        let (a, b) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let price = price(1000, 100);
        let mut solvency = Solvency::new(50_000);
        solvency.signed(a, WindowNumber(1), ClassNumber(1), &price, 1000);
        let one = solvency.at_risk();
        solvency.signed(b, WindowNumber(1), ClassNumber(1), &price, 1000);
        assert!(solvency.at_risk() > one, "all links together");
        solvency.claimed(b, WindowNumber(1));
        solvency.claimed(b, WindowNumber(1));
        assert!((solvency.at_risk() - one).abs() < 1e-6);
        solvency.expire(UnixSeconds(100));
        assert!(solvency.at_risk() > 0.0, "it can still be claimed");
        solvency.expire(UnixSeconds(101));
        assert!(solvency.at_risk().abs() < f64::EPSILON);
    }
}
