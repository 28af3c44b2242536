//! Four elements in the lanes of 256-bit registers, ten limbs of 26 and 25 bits in turn, one in each 64-bit lane, with
//! the 32-bit multiplication of AVX2 (after Bernstein and Schwabe, "NEON crypto", 2012, and the `ref10` of Ed25519).
//!
//! | class of [`Field`] | limbs |
//! |---|---|
//! | tight | < 2^26 + 2^18 (even), 2^25 + 2^18 (odd) |
//! | loose | < 3 * 2^26 + 2^18, 3 * 2^25 + 2^18 |
//! | wide | tight: [`Field::sub_wide`] carries |

use core::arch::x86_64::*;

use super::Avx2;
use crate::field::{Field, Limbs, MASK51};

type Ten = [__m256i; 10];

/// Four elements. There are none without an [`Avx2`].
#[derive(Clone, Copy)]
pub(crate) struct Four(Ten);

/// Four elements in a table: limbs 2 i and 2 i + 1 share a lane.
#[derive(Clone, Copy)]
pub(crate) struct Packed([__m256i; 5]);

/// Calls intrinsics of AVX2.
macro_rules! isa {
    ($body:expr) => {
        // SAFETY: no value of `Four`, nor a proof, exists unless an `Avx2` was made, which only detection of the feature
        // does; and no intrinsic in here reads or writes memory.
        unsafe { $body }
    };
}

const MASK26: u64 = (1 << 26) - 1;
const MASK25: u64 = (1 << 25) - 1;

#[inline(always)]
fn constant(value: u64) -> __m256i {
    isa!(_mm256_set1_epi64x(value.cast_signed()))
}

/// Product of the lower 32 bits of each lane.
#[inline(always)]
fn m(a: __m256i, b: __m256i) -> __m256i {
    isa!(_mm256_mul_epu32(a, b))
}

#[inline(always)]
fn plus(a: __m256i, b: __m256i) -> __m256i {
    isa!(_mm256_add_epi64(a, b))
}

#[inline(always)]
fn minus(a: __m256i, b: __m256i) -> __m256i {
    isa!(_mm256_sub_epi64(a, b))
}

#[inline(always)]
fn and(a: __m256i, b: __m256i) -> __m256i {
    isa!(_mm256_and_si256(a, b))
}

#[inline(always)]
fn double(x: __m256i) -> __m256i {
    plus(x, x)
}

#[inline(always)]
fn sum<const N: usize>(terms: [__m256i; N]) -> __m256i {
    let mut sum = terms[0];
    let mut at = 1;
    while at < N {
        sum = plus(sum, terms[at]);
        at += 1;
    }
    sum
}

/// What limb `at` carries into the next, and what is left of it.
#[inline(always)]
fn split<const AT: usize>(x: __m256i) -> (__m256i, __m256i) {
    if AT % 2 == 0 {
        (isa!(_mm256_srli_epi64::<26>(x)), and(x, constant(MASK26)))
    } else {
        (isa!(_mm256_srli_epi64::<25>(x)), and(x, constant(MASK25)))
    }
}

/// Makes sums of products, below 2^63.4, tight: two chains of carries, from 0 to 4 and from 4 to 9 and to 1.
#[inline(always)]
fn carry(r: Ten) -> Ten {
    let [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9] = r;
    let (c0, r0) = split::<0>(r0);
    let (c4, r4) = split::<4>(r4);
    let (c1, r1) = split::<1>(plus(r1, c0));
    let (c5, r5) = split::<5>(plus(r5, c4));
    let (c2, r2) = split::<2>(plus(r2, c1));
    let (c6, r6) = split::<6>(plus(r6, c5));
    let (c3, r3) = split::<3>(plus(r3, c2));
    let (c7, r7) = split::<7>(plus(r7, c6));
    let (c4, r4) = split::<4>(plus(r4, c3));
    let (c8, r8) = split::<8>(plus(r8, c7));
    let r5 = plus(r5, c4);
    let (c9, r9) = split::<9>(plus(r9, c8));
    // 19 times a carry of up to 39 bits, which a 32-bit multiplication would cut.
    let wrapped = plus(plus(c9, double(c9)), isa!(_mm256_slli_epi64::<4>(c9)));
    let (c0, r0) = split::<0>(plus(r0, wrapped));
    // The carries out of 4 and 0 are below 2^14 and 2^18: 5 and 1 stay tight.
    [r0, plus(r1, c0), r2, r3, r4, r5, r6, r7, r8, r9]
}

