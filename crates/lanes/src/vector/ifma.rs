//! Eight elements in the lanes of 512-bit registers, five limbs of 51 bits each, with the 52-bit multiply-add of
//! AVX-512 IFMA (after Gueron and Krasnov, "Software Implementation of Modular Exponentiation, Using Advanced Vector
//! Instructions Architectures", 2012, and the IFMA backend of `curve25519-dalek`).
//!
//! The instruction multiplies the lower 52 bits of each lane and adds the lower or the upper 52 bits of the product to
//! an accumulator. So every factor has to be below 2^52; all classes of [`Field`] are tight here, limbs below
//! 2^51 + 2^18, and sums and differences are carried at once, in five lanes of work at a time.

use core::arch::x86_64::*;

use super::Avx512;
use crate::field::{Field, Limbs, MASK51};
use crate::path::Lanes;

/// Eight elements. There are none without an [`Avx512`].
#[derive(Clone, Copy)]
pub(crate) struct Eight(pub(super) [__m512i; 5]);

/// Calls intrinsics of the features that [`Avx512`] stands for.
macro_rules! isa {
    ($body:expr) => {
        // SAFETY: no value of `Eight`, nor a proof, exists unless an `Avx512` was made, which only detection of the
        // features does; and no intrinsic in here reads or writes memory.
        unsafe { $body }
    };
}

#[inline(always)]
pub(super) fn constant(value: u64) -> __m512i {
    isa!(_mm512_set1_epi64(value.cast_signed()))
}

/// Lower and upper half of a product in each lane, added to `sum`.
#[inline(always)]
pub(super) fn low(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    isa!(_mm512_madd52lo_epu64(sum, a, b))
}

#[inline(always)]
pub(super) fn high(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    isa!(_mm512_madd52hi_epu64(sum, a, b))
}

#[inline(always)]
pub(super) fn plus(a: __m512i, b: __m512i) -> __m512i {
    isa!(_mm512_add_epi64(a, b))
}

#[inline(always)]
pub(super) fn minus(a: __m512i, b: __m512i) -> __m512i {
    isa!(_mm512_sub_epi64(a, b))
}

/// Carries each limb into the next at the same time. Limbs below 2^64 become tight if those that carry out are below
/// 2^64 - 2^51: what is carried is below 2^13, and 19 times that below 2^18.
#[inline(always)]
pub(super) fn carry(x: [__m512i; 5]) -> Eight {
    let mask = constant(MASK51);
    let carried = five!(AT => isa!(_mm512_srli_epi64::<51>(x[AT])));
    let rest = five!(AT => isa!(_mm512_and_si512(x[AT], mask)));
    Eight([
        low(rest[0], carried[4], constant(19)),
        plus(rest[1], carried[0]),
        plus(rest[2], carried[1]),
        plus(rest[3], carried[2]),
        plus(rest[4], carried[3]),
    ])
}

/// From the sums of the products by weight, to five limbs. `lows[k]` and half of `highs[k]` have weight 2^(51 k).
#[inline(always)]
pub(super) fn fold(z: [__m512i; 10]) -> Eight {
    // Each is below 2^57: 19 times that fits a lane.
    let nineteen = constant(19);
    carry(five!(AT => plus(z[AT], isa!(_mm512_mullo_epi64(z[AT + 5], nineteen)))))
}

#[inline(always)]
pub(super) fn double(x: __m512i) -> __m512i {
    plus(x, x)
}

impl Lanes for Eight {
    type Proof = Avx512;
    const LANES: usize = 8;
}

impl Field for Eight {
    type Word = __m512i;
    type Mask = __mmask8;
    type Packed = Self;

    #[inline(always)]
    fn load(proof: Avx512, lanes: &[Limbs]) -> Self {
        let mut words = [[0; 8]; 5];
        for (at, lane) in lanes.iter().enumerate() {
            for (words, limb) in words.iter_mut().zip(lane) {
                words[at] = *limb;
            }
        }
        Self(five!(AT => Self::words(proof, &words[AT])))
    }

    #[inline(always)]
    fn store(self, lanes: &mut [Limbs]) {
        for (at, limb) in self.0.into_iter().enumerate() {
            // SAFETY: both are 64 bytes of integers, for which every pattern is a value.
            let words: [u64; 8] = unsafe { core::mem::transmute::<__m512i, [u64; 8]>(limb) };
            for (lane, word) in lanes.iter_mut().zip(words) {
                lane[at] = word;
            }
        }
    }

    #[inline(always)]
    fn splat(_: Avx512, limbs: Limbs) -> Self {
        Self(five!(AT => constant(limbs[AT])))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let (a, b) = (&self.0, &other.0);
        carry(five!(AT => plus(a[AT], b[AT])))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // Plus 2 p, so that no lane is negative.
        let (a, b) = (&self.0, &other.0);
        let (p0, p) = (constant(2 * (MASK51 - 18)), constant(2 * MASK51));
        carry([
            minus(plus(a[0], p0), b[0]),
            minus(plus(a[1], p), b[1]),
            minus(plus(a[2], p), b[2]),
            minus(plus(a[3], p), b[3]),
            minus(plus(a[4], p), b[4]),
        ])
    }

