//! Words in the lanes of registers, for hashes and ciphers: sixteen of 32 bits with AVX-512, eight and four of 64 bits
//! with AVX-512 and AVX2.

use core::arch::x86_64::*;

use super::{Avx2, Avx512};
use crate::blake2b::Word64;
use crate::chacha20::Word32;
use crate::erase::erase;
use crate::keccak::KeccakWord;
use crate::path::Lanes;
use crate::sha256::{LANES_MAX, Sha256, bytes_of_each, words_of_each};

/// Sixteen words of 32 bits. There are none without an [`Avx512`].
#[derive(Clone, Copy)]
pub(crate) struct Sixteen(__m512i);

/// Eight words of 64 bits. There are none without an [`Avx512`].
#[derive(Clone, Copy)]
pub(crate) struct EightWords(__m512i);

/// Four words of 64 bits. There are none without an [`Avx2`].
#[derive(Clone, Copy)]
pub(crate) struct FourWords(__m256i);

/// Calls intrinsics of the features that the proofs stand for.
macro_rules! isa {
    ($body:expr) => {
        // SAFETY: no value of the types of this module, nor a proof, exists unless an `Avx512` or `Avx2` was made, which
        // only detection of the features does; and no intrinsic in here reads or writes memory.
        unsafe { $body }
    };
}

impl Lanes for Sixteen {
    type Proof = Avx512;
    const LANES: usize = 16;
}

impl Lanes for EightWords {
    type Proof = Avx512;
    const LANES: usize = 8;
}

impl Lanes for FourWords {
    type Proof = Avx2;
    const LANES: usize = 4;
}

/// The constants of SHA-256 (FIPS 180-4, section 4.2.2).
const K: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// Truth tables for three operands: exclusive or, choice, majority, and what Keccak calls chi.
const XOR3: i32 = 0x96;
const CHI: i32 = 0xd2;
const CHOOSE: i32 = 0xca;
const MAJORITY: i32 = 0xe8;

#[inline(always)]
fn add32(a: __m512i, b: __m512i) -> __m512i {
    isa!(_mm512_add_epi32(a, b))
}

impl Sixteen {
    #[inline(always)]
    fn load(_: Avx512, lanes: [u32; 16]) -> Self {
        // SAFETY: both are 64 bytes of integers, for which every pattern is a value.
        Self(unsafe { core::mem::transmute::<[u32; 16], __m512i>(lanes) })
    }

    #[inline(always)]
    fn store(self) -> [u32; 16] {
        // SAFETY: both are 64 bytes of integers, for which every pattern is a value.
        unsafe { core::mem::transmute::<__m512i, [u32; 16]>(self.0) }
    }
}

impl Sha256 for Sixteen {
    #[inline(always)]
    fn splat(_: Avx512, word: u32) -> Self {
        Self(isa!(_mm512_set1_epi32(word.cast_signed())))
    }

    #[inline(always)]
    fn read<B: AsRef<[u8]>>(proof: Avx512, lanes: &[B], from: usize, words: &mut [Self]) {
        let mut block = [[0; LANES_MAX]; 16];
        words_of_each(lanes, from, &mut block[..words.len()]);
        let mut at = 0;
        while at < words.len() {
            words[at] = Self::load(proof, block[at]);
            at += 1;
        }
        erase(&mut block);
    }

    #[inline(always)]
    fn write<const O: usize>(hash: &[Self; 8], out: &mut [[u8; O]], from: usize, len: usize) {
        let mut words = [[0; LANES_MAX]; 8];
        let mut at = 0;
        while at < 8 {
            words[at] = hash[at].store();
            at += 1;
        }
        bytes_of_each(&words, out, from, len);
        erase(&mut words);
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(isa!(_mm512_xor_si512(self.0, other.0)))
    }

