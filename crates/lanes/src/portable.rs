//! One element in five 64-bit limbs of 51 bits, for every processor (after `curve25519-donna-c64`, by Adam Langley).

use std::hint::black_box;

use zeroize::Zeroize;

use crate::field::{Field, Limbs, MASK51};

/// The portable implementation: one lane.
#[derive(Clone, Copy)]
pub(crate) struct Portable(Limbs);

/// A bound on each class of limbs; see [`Field`].
const TIGHT: u64 = (1 << 51) + (1 << 18);
const LOOSE: u64 = 3 * (1 << 51) + (1 << 18);
const WIDE: u64 = 1 << 54;

#[inline(always)]
fn assert_below(limbs: &Limbs, bound: u64) {
    debug_assert!(limbs.iter().all(|limb| *limb < bound), "limbs of another class: {limbs:x?}");
}

#[inline(always)]
fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower bits are meant")]
#[inline(always)]
fn carry(mut r: [u128; 5]) -> Portable {
    // Two chains side by side, 0 to 3 and 3 to 0. Each sum is below 2^115, so what is carried fits a word.
    const MASK: u128 = MASK51 as u128;
    r[1] += u128::from((r[0] >> 51) as u64);
    r[4] += u128::from((r[3] >> 51) as u64);
    let (r0, r3) = (r[0] as u64 & MASK51, r[3] as u64 & MASK51);
    r[2] += u128::from((r[1] >> 51) as u64);
    let low = u128::from(r0) + product((r[4] >> 51) as u64, 19);
    let (r1, r4) = (r[1] as u64 & MASK51, r[4] as u64 & MASK51);
    let middle = u128::from(r3) + u128::from((r[2] >> 51) as u64);
    let r2 = (r[2] & MASK) as u64;
    let r1 = r1 + (low >> 51) as u64;
    let r4 = r4 + (middle >> 51) as u64;
    // r1 and r4 took up to 2^18 and 2^13 only: they stay tight.
    Portable([low as u64 & MASK51, r1, r2, middle as u64 & MASK51, r4])
}

impl Portable {
    #[inline(always)]
    fn map(self, other: Self, each: impl Fn(u64, u64) -> u64) -> Self {
        let (a, b) = (self.0, other.0);
        Self([each(a[0], b[0]), each(a[1], b[1]), each(a[2], b[2]), each(a[3], b[3]), each(a[4], b[4])])
    }
}

impl Field for Portable {
    type Proof = ();
    type Word = u64;
    type Mask = u64;
    type Packed = Self;
    const LANES: usize = 1;

    #[inline(always)]
    fn load((): (), lanes: &[Limbs]) -> Self {
        Self(lanes[0])
    }

    #[inline(always)]
    fn store(self, lanes: &mut [Limbs]) {
        lanes[0] = self.0;
    }

