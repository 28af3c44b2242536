//! One element in four 64-bit words, for every processor.
//!
//! Every 256-bit number stands for itself modulo p: 2^256 is 38 modulo p, and what carries out of a sum comes in again as
//! that. Words need fewer multiplications than limbs with room to spare, and no shifts; the compiler makes chains of
//! add-with-carry of this. Tight (see [`Field`]) is below 2^255 + 2^24, so that sums and differences of tight elements carry
//! out once at most; loose and wide are any 256 bits.

use std::hint::black_box;

use crate::erase::erase;
use crate::field::{Field, Limbs, limbs_of};
use crate::path::Lanes;

/// The portable implementation: one lane.
#[derive(Clone, Copy)]
pub(crate) struct Portable([u64; 4]);

/// 2^256 modulo p.
const FOLD: u64 = 38;

/// Adds a small number.
#[inline(always)]
fn add_small(x: [u64; 4], small: u64) -> ([u64; 4], bool) {
    let (x0, carry) = x[0].overflowing_add(small);
    let (x1, carry) = x[1].carrying_add(0, carry);
    let (x2, carry) = x[2].carrying_add(0, carry);
    let (x3, carry) = x[3].carrying_add(0, carry);
    ([x0, x1, x2, x3], carry)
}

/// Adds what was carried out of 256 bits, less than 2^18 times, and makes the sum tight.
#[inline(always)]
fn fold(x: [u64; 4], carried: u64) -> Portable {
    let [x0, x1, x2, x3] = x;
    let above = carried << 1 | x3 >> 63;
    Portable(add_small([x0, x1, x2, x3 & (u64::MAX >> 1)], 19 * above).0)
}

/// A product of eight words, modulo p.
#[inline(always)]
fn reduce(t: [u64; 8]) -> Portable {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = t;
    let [(l0, h0), (l1, h1), (l2, h2), (l3, h3)] = [t4, t5, t6, t7].map(|word| word.carrying_mul(FOLD, 0));
    let (x0, carry) = t0.overflowing_add(l0);
    let (x1, carry) = t1.carrying_add(l1, carry);
    let (x2, carry) = t2.carrying_add(l2, carry);
    let (x3, carry) = t3.carrying_add(l3, carry);
    let above = h3 + u64::from(carry);
    let (x1, carry) = x1.overflowing_add(h0);
    let (x2, carry) = x2.carrying_add(h1, carry);
    let (x3, carry) = x3.carrying_add(h2, carry);
    fold([x0, x1, x2, x3], above + u64::from(carry))
}

#[inline(always)]
fn subtract(a: [u64; 4], b: [u64; 4]) -> ([u64; 4], bool) {
    let (x0, borrow) = a[0].overflowing_sub(b[0]);
    let (x1, borrow) = a[1].borrowing_sub(b[1], borrow);
    let (x2, borrow) = a[2].borrowing_sub(b[2], borrow);
    let (x3, borrow) = a[3].borrowing_sub(b[3], borrow);
    ([x0, x1, x2, x3], borrow)
}

/// All ones if two small numbers are the same.
#[inline(always)]
fn equals(a: u64, b: u64) -> u64 {
    // Less one, the difference of unequal ones keeps a clear top bit. Without the barrier, the compiler may see that a
    // mask has two values, and branch.
    black_box(((a ^ b).wrapping_sub(1) >> 63).wrapping_neg())
}

impl Lanes for Portable {
    type Proof = ();
    const LANES: usize = 1;
}

impl Field for Portable {
    type Word = u64;
    type Mask = u64;
    type Packed = Self;

    #[inline(always)]
    fn load((): (), lanes: &[Limbs]) -> Self {
        let [a, b, c, d, e] = lanes[0].map(u128::from);
        // Limbs may have a bit more than 51: so add, not or.
        let low = a + (b << 51);
        let middle = (low >> 64) + (c << 38);
        let high = (middle >> 64) + (d << 25);
        let top = (high >> 64) + (e << 12);
        fold([low as u64, middle as u64, high as u64, top as u64], (top >> 64) as u64)
    }

    #[inline(always)]
    fn store(self, lanes: &mut [Limbs]) {
        let mut bytes = [0; 32];
        // Bit 255 is 19.
        let [x0, x1, x2, x3] = self.0;
        let folded = add_small([x0, x1, x2, x3 & (u64::MAX >> 1)], 19 * (x3 >> 63)).0;
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(folded) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let mut limbs = limbs_of(&bytes);
        // A sum of 2^255 and more, which is at most 18 beyond.
        limbs[4] += u64::from(bytes[31] >> 7) << 51;
        erase(&mut bytes);
        lanes[0] = limbs;
    }

    #[inline(always)]
    fn splat((): (), limbs: Limbs) -> Self {
        Self::load((), &[limbs])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        let (x0, carry) = a[0].overflowing_add(b[0]);
        let (x1, carry) = a[1].carrying_add(b[1], carry);
        let (x2, carry) = a[2].carrying_add(b[2], carry);
        let (x3, carry) = a[3].carrying_add(b[3], carry);
        // Two numbers near 2^255 may carry out; what is left of them is below 2^25 then.
        Self([x0 + (FOLD & u64::from(carry).wrapping_neg()), x1, x2, x3])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        let (x, borrow) = subtract(self.0, other.0);
        // 2^256 too much is 38 too much. The difference of tight ones is then above 2^254.
        let (x, borrow) = subtract(x, [FOLD & u64::from(borrow).wrapping_neg(), 0, 0, 0]);
        debug_assert!(!borrow, "not tight");
        Self(x)
    }

