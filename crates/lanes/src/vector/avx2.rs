//! Four elements in the lanes of 256-bit registers, ten limbs of 26 and 25 bits in turn, one in each 64-bit lane, with
//! the 32-bit multiplication of AVX2 (after Bernstein and Schwabe, "NEON crypto", 2012, and the `ref10` of Ed25519).
//!
//! | class of [`Field`] | limbs |
//! |---|---|
//! | tight | < 2^26 + 2^18 (even), 2^25 + 2^18 (odd) |
//! | loose | < 3 * 2^26 + 2^18, 3 * 2^25 + 2^18 |
//! | wide | tight: [`Field::sub_wide`] carries |

use core::arch::x86_64::*;
use core::hint::black_box;

use super::Avx2;
use crate::field::{Field, Limbs};
use crate::path::Lanes;

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

macro_rules! ten {
    ($at:ident => $each:expr) => {
        array!($at in 0 1 2 3 4 5 6 7 8 9 => $each)
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

/// What limb `at` carries into the next, and what is left of it.
#[inline(always)]
fn split<const AT: usize>(x: __m256i) -> (__m256i, __m256i) {
    if AT.is_multiple_of(2) {
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

/// `factor` p, by limbs.
#[inline(always)]
fn times_p(factor: u64, at: usize) -> __m256i {
    constant(match at {
        0 => factor * (MASK26 - 18),
        _ if at.is_multiple_of(2) => factor * MASK26,
        _ => factor * MASK25,
    })
}

/// A byte that is aligned as vectors are.
#[repr(align(32))]
struct Aligned(#[expect(dead_code, reason = "only where it lies matters")] u8);

/// Aligns the frame of the function that this becomes part of. Where nothing but registers for which there is no room lies in it, the
/// compiler does not: it writes them wherever the stack happens to be. That is 16 bytes off, so half of them go across two cache
/// lines, and in every fifth process some across two pages. Nothing but speed depends on it.
#[inline(always)]
fn align_frame() {
    let aligned = Aligned(0);
    // A variable whose address nobody has lies in no frame.
    black_box(&aligned);
}

/// A function of its own: a formula with several of them inlined would not fit the instruction cache.
///
/// The largest sum of products is that of limb 0: f0 g0 + 19 (4 of two even limbs, 5 of two odd ones, twice), at most
/// (1 + 19 * (4 + 5 / 2)) * (3 * 2^26 + 2^18)^2 < 2^62.3.
#[inline(never)]
#[target_feature(enable = "avx2")]
fn multiply(f: &Ten, g: &Ten) -> Ten {
    align_frame();
    let nineteen = constant(19);
    // Even limbs with even ones and odd with odd make the even limbs of the product, the others the odd ones: 25 products at
    // a time, whose factors and sums fit the registers.
    let g0 = g[0];
    let g2 = g[2];
    let g2_19 = m(g2, nineteen);
    let g4 = g[4];
    let g4_19 = m(g4, nineteen);
    let g6 = g[6];
    let g6_19 = m(g6, nineteen);
    let g8 = g[8];
    let g8_19 = m(g8, nineteen);
    let f0 = f[0];
    let r0 = m(f0, g0);
    let r2 = m(f0, g2);
    let r4 = m(f0, g4);
    let r6 = m(f0, g6);
    let r8 = m(f0, g8);
    let f2 = f[2];
    let r2 = plus(r2, m(f2, g0));
    let r4 = plus(r4, m(f2, g2));
    let r6 = plus(r6, m(f2, g4));
    let r8 = plus(r8, m(f2, g6));
    let r0 = plus(r0, m(f2, g8_19));
    let f4 = f[4];
    let r4 = plus(r4, m(f4, g0));
    let r6 = plus(r6, m(f4, g2));
    let r8 = plus(r8, m(f4, g4));
    let r0 = plus(r0, m(f4, g6_19));
    let r2 = plus(r2, m(f4, g8_19));
    let f6 = f[6];
    let r6 = plus(r6, m(f6, g0));
    let r8 = plus(r8, m(f6, g2));
    let r0 = plus(r0, m(f6, g4_19));
    let r2 = plus(r2, m(f6, g6_19));
    let r4 = plus(r4, m(f6, g8_19));
    let f8 = f[8];
    let r8 = plus(r8, m(f8, g0));
    let r0 = plus(r0, m(f8, g2_19));
    let r2 = plus(r2, m(f8, g4_19));
    let r4 = plus(r4, m(f8, g6_19));
    let r6 = plus(r6, m(f8, g8_19));
    let g1 = g[1];
    let g1_19 = m(g1, nineteen);
    let g3 = g[3];
    let g3_19 = m(g3, nineteen);
    let g5 = g[5];
    let g5_19 = m(g5, nineteen);
    let g7 = g[7];
    let g7_19 = m(g7, nineteen);
    let g9 = g[9];
    let g9_19 = m(g9, nineteen);
    let f1 = double(f[1]);
    let r2 = plus(r2, m(f1, g1));
    let r4 = plus(r4, m(f1, g3));
    let r6 = plus(r6, m(f1, g5));
    let r8 = plus(r8, m(f1, g7));
    let r0 = plus(r0, m(f1, g9_19));
    let f3 = double(f[3]);
    let r4 = plus(r4, m(f3, g1));
    let r6 = plus(r6, m(f3, g3));
    let r8 = plus(r8, m(f3, g5));
    let r0 = plus(r0, m(f3, g7_19));
    let r2 = plus(r2, m(f3, g9_19));
    let f5 = double(f[5]);
    let r6 = plus(r6, m(f5, g1));
    let r8 = plus(r8, m(f5, g3));
    let r0 = plus(r0, m(f5, g5_19));
    let r2 = plus(r2, m(f5, g7_19));
    let r4 = plus(r4, m(f5, g9_19));
    let f7 = double(f[7]);
    let r8 = plus(r8, m(f7, g1));
    let r0 = plus(r0, m(f7, g3_19));
    let r2 = plus(r2, m(f7, g5_19));
    let r4 = plus(r4, m(f7, g7_19));
    let r6 = plus(r6, m(f7, g9_19));
    let f9 = double(f[9]);
    let r0 = plus(r0, m(f9, g1_19));
    let r2 = plus(r2, m(f9, g3_19));
    let r4 = plus(r4, m(f9, g5_19));
    let r6 = plus(r6, m(f9, g7_19));
    let r8 = plus(r8, m(f9, g9_19));
    let g1 = g[1];
    let g3 = g[3];
    let g3_19 = m(g3, nineteen);
    let g5 = g[5];
    let g5_19 = m(g5, nineteen);
    let g7 = g[7];
    let g7_19 = m(g7, nineteen);
    let g9 = g[9];
    let g9_19 = m(g9, nineteen);
    let f0 = f[0];
    let r1 = m(f0, g1);
    let r3 = m(f0, g3);
    let r5 = m(f0, g5);
    let r7 = m(f0, g7);
    let r9 = m(f0, g9);
    let f2 = f[2];
    let r3 = plus(r3, m(f2, g1));
    let r5 = plus(r5, m(f2, g3));
    let r7 = plus(r7, m(f2, g5));
    let r9 = plus(r9, m(f2, g7));
    let r1 = plus(r1, m(f2, g9_19));
    let f4 = f[4];
    let r5 = plus(r5, m(f4, g1));
    let r7 = plus(r7, m(f4, g3));
    let r9 = plus(r9, m(f4, g5));
    let r1 = plus(r1, m(f4, g7_19));
    let r3 = plus(r3, m(f4, g9_19));
    let f6 = f[6];
    let r7 = plus(r7, m(f6, g1));
    let r9 = plus(r9, m(f6, g3));
    let r1 = plus(r1, m(f6, g5_19));
    let r3 = plus(r3, m(f6, g7_19));
    let r5 = plus(r5, m(f6, g9_19));
    let f8 = f[8];
    let r9 = plus(r9, m(f8, g1));
    let r1 = plus(r1, m(f8, g3_19));
    let r3 = plus(r3, m(f8, g5_19));
    let r5 = plus(r5, m(f8, g7_19));
    let r7 = plus(r7, m(f8, g9_19));
    let g0 = g[0];
    let g2 = g[2];
    let g2_19 = m(g2, nineteen);
    let g4 = g[4];
    let g4_19 = m(g4, nineteen);
    let g6 = g[6];
    let g6_19 = m(g6, nineteen);
    let g8 = g[8];
    let g8_19 = m(g8, nineteen);
    let f1 = f[1];
    let r1 = plus(r1, m(f1, g0));
    let r3 = plus(r3, m(f1, g2));
    let r5 = plus(r5, m(f1, g4));
    let r7 = plus(r7, m(f1, g6));
    let r9 = plus(r9, m(f1, g8));
    let f3 = f[3];
    let r3 = plus(r3, m(f3, g0));
    let r5 = plus(r5, m(f3, g2));
    let r7 = plus(r7, m(f3, g4));
    let r9 = plus(r9, m(f3, g6));
    let r1 = plus(r1, m(f3, g8_19));
    let f5 = f[5];
    let r5 = plus(r5, m(f5, g0));
    let r7 = plus(r7, m(f5, g2));
    let r9 = plus(r9, m(f5, g4));
    let r1 = plus(r1, m(f5, g6_19));
    let r3 = plus(r3, m(f5, g8_19));
    let f7 = f[7];
    let r7 = plus(r7, m(f7, g0));
    let r9 = plus(r9, m(f7, g2));
    let r1 = plus(r1, m(f7, g4_19));
    let r3 = plus(r3, m(f7, g6_19));
    let r5 = plus(r5, m(f7, g8_19));
    let f9 = f[9];
    let r9 = plus(r9, m(f9, g0));
    let r1 = plus(r1, m(f9, g2_19));
    let r3 = plus(r3, m(f9, g4_19));
    let r5 = plus(r5, m(f9, g6_19));
    let r7 = plus(r7, m(f9, g8_19));
    carry([r0, r1, r2, r3, r4, r5, r6, r7, r8, r9])
}

/// See [`multiply`].
#[inline(never)]
#[target_feature(enable = "avx2")]
fn squared(f: &Ten) -> Ten {
    align_frame();
    let nineteen = constant(19);
    let f0 = f[0];
    let r0 = m(f0, f0);
    let f0_2 = double(f0);
    let f2 = f[2];
    let r2 = m(f0_2, f2);
    let f4 = f[4];
    let r4 = m(f0_2, f4);
    let f6 = f[6];
    let r6 = m(f0_2, f6);
    let f8 = f[8];
    let r8 = m(f0_2, f8);
    let r4 = plus(r4, m(f2, f2));
    let f2_2 = double(f2);
    let r6 = plus(r6, m(f2_2, f4));
    let r8 = plus(r8, m(f2_2, f6));
    let f8_19 = m(f8, nineteen);
    let r0 = plus(r0, m(f2_2, f8_19));
    let r8 = plus(r8, m(f4, f4));
    let f4_2 = double(f4);
    let f6_19 = m(f6, nineteen);
    let r0 = plus(r0, m(f4_2, f6_19));
    let r2 = plus(r2, m(f4_2, f8_19));
    let r2 = plus(r2, m(f6, f6_19));
    let f6_2 = double(f6);
    let r4 = plus(r4, m(f6_2, f8_19));
    let r6 = plus(r6, m(f8, f8_19));
    let f1 = f[1];
    let f1_2 = double(f1);
    let r2 = plus(r2, m(f1_2, f1));
    let f1_4 = double(f1_2);
    let f3 = f[3];
    let r4 = plus(r4, m(f1_4, f3));
    let f5 = f[5];
    let r6 = plus(r6, m(f1_4, f5));
    let f7 = f[7];
    let r8 = plus(r8, m(f1_4, f7));
    let f9 = f[9];
    let f9_19 = m(f9, nineteen);
    let r0 = plus(r0, m(f1_4, f9_19));
    let f3_2 = double(f3);
    let r6 = plus(r6, m(f3_2, f3));
    let f3_4 = double(f3_2);
    let r8 = plus(r8, m(f3_4, f5));
    let f7_19 = m(f7, nineteen);
    let r0 = plus(r0, m(f3_4, f7_19));
    let r2 = plus(r2, m(f3_4, f9_19));
    let f5_2 = double(f5);
    let f5_19 = m(f5, nineteen);
    let r0 = plus(r0, m(f5_2, f5_19));
    let f5_4 = double(f5_2);
    let r2 = plus(r2, m(f5_4, f7_19));
    let r4 = plus(r4, m(f5_4, f9_19));
    let f7_2 = double(f7);
    let r4 = plus(r4, m(f7_2, f7_19));
    let f7_4 = double(f7_2);
    let r6 = plus(r6, m(f7_4, f9_19));
    let f9_2 = double(f9);
    let r8 = plus(r8, m(f9_2, f9_19));
    let r1 = m(f0_2, f1);
    let r3 = m(f0_2, f3);
    let r5 = m(f0_2, f5);
    let r7 = m(f0_2, f7);
    let r9 = m(f0_2, f9);
    let r3 = plus(r3, m(f1_2, f2));
    let r5 = plus(r5, m(f2_2, f3));
    let r7 = plus(r7, m(f2_2, f5));
    let r9 = plus(r9, m(f2_2, f7));
    let r1 = plus(r1, m(f2_2, f9_19));
    let r5 = plus(r5, m(f1_2, f4));
    let r7 = plus(r7, m(f3_2, f4));
    let r9 = plus(r9, m(f4_2, f5));
    let r1 = plus(r1, m(f4_2, f7_19));
    let r3 = plus(r3, m(f4_2, f9_19));
    let r7 = plus(r7, m(f1_2, f6));
    let r9 = plus(r9, m(f3_2, f6));
    let r1 = plus(r1, m(f5_2, f6_19));
    let r3 = plus(r3, m(f6_2, f7_19));
    let r5 = plus(r5, m(f6_2, f9_19));
    let r9 = plus(r9, m(f1_2, f8));
    let r1 = plus(r1, m(f3_2, f8_19));
    let r3 = plus(r3, m(f5_2, f8_19));
    let r5 = plus(r5, m(f7_2, f8_19));
    let f8_2 = double(f8);
    let r7 = plus(r7, m(f8_2, f9_19));
    carry([r0, r1, r2, r3, r4, r5, r6, r7, r8, r9])
}

impl Lanes for Four {
    type Proof = Avx2;
    const LANES: usize = 4;
}

impl Field for Four {
    type Word = __m256i;
    type Mask = __m256i;
    type Packed = Packed;

    #[inline(always)]
    fn load(proof: Avx2, lanes: &[Limbs]) -> Self {
        let mut words = [[0; 4]; 10];
        for (at, lane) in lanes.iter().enumerate() {
            for (words, limb) in words.as_chunks_mut::<2>().0.iter_mut().zip(lane) {
                words[0][at] = limb & MASK26;
                words[1][at] = limb >> 26;
            }
        }
        Self(ten!(AT => Self::words(proof, &words[AT])))
    }

    #[inline(always)]
    fn store(self, lanes: &mut [Limbs]) {
        for at in 0..5 {
            // SAFETY: all are 32 bytes of integers, for which every pattern is a value.
            let (even, odd) = unsafe {
                (
                    core::mem::transmute::<__m256i, [u64; 4]>(self.0[2 * at]),
                    core::mem::transmute::<__m256i, [u64; 4]>(self.0[2 * at + 1]),
                )
            };
            for (lane, (even, odd)) in lanes.iter_mut().zip(even.into_iter().zip(odd)) {
                lane[at] = even + (odd << 26);
            }
        }
    }

    #[inline(always)]
    fn splat(_: Avx2, limbs: Limbs) -> Self {
        Self(
            ten!(AT => constant(if AT.is_multiple_of(2) { limbs[AT / 2] & MASK26 } else { limbs[AT / 2] >> 26 })),
        )
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(ten!(AT => plus(self.0[AT], other.0[AT])))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // Plus 2 p, so that no lane is negative.
        Self(ten!(AT => minus(plus(self.0[AT], times_p(2, AT)), other.0[AT])))
    }

    #[inline(always)]
    fn sub_wide(self, other: Self) -> Self {
        Self(carry_once(ten!(AT => minus(plus(self.0[AT], times_p(4, AT)), other.0[AT]))))
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
        Self(carry(ten!(AT => m(self.0[AT], factor))))
    }

    #[inline(always)]
    fn pack(self) -> Packed {
        Packed(five!(AT => isa!(
            _mm256_or_si256(self.0[2 * AT], _mm256_slli_epi64::<32>(self.0[2 * AT + 1]))
        )))
    }

    #[inline(always)]
    fn unpack(packed: Packed) -> Self {
        Self(ten!(AT => if AT.is_multiple_of(2) {
            // Whatever is in the upper half: a multiplication does not look at it, but an addition would.
            and(packed.0[AT / 2], constant(0xffff_ffff))
        } else {
            isa!(_mm256_srli_epi64::<32>(packed.0[AT / 2]))
        }))
    }

    #[inline(always)]
    fn words(_: Avx2, lanes: &[u64]) -> __m256i {
        let words: [u64; 4] = *lanes.first_chunk().expect("a word for each lane");
        // SAFETY: both are 32 bytes of integers, for which every pattern is a value.
        unsafe { core::mem::transmute::<[u64; 4], __m256i>(words) }
    }

    #[inline(always)]
    fn bit(word: __m256i, at: u32) -> __m256i {
        let bit = constant(1 << at);
        isa!(_mm256_cmpeq_epi64(and(word, bit), bit))
    }

    #[inline(always)]
    fn digit(words: &[__m256i; 4], at: u32) -> (__m256i, __m256i) {
        let sign = Self::bit(words[3], at);
        // Bits that differ from the sign are clear in the index: so it is 7 less what differs.
        let one = and(isa!(_mm256_xor_si256(Self::bit(words[0], at), sign)), constant(1));
        let two = and(isa!(_mm256_xor_si256(Self::bit(words[1], at), sign)), constant(2));
        let four = and(isa!(_mm256_xor_si256(Self::bit(words[2], at), sign)), constant(4));
        (minus(constant(7), plus(plus(one, two), four)), isa!(_mm256_xor_si256(sign, constant(u64::MAX))))
    }

    #[inline(always)]
    fn select(mask: __m256i, no: Self, yes: Self) -> Self {
        Self(ten!(AT => isa!(_mm256_blendv_epi8(no.0[AT], yes.0[AT], mask))))
    }

    #[inline(always)]
    fn look_up<const N: usize>(entries: &[[Packed; N]; 8], index: __m256i) -> [Packed; N] {
        let mut found = [Packed([constant(0); 5]); N];
        let mut at = 0;
        while at < 8 {
            let here = isa!(_mm256_cmpeq_epi64(index, constant(at as u64)));
            let mut coordinate = 0;
            while coordinate < N {
                let (sum, entry) = (&found[coordinate].0, &entries[at][coordinate].0);
                found[coordinate] = Packed(five!(AT => isa!(_mm256_or_si256(sum[AT], and(here, entry[AT])))));
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
    fn wipe_words(words: &mut [__m256i; 4]) {
        wipe(words);
    }
}

#[inline(always)]
fn wipe<const N: usize>(registers: &mut [__m256i; N]) {
    // SAFETY: a reference is valid for writes. Volatile, so that the compiler does not leave it out.
    unsafe { core::ptr::write_volatile(registers, [constant(0); N]) }
}