    #[inline(always)]
    fn splat((): (), limbs: Limbs) -> Self {
        Self(limbs)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        assert_below(&self.0, TIGHT);
        assert_below(&other.0, TIGHT);
        self.map(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        assert_below(&self.0, TIGHT);
        assert_below(&other.0, TIGHT);
        // Each limb of 2 p is above every tight one: 2 (2^51 - 19) > 2^51 + 2^18.
        let two_p = Self([2 * (MASK51 - 18), 2 * MASK51, 2 * MASK51, 2 * MASK51, 2 * MASK51]);
        self.map(two_p, |a, p| a + p).map(other, |a, b| a - b)
    }

    #[inline(always)]
    fn sub_wide(self, other: Self) -> Self {
        assert_below(&self.0, LOOSE);
        assert_below(&other.0, LOOSE);
        let four_p = Self([4 * (MASK51 - 18), 4 * MASK51, 4 * MASK51, 4 * MASK51, 4 * MASK51]);
        self.map(four_p, |a, p| a + p).map(other, |a, b| a - b)
    }

    #[inline]
    fn mul(self, other: Self) -> Self {
        let (a, b) = (&self.0, &other.0);
        assert_below(a, WIDE);
        assert_below(b, WIDE);
        let b1 = 19 * b[1];
        let b2 = 19 * b[2];
        let b3 = 19 * b[3];
        let b4 = 19 * b[4];
        let m = product;
        carry([
            m(a[0], b[0]) + m(a[4], b1) + m(a[3], b2) + m(a[2], b3) + m(a[1], b4),
            m(a[1], b[0]) + m(a[0], b[1]) + m(a[4], b2) + m(a[3], b3) + m(a[2], b4),
            m(a[2], b[0]) + m(a[1], b[1]) + m(a[0], b[2]) + m(a[4], b3) + m(a[3], b4),
            m(a[3], b[0]) + m(a[2], b[1]) + m(a[1], b[2]) + m(a[0], b[3]) + m(a[4], b4),
            m(a[4], b[0]) + m(a[3], b[1]) + m(a[2], b[2]) + m(a[1], b[3]) + m(a[0], b[4]),
        ])
    }

    #[inline]
    fn square(self) -> Self {
        let a = &self.0;
        assert_below(a, WIDE);
        let m = product;
        let a0_2 = 2 * a[0];
        let a1_2 = 2 * a[1];
        let a3_19 = 19 * a[3];
        let a4_19 = 19 * a[4];
        carry([
            m(a[0], a[0]) + m(a1_2, a4_19) + m(2 * a[2], a3_19),
            m(a0_2, a[1]) + m(2 * a[2], a4_19) + m(a[3], a3_19),
            m(a0_2, a[2]) + m(a[1], a[1]) + m(2 * a[3], a4_19),
            m(a0_2, a[3]) + m(a1_2, a[2]) + m(a[4], a4_19),
            m(a0_2, a[4]) + m(a1_2, a[3]) + m(a[2], a[2]),
        ])
    }

    #[inline(always)]
    fn small(self, factor: u32) -> Self {
        assert_below(&self.0, LOOSE);
        let factor = u64::from(factor);
        let [a0, a1, a2, a3, a4] = self.0;
        let m = product;
        carry([m(a0, factor), m(a1, factor), m(a2, factor), m(a3, factor), m(a4, factor)])
    }

    #[inline(always)]
    fn pack(self) -> Self {
        self
    }

    #[inline(always)]
    fn unpack(packed: Self) -> Self {
        packed
    }

    #[inline(always)]
    fn words((): (), lanes: &[u64]) -> u64 {
        lanes[0]
    }

    #[inline(always)]
    fn bit(word: u64, at: u32) -> u64 {
        // Without the barrier, the compiler may see that a mask has two values, and branch.
        black_box(((word >> at) & 1).wrapping_neg())
    }

    #[inline(always)]
    fn digit(words: &[u64; 4], at: u32) -> (u64, u64) {
        let negate = ((words[3] >> at) & 1).wrapping_sub(1);
        let index = ((words[0] >> at) & 1) | ((words[1] >> at) & 1) << 1 | ((words[2] >> at) & 1) << 2;
        ((index ^ negate) & 7, black_box(negate))
    }

    #[inline(always)]
    fn equals(word: u64, value: u64) -> u64 {
        // Both are small: the difference of unequal ones, less one, has a clear top bit.
        black_box(((word ^ value).wrapping_sub(1) >> 63).wrapping_neg())
    }

    #[inline(always)]
    fn select(mask: u64, no: Self, yes: Self) -> Self {
        no.map(yes, |no, yes| no ^ (mask & (no ^ yes)))
    }

    #[inline(always)]
    fn select_packed(mask: u64, no: Self, yes: Self) -> Self {
        Self::select(mask, no, yes)
    }

    #[inline(always)]
    fn wipe(&mut self) {
        self.0.zeroize();
    }

    #[inline(always)]
    fn wipe_words(words: &mut [u64; 4]) {
        words.zeroize();
    }
}