    #[inline(always)]
    fn sub_wide(self, other: Self) -> Self {
        self.sub(other)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let (a, b) = (&self.0, &other.0);
        let zero = constant(0);
        // The upper half of a product has weight 2^52, twice that of the next limb.
        let mut z = [zero; 10];
        let mut i = 0;
        while i < 5 {
            let mut j = 0;
            while j < 5 {
                z[i + j + 1] = high(z[i + j + 1], a[i], b[j]);
                j += 1;
            }
            i += 1;
        }
        let mut i = 1;
        while i < 10 {
            z[i] = double(z[i]);
            i += 1;
        }
        let mut i = 0;
        while i < 5 {
            let mut j = 0;
            while j < 5 {
                z[i + j] = low(z[i + j], a[i], b[j]);
                j += 1;
            }
            i += 1;
        }
        fold(z)
    }

    #[inline(always)]
    fn square(self) -> Self {
        let a = &self.0;
        let zero = constant(0);
        let mut z = [zero; 10];
        let mut lows = [zero; 8];
        // Products of different limbs, which count twice.
        let mut i = 0;
        while i < 5 {
            let mut j = i + 1;
            while j < 5 {
                z[i + j + 1] = high(z[i + j + 1], a[i], a[j]);
                lows[i + j] = low(lows[i + j], a[i], a[j]);
                j += 1;
            }
            i += 1;
        }
        let mut i = 2;
        while i < 9 {
            z[i] = double(z[i]);
            i += 1;
        }
        let mut i = 0;
        while i < 5 {
            z[2 * i + 1] = high(z[2 * i + 1], a[i], a[i]);
            i += 1;
        }
        // What is twice each upper half, and each lower half of the products that count twice.
        let mut i = 1;
        while i < 8 {
            z[i] = double(plus(z[i], lows[i]));
            i += 1;
        }
        z[8] = double(z[8]);
        z[9] = double(z[9]);
        let mut i = 0;
        while i < 5 {
            z[2 * i] = low(z[2 * i], a[i], a[i]);
            i += 1;
        }
        fold(z)
    }

    #[inline(always)]
    fn small(self, factor: u32) -> Self {
        let a = &self.0;
        let factor = constant(u64::from(factor));
        let zero = constant(0);
        // The upper halves are below 2^17: carried together with the rest.
        let upper = five!(AT => double(high(zero, a[AT], factor)));
        carry([
            low(low(zero, upper[4], constant(19)), a[0], factor),
            low(upper[0], a[1], factor),
            low(upper[1], a[2], factor),
            low(upper[2], a[3], factor),
            low(upper[3], a[4], factor),
        ])
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
    fn words(_: Avx512, lanes: &[u64]) -> __m512i {
        let words: [u64; 8] = *lanes.first_chunk().expect("a word for each lane");
        // SAFETY: both are 64 bytes of integers, for which every pattern is a value.
        unsafe { core::mem::transmute::<[u64; 8], __m512i>(words) }
    }

    #[inline(always)]
    fn bit(word: __m512i, at: u32) -> __mmask8 {
        isa!(_mm512_test_epi64_mask(word, constant(1 << at)))
    }

    #[inline(always)]
    fn digit(words: &[__m512i; 4], at: u32) -> (__m512i, __mmask8) {
        let bit = constant(1 << at);
        isa!({
            let negate = _mm512_testn_epi64_mask(words[3], bit);
            let zero = constant(0);
            let index =
                _mm512_mask_mov_epi64(zero, _mm512_test_epi64_mask(words[0], bit) ^ negate, constant(1));
            let two = _mm512_test_epi64_mask(words[1], bit) ^ negate;
            let index = _mm512_mask_or_epi64(index, two, index, constant(2));
            let four = _mm512_test_epi64_mask(words[2], bit) ^ negate;
            (_mm512_mask_or_epi64(index, four, index, constant(4)), negate)
        })
    }

    #[inline(always)]
    fn select(mask: __mmask8, no: Self, yes: Self) -> Self {
        let (no, yes) = (&no.0, &yes.0);
        Self(five!(AT => isa!(_mm512_mask_blend_epi64(mask, no[AT], yes[AT]))))
    }

    #[inline(always)]
    fn look_up<const N: usize>(entries: &[[Self; N]; 8], index: __m512i) -> [Self; N] {
        let mut found = entries[0];
        let mut at = 1;
        while at < 8 {
            let here = isa!(_mm512_cmpeq_epi64_mask(index, constant(at as u64)));
            let mut coordinate = 0;
            while coordinate < N {
                found[coordinate] = Self::select(here, found[coordinate], entries[at][coordinate]);
                coordinate += 1;
            }
            at += 1;
        }
        found
    }

    #[inline(always)]
    fn wipe(&mut self) {
        wipe(&mut self.0);
    }

    #[inline(always)]
    fn wipe_words(words: &mut [__m512i; 4]) {
        wipe(words);
    }
}

#[inline(always)]
fn wipe<const N: usize>(registers: &mut [__m512i; N]) {
    // SAFETY: a reference is valid for writes. Volatile, so that the compiler does not leave it out.
    unsafe { core::ptr::write_volatile(registers, [constant(0); N]) }
}