/// Makes small sums, below 2^30, tight: each limb carries into the next at the same time.
#[inline(always)]
fn carry_once(r: Ten) -> Ten {
    let [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9] = r;
    let (c0, r0) = split::<0>(r0);
    let (c1, r1) = split::<1>(r1);
    let (c2, r2) = split::<2>(r2);
    let (c3, r3) = split::<3>(r3);
    let (c4, r4) = split::<4>(r4);
    let (c5, r5) = split::<5>(r5);
    let (c6, r6) = split::<6>(r6);
    let (c7, r7) = split::<7>(r7);
    let (c8, r8) = split::<8>(r8);
    let (c9, r9) = split::<9>(r9);
    [
        plus(r0, m(c9, constant(19))),
        plus(r1, c0),
        plus(r2, c1),
        plus(r3, c2),
        plus(r4, c3),
        plus(r5, c4),
        plus(r6, c5),
        plus(r7, c6),
        plus(r8, c7),
        plus(r9, c8),
    ]
}

#[inline(always)]
fn zip(a: &Ten, b: &Ten, each: impl Fn(__m256i, __m256i) -> __m256i) -> Ten {
    core::array::from_fn(|at| each(a[at], b[at]))
}

/// A function of its own: a formula with several of them inlined would not fit the instruction cache.
///
/// The largest sum of products is that of limb 0: f0 g0 + 19 (4 of two even limbs, 5 of two odd ones, twice), at most
/// (1 + 19 * (4 + 5 / 2)) * (3 * 2^26 + 2^18)^2 < 2^62.3.
#[inline(never)]
#[target_feature(enable = "avx2")]
fn multiply(f: &Ten, g: &Ten) -> Ten {
    let nineteen = constant(19);
    let f1_2 = double(f[1]);
    let f3_2 = double(f[3]);
    let f5_2 = double(f[5]);
    let f7_2 = double(f[7]);
    let f9_2 = double(f[9]);
    let g1_19 = m(g[1], nineteen);
    let g2_19 = m(g[2], nineteen);
    let g3_19 = m(g[3], nineteen);
    let g4_19 = m(g[4], nineteen);
    let g5_19 = m(g[5], nineteen);
    let g6_19 = m(g[6], nineteen);
    let g7_19 = m(g[7], nineteen);
    let g8_19 = m(g[8], nineteen);
    let g9_19 = m(g[9], nineteen);
    carry([
        sum([m(f[0], g[0]), m(f1_2, g9_19), m(f[2], g8_19), m(f3_2, g7_19), m(f[4], g6_19), m(f5_2, g5_19), m(f[6], g4_19), m(f7_2, g3_19), m(f[8], g2_19), m(f9_2, g1_19)]),
        sum([m(f[0], g[1]), m(f[1], g[0]), m(f[2], g9_19), m(f[3], g8_19), m(f[4], g7_19), m(f[5], g6_19), m(f[6], g5_19), m(f[7], g4_19), m(f[8], g3_19), m(f[9], g2_19)]),
        sum([m(f[0], g[2]), m(f1_2, g[1]), m(f[2], g[0]), m(f3_2, g9_19), m(f[4], g8_19), m(f5_2, g7_19), m(f[6], g6_19), m(f7_2, g5_19), m(f[8], g4_19), m(f9_2, g3_19)]),
        sum([m(f[0], g[3]), m(f[1], g[2]), m(f[2], g[1]), m(f[3], g[0]), m(f[4], g9_19), m(f[5], g8_19), m(f[6], g7_19), m(f[7], g6_19), m(f[8], g5_19), m(f[9], g4_19)]),
        sum([m(f[0], g[4]), m(f1_2, g[3]), m(f[2], g[2]), m(f3_2, g[1]), m(f[4], g[0]), m(f5_2, g9_19), m(f[6], g8_19), m(f7_2, g7_19), m(f[8], g6_19), m(f9_2, g5_19)]),
        sum([m(f[0], g[5]), m(f[1], g[4]), m(f[2], g[3]), m(f[3], g[2]), m(f[4], g[1]), m(f[5], g[0]), m(f[6], g9_19), m(f[7], g8_19), m(f[8], g7_19), m(f[9], g6_19)]),
        sum([m(f[0], g[6]), m(f1_2, g[5]), m(f[2], g[4]), m(f3_2, g[3]), m(f[4], g[2]), m(f5_2, g[1]), m(f[6], g[0]), m(f7_2, g9_19), m(f[8], g8_19), m(f9_2, g7_19)]),
        sum([m(f[0], g[7]), m(f[1], g[6]), m(f[2], g[5]), m(f[3], g[4]), m(f[4], g[3]), m(f[5], g[2]), m(f[6], g[1]), m(f[7], g[0]), m(f[8], g9_19), m(f[9], g8_19)]),
        sum([m(f[0], g[8]), m(f1_2, g[7]), m(f[2], g[6]), m(f3_2, g[5]), m(f[4], g[4]), m(f5_2, g[3]), m(f[6], g[2]), m(f7_2, g[1]), m(f[8], g[0]), m(f9_2, g9_19)]),
        sum([m(f[0], g[9]), m(f[1], g[8]), m(f[2], g[7]), m(f[3], g[6]), m(f[4], g[5]), m(f[5], g[4]), m(f[6], g[3]), m(f[7], g[2]), m(f[8], g[1]), m(f[9], g[0])]),
    ])
}

