//! Eight elements as two groups of four lanes: what goes on between the lanes of a group, for [`few`](crate::few).
//!
//! Orders of lanes are known when this is compiled, and so are the lanes that a sum is a difference in: no instruction here
//! depends on a value, but for the masks that say which points are negated.

use core::arch::x86_64::*;

use super::ifma::{Eight, carry, constant, double, fold, high, low, minus, plus};
use crate::field::{Field, MASK51};

/// Calls intrinsics of the features that an `Avx512` stands for.
macro_rules! isa {
    ($body:expr) => {
        // SAFETY: no value of `Eight` exists unless an `Avx512` was made, which only detection of the features does; and no
        // intrinsic in here reads or writes memory.
        unsafe { $body }
    };
}

/// Sums and differences of tight elements, yet to be carried. No more than one tight element is subtracted in any lane, so
/// that 2 p makes up for what is below zero meanwhile; a few may be added, of which formulas need three.
#[derive(Clone, Copy)]
pub(crate) struct Sum([__m512i; 5]);

/// The order in which lane i of each group takes what lane `lanes[i]` has.
pub(crate) const fn order(lanes: [i32; 4]) -> i32 {
    lanes[0] | lanes[1] << 2 | lanes[2] << 4 | lanes[3] << 6
}

/// The lanes of both groups, from those of one, a bit for each.
const fn both(lanes: u8) -> __mmask8 {
    lanes | lanes << 4
}

impl Eight {
    /// Puts the lanes of each group into an [`order`].
    #[inline(always)]
    pub(crate) fn permute<const ORDER: i32>(self) -> Self {
        Self(five!(AT => isa!(_mm512_permutex_epi64::<ORDER>(self.0[AT]))))
    }

    /// The same, with zeros in all lanes but some.
    #[inline(always)]
    pub(crate) fn permute_some<const LANES: u8, const ORDER: i32>(self) -> Self {
        Self(five!(AT => isa!(_mm512_maskz_permutex_epi64::<ORDER>(both(LANES), self.0[AT]))))
    }

    /// The first or the second group of each of the two, side by side.
    #[inline(always)]
    pub(crate) fn groups<const SECOND: bool>(self, other: Self) -> Self {
        let (a, b) = (&self.0, &other.0);
        Self(if SECOND {
            five!(AT => isa!(_mm512_shuffle_i64x2::<0xee>(a[AT], b[AT])))
        } else {
            five!(AT => isa!(_mm512_shuffle_i64x2::<0x44>(a[AT], b[AT])))
        })
    }

    /// Tight plus tight, but tight less tight in some lanes of each group.
    #[inline(always)]
    pub(crate) fn plus_or_minus<const MINUS: u8>(self, other: Self) -> Sum {
        let (a, b) = (&self.0, &other.0);
        Sum(five!(AT => isa!(_mm512_mask_sub_epi64(plus(a[AT], b[AT]), both(MINUS), a[AT], b[AT]))))
    }

    /// [`Field::mul`] for a product that others wait for: lower and upper halves are summed apart, in shorter chains of
    /// instructions that wait for each other, which is slower where there is other work meanwhile.
    #[inline(always)]
    pub(crate) fn mul_low_latency(self, other: Self) -> Self {
        let (a, b) = (&self.0, &other.0);
        let zero = constant(0);
        let (mut lows, mut highs) = ([zero; 10], [zero; 10]);
        // The upper five limbs first: they are multiplied by 19 meanwhile.
        let mut half = 0;
        while half < 2 {
            let mut i = 0;
            while i < 5 {
                let mut j = 0;
                while j < 5 {
                    let at = i + j;
                    if (at >= 5) == (half == 0) {
                        lows[at] = low(lows[at], a[i], b[j]);
                    }
                    if (at >= 4) == (half == 0) {
                        highs[at + 1] = high(highs[at + 1], a[i], b[j]);
                    }
                    j += 1;
                }
                i += 1;
            }
            half += 1;
        }
        let mut i = 1;
        while i < 10 {
            lows[i] = plus(lows[i], double(highs[i]));
            i += 1;
        }
        fold(lows)
    }

    /// Negates an addend, its sum, 2 d T, difference and 2 Z in the lanes of each group, where `negate` has bits.
    ///
    /// What becomes of 2 d T goes into multiplications only: limbs below 2^52.
    #[inline(always)]
    pub(crate) fn negate_addend(self, (negate, product): (__mmask8, __mmask8)) -> Self {
        const SWAPPED: i32 = order([2, 1, 0, 3]);
        let x = &self.0;
        let (p0, p) = twice_p();
        Self(five!(AT => {
            let swapped = isa!(_mm512_mask_permutex_epi64::<SWAPPED>(x[AT], negate, x[AT]));
            isa!(_mm512_mask_sub_epi64(swapped, product, if AT == 0 { p0 } else { p }, swapped))
        }))
    }

    /// The masks that negate all addends.
    pub(crate) const ALWAYS: (__mmask8, __mmask8) = (both(0b1111), both(0b0010));

    /// [`Field::digit`], with the masks of [`negate_addend`](Self::negate_addend).
    #[inline(always)]
    pub(crate) fn digit_of_addend(words: &[__m512i; 4], at: u32) -> (__m512i, (__mmask8, __mmask8)) {
        let (index, negate) = Self::digit(words, at);
        let product = isa!(_mm512_mask_testn_epi64_mask(both(0b0010), words[3], constant(1 << at)));
        (index, (negate, product))
    }
}