    #[inline(always)]
    fn sub_wide(self, other: Self) -> Self {
        let (x, borrow) = subtract(self.0, other.0);
        let ([x0, x1, x2, x3], borrow) = subtract(x, [FOLD & u64::from(borrow).wrapping_neg(), 0, 0, 0]);
        // If that borrowed too, what is left is 2^256 less at most 38.
        Self([x0 - (FOLD & u64::from(borrow).wrapping_neg()), x1, x2, x3])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let mut t = [0_u64; 8];
        for (at, word) in self.0.into_iter().enumerate() {
            // A row: one word times all of the other.
            let [(r0, c0), (l1, c1), (l2, c2), (l3, c3)] = other.0.map(|b| word.carrying_mul(b, 0));
            let (r1, carry) = c0.overflowing_add(l1);
            let (r2, carry) = c1.carrying_add(l2, carry);
            let (r3, carry) = c2.carrying_add(l3, carry);
            let r4 = c3 + u64::from(carry);
            let (t0, carry) = t[at].overflowing_add(r0);
            let (t1, carry) = t[at + 1].carrying_add(r1, carry);
            let (t2, carry) = t[at + 2].carrying_add(r2, carry);
            let (t3, carry) = t[at + 3].carrying_add(r3, carry);
            t[at..at + 5].copy_from_slice(&[t0, t1, t2, t3, r4 + u64::from(carry)]);
        }
        reduce(t)
    }

    #[inline(always)]
    fn square(self) -> Self {
        let [a, b, c, d] = self.0;
        // Products of different words, twice.
        let (t1, carry) = a.carrying_mul(b, 0);
        let (t2, carry) = a.carrying_mul(c, carry);
        let (t3, t4) = a.carrying_mul(d, carry);
        let (t3, carry) = b.carrying_mul_add(c, t3, 0);
        let (t4, t5) = b.carrying_mul_add(d, t4, carry);
        let (t5, t6) = c.carrying_mul_add(d, t5, 0);
        let doubled =
            [t1 << 1, t2 << 1 | t1 >> 63, t3 << 1 | t2 >> 63, t4 << 1 | t3 >> 63, t5 << 1 | t4 >> 63];
        let (t6, t7) = (t6 << 1 | t5 >> 63, t6 >> 63);
        let [t1, t2, t3, t4, t5] = doubled;
        // The squares.
        let square = |x: u64| x.carrying_mul(x, 0);
        let ((a0, a1), (b0, b1), (c0, c1), (d0, d1)) = (square(a), square(b), square(c), square(d));
        let (t1, carry) = t1.overflowing_add(a1);
        let (t2, carry) = t2.carrying_add(b0, carry);
        let (t3, carry) = t3.carrying_add(b1, carry);
        let (t4, carry) = t4.carrying_add(c0, carry);
        let (t5, carry) = t5.carrying_add(c1, carry);
        let (t6, carry) = t6.carrying_add(d0, carry);
        let (t7, _) = t7.carrying_add(d1, carry);
        reduce([a0, t1, t2, t3, t4, t5, t6, t7])
    }

    #[inline(always)]
    fn small(self, factor: u32) -> Self {
        let factor = u64::from(factor);
        let (x0, carry) = self.0[0].carrying_mul(factor, 0);
        let (x1, carry) = self.0[1].carrying_mul(factor, carry);
        let (x2, carry) = self.0[2].carrying_mul(factor, carry);
        let (x3, carry) = self.0[3].carrying_mul(factor, carry);
        fold([x0, x1, x2, x3], carry)
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
        black_box(((word >> at) & 1).wrapping_neg())
    }

    #[inline(always)]
    fn digit(words: &[u64; 4], at: u32) -> (u64, u64) {
        let negate = ((words[3] >> at) & 1).wrapping_sub(1);
        let index = ((words[0] >> at) & 1) | ((words[1] >> at) & 1) << 1 | ((words[2] >> at) & 1) << 2;
        ((index ^ negate) & 7, black_box(negate))
    }

    #[inline(always)]
    fn select(mask: u64, no: Self, yes: Self) -> Self {
        let (a, b) = (no.0, yes.0);
        let pick = |at: usize| a[at] ^ (mask & (a[at] ^ b[at]));
        Self([pick(0), pick(1), pick(2), pick(3)])
    }

    #[inline(never)]
    fn look_up<const N: usize>(entries: &[[Self; N]; 8], index: u64) -> [Self; N] {
        let mut found = [[0; 4]; N];
        for (at, entry) in (0..).zip(entries) {
            let here = equals(index, at);
            for (found, coordinate) in found.iter_mut().zip(entry) {
                for (found, limb) in found.iter_mut().zip(coordinate.0) {
                    *found |= limb & here;
                }
            }
        }
        found.map(Self)
    }

    #[inline(always)]
    fn wipe(&mut self) {
        erase(&mut self.0);
    }

    #[inline(always)]
    fn wipe_words(words: &mut [u64; 4]) {
        erase(words);
    }
}