/// See [`multiply`].
#[inline(never)]
#[target_feature(enable = "avx2")]
fn squared(f: &Ten) -> Ten {
    let nineteen = constant(19);
    let f0_2 = double(f[0]);
    let f1_2 = double(f[1]);
    let f2_2 = double(f[2]);
    let f3_2 = double(f[3]);
    let f4_2 = double(f[4]);
    let f5_2 = double(f[5]);
    let f6_2 = double(f[6]);
    let f7_2 = double(f[7]);
    let f8_2 = double(f[8]);
    let f9_2 = double(f[9]);
    let f1_4 = double(f1_2);
    let f3_4 = double(f3_2);
    let f5_4 = double(f5_2);
    let f7_4 = double(f7_2);
    let f5_19 = m(f[5], nineteen);
    let f6_19 = m(f[6], nineteen);
    let f7_19 = m(f[7], nineteen);
    let f8_19 = m(f[8], nineteen);
    let f9_19 = m(f[9], nineteen);
    carry([
        sum([m(f[0], f[0]), m(f1_4, f9_19), m(f2_2, f8_19), m(f3_4, f7_19), m(f4_2, f6_19), m(f5_2, f5_19)]),
        sum([m(f0_2, f[1]), m(f2_2, f9_19), m(f3_2, f8_19), m(f4_2, f7_19), m(f5_2, f6_19)]),
        sum([m(f0_2, f[2]), m(f1_2, f[1]), m(f3_4, f9_19), m(f4_2, f8_19), m(f5_4, f7_19), m(f[6], f6_19)]),
        sum([m(f0_2, f[3]), m(f1_2, f[2]), m(f4_2, f9_19), m(f5_2, f8_19), m(f6_2, f7_19)]),
        sum([m(f0_2, f[4]), m(f1_4, f[3]), m(f[2], f[2]), m(f5_4, f9_19), m(f6_2, f8_19), m(f7_2, f7_19)]),
        sum([m(f0_2, f[5]), m(f1_2, f[4]), m(f2_2, f[3]), m(f6_2, f9_19), m(f7_2, f8_19)]),
        sum([m(f0_2, f[6]), m(f1_4, f[5]), m(f2_2, f[4]), m(f3_2, f[3]), m(f7_4, f9_19), m(f[8], f8_19)]),
        sum([m(f0_2, f[7]), m(f1_2, f[6]), m(f2_2, f[5]), m(f3_2, f[4]), m(f8_2, f9_19)]),
        sum([m(f0_2, f[8]), m(f1_4, f[7]), m(f2_2, f[6]), m(f3_4, f[5]), m(f[4], f[4]), m(f9_2, f9_19)]),
        sum([m(f0_2, f[9]), m(f1_2, f[8]), m(f2_2, f[7]), m(f3_2, f[6]), m(f4_2, f[5])]),
    ])
}

impl Field for Four {
    type Proof = Avx2;
    type Word = __m256i;
    type Mask = __m256i;
    type Packed = Packed;
    const LANES: usize = 4;

    #[inline(always)]
    fn load(proof: Avx2, lanes: &[Limbs]) -> Self {
        // A limb of 52 bits: 26 lower ones and, perhaps tight only, the rest.
        let half = |at: usize| {
            let mut words = [0; 4];
            for (word, lane) in words.iter_mut().zip(lanes) {
                *word = if at % 2 == 0 { lane[at / 2] & MASK26 } else { lane[at / 2] >> 26 };
            }
            Self::words(proof, &words)
        };
        Self(core::array::from_fn(half))
    }

    #[inline(always)]
    fn store(self, lanes: &mut [Limbs]) {
        for at in 0..5 {
            // SAFETY: all are 32 bytes of integers, for which every pattern is a value.
            let (even, odd): ([u64; 4], [u64; 4]) = unsafe {
                (core::mem::transmute(self.0[2 * at]), core::mem::transmute(self.0[2 * at + 1]))
            };
            for (lane, (even, odd)) in lanes.iter_mut().zip(even.into_iter().zip(odd)) {
                lane[at] = even + (odd << 26);
            }
        }
    }