impl Sum {
    /// Adds a tight element.
    #[inline(always)]
    pub(crate) fn plus(self, other: Eight) -> Self {
        Self(five!(AT => plus(self.0[AT], other.0[AT])))
    }

    /// Subtracts a tight element.
    #[inline(always)]
    pub(crate) fn minus(self, other: Eight) -> Self {
        Self(five!(AT => minus(self.0[AT], other.0[AT])))
    }

    /// Tight.
    #[inline(always)]
    pub(crate) fn carried(self) -> Eight {
        // Plus 2 p, so that no lane is negative.
        let (p0, p) = twice_p();
        carry(five!(AT => plus(self.0[AT], if AT == 0 { p0 } else { p })))
    }
}

/// The first limb of 2 p, and each of the others.
#[inline(always)]
fn twice_p() -> (__m512i, __m512i) {
    (constant(2 * (MASK51 - 18)), constant(2 * MASK51))
}

#[cfg(test)]
mod tests {
    use super::super::{Avx512, with_avx512};
    use super::{Eight, order};
    use crate::erase::Leavings;
    use crate::field::{Field, Limbs, MASK51, bytes_of};
    use crate::path::Work;
    use crate::portable::Portable;

    /// Tight limbs are below this.
    const TIGHT: u64 = (1 << 51) + (1 << 18);

    /// What operations give that add up limbs, of two elements, the same in all lanes.
    struct Operations<'a> {
        a: Limbs,
        b: Limbs,
        out: &'a mut Vec<[Limbs; 8]>,
    }

    impl Work<Eight> for Operations<'_> {
        const LEAVES: Leavings = Leavings::Public;

        #[inline(always)]
        fn run(self, proof: Avx512) {
            const AS_IT_IS: i32 = order([0, 1, 2, 3]);
            let (a, b) = (Eight::splat(proof, self.a), Eight::splat(proof, self.b));
            // In lane 1 of each group the addend's 2 d T becomes negative; those in lanes 0 and 2 change places, and are the
            // same.
            let negated = b.negate_addend(Eight::ALWAYS);
            for result in [
                a.add(b),
                a.sub(b),
                a.mul(b),
                a.mul_low_latency(b),
                a.mul_low_latency(negated),
                a.square(),
                a.small(121_666),
                a.small((1 << 17) - 1),
                a.plus_or_minus::<0b0101>(b).carried(),
                a.plus_or_minus::<0b0000>(b).plus(a.permute::<AS_IT_IS>()).carried(),
                a.plus_or_minus::<0b0000>(b).plus(a).minus(b).carried(),
                a.plus_or_minus::<0b1111>(b).plus(a).carried(),
            ] {
                let mut limbs = [[0; 5]; 8];
                result.store(&mut limbs);
                self.out.push(limbs);
            }
        }
    }

    /// The same on one lane, where no limbs can overflow: for each operation which lanes of a group differ, a bit for each,
    /// what the others hold, and what they hold.
    fn expected(a: Limbs, b: Limbs) -> Vec<(u8, [[u8; 32]; 2])> {
        let load = |limbs| Portable::load((), &[limbs]);
        // Multiplication by one makes any class tight.
        let value = |element: Portable| {
            let mut limbs = [[0; 5]];
            element.mul(load([1, 0, 0, 0, 0])).store(&mut limbs);
            bytes_of(&limbs[0])
        };
        let (a, b) = (load(a), load(b));
        let (sum, difference) = (value(a.add(b)), value(a.sub(b)));
        let product = value(a.mul(b));
        let negated = value(load([0; 5]).sub(a.mul(b)));
        let twice = a.small(2);
        let same = |value| (0, [value; 2]);
        vec![
            same(sum),
            same(difference),
            same(product),
            same(product),
            (0b0010, [product, negated]),
            same(value(a.square())),
            same(value(a.small(121_666))),
            same(value(a.small((1 << 17) - 1))),
            (0b0101, [sum, difference]),
            same(value(twice.add(b))),
            same(value(twice)),
            same(value(twice.sub(b))),
        ]
    }

    #[test]
    fn limbs_at_their_limits_stay_within_them() {
        let Some(proof) = Avx512::detect() else { return };
        let edges: [Limbs; 8] = [
            [0; 5],
            [1, 0, 0, 0, 0],
            [MASK51; 5],
            [TIGHT - 1; 5],
            [TIGHT - 1, 0, TIGHT - 1, 0, TIGHT - 1],
            [0, TIGHT - 1, 0, TIGHT - 1, 0],
            [MASK51 - 18, MASK51, MASK51, MASK51, MASK51],
            [0, 0, 0, 0, TIGHT - 1],
        ];
        for a in edges {
            for b in edges {
                let mut found = Vec::new();
                with_avx512::<Eight>(proof, Operations { a, b, out: &mut found });
                let expected = expected(a, b);
                assert_eq!(found.len(), expected.len());
                for (operation, (lanes, (differ, expected))) in found.iter().zip(&expected).enumerate() {
                    for (lane, limbs) in lanes.iter().enumerate() {
                        let what = format!("operation {operation} of {a:?} and {b:?}, lane {lane}");
                        assert!(limbs.iter().all(|limb| *limb < TIGHT), "{what}: {limbs:?}");
                        let which = usize::from(differ >> (lane % 4) & 1);
                        assert_eq!(bytes_of(limbs), expected[which], "{what}");
                    }
                }
            }
        }
    }
}