    #[inline(always)]
    fn compress(_: Avx512, state: &mut [Self; 8], block: &[Self; 16]) {
        #[inline(never)]
        #[target_feature(enable = "avx512f")]
        fn compress(state: &mut [Sixteen; 8], block: &[Sixteen; 16]) {
            let mut w = *block;
            let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
            let mut round = 0;
            while round < 64 {
                let mut step = 0;
                while step < 16 {
                    if round > 0 {
                        let (x, y) = (w[(step + 1) % 16].0, w[(step + 14) % 16].0);
                        let small0 = _mm512_ternarylogic_epi32::<XOR3>(
                            _mm512_ror_epi32::<7>(x),
                            _mm512_ror_epi32::<18>(x),
                            _mm512_srli_epi32::<3>(x),
                        );
                        let small1 = _mm512_ternarylogic_epi32::<XOR3>(
                            _mm512_ror_epi32::<17>(y),
                            _mm512_ror_epi32::<19>(y),
                            _mm512_srli_epi32::<10>(y),
                        );
                        let old = add32(w[step].0, w[(step + 9) % 16].0);
                        w[step] = Sixteen(add32(old, add32(small0, small1)));
                    }
                    let constant = _mm512_set1_epi32(K[round + step].cast_signed());
                    let big1 = _mm512_ternarylogic_epi32::<XOR3>(
                        _mm512_ror_epi32::<6>(e.0),
                        _mm512_ror_epi32::<11>(e.0),
                        _mm512_ror_epi32::<25>(e.0),
                    );
                    let choice = _mm512_ternarylogic_epi32::<CHOOSE>(e.0, f.0, g.0);
                    let t1 = add32(add32(h.0, add32(w[step].0, constant)), add32(big1, choice));
                    let big0 = _mm512_ternarylogic_epi32::<XOR3>(
                        _mm512_ror_epi32::<2>(a.0),
                        _mm512_ror_epi32::<13>(a.0),
                        _mm512_ror_epi32::<22>(a.0),
                    );
                    let majority = _mm512_ternarylogic_epi32::<MAJORITY>(a.0, b.0, c.0);
                    (h, g, f, e) = (g, f, e, Sixteen(add32(d.0, t1)));
                    (d, c, b, a) = (c, b, a, Sixteen(add32(t1, add32(big0, majority))));
                    step += 1;
                }
                round += 16;
            }
            let sums = [a, b, c, d, e, f, g, h];
            let mut at = 0;
            while at < 8 {
                state[at] = Sixteen(add32(state[at].0, sums[at].0));
                at += 1;
            }
        }
        isa!(compress(state, block));
    }
}

impl Word32 for Sixteen {
    #[inline(always)]
    fn splat32(proof: Avx512, word: u32) -> Self {
        Sha256::splat(proof, word)
    }

