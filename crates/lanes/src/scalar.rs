//! Scalars as the ladder and the comb want them.

use std::hint::black_box;

use crate::erase::erase;

/// Four words, least first.
pub(crate) type Words = [u64; 4];

/// The order of the prime subgroup, l = 2^252 + 27742317777372353535851937790883648493.
const ORDER: Words = [0x5812_631a_5cf5_d3ed, 0x14de_f9de_a2f7_9cd6, 0, 0x1000_0000_0000_0000];

/// The integer that X25519 multiplies by: a multiple of 8 with bit 254 set (RFC 7748, section 5).
pub(crate) fn clamped(bytes: &[u8; 32]) -> Words {
    let mut words = words_of(bytes);
    words[0] &= !7;
    words[3] &= u64::MAX >> 1;
    words[3] |= 1 << 62;
    words
}

/// The bits of the signs of a comb ([`edwards`](crate::edwards)) for an integer m below 2^253: m itself if it is odd,
/// else m + l, which is the same multiple of a point of order l.
pub(crate) fn comb_words(m: &Words) -> Words {
    let add_order = black_box((m[0] & 1).wrapping_sub(1));
    let mut odd = [0; 4];
    let mut carry = false;
    for ((odd, word), order) in odd.iter_mut().zip(m).zip(ORDER) {
        (*odd, carry) = word.carrying_add(order & add_order, carry);
    }
    // (m - 1) / 2 + 2^255, of an odd m below 2^254.
    let words = [
        odd[0] >> 1 | odd[1] << 63,
        odd[1] >> 1 | odd[2] << 63,
        odd[2] >> 1 | odd[3] << 63,
        odd[3] >> 1 | 1 << 63,
    ];
    erase(&mut odd);
    words
}

/// An eighth of a clamped integer: the comb's table is of 8 P, so that no part of small order is left in it.
pub(crate) fn eighth(clamped: &Words) -> Words {
    let [a, b, c, d] = *clamped;
    [a >> 3 | b << 61, b >> 3 | c << 61, c >> 3 | d << 61, d >> 3]
}

/// Reads 256 bits, little-endian.
pub(crate) fn words_of(bytes: &[u8; 32]) -> Words {
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*chunk);
    }
    words
}
