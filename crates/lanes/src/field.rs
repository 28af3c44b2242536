//! The field of p = 2^255 - 19, and what an implementation of it has to give.
//!
//! Formulas ([`edwards`](crate::edwards), [`montgomery`](crate::montgomery)) are written once, over [`Field`]; an
//! implementation holds one element in each lane of its registers.
//!
//! How far limbs may exceed their radix is a matter of three classes, the same for all implementations, so that a
//! formula that is right for one is right for all. Each implementation says what the classes mean for its limbs, and why
//! its operations keep to them.
//!
//! | class | comes from | goes into |
//! |---|---|---|
//! | tight | `load`, `mul`, `square`, `small` | everything |
//! | loose | `add`, `sub` | `mul`, `square`, `small`, `sub_wide` |
//! | wide | `sub_wide` | `mul`, `square` |

use crate::path::Lanes;

/// An element in five limbs of 51 bits, least first. Each is below 2^52.
pub(crate) type Limbs = [u64; 5];

/// The lower 51 bits.
pub(crate) const MASK51: u64 = (1 << 51) - 1;

/// Elements of the field, one per lane, and what the formulas compute with them.
///
/// Every operation takes the same time whatever the values are.
///
/// Formulas over it call no closures, and nothing that calls some: only what is inlined into a function with the vector
/// instructions may use them (see `vector`), and nobody promises that for a closure.
pub(crate) trait Field: Lanes {
    /// One 64-bit word per lane.
    type Word: Copy;
    /// One truth value per lane.
    type Mask: Copy;
    /// An element as it lies in a table, which may be denser.
    type Packed: Copy;

    /// Reads one element for each lane.
    fn load(proof: Self::Proof, lanes: &[Limbs]) -> Self;
    /// Writes the element of each lane. Tight.
    fn store(self, lanes: &mut [Limbs]);
    /// The same element in all lanes.
    fn splat(proof: Self::Proof, limbs: Limbs) -> Self;

    /// Tight plus tight is loose.
    fn add(self, other: Self) -> Self;
    /// Tight less tight is loose.
    fn sub(self, other: Self) -> Self;
    /// Loose less loose is wide.
    fn sub_wide(self, other: Self) -> Self;
    /// Of any class; tight.
    fn mul(self, other: Self) -> Self;
    /// Of any class; tight.
    fn square(self) -> Self;
    /// Multiplies a tight or loose element by a number below 2^17; tight.
    fn small(self, factor: u32) -> Self;

    /// Tight or loose.
    fn pack(self) -> Self::Packed;
    /// The class that it had.
    fn unpack(packed: Self::Packed) -> Self;

    /// Reads one word for each lane.
    fn words(proof: Self::Proof, lanes: &[u64]) -> Self::Word;
    /// Bit `at` of each word.
    fn bit(word: Self::Word, at: u32) -> Self::Mask;
    /// One digit of a signed comb (see [`edwards`](crate::edwards)): bit `at` of each of the four words is a sign.
    /// Gives the entry of the table, 0 to 7, and whether to negate it.
    fn digit(words: &[Self::Word; 4], at: u32) -> (Self::Word, Self::Mask);
    /// The second where the mask says so, else the first.
    fn select(mask: Self::Mask, no: Self, yes: Self) -> Self;
    /// In each lane, one of eight entries of a table, by an index below 8 that is secret: all entries are read.
    fn look_up<const N: usize>(entries: &[[Self::Packed; N]; 8], index: Self::Word) -> [Self::Packed; N];

    /// Overwrites an element that is not needed any more, and is secret.
    fn wipe(&mut self);
    /// The same for words.
    fn wipe_words(words: &mut [Self::Word; 4]);
}

/// Squares each so many times.
#[inline(always)]
fn square_times<F: Field, const N: usize>(mut powers: [F; N], times: u32) -> [F; N] {
    for _ in 0..times {
        let mut at = 0;
        while at < N {
            powers[at] = powers[at].square();
            at += 1;
        }
    }
    powers
}

#[inline(always)]
fn mul_each<F: Field, const N: usize>(mut a: [F; N], b: &[F; N]) -> [F; N] {
    let mut at = 0;
    while at < N {
        a[at] = a[at].mul(b[at]);
        at += 1;
    }
    a
}

/// x^(2^250 - 1), and x^11, of each.
#[inline(always)]
fn power_of_ones<F: Field, const N: usize>(x: &[F; N]) -> ([F; N], [F; N]) {
    let x2 = square_times(*x, 1);
    let x9 = mul_each(square_times(x2, 2), x);
    let x11 = mul_each(x2, &x9);
    let ones5 = mul_each(square_times(x11, 1), &x9);
    let ones10 = mul_each(square_times(ones5, 5), &ones5);
    let ones20 = mul_each(square_times(ones10, 10), &ones10);
    let ones40 = mul_each(square_times(ones20, 20), &ones20);
    let ones50 = mul_each(square_times(ones40, 10), &ones10);
    let ones100 = mul_each(square_times(ones50, 50), &ones50);
    let ones200 = mul_each(square_times(ones100, 100), &ones100);
    (mul_each(square_times(ones200, 50), &ones50), x11)
}

/// 1 / x = x^(p - 2) of each; 0 for 0.
///
/// A power is a chain in which each squaring waits for the one before: several chains side by side fill the waiting.
#[inline(always)]
pub(crate) fn invert<F: Field, const N: usize>(x: &[F; N]) -> [F; N] {
    let (ones250, x11) = power_of_ones(x);
    mul_each(square_times(ones250, 5), &x11)
}

/// x^((p - 5) / 8) of each.
#[inline(always)]
pub(crate) fn power_p58<F: Field, const N: usize>(x: &[F; N]) -> [F; N] {
    let (ones250, _) = power_of_ones(x);
    mul_each(square_times(ones250, 2), x)
}

/// Reads 255 bits, little-endian; the top bit is ignored, and the number may be p or more (RFC 7748, section 5).
pub(crate) fn limbs_of(bytes: &[u8; 32]) -> Limbs {
    let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("eight bytes from there"));
    [
        word(0) & MASK51,
        (word(6) >> 3) & MASK51,
        (word(12) >> 6) & MASK51,
        (word(19) >> 1) & MASK51,
        (word(24) >> 12) & MASK51,
    ]
}

/// The one number below p that a tight element stands for, little-endian.
pub(crate) fn bytes_of(limbs: &Limbs) -> [u8; 32] {
    let mut x = *limbs;
    // Twice: the first round leaves less than 2^255 + 2^18 in all, the second less than 2^255.
    for _ in 0..2 {
        for at in 0..4 {
            x[at + 1] += x[at] >> 51;
            x[at] &= MASK51;
        }
        let carry = x[4] >> 51;
        x[4] &= MASK51;
        x[0] += 19 * carry;
    }
    // Is it p or more? Then adding 19 carries out of 255 bits.
    let mut carry = 19;
    for limb in x {
        carry = (limb + carry) >> 51;
    }
    x[0] += 19 * carry;
    for at in 0..4 {
        x[at + 1] += x[at] >> 51;
        x[at] &= MASK51;
    }
    x[4] &= MASK51;
    let words =
        [x[0] | x[1] << 51, x[1] >> 13 | x[2] << 38, x[2] >> 26 | x[3] << 25, x[3] >> 39 | x[4] << 12];
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}