    #[inline(always)]
    fn splat(_: Avx2, limbs: Limbs) -> Self {
        Self(core::array::from_fn(|at| {
            let limb = limbs[at / 2] & MASK51;
            constant(if at % 2 == 0 { limb & MASK26 } else { limb >> 26 })
        }))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(zip(&self.0, &other.0, plus))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // Plus 2 p, so that no lane is negative.
        let (p0, even, odd) = (constant(2 * (MASK26 - 18)), constant(2 * MASK26), constant(2 * MASK25));
        let [first, rest @ ..] = &self.0;
        let mut biased = [plus(*first, p0); 10];
        for (at, (biased, limb)) in biased[1..].iter_mut().zip(rest).enumerate() {
            *biased = plus(*limb, if at % 2 == 0 { odd } else { even });
        }
        Self(zip(&biased, &other.0, minus))
    }

    #[inline(always)]
    fn sub_wide(self, other: Self) -> Self {
        let (p0, even, odd) = (constant(4 * (MASK26 - 18)), constant(4 * MASK26), constant(4 * MASK25));
        let [first, rest @ ..] = &self.0;
        let mut biased = [plus(*first, p0); 10];
        for (at, (biased, limb)) in biased[1..].iter_mut().zip(rest).enumerate() {
            *biased = plus(*limb, if at % 2 == 0 { odd } else { even });
        }
        Self(carry_once(zip(&biased, &other.0, minus)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(isa!(multiply(&self.0, &other.0)))
    }

    #[inline(always)]
    fn square(self) -> Self {
        Self(isa!(squared(&self.0)))
    }

    #[inline(always)]
    fn small(self, factor: u32) -> Self {
        let factor = constant(u64::from(factor));
        Self(carry(self.0.map(|limb| m(limb, factor))))
    }

    #[inline(always)]
    fn pack(self) -> Packed {
        Packed(core::array::from_fn(|at| {
            isa!(_mm256_or_si256(self.0[2 * at], _mm256_slli_epi64::<32>(self.0[2 * at + 1])))
        }))
    }

    #[inline(always)]
    fn unpack(packed: Packed) -> Self {
        Self(core::array::from_fn(|at| match at % 2 {
            // Whatever is in the upper half: a multiplication does not look at it, but an addition would.
            0 => and(packed.0[at / 2], constant(0xffff_ffff)),
            _ => isa!(_mm256_srli_epi64::<32>(packed.0[at / 2])),
        }))
    }

    #[inline(always)]
    fn words(_: Avx2, lanes: &[u64]) -> __m256i {
        let words: [u64; 4] = *lanes.first_chunk().expect("a word for each lane");
        // SAFETY: both are 32 bytes of integers, for which every pattern is a value.
        unsafe { core::mem::transmute(words) }
    }

    #[inline(always)]
    fn bit(word: __m256i, at: u32) -> __m256i {
        let bit = constant(1 << at);
        isa!(_mm256_cmpeq_epi64(and(word, bit), bit))
    }

    #[inline(always)]
    fn digit(words: &[__m256i; 4], at: u32) -> (__m256i, __m256i) {
        let [b0, b1, b2, b3] = words.map(|word| Self::bit(word, at));
        let weigh = |bit, weight| and(isa!(_mm256_xor_si256(bit, b3)), constant(weight));
        // Bits that differ from the sign are clear in the index: so it is 7 less what differs.
        let differs = plus(plus(weigh(b0, 1), weigh(b1, 2)), weigh(b2, 4));
        (minus(constant(7), differs), isa!(_mm256_xor_si256(b3, constant(u64::MAX))))
    }

    #[inline(always)]
    fn equals(word: __m256i, value: u64) -> __m256i {
        isa!(_mm256_cmpeq_epi64(word, constant(value)))
    }

    #[inline(always)]
    fn select(mask: __m256i, no: Self, yes: Self) -> Self {
        Self(zip(&no.0, &yes.0, |no, yes| isa!(_mm256_blendv_epi8(no, yes, mask))))
    }

    #[inline(always)]
    fn select_packed(mask: __m256i, no: Packed, yes: Packed) -> Packed {
        Packed(core::array::from_fn(|at| isa!(_mm256_blendv_epi8(no.0[at], yes.0[at], mask))))
    }

    #[inline(always)]
    fn wipe(&mut self) {
        self.0.iter_mut().for_each(wipe);
    }

    #[inline(always)]
    fn wipe_words(words: &mut [__m256i; 4]) {
        words.iter_mut().for_each(wipe);
    }
}

#[inline(always)]
fn wipe(register: &mut __m256i) {
    // SAFETY: a reference is valid for writes. Volatile, so that the compiler does not leave it out.
    unsafe { core::ptr::write_volatile(register, constant(0)) }
}