    #[inline(always)]
    fn numbers(proof: Avx512) -> Self {
        Self::load(proof, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    }

    #[inline(always)]
    fn add32(self, other: Self) -> Self {
        Self(add32(self.0, other.0))
    }

    #[inline(always)]
    fn xor32(self, other: Self) -> Self {
        Sha256::xor(self, other)
    }

    #[inline(always)]
    fn rotate32<const BITS: i32>(self) -> Self {
        Self(isa!(_mm512_rol_epi32::<BITS>(self.0)))
    }

    #[inline(always)]
    fn store_blocks(v: [Self; 16], out: &mut [[u8; 64]; 16]) {
        // A transposition: first of squares of 4 words within 128 bits, then of the squares.
        let mut rows = [v[0].0; 16];
        let mut group = 0;
        while group < 16 {
            let (a, b, c, d) = (v[group].0, v[group + 1].0, v[group + 2].0, v[group + 3].0);
            isa!({
                let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
                let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
                // In 128-bit part p of rows[group + i]: words group to group + 3 of lane 4 p + i.
                rows[group] = _mm512_unpacklo_epi64(ab_low, cd_low);
                rows[group + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
                rows[group + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
                rows[group + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
            });
            group += 4;
        }
        let mut i = 0;
        while i < 4 {
            let (a, b, c, d) = (rows[i], rows[4 + i], rows[8 + i], rows[12 + i]);
            let lanes = isa!({
                let (ab_low, ab_high) =
                    (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
                let (cd_low, cd_high) =
                    (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
                [
                    _mm512_shuffle_i32x4::<0x88>(ab_low, cd_low),
                    _mm512_shuffle_i32x4::<0xdd>(ab_low, cd_low),
                    _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
                    _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high),
                ]
            });
            let mut part = 0;
            while part < 4 {
                // SAFETY: both are 64 bytes of integers, for which every pattern is a value.
                out[4 * part + i] = unsafe { core::mem::transmute::<__m512i, [u8; 64]>(lanes[part]) };
                part += 1;
            }
            i += 1;
        }
    }
}

impl Word64 for EightWords {
    #[inline(always)]
    fn splat(_: Avx512, word: u64) -> Self {
        Self(isa!(_mm512_set1_epi64(word.cast_signed())))
    }

    #[inline(always)]
    fn load_block(_: Avx512, lanes: &[&[u8; 128]]) -> [Self; 16] {
        let mut words = [Self(isa!(_mm512_setzero_si512())); 16];
        let mut half = 0;
        while half < 2 {
            let mut rows = [words[0].0; 8];
            let mut lane = 0;
            while lane < 8 {
                let bytes: [u8; 64] = *lanes[lane][64 * half..].first_chunk().expect("half of a block");
                // SAFETY: both are 64 bytes of integers, for which every pattern is a value.
                rows[lane] = unsafe { core::mem::transmute::<[u8; 64], __m512i>(bytes) };
                lane += 1;
            }
            // A transposition: pairs of words within 128 bits, then of the 128-bit parts.
            let mut pairs = rows;
            let mut pair = 0;
            while pair < 4 {
                let (a, b) = (rows[2 * pair], rows[2 * pair + 1]);
                pairs[2 * pair] = isa!(_mm512_unpacklo_epi64(a, b));
                pairs[2 * pair + 1] = isa!(_mm512_unpackhi_epi64(a, b));
                pair += 1;
            }
            let mut odd = 0;
            while odd < 2 {
                let (a, b, c, d) = (pairs[odd], pairs[2 + odd], pairs[4 + odd], pairs[6 + odd]);
                isa!({
                    let (ab_low, ab_high) =
                        (_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xee>(a, b));
                    let (cd_low, cd_high) =
                        (_mm512_shuffle_i64x2::<0x44>(c, d), _mm512_shuffle_i64x2::<0xee>(c, d));
                    words[8 * half + odd] = Self(_mm512_shuffle_i64x2::<0x88>(ab_low, cd_low));
                    words[8 * half + 2 + odd] = Self(_mm512_shuffle_i64x2::<0xdd>(ab_low, cd_low));
                    words[8 * half + 4 + odd] = Self(_mm512_shuffle_i64x2::<0x88>(ab_high, cd_high));
                    words[8 * half + 6 + odd] = Self(_mm512_shuffle_i64x2::<0xdd>(ab_high, cd_high));
                });
                odd += 1;
            }
            half += 1;
        }
        words
    }

    #[inline(always)]
    fn store(self, lanes: &mut [u64]) {
        // SAFETY: both are 64 bytes of integers, for which every pattern is a value.
        lanes.copy_from_slice(&unsafe { core::mem::transmute::<__m512i, [u64; 8]>(self.0) });
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(isa!(_mm512_add_epi64(self.0, other.0)))
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(isa!(_mm512_xor_si512(self.0, other.0)))
    }

    #[inline(always)]
    fn rotate<const BITS: i32>(self) -> Self {
        Self(isa!(_mm512_ror_epi64::<BITS>(self.0)))
    }
}

impl Word64 for FourWords {
    #[inline(always)]
    fn splat(_: Avx2, word: u64) -> Self {
        Self(isa!(_mm256_set1_epi64x(word.cast_signed())))
    }

    #[inline(always)]
    fn load_block(_: Avx2, lanes: &[&[u8; 128]]) -> [Self; 16] {
        let mut words = [Self(isa!(_mm256_setzero_si256())); 16];
        let mut quarter = 0;
        while quarter < 4 {
            let mut rows = [words[0].0; 4];
            let mut lane = 0;
            while lane < 4 {
                let bytes: [u8; 32] = *lanes[lane][32 * quarter..].first_chunk().expect("part of a block");
                // SAFETY: both are 32 bytes of integers, for which every pattern is a value.
                rows[lane] = unsafe { core::mem::transmute::<[u8; 32], __m256i>(bytes) };
                lane += 1;
            }
            isa!({
                let (low01, high01) =
                    (_mm256_unpacklo_epi64(rows[0], rows[1]), _mm256_unpackhi_epi64(rows[0], rows[1]));
                let (low23, high23) =
                    (_mm256_unpacklo_epi64(rows[2], rows[3]), _mm256_unpackhi_epi64(rows[2], rows[3]));
                words[4 * quarter] = Self(_mm256_permute2x128_si256::<0x20>(low01, low23));
                words[4 * quarter + 1] = Self(_mm256_permute2x128_si256::<0x20>(high01, high23));
                words[4 * quarter + 2] = Self(_mm256_permute2x128_si256::<0x31>(low01, low23));
                words[4 * quarter + 3] = Self(_mm256_permute2x128_si256::<0x31>(high01, high23));
            });
            quarter += 1;
        }
        words
    }

    #[inline(always)]
    fn store(self, lanes: &mut [u64]) {
        // SAFETY: both are 32 bytes of integers, for which every pattern is a value.
        lanes.copy_from_slice(&unsafe { core::mem::transmute::<__m256i, [u64; 4]>(self.0) });
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(isa!(_mm256_add_epi64(self.0, other.0)))
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(isa!(_mm256_xor_si256(self.0, other.0)))
    }

    #[inline(always)]
    fn rotate<const BITS: i32>(self) -> Self {
        // Whole bytes are shuffled; 63 to the right is 1 to the left.
        const BY_24: [i8; 16] = [3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10];
        const BY_16: [i8; 16] = [2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9];
        Self(isa!(match BITS {
            32 => _mm256_shuffle_epi32::<0xb1>(self.0),
            24 | 16 => {
                let order = if BITS == 24 { BY_24 } else { BY_16 };
                // SAFETY: both are 16 bytes of integers, for which every pattern is a value.
                let order = core::mem::transmute::<[i8; 16], __m128i>(order);
                _mm256_shuffle_epi8(self.0, _mm256_broadcastsi128_si256(order))
            }
            _ => _mm256_or_si256(_mm256_srli_epi64::<63>(self.0), _mm256_add_epi64(self.0, self.0)),
        }))
    }
}

impl KeccakWord for EightWords {
    #[inline(always)]
    fn rotate_left<const BITS: i32>(self) -> Self {
        Self(isa!(_mm512_rol_epi64::<BITS>(self.0)))
    }

    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        Self(isa!(_mm512_ternarylogic_epi64::<XOR3>(self.0, b.0, c.0)))
    }

    #[inline(always)]
    fn chi(self, b: Self, c: Self) -> Self {
        Self(isa!(_mm512_ternarylogic_epi64::<CHI>(self.0, b.0, c.0)))
    }
}

impl KeccakWord for FourWords {
    #[inline(always)]
    fn rotate_left<const BITS: i32>(self) -> Self {
        // The numbers are constants to the compiler, which makes them part of the instructions.
        Self(isa!(_mm256_or_si256(
            _mm256_sll_epi64(self.0, _mm_cvtsi32_si128(BITS)),
            _mm256_srl_epi64(self.0, _mm_cvtsi32_si128(64 - BITS)),
        )))
    }

    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        self.xor(b).xor(c)
    }

    #[inline(always)]
    fn chi(self, b: Self, c: Self) -> Self {
        Self(isa!(_mm256_xor_si256(self.0, _mm256_andnot_si256(b.0, c.0))))
    }
}
